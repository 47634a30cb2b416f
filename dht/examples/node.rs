//! A node in a program of one's own: joins the network, answers whoever asks, until Ctrl-C.
//! `cargo run --release -p btdht --example node -- PORT ROUTER:PORT [ROUTER:PORT]...`
//!
//! `btdht serve` does the same with state, diagnosis and shards.

use std::error::Error;
use std::net::{Ipv4Addr, Ipv6Addr};

use btdht::net::{Bind, Dht, Options};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let port: u16 = words.next().ok_or("usage: node PORT ROUTER:PORT [ROUTER:PORT]...")?.parse()?;
    let binds = vec![
        Bind { addr: (Ipv4Addr::UNSPECIFIED, port).into(), required: true },
        // Where the machine has no IPv6 the node does without.
        Bind { addr: (Ipv6Addr::UNSPECIFIED, port).into(), required: false },
    ];
    let dht = Dht::bind(Options { binds, bootstrap: words.collect(), ..Options::default() })?;
    for (addr, id) in dht.local_addrs().zip(dht.ids()) {
        println!("listening {addr} id {id}");
    }
    tokio::select! {
        nodes = dht.bootstrapped() => println!("joined: {} nodes", nodes?),
        stopped = tokio::signal::ctrl_c() => return Ok(stopped?),
    }
    tokio::signal::ctrl_c().await?;
    Ok(dht.shutdown().await?)
}
