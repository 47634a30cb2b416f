//! [`Subnets`]: how many nodes of each IPv4 /24 a crawl works with at a time. Whoever has a /24 can name
//! 256 of its addresses and as many ids as it likes; without a cap the crawl would spend its queries there, and its
//! estimates would be of them.
//!
//! An IPv6 /64 has one node, because it is one source ([`crate::addr::source_key`]), so that there is
//! nothing to count.

use std::net::SocketAddr;

use hashbrown::HashMap;

use crate::addr::subnet_key;
use crate::{Config, KeyedHash};

/// Nodes by network. Memory follows the nodes of the frontier, which is bounded.
#[derive(Debug)]
pub(super) struct Subnets {
    /// By [`crate::addr::SubnetKey::short`]; nobody's network is not in it.
    counts: HashMap<u64, u32, KeyedHash>,
    /// [`Config::crawl_nodes_per_subnet`].
    most: usize,
    allow_local: bool,
}

impl Subnets {
    pub(super) fn new(config: &Config, hash: KeyedHash) -> Self {
        let (most, allow_local) = (config.crawl_nodes_per_subnet, config.allow_local);
        Self { counts: HashMap::with_hasher(hash), most, allow_local }
    }

    /// Whether one more node may come of the network of `addr`.
    pub(super) fn has_room(&self, addr: SocketAddr) -> bool {
        let count = self.key(addr).and_then(|key| self.counts.get(&key));
        count.is_none_or(|&count| (count as usize) < self.most)
    }

    /// A node at `addr` came.
    pub(super) fn enter(&mut self, addr: SocketAddr) {
        if let Some(key) = self.key(addr) {
            *self.counts.entry(key).or_default() += 1;
        }
    }

    /// A node at `addr` that had come went, or fell silent.
    pub(super) fn leave(&mut self, addr: SocketAddr) {
        let Some(key) = self.key(addr) else { return };
        let left = self.counts.get_mut(&key).map(|count| {
            *count -= 1;
            *count
        });
        if left == Some(0) {
            self.counts.remove(&key);
        }
    }

    /// Networks that somebody came of.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.counts.len()
    }

    fn key(&self, addr: SocketAddr) -> Option<u64> {
        let is_v4 = addr.ip().to_canonical().is_ipv4();
        is_v4.then(|| subnet_key(addr, self.allow_local).short())
    }
}
