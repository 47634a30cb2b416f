//! Candidates: nodes that answered when their bucket was full, or under the id of a node that is in it, and
//! wait for a place.

use krpc::compact::Address;

use super::Table;
use super::entry::{Entry, Ticks};
use super::room::{give_back, make_room};
use crate::Config;
use crate::addr::same_source;

impl<A: Address> Table<A> {
    /// Makes `entry` a candidate of its bucket. When there are too many one goes: the stalest of those
    /// whose id does not belong to their address, or of all.
    pub(super) fn wait(&mut self, depth: usize, mut entry: Entry<A>, config: &Config) {
        entry.set_claim(false);
        self.queue(depth, entry, config.candidates_per_bucket);
    }

    /// Adds a candidate of its kind, of which at most so many wait in a bucket.
    pub(super) fn queue(&mut self, depth: usize, entry: Entry<A>, most: usize) {
        let is_claim = entry.is_claim();
        make_room(&mut self.candidates, CANDIDATES);
        self.candidates.push(entry);
        let own = self.own;
        let of_bucket = |e: &Entry<A>| e.is_claim() == is_claim && own.prefix_len(&e.id) as usize == depth;
        if self.candidates.iter().filter(|e| of_bucket(e)).count() > most {
            let stalest = (0..self.candidates.len())
                .filter(|&index| of_bucket(&self.candidates[index]))
                .min_by_key(|&index| rank(&self.candidates[index]));
            stalest.map(|index| self.candidates.remove(index));
        }
    }

    /// The best candidate that may take the place of the entry at `leaving`: first of all who claims it.
    pub(super) fn successor(&self, depth: usize, leaving: usize, config: &Config) -> Option<usize> {
        (0..self.candidates.len())
            .filter(|&index| self.depth_of(&self.candidates[index].id) == depth)
            .filter(|&index| {
                // Whoever claims an id that is in the table waits for that place and for no other.
                let holder = self.position(&self.candidates[index].id);
                holder.is_none_or(|holder| holder == leaving)
            })
            .filter(|&index| {
                let addr = self.candidates[index].addr;
                let others = self.entries.iter().enumerate().filter(|&(other, _)| other != leaving);
                !others.into_iter().any(|(_, entry)| same_source(entry.addr, addr, config))
                    && self.has_subnet_room(depth, addr, leaving, config)
            })
            .max_by_key(|&index| {
                let candidate = &self.candidates[index];
                (candidate.id == self.entries[leaving].id, rank(candidate))
            })
    }

    /// Notes that a candidate did not answer in time.
    pub(crate) fn forget_candidate(&mut self, addr: A) {
        self.drop_candidates(|candidate| candidate.addr == addr);
    }

    pub(super) fn drop_candidates(&mut self, gone: impl Fn(&Entry<A>) -> bool) {
        self.candidates.retain(|candidate| !gone(candidate));
        give_back(&mut self.candidates, CANDIDATES);
    }

    /// Nodes that wait for a place.
    pub(crate) fn candidates(&self) -> usize {
        self.candidates.len()
    }
}

/// How good a candidate is: first comes whether its id belongs to its address, then who was heard of last.
fn rank<A: Address>(candidate: &Entry<A>) -> (bool, Ticks) {
    (!candidate.is_insecure(), candidate.seen())
}

/// Candidates that there is room for at a time: most nodes have one or two.
const CANDIDATES: usize = 2;
