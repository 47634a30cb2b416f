//! [`Honest`]: a seeder that keeps to BEP 3, 6, 9 and 10, and complains when the client does not.

use std::io;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use super::link::{
    BITFIELD, EXTENDED, EXTENSION_BIT, FAST_BITS, HAVE_ALL, INTERESTED, Link, Message, OUR_UT_METADATA,
    REQUEST, UNCHOKE,
};

/// How an honest seeder serves.
#[derive(Clone, Copy, Debug)]
pub struct Honest {
    /// Bytes per second over all connections.
    pub rate: u64,
    /// Speaks the extension protocol (BEP 10) and serves the info dictionary (BEP 9).
    pub extended: bool,
    /// Speaks the fast extension (BEP 6).
    pub fast: bool,
    /// Sends its extension handshake before its bitfield instead of behind it; clients do both.
    pub extension_first: bool,
}

/// What a rate leaves to spend: the moment up to which it is spent.
pub(super) struct Bucket {
    rate: u64,
    spent_until: Mutex<Instant>,
}

impl Default for Honest {
    fn default() -> Self {
        Self { rate: 1 << 20, extended: true, fast: false, extension_first: false }
    }
}

impl Honest {
    pub(super) fn bucket(&self) -> Bucket {
        Bucket { rate: self.rate, spent_until: Mutex::new(Instant::now()) }
    }

    pub(super) fn serve(&self, bucket: &Bucket, mut link: Link) -> io::Result<()> {
        let reserved = match (self.extended, self.fast) {
            (true, true) => FAST_BITS,
            (true, false) => EXTENSION_BIT,
            (false, true) => [0, 0, 0, 0, 0, 0, 0, 0x04],
            (false, false) => [0; 8],
        };
        link.greet(reserved)?;
        let extended = self.extended && link.theirs[25] & 0x10 != 0;
        if extended && self.extension_first {
            send_handshake(&mut link)?;
        }
        if self.fast && link.theirs[27] & 0x04 != 0 {
            link.send(HAVE_ALL, b"")?;
        } else {
            let bitfield = link.torrent.full_bitfield();
            link.send(BITFIELD, &bitfield)?;
        }
        if extended && !self.extension_first {
            send_handshake(&mut link)?;
        }
        let mut unchoked = false;
        loop {
            let message = link.next()?;
            check(&link, &message, unchoked);
            if message.id == INTERESTED && !unchoked {
                unchoked = true;
                link.send(UNCHOKE, b"")?;
            } else if let Some(wanted) = message.wanted() {
                bucket.take(u64::from(wanted.len));
                link.send_right(wanted)?;
            } else if let Some(piece) = message.wanted_metadata() {
                send_metadata(&mut link, piece)?;
            }
        }
    }
}

impl Bucket {
    /// Waits until `bytes` may be sent.
    fn take(&self, bytes: u64) {
        let due = {
            let mut spent_until = self.spent_until.lock().expect("no panic holds it");
            *spent_until = (*spent_until).max(Instant::now())
                + Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / self.rate.max(1));
            *spent_until
        };
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

/// The extension handshake of a peer that has the info dictionary.
pub(super) fn send_handshake(link: &mut Link) -> io::Result<()> {
    let size = link.torrent.info.len();
    let handshake = format!("d1:md11:ut_metadatai{OUR_UT_METADATA}ee13:metadata_sizei{size}ee");
    link.send_extended(0, handshake.as_bytes())
}

/// Answers a request for a piece of the info dictionary (BEP 9).
pub(super) fn send_metadata(link: &mut Link, piece: usize) -> io::Result<()> {
    let torrent = std::sync::Arc::clone(&link.torrent);
    let (id, size) = (link.ut_metadata, torrent.info.len());
    let Some(bytes) = torrent.metadata_piece(piece) else {
        return link.send_extended(id, format!("d8:msg_typei2e5:piecei{piece}ee").as_bytes());
    };
    let head = format!("d8:msg_typei1e5:piecei{piece}e10:total_sizei{size}ee");
    link.send_extended(id, &[head.as_bytes(), bytes].concat())
}

/// Complains about what no client may send.
fn check(link: &Link, message: &Message, unchoked: bool) {
    let len = message.body.len();
    let fits = match message.id {
        0..=3 | 14 | 15 => len == 0,
        4 | 13 | 17 => len == 4,
        BITFIELD => len == link.torrent.empty_bitfield().len(),
        6 | 8 | 16 => len == 12,
        7 => len > 8,
        9 => len == 2,
        EXTENDED => len > 0,
        _ => false,
    };
    if !fits {
        link.seen.complain(format!("message {} of {len} bytes", message.id));
    }
    if message.id == REQUEST && !unchoked {
        link.seen.complain("a request while choked".to_owned());
    }
    if let Some(wanted) = message.wanted()
        && (wanted.len > 16_384
            || link.torrent.block(wanted.index, wanted.begin, wanted.len).is_none_or(<[u8]>::is_empty))
    {
        link.seen.complain(format!("{wanted:?}"));
    }
}
