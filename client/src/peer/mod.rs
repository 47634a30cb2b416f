//! One connection to a peer: its protocol state and the events and commands between it and its swarm.
//!
//! [`PeerConn`] is a state machine over bytes (BEP 3, 5, 6, 9, 10): a shell moves bytes between it and
//! a socket, and batches of [`PeerEvent`] and [`PeerCommand`] between it and the swarm. Which piece to
//! ask for, whom to unchoke and whom to ban is the swarm's business.

mod chatter;
mod config;
mod conn;
pub(crate) mod download;
mod event;
mod greeting;
mod rate;
mod send;
mod theirs;
mod untold;
mod upload;

pub use config::PeerConfig;
pub use conn::{Held, PeerConn, PeerSetup};
pub use event::{
    CloseReason, ExtendedHello, Hello, MetadataMessage, PeerCommand, PeerEvent, TorrentShape, Violation,
};
pub use greeting::Greeting;
pub use rate::{Pipeline, Rate};
pub use send::MAX_SLICES;
