//! Who counts as alive without being asked, and what asking somebody anew brings who is remembered.
//!
//! A node that rests or has refused is remembered for hours, and half of all sessions end within 30 minutes to two
//! hours: that it is remembered says little of whether it is still there. A survey that counted it would tell of
//! a DHT that is gone. So a node counts for a moment after its last answer, and a survey that meets it later asks it for
//! nodes, which is not what its interval is about (BEP 51, "interval"), within the rate of all queries. A question or its
//! answer may be lost: who is silent once is asked once more before it counts as gone.

use krpc::Id;

use super::entry::{Entry, State};
use super::slices::Which;
use super::{Frontier, GONE, Known, TRUSTED};
use crate::Time;
use crate::addr::SourceKey;
use crate::crawl::event::Standing;

impl Entry {
    /// What is known of a node that has been asked.
    pub(super) fn known_asked(&self, now: Time) -> Known {
        if self.trusted > now { Known::Alive } else { Known::Stale }
    }
}

impl Frontier {
    /// A node that has no query of the frontier's own was asked for nodes: under which id it answered, or how it
    /// stands if it did not. One that is remembered is trusted again, or was silent once more; of others nothing is
    /// kept. That it answered does not end the time for which one that was silent is left alone: it may be a node
    /// that says nothing to questions that it does not know.
    pub(in crate::crawl) fn asked_anew(
        &mut self,
        now: Time,
        source: SourceKey,
        id: Option<Id>,
        standing: Standing,
    ) {
        let Some(index) = self.find(source) else { return };
        let entry = &mut self.entries[index as usize];
        let Entry { state, at, addr, .. } = *entry;
        if matches!(state, State::Free | State::Fresh | State::Asking) {
            return;
        }
        match (id, standing) {
            (Some(id), _) => {
                entry.silences = 0;
                self.trust(now, index, id);
            }
            (None, Standing::Silent(until)) => {
                entry.trusted = Time::ZERO;
                entry.silences = entry.silences.saturating_add(1);
                if entry.silences < GONE || state == State::Silent {
                    return;
                }
                self.unlist(index);
                if state == State::Unseated {
                    // Whoever falls silent gives up a seat; it has none.
                    self.subnets.enter(addr);
                }
                // It may have been lost packets all the same: within its interval it is not asked for samples.
                let until = if state == State::Resting { until.max(at) } else { until };
                self.place_asked(index, Standing::Silent(until));
            }
            (None, _) => {}
        }
    }

    /// A node that has been asked has answered again under this id, and stands as before.
    fn trust(&mut self, now: Time, index: u32, id: Id) {
        let Entry { id: before, state, at, .. } = self.entries[index as usize];
        self.entries[index as usize].trusted = now + TRUSTED;
        if id == before {
            return;
        }
        if state == State::Silent {
            // It is in no list but theirs.
            self.entries[index as usize].id = id;
            self.note(index, Standing::Silent(at));
            return;
        }
        // Under another id it is in another place of the key space.
        self.slices.cut(index, Which::Alive, &mut self.entries);
        self.voids.remove(&before);
        self.voids.insert(&id);
        self.entries[index as usize].id = id;
        self.slices.push(index, Which::Alive, &mut self.entries);
        self.note(index, if state == State::Resting { Standing::Resting(at) } else { Standing::Refused(at) });
    }
}
