//! What a crawl wants asked ([`Query`]) and what it tells ([`Event`]), in an outbox that the caller owns.

use std::net::SocketAddr;

use krpc::Id;

use super::size::SizeEstimate;
use crate::addr::SourceKey;
use crate::{Question, SwarmEstimate, Time};

/// What a turn of a crawl produced, in order.
#[derive(Debug, Default)]
pub struct Actions {
    /// Questions to send now.
    pub queries: Vec<Query>,
    /// What to tell the owner.
    pub events: Vec<Event>,
    /// The crawl has nobody to ask and would like to hear of nodes
    /// ([`Crawler::handle_nodes`](super::Crawler::handle_nodes)).
    pub wants_nodes: bool,
}

/// A question to one node. Its end is told by [`Crawler::handle_answer`](super::Crawler::handle_answer).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Names it.
    pub ticket: u64,
    /// Whom to ask.
    pub to: SocketAddr,
    /// What to ask.
    pub question: Question,
}

/// What a crawl tells its owner.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A node told infohashes that it stores (BEP 51); only those in the crawl's region.
    Samples {
        /// The node.
        node: SocketAddr,
        /// Its key as a source of datagrams: one node counts for each (D7).
        source: SourceKey,
        /// A choice of them.
        infohashes: Vec<Id>,
        /// How many it stores in all, by its own word.
        num: u64,
        /// Seconds, at most 21,600, for which it wants to be left alone.
        interval: u32,
    },
    /// What asking for the size of a swarm came to (BEP 33); of no nodes when nobody told anything.
    Sized {
        /// The torrent.
        infohash: Id,
        /// The merged filters of the nodes asked.
        estimate: SwarmEstimate,
    },
    /// What is known of the node of a source has changed: worth keeping until the next run.
    Node {
        /// The key under which it is kept.
        source: SourceKey,
        /// `None` when it was forgotten.
        record: Option<NodeRecord>,
    },
    /// The crawl goes on in another way than before.
    Condition(Condition),
    /// Everybody known has been asked; the crawl goes on when somebody's interval is over.
    RoundOver {
        /// Rounds so far.
        rounds: u64,
    },
}

/// A node as it is kept between runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeRecord {
    /// Its id.
    pub id: Id,
    /// Its address.
    pub addr: SocketAddr,
    /// How it stands.
    pub standing: Standing,
}

/// How a node stands with a crawl.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It may be asked.
    Fresh,
    /// It told samples, or nodes alone where samples were not wanted, and is left alone until then.
    Resting(Time),
    /// It did not answer, and is forgotten then.
    Silent(Time),
    /// It answered that it does not know BEP 51, or nonsense. It is forgotten then, and may be asked again when
    /// somebody names it: behind its address there may be another program, or another node.
    Refused(Time),
}

/// How a crawl gets on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// Nobody is known yet.
    #[default]
    Starting,
    /// Well.
    Walking,
    /// Most queries get no answer, so that it asks more slowly: the line or the router may be saturated,
    /// or the nodes that others name are gone.
    Slowed,
    /// Nobody answers any more. One query a second finds out when somebody does; nobody is blamed.
    Unanswered,
    /// Everybody known has been asked lately.
    Resting,
    /// As many nodes as are remembered are within their interval: nobody else is asked until the first
    /// one's is over ([`Config::crawl_asked`](crate::Config::crawl_asked)).
    Full,
}

/// How a crawl stands, for a reader.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    /// How it gets on.
    pub condition: Condition,
    /// Queries a second that it allows itself now; 0 for as many as may be in flight.
    pub rate: u32,
    /// Nodes that may be asked.
    pub fresh: usize,
    /// Nodes within their interval.
    pub resting: usize,
    /// Nodes that were silent.
    pub silent: usize,
    /// Nodes without BEP 51.
    pub refused: usize,
    /// Queries that nobody has answered yet.
    pub in_flight: usize,
    /// Swarms that are asked for, or wait for it.
    pub scrapes: usize,
    /// Times that everybody known had been asked.
    pub rounds: u64,
    /// When the next node's interval is over; [`Time::NEVER`] when none is within it.
    pub next_due: Time,
    /// Nodes in the IPv4 DHT.
    pub size_v4: Option<SizeEstimate>,
    /// Nodes in the IPv6 DHT.
    pub size_v6: Option<SizeEstimate>,
}

impl Condition {
    /// What to tell an owner who wonders; `None` where all is well.
    pub fn reason(self) -> Option<&'static str> {
        Some(match self {
            Self::Walking => return None,
            Self::Starting => "no node is known yet",
            Self::Slowed => {
                "most queries get no answer: the line or the router may be saturated, or the nodes that \
                 others name are gone; asking more slowly"
            }
            Self::Unanswered => "nobody answers any more: is the network down? asking once a second",
            Self::Resting => "everybody known has been asked; waiting for the first interval to end",
            Self::Full => {
                "as many nodes as are remembered are within their interval; waiting for the first to end"
            }
        })
    }

    /// One word for machines.
    pub fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Walking => "walking",
            Self::Slowed => "slowed",
            Self::Unanswered => "unanswered",
            Self::Resting => "resting",
            Self::Full => "full",
        }
    }
}
