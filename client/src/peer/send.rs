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

/// Bytes in the order in which they go out.
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
    Control(Vec<u8>),
    Block(Block),
}

impl SendQueue {
    /// Queues a message.
    pub(super) fn put(&mut self, message: Message<'_>) {
        self.write(|out| message.encode(out));
    }

    /// Queues a `piece` message.
    pub(super) fn put_block(&mut self, block: BlockRef, payload: Block) {
        self.write(|out| message::put_piece_header(out, block));
        self.len += payload.len();
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

    /// Bytes of the first slice if these are small messages; the header of a block counts as one.
    pub(super) fn small_len(&self) -> usize {
        match self.chunks.front() {
            Some(Chunk::Control(bytes)) if bytes.len() < SMALL => bytes.len().saturating_sub(self.sent),
            _ => 0,
        }
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
