//! Messages of the metadata extension (BEP 9): a dictionary, and behind it the piece of `data`.

use krpc::bencode::{Limits, Reader, Writer};

use super::extension::MAX_METADATA;

/// Bytes of every piece of an info dictionary but the last (BEP 9).
pub const PIECE_LEN: u32 = 1 << 14;

/// A message, its payload borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metadata<'a> {
    /// Asks for a piece.
    Request {
        /// Its index.
        piece: u32,
    },
    /// Carries a piece.
    Data {
        /// Its index.
        piece: u32,
        /// Size of the info dictionary, 1 to [`MAX_METADATA`].
        total_size: u32,
        /// As many bytes as this piece of such a dictionary has.
        bytes: &'a [u8],
    },
    /// Refuses a request.
    Reject {
        /// Its index.
        piece: u32,
    },
    /// A type that we do not know; to be ignored, as BEP 9 asks.
    Unknown,
}

impl<'a> Metadata<'a> {
    /// Reads a message; `None` when it is malformed: a piece that no info dictionary has, a
    /// `total_size` out of bounds, or a payload of another length than they imply.
    pub fn decode(payload: &'a [u8]) -> Option<Self> {
        // The dictionary has three small fields; the limits are for what else a stranger puts there.
        let mut reader = Reader::new(payload, Limits { tokens: 64, ..Limits::EXTENSION });
        let (mut msg_type, mut piece, mut total_size) = (None, None, None);
        reader.expect_dict().ok()?;
        while let Some(key) = reader.key().ok()? {
            let field = match key {
                b"msg_type" => &mut msg_type,
                b"piece" => &mut piece,
                b"total_size" => &mut total_size,
                _ => {
                    reader.skip().ok()?;
                    continue;
                }
            };
            *field = reader.int_or_skip().ok()?;
        }
        let bytes = payload.get(reader.position()..)?;
        let index = u32::try_from(piece?).ok().filter(|&index| index < MAX_METADATA / PIECE_LEN)?;
        match msg_type? {
            0 => Some(Self::Request { piece: index }),
            1 => {
                let total_size = u32::try_from(total_size?).ok().filter(|&size| size <= MAX_METADATA)?;
                let expected = piece_len(index, total_size);
                (expected > 0 && bytes.len() == expected as usize).then_some(Self::Data {
                    piece: index,
                    total_size,
                    bytes,
                })
            }
            2 => Some(Self::Reject { piece: index }),
            _ => Some(Self::Unknown),
        }
    }

    /// Appends the message. [`Metadata::Unknown`] is nothing that we say.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut put = |msg_type, piece: u32, total_size: Option<u32>| {
            let mut writer = Writer::new(out);
            writer.dict().key(b"msg_type").int(msg_type).key(b"piece").int(i64::from(piece));
            if let Some(size) = total_size {
                writer.key(b"total_size").int(i64::from(size));
            }
            writer.end();
        };
        match *self {
            Self::Request { piece } => put(0, piece, None),
            Self::Data { piece, total_size, bytes } => {
                put(1, piece, Some(total_size));
                out.extend_from_slice(bytes);
            }
            Self::Reject { piece } => put(2, piece, None),
            Self::Unknown => {}
        }
    }
}

/// Bytes of piece `index` of an info dictionary of `total_size` bytes; 0 if it has no such piece.
pub fn piece_len(index: u32, total_size: u32) -> u32 {
    let begin = index.saturating_mul(PIECE_LEN);
    total_size.saturating_sub(begin).min(PIECE_LEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_bep_9_are_read_and_written() {
        let data = [&b"d8:msg_typei1e5:piecei0e10:total_sizei16384ee"[..], &[b'x'; 16384]].concat();
        for (bytes, message) in [
            (&b"d8:msg_typei0e5:piecei0ee"[..], Metadata::Request { piece: 0 }),
            (&data, Metadata::Data { piece: 0, total_size: 16384, bytes: &[b'x'; 16384] }),
            (b"d8:msg_typei2e5:piecei0ee", Metadata::Reject { piece: 0 }),
        ] {
            assert_eq!(Metadata::decode(bytes), Some(message));
            let mut out = Vec::new();
            message.encode(&mut out);
            assert_eq!(out, bytes);
        }
        assert_eq!(Metadata::decode(b"d8:msg_typei77e5:piecei0ee"), Some(Metadata::Unknown));
    }

    #[test]
    fn the_last_piece_has_the_rest() {
        assert_eq!(piece_len(0, 34_256), PIECE_LEN);
        assert_eq!(piece_len(2, 34_256), 34_256 - 2 * PIECE_LEN);
        assert_eq!((piece_len(3, 34_256), piece_len(u32::MAX, u32::MAX)), (0, 0));
        let last = [&b"d8:msg_typei1e5:piecei1e10:total_sizei16386ee"[..], b"ab"].concat();
        assert!(matches!(Metadata::decode(&last), Some(Metadata::Data { piece: 1, bytes: b"ab", .. })));
    }

    #[test]
    fn data_that_contradicts_itself_is_refused() {
        for bytes in [
            &b"d8:msg_typei1e5:piecei0e10:total_sizei3eeab"[..],
            b"d8:msg_typei1e5:piecei0e10:total_sizei3eeabcd",
            b"d8:msg_typei1e5:piecei1e10:total_sizei3eeabc",
            b"d8:msg_typei1e5:piecei0e10:total_sizei0ee",
            b"d8:msg_typei1e5:piecei0e10:total_sizei-1eea",
            b"d8:msg_typei1e5:piecei0e10:total_sizei9223372036854775807eea",
            b"d8:msg_typei1e5:piecei0eea",
            b"d8:msg_typei0e5:piecei-1ee",
            b"d8:msg_typei0e5:piecei4096ee",
            b"d8:msg_typei0ee",
            b"d5:piecei0ee",
            b"d8:msg_typei0e5:piecei0e",
            b"i0e",
            b"",
        ] {
            assert_eq!(Metadata::decode(bytes), None, "{}", bytes.escape_ascii());
        }
    }
}
