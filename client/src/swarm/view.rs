//! What a swarm shows of itself, its connections and files.

use std::net::SocketAddr;
use std::time::Duration;

use btdht::Time;

use super::conns::Conn;
use super::tracker_view::TrackerView;
use super::transfer::Transfer;
use super::{Intake, Source, Status, Swarm};

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
    /// How it stands.
    pub fn status(&self, now: Time) -> Status {
        let totals = self.totals();
        let rate_down = self.down.per_second(now);
        let left = self.transfer().map_or(0, Transfer::left);
        Status {
            downloaded: totals.downloaded,
            uploaded: totals.uploaded,
            wasted: self.wasted,
            wanted: self.transfer().map_or(0, Transfer::wanted_bytes),
            left,
            complete: self.is_complete(),
            seed: self.is_seed(),
            rate_down,
            rate_up: self.up.per_second(now),
            peers: self.conns.open() as u32,
            seeds: self.conns.iter().filter(|conn| conn.has.is_all()).count() as u32,
            known: self.known.len() as u32,
            failed_dials: self.failed_dials,
            eta: (rate_down > 0 && left > 0).then(|| Duration::from_secs(left.div_ceil(rate_down))),
            checked: 0,
            to_check: 0,
        }
    }

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

    /// Its trackers, tier by tier, in the order in which they are tried.
    pub fn trackers(&self, now: Time) -> Vec<TrackerView> {
        self.announce.view(now)
    }

    /// What it takes for let in by the shell: see [`Limits::intake`](super::Limits::intake).
    pub fn intake(&self) -> Intake {
        self.limits.intake
    }

    /// The priority of a file; 0 when it is not wanted.
    pub fn priority(&self, file: usize) -> u16 {
        self.select.priority(file)
    }
}
