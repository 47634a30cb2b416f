//! Nodes of the crates `mainline` and `librqbit-dht`, for the interop tests and benchmarks.
//!
//!     rivals serve IP PORT [BOOTSTRAP ...]              runs a server node until killed
//!     rivals serve-rqbit IP:PORT BOOTSTRAP ...          runs a node of rqbit that stores what it is given
//!     rivals get-peers IP INFOHASH BOOTSTRAP ...        prints the peers that it finds, one a line
//!     rivals announce IP INFOHASH PORT BOOTSTRAP ...    announces and prints `stored`
//!     rivals put IP TEXT BOOTSTRAP ...                  puts an immutable item, prints its target
//!     rivals get IP TARGET BOOTSTRAP ...                prints an immutable item, a string
//!     rivals put-signed IP SEED SALT SEQ TEXT BOOTSTRAP ...  puts a mutable item, prints its target
//!     rivals get-signed IP PUBKEY SALT BOOTSTRAP ...    prints the newest version: number and string
//!
//! Seeds, keys and ids are in hexadecimal, salts and values are texts: this crate's values are strings.

// Its blocking calls are deprecated in favour of async ones; these programs do one thing at a time.
#![allow(deprecated)]

use std::net::Ipv4Addr;

use mainline::{Dht, Id, MutableItem, SigningKey};

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
        ["serve-rqbit", listen, bootstrap @ ..] => serve_rqbit(listen, bootstrap),
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
        ["put", ip, text, bootstrap @ ..] => {
            let dht = node(ip, 0, bootstrap, false);
            dht.bootstrapped();
            println!("{}", dht.put_immutable(text.as_bytes()).expect("somebody stores it"));
        }
        ["get", ip, target, bootstrap @ ..] => {
            let dht = node(ip, 0, bootstrap, false);
            dht.bootstrapped();
            let value = dht.get_immutable(id(target)).expect("somebody has it");
            println!("{}", String::from_utf8_lossy(&value));
        }
        ["put-signed", ip, seed, salt, seq, text, bootstrap @ ..] => {
            let dht = node(ip, 0, bootstrap, false);
            dht.bootstrapped();
            let key = SigningKey::from_bytes(&bytes32(seed));
            let seq = seq.parse().expect("a number");
            let item = MutableItem::new(key, text.as_bytes(), seq, Some(salt.as_bytes()));
            println!("{}", dht.put_mutable(item, None).expect("somebody stores it"));
        }
        ["get-signed", ip, key, salt, bootstrap @ ..] => {
            let dht = node(ip, 0, bootstrap, false);
            dht.bootstrapped();
            let item = dht.get_mutable_most_recent(&bytes32(key), Some(salt.as_bytes()));
            let item = item.expect("somebody has it");
            println!("{} {}", item.seq(), String::from_utf8_lossy(item.value()));
        }
        _ => panic!("rivals serve|serve-rqbit|get-peers|announce|put|get|put-signed|get-signed ..."),
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
        // As shipped it stores peers of 2,000 infohashes.
        let max_info_hashes = 2_000_000;
        builder.server_mode();
        builder.server_settings(mainline::ServerSettings { max_info_hashes, ..Default::default() });
    }
    builder.build().expect("the node binds")
}

/// As shipped it stores 1,000 peers of infohashes that are next to its own id: both caps are lifted. They
/// have no setter but are part of what it saves.
fn serve_rqbit(listen: &str, bootstrap: &[&str]) {
    let own = librqbit_dht::Id20::new(*b"rqbit seen by others");
    let store = serde_json::json!({
        "self_id": own.as_string(), "max_distance": "f".repeat(40), "tokens": [], "peers": {},
        "max_remembered_tokens": 1000, "max_remembered_peers": 2_000_000_000,
    });
    let config = librqbit_dht::DhtConfig {
        peer_id: Some(own),
        listen_addr: Some(listen.parse().expect("an address and a port")),
        bootstrap_addrs: Some(bootstrap.iter().map(|&router| router.to_owned()).collect()),
        peer_store: Some(serde_json::from_value(store).expect("what it would save")),
        ..Default::default()
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads");
    let _dht = runtime.block_on(librqbit_dht::DhtBuilder::with_config(config)).expect("the node binds");
    println!("listening {listen}");
    loop {
        std::thread::park();
    }
}

fn id(hex: &str) -> Id {
    hex.parse().expect("40 hexadecimal digits")
}

fn bytes32(hex: &str) -> [u8; 32] {
    assert_eq!(hex.len(), 64, "64 hexadecimal digits");
    std::array::from_fn(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).expect("hexadecimal digits"))
}
