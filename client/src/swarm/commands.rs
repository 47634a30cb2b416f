//! What the user asks of a swarm while it runs.

use std::sync::Arc;

use btdht::Time;

use super::{Action, Command, Safety, Select, Stage, Swarm, Timer};

impl Swarm {
    pub(super) fn command(&mut self, now: Time, command: Command, out: &mut Vec<Action>) {
        match command {
            Command::Stop => self.stop(now, out),
            Command::Retry => self.retry(now, out),
            Command::Pause => self.pause(now, out),
            Command::Unpause => self.unpause(now, out),
            Command::Check(pieces) => self.check(pieces, out),
            Command::Select(flags) => {
                self.prioritize(now, flags.into_iter().map(u16::from).collect(), out);
            }
            Command::Prioritize(priorities) => self.prioritize(now, priorities, out),
            Command::MaxPeers(most) => {
                Arc::make_mut(&mut self.limits).max_peers = most;
                self.close_excess(now, out);
                self.set(Timer::Dial, now);
            }
            Command::Intake(intake) => {
                let before = std::mem::replace(&mut Arc::make_mut(&mut self.limits).intake, intake);
                if let Stage::Transfer(transfer) = &mut self.stage
                    && intake.is_much_wider_than(before)
                {
                    // It was we who had what is late by now wait.
                    transfer.restart(now);
                }
                (self.stirred, self.starved) = (true, true);
            }
            Command::Deadline(piece, within) => {
                if let Stage::Transfer(transfer) = &mut self.stage {
                    transfer.need(piece, within.map(|within| now + within));
                    (self.stirred, self.starved) = (true, true);
                }
            }
        }
    }

    fn prioritize(&mut self, now: Time, priorities: Vec<u16>, out: &mut Vec<Action>) {
        self.select = Select::Priorities(priorities);
        self.want(now, out);
    }

    /// Takes another look at what is wanted and not there.
    pub(super) fn want(&mut self, now: Time, out: &mut Vec<Action>) {
        let Stage::Transfer(transfer) = &mut self.stage else { return };
        for given_up in transfer.want(|file| self.select.priority(file), &mut self.rng) {
            self.wasted += given_up.bytes;
            given_up.tell(out);
        }
        for conn in self.conns.iter_mut() {
            conn.wanted = conn.has.common(transfer.missing());
        }
        let empty = transfer.empty_files(|file| self.select.priority(file) > 0);
        if !transfer.missing().is_empty() {
            (self.completed, self.full) = (false, false);
            self.saves.safety = Safety::Told;
            self.known.revive();
            self.set(Timer::Dial, now);
            self.tell_upload_only(out);
        }
        self.tell_wanted(out);
        self.make_empty(empty, out);
        self.interest_all(out);
        self.stirred = true;
        self.starved = true;
        self.complete_if_done(now, out);
    }
}
