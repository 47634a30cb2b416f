//! [`SendQueue`]: what waits for the socket. Blocks are sent from the buffers that the disk threads
//! filled; only headers and small messages are copied together.

use std::collections::VecDeque;
use std::io::IoSlice;

use arrayvec::ArrayVec;

use crate::piece::{Block, BlockRef};
use crate::wire::message::{self, Message};

/// Slices that one write takes at most.
pub const MAX_SLICES: usize = 64;
/// Small messages are joined up to this many bytes.
const JOIN: usize = 4 << 10;
/// Chunks of small messages are shorter than this.
const SMALL: usize = 2 * JOIN;

/// Bytes in the order in which they go out. What we ask for overtakes blocks that have not begun to go: behind
/// them it would wait for as long as a slow line takes for all of them.
#[derive(Debug, Default)]
pub(super) struct SendQueue {
    chunks: VecDeque<Chunk>,
    /// Bytes of the first chunk that have gone out.
    sent: usize,
    /// Bytes to go out in all.
    len: usize,
    /// Bytes of the chunks that are small messages.
    control: usize,
}

#[derive(Debug)]
enum Chunk {
    /// Messages; or, before a block, its header alone.
    Control(Vec<u8>),
    Block(Block),
}

impl SendQueue {
    /// Queues a message.
    pub(super) fn put(&mut self, message: Message<'_>) {
        self.write(|out| message.encode(out));
    }

    /// Queues a message before the blocks of which nothing has gone out, and behind all that is before them.
    pub(super) fn put_ahead(&mut self, message: Message<'_>) {
        let Some(header) = self.first_unbegun() else { return self.put(message) };
        let joins = |at: &usize| matches!(&self.chunks[*at], Chunk::Control(bytes) if bytes.len() < JOIN);
        let at = header.checked_sub(1).filter(joins).unwrap_or_else(|| {
            self.chunks.insert(header, Chunk::Control(Vec::new()));
            header
        });
        if let Some(Chunk::Control(bytes)) = self.chunks.get_mut(at) {
            let before = bytes.len();
            message.encode(bytes);
            self.len += bytes.len() - before;
            self.control += bytes.len() - before;
        }
    }

    /// Where the header of the first block is of which nothing has gone out.
    fn first_unbegun(&self) -> Option<usize> {
        let blocks = self.chunks.iter().enumerate().filter(|(_, chunk)| matches!(chunk, Chunk::Block(_)));
        let mut headers = blocks.filter_map(|(block, _)| block.checked_sub(1));
        headers.find(|&header| header > 0 || self.sent == 0)
    }

    /// Queues a `piece` message.
    pub(super) fn put_block(&mut self, block: BlockRef, payload: Block) {
        // Alone, so that others can be put before it.
        let mut header = Vec::new();
        message::put_piece_header(&mut header, block);
        self.control += header.len();
        self.len += header.len() + payload.len();
        self.chunks.push_back(Chunk::Control(header));
        self.chunks.push_back(Chunk::Block(payload));
    }

    /// Queues whatever `write` appends.
    pub(super) fn write(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if !matches!(self.chunks.back(), Some(Chunk::Control(bytes)) if bytes.len() < JOIN) {
            self.chunks.push_back(Chunk::Control(Vec::new()));
        }
        if let Some(Chunk::Control(bytes)) = self.chunks.back_mut() {
            let before = bytes.len();
            write(bytes);
            self.len += bytes.len() - before;
            self.control += bytes.len() - before;
            if before > 0 && bytes.len() >= before + JOIN {
                // What is large must not make the small messages before it large.
                let large = bytes.split_off(before);
                self.chunks.push_back(Chunk::Control(large));
            }
        }
    }

    /// `n` bytes have gone out. Returns the payload bytes of the blocks that are through.
    pub(super) fn advance(&mut self, n: usize) -> u32 {
        let n = n.min(self.len);
        self.len -= n;
        self.sent += n;
        let mut payload = 0;
        while let Some(first) = self.chunks.front() {
            let len = first.as_slice().len();
            if self.sent < len {
                break;
            }
            self.sent -= len;
            match self.chunks.pop_front() {
                Some(Chunk::Block(block)) => payload += u32::try_from(block.len()).unwrap_or(u32::MAX),
                Some(Chunk::Control(bytes)) => self.control -= bytes.len(),
                None => {}
            }
        }
        payload
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The front of the queue, as much as one write takes.
    pub(super) fn slices(&self) -> ArrayVec<IoSlice<'_>, MAX_SLICES> {
        let mut skip = self.sent;
        let whole = self.chunks.iter().take(MAX_SLICES).map(|chunk| {
            let slice = chunk.as_slice().get(skip..).unwrap_or_default();
            skip = 0;
            IoSlice::new(slice)
        });
        whole.filter(|slice| !slice.is_empty()).collect()
    }

    /// Bytes to go out.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Bytes of the first slice if these are small messages.
    pub(super) fn small_len(&self) -> usize {
        match self.chunks.front() {
            Some(Chunk::Control(bytes)) if bytes.len() < SMALL && !self.is_header(0) => {
                bytes.len().saturating_sub(self.sent)
            }
            _ => 0,
        }
    }

    /// Whether messages wait, wherever; headers of blocks are none.
    pub(super) fn has_messages(&self) -> bool {
        let mut controls = (0..self.chunks.len()).filter(|&at| matches!(self.chunks[at], Chunk::Control(_)));
        controls.any(|at| !self.is_header(at))
    }

    /// Whether a chunk is followed by its block.
    fn is_header(&self, at: usize) -> bool {
        matches!(self.chunks.get(at + 1), Some(Chunk::Block(_)))
    }

    /// Bytes of small messages to go out, up to one chunk that has gone out in part included.
    pub(super) fn control_len(&self) -> usize {
        self.control
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Chunk {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Control(bytes) => bytes,
            Self::Block(block) => block,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::piece::PieceIndex;
    use crate::wire::message::Span;

    #[test]
    fn bytes_go_out_in_order_however_few_at_a_time() {
        for step in [1, 3, 17, 1000] {
            let mut queue = SendQueue::default();
            let block = BlockRef { piece: PieceIndex(1), begin: 0, len: 40 };
            let mut wanted = Vec::new();
            queue.put(Message::Unchoke);
            Message::Unchoke.encode(&mut wanted);
            for fill in 0..3 {
                queue.put_block(block, vec![fill; 40].into());
                Message::Piece { index: 1, begin: 0, bytes: &[fill; 40] }.encode(&mut wanted);
            }
            queue.put(Message::Choke);
            Message::Choke.encode(&mut wanted);
            let (mut out, mut payload) = (Vec::new(), 0);
            while !queue.is_empty() {
                let bytes: Vec<u8> = queue.slices().iter().flat_map(|slice| slice.to_vec()).collect();
                assert!(bytes.len() == queue.len() || queue.chunks.len() > MAX_SLICES);
                let n = step.min(bytes.len());
                out.extend_from_slice(&bytes[..n]);
                payload += queue.advance(n);
            }
            assert_eq!(out, wanted);
            assert_eq!(payload, 120);
            assert!(queue.slices().is_empty());
        }
    }

    /// All messages that go out, from a queue of which some bytes have gone out already.
    fn messages(queue: &mut SendQueue, mut out: Vec<u8>) -> Vec<String> {
        while !queue.is_empty() {
            let bytes: Vec<u8> = queue.slices().iter().flat_map(|slice| slice.to_vec()).collect();
            queue.advance(bytes.len());
            out.extend(bytes);
        }
        let (mut rest, mut all) = (&out[..], Vec::new());
        while let Some((len, behind)) = rest.split_first_chunk::<4>() {
            let (body, behind) = behind.split_at(u32::from_be_bytes(*len) as usize);
            all.push(match body {
                [7, _, _, _, index, ..] => format!("block {index}"),
                [6, _, _, _, index, ..] => format!("request {index}"),
                [kind, ..] => format!("{kind}"),
                [] => "keep-alive".to_owned(),
            });
            rest = behind;
        }
        assert!(rest.is_empty() && queue.control_len() == 0);
        all
    }

    #[test]
    fn what_we_ask_for_overtakes_blocks_that_have_not_begun_and_cuts_none() {
        let request = |index| Message::Request(Span { index, begin: 0, len: 9 });
        // Of a header of 13 bytes, a block of 9 and what is small before them.
        for gone in 0..30 {
            let mut queue = SendQueue::default();
            queue.put(Message::Unchoke);
            for index in 0..3 {
                let block = BlockRef { piece: PieceIndex(index), begin: 0, len: 9 };
                queue.put_block(block, vec![index as u8; 9].into());
            }
            let front: Vec<u8> = queue.slices().iter().flat_map(|slice| slice.to_vec()).collect();
            queue.advance(gone);
            queue.put_ahead(request(1));
            queue.put_ahead(request(2));
            queue.put(Message::Choke);
            let told = messages(&mut queue, front[..gone].to_vec());
            let requests = told.iter().position(|told| told == "request 1").unwrap();
            // Behind what is small, and one that has begun at most.
            assert_eq!(
                requests,
                if gone <= 5 {
                    1
                } else if gone <= 27 {
                    2
                } else {
                    3
                },
                "{told:?}"
            );
            let mut others = told.clone();
            assert_eq!(others.drain(requests..requests + 2).collect::<Vec<_>>(), ["request 1", "request 2"]);
            assert_eq!(others, ["1", "block 0", "block 1", "block 2", "0"], "{gone}");
        }
        // Without blocks it is behind what was queued before.
        let mut queue = SendQueue::default();
        queue.put(Message::Interested);
        queue.put_ahead(request(1));
        assert_eq!(messages(&mut queue, Vec::new()), ["2", "request 1"]);
    }

    #[test]
    fn many_requests_ahead_keep_their_order() {
        let mut queue = SendQueue::default();
        queue.put_block(BlockRef { piece: PieceIndex(0), begin: 0, len: 9 }, vec![0; 9].into());
        queue.advance(20);
        for index in 0..200 {
            queue.put_ahead(Message::Request(Span { index: index % 100, begin: 0, len: 9 }));
            assert!(queue.small_len() < SMALL);
        }
        queue.advance(2);
        assert!(queue.small_len() > 0, "the block has gone");
        let told = messages(&mut queue, Vec::new());
        assert_eq!(told, (0..200).map(|index| format!("request {}", index % 100)).collect::<Vec<_>>());
    }

    #[test]
    fn one_write_takes_a_bounded_number_of_slices() {
        let mut queue = SendQueue::default();
        for index in 0..100 {
            let block = BlockRef { piece: PieceIndex(index), begin: 0, len: 1 };
            queue.put_block(block, vec![0].into());
        }
        assert_eq!(queue.slices().len(), MAX_SLICES);
        queue.advance(13 + 1 + 5);
        assert_eq!(queue.slices()[0].len(), 8);
    }
}
