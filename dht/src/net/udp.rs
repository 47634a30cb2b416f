//! [`UdpSocket`]: a UDP socket that receives and sends in batches: `recvmmsg` and `sendmmsg` on
//! Linux, one call a datagram elsewhere, behind the same two methods.
//!
//! Knows nothing of what the datagrams mean, and nothing of the rest of this crate. All unsafe code
//! of the package is in `udp/sys.rs`.
//!
//! One system call for up to [`BATCH`] datagrams is worth the trouble because the kernel's share is
//! most of what a small datagram costs. quinn-udp has no `sendmmsg`, rustix no `recvmmsg`.

#[cfg(target_os = "linux")]
mod control;
mod slots;
#[cfg(target_os = "linux")]
mod sys;
#[cfg(target_os = "linux")]
mod watched;
#[cfg(not(target_os = "linux"))]
#[path = "udp/watched_by_tokio.rs"]
mod watched;

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use arrayvec::ArrayVec;
use socket2::{Domain, Protocol, Socket, Type};

use self::slots::{Filled, SLOT};
use self::watched::Watched;

pub use self::slots::{Answers, BATCH, Batch, Datagram, MAX_DATAGRAM, Received};

/// Asked of the kernel for incoming datagrams: a burst of 28,000 small queries. The kernel gives
/// what `net.core.rmem_max` allows.
const RECEIVE_BUFFER: usize = 8 << 20;
/// Asked of the kernel for outgoing datagrams.
const SEND_BUFFER: usize = 4 << 20;
/// Asked of the kernel as the longest wait of [`UdpSocket::linger`]: one of its ticks.
#[cfg(target_os = "linux")]
const LINGER: Duration = Duration::from_millis(1);
/// What that comes to at most with 250 ticks a second, as most systems have, in which one may count as two;
/// 20 ms with 100.
pub const LONGEST_LINGER: Duration = Duration::from_millis(8);
/// Errors of the receive call that one batch shrugs off before it gives up for this turn.
const RECEIVE_ERRORS: usize = 16;

/// How a socket moves datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Batching {
    /// The best that the system has.
    Native,
    /// One system call a datagram, as on systems without `recvmmsg`.
    Single,
}

/// What became of a list of datagrams.
#[derive(Debug, Default)]
pub struct Sent {
    /// Datagrams from the front of the list that are done with, sent or skipped. Fewer than were
    /// given means that the send buffer is full: the rest was not tried.
    pub done: usize,
    /// Of these, how many the system refused, each for a reason of its own (no route, refused by an
    /// earlier ICMP message, too long, filtered).
    pub skipped: usize,
    /// The last reason.
    pub error: Option<io::Error>,
}

/// What happened on a socket besides datagrams that went through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UdpCounters {
    /// Datagrams handed on.
    pub received: u64,
    /// Datagrams longer than [`MAX_DATAGRAM`], dropped.
    pub truncated: u64,
    /// Errors of the receive call (an ICMP message about an earlier datagram), passed over.
    pub receive_errors: u64,
    /// Receive calls that [waited](UdpSocket::linger) and found something.
    pub lingered: u64,
    /// Datagrams given to the kernel.
    pub sent: u64,
    /// Datagrams that the kernel refused.
    pub send_errors: u64,
}

/// A bound UDP socket with its buffers, which waits nowhere but in [`linger`](Self::linger). Needs a tokio runtime with I/O.
#[derive(Debug)]
pub struct UdpSocket {
    io: Watched,
    local: SocketAddr,
    is_shared: bool,
    slots: Box<[u8]>,
    filled: ArrayVec<Filled, BATCH>,
    /// What is filled was not handed on yet.
    is_held: bool,
    /// Its calls may wait in the kernel; each one that must not says so.
    #[cfg(target_os = "linux")]
    can_linger: bool,
    /// Nothing was there when the socket was asked once more, and nothing but single datagrams since.
    #[cfg(target_os = "linux")]
    lull: bool,
    #[cfg(target_os = "linux")]
    headers: Option<Box<sys::Headers>>,
    counters: UdpCounters,
}

impl UdpSocket {
    /// Binds `addr`, alone: no other process may share the port. An IPv6 socket takes IPv6 only.
    ///
    /// # Errors
    /// What the system says; [`io::ErrorKind::AddrInUse`] for a busy port.
    pub fn bind(addr: SocketAddr, batching: Batching) -> io::Result<Self> {
        Self::open(addr, batching, false)
    }

    /// Binds `addr` beside the sockets there that are [shared](Self::share). The system spreads senders
    /// over them by address and port; each sender's datagrams come to one socket while none comes or goes.
    ///
    /// # Errors
    /// What the system says; [`io::ErrorKind::AddrInUse`] if a socket there is not shared, and
    /// [`io::ErrorKind::Unsupported`] where there is no such thing ([`CAN_SHARE`]).
    pub fn bind_beside(addr: SocketAddr, batching: Batching) -> io::Result<Self> {
        Self::open(addr, batching, true)
    }

    /// Lets others of this user be bound [beside](Self::bind_beside) this socket. Until then it had its
    /// address alone, so that a port that somebody else has is still an error.
    ///
    /// # Errors
    /// What the system says.
    pub fn share(&mut self) -> io::Result<()> {
        share(&socket2::SockRef::from(self.io.socket()))?;
        self.is_shared = true;
        Ok(())
    }

    /// Whether others may be bound beside it.
    pub fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// Has it answer so from now on.
    ///
    /// # Errors
    /// What the system says, and [`io::ErrorKind::Unsupported`] where it or [`Batching::Single`] knows one
    /// way only.
    #[cfg(target_os = "linux")]
    pub fn set_answers(&mut self, answers: Answers) -> io::Result<()> {
        let Some(headers) = &mut self.headers else { return only_as_routed(answers) };
        sys::tell_asked(self.io.socket(), self.local.is_ipv6(), answers)?;
        headers.set_answers(answers);
        Ok(())
    }

    /// Has it answer so from now on.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] for [`Answers::AsAsked`], which is known on Linux only.
    #[cfg(not(target_os = "linux"))]
    pub fn set_answers(&mut self, answers: Answers) -> io::Result<()> {
        only_as_routed(answers)
    }

    fn open(addr: SocketAddr, batching: Batching, is_shared: bool) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
        if addr.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_nonblocking(true)?;
        // A smaller buffer than asked for loses datagrams in bursts; it is no reason not to start.
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
        let _ = socket.set_send_buffer_size(SEND_BUFFER);
        #[cfg(target_os = "linux")]
        if addr.is_ipv4() {
            sys::send_whole(&socket);
        }
        if is_shared {
            share(&socket2::SockRef::from(&socket))?;
        }
        socket.bind(&addr.into())?;
        let socket = std::net::UdpSocket::from(socket);
        let local = socket.local_addr()?;
        let io = Watched::new(socket)?;
        #[cfg(not(target_os = "linux"))]
        let _ = batching;
        Ok(Self {
            io,
            local,
            is_shared,
            slots: vec![0; BATCH * SLOT].into(),
            filled: ArrayVec::new(),
            is_held: false,
            #[cfg(target_os = "linux")]
            can_linger: false,
            #[cfg(target_os = "linux")]
            lull: true,
            #[cfg(target_os = "linux")]
            headers: (batching == Batching::Native).then(sys::Headers::new),
            counters: UdpCounters::default(),
        })
    }

    /// Receives what is there, at most [`BATCH`] datagrams, without waiting. Empty when nothing is.
    ///
    /// # Errors
    /// Only when the receive call fails again and again; the next turn may find it cured.
    pub fn recv_batch(&mut self) -> io::Result<Batch<'_>> {
        if std::mem::take(&mut self.is_held) {
            return Ok(self.batch());
        }
        self.filled.clear();
        for _ in 0..RECEIVE_ERRORS {
            match self.recv() {
                Ok(()) => return Ok(self.batch()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(self.batch()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Typically ECONNREFUSED: the echo of a datagram that we sent to a closed port.
                Err(_) => self.counters.receive_errors += 1,
            }
        }
        let error = self.io.socket().take_error()?.unwrap_or_else(|| io::ErrorKind::Other.into());
        if self.filled.is_empty() { Err(error) } else { Ok(self.batch()) }
    }

    /// Lets it [`linger`](Self::linger).
    ///
    /// # Errors
    /// What the system says, and [`io::ErrorKind::Unsupported`] where it or [`Batching::Single`] knows no such
    /// thing.
    #[cfg(target_os = "linux")]
    pub fn allow_linger(&mut self) -> io::Result<()> {
        if self.headers.is_none() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let socket = self.io.socket();
        // One that lets everything pass. Without any, the kernel looks at checksums when a datagram is read:
        // each wrong one is dropped then and the wait begins anew, for as long as somebody sends such ones.
        const RETURN_ALL: socket2::SockFilter = socket2::SockFilter::new(0x06, 0, 0, u32::MAX);
        socket2::SockRef::from(socket).attach_filter(&[RETURN_ALL])?;
        socket.set_read_timeout(Some(LINGER))?;
        socket.set_nonblocking(false)?;
        self.can_linger = true;
        Ok(())
    }

    /// Lets it [`linger`](Self::linger).
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`]: it is known on Linux only.
    #[cfg(not(target_os = "linux"))]
    pub fn allow_linger(&mut self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Waits for datagrams in the receive call itself, with its thread, for [`LONGEST_LINGER`] or so; whether
    /// there is something for [`recv_batch`](Self::recv_batch). While one comes after the other this
    /// saves asking the runtime when the next one is there, which is a third of the calls and wakes more than
    /// the thread. `false` at once if it is not [allowed](Self::allow_linger), or the send buffer is
    /// full: of its room the runtime tells.
    #[cfg(target_os = "linux")]
    pub fn linger(&mut self) -> bool {
        use std::os::fd::AsRawFd as _;

        let Some(headers) = self.headers.as_mut().filter(|_| self.can_linger && !self.is_held) else {
            return self.is_held;
        };
        if self.io.is_full() {
            return false;
        }
        let socket = self.io.socket().as_raw_fd();
        match headers.receive(socket, sys::Wait::ForOne, &mut self.slots, &mut self.filled) {
            Ok((_, truncated)) => {
                self.counters.truncated += truncated;
                self.counters.lingered += 1;
                self.is_held = !self.filled.is_empty();
                self.is_held
            }
            Err(error) => {
                let is_told = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted);
                self.counters.receive_errors += u64::from(!is_told);
                false
            }
        }
    }

    /// `false`: it is known on Linux only.
    #[cfg(not(target_os = "linux"))]
    pub fn linger(&mut self) -> bool {
        self.is_held
    }

    /// Sends `datagrams` in order, until the send buffer is full. A datagram that the system refuses
    /// is skipped and counted, never the end of the list.
    pub fn send_batch(&mut self, datagrams: &[Datagram<'_>]) -> Sent {
        let mut sent = Sent::default();
        while let Some(rest) = datagrams.get(sent.done..).filter(|rest| !rest.is_empty()) {
            match self.send(rest) {
                Ok(count) => {
                    sent.done += count;
                    self.counters.sent += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    sent.done += 1;
                    sent.skipped += 1;
                    sent.error = Some(error);
                    self.counters.send_errors += 1;
                }
            }
        }
        sent
    }

    /// Waits until a datagram is there. Cancel safe.
    ///
    /// # Errors
    /// When the runtime is shutting down.
    pub async fn readable(&self) -> io::Result<()> {
        poll_fn(|cx| self.io.poll_readable(cx)).await
    }

    /// Whether a datagram is there; wakes the task when one comes. Remembers one task only.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.poll_readable(cx)
    }

    /// Whether the send buffer has room; wakes the task when it has. Remembers one task only.
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.poll_writable(cx)
    }

    /// Waits until the send buffer has room. Cancel safe.
    ///
    /// # Errors
    /// When the runtime is shutting down.
    pub async fn writable(&self) -> io::Result<()> {
        poll_fn(|cx| self.io.poll_writable(cx)).await
    }

    /// As after a datagram that found the send buffer full, until the runtime has looked.
    #[cfg(test)]
    pub(super) fn set_full(&mut self) {
        self.io.set_full();
    }

    /// The address bound.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Bytes that the kernel keeps for incoming datagrams, as it says itself.
    ///
    /// # Errors
    /// What the system says.
    pub fn receive_buffer(&self) -> io::Result<usize> {
        socket2::SockRef::from(self.io.socket()).recv_buffer_size()
    }

    /// What happened so far.
    pub fn counters(&self) -> UdpCounters {
        self.counters
    }

    fn batch(&mut self) -> Batch<'_> {
        self.counters.received += self.filled.len() as u64;
        Batch::new(&self.slots, &self.filled)
    }

    #[cfg(target_os = "linux")]
    fn recv(&mut self) -> io::Result<()> {
        use std::os::fd::AsRawFd as _;

        let Some(headers) = &mut self.headers else { return self.recv_singly() };
        let (io, slots, filled, lull) = (&self.io, &mut self.slots, &mut self.filled, &mut self.lull);
        let mut dropped = 0;
        let received = io.try_read(|socket| {
            let received = headers.receive(socket.as_raw_fd(), sys::Wait::No, slots, filled);
            *lull |= received.is_err();
            let (taken, truncated) = received?;
            dropped = truncated;
            // A batch that is not full has emptied the socket. Saying so here saves the call that would
            // find nothing; a datagram that comes meanwhile makes the socket ready anew. But while much
            // comes, more has come by the next call, and asking is cheaper than waiting.
            if taken > 1 || taken == 1 && !*lull {
                *lull = false;
                return Ok(());
            }
            Err(io::ErrorKind::WouldBlock.into())
        });
        self.counters.truncated += dropped;
        received
    }

    #[cfg(not(target_os = "linux"))]
    fn recv(&mut self) -> io::Result<()> {
        self.recv_singly()
    }

    fn recv_singly(&mut self) -> io::Result<()> {
        for _ in 0..BATCH {
            let slot = self.filled.len();
            if slot == BATCH {
                break;
            }
            let buffer = &mut self.slots[slot * SLOT..][..SLOT];
            let (len, from) = self.io.try_read(|socket| socket.recv_from(buffer))?;
            if len > MAX_DATAGRAM {
                self.counters.truncated += 1;
            } else {
                self.filled.push(Filled { slot, len, from, asked: None });
            }
        }
        Ok(())
    }

    #[cfg(target_os = "linux")]
    fn send(&mut self, datagrams: &[Datagram<'_>]) -> io::Result<usize> {
        use std::os::fd::AsRawFd as _;

        let Some(headers) = &mut self.headers else { return self.send_singly(datagrams) };
        self.io.try_write(|socket| headers.send(socket.as_raw_fd(), datagrams))
    }

    #[cfg(not(target_os = "linux"))]
    fn send(&mut self, datagrams: &[Datagram<'_>]) -> io::Result<usize> {
        self.send_singly(datagrams)
    }

    /// Sends the first datagram of a list that is not empty.
    fn send_singly(&mut self, datagrams: &[Datagram<'_>]) -> io::Result<usize> {
        let Some(first) = datagrams.first() else { return Ok(0) };
        self.io.try_write(|socket| socket.send_to(first.bytes, first.to)).map(|_| 1)
    }
}

/// Whether several sockets can have one address and share what comes there. Other systems know the
/// option too, but give everything to the socket that was bound last.
pub const CAN_SHARE: bool = cfg!(target_os = "linux");

#[cfg(target_os = "linux")]
fn share(socket: &socket2::SockRef<'_>) -> io::Result<()> {
    socket.set_reuse_port(true)
}

#[cfg(not(target_os = "linux"))]
fn share(_: &socket2::SockRef<'_>) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

fn only_as_routed(answers: Answers) -> io::Result<()> {
    match answers {
        Answers::AsRouted => Ok(()),
        Answers::AsAsked => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// Whether `error` of a bind says that the machine lacks the address or its whole family.
pub fn is_family_missing(error: &io::Error) -> bool {
    #[cfg(unix)]
    if error.raw_os_error() == Some(libc::EAFNOSUPPORT) {
        return true;
    }
    error.kind() == io::ErrorKind::AddrNotAvailable
}

/// Says aloud why a test ends early, and fails where nothing may be skipped.
#[cfg(test)]
pub(crate) fn skip_without_ipv6() {
    let required = std::env::var_os("INTEROP_REQUIRED").is_some_and(|value| value == "1");
    assert!(!required, "this machine has no IPv6, and INTEROP_REQUIRED=1 allows no skipping");
    eprintln!("SKIPPED: this machine has no IPv6");
}

#[cfg(test)]
mod tests;
