//! One node on several cores: *shards*. The deciding half, [`crate::Node`], stays on one; the others are
//! [`Satellite`]s, which answer what strangers ask most (`ping`, `find_node`, `get_peers`,
//! `announce_peer`) and hand everything else over to it as [`Crossing`]s: answers to our queries, the
//! rarer queries, and word of who asked.
//!
//! What they have in common is here: a snapshot of what decides on a reply, the store of peers in
//! stripes, and the budgets of replies. All of these are cores without thread or socket: a shell gives
//! each shard a thread of its own and carries the crossings, and drops them where it is too slow. A node
//! that was never split has none of this.
//!
//! Replies to one asker may leave in another order than its queries came: what a satellite answers itself
//! overtakes what it handed over just before (a `get`, say, and then a `ping`). UDP promises no order, and
//! transaction ids tell which reply is which.

mod answers;
mod commons;
mod deciding;
mod satellite;
mod snapshot;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;

use krpc::Id;

pub(crate) use self::commons::Commons;
pub(crate) use self::deciding::{Deciding, infohash_of};
pub use self::satellite::Satellite;
pub(crate) use self::snapshot::Snapshot;

/// What a satellite hands over to [`crate::Node::handle_crossing`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Crossing {
    /// A datagram that only the deciding half can make sense of.
    Datagram {
        /// The index of the socket that it came to.
        socket: u8,
        /// Where it came from.
        from: SocketAddr,
        /// All of it.
        bytes: Box<[u8]>,
        /// Whether it looks like an answer to a query of ours: nobody sends such a one again.
        is_answer: bool,
    },
    /// Somebody asked, and was answered.
    Asked {
        /// The index of the socket.
        socket: u8,
        /// Who.
        from: SocketAddr,
        /// The id that it gave itself.
        id: Id,
        /// Whether it said that it answers nobody (BEP 43).
        read_only: bool,
    },
    /// A peer was stored; told only if our owner wants to hear of it.
    Announced {
        /// What it announced.
        infohash: Id,
        /// Where it is.
        peer: SocketAddr,
        /// Whether it said that it is a seed.
        seed: bool,
    },
}

impl Crossing {
    /// Whether it can be lost at little cost: whoever asked may ask again.
    pub fn is_minor(&self) -> bool {
        !matches!(self, Self::Datagram { is_answer: true, .. })
    }
}
