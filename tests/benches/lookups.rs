//! Lookups in a virtual network of ten million nodes, beside the oracle and the goals: time to the first
//! peer, queries, share of the closest nodes reached, time until over, cold and warm.
//!
//!     cargo bench -p harness --bench lookups
//!     cargo bench -p harness --bench lookups -- --lookups 1000 --seed 2
//!     cargo bench -p harness --bench lookups -- --check
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

/// A figure: its name, what it is, its goal, and the worst value that `--check` accepts at the
/// standard size and seed.
struct Figure {
    name: &'static str,
    value: f64,
    goal: Option<f64>,
    /// What it may not be worse than; higher is better where `rising`.
    bar: f64,
    rising: bool,
    note: String,
}

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let number = |flag: &str, default: u64| {
        let at = words.iter().position(|word| word == flag);
        at.map_or(default, |at| words[at + 1].parse().unwrap())
    };
    let (nodes, lookups) = (number("--nodes", 10_000_000) as usize, number("--lookups", 200));
    let seed = number("--seed", 1);
    let made = Instant::now();
    let network = Network::new(nodes, seed);
    println!("{nodes} nodes, seed {seed}, made in {:.1} s", made.elapsed().as_secs_f64());

    let config = Arc::new(Config::default());
    let began = Instant::now();
    let samples: Vec<Sample> = (0..lookups).map(|n| sample(&network, &config, seed << 32 | n)).collect();
    println!("{lookups} infohashes looked for in {:.1} s", began.elapsed().as_secs_f64());

    let figures = figures(&samples);
    println!("\n{:44} {:>8} {:>8}  detail", "figure", "reached", "goal");
    for figure in &figures {
        let goal = figure.goal.map_or(String::new(), |goal| format!("{goal}"));
        println!("{:44} {:>8.3} {goal:>8}  {}", figure.name, figure.value, figure.note);
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

fn figures(samples: &[Sample]) -> Vec<Figure> {
    let first = |of: &Measured| of.first_peer.unwrap_or(Duration::MAX);
    let cold = spread(samples, |s| first(&s.cold));
    let cold_bound = spread(samples, |s| s.cold_bound.first_peer);
    let closest = spread(samples, |s| s.cold.closest);
    let closest_bound = spread(samples, |s| s.cold_bound.closest);
    let done = spread(samples, |s| s.cold.done);
    let stored = spread(samples, |s| s.announced.stored.unwrap_or(Duration::MAX));
    let warm = spread(samples, |s| first(&s.warm));
    let warm_bound = spread(samples, |s| s.warm_bound.first_peer);
    let repeat = spread(samples, |s| first(&s.repeat));
    let mean = |of: &dyn Fn(&Sample) -> f64| samples.iter().map(of).sum::<f64>() / samples.len() as f64;
    let late = samples.iter().filter(|s| first(&s.cold) > Duration::from_secs(1)).count();

    let ratio = |of: f64, to: f64| of / to;
    let against = |of: &[f64; 3], to: &[f64; 3]| format!("{} ms, oracle {}", told(of), told(to));
    let falling = |name, value, goal, bar, note| Figure { name, value, goal, bar, rising: false, note };
    let ms = |times: &[f64; 3]| format!("{} ms", told(times));
    vec![
        falling(
            "cold, first peer, median / oracle",
            ratio(cold[0], cold_bound[0]),
            Some(1.30),
            BARS[0],
            against(&cold, &cold_bound),
        ),
        falling(
            "cold, first peer, p90 / oracle",
            ratio(cold[1], cold_bound[1]),
            Some(1.45),
            BARS[1],
            String::new(),
        ),
        falling(
            "cold, get_peers",
            mean(&|s| f64::from(s.cold.get_peers)),
            Some(80.0),
            BARS[2],
            format!(
                "{:.0} queries of all kinds, {:.1} hops",
                mean(&|s| s.cold.queries as f64),
                mean(&|s| f64::from(s.cold.hops))
            ),
        ),
        falling(
            "cold, closest answered, median / oracle",
            ratio(closest[0], closest_bound[0]),
            Some(1.5),
            BARS[3],
            against(&closest, &closest_bound),
        ),
        falling(
            "cold, closest answered, p90 / oracle",
            ratio(closest[1], closest_bound[1]),
            Some(1.8),
            BARS[4],
            String::new(),
        ),
        Figure {
            name: "cold, share of the true 8 closest reached",
            value: mean(&|s| s.cold.reached as f64 / K as f64),
            goal: Some(0.95),
            bar: BARS[5],
            rising: true,
            note: String::new(),
        },
        falling("cold, done, median, s", done[0] / 1000.0, Some(1.0), BARS[6], ms(&done)),
        falling("cold, done, p90, s", done[1] / 1000.0, Some(1.4), BARS[7], String::new()),
        falling("cold, announce stored, median, s", stored[0] / 1000.0, Some(1.5), BARS[8], ms(&stored)),
        falling(
            "cold, first peer over 1 s, share",
            late as f64 / samples.len() as f64,
            Some(0.0),
            BARS[9],
            String::new(),
        ),
        falling(
            "warm, first peer, median / oracle",
            ratio(warm[0], warm_bound[0]),
            Some(1.45),
            BARS[10],
            against(&warm, &warm_bound),
        ),
        falling(
            "warm, first peer, p90 / oracle",
            ratio(warm[1], warm_bound[1]),
            Some(1.65),
            BARS[11],
            String::new(),
        ),
        falling(
            "warm, get_peers",
            mean(&|s| f64::from(s.warm.get_peers)),
            Some(65.0),
            BARS[12],
            format!(
                "share {:.3}, done {}",
                mean(&|s| s.warm.reached as f64 / K as f64),
                ms(&spread(samples, |s| s.warm.done))
            ),
        ),
        falling(
            "repeated, first peer, median, ms",
            repeat[0],
            None,
            BARS[13],
            format!(
                "{}; {:.0} get_peers, share {:.3}",
                ms(&repeat),
                mean(&|s| f64::from(s.repeat.get_peers)),
                mean(&|s| s.repeat.reached as f64 / K as f64)
            ),
        ),
    ]
}

/// The worst that `--check` accepts, figure by figure, at the standard size and seed.
///
/// What was reached, and 3 % for changes that move the random numbers.
const BARS: [f64; 14] = [1.30, 1.44, 82.5, 1.37, 1.39, 0.945, 1.00, 1.38, 1.33, 0.0, 1.48, 1.70, 67.0, 50.0];

/// Median, 90th and 99th percentile in milliseconds.
fn spread(samples: &[Sample], of: impl Fn(&Sample) -> Duration) -> [f64; 3] {
    let mut times: Vec<Duration> = samples.iter().map(of).collect();
    times.sort_unstable();
    [0.5, 0.9, 0.99].map(|share| times[(times.len() as f64 * share) as usize].as_secs_f64() * 1000.0)
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
