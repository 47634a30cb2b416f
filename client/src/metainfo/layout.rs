//! Pieces ⇄ files: where the bytes of a piece lie. Prefix sums and binary search; no I/O, no names.

use std::ops::Range;

use crate::peer::TorrentShape;
use crate::piece::PieceIndex;

/// The arrangement of a torrent's files in its row of pieces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    piece_len: u32,
    total: u64,
    files: Vec<Extent>,
}

/// The place of a file in the row of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Bytes before it.
    pub offset: u64,
    /// Its bytes.
    pub len: u64,
    /// Whether it is a pad file (BEP 47): zeros that are never written.
    pub pad: bool,
}

/// A part of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Index of the file.
    pub file: usize,
    /// Offset in the file.
    pub offset: u64,
    /// Bytes, at least 1.
    pub len: u32,
    /// Whether the file is a pad file: read zeros, write nothing.
    pub pad: bool,
}

impl Layout {
    /// A layout of files given by length and whether they are pads. The caller has checked the
    /// limits: a piece length of at least 1, at most 2^48 bytes in at most 2^21 pieces.
    pub fn new(piece_len: u32, lengths: impl IntoIterator<Item = (u64, bool)>) -> Self {
        let mut total = 0_u64;
        let files = lengths.into_iter().map(|(len, pad)| {
            let offset = total;
            total = total.saturating_add(len);
            Extent { offset, len, pad }
        });
        let files = files.collect();
        Self { piece_len: piece_len.max(1), total, files }
    }

    /// Bytes of all files, pads included.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Bytes of the files that are written.
    pub fn payload(&self) -> u64 {
        self.files.iter().filter(|file| !file.pad).map(|file| file.len).sum()
    }

    /// Number of pieces.
    pub fn pieces(&self) -> u32 {
        u32::try_from(self.total.div_ceil(u64::from(self.piece_len))).unwrap_or(u32::MAX)
    }

    /// Bytes of every piece but the last.
    pub fn nominal_piece_len(&self) -> u32 {
        self.piece_len
    }

    /// Bytes of `piece`; 0 if there is none such.
    pub fn piece_len(&self, piece: PieceIndex) -> u32 {
        let rest = self.total.saturating_sub(self.piece_offset(piece));
        rest.min(u64::from(self.piece_len)) as u32
    }

    /// The files in order.
    pub fn files(&self) -> &[Extent] {
        &self.files
    }

    /// The pieces that hold bytes of `file`; empty for an empty or unknown file.
    pub fn piece_range(&self, file: usize) -> Range<u32> {
        let Some(extent) = self.files.get(file).filter(|extent| extent.len > 0) else {
            return 0..0;
        };
        let piece = |offset| (offset / u64::from(self.piece_len)) as u32;
        piece(extent.offset)..piece(extent.offset + extent.len - 1) + 1
    }

    /// The parts of files that hold `len` bytes of `piece` from `begin` on, in order; cut at the end
    /// of the torrent.
    pub fn spans(&self, piece: PieceIndex, begin: u32, len: u32) -> Spans<'_> {
        let at = self.piece_offset(piece).saturating_add(u64::from(begin));
        let left = self.total.saturating_sub(at).min(u64::from(len)) as u32;
        // The last file that begins at or before `at`; empty files there are passed over.
        let file = self.files.partition_point(|file| file.offset <= at).saturating_sub(1);
        Spans { files: &self.files, file, at, left }
    }

    /// What connections must know to check indices.
    pub fn shape(&self, metadata_size: u32) -> TorrentShape {
        let pieces = self.pieces();
        let last_piece_len = self.piece_len(PieceIndex(pieces.saturating_sub(1)));
        TorrentShape { pieces, piece_len: self.piece_len, last_piece_len, metadata_size }
    }

    /// Where `piece` begins in the payload.
    pub(crate) fn piece_offset(&self, piece: PieceIndex) -> u64 {
        u64::from(piece.0) * u64::from(self.piece_len)
    }
}

/// Iterator of [`Layout::spans`].
#[derive(Clone, Debug)]
pub struct Spans<'a> {
    files: &'a [Extent],
    file: usize,
    at: u64,
    left: u32,
}

impl Iterator for Spans<'_> {
    type Item = Span;

    fn next(&mut self) -> Option<Span> {
        while self.left > 0 {
            let extent = self.files.get(self.file)?;
            let offset = self.at - extent.offset;
            let len = (extent.len - offset.min(extent.len)).min(u64::from(self.left)) as u32;
            let file = self.file;
            if offset + u64::from(len) >= extent.len {
                self.file += 1;
            }
            if len > 0 {
                self.at += u64::from(len);
                self.left -= len;
                return Some(Span { file, offset, len, pad: extent.pad });
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_piece_across_files_is_split_at_their_ends() {
        let layout = Layout::new(10, [(4, false), (0, false), (3, true), (8, false), (0, false)]);
        assert_eq!((layout.pieces(), layout.total(), layout.payload()), (2, 15, 12));
        let span = |file, offset, len, pad| Span { file, offset, len, pad };
        let first: Vec<_> = layout.spans(PieceIndex(0), 0, 10).collect();
        assert_eq!(first, [span(0, 0, 4, false), span(2, 0, 3, true), span(3, 0, 3, false)]);
        assert_eq!(layout.spans(PieceIndex(1), 0, 10).collect::<Vec<_>>(), [span(3, 3, 5, false)]);
        assert_eq!(layout.spans(PieceIndex(0), 4, 1).collect::<Vec<_>>(), [span(2, 0, 1, true)]);
        assert_eq!(layout.spans(PieceIndex(2), 0, 10).count(), 0);
        assert_eq!(layout.piece_range(0), 0..1);
        assert_eq!(layout.piece_range(1), 0..0);
        assert_eq!(layout.piece_range(3), 0..2);
        assert_eq!(layout.piece_range(9), 0..0);
        let shape = layout.shape(7);
        assert_eq!((shape.pieces, shape.piece_len, shape.last_piece_len), (2, 10, 5));
    }

    proptest! {
        #[test]
        fn every_byte_is_covered_once(
            piece_len in 1_u32..50,
            lengths in prop::collection::vec((0_u64..60, any::<bool>()), 1..12),
            begin in 0_u32..50,
        ) {
            let layout = Layout::new(piece_len, lengths.iter().copied());
            let mut seen: Vec<Vec<u32>> = lengths.iter().map(|(len, _)| vec![0; *len as usize]).collect();
            let mut bytes = 0;
            for piece in 0..layout.pieces() {
                let len = layout.piece_len(PieceIndex(piece));
                prop_assert!(len > 0 && len <= piece_len);
                // In two parts, so that every cut is seen.
                let cut = begin.min(len);
                let parts = layout.spans(PieceIndex(piece), 0, cut);
                for span in parts.chain(layout.spans(PieceIndex(piece), cut, len - cut)) {
                    prop_assert!(span.len > 0);
                    prop_assert!(layout.piece_range(span.file).contains(&piece));
                    prop_assert_eq!(span.pad, lengths[span.file].1);
                    for at in span.offset..span.offset + u64::from(span.len) {
                        seen[span.file][at as usize] += 1;
                        bytes += 1;
                    }
                }
            }
            prop_assert_eq!(bytes, layout.total());
            prop_assert!(seen.iter().flatten().all(|&times| times == 1));
            prop_assert_eq!(layout.piece_len(PieceIndex(layout.pieces())), 0);
        }
    }
}
