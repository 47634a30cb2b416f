//! What a query costs in the core alone, in process, without a socket:
//!
//!     cargo build --release -p harness --bin serving_core
//!     serving_core [ROUNDS]                   nanoseconds per query of each kind
//!     serving_core KIND ROUNDS [INFOHASHES]   runs one kind, for counting instructions
//!     serving_core scale [--infohashes 1000000] [--repetitions 9] [--check]
//!     tests/bench/serving_core.py             instructions per query of each kind (needs valgrind)
//!
//! Kinds: ping, find_node, hit (get_peers of an infohash with ten peers), miss, announce. Limits are
//! lifted, the routing table is full, and 1,000 infohashes have ten peers each.
//!
//! `scale` compares a node that stores so many infohashes of ten peers with one that stores 1,000, in
//! CPU time of the thread: 250,000 different queries of each kind about infohashes drawn from all of them,
//! so that the caches hold little of what the larger store needs. The two nodes take turns, and each ratio
//! is of the same repetition. The goal concerns the mix of the serving benchmark; with
//! `--check` it fails where that is missed.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use btdht::Config;
use harness::strangers::{INFOHASHES, KINDS, World, unlimited};
use rustix::time::{ClockId, clock_gettime};

/// Parts of ten that a kind has in the mix, in the order of [`KINDS`].
const SHARES: [f64; 5] = [1.0, 4.0, 2.0, 2.0, 1.0];
/// Queries of each kind that `scale` asks in a repetition.
const ASKED: usize = 250_000;
/// What a store of a million infohashes may cost, in terms of one of a thousand.
const GOAL: f64 = 1.3;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => measure(1_000_000),
        ["scale", ref options @ ..] => scale(options),
        [rounds] => measure(number(rounds)),
        [kind, rounds] => {
            let mut world = World::new(unlimited(), 0);
            let queries = world.queries(kind);
            world.run(&queries, number(rounds));
        }
        [kind, rounds, infohashes] => {
            let mut world = World::storing(roomy(), number(infohashes));
            let queries = world.queries_about_any(kind, number(rounds));
            world.run(&queries, queries.len());
        }
        _ => panic!(
            "serving_core [ROUNDS] | serving_core KIND ROUNDS [INFOHASHES] | \
             serving_core scale [--infohashes N] [--repetitions N] [--check]"
        ),
    }
}

fn number(word: &str) -> usize {
    word.parse().unwrap_or_else(|_| panic!("{word}: not a number"))
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

/// Room for ten million peers of few sources; what one source announced is still counted.
fn roomy() -> Config {
    Config { store_memory: 512 << 20, infohashes_per_ip: 5_000, ..unlimited() }
}

fn scale(options: &[&str]) {
    let (mut infohashes, mut repetitions, mut check) = (1_000_000, 9, false);
    let mut options = options.iter();
    while let Some(&option) = options.next() {
        let mut value = || number(options.next().expect("a value"));
        match option {
            "--infohashes" => infohashes = value(),
            "--repetitions" => repetitions = value(),
            "--check" => check = true,
            _ => panic!("serving_core scale [--infohashes N] [--repetitions N] [--check]"),
        }
    }
    let mut sides = [INFOHASHES, infohashes].map(Side::new);
    // Nanoseconds of each kind, of each repetition, of each side.
    let mut nanos: [Vec<[f64; 5]>; 2] = Default::default();
    for _ in 0..repetitions {
        let mut of = [[0.0; 5]; 2];
        for kind in 0..KINDS.len() {
            for (side, of) in sides.iter_mut().zip(&mut of) {
                of[kind] = side.ask(kind);
            }
        }
        nanos.iter_mut().zip(of).for_each(|(nanos, of)| nanos.push(of));
    }
    let [few, many] = nanos;
    println!("ns of CPU a query: {INFOHASHES} infohashes, {infohashes}, their ratio (least to most)");
    for (kind, name) in KINDS.iter().enumerate() {
        row(name, &few, &many, |nanos| nanos[kind]);
    }
    let ratio = row("mix", &few, &many, |nanos| {
        nanos.iter().zip(SHARES).map(|(nanos, share)| nanos * share).sum::<f64>() / SHARES.iter().sum::<f64>()
    });
    let met = ratio <= GOAL;
    println!("goal {GOAL:.2}: {}", if met { "met" } else { "MISSED" });
    std::process::exit(i32::from(check && !met));
}

/// A node and what it is asked.
struct Side {
    world: World,
    /// Of each kind, in the order of [`KINDS`].
    queries: [Vec<(SocketAddr, Vec<u8>)>; 5],
}

impl Side {
    fn new(infohashes: usize) -> Self {
        let mut world = World::storing(roomy(), infohashes);
        let queries = KINDS.map(|kind| world.queries_about_any(kind, ASKED));
        Self { world, queries }
    }

    /// Asks everything of one kind once; nanoseconds of CPU a query.
    fn ask(&mut self, kind: usize) -> f64 {
        let before = cpu_time();
        self.world.run(&self.queries[kind], ASKED);
        (cpu_time() - before).as_nanos() as f64 / ASKED as f64
    }
}

/// Prints one line; the median of the ratios.
fn row(name: &str, few: &[[f64; 5]], many: &[[f64; 5]], of: impl Fn(&[f64; 5]) -> f64) -> f64 {
    let sorted = |values: &mut dyn Iterator<Item = f64>| {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        values
    };
    let ratios = sorted(&mut few.iter().zip(many).map(|(few, many)| of(many) / of(few)));
    let [few, many] = [few, many].map(|side| sorted(&mut side.iter().map(&of)));
    let middle = ratios.len() / 2;
    println!(
        "{name:9} {:6.0} {:6.0}   {:.2} ({:.2} to {:.2})",
        few[middle],
        many[middle],
        ratios[middle],
        ratios[0],
        ratios[ratios.len() - 1]
    );
    ratios[middle]
}

/// What this thread has run so far.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
