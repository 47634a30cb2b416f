//! [`Outbox`]: what a core wants sent and told. The caller owns it and hands it in, so that a
//! million idle nodes own no queues and a reply is encoded into the buffer that it is sent from.

use std::net::SocketAddr;

use crate::event::Event;
use crate::scratch::Scratch;

/// Datagrams and events that a turn of a core produced. Reuse it: [`Outbox::clear`] keeps the
/// capacity.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Arena of all datagrams of this turn.
    pub bytes: Vec<u8>,
    /// What to send where, in order.
    pub transmits: Vec<Transmit>,
    /// What to tell the owner, in order.
    pub events: Vec<Event>,
    /// Buffers of whoever writes replies; made by the first one.
    pub(crate) scratch: Option<Box<Scratch>>,
}

/// One datagram, as a range of [`Outbox::bytes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Destination.
    pub to: SocketAddr,
    /// Socket to send from: the index that `Node` was given for it.
    pub socket: u8,
    /// Whether it may be dropped first when the send buffer is full.
    pub class: Class,
    /// Offset in the arena.
    pub start: u32,
    /// Length in bytes, at most 1024 (BEP 32).
    pub len: u16,
}

/// How much it hurts to lose a datagram: when the kernel's send buffer is full, replies go first,
/// because a stranger will ask again while a lost query costs us a lookup slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Answer to a stranger.
    Reply,
    /// Our own question.
    Query,
}

impl Outbox {
    /// An empty outbox.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets everything, keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.transmits.clear();
        self.events.clear();
    }

    /// Queues the datagram that `write` appends to the arena. Nothing is queued when it appends
    /// nothing or more than a datagram may carry.
    pub fn send(&mut self, socket: u8, to: SocketAddr, class: Class, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        write(&mut self.bytes);
        let len = self.bytes.len() - start;
        match (u32::try_from(start), u16::try_from(len)) {
            (Ok(start), Ok(len)) if len > 0 => {
                self.transmits.push(Transmit { to, socket, class, start, len });
            }
            _ => self.bytes.truncate(start),
        }
    }

    /// The bytes of `transmit`.
    pub fn datagram(&self, transmit: &Transmit) -> &[u8] {
        &self.bytes[transmit.start as usize..][..transmit.len as usize]
    }
}
