//! The tokio shell around the core: sockets, clock, saved state and a handle.
//!
//! It has no opinion about the protocol. Tokio appears in this crate nowhere else but in the binary.

pub mod udp;

mod clock;

pub use clock::Clock;
