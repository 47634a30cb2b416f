//! What handles ask of the task of a node, and what it tells them.

use std::net::SocketAddr;
use std::time::Duration;

use krpc::Id;
use tokio::sync::{mpsc, oneshot};

use crate::net::Error;
use crate::net::interfaces::Difference;
use crate::net::keeper::StateStats;
use crate::net::port::PortCounters;
use crate::net::subscribers::Subscriber;
use crate::{BucketFill, Command, Counters, Event, HomeStats, KnownNode};

/// What handles ask of the task.
#[derive(Debug)]
pub(in crate::net) enum Request {
    /// Run a command whose events go to `sink`.
    Start { command: Command, sink: Sink },
    /// Run a command that nobody hears of again.
    Tell(Command),
    /// The interfaces of the machine have changed.
    Interfaces(Difference),
    /// Stop the lookup of that ticket.
    Cancel(u64),
    /// Copy the counters.
    Stats(oneshot::Sender<Stats>),
    /// Copy the routing tables.
    Table(oneshot::Sender<Vec<KnownNode>>),
    /// Name the known nodes nearest to an id, so many of each home.
    Closest(Id, usize, oneshot::Sender<Vec<(Id, SocketAddr)>>),
    /// Tell what concerns the whole node, from now on.
    Subscribe(Subscriber),
    /// Save and end.
    Shutdown(oneshot::Sender<Result<(), Error>>),
}

impl From<Difference> for Request {
    fn from(difference: Difference) -> Self {
        Self::Interfaces(difference)
    }
}

/// Where the events of one lookup go.
#[derive(Debug)]
pub(in crate::net) struct Sink {
    /// Names the lookup before the node has given it an id.
    pub(in crate::net) ticket: u64,
    pub(in crate::net) events: mpsc::Sender<Event>,
    /// The place of the last event, reserved from the start: a slow reader never misses the end.
    pub(in crate::net) last: mpsc::OwnedPermit<Event>,
}

/// A copy of what a node counts.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// Of the core, all shards together.
    pub counters: Counters,
    /// Of each shard, the deciding one first.
    pub shards: Vec<Counters>,
    /// Of each address, all shards together.
    pub sockets: Vec<SocketStats>,
    /// The buckets of each socket's routing table, in their order.
    pub buckets: Vec<Vec<BucketFill>>,
    /// Lookups and questions that run.
    pub running: usize,
    /// Events that a slow reader missed.
    pub events_missed: u64,
    /// What was loaded and saved.
    pub state: StateStats,
    /// How long the node has been running, suspended time included.
    pub uptime: Duration,
}

/// One socket of a node.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SocketStats {
    /// The node's presence there.
    pub home: HomeStats,
    /// What happened.
    pub counters: PortCounters,
}
