//! [`Progress`]: what the threads of a pool have written, and how far the disk can be believed to keep it.

use crate::bitfield::Bitfield;
use crate::metainfo::Layout;
use crate::piece::PieceIndex;

/// What is written so far.
pub(super) struct Progress {
    /// Pieces that are verified and written.
    pub(super) written: Bitfield,
    /// Files written to, or believed because of what they hold, since they were last synced; in order.
    dirty: Vec<usize>,
    /// Files that are others to look at, though nothing was written to them: space was reserved.
    pub(super) touched: Vec<usize>,
    /// Pieces that are why files are dirty, in whole or in part.
    unsynced: Bitfield,
    /// Pieces that were not synced when a sync failed. The kernel may have dropped what it could not write,
    /// and report success the next time: they are not claimed until they are written once more.
    pub(super) doubted: Bitfield,
    /// Pieces that may be there and were not looked at yet.
    unchecked: Bitfield,
    /// Syncs that have failed.
    pub(super) failures: u64,
}

/// What a save starts from.
pub(super) struct Snapshot {
    pub(super) have: Bitfield,
    pub(super) dirty: Vec<usize>,
    pub(super) touched: Vec<usize>,
    pub(super) unsynced: Bitfield,
    pub(super) doubted: Bitfield,
    pub(super) unchecked: Bitfield,
}

impl Progress {
    /// `have` is written and synced; what is `unchecked` may be.
    pub(super) fn new(have: Bitfield, unchecked: Bitfield) -> Self {
        let (unsynced, doubted) = (Bitfield::new(have.len()), Bitfield::new(have.len()));
        let (dirty, touched) = (Vec::new(), Vec::new());
        Self { written: have, dirty, touched, unsynced, doubted, unchecked, failures: 0 }
    }

    /// A piece is verified and lies in its files.
    pub(super) fn mark_written(&mut self, piece: PieceIndex, layout: &Layout) {
        self.written.insert(piece.0);
        self.unchecked.remove(piece.0);
        self.touch(piece, layout);
    }

    /// A piece is not there.
    pub(super) fn mark_absent(&mut self, piece: PieceIndex) {
        self.written.remove(piece.0);
        self.unchecked.remove(piece.0);
    }

    /// What is there, or may be.
    pub(super) fn perhaps_written(&self) -> Bitfield {
        let mut perhaps = self.written.clone();
        for piece in self.unchecked.iter() {
            perhaps.insert(piece);
        }
        perhaps
    }

    /// Bytes of a piece are not synced.
    pub(super) fn touch(&mut self, piece: PieceIndex, layout: &Layout) {
        self.unsynced.insert(piece.0);
        for span in layout.spans(piece, 0, layout.piece_len(piece)).filter(|span| !span.pad) {
            if let Err(at) = self.dirty.binary_search(&span.file) {
                self.dirty.insert(at, span.file);
            }
        }
    }

    /// Takes what is to be synced.
    pub(super) fn snapshot(&mut self) -> Snapshot {
        Snapshot {
            have: self.written.clone(),
            dirty: std::mem::take(&mut self.dirty),
            touched: std::mem::take(&mut self.touched),
            unsynced: std::mem::replace(&mut self.unsynced, Bitfield::new(self.written.len())),
            doubted: self.doubted.clone(),
            unchecked: self.unchecked.clone(),
        }
    }

    /// These files and pieces are still to be synced.
    pub(super) fn put_back(&mut self, files: &[usize], pieces: impl Iterator<Item = u32>) {
        self.dirty.extend_from_slice(files);
        self.dirty.sort_unstable();
        self.dirty.dedup();
        for piece in pieces {
            self.unsynced.insert(piece);
        }
    }

    /// Parts of a piece were written, between which moment and that when `failures` syncs had failed one
    /// may have failed that did not know of them.
    pub(super) fn touch_again(&mut self, piece: PieceIndex, layout: &Layout, failures: u64) {
        self.touch(piece, layout);
        if self.failures != failures {
            self.doubted.insert(piece.0);
        }
    }

    /// A sync failed. Files may share what the kernel remembers of that, as all do whose edges lie in the
    /// part file, and it is told once: no piece that is not synced is believed any more, whatever its files.
    pub(super) fn doubt_unsynced(&mut self) {
        self.failures += 1;
        for piece in self.unsynced.iter() {
            self.doubted.insert(piece);
        }
    }

    /// A file that holds these pieces was taken away, or is another one: nothing of them may be left. Says
    /// whether one of them was believed until now.
    pub(super) fn doubt_gone(&mut self, pieces: impl Iterator<Item = u32>) -> bool {
        self.failures += 1;
        let mut believed = false;
        for piece in pieces {
            let new = self.doubted.insert(piece);
            believed |= new && self.written.contains(piece);
        }
        believed
    }

    /// These pieces, which were written, are not there any more.
    pub(super) fn lose(&mut self, pieces: &[PieceIndex]) {
        for piece in pieces {
            self.written.remove(piece.0);
            self.doubted.remove(piece.0);
        }
    }
}
