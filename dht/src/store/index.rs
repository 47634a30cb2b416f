//! [`Index`]: infohash to place. One table at first; [`SHARDS`] tables once it has [`SPLIT_AT`] entries, so
//! that the rehash of a growing table takes microseconds and not the tenth of a second that a million
//! entries in one table take.

use krpc::Id;
use krpc::compact::Address;

use super::blocks::MALLOC_OVERHEAD;
use super::slab::{Place, Runs};
use super::table::Table;
use crate::{KeyedHash, Rng};

/// Where the run of each infohash is.
#[derive(Debug)]
pub(super) struct Index {
    hash: KeyedHash,
    shards: Vec<Table>,
    bytes: usize,
}

const SHARDS: usize = 64;
const SPLIT_AT: usize = 4096;

impl Index {
    pub(super) fn new(rng: &mut Rng) -> Self {
        Self { hash: KeyedHash::new(rng), shards: Vec::new(), bytes: 0 }
    }

    pub(super) fn insert<A: Address>(&mut self, place: Place, runs: &Runs<A>) {
        if self.shards.is_empty() {
            self.shards = vec![Table::new()];
        } else if self.shards.len() == 1 && self.shards[0].len() >= SPLIT_AT {
            self.split(runs);
        }
        let key = self.hash;
        let hash = key.hash(runs.head(place).infohash.as_bytes());
        let shard = self.shard_mut(hash);
        let before = shard.memory();
        shard.insert(hash, place, |place| key.hash(runs.head(place).infohash.as_bytes()));
        let after = shard.memory();
        self.bytes = self.bytes + after - before;
    }

    pub(super) fn remove<A: Address>(&mut self, infohash: &Id, place: Place, runs: &Runs<A>) {
        let key = self.hash;
        let hash = key.hash(infohash.as_bytes());
        let shard = self.shard_mut(hash);
        let before = shard.memory();
        shard.remove(hash, place, |place| key.hash(runs.head(place).infohash.as_bytes()));
        let after = shard.memory();
        self.bytes = self.bytes + after - before;
    }

    /// Notes that the run of `infohash` is elsewhere now.
    pub(super) fn replace(&mut self, infohash: &Id, from: Place, to: Place) {
        let hash = self.hash.hash(infohash.as_bytes());
        self.shard_mut(hash).replace(hash, from, to);
    }

    pub(super) fn find<A: Address>(&self, infohash: &Id, runs: &Runs<A>) -> Option<Place> {
        let hash = self.hash.hash(infohash.as_bytes());
        let shard = self.shards.get(self.number(hash))?;
        shard.find(hash, |place| runs.head(place).infohash == *infohash)
    }

    /// Most bytes that one more entry would allocate.
    pub(super) fn cost(&self, infohash: &Id) -> usize {
        let hash = self.hash.hash(infohash.as_bytes());
        match self.shards.get(self.number(hash)) {
            Some(_) if self.shards.len() == 1 && self.shards[0].len() >= SPLIT_AT => {
                self.bytes + SHARDS * (size_of::<Table>() + 2 * Table::SMALLEST)
            }
            Some(shard) => shard.cost(),
            None => size_of::<Table>() + Table::SMALLEST,
        }
    }

    /// Bytes allocated.
    pub(super) fn memory(&self) -> usize {
        self.bytes
    }

    fn split<A: Address>(&mut self, runs: &Runs<A>) {
        let key = self.hash;
        let id_hash = |place: Place| key.hash(runs.head(place).infohash.as_bytes());
        let mut shards: Vec<Table> = (0..SHARDS).map(|_| Table::new()).collect();
        for place in self.shards.iter().flat_map(Table::iter) {
            let hash = id_hash(place);
            shards[number(hash, SHARDS)].insert(hash, place, id_hash);
        }
        self.bytes =
            shards.iter().map(Table::memory).sum::<usize>() + SHARDS * (size_of::<Table>() + MALLOC_OVERHEAD);
        self.shards = shards;
    }

    fn shard_mut(&mut self, hash: u64) -> &mut Table {
        let number = self.number(hash);
        &mut self.shards[number]
    }

    fn number(&self, hash: u64) -> usize {
        number(hash, self.shards.len())
    }
}

/// The table of a hash: by bits that [`Table`] uses neither for the bucket nor for the tag.
fn number(hash: u64, shards: usize) -> usize {
    (hash >> 40) as usize & shards.wrapping_sub(1)
}
