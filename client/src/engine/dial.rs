//! Outgoing TCP connections: within a cap on half-open ones, given up after [`DIAL_TIMEOUT`].

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};

use super::shared::Shared;

/// A connection that is not open after this will not be.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections being opened by a session at once. Home routers and firewalls dislike more.
pub(super) const HALF_OPEN: usize = 64;

/// Opens a connection, after waiting for a place among the half-open ones.
pub(super) async fn dial(session: &Shared, addr: SocketAddr) -> io::Result<TcpStream> {
    let _place = session.half_open.acquire().await.map_err(io::Error::other)?;
    let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(source) = session.source_for(addr)? {
        socket.bind(source)?;
    }
    match tokio::time::timeout(DIAL_TIMEOUT, socket.connect(addr)).await {
        Ok(connected) => connected,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}
