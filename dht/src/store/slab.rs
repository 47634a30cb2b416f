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
        self.now = self.tick_at(now);
    }

    pub(super) fn now(&self) -> u16 {
        self.now
    }

    /// The tick of an earlier time.
    pub(super) fn tick_at(&self, at: Time) -> u16 {
        (at.as_micros() >> self.shift) as u16 & TICK_MASK
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

/// Bytes of a head.
const HEAD_LEN: usize = Id::LEN + 4;

impl Head {
    /// Writes the head into the cells before the peers, so that whoever finds a run has its peers in the
    /// same page, most often in the same cache line: in a store of a million infohashes each page and each line is
    /// a wait of its own.
    fn write<A: Address>(self, cells: &mut [Peer<A>]) {
        let mut bytes = [0; MAX_HEAD_BYTES];
        bytes[..Id::LEN].copy_from_slice(self.infohash.as_bytes());
        bytes[Id::LEN..][..2].copy_from_slice(&self.count.to_ne_bytes());
        bytes[Id::LEN + 2..][..2].copy_from_slice(&self.newest.to_ne_bytes());
        for (cell, bytes) in cells.iter_mut().zip(bytes.chunks_exact(A::LEN + 2)).take(head_cells::<A>()) {
            *cell = Peer::from_bytes(bytes);
        }
    }

    fn read<A: Address>(cells: &[Peer<A>]) -> Self {
        let mut bytes = [0; MAX_HEAD_BYTES];
        for (cell, bytes) in cells.iter().zip(bytes.chunks_exact_mut(A::LEN + 2)).take(head_cells::<A>()) {
            cell.to_bytes(bytes);
        }
        let (infohash, rest) = bytes.split_first_chunk().expect("longer");
        let [c0, c1, n0, n1, ..] = *rest else { unreachable!("longer") };
        Self {
            infohash: Id::new(*infohash),
            count: u16::from_ne_bytes([c0, c1]),
            newest: u16::from_ne_bytes([n0, n1]),
        }
    }
}

/// Cells that a head takes: three of 8 bytes, which it fills, or two of 20.
const fn head_cells<A: Address>() -> usize {
    HEAD_LEN.div_ceil(A::LEN + 2)
}

/// Of the cells of a head, in the family of the larger ones.
const MAX_HEAD_BYTES: usize = 40;

impl<A: Address> Peer<A> {
    fn from_bytes(bytes: &[u8]) -> Self {
        let (addr, stamp) = bytes.split_at(A::LEN);
        let addr = A::from_wire(addr).expect("an address has this length");
        Self { addr, stamp: Stamp(u16::from_ne_bytes(stamp.try_into().expect("two bytes"))) }
    }

    fn to_bytes(self, bytes: &mut [u8]) {
        bytes[..A::LEN].copy_from_slice(self.addr.as_wire());
        bytes[A::LEN..].copy_from_slice(&self.stamp.0.to_ne_bytes());
    }
}

/// Where a run is: its class in the upper 6 bits, its rank there in the lower 26.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(u32);

impl Place {
    /// Where no run is.
    pub(super) const NOWHERE: Self = Self(u32::MAX);

    pub(super) fn new(class: usize, rank: usize) -> Self {
        Self((class as u32) << RANK_BITS | rank as u32)
    }

    pub(super) fn class(self) -> usize {
        (self.0 >> RANK_BITS) as usize
    }

    #[cfg(test)]
    pub(super) fn number(self) -> u32 {
        self.0
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
        self.block_bytes += slot.runs.reach(rank, no_peer());
        Head { infohash, count: 0, newest }.write(slot.runs.piece_mut(rank));
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
        self.block_bytes -= slot.runs.retreat(last);
        moved.map(|infohash| Moved { infohash, from: Place::new(place.class(), last), to: place })
    }

    /// Copies a run to the end of another class that can hold its peers, and removes the old one.
    pub(super) fn relocate(&mut self, place: Place, class: usize) -> (Place, Option<Moved>) {
        let head = self.head(place);
        let to = self.insert(class, head.infohash, head.newest);
        let cells = head_cells::<A>() + usize::from(head.count);
        let [from_class, to_class] =
            self.classes.get_disjoint_mut([place.class(), class]).expect("two classes that exist");
        to_class.runs.piece_mut(to.rank())[..cells]
            .copy_from_slice(&from_class.runs.piece(place.rank())[..cells]);
        (to, self.remove(place))
    }

    /// Sets the tick of the newest announce, unless there was a newer one.
    pub(super) fn touch(&mut self, ages: &Ages, place: Place, tick: u16) {
        let cells = self.classes[place.class()].runs.piece_mut(place.rank());
        let head = Head::read::<A>(cells);
        if ages.age(tick) <= ages.age(head.newest) {
            Head { newest: tick, ..head }.write(cells);
        }
    }

    /// Leaves only the first `count` peers.
    pub(super) fn truncate(&mut self, place: Place, count: usize) {
        let cells = self.classes[place.class()].runs.piece_mut(place.rank());
        let head = Head::read(cells);
        debug_assert!(count <= usize::from(head.count));
        Head { count: count as u16, ..head }.write(cells);
    }

    pub(super) fn peers_mut(&mut self, place: Place) -> &mut [Peer<A>] {
        let cells = self.classes[place.class()].runs.piece_mut(place.rank());
        let count = usize::from(Head::read(cells).count);
        &mut cells[head_cells::<A>()..][..count]
    }

    /// Adds a peer to a run that is not full.
    pub(super) fn push(&mut self, ages: &Ages, place: Place, peer: Peer<A>) {
        let cells = self.classes[place.class()].runs.piece_mut(place.rank());
        let head = Head::read(cells);
        let tick = peer.stamp.tick();
        let newest = if ages.age(tick) <= ages.age(head.newest) { tick } else { head.newest };
        Head { count: head.count + 1, newest, ..head }.write(cells);
        cells[head_cells::<A>() + usize::from(head.count)] = peer;
    }

    pub(super) fn head(&self, place: Place) -> Head {
        Head::read(self.classes[place.class()].runs.piece(place.rank()))
    }

    pub(super) fn peers(&self, place: Place) -> &[Peer<A>] {
        let cells = self.classes[place.class()].runs.piece(place.rank());
        &cells[head_cells::<A>()..][..usize::from(Head::read(cells).count)]
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
            Some(slot) => slot.runs.cost(slot.len),
            None => Class::<A>::new(class).runs.cost(0) + MAX_CLASSES * size_of::<Class<A>>(),
        }
    }

    /// Bytes allocated, with what the allocator adds to each block.
    pub(super) fn memory(&self) -> usize {
        let lists: usize = self.classes.iter().map(|class| class.runs.list_bytes()).sum();
        self.block_bytes + lists + self.classes.capacity() * size_of::<Class<A>>()
    }
}

/// Runs of equal capacity, each a head and then its peers.
#[derive(Debug)]
struct Class<A> {
    runs: Blocks<Peer<A>>,
    /// Runs in use: ranks 0 to `len - 1`.
    len: usize,
}

impl<A: Address> Class<A> {
    fn new(class: usize) -> Self {
        Self { runs: Blocks::new(head_cells::<A>() + capacity(class)), len: 0 }
    }

    /// Copies a run over another one; says whose it is.
    fn copy_run(&mut self, from: usize, to: usize) -> Id {
        self.runs.copy(from, to);
        Head::read(self.runs.piece(to)).infohash
    }
}

/// What lies where no run is.
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
        let ages = Ages::new(Duration::from_secs(2700));
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
                    runs.push(&ages, expected[n].1, Peer { addr, stamp: Stamp::new(1, false) });
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
