//! Rate limits of connections. Each direction of a connection has a [`Lane`]: it passes the connection's
//! own limit, its torrent's and the session's, in that order, each a [`Bucket`] in which connections
//! stand in line. The session's is the one owner of the global rate; it lends a share at a time.
//!
//! Shares are fair by connection, not by torrent: each that has something to move has one place in the
//! widest line, whatever narrower limits it has passed. So those do not bind unless they are the narrower
//! ones. A lane holds the share that a narrower limit has lent while it stands in a wider line, so
//! what a limit lets through beyond its rate when a wider one is lifted is such a share of each connection.

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
    /// The place in the limit's line.
    ticket: Option<Ticket>,
    /// What is left of the share that the limit has lent, if it has: then there is no ticket. The widest
    /// limit lends nothing; its head stays in place until its turn is over.
    lent: Option<usize>,
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

    /// Has bytes paid for that nobody has moved.
    #[cfg(test)]
    pub(super) fn owe(&self, now: Time, bytes: usize) {
        self.lock().spend(now, bytes);
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
        let places = limits.map(|limit| Place { limit, ticket: None, lent: None });
        Self { places, waker: Arc::clone(waker), share: 0 }
    }

    /// Whether anything limits it now.
    pub(super) fn is_limited(&self) -> bool {
        self.places.iter().any(Place::counts)
    }

    /// How many bytes may be moved now; `Err` says when to ask again, if it is not woken sooner. To be
    /// asked only by who has something to move; whoever then does not has to [`pass`](Self::pass).
    pub(super) fn ask(&mut self, now: Time) -> Result<usize, Time> {
        if self.share > 0 {
            return Ok(self.share);
        }
        let Some(widest) = self.places.iter().rposition(Place::counts) else { return Ok(usize::MAX) };
        let mut share = usize::MAX;
        for at in 0..=widest {
            if !self.places[at].counts() {
                continue;
            }
            if let Some(lent) = self.places[at].lent {
                share = share.min(lent);
                continue;
            }
            let mut most = self.places[at].turn(now, &self.waker).inspect_err(|_| {
                // Nobody waits in a wider line for whom a narrower one, which may be new, holds.
                self.places[at + 1..].iter_mut().for_each(Place::leave);
            })?;
            if most > share {
                let narrower = &mut self.places[..at];
                narrower.iter_mut().for_each(|place| place.extend(now, most));
                share = narrower.iter().filter_map(|place| place.lent).min().unwrap_or(usize::MAX);
            }
            if at < widest {
                most = self.places[at].borrow(most);
            }
            share = share.min(most);
        }
        self.share = share;
        Ok(share)
    }

    /// Pays for bytes that were moved. Who has used up its share goes to the end of the lines.
    pub(super) fn spend(&mut self, now: Time, bytes: usize) {
        if !self.is_limited() {
            return;
        }
        self.places.iter_mut().for_each(|place| place.spend(now, bytes));
        self.share = self.share.saturating_sub(bytes);
        if self.share == 0 {
            self.pass();
        }
    }

    /// Whether a small message of so many bytes may be moved at once, past those who stand in line, if
    /// any. It is paid for then; what is not moved has to be [refunded](Self::refund_ahead).
    pub(super) fn pass_ahead(&mut self, now: Time, bytes: usize, is_handshake: bool) -> bool {
        for at in 0..self.places.len() {
            let limit = &self.places[at].limit;
            if !limit.is_none() && !limit.lock().pass_ahead(now, bytes, is_handshake) {
                self.places[..at].iter().for_each(|place| place.refund_ahead(bytes));
                return false;
            }
        }
        true
    }

    /// So many bytes were not moved although they might have.
    pub(super) fn refund_ahead(&mut self, bytes: usize) {
        self.places.iter().for_each(|place| place.refund_ahead(bytes));
    }

    /// Steps back: nothing is to be moved for now.
    pub(super) fn pass(&mut self) {
        self.share = 0;
        self.places.iter_mut().for_each(Place::leave);
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.pass();
    }
}

impl Place {
    /// Whether it has a say in what may be moved.
    fn counts(&self) -> bool {
        self.ticket.is_some() || self.lent.is_some() || !self.limit.is_none()
    }

    /// Whether it is our turn in the line, and for how many bytes.
    fn turn(&mut self, now: Time, waker: &Arc<Notify>) -> Result<usize, Time> {
        let mut bucket = self.limit.lock();
        let ticket = *self.ticket.get_or_insert_with(|| bucket.join(Arc::clone(waker)));
        match bucket.ask(now, ticket) {
            Turn::Now(most) => Ok(most),
            Turn::At(at) => Err(at),
            Turn::Behind => Err(Time::NEVER),
        }
    }

    /// Leaves the line with a share of at most `most` bytes, of which it returns the length.
    fn borrow(&mut self, most: usize) -> usize {
        if self.limit.is_none() {
            // Lifted while it stood in the line.
            self.leave();
        }
        let Some(ticket) = self.ticket.take() else { return most };
        let mut bucket = self.limit.lock();
        let (share, next) = bucket.lend(ticket, most);
        if let Some(next) = next {
            next.notify_one();
        }
        self.lent = Some(share);
        share
    }

    /// Makes a share that is held `most` bytes long, if the limit has saved up so much.
    fn extend(&mut self, now: Time, most: usize) {
        if let Some(lent) = self.lent.as_mut().filter(|lent| **lent < most) {
            *lent += self.limit.lock().extend(now, most - *lent);
        }
    }

    /// Pays, unless that was done when the share was lent.
    fn spend(&mut self, now: Time, bytes: usize) {
        let lent = self.lent.as_mut();
        let paid = lent.map_or(0, |lent| {
            let paid = bytes.min(*lent);
            *lent -= paid;
            paid
        });
        if bytes > paid && !self.limit.is_none() {
            self.limit.lock().spend(now, bytes - paid);
        }
    }

    fn refund_ahead(&self, bytes: usize) {
        if bytes > 0 && !self.limit.is_none() {
            self.limit.lock().refund_ahead(bytes);
        }
    }

    /// Leaves the line, or gives back what is left.
    fn leave(&mut self) {
        let (ticket, lent) = (self.ticket.take(), self.lent.take());
        if ticket.is_none() && lent.is_none() {
            return;
        }
        let mut bucket = self.limit.lock();
        let next = match (ticket, lent) {
            (Some(ticket), _) => bucket.leave(ticket),
            (None, lent) => lent.and_then(|left| bucket.give_back(left)),
        };
        if let Some(next) = next {
            next.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn lane(limits: [&Arc<Limit>; 3]) -> Lane {
        Lane::new(limits.map(Arc::clone), &Arc::default())
    }

    /// Bytes that each lane moves in 30 seconds, all of them always ready.
    fn run(lanes: &mut [Lane], start: Time) -> Vec<u64> {
        let mut now = start;
        let mut moved = vec![0; lanes.len()];
        while now < start + Duration::from_secs(30) {
            for (lane, moved) in lanes.iter_mut().zip(&mut moved) {
                if let Ok(most) = lane.ask(now) {
                    let n = most.min(4096);
                    lane.spend(now, n);
                    *moved += n as u64;
                }
            }
            now += Duration::from_millis(1);
        }
        moved
    }

    /// What the first half of the lanes and the second move in 30 seconds, after as many in which each
    /// has got its first share. They take turns as long as anybody may move anything.
    fn halves(lanes: &mut [Lane]) -> [u64; 2] {
        let (mut now, half, mut moved) = (Time::ZERO, lanes.len() / 2, [0; 2]);
        while now < Time::from_secs(60) {
            let mut idle = 0;
            for at in (0..lanes.len()).cycle() {
                let n = lanes[at].ask(now).map_or(0, |most| most.min(16_384));
                if n > 0 {
                    lanes[at].spend(now, n);
                    moved[at / half] += if now < Time::from_secs(30) { 0 } else { n as u64 };
                }
                idle = if n == 0 { idle + 1 } else { 0 };
                if idle == lanes.len() {
                    break;
                }
            }
            now += Duration::from_millis(20);
        }
        moved
    }

    fn close(moved: u64, expected: u64) -> bool {
        moved.abs_diff(expected) <= expected / 50
    }

    #[test]
    fn nobody_waits_in_a_wider_line_for_whom_a_new_narrower_limit_holds() {
        let [none, torrent, session] = [0, 0, 10_000].map(Limit::new);
        let (mut a, mut b) = (lane([&none, &torrent, &session]), lane([&none, &none, &session]));
        let now = Time::from_secs(100);
        session.lock().spend(now, 7_500);
        assert!(a.ask(now).is_err() && b.ask(now).is_err(), "a heads the line");
        torrent.set(now, 100);
        torrent.lock().spend(now, 1_000);
        let later = now + Duration::from_secs(1);
        assert!(b.ask(later).is_err(), "a was not asked yet");
        assert!(a.ask(later).is_err(), "the torrent owes");
        assert!(b.ask(later).is_ok());
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

    /// Lanes of two torrents on one session, `n` each, of which the first has a limit of its own.
    fn two_torrents(n: usize, torrent: u64, session: u64) -> Vec<Lane> {
        let [none, torrent, session] = [0, torrent, session].map(Limit::new);
        let limited = (0..n).map(|_| lane([&none, &torrent, &session]));
        let free = (0..n).map(|_| lane([&none, &none, &session]));
        limited.chain(free).collect()
    }

    #[test]
    fn a_limit_of_a_torrent_that_does_not_bind_costs_its_lanes_nothing() {
        for (n, torrent, session) in
            [(50, 400_000, 500_000), (50, 15_000, 20_000), (3, 400_000, 500_000), (150, 6_000_000, 8_000_000)]
        {
            let [first, second] = halves(&mut two_torrents(n, torrent, session));
            assert!(close(first + second, session * 30), "{n} lanes each: {first} and {second}");
            assert!(close(first, session * 15), "{n} lanes each: {first} and {second}");
        }
    }

    #[test]
    fn a_limit_of_a_torrent_that_binds_is_used_up_and_not_passed_and_the_rest_is_the_others() {
        for (n, torrent, session) in
            [(50, 100_000, 500_000), (50, 5_000, 50_000), (3, 100_000, 500_000), (150, 1_000_000, 8_000_000)]
        {
            let [first, second] = halves(&mut two_torrents(n, torrent, session));
            assert!(close(first, torrent * 30), "{n} lanes each: {first} and {second}");
            assert!(close(second, (session - torrent) * 30), "{n} lanes each: {first} and {second}");
        }
    }

    #[test]
    fn limits_of_all_peers_that_do_not_bind_cost_them_nothing_beside_those_without() {
        let [none, session] = [0, 500_000].map(Limit::new);
        let limited = (0..50).map(|_| lane([&Limit::new(7_000), &none, &session]));
        let free = (0..50).map(|_| lane([&none, &none, &session]));
        let [first, second] = halves(&mut limited.chain(free).collect::<Vec<_>>());
        assert!(close(first, 7_500_000) && close(second, 7_500_000), "{first} and {second}");
    }

    #[test]
    fn a_share_that_is_held_and_not_used_is_given_back() {
        let [none, torrent, session] = [0, 1_000, 1_000].map(Limit::new);
        let (mut first, mut second) = (lane([&none, &torrent, &session]), lane([&none, &torrent, &session]));
        let mut other = lane([&none, &none, &session]);
        let now = Time::from_secs(1);
        assert!(other.ask(now).is_ok());
        // Both have passed the torrent's limit and wait for the session's.
        assert_eq!((first.ask(now), second.ask(now)), (Err(Time::NEVER), Err(Time::NEVER)));
        assert!(torrent.lock().line_is_empty());
        drop((first, second, other));
        let mut alone = lane([&none, &none, &torrent]);
        assert_eq!(alone.ask(now), Ok(250), "a quarter of a second is saved up, as before");
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
