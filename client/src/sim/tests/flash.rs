//! A crowd comes at once to one seed.

use std::time::Duration;

use super::load::{LARGE, Run, SMALL, crowd, leech, limits, median};

const MINUTE: Duration = Duration::from_secs(60);

fn run(count: u64, seed: u64) -> Run {
    let hosts = crowd(count, MINUTE, (50_000, 200_000), 200_000);
    Run::new(SMALL, limits(), seed, hosts, 30 * MINUTE)
}

#[test]
fn a_crowd_is_served_in_little_more_than_the_least_time_that_there_is() {
    let run = run(100, 1);
    let seconds = run.seconds(leech);
    let (middle, last, bound) = (median(&seconds), seconds[seconds.len() - 1], run.bound());
    println!("bound {bound:.0} s, median {middle:.0} s, last {last:.0} s, {:?}", run.world.digest());
    assert!(last < 2.0 * bound, "bound {bound:.0} s, median {middle:.0} s, last {last:.0} s");
}

#[test]
fn a_seed_gives_the_same_run() {
    assert_eq!(run(12, 1).world.digest(), run(12, 1).world.digest());
    assert_ne!(run(12, 1).world.digest(), run(12, 2).world.digest());
}

/// Prints how a thousand fare; some minutes in a debug build.
#[test]
#[ignore = "a thousand peers: cargo test --release -p btfetch --lib sim:: -- --ignored --nocapture"]
fn a_crowd_of_a_thousand_is_served_as_well() {
    let hosts = crowd(1000, MINUTE, (500_000, 2_000_000), 2_000_000);
    let run = Run::new(LARGE, limits(), 1, hosts, 60 * MINUTE);
    let seconds = run.seconds(leech);
    let (middle, last, bound) = (median(&seconds), seconds[seconds.len() - 1], run.bound());
    println!("bound {bound:.0} s, median {middle:.0} s, last {last:.0} s, {:?}", run.world.digest());
    assert!(last < 2.0 * bound, "bound {bound:.0} s, median {middle:.0} s, last {last:.0} s");
}
