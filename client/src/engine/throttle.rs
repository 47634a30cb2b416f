//! Rate limits of connections. Each direction of a connection has a [`Lane`]: it passes the connection's
//! own limit, its torrent's and the session's, in that order, each a [`Bucket`] in which connections
//! stand in line. The session's is the one owner of the global rate; it lends a share at a time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use btdht::Time;
use tokio::sync::Notify;

use crate::rates::{Bucket, Ticket, Turn};

/// A limit that connections share.
#[derive(Debug)]
pub(super) struct Limit {
    /// As in the bucket, to be seen without its lock: most limits are none.
    rate: AtomicU64,
    bucket: Mutex<Bucket<Arc<Notify>>>,
}

/// The way of one direction of a connection through its limits.
#[derive(Debug)]
pub(super) struct Lane {
    places: [Place; 3],
    waker: Arc<Notify>,
    /// What is left of the share that it has, which is no more than any limit has lent.
    share: usize,
}

/// Both lanes of a connection.
#[derive(Debug)]
pub(super) struct Lanes {
    pub(super) down: Lane,
    pub(super) up: Lane,
    waker: Arc<Notify>,
}

#[derive(Debug)]
struct Place {
    limit: Arc<Limit>,
    ticket: Option<Ticket>,
}

impl Limit {
    /// A limit of `rate` bytes per second; 0 for none.
    pub(super) fn new(rate: u64) -> Arc<Self> {
        Arc::new(Self { rate: AtomicU64::new(rate), bucket: Mutex::new(Bucket::new(rate)) })
    }

    /// Changes the rate, also for those who wait.
    pub(super) fn set(&self, now: Time, rate: u64) {
        let mut bucket = self.lock();
        self.rate.store(rate, Ordering::Relaxed);
        bucket.set_rate(now, rate).for_each(|waker| waker.notify_one());
    }

    /// The rate; 0 for none.
    pub(super) fn rate(&self) -> u64 {
        self.rate.load(Ordering::Relaxed)
    }

    fn is_none(&self) -> bool {
        self.rate() == 0
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Bucket<Arc<Notify>>> {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lanes {
    /// Lanes through these limits, the narrowest circle first.
    pub(super) fn new(down: [Arc<Limit>; 3], up: [Arc<Limit>; 3]) -> Self {
        let waker = Arc::default();
        Self { down: Lane::new(down, &waker), up: Lane::new(up, &waker), waker }
    }

    /// Waits until one of them should ask again. Cancel safe.
    pub(super) async fn woken(&self) {
        self.waker.notified().await;
    }
}

impl Lane {
    /// A lane through `limits`, the narrowest circle first. `waker` is notified when it should ask
    /// again.
    fn new(limits: [Arc<Limit>; 3], waker: &Arc<Notify>) -> Self {
        let places = limits.map(|limit| Place { limit, ticket: None });
        Self { places, waker: Arc::clone(waker), share: 0 }
    }

    /// Whether anything limits it now.
    pub(super) fn is_limited(&self) -> bool {
        self.places.iter().any(|place| place.ticket.is_some() || !place.limit.is_none())
    }

    /// How many bytes may be moved now; `Err` says when to ask again, if it is not woken sooner. To be
    /// asked only by who has something to move; whoever then does not has to [`pass`](Self::pass).
    pub(super) fn ask(&mut self, now: Time) -> Result<usize, Time> {
        if self.share > 0 {
            return Ok(self.share);
        }
        let mut share = usize::MAX;
        for place in &mut self.places {
            if place.ticket.is_none() && place.limit.is_none() {
                continue;
            }
            let mut bucket = place.limit.lock();
            let ticket = *place.ticket.get_or_insert_with(|| bucket.join(Arc::clone(&self.waker)));
            match bucket.ask(now, ticket) {
                Turn::Now(most) => share = share.min(most),
                Turn::At(at) => return Err(at),
                Turn::Behind => return Err(Time::NEVER),
            }
        }
        if self.is_limited() {
            self.share = share;
        }
        Ok(share)
    }

    /// Pays for bytes that were moved. Who has used up its share goes to the end of the lines.
    pub(super) fn spend(&mut self, now: Time, bytes: usize) {
        if !self.is_limited() {
            return;
        }
        for place in &self.places {
            place.limit.lock().spend(now, bytes);
        }
        self.share = self.share.saturating_sub(bytes);
        if self.share == 0 {
            self.pass();
        }
    }

    /// Steps back: nothing is to be moved for now.
    pub(super) fn pass(&mut self) {
        self.share = 0;
        for place in &mut self.places {
            if let Some(ticket) = place.ticket.take()
                && let Some(next) = place.limit.lock().leave(ticket)
            {
                next.notify_one();
            }
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.pass();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(limits: [&Arc<Limit>; 3]) -> Lane {
        Lane::new(limits.map(Arc::clone), &Arc::default())
    }

    /// Bytes that each lane moves in 30 seconds, all of them always ready.
    fn run(lanes: &mut [Lane], start: Time) -> Vec<u64> {
        let mut now = start;
        let mut moved = vec![0; lanes.len()];
        while now < start + std::time::Duration::from_secs(30) {
            for (lane, moved) in lanes.iter_mut().zip(&mut moved) {
                if let Ok(most) = lane.ask(now) {
                    let n = most.min(4096);
                    lane.spend(now, n);
                    *moved += n as u64;
                }
            }
            now += std::time::Duration::from_millis(1);
        }
        moved
    }

    fn close(moved: u64, expected: u64) -> bool {
        moved.abs_diff(expected) <= expected / 50
    }

    #[test]
    fn the_narrowest_of_peer_torrent_and_session_holds() {
        let [none, peer, torrent, session] = [0, 10_000, 50_000, 200_000].map(Limit::new);
        let mut lanes = [
            lane([&peer, &torrent, &session]),
            lane([&none, &torrent, &session]),
            lane([&none, &none, &session]),
        ];
        let moved = run(&mut lanes, Time::ZERO);
        assert!(close(moved[0], 300_000), "{moved:?}");
        assert!(close(moved[0] + moved[1], 1_500_000), "{moved:?}");
        assert!(close(moved.iter().sum(), 6_000_000), "{moved:?}");
    }

    #[test]
    fn lanes_of_one_limit_share_it_equally_and_a_dropped_one_leaves_its_place() {
        let [none, session] = [0, 90_000].map(Limit::new);
        let mut lanes: Vec<_> = (0..3).map(|_| lane([&none, &none, &session])).collect();
        let moved = run(&mut lanes, Time::ZERO);
        assert!(moved.iter().all(|&share| close(share, 900_000)), "{moved:?}");
        lanes.remove(0);
        let moved = run(&mut lanes, Time::from_secs(30));
        assert!(moved.iter().all(|&share| close(share, 1_350_000)), "{moved:?}");
    }

    #[test]
    fn who_steps_back_notifies_the_next_and_a_new_rate_everybody() {
        use futures_util::FutureExt as _;

        let [none, session] = [0, 1_000].map(Limit::new);
        let (first_wakes, second_wakes) = (Arc::<Notify>::default(), Arc::<Notify>::default());
        let limits = || [Arc::clone(&none), Arc::clone(&none), Arc::clone(&session)];
        let (mut first, mut second) = (Lane::new(limits(), &first_wakes), Lane::new(limits(), &second_wakes));
        let now = Time::from_secs(1);
        assert!(first.ask(now).is_ok());
        assert_eq!(second.ask(now), Err(Time::NEVER));
        assert!(second_wakes.notified().now_or_never().is_none());
        first.pass();
        assert!(second_wakes.notified().now_or_never().is_some());
        assert!(second.ask(now).is_ok() && first.ask(now).is_err());
        session.set(now, 0);
        assert!(first_wakes.notified().now_or_never().is_some());
        assert_eq!(first.ask(now), Ok(usize::MAX));
        first.pass();
        second.pass();
        assert!(!first.is_limited());
    }
}
