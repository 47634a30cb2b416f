//! A Mainline DHT node (BEP 5): a sans-IO core and, with the feature `net`, the tokio shell that
//! runs it on real sockets.
#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod addr;
mod config;
pub mod counters;
mod event;
pub mod guard;
mod home;
mod lookup;
mod maintain;
#[cfg(feature = "net")]
pub mod net;
mod node;
mod outbox;
mod purpose;
mod responder;
mod rng;
mod rpc;
pub mod secure_id;
#[cfg(feature = "cli")]
pub mod settings;
pub mod store;
mod table;
mod time;
pub mod token;
#[cfg(test)]
mod world;

pub use config::Config;
pub use counters::Counters;
pub use event::{Announce, Command, Event, Hop, HopStep, LookupId, LookupStats, Outcome, Question};
pub use home::{Home, HomeStats};
pub use node::Node;
pub use outbox::{Class, Outbox, Transmit};
pub use rng::{KeyedHash, KeyedHasher, Rng, Seeds};
pub use time::Time;
