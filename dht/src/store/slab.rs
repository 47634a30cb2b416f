//! [`Runs`]: the memory of stored peers. The peers of one infohash lie together in a *run*; runs of
//! equal capacity lie together in a *class*, which is always dense: the last run of the class moves
//! into a hole. So memory given back is really given back, whatever the order in which swarms come
//! and go, and a peer of a random rank is one address computation away.
//!
//! Blocks chained per infohash were the other way; they cost a pointer and half a block per infohash
//! and a walk for a random sample of a big swarm.

use std::time::Duration;

use krpc::Id;
use krpc::compact::Address;

use super::blocks::Blocks;
use crate::Time;

/// A stored peer: 8 bytes (IPv4) or 20 (IPv6).
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer<A> {
    pub(super) addr: A,
    pub(super) stamp: Stamp,
}

const _: () =
    assert!(size_of::<Peer<krpc::compact::V4>>() == 8 && size_of::<Peer<krpc::compact::V6>>() == 20);

/// When a peer was announced, in ticks of [`Ages`] modulo 2^15, and whether it is a seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp(u16);

impl Stamp {
    pub(super) fn new(tick: u16, seed: bool) -> Self {
        Self(tick & TICK_MASK | u16::from(seed) << 15)
    }

    pub(super) fn tick(self) -> u16 {
        self.0 & TICK_MASK
    }

    pub(super) fn is_seed(self) -> bool {
        self.0 & !TICK_MASK != 0
    }
}

const TICK_MASK: u16 = 0x7fff;

/// The coarse clock of stamps. A peer lives for 1024 to 2047 ticks (45 minutes: 1287 of 2.1 s), so
/// that an announce is forgotten at most 0.2 % early and never late. Stamps wrap after 16 lives:
/// until then a sweep must have removed what expired.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ages {
    now: u16,
    lifetime: u16,
    shift: u32,
}

impl Ages {
    pub(super) fn new(expiry: Duration) -> Self {
        let micros = u64::try_from(expiry.as_micros()).unwrap_or(u64::MAX);
        let shift = (u64::BITS - micros.leading_zeros()).saturating_sub(11);
        Self { now: 0, lifetime: (micros >> shift) as u16, shift }
    }

    pub(super) fn set(&mut self, now: Time) {
        self.now = (now.as_micros() >> self.shift) as u16 & TICK_MASK;
    }

    pub(super) fn now(&self) -> u16 {
        self.now
    }

    pub(super) fn age(&self, tick: u16) -> u16 {
        self.now.wrapping_sub(tick) & TICK_MASK
    }

    pub(super) fn is_expired(&self, stamp: Stamp) -> bool {
        self.age(stamp.tick()) >= self.lifetime
    }

    /// The span of an age in ticks.
    pub(super) fn span(&self, age: u16) -> Duration {
        Duration::from_micros(u64::from(age) << self.shift)
    }
}

/// What a run says about itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) infohash: Id,
    /// Peers in the run.
    pub(super) count: u16,
    /// Tick of the newest announce.
    pub(super) newest: u16,
}

const _: () = assert!(size_of::<Head>() == 24);

/// Where a run is: its class in the upper 6 bits, its rank there in the lower 26.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(u32);

impl Place {
    pub(super) fn new(class: usize, rank: usize) -> Self {
        Self((class as u32) << RANK_BITS | rank as u32)
    }

    pub(super) fn class(self) -> usize {
        (self.0 >> RANK_BITS) as usize
    }

    fn rank(self) -> usize {
        (self.0 & RANK_MASK) as usize
    }
}

const RANK_BITS: u32 = 26;
const RANK_MASK: u32 = (1 << RANK_BITS) - 1;

/// Peers that a run of a class holds: 1 to 8 in steps of one, then four steps per doubling, so that
/// at most a fifth of a big run lies idle.
pub(super) fn capacity(class: usize) -> usize {
    match class.checked_sub(8) {
        None => class + 1,
        Some(step) => (8 << (step / 4)) + (step % 4 + 1) * (2 << (step / 4)),
    }
}

/// The class of the shortest run that holds `count` peers.
pub(super) fn class_for(count: usize) -> usize {
    (0..MAX_CLASSES).find(|&class| capacity(class) >= count).unwrap_or(MAX_CLASSES - 1)
}

/// Runs of at most 57,344 peers, whose number fits [`Head::count`].
const MAX_CLASSES: usize = 59;
const _: () = assert!(MAX_CLASSES <= 64);
/// The most peers that a run can hold.
pub(super) const MAX_PEERS: usize = 57_344;

/// All runs of one address family.
#[derive(Debug)]
pub(super) struct Runs<A> {
    classes: Vec<Class<A>>,
    total: usize,
    block_bytes: usize,
}

/// The last run of a class that moved into a hole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moved {
    pub(super) infohash: Id,
    pub(super) from: Place,
    pub(super) to: Place,
}

impl<A: Address> Runs<A> {
    pub(super) const fn new() -> Self {
        Self { classes: Vec::new(), total: 0, block_bytes: 0 }
    }

    /// Adds an empty run at the end of `class`.
    pub(super) fn insert(&mut self, class: usize, infohash: Id, newest: u16) -> Place {
        while self.classes.len() <= class {
            self.classes.push(Class::new(self.classes.len()));
        }
        let slot = &mut self.classes[class];
        let rank = slot.len;
        debug_assert!(rank <= RANK_MASK as usize, "the budget ends long before");
        self.block_bytes += slot.heads.reach(rank, NO_HEAD) + slot.peers.reach(rank, no_peer());
        slot.heads.piece_mut(rank)[0] = Head { infohash, count: 0, newest };
        slot.len += 1;
        self.total += 1;
        Place::new(class, rank)
    }

    /// Removes a run; says which one moved into its place.
    pub(super) fn remove(&mut self, place: Place) -> Option<Moved> {
        let slot = &mut self.classes[place.class()];
        let last = slot.len - 1;
        let moved = (place.rank() != last).then(|| slot.copy_run(last, place.rank()));
        slot.len = last;
        self.total -= 1;
        self.block_bytes -= slot.heads.retreat(last) + slot.peers.retreat(last);
        moved.map(|infohash| Moved { infohash, from: Place::new(place.class(), last), to: place })
    }

    /// Copies a run to the end of another class that can hold its peers, and removes the old one.
    pub(super) fn relocate(&mut self, place: Place, class: usize) -> (Place, Option<Moved>) {
        let head = *self.head(place);
        let to = self.insert(class, head.infohash, head.newest);
        self.head_mut(to).count = head.count;
        let count = usize::from(head.count);
        let [from_class, to_class] =
            self.classes.get_disjoint_mut([place.class(), class]).expect("two classes that exist");
        to_class.peers.piece_mut(to.rank())[..count]
            .copy_from_slice(&from_class.peers.piece(place.rank())[..count]);
        (to, self.remove(place))
    }

    pub(super) fn head_mut(&mut self, place: Place) -> &mut Head {
        &mut self.classes[place.class()].heads.piece_mut(place.rank())[0]
    }

    pub(super) fn peers_mut(&mut self, place: Place) -> &mut [Peer<A>] {
        let count = usize::from(self.head(place).count);
        &mut self.classes[place.class()].peers.piece_mut(place.rank())[..count]
    }

    /// Adds a peer to a run that is not full.
    pub(super) fn push(&mut self, place: Place, peer: Peer<A>) {
        let head = self.head_mut(place);
        let count = usize::from(head.count);
        head.count += 1;
        self.classes[place.class()].peers.piece_mut(place.rank())[count] = peer;
    }

    pub(super) fn head(&self, place: Place) -> &Head {
        &self.classes[place.class()].heads.piece(place.rank())[0]
    }

    pub(super) fn peers(&self, place: Place) -> &[Peer<A>] {
        let count = usize::from(self.head(place).count);
        &self.classes[place.class()].peers.piece(place.rank())[..count]
    }

    /// Whether a run has no room for a further peer.
    pub(super) fn is_full(&self, place: Place) -> bool {
        usize::from(self.head(place).count) == capacity(place.class())
    }

    /// Number of runs.
    pub(super) fn total(&self) -> usize {
        self.total
    }

    /// The place of the `n`th run in the order of classes and ranks.
    pub(super) fn nth(&self, mut n: usize) -> Option<Place> {
        for (class, slot) in self.classes.iter().enumerate() {
            if n < slot.len {
                return Some(Place::new(class, n));
            }
            n -= slot.len;
        }
        None
    }

    /// The run before `place` in the order of classes and ranks; the last one of all for `None`.
    /// A place whose run is gone meanwhile is fine.
    pub(super) fn before(&self, place: Option<Place>) -> Option<Place> {
        let (mut class, mut rank) = match place {
            Some(place) => (place.class(), place.rank()),
            None => (self.classes.len(), 0),
        };
        loop {
            let len = self.classes.get(class).map_or(0, |slot| slot.len);
            if rank.min(len) > 0 {
                return Some(Place::new(class, rank.min(len) - 1));
            }
            class = class.checked_sub(1)?;
            rank = usize::MAX;
        }
    }

    /// Bytes that one more run of `class` would allocate.
    pub(super) fn cost(&self, class: usize) -> usize {
        match self.classes.get(class) {
            Some(slot) => slot.heads.cost(slot.len) + slot.peers.cost(slot.len),
            None => {
                let slot = Class::<A>::new(class);
                slot.heads.cost(0) + slot.peers.cost(0) + MAX_CLASSES * size_of::<Class<A>>()
            }
        }
    }

    /// Bytes allocated, with what the allocator adds to each block.
    pub(super) fn memory(&self) -> usize {
        let list = |class: &Class<A>| class.heads.list_bytes() + class.peers.list_bytes();
        let lists: usize = self.classes.iter().map(list).sum();
        self.block_bytes + lists + self.classes.capacity() * size_of::<Class<A>>()
    }
}

/// Runs of equal capacity: their heads, and their peers in the same order.
#[derive(Debug)]
struct Class<A> {
    heads: Blocks<Head>,
    peers: Blocks<Peer<A>>,
    /// Runs in use: ranks 0 to `len - 1`.
    len: usize,
}

impl<A: Address> Class<A> {
    fn new(class: usize) -> Self {
        Self { heads: Blocks::new(1), peers: Blocks::new(capacity(class)), len: 0 }
    }

    /// Copies a run over another one; says whose it is.
    fn copy_run(&mut self, from: usize, to: usize) -> Id {
        self.heads.copy(from, to);
        self.peers.copy(from, to);
        self.heads.piece(to)[0].infohash
    }
}

/// What an allocator spends on a block of its own.
pub(super) const MALLOC_OVERHEAD: usize = 16;

/// What lies where no run is.
const NO_HEAD: Head = Head { infohash: Id::ZERO, count: 0, newest: 0 };

fn no_peer<A: Address>() -> Peer<A> {
    let addr = A::from_wire(&[0; 18][..A::LEN]).expect("an address has this length");
    Peer { addr, stamp: Stamp(0) }
}

#[cfg(test)]
mod tests {
    use krpc::compact::V4;

    use super::*;
    use crate::Rng;

    #[test]
    fn capacities_grow_by_at_most_a_quarter() {
        assert_eq!(
            (0..16).map(capacity).collect::<Vec<_>>(),
            [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32]
        );
        for class in 8..MAX_CLASSES {
            assert!(capacity(class) * 4 <= capacity(class - 1) * 5, "class {class}");
        }
        assert_eq!(capacity(MAX_CLASSES - 1), MAX_PEERS);
        for count in 1..3000 {
            let class = class_for(count);
            assert!(capacity(class) >= count && (class == 0 || capacity(class - 1) < count));
        }
    }

    #[test]
    fn runs_keep_their_peers_while_others_come_move_and_go() {
        let mut rng = Rng::from_seed(1);
        let mut runs: Runs<V4> = Runs::new();
        // What we expect: infohash, place, first address byte of each peer.
        let mut expected: Vec<(Id, Place, Vec<u8>)> = Vec::new();
        let patch = |expected: &mut Vec<(Id, Place, Vec<u8>)>, moved: Option<Moved>| {
            if let Some(moved) = moved {
                let run = expected.iter_mut().find(|run| run.1 == moved.from).unwrap();
                assert_eq!(run.0, moved.infohash);
                run.1 = moved.to;
            }
        };
        for step in 0..20_000 {
            let growing = step < 12_000;
            match rng.below(3) {
                0 if growing || expected.is_empty() => {
                    let id = rng.id();
                    let place = runs.insert(0, id, 7);
                    expected.push((id, place, Vec::new()));
                }
                1 if !growing || rng.chance(1, 3) => {
                    if expected.is_empty() {
                        continue;
                    }
                    let (_, place, _) = expected.swap_remove(rng.below(expected.len()));
                    let moved = runs.remove(place);
                    patch(&mut expected, moved);
                }
                _ => {
                    if expected.is_empty() {
                        continue;
                    }
                    let n = rng.below(expected.len());
                    if expected[n].2.len() == 200 {
                        continue;
                    }
                    if runs.is_full(expected[n].1) {
                        let old = expected[n].1;
                        let (place, moved) = runs.relocate(old, old.class() + 1);
                        expected[n].1 = place;
                        patch(&mut expected, moved);
                    }
                    let byte = rng.next_u32() as u8;
                    let addr = V4::from_wire(&[byte; 6]).unwrap();
                    runs.push(expected[n].1, Peer { addr, stamp: Stamp::new(1, false) });
                    expected[n].2.push(byte);
                }
            }
        }
        assert_eq!(runs.total(), expected.len());
        for (id, place, bytes) in &expected {
            assert_eq!(runs.head(*place).infohash, *id);
            assert_eq!(runs.peers(*place).iter().map(|p| p.addr.as_wire()[0]).collect::<Vec<_>>(), *bytes);
        }
        let walked: Vec<_> =
            std::iter::successors(runs.before(None), |&place| runs.before(Some(place))).collect();
        assert_eq!(walked.len(), expected.len());
        assert!((0..walked.len()).all(|n| runs.nth(n) == Some(walked[walked.len() - 1 - n])));

        while let Some(place) = runs.nth(0) {
            runs.remove(place);
        }
        assert_eq!((runs.total(), runs.block_bytes), (0, 0), "empty classes keep no block");
    }

    #[test]
    fn stamps_tell_age_across_the_wrap_and_expire_on_time() {
        let mut ages = Ages::new(Duration::from_secs(45 * 60));
        for start in [0u64, 1_000, 68_000, 1_000_000] {
            ages.set(Time::from_secs(start));
            let stamp = Stamp::new(ages.now(), true);
            assert!(stamp.is_seed());
            ages.set(Time::from_secs(start + 44 * 60 + 55));
            assert!(!ages.is_expired(stamp), "from {start}");
            ages.set(Time::from_secs(start + 45 * 60));
            assert!(ages.is_expired(stamp), "from {start}");
        }
        let short = Ages::new(Duration::from_millis(10));
        assert!((1024..2048).contains(&short.lifetime));
        assert_eq!(Ages::new(Duration::ZERO).lifetime, 0);
        assert!((1024..2048).contains(&Ages::new(Duration::MAX).lifetime));
    }
}
