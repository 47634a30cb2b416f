//! What a query costs in the core alone, in process, without a socket:
//!
//!     cargo build --release -p harness --bin serving_core
//!     serving_core [ROUNDS]                   nanoseconds per query of each kind
//!     serving_core KIND ROUNDS                runs one kind, for counting instructions
//!     tests/bench/serving_core.py             instructions per query of each kind (needs valgrind)
//!
//! Kinds: ping, find_node, hit (get_peers of an infohash with ten peers), miss, announce. Limits are
//! lifted, the routing table is full, and 1,000 infohashes have ten peers each.

use std::time::Instant;

use harness::strangers::{KINDS, World, unlimited};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => measure(1_000_000),
        [rounds] => measure(rounds.parse().expect("a number of rounds")),
        [kind, rounds] => {
            let mut world = World::new(unlimited(), 0);
            let queries = world.queries(kind);
            world.run(&queries, rounds.parse().expect("a number of rounds"));
        }
        _ => panic!("serving_core [ROUNDS] | serving_core KIND ROUNDS"),
    }
}

fn measure(rounds: usize) {
    let mut world = World::new(unlimited(), 0);
    for kind in KINDS {
        let queries = world.queries(kind);
        world.run(&queries, rounds / 10);
        let started = Instant::now();
        world.run(&queries, rounds);
        println!("{kind:9} {:6.0} ns a query", started.elapsed().as_nanos() as f64 / rounds as f64);
    }
}
