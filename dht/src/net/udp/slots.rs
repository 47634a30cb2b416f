//! Datagrams on their way through a socket: what is to be sent, [`Datagram`], the slots that receive
//! calls fill, [`Batch`], and which of our addresses they name, [`Answers`].

use std::net::{IpAddr, SocketAddr};

/// Most datagrams moved by one call of [`recv_batch`](super::UdpSocket::recv_batch) or [`send_batch`](super::UdpSocket::send_batch).
pub const BATCH: usize = 64;
/// Longest datagram that is handed on; longer ones are dropped and counted.
pub const MAX_DATAGRAM: usize = 2048;
/// Receive slots are a little longer, so that a system without `MSG_TRUNC` shows the excess too.
pub(super) const SLOT: usize = MAX_DATAGRAM + 64;

/// From which address of the machine the answers of a socket leave that is bound to all of them (BEP 45:
/// "Responses must be sent from the same socket address on which the corresponding request was received").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Answers {
    /// From the one that the system chooses: the right one where there is one only.
    #[default]
    AsRouted,
    /// From the one that was asked: each datagram [tells it](Received::asked), and is
    /// [given it](Datagram::from), which is not free.
    AsAsked,
}

/// A datagram to send.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// Destination.
    pub to: SocketAddr,
    /// The address of ours to send from; `None` leaves it to the system. Heeded by a socket that
    /// [answers from where it is asked](Answers::AsAsked), and ignored by others.
    pub from: Option<IpAddr>,
    /// Payload.
    pub bytes: &'a [u8],
}

/// A slot that holds a datagram.
#[derive(Clone, Copy, Debug)]
pub(super) struct Filled {
    pub(super) slot: usize,
    pub(super) len: usize,
    pub(super) from: SocketAddr,
    pub(super) asked: Option<IpAddr>,
}

/// A datagram that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received<'a> {
    /// Who sent it.
    pub from: SocketAddr,
    /// The address of ours that it came to, if the socket
    /// [answers from where it is asked](Answers::AsAsked).
    pub asked: Option<IpAddr>,
    /// Payload.
    pub bytes: &'a [u8],
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
    type Item = Received<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let filled = self.filled.next()?;
        let bytes = &self.slots[filled.slot * SLOT..][..filled.len];
        Some(Received { from: filled.from, asked: filled.asked, bytes })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.filled.size_hint()
    }
}

impl ExactSizeIterator for Batch<'_> {}
