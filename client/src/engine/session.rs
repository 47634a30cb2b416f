//! [`Session`]: many torrents that share listening sockets, rate limits, buffers, the number of open files,
//! the HTTP client and the DHT node.
//!
//! A torrent that is started has, beside its connections, three threads of its own for the disk, up to nine where
//! there are more cores than torrents when it starts, two
//! descriptors for its folder and its lock, another one where files are skipped, and its share of the open
//! files: a quarter of what the process may have, 128 at most, for all torrents together. One that is stopped
//! has none of that.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use btdht::Seeds;
use btdht::net::{Clock, Dht, Topic};
use krpc::Id;
use krpc::magnet::Magnet;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::dial::Dials;
use super::http::{Http, HttpError};
use super::inbound::Inbound;
use super::listen::{Greetings, Listeners, accept};
use super::options::{AddOptions, Known, Source};
use super::owner;
use super::piece_handle::PieceHandle;
use super::shared::Shared;
use super::throttle::Limit;
use super::torrent::{Events, Torrent};
use super::versions::{Version, VersionError, Versions};
use crate::piece::BlockPool;
use crate::storage::{OpenFiles, Preallocation, ResumeFile, default_open_files};

/// Announces of a session that run at once; further ones wait. (libtorrent has as many; 10 are of one torrent.)
const ANNOUNCES: usize = 50;
/// The same of farewells, which are not waited for for long and do not stand behind the others.
const FAREWELLS: usize = 50;
/// Buffers of one block that are kept for reuse: 16 MiB.
const SPARE_BLOCKS: usize = 1024;
/// Torrents of one session.
const MAX_TORRENTS: usize = 10_000;
/// What a peer id begins with (BEP 20): `bd`, version 0.1.0.
pub const PEER_ID_PREFIX: [u8; 8] = *b"-bd0100-";
/// How long torrents may take to say good-bye at the end of a session.
const GOOD_BYE: Duration = Duration::from_millis(2700);

/// What a session is made of.
#[derive(Debug)]
pub struct Options {
    /// Where peers can connect to.
    pub listeners: Listeners,
    /// A DHT node to find and announce through. It stays the caller's to stop.
    pub dht: Option<Dht>,
    /// Accept local and private addresses from strangers.
    pub allow_local: bool,
    /// Bytes per second received, in all; 0 lifts it.
    pub down: u64,
    /// Bytes per second sent, in all; 0 lifts it.
    pub up: u64,
    /// How files take their space where [`AddOptions::preallocation`] says nothing.
    pub preallocation: Preallocation,
    /// What our peer id begins with (BEP 20), for programs that have a name of their own: `-`, two letters,
    /// four version digits, `-`. Not checked. The other twelve bytes are drawn at random once for the session.
    /// [`PEER_ID_PREFIX`] is ours.
    pub peer_id_prefix: [u8; 8],
}

impl Options {
    /// With these listeners and what is usual: no DHT node, no addresses of this network from strangers, no
    /// limits, sparse files, our own peer id.
    pub fn new(listeners: Listeners) -> Self {
        Self {
            listeners,
            dht: None,
            allow_local: false,
            down: 0,
            up: 0,
            preallocation: Preallocation::default(),
            peer_id_prefix: PEER_ID_PREFIX,
        }
    }
}

/// A session could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// A listening socket could not be given to the runtime.
    #[error("listening: {0}")]
    Listen(std::io::Error),
    /// The system gave no randomness.
    #[error("drawing random numbers: {0}")]
    Random(getrandom::Error),
    /// The HTTP client could not be made.
    #[error("preparing HTTP: {0}")]
    Http(HttpError),
}

/// A torrent could not be added.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AddError {
    /// The session has it already.
    #[error("the torrent {0} was added already")]
    Twice(Id),
    /// The magnet or torrent has no v1 infohash.
    #[error("a torrent of version 2 alone (BEP 52) cannot be downloaded yet")]
    OnlyV2,
    /// The magnet names a key, which [`Session::versions`] resolves to an infohash.
    #[error("the magnet link names a key and no infohash")]
    Unresolved,
    /// The session holds as many torrents as it may.
    #[error("a session has at most {MAX_TORRENTS} torrents")]
    TooMany,
    /// The session has ended.
    #[error("the session has ended")]
    Ended,
    /// The system gave no randomness.
    #[error("drawing random numbers: {0}")]
    Random(getrandom::Error),
}

/// A cloneable handle of a running session. Torrents go on until they are stopped or
/// [`Session::shutdown`] is called.
///
/// A file from one session to another on the same machine; to peers of this network or of the internet it
/// is the same, and with [`Options::dht`] nobody needs to be named:
///
/// ```
/// use btdht::net::Bind;
/// use btfetch::engine::{AddOptions, Listeners, Options, Preallocation, Session, Source};
/// # use btfetch::metainfo::{Info, Metainfo};
/// # use sha1::{Digest, Sha1};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let data = vec![7; 20_000];
/// # let mut raw = b"d6:lengthi20000e4:name1:x12:piece lengthi32768e6:pieces20:".to_vec();
/// # raw.extend(Sha1::digest(&data));
/// # raw.push(b'e');
/// # let torrent = || Source::Metainfo(Box::new(Metainfo::new(Info::parse(&raw).expect("it is valid"))));
/// # let (home, out) = (tempfile::tempdir()?, tempfile::tempdir()?);
/// # std::fs::write(home.path().join("x"), &data)?;
///
/// let session = || -> Result<Session, Box<dyn std::error::Error>> {
///     let bind = Bind { addr: "127.0.0.1:0".parse()?, required: true };
///     let options = Options::new(Listeners::bind(&[bind])?);
///     Ok(Session::new(Options { allow_local: true, preallocation: Preallocation::Full, ..options })?)
/// };
/// // One has the file: what is there is checked, and given to others.
/// let from = session()?;
/// let options = AddOptions { output: home.path().to_owned(), ..AddOptions::default() };
/// let (seed, _) = from.add(torrent(), options)?;
/// seed.wait_complete().await.expect("it is there");
///
/// // The other one wants it.
/// let to = session()?;
/// let options = AddOptions {
///     output: out.path().to_owned(),
///     peers: from.local_addrs().to_vec(),
///     ..AddOptions::default()
/// };
/// let (torrent, _events) = to.add(torrent(), options)?;
/// torrent.wait_complete().await.expect("the seed has it");
/// assert_eq!(std::fs::read(out.path().join("x"))?, data);
///
/// // Trackers are told, and everything is saved.
/// to.shutdown().await;
/// from.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Session {
    shared: Arc<Shared>,
}

impl Session {
    /// Starts a session on the current tokio runtime.
    ///
    /// # Errors
    /// See [`SessionError`].
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O and time.
    pub fn new(options: Options) -> Result<Self, SessionError> {
        let mut peer_id = [0; 20];
        let (prefix, random) = peer_id.split_at_mut(options.peer_id_prefix.len());
        prefix.copy_from_slice(&options.peer_id_prefix);
        getrandom::fill(random).map_err(SessionError::Random)?;
        let addrs = options.listeners.local_addrs();
        // One client has one source; where several addresses are bound the first one serves.
        let specific = |addr: &&SocketAddr| !addr.ip().is_unspecified();
        let free = addrs.iter().any(|addr| addr.ip().is_unspecified());
        let source = addrs.iter().find(specific).filter(|_| !free).map(SocketAddr::ip);
        let (mover, moved) = watch::channel(());
        if let Some(dht) = &options.dht {
            tokio::spawn(watch_moves(dht.clone(), mover));
        }
        let shared = Arc::new(Shared {
            clock: Clock::start(),
            http: Http::new(options.allow_local, source).map_err(SessionError::Http)?,
            dht: options.dht,
            allow_local: options.allow_local,
            preallocation: options.preallocation,
            peer_id,
            port: options.listeners.port(),
            down: Limit::new(options.down),
            up: Limit::new(options.up),
            dials: Dials::default(),
            announces: Semaphore::new(ANNOUNCES),
            farewells: Semaphore::new(FAREWELLS),
            blocks: BlockPool::new(SPARE_BLOCKS),
            open_files: OpenFiles::new(default_open_files()),
            ended: CancellationToken::new(),
            moved,
            torrents: Mutex::default(),
            fetching: Arc::default(),
            pieces: Mutex::default(),
            addrs,
        });
        let greetings: Arc<Greetings> = Arc::default();
        for listener in options.listeners.into_inner() {
            let listener = TcpListener::from_std(listener).map_err(SessionError::Listen)?;
            tokio::spawn(accept(listener, Arc::clone(&greetings), Arc::clone(&shared)));
        }
        Ok(Self { shared })
    }

    /// Adds a torrent and starts it. Its events begin with the first one.
    ///
    /// # Errors
    /// See [`AddError`]. What the disk or the network refuse comes as events.
    pub fn add(&self, source: Source, options: AddOptions) -> Result<(Torrent, Events), AddError> {
        self.add_known(source, Known::default(), options)
    }

    /// Adds a torrent as [`Session::add`] does. The info dictionary of a magnet is read from the resume file
    /// in [`AddOptions::output`], if an earlier run has left one there: then no peer is asked for it.
    ///
    /// # Errors
    /// See [`AddError`]. A resume file that cannot be read or is damaged is none.
    pub async fn add_saved(
        &self,
        source: Source,
        options: AddOptions,
    ) -> Result<(Torrent, Events), AddError> {
        let info = match (&source, source.infohash(), &options.storage) {
            (Source::Magnet(_), Some(infohash), None) => {
                let folder = options.output.clone();
                let load = move || ResumeFile::load_info(&folder, infohash);
                // Off the runtime: it may have tens of megabytes. A panic, which is a bug of ours, costs a fetch.
                tokio::task::spawn_blocking(load).await.unwrap_or_default()
            }
            _ => None,
        };
        self.add_known(source, Known { info, ..Known::default() }, options)
    }

    /// Adds a torrent of which something is known.
    pub(super) fn add_known(
        &self,
        source: Source,
        known: Known,
        options: AddOptions,
    ) -> Result<(Torrent, Events), AddError> {
        let infohash = source.infohash().ok_or_else(|| match &source {
            Source::Magnet(magnet) if magnet.infohash_v2.is_none() => AddError::Unresolved,
            _ => AddError::OnlyV2,
        })?;
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(AddError::Random)?;
        let mut torrents = self.shared.lock();
        if self.shared.ended.is_cancelled() {
            return Err(AddError::Ended);
        }
        torrents.retain(|_, torrent| !torrent.is_closed());
        if torrents.contains_key(&infohash) {
            return Err(AddError::Twice(infohash));
        }
        if torrents.len() >= MAX_TORRENTS {
            return Err(AddError::TooMany);
        }
        let (inbound, torrent, events) =
            owner::start(Arc::clone(&self.shared), infohash, (source, known), options, Seeds(seed));
        torrents.insert(infohash, inbound);
        Ok((torrent, events))
    }

    /// What a magnet link with a key (`xs=urn:btpk`, BEP 46) stands for now and later.
    ///
    /// # Errors
    /// See [`VersionError`].
    pub async fn versions(&self, magnet: &Magnet) -> Result<Versions, VersionError> {
        Versions::of(magnet, None, self.shared.dht.as_ref()).await
    }

    /// What takes the place of a version that is known from an earlier run ([`VersionFile`](super::VersionFile)):
    /// neither this one nor an older one comes, whatever the DHT still holds.
    ///
    /// # Errors
    /// See [`VersionError`].
    pub async fn versions_after(&self, version: &Version) -> Result<Versions, VersionError> {
        Versions::of(&version.magnet, Some(version.seq), self.shared.dht.as_ref()).await
    }

    /// The download of a single piece that was given this name and is not over.
    pub fn piece(&self, name: &str) -> Option<PieceHandle> {
        let pieces = self.shared.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        pieces.get(name).filter(|piece| !piece.is_over()).cloned()
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Changes the rates of [`Options::down`] and [`Options::up`], also for what is under way.
    pub fn set_rates(&self, down: u64, up: u64) {
        let now = self.shared.clock.now();
        self.shared.down.set(now, down);
        self.shared.up.set(now, up);
    }

    /// Our TCP port; 0 when nobody can connect.
    pub fn port(&self) -> u16 {
        self.shared.port
    }

    /// Where peers can connect to.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.shared.addrs
    }

    /// Stops all torrents, each after saving its state and telling its trackers, within three seconds,
    /// and takes no more connections.
    pub async fn shutdown(&self) {
        let torrents: Vec<_> = std::mem::take(&mut *self.shared.lock()).into_values().collect();
        for torrent in &torrents {
            // A full channel empties: its reader never waits for us.
            let _ = tokio::time::timeout(GOOD_BYE, torrent.send(Inbound::End)).await;
        }
        let all_gone = async {
            for torrent in &torrents {
                torrent.closed().await;
            }
        };
        let _ = tokio::time::timeout(GOOD_BYE, all_gone).await;
        self.shared.ended.cancel();
    }

    /// The HTTP client, for `.torrent` files named by URL.
    pub fn http(&self) -> &Http {
        &self.shared.http
    }
}

/// Tells torrents of changes of our address or network, until node or session have ended.
async fn watch_moves(dht: Dht, mover: watch::Sender<()>) {
    let Ok(mut events) = dht.subscribe(Topic::Node).await else { return };
    // The node is the caller's: it ends when the caller drops it.
    drop(dht);
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(event) if event.is_move() => mover.send_replace(()),
                Some(_) => {}
                None => return,
            },
            () = mover.closed() => return,
        }
    }
}
