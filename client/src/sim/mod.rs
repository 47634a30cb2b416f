//! A deterministic virtual swarm: any number of hosts in one process on virtual time, each of them the
//! shipping [`Swarm`](crate::swarm::Swarm).
//!
//! ```
//! use std::time::Duration;
//!
//! use btdht::Time;
//! use btfetch::sim::{Host, Kind, Torrent, World};
//! use btfetch::swarm::Limits;
//!
//! // A seed and nine others that come within nine seconds, 1 MB/s each way.
//! let torrent = Torrent { pieces: 16, piece_len: 64 << 10 };
//! let mut world = World::new(torrent, Limits::default(), 1);
//! for n in 0..10 {
//!     let kind = if n == 0 { Kind::Seed } else { Kind::Leech };
//!     world.add(Host { kind, ..Host::new(1_000_000, 1_000_000, Duration::from_secs(n)) });
//! }
//! world.run(Time::from_secs(120));
//! assert!((1..10).all(|n| world.fate(n).completed.is_some()));
//! ```
//!
//! # What is real
//!
//! All decisions: the swarm core runs unchanged, and each connection has the shipping window of
//! requests. Messages pass between them as values; a block is its name and its length, so that a swarm
//! of gigabytes moves no payload. Pieces are right as soon as their last block is there and the disk has
//! had [`VERIFY`].
//!
//! # TCP
//!
//! Lines are fluid. Every [`STEP`] all connections with something to send share what hosts can send and
//! receive in a max-min fair way; what one cannot use goes to the others. Messages of a connection go out
//! in order, so that a request waits behind the blocks that were queued before it, and arrive a latency
//! of 10 to 80 ms later, which is a function of the seed and the two hosts. There is no loss and no slow
//! start.
//!
//! # What is shared with `btdht::sim`
//!
//! The clock ([`Time`](btdht::Time)), the [timing wheel](btdht::sim::Wheel), the rules of determinism and
//! the form of the [`Digest`](btdht::sim::Digest). Not its world: there hosts are independent within the
//! shortest latency and can be dealt to threads; here the rate of each flow depends on all others at any
//! moment.

mod fluid;
mod host;
mod line;
#[cfg(test)]
mod tests;
mod tracker;
mod world;

use std::time::Duration;

pub use host::{Fate, Host, Kind, Leaves};
pub use world::{Torrent, World};

/// How often lines are shared out anew.
pub const STEP: Duration = Duration::from_millis(50);
/// From the last block of a piece to the disk's verdict.
pub const VERIFY: Duration = Duration::from_millis(10);
/// Where everybody listens.
const PORT: u16 = 6881;
