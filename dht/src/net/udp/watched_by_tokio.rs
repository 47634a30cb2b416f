//! [`Watched`] for systems without epoll: tokio's own socket, whose two directions are watched together.

use std::io;
use std::net::UdpSocket;
use std::task::{Context, Poll};

use tokio::io::Interest;

/// A non-blocking socket, watched.
#[derive(Debug)]
pub(super) struct Watched {
    io: tokio::net::UdpSocket,
    /// The same socket, for calls that tokio does not wrap.
    socket: UdpSocket,
}

impl Watched {
    /// Needs a tokio runtime with I/O.
    ///
    /// # Errors
    /// When the system cannot watch one more socket.
    pub(super) fn new(socket: UdpSocket) -> io::Result<Self> {
        Ok(Self { io: tokio::net::UdpSocket::from_std(socket.try_clone()?)?, socket })
    }

    /// The socket itself.
    pub(super) fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// Receives if something may be there. [`io::ErrorKind::WouldBlock`], from here or from `receive`, means
    /// that nothing is until [`Watched::poll_readable`] says so.
    pub(super) fn try_read<R>(&self, receive: impl FnOnce(&UdpSocket) -> io::Result<R>) -> io::Result<R> {
        self.io.try_io(Interest::READABLE, || receive(&self.socket))
    }

    /// Sends if there may be room. [`io::ErrorKind::WouldBlock`], from here or from `send`, means that there
    /// is none until [`Watched::poll_writable`] says so.
    pub(super) fn try_write<R>(&mut self, send: impl FnOnce(&UdpSocket) -> io::Result<R>) -> io::Result<R> {
        self.io.try_io(Interest::WRITABLE, || send(&self.socket))
    }

    /// Tokio takes a fresh socket for full by itself.
    #[cfg(test)]
    pub(super) fn set_full(&mut self) {}

    /// Whether a datagram may be there; wakes the task when one comes.
    pub(super) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.poll_recv_ready(cx)
    }

    /// Whether there may be room; wakes the task when there is.
    pub(super) fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.poll_send_ready(cx)
    }
}
