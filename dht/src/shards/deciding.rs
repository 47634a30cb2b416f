//! [`Deciding`]: what a node that was split does beside its own work: it keeps the snapshot fresh and
//! sweeps the stripes.

use std::sync::Arc;
use std::time::Duration;

use krpc::{Id, Query};

use super::{Commons, Snapshot};
use crate::guard::ShardGuard;
use crate::home::Place;
use crate::store::{Lost, Store};
use crate::token::TokenServer;
use crate::{Config, Rng, Time};

/// The deciding shard's part in the commons.
pub(crate) struct Deciding {
    pub(crate) commons: Arc<Commons>,
    pub(crate) guard: ShardGuard,
    /// Tells samples of the stripes.
    pub(crate) samples: Store,
    /// Something happened after which the tables may be others.
    is_stale: bool,
    /// Something changed that nobody may answer without.
    is_urgent: bool,
    /// No snapshot before this, unless it is urgent.
    look_at: Time,
    /// When the stripes are swept next.
    sweep_at: Time,
}

impl Deciding {
    pub(crate) fn new(now: Time, commons: Arc<Commons>, rng: &mut Rng) -> Self {
        let guard = ShardGuard::new(Arc::clone(&commons.guard));
        let samples = Store::new(&commons.config, rng);
        Self { commons, guard, samples, is_stale: false, is_urgent: false, look_at: now, sweep_at: now }
    }

    /// Notes that the tables may have changed.
    pub(crate) fn touch(&mut self) {
        self.is_stale = true;
    }

    /// Notes that tokens, ids or what is answered at all have changed, which shards have to know before the next
    /// datagram leaves.
    pub(crate) fn hurry(&mut self) {
        self.is_urgent = true;
    }

    /// Sweeps the stripes that are due; `lost` is told what went.
    pub(crate) fn handle_timeout(&mut self, now: Time, lost: impl FnMut(Lost)) {
        if self.sweep_at <= now {
            self.sweep_at = self.commons.store.expire(now, lost);
        }
    }

    /// When [`Deciding::handle_timeout`] or [`Deciding::publish`] has something to do.
    pub(crate) fn timeout(&self) -> Time {
        if self.is_stale { self.sweep_at.min(self.look_at) } else { self.sweep_at }
    }

    /// Publishes what has changed if it is urgent, or if the last look was [`LOOK_EVERY`] ago.
    pub(crate) fn publish(
        &mut self,
        now: Time,
        (places, tokens): (&[Place], &TokenServer),
        tells_announces: bool,
        config: &Config,
    ) {
        let is_due = self.is_stale && self.look_at <= now;
        if !self.is_urgent && !is_due {
            return;
        }
        if self.is_urgent || !self.commons.snapshot().is_current(places, config) {
            self.commons.publish(Snapshot::new(places, tokens, tells_announces));
        }
        (self.is_stale, self.is_urgent) = (false, false);
        self.look_at = now + LOOK_EVERY;
    }
}

/// The infohash whose peers a query is about, which lie in one stripe.
pub(crate) fn infohash_of(query: &Query<'_>) -> Option<Id> {
    match *query {
        Query::GetPeers { infohash, .. } | Query::AnnouncePeer { infohash, .. } => Some(infohash),
        _ => None,
    }
}

/// A change of the tables reaches the other shards after so long at most. A look costs some µs.
const LOOK_EVERY: Duration = Duration::from_millis(100);
