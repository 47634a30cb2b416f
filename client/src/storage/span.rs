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

#[cfg(test)]
mod tests {
    use krpc::bencode::Writer;

    use super::*;
    use crate::metainfo::Info;
    use crate::storage::MemStorage;

    #[test]
    fn pads_read_as_zeros_whatever_is_in_the_buffer() {
        let mut raw = Vec::new();
        let mut writer = Writer::new(&mut raw);
        writer.dict().key(b"files").list();
        for (name, len, attributes) in [("a", 10, ""), ("pad", 6, "p"), ("b", 20, "")] {
            writer.dict().key(b"attr").bytes(attributes.as_bytes()).key(b"length").int(len);
            writer.key(b"path").list().bytes(name.as_bytes()).end().end();
        }
        writer.end().key(b"name").bytes(b"n").key(b"piece length").int(1 << 14);
        writer.key(b"pieces").bytes(&[0; 20]).end();
        let info = Info::parse(&raw).unwrap();
        let storage = MemStorage::new([10, 6, 20]);
        write(&storage, info.layout(), PieceIndex(0), 0, &[&[1; 36]]).unwrap();
        let mut buf = [0xff; 30];
        read(&storage, info.layout(), PieceIndex(0), 5, &mut buf).unwrap();
        assert_eq!(buf[..], [[1; 5].as_slice(), &[0; 6], &[1; 19]].concat()[..]);
    }
}
