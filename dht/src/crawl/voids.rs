//! [`Voids`]: where in the key space nobody is known and nobody has been asked about: the points to ask
//! about next.
//!
//! Asking about random points near each node misses one node in twenty-five of a round: those who live
//! alone beside many, and whole parts of the key space that nobody has named. Both are gaps, wider than
//! others, with known nodes on either side.

use std::collections::BTreeSet;

use krpc::Id;

use crate::Rng;

/// The nodes that are known and the points that were asked about, by the first 64 bits of each.
#[derive(Debug, Default)]
pub(super) struct Voids {
    points: BTreeSet<u64>,
}

impl Voids {
    pub(super) fn insert(&mut self, point: &Id) {
        self.points.insert(head(point));
    }

    pub(super) fn remove(&mut self, point: &Id) {
        self.points.remove(&head(point));
    }

    /// A point in the middle half of the widest of the gaps around `near`: between neighbours among the
    /// [`LOOKED_AT`] points to either side, no farther than ids share their first `bits` bits with it.
    pub(super) fn widest(&self, near: &Id, bits: u32, rng: &mut Rng) -> Id {
        let low = u64::MAX.checked_shr(bits).unwrap_or(0);
        let own = head(near);
        let (first, last) = (own & !low, own | low);
        // Where there are fewer points the last gap is the one up to the end.
        let before = self.points.range(first..own).rev().copied().chain([first]).take(LOOKED_AT);
        let after = self.points.range(own..=last).copied().chain([last]).take(LOOKED_AT);
        let (mut gap, mut to) = ((own, 0), own);
        for from in before {
            gap = wider(gap, (from, to - from));
            to = from;
        }
        let mut from = own;
        for to in after {
            gap = wider(gap, (from, to - from));
            from = to;
        }
        let (from, width) = gap;
        let within = if width == 0 { 0 } else { width / 4 + rng.next_u64() % (width / 2 + 1) };
        let mut bytes = *rng.id().as_bytes();
        bytes[..8].copy_from_slice(&(from + within).to_be_bytes());
        // Of longer prefixes the gaps say nothing.
        if bits > 64 { *near } else { Id::new(bytes) }
    }
}

fn wider(a: (u64, u64), b: (u64, u64)) -> (u64, u64) {
    if b.1 > a.1 { b } else { a }
}

fn head(id: &Id) -> u64 {
    u64::from_be_bytes(std::array::from_fn(|index| id.as_bytes()[index]))
}

/// Points to either side that are looked at for the widest gap.
const LOOKED_AT: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn id(first: u8) -> Id {
        let mut bytes = [0; 20];
        bytes[0] = first;
        Id::new(bytes)
    }

    #[test]
    fn the_widest_gap_is_asked_about_and_then_the_next_one() {
        let mut rng = Rng::from_seed(1);
        let mut voids = Voids::default();
        for first in [0x10, 0x20, 0x40, 0x60, 0x70, 0xc0, 0xe0] {
            voids.insert(&id(first));
        }
        let first = voids.widest(&id(0), 0, &mut rng);
        assert!((0x84..=0xac).contains(&first.as_bytes()[0]), "{first}");
        voids.insert(&first);
        let second = voids.widest(&id(0), 0, &mut rng);
        assert_ne!(first.as_bytes()[0] >> 4, second.as_bytes()[0] >> 4);
        let near = voids.widest(&id(0x10), 2, &mut rng);
        assert!((0x28..=0x38).contains(&near.as_bytes()[0]), "of the quarter around it: {near}");
        voids.remove(&first);
        assert!((0x84..=0xac).contains(&voids.widest(&id(0), 0, &mut rng).as_bytes()[0]));
    }

    #[test]
    fn every_number_of_bits_gives_a_point_that_shares_them() {
        let mut rng = Rng::from_seed(2);
        let mut voids = Voids::default();
        let near = rng.id();
        for bits in 0..=160 {
            let point = voids.widest(&near, bits, &mut rng);
            assert!(point.prefix_len(&near) >= bits, "{bits}");
            voids.insert(&point);
        }
        voids.insert(&near);
        (0..200).for_each(|_| voids.insert(&rng.id()));
        for bits in 0..=160 {
            assert!(voids.widest(&near, bits, &mut rng).prefix_len(&near) >= bits, "{bits}");
        }
    }
}
