//! [`Commons`]: what the shards of a node share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::Snapshot;
use crate::guard::SharedGuard;
use crate::store::Striped;
use crate::{Config, Rng};

/// What the shards of a node share.
pub(crate) struct Commons {
    pub(crate) config: Arc<Config>,
    pub(crate) store: Striped,
    pub(crate) guard: Arc<SharedGuard>,
    published: Mutex<Arc<Snapshot>>,
    /// Grows with each snapshot, so that a look at it tells whether there is a newer one.
    version: AtomicU64,
}

impl Commons {
    /// For so many shards, the deciding one among them.
    pub(crate) fn new(config: &Arc<Config>, shards: usize, first: Snapshot, rng: &mut Rng) -> Self {
        Self {
            config: Arc::clone(config),
            store: Striped::new(config, rng),
            guard: Arc::new(SharedGuard::new(config, shards, rng)),
            published: Mutex::new(Arc::new(first)),
            version: AtomicU64::new(0),
        }
    }

    /// Lets all shards answer from `snapshot` from their next datagram on.
    pub(crate) fn publish(&self, snapshot: Snapshot) {
        *self.published.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(snapshot);
        self.version.fetch_add(1, Ordering::Release);
    }

    /// The number of the newest snapshot.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The newest snapshot.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.published.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
