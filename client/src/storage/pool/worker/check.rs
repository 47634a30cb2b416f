//! Pieces on disk are hashed together with other threads, and what is found is judged by the thread whose
//! pieces they are.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Stored, Stuck, Worker};
use crate::buffer::Buffer;
use crate::hash::{Lanes, Pieces};
use crate::piece::PieceIndex;
use crate::storage::pool::tasks::{Check, Found, Task};
use crate::storage::{DiskError, Done};

impl Worker {
    /// Does one step of the first check: after an error, the same one again.
    pub(super) fn check(&mut self) -> Result<(), DiskError> {
        if let Some(group) = &mut self.checking {
            if !group.step(&Stored(&self.shared), &mut self.check_buffer)? {
                self.checked();
            }
            return Ok(());
        }
        let Some(check) = self.checks.front() else { return Ok(()) };
        let (pieces, layout) = (check.take(), self.shared.info.layout());
        if pieces.is_empty() {
            self.check_ended();
            return Ok(());
        }
        let pieces = pieces.iter().map(|&piece| (PieceIndex(piece), layout.piece_len(PieceIndex(piece))));
        self.checking = Some(Pieces::new(self.shared.config.lanes, pieces));
        Ok(())
    }

    /// Compares the pieces whose last step is done. What is found goes to the worker of each piece, this
    /// one too: only it knows what it has written meanwhile.
    fn checked(&mut self) {
        let (Some(group), Some(check)) = (self.checking.take(), self.checks.front()) else { return };
        let mut found: Vec<Vec<_>> = (0..self.shared.workers()).map(|_| Vec::new()).collect();
        for (piece, digest) in group.digests() {
            found[self.shared.worker_of(piece)].push((piece, self.is_hash(piece, digest.as_ref())));
        }
        for (worker, pieces) in found.into_iter().enumerate().filter(|(_, pieces)| !pieces.is_empty()) {
            check.open.fetch_add(1, Ordering::AcqRel);
            let found = Found { check: Arc::clone(check), pieces };
            self.shared.queue(worker).push(vec![Task::Found(found)]);
        }
    }

    /// Takes what a check has found about pieces of this worker, in order with what it writes.
    pub(super) fn judge(&mut self, mut found: Found) -> Result<(), DiskError> {
        let mut doubts = false;
        while let Some(&(piece, right)) = found.pieces.last() {
            match self.still(piece, right) {
                Ok(right) => doubts |= self.settle(piece, right),
                Err(error) => {
                    if doubts {
                        self.begin_renewing();
                    }
                    self.stuck = Some(Stuck::Judge(found));
                    return Err(error);
                }
            }
            found.pieces.pop();
        }
        // A sync that failed, or the loss of their file, left in doubt what is there after all.
        if doubts {
            self.begin_renewing();
        }
        self.leave(&found.check);
        Ok(())
    }

    /// What holds of a piece that a check has found right or wrong. The bytes may be others than were
    /// read: a piece that was verified and written since is not lost, and one that was written to
    /// unverified is not believed. So what would change is hashed once more, where nobody can write.
    fn still(&self, piece: PieceIndex, right: bool) -> Result<bool, DiskError> {
        let claimed = self.shared.lock_progress().written.contains(piece.0);
        let doubtful = if claimed { !right } else { right && self.written_early.contains(&piece) };
        if !doubtful {
            return Ok(right);
        }
        let mut alone = Pieces::new(Lanes::ONE, [(piece, self.shared.info.layout().piece_len(piece))]);
        let mut buffer = Buffer::default();
        while alone.step(&Stored(&self.shared), &mut buffer)? {}
        Ok(alone.digests().any(|(piece, digest)| self.is_hash(piece, digest.as_ref())))
    }

    /// Whether the piece is right, and in doubt nevertheless.
    fn settle(&mut self, piece: PieceIndex, right: bool) -> bool {
        let mut doubts = false;
        self.drop_chunks(piece);
        match right {
            true => {
                // What was read may still be on its way to the disk: synced before it is claimed.
                doubts = self.shared.mark_written(&[piece]);
                // Nothing unverified must be written over it.
                self.discard(piece);
                self.written_early.remove(&piece);
            }
            false => self.shared.lock_progress().mark_absent(piece),
        }
        self.answers.push(Done::Checked(piece, right));
        doubts
    }

    /// Leaves the first check, of which nobody has anything more to take.
    fn check_ended(&mut self) {
        let Some(check) = self.checks.pop_front() else { return };
        self.check_buffer = Buffer::default();
        self.leave(&check);
    }

    /// Tells the end of a check when this was the last part of it.
    fn leave(&mut self, check: &Check) {
        // Before that, what this thread has found must be told.
        self.answer();
        if check.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.answers.push(Done::CheckEnded);
        }
    }
}
