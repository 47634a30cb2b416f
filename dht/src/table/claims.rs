//! Claims: whoever answers from another address under the id of a node that is in the table moved there, or
//! poses as that node, which is pinged. Its place is the claimant's if it is silent, and nobody else's.
//!
//! Claims wait among the candidates, a few in a bucket and beside the ordinary ones, so that neither pushes
//! out the other: somebody with a few addresses would leave a bucket without successors, or a node that
//! moved without its place.

use krpc::compact::Address;

use super::entry::Entry;
use super::{Insertion, Standing, Table};
use crate::{Config, Time};

impl<A: Address> Table<A> {
    /// Whether `claimant` may have been known as the entry at `index`, under whose id it answers from another
    /// address: that node moved, or somebody poses as it. Who was heard of lately did not move, and no id of
    /// BEP 42 belongs to another address than its own.
    pub(super) fn may_claim(&self, now: Time, claimant: &Entry<A>, index: usize, config: &Config) -> bool {
        self.standing(index, now, config) != Standing::Trusty
            && (self.entries[index].is_insecure() || !claimant.is_insecure())
    }

    /// Whether somebody waits to whose address the id of `newcomer` belongs (BEP 42), as it does not to its own.
    pub(super) fn is_outdone(&self, newcomer: &Entry<A>) -> bool {
        newcomer.is_insecure() && self.candidates.iter().any(|e| e.id == newcomer.id && !e.is_insecure())
    }

    /// Lets `claimant` wait for the place of the entry at `index`, or have it at once if that one is bad.
    pub(super) fn claim(
        &mut self,
        now: Time,
        mut claimant: Entry<A>,
        index: usize,
        config: &Config,
    ) -> Insertion<A> {
        if self.standing(index, now, config) == Standing::Bad {
            self.remove(index);
            return self.place(now, claimant, config);
        }
        claimant.set_claim(true);
        self.queue(self.depth_of(&claimant.id), claimant, CLAIMS);
        let entry = &mut self.entries[index];
        let ping = (!entry.is_pinged()).then(|| entry.contact());
        entry.mark_pinged();
        Insertion::Candidate { ping }
    }
}

/// Claims that wait in a bucket at a time.
pub(super) const CLAIMS: usize = 2;
