//! Pausing: connections stay and are made, but no block is asked for or given.

use btdht::Time;

use super::{Action, Stage, Swarm, Timer};
use crate::peer::PeerCommand;

impl Swarm {
    /// Takes back all requests, says that we want nothing, and chokes everybody. Announces go on, and so
    /// does the exchange of the info dictionary.
    pub(super) fn pause(&mut self, now: Time, out: &mut Vec<Action>) {
        if std::mem::replace(&mut self.paused, true) {
            return;
        }
        let slots: Vec<_> = self.conns.iter().map(|conn| conn.slot).collect();
        for slot in slots {
            if let Stage::Transfer(transfer) = &mut self.stage {
                let asked = transfer.take_back(slot).into_iter();
                out.extend(asked.map(|block| Action::Tell(slot, PeerCommand::Cancel(block))));
            }
            if self.choker.uninterested(now, slot) {
                self.dismiss(slot, out);
            }
            self.uploads.clear(slot);
        }
        self.interest_all(out);
    }

    /// Goes on as if nothing had been.
    pub(super) fn unpause(&mut self, now: Time, out: &mut Vec<Action>) {
        if !std::mem::take(&mut self.paused) {
            return;
        }
        self.interest_all(out);
        self.fill_slots(now, out);
        self.set(Timer::Choke, self.choker.next());
        self.set(Timer::Tick, now);
        (self.stirred, self.starved) = (true, true);
    }

    /// Whether it is paused.
    pub fn is_paused(&self) -> bool {
        self.paused
    }
}
