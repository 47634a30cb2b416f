//! Wide buckets keep their nodes apart: a bucket of 128 covers each prefix of seven more bits with a node,
//! as far as there are any, so that wherever a lookup goes, somebody is known some bits nearer. Nodes
//! met by lookups alone would sit in bunches where those went.

use krpc::Id;
use krpc::compact::Address;

use super::Table;
use super::bucket::{capacity, depth, random_id};
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
        Some(self.in_cell(depth, (cell, bits), rng))
    }

    /// A random id in part `part` of bucket `number`, of so many equal `parts` (rounded up to a power of two).
    /// The first few parts lie as far apart as there is room: the second one opens the other half.
    pub(crate) fn random_id_in_part(&self, number: u32, (part, parts): (u32, u32), rng: &mut Rng) -> Id {
        let bits = parts.max(1).next_power_of_two().ilog2();
        let cell = part.reverse_bits().checked_shr(u32::BITS - bits).unwrap_or(0);
        self.in_cell(depth(number), (cell as usize, bits as usize), rng)
    }

    /// A random id in that cell of the bucket at `depth`, which `bits` further bits tell from the others.
    fn in_cell(&self, depth: usize, (cell, bits): (usize, usize), rng: &mut Rng) -> Id {
        let mut id = *random_id(&self.own, Id::BITS - depth as u32, rng).as_bytes();
        for bit in 0..bits {
            let (index, mask) = ((depth + 1 + bit) / 8, 0x80u8 >> ((depth + 1 + bit) % 8));
            let Some(byte) = id.get_mut(index) else { break };
            if cell >> (bits - 1 - bit) & 1 == 1 { *byte |= mask } else { *byte &= !mask }
        }
        Id::new(id)
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
        let network = self.network_size(config);
        for depth in 0..config.wide_buckets.len() {
            let bits = self.cell_bits(depth, config);
            // Where a cell holds fewer than two nodes on average it may well be empty.
            if bits == 0 || network >> (depth + 1 + bits) < 2 {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use krpc::compact::{Contact, V4};

    use super::super::Insertion;
    use super::*;
    use crate::Time;

    /// A table around zero whose far half is 8 wide and that knows a network 20 bits deep.
    fn table(config: &Config) -> Table<V4> {
        let mut table = Table::new(Id::ZERO);
        for depth in 1..20 {
            put(&mut table, depth, 0, config);
        }
        table
    }

    fn config() -> Config {
        Config { wide_buckets: vec![8], k: 4, ..Config::default() }
    }

    /// Inserts a node that shares `depth` bits with zero and goes on with the `bits` behind them; each has an
    /// address of its own.
    fn put(table: &mut Table<V4>, depth: usize, bits: u8, config: &Config) -> (Id, Insertion<V4>) {
        let mut bytes = [0; 20];
        bytes[depth / 8] |= 0x80 >> (depth % 8);
        if depth == 0 {
            bytes[0] |= bits << 4;
        }
        bytes[10] = 1 + table.iter().map(|entry| entry.id.as_bytes()[10]).max().unwrap_or(0);
        let id = Id::new(bytes);
        let addr = V4::from_socket(([81, 2, bytes[10], 1], 6881).into()).unwrap();
        let contact = Contact { id, addr };
        (id, table.insert(Time::from_secs(1), contact, Duration::from_millis(50), config))
    }

    #[test]
    fn bunch_in_a_wide_bucket_makes_room_for_whoever_lives_where_nobody_is() {
        let config = config();
        let mut table = table(&config);
        let bunch: Vec<Id> = (0..8).map(|_| put(&mut table, 0, 0b000, &config).0).collect();
        assert_eq!(table.gap_count(&config), 7);
        for cell in 1..8 {
            let (id, inserted) = put(&mut table, 0, cell, &config);
            assert_eq!(inserted, Insertion::Added, "cell {cell}");
            assert!(!table.is_gap(&id, &config));
        }
        let left = bunch.iter().filter(|id| table.iter().any(|entry| entry.id == **id)).count();
        assert_eq!((left, table.gap_count(&config)), (1, 0));
        // Now nobody is where he need not be: a ninth one waits.
        assert!(matches!(put(&mut table, 0, 5, &config).1, Insertion::Candidate { .. }));
    }

    #[test]
    fn gaps_are_named_one_by_one_and_only_in_a_network_that_fills_them() {
        let config = config();
        let mut rng = Rng::from_seed(1);
        let mut grown = table(&config);
        put(&mut grown, 0, 0b011, &config);
        for _ in 0..100 {
            let target = grown.uncovered(&mut rng, &config).unwrap();
            assert!(target.bit(0) && grown.is_gap(&target, &config));
            assert_ne!(target.as_bytes()[0] >> 4, 0b1011);
        }
        let mut small = Table::new(Id::ZERO);
        (1..4).for_each(|depth| _ = put(&mut small, depth, 0, &config));
        assert_eq!((small.uncovered(&mut rng, &config), small.gap_count(&config)), (None, 0));
    }

    #[test]
    fn parts_of_a_bucket_are_gone_through_far_ones_first() {
        let mut rng = Rng::from_seed(2);
        let table = Table::<V4>::new(rng.id());
        for (number, parts, cells) in
            [(160, 4, vec![0, 2, 1, 3]), (159, 2, vec![0, 1]), (150, 1, vec![0]), (160, 3, vec![0, 2, 1])]
        {
            let bits = cells.len().next_power_of_two().ilog2() as usize;
            for _ in 0..20 {
                let ids = (0..).zip(&cells).map(|(part, _)| {
                    let id = table.random_id_in_part(number, (part, parts), &mut rng);
                    assert_eq!(table.depth_of(&id), depth(number));
                    cell(&id, depth(number), bits)
                });
                assert_eq!(ids.collect::<Vec<_>>(), cells, "{parts} parts of bucket {number}");
            }
        }
        // Few bits are left at the end; more parts than ids are no reason to fail.
        assert_eq!(table.depth_of(&table.random_id_in_part(1, (200, 256), &mut rng)), 159);
        assert_eq!(table.depth_of(&table.random_id_in_part(160, (u32::MAX, 0), &mut rng)), 0);
    }
}
