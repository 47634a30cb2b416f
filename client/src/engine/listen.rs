//! Incoming TCP connections: accepted within limits, greeted, and matched to a torrent by infohash in
//! this one place.
//!
//! A stranger who connects gets a place among [`MAX_GREETING`] for at most [`GREETING_TIMEOUT`], and no
//! more than [`MAX_GREETING_PER_IP`] of them; when there is none left the connection is closed at once.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use btdht::addr::{SourceKey, source_key};
use btdht::net::Bind;
use krpc::Id;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};

use super::inbound::Inbound;
use super::shared::Shared;
use crate::peer::Greeting;

/// Connections that have not said yet what they want; fewer where an eighth of what the process may
/// have open is less.
const MAX_GREETING: usize = 256;
/// Those of one IP (of one address and port for local ones, where they are allowed).
const MAX_GREETING_PER_IP: usize = 4;
/// The handshake has to be whole after this.
const GREETING_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after an error of `accept`, which is nearly always a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);
/// Connections that the kernel may hold for us.
const BACKLOG: i32 = 128;
/// How often a port is drawn again when the one of the first family is taken in the second.
const DRAWS: usize = 16;

/// Bound TCP sockets, of one port unless addresses with ports of their own were asked for.
#[derive(Debug)]
pub struct Listeners(Vec<StdListener>);

/// A TCP address could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("binding {addr} (TCP): {source}")]
pub struct BindError {
    /// The address.
    pub addr: SocketAddr,
    /// Why.
    pub source: io::Error,
}

impl Listeners {
    /// Binds all of `binds`. Port 0 takes any free one, the same for all that ask for 0. An address
    /// family that the machine lacks is skipped unless it is required.
    ///
    /// # Errors
    /// The first address that could not be bound.
    pub fn bind(binds: &[Bind]) -> Result<Self, BindError> {
        for _ in 1..DRAWS {
            match Self::bind_once(binds) {
                Err(error) if error.source.kind() == io::ErrorKind::AddrInUse && drawn(binds) => {}
                result => return result,
            }
        }
        Self::bind_once(binds)
    }

    /// No sockets: nobody can connect.
    pub fn none() -> Self {
        Self(Vec::new())
    }

    /// The port of the first socket; 0 when there is none.
    pub fn port(&self) -> u16 {
        self.local_addrs().first().map_or(0, SocketAddr::port)
    }

    /// Where connections are taken.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.0.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    pub(super) fn into_inner(self) -> Vec<StdListener> {
        self.0
    }

    fn bind_once(binds: &[Bind]) -> Result<Self, BindError> {
        let mut bound = Self(Vec::new());
        for bind in binds {
            let mut addr = bind.addr;
            if addr.port() == 0 {
                addr.set_port(bound.port());
            }
            match listener(addr) {
                Ok(listener) => bound.0.push(listener),
                Err(source) if !bind.required && is_missing_family(&source) => {
                    tracing::warn!("not listening on {addr} (TCP): {source}");
                }
                Err(source) => return Err(BindError { addr, source }),
            }
        }
        Ok(bound)
    }
}

/// Whether the system picks a port for more than one socket.
fn drawn(binds: &[Bind]) -> bool {
    binds.iter().filter(|bind| bind.addr.port() == 0).count() > 1
}

fn is_missing_family(error: &io::Error) -> bool {
    use rustix::io::Errno;

    let missing = [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|code| missing.contains(&code))
}

fn listener(addr: SocketAddr) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(addr))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Who is being greeted.
#[derive(Debug)]
pub(super) struct Greetings {
    places: Mutex<BTreeMap<SourceKey, usize>>,
    most: usize,
}

impl Default for Greetings {
    fn default() -> Self {
        let open = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let eighth = open.and_then(|open| usize::try_from(open / 8).ok());
        Self::at_most(eighth.map_or(MAX_GREETING, |eighth| eighth.clamp(MAX_GREETING_PER_IP, MAX_GREETING)))
    }
}

impl Greetings {
    fn at_most(most: usize) -> Self {
        Self { places: Mutex::default(), most }
    }

    /// A place for `from`, given back when dropped; `None` when there is none.
    fn enter(self: &Arc<Self>, from: SocketAddr, allow_local: bool) -> Option<Place> {
        let key = source_key(from, allow_local);
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = places.values().sum();
        let own = places.get(&key).copied().unwrap_or(0);
        if all >= self.most || own >= MAX_GREETING_PER_IP {
            return None;
        }
        places.insert(key, own + 1);
        Some(Place { greetings: Arc::clone(self), key })
    }
}

#[derive(Debug)]
struct Place {
    greetings: Arc<Greetings>,
    key: SourceKey,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.greetings.places.lock().unwrap_or_else(PoisonError::into_inner);
        match places.get_mut(&self.key) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                places.remove(&self.key);
            }
        }
    }
}

/// Accepts until the session ends.
pub(super) async fn accept(listener: TcpListener, greetings: Arc<Greetings>, session: Arc<Shared>) {
    let mut complained = false;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = session.ended.cancelled() => return,
        };
        match accepted {
            Ok((stream, from)) => {
                if let Some(place) = greetings.enter(from, session.allow_local) {
                    let session = Arc::clone(&session);
                    tokio::spawn(async move { greet(stream, from, place, &session).await });
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut complained, true) {
                    tracing::warn!("taking connections: {error}");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Reads until the infohash is known and hands the connection to its torrent.
async fn greet(mut stream: TcpStream, from: SocketAddr, place: Place, session: &Shared) {
    let read = tokio::select! {
        read = tokio::time::timeout(GREETING_TIMEOUT, read_infohash(&mut stream, session)) => read,
        () = session.ended.cancelled() => return,
    };
    let Ok(Some((greeting, infohash))) = read else { return };
    if let Some(torrent) = session.torrent(infohash) {
        // Waits when the torrent is busy; the place among the greeted is held as long.
        let _ = torrent.send(Inbound::Incoming(stream, from, greeting)).await;
    }
    drop(place);
}

async fn read_infohash(stream: &mut TcpStream, session: &Shared) -> Option<(Greeting, Id)> {
    let mut greeting = Greeting::new(session.clock.now(), GREETING_TIMEOUT);
    loop {
        let n = stream.read(greeting.space()).await.ok().filter(|&n| n > 0)?;
        if let Some(infohash) = greeting.received(n).ok()? {
            return Some((greeting, infohash));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_gets_four_places_and_gives_them_back() {
        let greetings = Arc::new(Greetings::at_most(MAX_GREETING));
        let from = "8.8.8.8:1".parse().unwrap();
        let places: Vec<_> = (0..5).map(|_| greetings.enter(from, true)).collect();
        assert_eq!(places.iter().flatten().count(), MAX_GREETING_PER_IP);
        drop(places);
        assert!(greetings.enter(from, true).is_some());
        assert!(greetings.places.lock().unwrap().is_empty());
    }

    #[test]
    fn local_addresses_count_by_port_only_where_they_are_allowed() {
        let greetings = Arc::new(Greetings::at_most(MAX_GREETING));
        let from = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let places: Vec<_> = (1..=300).map(|port| greetings.enter(from(port), true)).collect();
        assert_eq!(places.iter().flatten().count(), MAX_GREETING);
        drop(places);
        let places: Vec<_> = (1..=300).map(|port| greetings.enter(from(port), false)).collect();
        assert_eq!(places.iter().flatten().count(), MAX_GREETING_PER_IP);
    }

    #[test]
    fn both_families_get_the_same_port_and_a_taken_one_is_an_error() {
        let any = |ip: &str| Bind { addr: SocketAddr::new(ip.parse().unwrap(), 0), required: false };
        let bound = Listeners::bind(&[any("127.0.0.1"), any("::1")]).unwrap();
        let addrs = bound.local_addrs();
        assert!(!addrs.is_empty() && addrs.iter().all(|addr| addr.port() == bound.port()));
        let again = Bind { addr: addrs[0], required: true };
        let error = Listeners::bind(&[again]).unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
    }
}
