//! [`Bitfield`]: which pieces somebody has, most significant bit first as on the wire (BEP 3,
//! "bitfield").

use crate::steps;

/// A set of piece indices with a fixed size.
#[derive(PartialEq, Eq, Debug, Default)]
pub struct Bitfield {
    words: Vec<u64>,
    len: u32,
    ones: u32,
}

impl Bitfield {
    /// An empty set over `len` pieces.
    pub fn new(len: u32) -> Self {
        let words = vec![0; (len as usize).div_ceil(64)];
        steps::count(words.len());
        Self { words, len, ones: 0 }
    }

    /// The full set over `len` pieces.
    pub fn full(len: u32) -> Self {
        let mut words = vec![u64::MAX; (len as usize).div_ceil(64)];
        steps::count(words.len());
        if let (Some(last), spare @ 1..) = (words.last_mut(), len % 64) {
            *last = u64::MAX << (64 - spare);
        }
        Self { words, len, ones: len }
    }

    /// Reads the wire form; `None` unless it has exactly the bytes that `len` pieces need and the
    /// spare bits at the end are zero (BEP 3).
    pub fn from_wire(bytes: &[u8], len: u32) -> Option<Self> {
        if bytes.len() != (len as usize).div_ceil(8) {
            return None;
        }
        let spare = (bytes.len() as u32 * 8).checked_sub(len)?;
        if bytes.last().is_some_and(|last| spare > 0 && last & ((1 << spare) - 1) != 0) {
            return None;
        }
        let mut words = Vec::with_capacity((len as usize).div_ceil(64));
        steps::count(words.capacity());
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            words.push(u64::from_be_bytes(word));
        }
        let ones = words.iter().map(|word| word.count_ones()).sum();
        Some(Self { words, len, ones })
    }

    /// Appends the wire form.
    pub fn put_wire(&self, out: &mut Vec<u8>) {
        let end = out.len() + (self.len as usize).div_ceil(8);
        steps::count(self.words.len());
        for word in &self.words {
            out.extend_from_slice(&word.to_be_bytes());
        }
        out.truncate(end);
    }

    /// Adds `index`; returns whether it was new. Out of range is ignored.
    pub fn insert(&mut self, index: u32) -> bool {
        if index >= self.len || self.contains(index) {
            return false;
        }
        self.words[index as usize / 64] |= Self::mask(index);
        self.ones += 1;
        true
    }

    /// Removes `index`; returns whether it was there.
    pub fn remove(&mut self, index: u32) -> bool {
        if !self.contains(index) {
            return false;
        }
        self.words[index as usize / 64] &= !Self::mask(index);
        self.ones -= 1;
        true
    }

    /// Whether `index` is in the set.
    pub fn contains(&self, index: u32) -> bool {
        index < self.len && self.words[index as usize / 64] & Self::mask(index) != 0
    }

    /// Pieces in all, set or not.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Pieces in the set.
    pub fn count(&self) -> u32 {
        self.ones
    }

    /// Whether no piece is in the set.
    pub fn is_empty(&self) -> bool {
        self.ones == 0
    }

    /// Whether every piece is in the set.
    pub fn is_full(&self) -> bool {
        self.ones == self.len
    }

    /// The members in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.words.iter().enumerate().flat_map(|(at, &word)| {
            let mut rest = word;
            steps::count(1);
            std::iter::from_fn(move || {
                let bit = rest.leading_zeros();
                (bit < 64).then(|| {
                    rest &= !(1 << (63 - bit));
                    at as u32 * 64 + bit
                })
            })
        })
    }

    /// How many members it shares with `other`.
    pub fn common(&self, other: &Self) -> u32 {
        steps::count(self.words.len());
        self.words.iter().zip(&other.words).map(|(a, b)| (a & b).count_ones()).sum()
    }

    /// The first member from `from` on that is also in `other`. Costs a step per 64 indices.
    pub fn first_common(&self, other: &Self, from: u32) -> Option<u32> {
        let start = from as usize / 64;
        let (words, others) = (self.words.get(start..), other.words.get(start..));
        let words = words.unwrap_or_default().iter().zip(others.unwrap_or_default());
        for (at, (a, b)) in (start..).zip(words) {
            steps::count(1);
            let skipped = if at == start { u64::MAX >> (from % 64) } else { u64::MAX };
            let both = a & b & skipped;
            if both != 0 {
                return Some(at as u32 * 64 + both.leading_zeros());
            }
        }
        None
    }

    fn mask(index: u32) -> u64 {
        1 << (63 - index % 64)
    }
}

impl Clone for Bitfield {
    fn clone(&self) -> Self {
        steps::count(self.words.len());
        Self { words: self.words.clone(), ..*self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_form_is_most_significant_bit_first() {
        let mut field = Bitfield::new(10);
        assert!(field.insert(0) && field.insert(9) && !field.insert(9) && !field.insert(10));
        let mut wire = Vec::new();
        field.put_wire(&mut wire);
        assert_eq!(wire, [0x80, 0x40]);
        assert_eq!(Bitfield::from_wire(&wire, 10), Some(field.clone()));
        assert_eq!(field.iter().collect::<Vec<_>>(), [0, 9]);
        assert!(field.remove(0) && !field.remove(0));
        assert_eq!(field.count(), 1);
    }

    #[test]
    fn wrong_length_and_spare_bits_are_refused() {
        assert_eq!(Bitfield::from_wire(&[0x80, 0x60], 10), None);
        assert_eq!(Bitfield::from_wire(&[0x80], 10), None);
        assert_eq!(Bitfield::from_wire(&[0x80, 0, 0], 10), None);
        assert!(Bitfield::from_wire(&[0xff, 0xc0], 10).is_some_and(|field| field.is_full()));
        assert!(Bitfield::full(64).is_full() && Bitfield::full(65).iter().count() == 65);
        assert!(Bitfield::from_wire(&[], 0).is_some());
    }

    #[test]
    fn common_members_are_counted_and_found_from_any_point() {
        let (mut a, b) = (Bitfield::new(200), Bitfield::full(200));
        for index in [3, 64, 199] {
            a.insert(index);
        }
        assert_eq!(a.common(&b), 3);
        let found: Vec<_> = [0, 3, 4, 64, 65, 199, 200].map(|from| b.first_common(&a, from)).into();
        assert_eq!(found, [Some(3), Some(3), Some(64), Some(64), Some(199), Some(199), None]);
        assert_eq!(Bitfield::full(65).iter().last(), Some(64));
        assert_eq!(Bitfield::full(130).common(&Bitfield::full(128)), 128);
    }
}
