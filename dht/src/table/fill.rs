//! How full each bucket is, for whoever wants to know how a node is doing.

use std::time::Duration;

use krpc::compact::Address;

use super::bucket::capacity;
use super::{Standing, Table};
use crate::{Config, Time};

/// One bucket of a routing table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BucketFill {
    /// Bits that its ids share with ours: 0 for the far half of the key space.
    pub shared_bits: usize,
    /// Nodes that have room.
    pub capacity: usize,
    /// Nodes.
    pub nodes: usize,
    /// Nodes that are good in the sense of BEP 5.
    pub trusty: usize,
    /// Nodes that failed to answer several times in a row.
    pub bad: usize,
    /// Nodes that answered and wait for a place.
    pub candidates: usize,
    /// How long ago a node was added, replaced or answered (BEP 5, "last changed").
    pub idle: Duration,
}

impl<A: Address> Table<A> {
    /// All buckets down to the deepest that holds a node, farthest first.
    pub(crate) fn fill(&self, now: Time, config: &Config) -> Vec<BucketFill> {
        let bucket = |depth| {
            let nodes = self.bounds.range(depth, self.len());
            let of =
                |wanted| nodes.clone().filter(|&index| self.standing(index, now, config) == wanted).count();
            BucketFill {
                shared_bits: depth,
                capacity: capacity(depth, &config.wide_buckets, config.k),
                nodes: nodes.len(),
                trusty: of(Standing::Trusty),
                bad: of(Standing::Bad),
                candidates: self.candidates.iter().filter(|entry| self.depth_of(&entry.id) == depth).count(),
                idle: self.bounds.changed(depth).map_or(Duration::ZERO, |changed| now.since(changed.time())),
            }
        };
        (0..self.buckets()).map(bucket).collect()
    }
}

#[cfg(test)]
mod tests {
    use krpc::Id;
    use krpc::compact::{Contact, V4};

    use super::*;

    #[test]
    fn fill_tells_of_each_bucket_how_many_there_are_and_how_they_are() {
        let config = Config { wide_buckets: vec![16], ..Config::default() };
        let mut table = Table::new(Id::ZERO);
        let mut insert = |first: u8, n: u8, at: u64| {
            let mut id = [n; 20];
            id[0] = first;
            let addr = V4::from_socket(([81, 2, n, first], 6881).into()).unwrap();
            let contact = Contact { id: Id::new(id), addr };
            table.insert(Time::from_secs(at), contact, Duration::from_millis(90), &config);
            addr
        };
        for n in 1..=3 {
            insert(0x80, n, 1);
        }
        insert(0x80, 4, 1000);
        let failing = insert(0x20, 5, 1000);
        for _ in 0..2 {
            table.failed(failing, &config);
        }
        let fill = table.fill(Time::from_secs(1001), &config);
        let expected = [(0, 16, 4, 1, 0, 1), (1, 8, 0, 0, 0, 1), (2, 8, 1, 0, 1, 1)];
        let expected = expected.map(|(shared_bits, capacity, nodes, trusty, bad, idle)| BucketFill {
            shared_bits,
            capacity,
            nodes,
            trusty,
            bad,
            candidates: 0,
            idle: Duration::from_secs(idle),
        });
        assert_eq!(fill, expected);
    }
}
