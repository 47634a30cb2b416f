//! When progress is saved, and when that which is complete is safe.

use std::time::Duration;

use btdht::Time;

use super::{Action, Event, Swarm, Timer};
use crate::storage::{Job, SaveId};

/// When progress is saved.
#[derive(Debug, Default)]
pub(super) struct Saves {
    /// Bytes verified since the last save began.
    pub(super) dirty: u64,
    pub(super) last: Time,
    /// The last one that was asked for.
    pub(super) asked: SaveId,
    /// The last one that has ended, well or not. Those up to `asked` are on their way.
    pub(super) ended: SaveId,
    pub(super) safety: Safety,
}

/// What still keeps that which is wanted and verified from being safe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Safety {
    /// It was told to be complete; or something is missing, which comes first.
    #[default]
    Told,
    /// A save has to be asked for when the disk may be tried again.
    Unasked,
    /// This save, or a later one.
    With(SaveId),
}

impl Saves {
    pub(super) fn in_flight(&self) -> bool {
        self.ended < self.asked
    }
}

impl Swarm {
    /// Everything that is wanted is verified; it is complete when that would survive a crash.
    pub(super) fn make_safe(&mut self, now: Time, out: &mut Vec<Action>) {
        out.push(Action::Event(Event::Verified));
        self.ask_safety(now, out);
    }

    /// A save has ended, and those before it. What it leaves in doubt is safe with none before the disk
    /// has been tried again.
    pub(super) fn saved(&mut self, now: Time, id: SaveId, doubted: u32, out: &mut Vec<Action>) {
        self.saves.ended = self.saves.ended.max(id);
        if doubted > 0 {
            return self.save_again(now, id, out);
        }
        if self.needs(id) {
            self.saves.safety = match self.held {
                true => Safety::Unasked,
                false => {
                    out.push(Action::Event(Event::Complete));
                    Safety::Told
                }
            };
        }
    }

    /// A save has come to nothing, and so have those before it that did not end.
    pub(super) fn unsaved(&mut self, now: Time, id: SaveId, out: &mut Vec<Action>) {
        self.saves.ended = self.saves.ended.max(id);
        self.save_again(now, id, out);
    }

    /// A save has not kept all. If completion waits for it, another is asked for when the disk may be tried
    /// again: at once where it was meanwhile. Then what is in doubt is written again before that save, and
    /// a disk that refuses once more says so: it is not asked over and over.
    fn save_again(&mut self, now: Time, id: SaveId, out: &mut Vec<Action>) {
        self.saves.dirty = self.saves.dirty.max(1);
        self.set(Timer::Tick, now);
        if self.needs(id) {
            self.saves.safety = Safety::Unasked;
            if !self.held {
                self.ask_safety(now, out);
            }
        }
    }

    /// Whether completion waits for this save or one before it.
    fn needs(&self, id: SaveId) -> bool {
        matches!(self.saves.safety, Safety::With(needed) if id >= needed)
    }

    pub(super) fn ask_safety(&mut self, now: Time, out: &mut Vec<Action>) {
        self.save(now, out);
        self.saves.safety = Safety::With(self.saves.asked);
    }

    pub(super) fn save_if_due(&mut self, now: Time, pause: Duration, out: &mut Vec<Action>) {
        if now.since(self.saves.last) >= pause && !self.saves.in_flight() && !self.held {
            self.save(now, out);
        }
    }

    pub(super) fn save(&mut self, now: Time, out: &mut Vec<Action>) {
        let asked = SaveId(self.saves.asked.0 + 1);
        self.saves = Saves { dirty: 0, last: now, asked, ..self.saves };
        out.push(Action::Disk(Job::Save(asked, self.totals())));
    }
}
