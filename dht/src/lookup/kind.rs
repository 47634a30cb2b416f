//! What differs between kinds of lookups: the question, and what happens at the end. An enum, matched
//! here only; what its answers bring is gathered in [`super::findings`].

use krpc::{Id, Query, Want};

use crate::item::Item;
use crate::{Announce, Command};

/// What a lookup is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The closest nodes themselves (BEP 5 `find_node`).
    FindNode,
    /// Peers of an infohash (BEP 5 `get_peers`), and announcing to the closest nodes.
    GetPeers {
        /// How to announce, if at all.
        announce: Option<Announce>,
    },
    /// How many peers an infohash has (BEP 33).
    Scrape,
    /// Infohashes that nodes on the way store (BEP 51).
    Sample,
    /// An item (BEP 44).
    Get {
        /// Of a mutable item; empty for any other.
        salt: Vec<u8>,
        /// Only newer versions are wanted.
        seq: Option<i64>,
        /// The item is an immutable one, of which the first copy is as good as any.
        immutable: bool,
    },
    /// Storing an item with the closest nodes (BEP 44).
    Put {
        /// What to store.
        item: Box<Item>,
        /// Store only over this sequence number.
        cas: Option<i64>,
    },
}

/// What of the answers is of interest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interest<'a> {
    /// Nothing but the nodes.
    Nodes,
    /// Peers.
    Peers,
    /// Filters.
    Filters,
    /// Samples.
    Samples,
    /// The item.
    Item {
        /// Its salt.
        salt: &'a [u8],
        /// Only versions with a greater sequence number are wanted.
        newer_than: Option<i64>,
    },
}

impl Kind {
    /// The kind and the target of a command, if it is one for a lookup, and whether it is traced.
    pub(crate) fn of(command: Command) -> Option<(Self, Id, bool)> {
        let target = command.target()?;
        let (kind, trace) = match command {
            Command::FindNode { trace, .. } => (Self::FindNode, trace),
            Command::GetPeers { announce, trace, .. } => (Self::GetPeers { announce }, trace),
            Command::Scrape { trace, .. } => (Self::Scrape, trace),
            Command::Sample { trace, .. } => (Self::Sample, trace),
            Command::GetImmutable { trace, .. } => {
                (Self::Get { salt: Vec::new(), seq: None, immutable: true }, trace)
            }
            Command::GetMutable { salt, seq, trace, .. } => {
                (Self::Get { salt, seq, immutable: false }, trace)
            }
            Command::Put { item, cas, trace } => (Self::Put { item, cas }, trace),
            Command::Ask { .. }
            | Command::AddNode(_)
            | Command::RemoveNode(_)
            | Command::Routers(_)
            | Command::TellAnnounces(_)
            | Command::Cancel(_) => return None,
        };
        Some((kind, target, trace))
    }

    /// The question that is put to every node on the way.
    pub(crate) fn query(&self, target: Id, want: Want) -> Query<'static> {
        match self {
            Self::FindNode => Query::FindNode { target, want },
            Self::GetPeers { .. } => {
                Query::GetPeers { infohash: target, want, scrape: false, no_seed: false }
            }
            Self::Scrape => Query::GetPeers { infohash: target, want, scrape: true, no_seed: false },
            Self::Sample => Query::SampleInfohashes { target, want },
            Self::Get { seq, .. } => Query::Get { target, seq: *seq, want },
            // A put wants tokens, and to know who has which version.
            Self::Put { item, .. } => Query::Get { target, seq: item.seq(), want },
        }
    }

    /// What is put to the closest nodes at the end, given the token that a node wants to see, the
    /// sequence number that it has, and whether it is sent `again` because no answer came.
    pub(crate) fn announce<'a>(
        &'a self,
        target: Id,
        token: &'a [u8],
        held: Option<i64>,
        again: bool,
    ) -> Option<Query<'a>> {
        match self {
            Self::GetPeers { announce: Some(announce) } => Some(Query::AnnouncePeer {
                infohash: target,
                port: i64::from(announce.port),
                implied_port: announce.implied,
                token,
                seed: announce.seed,
            }),
            Self::Put { item, cas } => Some(Query::Put {
                token,
                value: item.value(),
                signed: match &**item {
                    Item::Immutable { .. } => None,
                    // BEP 44, "CAS": not to nodes that have no version yet. Nor to one that may have stored this
                    // very one and whose answer was lost: the number itself keeps it from replacing another
                    // one there, if it is the next. What it answers to that is doubtful ([`crate::Event::Stored`]).
                    Item::Mutable(item) => {
                        Some(item.as_signed(cas.filter(|_| self.has_condition(held, again))))
                    }
                },
            }),
            _ => None,
        }
    }

    /// Whether a node that has version `held` is told the condition of a put.
    fn has_condition(&self, held: Option<i64>, again: bool) -> bool {
        let Self::Put { item, cas: Some(cas) } = self else { return false };
        held.is_some() && !(again && cas.checked_add(1) == item.seq())
    }

    /// Whether a node that says yes to a put may have another value of its number, which it keeps: it was told
    /// no condition, and what it had before may have been that.
    pub(crate) fn is_doubtful(&self, held: Option<i64>, again: bool) -> bool {
        let Self::Put { item, .. } = self else { return false };
        let was_older = held.is_some_and(|held| item.seq().is_some_and(|seq| held < seq));
        item.seq().is_some() && !self.has_condition(held, again) && (again || !was_older)
    }

    /// Whether something is put to the closest nodes at the end.
    pub(crate) fn announces(&self) -> bool {
        matches!(self, Self::GetPeers { announce: Some(_) } | Self::Put { .. })
    }

    /// What its answers are read for.
    pub(crate) fn interest(&self) -> Interest<'_> {
        match self {
            Self::FindNode => Interest::Nodes,
            Self::GetPeers { .. } => Interest::Peers,
            Self::Scrape => Interest::Filters,
            Self::Sample => Interest::Samples,
            Self::Get { salt, seq, .. } => Interest::Item { salt, newer_than: *seq },
            Self::Put { item, .. } => match &**item {
                Item::Mutable(item) => Interest::Item { salt: &item.salt, newer_than: Some(item.seq) },
                Item::Immutable { .. } => Interest::Item { salt: &[], newer_than: None },
            },
        }
    }

    /// Whether one finding is all that is wanted.
    pub(crate) fn ends_at_first(&self) -> bool {
        matches!(self, Self::Get { immutable: true, .. })
    }
}
