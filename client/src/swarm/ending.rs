//! The end of a swarm: good-byes, the last save, and then nothing more.

use btdht::Time;

use super::{Action, Command, Event, Input, Select, Stage, Swarm};
use crate::storage::Done;

/// How far a swarm is with its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Not,
    /// Good-byes are said; the last save is under way.
    Saving,
    Stopped,
}

impl Swarm {
    pub(super) fn stop(&mut self, now: Time, out: &mut Vec<Action>) {
        let asks = self.announce.stop(&self.facts());
        self.ask(asks, out);
        let slots: Vec<_> = self.conns.all().map(|conn| conn.slot).collect();
        for slot in slots {
            self.close(now, slot, "stopped", out);
        }
        self.ending = Ending::Saving;
        match self.stage {
            // Also where nobody has told us yet what is there: it takes hours to look at some disks, and what
            // was seen until now need not be looked at again.
            Stage::Opening(_) | Stage::Transfer(_) => self.save(now, out),
            Stage::Metadata(_) | Stage::Refused => {
                self.ending = Ending::Stopped;
                out.push(Action::Event(Event::Stopped));
            }
        }
    }

    pub(super) fn handle_ending(&mut self, input: Input, out: &mut Vec<Action>) {
        match input {
            // Nothing comes of it but that it can be seen.
            Input::Command(Command::Prioritize(priorities)) => {
                self.select = Select::Priorities(priorities);
                if let Stage::Transfer(transfer) = &mut self.stage {
                    transfer.want(|file| self.select.priority(file), &mut self.rng);
                }
                return;
            }
            Input::Disk(Done::Saved { id, .. } | Done::Unsaved(id)) => {
                self.saves.ended = self.saves.ended.max(id);
            }
            // The last save goes on also where the disk refuses something else.
            Input::Disk(Done::Failed(error)) => return out.push(Action::Event(Event::DiskFailed(error))),
            _ => return,
        }
        if !self.saves.in_flight() && self.ending == Ending::Saving {
            self.ending = Ending::Stopped;
            out.push(Action::Event(Event::Stopped));
        }
    }
}
