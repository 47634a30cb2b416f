//! A Mainline DHT node (BEP 5): a sans-IO core and, with the feature `net`, the tokio shell that
//! runs it on real sockets.
//!
//! # The life of a datagram
//!
//! The shell receives a batch from the kernel, reads the clock once, and hands each datagram that
//! begins with `d` to [`Node::handle_datagram`]. The [`guard`] looks at length, first byte, address
//! and the source's budget before anything is decoded; then [`krpc::Message::decode`] borrows the
//! message from the receive buffer.
//!
//! - A **query** goes to the responder: the routing table gives the nearest nodes, the [`store`] a
//!   sample of peers, the [`token`] server a write token, and the reply is encoded into the
//!   [`Outbox`], from which the shell sends the whole batch at once. Whoever asked may be pinged; only
//!   those who answer *us* enter the table.
//! - A **response** must match a query of ours by transaction id, address and id. It refreshes the
//!   node's entry and goes to the lookup that asked, which merges the nodes that it names and tells
//!   peers at once as [`Event::Peer`].
//! - Everything else is counted in [`Counters`] and dropped in silence.
//!
//! Time comes in as [`Time`], randomness as [`Seeds`]; the same inputs give the same bytes. When
//! nothing arrives, [`Node::timeout`] says when [`Node::handle_timeout`] wants to be called: for
//! silent queries, bucket refresh, questionable nodes, token rotation and expiry.
//!
//! # Features
//!
//! Without features this is the core alone and needs no tokio. `net` adds the shell (`btdht::net`, the
//! `Dht` handle), `cli` the settings file and the `btdht` command.
#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod addr;
mod config;
pub mod counters;
pub mod diagnosis;
mod event;
mod external;
pub mod guard;
mod home;
pub mod item;
mod lookup;
mod maintain;
pub mod mutable_torrent;
#[cfg(feature = "net")]
pub mod net;
mod node;
mod outbox;
mod purpose;
pub mod replay;
mod responder;
mod rng;
mod rpc;
pub mod secure_id;
#[cfg(feature = "cli")]
pub mod settings;
pub mod standing;
pub mod store;
mod table;
mod time;
pub mod token;
#[cfg(feature = "cli")]
pub mod trace;
#[cfg(test)]
mod world;

pub use config::Config;
pub use counters::Counters;
pub use event::{
    Announce, Command, Event, Hop, HopStep, LookupId, LookupStats, Outcome, Question, SwarmEstimate,
};
pub use home::{Home, HomeRecord, HomeStats};
pub use node::{Load, Node};
pub use outbox::{Class, Outbox, Transmit};
pub use rng::{KeyedHash, KeyedHasher, Rng, Seeds};
pub use table::{BucketFill, KnownNode, Standing};
pub use time::Time;
