//! [`Port`]: one UDP socket of a node and what could not be sent yet.
//!
//! When the send buffer is full, replies are dropped and our own queries wait: a stranger will ask
//! again, while a lost query costs a lookup one of its slots.
//!
//! A socket that does not work any more is bound anew at the same address and port: one whose address
//! was away, and one whose calls fail for [`BROKEN_AFTER`] for reasons that lie in the socket and not
//! in the network.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use arrayvec::ArrayVec;

use super::link::Link;
use super::tempo::Tempo;
use super::udp::{Answers, BATCH, Batch, Batching, Datagram, UdpCounters, UdpSocket};
use crate::{Class, Outbox, Time, Transmit};

/// Queries that wait for room in the send buffer; further ones are dropped, and time out.
const MAX_WAITING: usize = 256;
/// A socket whose every call has failed for so long is broken.
const BROKEN_AFTER: Duration = Duration::from_secs(5);
/// Pause between attempts to bind a port anew.
const REBIND_PAUSE: Duration = Duration::from_secs(5);

/// A socket and its queue.
#[derive(Debug)]
pub(crate) struct Port {
    index: u8,
    local: SocketAddr,
    /// Other shards have sockets at the same address.
    is_shared: bool,
    answers: Answers,
    /// Of what comes, if it may wait for that with its thread.
    tempo: Option<Tempo>,
    /// None while the address cannot be bound.
    socket: Option<Box<UdpSocket>>,
    health: Health,
    /// No attempt to bind anew before this.
    rebind_at: Time,
    /// Counters of the sockets before this one.
    earlier: UdpCounters,
    waiting: VecDeque<(SocketAddr, Box<[u8]>)>,
    /// The emulated line of a testnet's node.
    link: Option<Box<Link>>,
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
    /// Times that the socket was bound anew.
    pub rebinds: u64,
    /// Datagrams lost on purpose, by the emulated line of a testnet's node.
    pub lost_on_purpose: u64,
}

impl PortCounters {
    /// Adds the counts of another socket at the same address.
    pub fn merge(&mut self, other: &Self) {
        self.udp = sum(&self.udp, &other.udp);
        self.replies_dropped += other.replies_dropped;
        self.queries_dropped += other.queries_dropped;
        self.foreign += other.foreign;
        self.rebinds += other.rebinds;
        self.lost_on_purpose += other.lost_on_purpose;
    }
}

/// Whether the calls of a socket work.
#[derive(Debug, Default)]
struct Health {
    /// The first failure since a call worked.
    failing: Option<Time>,
}

impl Health {
    /// Notes how a call went.
    fn note(&mut self, now: Time, error: Option<&io::Error>) {
        match error {
            Some(error) if is_of_the_socket(error) => {
                self.failing.get_or_insert(now);
            }
            // The network's errors say that the socket works.
            _ => self.failing = None,
        }
    }

    fn is_broken(&self, now: Time) -> bool {
        self.failing.is_some_and(|since| now.since(since) >= BROKEN_AFTER)
    }
}

impl Port {
    pub(crate) fn new(index: u8, socket: UdpSocket) -> Self {
        Self {
            index,
            local: socket.local_addr(),
            is_shared: socket.is_shared(),
            answers: Answers::default(),
            tempo: None,
            socket: Some(socket.into()),
            health: Health::default(),
            rebind_at: Time::ZERO,
            earlier: UdpCounters::default(),
            waiting: VecDeque::new(),
            link: None,
            counters: PortCounters::default(),
        }
    }

    /// The same behind an emulated line, if there is one.
    pub(crate) fn behind(self, link: Option<Link>) -> Self {
        Self { link: link.map(Box::new), ..self }
    }

    /// Receives what is there; see [`UdpSocket::recv_batch`].
    pub(super) fn receive(&mut self, now: Time) -> io::Result<Option<Batch<'_>>> {
        let Some(socket) = &mut self.socket else { return Ok(None) };
        let received = socket.recv_batch();
        match &received {
            // That nothing is there says nothing about the socket.
            Ok(batch) if batch.len() == 0 => {}
            Ok(_) => {
                self.health.note(now, None);
                self.tempo.iter_mut().for_each(|tempo| tempo.came(now));
            }
            Err(error) => self.health.note(now, Some(error)),
        }
        received.map(Some)
    }

    /// Binds the socket anew if it is broken, or was lost; whether it was.
    pub(super) fn repair(&mut self, now: Time) -> Option<io::Result<()>> {
        let is_wanting = self.socket.is_none() || self.health.is_broken(now);
        (is_wanting && now >= self.rebind_at).then(|| self.rebind(now))
    }

    /// Binds the socket anew. Meanwhile, and if it fails, there is none: [`Port::repair`] tries again.
    ///
    /// # Errors
    /// What the system says; see [`UdpSocket::bind`].
    pub(super) fn rebind(&mut self, now: Time) -> io::Result<()> {
        // The old one holds the port, which nobody but other shards may share.
        if let Some(socket) = self.socket.take() {
            self.earlier = sum(&self.earlier, &socket.counters());
        }
        self.rebind_at = now + REBIND_PAUSE;
        let bind = if self.is_shared { UdpSocket::bind_beside } else { UdpSocket::bind };
        let mut socket = bind(self.local, Batching::Native)?;
        if self.answers != Answers::default() {
            socket.set_answers(self.answers)?;
        }
        if self.tempo.is_some() {
            socket.allow_linger()?;
        }
        self.socket = Some(socket.into());
        self.health = Health::default();
        self.counters.rebinds += 1;
        Ok(())
    }

    /// From which of its addresses it answers from now on, with the sockets that it is bound anew by, too.
    ///
    /// # Errors
    /// See [`UdpSocket::set_answers`]; it goes on as before then.
    pub(super) fn set_answers(&mut self, answers: Answers) -> io::Result<()> {
        if answers == self.answers {
            return Ok(());
        }
        if let Some(socket) = &mut self.socket {
            socket.set_answers(answers)?;
        }
        self.answers = answers;
        Ok(())
    }

    /// Lets it [`linger`](Self::linger) where the system knows how, with the sockets that it is bound anew
    /// by, too.
    pub(super) fn allow_linger(&mut self) {
        match self.socket.as_mut().map_or(Ok(()), |socket| socket.allow_linger()) {
            Ok(()) => self.tempo = Some(Tempo::new()),
            Err(error) => tracing::debug!(local = %self.local, %error, "a socket that cannot linger"),
        }
    }

    /// Waits a moment for datagrams, with its thread, if it may, they come one after the other and nothing
    /// else is to be done at it; whether there are some. See [`UdpSocket::linger`].
    pub(super) fn linger(&mut self) -> bool {
        let Some(tempo) = self.tempo.as_mut().filter(|tempo| tempo.is_quick()) else { return false };
        if !self.waiting.is_empty() || self.link.is_some() {
            return false;
        }
        let came = self.socket.as_mut().is_some_and(|socket| socket.linger());
        if !came {
            tempo.end();
        }
        came
    }

    /// Counts a datagram that was no KRPC.
    pub(super) fn foreign(&mut self, count: u64) {
        self.counters.foreign += count;
    }

    /// Sends what `out` holds for this socket, behind what waits already; `sources` says from where, in the
    /// order of `out`, if not from where the system chooses. The last error of a datagram that the system
    /// refused, if one was. Behind an emulated line it sends what has come to its end.
    pub(super) fn send(&mut self, now: Time, out: &Outbox, sources: &[Source]) -> Option<io::Error> {
        let Some(mut link) = self.link.take() else { return self.send_now(now, out, sources) };
        // An emulated line has one end.
        let error = self.send_now(now, link.pass(now, self.index, out), &[]);
        self.link = Some(link);
        error
    }

    fn send_now(&mut self, now: Time, out: &Outbox, sources: &[Source]) -> Option<io::Error> {
        if out.transmits.is_empty() && self.waiting.is_empty() {
            return None;
        }
        let Some(mut socket) = self.socket.take() else {
            // As if there were no room.
            let index = self.index;
            for transmit in out.transmits.iter().filter(|transmit| transmit.socket == index) {
                self.postpone(transmit.class, transmit.to, out.datagram(transmit));
            }
            return None;
        };
        let sent = socket.counters().sent;
        let error = self.send_by(&mut socket, out, sources);
        if error.is_some() || socket.counters().sent > sent {
            self.health.note(now, error.as_ref().filter(|_| socket.counters().sent == sent));
        }
        self.socket = Some(socket);
        error
    }

    fn send_by(&mut self, socket: &mut UdpSocket, out: &Outbox, mut sources: &[Source]) -> Option<io::Error> {
        let mut error = self.send_waiting(socket);
        let index = self.index;
        let all = out.transmits.iter().enumerate();
        let mut mine = all.filter(|(_, transmit)| transmit.socket == index).peekable();
        while self.waiting.is_empty() && mine.peek().is_some() {
            // Filled where they are: to collect them moves all the room, of which one reply needs little.
            let mut chunk = ArrayVec::<&Transmit, BATCH>::new();
            let mut datagrams = ArrayVec::<Datagram<'_>, BATCH>::new();
            for (nth, transmit) in mine.by_ref().take(BATCH) {
                chunk.push(transmit);
                let from = source(&mut sources, nth);
                datagrams.push(Datagram { to: transmit.to, from, bytes: out.datagram(transmit) });
            }
            let sent = socket.send_batch(&datagrams);
            error = sent.error.or(error);
            if sent.done < chunk.len() {
                for transmit in &chunk[sent.done..] {
                    self.postpone(transmit.class, transmit.to, out.datagram(transmit));
                }
                break;
            }
        }
        for (_, transmit) in mine {
            self.postpone(transmit.class, transmit.to, out.datagram(transmit));
        }
        error
    }

    /// Waits for a datagram, or for room if queries wait for it. Cancel safe.
    pub(super) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(socket) = &self.socket else { return Poll::Pending };
        if !self.waiting.is_empty() && socket.poll_writable(cx).is_ready() {
            return Poll::Ready(());
        }
        // An error shows at the next receive, where it is counted.
        let _ = ready!(socket.poll_readable(cx));
        Poll::Ready(())
    }

    /// When [`Port::send`] wants to be called for what is on an emulated line.
    pub(super) fn due(&self) -> Time {
        self.link.as_ref().map_or(Time::NEVER, |link| link.due())
    }

    /// Waits until the runtime knows that the socket can send; without this, the first datagrams of
    /// a fresh socket would have to wait.
    pub(super) async fn warm_up(&self) -> io::Result<()> {
        match &self.socket {
            Some(socket) => socket.writable().await,
            None => Ok(()),
        }
    }

    pub(super) fn local(&self) -> SocketAddr {
        self.local
    }

    pub(super) fn is_ipv6(&self) -> bool {
        self.local.is_ipv6()
    }

    pub(super) fn counters(&self) -> PortCounters {
        let now = self.socket.as_ref().map(|socket| socket.counters()).unwrap_or_default();
        let lost_on_purpose = self.link.as_ref().map_or(0, |link| link.lost());
        PortCounters { udp: sum(&self.earlier, &now), lost_on_purpose, ..self.counters }
    }

    fn send_waiting(&mut self, socket: &mut UdpSocket) -> Option<io::Error> {
        let mut error = None;
        while !self.waiting.is_empty() {
            let datagrams: ArrayVec<_, BATCH> = self
                .waiting
                .iter()
                .take(BATCH)
                .map(|(to, bytes)| Datagram { to: *to, from: None, bytes })
                .collect();
            let (sent, given) = (socket.send_batch(&datagrams), datagrams.len());
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

/// The address of ours from which a datagram is to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Source {
    /// Its place in [`Outbox::transmits`].
    pub(super) nth: usize,
    pub(super) ip: IpAddr,
}

/// The source of the `nth` datagram; asked for one after the other, of `sources` in the same order.
fn source(sources: &mut &[Source], nth: usize) -> Option<IpAddr> {
    while let Some((first, rest)) = sources.split_first()
        && first.nth <= nth
    {
        *sources = rest;
        if first.nth == nth {
            return Some(first.ip);
        }
    }
    None
}

/// Counts of two sockets in one.
fn sum(a: &UdpCounters, b: &UdpCounters) -> UdpCounters {
    UdpCounters {
        received: a.received + b.received,
        truncated: a.truncated + b.truncated,
        receive_errors: a.receive_errors + b.receive_errors,
        lingered: a.lingered + b.lingered,
        sent: a.sent + b.sent,
        send_errors: a.send_errors + b.send_errors,
    }
}

/// Whether an error lies in the socket itself and not in the network, a firewall or a datagram.
fn is_of_the_socket(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;

    #[cfg(unix)]
    if matches!(
        error.raw_os_error(),
        Some(libc::EMSGSIZE | libc::ENOBUFS | libc::ENOPROTOOPT | libc::EHOSTDOWN)
    ) {
        return false;
    }
    !matches!(
        error.kind(),
        Kind::NetworkUnreachable
            | Kind::HostUnreachable
            | Kind::NetworkDown
            | Kind::AddrNotAvailable
            | Kind::ConnectionRefused
            | Kind::ConnectionReset
            | Kind::PermissionDenied
            | Kind::OutOfMemory
            // Linux says so of a datagram when the address that the socket is bound to is away.
            | Kind::InvalidInput
    )
}

#[cfg(test)]
mod tests;
