//! A Mainline DHT node (BEP 5): a sans-IO core and, with the feature `net`, the tokio shell that
//! runs it on real sockets.
#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod addr;
mod config;
pub mod counters;
mod event;
pub mod guard;
#[cfg(feature = "net")]
pub mod net;
mod outbox;
mod rng;
pub mod secure_id;
#[cfg(feature = "cli")]
pub mod settings;
pub mod store;
mod time;
pub mod token;

pub use config::Config;
pub use counters::Counters;
pub use event::{Announce, Command, Event, Hop, HopStep, LookupId, LookupStats, Outcome, Question};
pub use outbox::{Class, Outbox, Transmit};
pub use rng::{KeyedHash, KeyedHasher, Rng, Seeds};
pub use time::Time;
