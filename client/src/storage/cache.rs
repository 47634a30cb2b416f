//! The write cache of one disk thread: blocks of unfinished pieces, and how far each piece is
//! hashed. Blocks that come in order are hashed while hot; others wait until the gap before them is
//! filled. Pure bookkeeping: what has to be read or written is done by the caller's closures.

use sha1::{Digest, Sha1};

use super::DiskError;
use crate::piece::{BLOCK_LEN, Block, BlockRef};

/// A piece whose blocks are coming in.
pub(super) struct Unfinished {
    len: u32,
    slots: Vec<Slot>,
    /// Blocks hashed so far: a prefix.
    hashed: usize,
    digest: Sha1,
    /// Bytes of blocks in memory.
    held: usize,
}

enum Slot {
    Empty,
    /// In memory.
    Held(Block),
    /// On disk before its piece was verified, because the cache was full.
    Stored,
}

/// A row of blocks in memory, one behind the other.
pub(super) struct Run<'a> {
    /// Offset of the first in the piece.
    pub(super) begin: u32,
    pub(super) blocks: Vec<&'a [u8]>,
}

impl Unfinished {
    /// A piece of `len` bytes of which nothing is there.
    pub(super) fn new(len: u32) -> Self {
        let slots = (0..len.div_ceil(BLOCK_LEN)).map(|_| Slot::Empty).collect();
        Self { len, slots, hashed: 0, digest: Sha1::new(), held: 0 }
    }

    /// Keeps a block. One that is there already (it was asked of two peers) or that is none of
    /// the blocks of this piece is given back.
    pub(super) fn insert(&mut self, at: BlockRef, block: Block) -> Result<(), Block> {
        let index = (at.begin / BLOCK_LEN) as usize;
        let fits = at.begin.is_multiple_of(BLOCK_LEN) && block.len() == self.block_len(index);
        match self.slots.get_mut(index) {
            Some(slot @ Slot::Empty) if fits => {
                self.held += block.len();
                *slot = Slot::Held(block);
                Ok(())
            }
            _ => Err(block),
        }
    }

    /// Drops a block, unless all are there and hashed; returns the bytes that it had in memory. If it was
    /// hashed the piece is hashed from its beginning again.
    pub(super) fn forget(&mut self, at: BlockRef) -> usize {
        let index = (at.begin / BLOCK_LEN) as usize;
        if self.hashed == self.slots.len() || index >= self.slots.len() {
            return 0;
        }
        if index < self.hashed {
            self.hashed = 0;
            self.digest = Sha1::new();
        }
        let freed = match std::mem::replace(&mut self.slots[index], Slot::Empty) {
            Slot::Held(block) => block.len(),
            Slot::Stored | Slot::Empty => 0,
        };
        self.held -= freed;
        freed
    }

    /// Hashes on as far as blocks are there; `read` fetches one that was stored early.
    pub(super) fn hash(
        &mut self,
        mut read: impl FnMut(u32, &mut [u8]) -> Result<(), DiskError>,
    ) -> Result<(), DiskError> {
        while let Some(slot) = self.slots.get(self.hashed) {
            match slot {
                Slot::Empty => break,
                Slot::Held(block) => self.digest.update(&**block),
                Slot::Stored => {
                    let mut block = vec![0; self.block_len(self.hashed)];
                    read(self.hashed as u32 * BLOCK_LEN, &mut block)?;
                    self.digest.update(&block);
                }
            }
            self.hashed += 1;
        }
        Ok(())
    }

    /// The hash once every block is there and hashed.
    pub(super) fn finished(&self) -> Option<[u8; 20]> {
        (self.hashed == self.slots.len()).then(|| self.digest.clone().finalize().into())
    }

    /// The SHA-1 of each block of a piece that is all there.
    pub(super) fn block_hashes(
        &self,
        mut read: impl FnMut(u32, &mut [u8]) -> Result<(), DiskError>,
    ) -> Result<Vec<[u8; 20]>, DiskError> {
        let hash = |(index, slot): (usize, &Slot)| match slot {
            Slot::Held(block) => Ok(Sha1::digest(&**block).into()),
            _ => {
                let mut block = vec![0; self.block_len(index)];
                read(index as u32 * BLOCK_LEN, &mut block)?;
                Ok(Sha1::digest(&block).into())
            }
        };
        self.slots.iter().enumerate().map(hash).collect()
    }

    /// Whether blocks are on disk that have to be read back.
    pub(super) fn has_stored(&self) -> bool {
        self.slots.iter().any(|slot| matches!(slot, Slot::Stored))
    }

    /// Bytes of the blocks in memory.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Bytes of the blocks in memory that are hashed: those that may go to disk early at no cost.
    pub(super) fn held_hashed(&self) -> usize {
        let hashed = self.slots.iter().take(self.hashed);
        hashed.map(|slot| if let Slot::Held(block) = slot { block.len() } else { 0 }).sum()
    }

    /// The blocks in memory as rows; only the hashed ones if `hashed_only`.
    pub(super) fn runs(&self, hashed_only: bool) -> Vec<Run<'_>> {
        let end = if hashed_only { self.hashed } else { self.slots.len() };
        let mut runs: Vec<Run<'_>> = Vec::new();
        let mut joins = false;
        for (index, slot) in self.slots.iter().take(end).enumerate() {
            match (slot, runs.last_mut()) {
                (Slot::Held(block), Some(run)) if joins => run.blocks.push(block),
                (Slot::Held(block), _) => {
                    runs.push(Run { begin: index as u32 * BLOCK_LEN, blocks: vec![block] });
                }
                _ => {}
            }
            joins = matches!(slot, Slot::Held(_));
        }
        runs
    }

    /// Drops from memory what [`Unfinished::runs`] gave, now that it is on disk; returns the bytes.
    pub(super) fn stored(&mut self, hashed_only: bool) -> usize {
        let end = if hashed_only { self.hashed } else { self.slots.len() };
        let before = self.held;
        for slot in self.slots.iter_mut().take(end) {
            if let Slot::Held(block) = slot {
                self.held -= block.len();
                *slot = Slot::Stored;
            }
        }
        before - self.held
    }

    fn block_len(&self, index: usize) -> usize {
        let begin = (index as u64 * u64::from(BLOCK_LEN)).min(u64::from(self.len)) as u32;
        (self.len - begin).min(BLOCK_LEN) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::piece::PieceIndex;

    const LEN: u32 = 2 * BLOCK_LEN + 100;

    fn bytes() -> Vec<u8> {
        (0..LEN).map(|at| (at / 7) as u8).collect()
    }

    fn insert(piece: &mut Unfinished, index: u32) -> bool {
        let begin = index * BLOCK_LEN;
        let len = (LEN - begin).min(BLOCK_LEN);
        let block = bytes()[begin as usize..][..len as usize].to_vec();
        piece.insert(BlockRef { piece: PieceIndex(0), begin, len }, Block::from(block)).is_ok()
    }

    fn no_read(_: u32, _: &mut [u8]) -> Result<(), DiskError> {
        panic!("nothing was stored early")
    }

    fn read(begin: u32, block: &mut [u8]) -> Result<(), DiskError> {
        block.copy_from_slice(&bytes()[begin as usize..][..block.len()]);
        Ok(())
    }

    #[test]
    fn blocks_in_any_order_give_the_hash_of_the_piece() {
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [0, 2, 1]] {
            let mut piece = Unfinished::new(LEN);
            for index in order {
                assert_eq!(piece.finished(), None);
                assert!(insert(&mut piece, index));
                assert!(!insert(&mut piece, index), "a second copy is given back");
                piece.hash(no_read).unwrap();
            }
            assert_eq!(piece.finished(), Some(Sha1::digest(bytes()).into()));
            assert_eq!(piece.held(), LEN as usize);
            let runs = piece.runs(false);
            assert_eq!((runs.len(), runs[0].begin, runs[0].blocks.concat()), (1, 0, bytes()));
        }
    }

    #[test]
    fn what_went_to_disk_early_is_read_back_only_if_it_was_not_hashed() {
        let mut piece = Unfinished::new(LEN);
        assert!(insert(&mut piece, 0));
        piece.hash(no_read).unwrap();
        assert_eq!(piece.held_hashed(), BLOCK_LEN as usize);
        assert!(insert(&mut piece, 2));
        assert_eq!(piece.stored(true), BLOCK_LEN as usize);
        assert_eq!((piece.held(), piece.runs(true).len()), (100, 0));
        assert_eq!(piece.stored(false), 100);
        assert!(insert(&mut piece, 1));
        let mut reads = Vec::new();
        piece
            .hash(|begin, block| {
                reads.push(begin);
                read(begin, block)
            })
            .unwrap();
        assert_eq!(reads, [2 * BLOCK_LEN]);
        assert_eq!(piece.finished(), Some(Sha1::digest(bytes()).into()));
        let runs = piece.runs(false);
        assert_eq!((runs.len(), runs[0].begin), (1, BLOCK_LEN));
        let hashes = piece.block_hashes(read).unwrap();
        let expected: Vec<[u8; 20]> =
            bytes().chunks(BLOCK_LEN as usize).map(|block| Sha1::digest(block).into()).collect();
        assert_eq!(hashes, expected);
    }

    #[test]
    fn a_block_that_is_forgotten_is_hashed_as_it_comes_anew() {
        // Hashed in memory, hashed and stored, not hashed yet.
        for (index, early, freed) in [(0, false, BLOCK_LEN), (0, true, 0), (1, false, BLOCK_LEN)] {
            let mut piece = Unfinished::new(LEN);
            let at = BlockRef { piece: PieceIndex(0), begin: index * BLOCK_LEN, len: BLOCK_LEN };
            assert!(piece.insert(at, Block::zeroed(BLOCK_LEN as usize)).is_ok());
            piece.hash(no_read).unwrap();
            if early {
                assert_eq!(piece.stored(true), BLOCK_LEN as usize);
            }
            assert_eq!((piece.forget(at), piece.held()), (freed as usize, 0));
            assert_eq!(piece.forget(at), 0, "it is not there any more");
            for index in [2, 0, 1] {
                assert!(insert(&mut piece, index));
                piece.hash(no_read).unwrap();
            }
            assert_eq!(piece.forget(at), 0, "the piece is all there");
            assert_eq!(piece.finished(), Some(Sha1::digest(bytes()).into()));
        }
    }

    #[test]
    fn what_is_no_block_of_the_piece_is_given_back() {
        let mut piece = Unfinished::new(LEN);
        for (begin, len) in
            [(1, BLOCK_LEN), (0, 5), (2 * BLOCK_LEN, BLOCK_LEN), (3 * BLOCK_LEN, 1), (3 * BLOCK_LEN, 0)]
        {
            let at = BlockRef { piece: PieceIndex(0), begin, len };
            assert!(piece.insert(at, Block::zeroed(len as usize)).is_err());
        }
        assert_eq!(piece.held(), 0);
    }
}
