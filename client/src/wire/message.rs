//! Messages of the peer protocol as borrowed values (BEP 3, BEP 5 PORT, BEP 6, BEP 10).

use super::WireError;
use crate::piece::{BLOCK_LEN, BlockRef, PieceIndex};

/// Largest payload of an extension message (P8).
pub const MAX_EXTENSION: u32 = 128 << 10;
/// Largest bitfield: 2^21 pieces.
pub const MAX_BITFIELD: u32 = 1 << 18;
/// Bytes of a `piece` message before its payload: length, id, index, begin.
pub const PIECE_HEADER: usize = 13;

/// A block as a stranger names it: nothing was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Piece index.
    pub index: u32,
    /// Offset in the piece.
    pub begin: u32,
    /// Bytes.
    pub len: u32,
}

impl Span {
    /// The same without the promise that it was checked.
    pub fn of(block: BlockRef) -> Self {
        Self { index: block.piece.0, begin: block.begin, len: block.len }
    }

    /// The block that this names; the caller checks that the torrent has it.
    pub fn to_block(self) -> BlockRef {
        BlockRef { piece: PieceIndex(self.index), begin: self.begin, len: self.len }
    }
}

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Nothing; keeps the connection open.
    KeepAlive,
    /// The sender will not answer requests.
    Choke,
    /// The sender will answer requests.
    Unchoke,
    /// The sender wants something.
    Interested,
    /// The sender wants nothing.
    NotInterested,
    /// The sender has a further piece.
    Have(u32),
    /// The pieces that the sender has, as they came.
    Bitfield(&'a [u8]),
    /// Asks for a block.
    Request(Span),
    /// Carries a block. A [`reader`](super::reader) hands these out in parts instead.
    Piece {
        /// Piece index.
        index: u32,
        /// Offset in the piece.
        begin: u32,
        /// Payload.
        bytes: &'a [u8],
    },
    /// Takes a request back.
    Cancel(Span),
    /// The UDP port of the sender's DHT node (BEP 5).
    Port(u16),
    /// Advises to take a piece (BEP 6).
    Suggest(u32),
    /// The sender has everything (BEP 6).
    HaveAll,
    /// The sender has nothing (BEP 6).
    HaveNone,
    /// Refuses a request (BEP 6).
    Reject(Span),
    /// Allows requests for a piece while choked (BEP 6).
    AllowedFast(u32),
    /// An extension message (BEP 10).
    Extended {
        /// Whose: 0 is the extension handshake.
        id: u8,
        /// Bencode, and what follows it.
        payload: &'a [u8],
    },
    /// A message that we do not know.
    Unknown(u8),
}

/// Checks the length of a message, prefix excluded, by its id, before anything is stored.
pub fn check_len(id: u8, len: u32) -> Result<(), WireError> {
    let exact = match id {
        0..=3 | 14 | 15 => 1,
        4 | 13 | 17 => 5,
        6 | 8 | 16 => 13,
        9 => 3,
        5 if len <= 1 + MAX_BITFIELD => return Ok(()),
        7 if len < 10 => return Err(WireError::BadLength), // a block has at least one byte
        7 if len <= 9 + BLOCK_LEN => return Ok(()),        // we ask for no larger ones
        20 if len < 2 => return Err(WireError::BadLength),
        20 if len <= 2 + MAX_EXTENSION => return Ok(()),
        5 | 7 | 20 => return Err(WireError::Oversize),
        _ if len > 1 + MAX_EXTENSION => return Err(WireError::Oversize),
        _ => return Ok(()),
    };
    if len == exact { Ok(()) } else { Err(WireError::BadLength) }
}

impl<'a> Message<'a> {
    /// Reads a message without its length prefix; [`check_len`] was asked before.
    pub fn decode(body: &'a [u8]) -> Result<Self, WireError> {
        let Some((&id, rest)) = body.split_first() else {
            return Ok(Self::KeepAlive);
        };
        check_len(id, u32::try_from(body.len()).unwrap_or(u32::MAX))?;
        let short = WireError::BadLength;
        let message = match id {
            0 => Self::Choke,
            1 => Self::Unchoke,
            2 => Self::Interested,
            3 => Self::NotInterested,
            4 => Self::Have(number(rest).ok_or(short)?.0),
            5 => Self::Bitfield(rest),
            6 => Self::Request(span(rest).ok_or(short)?),
            7 => {
                let (index, rest) = number(rest).ok_or(short)?;
                let (begin, bytes) = number(rest).ok_or(short)?;
                Self::Piece { index, begin, bytes }
            }
            8 => Self::Cancel(span(rest).ok_or(short)?),
            9 => Self::Port(u16::from_be_bytes(*rest.first_chunk().ok_or(short)?)),
            13 => Self::Suggest(number(rest).ok_or(short)?.0),
            14 => Self::HaveAll,
            15 => Self::HaveNone,
            16 => Self::Reject(span(rest).ok_or(short)?),
            17 => Self::AllowedFast(number(rest).ok_or(short)?.0),
            20 => {
                let (&id, payload) = rest.split_first().ok_or(short)?;
                Self::Extended { id, payload }
            }
            id => Self::Unknown(id),
        };
        Ok(message)
    }

    /// Appends the message with its length prefix. [`Message::Unknown`] is written without a payload.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut put = |id: u8, parts: &[&[u8]]| {
            let len: usize = parts.iter().map(|part| part.len()).sum();
            put_header(out, id, len);
            parts.iter().for_each(|part| out.extend_from_slice(part));
        };
        match *self {
            Self::KeepAlive => out.extend_from_slice(&[0; 4]),
            Self::Choke => put(0, &[]),
            Self::Unchoke => put(1, &[]),
            Self::Interested => put(2, &[]),
            Self::NotInterested => put(3, &[]),
            Self::Have(index) => put(4, &[&index.to_be_bytes()]),
            Self::Bitfield(bits) => put(5, &[bits]),
            Self::Request(span) => put(6, &[&span_bytes(span)]),
            Self::Piece { index, begin, bytes } => {
                put(7, &[&index.to_be_bytes(), &begin.to_be_bytes(), bytes]);
            }
            Self::Cancel(span) => put(8, &[&span_bytes(span)]),
            Self::Port(port) => put(9, &[&port.to_be_bytes()]),
            Self::Suggest(index) => put(13, &[&index.to_be_bytes()]),
            Self::HaveAll => put(14, &[]),
            Self::HaveNone => put(15, &[]),
            Self::Reject(span) => put(16, &[&span_bytes(span)]),
            Self::AllowedFast(index) => put(17, &[&index.to_be_bytes()]),
            Self::Extended { id, payload } => put(20, &[&[id], payload]),
            Self::Unknown(id) => put(id, &[]),
        }
    }
}

/// Appends what stands before the payload of a `piece` message, so that the payload itself need not
/// be copied.
pub fn put_piece_header(out: &mut Vec<u8>, block: BlockRef) {
    put_header(out, 7, 8 + block.len as usize);
    out.extend_from_slice(&block.piece.0.to_be_bytes());
    out.extend_from_slice(&block.begin.to_be_bytes());
}

/// Appends length and id of a message with `len` bytes behind the id.
fn put_header(out: &mut Vec<u8>, id: u8, len: usize) {
    let len = u32::try_from(1 + len).expect("our messages are short");
    out.extend_from_slice(&len.to_be_bytes());
    out.push(id);
}

/// Takes a big-endian number from the front.
fn number(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u32::from_be_bytes(*number), rest))
}

fn span(bytes: &[u8]) -> Option<Span> {
    let (index, rest) = number(bytes)?;
    let (begin, rest) = number(rest)?;
    let (len, _) = number(rest)?;
    Some(Span { index, begin, len })
}

fn span_bytes(span: Span) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&span.index.to_be_bytes());
    bytes[4..8].copy_from_slice(&span.begin.to_be_bytes());
    bytes[8..].copy_from_slice(&span.len.to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages_look_as_bep_3_and_6_print_them() {
        let span = Span { index: 1, begin: 0x4000, len: 0x4000 };
        for (message, bytes) in [
            (Message::KeepAlive, &b"\0\0\0\0"[..]),
            (Message::Unchoke, b"\0\0\0\x01\x01"),
            (Message::Have(258), b"\0\0\0\x05\x04\0\0\x01\x02"),
            (Message::Bitfield(&[0x80]), b"\0\0\0\x02\x05\x80"),
            (Message::Request(span), b"\0\0\0\x0d\x06\0\0\0\x01\0\0\x40\0\0\0\x40\0"),
            (Message::Port(6881), b"\0\0\0\x03\x09\x1a\xe1"),
            (Message::HaveAll, b"\0\0\0\x01\x0e"),
            (Message::HaveNone, b"\0\0\0\x01\x0f"),
            (Message::Reject(span), b"\0\0\0\x0d\x10\0\0\0\x01\0\0\x40\0\0\0\x40\0"),
            (Message::Extended { id: 0, payload: b"de" }, b"\0\0\0\x04\x14\0de"),
        ] {
            let mut out = Vec::new();
            message.encode(&mut out);
            assert_eq!(out, bytes);
            assert_eq!(Message::decode(&bytes[4..]), Ok(message));
        }
    }

    #[test]
    fn a_piece_header_and_its_payload_make_a_piece_message() {
        let block = BlockRef { piece: PieceIndex(3), begin: 16, len: 2 };
        let mut out = Vec::new();
        put_piece_header(&mut out, block);
        assert_eq!(out.len(), PIECE_HEADER);
        out.extend_from_slice(b"xy");
        let mut whole = Vec::new();
        Message::Piece { index: 3, begin: 16, bytes: b"xy" }.encode(&mut whole);
        assert_eq!(out, whole);
    }

    #[test]
    fn every_id_has_its_length() {
        use WireError::{BadLength, Oversize};
        for (id, len, expected) in [
            (0, 1, Ok(())),
            (0, 2, Err(BadLength)),
            (4, 4, Err(BadLength)),
            (5, 1, Ok(())),
            (5, 1 + MAX_BITFIELD, Ok(())),
            (5, 2 + MAX_BITFIELD, Err(Oversize)),
            (6, 14, Err(BadLength)),
            (7, 9, Err(BadLength)),
            (7, 9 + BLOCK_LEN, Ok(())),
            (7, 10 + BLOCK_LEN, Err(Oversize)),
            (9, 5, Err(BadLength)),
            (20, 1, Err(BadLength)),
            (20, 2 + MAX_EXTENSION, Ok(())),
            (20, 3 + MAX_EXTENSION, Err(Oversize)),
            (21, 49, Ok(())),
            (255, u32::MAX, Err(Oversize)),
        ] {
            assert_eq!(check_len(id, len), expected, "id {id}, {len} bytes");
        }
    }

    fn spans() -> impl Strategy<Value = Span> {
        (any::<u32>(), any::<u32>(), any::<u32>()).prop_map(|(index, begin, len)| Span { index, begin, len })
    }

    proptest! {
        #[test]
        fn messages_survive_a_round_trip(
            span in spans(),
            index: u32,
            port: u16,
            bytes in proptest::collection::vec(any::<u8>(), 1..2000),
            id: u8,
        ) {
            let payload = &bytes[..];
            for message in [
                Message::KeepAlive, Message::Choke, Message::Unchoke, Message::Interested,
                Message::NotInterested, Message::Have(index), Message::Bitfield(payload),
                Message::Request(span), Message::Piece { index, begin: span.begin, bytes: payload },
                Message::Cancel(span), Message::Port(port), Message::Suggest(index), Message::HaveAll,
                Message::HaveNone, Message::Reject(span), Message::AllowedFast(index),
                Message::Extended { id, payload },
            ] {
                let mut out = Vec::new();
                message.encode(&mut out);
                prop_assert_eq!(u32::from_be_bytes(*out.first_chunk().unwrap()) as usize, out.len() - 4);
                prop_assert_eq!(Message::decode(&out[4..]), Ok(message));
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(body in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(message) = Message::decode(&body) {
                let mut out = Vec::new();
                message.encode(&mut out);
                if !matches!(message, Message::Unknown(_)) {
                    prop_assert_eq!(&out[4..], &body[..]);
                }
            }
        }
    }
}
