//! The exact k closest entries to a target, without sorting the table and without allocation.
//!
//! With d the number of leading bits that the target shares with our own id: the members of the
//! bucket at depth d are nearer to the target than all others, because they share bit d with it;
//! then come all deeper buckets as one group, then depth d-1, d-2 … upwards one by one.

use arrayvec::ArrayVec;
use krpc::compact::{Address, Contact};
use krpc::{Distance, Id};

use super::Table;
use super::entry::Entry;

/// Most contacts that one walk gives.
pub(crate) const MAX_CLOSEST: usize = 64;

/// Contacts in order of distance, nearest first.
pub(crate) type Closest<A> = ArrayVec<Contact<A>, MAX_CLOSEST>;

impl<A: Address> Table<A> {
    /// The `count` (at most [`MAX_CLOSEST`]) entries nearest to `target` among those that `accept`
    /// takes, nearest first.
    pub(crate) fn closest(
        &self,
        target: &Id,
        count: usize,
        accept: impl Fn(&Entry<A>) -> bool,
    ) -> Closest<A> {
        let count = count.min(MAX_CLOSEST);
        let mut best = ArrayVec::<(Distance, Contact<A>), MAX_CLOSEST>::new();
        let depth = self.own.prefix_len(target) as usize;
        let total = self.entries.len();
        let groups = [self.bounds.range(depth, total), self.bounds.nearer(depth, total)];
        let upwards = (0..depth.min(self.bounds.len())).rev().map(|depth| self.bounds.range(depth, total));
        for group in groups.into_iter().chain(upwards) {
            for entry in &self.entries[group] {
                let distance = entry.id.distance(target);
                if best.len() == count && best.last().is_none_or(|(worst, _)| distance >= *worst)
                    || !accept(entry)
                {
                    continue;
                }
                let at = best.partition_point(|(nearer, _)| *nearer < distance);
                if best.len() == count {
                    best.pop();
                }
                best.insert(at, (distance, entry.contact()));
            }
            if best.len() == count {
                break;
            }
        }
        best.into_iter().map(|(_, contact)| contact).collect()
    }
}
