//! [`Shared`]: what the tasks of a session share.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};

use btdht::net::{Clock, Dht};
use krpc::Id;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::dial::Dials;
use super::http::Http;
use super::inbound::Inbound;
use super::piece_handle::PieceHandle;
use super::throttle::Limit;
use crate::piece::BlockPool;
use crate::storage::{OpenFiles, Preallocation};

/// What the tasks of a session share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) clock: Clock,
    pub(super) http: Http,
    pub(super) dht: Option<Dht>,
    pub(super) allow_local: bool,
    pub(super) preallocation: Preallocation,
    pub(super) peer_id: [u8; 20],
    /// Our TCP port; 0 when nobody can connect.
    pub(super) port: u16,
    pub(super) down: Arc<Limit>,
    pub(super) up: Arc<Limit>,
    pub(super) dials: Dials,
    /// Places for announces that run at once, and for those that say good-bye.
    pub(super) announces: Semaphore,
    pub(super) farewells: Semaphore,
    pub(super) blocks: Arc<BlockPool>,
    /// What torrents keep open that do not say how many files that may be.
    pub(super) open_files: Arc<OpenFiles>,
    pub(super) ended: CancellationToken,
    /// Changes when our address or network does, as the DHT node sees it.
    pub(super) moved: watch::Receiver<()>,
    pub(super) torrents: Mutex<BTreeMap<Id, mpsc::Sender<Inbound>>>,
    /// Torrents that fetch something: they share what may come in.
    pub(super) fetching: Arc<AtomicUsize>,
    /// Downloads of single pieces that have a name.
    pub(super) pieces: Mutex<BTreeMap<String, PieceHandle>>,
    pub(super) addrs: Vec<SocketAddr>,
}

impl Shared {
    /// The torrent that a peer asks for.
    pub(super) fn torrent(&self, infohash: Id) -> Option<mpsc::Sender<Inbound>> {
        self.lock().get(&infohash).cloned()
    }

    /// Opens a connection: see [`Dials::dial`].
    pub(super) async fn dial(&self, addr: SocketAddr) -> std::io::Result<TcpStream> {
        self.dials.dial(&self.clock, self.source_for(addr)?, addr).await
    }

    /// Where a connection to `remote` must come from: what the user bound us to holds for what we open,
    /// too. `Ok(None)` leaves the choice to the system.
    ///
    /// # Errors
    /// We listen on addresses of the other family only.
    pub(super) fn source_for(&self, remote: SocketAddr) -> std::io::Result<Option<SocketAddr>> {
        if self.addrs.is_empty() {
            return Ok(None);
        }
        let mut same = self.addrs.iter().filter(|local| local.is_ipv4() == remote.is_ipv4()).peekable();
        let Some(first) = same.peek().copied() else {
            return Err(std::io::Error::new(
                std::io::ErrorKind::AddrNotAvailable,
                "no address of this family was bound",
            ));
        };
        let free = same.any(|local| local.ip().is_unspecified());
        Ok((!free).then(|| SocketAddr::new(first.ip(), 0)))
    }

    /// The UDP port of our DHT node, as a peer at `remote` can reach it.
    pub(super) fn dht_port(&self, remote: SocketAddr) -> Option<u16> {
        let dht = self.dht.as_ref()?;
        let mut addrs = dht.local_addrs().filter(|local| local.is_ipv4() == remote.is_ipv4());
        addrs.next().map(|local| local.port()).filter(|&port| port != 0)
    }

    /// The torrents of the session.
    pub(super) fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Id, mpsc::Sender<Inbound>>> {
        self.torrents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
