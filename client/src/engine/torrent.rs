//! [`Torrent`]: the handle of one torrent.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use krpc::Id;
use tokio::sync::{mpsc, oneshot, watch};

use super::inbound::Inbound;
use super::news::Reader;
use super::options::{Rates, State};
use super::phase::{CheckError, Phase};
use crate::metainfo::Info;
use crate::piece::PieceIndex;
use crate::swarm::{Command, Event, Status};

/// A cloneable handle of a torrent. Dropping it changes nothing.
///
/// ```
/// use std::sync::Arc;
///
/// use btfetch::engine::{AddOptions, Memory, Session, Source, State};
/// use btfetch::swarm::Event;
/// # use btdht::net::Bind;
/// # use btfetch::engine::{Listeners, Options};
/// # use btfetch::metainfo::{Info, Metainfo};
/// # use sha1::{Digest, Sha1};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let data = vec![7; 20_000];
/// # let mut raw = b"d6:lengthi20000e4:name1:x12:piece lengthi32768e6:pieces20:".to_vec();
/// # raw.extend(Sha1::digest(&data));
/// # raw.push(b'e');
/// # let torrent = || Source::Metainfo(Box::new(Metainfo::new(Info::parse(&raw).expect("it is valid"))));
/// # let home = tempfile::tempdir()?;
/// # std::fs::write(home.path().join("x"), &data)?;
/// # let session = || -> Result<Session, Box<dyn std::error::Error>> {
/// #     let bind = Bind { addr: "127.0.0.1:0".parse()?, required: true };
/// #     Ok(Session::new(Options { allow_local: true, ..Options::new(Listeners::bind(&[bind])?) })?)
/// # };
/// # let from = session()?;
/// # let (seed, _) = from.add(torrent(), AddOptions { output: home.path().to_owned(), ..AddOptions::default() })?;
/// # seed.wait_complete().await.expect("it is there");
/// # let session = session()?;
///
/// let options = AddOptions {
///     storage: Some(Arc::new(Memory::new(1 << 20))),
///     peers: from.local_addrs().to_vec(),
///     initial_state: State::Stopped,
///     ..AddOptions::default()
/// };
/// let (torrent, mut events) = session.add(torrent(), options)?;
/// assert_eq!((torrent.name().as_deref(), torrent.size()), (Some("x"), Some(20_000)));
/// assert!(torrent.trackers().await.is_empty(), "it names none");
///
/// // Connections are made, but nothing is asked for.
/// torrent.pause().await;
/// while !matches!(events.next().await, Some(Event::PeerConnected(..))) {}
/// let have = torrent.pieces().await;
/// assert!(torrent.peers().await.len() == 1 && have.is_none_or(|have| have.count() == 0));
///
/// torrent.resume().await;
/// torrent.wait_complete().await.expect("the seed has it");
/// let progress = torrent.progress().await.expect("it goes on");
/// assert_eq!((progress.finished, progress.unfinished, progress.percentage), (1, 0, 100.0));
/// for file in torrent.files().await {
///     assert_eq!((file.done, file.priority), (file.length, 1));
/// }
/// assert_eq!(torrent.check(&[]).await?, [], "no piece is bad");
///
/// // It can be started again, until it is closed.
/// torrent.stop().await;
/// assert_eq!((torrent.state(), torrent.peers().await.len()), (State::Stopped, 0));
/// torrent.start().await;
/// torrent.wait_complete().await.expect("memory has it");
/// torrent.close().await;
/// # Ok(())
/// # }
/// ```
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

/// The events of a torrent, in order. They wait for a reader, also beyond the end of the torrent, in 1 MiB
/// at most; where it is tens of thousands behind, the oldest are lost, and an [`Event::Warning`] in their
/// place says how many.
#[derive(Debug)]
pub struct Events(pub(super) Reader);

impl Torrent {
    /// What names it.
    pub fn infohash(&self) -> Id {
        self.infohash
    }

    /// A picture of it, at most a fifth of a second old.
    pub fn status(&self) -> Status {
        *self.status.borrow()
    }

    /// Whether everything that is wanted is verified and written, as of [`Torrent::status`];
    /// [`Torrent::wait_complete`] tells when it is synced, too.
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

    /// Waits until everything that is wanted is verified and synced.
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

    /// Goes on after [`Failed::Disk`](super::Failed::Disk). Where files could not be opened, or were not
    /// all there, it starts again.
    pub async fn retry(&self) {
        if let Some(inbox) = self.inbox.upgrade() {
            // It has ended otherwise, and there is nothing to go on with.
            let _ = inbox.send(Inbound::Retry).await;
        }
    }

    /// Changes the priorities of files, one a file; see
    /// [`Command::Prioritize`]. What is missing then is fetched
    /// also when the torrent was complete before. Holds instead of [`AddOptions::select`](super::AddOptions::select) if the files
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
    /// not hold up for more than three seconds; a slow disk may.
    pub async fn stop(&self) {
        self.ask(|told| Inbound::Set(State::Stopped, told)).await;
    }

    /// Stops it and takes it out of its session for good; within three seconds. A disk that takes longer is
    /// left to its threads, which hold the lock until they are done: added again before, it is
    /// [`Failed::InUse`](super::Failed::InUse).
    pub async fn close(&self) {
        if let Some(inbox) = self.inbox.upgrade() {
            let _ = inbox.send(Inbound::End).await;
            inbox.closed().await;
        }
    }

    /// Hashes ranges of pieces on the disk, all pieces when there are none, on all disk threads. Each
    /// comes as [`Event::Checked`]; returns the bad ones when all are done. A piece that is wrong is given
    /// up and fetched again if it is wanted, one that is found is kept. One check runs at a time. With
    /// [`Share::SeedOnly`](super::Share::SeedOnly) nothing is fetched: a bad piece is
    /// [`Failed::Missing`](super::Failed::Missing).
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

    /// Whether it has ended, or ends, and cannot be started again: it was closed, or failed for good.
    pub(super) fn has_ended(&self) -> bool {
        self.inbox.upgrade().is_none_or(|inbox| inbox.is_closed())
            || matches!(&*self.phase.borrow(), Phase::Failed(failed) if !failed.may_heal())
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
        self.0.next().await
    }

    /// The next event if there is one already.
    pub fn try_next(&mut self) -> Option<Event> {
        self.0.try_next()
    }
}
