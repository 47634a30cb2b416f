//! The bounds of the buckets over one vector of entries, and bucket numbers.
//!
//! A bucket is named by its number: the bit length of its distances from our own id, so bucket n
//! holds distances from 2^(n-1) to 2^n - 1 and bucket 160 is the far half of the key space. In memory
//! they lie farthest first, so that the vector of bounds is as long as the table is deep.

use std::ops::Range;

use krpc::{Distance, Id};

use super::entry::Ticks;
use crate::Rng;

/// The bounds of all buckets down to the deepest that ever held a node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bounds(Vec<Bound>);

#[derive(Clone, Copy, Debug)]
#[repr(Rust, packed(2))]
struct Bound {
    start: u16,
    /// BEP 5 "last changed": when a node was added, replaced or answered.
    changed: Ticks,
}

const _: () = assert!(size_of::<Bound>() == 6);

impl Bounds {
    /// Makes room for the bucket at `depth`, so that it and all shallower ones exist.
    pub(crate) fn reach(&mut self, depth: usize, entries: usize, now: Ticks) {
        self.0.reserve_exact((depth + 1).saturating_sub(self.0.len()));
        while self.0.len() <= depth {
            self.0.push(Bound { start: entries as u16, changed: now });
        }
    }

    /// Moves the starts of the buckets below `depth` after an entry was added to it.
    pub(crate) fn grew(&mut self, depth: usize) {
        self.0.iter_mut().skip(depth + 1).for_each(|bound| bound.start += 1);
    }

    /// The opposite of [`Bounds::grew`].
    pub(crate) fn shrank(&mut self, depth: usize) {
        self.0.iter_mut().skip(depth + 1).for_each(|bound| bound.start -= 1);
    }

    pub(crate) fn touch(&mut self, depth: usize, now: Ticks) {
        if let Some(bound) = self.0.get_mut(depth) {
            bound.changed = now;
        }
    }

    pub(crate) fn changed(&self, depth: usize) -> Option<Ticks> {
        self.0.get(depth).map(|bound| bound.changed)
    }

    /// Buckets that exist.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Indices of the entries of the bucket at `depth`, of `entries` in all.
    pub(crate) fn range(&self, depth: usize, entries: usize) -> Range<usize> {
        self.start(depth, entries)..self.start(depth + 1, entries)
    }

    /// Indices of the entries of all buckets nearer than the one at `depth`.
    pub(crate) fn nearer(&self, depth: usize, entries: usize) -> Range<usize> {
        self.start(depth + 1, entries)..entries
    }

    fn start(&self, depth: usize, entries: usize) -> usize {
        self.0.get(depth).map_or(entries, |bound| usize::from(bound.start))
    }
}

/// The number of the bucket of `own` that `id` belongs to; 0 for `own` itself, which has none.
pub(crate) fn bucket_number(own: &Id, id: &Id) -> u32 {
    own.distance(id).bit_len()
}

/// Bits that ids of bucket `number` share with our own: the index of the bucket in memory.
pub(crate) fn depth(number: u32) -> usize {
    (Id::BITS - number) as usize
}

/// Capacity of the bucket at `depth`.
pub(crate) fn capacity(depth: usize, wide_buckets: &[usize], k: usize) -> usize {
    // The bounds are u16; 160 buckets of 400 fit.
    wide_buckets.get(depth).copied().unwrap_or(k).clamp(1, 400)
}

/// A random id of bucket `number` of `own`.
pub(crate) fn random_id(own: &Id, number: u32, rng: &mut Rng) -> Id {
    let mut bytes = *rng.id().as_bytes();
    let top = Id::BITS - number;
    for (index, byte) in bytes.iter_mut().enumerate() {
        for bit in 0..8 {
            let mask = 0x80u8 >> bit;
            let position = index as u32 * 8 + bit;
            if position < top {
                *byte &= !mask;
            } else if position == top {
                *byte |= mask;
            }
        }
    }
    own.at(&Distance::new(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_ids_fall_into_their_bucket() {
        let mut rng = Rng::from_seed(1);
        let own = rng.id();
        for number in 1..=160 {
            let id = random_id(&own, number, &mut rng);
            assert_eq!(bucket_number(&own, &id), number);
        }
        assert_eq!(bucket_number(&own, &own), 0);
    }

    #[test]
    fn bounds_follow_growth_and_shrinkage() {
        let now = Ticks::new(crate::Time::ZERO);
        let mut bounds = Bounds::default();
        bounds.reach(2, 0, now);
        bounds.grew(1);
        bounds.grew(0);
        bounds.grew(2);
        assert_eq!([bounds.range(0, 3), bounds.range(1, 3), bounds.range(2, 3)], [0..1, 1..2, 2..3]);
        assert_eq!((bounds.nearer(0, 3), bounds.range(7, 3)), (1..3, 3..3));
        bounds.shrank(0);
        assert_eq!([bounds.range(0, 2), bounds.range(1, 2), bounds.range(2, 2)], [0..0, 0..1, 1..2]);
    }
}
