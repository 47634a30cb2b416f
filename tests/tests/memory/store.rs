//! What a stored peer costs (PERFORMANCE.md, "Serving").

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use btdht::store::{Announced, Store, Striped};
use btdht::{Config, Rng, Time};
use harness::heap::Held;
use krpc::Id;

const PEERS: u32 = 1_000_000;

/// Bytes a peer of a million over 100,000 infohashes: as the allocator has them, and as the store knows. Its
/// budget is kept by its own count, which has to be the truth.
fn of_a_million<S>(
    make: impl FnOnce(&Config, &mut Rng) -> S,
    announce: impl Fn(&mut S, &Id, SocketAddr) -> Announced,
    memory: impl FnOnce(&S) -> usize,
) -> f64 {
    let mut rng = Rng::from_seed(1);
    let ids: Vec<Id> = (0..PEERS / 10).map(|_| rng.id()).collect();
    let before = Held::now();
    let mut store = make(&Config::default(), &mut rng);
    for n in 0..PEERS {
        let peer = SocketAddr::from((Ipv4Addr::from(0x5500_0000 + n), 6881));
        assert_eq!(announce(&mut store, &ids[n as usize % ids.len()], peer), Announced::Stored);
    }
    let bytes = before.since().bytes as f64 / f64::from(PEERS);
    let told = memory(&store) as f64 / f64::from(PEERS);
    println!("{bytes:.2} bytes a peer, of which the store knows {told:.2}");
    assert!((bytes / told - 1.0).abs() < 0.02, "{bytes} {told}");
    bytes
}

#[test]
fn million_peers_over_100_000_infohashes_take_fourteen_bytes_each() {
    let bytes = of_a_million(
        |config, rng| Store::new(&Arc::new(config.clone()), rng),
        |store, infohash, peer| store.announce(Time::ZERO, infohash, peer, false),
        Store::memory,
    );
    assert!(bytes <= 14.0, "{bytes}");
}

#[test]
fn million_peers_take_fourteen_bytes_each_in_the_stripes_of_a_node_with_shards() {
    let bytes = of_a_million(
        Striped::new,
        |stripes, infohash, peer| stripes.stripe(infohash).announce(Time::ZERO, infohash, peer, false),
        Striped::memory,
    );
    assert!(bytes <= 14.0, "{bytes}");
}

/// S11, and the worst that strangers can do beside: a hundred thousand infohashes from one address, then
/// more from others than the budget holds.
#[test]
fn infohashes_without_end_stay_within_the_budget() {
    let config = Arc::new(Config::default());
    let mut rng = Rng::from_seed(2);
    let before = Held::now();
    let mut store = Store::new(&config, &mut rng);
    let greedy = SocketAddr::from((Ipv4Addr::new(81, 2, 3, 4), 6881));
    for _ in 0..100_000 {
        store.announce(Time::ZERO, &rng.id(), greedy, false);
    }
    let of_one = before.since().bytes;
    assert_eq!(store.len(), config.infohashes_per_ip);
    let (mut most, mut sources) = (of_one, 0u32);
    // Twice as many as there is room for: the second half goes in place of the first.
    let mut full_at = None;
    while full_at.is_none_or(|full: u32| sources < 2 * full) {
        let peer = SocketAddr::from((Ipv4Addr::from(0x5500_0000 + sources), 6881));
        let stored = store.len();
        assert_eq!(store.announce(Time::from_secs(1), &rng.id(), peer, false), Announced::Stored);
        sources += 1;
        if store.len() <= stored {
            full_at.get_or_insert(sources);
        }
        most = most.max(before.since().bytes);
    }
    println!("{of_one} bytes of one source; {most} at most, with {} peers at the end", store.len());
    assert!(of_one <= 1 << 20, "{of_one}");
    let budget = config.store_memory as isize;
    assert!(most <= budget + budget / 50, "{most}");
    assert!(most >= budget - budget / 5, "it was not full: {most}");
}
