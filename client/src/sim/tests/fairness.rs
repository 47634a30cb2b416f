//! Who gives gets.

use std::time::Duration;

use super::load::{LARGE, Run, SMALL, crowd, leech, limits, median};
use crate::sim::{Host, Kind};

const MINUTE: Duration = Duration::from_secs(60);

fn rider(host: &Host) -> bool {
    host.kind == Kind::FreeRider
}

/// A crowd of a hundred who stay when they have everything; every so many of them gives nothing.
fn riders(every: Option<usize>) -> Run {
    let hosts = riding(crowd(100, MINUTE, (50_000, 200_000), 200_000), every);
    Run::new(SMALL, limits(), 1, hosts, 60 * MINUTE)
}

fn riding(mut hosts: Vec<Host>, every: Option<usize>) -> Vec<Host> {
    let chosen = every.map(|every| hosts.iter_mut().skip(1).step_by(every));
    chosen.into_iter().flatten().for_each(|host| host.kind = Kind::FreeRider);
    hosts
}

/// Medians in seconds: of all where everybody gives, and with riders of those who give and of those.
fn medians(without: &Run, with: &Run) -> [f64; 3] {
    let (alone, given, taken) = (without.seconds(leech), with.seconds(leech), with.seconds(rider));
    let medians = [median(&alone), median(&given), median(&taken)];
    let [alone, given, taken] = medians;
    println!("medians: {alone:.0} s among givers, {given:.0} s with riders, {taken:.0} s for those");
    medians
}

#[test]
fn free_riders_end_last_and_hardly_slow_down_those_who_give() {
    let [alone, given, taken] = medians(&riders(None), &riders(Some(5)));
    assert!(taken > 1.08 * given, "riders {taken:.0} s, others {given:.0} s");
    assert!(given < 1.25 * alone, "with riders {given:.0} s, without {alone:.0} s");
}

/// Two runs; some minutes in a debug build.
#[test]
#[ignore = "a thousand peers, twice: cargo test --release -p btfetch --lib sim:: -- --ignored --nocapture"]
fn among_a_thousand_free_riders_end_last_as_well() {
    let run = |every| {
        let hosts = riding(crowd(1000, MINUTE, (500_000, 2_000_000), 2_000_000), every);
        Run::new(LARGE, limits(), 1, hosts, 60 * MINUTE)
    };
    let [alone, given, taken] = medians(&run(None), &run(Some(5)));
    assert!(taken > 1.08 * given, "riders {taken:.0} s, others {given:.0} s");
    assert!(given < 1.25 * alone, "with riders {given:.0} s, without {alone:.0} s");
}

/// Three classes, of which each sends twice as much as the one before.
const CLASSES: [u64; 3] = [25_000, 50_000, 100_000];

#[test]
fn who_sends_more_is_served_sooner() {
    let mut hosts = crowd(99, MINUTE, (0, 400_000), 200_000);
    for (n, host) in hosts.iter_mut().skip(1).enumerate() {
        host.up = CLASSES[n % 3];
    }
    let run = Run::new(SMALL, limits(), 1, hosts, 60 * MINUTE);
    let [slow, middle, fast] =
        CLASSES.map(|up| median(&run.seconds(|host| host.kind == Kind::Leech && host.up == up)));
    println!("medians: {slow:.0} s, {middle:.0} s, {fast:.0} s; bound {:.0} s", run.bound());
    assert!(fast < middle && middle < slow, "{fast:.0} {middle:.0} {slow:.0}");
    assert!(fast < 0.85 * slow, "four times as much buys little: {fast:.0} s, {slow:.0} s");
}
