//! [`Ready`]: pieces that are right and wait to be written, so that neighbours become one write.

use std::collections::BTreeMap;

use crate::metainfo::Layout;
use crate::piece::PieceIndex;
use crate::storage::cache::Unfinished;
use crate::storage::{DiskError, Storage, span};

/// Pieces of one worker that are all there and have the right hash. Their blocks stay with the
/// unfinished ones until they are on disk.
#[derive(Debug, Default)]
pub(super) struct Ready {
    pieces: Vec<PieceIndex>,
    /// Bytes of them in memory.
    held: usize,
}

impl Ready {
    pub(super) fn push(&mut self, piece: PieceIndex, held: usize) {
        self.pieces.push(piece);
        self.held += held;
    }

    pub(super) fn held(&self) -> usize {
        self.held
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Takes the lowest piece and those that follow it without a gap, once `write` has written
    /// them. After an error they stay.
    pub(super) fn take_row(
        &mut self,
        write: impl FnOnce(&[PieceIndex]) -> Result<(), DiskError>,
    ) -> Result<Vec<PieceIndex>, DiskError> {
        self.pieces.sort_unstable();
        let first = self.pieces.first().map_or(0, |piece| piece.0);
        let len = self.pieces.iter().zip(first..).take_while(|(piece, next)| piece.0 == *next).count();
        write(&self.pieces[..len])?;
        let row = self.pieces.drain(..len).collect();
        if self.pieces.is_empty() {
            self.held = 0;
        }
        Ok(row)
    }
}

/// Writes what is in memory of `row`, pieces that lie one behind the other: one vectored write for
/// each file, but where a part went to disk earlier.
pub(super) fn write_row(
    storage: &dyn Storage,
    layout: &Layout,
    row: &[PieceIndex],
    unfinished: &BTreeMap<PieceIndex, Unfinished>,
) -> Result<(), DiskError> {
    let mut blocks: Vec<&[u8]> = Vec::new();
    // Where they begin, and the place in the payload where they end.
    let (mut begin, mut end) = ((PieceIndex(0), 0), 0);
    for (&piece, unfinished) in row.iter().filter_map(|piece| Some((piece, unfinished.get(piece)?))) {
        for run in unfinished.runs(false) {
            let at = layout.piece_offset(piece) + u64::from(run.begin);
            if at != end {
                span::write(storage, layout, begin.0, begin.1, &blocks)?;
                blocks.clear();
                begin = (piece, run.begin);
            }
            end = at + run.blocks.iter().map(|block| block.len() as u64).sum::<u64>();
            blocks.extend(run.blocks);
        }
    }
    span::write(storage, layout, begin.0, begin.1, &blocks)
}
