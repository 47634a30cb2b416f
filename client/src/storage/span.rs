//! Pieces over a [`Storage`]: parts of pieces read and written across the files that hold them.

use std::io::IoSlice;

use super::{DiskError, Storage};
use crate::metainfo::Layout;
use crate::piece::PieceIndex;

/// Says that these bytes of `piece` will be read soon.
pub(super) fn ahead(storage: &dyn Storage, layout: &Layout, piece: PieceIndex, begin: u32, len: u32) {
    for span in layout.spans(piece, begin, len).filter(|span| !span.pad) {
        storage.ahead(span.file, span.offset, span.len);
    }
}

/// Fills `buf` with the bytes of `piece` from `begin` on. Pad files read as zeros (BEP 47).
pub(super) fn read(
    storage: &dyn Storage,
    layout: &Layout,
    piece: PieceIndex,
    begin: u32,
    buf: &mut [u8],
) -> Result<(), DiskError> {
    let mut rest = buf;
    for span in layout.spans(piece, begin, rest.len() as u32) {
        let (part, behind) = rest.split_at_mut(span.len as usize);
        match span.pad {
            true => part.fill(0),
            false => storage.read(span.file, span.offset, part)?,
        }
        rest = behind;
    }
    Ok(())
}

/// Writes `blocks`, which lie one behind the other in `piece` from `begin` on: one vectored write
/// for each file. Pad files are passed over.
pub(super) fn write(
    storage: &dyn Storage,
    layout: &Layout,
    piece: PieceIndex,
    begin: u32,
    blocks: &[&[u8]],
) -> Result<(), DiskError> {
    let len: usize = blocks.iter().map(|block| block.len()).sum();
    let mut blocks = blocks.iter();
    let mut rest: &[u8] = &[];
    let mut slices = Vec::with_capacity(blocks.len());
    for span in layout.spans(piece, begin, len as u32) {
        let mut left = span.len as usize;
        slices.clear();
        while left > 0 {
            if rest.is_empty() {
                rest = blocks.next().expect("the spans are no longer than the blocks");
            }
            let (part, behind) = rest.split_at(left.min(rest.len()));
            slices.push(IoSlice::new(part));
            left -= part.len();
            rest = behind;
        }
        if !span.pad {
            storage.write(span.file, span.offset, &mut slices)?;
        }
    }
    Ok(())
}
