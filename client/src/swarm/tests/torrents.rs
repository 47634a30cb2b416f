//! Torrents for tests, and their bytes.

use std::sync::Arc;

use sha1::{Digest as _, Sha1};

use crate::metainfo::Info;

/// A torrent of one file, and its bytes.
pub(crate) fn torrent(len: usize, piece_len: usize) -> (Arc<Info>, Vec<u8>) {
    let files = format!("6:lengthi{len}e");
    build("", &files, len, piece_len)
}

pub(crate) fn two_files(first: usize, second: usize, piece_len: usize) -> (Arc<Info>, Vec<u8>) {
    let files = format!("5:filesld6:lengthi{first}e4:pathl1:aeed6:lengthi{second}e4:pathl1:beee");
    build(&files, "", first + second, piece_len)
}

fn build(files: &str, length: &str, len: usize, piece_len: usize) -> (Arc<Info>, Vec<u8>) {
    let payload: Vec<u8> = (0..len).map(|at| (at / 7 + at / 16_384 * 31) as u8).collect();
    let hashes: Vec<u8> = payload.chunks(piece_len).flat_map(|piece| Sha1::digest(piece).to_vec()).collect();
    let mut raw = format!("d{files}{length}4:name1:t12:piece lengthi{piece_len}e6:pieces{}:", hashes.len())
        .into_bytes();
    raw.extend(hashes);
    raw.push(b'e');
    (Arc::new(Info::parse(&raw).unwrap()), payload)
}
