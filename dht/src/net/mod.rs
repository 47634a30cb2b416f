//! The tokio shell around the core: sockets, clock, saved state and a handle.
//!
//! It has no opinion about the protocol. Tokio appears in this crate nowhere else but in the binary.

pub mod udp;

mod clock;
mod error;
mod persist;
mod resolve;

use std::net::SocketAddr;

pub use clock::Clock;
pub use error::Error;
pub use persist::{Saved, SavedHome};
pub use resolve::lookup;

/// An address to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bind {
    /// The address; port 0 takes any free one.
    pub addr: SocketAddr,
    /// Whether it is an error when the machine lacks the address; a warning otherwise.
    pub required: bool,
}
