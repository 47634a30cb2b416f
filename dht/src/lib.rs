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
//! # A node on real sockets
//!
//! [`net::Dht`] is the handle of a node that runs as a task. Everything below works in the same way on
//! the internet, with routers to bootstrap from; here two or three nodes on loopback are the whole
//! network ([`net::Options::loopback`]). Two nodes, one of which announces a peer that the other finds:
//!
//! ```
//! # #[cfg(feature = "net")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), btdht::net::Error> {
//! use btdht::Announce;
//! use btdht::net::{Dht, Options};
//!
//! let first = Dht::bind(Options::loopback([]))?;
//! let second = Dht::bind(Options::loopback(first.local_addrs()))?;
//! second.bootstrapped().await?;
//!
//! // An announce follows a lookup: it goes to the nodes closest to the infohash.
//! let infohash = "08ada5a7a6183aae1e09d831df6748d566095a10".parse().expect("40 digits");
//! let announce = Announce { port: 6881, implied: false, seed: false };
//! second.get_peers(infohash, Some(announce), false).await?.finish().await;
//!
//! // Peers come one by one, the first long before the lookup ends. `Peers` is a `Stream` too.
//! let third = Dht::bind(Options::loopback(first.local_addrs()))?;
//! let mut peers = third.get_peers(infohash, None, false).await?.peers();
//! assert_eq!(peers.next().await, Some(([127, 0, 0, 1], 6881).into()));
//! assert_eq!(peers.next().await, None);
//!
//! // To stay announced, keep the handle of an order: it is renewed until that is dropped.
//! let mut order = second.announce(infohash, announce).await?;
//! let round = order.next().await.expect("the node runs");
//! println!("{} nodes have it, again in {:?}", round.result.stored.len(), round.next);
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "net"))]
//! # fn main() {}
//! ```
//!
//! An item of BEP 44 that its owner updates, and whose newest version others read:
//!
//! ```
//! # #[cfg(feature = "net")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), btdht::net::Error> {
//! use btdht::item::{Item, SecretKey};
//! use btdht::net::{Dht, Options};
//!
//! let first = Dht::bind(Options::loopback([]))?;
//! let second = Dht::bind(Options::loopback(first.local_addrs()))?;
//! let third = Dht::bind(Options::loopback(first.local_addrs()))?;
//!
//! // The seed of a key has to be random and is to be kept; this one is neither.
//! let secret = SecretKey::from_seed(&[1; 32]);
//! let (seq, report) = second.update(&secret, b"news", b"12:Hello World!").await?;
//! assert!(seq == 1 && !report.stored.is_empty() && !report.is_conflict());
//!
//! let item = third.get_mutable(secret.public(), b"news", None).await?.expect("just stored");
//! assert_eq!((item.seq, &item.value[..]), (1, &b"12:Hello World!"[..]));
//!
//! // Whoever has read an item can keep it alive; no secret is needed for that.
//! let mut keeping = third.keep(Item::Mutable(item)).await?;
//! assert!(!keeping.next().await.expect("the node runs").result.stored.is_empty());
//!
//! // And be told of later versions, for instance of a torrent (BEP 46; `mutable_torrent`).
//! let mut versions = third.follow(secret.public(), b"news", Some(0)).await?;
//! assert_eq!(versions.next().await.map(|version| version.seq), Some(1));
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "net"))]
//! # fn main() {}
//! ```
//!
//! How large a swarm is (BEP 33), what nodes store (BEP 51), what a node counts, whom it knows, and what
//! happens to it:
//!
//! ```
//! # #[cfg(feature = "net")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), btdht::net::Error> {
//! use btdht::net::{Dht, Options, Topic};
//! use btdht::{Announce, Event, Standing};
//!
//! let first = Dht::bind(Options::loopback([]))?;
//! let mut announces = first.subscribe(Topic::Announces).await?;
//! let second = Dht::bind(Options::loopback(first.local_addrs()))?;
//! let mut events = second.subscribe(Topic::Node).await?;
//!
//! let infohash = krpc::Id::new([7; 20]);
//! let announce = Announce { port: 6881, implied: false, seed: true };
//! second.get_peers(infohash, Some(announce), false).await?.finish().await;
//!
//! let told = announces.next().await.expect("the node runs");
//! assert!(matches!(told, Event::Announced { seed: true, .. }));
//! let estimate = second.scrape(infohash).await?;
//! assert_eq!((estimate.seeds, estimate.downloaders), (1, 0));
//!
//! let mut samples = second.sample(infohash).await?;
//! while let Some(event) = samples.next().await {
//!     if let Event::Samples { node, samples, num, .. } = event {
//!         assert_eq!((samples.as_slice(), num), (&[infohash][..], 1));
//!         println!("{node} stores {num} infohashes");
//!     }
//! }
//!
//! while !matches!(events.next().await.expect("the node runs"), Event::Bootstrapped { .. }) {}
//! let stats = first.stats().await?;
//! assert_eq!(stats.counters.announces_stored, 1);
//! let known = first.table().await?;
//! assert!(known.iter().all(|node| node.standing == Standing::Trusty));
//!
//! second.shutdown().await?;
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "net"))]
//! # fn main() {}
//! ```
//!
//! # A node without sockets
//!
//! A [`Node`] is stepped by hand in the same way as the shell does it; a simulator does no more:
//!
//! ```
//! use std::sync::Arc;
//!
//! use btdht::{Config, Home, Node, Outbox, Seeds, Time};
//! use krpc::{Body, Id, Message};
//!
//! let now = Time::from_secs(1);
//! let local = ([192, 0, 2, 1], 6881).into();
//! let home = Home { id: Id::new([9; 20]), local, external: None, saved: Vec::new() };
//! let mut node = Node::new(Arc::new(Config::default()), vec![home], Seeds::from_u64(1), now);
//!
//! let mut out = Outbox::new();
//! let ping = b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe";
//! node.handle_datagram(now, 0, ([85, 6, 7, 8], 6881).into(), ping, &mut out);
//! // The answer; whoever asked is pinged in return.
//! let reply = Message::decode(out.datagram(&out.transmits[0])).expect("our own message");
//! assert!(matches!(reply.body, Body::Response(_)) && reply.tid == b"aa");
//! assert_eq!(out.transmits.len(), 2);
//! // When nothing comes, it wants to be woken up then.
//! assert!(node.timeout() < Time::NEVER);
//! ```
//!
//! # Features
//!
//! Without features this is the core alone and needs no tokio. `net` adds the shell (`btdht::net`, the
//! `Dht` handle) and networks on loopback (`btdht::testnet`), `sim` the virtual network (`btdht::sim`),
//! which needs no tokio either, `cli` the settings file and the `btdht` command. All are on by default.
#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod addr;
mod config;
pub mod counters;
pub mod crawl;
pub mod diagnosis;
mod event;
mod external;
pub mod guard;
mod home;
pub mod item;
mod lookup;
mod maintain;
mod missing;
pub mod mutable_torrent;
#[cfg(feature = "net")]
pub mod net;
mod network;
mod node;
mod outbox;
mod purpose;
mod reach;
pub mod replay;
mod responder;
mod rng;
mod rpc;
mod scratch;
pub mod secure_id;
#[cfg(feature = "cli")]
pub mod settings;
pub mod shards;
#[cfg(feature = "sim")]
pub mod sim;
pub mod standing;
pub mod store;
mod table;
#[cfg(feature = "net")]
pub mod testnet;
mod time;
pub mod token;
#[cfg(feature = "cli")]
pub mod trace;
#[cfg(test)]
mod world;

pub use config::{Config, ReadOnly};
pub use counters::Counters;
pub use event::{
    Announce, Command, Event, Hop, HopStep, LookupId, LookupStats, Outcome, Question, SwarmEstimate, Unsound,
};
pub use home::{Home, HomeRecord, HomeStats};
pub use network::NetworkChange;
#[cfg(feature = "sim")]
pub use node::Acquaintance;
pub use node::{Load, Node};
pub use outbox::{Class, Outbox, Transmit};
pub use reach::Reachability;
pub use rng::{KeyedHash, KeyedHasher, Rng, Seeds};
pub use table::{BucketFill, KnownNode, Standing};
pub use time::Time;
