//! [`Batch`]: many lookups at once in a fleet, and what they came to. What they are to find is planted:
//! it was announced to the nodes nearest to it by the rules, with their tokens, but without the network.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use krpc::{Body, Id, Message, Query, Want};

use super::super::fleet::{Fleet, Participant};
use super::super::topology::Census;
use super::stats::{mean, quantile, share};
use super::{Cell, Stopped, Watcher};
use crate::{Announce, Command, Event, LookupId, Outbox, Outcome};

/// Nodes that store what is announced.
pub(super) const K: usize = 8;
/// Peers of an infohash, and the chance of each to be stored at each of the nodes closest to it, in
/// percent (as in the lookup benchmarks).
const PEERS: u16 = 40;
const STORED: u32 = 70;
/// No lookup takes as long.
const PATIENCE: Duration = Duration::from_secs(40);
/// Lookups of a batch begin within this, so that nothing is in step.
const SPREAD: Duration = Duration::from_secs(1);

/// What a lookup came to.
#[derive(Clone, Debug)]
pub(super) struct Looked {
    /// The host that looked.
    pub(super) host: usize,
    pub(super) infohash: Id,
    /// [`Outcome::Cancelled`] for one that was not over when nobody waited for it any longer.
    pub(super) outcome: Outcome,
    /// Peers that were announced; made-up ones do not count.
    pub(super) peers: usize,
    /// Those of them that live in IPv6.
    pub(super) peers_v6: usize,
    pub(super) first_peer: Option<Duration>,
    pub(super) elapsed: Duration,
    pub(super) queries: u32,
    pub(super) hops: u16,
    /// How many of the nodes that were truly closest answered, of how many there were.
    pub(super) reached: usize,
    pub(super) of: usize,
    /// Nodes that took the announce.
    pub(super) stored: usize,
}

/// Lookups that run at the same time.
pub(super) struct Batch<'a> {
    fleet: &'a mut Fleet,
    /// Everybody who is to be reached, if that is known.
    truth: &'a Census,
    running: BTreeMap<(usize, LookupId), Looked>,
    closest: BTreeMap<(usize, LookupId), Vec<Id>>,
    over: Vec<Looked>,
}

impl<'a> Batch<'a> {
    pub(super) fn new(fleet: &'a mut Fleet, truth: &'a Census) -> Self {
        Self { fleet, truth, running: BTreeMap::new(), closest: BTreeMap::new(), over: Vec::new() }
    }

    /// Runs the lookups, each of a host for an infohash, to their ends. With `announce` they announce too. One
    /// that takes longer than [`PATIENCE`] counts with what it had come to by then, and as one that found no
    /// peer.
    pub(super) fn run(
        mut self,
        wanted: &[(usize, Id)],
        announce: bool,
        (stage, watcher): (&str, &mut dyn Watcher),
    ) -> Result<Vec<Looked>, Stopped> {
        // Forty starts, as close together as need be.
        let each = wanted.len().div_ceil(40).max(1);
        let pause = SPREAD / wanted.len().div_ceil(each).max(1) as u32;
        for group in wanted.chunks(each) {
            group.iter().for_each(|&(host, infohash)| self.start(host, infohash, announce));
            self.pass(pause, (stage, watcher))?;
        }
        let end = self.fleet.world.now() + PATIENCE;
        while !self.running.is_empty() && self.fleet.world.now() < end {
            self.pass(SPREAD, (stage, watcher))?;
        }
        for looked in std::mem::take(&mut self.running).into_values() {
            self.over.push(Looked { peers: 0, peers_v6: 0, elapsed: PATIENCE, ..looked });
        }
        self.over.sort_by_key(|looked| (looked.host, looked.infohash.distance(&Id::ZERO)));
        Ok(self.over)
    }

    fn start(&mut self, host: usize, infohash: Id, announce: bool) {
        let announce = announce.then_some(Announce { port: PORT, implied: false, seed: false });
        let command = Command::GetPeers { infohash, announce, trace: false };
        let Some(lookup) = self.fleet.command(host, command) else { return };
        // A node does not look for itself.
        let own = self.fleet.id(host);
        let closest = self.truth.closest(&infohash, K + 1).into_iter().map(|member| member.id);
        let closest: Vec<Id> = closest.filter(|&id| Some(id) != own).take(K).collect();
        let looked = Looked {
            host,
            infohash,
            outcome: Outcome::Cancelled,
            peers: 0,
            peers_v6: 0,
            first_peer: None,
            elapsed: Duration::ZERO,
            queries: 0,
            hops: 0,
            reached: 0,
            of: closest.len(),
            stored: 0,
        };
        self.closest.insert((host, lookup), closest);
        self.running.insert((host, lookup), looked);
    }

    fn pass(&mut self, span: Duration, (stage, watcher): (&str, &mut dyn Watcher)) -> Result<(), Stopped> {
        for told in self.fleet.run(span, stage, watcher)? {
            let Some(lookup) = told.event.lookup() else { continue };
            let name = (told.host, lookup);
            let Some(looked) = self.running.get_mut(&name) else { continue };
            match told.event {
                Event::Peer { addr, .. } => {
                    looked.peers += usize::from(is_planted(addr));
                    looked.peers_v6 += usize::from(is_planted(addr) && addr.is_ipv6());
                }
                Event::Stored { .. } => looked.stored += 1,
                Event::Done { outcome, stats, closest, .. } => {
                    (looked.outcome, looked.elapsed) = (outcome, stats.elapsed);
                    (looked.queries, looked.hops) = (stats.queries, stats.hops);
                    looked.first_peer = stats.first_peer.filter(|_| looked.peers > 0);
                    let truth = self.closest.remove(&name).unwrap_or_default();
                    looked.reached = closest.iter().filter(|(id, _)| truth.contains(id)).count();
                    self.over.extend(self.running.remove(&name));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The port of peers that are announced in earnest.
const PORT: u16 = 51_413;

fn is_planted(addr: SocketAddr) -> bool {
    addr.port() == PORT
}

/// Announces forty peers of each infohash to those of the nodes closest to it by `truth` that happen to
/// store them.
pub(super) fn plant(fleet: &mut Fleet, truth: &Census, infohashes: &[Id]) {
    for infohash in infohashes {
        for member in truth.closest(infohash, K) {
            let peers: Vec<SocketAddr> = (0..PEERS)
                .filter(|_| fleet.rng().chance(STORED, 100))
                .map(|n| ([185, (n >> 4) as u8, 7 + n as u8, 1], PORT).into())
                .collect();
            fleet.world.act(member.number as usize, |now, host, _| {
                let Participant::Node(node) = host else { return };
                let mut unsent = Outbox::new();
                for peer in peers {
                    let want = Want::UNSPECIFIED;
                    let ask = Query::GetPeers { infohash: *infohash, want, scrape: false, no_seed: false };
                    unsent.clear();
                    node.handle_datagram(now, 0, peer, &query(ask), &mut unsent);
                    let Some(token) = token_in(&unsent) else { continue };
                    let port = i64::from(peer.port());
                    let announce = Query::AnnouncePeer {
                        infohash: *infohash,
                        port,
                        implied_port: false,
                        token: &token,
                        seed: false,
                    };
                    node.handle_datagram(now, 0, peer, &query(announce), &mut unsent);
                }
            });
        }
    }
}

/// A query as of somebody who answers none, so that nobody takes him for a node.
fn query(query: Query<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let body = Body::Query { id: Id::new([7; Id::LEN]), query };
    Message { tid: b"pl", version: None, ip: None, read_only: true, body }.encode(&mut bytes);
    bytes
}

fn token_in(out: &Outbox) -> Option<Vec<u8>> {
    let answer = Message::decode(out.datagram(out.transmits.first()?)).ok()?;
    match answer.body {
        Body::Response(response) => response.token.map(<[u8]>::to_vec),
        _ => None,
    }
}

/// Lookups as figures.
pub(super) struct Figures {
    /// The share that found a peer that was announced.
    pub(super) found: Option<f64>,
    /// Milliseconds to the first peer, of those that found one.
    pub(super) first_peer: Vec<f64>,
    /// Milliseconds to the end.
    pub(super) done: Vec<f64>,
    pub(super) queries: Vec<f64>,
    pub(super) hops: Vec<f64>,
    /// The share of the truly closest that answered.
    pub(super) reached: Option<f64>,
}

impl Figures {
    pub(super) fn of(looked: &[Looked]) -> Self {
        let millis = |span: Duration| span.as_secs_f64() * 1000.0;
        let wanted: usize = looked.iter().map(|one| one.of).sum();
        let reached: usize = looked.iter().map(|one| one.reached).sum();
        // What the others cost in the end nobody saw.
        let over = || looked.iter().filter(|one| one.outcome != Outcome::Cancelled);
        Self {
            found: share(looked, |one| one.peers > 0),
            first_peer: looked.iter().filter_map(|one| one.first_peer).map(millis).collect(),
            done: looked.iter().map(|one| millis(one.elapsed)).collect(),
            queries: over().map(|one| f64::from(one.queries)).collect(),
            hops: over().map(|one| f64::from(one.hops)).collect(),
            reached: (wanted > 0).then(|| reached as f64 / wanted as f64),
        }
    }

    /// Cells for [`COLUMNS`].
    pub(super) fn cells(&self) -> [Cell; COLUMNS.len()] {
        let [first, first_late] = [0.5, 0.9].map(|q| quantile(&self.first_peer, q));
        let [done, done_late] = [0.5, 0.9].map(|q| quantile(&self.done, q));
        [
            self.done.len().into(),
            self.found.into(),
            first.into(),
            first_late.into(),
            done.into(),
            done_late.into(),
            mean(&self.queries).into(),
            mean(&self.hops).into(),
            self.reached.into(),
        ]
    }
}

/// Columns that tell of lookups.
pub(super) const COLUMNS: [&str; 9] = [
    "lookups",
    "found",
    "first_peer_p50_ms",
    "first_peer_p90_ms",
    "done_p50_ms",
    "done_p90_ms",
    "queries",
    "hops",
    "closest_reached",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::fleet::Plan;
    use crate::sim::scenario::Unwatched;
    use crate::sim::{Links, Partition, Split};

    #[test]
    fn lookups_that_do_not_come_to_an_end_in_time_count_as_such_that_find_nothing() {
        // Nobody hears the first node, which runs 64 lookups at a time and waits for each silent node.
        let alone = Partition { from: crate::Time::ZERO, until: crate::Time::NEVER, split: Split::Below(1) };
        let links = Links { partitions: vec![alone], ..Links::default() };
        let mut fleet =
            Fleet::grow(Plan { links, ..Plan::new(64, 1, 1) }, Vec::new(), &mut Unwatched).unwrap();
        let truth = fleet.living();
        let wanted: Vec<_> = (0..64 * 40).map(|_| (0, fleet.rng().id())).collect();
        let looked = Batch::new(&mut fleet, &truth).run(&wanted, false, ("lookups", &mut Unwatched)).unwrap();
        assert_eq!(looked.len(), wanted.len());
        let figures = Figures::of(&looked);
        assert_eq!((figures.found, figures.done.len()), (Some(0.0), wanted.len()));
        let over = figures.queries.len();
        assert!(over < wanted.len(), "{over}: the test is of those that were cut off");
        assert!(figures.done.iter().all(|&millis| millis <= 40_000.0));
    }
}
