//! [`Ahead`]: room for the blocks that a peer is expected to send next, header and payload one behind
//! the other, so that one read receives many of them in place.
//!
//! It is a guess: peers answer in the order in which they were asked, nearly always. Where the bytes
//! say otherwise, they are given back as the stream that they are.

use std::collections::VecDeque;

use super::message::{PIECE_HEADER, Span};
use crate::piece::Block;

/// Blocks that one read receives in place at most, beside the one that is arriving already.
pub(super) const MAX_AHEAD: usize = 15;

/// What is offered for the next read, and what has come of it.
#[derive(Debug)]
pub(super) struct Ahead {
    offered: Vec<Frame>,
    arrived: VecDeque<Arrived>,
    /// How many to offer: twice what the last read used, so that an idle connection keeps no memory
    /// busy and a busy one needs few reads.
    pace: usize,
}

/// A `piece` message that is expected.
#[derive(Debug)]
struct Frame {
    span: Span,
    header: [u8; PIECE_HEADER],
    block: Block,
}

/// A block whose header came as expected.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) span: Span,
    pub(super) block: Block,
    /// Bytes of it that are there.
    pub(super) filled: usize,
}

impl Default for Ahead {
    fn default() -> Self {
        Self { offered: Vec::new(), arrived: VecDeque::new(), pace: 1 }
    }
}

impl Ahead {
    /// Offers room for the first of the `next` ones, and for no more bytes than `most`.
    pub(super) fn offer(&mut self, next: impl Iterator<Item = (Span, Block)>, most: usize) {
        self.offered.clear();
        let mut left = most;
        for (span, block) in next.take(self.pace) {
            self.offered.push(Frame { span, header: [0; PIECE_HEADER], block });
            left = left.saturating_sub(PIECE_HEADER + span.len as usize);
            if left == 0 {
                return;
            }
        }
    }

    /// Takes the offer back: the next read is for the scratch buffer alone.
    pub(super) fn withdraw(&mut self) {
        self.offered.clear();
    }

    /// Whether any room is offered.
    pub(super) fn is_offered(&self) -> bool {
        !self.offered.is_empty()
    }

    /// The room that is offered, in order.
    pub(super) fn space(&mut self) -> impl Iterator<Item = &mut [u8]> {
        self.offered
            .iter_mut()
            .flat_map(|Frame { header, block, .. }| [&mut header[..], block.as_mut_slice()])
    }

    /// `n` bytes were received, first into the room that was offered. Returns how many went beyond it;
    /// appends to `strange` what is none of the expected messages, or not yet known to be one.
    pub(super) fn advance(&mut self, n: usize, strange: &mut Vec<u8>) -> usize {
        let offered = self.offered.len();
        let (mut left, mut used) = (n, 0);
        for Frame { span, header, block } in self.offered.drain(..) {
            if left == 0 {
                break;
            }
            used += 1;
            let here = left.min(PIECE_HEADER + block.len());
            left -= here;
            let filled = here.saturating_sub(PIECE_HEADER);
            // What comes behind something strange follows it.
            if strange.is_empty() && here >= PIECE_HEADER && is_header_of(&header, span) {
                self.arrived.push_back(Arrived { span, block, filled });
            } else {
                strange.extend_from_slice(header.get(..here).unwrap_or(&header));
                strange.extend_from_slice(block.get(..filled).unwrap_or_default());
            }
        }
        if offered > 0 {
            let pace = if used == offered { 2 * used } else { used + 1 };
            self.pace = pace.min(MAX_AHEAD);
        }
        left
    }

    /// The next block whose header came as expected; only the last one may lack bytes.
    pub(super) fn next(&mut self) -> Option<Arrived> {
        self.arrived.pop_front()
    }

    /// Whether [`Ahead::next`] has none.
    pub(super) fn is_empty(&self) -> bool {
        self.arrived.is_empty()
    }
}

/// Whether `header` is that of a `piece` message with this block.
fn is_header_of(header: &[u8; PIECE_HEADER], span: Span) -> bool {
    let [l0, l1, l2, l3, id, i0, i1, i2, i3, b0, b1, b2, b3] = *header;
    let word = |bytes| u32::from_be_bytes(bytes);
    id == 7
        && u64::from(word([l0, l1, l2, l3])) == 9 + u64::from(span.len)
        && (word([i0, i1, i2, i3]), word([b0, b1, b2, b3])) == (span.index, span.begin)
}
