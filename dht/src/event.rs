//! What a `Node` is asked to do ([`Command`]) and what it tells ([`Event`]).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use krpc::{Id, Want};

use crate::Time;
use crate::item::{Item, PublicKey, mutable_target};

/// Names a running lookup or direct query of one node; never reused in a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LookupId(pub u64);

/// What the owner of a node asks of it. Every command that starts something returns a
/// [`LookupId`], and exactly one [`Event::Done`] or [`Event::Answered`] with it follows.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// Estimate the seeds and downloaders of `infohash`, told as [`Event::Scraped`] (BEP 33).
    Scrape {
        /// The torrent.
        infohash: Id,
        /// Report every query and answer as [`Event::Hop`].
        trace: bool,
    },
    /// Ask the nodes on the way to `target` for infohashes, told as [`Event::Samples`] (BEP 51).
    Sample {
        /// The id to approach.
        target: Id,
        /// Report every query and answer as [`Event::Hop`].
        trace: bool,
    },
    /// Find the immutable item under `target`, told as [`Event::Item`] (BEP 44).
    GetImmutable {
        /// The hash of its value.
        target: Id,
        /// Report every query and answer as [`Event::Hop`].
        trace: bool,
    },
    /// Find the mutable item of a key; each newer version is told as [`Event::Item`] (BEP 44).
    GetMutable {
        /// The public key.
        key: PublicKey,
        /// Which of the key's items; empty for the only one.
        salt: Vec<u8>,
        /// Only versions with a greater sequence number are wanted.
        seq: Option<i64>,
        /// Report every query and answer as [`Event::Hop`].
        trace: bool,
    },
    /// Store an item with the closest nodes: each tells [`Event::Stored`] or [`Event::Refused`]; newer
    /// versions that are met on the way are told as [`Event::Item`] (BEP 44).
    Put {
        /// The item.
        item: Box<Item>,
        /// Store only over this sequence number; ignored for immutable items.
        cas: Option<i64>,
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
    /// Forget the node at an address, in the routing tables and among those that wait for a place. It
    /// comes back when it is heard of again.
    RemoveNode(SocketAddr),
    /// Addresses of routers to bootstrap from, in order of preference; replaces the earlier list.
    Routers(Vec<SocketAddr>),
    /// Tell every announce that is stored as [`Event::Announced`], or no more. A busy node has thousands
    /// a second, so that it is off at first.
    TellAnnounces(bool),
    /// Stop a lookup; [`Event::Done`] follows with [`Outcome::Cancelled`].
    Cancel(LookupId),
}

impl Command {
    /// What a lookup approaches; `None` for commands that start none.
    pub fn target(&self) -> Option<Id> {
        match self {
            Self::FindNode { target, .. }
            | Self::Sample { target, .. }
            | Self::GetImmutable { target, .. } => Some(*target),
            Self::GetPeers { infohash, .. } | Self::Scrape { infohash, .. } => Some(*infohash),
            Self::GetMutable { key, salt, .. } => Some(mutable_target(key, salt)),
            Self::Put { item, .. } => Some(item.target()),
            Self::Ask { .. }
            | Self::AddNode(_)
            | Self::RemoveNode(_)
            | Self::Routers(_)
            | Self::TellAnnounces(_)
            | Self::Cancel(_) => None,
        }
    }
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
    /// `get_peers` with `scrape`: the size of a swarm by what one node knows of it (BEP 33).
    Scrape(Id, Want),
    /// `sample_infohashes` (BEP 51).
    Sample(Id, Want),
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
    /// An item was found, or a newer version of it (BEP 44); or, once for each, another value of the same
    /// sequence number, which a second writer has signed at the same time. It has been verified.
    Item {
        /// The lookup.
        lookup: LookupId,
        /// The node that had it.
        node: SocketAddr,
        /// The item.
        item: Box<Item>,
    },
    /// A node told infohashes that it stores (BEP 51).
    Samples {
        /// The lookup.
        lookup: LookupId,
        /// The node.
        node: SocketAddr,
        /// A random choice of them.
        samples: Vec<Id>,
        /// How many it stores in all, by its own word.
        num: u64,
        /// Seconds, at most 21,600, after which asking it again gives others.
        interval: u32,
    },
    /// What a scrape came to (BEP 33).
    Scraped {
        /// The lookup.
        lookup: LookupId,
        /// The estimate.
        estimate: SwarmEstimate,
    },
    /// A node refused our announce or put.
    Refused {
        /// The lookup.
        lookup: LookupId,
        /// The node.
        node: SocketAddr,
        /// The KRPC error code: 301 and 302 tell of another writer (BEP 44).
        code: i64,
    },
    /// A node took our announce.
    Stored {
        /// The lookup.
        lookup: LookupId,
        /// Its id.
        id: Id,
        /// Its address.
        node: SocketAddr,
        /// A put without a `cas` to a node that may have another value of this sequence number: one that keeps
        /// that and ignores this one says the same (libtorrent does).
        doubtful: bool,
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
    /// Other nodes agree on another address of ours than before (BEP 42). Our id there is new unless the
    /// old one belonged to that address too.
    ExternalAddress {
        /// Index of the home.
        home: usize,
        /// The address as others see it.
        addr: SocketAddr,
        /// What it was before, in this run or the last; `None` if nobody knew.
        before: Option<IpAddr>,
        /// Our id there.
        id: Id,
    },
    /// The first bootstrap is complete: our own neighbourhood is known.
    Bootstrapped {
        /// Nodes in both tables.
        nodes: usize,
    },
    /// The network of a home has changed: another address, or back after it was gone. What other nodes
    /// have stored of us may be wrong now.
    NetworkChanged {
        /// Index of the home.
        home: usize,
    },
    /// Somebody announced a peer to us, and we stored it; told only after [`Command::TellAnnounces`].
    Announced {
        /// The torrent.
        infohash: Id,
        /// The peer.
        peer: SocketAddr,
        /// It has the whole torrent (BEP 33).
        seed: bool,
    },
}

impl Event {
    /// The lookup or question that the event belongs to; `None` for what concerns the whole node.
    pub fn lookup(&self) -> Option<LookupId> {
        match self {
            Self::Peer { lookup, .. }
            | Self::Item { lookup, .. }
            | Self::Samples { lookup, .. }
            | Self::Scraped { lookup, .. }
            | Self::Refused { lookup, .. }
            | Self::Stored { lookup, .. }
            | Self::Hop { lookup, .. }
            | Self::Done { lookup, .. }
            | Self::Answered { lookup, .. } => Some(*lookup),
            Self::ExternalAddress { .. }
            | Self::Bootstrapped { .. }
            | Self::NetworkChanged { .. }
            | Self::Announced { .. } => None,
        }
    }

    /// Whether it says that we are, or are seen, elsewhere than before: announces have to be renewed.
    pub fn is_move(&self) -> bool {
        matches!(self, Self::NetworkChanged { .. } | Self::ExternalAddress { before: Some(_), .. })
    }

    /// Whether it is the last event of its lookup or question.
    pub fn is_last(&self) -> bool {
        matches!(self, Self::Done { .. } | Self::Answered { .. })
    }
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
        /// Peers that it named and that are new.
        peers: u16,
        /// Whether it gave a token to announce or put with.
        token: bool,
    },
    /// Its slot was freed; a late answer still counts.
    Slow,
    /// It did not answer in time.
    Silent,
    /// It answered with an error.
    Refused {
        /// The code that it sent (BEP 5, "Errors").
        code: i64,
    },
    /// What came in answer is none, and nothing in it was believed.
    Unsound(Unsound),
}

/// Why an answer is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsound {
    /// It came under another id than that of the node asked, or under our own.
    SomebodyElse,
    /// A record of a node in it is cut.
    Malformed,
    /// It brings an item that is not the one asked for, or that its key did not sign (BEP 44).
    Forged,
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

/// Addresses in a swarm, as merged filters have it (BEP 33); each IP counts once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SwarmEstimate {
    /// Seeds.
    pub seeds: u32,
    /// Everybody else.
    pub downloaders: u32,
    /// Nodes whose filters count.
    pub nodes: u32,
    /// Nodes whose filters said so much more than the others' that they were left out.
    pub ignored: u32,
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
