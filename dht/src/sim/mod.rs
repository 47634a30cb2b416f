//! A deterministic virtual network: up to a million hosts in one process on virtual time, each of them the
//! shipping [`Node`] or anything else that is a [`Host`].
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use btdht::secure_id::secure_id;
//! use btdht::sim::{Links, World};
//! use btdht::{Command, Config, Event, Home, Node, Outcome, Rng, Seeds, Time};
//!
//! // Twenty nodes on two threads, all of which know the first.
//! let mut world = World::new(1, Links::default(), 2);
//! for n in 0..20 {
//!     let (local, seeds) = (world.addr(n), Seeds::from_u64(n as u64));
//!     let id = secure_id(local.ip(), &mut Rng::new(seeds));
//!     let home = Home { id, local, external: None, saved: Vec::new() };
//!     world.add(Node::new(Arc::new(Config::default()), vec![home], seeds, world.now()), 0);
//! }
//! let router = world.addr(0);
//! for n in 1..20 {
//!     world.act(n, |now, node, out| node.handle_command(now, Command::Routers(vec![router]), out));
//! }
//! world.run(Time::from_secs(60), |_, _| ());
//!
//! // A lookup of the id of another, and what it tells.
//! let target = world.host(7).stats(world.now())[0].id;
//! let order = Command::FindNode { target, trace: false };
//! let name = world.act(3, |now, node, out| node.handle_command(now, order, out));
//! let mut closest = Vec::new();
//! world.run(Time::from_secs(65), |_, told| match told.event {
//!     Event::Done { lookup, outcome, closest: found, .. } if Some(lookup) == name => {
//!         assert_eq!((told.host, outcome), (3, Outcome::Converged));
//!         closest = found;
//!     }
//!     _ => {}
//! });
//! assert_eq!(closest[0], (target, world.addr(7)));
//! ```
//!
//! # Time
//!
//! A world has one virtual clock. A host is called when a datagram reaches it, when the time that it last
//! said by [`Host::next`] has come, and when the owner of the world has it do something
//! ([`World::act`], [`World::order`]). Things that happen to one host at the same time come in a fixed
//! order: orders in the order in which they were given, then datagrams by sender and number, then the timer.
//! Timers lie in a hierarchical wheel, one a host, and are put off lazily: a host that moves its deadline
//! from 500 ms to 700 ms costs nothing until 500 ms have passed, when it is asked once more.
//!
//! # Windows
//!
//! Hosts are dealt to as many shards as there are threads, by their index. No datagram takes less than
//! [`Links::minimum`], so that what is sent in a window of that length cannot arrive in the same window:
//! all shards run from the earliest thing that is to happen to so much later without looking at each
//! other. Then they meet, exchange what they sent each other, hand what hosts told to the owner in
//! order of time and host, and agree on the next window.
//!
//! Chance is no state that threads could race for: whether a datagram is lost and how long it takes are
//! functions of the seed, its sender and its number. So the result is the same with one thread, with two
//! and with ten.
//!
//! # Digest
//!
//! [`World::digest`] sums up a hash of each event: of a datagram when it was sent, from where, to where, when it
//! arrives and what it says; what came to which host, whose timer went off, who was made to do something and what
//! was told, each with its time. A sum does not depend on the order of its terms, so that each shard keeps
//! its own. Equal digests mean equal runs; two runs of the same seed and size have the same digest
//! on every machine, since nothing is decided by floating-point numbers or by the order of a hash map.
//!
//! # Memory
//!
//! An idle host costs the engine 40 bytes; one behind a NAT or a line with a rate 56 more and 16 for each
//! mapping. A datagram under way costs 52 bytes and its payload, rounded up.

pub mod actor;
mod address;
pub mod adversary;
pub mod churn;
mod dice;
mod digest;
mod dump;
mod engine;
pub mod fleet;
mod link;
mod meeting;
mod nat;
mod nursery;
mod orders;
mod packets;
pub mod scenario;
mod shard;
mod stats;
#[cfg(test)]
mod tests;
pub mod topology;
mod totals;
mod watcher;
mod wheel;

use std::net::SocketAddr;

use crate::{Node, Outbox, Time};

pub use address::PORT;
pub use digest::Digest;
pub use dump::{Captured, Direction, write_pcap};
pub use engine::World;
pub use link::{Access, Bursts, Leg, Links, Partition, Split};
#[cfg(test)]
pub(crate) use link::{Pair, Paths};
pub use nat::{Nat, NatKind};
pub use orders::Orders;
pub use shard::Told;
pub use stats::Stats;
pub use wheel::Wheel;

/// What lives at an address of a [`World`]. It has one IPv4 socket, 0, and one IPv6 socket, 1.
///
/// It must be a state machine: what it does may depend on its inputs and its own seed alone.
pub trait Host: Send {
    /// Takes a datagram that came to `socket` and queues what it wants sent and told in `out`, which is empty.
    fn datagram(&mut self, now: Time, socket: u8, from: SocketAddr, bytes: &[u8], out: &mut Outbox);

    /// Does what is due at `now`; called when [`Host::next`] has come.
    fn timeout(&mut self, now: Time, out: &mut Outbox);

    /// When [`Host::timeout`] wants to be called, at the latest; [`Time::NEVER`] if nothing is due. What has
    /// passed is due now, but only once a millisecond.
    fn next(&self) -> Time;

    /// Reads a word of each piece of memory that the next input is likely to need, and makes any number of
    /// them: of the host itself with a `depth` of 0, of what it points to with 1, and of what that points
    /// to with 2. It changes nothing and decides nothing, so that a host need not have it.
    ///
    /// Hosts come in no order, and those of a large world are in no cache: each would wait for memory
    /// again and again. Asked one after the other, all whose turn is near wait at the same time.
    fn warm(&self, _depth: usize) -> u64 {
        0
    }

    /// The sender that datagrams of `socket` claim to have, of 2 to 255, for hosts that lie about it; with
    /// `None` they come from the host's own address. Answers go to whoever lives there. The family has
    /// to be that of the destination; a NAT of the host does not see such a datagram.
    fn forged(&self, socket: u8) -> Option<SocketAddr>;
}

/// Whether a host takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It does.
    Up,
    /// Nothing that it sends or that is sent to it arrives, but its timers run.
    Offline,
    /// It is dead or asleep: nothing arrives and no timer runs. When it comes back, timers that passed
    /// meanwhile are due at once.
    Down,
}

impl Host for Node {
    fn datagram(&mut self, now: Time, socket: u8, from: SocketAddr, bytes: &[u8], out: &mut Outbox) {
        self.handle_datagram(now, socket, from, bytes, out);
    }

    fn timeout(&mut self, now: Time, out: &mut Outbox) {
        self.handle_timeout(now, out);
    }

    fn next(&self) -> Time {
        Self::timeout(self)
    }

    fn warm(&self, depth: usize) -> u64 {
        Self::warm(self, depth)
    }

    fn forged(&self, _: u8) -> Option<SocketAddr> {
        None
    }
}
