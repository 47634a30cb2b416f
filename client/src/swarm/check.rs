//! Pieces that are hashed again because the user asks: what is found is ours, what is lost is fetched.

use std::sync::Arc;

use btdht::Time;

use super::has::Has;
use super::{Action, Event, Stage, Swarm, Timer};
use crate::bitfield::Bitfield;
use crate::peer::PeerCommand;
use crate::piece::PieceIndex;
use crate::storage::{Job, Verdict};

impl Swarm {
    /// Has these pieces hashed. Before storage is open there is nothing to check, and it ends at once.
    pub(super) fn check(&mut self, pieces: Bitfield, out: &mut Vec<Action>) {
        match &self.stage {
            Stage::Transfer(transfer) if pieces.len() == transfer.info().pieces() => {
                out.push(Action::Disk(Job::Check(pieces)));
            }
            _ => out.push(Action::Event(Event::CheckEnded)),
        }
    }

    pub(super) fn checked(&mut self, now: Time, piece: PieceIndex, right: bool, out: &mut Vec<Action>) {
        let Stage::Transfer(transfer) = &mut self.stage else { return };
        out.push(Action::Event(Event::Checked(piece, right)));
        match (right, transfer.have().contains(piece.0)) {
            (true, false) => {
                // It may be half fetched.
                out.push(Action::Disk(Job::Discard(piece)));
                let of = transfer.info().pieces();
                self.found.get_or_insert_with(|| Bitfield::new(of)).insert(piece.0);
                self.judge(now, piece, &Verdict::Good, out);
            }
            (false, true) => self.lose(piece, out),
            _ => {}
        }
    }

    /// Pieces that the disk threads had written are not there any more.
    pub(super) fn pieces_lost(&mut self, now: Time, pieces: Vec<PieceIndex>, out: &mut Vec<Action>) {
        for piece in pieces {
            if self.have().is_some_and(|have| have.contains(piece.0)) {
                self.lose(piece, out);
            }
        }
        self.want_lost(now, out);
    }

    fn lose(&mut self, piece: PieceIndex, out: &mut Vec<Action>) {
        let Stage::Transfer(transfer) = &mut self.stage else { return };
        transfer.lose(piece);
        self.lost = true;
        if let Some(found) = &mut self.found {
            found.remove(piece.0);
        }
        let slots: Vec<_> = self.conns.iter().map(|conn| conn.slot).collect();
        for slot in slots {
            // The disk threads answer no read of it any more.
            for block in self.uploads.drop_piece(slot, piece) {
                out.push(Action::Tell(slot, PeerCommand::Refuse(block)));
            }
        }
    }

    /// Wants again what was lost: once for all, as it takes a look at every piece.
    fn want_lost(&mut self, now: Time, out: &mut Vec<Action>) {
        if std::mem::take(&mut self.lost) {
            // A super-seed has everything, and so has who suggests.
            self.suggest = None;
            let showed_nothing = self.super_seed.take().is_some();
            if self.limits.fetch_lost {
                self.want(now, out);
            }
            if showed_nothing {
                self.tell_pieces(out);
                self.tell_upload_only(out);
            }
            self.saves.dirty = self.saves.dirty.max(1);
            self.set(Timer::Tick, now);
        }
    }

    pub(super) fn check_ended(&mut self, now: Time, out: &mut Vec<Action>) {
        self.want_lost(now, out);
        // In one command, of which a connection takes only so many; there may be millions of pieces.
        if let Some(found) = self.found.take().map(Arc::new) {
            let others = self.conns.iter().filter(|conn| conn.has != Has::All);
            out.extend(others.map(|conn| Action::Tell(conn.slot, PeerCommand::Pieces(Arc::clone(&found)))));
        }
        out.push(Action::Event(Event::CheckEnded));
    }
}
