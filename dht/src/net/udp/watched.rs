//! [`Watched`]: a socket of which the runtime tells when a datagram is there, and when there is room to send
//! if there was none.
//!
//! A socket that is watched for room wakes the thread after each datagram that has left it, which cost as
//! much as receiving one. So room is watched from a full send buffer to the next datagram that went.
use std::io;
use std::net::UdpSocket;
use std::task::{Context, Poll, ready};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::sys::watch;

/// A non-blocking socket, watched.
#[derive(Debug)]
pub(super) struct Watched {
    incoming: AsyncFd<UdpSocket>,
    /// The last datagram found no room.
    is_full: bool,
    /// A second handle of the socket while it is full. Without it (the process may have no handle left)
    /// the next turn tries again.
    room: Option<AsyncFd<UdpSocket>>,
}

impl Watched {
    /// Needs a tokio runtime with I/O.
    ///
    /// # Errors
    /// When the system cannot watch one more socket.
    pub(super) fn new(socket: UdpSocket) -> io::Result<Self> {
        Ok(Self { incoming: watch(socket, Interest::READABLE)?, is_full: false, room: None })
    }

    /// The socket itself.
    pub(super) fn socket(&self) -> &UdpSocket {
        self.incoming.get_ref()
    }

    /// Receives if something may be there. [`io::ErrorKind::WouldBlock`], from here or from `receive`, means
    /// that nothing is until [`Watched::poll_readable`] says so.
    pub(super) fn try_read<R>(&self, receive: impl FnOnce(&UdpSocket) -> io::Result<R>) -> io::Result<R> {
        self.incoming.try_io(Interest::READABLE, receive)
    }

    /// Sends if there may be room. [`io::ErrorKind::WouldBlock`], from here or from `send`, means that there
    /// is none until [`Watched::poll_writable`] says so.
    pub(super) fn try_write<R>(&mut self, send: impl FnOnce(&UdpSocket) -> io::Result<R>) -> io::Result<R> {
        let sent = match &self.room {
            Some(room) => room.try_io(Interest::WRITABLE, send),
            None => send(self.socket()),
        };
        self.is_full = matches!(&sent, Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        if !self.is_full {
            self.room = None;
        } else if self.room.is_none() {
            self.watch_room();
        }
        sent
    }

    /// Whether the last datagram found no room.
    pub(super) fn is_full(&self) -> bool {
        self.is_full
    }

    fn watch_room(&mut self) {
        self.room = self.socket().try_clone().and_then(|again| watch(again, Interest::WRITABLE)).ok();
    }

    /// As after a datagram that found no room; the runtime will find that there is some.
    #[cfg(test)]
    pub(super) fn set_full(&mut self) {
        self.is_full = true;
        self.watch_room();
    }

    /// Whether a datagram may be there; wakes the task when one comes.
    pub(super) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The guard is let go without a word: what it says stays true until a receive call finds nothing.
        ready!(self.incoming.poll_read_ready(cx))?.retain_ready();
        Poll::Ready(Ok(()))
    }

    /// Whether there may be room; wakes the task when there is.
    pub(super) fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.room {
            Some(room) => {
                ready!(room.poll_write_ready(cx))?.retain_ready();
                Poll::Ready(Ok(()))
            }
            None if self.is_full => Poll::Pending,
            None => Poll::Ready(Ok(())),
        }
    }
}
