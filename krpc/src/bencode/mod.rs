//! Bencode (BEP 3, "Bencoding"): the grammar, its limits and the one door to typed documents.
//!
//! | for | use |
//! |---|---|
//! | a datagram, a header, a large document | [`Reader`]: borrowed tokens, no allocation |
//! | a document of unknown shape | [`Value`]: a bounded tree |
//! | a cold document with a Rust type (resume data, tracker replies) | [`from_bytes`], [`to_bytes`] |
//! | writing | [`Writer`] |
//!
//! Integers with leading zeros, `-0` or `+`, lengths with leading zeros, keys that are no strings,
//! duplicate keys and bytes after the end are always refused. Unsorted keys are accepted and
//! counted, unless a strict reader is asked for ([`Reader::strict`]).

mod reader;
mod strings;
mod value;
mod writer;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use reader::{Kind, Reader, Token};
pub use strings::Strings;
pub use value::{Data, Value};
pub use writer::Writer;

use crate::{DecodeError, DecodeErrorKind};

/// What a document may cost before it is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Containers inside one another; at most [`Limits::MAX_DEPTH`] is honoured.
    pub depth: u32,
    /// Keys and values in all, containers included.
    pub tokens: u32,
    /// Bytes of the document; at most `u32::MAX` is honoured.
    pub len: usize,
}

impl Limits {
    /// The deepest nesting that any reader accepts, whatever its limits say.
    pub const MAX_DEPTH: u32 = 100;
    /// A datagram: depth 10, 500 tokens (libtorrent's numbers), 2,048 bytes (D1).
    pub const KRPC: Self = Self { depth: 10, tokens: 500, len: 2048 };
    /// An extension message (BEP 10, 9, 11): depth 8, 2,000 tokens, 128 KiB.
    pub const EXTENSION: Self = Self { depth: 8, tokens: 2000, len: 128 << 10 };
    /// A tracker's reply: depth 8, 100,000 tokens, 1 MiB.
    pub const TRACKER: Self = Self { depth: 8, tokens: 100_000, len: 1 << 20 };
    /// A torrent file or its info dictionary: depth 100, 3,000,000 tokens, 64 MiB.
    pub const METAINFO: Self = Self { depth: 100, tokens: 3_000_000, len: 64 << 20 };
    /// Our own saved state, which may hold an info dictionary as a string: depth 10, 1,000,000
    /// tokens, 96 MiB.
    pub const RESUME: Self = Self { depth: 10, tokens: 1_000_000, len: 96 << 20 };
}

/// Checks that `bytes` is one well-formed document within `limits` and nothing else.
pub fn scan(bytes: &[u8], limits: Limits) -> Result<(), DecodeError> {
    let mut reader = Reader::new(bytes, limits);
    reader.skip()?;
    reader.finish()
}

/// The length of the value that `bytes` begins with, whatever follows it: a `ut_metadata` message
/// carries its piece behind the dictionary (BEP 9). `limits.len` bounds the value, not the rest.
pub fn scan_prefix(bytes: &[u8], limits: Limits) -> Result<usize, DecodeError> {
    let within = bytes.get(..limits.len).unwrap_or(bytes);
    match Reader::new(within, limits).skip() {
        Ok(value) => Ok(value.len()),
        // The value goes on where the limit cut it off.
        Err(DecodeError { kind: DecodeErrorKind::Truncated | DecodeErrorKind::LengthPastEnd, at })
            if within.len() < bytes.len() =>
        {
            Err(DecodeError { kind: DecodeErrorKind::TooLong, at })
        }
        Err(error) => Err(error),
    }
}

/// Reads a typed document: [`scan`], then serde. For cold paths; allocates whatever `T` does, and
/// copies each string. Declare byte strings with `serde_bytes`.
///
/// serde_bencode on its own recurses without a limit (a few kB of `l` abort the process) and lets
/// malformed integers and trailing bytes pass, hence this only door to it.
pub fn from_bytes<T: DeserializeOwned>(bytes: &[u8], limits: Limits) -> Result<T, DecodeError> {
    scan(bytes, limits)?;
    #[allow(clippy::disallowed_methods)] // the one door: scanned above
    serde_bencode::from_bytes(bytes).map_err(|_| DecodeError { kind: DecodeErrorKind::Typed, at: 0 })
}

/// Writes a typed document, its keys sorted. Fails only for what bencode cannot say, such as a
/// number above `i64::MAX`.
pub fn to_bytes<T: Serialize>(value: &T) -> Result<Vec<u8>, DecodeError> {
    serde_bencode::to_bytes(value).map_err(|_| DecodeError { kind: DecodeErrorKind::Typed, at: 0 })
}
