//! [`Torrent`]: the handle of one torrent, and what it is started with.

use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use krpc::Id;
use krpc::magnet::Magnet;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::backend::Backend;
use super::owner::Inbound;
use crate::metainfo::{Info, Metainfo};
use crate::piece::PieceIndex;
use crate::storage::{Access, DiskError};
use crate::swarm::{Command, Event, Limits, Status};

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
    /// Folder to download into.
    pub output: PathBuf,
    /// Where the bytes are kept; `None` for files in `output`.
    pub storage: Option<Arc<dyn Backend>>,
    /// Peers that the user named.
    pub peers: Vec<SocketAddr>,
    /// Trackers that the user named, each a tier of its own.
    pub trackers: Vec<String>,
    /// Caps, intervals and rules of the swarm. What the other options and the session say wins.
    pub limits: Limits,
    /// Connections; `None` for what `limits` says.
    pub max_peers: Option<usize>,
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

/// Pieces could not be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// The files are not open: the torrent is stopped, has failed, or its metadata is not known yet.
    #[error("the files of the torrent are not open")]
    NotOpen,
    /// The torrent was stopped before the end.
    #[error("the torrent was stopped")]
    Stopped,
    /// There is no such piece.
    #[error("there is no piece {piece}: the torrent has {pieces}, counted from 0")]
    NoSuchPiece {
        /// The greatest one that was asked for.
        piece: u32,
        /// Pieces of the torrent.
        pieces: u32,
    },
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
    /// Everything is there: nothing is written, and [`Failed::Missing`] is the answer if it is not.
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
    /// wanted, else its weight, see [`Command::Prioritize`].
    fn priority(&self, index: usize, path: &Path) -> u16;
}

/// A cloneable handle of a torrent. Dropping it changes nothing.
#[derive(Clone, Debug)]
pub struct Torrent {
    pub(super) infohash: Id,
    pub(super) peer_id: [u8; 20],
    pub(super) port: u16,
    pub(super) inbox: mpsc::WeakSender<Inbound>,
    pub(super) status: watch::Receiver<Status>,
    pub(super) phase: watch::Receiver<Phase>,
    pub(super) state: watch::Receiver<State>,
    pub(super) info: watch::Receiver<Option<Arc<Info>>>,
}

/// Where a torrent stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Phase {
    /// Something is missing.
    Running,
    /// Everything that was wanted is verified and on disk; it is given to others.
    Complete,
    /// It cannot go on. After [`Failed::Disk`] it can be asked to, with [`Torrent::retry`].
    Failed(Failed),
    /// It is stopped, or has ended.
    Stopped,
}

/// Why a torrent cannot go on.
#[derive(Clone, Debug, PartialEq)]
pub enum Failed {
    /// The disk refused.
    Disk(DiskError),
    /// Another process works on this torrent in this folder.
    InUse(PathBuf),
    /// Its info dictionary breaks a rule, or nothing of it is wanted.
    Invalid(String),
    /// We cannot do it yet.
    Unsupported(String),
    /// Not everything is there, and nothing is to be downloaded ([`Share::SeedOnly`]).
    Missing {
        /// Pieces that are missing or wrong.
        missing: u32,
        /// Pieces in all.
        pieces: u32,
    },
}

/// The events of a torrent, in order.
#[derive(Debug)]
pub struct Events(pub(super) broadcast::Receiver<Event>);

impl Source {
    /// What names the swarm; `None` for a torrent of version 2 alone.
    pub(super) fn infohash(&self) -> Option<Id> {
        match self {
            Self::Magnet(magnet) => magnet.infohash_v1,
            Self::Metainfo(torrent) => torrent.info.hash().v1,
        }
    }
}

impl Torrent {
    /// What names it.
    pub fn infohash(&self) -> Id {
        self.infohash
    }

    /// A picture of it, at most a fifth of a second old.
    pub fn status(&self) -> Status {
        *self.status.borrow()
    }

    /// Whether everything that is wanted is verified and on disk, as of [`Torrent::status`].
    pub fn is_complete(&self) -> bool {
        self.status().complete
    }

    /// Whether everything is there, wanted or not, as of [`Torrent::status`].
    pub fn is_seed(&self) -> bool {
        self.status().seed
    }

    /// Where it stands.
    pub fn phase(&self) -> Phase {
        self.phase.borrow().clone()
    }

    /// Waits until everything that is wanted is verified and on disk.
    ///
    /// # Errors
    /// The phase in which it stands when it cannot become complete.
    pub async fn wait_complete(&self) -> Result<(), Phase> {
        let mut phase = self.phase.clone();
        let reached = phase.wait_for(|phase| *phase != Phase::Running).await;
        match reached.map_or(Phase::Stopped, |phase| phase.clone()) {
            Phase::Complete => Ok(()),
            other => Err(other),
        }
    }

    /// Goes on after [`Failed::Disk`].
    pub async fn retry(&self) {
        if let Some(inbox) = self.inbox.upgrade() {
            // It has ended otherwise, and there is nothing to go on with.
            let _ = inbox.send(Inbound::Retry).await;
        }
    }

    /// Changes the priorities of files, one a file; see
    /// [`Command::Prioritize`]. What is missing then is fetched
    /// also when the torrent was complete before. Holds instead of [`AddOptions::select`] if the files
    /// are not known yet, and for later starts if it is stopped.
    pub async fn prioritize(&self, priorities: Vec<u16>) {
        if let Some(inbox) = self.inbox.upgrade() {
            // A torrent that has ended fetches nothing.
            let _ = inbox.send(Inbound::Prioritize(priorities)).await;
        }
    }

    /// Changes how many connections it may have; those above are closed.
    pub async fn set_max_peers(&self, most: usize) {
        if let Some(inbox) = self.inbox.upgrade() {
            // A torrent that has ended has none.
            let _ = inbox.send(Inbound::Command(Command::MaxPeers(most))).await;
        }
    }

    /// Needs a piece within this time; see [`Command::Deadline`].
    pub async fn set_deadline(&self, piece: PieceIndex, within: Option<Duration>) {
        if let Some(inbox) = self.inbox.upgrade() {
            // A torrent that has ended fetches nothing.
            let _ = inbox.send(Inbound::Command(Command::Deadline(piece, within))).await;
        }
    }

    /// Changes the limits for all connections that it has, and for later ones.
    pub async fn set_rates(&self, rates: Rates) {
        if let Some(inbox) = self.inbox.upgrade() {
            // A torrent that has ended needs no limits.
            let _ = inbox.send(Inbound::Rates(rates)).await;
        }
    }

    /// What it is to do.
    pub fn state(&self) -> State {
        *self.state.borrow()
    }

    /// Starts it after [`Torrent::stop`] or [`Torrent::pause`]. After a stop trackers hear `started`.
    pub async fn start(&self) {
        self.ask(|told| Inbound::Set(State::Started, told)).await;
    }

    /// Pauses it: connections stay, but no block is asked for or given. A stopped torrent is started
    /// into the pause.
    pub async fn pause(&self) {
        self.ask(|told| Inbound::Set(State::Paused, told)).await;
    }

    /// Ends a pause; without effect on a stopped torrent.
    pub async fn resume(&self) {
        self.ask(Inbound::Resume).await;
    }

    /// Stops it: saves, tells trackers `stopped`, closes all connections and files. It stays in its
    /// session and can be started again. Returns when that is done, which trackers and connections do
    /// not hold up for more than three seconds.
    pub async fn stop(&self) {
        self.ask(|told| Inbound::Set(State::Stopped, told)).await;
    }

    /// Stops it and takes it out of its session for good; within three seconds.
    pub async fn close(&self) {
        if let Some(inbox) = self.inbox.upgrade() {
            let _ = inbox.send(Inbound::End).await;
            inbox.closed().await;
        }
    }

    /// Hashes ranges of pieces on the disk, all pieces when there are none, on all disk threads. Each
    /// comes as [`Event::Checked`]; returns the bad ones when all are done. A piece that is wrong is given
    /// up and fetched again if it is wanted, one that is found is kept. One check runs at a time.
    ///
    /// # Errors
    /// See [`CheckError`].
    pub async fn check(&self, ranges: &[Range<u32>]) -> Result<Vec<PieceIndex>, CheckError> {
        let (answer, answered) = oneshot::channel();
        let inbox = self.inbox.upgrade().ok_or(CheckError::Stopped)?;
        let asked = inbox.send(Inbound::Check(ranges.to_vec(), answer)).await;
        asked.map_err(|_| CheckError::Stopped)?;
        answered.await.unwrap_or(Err(CheckError::Stopped))
    }

    /// Asks for something and waits until it is done, or the torrent has ended.
    async fn ask(&self, wish: impl FnOnce(oneshot::Sender<()>) -> Inbound) {
        if let Some(inbox) = self.inbox.upgrade() {
            let (told, done) = oneshot::channel();
            if inbox.send(wish(told)).await.is_ok() {
                let _ = done.await;
            }
        }
    }
}

impl Events {
    /// The next event; `None` when the torrent has ended. Cancel safe.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            match self.0.recv().await {
                Ok(event) => return Some(event),
                Err(broadcast::error::RecvError::Lagged(lost)) => {
                    tracing::debug!(lost, "events were lost to a slow reader");
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }

    /// The next event if there is one already.
    pub fn try_next(&mut self) -> Option<Event> {
        loop {
            match self.0.try_recv() {
                Ok(event) => return Some(event),
                Err(broadcast::error::TryRecvError::Lagged(_)) => {}
                Err(_) => return None,
            }
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
