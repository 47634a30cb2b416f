//! [`AddOptions`]: what a torrent is made from and how it is run.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use krpc::Id;
use krpc::magnet::Magnet;

use super::backend::Backend;
use crate::metainfo::{Info, Metainfo};
use crate::storage::{Access, Preallocation};
use crate::swarm::Limits;

/// What a torrent is made from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A magnet link.
    Magnet(Box<Magnet>),
    /// A `.torrent` file.
    Metainfo(Box<Metainfo>),
}

/// How to run a torrent.
#[derive(Debug, Default)]
pub struct AddOptions {
    /// Folder to download into; the current one if it is empty.
    pub output: PathBuf,
    /// Where the bytes are kept; `None` for files in `output`.
    pub storage: Option<Arc<dyn Backend>>,
    /// Peers that the user named.
    pub peers: Vec<SocketAddr>,
    /// Trackers that the user named, each a tier of its own.
    pub trackers: Vec<String>,
    /// Leave out the trackers that the source names, and ask only those of the user.
    pub no_source_trackers: bool,
    /// Caps, intervals and rules of the swarm. What the other options and the session say wins.
    pub limits: Limits,
    /// Connections; `None` for what `limits` says.
    pub max_peers: Option<usize>,
    /// Files kept open; `None` for its share of [`default_open_files`](crate::storage::default_open_files),
    /// which all open torrents of the session have together.
    pub max_open_files: Option<NonZeroUsize>,
    /// How its files take their space; `None` for what the session says. A [`Backend`] sees to its own:
    /// memory has nothing to preallocate.
    pub preallocation: Option<Preallocation>,
    /// Bytes per second, beside the session's limits.
    pub rates: Rates,
    /// Which files are wanted.
    pub select: Select,
    /// Ask for pieces in ascending order.
    pub sequential: bool,
    /// Get the info dictionary and touch no disk.
    pub metadata_only: bool,
    /// What the files are for: to be downloaded, or there already and only to be shared.
    pub share: Share,
    /// What it does first.
    pub initial_state: State,
}

/// What a torrent is to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// To fetch what is missing and to give.
    #[default]
    Started,
    /// To keep its connections and its place with the trackers, but to ask for no block and give none.
    /// What a magnet stands for is still found out.
    Paused,
    /// To have no connections, take none, and keep no file open. Trackers were told.
    Stopped,
}

/// Rate limits of one torrent in bytes per second of all that its connections receive or send, protocol
/// included; 0 lifts one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Received, by all connections together.
    pub down: u64,
    /// Sent, by all connections together.
    pub up: u64,
    /// Received, by each connection.
    pub peer_down: u64,
    /// Sent, by each connection.
    pub peer_up: u64,
}

/// What the files of a torrent are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Share {
    /// What is missing is downloaded.
    #[default]
    Download,
    /// Everything is there: the data is left as it is, and [`Failed::Missing`](super::Failed::Missing) is the
    /// answer if it is not. The resume file is written where that can be done.
    SeedOnly,
}

/// Which files of a torrent are wanted.
#[derive(Default)]
pub enum Select {
    /// All, or what the magnet says (`so`).
    #[default]
    All,
    /// Those that are accepted.
    Matching(Box<dyn Accepts>),
}

/// What an earlier run has learned or been told.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The info dictionary that a magnet stands for.
    pub(super) info: Option<Info>,
    /// What was wanted of the files: holds instead of [`AddOptions::select`] and `so`.
    pub(super) priorities: Option<Vec<u16>>,
}

/// Says which files are wanted, and how much.
pub trait Accepts: Send {
    /// The priority of the file of this index and path (the torrent's name first): 0 when it is not
    /// wanted, else its weight, see [`Command::Prioritize`](crate::swarm::Command::Prioritize).
    fn priority(&self, index: usize, path: &Path) -> u16;
}

impl Source {
    /// What names the swarm; `None` for a torrent of version 2 alone.
    pub(super) fn infohash(&self) -> Option<Id> {
        match self {
            Self::Magnet(magnet) => magnet.infohash_v1,
            Self::Metainfo(torrent) => torrent.info.hash().v1,
        }
    }

    /// The trackers that it names, by tier; each of a magnet's is a tier of its own (BEP 9, BEP 12).
    pub fn trackers(&self) -> Vec<Vec<String>> {
        match self {
            Self::Magnet(magnet) => magnet.trackers.iter().map(|tracker| vec![tracker.clone()]).collect(),
            Self::Metainfo(torrent) => torrent.trackers.clone(),
        }
    }
}

impl fmt::Debug for Select {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("All"),
            Self::Matching(_) => f.write_str("Matching"),
        }
    }
}

impl From<Share> for Access {
    fn from(share: Share) -> Self {
        match share {
            Share::Download => Self::Download,
            Share::SeedOnly => Self::Seed,
        }
    }
}
