//! Queries written by hand, byte by byte: a socket that asks what no node of ours would ask, and tells
//! silence from slowness without waiting for it.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use btdht::Rng;
use btdht::secure_id::secure_id;
use krpc::bencode::{Limits, Value};

/// An argument of a query: its name and its bencoded value.
pub type Argument<'a> = (&'a str, Vec<u8>);

/// A bencoded string.
pub fn string(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    [format!("{}:", bytes.len()).as_bytes(), bytes].concat()
}

/// A bencoded integer.
pub fn int(number: i64) -> Vec<u8> {
    format!("i{number}e").into_bytes()
}

/// A bencoded list of what is bencoded already.
pub fn list(items: &[Vec<u8>]) -> Vec<u8> {
    [b"l", &items.concat()[..], b"e"].concat()
}

/// A bencoded dictionary; its keys stand in the order in which they are given.
pub fn dict(entries: &[Argument<'_>]) -> Vec<u8> {
    let mut out = vec![b'd'];
    for (key, value) in entries {
        out.extend(string(key));
        out.extend(value);
    }
    out.push(b'e');
    out
}

/// A socket that asks.
#[derive(Debug)]
pub struct Asker {
    socket: UdpSocket,
    /// Its node id.
    pub id: [u8; 20],
    asked: u16,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply(Vec<u8>);

impl Asker {
    /// A socket at `ip` and any port. Its id belongs to its address (BEP 42), as some nodes demand, and
    /// is made of its port too, so that two are never the same.
    pub fn new(ip: &str) -> Self {
        let socket = UdpSocket::bind((ip, 0)).expect("an address of this namespace");
        let timeout = Some(Duration::from_millis(50));
        socket.set_read_timeout(timeout).expect("a positive timeout");
        let addr = socket.local_addr().expect("bound");
        let seed =
            addr.to_string().bytes().fold(0_u64, |seed, byte| seed.wrapping_mul(257) + u64::from(byte));
        let id = *secure_id(addr.ip(), &mut Rng::from_seed(seed)).as_bytes();
        Self { socket, id, asked: 0 }
    }

    /// Where it asks from.
    pub fn addr(&self) -> SocketAddr {
        self.socket.local_addr().expect("bound")
    }

    /// Sends a query; `None` if the node does not answer it. An `id` is added where there is none, and
    /// keys are sorted. `ro` says that this socket answers nothing (BEP 43).
    pub fn ask(&mut self, node: &str, method: &str, arguments: &[Argument<'_>]) -> Option<Reply> {
        let mut arguments = arguments.to_vec();
        if arguments.iter().all(|(key, _)| *key != "id") {
            arguments.push(("id", string(self.id)));
        }
        arguments.sort();
        let tid = self.tid(b'q');
        let query = dict(&[
            ("a", dict(&arguments)),
            ("q", string(method)),
            ("ro", int(1)),
            ("t", string(tid)),
            ("y", string("q")),
        ]);
        self.send(node, &query, &tid)
    }

    /// Sends `datagram` and behind it a ping. `None` if only the ping is answered: every node takes its
    /// datagrams one by one. Panics if neither is.
    pub fn send(&mut self, node: &str, datagram: &[u8], tid: &[u8]) -> Option<Reply> {
        let node: SocketAddr = node.parse().expect("an address");
        let ping_tid = self.tid(b'p');
        let arguments = dict(&[("id", string(self.id))]);
        let ping = dict(&[
            ("a", arguments),
            ("q", string("ping")),
            ("ro", int(1)),
            ("t", string(ping_tid)),
            ("y", string("q")),
        ]);
        let end = Instant::now() + Duration::from_secs(20);
        let mut again = Instant::now();
        while Instant::now() < end {
            // A node that has just been started may hear nothing yet.
            if again <= Instant::now() {
                again = Instant::now() + Duration::from_secs(3);
                self.socket.send_to(datagram, node).expect("the network is up");
                self.socket.send_to(&ping, node).expect("the network is up");
            }
            let mut buffer = [0; 2048];
            let Ok((len, from)) = self.socket.recv_from(&mut buffer) else { continue };
            if from != node {
                continue;
            }
            let reply = Reply(buffer[..len].to_vec());
            match reply.field("t") {
                Some(echoed) if echoed == string(tid) => return Some(reply),
                Some(echoed) if echoed == string(ping_tid) => return None,
                _ => {}
            }
        }
        panic!("{node} answered neither {} nor a ping", datagram.escape_ascii());
    }

    /// Four bytes: the crate `mainline` hears queries with two or four and no others.
    fn tid(&mut self, kind: u8) -> [u8; 4] {
        self.asked += 1;
        let [high, low] = self.asked.to_be_bytes();
        [kind, kind, high, low]
    }
}

impl Reply {
    fn value(&self) -> Value<'_> {
        Value::parse(&self.0, Limits::KRPC).unwrap_or_else(|error| panic!("{error:?}: {self}"))
    }

    /// An outer key of the message, bencoded.
    pub fn field(&self, key: &str) -> Option<Vec<u8>> {
        self.value().get(key).map(|value| value.raw().to_vec())
    }

    /// A key of the answer `r`, bencoded.
    pub fn answer(&self, key: &str) -> Option<Vec<u8>> {
        self.value().get("r")?.get(key).map(|value| value.raw().to_vec())
    }

    /// A string of the answer `r`.
    pub fn bytes(&self, key: &str) -> Option<Vec<u8>> {
        self.value().get("r")?.get(key)?.as_bytes().map(<[u8]>::to_vec)
    }

    /// What it comes to: `error` and a code, or the names of all that the answer holds.
    pub fn outcome(&self) -> String {
        let value = self.value();
        if let Some(error) = value.get("e") {
            let code = error.as_list().and_then(|parts| parts.first()).and_then(Value::as_int);
            return format!("error {}", code.unwrap_or_default());
        }
        let answer = value.get("r").and_then(Value::as_dict).unwrap_or_default();
        let names = answer.iter().map(|(name, _)| String::from_utf8_lossy(name));
        names.collect::<Vec<_>>().join(" ")
    }
}

impl std::fmt::Display for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}
