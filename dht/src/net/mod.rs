//! The tokio shell around the core: sockets, clock, saved state and the [`Dht`] handle.
//!
//! It has no opinion about the protocol. Tokio appears in this crate nowhere else but in the binary.

pub mod udp;

mod clock;
mod complaint;
mod crawl;
mod error;
mod handle;
mod heartbeat;
mod interfaces;
mod keeper;
pub(crate) mod link;
mod mailbox;
mod moment;
mod persist;
mod port;
mod ports;
mod resolve;
mod satellites;
mod shard;
mod standing;
mod station;
mod stored;
mod subscribers;
mod tempo;

use std::net::SocketAddr;

pub use clock::Clock;
pub use crawl::Crawl;
pub use error::Error;
pub(crate) use handle::Parts;
pub use handle::{
    AnnounceReport, Answer, Dht, Lookup, MAX_SHARDS, Options, Peers, PutReport, State, Writing,
};
pub use keeper::StateStats;
pub use persist::{Saved, SavedHome, StateCondition};
pub(crate) use port::Port;
pub use port::PortCounters;
pub use resolve::lookup;
pub use shard::{SocketStats, Stats};
pub use standing::{Round, StandingOrder};
pub use subscribers::{Events, Topic};

/// An address to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bind {
    /// The address; port 0 takes any free one.
    pub addr: SocketAddr,
    /// Whether it is an error when the machine lacks the address; a warning otherwise.
    pub required: bool,
}
