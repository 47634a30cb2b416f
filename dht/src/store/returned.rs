//! [`Returned`]: how peers of an earlier run come back.

use std::net::SocketAddr;

use krpc::Id;
use krpc::compact::{V4, V6};

use super::full::{Announced, Full, Table};
use super::slab::{Peer, Stamp};
use crate::Time;

/// A peer that announced itself in an earlier run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Returned {
    pub(super) addr: SocketAddr,
    /// When, less than a life ago.
    pub(super) at: Time,
    pub(super) seed: bool,
}

impl Full {
    /// Stores peers of an infohash, of one family or both. Nothing fresher goes for any of them, so that what
    /// comes back in any order leaves what the same announces in their order would have left.
    pub(super) fn take_back(&mut self, now: Time, infohash: &Id, peers: &[Returned]) {
        self.tick(now);
        self.take_back_in::<V4>(now, infohash, peers);
        self.take_back_in::<V6>(now, infohash, peers);
    }

    fn take_back_in<A: Table>(&mut self, now: Time, infohash: &Id, peers: &[Returned]) {
        let ages = self.ages;
        let stamped = |peer: &Returned| {
            // An IPv4 address is of that family, however it was written.
            let addr = A::from_socket(peer.addr).filter(|_| peer.addr.port() != 0)?;
            Some(Peer { addr, stamp: Stamp::new(ages.tick_at(peer.at), peer.seed) })
        };
        let mut peers: Vec<Peer<A>> = peers.iter().filter_map(stamped).collect();
        if peers.is_empty() {
            return;
        }
        if A::of(self).find(infohash).is_some() {
            for Peer { addr, stamp } in peers {
                self.announce_in(now, infohash, addr, stamp);
            }
            return;
        }
        // Nobody is there that each would have to be compared with. To look through the run for each of its
        // peers would take seconds for a store of large ones, in which nobody is answered.
        self.choose(infohash, &mut peers);
        let mut last = None;
        for peer in peers {
            let (place, source) = (A::of(self).find(infohash), peer.addr.source());
            // Peers of a source are neighbours; the run may have been evicted since.
            let is_known = place.is_some() && last == Some(source);
            if self.add(now, (infohash, place), peer, is_known) == Announced::Stored {
                last = Some(source);
            }
        }
    }

    /// Leaves each peer once, of each source and of all as many as an infohash may have, the freshest, and
    /// source by source.
    fn choose<A: Table>(&self, infohash: &Id, peers: &mut Vec<Peer<A>>) {
        let (ages, limits) = (self.ages, &self.limits);
        let age = |peer: &Peer<A>| ages.age(peer.stamp.tick());
        peers.sort_unstable_by_key(|peer| (peer.addr, age(peer)));
        peers.dedup_by_key(|peer| peer.addr);
        peers.sort_unstable_by_key(|peer| (peer.addr.source(), age(peer)));
        let (mut last, mut ports) = (None, 0);
        peers.retain(|peer| {
            let source = Some(peer.addr.source());
            ports = if last == source { ports + 1 } else { 1 };
            last = source;
            ports <= limits.ports_per_source.max(1)
        });
        let others = A::Other::of(self).count(A::Other::of(self).find(infohash));
        let room = limits.peers_per_infohash.saturating_sub(others);
        if peers.len() > room {
            peers.sort_unstable_by_key(age);
            peers.truncate(room);
            peers.sort_unstable_by_key(|peer| peer.addr.source());
        }
    }
}
