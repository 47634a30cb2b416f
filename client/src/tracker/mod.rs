//! Trackers: what an announce says and what comes back, and the forms of the two protocols that
//! carry it.
//!
//! | file | specification |
//! |---|---|
//! | [`http`] | BEP 3, 7, 23, 24, 31 |
//! | [`udp`] | BEP 15, 41 |
//! | [`url`] | schemes, and which addresses a URL of a stranger may lead to |
//!
//! Nothing here opens a socket: `http` writes a URL and reads a body, `udp` is a state machine over
//! datagrams. When to announce to whom is the swarm's business.

pub mod http;
pub mod udp;
pub mod url;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use krpc::Id;

/// Peers kept of one reply (BEP 15 trackers send up to 200 by habit).
pub const MAX_PEERS: usize = 200;
/// Bytes of a tracker's own words that are kept; escaped, so that no control byte gets through.
pub const MAX_TEXT: usize = 64;
/// Longest `tracker id` that is kept and sent back (BEP 3 extension, common practice).
pub const MAX_TRACKER_ID: usize = 256;
/// Shortest time between announces, whatever a tracker asks for.
pub const MIN_INTERVAL: Duration = Duration::from_secs(60);
/// Longest time between announces.
pub const MAX_INTERVAL: Duration = Duration::from_secs(86_400);
/// Interval where a reply names none: what most trackers ask for.
pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(1800);

/// Why we announce (BEP 3, `event`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnnounceEvent {
    /// The first announce.
    Started,
    /// The download has just become complete.
    Completed,
    /// We leave.
    Stopped,
    /// Nothing that we want is missing, though not everything is there (BEP 21).
    Paused,
}

/// What we tell a tracker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announce {
    /// The torrent.
    pub infohash: Id,
    /// Our peer id.
    pub peer_id: [u8; 20],
    /// Where we accept connections.
    pub port: u16,
    /// Payload bytes sent.
    pub uploaded: u64,
    /// Payload bytes received.
    pub downloaded: u64,
    /// Bytes missing; `None` while the size is unknown (magnet), which is sent as [`UNKNOWN_LEFT`].
    pub left: Option<u64>,
    /// Why; `None` for a regular announce.
    pub event: Option<AnnounceEvent>,
    /// Peers wanted.
    pub num_want: u16,
    /// Tells the tracker that we are the same client after our address has changed (BEP 7, BEP 15).
    pub key: u32,
    /// What the tracker gave us to send back ([`AnnounceReply::tracker_id`]).
    pub tracker_id: Option<Vec<u8>>,
}

/// `left` while the size is unknown: 16 KiB, as libtorrent sends. Zero would list us as a seed, and
/// some trackers refuse absurdly large numbers.
pub const UNKNOWN_LEFT: u64 = 16 << 10;

/// A tracker's answer, with everything in it bounded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnnounceReply {
    /// When to announce again, [`MIN_INTERVAL`] to [`MAX_INTERVAL`].
    pub interval: Duration,
    /// Announcing sooner than this may get us banned; at most [`MAX_INTERVAL`].
    pub min_interval: Option<Duration>,
    /// At most [`MAX_PEERS`]. Whether they may be contacted was not checked.
    pub peers: Vec<SocketAddr>,
    /// Peers that have everything.
    pub seeds: Option<u32>,
    /// Peers that lack something.
    pub leechers: Option<u32>,
    /// Our address as the tracker sees it (BEP 24).
    pub external_ip: Option<IpAddr>,
    /// What the tracker wants the user to know, escaped, at most [`MAX_TEXT`] bytes of it.
    pub warning: Option<String>,
    /// To be sent back with later announces, at most [`MAX_TRACKER_ID`] bytes.
    pub tracker_id: Option<Vec<u8>>,
}

/// Why an announce came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrackerError {
    /// No answer in time.
    Timeout,
    /// The tracker says no.
    Refused {
        /// Its words, escaped, at most [`MAX_TEXT`] bytes of them.
        reason: String,
        /// When it may be asked again (BEP 31), if it says so.
        retry: Option<Retry>,
    },
    /// The answer cannot be read.
    Malformed,
    /// It could not be reached; the words of the system or of the HTTP library.
    Network(String),
    /// Its address is local or impossible, and a stranger named it.
    ForbiddenAddress,
    /// A URL of a scheme other than `http`, `https` and `udp`, or no URL.
    UnsupportedScheme,
}

/// When a tracker that refused may be asked again (BEP 31, `retry in`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// After this, at most [`MAX_INTERVAL`].
    In(Duration),
    /// Not at all.
    Never,
}

impl TrackerError {
    /// When the tracker may be asked again, if it said so.
    pub fn retry(&self) -> Option<Retry> {
        match self {
            Self::Refused { retry, .. } => *retry,
            _ => None,
        }
    }
}

impl fmt::Display for TrackerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout => f.write_str("no answer in time"),
            Self::Refused { reason, .. } => write!(f, "refused: {reason}"),
            Self::Malformed => f.write_str("the answer cannot be read"),
            Self::Network(error) => f.write_str(error),
            Self::ForbiddenAddress => {
                f.write_str("the address is local or impossible (--allow-local accepts it)")
            }
            Self::UnsupportedScheme => f.write_str("not an http, https or udp URL"),
        }
    }
}

impl std::error::Error for TrackerError {}

/// A stranger's words for our eyes: escaped, at most [`MAX_TEXT`] bytes of them.
fn printable(text: &[u8]) -> String {
    let (shown, more) = match text.get(..MAX_TEXT) {
        Some(shown) if text.len() > MAX_TEXT => (shown, "..."),
        _ => (text, ""),
    };
    format!("{}{more}", shown.escape_ascii())
}

/// Brings a tracker's number of seconds into our limits.
fn clamp_interval(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0)).clamp(MIN_INTERVAL, MAX_INTERVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trackers_words_are_escaped_and_cut() {
        assert_eq!(printable(b"too many\x1b[31m"), "too many\\x1b[31m");
        let long = printable(&[b'a'; 1000]);
        assert_eq!(long.len(), MAX_TEXT + 3);
        assert!(long.ends_with("a..."));
    }

    #[test]
    fn intervals_are_clamped() {
        for (said, kept) in [(i64::MIN, 60), (-1, 60), (0, 60), (59, 60), (1800, 1800), (i64::MAX, 86_400)] {
            assert_eq!(clamp_interval(said), Duration::from_secs(kept));
        }
    }
}
