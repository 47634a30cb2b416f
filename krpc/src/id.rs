//! [`Id`]: a point of the 160-bit key space — a node id, an infohash or a BEP 44 target — and the
//! XOR [`Distance`] between two of them (BEP 5, "Overview"; Kademlia section 2.1).
//!
//! How an id has to look for an address (BEP 42) is policy and lives in `btdht`.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE32_NOPAD, HEXLOWER, HEXLOWER_PERMISSIVE};

/// A point of the 160-bit key space.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id([u8; Self::LEN]);

impl Id {
    /// Bytes in an id.
    pub const LEN: usize = 20;
    /// Bits in an id.
    pub const BITS: u32 = 160;
    /// The origin of the key space.
    pub const ZERO: Self = Self([0; Self::LEN]);

    /// An id from its 20 bytes, most significant first.
    pub const fn new(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// An id from a slice; `None` unless it is exactly 20 bytes long.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// An id from 40 hexadecimal digits of either case.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; Self::LEN];
        if text.len() != 2 * Self::LEN {
            return None;
        }
        HEXLOWER_PERMISSIVE.decode_mut(text.as_bytes(), &mut bytes).ok()?;
        Some(Self(bytes))
    }

    /// An id from 32 base32 digits of either case (the old magnet form, BEP 9).
    pub fn from_base32(text: &str) -> Option<Self> {
        let mut bytes = [0; Self::LEN];
        if text.len() != 32 {
            return None;
        }
        let upper = text.to_ascii_uppercase();
        BASE32_NOPAD.decode_mut(upper.as_bytes(), &mut bytes).ok()?;
        Some(Self(bytes))
    }

    /// The 20 bytes, most significant first.
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// XOR distance to `other`.
    pub fn distance(&self, other: &Self) -> Distance {
        Distance(std::array::from_fn(|i| self.0[i] ^ other.0[i]))
    }

    /// The first 64 bits of the distance to `other`: what decides nearly every comparison, in a few
    /// instructions.
    #[inline]
    pub fn distance_head(&self, other: &Self) -> u64 {
        head(&self.0) ^ head(&other.0)
    }

    /// Bits that `self` and `other` share from the top: 0 to 160.
    pub fn prefix_len(&self, other: &Self) -> u32 {
        self.distance(other).leading_zeros()
    }

    /// The point at `distance` from `self`, which is the inverse of [`Id::distance`].
    pub fn at(&self, distance: &Distance) -> Self {
        Self(std::array::from_fn(|i| self.0[i] ^ distance.0[i]))
    }

    /// Bit `index`, counted from the most significant; `false` past the end.
    pub fn bit(&self, index: u32) -> bool {
        self.0.get(index as usize / 8).is_some_and(|byte| byte & (0x80 >> (index % 8)) != 0)
    }
}

impl AsRef<[u8]> for Id {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl From<[u8; Self::LEN]> for Id {
    fn from(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }
}

/// Forty lower-case hexadecimal digits.
impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 2 * Self::LEN];
        HEXLOWER.encode_mut(&self.0, &mut text);
        f.pad(std::str::from_utf8(&text).expect("hexadecimal digits are ASCII"))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text was neither 40 hexadecimal nor 32 base32 digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseIdError;

impl fmt::Display for ParseIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected 40 hexadecimal or 32 base32 digits")
    }
}

impl std::error::Error for ParseIdError {}

/// Accepts 40 hexadecimal or 32 base32 digits.
impl FromStr for Id {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        Self::from_hex(text).or_else(|| Self::from_base32(text)).ok_or(ParseIdError)
    }
}

/// The XOR of two ids; smaller is nearer.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Distance([u8; Id::LEN]);

impl Distance {
    /// The distance of an id to itself.
    pub const ZERO: Self = Self([0; Id::LEN]);
    /// The largest distance.
    pub const MAX: Self = Self([0xff; Id::LEN]);

    /// A distance from its 20 bytes, most significant first.
    pub const fn new(bytes: [u8; Id::LEN]) -> Self {
        Self(bytes)
    }

    /// The 20 bytes, most significant first.
    pub const fn as_bytes(&self) -> &[u8; Id::LEN] {
        &self.0
    }

    /// Zero bits from the top: 0 to 160.
    pub fn leading_zeros(&self) -> u32 {
        let (head, middle, tail) = self.words();
        match (head, middle) {
            (0, 0) => 128 + tail.leading_zeros(),
            (0, middle) => 64 + middle.leading_zeros(),
            (head, _) => head.leading_zeros(),
        }
    }

    /// Bits needed to write the distance: 0 for equal ids, up to 160. A k-bucket with this number
    /// covers distances from `2^(n-1)` to `2^n - 1`.
    pub fn bit_len(&self) -> u32 {
        Id::BITS - self.leading_zeros()
    }

    /// The distance as numbers, most significant first.
    #[inline]
    fn words(&self) -> (u64, u64, u32) {
        let &[.., a, b, c, d] = &self.0;
        (head(&self.0), head(self.0[8..].first_chunk().unwrap_or(&[0; 8])), u32::from_be_bytes([a, b, c, d]))
    }
}

/// Compares three numbers: several times cheaper than 20 bytes one after the other.
impl Ord for Distance {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        self.words().cmp(&other.words())
    }
}

impl PartialOrd for Distance {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The first eight of `bytes` as a number.
#[inline]
fn head<const N: usize>(bytes: &[u8; N]) -> u64 {
    u64::from_be_bytes(*bytes.first_chunk().unwrap_or(&[0; 8]))
}

impl fmt::Display for Distance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Id(self.0), f)
    }
}

impl fmt::Debug for Distance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_is_xor_and_orders_by_nearness() {
        let own = Id::new([0xf0; 20]);
        let mut near = [0xf0; 20];
        near[19] = 0xf1;
        let near = Id::new(near);
        let far = Id::new([0x0f; 20]);
        assert!(own.distance(&near) < own.distance(&far));
        assert_eq!(own.distance(&near).bit_len(), 1);
        assert_eq!(own.distance(&far), Distance::MAX);
        assert_eq!(own.distance(&own).bit_len(), 0);
        assert_eq!(own.at(&own.distance(&far)), far);
    }

    #[test]
    fn distances_compare_byte_by_byte() {
        let at = |index: usize, byte: u8| {
            let mut bytes = [7; 20];
            bytes[index] = byte;
            Distance::new(bytes)
        };
        for index in 0..20 {
            assert!(at(index, 6) < at(index, 8) && at(index, 0xff) > at(index, 0x7f), "{index}");
            for later in index + 1..20 {
                assert!(at(index, 6) < at(later, 6) && at(index, 8) > at(later, 0xff), "{index} {later}");
            }
            let origin = Id::new([7; 20]);
            let other = origin.at(&at(index, 0));
            assert_eq!(origin.distance_head(&other).to_be_bytes(), at(index, 0).as_bytes()[..8]);
        }
    }

    #[test]
    fn prefix_len_counts_shared_leading_bits() {
        let zero = Id::ZERO;
        for bit in 0..160 {
            let mut bytes = [0; 20];
            bytes[bit / 8] = 0x80 >> (bit % 8);
            assert_eq!(zero.prefix_len(&Id::new(bytes)), bit as u32);
            assert!(Id::new(bytes).bit(bit as u32));
        }
        assert_eq!(zero.prefix_len(&zero), 160);
        assert!(!Id::new([0xff; 20]).bit(160));
    }

    #[test]
    fn hex_and_base32_name_the_same_id() {
        let id: Id = "6162636465666768696a30313233343536373839".parse().expect("40 digits");
        assert_eq!(id.as_bytes(), b"abcdefghij0123456789");
        let base32 = BASE32_NOPAD.encode(id.as_bytes());
        assert_eq!(base32.parse::<Id>(), Ok(id));
        assert_eq!(base32.to_lowercase().parse::<Id>(), Ok(id));
        assert_eq!(id.to_string().to_uppercase().parse::<Id>(), Ok(id));
        for wrong in ["", "6162", "zz62636465666768696a30313233343536373839", "1".repeat(32).as_str()] {
            assert_eq!(wrong.parse::<Id>(), Err(ParseIdError), "{wrong}");
        }
    }
}
