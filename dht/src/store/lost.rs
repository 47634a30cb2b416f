//! [`Lost`]: what a store holds no longer, as a node counts it.

/// What went since somebody last asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Peers that were not announced again in time.
    pub peers_expired: u32,
    /// Peers that made room for others: in a full store, infohash or source.
    pub peers_evicted: u32,
    /// Items of BEP 44 that were not put again in time.
    pub items_expired: u32,
    /// Items that made room for others.
    pub items_evicted: u32,
}
