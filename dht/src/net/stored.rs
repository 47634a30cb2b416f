//! What others stored with us, as a file beside that of the table: announced peers and items with their
//! ages, and when that was.
//!
//! A file of its own, because it can be a thousand times larger than the table and is saved more
//! seldom then, and because damage to one is none to the other.
//!
//! It is written and read piece by piece, so that neither needs room for a second store. The whole is
//! one bencoded list of strings, which are records: a byte that tells their kind, a CRC32-C over kind
//! and content, the content. The first one is the head, a dictionary with the version; the others
//! are pieces of an [`Archive`]. A record that is torn or damaged loses itself and what follows.
//!
//! Version 1 was one dictionary with everything in it, of 16 MiB at most; it is read too.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::time::Duration;

use crc::{CRC_32_ISCSI, Crc};
use krpc::bencode::{self, Limits};
use serde::{Deserialize, Serialize};

use super::moment::Moment;
use crate::Config;
use crate::store::{Archive, Counts, Damaged};

/// The form of the file; another number is not read, but for [`v1`].
const VERSION: u32 = 2;
/// Longest head: a name of a boot and two numbers.
const HEAD_LIMITS: Limits = Limits { depth: 2, tokens: 32, len: 1024 };
const CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);
/// Bytes before the content of a record: its kind and checksum.
const PREFIX: usize = 5;
/// Digits of a length that is read.
const MAX_DIGITS: u64 = 8;
const _: () = assert!(Archive::MAX_PIECE + PREFIX < 10usize.pow(MAX_DIGITS as u32));

/// Kinds of records.
const HEAD: u8 = b'h';
const ITEMS: u8 = b'i';
const PEERS4: u8 = b'4';
const PEERS6: u8 = b'6';

/// Most bytes that are read: a node that stores what `config` allows writes half of that at most. The
/// rest is for frames, and for what a copy may have twice ([`Archive::max_len`]). At least [`LEAST_MAX_LEN`]
/// are, because an earlier run may have stored more: of what it did, the freshest is kept.
pub(super) fn max_len(config: &Config) -> u64 {
    let len = Archive::max_len(config).saturating_mul(2).saturating_add(Archive::MAX_PIECE);
    u64::try_from(len).unwrap_or(u64::MAX).max(LEAST_MAX_LEN)
}

/// What a store of some 400 MB may write.
const LEAST_MAX_LEN: u64 = 1 << 30;

#[derive(Serialize, Deserialize)]
struct Head {
    #[serde(with = "serde_bytes")]
    boot: Vec<u8>,
    /// Milliseconds since 1970.
    saved: u64,
    /// Milliseconds since that boot.
    uptime: u64,
    version: u32,
}

/// Writes a store.
#[derive(Debug)]
pub(super) struct StoreWriter<W> {
    out: W,
}

impl<W: Write> StoreWriter<W> {
    /// Begins the file of a store as it was `at` that time.
    pub(super) fn begin(out: W, at: &Moment) -> io::Result<Self> {
        let mut writer = Self { out };
        writer.out.write_all(b"l")?;
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(0);
        let (saved, uptime) = (millis(at.wall), millis(at.uptime));
        let head = Head { boot: at.boot.clone(), saved, uptime, version: VERSION };
        let head = bencode::to_bytes(&head).expect("small integers and strings always encode");
        writer.record(HEAD, &head)?;
        Ok(writer)
    }

    /// Adds a piece, of which no part is longer than [`Archive::MAX_PIECE`].
    pub(super) fn piece(&mut self, piece: &Archive) -> io::Result<()> {
        let parts = [(ITEMS, &piece.items), (PEERS4, &piece.peers4), (PEERS6, &piece.peers6)];
        for (kind, content) in parts.into_iter().filter(|(_, content)| !content.is_empty()) {
            debug_assert!(content.len() <= Archive::MAX_PIECE, "nobody would read it");
            self.record(kind, content)?;
        }
        Ok(())
    }

    /// Ends the file.
    pub(super) fn end(mut self) -> io::Result<W> {
        self.out.write_all(b"e")?;
        Ok(self.out)
    }

    fn record(&mut self, kind: u8, content: &[u8]) -> io::Result<()> {
        write!(self.out, "{}:", PREFIX + content.len())?;
        self.out.write_all(&[kind])?;
        self.out.write_all(&checksum(kind, content).to_be_bytes())?;
        self.out.write_all(content)
    }
}

/// How reading ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// With the end of the file.
    Whole,
    /// Where it is torn, damaged or not ours.
    Damaged,
    /// Where it had as many bytes as we read.
    TooLong,
}

/// Reads at most `max_len` bytes of a file and gives its pieces one by one to `take`, with the time that
/// their ages count from. Only one piece is in memory at a time, and no more of it than has come.
///
/// # Errors
/// What reading comes to; the pieces before were taken.
pub(super) fn read(
    input: impl Read,
    max_len: u64,
    take: impl FnMut(&Moment, &Archive) -> Result<(), Damaged>,
) -> io::Result<Ending> {
    let mut input = BufReader::new(input).take(max_len);
    let whole = match input.fill_buf()?.first() {
        Some(b'l') => {
            input.consume(1);
            read_records(&mut input, take)?
        }
        Some(b'd') => v1::read(&mut input, take)?,
        _ => None,
    };
    Ok(match whole {
        Some(()) => Ending::Whole,
        None if input.limit() == 0 => Ending::TooLong,
        None => Ending::Damaged,
    })
}

/// `None` where it is damaged.
fn read_records(
    input: &mut impl BufRead,
    mut take: impl FnMut(&Moment, &Archive) -> Result<(), Damaged>,
) -> io::Result<Option<()>> {
    let mut content = Vec::new();
    let Some(HEAD) = read_record(input, &mut content)? else { return Ok(None) };
    let Some(at) = decode_head(&content) else { return Ok(None) };
    loop {
        if input.fill_buf()?.first() == Some(&b'e') {
            input.consume(1);
            return Ok(input.fill_buf()?.is_empty().then_some(()));
        }
        let Some(kind) = read_record(input, &mut content)? else { return Ok(None) };
        let mut piece = Archive::default();
        let part = match kind {
            ITEMS => &mut piece.items,
            PEERS4 => &mut piece.peers4,
            PEERS6 => &mut piece.peers6,
            _ => return Ok(None),
        };
        std::mem::swap(part, &mut content);
        if take(&at, &piece).is_err() {
            return Ok(None);
        }
    }
}

/// Reads a record into `content`; its kind, or `None` where there is no whole one.
fn read_record(input: &mut impl BufRead, content: &mut Vec<u8>) -> io::Result<Option<u8>> {
    content.clear();
    input.take(MAX_DIGITS + 1).read_until(b':', content)?;
    let len = match content.split_last() {
        Some((b':', digits)) if digits.iter().all(u8::is_ascii_digit) => {
            str::from_utf8(digits).ok().and_then(|digits| digits.parse::<usize>().ok())
        }
        _ => None,
    };
    let Some(len) = len.and_then(|len| len.checked_sub(PREFIX)) else { return Ok(None) };
    if len > Archive::MAX_PIECE {
        return Ok(None);
    }
    content.clear();
    input.take(PREFIX as u64).read_to_end(content)?;
    let &[kind, a, b, c, d] = content.as_slice() else { return Ok(None) };
    content.clear();
    // Grows with what comes, whatever length was claimed.
    input.take(len as u64).read_to_end(content)?;
    let is_whole = content.len() == len && checksum(kind, content) == u32::from_be_bytes([a, b, c, d]);
    Ok(is_whole.then_some(kind))
}

fn decode_head(bytes: &[u8]) -> Option<Moment> {
    let head: Head = bencode::from_bytes(bytes, HEAD_LIMITS).ok()?;
    let (wall, uptime) = (Duration::from_millis(head.saved), Duration::from_millis(head.uptime));
    (head.version == VERSION).then_some(Moment { wall, boot: head.boot, uptime })
}

fn checksum(kind: u8, content: &[u8]) -> u32 {
    let mut digest = CRC32C.digest();
    digest.update(&[kind]);
    digest.update(content);
    digest.finalize()
}

/// The form before pieces.
mod v1 {
    use super::*;

    const VERSION: u32 = 1;
    /// Most bytes of records that were written.
    pub(super) const MAX_ARCHIVE: usize = 16 << 20;
    const LIMITS: Limits = Limits { depth: 2, tokens: 32, len: MAX_ARCHIVE + 1024 };

    #[derive(Serialize, Deserialize)]
    pub(super) struct Document {
        #[serde(with = "serde_bytes")]
        pub(super) boot: Vec<u8>,
        #[serde(with = "serde_bytes")]
        pub(super) items: Vec<u8>,
        #[serde(with = "serde_bytes")]
        pub(super) peers4: Vec<u8>,
        #[serde(with = "serde_bytes")]
        pub(super) peers6: Vec<u8>,
        pub(super) saved: u64,
        pub(super) uptime: u64,
        pub(super) version: u32,
    }

    pub(super) fn read(
        input: &mut impl Read,
        mut take: impl FnMut(&Moment, &Archive) -> Result<(), Damaged>,
    ) -> io::Result<Option<()>> {
        let mut bytes = Vec::new();
        input.take(LIMITS.len as u64 + 1).read_to_end(&mut bytes)?;
        let document: Option<Document> = bencode::from_bytes(&bytes, LIMITS).ok();
        drop(bytes);
        let Some(document) = document.filter(|document| document.version == VERSION) else { return Ok(None) };
        let Document { boot, items, peers4, peers6, saved, uptime, .. } = document;
        let (wall, uptime) = (Duration::from_millis(saved), Duration::from_millis(uptime));
        let archive = Archive { peers4, peers6, items, counts: Counts::default() };
        Ok(take(&Moment { wall, boot, uptime }, &archive).ok())
    }
}

#[cfg(test)]
mod tests;
