//! [`Table`]: a hash table of places in buckets of one cache line each. Looking up what is there or is
//! not costs one line of memory but for the few buckets that were full; a table with its tags apart
//! costs two, and in a store of a million infohashes a line is a wait for memory.
//!
//! An entry goes to the bucket of its hash, or to the next one with room. Buckets count the entries that
//! passed them by, so that a search knows when to end and nothing is left behind by what is removed.

use super::blocks::MALLOC_OVERHEAD;
use super::slab::Place;

/// Places by hash.
#[derive(Debug)]
pub(super) struct Table {
    buckets: Vec<Bucket>,
    len: usize,
}

#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Bucket {
    /// Entries that belong here or before and lie behind.
    passed: u32,
    /// Of each slot: [`FREE`], or eight bits of the hash.
    tags: [u8; SLOTS],
    places: [Place; SLOTS],
}

const _: () = assert!(size_of::<Bucket>() == 64);

const SLOTS: usize = 12;
const FREE: u8 = 0;
const EMPTY: Bucket = Bucket { passed: 0, tags: [FREE; SLOTS], places: [Place::NOWHERE; SLOTS] };

/// Where an entry is.
#[derive(Clone, Copy)]
struct Spot {
    bucket: usize,
    slot: usize,
}

impl Table {
    /// Bytes of a table of one bucket.
    pub(super) const SMALLEST: usize = size_of::<Bucket>() + MALLOC_OVERHEAD;

    pub(super) fn new() -> Self {
        Self { buckets: Vec::new(), len: 0 }
    }

    /// Adds an entry that is not there yet. `rehash` is asked for the hashes of others when the table grows.
    pub(super) fn insert(&mut self, hash: u64, place: Place, rehash: impl Fn(Place) -> u64) {
        if self.len == most(self.buckets.len()) {
            self.rebuild(larger(self.buckets.len()), rehash);
        }
        self.put(hash, place);
    }

    /// Removes an entry, if it is there.
    pub(super) fn remove(&mut self, hash: u64, place: Place, rehash: impl Fn(Place) -> u64) {
        let Some(spot) = self.spot(hash, |other| other == place) else { return };
        let mut bucket = self.home(hash);
        while bucket != spot.bucket {
            self.buckets[bucket].passed -= 1;
            bucket = self.behind(bucket);
        }
        self.buckets[spot.bucket].tags[spot.slot] = FREE;
        self.len -= 1;
        if self.buckets.len() > 4 && self.len * 4 < most(self.buckets.len()) {
            self.rebuild(self.buckets.len() / 2, rehash);
        }
    }

    /// Puts `to` in the place of the entry `from`.
    pub(super) fn replace(&mut self, hash: u64, from: Place, to: Place) {
        if let Some(Spot { bucket, slot }) = self.spot(hash, |other| other == from) {
            self.buckets[bucket].places[slot] = to;
        }
    }

    /// The entry of that hash which `is` the one.
    pub(super) fn find(&self, hash: u64, is: impl Fn(Place) -> bool) -> Option<Place> {
        self.spot(hash, is).map(|Spot { bucket, slot }| self.buckets[bucket].places[slot])
    }

    /// All entries.
    pub(super) fn iter(&self) -> impl Iterator<Item = Place> {
        self.buckets.iter().flat_map(|bucket| {
            bucket.tags.iter().zip(bucket.places).filter_map(|(&tag, place)| (tag != FREE).then_some(place))
        })
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Most bytes that one more entry would allocate.
    pub(super) fn cost(&self) -> usize {
        let buckets = self.buckets.len();
        if self.len < most(buckets) { 0 } else { bytes(larger(buckets)) - bytes(buckets) }
    }

    /// Bytes allocated.
    pub(super) fn memory(&self) -> usize {
        bytes(self.buckets.len())
    }

    fn spot(&self, hash: u64, is: impl Fn(Place) -> bool) -> Option<Spot> {
        let tag = tag(hash);
        let mut number = self.home(hash);
        // All buckets at the most; the first one is nearly always enough.
        for _ in 0..self.buckets.len() {
            let bucket = &self.buckets[number];
            for slot in 0..SLOTS {
                if bucket.tags[slot] == tag && is(bucket.places[slot]) {
                    return Some(Spot { bucket: number, slot });
                }
            }
            if bucket.passed == 0 {
                return None;
            }
            number = self.behind(number);
        }
        None
    }

    /// Adds an entry for which there is room.
    fn put(&mut self, hash: u64, place: Place) {
        let mut number = self.home(hash);
        loop {
            let bucket = &mut self.buckets[number];
            if let Some(slot) = bucket.tags.iter().position(|&tag| tag == FREE) {
                bucket.tags[slot] = tag(hash);
                bucket.places[slot] = place;
                self.len += 1;
                return;
            }
            bucket.passed += 1;
            number = self.behind(number);
        }
    }

    fn rebuild(&mut self, buckets: usize, rehash: impl Fn(Place) -> u64) {
        let old = std::mem::replace(self, Self { buckets: vec![EMPTY; buckets], len: 0 });
        old.iter().for_each(|place| self.put(rehash(place), place));
    }

    /// The bucket of a hash, by its lower half.
    fn home(&self, hash: u64) -> usize {
        (((hash & 0xffff_ffff) * self.buckets.len() as u64) >> 32) as usize
    }

    fn behind(&self, bucket: usize) -> usize {
        if bucket + 1 < self.buckets.len() { bucket + 1 } else { 0 }
    }
}

/// Entries that so many buckets take: three quarters of the slots, with which one bucket in ten has been full.
fn most(buckets: usize) -> usize {
    buckets * SLOTS / 4 * 3
}

/// The next size: half as much again, so that a table is half full at the least.
fn larger(buckets: usize) -> usize {
    buckets + buckets.div_ceil(2).max(1)
}

fn bytes(buckets: usize) -> usize {
    if buckets == 0 { 0 } else { buckets * size_of::<Bucket>() + MALLOC_OVERHEAD }
}

fn tag(hash: u64) -> u8 {
    ((hash >> 56) as u8).max(FREE + 1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::Rng;

    /// Hashes that collide: few homes and few tags.
    fn hash(place: Place) -> u64 {
        let n = u64::from(place.number());
        ((n % 7) << 29) | ((n % 3) << 56)
    }

    #[test]
    fn entries_are_found_while_others_come_move_and_go_whatever_their_hashes() {
        let mut rng = Rng::from_seed(1);
        let mut table = Table::new();
        let mut there: BTreeMap<u32, Place> = BTreeMap::new();
        for step in 0..30_000 {
            let place = Place::new(0, rng.below(600));
            let grows = step / 5_000 % 2 == 0;
            let is_there = there.contains_key(&place.number());
            if !is_there {
                if grows || rng.chance(1, 4) {
                    let (cost, before) = (table.cost(), table.memory());
                    table.insert(hash(place), place, hash);
                    assert!(table.memory() <= before + cost);
                    there.insert(place.number(), place);
                }
            } else if !grows {
                table.remove(hash(place), place, hash);
                there.remove(&place.number());
            } else {
                // A run that moves keeps its infohash, and so its hash.
                let to = Place::new(0, place.number() as usize + 21 * 1000);
                table.replace(hash(place), place, to);
                assert_eq!(table.find(hash(place), |other| other == to), Some(to));
                table.replace(hash(place), to, place);
            }
            let asked = Place::new(0, rng.below(600));
            let found = table.find(hash(asked), |other| other == asked);
            assert_eq!(found, there.get(&asked.number()).copied(), "step {step}");
        }
        assert_eq!(table.len(), there.len());
        let mut all: Vec<u32> = table.iter().map(Place::number).collect();
        all.sort_unstable();
        assert_eq!(all, there.keys().copied().collect::<Vec<_>>());
        for place in there.into_values() {
            table.remove(hash(place), place, hash);
        }
        assert_eq!((table.len(), table.iter().count()), (0, 0));
        assert!(table.buckets.iter().all(|bucket| bucket.passed == 0), "no trace of what has gone");
        assert!(table.memory() <= 5 * 64 + MALLOC_OVERHEAD, "memory is given back");
    }

    #[test]
    fn most_searches_end_in_the_first_bucket() {
        let mut rng = Rng::from_seed(2);
        let mut table = Table::new();
        let hashes: Vec<u64> = (0..20_000).map(|_| rng.next_u64()).collect();
        let rehash = |place: Place| hashes[place.number() as usize];
        let (mut most_beyond, mut bytes) = (0, 0.0f64);
        for (n, &hash) in hashes.iter().enumerate() {
            table.insert(hash, Place::new(0, n), rehash);
            if n > 1_000 && n % 100 == 0 {
                let beyond = table.buckets.iter().filter(|bucket| bucket.passed > 0).count();
                most_beyond = most_beyond.max(beyond * 100 / table.buckets.len());
                bytes = bytes.max(table.memory() as f64 / n as f64);
            }
        }
        assert!(most_beyond <= 20, "{most_beyond} % of the buckets were full");
        assert!(bytes < 11.0, "{bytes} bytes an entry");
    }
}
