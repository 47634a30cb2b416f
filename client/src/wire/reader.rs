//! [`FrameReader`]: cuts a byte stream into messages. The payload of a block goes from the socket
//! straight into its buffer; everything else passes through a scratch buffer.
//!
//! Nothing is allocated by a stranger's number: a length is checked by message id before a byte of
//! the body is stored ([`check_len`]), and the scratch buffer grows only with what has arrived.

use std::io::IoSliceMut;

use super::WireError;
use super::handshake;
use super::message::{MAX_BITFIELD, Message, PIECE_HEADER, Span, check_len};
use crate::piece::Block;

/// Bytes of the scratch buffer: the rest of one block and this much are received by one call. Only
/// what lands here is copied again. Larger messages make it grow while they arrive.
pub const SCRATCH: usize = 16 << 10;
/// No message of any id is longer.
const MAX_LEN: u32 = 1 + MAX_BITFIELD;

/// What the stream holds next.
#[derive(Debug)]
pub enum Step<'a> {
    /// Nothing whole; more bytes are needed.
    Wait,
    /// A message, except `piece`.
    Message(Message<'a>),
    /// A `piece` message begins. Its payload is thrown away unless [`FrameReader::receive_into`] is
    /// called before the next step.
    PieceBegins(Span),
    /// The payload of a `piece` message is complete.
    Block(Span, Block),
}

/// The state of one stream.
#[derive(Debug, Default)]
pub struct FrameReader {
    scratch: Vec<u8>,
    /// Unread bytes: `scratch[start..end]`.
    start: usize,
    end: usize,
    payload: Payload,
}

/// The payload of the `piece` message that is being received.
#[derive(Debug, Default)]
enum Payload {
    #[default]
    None,
    /// `filled` bytes of the block are there.
    Into { span: Span, block: Block, filled: usize },
    /// So many bytes are still to be thrown away.
    Discard(Span, usize),
}

impl FrameReader {
    /// A reader whose stream begins with `bytes`.
    pub fn starting_with(bytes: &[u8]) -> Self {
        let mut scratch = bytes.to_vec();
        scratch.resize(SCRATCH.max(bytes.len()), 0);
        Self { scratch, start: 0, end: bytes.len(), payload: Payload::None }
    }

    /// Where the next bytes belong: the rest of the current block, then the scratch buffer. The second
    /// one is never empty. Call [`FrameReader::advance`] with the number of bytes received, then
    /// [`FrameReader::step`] until it says [`Step::Wait`].
    pub fn space(&mut self) -> [IoSliceMut<'_>; 2] {
        self.make_room();
        let rest = match &mut self.payload {
            Payload::Into { block, filled, .. } => {
                block.as_mut_slice().get_mut(*filled..).unwrap_or_default()
            }
            _ => &mut [],
        };
        let free = self.scratch.get_mut(self.end..).unwrap_or_default();
        [IoSliceMut::new(rest), IoSliceMut::new(free)]
    }

    /// `n` bytes were put into [`FrameReader::space`].
    pub fn advance(&mut self, n: usize) {
        let mut in_scratch = n;
        if let Payload::Into { block, filled, .. } = &mut self.payload {
            let in_block = n.min(block.len() - *filled);
            *filled += in_block;
            in_scratch -= in_block;
        }
        self.end = (self.end + in_scratch).min(self.scratch.len());
    }

    /// Takes a handshake off the front, once it is there.
    pub fn take_handshake(&mut self) -> Option<[u8; handshake::LEN]> {
        let bytes = *self.unread().first_chunk()?;
        self.start += handshake::LEN;
        Some(bytes)
    }

    /// The next part of the stream.
    ///
    /// # Errors
    /// After an error the stream cannot be read on.
    pub fn step(&mut self) -> Result<Step<'_>, WireError> {
        if let Some(done) = self.fill() {
            return Ok(done);
        }
        let Some((len, rest)) = self.unread().split_first_chunk() else {
            return Ok(Step::Wait);
        };
        let len = u32::from_be_bytes(*len);
        if len > MAX_LEN {
            return Err(WireError::Oversize);
        }
        let Some(&id) = rest.first().filter(|_| len > 0) else {
            if len == 0 {
                self.start += 4;
                return Ok(Step::Message(Message::KeepAlive));
            }
            return Ok(Step::Wait);
        };
        check_len(id, len)?;
        if id == 7 {
            return Ok(self.begin_piece(len));
        }
        let whole = 4 + len as usize;
        if self.end - self.start < whole {
            return Ok(Step::Wait);
        }
        let body = self.start + 4..self.start + whole;
        self.start += whole;
        Message::decode(self.scratch.get(body).unwrap_or_default()).map(Step::Message)
    }

    /// Receives the payload of the `piece` message that has just begun into `block`, which must have
    /// its length; otherwise the payload is thrown away.
    pub fn receive_into(&mut self, block: Block) {
        if let Payload::Discard(span, left) = self.payload
            && left == block.len()
        {
            self.payload = Payload::Into { span, block, filled: 0 };
        }
    }

    /// Bytes that were received and not read yet.
    pub fn unread(&self) -> &[u8] {
        self.scratch.get(self.start..self.end).unwrap_or_default()
    }

    fn begin_piece(&mut self, len: u32) -> Step<'_> {
        let Some(header) = self.unread().first_chunk::<PIECE_HEADER>() else {
            return Step::Wait;
        };
        let [_, _, _, _, _, i0, i1, i2, i3, b0, b1, b2, b3] = *header;
        let span = Span {
            index: u32::from_be_bytes([i0, i1, i2, i3]),
            begin: u32::from_be_bytes([b0, b1, b2, b3]),
            len: len - 9,
        };
        self.start += PIECE_HEADER;
        self.payload = Payload::Discard(span, span.len as usize);
        Step::PieceBegins(span)
    }

    /// Moves what the scratch buffer holds of a payload to its place; gives the block out when it is
    /// complete, and waits while it is not.
    fn fill(&mut self) -> Option<Step<'static>> {
        match std::mem::take(&mut self.payload) {
            Payload::None => None,
            Payload::Discard(span, left) => {
                let here = left.min(self.end - self.start);
                self.start += here;
                if here < left {
                    self.payload = Payload::Discard(span, left - here);
                    return Some(Step::Wait);
                }
                None
            }
            Payload::Into { span, mut block, mut filled } => {
                let rest = block.as_mut_slice().get_mut(filled..).unwrap_or_default();
                let unread = self.scratch.get(self.start..self.end).unwrap_or_default();
                let here = rest.len().min(unread.len());
                if let (Some(to), Some(from)) = (rest.get_mut(..here), unread.get(..here)) {
                    to.copy_from_slice(from);
                }
                self.start += here;
                filled += here;
                if filled < block.len() {
                    self.payload = Payload::Into { span, block, filled };
                    return Some(Step::Wait);
                }
                Some(Step::Block(span, block))
            }
        }
    }

    /// Moves unread bytes to the front, and grows a buffer that they fill: by as much again as has
    /// arrived, never by what was announced.
    fn make_room(&mut self) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.scratch.len() != SCRATCH {
                self.scratch.resize(SCRATCH, 0);
                self.scratch.shrink_to_fit();
            }
        } else if self.start > 0 {
            self.scratch.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == self.scratch.len() {
            let doubled = (2 * self.end).clamp(SCRATCH, 4 + MAX_LEN as usize);
            self.scratch.resize(doubled.max(self.end + 1), 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Gives the reader all of `stream`, at most `chunk(i)` bytes at a time, as a socket would; blocks
    /// are received in place. Says what came out, and how many payload bytes were received in place.
    fn feed(stream: &[u8], mut chunk: impl FnMut() -> usize) -> Result<(Vec<Vec<u8>>, usize), WireError> {
        let (mut reader, mut rest, mut out, mut in_place) = (FrameReader::default(), stream, Vec::new(), 0);
        while !rest.is_empty() {
            let mut n = 0;
            let most = chunk();
            let [mut first, mut second] = reader.space();
            assert!(!second.is_empty());
            for (index, space) in [&mut first, &mut second].into_iter().enumerate() {
                let here = space.len().min(most - n).min(rest.len());
                space[..here].copy_from_slice(&rest[..here]);
                rest = &rest[here..];
                n += here;
                in_place += if index == 0 { here } else { 0 };
            }
            reader.advance(n);
            loop {
                match reader.step()? {
                    Step::Wait => break,
                    Step::PieceBegins(span) => reader.receive_into(Block::zeroed(span.len as usize)),
                    Step::Block(Span { index, begin, .. }, block) => {
                        let mut bytes = Vec::new();
                        Message::Piece { index, begin, bytes: &block }.encode(&mut bytes);
                        out.push(bytes);
                    }
                    Step::Message(message) => {
                        let mut bytes = Vec::new();
                        message.encode(&mut bytes);
                        out.push(bytes);
                    }
                }
            }
        }
        Ok((out, in_place))
    }

    fn encoded(message: Message<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        message.encode(&mut out);
        out
    }

    #[test]
    fn a_stream_comes_out_whole_however_it_is_split() {
        let payload: Vec<u8> = (0..16_384_u32).map(|i| (i % 251) as u8).collect();
        let big = vec![0xa5; 200_000];
        let messages = [
            encoded(Message::Bitfield(&big)),
            encoded(Message::KeepAlive),
            encoded(Message::Piece { index: 1, begin: 2, bytes: &payload }),
            encoded(Message::Piece { index: 1, begin: 3, bytes: b"x" }),
            encoded(Message::Extended { id: 3, payload: &big[..100_000] }),
            encoded(Message::Unchoke),
            encoded(Message::Piece { index: 7, begin: 0, bytes: &payload }),
            encoded(Message::HaveAll),
        ];
        let stream = messages.concat();
        for most in [1, 2, 3, 5, 13, 100, 16_397, 1 << 20] {
            let (out, in_place) = feed(&stream, || most).unwrap();
            assert_eq!(out, messages, "split every {most}");
            assert!(most > 100 || in_place > 32_000, "{in_place} bytes in place");
        }
    }

    proptest! {
        #[test]
        fn random_splits_change_nothing(
            lens in proptest::collection::vec(1_usize..20_000, 1..8),
            splits in proptest::collection::vec(1_usize..9000, 1..30),
        ) {
            let messages: Vec<_> = lens.iter().enumerate().map(|(i, &len)| {
                let bytes = vec![i as u8; len.min(16_384)];
                match i % 3 {
                    0 => encoded(Message::Piece { index: i as u32, begin: 0, bytes: &bytes }),
                    1 => encoded(Message::Have(len as u32)),
                    _ => encoded(Message::Extended { id: 1, payload: &bytes }),
                }
            }).collect();
            let mut splits = splits.into_iter().cycle();
            let (out, _) = feed(&messages.concat(), || splits.next().unwrap()).unwrap();
            prop_assert_eq!(out, messages);
        }
    }

    #[test]
    fn payload_that_nobody_wants_is_skipped_without_a_buffer() {
        let stream =
            [encoded(Message::Piece { index: 0, begin: 0, bytes: &[1; 16_384] }), encoded(Message::Choke)]
                .concat();
        let mut reader = FrameReader::default();
        let (mut rest, mut seen) = (&stream[..], Vec::new());
        while !rest.is_empty() {
            let [first, mut second] = reader.space();
            assert!(first.is_empty());
            let n = second.len().min(rest.len()).min(1000);
            second[..n].copy_from_slice(&rest[..n]);
            rest = &rest[n..];
            reader.advance(n);
            loop {
                match reader.step().unwrap() {
                    Step::Wait => break,
                    step => seen.push(format!("{step:?}")),
                }
            }
        }
        assert_eq!(seen.len(), 2, "{seen:?}");
        assert_eq!(seen[1], "Message(Choke)");
        assert_eq!(reader.scratch.len(), SCRATCH);
    }

    #[test]
    fn announced_lengths_allocate_nothing() {
        let mut reader = FrameReader::starting_with(&(1 + MAX_BITFIELD).to_be_bytes());
        assert!(matches!(reader.step(), Ok(Step::Wait)));
        reader.space();
        assert_eq!(reader.scratch.len(), SCRATCH);
    }

    #[test]
    fn lengths_are_refused_before_the_body_comes() {
        for (bytes, error) in [
            (&b"\xff\xff\xff\xff"[..], WireError::Oversize),
            (b"\0\x04\0\x02", WireError::Oversize),
            (b"\0\x03\0\0\x07", WireError::Oversize),
            (b"\0\x03\0\0\x14", WireError::Oversize),
            (b"\0\0\0\x02\0", WireError::BadLength),
            (b"\0\0\0\x09\x07", WireError::BadLength),
        ] {
            assert_eq!(
                FrameReader::starting_with(bytes).step().err(),
                Some(error),
                "{}",
                bytes.escape_ascii()
            );
        }
    }
}
