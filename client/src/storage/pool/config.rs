//! [`PoolConfig`].

use std::num::NonZeroUsize;
use std::sync::Arc;

use crate::hash::Lanes;
use crate::piece::BlockPool;

/// Limits of a [`Pool`](super::Pool).
#[derive(Clone, Debug)]
pub struct PoolConfig {
    /// Threads that hash, write, read and check. Default 2.
    pub threads: NonZeroUsize,
    /// Bytes of unfinished pieces in memory before parts of them are written early. Should be less
    /// than what the swarm has on its way to the disk, or the swarm waits. Default 16 MiB.
    pub write_cache: usize,
    /// Bytes of read-ahead kept for seeding. Default 4 MiB.
    pub read_cache: usize,
    /// Blocks to be written or read that wait for one thread; further ones are refused. Default
    /// 8,192.
    pub queue: usize,
    /// Whether, when all pieces are verified, empty files are made and longer ones are cut. Never
    /// done for [`Access::Seed`](crate::storage::Access::Seed). Default yes.
    pub finish: bool,
    /// How many pieces each thread hashes side by side. Default [`Lanes::best`].
    pub lanes: Lanes,
    /// Where the blocks for peers come from.
    pub blocks: Arc<BlockPool>,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            threads: NonZeroUsize::new(2).unwrap_or(NonZeroUsize::MIN),
            write_cache: 16 << 20,
            read_cache: 4 << 20,
            queue: 8192,
            finish: true,
            lanes: Lanes::best(),
            blocks: BlockPool::new(64),
        }
    }
}
