//! Trackers that a test controls: an HTTP one whose every reply is the test's, and a UDP one (BEP 15)
//! that lies in the ways of S60 (`tests/SCENARIOS.md`). Written from the specifications, sharing nothing with
//! the client.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::uninterrupted::uninterrupted;

/// What the HTTP tracker sends back.
pub enum Reply {
    /// Status 200 with this body.
    Body(Vec<u8>),
    /// Exactly these bytes.
    Raw(Vec<u8>),
    /// A head, then this chunk over and over until the client hangs up or the limit is reached.
    Endless {
        /// Status line and headers, the empty line included.
        head: Vec<u8>,
        /// What is repeated.
        chunk: Vec<u8>,
        /// Bytes of body, at most.
        limit: u64,
    },
}

/// An HTTP tracker on loopback. Runs until the process ends.
pub struct HttpTracker {
    addr: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    sent: Arc<AtomicUsize>,
}

impl HttpTracker {
    /// Starts it; `answer` gets the request's target (path and query).
    pub fn start(answer: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let sent = Arc::new(AtomicUsize::new(0));
        let (log, counter, answer) = (Arc::clone(&requests), Arc::clone(&sent), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, counter, answer) = (Arc::clone(&log), Arc::clone(&counter), Arc::clone(&answer));
                thread::spawn(move || {
                    let Some(target) = read_target(&stream) else { return };
                    log.lock().unwrap().push(target.clone());
                    send(stream, answer(&target), &counter);
                });
            }
        });
        Self { addr, requests, sent }
    }

    /// Its announce URL.
    pub fn url(&self) -> String {
        format!("http://{}/announce", self.addr)
    }

    /// Targets of the requests so far.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// Bytes of replies that the clients' systems have taken so far.
    pub fn sent(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }
}

/// A tracker reply that names `peers` (BEP 23), with this bencoded interval.
pub fn announce_reply(peers: &[SocketAddrV4], interval: &str) -> Vec<u8> {
    let mut body = format!("d8:interval{interval}5:peers{}:", peers.len() * 6).into_bytes();
    for peer in peers {
        body.extend_from_slice(&peer.ip().octets());
        body.extend_from_slice(&peer.port().to_be_bytes());
    }
    body.push(b'e');
    body
}

fn read_target(mut stream: &TcpStream) -> Option<String> {
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    let mut head = Vec::new();
    let mut chunk = [0; 2048];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match uninterrupted(|| stream.read(&mut chunk)) {
            Ok(n) if n > 0 && head.len() < 64 << 10 => head.extend_from_slice(&chunk[..n]),
            _ => return None,
        }
    }
    let line = String::from_utf8_lossy(&head).lines().next()?.to_owned();
    line.split(' ').nth(1).map(str::to_owned)
}

fn send(mut stream: TcpStream, reply: Reply, sent: &AtomicUsize) {
    let mut put = |bytes: &[u8]| {
        let ok = stream.write_all(bytes).is_ok();
        if ok {
            sent.fetch_add(bytes.len(), Ordering::Relaxed);
        }
        ok
    };
    match reply {
        Reply::Raw(bytes) => {
            put(&bytes);
        }
        Reply::Body(body) => {
            let head = format!(
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            let _ = put(head.as_bytes()) && put(&body);
        }
        Reply::Endless { head, chunk, limit } => {
            let mut left = limit;
            let mut going = put(&head);
            while going && left > 0 {
                going = put(&chunk);
                left = left.saturating_sub(chunk.len() as u64);
            }
        }
    }
}

/// How a UDP tracker misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Another transaction id than the request's.
    WrongTid,
    /// Another action than the request's.
    WrongAction,
    /// Three bytes.
    Short,
    /// The right answer from another socket.
    OtherAddress,
    /// No answer.
    Silent,
}

/// All of them.
pub const LIES: [Lie; 5] = [Lie::WrongTid, Lie::WrongAction, Lie::Short, Lie::OtherAddress, Lie::Silent];

/// A UDP tracker on loopback. Runs until the process ends.
pub struct UdpTracker {
    addr: SocketAddr,
    connects: Arc<AtomicUsize>,
    announces: Arc<AtomicUsize>,
}

impl UdpTracker {
    /// Starts it: it names `peers`, or `decoy` where it lies about a right answer.
    pub fn start(lie: Option<Lie>, peers: Vec<SocketAddrV4>) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let other = UdpSocket::bind("127.0.0.1:0").unwrap();
        let addr = socket.local_addr().unwrap();
        let (connects, announces) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (c, a) = (Arc::clone(&connects), Arc::clone(&announces));
        thread::spawn(move || {
            let mut packet = [0; 2048];
            while let Ok((n, from)) = uninterrupted(|| socket.recv_from(&mut packet)) {
                let Some(mut reply) = answer(&packet[..n], &peers, &c, &a) else { continue };
                match lie {
                    None | Some(Lie::OtherAddress) => {}
                    Some(Lie::WrongTid) => reply[4] ^= 0x55,
                    Some(Lie::WrongAction) => reply[3] = 2,
                    Some(Lie::Short) => reply.truncate(3),
                    Some(Lie::Silent) => continue,
                }
                let from_socket = if lie == Some(Lie::OtherAddress) { &other } else { &socket };
                let _ = from_socket.send_to(&reply, from);
            }
        });
        Self { addr, connects, announces }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("udp://{}/announce", self.addr)
    }

    /// Connect requests and announces so far.
    pub fn seen(&self) -> (usize, usize) {
        (self.connects.load(Ordering::Relaxed), self.announces.load(Ordering::Relaxed))
    }
}

const CONNECTION_ID: [u8; 8] = *b"\x12\x34\x56\x78\x9a\xbc\xde\xf0";
/// BEP 15: what a connect request begins with.
const PROTOCOL_ID: [u8; 8] = 0x417_2710_1980_u64.to_be_bytes();

fn answer(
    packet: &[u8],
    peers: &[SocketAddrV4],
    connects: &AtomicUsize,
    announces: &AtomicUsize,
) -> Option<Vec<u8>> {
    let (id, rest) = packet.split_at_checked(8)?;
    let (action, rest) = rest.split_at_checked(4)?;
    let tid = rest.get(..4)?;
    let mut reply = Vec::new();
    match action {
        [0, 0, 0, 0] if id == PROTOCOL_ID => {
            connects.fetch_add(1, Ordering::Relaxed);
            reply.extend_from_slice(&[0, 0, 0, 0]);
            reply.extend_from_slice(tid);
            reply.extend_from_slice(&CONNECTION_ID);
        }
        [0, 0, 0, 1] if id == CONNECTION_ID && packet.len() >= 98 => {
            announces.fetch_add(1, Ordering::Relaxed);
            reply.extend_from_slice(&[0, 0, 0, 1]);
            reply.extend_from_slice(tid);
            for number in [1800u32, 0, peers.len() as u32] {
                reply.extend_from_slice(&number.to_be_bytes());
            }
            for peer in peers {
                reply.extend_from_slice(&peer.ip().octets());
                reply.extend_from_slice(&peer.port().to_be_bytes());
            }
        }
        _ => return None,
    }
    Some(reply)
}
