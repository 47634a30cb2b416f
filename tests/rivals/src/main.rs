//! A node of the crate `mainline`, for the interop tests and benchmarks.
//!
//!     rivals serve IP PORT [BOOTSTRAP ...]              runs a server node until killed
//!     rivals get-peers IP INFOHASH BOOTSTRAP ...        prints the peers that it finds, one a line
//!     rivals announce IP INFOHASH PORT BOOTSTRAP ...    announces and prints `stored`

// Its blocking calls are deprecated in favour of async ones; these programs do one thing at a time.
#![allow(deprecated)]

use std::net::Ipv4Addr;

use mainline::{Dht, Id};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["serve", ip, port, bootstrap @ ..] => {
            let dht = node(ip, port.parse().expect("a port"), bootstrap, true);
            println!("listening {}", dht.info().local_addr());
            println!("bootstrapped {}", dht.bootstrapped());
            loop {
                std::thread::park();
            }
        }
        ["get-peers", ip, infohash, bootstrap @ ..] => {
            let dht = node(ip, 0, bootstrap, false);
            dht.bootstrapped();
            for peers in dht.get_peers(id(infohash)) {
                peers.iter().for_each(|peer| println!("{peer}"));
            }
        }
        ["announce", ip, infohash, port, bootstrap @ ..] => {
            let dht = node(ip, 0, bootstrap, false);
            dht.bootstrapped();
            let port = port.parse().expect("a port");
            dht.announce_peer(id(infohash), Some(port)).expect("somebody stores it");
            println!("stored");
        }
        _ => panic!("rivals serve|get-peers|announce ..."),
    }
}

fn node(ip: &str, port: u16, bootstrap: &[&str], server: bool) -> Dht {
    let mut builder = Dht::builder();
    builder.bind_address(ip.parse::<Ipv4Addr>().expect("an IPv4 address")).port(port);
    if bootstrap.is_empty() {
        builder.no_bootstrap();
    } else {
        builder.bootstrap(bootstrap);
    }
    if server {
        builder.server_mode();
    }
    builder.build().expect("the node binds")
}

fn id(hex: &str) -> Id {
    hex.parse().expect("40 hexadecimal digits")
}
