//! Rate limits of a session: one bucket per direction that all connections of all torrents draw from.
//!
//! A connection may move bytes whenever the bucket is not in debt, and pays for what it moved
//! afterwards. That keeps reads and writes as large as the sockets allow; how deep the debt can get is
//! bounded by one read or write per connection.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use btdht::Time;

/// A bucket of bytes. Rate 0 lifts the limit.
#[derive(Debug)]
pub(super) struct Throttle {
    rate: u64,
    bucket: Mutex<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    /// Bytes that may be moved; negative is debt.
    balance: i64,
    filled_at: Time,
}

/// How much may be saved up while nothing moves.
const BURST: Duration = Duration::from_millis(250);

impl Throttle {
    /// A bucket that fills with `rate` bytes per second.
    pub(super) fn new(rate: u64) -> Self {
        Self { rate, bucket: Mutex::new(Bucket { balance: 0, filled_at: Time::ZERO }) }
    }

    /// When bytes may be moved again; `None` means at once.
    pub(super) fn ready_at(&self, now: Time) -> Option<Time> {
        if self.rate == 0 {
            return None;
        }
        let mut bucket = self.lock();
        self.fill(&mut bucket, now);
        let debt = u64::try_from(-bucket.balance).ok().filter(|&debt| debt > 0)?;
        Some(now + Duration::from_micros(debt.saturating_mul(1_000_000) / self.rate + 1))
    }

    /// Pays for bytes that were moved.
    pub(super) fn spend(&self, now: Time, bytes: usize) {
        if self.rate > 0 {
            let mut bucket = self.lock();
            self.fill(&mut bucket, now);
            bucket.balance = bucket.balance.saturating_sub_unsigned(bytes as u64);
        }
    }

    /// The most that one read or write should move, so that many connections share fairly.
    pub(super) fn quantum(&self) -> usize {
        match self.rate {
            0 => usize::MAX,
            rate => usize::try_from(rate / 20).unwrap_or(usize::MAX).max(1024),
        }
    }

    fn fill(&self, bucket: &mut Bucket, now: Time) {
        let passed = now.since(bucket.filled_at).as_micros();
        let earned = u128::from(self.rate) * passed / 1_000_000;
        if earned > 0 {
            let most =
                i64::try_from(u128::from(self.rate) * BURST.as_micros() / 1_000_000).unwrap_or(i64::MAX);
            let earned = i64::try_from(earned).unwrap_or(i64::MAX);
            bucket.balance = bucket.balance.saturating_add(earned).min(most.max(1));
            bucket.filled_at = now;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Bucket> {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spender_gets_the_rate_over_time() {
        let throttle = Throttle::new(100_000);
        let (mut now, mut moved) = (Time::from_secs(1), 0u64);
        while now < Time::from_secs(11) {
            match throttle.ready_at(now) {
                Some(at) => now = at,
                None => {
                    throttle.spend(now, 16_384);
                    moved += 16_384;
                }
            }
        }
        assert!((980_000..=1_060_000).contains(&moved), "{moved}");
    }

    #[test]
    fn rate_zero_never_waits() {
        let throttle = Throttle::new(0);
        throttle.spend(Time::ZERO, usize::MAX);
        assert_eq!(throttle.ready_at(Time::ZERO), None);
        assert_eq!(throttle.quantum(), usize::MAX);
    }
}
