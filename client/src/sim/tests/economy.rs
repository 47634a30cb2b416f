//! How often a seed has to give its torrent away.

use std::ops::Range;
use std::time::Duration;

use super::load::{Run, leech};
use crate::sim::{Host, Kind, Torrent};
use crate::swarm::Limits;

/// Lines of 25 Mbit/s.
const RATE: u64 = 25_000_000 / 8;
const MOST: Duration = Duration::from_secs(3600);

/// Payloads that the one seed has sent when the last of `leeches` is done, and how long that took as a
/// multiple of what the seed needs for one payload, in the mean over `seeds`. All have lines of the same
/// width and come at once.
fn payloads(leeches: usize, seeds: Range<u64>) -> (f64, f64) {
    let torrent = Torrent { pieces: 256, piece_len: 256 << 10 };
    let count = (seeds.end - seeds.start) as f64;
    let (mut sent, mut time) = (0.0, 0.0);
    for seed in seeds {
        let mut hosts = vec![Host::new(RATE, RATE, Duration::ZERO); 1 + leeches];
        hosts[0].kind = Kind::Seed;
        let run = Run::new(torrent, Limits::default(), seed, hosts, MOST);
        let last = run.seconds(leech)[leeches - 1];
        sent += run.world.fate(0).uploaded as f64 / torrent.len() as f64 / count;
        time += last * RATE as f64 / torrent.len() as f64 / count;
    }
    println!("{leeches} leeches: {sent:.3} payloads, {time:.3} times the least");
    (sent, time)
}

#[test]
fn a_seed_sends_little_more_than_once_what_three_want() {
    assert_eq!(payloads(1, 1..2).0, 1.0);
    // Without regard for each other: 1.18 payloads, 1.21 times the least.
    let (sent, time) = payloads(3, 1..4);
    assert!(sent < 1.1 && time < 1.13, "{sent:.3} payloads, {time:.3} times the least");
}

/// Prints how twenty fare, who are more than the seed serves at once; a minute in a debug build.
#[test]
#[ignore = "twenty leeches, five times: cargo test -p btfetch --lib sim:: -- --ignored --nocapture"]
fn a_seed_sends_less_than_one_and_a_half_times_what_twenty_want() {
    // Without regard for each other: 1.44 payloads.
    let (sent, _) = payloads(20, 1..6);
    assert!(sent < 1.42, "{sent:.3} payloads");
}
