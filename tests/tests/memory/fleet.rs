//! A virtual network of ten thousand nodes: what it costs all told, the engine, the census and whatever is
//! under way included. The goal is PERFORMANCE.md's, "Serving".

use std::time::Duration;

use btdht::sim::fleet::{Fleet, Plan};
use btdht::sim::scenario::Unwatched;
use harness::heap::Held;

const NODES: usize = 10_000;
/// Bytes for a node with a full table.
const GOAL: isize = 6 * 1024;
/// Bytes of an entry of a table, and for all that is no entry: with it the tables of larger networks can be
/// added up.
const ENTRY: isize = 32;
const BESIDE: isize = 2400;
/// Entries in a table of a million nodes.
const OF_A_MILLION: isize = 145;

#[test]
fn node_of_a_fleet_costs_at_most_6_kilobytes_when_it_is_made_and_after_it_has_run() {
    let before = Held::now();
    let mut fleet = Fleet::grow(Plan::new(NODES, 1, 1), Vec::new(), &mut Unwatched).unwrap();
    let grown = before.since().bytes / NODES as isize;
    let nodes = fleet.world.hosts().filter_map(|host| host.node());
    let entries: usize = nodes.map(|node| node.table(fleet.world.now()).len()).sum();
    assert!(entries >= 80 * NODES, "the tables are full");
    fleet.run(Duration::from_secs(120), "running", &mut Unwatched).unwrap();
    let later = before.since().bytes / NODES as isize;
    let entries = (entries / NODES) as isize;
    let beside = later - entries * ENTRY;
    let told =
        format!("{grown} bytes a node when made, {later} after two minutes, {beside} beside its entries");
    println!("{told}: {} for a node of a million; {entries} in a table", beside + OF_A_MILLION * ENTRY);
    assert!(grown <= GOAL && later <= GOAL && beside <= BESIDE, "{told}");
}
