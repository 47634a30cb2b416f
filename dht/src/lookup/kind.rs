//! What differs between kinds of lookups: the question, and what happens at the end. An enum, matched
//! here only.

use krpc::{Id, Query, Want};

use crate::Announce;

/// What a lookup is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The closest nodes themselves (BEP 5 `find_node`).
    FindNode,
    /// Peers of an infohash (BEP 5 `get_peers`), and announcing to the closest nodes.
    GetPeers {
        /// How to announce, if at all.
        announce: Option<Announce>,
    },
}

impl Kind {
    /// The question that is put to every node on the way.
    pub(crate) fn query(self, target: Id, want: Want) -> Query<'static> {
        match self {
            Self::FindNode => Query::FindNode { target, want },
            Self::GetPeers { .. } => {
                Query::GetPeers { infohash: target, want, scrape: false, no_seed: false }
            }
        }
    }

    /// What is put to the closest nodes at the end, given the token that a node wants to see.
    pub(crate) fn announce(self, target: Id, token: &[u8]) -> Option<Query<'_>> {
        let Self::GetPeers { announce: Some(announce) } = self else {
            return None;
        };
        Some(Query::AnnouncePeer {
            infohash: target,
            port: i64::from(announce.port),
            implied_port: announce.implied,
            token,
            seed: announce.seed,
        })
    }

    /// Whether something is put to the closest nodes at the end.
    pub(crate) fn announces(self) -> bool {
        matches!(self, Self::GetPeers { announce: Some(_) })
    }

    /// Whether `values` in an answer mean anything.
    pub(crate) fn takes_peers(self) -> bool {
        matches!(self, Self::GetPeers { .. })
    }
}
