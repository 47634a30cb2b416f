//! [`Untold`]: pieces that a peer is told of one by one, as fast as it takes them.

use std::sync::Arc;

use super::send::SendQueue;
use crate::bitfield::Bitfield;
use crate::wire::message::Message;

/// Bytes of small messages that wait for the socket before a further `have` does: 1,820 of them.
const MAX_WAITING: usize = 16 << 10;

/// Pieces of which the peer does not know yet. There may be two million of them: they are shared with
/// other connections, and only the next few are ever written down as messages.
#[derive(Debug, Default)]
pub(super) struct Untold {
    pieces: Option<Arc<Bitfield>>,
    /// Those before it are told.
    next: u32,
}

impl Untold {
    /// Pieces that the peer is to be told of, too.
    pub(super) fn add(&mut self, pieces: Arc<Bitfield>) {
        let more = match self.pieces.take() {
            None => pieces,
            Some(before) => {
                let mut both = (*pieces).clone();
                for index in before.iter().filter(|&index| index >= self.next) {
                    both.insert(index);
                }
                Arc::new(both)
            }
        };
        (self.pieces, self.next) = (Some(more), 0);
    }

    /// Tells of the next ones, as many as may wait.
    pub(super) fn put(&mut self, send: &mut SendQueue) {
        let Some(pieces) = &self.pieces else { return };
        while send.control_len() < MAX_WAITING {
            let Some(index) = pieces.first_common(pieces, self.next) else {
                self.pieces = None;
                return;
            };
            send.put(Message::Have(index));
            self.next = index + 1;
        }
    }
}
