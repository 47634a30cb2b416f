//! [`Sketch`]: about how many infohashes each source announced, in memory of fixed size (a count-min
//! sketch with a keyed hash). Counts are never too low; they go down when announces expire or are
//! evicted, because every pair of source and infohash that was added is removed once.
//!
//! Several stores can count together (see `super::striped`): the counters are atomic.

use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, OnceLock};

use crate::{KeyedHash, Rng};

#[derive(Debug)]
pub(super) struct Sketch {
    hash: KeyedHash,
    /// [`ROWS`] rows of [`Sketch::width`] counters, from the first announce on: a node to whom nobody
    /// announces has none.
    counters: Arc<OnceLock<Box<[AtomicU16]>>>,
    /// Counters in a row, a power of two.
    width: usize,
    /// The counters are of one store alone, or of who made them for several.
    is_own: bool,
}

impl Sketch {
    /// A sketch that takes 1/128 of `budget` bytes, at least 8 KiB and at most 8 MiB. With the
    /// default of 64 MiB and a store full of small swarms, a source is counted some 60 too high.
    pub(super) fn new(budget: usize, rng: &mut Rng) -> Self {
        let width = (budget / 1024).next_power_of_two().clamp(1 << 10, 1 << 20);
        Self { hash: KeyedHash::new(rng), counters: Arc::default(), width, is_own: true }
    }

    /// The same counters for another store.
    pub(super) fn share(&self) -> Self {
        Self { hash: self.hash, counters: Arc::clone(&self.counters), width: self.width, is_own: false }
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
        let Some(counters) = self.counters.get() else { return 0 };
        let counts = self.cells(source).map(|cell| counters[cell].load(Ordering::Relaxed));
        counts.into_iter().min().unwrap_or(0).into()
    }

    /// Bytes that the counters take once there are some, so that what is left of the budget does not change with
    /// the first announce; of one store, however many share them.
    pub(super) fn memory(&self) -> usize {
        if self.is_own { ROWS * self.width * size_of::<AtomicU16>() } else { 0 }
    }

    fn change(&self, source: u64, change: impl Fn(u16) -> Option<u16>) {
        let zeros = || (0..ROWS * self.width).map(|_| AtomicU16::new(0)).collect();
        let counters = self.counters.get_or_init(zeros);
        for cell in self.cells(source) {
            // `None` leaves it as it is.
            let _ = counters[cell].fetch_update(Ordering::Relaxed, Ordering::Relaxed, &change);
        }
    }

    fn cells(&self, source: u64) -> [usize; ROWS] {
        let hash = self.hash.hash(&source.to_be_bytes());
        let (first, step) = (hash as usize, (hash >> 32) as usize | 1);
        let Self { width, .. } = self;
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
        assert!(sketch.counters.get().unwrap().iter().all(|count| count.load(Ordering::Relaxed) == 0));
    }
}
