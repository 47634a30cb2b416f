//! One connection to a peer: its protocol state and the events and commands between it and its swarm.

mod event;

pub use event::{
    CloseReason, ExtendedHello, Hello, MetadataMessage, PeerCommand, PeerEvent, TorrentShape, Violation,
};
