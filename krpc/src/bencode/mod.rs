//! Bencode (BEP 3).
/// Consecutive bencoded strings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strings<'a>(&'a [u8]);
