//! The part of the switchboard that the disk threads speak to: storage that opened, pieces that were
//! judged, failures.

use std::sync::Arc;

use btdht::Time;

use super::has::Has;
use super::super_seed::SuperSeed;
use super::transfer::{Judged, Transfer};
use super::{Action, Event, Safety, Stage, Swarm, Timer};
use crate::bitfield::Bitfield;
use crate::peer::PeerCommand;
use crate::piece::PieceIndex;
use crate::storage::{Done, Job, Totals, Verdict};

impl Swarm {
    pub(super) fn opened(&mut self, now: Time, have: Bitfield, totals: Totals, out: &mut Vec<Action>) {
        let Stage::Opening(info) = &self.stage else { return };
        let priority = |file: usize| self.select.priority(file);
        let mut transfer = Transfer::new(Arc::clone(info), have, priority, &self.limits, &mut self.rng);
        self.before = totals;
        for conn in self.conns.iter_mut() {
            conn.wanted = transfer.peer_came(conn.slot, &conn.has);
        }
        out.extend(transfer.complete_files().map(|file| Action::Event(Event::File(file))));
        let empty = transfer.empty_files(|file| priority(file) > 0);
        self.stage = Stage::Transfer(Box::new(transfer));
        // Peers of a magnet's metadata stage were told that we have nothing.
        self.tell_pieces(out);
        if self.limits.super_seed && self.is_seed() {
            self.super_seed = self.info().map(|info| SuperSeed::new(info.pieces()));
        }
        self.tell_wanted(out);
        self.make_empty(empty, out);
        self.set(Timer::Dial, now);
        self.set(Timer::Announce, self.announce.next());
        self.interest_all(out);
        self.stirred = true;
        self.starved = true;
        // Trackers are told `completed` only by whoever has just become complete (BEP 3).
        self.full = self.is_seed();
        if self.is_complete() {
            self.completed = true;
            self.make_safe(now, out);
            self.tell_upload_only(out);
            self.close_seeds(now, out);
        }
    }

    /// Tells everybody what we have. In one command: a connection takes only so many, and there may be
    /// millions of pieces.
    pub(super) fn tell_pieces(&self, out: &mut Vec<Action>) {
        let Some(have) = self.have().filter(|have| !have.is_empty()) else { return };
        let have = Arc::new(have.clone());
        let told = |slot| Action::Tell(slot, PeerCommand::Pieces(Arc::clone(&have)));
        out.extend(self.conns.iter().map(|conn| told(conn.slot)));
    }

    /// The disk keeps pieces' overlaps with unwanted files apart from them.
    pub(super) fn tell_wanted(&self, out: &mut Vec<Action>) {
        if let Some(info) = self.info() {
            let wanted = (0..info.files().len()).map(|file| self.select.priority(file) > 0).collect();
            out.push(Action::Disk(Job::Want(wanted)));
        }
    }

    /// Has wanted files made that no piece brings.
    pub(super) fn make_empty(&self, files: Vec<usize>, out: &mut Vec<Action>) {
        if !files.is_empty() {
            out.push(Action::Disk(Job::MakeEmpty(files)));
        }
    }

    pub(super) fn disk(&mut self, now: Time, done: Done, out: &mut Vec<Action>) {
        match done {
            Done::Piece(piece, verdict) => self.judge(now, piece, &verdict, out),
            Done::Freed(bytes) => {
                if let Stage::Transfer(transfer) = &mut self.stage {
                    transfer.freed(bytes);
                }
                self.stirred = true;
            }
            Done::Read(slot, block, bytes) => {
                if self.conns.get(slot).is_some() && self.uploads.read(slot, block) {
                    out.push(Action::Tell(slot, PeerCommand::Send(block, bytes)));
                }
            }
            Done::Checked(piece, right) => self.checked(now, piece, right, out),
            Done::CheckEnded => self.check_ended(now, out),
            Done::Saved { id, doubted } => self.saved(now, id, doubted, out),
            Done::Unsaved(id) => self.unsaved(now, id, out),
            Done::Lost(pieces) => self.pieces_lost(now, pieces, out),
            // The shell tells of it.
            Done::Reserved(_) | Done::Warning(_) => {}
            Done::Failed(error) => {
                // Saves that are on their way say for themselves how they end.
                if self.completed {
                    self.saves.safety = Safety::Unasked;
                }
                if !self.held {
                    self.held = true;
                    out.push(Action::Event(Event::DiskFailed(error)));
                }
            }
        }
    }

    pub(super) fn retry(&mut self, now: Time, out: &mut Vec<Action>) {
        if !std::mem::take(&mut self.held) {
            return;
        }
        if self.saves.safety == Safety::Unasked {
            self.ask_safety(now, out);
        }
        // The disk threads do again what failed, but for reads.
        let slots: Vec<_> = self.conns.iter().map(|conn| conn.slot).collect();
        for slot in slots {
            let reads = self.uploads.unread(slot);
            out.extend(reads.into_iter().map(|block| Action::Disk(Job::Read(slot, block))));
        }
        self.stirred = true;
        self.starved = true;
    }

    pub(super) fn judge(&mut self, now: Time, piece: PieceIndex, verdict: &Verdict, out: &mut Vec<Action>) {
        let Stage::Transfer(transfer) = &mut self.stage else { return };
        let len = u64::from(transfer.info().shape().piece_len(piece));
        let (judged, called_off) = transfer.judge(now, piece, verdict);
        let cancel = |(slot, block)| Action::Tell(slot, PeerCommand::Cancel(block));
        out.extend(called_off.into_iter().map(cancel));
        match judged {
            Judged::Known => return,
            Judged::Good { wanted, files, liars } => {
                self.saves.dirty += len;
                out.push(Action::Event(Event::Piece(piece)));
                out.extend(files.into_iter().map(|file| Action::Event(Event::File(file))));
                // What a check finds is told when it ends.
                let later = self.found.as_ref().is_some_and(|found| found.contains(piece.0));
                for conn in self.conns.iter_mut() {
                    if wanted && conn.has.contains(piece.0) {
                        conn.wanted = conn.wanted.saturating_sub(1);
                    }
                    // Also those that have it are told, but for plain seeds: a super-seed (BEP 16)
                    // offers nothing more before it hears so.
                    if !later && conn.has != Has::All {
                        out.push(Action::Tell(conn.slot, PeerCommand::Have(piece)));
                    }
                }
                self.interest_all(out);
                if !liars.is_empty() {
                    self.ban(now, &liars, "sent wrong blocks", out);
                    out.push(Action::Event(Event::BadPiece(piece, liars)));
                }
                self.full_if_nothing_is_missing(now);
                self.complete_if_done(now, out);
            }
            Judged::Bad { liars } => {
                self.wasted += len;
                self.ban(now, &liars, "sent a bad piece", out);
                out.push(Action::Event(Event::BadPiece(piece, liars)));
            }
            // Our disk did it.
            Judged::Lost => self.wasted += len,
        }
        self.stirred = true;
    }

    /// Trackers are told when everything is there. That may come after all that is wanted was: what is not
    /// wanted any more may have been on its way.
    fn full_if_nothing_is_missing(&mut self, now: Time) {
        if self.is_seed() && !std::mem::replace(&mut self.full, true) {
            self.announce.completed(now);
            self.set(Timer::Announce, now);
        }
    }

    pub(super) fn complete_if_done(&mut self, now: Time, out: &mut Vec<Action>) {
        if self.completed || !self.is_complete() {
            return;
        }
        self.completed = true;
        self.make_safe(now, out);
        self.tell_upload_only(out);
        self.known.retire_full(&self.limits);
        self.close_seeds(now, out);
    }
}
