//! [`Link`]: one connection, on raw bytes (BEP 3's peer protocol).

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::seen::Seen;
use super::torrent::Torrent;
use crate::uninterrupted::uninterrupted;

pub(super) const CHOKE: u8 = 0;
pub(super) const UNCHOKE: u8 = 1;
pub(super) const INTERESTED: u8 = 2;
pub(super) const NOT_INTERESTED: u8 = 3;
pub(super) const HAVE: u8 = 4;
pub(super) const BITFIELD: u8 = 5;
pub(super) const REQUEST: u8 = 6;
pub(super) const PIECE: u8 = 7;
pub(super) const CANCEL: u8 = 8;
pub(super) const PORT: u8 = 9;
pub(super) const SUGGEST: u8 = 13;
pub(super) const HAVE_ALL: u8 = 14;
pub(super) const HAVE_NONE: u8 = 15;
pub(super) const REJECT: u8 = 16;
pub(super) const ALLOWED_FAST: u8 = 17;
pub(super) const EXTENDED: u8 = 20;

/// The reserved bit of the extension protocol (BEP 10).
pub(super) const EXTENSION_BIT: [u8; 8] = [0, 0, 0, 0, 0, 0x10, 0, 0];
/// The reserved bits of the extension protocol and of the fast extension (BEP 6).
pub(super) const FAST_BITS: [u8; 8] = [0, 0, 0, 0, 0, 0x10, 0, 0x04];

/// Our id of `ut_metadata` messages.
pub(super) const OUR_UT_METADATA: u8 = 3;

/// A client never has a reason to send more in one message.
const LONGEST: u32 = 1 << 20;

/// One connection with the client.
pub(super) struct Link {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
    pub(super) seen: Arc<Seen>,
    pub(super) torrent: Arc<Torrent>,
    pub(super) peer_id: [u8; 20],
    /// The client's handshake.
    pub(super) theirs: [u8; 68],
    /// What the client calls `ut_metadata`; 0 before its extension handshake.
    pub(super) ut_metadata: u8,
    /// Where the client listens (`p` of its extension handshake).
    pub(super) listens: Option<SocketAddr>,
}

/// A message of the client; a keep-alive is none.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) id: u8,
    pub(super) body: Vec<u8>,
}

/// A block that the client asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) index: u32,
    pub(super) begin: u32,
    pub(super) len: u32,
}

impl Link {
    pub(super) fn new(
        stream: TcpStream,
        peer_id: [u8; 20],
        torrent: Arc<Torrent>,
        seen: Arc<Seen>,
    ) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let reader = BufReader::new(stream.try_clone()?);
        Ok(Self { stream, reader, seen, torrent, peer_id, theirs: [0; 68], ut_metadata: 0, listens: None })
    }

    /// Reads the client's handshake and answers with a right one.
    pub(super) fn greet(&mut self, reserved: [u8; 8]) -> io::Result<()> {
        self.read_hello()?;
        let hello = self.hello(reserved);
        self.write(&hello)
    }

    pub(super) fn read_hello(&mut self) -> io::Result<()> {
        self.reader.read_exact(&mut self.theirs)?;
        self.seen.bytes.add(68);
        self.seen.handshakes.add(1);
        if self.theirs[..20] != *b"\x13BitTorrent protocol" || self.theirs[28..48] != self.torrent.infohash {
            self.seen.complain(format!("handshake {}", self.theirs.escape_ascii()));
        }
        Ok(())
    }

    /// A right handshake.
    pub(super) fn hello(&self, reserved: [u8; 8]) -> Vec<u8> {
        [b"\x13BitTorrent protocol", &reserved[..], &self.torrent.infohash, &self.peer_id].concat()
    }

    /// The next message that is no keep-alive.
    pub(super) fn next(&mut self) -> io::Result<Message> {
        loop {
            let mut prefix = [0; 4];
            self.reader.read_exact(&mut prefix)?;
            self.seen.bytes.add(4);
            let len = u32::from_be_bytes(prefix);
            if len > LONGEST {
                self.seen.complain(format!("a message of {len} bytes"));
                return Err(io::ErrorKind::InvalidData.into());
            }
            let mut bytes = vec![0; len as usize];
            self.reader.read_exact(&mut bytes)?;
            self.seen.bytes.add(u64::from(len));
            self.seen.messages.add(1);
            if let Some((&id, body)) = bytes.split_first() {
                let message = Message { id, body: body.to_vec() };
                self.note(&message);
                return Ok(message);
            }
        }
    }

    /// Reads until the client closes the connection, and reacts to nothing.
    pub(super) fn hold(&mut self) -> io::Result<()> {
        loop {
            self.next()?;
        }
    }

    /// The next message if it begins before `end`. A message that stalls in the middle fails.
    pub(super) fn next_until(&mut self, end: Instant) -> io::Result<Option<Message>> {
        if self.reader.buffer().is_empty() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.stream.set_read_timeout(Some(left))?;
            let filled = uninterrupted(|| self.reader.fill_buf().map(<[u8]>::len));
            self.stream.set_read_timeout(None)?;
            match filled {
                Ok(_) => {}
                Err(error) if is_timeout(&error) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        self.next().map(Some)
    }

    /// Reads and counts messages for this long; `true` if the client closed the connection meanwhile.
    pub(super) fn count_within(&mut self, patience: Duration) -> io::Result<bool> {
        let end = Instant::now() + patience;
        loop {
            match self.next_until(end) {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(false),
                Err(_) => return Ok(true),
            }
        }
    }

    /// Waits, without looking at what comes; `true` if the client closed the connection meanwhile.
    pub(super) fn closed_within(&mut self, patience: Duration) -> io::Result<bool> {
        let end = Instant::now() + patience;
        let mut scratch = [0; 4096];
        let closed = loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break false;
            }
            self.stream.set_read_timeout(Some(left))?;
            match uninterrupted(|| self.reader.read(&mut scratch)) {
                Ok(0) => break true,
                Ok(n) => _ = self.seen.bytes.add(n as u64),
                Err(error) if is_timeout(&error) => {}
                Err(_) => break true,
            }
        };
        self.stream.set_read_timeout(None)?;
        Ok(closed)
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    pub(super) fn send(&mut self, id: u8, body: &[u8]) -> io::Result<()> {
        self.write(&message(id, body))
    }

    /// Sends an extension handshake (BEP 10): the dictionary as it is.
    pub(super) fn send_extended(&mut self, id: u8, body: &[u8]) -> io::Result<()> {
        self.write(&extended(id, body))
    }

    /// Claims to have every piece and unchokes the client.
    pub(super) fn offer_all(&mut self) -> io::Result<()> {
        let bitfield = self.torrent.full_bitfield();
        self.send(BITFIELD, &bitfield)?;
        self.send(UNCHOKE, b"")
    }

    /// The next request of the client.
    pub(super) fn next_request(&mut self) -> io::Result<Wanted> {
        loop {
            if let Some(wanted) = self.next()?.wanted() {
                return Ok(wanted);
            }
        }
    }

    /// Sends a block as it is in the torrent, if it is there.
    pub(super) fn send_right(&mut self, wanted: Wanted) -> io::Result<()> {
        let torrent = Arc::clone(&self.torrent);
        let Some(data) = torrent.block(wanted.index, wanted.begin, wanted.len) else { return Ok(()) };
        self.send_block(wanted.index, wanted.begin, data)
    }

    /// Sends a block with a wrong first byte.
    pub(super) fn send_wrong(&mut self, wanted: Wanted) -> io::Result<()> {
        let torrent = Arc::clone(&self.torrent);
        let Some(data) = torrent.block(wanted.index, wanted.begin, wanted.len) else { return Ok(()) };
        let mut data = data.to_vec();
        data[0] ^= 0xff;
        self.seen.spoil(wanted.index);
        self.send_block(wanted.index, wanted.begin, &data)
    }

    pub(super) fn send_block(&mut self, index: u32, begin: u32, data: &[u8]) -> io::Result<()> {
        self.seen.blocks_sent.add(1);
        self.send(PIECE, &[&index.to_be_bytes()[..], &begin.to_be_bytes(), data].concat())
    }

    /// Writes `count` messages as fast as the client takes them and reads aside what it says; then
    /// waits until it closes the connection.
    pub(super) fn flood(mut self, count: u32, message: impl FnMut(u32, &mut Vec<u8>)) -> io::Result<()> {
        let reader = BufReader::new(self.stream.try_clone()?);
        let mut aside = Self {
            stream: self.stream.try_clone()?,
            reader: std::mem::replace(&mut self.reader, reader),
            seen: Arc::clone(&self.seen),
            torrent: Arc::clone(&self.torrent),
            ..self
        };
        let reading = thread::spawn(move || aside.hold());
        self.pour(count, message)?;
        reading.join().expect("reading does not panic")
    }

    /// Writes `count` messages and reads nothing.
    pub(super) fn pour(&mut self, count: u32, mut message: impl FnMut(u32, &mut Vec<u8>)) -> io::Result<()> {
        let mut batch = Vec::new();
        for n in 0..count {
            message(n, &mut batch);
            if batch.len() >= 16_384 {
                self.write(&batch)?;
                batch.clear();
            }
        }
        self.write(&batch)
    }

    /// Lets the kernel keep as little as it can of what is not read.
    pub(super) fn shrink_receive_buffer(&self) -> io::Result<()> {
        socket2::SockRef::from(&self.stream).set_recv_buffer_size(4096)
    }

    /// Closes the connection with a reset.
    pub(super) fn reset(self) -> io::Result<()> {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO))
    }

    fn note(&mut self, message: &Message) {
        match (message.id, message.body.as_slice()) {
            (REQUEST, _) => _ = self.seen.requests.add(1),
            (CANCEL, _) => _ = self.seen.cancels.add(1),
            (PIECE, _) => _ = self.seen.blocks_received.add(1),
            (EXTENDED, [0, handshake @ ..]) => {
                let id = number_after(handshake, b"11:ut_metadatai");
                self.ut_metadata = id.and_then(|id| u8::try_from(id).ok()).unwrap_or(0);
                let port = number_after(handshake, b"1:pi").and_then(|port| u16::try_from(port).ok());
                let ip = self.stream.peer_addr().map(|addr| addr.ip());
                self.listens = ip.ok().zip(port).map(SocketAddr::from);
            }
            (EXTENDED, [OUR_UT_METADATA, dict @ ..]) if number_after(dict, b"8:msg_typei") == Some(0) => {
                self.seen.metadata_requests.add(1);
            }
            _ => {}
        }
    }
}

impl Message {
    /// The block that a request is about.
    pub(super) fn wanted(&self) -> Option<Wanted> {
        if self.id != REQUEST || self.body.len() != 12 {
            return None;
        }
        let word = |at: usize| u32::from_be_bytes(self.body[at..at + 4].try_into().expect("four bytes"));
        Some(Wanted { index: word(0), begin: word(4), len: word(8) })
    }

    /// The piece of the info dictionary that a request is about.
    pub(super) fn wanted_metadata(&self) -> Option<usize> {
        let (&OUR_UT_METADATA, dict) = self.body.split_first()? else { return None };
        if self.id != EXTENDED || number_after(dict, b"8:msg_typei") != Some(0) {
            return None;
        }
        usize::try_from(number_after(dict, b"5:piecei")?).ok()
    }
}

impl Wanted {
    /// The body of a request, cancel or reject of it.
    pub(super) fn body(self) -> Vec<u8> {
        [self.index, self.begin, self.len].iter().flat_map(|word| word.to_be_bytes()).collect()
    }
}

/// A message with its length prefix.
pub(super) fn message(id: u8, body: &[u8]) -> Vec<u8> {
    let len = body.len() as u32 + 1;
    [&len.to_be_bytes()[..], &[id], body].concat()
}

/// An extension message (BEP 10).
pub(super) fn extended(id: u8, body: &[u8]) -> Vec<u8> {
    message(EXTENDED, &[&[id], body].concat())
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// The integer behind the first occurrence of `key`.
fn number_after(dict: &[u8], key: &[u8]) -> Option<i64> {
    let at = dict.windows(key.len()).position(|window| window == key)? + key.len();
    let digits: Vec<u8> =
        dict[at..].iter().copied().take_while(|byte| byte.is_ascii_digit() || *byte == b'-').collect();
    String::from_utf8(digits).ok()?.parse().ok()
}
