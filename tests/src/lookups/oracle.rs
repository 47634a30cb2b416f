//! The lower bound: who asks at once every one of the 512 nearest nodes that it knows, whose queries are
//! never lost, and who waits for nobody.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashSet};
use std::time::Duration;

use btdht::Rng;
use krpc::{Distance, Id};

use super::network::{Index, K, Network, ROUTER_RTT};

/// Nodes that it asks at once.
const WIDTH: usize = 512;

/// What nobody can beat.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// Until the first peer.
    pub first_peer: Duration,
    /// Until the last of the [`K`] nearest nodes that live has answered.
    pub closest: Duration,
}

/// Knows only the router.
pub fn cold(network: &Network, target: &Id, rng: &mut Rng) -> Bound {
    let start = network.router_answer(true, rng);
    walk(network, target, &start, ROUTER_RTT)
}

/// Has a grown table around `own` with the given capacities of buckets.
pub fn warm(network: &Network, target: &Id, (own, wide): (&Id, &[usize]), rng: &mut Rng) -> Bound {
    walk(network, target, &network.grown_table(own, wide, rng), Duration::ZERO)
}

fn walk(network: &Network, target: &Id, start: &[Index], at: Duration) -> Bound {
    let goal = network.closest_alive(target, K);
    let mut missing = goal.len();
    let mut first_peer = None;
    let mut known: BTreeSet<(Distance, Index)> = BTreeSet::new();
    let mut asked = HashSet::new();
    let mut answers = BinaryHeap::new();
    let mut learn = |nodes: &[Index], now: Duration, answers: &mut BinaryHeap<_>| {
        known.extend(nodes.iter().map(|&node| (network.id(node).distance(target), node)));
        for &(_, node) in known.iter().take(WIDTH) {
            if asked.insert(node) && network.is_alive(node) {
                answers.push(Reverse((now + network.rtt(node), node)));
            }
        }
    };
    learn(start, at, &mut answers);
    while let Some(Reverse((now, node))) = answers.pop() {
        if goal.contains(&node) {
            missing -= 1;
            if first_peer.is_none() && !network.peers(node, target).is_empty() {
                first_peer = Some(now);
            }
            if missing == 0 {
                return Bound { first_peer: first_peer.expect("40 peers are stored"), closest: now };
            }
        }
        learn(&network.answer(node, target), now, &mut answers);
    }
    panic!("{missing} of the nearest nodes are known to nobody on the way to {target}");
}
