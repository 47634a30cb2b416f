//! What a `Node` is asked to do ([`Command`]) and what it tells ([`Event`]).

use std::net::SocketAddr;
use std::time::Duration;

use krpc::{Id, Want};

use crate::Time;

/// Names a running lookup or direct query of one node; never reused in a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LookupId(pub u64);

/// What the owner of a node asks of it. Every command that starts something returns a
/// [`LookupId`], and exactly one [`Event::Done`] or [`Event::Answered`] with it follows.
#[derive(Clone, Debug)]
pub enum Command {
    /// Find the k closest nodes to `target`.
    FindNode {
        /// The id to approach.
        target: Id,
        /// Report every query and answer as [`Event::Hop`].
        trace: bool,
    },
    /// Find peers of `infohash`; each address is told once as [`Event::Peer`].
    GetPeers {
        /// The torrent.
        infohash: Id,
        /// Announce ourselves to the closest nodes once they are known.
        announce: Option<Announce>,
        /// Report every query and answer as [`Event::Hop`].
        trace: bool,
    },
    /// Ask one address one question; the answer comes as [`Event::Answered`].
    Ask {
        /// Where to.
        to: SocketAddr,
        /// The question.
        question: Question,
    },
    /// An address that may be a DHT node (a PORT message, the `nodes` key of a torrent): ping it.
    AddNode(SocketAddr),
    /// Addresses of routers to bootstrap from, in order of preference; replaces the earlier list.
    Routers(Vec<SocketAddr>),
    /// Stop a lookup; [`Event::Done`] follows with [`Outcome::Cancelled`].
    Cancel(LookupId),
}

/// How to announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announce {
    /// The peer's TCP and uTP port; ignored by nodes when `implied`.
    pub port: u16,
    /// Let nodes take the datagram's source port (BEP 5 `implied_port`).
    pub implied: bool,
    /// We have the whole torrent (BEP 33).
    pub seed: bool,
}

/// A question to one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// `ping`.
    Ping,
    /// `find_node`.
    FindNode(Id, Want),
    /// `get_peers`.
    GetPeers(Id, Want),
    /// A whole query written by hand: method and bencoded `a` dictionary, which must hold the `id`.
    Raw {
        /// The value of `q`.
        method: Vec<u8>,
        /// The bencoded arguments.
        arguments: Vec<u8>,
    },
}

/// What a node tells its owner.
#[derive(Clone, Debug)]
pub enum Event {
    /// A peer was found; each address once in a lookup.
    Peer {
        /// The lookup.
        lookup: LookupId,
        /// The peer.
        addr: SocketAddr,
        /// The node that named it.
        node: SocketAddr,
    },
    /// A node took our announce.
    Stored {
        /// The lookup.
        lookup: LookupId,
        /// Its id.
        id: Id,
        /// Its address.
        node: SocketAddr,
    },
    /// One step of a traced lookup.
    Hop {
        /// The lookup.
        lookup: LookupId,
        /// What happened.
        hop: Hop,
    },
    /// A lookup has ended.
    Done {
        /// The lookup.
        lookup: LookupId,
        /// How it ended.
        outcome: Outcome,
        /// What it cost.
        stats: LookupStats,
        /// The k closest nodes that answered, nearest first, of both families.
        closest: Vec<(Id, SocketAddr)>,
    },
    /// A [`Command::Ask`] was answered or given up.
    Answered {
        /// The name that the command returned.
        lookup: LookupId,
        /// The node asked.
        from: SocketAddr,
        /// The whole datagram and its round-trip time; `None` when nothing came.
        answer: Option<(Vec<u8>, Duration)>,
    },
    /// The first bootstrap is complete: our own neighbourhood is known.
    Bootstrapped {
        /// Nodes in both tables.
        nodes: usize,
    },
}

/// One step of a traced lookup.
#[derive(Clone, Debug)]
pub struct Hop {
    /// When.
    pub at: Time,
    /// The node asked.
    pub node: SocketAddr,
    /// Its id, where known.
    pub id: Option<Id>,
    /// Referrals between the start and this node.
    pub depth: u16,
    /// What happened.
    pub step: HopStep,
}

/// What happened in a [`Hop`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HopStep {
    /// We asked it.
    Asked,
    /// It answered.
    Answered {
        /// Round-trip time.
        rtt: Duration,
        /// New nodes that it named.
        nodes: u16,
        /// Peers that it named.
        peers: u16,
    },
    /// Its slot was freed; a late answer still counts.
    Slow,
    /// It did not answer in time.
    Silent,
    /// It answered with an error.
    Refused {
        /// The KRPC error code.
        code: i64,
    },
}

/// How a lookup ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The k closest reachable nodes have answered.
    Converged,
    /// Nobody answered at all.
    NoAnswer,
    /// There was nobody to ask.
    NoNodes,
    /// The budget of queries or time ran out first.
    OutOfBudget,
    /// The owner stopped it.
    Cancelled,
}

/// What a lookup cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LookupStats {
    /// Queries sent.
    pub queries: u32,
    /// Answers received.
    pub answered: u32,
    /// Longest chain of referrals that ended in an answer.
    pub hops: u16,
    /// Distinct peers found.
    pub peers: u32,
    /// Time to the first peer.
    pub first_peer: Option<Duration>,
    /// Time from start to end.
    pub elapsed: Duration,
}
