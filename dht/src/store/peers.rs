//! [`Peers`]: the peers of one address family by infohash: an index over runs (see `slab`). Budget,
//! eviction order and the two families together are the facade's business (`super::Store`).

use krpc::Id;
use krpc::compact::{Address, V4, V6};

use super::index::Index;
use super::slab::{Ages, Moved, Peer, Place, Runs, Stamp, class_for};
use crate::Rng;

/// An address family that peers are stored of.
pub(super) trait Stored: Address {
    /// What counts as one source of announces: the IPv4 address or the IPv6 /64.
    fn source(&self) -> u64;
}

impl Stored for V4 {
    fn source(&self) -> u64 {
        let &[a, b, c, d, ..] = self.as_wire() else { return 0 };
        u64::from(u32::from_be_bytes([a, b, c, d]))
    }
}

impl Stored for V6 {
    fn source(&self) -> u64 {
        self.as_wire().first_chunk().map_or(0, |&prefix| u64::from_be_bytes(prefix))
    }
}

/// What an announce meets in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Met {
    /// The same address and port; stamped anew.
    Same,
    /// The source had all the ports that it may have; its stalest one was replaced.
    Replaced,
    /// The source has all the ports that it may have, all of them announced later than this one.
    Stale,
    /// Nothing: there is a further peer to store.
    Nothing {
        /// The run holds other ports of the source.
        known_source: bool,
    },
}

#[derive(Debug)]
pub(super) struct Peers<A> {
    runs: Runs<A>,
    index: Index,
    len: usize,
    /// Where the sweep is: the run handled last.
    hand: Option<Place>,
}

impl<A: Stored> Peers<A> {
    pub(super) fn new(rng: &mut Rng) -> Self {
        Self { runs: Runs::new(), index: Index::new(rng), len: 0, hand: None }
    }

    /// Stamps the peer if it is there, or puts it in the place of the source's stalest port if the
    /// source has `max_ports` already. Nothing gets older by it: a stamp may be one of an earlier run.
    pub(super) fn meet(&mut self, ages: &Ages, place: Place, addr: A, stamp: Stamp, max_ports: usize) -> Met {
        self.runs.touch(ages, place, stamp.tick());
        let age = ages.age(stamp.tick());
        let source = addr.source();
        let mut ports = 0;
        let mut stalest: Option<&mut Peer<A>> = None;
        for peer in self.runs.peers_mut(place) {
            #[cfg(test)]
            MET.set(MET.get() + 1);
            if peer.addr == addr {
                if age <= ages.age(peer.stamp.tick()) {
                    peer.stamp = stamp;
                }
                return Met::Same;
            }
            if peer.addr.source() == source {
                ports += 1;
                let its_age = ages.age(peer.stamp.tick());
                if stalest.as_ref().is_none_or(|other| ages.age(other.stamp.tick()) < its_age) {
                    stalest = Some(peer);
                }
            }
        }
        match stalest {
            Some(peer) if ports >= max_ports && age > ages.age(peer.stamp.tick()) => Met::Stale,
            Some(peer) if ports >= max_ports => {
                *peer = Peer { addr, stamp };
                Met::Replaced
            }
            _ => Met::Nothing { known_source: ports > 0 },
        }
    }

    /// Stores a peer that is not there yet, in `place` or in a new run.
    pub(super) fn insert(&mut self, ages: &Ages, place: Option<Place>, infohash: &Id, addr: A, stamp: Stamp) {
        let place = match place {
            None => {
                let place = self.runs.insert(0, *infohash, stamp.tick());
                self.index.insert(place, &self.runs);
                place
            }
            Some(full) if self.runs.is_full(full) => {
                let (place, moved) = self.runs.relocate(full, full.class() + 1);
                self.index.replace(infohash, full, place);
                self.apply(moved);
                place
            }
            Some(place) => place,
        };
        self.runs.push(ages, place, Peer { addr, stamp });
        self.len += 1;
    }

    /// Puts a peer in the place of the stalest of some that are drawn at random, unless they all are
    /// fresher; whether it did. `gone` is told the source that has no other peer in the run.
    pub(super) fn replace_stalest(
        &mut self,
        ages: &Ages,
        place: Place,
        addr: A,
        stamp: Stamp,
        rng: &mut Rng,
        gone: impl FnOnce(u64),
    ) -> bool {
        let peers = self.runs.peers_mut(place);
        let drawn = std::iter::repeat_with(|| rng.below(peers.len())).take(DRAWN);
        let Some(victim) = drawn.max_by_key(|&n| ages.age(peers[n].stamp.tick())) else { return false };
        if ages.age(stamp.tick()) > ages.age(peers[victim].stamp.tick()) {
            return false;
        }
        let source = peers[victim].addr.source();
        if peers.iter().filter(|peer| peer.addr.source() == source).count() == 1 {
            gone(source);
        }
        peers[victim] = Peer { addr, stamp };
        true
    }

    /// Removes the expired peers of a run. `gone` is told each source that has no peer left in it.
    /// A run that became much too long moves to a shorter one if `may` says that the bytes for that one may be
    /// allocated.
    pub(super) fn expire(
        &mut self,
        ages: &Ages,
        place: Place,
        may: impl FnOnce(usize) -> bool,
        gone: impl FnMut(u64),
    ) -> Option<Id> {
        if !self.runs.peers(place).iter().any(|peer| ages.is_expired(peer.stamp)) {
            return None;
        }
        self.retain(place, may, |peer| !ages.is_expired(peer.stamp), gone)
    }

    /// Removes a whole run; says whose it was. `gone` is told each of its sources.
    pub(super) fn remove(&mut self, place: Place, gone: impl FnMut(u64)) -> Option<Id> {
        self.retain(place, |_| false, |_| false, gone)
    }

    /// The next run of the sweep, which goes down so that runs that fill holes behind it were
    /// handled before; `None` once at the end of each round.
    pub(super) fn next_to_sweep(&mut self) -> Option<Place> {
        self.hand = self.runs.before(self.hand);
        self.hand
    }

    /// The peers of a run in an arbitrary order, for sampling in place.
    pub(super) fn peers_mut(&mut self, place: Place) -> &mut [Peer<A>] {
        self.runs.peers_mut(place)
    }

    pub(super) fn find(&self, infohash: &Id) -> Option<Place> {
        self.index.find(infohash, &self.runs)
    }

    pub(super) fn peers(&self, place: Place) -> &[Peer<A>] {
        self.runs.peers(place)
    }

    /// Peers of a run; 0 for none.
    pub(super) fn count(&self, place: Option<Place>) -> usize {
        place.map_or(0, |place| usize::from(self.runs.head(place).count))
    }

    pub(super) fn runs(&self) -> &Runs<A> {
        &self.runs
    }

    /// Number of peers, with expired ones that no sweep has met yet.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Every run with its peers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Id, &[Peer<A>])> {
        std::iter::successors(self.runs.before(None), |&place| self.runs.before(Some(place)))
            .map(|place| (self.runs.head(place).infohash, self.runs.peers(place)))
    }

    /// Tells every source of every run, once per run. Takes some 16 KB beside for a run of 2,000 peers; to
    /// look each of them up among those before it took two million comparisons.
    pub(super) fn each_source(&self, mut tell: impl FnMut(u64)) {
        let mut sources = Vec::new();
        for (_, peers) in self.iter() {
            sources.clear();
            sources.extend(peers.iter().map(|peer| peer.addr.source()));
            sources.sort_unstable();
            sources.dedup();
            sources.iter().for_each(|&source| tell(source));
        }
    }

    /// Most bytes that [`Peers::insert`] would allocate now.
    pub(super) fn cost(&self, place: Option<Place>, infohash: &Id) -> usize {
        match place {
            None => self.runs.cost(0) + self.index.cost(infohash),
            Some(place) if self.runs.is_full(place) => self.runs.cost(place.class() + 1),
            Some(_) => 0,
        }
    }

    /// Bytes allocated.
    pub(super) fn memory(&self) -> usize {
        self.runs.memory() + self.index.memory()
    }

    fn retain(
        &mut self,
        place: Place,
        may: impl FnOnce(usize) -> bool,
        keep: impl Fn(&Peer<A>) -> bool,
        mut gone: impl FnMut(u64),
    ) -> Option<Id> {
        let peers = self.runs.peers_mut(place);
        let before = peers.len();
        // Their order means nothing, so the run itself can be sorted to bring sources together.
        peers.sort_unstable_by_key(|peer| peer.addr);
        for group in peers.chunk_by(|a, b| a.addr.source() == b.addr.source()) {
            if !group.iter().any(&keep) {
                group.first().into_iter().for_each(|peer| gone(peer.addr.source()));
            }
        }
        let mut kept = 0;
        for n in 0..before {
            if keep(&peers[n]) {
                peers[kept] = peers[n];
                kept += 1;
            }
        }
        self.len -= before - kept;
        self.runs.truncate(place, kept);
        let infohash = self.runs.head(place).infohash;
        if kept == 0 {
            self.index.remove(&infohash, place, &self.runs);
            let moved = self.runs.remove(place);
            self.apply(moved);
            return Some(infohash);
        }
        let class = class_for(kept);
        if class + 2 <= place.class() && may(self.runs.cost(class)) {
            let (shorter, moved) = self.runs.relocate(place, class);
            self.index.replace(&infohash, place, shorter);
            self.apply(moved);
        }
        None
    }

    fn apply(&mut self, moved: Option<Moved>) {
        if let Some(Moved { infohash, from, to }) = moved {
            self.index.replace(&infohash, from, to);
        }
    }
}

#[cfg(test)]
thread_local! {
    /// Peers that [`Peers::meet`] looked at.
    pub(super) static MET: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// Peers drawn to find a stale one.
const DRAWN: usize = 16;

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::net::{Ipv4Addr, SocketAddr};
    use std::time::Duration;

    use super::*;

    thread_local! {
        /// Sources that were looked at.
        static LOOKED: Cell<usize> = const { Cell::new(0) };
    }

    /// An address that counts who looks at its source.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    struct Watched(V4);

    impl Address for Watched {
        const LEN: usize = V4::LEN;

        fn from_wire(bytes: &[u8]) -> Option<Self> {
            V4::from_wire(bytes).map(Self)
        }

        fn as_wire(&self) -> &[u8] {
            self.0.as_wire()
        }

        fn from_socket(addr: SocketAddr) -> Option<Self> {
            V4::from_socket(addr).map(Self)
        }

        fn to_socket(self) -> SocketAddr {
            self.0.to_socket()
        }
    }

    impl Stored for Watched {
        fn source(&self) -> u64 {
            LOOKED.set(LOOKED.get() + 1);
            self.0.source()
        }
    }

    #[test]
    fn each_source_of_a_run_is_told_once_at_one_look_a_peer() {
        let (mut peers, ages) = (Peers::new(&mut Rng::from_seed(1)), Ages::new(Duration::from_secs(2700)));
        // Two ports of each source, far from one another, and some of the sources in two runs.
        for (run, sources) in [(1, 0..1000u32), (2, 990..1010)] {
            let infohash = Id::new([run; 20]);
            for (port, n) in [1u16, 2].into_iter().flat_map(|port| sources.clone().map(move |n| (port, n))) {
                let addr = SocketAddr::from((Ipv4Addr::from_bits(0x5500_0000 + n), port));
                let addr = Watched::from_socket(addr).unwrap();
                peers.insert(&ages, peers.find(&infohash), &infohash, addr, Stamp::new(0, false));
            }
        }
        LOOKED.set(0);
        let mut told = Vec::new();
        peers.each_source(|source| told.push(source));
        assert_eq!(LOOKED.get(), peers.len());
        told.sort_unstable();
        let expected =
            (0..1010).flat_map(|n| vec![0x5500_0000 + n; if (990..1000).contains(&n) { 2 } else { 1 }]);
        assert_eq!(told, expected.collect::<Vec<u64>>());
    }
}
