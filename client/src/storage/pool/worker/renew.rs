//! Pieces that a failed sync may have lost are hashed, and written again as they are read: a sync that
//! succeeds then holds for them.

use super::{Stored, Worker};
use crate::buffer::Buffer;
use crate::hash::{Lanes, Pieces, Source};
use crate::piece::PieceIndex;
use crate::storage::pool::shared::Shared;
use crate::storage::{DiskError, Done, span};

/// Pieces that are written back wherever they are read. Where the kernel has dropped what it could not
/// write, the next read shows it; where it kept it and took it for written, it is written now.
struct Renewed<'a>(&'a Shared);

impl Source<PieceIndex> for Renewed<'_> {
    type Error = DiskError;

    fn ahead(&self, piece: PieceIndex, begin: u32, len: u32) {
        Stored(self.0).ahead(piece, begin, len);
    }

    fn read(&self, piece: PieceIndex, begin: u32, to: &mut [u8]) -> Result<bool, DiskError> {
        let there = Stored(self.0).read(piece, begin, to)?;
        // For `Access::Seed` nothing was written in this run, and nothing ever is.
        if there && self.0.writes {
            let (storage, layout) = (&*self.0.storage, self.0.info.layout());
            self.0.write(&[piece], || span::write(storage, layout, piece, begin, &[&*to]))?;
        }
        Ok(there)
    }
}

impl Worker {
    /// Has what is in doubt of the pieces of this worker written again.
    pub(super) fn begin_renewing(&mut self) {
        self.renewing = self.shared.doubted(self.index);
    }

    /// Writes the next piece again that is in doubt; with the last one, tells which are lost and passes on
    /// the saves that waited. What an error keeps it from stays in doubt.
    pub(super) fn renew(&mut self) -> Result<(), DiskError> {
        if let Some(piece) = self.renewing.pop_front()
            && let Some(failures) = self.shared.failures(piece)
        {
            let right = self.renew_piece(piece)?;
            self.shared.renewed(piece, right, failures);
            self.lost.extend((!right).then_some(piece));
        }
        if self.renewing.is_empty() {
            self.tell_lost();
            self.answer();
            self.pass_postponed();
        }
        Ok(())
    }

    /// All at once: the swarm looks at every piece to see what it wants then.
    pub(super) fn tell_lost(&mut self) {
        if !self.lost.is_empty() {
            self.answers.push(Done::Lost(std::mem::take(&mut self.lost)));
        }
    }

    pub(super) fn pass_postponed(&mut self) {
        self.postponed.drain(..).for_each(|barrier| self.shared.arrive(&barrier));
    }

    fn renew_piece(&self, piece: PieceIndex) -> Result<bool, DiskError> {
        let mut alone = Pieces::new(Lanes::ONE, [(piece, self.shared.info.layout().piece_len(piece))]);
        let mut buffer = Buffer::default();
        while alone.step(&Renewed(&self.shared), &mut buffer)? {}
        Ok(alone.digests().any(|(piece, digest)| self.is_hash(piece, digest.as_ref())))
    }
}
