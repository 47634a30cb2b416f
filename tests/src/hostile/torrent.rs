//! [`Torrent`]: a generated file with its info dictionary, which both sides of a test know.

use std::net::SocketAddr;

use krpc::bencode::Writer;
use rand::{Rng as _, SeedableRng as _};
use sha1::{Digest as _, Sha1};
use sha2::Sha256;

/// A single-file torrent (BEP 3) whose payload is a function of its seed.
#[derive(Debug)]
pub struct Torrent {
    /// Name of the file.
    pub name: String,
    /// The file. Empty for [`Torrent::of_info`].
    pub payload: Vec<u8>,
    /// Bytes in every piece but the last.
    pub piece_len: u32,
    /// The info dictionary.
    pub info: Vec<u8>,
    /// SHA-1 of `info`.
    pub infohash: [u8; 20],
}

impl Torrent {
    /// `len` pseudo-random bytes. `padding` bytes of an unknown key make the info dictionary large
    /// enough for several metadata pieces (BEP 9).
    pub fn new(len: usize, piece_len: u32, padding: usize, seed: u64) -> Self {
        let mut payload = vec![0; len];
        rand::rngs::Xoshiro256PlusPlus::seed_from_u64(seed).fill_bytes(&mut payload);
        let name = format!("payload-{seed}.bin");
        let pieces: Vec<u8> = payload.chunks(piece_len as usize).flat_map(Sha1::digest).collect();
        let mut info = Vec::new();
        let mut writer = Writer::new(&mut info);
        writer.dict().key(b"length").int(len as i64).key(b"name").bytes(name.as_bytes());
        writer.key(b"piece length").int(i64::from(piece_len)).key(b"pieces").bytes(&pieces);
        if padding > 0 {
            writer.key(b"x-padding").bytes(&vec![b'x'; padding]);
        }
        writer.end();
        Self { payload, name, piece_len, ..Self::of_info(info) }
    }

    /// An info dictionary as it is, without data: for metadata that no client should act upon.
    pub fn of_info(info: Vec<u8>) -> Self {
        let infohash = Sha1::digest(&info).into();
        Self { name: String::new(), payload: Vec::new(), piece_len: 1, info, infohash }
    }

    /// The .torrent file.
    pub fn file(&self) -> Vec<u8> {
        let mut file = Vec::new();
        Writer::new(&mut file).dict().key(b"info").raw(&self.info).end();
        file
    }

    /// A magnet link that names `peers` (`x.pe`).
    pub fn magnet(&self, peers: &[SocketAddr]) -> String {
        let mut magnet = format!("magnet:?xt=urn:btih:{}", data_encoding::HEXLOWER.encode(&self.infohash));
        for peer in peers {
            magnet += &format!("&x.pe={peer}");
        }
        magnet
    }

    /// SHA-256 of the payload.
    pub fn sha256(&self) -> [u8; 32] {
        Sha256::digest(&self.payload).into()
    }

    /// Number of pieces.
    pub fn pieces(&self) -> u32 {
        self.payload.len().div_ceil(self.piece_len as usize) as u32
    }

    /// Every bit that stands for a piece is set.
    pub fn full_bitfield(&self) -> Vec<u8> {
        let pieces = self.pieces() as usize;
        let mut bits = vec![0xff; pieces.div_ceil(8)];
        if let (Some(last), spare @ 1..) = (bits.last_mut(), bits_spare(pieces)) {
            *last <<= spare;
        }
        bits
    }

    /// No bit is set.
    pub fn empty_bitfield(&self) -> Vec<u8> {
        vec![0; (self.pieces() as usize).div_ceil(8)]
    }

    /// The bytes of a block if it lies inside its piece.
    pub fn block(&self, index: u32, begin: u32, len: u32) -> Option<&[u8]> {
        let start = index as usize * self.piece_len as usize;
        let piece = self.payload.get(start..)?;
        let piece = &piece[..piece.len().min(self.piece_len as usize)];
        piece.get(begin as usize..)?.get(..len as usize)
    }

    /// A metadata piece (BEP 9): 16 KiB, the last one shorter.
    pub fn metadata_piece(&self, piece: usize) -> Option<&[u8]> {
        self.info.chunks(16_384).nth(piece)
    }
}

/// Bits of the last byte of a bitfield that stand for no piece.
pub(super) fn bits_spare(pieces: usize) -> usize {
    (8 - pieces % 8) % 8
}
