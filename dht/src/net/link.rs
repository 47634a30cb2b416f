//! [`Link`]: the line of a node of a testnet to all others, on which datagrams take time and get lost.
//!
//! In user space and where datagrams leave, so that it needs no privilege and touches nobody else's
//! traffic. Every pair of nodes has a latency of its own, the same both ways, and each datagram is lost
//! or not by itself; both follow from a seed. A stranger's datagrams leave his own socket, out of our
//! reach: what we send to him carries the latency and the loss of both ways.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use crate::{Class, KeyedHash, Outbox, Rng, Seeds, Time};

/// Datagrams under way on one line; further ones are lost.
const MAX_HELD: usize = 8192;
/// The number of everybody who is no node of the testnet.
const STRANGER: u32 = u32::MAX;

/// The lines between all nodes of a testnet.
#[derive(Debug)]
pub(crate) struct Lines {
    /// Bounds of the time that a datagram takes, one way.
    latency: RangeInclusive<Duration>,
    /// Percent of the datagrams that are lost.
    loss: u32,
    /// Where each node lives, with its number.
    members: BTreeMap<SocketAddr, u32>,
    hash: KeyedHash,
    seeds: Seeds,
}

/// The line of one socket.
#[derive(Debug)]
pub(crate) struct Link {
    lines: Arc<Lines>,
    own: u32,
    rng: Rng,
    /// What is under way, the first to arrive on top.
    held: BinaryHeap<Reverse<Held>>,
    /// Datagrams taken so far: those that arrive at the same time keep their order.
    taken: u64,
    lost: u64,
    /// What has arrived, for the socket.
    arrived: Outbox,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    due: Time,
    nth: u64,
    to: SocketAddr,
    is_reply: bool,
    bytes: Box<[u8]>,
}

impl Lines {
    /// Lines between the nodes at `members`, in the order of their numbers.
    pub(crate) fn new(
        members: impl IntoIterator<Item = SocketAddr>,
        latency: RangeInclusive<Duration>,
        loss: u32,
        seeds: Seeds,
    ) -> Self {
        let seeds = seeds.derive("lines");
        let hash = KeyedHash::new(&mut Rng::new(seeds));
        Self { latency, loss, members: (0..).zip(members).map(|(n, addr)| (addr, n)).collect(), hash, seeds }
    }

    /// Whether datagrams need no link at all.
    pub(crate) fn are_perfect(&self) -> bool {
        self.latency.end().is_zero() && self.loss == 0
    }

    /// The line of the node with that number.
    pub(crate) fn link(self: &Arc<Self>, own: u32) -> Link {
        Link {
            lines: Arc::clone(self),
            own,
            rng: Rng::new(self.seeds.derive(&own.to_string())),
            held: BinaryHeap::new(),
            taken: 0,
            lost: 0,
            arrived: Outbox::new(),
        }
    }

    /// The time that a question and its answer take between two nodes.
    pub(crate) fn round_trip(&self, a: u32, b: u32) -> Duration {
        self.latency(a, b) * 2
    }

    /// Time from one node to another, the same in both directions.
    fn latency(&self, a: u32, b: u32) -> Duration {
        let pair = (u64::from(a.min(b)) << 32) | u64::from(a.max(b));
        let (least, most) = (self.latency.start(), self.latency.end());
        let span = most.saturating_sub(*least).as_micros() as u64;
        *least + Duration::from_micros(self.hash.hash(&pair.to_be_bytes()) % (span + 1))
    }
}

impl Link {
    /// Takes what `out` holds for `socket` under way and returns what has arrived by `now`.
    pub(super) fn pass(&mut self, now: Time, socket: u8, out: &Outbox) -> &Outbox {
        for transmit in out.transmits.iter().filter(|transmit| transmit.socket == socket) {
            self.take(now, transmit.to, transmit.class, out.datagram(transmit));
        }
        self.arrived.clear();
        while self.due() <= now {
            let Some(Reverse(held)) = self.held.pop() else { break };
            let class = if held.is_reply { Class::Reply } else { Class::Query };
            self.arrived.send(socket, held.to, class, |bytes| bytes.extend_from_slice(&held.bytes));
        }
        &self.arrived
    }

    /// When the next datagram arrives.
    pub(super) fn due(&self) -> Time {
        self.held.peek().map_or(Time::NEVER, |Reverse(held)| held.due)
    }

    /// Datagrams lost so far.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    fn take(&mut self, now: Time, to: SocketAddr, class: Class, bytes: &[u8]) {
        let (other, ways) = match self.lines.members.get(&to) {
            Some(&number) => (number, 1),
            None => (STRANGER, 2),
        };
        let is_lost = (0..ways).any(|_| self.rng.chance(self.lines.loss, 100));
        if is_lost || self.held.len() >= MAX_HELD {
            self.lost += 1;
            return;
        }
        let due = now + self.lines.latency(self.own, other) * ways;
        let (nth, is_reply) = (self.taken, class == Class::Reply);
        self.held.push(Reverse(Held { due, nth, to, is_reply, bytes: bytes.into() }));
        self.taken += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_secs(1);
    const MS: Duration = Duration::from_millis(1);

    fn addr(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    fn lines(latency: RangeInclusive<u32>, loss: u32, seed: u64) -> Arc<Lines> {
        let latency = MS * *latency.start()..=MS * *latency.end();
        Arc::new(Lines::new((1..=100).map(addr), latency, loss, Seeds::from_u64(seed)))
    }

    fn outbox(to: impl IntoIterator<Item = SocketAddr>) -> Outbox {
        let mut out = Outbox::new();
        for (nth, to) in (0u8..).zip(to) {
            out.send(0, to, Class::Query, |bytes| bytes.push(nth));
            out.send(1, to, Class::Reply, |bytes| bytes.extend_from_slice(b"of another socket"));
        }
        out
    }

    /// When what is under way arrives, with where it goes and its first byte.
    fn arrivals(link: &mut Link) -> Vec<(Duration, SocketAddr, u8)> {
        let mut arrivals = Vec::new();
        while link.due() < Time::NEVER {
            let due = link.due();
            let arrived = link.pass(due, 0, &Outbox::new());
            assert!(!arrived.transmits.is_empty(), "what is due arrives");
            let told =
                |transmit: &crate::Transmit| (due.since(NOW), transmit.to, arrived.datagram(transmit)[0]);
            arrivals.extend(arrived.transmits.iter().map(told));
        }
        arrivals
    }

    #[test]
    fn a_pair_has_one_latency_within_the_bounds_whoever_sends() {
        let lines = lines(20..=80, 0, 1);
        let mut from_first = lines.link(0);
        assert!(from_first.pass(NOW, 0, &outbox((2..=100).map(addr))).transmits.is_empty());
        let there = arrivals(&mut from_first);
        assert_eq!(there.len(), 99);
        assert!(there.iter().all(|(after, ..)| (20 * MS..=80 * MS).contains(after)));
        let mean = there.iter().map(|(after, ..)| after.as_millis()).sum::<u128>() / 99;
        assert!((43..=57).contains(&mean), "{mean}");
        for &(after, to, _) in &there {
            let mut back = lines.link(u32::from(to.port()) - 1);
            back.pass(NOW, 0, &outbox([addr(1)]));
            assert_eq!(arrivals(&mut back), [(after, addr(1), 0)]);
        }
    }

    #[test]
    fn what_arrives_together_keeps_its_order_and_nothing_comes_early() {
        let mut link = lines(5..=5, 0, 1).link(3);
        link.pass(NOW, 0, &outbox([addr(9), addr(8), addr(7)]));
        let (early, due) = (NOW + 4 * MS, NOW + 5 * MS);
        assert!(link.pass(early, 0, &Outbox::new()).transmits.is_empty());
        assert_eq!(link.due(), due);
        let arrived = link.pass(due, 0, &outbox([addr(6)]));
        let order: Vec<_> = arrived.transmits.iter().map(|transmit| transmit.to).collect();
        assert_eq!(order, [addr(9), addr(8), addr(7)]);
        assert!(arrived.transmits.iter().all(|t| t.class == Class::Query && t.socket == 0));
        assert_eq!(arrivals(&mut link), [(10 * MS, addr(6), 0)]);
    }

    #[test]
    fn a_stranger_gets_the_latency_and_the_loss_of_both_ways() {
        let stranger = addr(4000);
        let mut link = lines(5..=5, 0, 1).link(0);
        link.pass(NOW, 0, &outbox([stranger]));
        assert_eq!(arrivals(&mut link), [(10 * MS, stranger, 0)]);
        let lost = |to| {
            let mut link = lines(0..=0, 20, 7).link(0);
            for _ in 0..1000 {
                link.pass(NOW, 0, &outbox([to]));
            }
            link.lost()
        };
        let (member, stranger) = (lost(addr(2)), lost(stranger));
        assert!((160..=240).contains(&member) && (315..=405).contains(&stranger), "{member} {stranger}");
    }

    #[test]
    fn the_same_seed_loses_the_same_datagrams() {
        let survivors = |seed| {
            let mut link = lines(1..=9, 30, seed).link(0);
            link.pass(NOW, 0, &outbox((2..=100).map(addr)));
            arrivals(&mut link)
        };
        assert_eq!(survivors(1), survivors(1));
        assert_ne!(survivors(1), survivors(2));
    }

    #[test]
    fn no_more_is_under_way_than_the_cap() {
        let mut link = lines(5..=5, 0, 1).link(0);
        for _ in 0..MAX_HELD + 10 {
            link.pass(NOW, 0, &outbox([addr(2)]));
        }
        assert_eq!((link.held.len(), link.lost()), (MAX_HELD, 10));
    }
}
