//! [`Peer`]: a listening socket whose connections are served by a thread each.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use super::honest::Honest;
use super::link::Link;
use super::mode::Mode;
use super::seen::Seen;
use super::torrent::Torrent;

/// A peer on loopback, until dropped.
pub struct Peer {
    /// Where it listens.
    pub addr: SocketAddr,
    /// What it saw.
    pub seen: Arc<Seen>,
    stop: Arc<Stop>,
}

#[derive(Default)]
struct Stop {
    asked: AtomicBool,
    /// Open connections by their number.
    streams: Mutex<Vec<(u64, TcpStream)>>,
}

impl Peer {
    /// A seeder that keeps to the protocol.
    pub fn honest(torrent: &Arc<Torrent>, options: Honest) -> Self {
        let bucket = options.bucket();
        Self::start(*b"-HO", torrent, move |link| options.serve(&bucket, link))
    }

    /// A peer that misbehaves in this way.
    pub fn hostile(torrent: &Arc<Torrent>, mode: Mode) -> Self {
        Self::start(*b"-EV", torrent, move |link| mode.misbehave(link))
    }

    fn start(
        client: [u8; 3],
        torrent: &Arc<Torrent>,
        serve: impl Fn(Link) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
        let addr = listener.local_addr().expect("a bound socket has an address");
        let peer = Self { addr, seen: Arc::default(), stop: Arc::default() };
        let peer_id = peer_id(client, addr);
        let (seen, stop, serve) = (Arc::clone(&peer.seen), Arc::clone(&peer.stop), Arc::new(serve));
        let torrent = Arc::clone(torrent);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if stop.asked.load(Ordering::SeqCst) {
                    return;
                }
                let number = seen.connections.add(1);
                let clone = stream.try_clone().map(|stream| (number, stream));
                stop.streams.lock().expect("no panic holds it").extend(clone);
                let Ok(link) = Link::new(stream, peer_id, Arc::clone(&torrent), Arc::clone(&seen)) else {
                    continue;
                };
                let (seen, serve, stop) = (Arc::clone(&seen), Arc::clone(&serve), Arc::clone(&stop));
                thread::spawn(move || {
                    let start = Instant::now();
                    // The end of every connection is an error: the client closed it.
                    let _ = serve(link);
                    // With the last handle the connection closes, which for some modes is the point.
                    stop.streams.lock().expect("no panic holds it").retain(|(other, _)| *other != number);
                    seen.ended(start.elapsed());
                });
            }
        });
        peer
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stop.asked.store(true, Ordering::SeqCst);
        // Wakes the listener.
        let _ = TcpStream::connect(self.addr);
        for (_, stream) in self.stop.streams.lock().expect("no panic holds it").drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

/// A peer id that no other peer of the test has.
fn peer_id(client: [u8; 3], addr: SocketAddr) -> [u8; 20] {
    let mut id = *b"-XX0001-000000000000";
    id[..3].copy_from_slice(&client);
    id[12..].copy_from_slice(format!("{:08}", addr.port()).as_bytes());
    id
}
