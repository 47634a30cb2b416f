//! The exact k closest entries to a target, without sorting the table and without allocation.
//!
//! With d the number of leading bits that the target shares with our own id: the members of the
//! bucket at depth d are nearer to the target than all others, because they share bit d with it;
//! then come all deeper buckets as one group, then depth d-1, d-2 … upwards one by one.

use arrayvec::ArrayVec;
use krpc::Id;
use krpc::compact::{Address, Contact};

use super::Table;
use super::entry::Entry;

/// Most contacts that one walk gives.
pub(crate) const MAX_CLOSEST: usize = 64;

/// The best so far, nearest first: the head of the distance, and the index of the entry.
type Best = ArrayVec<(u64, u16), MAX_CLOSEST>;

impl<A: Address> Table<A> {
    /// The `count` (at most [`MAX_CLOSEST`]) entries nearest to `target` among those that `accept`
    /// takes, nearest first.
    pub(crate) fn closest(
        &self,
        target: &Id,
        count: usize,
        accept: impl Fn(&Entry<A>) -> bool,
    ) -> impl Iterator<Item = Contact<A>> {
        let best = self.nearest(target, count.min(MAX_CLOSEST), accept);
        best.into_iter().map(|(_, index)| self.entries[usize::from(index)].contact())
    }

    fn nearest(&self, target: &Id, count: usize, accept: impl Fn(&Entry<A>) -> bool) -> Best {
        let mut best = Best::new();
        let depth = self.own.prefix_len(target) as usize;
        let total = self.entries.len();
        let groups = [self.bounds.range(depth, total), self.bounds.nearer(depth, total)];
        let upwards = (0..depth.min(self.bounds.len())).rev().map(|depth| self.bounds.range(depth, total));
        for group in groups.into_iter().chain(upwards) {
            for index in group {
                let entry = &self.entries[index];
                let head = entry.id.distance_head(target);
                // Most entries of a wide bucket are refused by this one comparison.
                let full = best.len() == count;
                if full && best.last().is_none_or(|&(worst, _)| head > worst) || !accept(entry) {
                    continue;
                }
                let nearer = |&(other, at): &(u64, u16)| {
                    head < other
                        || head == other
                            && entry.id.distance(target) < self.entries[usize::from(at)].id.distance(target)
                };
                let at = best.iter().rposition(|other| !nearer(other)).map_or(0, |at| at + 1);
                if at == count {
                    continue;
                }
                if full {
                    best.pop();
                }
                best.insert(at, (head, index as u16));
            }
            if best.len() == count {
                break;
            }
        }
        best
    }
}
