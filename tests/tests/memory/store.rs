//! What a stored peer costs (PERFORMANCE.md, "Serving").

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use btdht::store::{Announced, Store};
use btdht::{Config, Rng, Time};
use harness::heap::Held;
use krpc::Id;

#[test]
fn million_peers_over_100_000_infohashes_take_fourteen_bytes_each() {
    const PEERS: u32 = 1_000_000;
    let mut rng = Rng::from_seed(1);
    let ids: Vec<Id> = (0..PEERS / 10).map(|_| rng.id()).collect();
    let before = Held::now();
    let mut store = Store::new(&Arc::new(Config::default()), &mut rng);
    for n in 0..PEERS {
        let peer = SocketAddr::from((Ipv4Addr::from(0x5500_0000 + n), 6881));
        let announced = store.announce(Time::ZERO, &ids[n as usize % ids.len()], peer, false);
        assert_eq!(announced, Announced::Stored);
    }
    let bytes = before.since().bytes as f64 / f64::from(PEERS);
    let told = store.memory() as f64 / f64::from(PEERS);
    println!("{bytes:.2} bytes a peer, of which the store knows {told:.2}");
    assert!(bytes <= 14.0, "{bytes}");
    // The budget of the store is kept by its own count, which has to be the truth.
    assert!((bytes / told - 1.0).abs() < 0.02, "{bytes} {told}");
}
