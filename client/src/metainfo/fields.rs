//! What is read alike in all kinds of torrents.

use krpc::DecodeError;
use krpc::bencode::Reader;

use super::error::MetainfoError;

/// Most bytes of a torrent: 2^48.
pub(super) const MAX_TOTAL: u64 = 1 << 48;

/// Reads a file's length.
pub(super) fn length(reader: &mut Reader<'_>) -> Result<u64, MetainfoError> {
    let len = field("length", reader.int())?;
    match u64::try_from(len) {
        Ok(len) if len <= MAX_TOTAL => Ok(len),
        Ok(_) => Err(MetainfoError::TooLarge),
        Err(_) => Err(MetainfoError::Length(len)),
    }
}

/// A field of `info` that has to be of its kind.
pub(super) fn field<T>(key: &'static str, value: Result<T, DecodeError>) -> Result<T, MetainfoError> {
    value.map_err(|error| MetainfoError::Field(key, error))
}
