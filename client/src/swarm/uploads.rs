//! [`Uploads`]: what peers have asked of us, read through the disk threads a window at a time, so
//! that a peer that asks for much and reads little costs a bounded amount of memory.

use std::collections::VecDeque;

use super::limits::Limits;
use crate::piece::{BlockRef, PieceIndex, Slot};

/// Requests of all peers.
#[derive(Debug, Default)]
pub(super) struct Uploads {
    /// By slot index.
    queues: Vec<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    generation: u32,
    waiting: VecDeque<BlockRef>,
    reading: Vec<BlockRef>,
    /// Handed to the connection and not sent yet, in order.
    passed: VecDeque<BlockRef>,
    /// Bytes in `reading` and `passed`.
    window: u32,
}

impl Uploads {
    /// Queues a request; `false` when the queue is full or the block too long: to be refused. Asking
    /// twice for a block that waits is asking once.
    pub(super) fn push(&mut self, slot: Slot, block: BlockRef, limits: &Limits) -> bool {
        let queue = self.queue(slot);
        if queue.waiting.contains(&block) || queue.reading.contains(&block) {
            return true;
        }
        if queue.waiting.len() + queue.reading.len() >= usize::from(limits.peer.upload_queue)
            || block.len > limits.peer.max_request
        {
            return false;
        }
        queue.waiting.push_back(block);
        true
    }

    /// The next blocks to be read for a peer.
    pub(super) fn reads(&mut self, slot: Slot, limits: &Limits) -> Vec<BlockRef> {
        let queue = self.queue(slot);
        let mut reads = Vec::new();
        while let Some(&block) = queue.waiting.front() {
            if queue.window > 0 && queue.window.saturating_add(block.len) as usize > limits.peer.send_buffer {
                break;
            }
            queue.waiting.pop_front();
            queue.window += block.len;
            queue.reading.push(block);
            reads.push(block);
        }
        reads
    }

    /// A block was read; whether the peer still wants it.
    pub(super) fn read(&mut self, slot: Slot, block: BlockRef) -> bool {
        let queue = self.queue(slot);
        let Some(at) = queue.reading.iter().position(|&reading| reading == block) else { return false };
        queue.reading.swap_remove(at);
        queue.passed.push_back(block);
        true
    }

    /// The blocks that are being read for a peer: after a failure of the disk they are read again.
    pub(super) fn unread(&mut self, slot: Slot) -> Vec<BlockRef> {
        self.queue(slot).reading.clone()
    }

    /// Payload bytes went out to a peer.
    pub(super) fn sent(&mut self, slot: Slot, mut bytes: u32) {
        let queue = self.queue(slot);
        while let Some(block) = queue.passed.front().copied().filter(|_| bytes > 0) {
            queue.passed.pop_front();
            queue.window -= block.len;
            bytes = bytes.saturating_sub(block.len);
        }
    }

    /// A peer no longer wants a block.
    pub(super) fn cancel(&mut self, slot: Slot, block: BlockRef) {
        let queue = self.queue(slot);
        queue.waiting.retain(|&waiting| waiting != block);
        let window = &mut queue.window;
        let mut keep = |other: &BlockRef| {
            let same = *other == block;
            *window -= if same { block.len } else { 0 };
            !same
        };
        queue.reading.retain(&mut keep);
        queue.passed.retain(keep);
    }

    /// A piece cannot be read any more: what a peer waits for of it, which has to be refused.
    pub(super) fn drop_piece(&mut self, slot: Slot, piece: PieceIndex) -> Vec<BlockRef> {
        let queue = self.queue(slot);
        let waits = queue.waiting.iter().chain(&queue.reading).filter(|block| block.piece == piece);
        let waits: Vec<_> = waits.copied().collect();
        waits.iter().for_each(|&block| self.cancel(slot, block));
        waits
    }

    /// A peer was choked or has gone: nothing that it asked for counts any more.
    pub(super) fn clear(&mut self, slot: Slot) {
        *self.queue(slot) = Queue { generation: slot.generation, ..Queue::default() };
    }

    fn queue(&mut self, slot: Slot) -> &mut Queue {
        let index = slot.index as usize;
        if self.queues.len() <= index {
            self.queues.resize_with(index + 1, Queue::default); // as many as connections
        }
        let queue = &mut self.queues[index];
        if queue.generation != slot.generation {
            *queue = Queue { generation: slot.generation, ..Queue::default() };
        }
        queue
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::PeerConfig;
    use crate::piece::BLOCK_LEN;

    const SLOT: Slot = Slot { index: 1, generation: 3 };

    fn block(index: u32) -> BlockRef {
        BlockRef { piece: PieceIndex(0), begin: index * BLOCK_LEN, len: BLOCK_LEN }
    }

    fn limits(peer: PeerConfig) -> Limits {
        Limits { peer, ..Limits::default() }
    }

    #[test]
    fn reads_are_bounded_by_the_window_and_go_on_as_bytes_leave() {
        let limits = limits(PeerConfig { send_buffer: 3 * BLOCK_LEN as usize, ..PeerConfig::default() });
        let mut uploads = Uploads::default();
        assert!((0..5).all(|index| uploads.push(SLOT, block(index), &limits)));
        assert_eq!(uploads.reads(SLOT, &limits), [block(0), block(1), block(2)]);
        assert!(uploads.read(SLOT, block(0)) && !uploads.read(SLOT, block(0)));
        assert!(uploads.reads(SLOT, &limits).is_empty());
        uploads.sent(SLOT, BLOCK_LEN);
        assert_eq!(uploads.reads(SLOT, &limits), [block(3)]);
    }

    #[test]
    fn a_full_queue_and_a_long_block_are_refused() {
        let limits = limits(PeerConfig { upload_queue: 2, ..PeerConfig::default() });
        let mut uploads = Uploads::default();
        assert!(uploads.push(SLOT, block(0), &limits) && uploads.push(SLOT, block(0), &limits));
        assert!(uploads.push(SLOT, block(1), &limits) && !uploads.push(SLOT, block(2), &limits));
        let long = BlockRef { len: (128 << 10) + 1, ..block(9) };
        assert!(!uploads.push(Slot { index: 0, generation: 0 }, long, &limits));
    }

    #[test]
    fn cancelled_and_choked_requests_are_not_answered() {
        let limits = Limits::default();
        let mut uploads = Uploads::default();
        (0..4).for_each(|index| assert!(uploads.push(SLOT, block(index), &limits)));
        assert_eq!(uploads.reads(SLOT, &limits).len(), 4);
        uploads.cancel(SLOT, block(2));
        assert!(!uploads.read(SLOT, block(2)) && uploads.read(SLOT, block(3)));
        uploads.cancel(SLOT, block(3));
        assert_eq!(uploads.queue(SLOT).window, 2 * BLOCK_LEN);
        uploads.clear(SLOT);
        assert!(!uploads.read(SLOT, block(0)));
        assert_eq!(uploads.queue(SLOT).window, 0);
    }
}
