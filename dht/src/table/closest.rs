//! The exact k closest entries to a target, without sorting the table and without allocation.
//!
//! With d the number of leading bits that the target shares with our own id: the members of the
//! bucket at depth d are nearer to the target than all others, because they share bit d with it;
//! then come all deeper buckets as one group, then depth d-1, d-2 … upwards one by one.
//!
//! Few are wanted most often, for a reply. Then a wide bucket is sifted first: who shares some bits
//! more with the target is nearer than who does not, and among so many there are nearly always enough
//! who do. What is ordered is a number for each, the upper bits of its distance above its index. Where
//! those bits are equal, which takes ids made for it, whole distances are compared instead.

use std::ops::Range;

use arrayvec::ArrayVec;
use krpc::Id;
use krpc::compact::Address;

use super::Table;
use super::entry::Entry;

/// Most entries that one walk gives.
pub(crate) const MAX_CLOSEST: usize = 64;

/// Indices of entries, nearest first.
type Nearest = ArrayVec<u16, MAX_CLOSEST>;

impl<A: Address> Table<A> {
    /// The `count` (at most [`MAX_CLOSEST`]) entries nearest to `target` among those that `accept`
    /// takes, nearest first.
    pub(crate) fn closest(
        &self,
        target: &Id,
        count: usize,
        accept: impl Fn(&Entry<A>) -> bool,
    ) -> impl Iterator<Item = &Entry<A>> {
        let few = if count < FEW { self.nearest_few(target, count, &accept) } else { None };
        let nearest = few.unwrap_or_else(|| self.nearest(target, count.min(MAX_CLOSEST), &accept));
        nearest.into_iter().map(|index| &self.entries[usize::from(index)])
    }

    /// The nearest by their whole distances.
    fn nearest(&self, target: &Id, count: usize, accept: &impl Fn(&Entry<A>) -> bool) -> Nearest {
        let mut nearest = Nearest::new();
        let distance = |index: u16| self.entries[usize::from(index)].id.distance(target);
        for group in self.groups(self.own.prefix_len(target) as usize) {
            for index in group.filter(|&index| accept(&self.entries[index])) {
                let own = self.entries[index].id.distance(target);
                if nearest.len() == count {
                    if nearest.last().is_none_or(|&last| distance(last) < own) {
                        continue;
                    }
                    nearest.pop();
                }
                let at = nearest.partition_point(|&other| distance(other) < own);
                nearest.insert(at, index as u16);
            }
            if nearest.len() == count {
                break;
            }
        }
        nearest
    }

    /// Fewer than [`FEW`], by the upper bits of their distances; `None` where these are not enough.
    fn nearest_few(&self, target: &Id, count: usize, accept: &impl Fn(&Entry<A>) -> bool) -> Option<Nearest> {
        let depth = self.own.prefix_len(target) as usize;
        let mut lowest = Lowest::new(count);
        let bucket = self.bounds.range(depth, self.entries.len());
        if let Some(mask) = sieve(depth, bucket.len(), count) {
            self.offer(bucket, target, mask, accept, &mut lowest);
        }
        if !lowest.is_full() {
            lowest = Lowest::new(count);
            for group in self.groups(depth) {
                self.offer(group, target, 0, accept, &mut lowest);
                if lowest.is_full() {
                    break;
                }
            }
        }
        lowest.indices()
    }

    /// Offers the ranks of those entries of a group that `accept` takes and that agree with the target in
    /// all bits of `mask`.
    #[inline]
    fn offer(
        &self,
        group: Range<usize>,
        target: &Id,
        mask: u32,
        accept: &impl Fn(&Entry<A>) -> bool,
        lowest: &mut Lowest,
    ) {
        let wanted = head(target);
        let starts = group.clone().step_by(CHUNK);
        for (entries, start) in self.entries[group].chunks(CHUNK).zip(starts) {
            // A bit each and no branch: who passes cannot be predicted.
            let mut passed = entries
                .iter()
                .rev()
                .fold(0_u64, |passed, entry| passed << 1 | u64::from((head(&entry.id) ^ wanted) & mask == 0));
            let mut ranks = ArrayVec::<u64, CHUNK>::new();
            while passed != 0 {
                let at = passed.trailing_zeros() as usize;
                passed &= passed - 1;
                let entry = &entries[at];
                if accept(entry) {
                    ranks.push(entry.id.distance_head(target) & !INDEX | (start + at) as u64);
                }
            }
            lowest.offer(&ranks);
        }
    }

    /// All entries in groups, each of which is nearer than the next to a target that shares `depth`
    /// bits with our own id.
    fn groups(&self, depth: usize) -> impl Iterator<Item = Range<usize>> {
        let total = self.entries.len();
        let upwards = (0..depth.min(self.bounds.len())).rev();
        [self.bounds.range(depth, total), self.bounds.nearer(depth, total)]
            .into_iter()
            .chain(upwards.map(move |depth| self.bounds.range(depth, total)))
    }
}

/// The upper bits in which, of a bucket at `depth`, some twice `count` entries should agree with a target
/// that belongs there, in the order of [`head`]; `None` where looking at all is as cheap.
fn sieve(depth: usize, entries: usize, count: usize) -> Option<u32> {
    let bits = entries.checked_div(2 * count)?.checked_ilog2().filter(|&bits| bits > 0)?;
    u32::MAX.checked_shr(depth as u32 + 1 + bits).map(|below| (!below).to_be())
}

/// The first bytes of an id as they lie in memory.
fn head(id: &Id) -> u32 {
    id.as_bytes().first_chunk().map_or(0, |&first| u32::from_ne_bytes(first))
}

/// Walks for fewer than this are done by [`Lowest`]: one more than the k of everybody.
const FEW: usize = 9;

/// Entries that are sifted in one go: as many as a number has bits.
const CHUNK: usize = 64;

/// The lowest ranks that were offered, in order, and at least one more.
struct Lowest {
    ranks: [u64; FEW],
    count: usize,
}

/// The bits of a rank that are the index of the entry.
const INDEX: u64 = 0xffff;

/// No rank: no table has so many entries.
const NONE: u64 = u64::MAX;

impl Lowest {
    fn new(count: usize) -> Self {
        Self { ranks: [NONE; FEW], count }
    }

    /// Each place keeps the lower of its own and what it is handed, and hands on the other: many steps, but
    /// none that has to be predicted.
    fn offer(&mut self, ranks: &[u64]) {
        let mut places = self.ranks;
        for &rank in ranks {
            places.iter_mut().fold(rank, |rank, place| {
                let higher = rank.max(*place);
                *place = rank.min(*place);
                higher
            });
        }
        self.ranks = places;
    }

    /// Whether as many were offered as are wanted.
    fn is_full(&self) -> bool {
        self.count.checked_sub(1).is_none_or(|last| self.ranks[last] != NONE)
    }

    /// The indices of the wanted ones; `None` when two distances are too much alike.
    fn indices(&self) -> Option<Nearest> {
        let is_tied = |n: usize| self.ranks[n] | INDEX == self.ranks[n + 1] | INDEX;
        let given = self.ranks[..self.count].iter().take_while(|&&rank| rank != NONE).count();
        if (0..given).any(is_tied) {
            return None;
        }
        Some(self.ranks[..given].iter().map(|&rank| (rank & INDEX) as u16).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use krpc::compact::{Contact, V4};

    use super::super::entry::Ticks;
    use super::*;
    use crate::{Rng, Time};

    /// A table with whatever ids it is given, without the rules about who gets in.
    fn table(own: Id, ids: impl IntoIterator<Item = Id>, rng: &mut Rng) -> Table<V4> {
        let mut table = Table::<V4>::new(own);
        for id in ids {
            if id == own || table.position(&id).is_some() {
                continue;
            }
            let addr = V4::from_wire(&rng.next_u64().to_be_bytes()[..6]).expect("six bytes");
            let mut entry = Entry::new(Time::ZERO, Contact { id, addr }, Duration::ZERO);
            (0..rng.below(4)).for_each(|_| entry.failed());
            let depth = table.depth_of(&id);
            table.bounds.reach(depth, table.len(), Ticks::new(Time::ZERO));
            table.add(depth, entry);
        }
        table
    }

    /// `id` with its bits changed at random from the one numbered `from` on.
    fn near(id: &Id, from: u32, rng: &mut Rng) -> Id {
        let other = rng.id();
        let kept = (0..Id::BITS).filter(|&bit| if bit < from { id } else { &other }.bit(bit));
        let mut bytes = [0; Id::LEN];
        kept.for_each(|bit| bytes[bit as usize / 8] |= 0x80 >> (bit % 8));
        Id::new(bytes)
    }

    fn by_sorting(table: &Table<V4>, target: &Id, count: usize, bad: u8) -> Vec<Id> {
        let mut ids: Vec<Id> =
            table.iter().filter(|entry| entry.fails() < bad).map(|entry| entry.id).collect();
        ids.sort_by_key(|id| id.distance(target));
        ids.truncate(count);
        ids
    }

    #[track_caller]
    fn check(table: &Table<V4>, target: &Id) {
        for (count, bad) in [(8, 2), (8, u8::MAX), (1, 1), (7, 1), (9, 2), (MAX_CLOSEST, 2)] {
            let closest = table.closest(target, count, |entry| entry.fails() < bad);
            let closest: Vec<Id> = closest.map(|entry| entry.id).collect();
            assert_eq!(closest, by_sorting(table, target, count, bad), "{count} near {target}");
        }
    }

    #[test]
    fn any_table_gives_what_sorting_it_gives() {
        for seed in 0..30 {
            let rng = &mut Rng::from_seed(seed);
            let own = rng.id();
            // Many far away, as in a wide table, and as many at every distance.
            let (wide, deep) = (rng.below(500), rng.below(150));
            let mut ids: Vec<Id> = (0..wide).map(|_| rng.id()).collect();
            ids.extend((0..deep).map(|_| near(&own, rng.below(161) as u32, rng)));
            let table = table(own, ids.iter().copied(), rng);
            for _ in 0..2 {
                check(&table, &rng.id());
                check(&table, &near(&own, rng.below(161) as u32, rng));
                if let Some(known) = ids.get(rng.below(ids.len())) {
                    check(&table, known);
                    check(&table, &near(known, rng.below(161) as u32, rng));
                }
            }
        }
    }

    #[test]
    fn ids_that_differ_in_their_last_bits_only_are_told_apart() {
        for seed in 0..10 {
            let rng = &mut Rng::from_seed(seed);
            let (own, crowd) = (rng.id(), rng.id());
            let from = [4, 40, 47, 48, 49, 63, 64, 65, 100, 152][seed as usize % 10];
            let ids: Vec<Id> = (0..100).map(|_| near(&crowd, from, rng)).collect();
            let strangers: Vec<Id> = (0..30).map(|_| rng.id()).collect();
            let table = table(own, ids.into_iter().chain(strangers), rng);
            for _ in 0..3 {
                check(&table, &near(&crowd, from, rng));
                check(&table, &near(&crowd, rng.below(161) as u32, rng));
            }
        }
    }

    #[test]
    fn a_wide_bucket_whose_nodes_stand_in_one_corner_is_walked_as_a_whole() {
        let rng = &mut Rng::from_seed(1);
        // All in the far half, at 0x80: sifting for targets at 0xff finds nobody.
        let corner = Id::new(std::array::from_fn(|n| if n == 0 { 0x80 } else { 0 }));
        let ids: Vec<Id> = (0..300).map(|_| near(&corner, 8, rng)).collect();
        let table = table(Id::ZERO, ids, rng);
        assert_eq!(table.closest(&corner, 0, |_| true).count(), 0);
        check(&table, &Id::new([0xff; Id::LEN]));
        check(&table, &corner);
    }

    #[test]
    fn an_empty_table_gives_nobody() {
        check(&Table::new(Id::ZERO), &Id::new([1; Id::LEN]));
        check(&Table::new(Id::ZERO), &Id::ZERO);
    }
}
