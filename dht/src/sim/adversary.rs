//! Hosts that mean harm: [`Sybil`], of many ids in one hand that surround a key or a node, and [`Liar`], which
//! poisons tables with nodes that do not exist.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use krpc::{Id, Query, Want};

use super::Host;
use super::actor::{Actor, Answer, Contacted, ask, query_in, target_of};
use crate::{Outbox, Rng, Time};

/// Nodes in an answer.
const K: usize = 8;

/// Many ids in one hand. They name one another to whoever asks, and know no peers.
pub type Ring = Arc<Vec<(Id, SocketAddr)>>;

/// One of a ring.
pub struct Sybil {
    id: Id,
    ring: Ring,
    rng: Rng,
    /// Whom it goes to see, and how often.
    visits: Option<(SocketAddr, Duration)>,
    next: Time,
}

impl Sybil {
    /// The `n`th of the ring. It waits until it is asked.
    pub fn new(ring: &Ring, n: usize, mut rng: Rng) -> Self {
        let id = ring.get(n).map_or_else(|| rng.id(), |(id, _)| *id);
        Self { id, ring: Arc::clone(ring), rng, visits: None, next: Time::NEVER }
    }

    /// The same, and it asks `victim` something every so often from `begin` on, to be taken into its table.
    pub fn visiting(self, victim: SocketAddr, every: Duration, begin: Time) -> Self {
        Self { visits: Some((victim, every)), next: begin, ..self }
    }

    /// Others of the ring: random ones, so that whoever believes them meets as many as can be.
    fn others(&mut self) -> Vec<Contacted> {
        (0..K).map(|_| self.ring[self.rng.below(self.ring.len())]).collect()
    }
}

impl Actor for Sybil {
    fn id(&self) -> Id {
        self.id
    }
}

impl Host for Sybil {
    fn datagram(&mut self, _: Time, _: u8, from: SocketAddr, bytes: &[u8], out: &mut Outbox) {
        if let Some((tid, _, query)) = query_in(bytes) {
            let nodes = if target_of(&query).is_some() { self.others() } else { Vec::new() };
            Answer { id: self.id, nodes: &nodes, peers: &[] }.send(from, tid, out);
        }
    }

    fn timeout(&mut self, now: Time, out: &mut Outbox) {
        if let Some((victim, every)) = self.visits {
            ask((0, victim), self.id, Query::FindNode { target: self.id, want: Want::UNSPECIFIED }, out);
            // A little out of step, so that they do not come in bunches.
            self.next = now + every + every * self.rng.below(1024) as u32 / 4096;
        }
    }

    fn next(&self) -> Time {
        self.next
    }

    fn forged(&self, _: u8) -> Option<SocketAddr> {
        None
    }
}

/// A member that answers in time and names nodes that do not exist, close to what is asked for. Besides, it
/// floods others with queries that seem to come from such nodes.
pub struct Liar {
    id: Id,
    rng: Rng,
    victims: Arc<Vec<SocketAddr>>,
    /// Pause between two forged queries.
    every: Duration,
    next: Time,
    forged: SocketAddr,
}

/// The socket of [`Liar`] whose sender is forged.
const FORGING: u8 = 2;

impl Liar {
    /// A liar that floods `victims`, with so much time between two queries.
    pub fn new(id: Id, victims: &Arc<Vec<SocketAddr>>, (begin, every): (Time, Duration), rng: Rng) -> Self {
        let forged = ([1, 1, 1, 1], 1).into();
        Self { id, rng, victims: Arc::clone(victims), every, next: begin, forged }
    }

    /// Whether `addr` is one that liars make up: nobody lives at their port.
    pub fn made_up(addr: SocketAddr) -> bool {
        addr.port() == NOBODY
    }

    fn nobody(&mut self) -> SocketAddr {
        let [a, b, c, d, ..] = self.rng.next_u64().to_be_bytes();
        ([40 + a % 50, b, c, d.clamp(1, 254)], NOBODY).into()
    }
}

/// Port of those who do not exist.
const NOBODY: u16 = 1;

impl Actor for Liar {
    fn id(&self) -> Id {
        self.id
    }
}

impl Host for Liar {
    fn datagram(&mut self, _: Time, _: u8, from: SocketAddr, bytes: &[u8], out: &mut Outbox) {
        let Some((tid, _, query)) = query_in(bytes) else { return };
        let mut nodes = Vec::new();
        if let Some(target) = target_of(&query) {
            for _ in 0..K {
                // The first 15 bytes as wanted: nearer than anybody honest.
                let mut near = *target.as_bytes();
                near[15..].copy_from_slice(&self.rng.id().as_bytes()[15..]);
                nodes.push((Id::new(near), self.nobody()));
            }
        }
        Answer { id: self.id, nodes: &nodes, peers: &[] }.send(from, tid, out);
    }

    fn timeout(&mut self, now: Time, out: &mut Outbox) {
        self.forged = self.nobody();
        let (victim, id) = (self.victims[self.rng.below(self.victims.len())], self.rng.id());
        ask((FORGING, victim), id, Query::FindNode { target: id, want: Want::UNSPECIFIED }, out);
        self.next = now + self.every;
    }

    fn next(&self) -> Time {
        self.next
    }

    fn forged(&self, _: u8) -> Option<SocketAddr> {
        Some(self.forged)
    }
}
