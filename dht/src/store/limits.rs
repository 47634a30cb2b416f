//! [`Limits`]: the caps of a store on peers.

use std::time::Duration;

use super::slab::MAX_PEERS;
use crate::Config;

#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) memory: usize,
    pub(super) peers_per_infohash: usize,
    pub(super) ports_per_source: usize,
    pub(super) infohashes_per_source: usize,
    pub(super) expiry: Duration,
}

impl Limits {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            memory: config.store_memory,
            peers_per_infohash: config.peers_per_infohash.min(MAX_PEERS),
            ports_per_source: config.ports_per_ip,
            infohashes_per_source: config.infohashes_per_ip,
            expiry: config.peer_expiry,
        }
    }

    /// Time for a pass over the store: an eighth of a life, 1 s to 5 minutes.
    pub(super) fn sweep_period(&self) -> Duration {
        (self.expiry / 8).clamp(Duration::from_secs(1), Duration::from_secs(300))
    }
}
