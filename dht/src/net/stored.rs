//! [`Stored`]: what others stored with us, as a file beside that of the table: announced peers and
//! items with their ages, and when that was.
//!
//! A file of its own, because it can be a thousand times larger than the table and is saved more
//! seldom then, and because damage to one is none to the other.

use std::time::Duration;

use krpc::bencode::{self, Limits};
use serde::{Deserialize, Serialize};

use super::moment::Moment;
use crate::store::{Archive, Counts};

/// The form of the document; another number is not read.
const VERSION: u32 = 1;
/// Most bytes of records: 1.4 million IPv4 peers of 100,000 infohashes, a quarter of what
/// [`crate::Config::store_memory`] holds by default. The freshest are kept.
pub(super) const MAX_ARCHIVE: usize = 16 << 20;
/// Longest file that is read: the most that is written.
pub(super) const LIMITS: Limits = Limits { depth: 2, tokens: 32, len: MAX_ARCHIVE + 1024 };

/// A store and when it was saved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) archive: Archive,
    pub(super) at: Moment,
}

#[derive(Serialize, Deserialize)]
struct Document {
    #[serde(with = "serde_bytes")]
    boot: Vec<u8>,
    #[serde(with = "serde_bytes")]
    items: Vec<u8>,
    #[serde(with = "serde_bytes")]
    peers4: Vec<u8>,
    #[serde(with = "serde_bytes")]
    peers6: Vec<u8>,
    /// Milliseconds since 1970.
    saved: u64,
    /// Milliseconds since that boot.
    uptime: u64,
    version: u32,
}

impl Stored {
    /// Reads a document; `None` if it is none. What is in the records is looked at when they are
    /// taken back.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let document: Document = bencode::from_bytes(bytes, LIMITS).ok()?;
        if document.version != VERSION {
            return None;
        }
        let Document { boot, items, peers4, peers6, saved, uptime, .. } = document;
        let (wall, uptime) = (Duration::from_millis(saved), Duration::from_millis(uptime));
        let archive = Archive { peers4, peers6, items, counts: Counts::default() };
        Some(Self { archive, at: Moment { wall, boot, uptime } })
    }

    /// Writes a document.
    pub(super) fn encode(self) -> Vec<u8> {
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(0);
        let document = Document {
            boot: self.at.boot,
            items: self.archive.items,
            peers4: self.archive.peers4,
            peers6: self.archive.peers6,
            saved: millis(self.at.wall),
            uptime: millis(self.at.uptime),
            version: VERSION,
        };
        bencode::to_bytes(&document).expect("small integers and strings always encode")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_that_is_written_can_be_read() {
        let archive = Archive {
            peers4: vec![4; MAX_ARCHIVE / 2],
            peers6: vec![6; MAX_ARCHIVE / 4],
            items: vec![1; MAX_ARCHIVE / 4],
            counts: Counts::default(),
        };
        let at = Moment {
            wall: Duration::from_millis(u64::from(u32::MAX) * 1000),
            boot: vec![b'x'; 64],
            uptime: Duration::from_secs(1 << 32),
        };
        let stored = Stored { archive, at };
        assert_eq!(Stored::decode(&stored.clone().encode()), Some(stored));
    }

    #[test]
    fn garbage_truncation_and_nesting_are_none() {
        let stored =
            Stored { archive: Archive { items: vec![7; 50], ..Archive::default() }, at: Moment::now() };
        let whole = stored.encode();
        for len in 0..whole.len() {
            assert_eq!(Stored::decode(&whole[..len]), None, "{len}");
        }
        for bytes in [&b"de"[..], b"le", &[b'l'; 5000], &[b'x'; 5000], &[&whole[..], b"e"].concat()] {
            assert_eq!(Stored::decode(bytes), None);
        }
        let text = whole.iter().map(|&byte| char::from(byte)).collect::<String>();
        let other = text.replace("7:versioni1e", "7:versioni2e");
        assert_eq!(Stored::decode(&other.chars().map(|c| c as u8).collect::<Vec<_>>()), None);
    }
}
