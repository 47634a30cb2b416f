//! [`Blocks`]: pieces of equal length one behind the other, which come and go at the end. All blocks of
//! whatever pieces are of one size, so that what one class of runs gives back serves another one.

/// Pieces of `width` elements each.
#[derive(Debug)]
pub(super) struct Blocks<T> {
    blocks: Vec<Box<[T]>>,
    width: u32,
    /// Pieces in a block.
    per_block: u32,
}

impl<T: Copy> Blocks<T> {
    pub(super) fn new(width: usize) -> Self {
        let per_block = (BLOCK_BYTES / (width * size_of::<T>())).max(1);
        Self { blocks: Vec::new(), width: width as u32, per_block: per_block as u32 }
    }

    /// Makes room for the piece behind the last one, whose rank is `rank`; the bytes that it took.
    pub(super) fn reach(&mut self, rank: usize, empty: T) -> usize {
        let Some((block, len)) = self.wanted(rank) else { return 0 };
        let mut longer = vec![empty; len].into_boxed_slice();
        match self.blocks.get_mut(block) {
            Some(old) => {
                longer[..old.len()].copy_from_slice(old);
                let before = std::mem::replace(old, longer).len();
                (len - before) * size_of::<T>()
            }
            None => {
                if self.blocks.len() == self.blocks.capacity() {
                    // By an eighth and not by two: this list is part of the bytes per peer.
                    self.blocks.reserve_exact(self.blocks.len() / 8 + 1);
                }
                self.blocks.push(longer);
                len * size_of::<T>() + MALLOC_OVERHEAD
            }
        }
    }

    /// Gives back what lies behind the first `count` pieces, of which there was one more before; the bytes.
    pub(super) fn retreat(&mut self, count: usize) -> usize {
        if self.split(count).1 != 0 {
            return 0;
        }
        let len = self.blocks.pop().map_or(0, |block| block.len());
        if self.blocks.capacity() > 2 * self.blocks.len() + 4 {
            self.blocks.shrink_to(self.blocks.len() + 1);
        }
        len * size_of::<T>() + MALLOC_OVERHEAD
    }

    /// Copies a piece over another one.
    pub(super) fn copy(&mut self, from: usize, to: usize) {
        let ((from_block, from), (to_block, to)) = (self.split(from), self.split(to));
        let (from, to) = (self.range(from), self.range(to));
        if from_block == to_block {
            self.blocks[from_block].copy_within(from, to.start);
        } else {
            let [source, target] =
                self.blocks.get_disjoint_mut([from_block, to_block]).expect("two blocks that exist");
            target[to].copy_from_slice(&source[from]);
        }
    }

    pub(super) fn piece_mut(&mut self, rank: usize) -> &mut [T] {
        let (block, offset) = self.split(rank);
        let range = self.range(offset);
        &mut self.blocks[block][range]
    }

    pub(super) fn piece(&self, rank: usize) -> &[T] {
        let (block, offset) = self.split(rank);
        &self.blocks[block][self.range(offset)]
    }

    /// Most bytes that [`Blocks::reach`] would take for `rank`, the list included.
    pub(super) fn cost(&self, rank: usize) -> usize {
        let Some((block, len)) = self.wanted(rank) else { return 0 };
        let list = if block < self.blocks.len() { 0 } else { (block / 8 + 1) * size_of::<Box<[T]>>() };
        len * size_of::<T>() + MALLOC_OVERHEAD + list
    }

    /// Bytes of the list of blocks.
    pub(super) fn list_bytes(&self) -> usize {
        self.blocks.capacity() * size_of::<Box<[T]>>()
    }

    /// The block to be made for the piece behind the last one, and its length, if there is no room.
    fn wanted(&self, rank: usize) -> Option<(usize, usize)> {
        let (block, offset) = self.split(rank);
        let has = self.blocks.get(block).map_or(0, |block| block.len());
        // The first block grows by doubling, so that a node that stores little stays small.
        let pieces = if block == 0 { FIRST_PIECES.max(2 * offset) } else { usize::MAX };
        (self.range(offset).end > has).then(|| (block, self.length(pieces)))
    }

    /// Elements of a block for at least so many pieces, or of a whole one.
    fn length(&self, pieces: usize) -> usize {
        let (width, per_block) = (self.width as usize, self.per_block as usize);
        match (pieces < per_block, per_block < FIRST_PIECES) {
            (true, _) => pieces * width,
            // A few long pieces would leave too much of a block of the common size.
            (false, true) => per_block * width,
            (false, false) => BLOCK_BYTES / size_of::<T>(),
        }
    }

    fn split(&self, rank: usize) -> (usize, usize) {
        // In 32 bits, where a division costs half.
        let rank = rank as u32;
        ((rank / self.per_block) as usize, (rank % self.per_block) as usize)
    }

    fn range(&self, offset: usize) -> std::ops::Range<usize> {
        let width = self.width as usize;
        offset * width..(offset + 1) * width
    }
}

/// What an allocator spends on a block of its own.
pub(super) const MALLOC_OVERHEAD: usize = 16;

/// With what the allocator adds a page; small enough that little is left over at the end of a class.
const BLOCK_BYTES: usize = 4080;

/// Pieces that the first block has room for.
const FIRST_PIECES: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_keep_their_content_and_bytes_add_up_while_they_come_and_go() {
        for width in [1, 3, 10, 200, 700] {
            let mut blocks: Blocks<u64> = Blocks::new(width);
            let mut bytes = 0;
            for rank in 0..2000 {
                let (cost, list) = (blocks.cost(rank), blocks.list_bytes());
                let took = blocks.reach(rank, 0);
                bytes += took;
                assert!(took + blocks.list_bytes() - list <= cost, "piece {rank} of {width}");
                blocks.piece_mut(rank).fill(rank as u64);
                let used = (rank + 1) * width * 8;
                assert!(bytes <= (2 * used).max(4 * width * 8) + BLOCK_BYTES / 2, "{bytes} for {used}");
            }
            blocks.copy(1999, 3);
            blocks.copy(5, 4);
            for (rank, content) in [(0, 0), (3, 1999), (4, 5), (5, 5), (1998, 1998)] {
                assert_eq!(blocks.piece(rank), vec![content; width], "piece {rank} of {width}");
            }
            for count in (0..2000).rev() {
                bytes -= blocks.retreat(count);
            }
            assert_eq!((bytes, blocks.blocks.len()), (0, 0), "{width}");
        }
    }

    #[test]
    fn whole_blocks_are_of_one_size_whatever_they_hold() {
        fn block<T: Copy>(width: usize, empty: T) -> usize {
            let mut blocks = Blocks::new(width);
            (0..2 * blocks.per_block as usize).for_each(|rank| _ = blocks.reach(rank, empty));
            assert_eq!(blocks.blocks.len(), 2);
            assert_eq!(blocks.blocks[0].len(), blocks.blocks[1].len());
            size_of_val(&*blocks.blocks[1])
        }
        assert_eq!([1, 7, 8, 10, 100].map(|width| block(width, 0u64)), [BLOCK_BYTES; 5]);
        assert_eq!([1, 5, 40].map(|width| block(width, [0u8; 20])), [BLOCK_BYTES; 3]);
        assert_eq!(block(1, [0u8; 24]), BLOCK_BYTES);
        assert_eq!(block(1000, 0u64), 8000, "one long piece");
    }
}
