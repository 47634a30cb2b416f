//! The v2 part of a torrent (BEP 52): its file tree, and the check of `piece layers` against the
//! roots of the files.

use krpc::bencode::{Limits, Reader};
use sha2::{Digest, Sha256};

use super::error::MetainfoError;
use super::fields::{MAX_TOTAL, length};
use super::files::{Attributes, FileTable, PathStack};

/// Bytes under one leaf of the hash tree.
const LEAF_LEN: u32 = 1 << 14;

/// The files of a tree in their order.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) table: FileTable,
    pub(super) lengths: Vec<u64>,
    /// Root of each file's hash tree; zeros for an empty file.
    pub(super) roots: Vec<[u8; 32]>,
}

impl Tree {
    /// Reads a `file tree` dictionary, which the caller has skipped over before.
    pub(super) fn parse(raw: &[u8]) -> Result<Self, MetainfoError> {
        let mut reader = Reader::new(raw, Limits::METAINFO);
        let mut tree = Self::default();
        let mut path = PathStack::default();
        // Of each open folder, whether it has had an entry, and whether that was its own file.
        let mut open = vec![Folder::Empty];
        let mut total = 0_u64;
        reader.expect_dict()?;
        while let Some(folder) = open.last_mut() {
            let Some(key) = reader.key()? else {
                open.pop();
                path.leave();
                continue;
            };
            match (*folder, key) {
                (Folder::IsFile, _) => return Err(MetainfoError::FileTree("a file has siblings")),
                (Folder::HasEntries, b"") => return Err(MetainfoError::FileTree("a folder is a file")),
                (Folder::Empty, b"") if path.path().is_empty() => {
                    return Err(MetainfoError::FileTree("the root is a file"));
                }
                (Folder::Empty, b"") => {
                    *folder = Folder::IsFile;
                    total = total.saturating_add(tree.read_file(&mut reader, path.path())?);
                    if total > MAX_TOTAL {
                        return Err(MetainfoError::TooLarge);
                    }
                }
                (_, name) => {
                    *folder = Folder::HasEntries;
                    path.enter(name)?;
                    reader.expect_dict().map_err(|_| MetainfoError::FileTree("an entry is no dictionary"))?;
                    open.push(Folder::Empty);
                }
            }
        }
        Ok(tree)
    }

    fn read_file(&mut self, reader: &mut Reader<'_>, path: &[u8]) -> Result<u64, MetainfoError> {
        let (mut len, mut root, mut attributes) = (None, None, Attributes::default());
        reader.expect_dict().map_err(|_| MetainfoError::FileTree("a file is no dictionary"))?;
        while let Some(key) = reader.key()? {
            match key {
                b"length" => len = Some(length(reader)?),
                b"pieces root" => root = reader.bytes_or_skip()?,
                b"attr" => attributes = Attributes::parse(reader.bytes_or_skip()?.unwrap_or_default()),
                _ => {
                    reader.skip()?;
                }
            }
        }
        let len = match len {
            Some(len) => len,
            None if attributes.is_symlink() => 0,
            None => return Err(MetainfoError::FileTree("a file has no length")),
        };
        let root = match root {
            Some(root) => root.try_into().map_err(|_| MetainfoError::FileTree("a root has not 32 bytes"))?,
            None if len == 0 => [0; 32],
            None => return Err(MetainfoError::FileTree("a file has no root")),
        };
        self.table.push(path, attributes)?;
        self.lengths.push(len);
        self.roots.push(root);
        Ok(len)
    }
}

#[derive(Clone, Copy, Debug)]
enum Folder {
    Empty,
    IsFile,
    HasEntries,
}

/// Checks that `layers`, a `piece layers` dictionary as it came, has the layer of each file that is
/// longer than a piece, and that it hashes to the file's root. Work is bounded by the piece count.
pub(super) fn check_layers<'a>(
    layers: &[u8],
    piece_len: u32,
    files: impl Iterator<Item = (u64, &'a [u8; 32])>,
) -> Result<(), MetainfoError> {
    let mut reader = Reader::new(layers, Limits::METAINFO);
    let mut found: Vec<(&[u8], &[u8])> = Vec::new();
    reader.expect_dict().map_err(|_| MetainfoError::PieceLayers("no dictionary"))?;
    while let Some(root) = reader.key()? {
        let layer = reader.bytes().map_err(|_| MetainfoError::PieceLayers("a layer is no string"))?;
        found.push((root, layer));
    }
    found.sort_unstable();
    for (len, root) in files.filter(|(len, _)| *len > u64::from(piece_len)) {
        let at = found.binary_search_by(|(key, _)| (*key).cmp(&root[..]));
        let at = at.map_err(|_| MetainfoError::PieceLayers("a file's layer is missing"))?;
        let (_, layer) = found[at];
        let hashes = len.div_ceil(u64::from(piece_len));
        if layer.len() as u64 != hashes * 32 {
            return Err(MetainfoError::PieceLayers("a layer has the wrong length"));
        }
        if layer_root(layer, piece_len) != *root {
            return Err(MetainfoError::PieceLayers("a layer does not hash to its root"));
        }
    }
    Ok(())
}

/// The root above a layer of piece hashes; what lies beyond the end of the file counts as zero
/// leaves (BEP 52).
fn layer_root(layer: &[u8], piece_len: u32) -> [u8; 32] {
    let mut pad = [0; 32];
    for _ in 0..(piece_len / LEAF_LEN).max(1).ilog2() {
        pad = parent(&pad, &pad);
    }
    let mut hashes: Vec<[u8; 32]> = layer.as_chunks().0.to_vec();
    while hashes.len() > 1 {
        let pairs = hashes.chunks(2).map(|pair| parent(&pair[0], pair.get(1).unwrap_or(&pad)));
        hashes = pairs.collect();
        pad = parent(&pad, &pad);
    }
    hashes.pop().unwrap_or(pad)
}

fn parent(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    Sha256::new().chain_update(left).chain_update(right).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(len: u64, root: &str) -> String {
        format!("d0:d6:lengthi{len}e11:pieces root{}:{root}ee", root.len())
    }

    #[test]
    fn a_tree_is_read_in_order() {
        let root = "r".repeat(32);
        let tree = format!("d1:ad1:b{}1:cd0:d6:lengthi0eeee1:d{}e", file(5, &root), file(7, &root));
        let tree = Tree::parse(tree.as_bytes()).unwrap();
        assert_eq!(tree.lengths, [5, 0, 7]);
        let paths: Vec<_> = (0..3).map(|file| tree.table.path(file)).collect();
        assert_eq!(paths, [&b"a\0b"[..], b"a\0c", b"d"]);
        assert_eq!(tree.roots, [[b'r'; 32], [0; 32], [b'r'; 32]]);
    }

    #[test]
    fn malformed_trees_are_refused() {
        let root = "r".repeat(32);
        let inner = "d6:lengthi1e11:pieces root32:rrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrre";
        for (tree, what) in [
            (format!("d0:{inner}e"), "the root is a file"),
            (format!("d1:ad0:{inner}1:b{}ee", file(1, &root)), "a file has siblings"),
            (format!("d1:ad1:b{}0:{inner}ee", file(1, &root)), "a folder is a file"),
            (format!("d1:a{}e", file(1, "short")), "a root has not 32 bytes"),
            ("d1:ad0:d6:lengthi1eeee".into(), "a file has no root"),
            ("d1:ad0:deee".into(), "a file has no length"),
            ("d1:ai1ee".into(), "an entry is no dictionary"),
            ("d1:ad0:i1eee".into(), "a file is no dictionary"),
        ] {
            assert_eq!(Tree::parse(tree.as_bytes()).unwrap_err(), MetainfoError::FileTree(what), "{tree}");
        }
        let tree = format!("d2:..{}e", file(1, &root));
        assert!(matches!(Tree::parse(tree.as_bytes()), Err(MetainfoError::Name(..))));
    }

    #[test]
    fn layers_are_held_against_the_roots() {
        // Three pieces of 32 KiB: the fourth position of the layer is the hash over two zero leaves.
        let hashes = [[1; 32], [2; 32], [3; 32]];
        let zeros = parent(&[0; 32], &[0; 32]);
        let root = parent(&parent(&hashes[0], &hashes[1]), &parent(&hashes[2], &zeros));
        let layer = hashes.concat();
        assert_eq!(layer_root(&layer, 32768), root);
        let mut document = b"d32:".to_vec();
        document.extend_from_slice(&root);
        document.extend_from_slice(b"96:");
        document.extend_from_slice(&layer);
        document.push(b'e');
        let len = 2 * 32768 + 1;
        let check = |document: &[u8], len| check_layers(document, 32768, [(len, &root)].into_iter());
        assert_eq!(check(&document, len), Ok(()));
        assert_eq!(
            check(&document, 4 * 32768),
            Err(MetainfoError::PieceLayers("a layer has the wrong length"))
        );
        assert_eq!(check(b"de", len), Err(MetainfoError::PieceLayers("a file's layer is missing")));
        assert_eq!(check(b"de", 32768), Ok(()));
        let last = document.len() - 2;
        document[last] ^= 1;
        assert_eq!(
            check(&document, len),
            Err(MetainfoError::PieceLayers("a layer does not hash to its root"))
        );
    }
}
