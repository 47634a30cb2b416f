//! Pieces that a failed sync may have lost are hashed, and written again as they are read: a sync that
//! succeeds then holds for them.

use super::{Stored, Worker};
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
        if there && self.0.config.finish {
            span::write(&*self.0.storage, self.0.info.layout(), piece, begin, &[&*to])?;
        }
        Ok(there)
    }
}

impl Worker {
    /// Writes again what is in doubt of the pieces of this worker, and tells which are lost. What an error
    /// keeps it from stays in doubt.
    pub(super) fn renew(&mut self) -> Result<(), DiskError> {
        let (pieces, failures) = self.shared.doubted(self.index);
        let (mut lost, mut result) = (Vec::new(), Ok(()));
        for piece in pieces {
            if self.shared.is_held() || self.shared.is_stopping() {
                break;
            }
            match self.renew_piece(piece) {
                Ok(right) => {
                    self.shared.renewed(piece, right, failures);
                    lost.extend((!right).then_some(piece));
                }
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        if !lost.is_empty() {
            self.answers.push(Done::Lost(lost));
        }
        result
    }

    fn renew_piece(&self, piece: PieceIndex) -> Result<bool, DiskError> {
        let mut alone = Pieces::new(Lanes::ONE, [(piece, self.shared.info.layout().piece_len(piece))]);
        let mut buffer = Vec::new();
        while alone.step(&Renewed(&self.shared), &mut buffer)? {}
        Ok(alone.digests().any(|(piece, digest)| self.is_hash(piece, digest.as_ref())))
    }
}
