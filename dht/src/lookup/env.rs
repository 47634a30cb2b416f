//! [`Env`]: what a lookup works with; [`Owner`]: for whom; and how it and its announces end.

use std::net::SocketAddr;

use super::remembered::Remembered;
use super::sampled::Sampled;
use crate::counters::Tally;
use crate::home::Place;
use crate::purpose::Purpose;
use crate::rpc::Rpc;
use crate::{Config, LookupId, Outbox, Outcome};

/// The siblings that a lookup works with.
pub(crate) struct Env<'a> {
    pub(crate) config: &'a Config,
    pub(crate) places: &'a [Place],
    pub(crate) rpc: &'a mut Rpc<Purpose>,
    pub(crate) sampled: &'a mut Sampled,
    pub(crate) remembered: &'a mut Remembered,
    pub(crate) counters: &'a mut Tally,
    pub(crate) out: &'a mut Outbox,
}

/// Who wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The node's owner, by events; with `trace` every step.
    User { id: LookupId, trace: bool },
    /// The upkeep of a home's table.
    Upkeep { home: u8, kind: Upkeep },
}

/// How an announce or put to one node ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AnnounceEnd {
    /// The node at this address took it.
    Stored(SocketAddr),
    /// The node at this address answered with an error of this code.
    Refused(SocketAddr, i64),
    /// Nobody answered, or somebody else.
    Silent,
}

/// What kind of upkeep a lookup is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upkeep {
    /// Finding our own neighbourhood.
    Own,
    /// Refreshing a bucket.
    Refresh,
    /// Finding our own neighbourhood in a part of the network that we lost, from one node of it alone.
    Reunion,
}

/// A lookup that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Finished {
    pub(crate) owner: Owner,
    pub(crate) outcome: Outcome,
    /// Nodes that answered.
    pub(crate) answered: u32,
}
