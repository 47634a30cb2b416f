//! [`PoolConfig`].

use std::num::NonZeroUsize;
use std::sync::Arc;

use crate::hash::Lanes;
use crate::piece::{BlockPool, STRETCH_LEN};

/// What disk threads keep of unfinished pieces when they have nothing to do, at most.
pub(crate) const WRITE_CACHE: usize = 8 << 20;

/// Limits of a [`Pool`](super::Pool).
#[derive(Clone, Debug)]
pub struct PoolConfig {
    /// Threads that hash, write, read and check. Default 2.
    pub threads: NonZeroUsize,
    /// Bytes of unfinished pieces in memory before parts of them are written early. Default 8 MiB,
    /// which is also the most: a swarm has no more than [`write_budget`](crate::swarm::Limits::write_budget)
    /// on its way to the disk, and would wait without end for room if the threads kept all of that.
    pub write_cache: usize,
    /// Pieces that lie within so many bytes go to the same thread, and it writes neighbours together
    /// that were verified one after the other, at the latest when it holds so many bytes of them or
    /// has no further block to take. Default 256 KiB.
    pub join: u32,
    /// Bytes of read-ahead kept for seeding. Default 4 MiB.
    pub read_cache: usize,
    /// Blocks to be written or read that wait for one thread; further ones are refused. Default
    /// 8,192.
    pub queue: usize,
    /// Whether, when all pieces are verified, empty files are made and longer ones are cut. Never
    /// done for [`Access::Seed`](crate::storage::Access::Seed). Default yes.
    pub finish: bool,
    /// Whether the space of wanted files is reserved with each [`Job::Want`](crate::storage::Job::Want). Done
    /// in any case after [`open()`](crate::storage::open()) with
    /// [`Preallocation::Full`](crate::storage::Preallocation::Full), and never for `Access::Seed`. Default no.
    pub reserve: bool,
    /// How many pieces each thread hashes side by side. Default [`Lanes::best`].
    pub lanes: Lanes,
    /// Where the blocks for peers come from.
    pub blocks: Arc<BlockPool>,
}

impl PoolConfig {
    /// What one thread keeps of unfinished pieces.
    pub(super) fn cache_of_one(&self) -> usize {
        self.write_cache.min(WRITE_CACHE) / self.threads
    }
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            threads: NonZeroUsize::new(2).unwrap_or(NonZeroUsize::MIN),
            write_cache: WRITE_CACHE,
            join: STRETCH_LEN,
            read_cache: 4 << 20,
            queue: 8192,
            finish: true,
            reserve: false,
            lanes: Lanes::best(),
            blocks: BlockPool::new(64),
        }
    }
}
