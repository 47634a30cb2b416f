//! Who gives gets.

use std::time::Duration;

use super::load::{Run, SMALL, crowd, leech, limits, median};
use crate::sim::{Host, Kind};

const MINUTE: Duration = Duration::from_secs(60);

fn rider(host: &Host) -> bool {
    host.kind == Kind::FreeRider
}

/// A crowd of a hundred who stay when they have everything; every so many of them gives nothing.
fn riders(every: Option<usize>) -> Run {
    let mut hosts = crowd(100, MINUTE, (50_000, 200_000), 200_000);
    let chosen = every.map(|every| hosts.iter_mut().skip(1).step_by(every));
    chosen.into_iter().flatten().for_each(|host| host.kind = Kind::FreeRider);
    Run::new(SMALL, limits(), 1, hosts, 60 * MINUTE)
}

#[test]
fn free_riders_end_last_and_hardly_slow_down_those_who_give() {
    let (without, with) = (riders(None), riders(Some(5)));
    let (alone, given, taken) = (without.seconds(leech), with.seconds(leech), with.seconds(rider));
    let (alone, given, taken) = (median(&alone), median(&given), median(&taken));
    println!("medians: {alone:.0} s among givers, {given:.0} s with riders, {taken:.0} s for those");
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
