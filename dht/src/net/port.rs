//! [`Port`]: one UDP socket of a node and what could not be sent yet.
//!
//! When the send buffer is full, replies are dropped and our own queries wait: a stranger will ask
//! again, while a lost query costs a lookup one of its slots.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll, ready};

use arrayvec::ArrayVec;

use super::udp::{BATCH, Batch, Datagram, UdpCounters, UdpSocket};
use crate::{Class, Outbox};

/// Queries that wait for room in the send buffer; further ones are dropped, and time out.
const MAX_WAITING: usize = 256;

/// A socket and its queue.
#[derive(Debug)]
pub(super) struct Port {
    index: u8,
    socket: UdpSocket,
    waiting: VecDeque<(SocketAddr, Box<[u8]>)>,
    counters: PortCounters,
}

/// What happened at one socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortCounters {
    /// At the socket itself.
    pub udp: UdpCounters,
    /// Replies dropped because the send buffer was full.
    pub replies_dropped: u64,
    /// Queries dropped because too many waited for the send buffer already.
    pub queries_dropped: u64,
    /// Datagrams that were no KRPC, dropped.
    pub foreign: u64,
}

impl Port {
    pub(super) fn new(index: u8, socket: UdpSocket) -> Self {
        Self { index, socket, waiting: VecDeque::new(), counters: PortCounters::default() }
    }

    /// Receives what is there; see [`UdpSocket::recv_batch`].
    pub(super) fn receive(&mut self) -> io::Result<Batch<'_>> {
        self.socket.recv_batch()
    }

    /// Counts a datagram that was no KRPC.
    pub(super) fn foreign(&mut self, count: u64) {
        self.counters.foreign += count;
    }

    /// Sends what `out` holds for this socket, behind what waits already. The last error of a
    /// datagram that the system refused, if one was.
    pub(super) fn send(&mut self, out: &Outbox) -> Option<io::Error> {
        let mut error = self.send_waiting();
        let index = self.index;
        let mut mine = out.transmits.iter().filter(|transmit| transmit.socket == index).peekable();
        while self.waiting.is_empty() && mine.peek().is_some() {
            let chunk: ArrayVec<_, BATCH> = mine.by_ref().take(BATCH).collect();
            let datagrams: ArrayVec<_, BATCH> = chunk
                .iter()
                .map(|transmit| Datagram { to: transmit.to, bytes: out.datagram(transmit) })
                .collect();
            let sent = self.socket.send_batch(&datagrams);
            error = sent.error.or(error);
            if sent.done < chunk.len() {
                for transmit in &chunk[sent.done..] {
                    self.postpone(transmit.class, transmit.to, out.datagram(transmit));
                }
                break;
            }
        }
        for transmit in mine {
            self.postpone(transmit.class, transmit.to, out.datagram(transmit));
        }
        error
    }

    /// Waits for a datagram, or for room if queries wait for it. Cancel safe.
    pub(super) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.waiting.is_empty() && self.socket.poll_writable(cx).is_ready() {
            return Poll::Ready(());
        }
        // An error shows at the next receive, where it is counted.
        let _ = ready!(self.socket.poll_readable(cx));
        Poll::Ready(())
    }

    /// Waits until the runtime knows that the socket can send; without this, the first datagrams of
    /// a fresh socket would have to wait.
    pub(super) async fn warm_up(&self) -> io::Result<()> {
        self.socket.writable().await
    }

    pub(super) fn is_ipv6(&self) -> bool {
        self.socket.local_addr().is_ipv6()
    }

    pub(super) fn counters(&self) -> PortCounters {
        PortCounters { udp: self.socket.counters(), ..self.counters }
    }

    fn send_waiting(&mut self) -> Option<io::Error> {
        let mut error = None;
        while !self.waiting.is_empty() {
            let datagrams: ArrayVec<_, BATCH> =
                self.waiting.iter().take(BATCH).map(|(to, bytes)| Datagram { to: *to, bytes }).collect();
            let (sent, given) = (self.socket.send_batch(&datagrams), datagrams.len());
            drop(datagrams);
            self.waiting.drain(..sent.done);
            error = sent.error.or(error);
            if sent.done < given {
                break;
            }
        }
        error
    }

    fn postpone(&mut self, class: Class, to: SocketAddr, bytes: &[u8]) {
        match class {
            Class::Reply => self.counters.replies_dropped += 1,
            Class::Query if self.waiting.len() >= MAX_WAITING => self.counters.queries_dropped += 1,
            Class::Query => self.waiting.push_back((to, bytes.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::net::udp::Batching;

    fn port(index: u8) -> Port {
        Port::new(index, UdpSocket::bind("127.0.0.1:0".parse().unwrap(), Batching::Native).unwrap())
    }

    fn outbox(to: SocketAddr, class: Class, payloads: &[&[u8]]) -> Outbox {
        let mut out = Outbox::new();
        for payload in payloads {
            out.send(0, to, class, |bytes| bytes.extend_from_slice(payload));
            out.send(1, to, class, |bytes| bytes.extend_from_slice(b"for the other socket"));
        }
        out
    }

    async fn receive(port: &mut Port, count: usize) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        let everything = async {
            while all.len() < count {
                std::future::poll_fn(|cx| port.poll_ready(cx)).await;
                all.extend(port.receive().unwrap().map(|(_, bytes)| bytes.to_vec()));
            }
        };
        tokio::time::timeout(Duration::from_secs(20), everything).await.expect("datagrams arrive");
        all
    }

    #[tokio::test]
    async fn a_port_sends_what_is_for_its_socket() {
        let (mut a, mut b) = (port(0), port(1));
        a.warm_up().await.unwrap();
        assert!(a.send(&outbox(b.socket.local_addr(), Class::Reply, &[b"one", b"two"])).is_none());
        assert_eq!(receive(&mut b, 2).await, [b"one", b"two"]);
    }

    #[tokio::test]
    async fn while_the_send_buffer_is_full_replies_go_and_queries_wait_in_order() {
        let (mut a, mut b) = (port(0), port(1));
        // Not warmed up: to the runtime the socket cannot send yet, as with a full buffer.
        a.send(&outbox(b.socket.local_addr(), Class::Reply, &[b"reply"]));
        a.send(&outbox(b.socket.local_addr(), Class::Query, &[b"first", b"second"]));
        assert_eq!((a.counters().replies_dropped, a.waiting.len()), (1, 2));
        for _ in 0..MAX_WAITING {
            a.send(&outbox(b.socket.local_addr(), Class::Query, &[b"more"]));
        }
        assert_eq!((a.counters().queries_dropped, a.waiting.len()), (2, MAX_WAITING));
        std::future::poll_fn(|cx| a.poll_ready(cx)).await;
        a.send(&outbox(b.socket.local_addr(), Class::Query, &[b"last"]));
        assert!(a.waiting.is_empty());
        let got = receive(&mut b, MAX_WAITING + 1).await;
        assert_eq!(
            (&got[0][..], &got[1][..], &got[MAX_WAITING][..]),
            (&b"first"[..], &b"second"[..], &b"last"[..])
        );
    }
}
