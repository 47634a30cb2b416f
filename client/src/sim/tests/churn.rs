//! Hosts that go.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::load::{LARGE, Run, SMALL, crowd, leech, limits};
use crate::sim::{Host, Kind, Leaves};
use crate::swarm::Limits;

const MINUTE: Duration = Duration::from_secs(60);
/// Whether the seed has given a certain piece away in time depends on the seed of the run.
const SEEDS: RangeInclusive<u64> = 1..=5;

#[test]
fn everybody_ends_although_all_go_as_soon_as_they_have_everything() {
    let mut hosts = crowd(60, 5 * MINUTE, (50_000, 200_000), 200_000);
    hosts[1..].iter_mut().for_each(|host| host.leaves = Leaves::Complete(Duration::ZERO));
    let run = Run::new(SMALL, limits(), 1, hosts, 60 * MINUTE);
    let seconds = run.seconds(leech);
    println!("last {:.0} s, bound {:.0} s", seconds[seconds.len() - 1], run.bound());
    assert_eq!(seconds.len(), 60);
    assert_eq!(run.fates(leech).iter().filter(|fate| fate.left).count(), 59);
}

/// Some minutes in a debug build.
#[test]
#[ignore = "a thousand peers: cargo test --release -p btfetch --lib sim:: -- --ignored --nocapture"]
fn a_thousand_end_although_all_go_as_soon_as_they_have_everything() {
    let mut hosts = crowd(1000, 5 * MINUTE, (500_000, 2_000_000), 2_000_000);
    hosts[1..].iter_mut().for_each(|host| host.leaves = Leaves::Complete(Duration::ZERO));
    let run = Run::new(LARGE, limits(), 1, hosts, 60 * MINUTE);
    let seconds = run.seconds(leech);
    println!("last {:.0} s, bound {:.0} s", seconds[seconds.len() - 1], run.bound());
    assert_eq!(seconds.len(), 1000);
    assert!(run.fates(leech).iter().filter(|fate| fate.left).count() >= 990);
}

/// How fifty fare when their only seed goes after it has sent so many hundredths of the torrent, in the
/// worst of `SEEDS`: pieces that the best of them has in the end, and how many are complete.
fn without_seed(percent: u64, super_seed: bool) -> (u32, usize) {
    let runs: Vec<_> = SEEDS
        .map(|seed| {
            let mut hosts = crowd(50, MINUTE / 2, (50_000, 200_000), 100_000);
            hosts[0].leaves = Leaves::Sent(SMALL.len() * percent / 100);
            let limits = Limits { super_seed, ..limits() };
            let run = Run::new(SMALL, limits, seed, hosts, 30 * MINUTE);
            assert!(run.fates(|host| host.kind == Kind::Seed)[0].left);
            let fates = run.fates(leech);
            let best = fates.iter().map(|fate| fate.pieces).max().unwrap_or(0);
            (best, fates.iter().filter(|fate| fate.completed.is_some()).count())
        })
        .collect();
    println!("{percent} %, super-seed {super_seed}: {runs:?}");
    runs.into_iter().min().expect("there are seeds")
}

/// Without the seed's suggestions it takes two copies; where downloaders finish at a seed what others gave
/// them a part of, two do for seven of thirty.
#[test]
fn a_seed_may_go_after_one_copy_and_a_half_whether_it_is_a_super_seed_or_not() {
    assert_eq!([without_seed(150, false), without_seed(150, true)], [(64, 50); 2]);
}

#[test]
fn a_latecomer_is_served_by_a_seed_that_was_full_at_its_first_dials() {
    let seed = Host { kind: Kind::Seed, ..Host::new(20_000, 20_000, Duration::ZERO) };
    // Two who take the seed's places for minutes, go when they are done, and have no place either.
    let early =
        Host { leaves: Leaves::Complete(Duration::ZERO), ..Host::new(20_000, 20_000, Duration::ZERO) };
    let late = Host::new(20_000, 20_000, MINUTE);
    let run = |dials_of_full| {
        let limits = Limits { max_peers: 2, dials_of_full, ..Limits::default() };
        Run::new(SMALL, limits, 1, vec![seed, early, early, late], 60 * MINUTE)
    };
    let (patient, hasty) = (run(Limits::default().dials_of_full), run(3));
    let places = patient.world.fate(1).completed.expect("nothing hinders it");
    let done = patient.world.fate(3).completed;
    println!("places after {:?}, the latecomer was done after {done:?}", places - MINUTE);
    assert!(done.is_some_and(|done| done < 30 * MINUTE));
    assert_eq!(hasty.world.fate(3).completed, None, "the seed was full for longer than three dials");
}
