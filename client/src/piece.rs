//! Names of parts of a torrent: [`PieceIndex`] and [`BlockRef`], and the bytes of one [`Block`].

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex};

/// Bytes of a block that we request, 16 KiB (BEP 3: "all current implementations use 2^14").
pub const BLOCK_LEN: u32 = 1 << 14;
/// Bytes of a stretch: neighbouring pieces that are fetched one after the other where all peers are
/// seeds, so that they can be written together. Longer pieces are a stretch each.
pub(crate) const STRETCH_LEN: u32 = 1 << 18;

/// Pieces of one stretch, at least 1.
pub(crate) fn stretch(piece_len: u32) -> u32 {
    (STRETCH_LEN / piece_len.max(1)).max(1)
}

/// Index of a piece, checked against its torrent when it was made from a stranger's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PieceIndex(pub u32);

/// A block of a piece: what a request, cancel or piece message names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockRef {
    /// The piece.
    pub piece: PieceIndex,
    /// Offset of the first byte in the piece.
    pub begin: u32,
    /// Bytes.
    pub len: u32,
}

/// Names a connection of one swarm: a generation-checked index, never a pointer or an address. A
/// slot that was freed and given out again has another generation, so a late event is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot {
    /// Position in the swarm's table.
    pub index: u32,
    /// How often the position was given out before.
    pub generation: u32,
}

/// The payload of one block. Its buffer goes back to the [`BlockPool`] that it came from.
pub struct Block {
    bytes: Vec<u8>,
    pool: Option<Arc<BlockPool>>,
}

impl Block {
    /// A block of `len` zero bytes outside any pool.
    pub fn zeroed(len: usize) -> Self {
        Self { bytes: vec![0; len], pool: None }
    }

    /// The whole buffer, to be received into.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl From<Vec<u8>> for Block {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, pool: None }
    }
}

impl Deref for Block {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take() {
            pool.put_back(std::mem::take(&mut self.bytes));
        }
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Block({} bytes)", self.bytes.len())
    }
}

/// Recycled buffers of [`BLOCK_LEN`] bytes, shared by connections and disk threads. It keeps at most
/// `keep` unused ones; how many are in use is bounded by those who take them.
#[derive(Debug)]
pub struct BlockPool {
    free: Mutex<Vec<Vec<u8>>>,
    keep: usize,
}

impl BlockPool {
    /// A pool that keeps at most `keep` unused buffers.
    pub fn new(keep: usize) -> Arc<Self> {
        Arc::new(Self { free: Mutex::new(Vec::new()), keep })
    }

    /// A block of `len` bytes of unspecified content; outside the pool when longer than
    /// [`BLOCK_LEN`].
    pub fn take(self: &Arc<Self>, len: usize) -> Block {
        if len > BLOCK_LEN as usize {
            return Block::zeroed(len);
        }
        let recycled = self.lock().pop();
        let mut bytes = recycled.unwrap_or_else(|| vec![0; BLOCK_LEN as usize]);
        bytes.resize(len, 0);
        Block { bytes, pool: Some(Arc::clone(self)) }
    }

    fn put_back(&self, bytes: Vec<u8>) {
        let mut free = self.lock();
        if free.len() < self.keep {
            free.push(bytes);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
        self.free.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_block_is_recycled_up_to_the_cap() {
        let pool = BlockPool::new(1);
        let (a, b) = (pool.take(5), pool.take(BLOCK_LEN as usize));
        assert_eq!((a.len(), b.len()), (5, BLOCK_LEN as usize));
        drop((a, b));
        assert_eq!(pool.lock().len(), 1);
        assert_eq!(pool.take(100_000).len(), 100_000);
    }
}
