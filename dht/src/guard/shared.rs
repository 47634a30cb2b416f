//! [`SharedGuard`]: the budgets of a node whose queries are answered by several shards. Every limit
//! holds over all of them together: the kernel spreads the ports of one source over the shards.
//!
//! Each set of sources has a lock of its own, which lies beside it in memory, so that asking for both
//! fetches one cache line. Sets are made some at a time, when a source is first met that belongs there: to
//! make a lock writes to memory, and a fresh node would hold 300 KB of sets that nobody has met. The bytes of all replies would be one number that every reply changes: a
//! shard borrows some thousand of them at once instead.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::{Admission, Budgets, ByteRate, Rate, Source, WAYS, admit, place, set_count, source_in};
use crate::{Config, KeyedHash, Rng, Time};

/// What the shards of a node share of a [`super::Guard`].
#[derive(Debug)]
pub(crate) struct SharedGuard {
    config: Arc<Config>,
    hash: KeyedHash,
    /// Empty when no limit per source is set.
    sets: Box<[OnceLock<Sets>]>,
    set_count: usize,
    replies: Rate,
    failed_tokens: Rate,
    bytes: Lender,
    scrapes: Rate,
    scraped_until: AtomicU64,
    signatures: Rate,
    checked_until: AtomicU64,
}

/// Sets that are made together.
type Sets = Box<[Mutex<[Source; WAYS]>]>;

/// How many they are: a page.
const SETS_AT_ONCE: usize = 64;

/// One shard's way to the budgets.
#[derive(Debug)]
pub(crate) struct ShardGuard {
    shared: Arc<SharedGuard>,
    /// Bytes that were borrowed and not sent yet.
    lent: u64,
}

impl SharedGuard {
    /// Budgets with the limits of `config` for so many shards. What [`super::Guard::new`] says is allocated by and
    /// by, and 8 bytes more for each 64.
    pub(crate) fn new(config: &Arc<Config>, shards: usize, rng: &mut Rng) -> Self {
        let set_count = set_count(config);
        Self {
            config: Arc::clone(config),
            hash: KeyedHash::new(rng),
            sets: (0..set_count.div_ceil(SETS_AT_ONCE)).map(|_| OnceLock::new()).collect(),
            set_count,
            replies: Rate::of_replies(config),
            failed_tokens: Rate::of_failed_tokens(config),
            bytes: Lender::new(config.reply_bytes_per_second, shards),
            scrapes: Rate::of_scrapes(config),
            scraped_until: AtomicU64::new(0),
            signatures: Rate::of_signatures(config),
            checked_until: AtomicU64::new(0),
        }
    }

    fn set(&self, from: SocketAddr) -> (MutexGuard<'_, [Source; WAYS]>, u32) {
        let (set, tag) = place(self.hash, self.set_count, self.config.allow_local, from);
        // A panic elsewhere leaves numbers, and any number is a valid one.
        let sets = self.sets[set / SETS_AT_ONCE]
            .get_or_init(|| (0..SETS_AT_ONCE.min(self.set_count)).map(|_| Mutex::default()).collect());
        (sets[set % SETS_AT_ONCE].lock().unwrap_or_else(PoisonError::into_inner), tag)
    }
}

impl ShardGuard {
    pub(crate) fn new(shared: Arc<SharedGuard>) -> Self {
        Self { shared, lent: 0 }
    }

    /// See [`super::Guard::admit`].
    pub(crate) fn admit(&self, from: SocketAddr, bytes: &[u8]) -> Admission {
        admit(&self.shared.config, from, bytes)
    }

    /// Whether there are `bytes` to send, some borrowed now if need be.
    fn has_bytes(&mut self, now: Time, bytes: u64) -> bool {
        if bytes > self.lent {
            self.lent += self.shared.bytes.lend(now, bytes - self.lent);
        }
        bytes <= self.lent
    }
}

impl Budgets for ShardGuard {
    fn is_exhausted(&self, now: Time, from: SocketAddr) -> bool {
        let Self { shared, .. } = self;
        if shared.replies.is_lifted() {
            return false;
        }
        let (ways, tag) = shared.set(from);
        ways.iter().any(|way| way.tag == tag && shared.replies.is_exhausted(way.replies, now))
    }

    fn allow_reply(&mut self, now: Time, from: SocketAddr, reply_len: usize) -> bool {
        let bytes = reply_len as u64;
        if !self.shared.bytes.is_lifted() && !self.has_bytes(now, bytes) {
            return false;
        }
        let shared = &self.shared;
        if !shared.replies.is_lifted() {
            let (mut ways, tag) = shared.set(from);
            let source = source_in(&mut ways, now, tag);
            if shared.replies.is_exhausted(source.replies, now) {
                return false;
            }
            source.replies = shared.replies.take(source.replies, now);
        }
        self.lent = self.lent.saturating_sub(bytes);
        true
    }

    fn allow_scrape(&mut self, now: Time) -> bool {
        take_of_all(self.shared.scrapes, &self.shared.scraped_until, now)
    }

    fn allow_signature(&mut self, now: Time) -> bool {
        take_of_all(self.shared.signatures, &self.shared.checked_until, now)
    }

    fn token_failed(&mut self, now: Time, from: SocketAddr) -> bool {
        let rate = self.shared.failed_tokens;
        if rate.is_lifted() {
            return true;
        }
        let (mut ways, tag) = self.shared.set(from);
        source_in(&mut ways, now, tag).token_failed(rate, now)
    }
}

/// The bytes of all replies, lent to shards some at a time. What the shards may hold unsent is left out
/// of the burst, so that they never send more together than one shard would.
#[derive(Debug)]
struct Lender {
    rate: ByteRate,
    /// µs of debt at which no more is lent.
    tolerance: u64,
    /// Bytes that are lent at once.
    loan: u64,
    /// µs until which the budget is in debt.
    until: AtomicU64,
}

impl Lender {
    fn new(bytes_per_second: u64, shards: usize) -> Self {
        let rate = ByteRate::new(bytes_per_second);
        let holders = shards as u64 + 1;
        let burst = bytes_per_second / 1_000_000 * ByteRate::BURST_MICROS
            + bytes_per_second % 1_000_000 * ByteRate::BURST_MICROS / 1_000_000;
        // All loans together are a quarter of the burst at most.
        let loan = (burst / 4 / holders).min(MAX_LOAN);
        let tolerance = ByteRate::BURST_MICROS.saturating_sub(holders * rate.micros(loan));
        Self { rate, tolerance, loan, until: AtomicU64::new(0) }
    }

    fn is_lifted(&self) -> bool {
        self.rate.is_lifted()
    }

    /// Bytes that a shard gets who needs at least `least`; 0 when the budget is spent.
    fn lend(&self, now: Time, least: u64) -> u64 {
        let bytes = least.max(self.loan);
        let (now, cost) = (now.as_micros(), self.rate.micros(bytes));
        let lend = |until: u64| {
            let debt = until.saturating_sub(now);
            // As in `ByteRate::take`: so deep in debt is only whose clock went back.
            let debt = if debt > self.rate.deepest_debt() { 0 } else { debt };
            (debt <= self.tolerance).then(|| now.saturating_add(debt).saturating_add(cost))
        };
        match self.until.fetch_update(Ordering::Relaxed, Ordering::Relaxed, lend) {
            Ok(_) => bytes,
            Err(_) => 0,
        }
    }
}

/// Some fifty replies: few enough to matter little, enough that the shards seldom meet.
const MAX_LOAN: u64 = 16 << 10;

/// Takes one out of a budget that all sources share.
fn take_of_all(rate: Rate, until: &AtomicU64, now: Time) -> bool {
    let take = |until| (!rate.is_exhausted(until, now)).then(|| rate.take(until, now));
    rate.is_lifted() || until.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_lent_again_after_the_clock_went_back_a_day() {
        let lender = Lender::new(1_000_000, 2);
        let (day, hour) = (Time::from_secs(86_400), Time::from_secs(3600));
        let lent = |now| (0..1000).map(|_| lender.lend(now, 1)).sum::<u64>();
        let burst = lent(day);
        assert!((100_000..=250_000).contains(&burst) && lent(day) == 0);
        assert_eq!(lent(hour), burst, "no more than ever, and no less");
        assert_eq!(lent(hour), 0);
        assert!(lent(hour + std::time::Duration::from_millis(100)) >= 80_000);
    }

    #[test]
    fn sets_are_made_when_a_source_is_met_and_are_the_same_for_all_shards() {
        let now = Time::from_secs(1);
        let config = Config { replies_per_second_per_ip: 1, ..Config::default() };
        let (entries, config) = (config.source_table_entries, Arc::new(config));
        let shared = Arc::new(SharedGuard::new(&config, 1, &mut Rng::from_seed(1)));
        let made = |shared: &SharedGuard| shared.sets.iter().filter(|sets| sets.get().is_some()).count();
        let mut shards = [ShardGuard::new(Arc::clone(&shared)), ShardGuard::new(Arc::clone(&shared))];
        assert_eq!(made(&shared), 0);
        let source = |n: u16| SocketAddr::from(([81, 2, (n >> 8) as u8, n as u8], 6881));
        let asked = (0..100).filter(|n| shards[n % 2].allow_reply(now, source(1), 100)).count();
        assert!(asked < 100 && shards.iter().all(|shard| shard.is_exhausted(now, source(1))));
        assert_eq!(made(&shared), 1);
        (2..4000).for_each(|n| assert!(shards[0].allow_reply(now, source(n), 1)));
        assert_eq!(made(&shared), entries / WAYS / SETS_AT_ONCE);
        let few = Config { source_table_entries: 16, ..Config::default() };
        let shared = SharedGuard::new(&Arc::new(few), 1, &mut Rng::from_seed(2));
        (2..4000).for_each(|n| drop(shared.set(source(n))));
        assert_eq!(shared.sets[0].get().map(|sets| sets.len()), Some(4), "no more than there may be");
    }
}
