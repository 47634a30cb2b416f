//! [`Subnets`]: how many nodes of each IPv4 /24 a crawl works with at a time. Whoever has a /24 can name
//! 256 of its addresses and as many ids as it likes; without a cap the crawl would spend its queries there.
//!
//! The cap is no guard of what surveys estimate: eight live nodes near its point are all that one of them counts,
//! which is fewer than a network may have here; and whoever has no seat is asked by a survey without one, or
//! the size would be that of a DHT without crowded networks. Whoever places nodes around a point can spoil the survey of
//! that point; points are drawn at random.
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
    counts: HashMap<u64, Seats, KeyedHash>,
    /// [`Config::crawl_nodes_per_subnet`].
    most: usize,
    allow_local: bool,
}

/// The nodes of one network.
#[derive(Clone, Copy, Debug, Default)]
struct Seats {
    taken: u32,
    /// Of them, those who refused.
    refused: u32,
}

impl Subnets {
    pub(super) fn new(config: &Config, hash: KeyedHash) -> Self {
        let (most, allow_local) = (config.crawl_nodes_per_subnet, config.allow_local);
        Self { counts: HashMap::with_hasher(hash), most, allow_local }
    }

    /// Whether one more node may come of the network of `addr`.
    pub(super) fn has_room(&self, addr: SocketAddr) -> bool {
        self.seats(addr).is_none_or(|seats| (seats.taken as usize) < self.most)
    }

    /// Whether there would be room for one more without those who refused.
    pub(super) fn could_have_room(&self, addr: SocketAddr) -> bool {
        self.seats(addr).is_none_or(|seats| ((seats.taken - seats.refused) as usize) < self.most)
    }

    /// A node at `addr` that has come refused.
    pub(super) fn refuse(&mut self, addr: SocketAddr) {
        if let Some(seats) = self.key(addr).and_then(|key| self.counts.get_mut(&key)) {
            seats.refused += 1;
        }
    }

    /// A node at `addr` that refused is about to go.
    pub(super) fn pardon(&mut self, addr: SocketAddr) {
        if let Some(seats) = self.key(addr).and_then(|key| self.counts.get_mut(&key)) {
            seats.refused -= 1;
        }
    }

    /// A node at `addr` came.
    pub(super) fn enter(&mut self, addr: SocketAddr) {
        if let Some(key) = self.key(addr) {
            self.counts.entry(key).or_default().taken += 1;
        }
    }

    /// A node at `addr` that had come went, or fell silent.
    pub(super) fn leave(&mut self, addr: SocketAddr) {
        let Some(key) = self.key(addr) else { return };
        let left = self.counts.get_mut(&key).map(|seats| {
            seats.taken -= 1;
            seats.taken
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

    fn seats(&self, addr: SocketAddr) -> Option<Seats> {
        self.counts.get(&self.key(addr)?).copied()
    }

    fn key(&self, addr: SocketAddr) -> Option<u64> {
        let is_v4 = addr.ip().to_canonical().is_ipv4();
        is_v4.then(|| subnet_key(addr, self.allow_local).short())
    }
}
