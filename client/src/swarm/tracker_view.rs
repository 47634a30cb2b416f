//! What a swarm shows of its trackers.

use std::time::Duration;

use super::io::TrackerId;
use crate::tracker::TrackerError;

/// A tracker of a torrent. The trackers of a tier are asked in turn until one answers, which is then the
/// first to be asked (BEP 12); each tier is asked on its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackerView {
    /// What it is known by.
    pub id: TrackerId,
    /// Its tier, the first one 0. Of a magnet, and of those that the user named, each is its own tier.
    pub tier: usize,
    /// Its URL as it was given. It may hold a key that is nobody else's business.
    pub url: String,
    /// How it stands.
    pub state: TrackerState,
    /// How long ago the last announce to it ended, one way or the other.
    pub last: Option<Duration>,
    /// When it is asked next; `None` while it is asked, when another one of its tier is to be asked before,
    /// and when it never is.
    pub next: Option<Duration>,
    /// Why the last announce came to nothing.
    pub error: Option<TrackerError>,
    /// Peers that its last answer named.
    pub peers: u32,
    /// Peers that have everything, as its last answer says.
    pub seeds: Option<u32>,
    /// Peers that lack something, as its last answer says.
    pub leechers: Option<u32>,
}

/// How a tracker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrackerState {
    /// It was not asked yet.
    Unasked,
    /// It is being asked.
    Asking,
    /// It answered when it was asked last.
    Working,
    /// The last announce to it came to nothing.
    Failed,
    /// It cannot be asked, or has said that it must not be again (BEP 31).
    Dead,
}
