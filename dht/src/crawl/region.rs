//! [`Region`]: the part of the key space that a crawl walks: all ids that begin with the same bits.

use std::fmt;
use std::str::FromStr;

use krpc::Id;

use crate::Rng;

/// All ids that begin with the same bits; with none, the whole key space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Zero behind the bits that count.
    prefix: Id,
    bits: u32,
}

impl Region {
    /// The whole key space.
    pub const WHOLE: Self = Self { prefix: Id::ZERO, bits: 0 };

    /// The ids that share the first `bits` bits (at most 160) with `prefix`.
    pub fn new(prefix: Id, bits: u32) -> Self {
        let bits = bits.min(Id::BITS);
        Self { prefix: spliced(&prefix, bits, &Id::ZERO), bits }
    }

    /// Bits that all of its ids share.
    pub fn bits(&self) -> u32 {
        self.bits
    }

    /// Whether `id` is in it.
    pub fn contains(&self, id: &Id) -> bool {
        self.shared(id) == self.bits
    }

    /// How many of its bits `id` shares, from the first on.
    pub(super) fn shared(&self, id: &Id) -> u32 {
        self.prefix.prefix_len(id).min(self.bits)
    }

    /// The number of the slice in which `id` lies when the region is cut into `2^slice_bits` of equal size.
    pub(super) fn slice(&self, id: &Id, slice_bits: u32) -> usize {
        (0..slice_bits).fold(0, |slice, bit| slice << 1 | usize::from(id.bit(self.bits + bit)))
    }

    /// A point of it, any with equal chance.
    pub(super) fn random(&self, rng: &mut Rng) -> Id {
        spliced(&self.prefix, self.bits, &rng.id())
    }

    /// A point of it that shares `bits` bits with `id`, or as many as it can if `id` is elsewhere.
    pub(super) fn near(&self, id: &Id, bits: u32, rng: &mut Rng) -> Id {
        let bits = if self.contains(id) { bits.clamp(self.bits, Id::BITS) } else { self.bits };
        let from = if self.contains(id) { id } else { &self.prefix };
        spliced(from, bits, &rng.id())
    }
}

impl Default for Region {
    fn default() -> Self {
        Self::WHOLE
    }
}

/// The text was not up to 40 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseRegionError;

impl fmt::Display for ParseRegionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected 1 to 40 hexadecimal digits")
    }
}

impl std::error::Error for ParseRegionError {}

/// Reads the first hexadecimal digits of ids, four bits each.
impl FromStr for Region {
    type Err = ParseRegionError;

    fn from_str(text: &str) -> Result<Self, ParseRegionError> {
        if text.is_empty() || text.len() > 2 * Id::LEN {
            return Err(ParseRegionError);
        }
        let padded = format!("{text:0<40}");
        let prefix = Id::from_hex(&padded).ok_or(ParseRegionError)?;
        Ok(Self::new(prefix, 4 * text.len() as u32))
    }
}

/// The first `bits` bits of `head` and behind them those of `tail`.
fn spliced(head: &Id, bits: u32, tail: &Id) -> Id {
    let (head, tail) = (head.as_bytes(), tail.as_bytes());
    Id::new(std::array::from_fn(|index| {
        let ours = bits.saturating_sub(8 * index as u32).min(8);
        let mask = !(0xffu16 >> ours) as u8;
        head[index] & mask | tail[index] & !mask
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_digits_name_a_region() {
        let region: Region = "a3F".parse().unwrap();
        assert_eq!(region.bits(), 12);
        for (id, inside) in [("a3f", true), ("a3e", false), ("a30", false), ("b3f", false)] {
            let id = Id::from_hex(&format!("{id:7<40}")).unwrap();
            assert_eq!(region.contains(&id), inside, "{id}");
        }
        assert_eq!(region.shared(&Id::from_hex(&format!("{:0<40}", "a3c")).unwrap()), 10);
        for wrong in ["", "g", "0x1", &"0".repeat(41), "é", "a-"] {
            assert_eq!(wrong.parse::<Region>(), Err(ParseRegionError), "{wrong}");
        }
        let whole = "08ada5a7a6183aae1e09d831df6748d566095a10";
        let one: Region = whole.parse().unwrap();
        assert_eq!(one.random(&mut Rng::from_seed(1)), whole.parse().unwrap());
        assert_eq!(one.slice(&whole.parse().unwrap(), 10), 0, "there are no bits left to cut by");
    }

    #[test]
    fn random_points_are_inside_and_in_every_slice() {
        let mut rng = Rng::from_seed(1);
        let region: Region = "7".parse().unwrap();
        let mut slices = [0; 16];
        for _ in 0..1600 {
            let point = region.random(&mut rng);
            assert!(region.contains(&point));
            slices[region.slice(&point, 4)] += 1;
        }
        assert!(slices.iter().all(|&count| (60..=150).contains(&count)), "{slices:?}");
    }

    #[test]
    fn points_near_an_id_share_its_bits_and_stay_inside() {
        let mut rng = Rng::from_seed(2);
        let region: Region = "7".parse().unwrap();
        let inside = region.random(&mut rng);
        for bits in [0, 4, 9, 20, 160] {
            let near = region.near(&inside, bits, &mut rng);
            assert!(region.contains(&near) && near.prefix_len(&inside) >= bits, "{bits}");
        }
        for _ in 0..100 {
            let outside = rng.id();
            assert!(region.contains(&region.near(&outside, 60, &mut rng)));
        }
        assert_eq!(Region::WHOLE.near(&inside, 160, &mut rng), inside);
    }
}
