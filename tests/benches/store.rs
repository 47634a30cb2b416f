//! The peer store by size: bytes per peer as the kernel counts them (RSS) and as the store does, and
//! nanoseconds per announce and per sample at 1,000 and at 1,000,000 infohashes.
//!
//!     cargo bench -p harness --bench store
#![allow(clippy::unwrap_used)]

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use btdht::store::{Announced, Family, Store, Wanted};
use btdht::{Config, Rng, Time};
use krpc::Id;

fn main() {
    let words: Vec<String> = std::env::args().collect();
    if let [_, case, infohashes, peers] = words.as_slice()
        && case == "--case"
    {
        return run(infohashes.parse().unwrap(), peers.parse().unwrap());
    }
    println!(
        "{:>10} {:>10} {:>9} {:>9} {:>12} {:>12} {:>12}",
        "infohashes", "peers", "B (RSS)", "B (told)", "ns announce", "ns refresh", "ns values"
    );
    // A process each: memory that an earlier one gave back would hide what a later one takes.
    for (infohashes, peers) in [(1_000, 10), (100_000, 10), (1_000_000, 1), (1_000_000, 3)] {
        let mut case = Command::new(&words[0]);
        let status = case.args(["--case".to_owned(), infohashes.to_string(), peers.to_string()]).status();
        assert!(status.unwrap().success());
    }
}

fn run(infohashes: u32, peers: u32) {
    let mut rng = Rng::from_seed(1);
    let ids: Vec<Id> = (0..infohashes).map(|_| rng.id()).collect();
    let config = Config { store_memory: 1 << 28, infohashes_per_ip: 0, ..Config::default() };
    let before = resident();
    let mut store = Store::new(&Arc::new(config), &mut rng);
    let total = infohashes * peers;
    let peer = |n: u32| SocketAddr::from((Ipv4Addr::from(0x5500_0000 + n), 6881));
    let start = Instant::now();
    for n in 0..total {
        assert_eq!(
            store.announce(Time::ZERO, &ids[(n % infohashes) as usize], peer(n), false),
            Announced::Stored
        );
    }
    let announce = start.elapsed().as_nanos() as f64 / f64::from(total);
    let rss = (resident() - before) as f64 / f64::from(total);
    let rounds = 2_000_000;
    // In another order than they lie in memory, as in life.
    let mut order =
        (0..rounds).map(|_| rng.below(total as usize) as u32).collect::<Vec<_>>().into_iter().cycle();
    let start = Instant::now();
    for n in order.by_ref().take(rounds) {
        assert_eq!(
            store.announce(Time::ZERO, &ids[(n % infohashes) as usize], peer(n), false),
            Announced::Refreshed
        );
    }
    let refresh = start.elapsed().as_nanos() as f64 / rounds as f64;
    let mut out = Vec::new();
    let wanted = Wanted { family: Family::V4, max: 100, max_bytes: 800, no_seed: false };
    let start = Instant::now();
    for n in order.take(rounds) {
        out.clear();
        black_box(store.values(Time::ZERO, &ids[(n % infohashes) as usize], wanted, &mut rng, &mut out));
    }
    let values = start.elapsed().as_nanos() as f64 / rounds as f64;
    let told = store.memory() as f64 / f64::from(total);
    println!(
        "{infohashes:>10} {total:>10} {rss:>9.1} {told:>9.1} {announce:>12.0} {refresh:>12.0} {values:>12.0}"
    );
}

/// Bytes of memory that the process occupies.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
}
