//! [`Has`]: which pieces a peer has, in no memory at all for those that have nothing or everything.

use crate::bitfield::Bitfield;

/// The pieces of a peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Has {
    /// None, as far as we were told.
    #[default]
    Nothing,
    /// All: it is a seed.
    All,
    /// Some.
    Some(Bitfield),
}

impl Has {
    /// Whether `piece` is among them.
    pub(super) fn contains(&self, piece: u32) -> bool {
        match self {
            Self::Nothing => false,
            Self::All => true,
            Self::Some(pieces) => pieces.contains(piece),
        }
    }

    /// How many of `wanted` are among them.
    pub(super) fn common(&self, wanted: &Bitfield) -> u32 {
        match self {
            Self::Nothing => 0,
            Self::All => wanted.count(),
            Self::Some(pieces) => pieces.common(wanted),
        }
    }

    /// Adds a piece of a torrent with `of` pieces; returns whether it was new. A set that becomes
    /// full stays a set, so that the picker counts the peer in the same way when it goes.
    pub(super) fn insert(&mut self, piece: u32, of: u32) -> bool {
        if *self == Self::Nothing {
            *self = Self::Some(Bitfield::new(of));
        }
        match self {
            Self::Some(pieces) => pieces.insert(piece),
            Self::Nothing | Self::All => false,
        }
    }

    /// Thousandths of `of` pieces that are among them.
    pub(super) fn permille(&self, of: u32) -> u16 {
        match self {
            Self::Nothing => 0,
            Self::All => 1000,
            Self::Some(pieces) => (u64::from(pieces.count()) * 1000 / u64::from(of.max(1))) as u16,
        }
    }

    /// Whether nothing is missing.
    pub(super) fn is_all(&self) -> bool {
        match self {
            Self::Nothing => false,
            Self::All => true,
            Self::Some(pieces) => pieces.is_full(),
        }
    }
}

impl From<Bitfield> for Has {
    fn from(pieces: Bitfield) -> Self {
        match pieces.count() {
            0 => Self::Nothing,
            count if count == pieces.len() => Self::All,
            _ => Self::Some(pieces),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_that_fills_up_is_a_seed() {
        let mut has = Has::from(Bitfield::new(2));
        assert_eq!(has, Has::Nothing);
        assert!(has.insert(0, 2) && !has.insert(0, 2) && !has.insert(2, 2) && !has.is_all());
        assert_eq!((has.permille(2), Has::All.permille(2), Has::Nothing.permille(0)), (500, 1000, 0));
        assert!(has.insert(1, 2) && has.is_all());
        assert_eq!(Has::from(Bitfield::full(2)), Has::All);
        assert_eq!(has.common(&Bitfield::full(2)), 2);
    }
}
