//! [`Sketch`]: about how many infohashes each source announced, in memory of fixed size (a count-min
//! sketch with a keyed hash). Counts are never too low; they go down when announces expire or are
//! evicted, because every pair of source and infohash that was added is removed once.
//!
//! Several stores can count together (see `super::striped`): the counters are atomic.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::{KeyedHash, Rng};

#[derive(Debug)]
pub(super) struct Sketch {
    hash: KeyedHash,
    /// [`ROWS`] rows of a power of two of counters.
    counters: Arc<[AtomicU16]>,
    /// The counters are of one store alone, or of who made them for several.
    is_own: bool,
}

impl Sketch {
    /// A sketch that takes 1/128 of `budget` bytes, at least 8 KiB and at most 8 MiB. With the
    /// default of 64 MiB and a store full of small swarms, a source is counted some 60 too high.
    pub(super) fn new(budget: usize, rng: &mut Rng) -> Self {
        let width = (budget / 1024).next_power_of_two().clamp(1 << 10, 1 << 20);
        let counters = (0..ROWS * width).map(|_| AtomicU16::new(0)).collect();
        Self { hash: KeyedHash::new(rng), counters, is_own: true }
    }

    /// The same counters for another store.
    pub(super) fn share(&self) -> Self {
        Self { hash: self.hash, counters: Arc::clone(&self.counters), is_own: false }
    }

    /// Whether other stores count here too, so that nothing but what was added may be removed.
    pub(super) fn is_shared(&self) -> bool {
        !self.is_own
    }

    pub(super) fn add(&self, source: u64) {
        self.change(source, |count| count.checked_add(1));
    }

    pub(super) fn remove(&self, source: u64) {
        // A saturated counter no longer knows its count; it stays on the high side.
        self.change(source, |count| if count == u16::MAX { None } else { count.checked_sub(1) });
    }

    /// At least the number of infohashes of `source`.
    pub(super) fn count(&self, source: u64) -> usize {
        let counts = self.cells(source).map(|cell| self.counters[cell].load(Ordering::Relaxed));
        counts.into_iter().min().unwrap_or(0).into()
    }

    /// Bytes allocated, counted once however many stores share them.
    pub(super) fn memory(&self) -> usize {
        if self.is_own { size_of_val(&*self.counters) } else { 0 }
    }

    fn change(&self, source: u64, change: impl Fn(u16) -> Option<u16>) {
        for cell in self.cells(source) {
            // `None` leaves it as it is.
            let _ = self.counters[cell].fetch_update(Ordering::Relaxed, Ordering::Relaxed, &change);
        }
    }

    fn cells(&self, source: u64) -> [usize; ROWS] {
        let hash = self.hash.hash(&source.to_be_bytes());
        let (first, step) = (hash as usize, (hash >> 32) as usize | 1);
        let width = self.counters.len() / ROWS;
        std::array::from_fn(|row| row * width + (first.wrapping_add(step.wrapping_mul(row)) & (width - 1)))
    }
}

const ROWS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_never_too_low_seldom_high_and_fall_back_to_zero() {
        let sketch = Sketch::new(64 << 20, &mut Rng::from_seed(1));
        assert_eq!(sketch.memory(), 512 << 10);
        for source in 0..20_000u64 {
            (0..source % 20).for_each(|_| sketch.add(source));
        }
        let wrong = (0..20_000).filter(|&source| sketch.count(source) != (source % 20) as usize).count();
        assert!((0..20_000).all(|source| sketch.count(source) >= (source % 20) as usize));
        assert!(wrong < 400, "{wrong}");
        for source in 0..20_000u64 {
            (0..source % 20).for_each(|_| sketch.remove(source));
        }
        assert!(sketch.counters.iter().all(|count| count.load(Ordering::Relaxed) == 0));
    }
}
