//! SHA-1 and SHA-256 of many messages side by side: one message in each lane of the vector unit.
//!
//! | what | where |
//! |---|---|
//! | how many lanes there are, and which call takes how many | [`Lanes`] |
//! | one message on its way | [`Stream`] |
//! | pieces that are read a slice at a time | [`Pieces`] |
//! | the compression functions, written once for every width | `lanes.rs` |
//! | 16 lanes of AVX-512, 8 lanes of AVX2 | `avx512.rs`, `avx2.rs`, with all unsafe code of this crate |
//!
//! A processor hashes one message no faster than its chain of additions allows. The SHA instructions
//! make that chain short; lanes leave it as it is and walk many at once, which is two to four times
//! as fast as soon as there are enough messages. One message alone, and all on a machine without
//! such lanes, go to the crates `sha1` and `sha2`.

mod algorithm;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod lanes;
mod pieces;
mod schedule;
mod stream;
#[cfg(test)]
mod tests;

pub use algorithm::{Algorithm, Sha1, Sha256};
pub use pieces::{Pieces, Source};
pub use schedule::Lanes;
pub use stream::Stream;
