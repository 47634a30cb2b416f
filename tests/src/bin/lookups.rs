//! Lookups in a virtual network of ten million nodes, beside the oracle and the goals: time to the first
//! peer, queries, share of the closest nodes reached, time until over, cold and warm.
//!
//!     cargo run --release -p harness --bin lookups
//!     cargo run --release -p harness --bin lookups -- --lookups 200 --seed 2
//!     cargo run --release -p harness --bin lookups -- --slow 900
//!     cargo run --release -p harness --bin lookups -- --check
//!
//! `--slow` prints each step of the cold lookups whose first peer came later than so many milliseconds.
//!
//! All times are virtual, so a figure depends on the seed and the code and on nothing else; `--check`
//! fails when one is worse than what this code reached when it was measured.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use btdht::{Config, Rng};
use harness::lookups::network::{K, Network};
use harness::lookups::oracle::{self, Bound};
use harness::lookups::run::{Measured, Run};
use krpc::Id;

/// The age of a warm node.
const WARM: Duration = Duration::from_secs(20);

/// What one infohash came to.
struct Sample {
    cold: Measured,
    /// The same from another fresh node, with an announce.
    announced: Measured,
    warm: Measured,
    /// The warm node asked once more for the same.
    repeat: Measured,
    cold_bound: Bound,
    warm_bound: Bound,
}

/// A figure: its name, what it is, its goals, and the worst value that `--check` accepts at the
/// standard size and seed.
struct Figure {
    name: &'static str,
    value: f64,
    goal: f64,
    moonshot: f64,
    /// What it may not be worse than; higher is better where `rising`.
    bar: f64,
    rising: bool,
    note: String,
}

/// All samples in the order of their seeds, made by as many threads as there are cores: each depends on
/// its seed alone.
fn samples(network: &Network, config: &Arc<Config>, seed: u64, lookups: u64) -> Vec<Sample> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    std::thread::scope(|scope| {
        let shares: Vec<_> = (0..threads)
            .map(|share| (lookups * share / threads)..(lookups * (share + 1) / threads))
            .map(|numbers| {
                let sampled = move |n| sample(network, config, seed << 32 | n);
                scope.spawn(move || numbers.map(sampled).collect::<Vec<_>>())
            })
            .collect();
        shares.into_iter().flat_map(|share| share.join().unwrap()).collect()
    })
}

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let number = |flag: &str, default: u64| {
        let at = words.iter().position(|word| word == flag);
        at.map_or(default, |at| words[at + 1].parse().unwrap())
    };
    let (nodes, lookups) = (number("--nodes", 10_000_000) as usize, number("--lookups", 1000));
    let seed = number("--seed", 1);
    let made = Instant::now();
    let network = Network::new(nodes, seed);
    println!("{nodes} nodes, seed {seed}, made in {:.1} s", made.elapsed().as_secs_f64());

    let config = Arc::new(Config::default());
    let began = Instant::now();
    let samples = samples(&network, &config, seed, lookups);
    println!("{lookups} infohashes looked for in {:.1} s", began.elapsed().as_secs_f64());

    if words.iter().any(|word| word == "--slow") {
        trace_slow(&network, &config, seed, &samples, number("--slow", 1000));
    }
    let figures = figures(&samples);
    println!("\n{:44} {:>8} {:>8} {:>8}  detail", "figure", "reached", "must", "moonshot");
    for figure in &figures {
        let [must, moonshot] = [figure.goal, figure.moonshot].map(|goal| match goal.is_finite() {
            true => goal.to_string(),
            false => String::new(),
        });
        println!("{:44} {:>8.3} {must:>8} {moonshot:>8}  {}", figure.name, figure.value, figure.note);
    }
    if words.iter().any(|word| word == "--check") {
        check(&figures);
    }
}

fn sample(network: &Network, config: &Arc<Config>, number: u64) -> Sample {
    let mut rng = Rng::from_seed(number);
    let (infohash, other): (Id, Id) = (rng.id(), rng.id());
    let cold = Run::new(network, config, number).look(infohash, false);
    let announced = Run::new(network, config, number).look(infohash, true);
    let mut run = Run::new(network, config, number);
    run.pass(WARM);
    let warm = run.look(other, false);
    run.pass(WARM);
    let repeat = run.look(other, false);
    Sample {
        cold,
        announced,
        warm,
        repeat,
        cold_bound: oracle::cold(network, &infohash, &mut rng),
        warm_bound: oracle::warm(network, &other, (&run.id(), &config.wide_buckets), &mut rng),
    }
}

/// Prints the steps of the cold lookups whose first peer came later than `millis`.
fn trace_slow(network: &Network, config: &Arc<Config>, seed: u64, samples: &[Sample], millis: u64) {
    let slow = |sample: &Sample| sample.cold.first_peer.is_none_or(|time| time.as_millis() > millis.into());
    for (n, _) in samples.iter().enumerate().filter(|(_, sample)| slow(sample)) {
        let number = seed << 32 | n as u64;
        println!("\ninfohash {n}:");
        Run::new(network, config, number).traced().look(Rng::from_seed(number).id(), false);
    }
}

fn figures(samples: &[Sample]) -> Vec<Figure> {
    let mut figures = cold(samples);
    figures.extend(warm(samples));
    figures
}

/// Figures of fresh nodes that know a router. The last number of each is the worst that `--check` accepts at
/// the standard size and seed: what was reached and 3 % for changes that move the random numbers, but never
/// beyond the goal.
fn cold(samples: &[Sample]) -> Vec<Figure> {
    let first = spread(samples, |s| millis(s.cold.first_peer));
    let first_bound = spread(samples, |s| millis(Some(s.cold_bound.first_peer)));
    let closest = spread(samples, |s| millis(Some(s.cold.closest)));
    let closest_bound = spread(samples, |s| millis(Some(s.cold_bound.closest)));
    let done = spread(samples, |s| millis(Some(s.cold.done)));
    let stored = spread(samples, |s| millis(s.announced.stored));
    let get_peers = spread(samples, |s| f64::from(s.cold.get_peers));
    let queries = spread(samples, |s| s.cold.queries as f64);
    let hops = mean(samples, |s| f64::from(s.cold.hops));
    let late = mean(samples, |s| f64::from(u8::from(millis(s.cold.first_peer) > 1000.0)));
    let reached = |of: usize| mean(samples, |s| f64::from(u8::from(s.cold.reached >= of)));
    vec![
        Figure::new("cold, first peer, median / oracle", first[0] / first_bound[0], (1.30, 1.15), 1.30)
            .note(format!("{} ms, oracle {}", told(&first), told(&first_bound))),
        Figure::new("cold, first peer, p90 / oracle", first[1] / first_bound[1], (1.45, 1.20), 1.42),
        Figure::new("cold, get_peers", mean(samples, |s| f64::from(s.cold.get_peers)), (80.0, 100.0), 80.0)
            .note(format!("{}; all queries {}; {hops:.1} hops", told(&get_peers), told(&queries))),
        Figure::new(
            "cold, last of the closest that answered, median / oracle of all",
            closest[0] / closest_bound[0],
            (1.5, 1.15),
            1.37,
        )
        .note(format!("{} ms, oracle {}", told(&closest), told(&closest_bound))),
        Figure::new(
            "cold, last of the closest that answered, p90 / oracle of all",
            closest[1] / closest_bound[1],
            (1.8, 1.3),
            1.41,
        ),
        Figure::new(
            "cold, share of the true 8 closest reached",
            share(samples, |s| &s.cold),
            (0.95, 0.99),
            0.95,
        )
        .rising()
        .note(format!("all 8 in {:.2} of the lookups, 7 in {:.2}", reached(8), reached(7))),
        Figure::new("cold, done, median, s", done[0] / 1000.0, (1.0, 0.70), 0.98)
            .note(format!("{} ms", told(&done))),
        Figure::new("cold, done, p90, s", done[1] / 1000.0, (1.4, 0.9), 1.28),
        Figure::new("cold, announce stored, median, s", stored[0] / 1000.0, (1.5, 0.9), 1.30)
            .note(format!("{} ms", told(&stored))),
        Figure::new("cold, first peer over 1 s, share", late, (0.0, 0.0), 0.0),
    ]
}

/// Figures of nodes that have run for [`WARM`], and of their second lookup of the same infohash.
fn warm(samples: &[Sample]) -> Vec<Figure> {
    let first = spread(samples, |s| millis(s.warm.first_peer));
    let first_bound = spread(samples, |s| millis(Some(s.warm_bound.first_peer)));
    let done = spread(samples, |s| millis(Some(s.warm.done)));
    let get_peers = spread(samples, |s| f64::from(s.warm.get_peers));
    let again = spread(samples, |s| millis(s.repeat.first_peer));
    let again_get_peers = spread(samples, |s| f64::from(s.repeat.get_peers));
    vec![
        Figure::new("warm, first peer, median / oracle", first[0] / first_bound[0], (1.45, 1.25), 1.44)
            .note(format!("{} ms, oracle {}", told(&first), told(&first_bound))),
        Figure::new("warm, first peer, p90 / oracle", first[1] / first_bound[1], (1.65, 1.35), 1.65),
        Figure::new("warm, get_peers", mean(samples, |s| f64::from(s.warm.get_peers)), (65.0, 80.0), 65.0)
            .note(format!(
                "{}; share {:.3}, done {} ms",
                told(&get_peers),
                share(samples, |s| &s.warm),
                told(&done)
            )),
        Figure::new("repeated, first peer, median, ms", again[0], (f64::INFINITY, f64::INFINITY), 50.0).note(
            format!(
                "{} ms; get_peers {}; share {:.3}",
                told(&again),
                told(&again_get_peers),
                share(samples, |s| &s.repeat)
            ),
        ),
    ]
}

impl Figure {
    fn new(name: &'static str, value: f64, (goal, moonshot): (f64, f64), bar: f64) -> Self {
        Self { name, value, goal, moonshot, bar, rising: false, note: String::new() }
    }

    fn rising(self) -> Self {
        Self { rising: true, ..self }
    }

    fn note(self, note: String) -> Self {
        Self { note, ..self }
    }
}

/// Milliseconds; for ever when it never came.
fn millis(time: Option<Duration>) -> f64 {
    time.map_or(f64::INFINITY, |time| time.as_secs_f64() * 1000.0)
}

/// Median, 90th and 99th percentile.
fn spread(samples: &[Sample], of: impl Fn(&Sample) -> f64) -> [f64; 3] {
    let mut values: Vec<f64> = samples.iter().map(of).collect();
    values.sort_unstable_by(f64::total_cmp);
    [0.5, 0.9, 0.99].map(|share| values[(values.len() as f64 * share) as usize])
}

fn mean(samples: &[Sample], of: impl Fn(&Sample) -> f64) -> f64 {
    samples.iter().map(of).sum::<f64>() / samples.len() as f64
}

fn share(samples: &[Sample], of: impl Fn(&Sample) -> &Measured) -> f64 {
    mean(samples, |s| of(s).reached as f64 / K as f64)
}

fn told(times: &[f64; 3]) -> String {
    format!("{:.0}/{:.0}/{:.0}", times[0], times[1], times[2])
}

fn check(figures: &[Figure]) {
    let worse = figures.iter().filter(|f| if f.rising { f.value < f.bar } else { f.value > f.bar });
    let worse: Vec<String> =
        worse.map(|f| format!("{}: {:.3}, expected {:.3} or better", f.name, f.value, f.bar)).collect();
    if !worse.is_empty() {
        eprintln!("worse than before:\n{}", worse.join("\n"));
        std::process::exit(1);
    }
    println!("no figure is worse than before");
}
