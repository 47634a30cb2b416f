//! How an entry of the [`Frontier`] comes into one of its lists, from there into another, and goes.

use std::net::SocketAddr;

use krpc::Id;

use super::entry::{Entry, Kept, State};
use super::slices::Which;
use super::{Chosen, Frontier};
use crate::Time;
use crate::addr::{SourceKey, source_key};
use crate::crawl::event::{NodeRecord, Standing};

impl Frontier {
    /// A new entry that is in no list.
    pub(super) fn add(&mut self, id: Id, addr: SocketAddr, source: SourceKey) -> u32 {
        let (state, kept) = (State::Free, Kept::Before);
        let (at, trusted, target, place, silences) = (Time::ZERO, Time::ZERO, id, 0, 0);
        let entry = Entry { addr, at, id, target, trusted, place, silences, state, kept };
        self.voids.insert(&id);
        self.subnets.enter(addr);
        let index = match self.holes.pop() {
            Some(index) => {
                self.entries[index as usize] = entry;
                index
            }
            None => {
                self.entries.push(entry);
                (self.entries.len() - 1) as u32
            }
        };
        let Self { by_source, entries, hash, allow_local, .. } = self;
        let hasher =
            |&index: &u32| hash.hash(&source_key(entries[index as usize].addr, *allow_local).to_bytes());
        by_source.insert_unique(hash.hash(&source.to_bytes()), index, hasher);
        index
    }

    /// Puts an entry that is in no list among the fresh ones of its slice, or drops it or another one there
    /// when the slice is full. Whether it stays.
    pub(super) fn make_fresh(&mut self, index: u32) -> bool {
        let Entry { id, addr, .. } = self.entries[index as usize];
        let number = self.slices.number(&id, addr);
        let cap = self.slices.cap(number);
        let slice = self.slices.of(number);
        if slice.nodes.len() >= cap {
            slice.offered += 1;
            let chosen = self.rng.below(slice.offered);
            if chosen >= cap {
                self.entries[index as usize].state = State::Free;
                self.crowd_out(index);
                return false;
            }
            let (victim, offered) = (slice.nodes[chosen].index, slice.offered);
            self.crowd_out(victim);
            self.slices.of(number).offered = offered;
        }
        self.slices.push(index, Which::Fresh, &mut self.entries);
        self.entries[index as usize].state = State::Fresh;
        self.note(index, Standing::Fresh);
        true
    }

    /// Takes an entry for being asked.
    pub(super) fn ask(&mut self, index: u32) -> Chosen {
        self.unlist(index);
        self.asking += 1;
        let entry = &mut self.entries[index as usize];
        (entry.state, entry.kept) = (State::Asking, Kept::Now);
        let &mut Entry { id, addr, .. } = entry;
        Chosen { index, id, addr, is_inside: self.region.contains(&id) }
    }

    /// Puts an entry that is in no list where it belongs now that it was asked.
    pub(super) fn place_asked(&mut self, index: u32, standing: Standing) {
        let entry = &mut self.entries[index as usize];
        let (state, at, set) = match standing {
            Standing::Fresh => {
                self.make_fresh(index);
                return;
            }
            Standing::Resting(until) => (State::Resting, until, &mut self.resting),
            Standing::Silent(until) => {
                self.voids.remove(&entry.id);
                self.subnets.leave(entry.addr);
                (State::Silent, until, &mut self.silent)
            }
            Standing::Refused(until) => {
                self.subnets.refuse(entry.addr);
                (State::Refused, until, &mut self.refused)
            }
        };
        (entry.state, entry.at) = (state, at);
        set.insert((at, index));
        if state != State::Silent {
            self.slices.push(index, Which::Alive, &mut self.entries);
        }
        self.note(index, standing);
    }

    /// Takes an entry out of the list that it is in.
    pub(super) fn unlist(&mut self, index: u32) {
        let Entry { state, at, addr, .. } = self.entries[index as usize];
        match state {
            State::Free | State::Asking => {}
            State::Fresh => self.slices.cut(index, Which::Fresh, &mut self.entries),
            State::Silent => {
                self.silent.remove(&(at, index));
            }
            State::Resting | State::Refused | State::Unseated => {
                let set = if state == State::Resting { &mut self.resting } else { &mut self.refused };
                set.remove(&(at, index));
                if state == State::Refused {
                    self.subnets.pardon(addr);
                }
                self.slices.cut(index, Which::Alive, &mut self.entries);
            }
        }
    }

    /// Forgets an entry that nobody is asking.
    pub(super) fn remove(&mut self, index: u32) {
        self.unlist(index);
        let Entry { addr, id, target, state, .. } = self.entries[index as usize];
        if state != State::Silent {
            self.voids.remove(&id);
        }
        if !matches!(state, State::Silent | State::Unseated) {
            self.subnets.leave(addr);
        }
        self.voids.remove(&target);
        let source = self.source(addr);
        if let Ok(found) =
            self.by_source.find_entry(self.hash.hash(&source.to_bytes()), |&other| other == index)
        {
            found.remove();
        }
        self.entries[index as usize].state = State::Free;
        self.holes.push(index);
        self.changes.push((source, None));
    }

    /// Forgets an entry that has no place. Of those outside of its region a crawl of a part knows few at a time: what
    /// an earlier run has kept of them stays, for one of the whole.
    fn crowd_out(&mut self, index: u32) {
        let Entry { id, kept, .. } = self.entries[index as usize];
        self.remove(index);
        if kept == Kept::Before && !self.region.contains(&id) {
            self.changes.pop();
        }
    }

    /// Tells whoever keeps the nodes how one stands.
    pub(super) fn note(&mut self, index: u32, standing: Standing) {
        let &Entry { id, addr, .. } = &self.entries[index as usize];
        self.changes.push((self.source(addr), Some(NodeRecord { id, addr, standing })));
    }
}
