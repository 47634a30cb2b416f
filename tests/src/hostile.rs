//! Hostile and honest peers on real sockets, for the tests of S30 to S40 (`tests/SCENARIOS.md`): one way of
//! misbehaving each.
//!
//! Everything works on raw bytes with plain threads: nothing of the client's wire code is used here, so
//! that the tests cannot share its bugs.

mod blocks;
mod extensions;
mod framing;
mod greetings;
mod honest;
mod infos;
mod link;
mod metadata;
mod mode;
mod peer;
mod pieces;
mod requests;
mod seen;
#[cfg(test)]
mod tests;
mod torrent;

pub use blocks::Blocks;
pub use extensions::Extensions;
pub use framing::Framing;
pub use greetings::Greetings;
pub use honest::Honest;
pub use infos::{HostileInfo, hostile_infos};
pub use metadata::Metadata;
pub use mode::Mode;
pub use peer::Peer;
pub use pieces::Pieces;
pub use requests::Requests;
pub use seen::{Count, Seen};
pub use torrent::Torrent;
