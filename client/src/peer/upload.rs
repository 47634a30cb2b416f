//! [`Upload`]: what a peer has asked us for. Requests wait here until there is room in the send
//! buffer; only then does the swarm learn of them and read from disk.

use std::collections::VecDeque;

use super::send::SendQueue;
use super::{PeerConfig, PeerEvent};
use crate::piece::{Block, BlockRef};
use crate::wire::message::{Message, Span};

/// The requests of one peer.
#[derive(Debug, Default)]
pub(super) struct Upload {
    /// Whether the peer may ask at all.
    unchoked: bool,
    waiting: VecDeque<BlockRef>,
    /// Told to the swarm, not answered yet; and how many bytes that is.
    granted: Vec<BlockRef>,
    granted_bytes: usize,
    /// Requests above the length of the queue since there was room in it.
    excess: u32,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// It waits.
    Queued,
    /// It waited already; asking again changes nothing.
    Repeated,
    /// We choke the peer: refused.
    Choked,
    /// The queue is full: refused.
    Excess,
    /// So many were refused for a full queue that it cannot be a mistake.
    Flood,
}

impl Upload {
    /// The peer asks for a block that the torrent has.
    pub(super) fn ask(&mut self, config: &PeerConfig, block: BlockRef) -> Asked {
        if !self.unchoked {
            return Asked::Choked;
        }
        if self.granted.contains(&block) || self.waiting.contains(&block) {
            return Asked::Repeated;
        }
        if self.waiting.len() + self.granted.len() >= usize::from(config.upload_queue) {
            self.excess += 1;
            let flood = self.excess > u32::from(config.upload_queue);
            return if flood { Asked::Flood } else { Asked::Excess };
        }
        self.excess = 0;
        self.waiting.push_back(block);
        Asked::Queued
    }

    /// The peer takes a request back. `false` if there is none such.
    pub(super) fn cancel(&mut self, span: Span, out: &mut Vec<PeerEvent>) -> bool {
        if let Some(at) = self.waiting.iter().position(|&block| Span::of(block) == span) {
            self.waiting.remove(at);
            return true;
        }
        let block = span.to_block();
        let granted = self.settle(block);
        if granted {
            out.push(PeerEvent::Cancelled(block));
        }
        granted
    }

    /// Voids all requests; with the fast extension each is rejected (BEP 6).
    pub(super) fn choke(&mut self, fast: bool, send: &mut SendQueue) {
        self.unchoked = false;
        self.granted_bytes = 0;
        let void: Vec<BlockRef> = self.granted.drain(..).chain(self.waiting.drain(..)).collect();
        send.put(Message::Choke);
        for block in void.into_iter().filter(|_| fast) {
            send.put(Message::Reject(Span::of(block)));
        }
    }

    pub(super) fn unchoke(&mut self) {
        self.unchoked = true;
    }

    pub(super) fn is_unchoked(&self) -> bool {
        self.unchoked
    }

    /// The swarm answers. An answer to what was taken back or voided meanwhile is dropped.
    pub(super) fn send(&mut self, block: BlockRef, payload: Block, send: &mut SendQueue) {
        if payload.len() == block.len as usize && self.settle(block) {
            send.put_block(block, payload);
        }
    }

    /// The swarm refuses.
    pub(super) fn refuse(&mut self, block: BlockRef, fast: bool, send: &mut SendQueue) {
        if self.settle(block) && fast {
            send.put(Message::Reject(Span::of(block)));
        }
    }

    /// Bytes of the requests that the swarm was told of and has not answered.
    pub(super) fn granted_bytes(&self) -> usize {
        self.granted_bytes
    }

    /// Tells the swarm of waiting requests as far as there is room in the send buffer, of which `taken` bytes are.
    pub(super) fn grant(&mut self, config: &PeerConfig, taken: usize, out: &mut Vec<PeerEvent>) {
        while self.granted_bytes + taken < config.send_buffer / 4 * 3
            && let Some(block) = self.waiting.pop_front()
        {
            self.granted_bytes += block.len as usize;
            self.granted.push(block);
            out.push(PeerEvent::Requested(block));
        }
    }

    fn settle(&mut self, block: BlockRef) -> bool {
        let Some(at) = self.granted.iter().position(|&granted| granted == block) else {
            return false;
        };
        self.granted.remove(at);
        self.granted_bytes = self.granted_bytes.saturating_sub(block.len as usize);
        true
    }
}
