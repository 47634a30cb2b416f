//! Why a query was sent: what its answer, or its silence, is given to.

use crate::LookupId;

/// The party that waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A step of a lookup.
    Lookup(Asked),
    /// An `announce_peer` at the end of a lookup.
    Announce(Asked),
    /// A ping of a newcomer or of a questionable node: only the table learns from it.
    Ping,
    /// A ping of a node that lost its place in the table of a home for being silent.
    Missing,
    /// A question for nodes where the table has nobody.
    Spread,
    /// A question of our owner's.
    Ask(LookupId),
}

/// A candidate of a search of a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    /// The lookup's key.
    pub(crate) lookup: u64,
    /// The home whose search it is.
    pub(crate) home: u8,
    /// The candidate's number in the search.
    pub(crate) serial: u32,
}
