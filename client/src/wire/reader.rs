//! [`FrameReader`]: cuts a byte stream into messages. The payload of a block goes from the socket
//! straight into its buffer, also that of several blocks in one read if it is known which ones are
//! expected; everything else passes through a scratch buffer.
//!
//! Nothing is allocated by a stranger's number: a length is checked by message id before a byte of
//! the body is stored ([`check_len`]), and the scratch buffer grows only with what has arrived.

use std::io::IoSliceMut;

use arrayvec::ArrayVec;

use super::WireError;
use super::ahead::{Ahead, Arrived, MAX_AHEAD};
use super::handshake;
use super::message::{MAX_BITFIELD, Message, PIECE_HEADER, Span, check_len};
use crate::piece::Block;

/// Bytes of the scratch buffer: the rest of one block and this much are received by one call. Only
/// what lands here is copied again. Larger messages make it grow while they arrive.
pub const SCRATCH: usize = 16 << 10;
/// Slices of one read at most: the block that is arriving, expected ones with their headers, and the
/// scratch buffer.
pub const MAX_SPACE: usize = 2 * MAX_AHEAD + 2;
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
    ahead: Ahead,
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
        Self { scratch, end: bytes.len(), ..Self::default() }
    }

    /// Where the next bytes belong, not more than `most` of them: the rest of the current block, then
    /// `expected` blocks, which peers send one behind the other, then the scratch buffer. Call
    /// [`FrameReader::advance`] with the number of bytes received, then [`FrameReader::step`] until it
    /// says [`Step::Wait`].
    ///
    /// Each expected block is as long as its span; of the iterator only what fits is taken.
    pub fn space(
        &mut self,
        expected: impl Iterator<Item = (Span, Block)>,
        most: usize,
    ) -> ArrayVec<IoSliceMut<'_>, MAX_SPACE> {
        self.make_room();
        // Behind bytes that were not read yet no block begins.
        let next_begins = !matches!(self.payload, Payload::Discard(..)) && self.start == self.end;
        let rest = match &mut self.payload {
            Payload::Into { block, filled, .. } => {
                block.as_mut_slice().get_mut(*filled..).unwrap_or_default()
            }
            _ => &mut [],
        };
        match next_begins && self.ahead.is_empty() {
            true => self.ahead.offer(expected, most.saturating_sub(rest.len())),
            false => self.ahead.withdraw(),
        }
        // Behind blocks comes the header of another: what it announces has a better place.
        let beyond = if self.ahead.is_offered() { PIECE_HEADER } else { SCRATCH.max(self.scratch.len()) };
        let free = self.scratch.get_mut(self.end..).unwrap_or_default();
        let beyond = beyond.min(free.len());
        let free = free.get_mut(..beyond).unwrap_or_default();
        let (mut space, mut left) = (ArrayVec::new(), most);
        let slices = [rest].into_iter().chain(self.ahead.space()).chain([free]);
        for slice in slices.filter(|slice| !slice.is_empty()) {
            let len = slice.len().min(left);
            space.push(IoSliceMut::new(&mut slice[..len]));
            left -= len;
            if left == 0 {
                break;
            }
        }
        space
    }

    /// `n` bytes were put into [`FrameReader::space`].
    pub fn advance(&mut self, n: usize) {
        let mut left = n;
        if let Payload::Into { block, filled, .. } = &mut self.payload {
            let in_block = n.min(block.len() - *filled);
            *filled += in_block;
            left -= in_block;
        }
        let mut strange = Vec::new();
        let in_scratch = self.ahead.advance(left, &mut strange);
        self.end = (self.end + in_scratch).min(self.scratch.len());
        if !strange.is_empty() {
            strange.extend_from_slice(self.unread());
            (self.start, self.end) = (0, strange.len());
            strange.resize(self.end.max(SCRATCH), 0);
            self.scratch = strange;
        }
    }

    /// The block whose payload is arriving.
    pub fn arriving(&self) -> Option<Span> {
        match self.payload {
            Payload::Into { span, .. } | Payload::Discard(span, _) => Some(span),
            Payload::None => None,
        }
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
        if let Some(Arrived { span, block, filled }) = self.ahead.next() {
            self.payload = Payload::Into { span, block, filled };
            return Ok(self.fill().unwrap_or(Step::Wait));
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

    /// What became of a stream.
    struct Fed {
        messages: Vec<Vec<u8>>,
        /// Bytes that were not received in place.
        in_scratch: usize,
        reads: usize,
    }

    /// Gives the reader all of `stream`, at most `chunk(i)` bytes at a time, as a socket would; blocks
    /// are received in place, those of `expected` without asking.
    fn feed(stream: &[u8], expected: &[Span], mut chunk: impl FnMut() -> usize) -> Result<Fed, WireError> {
        let mut reader = FrameReader::default();
        let (mut rest, mut fed) = (stream, Fed { messages: Vec::new(), in_scratch: 0, reads: 0 });
        let mut expected: std::collections::VecDeque<Span> = expected.iter().copied().collect();
        while !rest.is_empty() {
            let (mut n, most, arriving, unread) = (0, chunk(), reader.arriving(), reader.unread().len());
            let next = expected.iter().copied().filter(|&span| Some(span) != arriving);
            let mut space = reader.space(next.map(|span| (span, Block::zeroed(span.len as usize))), most);
            for space in &mut space {
                let here = space.len().min(rest.len());
                space[..here].copy_from_slice(&rest[..here]);
                rest = &rest[here..];
                n += here;
            }
            drop(space);
            assert!((1..=most).contains(&n));
            fed.reads += 1;
            reader.advance(n);
            fed.in_scratch += reader.unread().len() - unread;
            loop {
                match reader.step()? {
                    Step::Wait => break,
                    Step::PieceBegins(span) => reader.receive_into(Block::zeroed(span.len as usize)),
                    Step::Block(span, block) => {
                        expected.retain(|&other| other != span);
                        let mut bytes = Vec::new();
                        let Span { index, begin, .. } = span;
                        Message::Piece { index, begin, bytes: &block }.encode(&mut bytes);
                        fed.messages.push(bytes);
                    }
                    Step::Message(message) => {
                        let mut bytes = Vec::new();
                        message.encode(&mut bytes);
                        fed.messages.push(bytes);
                    }
                }
            }
        }
        Ok(fed)
    }

    /// What a reader offers that expects nothing.
    fn plain(reader: &mut FrameReader) -> ArrayVec<IoSliceMut<'_>, MAX_SPACE> {
        reader.space(std::iter::empty(), usize::MAX)
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
            let fed = feed(&stream, &[], || most).unwrap();
            assert_eq!(fed.messages, messages, "split every {most}");
            let in_place = stream.len() - fed.in_scratch;
            assert!(most > 100 || in_place > 32_000, "{in_place} bytes in place");
        }
    }

    #[test]
    fn expected_blocks_are_received_in_place_many_at_once() {
        let block = |index, begin| Span { index, begin, len: 16_384 };
        let spans: Vec<_> = (0..64).map(|at| block(at / 4, at % 4 * 16_384)).collect();
        let message = |span: &Span| {
            let bytes: Vec<u8> = (0..span.len).map(|at| (at / 5 + span.begin + span.index) as u8).collect();
            encoded(Message::Piece { index: span.index, begin: span.begin, bytes: &bytes })
        };
        let messages: Vec<_> = spans.iter().map(message).collect();
        let fed = feed(&messages.concat(), &spans, || usize::MAX).unwrap();
        assert!(fed.messages == messages);
        assert!(fed.in_scratch <= 64 * PIECE_HEADER, "{} bytes of payload were copied", fed.in_scratch);
        // One, two, four, eight and then fifteen blocks beside the one whose header came with the last
        // read.
        assert_eq!(fed.reads, 4 + (64 - 1 - 3 - 5 - 9_usize).div_ceil(16));
    }

    #[test]
    fn what_comes_instead_of_the_expected_is_read_as_it_is() {
        let block = |index| Span { index, begin: 0, len: 16_000 };
        let piece = |index: u32| encoded(Message::Piece { index, begin: 0, bytes: &[index as u8; 16_000] });
        let long = encoded(Message::Extended { id: 1, payload: &[7; 100_000] });
        let short = encoded(Message::Piece { index: 3, begin: 0, bytes: b"short" });
        let messages = [
            piece(0),
            piece(2),
            encoded(Message::Have(9)),
            piece(1),
            encoded(Message::Choke),
            long,
            piece(4),
            short,
            piece(9),
            encoded(Message::KeepAlive),
            piece(5),
        ];
        let expected: Vec<_> = (0..8).map(block).collect();
        for most in [1, 7, 13, 14, 5_000, 16_013, 50_000, usize::MAX] {
            let fed = feed(&messages.concat(), &expected, || most).unwrap();
            assert!(fed.messages == messages, "split every {most}");
        }
    }

    proptest! {
        #[test]
        fn random_splits_change_nothing(
            lens in proptest::collection::vec(1_usize..16_000, 1..8),
            splits in proptest::collection::vec(1_usize..40_000, 1..30),
            order in proptest::collection::vec(0_u32..9, 0..9),
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
            let spans: Vec<_> = order.iter().map(|&at| {
                Span { index: at, begin: 0, len: lens.get(at as usize).map_or(9, |&len| len.min(16_384)) as u32 }
            }).collect();
            let fed = feed(&messages.concat(), &spans, || splits.next().unwrap()).unwrap();
            prop_assert_eq!(fed.messages, messages);
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
            let mut space = plain(&mut reader);
            assert_eq!(space.len(), 1);
            let n = space[0].len().min(rest.len()).min(1000);
            space[0][..n].copy_from_slice(&rest[..n]);
            drop(space);
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
        plain(&mut reader);
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
