//! [`Theirs`]: what a peer says that it has, checked. Before the size of the torrent is known (magnet)
//! it is kept back, within bounds.

use super::{PeerEvent, TorrentShape, Violation};
use crate::bitfield::Bitfield;
use crate::piece::PieceIndex;

/// Single pieces kept back; further ones are dropped, so that the peer seems to have less.
const MAX_KEPT: usize = 4096;

/// A later set of a torrent weighs one useless message, and one more for each so many pieces. Of two
/// million pieces that is 16 sets at once, and one in 1.2 s from then on.
const PIECES_A_MESSAGE: u32 = 1 << 14;

/// The piece set of a peer, as far as it went through here.
#[derive(Debug, Default)]
pub(super) struct Theirs {
    first: First,
    /// Pieces announced before the size was known.
    kept: Vec<u32>,
    /// `have` messages so far.
    haves: u32,
}

/// The latest whole set: `bitfield`, `have all` or `have none`.
#[derive(Debug, Default)]
enum First {
    #[default]
    None,
    /// Kept back; at most 256 KiB, which were really received.
    Kept(Said),
    /// Passed on.
    Told,
}

/// A whole piece set.
#[derive(Debug)]
pub(super) enum Said {
    Bits(Vec<u8>),
    All,
    Nothing,
}

impl Said {
    /// Bytes of a bitfield; 0 for those that need none.
    fn wire_len(&self) -> u32 {
        match self {
            Self::Bits(bits) => u32::try_from(bits.len()).unwrap_or(u32::MAX),
            Self::All | Self::Nothing => 0,
        }
    }
}

impl Theirs {
    /// A whole piece set. BEP 3 allows it as the first message only, yet aria2 sends one in the middle
    /// where that is shorter than many `have` messages: a later set takes the place of what was said
    /// before. Returns what it weighs as chatter, so that nobody makes a habit of it: the work that it
    /// makes grows with the pieces, however short it is.
    pub(super) fn set(
        &mut self,
        said: Said,
        shape: Option<&TorrentShape>,
        out: &mut Vec<PeerEvent>,
    ) -> Result<u32, Violation> {
        let first = matches!(self.first, First::None) && self.haves == 0;
        let pieces = shape.map_or_else(|| said.wire_len().saturating_mul(8), |shape| shape.pieces);
        self.first = First::Kept(said);
        if let Some(shape) = shape {
            self.shape_known(shape, out)?;
        }
        Ok(if first { 0 } else { 1 + pieces / PIECES_A_MESSAGE })
    }

    /// A further piece. `Ok(false)` when there have been more of them than pieces.
    pub(super) fn have(
        &mut self,
        index: u32,
        shape: Option<&TorrentShape>,
        out: &mut Vec<PeerEvent>,
    ) -> Result<bool, Violation> {
        self.haves = self.haves.saturating_add(1);
        let Some(shape) = shape else {
            if self.kept.len() < MAX_KEPT {
                self.kept.push(index);
            }
            return Ok(self.kept.len() < MAX_KEPT);
        };
        if index >= shape.pieces {
            return Err(Violation::OutOfRange);
        }
        out.push(PeerEvent::Have(PieceIndex(index)));
        Ok(self.haves <= shape.pieces)
    }

    /// The size of the torrent is known: checks and passes on what was kept back.
    pub(super) fn shape_known(
        &mut self,
        shape: &TorrentShape,
        out: &mut Vec<PeerEvent>,
    ) -> Result<(), Violation> {
        if let First::Kept(said) = &self.first {
            out.push(match said {
                Said::Bits(bits) => {
                    let set = Bitfield::from_wire(bits, shape.pieces).ok_or(Violation::BadBitfield)?;
                    PeerEvent::Pieces(set)
                }
                Said::All => PeerEvent::HaveAll,
                Said::Nothing => PeerEvent::HaveNone,
            });
            self.first = First::Told;
        }
        for index in std::mem::take(&mut self.kept) {
            if index >= shape.pieces {
                return Err(Violation::OutOfRange);
            }
            out.push(PeerEvent::Have(PieceIndex(index)));
        }
        Ok(())
    }
}
