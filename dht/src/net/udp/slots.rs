//! Datagrams on their way through a socket: what is to be sent, [`Datagram`], and the slots that receive
//! calls fill, [`Batch`].

use std::net::SocketAddr;

/// Most datagrams moved by one call of [`recv_batch`](super::UdpSocket::recv_batch) or [`send_batch`](super::UdpSocket::send_batch).
pub const BATCH: usize = 64;
/// Longest datagram that is handed on; longer ones are dropped and counted.
pub const MAX_DATAGRAM: usize = 2048;
/// Receive slots are a little longer, so that a system without `MSG_TRUNC` shows the excess too.
pub(super) const SLOT: usize = MAX_DATAGRAM + 64;

/// A datagram to send.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// Destination.
    pub to: SocketAddr,
    /// Payload.
    pub bytes: &'a [u8],
}

/// A slot that holds a datagram.
#[derive(Clone, Copy, Debug)]
pub(super) struct Filled {
    pub(super) slot: usize,
    pub(super) len: usize,
    pub(super) from: SocketAddr,
}

/// The datagrams of one [`recv_batch`](super::UdpSocket::recv_batch), in order of arrival.
#[derive(Debug)]
pub struct Batch<'a> {
    slots: &'a [u8],
    filled: std::slice::Iter<'a, Filled>,
}

impl<'a> Batch<'a> {
    pub(super) fn new(slots: &'a [u8], filled: &'a [Filled]) -> Self {
        Self { slots, filled: filled.iter() }
    }
}

impl<'a> Iterator for Batch<'a> {
    type Item = (SocketAddr, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let filled = self.filled.next()?;
        Some((filled.from, &self.slots[filled.slot * SLOT..][..filled.len]))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.filled.size_hint()
    }
}

impl ExactSizeIterator for Batch<'_> {}
