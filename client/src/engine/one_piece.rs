//! [`PieceDownloader`]: the tokio shell around a [`PieceDownload`], one piece from one peer.
//!
//! The connection is dialled and run as that of a torrent is; a task of its own stands between it and
//! the state machine. It reads no events of the connection while the user is far behind with its own.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use krpc::Id;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::inbound::Inbound;
use super::peer::Connection;
use super::piece_handle::{Order, PieceHandle};
use super::session::Session;
use super::shared::Shared;
use super::throttle::{Lanes, Limit};
use crate::one_piece::{End, Output, PieceDownload, PieceEvent, Refused, Rules, Wanted};
use crate::peer::{CloseReason, PeerCommand, PeerConfig, PeerConn, PeerSetup, TorrentShape};
use crate::piece::Slot;

/// Batches of events of the connection that wait.
const INBOX: usize = 16;
/// Commands that wait for the connection: more than cancels and requests of one switch.
const COMMANDS: usize = 2048;
/// Orders of the user that wait.
const ORDERS: usize = 16;
/// Events that wait for the user.
const EVENTS: usize = 16_384;
/// The connection is read while so many more fit: what one batch can lead to, with much to spare.
const FREE: usize = EVENTS / 2;
/// The timer is looked at again after this, whatever the download says.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);
/// The connection has no other.
const SLOT: Slot = Slot { index: 0, generation: 0 };

/// A download of one piece from one peer that is to be started.
///
/// ```
/// use std::time::Duration;
///
/// use btfetch::engine::{AddOptions, PieceDownloader, Session, Source};
/// use btfetch::one_piece::{End, PieceEvent, Wanted};
/// use btfetch::piece::PieceIndex;
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
/// # let (addr, session) = (from.local_addrs()[0], session()?);
///
/// // No torrent file is needed: an index, a size, and a hash to verify it.
/// let hash = Some(Sha1::digest(&data).into());
/// let wanted = Wanted { index: PieceIndex(0), size: 20_000, hash };
/// let patience = Duration::from_secs(60);
/// let download = PieceDownloader::new(addr, seed.infohash(), wanted).patience(patience).name("the first");
/// let (handle, mut events) = download.spawn(&session)?;
/// while let Some(event) = events.next().await {
///     match event {
///         PieceEvent::Complete { index, bytes, verified } => {
///             assert_eq!((index, bytes.len(), verified), (PieceIndex(0), 20_000, true));
///             // The connection stays: `switch_piece` would ask for another one.
///             assert!(session.piece("the first").is_some());
///             handle.stop("that was all", patience).await?;
///         }
///         PieceEvent::Ended(end) => assert_eq!(end, End::Stopped("that was all".into())),
///         PieceEvent::Failed(index, error) => panic!("piece {}: {error}", index.0),
///         _ => {}
///     }
/// }
/// assert!(handle.is_over());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct PieceDownloader {
    addr: SocketAddr,
    infohash: Id,
    wanted: Wanted,
    rules: Rules,
    config: PeerConfig,
    name: Option<String>,
}

/// The events of a download of single pieces, in order; [`PieceEvent::Ended`] is the last one, unless
/// the task was ended by force.
#[derive(Debug)]
pub struct PieceEvents(mpsc::Receiver<PieceEvent>);

/// A download of a piece could not be started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// The piece cannot be asked for.
    #[error(transparent)]
    Piece(#[from] Refused),
    /// Another download that is not over has this name.
    #[error("a download of the name `{0}` is under way")]
    NameTaken(String),
    /// The session has ended.
    #[error("the session has ended")]
    Ended,
}

impl PieceDownloader {
    /// `wanted` of the torrent `infohash` from the peer at `addr`.
    pub fn new(addr: SocketAddr, infohash: Id, wanted: Wanted) -> Self {
        let (rules, config) = (Rules::default(), PeerConfig::default());
        Self { addr, infohash, wanted, rules, config, name: None }
    }

    /// The peer must have this id.
    #[must_use]
    pub fn peer_id(mut self, peer_id: [u8; 20]) -> Self {
        self.rules.peer_id = Some(peer_id);
        self
    }

    /// The torrent has this shape: the peer is asked only for what it says to have.
    #[must_use]
    pub fn shape(mut self, shape: TorrentShape) -> Self {
        self.rules.shape = Some(shape);
        self
    }

    /// A piece is given up when no block of it came for so long; 60 seconds if nothing is said.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.rules.patience = patience;
        self
    }

    /// The peer's handshake must be there this long after the connection is; 10 seconds if nothing is
    /// said, as for the connection itself.
    #[must_use]
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.config.handshake_timeout = timeout;
        self
    }

    /// Requests that are outstanding at most, 1 to 512; 512 if nothing is said. Fewer are while they
    /// keep the peer busy.
    #[must_use]
    pub fn queue_depth(mut self, requests: u16) -> Self {
        let most = PeerConfig::default();
        self.config.pipeline_max = requests.clamp(1, most.pipeline_max);
        self.config.pipeline_min = most.pipeline_min.min(self.config.pipeline_max);
        self
    }

    /// Gives it a name, by which [`Session::piece`] finds it.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Starts it. It goes on, on its connection, until it is stopped, the peer leaves or the session ends.
    ///
    /// # Errors
    /// [`SpawnError`]. What the network refuses comes as [`PieceEvent::Ended`].
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O and time.
    pub fn spawn(self, session: &Session) -> Result<(PieceHandle, PieceEvents), SpawnError> {
        self.start(session, session.shared().ended.child_token())
    }

    /// As [`PieceDownloader::spawn`], and it ends when `parent` is cancelled.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Panics
    /// As there.
    pub fn spawn_linked(
        self,
        session: &Session,
        parent: &CancellationToken,
    ) -> Result<(PieceHandle, PieceEvents), SpawnError> {
        self.start(session, parent.child_token())
    }

    fn start(
        self,
        session: &Session,
        cancelled: CancellationToken,
    ) -> Result<(PieceHandle, PieceEvents), SpawnError> {
        let shared = Arc::clone(session.shared());
        let mut named = shared.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        if shared.ended.is_cancelled() {
            return Err(SpawnError::Ended);
        }
        named.retain(|_, piece| !piece.is_over());
        if let Some(name) = self.name.as_ref().filter(|name| named.contains_key(*name)) {
            return Err(SpawnError::NameTaken(name.clone()));
        }
        let download = PieceDownload::new(shared.clock.now(), self.wanted, self.rules)?;
        let (orders, wishes) = mpsc::channel(ORDERS);
        let (events, user) = mpsc::channel(EVENTS);
        let (commands, inbox, connection) = self.connect(Arc::clone(&shared));
        let session = Arc::clone(&shared);
        let driver = Driver { session, download, commands, events, cancelled, out: Vec::new() };
        let task = tokio::spawn(driver.run(inbox, wishes, connection)).abort_handle();
        let handle = PieceHandle { orders, task };
        if let Some(name) = self.name {
            named.insert(name, handle.clone());
        }
        Ok((handle, PieceEvents(user)))
    }

    /// Starts the task that dials and runs the connection.
    fn connect(&self, session: Arc<Shared>) -> (mpsc::Sender<PeerCommand>, mpsc::Receiver<Inbound>, Task) {
        let (sender, commands) = mpsc::channel(COMMANDS);
        let (torrent, inbox) = mpsc::channel(INBOX);
        let setup = PeerSetup {
            config: self.config,
            infohash: self.infohash,
            peer_id: session.peer_id,
            remote: self.addr.ip(),
            listen_port: None,
            dht_port: None,
            shape: self.rules.shape,
            blocks: Arc::clone(&session.blocks),
        };
        let addr = self.addr;
        let free = || Limit::new(0);
        let lanes = Lanes::new(
            [free(), free(), Arc::clone(&session.down)],
            [free(), free(), Arc::clone(&session.up)],
        );
        let mut task = JoinSet::new();
        task.spawn(async move {
            let stream = session.dial(addr).await?;
            let conn = PeerConn::outgoing(session.clock.now(), setup);
            Connection { slot: SLOT, conn, stream, commands, torrent, session, lanes }.run().await;
            Ok(())
        });
        (sender, inbox, task)
    }
}

impl PieceEvents {
    /// The next event; `None` behind the last one. Cancel safe.
    pub async fn next(&mut self) -> Option<PieceEvent> {
        self.0.recv().await
    }
}

/// The task of the connection; it ends when this is dropped.
type Task = JoinSet<io::Result<()>>;

/// What the task between user and connection owns.
struct Driver {
    session: Arc<Shared>,
    download: PieceDownload,
    commands: mpsc::Sender<PeerCommand>,
    events: mpsc::Sender<PieceEvent>,
    cancelled: CancellationToken,
    out: Vec<Output>,
}

impl Driver {
    async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Inbound>,
        mut orders: mpsc::Receiver<Order>,
        mut connection: Task,
    ) {
        let (session, events) = (Arc::clone(&self.session), self.events.clone());
        let cancelled = self.cancelled.clone();
        while !self.download.is_over() {
            let behind = self.events.capacity() < FREE && !self.events.is_closed();
            let due = self.download.timeout().since(session.clock.now()).min(LONGEST_SLEEP);
            let open = self.download.is_open();
            tokio::select! {
                biased;
                () = cancelled.cancelled() => self.leave(End::Cancelled),
                () = session.ended.cancelled() => self.leave(End::Cancelled),
                // Without a handle left it goes on: there is nobody to give orders.
                Some(order) = orders.recv() => self.obey(order, open),
                _ = events.reserve_many(FREE), if behind => {}
                Some(inbound) = inbox.recv(), if !behind => self.take(inbound),
                ended = connection.join_next(), if !behind => self.connection_ended(ended),
                () = tokio::time::sleep(due) => {
                    self.download.handle_timeout(session.clock.now(), &mut self.out);
                }
            }
            self.carry_out();
        }
    }

    /// Ends without waiting for the peer: the connection closes when its task is dropped.
    fn leave(&mut self, end: End) {
        self.download.over(end, &mut self.out);
    }

    fn obey(&mut self, order: Order, open: bool) {
        match order {
            Order::Switch(wanted, answer) => {
                let now = self.session.clock.now();
                let _ = answer.send(self.download.switch(now, wanted, &mut self.out));
            }
            Order::Look(question) => question(&self.download),
            Order::Stop(reason) if open => self.download.stop(End::Stopped(reason), &mut self.out),
            // Nobody is there to say good-bye to.
            Order::Stop(reason) => self.leave(End::Stopped(reason)),
        }
    }

    fn take(&mut self, inbound: Inbound) {
        if let Inbound::Peer(_, batch) = inbound {
            let now = self.session.clock.now();
            for event in batch {
                self.download.handle(now, event, &mut self.out);
            }
        }
    }

    fn connection_ended(&mut self, ended: Option<Result<io::Result<()>, tokio::task::JoinError>>) {
        let end = match ended {
            Some(Ok(Err(error))) => End::Unreachable(error.to_string()),
            Some(Err(error)) if error.is_panic() => {
                tracing::error!("the task of a connection panicked; this is a bug");
                End::Closed(CloseReason::Disconnected)
            }
            _ => End::Closed(CloseReason::Disconnected),
        };
        self.leave(end);
    }

    fn carry_out(&mut self) {
        let mut full = false;
        for output in self.out.drain(..) {
            match output {
                Output::Tell(command) => {
                    full |=
                        matches!(self.commands.try_send(command), Err(mpsc::error::TrySendError::Full(_)));
                }
                Output::Event(event) => {
                    // There is room for all of a batch, or nobody listens.
                    let _ = self.events.try_send(event);
                }
            }
        }
        if full {
            // A connection that takes no commands is beyond help.
            self.leave(End::Closed(CloseReason::Stalled));
            self.carry_out();
        }
    }
}
