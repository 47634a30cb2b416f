//! Misbehaviour with the info dictionary (BEP 9) towards a client that lacks it.

use std::io;
use std::sync::Arc;

use super::link::{EXTENSION_BIT, Link, OUR_UT_METADATA};
use super::mode::modes;

modes! {
    /// The info dictionary, for a client that lacks it.
    Metadata {
        /// `metadata_size` 0 (S30).
        SizeZero,
        /// `metadata_size` -1 (S30).
        SizeNegative,
        /// `metadata_size` 2^30 (S30).
        SizeGibibyte,
        /// `metadata_size` 2^31 - 1 (S30).
        SizeInt32,
        /// `metadata_size` 2^63 - 1 (S30).
        SizeInt64,
        /// `metadata_size` 10^20, which no integer type holds (S30).
        SizeBeyond64,
        /// `metadata_size` is a string (S30).
        SizeString,
        /// `metadata_size` of 64 MiB, and zeros for all of it.
        SizeLargest,
        /// No `metadata_size`, but answers.
        SizeMissing,
        /// Another `metadata_size` in every second extension handshake.
        SizeFlaps,
        /// Wrong data of the right size (S31).
        Garbage,
        /// One wrong byte (S31).
        OneWrongByte,
        /// Wrong data of a smaller size that is consistent with itself.
        SmallerGarbage,
        /// Another `total_size` in the data messages.
        OtherTotalSize,
        /// Data messages nobody asked for.
        Unasked,
        /// Answers with another piece's index.
        WrongIndex,
        /// Pieces that are too short.
        ShortPiece,
        /// Pieces that are too long.
        LongPiece,
        /// A header of nested lists.
        DeepHeader,
        /// Refuses every request.
        RejectAll,
        /// Never answers.
        Silent,
        /// Answers one piece and closes.
        CloseAfterOne,
        /// Agrees on the id 0 for `ut_metadata`.
        IdZero,
        /// Haves, a bitfield and unchokes for a torrent of 2^21 pieces before the size is known.
        HugeBitfieldFirst,
        /// 200,000 haves before the number of pieces is known.
        HaveFloodFirst,
    }
}

impl Metadata {
    pub(super) fn misbehave(self, mut link: Link) -> io::Result<()> {
        link.greet(EXTENSION_BIT)?;
        let size = link.torrent.info.len();
        match self {
            Self::HugeBitfieldFirst => {
                link.send(super::link::BITFIELD, &vec![0xff; 1 << 18])?;
                link.send(super::link::UNCHOKE, b"")?;
                return link.hold();
            }
            Self::HaveFloodFirst => {
                return link.flood(200_000, |n, out| {
                    out.extend(super::link::message(super::link::HAVE, &(n * 7).to_be_bytes()));
                });
            }
            _ => {}
        }
        self.announce(&mut link, size)?;
        loop {
            let message = link.next()?;
            let messages = link.seen.messages.total() as usize;
            if self == Self::SizeFlaps && messages.is_multiple_of(2) {
                self.announce(&mut link, size + messages)?;
            }
            if self == Self::Unasked && link.ut_metadata != 0 {
                for piece in 0..64 {
                    self.data(&mut link, piece, size, &[0; 16_384])?;
                }
            }
            if let Some(piece) = message.wanted_metadata() {
                self.answer(&mut link, piece, size)?;
            }
        }
    }

    fn announce(self, link: &mut Link, size: usize) -> io::Result<()> {
        let size = match self {
            Self::SizeZero => "i0e".to_owned(),
            Self::SizeNegative => "i-1e".to_owned(),
            Self::SizeGibibyte => "i1073741824e".to_owned(),
            Self::SizeInt32 => "i2147483647e".to_owned(),
            Self::SizeInt64 => "i9223372036854775807e".to_owned(),
            Self::SizeBeyond64 => "i100000000000000000000e".to_owned(),
            Self::SizeString => "4:1000".to_owned(),
            Self::SizeLargest => format!("i{}e", 64 << 20),
            Self::SmallerGarbage => "i200e".to_owned(),
            _ => format!("i{size}e"),
        };
        let id = if self == Self::IdZero { 0 } else { OUR_UT_METADATA };
        let handshake = match self {
            Self::SizeMissing => format!("d1:md11:ut_metadatai{id}eee"),
            _ => format!("d1:md11:ut_metadatai{id}ee13:metadata_size{size}e"),
        };
        link.send_extended(0, handshake.as_bytes())
    }

    fn answer(self, link: &mut Link, piece: usize, size: usize) -> io::Result<()> {
        let torrent = Arc::clone(&link.torrent);
        let right = torrent.metadata_piece(piece).unwrap_or_default();
        match self {
            Self::Garbage => self.data(link, piece, size, &vec![b'g'; right.len()]),
            Self::OneWrongByte => {
                let mut wrong = right.to_vec();
                if let Some(last) = wrong.last_mut() {
                    *last ^= 1;
                }
                self.data(link, piece, size, &wrong)
            }
            Self::SmallerGarbage => self.data(link, piece, 200, &[b'g'; 200]),
            Self::SizeLargest => self.data(link, piece, 64 << 20, &[0; 16_384]),
            Self::SizeGibibyte | Self::SizeInt32 | Self::SizeInt64 | Self::SizeBeyond64 => {
                self.data(link, piece, 1 << 30, &[0; 16_384])
            }
            Self::OtherTotalSize => self.data(link, piece, size + 1, right),
            Self::WrongIndex => self.data(link, piece + 1, size, right),
            Self::ShortPiece => self.data(link, piece, size, &right[..right.len() / 2]),
            Self::LongPiece => self.data(link, piece, size, &[right, b"!"].concat()),
            Self::DeepHeader => {
                let header = [b"l".repeat(30_000), b"e".repeat(30_000)].concat();
                link.send_extended(link.ut_metadata, &header)
            }
            Self::RejectAll => {
                let reject = format!("d8:msg_typei2e5:piecei{piece}ee");
                link.send_extended(link.ut_metadata, reject.as_bytes())
            }
            Self::Silent | Self::Unasked => Ok(()),
            Self::CloseAfterOne => {
                self.data(link, piece, size, right)?;
                Err(io::ErrorKind::ConnectionAborted.into())
            }
            _ => self.data(link, piece, size, right),
        }
    }

    /// A data message with this `total_size`.
    fn data(self, link: &mut Link, piece: usize, total: usize, bytes: &[u8]) -> io::Result<()> {
        let head = format!("d8:msg_typei1e5:piecei{piece}e10:total_sizei{total}ee");
        link.send_extended(link.ut_metadata, &[head.as_bytes(), bytes].concat())
    }
}
