//! What a swarm shows of its connections and files.

use std::net::SocketAddr;

use btdht::Time;

use super::conns::Conn;
use super::{Source, Swarm};

/// A connection, as its torrent sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerView {
    /// The other end.
    pub addr: SocketAddr,
    /// Where its address came from.
    pub source: Source,
    /// What it calls itself.
    pub peer_id: [u8; 20],
    /// Payload bytes received from it.
    pub downloaded: u64,
    /// Payload bytes sent to it.
    pub uploaded: u64,
    /// Bytes per second received.
    pub rate_down: u64,
    /// Bytes per second sent.
    pub rate_up: u64,
    /// Thousandths of the pieces that it has.
    pub has: u16,
    /// It gives us nothing.
    pub chokes_us: bool,
    /// We want something of it.
    pub interests_us: bool,
    /// We give it nothing.
    pub choked: bool,
    /// It wants something of us.
    pub interested: bool,
}

impl Swarm {
    /// The connections that have shaken hands.
    pub fn peers(&self, now: Time) -> Vec<PeerView> {
        let pieces = self.info().map_or(0, |info| info.pieces());
        let view = |conn: &Conn| {
            Some(PeerView {
                addr: conn.addr,
                source: conn.source,
                peer_id: conn.hello?.peer_id,
                downloaded: conn.down.total(),
                uploaded: conn.up.total(),
                rate_down: conn.down.per_second(now),
                rate_up: conn.up.per_second(now),
                has: conn.has.permille(pieces),
                chokes_us: conn.choking,
                interests_us: conn.interested,
                choked: !self.choker.is_unchoked(conn.slot),
                interested: conn.wants,
            })
        };
        self.conns.iter().filter_map(view).collect()
    }

    /// The priority of a file; 0 when it is not wanted.
    pub fn priority(&self, file: usize) -> u16 {
        self.select.priority(file)
    }
}
