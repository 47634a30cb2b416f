//! Wide buckets keep their nodes apart: a bucket of 128 covers each prefix of seven more bits with a node,
//! as far as there are any, so that wherever a lookup goes, somebody is known some bits nearer. Nodes
//! met by lookups alone would sit in bunches where those went.

use krpc::Id;
use krpc::compact::Address;

use super::Table;
use super::bucket::{capacity, random_id};
use crate::{Config, Rng};

/// Most cells of a bucket: it is not more than 400 wide.
const MAX_CELLS: usize = 256;

/// How often each cell of a bucket is occupied.
type Cells = [u16; MAX_CELLS];

impl<A: Address> Table<A> {
    /// A random id where a wide bucket has nobody; `None` when there is no such place, or when the
    /// network is too small for there to be somebody everywhere.
    pub(crate) fn uncovered(&self, rng: &mut Rng, config: &Config) -> Option<Id> {
        let gaps = self.gaps(config);
        let (depth, cell, bits) = *gaps.get(rng.below(gaps.len()))?;
        let mut id = *random_id(&self.own, Id::BITS - depth as u32, rng).as_bytes();
        for bit in 0..bits {
            let (index, mask) = ((depth + 1 + bit) / 8, 0x80u8 >> ((depth + 1 + bit) % 8));
            if cell >> (bits - 1 - bit) & 1 == 1 { id[index] |= mask } else { id[index] &= !mask }
        }
        Some(Id::new(id))
    }

    /// Places where wide buckets have nobody.
    pub(crate) fn gap_count(&self, config: &Config) -> usize {
        self.gaps(config).len()
    }

    /// Whether nobody is known in the cell of `id`.
    pub(crate) fn is_gap(&self, id: &Id, config: &Config) -> bool {
        let depth = self.depth_of(id);
        let bits = self.cell_bits(depth, config);
        *id != self.own && bits > 0 && self.cells(depth, bits)[cell(id, depth, bits)] == 0
    }

    /// The entry that can go from the full bucket at `depth` for a node where nobody is: of the most
    /// crowded cell one whose id does not belong to its address (BEP 42), and of such the slowest.
    pub(crate) fn surplus(&self, newcomer: &Id, depth: usize, config: &Config) -> Option<usize> {
        let bits = self.cell_bits(depth, config);
        if bits == 0 {
            return None;
        }
        let cells = self.cells(depth, bits);
        if cells[cell(newcomer, depth, bits)] > 0 {
            return None;
        }
        let most = cells.iter().max().filter(|&&most| most > 1)?;
        self.bounds
            .range(depth, self.len())
            .filter(|&index| cells[cell(&self.entries[index].id, depth, bits)] == *most)
            .max_by_key(|&index| (self.entries[index].is_insecure(), self.entries[index].rtt()))
    }

    /// Depth, number and bits of each cell of a wide bucket that has nobody.
    fn gaps(&self, config: &Config) -> Vec<(usize, usize, usize)> {
        let mut gaps = Vec::new();
        for depth in 0..config.wide_buckets.len() {
            let bits = self.cell_bits(depth, config);
            // Our neighbourhood shows how large the network is: so deep there are k nodes. Where a cell
            // would have to hold fewer than two of them by chance it may well be empty.
            if bits == 0 || self.buckets() <= depth + bits + 1 {
                continue;
            }
            let cells = self.cells(depth, bits);
            gaps.extend((0..1 << bits).filter(|&cell| cells[cell] == 0).map(|cell| (depth, cell, bits)));
        }
        gaps
    }

    fn cells(&self, depth: usize, bits: usize) -> Cells {
        let mut cells = [0; MAX_CELLS];
        for index in self.bounds.range(depth, self.len()) {
            cells[cell(&self.entries[index].id, depth, bits)] += 1;
        }
        cells
    }

    /// Bits that tell the cells of the bucket at `depth` apart; 0 in ordinary buckets.
    fn cell_bits(&self, depth: usize, config: &Config) -> usize {
        let capacity = capacity(depth, &config.wide_buckets, config.k);
        if capacity > config.k { (capacity.ilog2() as usize).min(MAX_CELLS.ilog2() as usize) } else { 0 }
    }
}

/// The number that the `bits` bits of `id` behind its bucket's make.
fn cell(id: &Id, depth: usize, bits: usize) -> usize {
    (0..bits).fold(0, |cell, bit| cell << 1 | usize::from(id.bit((depth + 1 + bit) as u32)))
}
