//! What is read of the peers of an infohash: samples, filters (BEP 33), all of them.

use std::net::SocketAddr;
use std::time::Duration;

use krpc::Id;
use krpc::bloom::Bloom;

use super::peers::{Peers, Stored};
use super::slab::{Ages, Peer};
use crate::Rng;
use crate::addr::Family;

/// Which peers [`crate::store::Store::values`] returns, and how many.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Their address family.
    pub family: Family,
    /// Most peers.
    pub max: usize,
    /// Most bytes appended: a peer takes 8 (IPv4) or 21 (IPv6).
    pub max_bytes: usize,
    /// Leave seeds out (BEP 33, `noseed`).
    pub no_seed: bool,
}

/// A stored peer, for saving and for tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredPeer {
    /// What it announced.
    pub infohash: Id,
    /// Where it is.
    pub addr: SocketAddr,
    /// Whether it said that it is a seed.
    pub seed: bool,
    /// Time since it announced, to within 0.1 % of [`crate::Config::peer_expiry`].
    pub age: Duration,
}

/// The two filters of [`crate::store::Store::scrape`].
#[derive(Clone, Debug)]
pub struct Scrape {
    /// `BFsd`.
    pub seeds: Bloom,
    /// `BFpe`.
    pub downloaders: Bloom,
}

/// See [`crate::store::Store::values`].
pub(super) fn sample<A: Stored>(
    peers: &mut Peers<A>,
    ages: &Ages,
    infohash: &Id,
    wanted: Wanted,
    prefix: &[u8],
    rng: &mut Rng,
    out: &mut Vec<u8>,
) -> usize {
    let Some(place) = peers.find(infohash) else { return 0 };
    let peers = peers.peers_mut(place);
    let room = wanted.max.min(wanted.max_bytes / (prefix.len() + A::LEN));
    let mut found = 0;
    // The order of a run means nothing, so it is shuffled in place as far as needed (Fisher-Yates):
    // no memory, and no pass over a big swarm for a small sample.
    let everything_fits = peers.len() <= room;
    for n in 0..peers.len() {
        if found == room {
            break;
        }
        if !everything_fits {
            peers.swap(n, n + rng.below(peers.len() - n));
        }
        let Peer { addr, stamp } = &peers[n];
        let unwanted = wanted.no_seed && stamp.is_seed();
        if !unwanted && !ages.is_expired(*stamp) {
            out.extend_from_slice(prefix);
            out.extend_from_slice(addr.as_wire());
            found += 1;
        }
    }
    found
}

/// Adds one family to the filters of [`crate::store::Store::scrape`]; whether it had anybody.
pub(super) fn fill<A: Stored>(peers: &mut Peers<A>, ages: &Ages, infohash: &Id, scrape: &mut Scrape) -> bool {
    let Some(place) = peers.find(infohash) else { return false };
    let peers = peers.peers_mut(place);
    peers.sort_unstable_by_key(|peer| peer.addr);
    let mut any = false;
    for ports in peers.chunk_by(|a, b| a.addr.to_socket().ip() == b.addr.to_socket().ip()) {
        let mut live = ports.iter().filter(|peer| !ages.is_expired(peer.stamp)).peekable();
        let Some(ip) = live.peek().map(|peer| peer.addr.to_socket().ip()) else { continue };
        let filter =
            if live.any(|peer| peer.stamp.is_seed()) { &mut scrape.seeds } else { &mut scrape.downloaders };
        filter.insert(ip);
        any = true;
    }
    any
}

/// The peers of one family that have not expired.
pub(super) fn live<A: Stored>(peers: &Peers<A>, ages: Ages) -> impl Iterator<Item = StoredPeer> {
    peers.iter().flat_map(move |(infohash, peers)| {
        peers.iter().filter(move |peer| !ages.is_expired(peer.stamp)).map(move |peer| StoredPeer {
            infohash,
            addr: peer.addr.to_socket(),
            seed: peer.stamp.is_seed(),
            age: ages.span(ages.age(peer.stamp.tick())),
        })
    })
}
