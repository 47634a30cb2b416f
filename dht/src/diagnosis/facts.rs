//! What a node can find out about its place in the network, as plain numbers.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use krpc::Id;

use crate::{BucketFill, Counters, Outcome};

/// Everything that a diagnosis is made from.
#[derive(Clone, Debug)]
pub struct Facts {
    /// How long the node has run.
    pub ran: Duration,
    /// Nodes that a lookup ends with (BEP 5: 8).
    pub k: usize,
    /// Whether local addresses are accepted, as in tests on one machine.
    pub allow_local: bool,
    /// The sockets that are bound.
    pub sockets: Vec<SocketFacts>,
    /// The routers that are to be asked.
    pub routers: Vec<RouterFacts>,
    /// When the first bootstrap was complete.
    pub bootstrapped: Option<Duration>,
    /// What the core counted.
    pub counters: Counters,
    /// A lookup of our own id, and one of a random one.
    pub lookups: Vec<LookupFacts>,
    /// What an earlier run left.
    pub state: StateFacts,
    /// What the clocks say.
    pub clock: ClockFacts,
}

/// A socket and its routing table.
#[derive(Clone, Debug)]
pub struct SocketFacts {
    /// Where it is bound.
    pub local: SocketAddr,
    /// Our id there.
    pub id: Id,
    /// Nodes in the table.
    pub nodes: usize,
    /// Nodes that are good in the sense of BEP 5.
    pub trusty: usize,
    /// Nodes that failed to answer several times in a row.
    pub bad: usize,
    /// The buckets, farthest first.
    pub buckets: Vec<BucketFill>,
    /// Nodes that wait for a place.
    pub candidates: usize,
    /// Median round-trip time of the nodes.
    pub median_rtt: Duration,
    /// Datagrams that the system took from us.
    pub sent: u64,
    /// Datagrams that it refused.
    pub refused: u64,
    /// Datagrams received.
    pub received: u64,
    /// Our address as others see it, once they agree.
    pub external: Option<SocketAddr>,
    /// How many networks name which address as ours, most first.
    pub votes: Vec<(IpAddr, usize)>,
    /// How long ago a query came from an address that we had not asked before.
    pub reached: Option<Duration>,
    /// Nodes whose id does not belong to their address (BEP 42).
    pub insecure: usize,
}

/// A router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterFacts {
    /// As it is written in the settings.
    pub name: String,
    /// Its addresses of our families; empty when the name could not be resolved.
    pub addresses: Vec<SocketAddr>,
    /// The first of them that answered, and how fast.
    pub answered: Option<(SocketAddr, Duration)>,
}

/// A lookup that was made to see how it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookupFacts {
    /// What for: `own id`, `random id`.
    pub what: &'static str,
    /// How it ended; `None` when there was no time for that.
    pub outcome: Option<Outcome>,
    /// Queries sent.
    pub queries: u32,
    /// Answers received.
    pub answered: u32,
    /// Longest chain of referrals.
    pub hops: u16,
    /// Closest nodes that answered.
    pub closest: usize,
    /// How long it took.
    pub elapsed: Duration,
}

/// Saved state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateFacts {
    /// None is kept.
    Off,
    /// Nothing has been saved yet.
    Missing,
    /// It can be used.
    Readable {
        /// Nodes in it.
        nodes: usize,
        /// Whether a running process holds it.
        in_use: bool,
        /// How long ago it was written, as far as the system says.
        age: Option<Duration>,
        /// Nodes in it that were asked.
        asked: usize,
        /// Of these, the ones that answered under the id that they had.
        answered: usize,
        /// Of these, the ones from which nothing came at all, for as long as a query is waited for: each is one
        /// of [`Counters::timeouts`].
        silent: usize,
    },
    /// It is there but says nothing.
    Damaged,
    /// The system does not let us read it, for this reason.
    Unreadable(String),
}

/// Clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockFacts {
    /// The year of the wall clock.
    pub year: i64,
    /// How far the wall clock went apart from the one that counts time since the machine was started,
    /// while the node ran.
    pub drift: Duration,
}

impl Facts {
    /// Nodes in all tables.
    pub fn nodes(&self) -> usize {
        self.sockets.iter().map(|socket| socket.nodes).sum()
    }

    /// Our queries that were answered, even if with an error.
    pub fn answers(&self) -> u64 {
        self.counters.replies_in + self.counters.errors_in
    }

    /// Which part of the answers to our queries came from another address than was asked, from 0 to 1;
    /// `None` without any. What is spoofed is dropped and counts as no answer.
    pub fn spoofed_share(&self) -> Option<f64> {
        share(self.counters.replies_spoofed, self.answers())
    }

    /// Which part of them came under another id than the node there had.
    pub fn changing_ids_share(&self) -> Option<f64> {
        share(self.counters.ids_mismatched, self.answers())
    }

    /// Which part of them was one or the other.
    pub fn doubtful_share(&self) -> Option<f64> {
        share(self.counters.replies_spoofed + self.counters.ids_mismatched, self.answers())
    }

    /// Nodes of an earlier run that were asked and waited for in vain.
    pub fn saved_silent(&self) -> usize {
        match self.state {
            StateFacts::Readable { silent, .. } => silent,
            _ => 0,
        }
    }

    /// Nodes that an earlier run left.
    pub fn saved_nodes(&self) -> usize {
        match self.state {
            StateFacts::Readable { nodes, .. } => nodes,
            _ => 0,
        }
    }
}

/// The part that `some` are of themselves and `others`.
fn share(some: u64, others: u64) -> Option<f64> {
    let all = some + others;
    (all > 0).then(|| some as f64 / all as f64)
}
