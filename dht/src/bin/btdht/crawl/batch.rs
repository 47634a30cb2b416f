//! [`Batch`]: what a crawl has told since the last time that it was written down.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use btdht::SwarmEstimate;
use btdht::addr::SourceKey;
use btdht::crawl::size::SizeEstimate;
use krpc::Id;

use super::record::Node;

/// Infohashes in a batch beyond which it is written before more is taken.
pub(super) const FULL: usize = 20_000;

/// What is written in one transaction.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Which infohash was told by which node.
    pub(super) told: Vec<(Id, SocketAddr, SourceKey)>,
    pub(super) sized: Vec<(Id, SwarmEstimate)>,
    /// The newest state of each node that something has happened to; `None` for the forgotten.
    pub(super) nodes: BTreeMap<SourceKey, Option<Node>>,
    /// Of the IPv4 and of the IPv6 DHT.
    pub(super) sizes: Sizes,
}

/// How large the DHT of each family is said to be.
pub(super) type Sizes = [Option<SizeEstimate>; 2];

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.told.is_empty() && self.sized.is_empty() && self.nodes.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.told.len() + self.sized.len() + self.nodes.len() >= FULL
    }
}
