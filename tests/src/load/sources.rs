//! [`Sources`]: who asks the node, lives in its table and is stored by it.

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use btdht::Rng;
use btdht::secure_id::secure_id;
use krpc::Id;
use krpc::compact::{Address as _, V4};

/// Sources: `85.x.y.7:6881`, each in a /24 of its own.
pub const SOURCES: u32 = 20_000;
/// The port of all of them.
pub(super) const PORT: u16 = 6881;
/// Leading bits for which it is counted beforehand how many ids begin with them.
const HEAD_BITS: u32 = 16;

/// The ids of the sources, which belong to their addresses (BEP 42).
pub(super) struct Sources {
    ids: Vec<Id>,
    /// Sources in the order of their ids.
    sorted: Vec<u32>,
    /// How many ids begin with less than each head; one more than there are heads.
    below: Vec<u32>,
}

impl Sources {
    pub(super) fn new(rng: &mut Rng) -> Self {
        let ids: Vec<Id> = (0..SOURCES).map(|n| secure_id(IpAddr::V4(ip(n)), rng)).collect();
        let mut sorted: Vec<u32> = (0..SOURCES).collect();
        sorted.sort_unstable_by_key(|&n| ids[n as usize]);
        let mut below = vec![0; (1 << HEAD_BITS) + 1];
        ids.iter().for_each(|id| below[head(id) + 1] += 1);
        let mut sum = 0;
        for count in &mut below {
            sum += *count;
            *count = sum;
        }
        Self { ids, sorted, below }
    }

    /// The id of a source; `None` for a number that none has.
    pub(super) fn id(&self, source: u32) -> Option<Id> {
        self.ids.get(source as usize).copied()
    }

    /// How many share at least the first `bits` bits with `target`.
    pub(super) fn sharing(&self, target: &Id, bits: u32) -> usize {
        if bits <= HEAD_BITS {
            let first = head(target) >> (HEAD_BITS - bits) << (HEAD_BITS - bits);
            return (self.below[first + (1 << (HEAD_BITS - bits))] - self.below[first]) as usize;
        }
        let at = self.sorted.partition_point(|&n| self.ids[n as usize] < *target);
        let shares = |&&n: &&u32| self.ids[n as usize].prefix_len(target) >= bits;
        self.sorted[at..].iter().take_while(shares).count()
            + self.sorted[..at].iter().rev().take_while(shares).count()
    }

    /// The eight nearest to `target`, nearest first.
    pub(super) fn nearest(&self, target: &Id) -> Vec<u32> {
        // The nearest share the longest prefix, so that they stand about where the target would.
        let at = self.sorted.partition_point(|&n| self.ids[n as usize] < *target);
        let mut near = self.sorted[at.saturating_sub(32)..(at + 32).min(self.sorted.len())].to_vec();
        near.sort_unstable_by_key(|&n| self.ids[n as usize].distance(target));
        near.truncate(8);
        near
    }
}

/// Where a source lives.
pub(super) fn ip(source: u32) -> Ipv4Addr {
    Ipv4Addr::new(85, (source >> 8) as u8, source as u8, 7)
}

/// Where a source listens.
pub(super) fn wire(source: u32) -> V4 {
    V4::from_socket(SocketAddrV4::new(ip(source), PORT).into()).expect("an IPv4 address")
}

/// The source that listens there, if one does.
pub(super) fn at(addr: &[u8]) -> Option<u32> {
    let [85, high, low, 7, port @ ..] = addr else { return None };
    let source = u32::from(*high) << 8 | u32::from(*low);
    (source < SOURCES && port == PORT.to_be_bytes()).then_some(source)
}

fn head(id: &Id) -> usize {
    let [first, second, ..] = *id.as_bytes();
    usize::from(u16::from_be_bytes([first, second]))
}

#[cfg(test)]
mod tests {
    use btdht::Seeds;

    use super::*;

    #[test]
    fn as_many_share_a_prefix_as_are_counted_one_by_one() {
        let mut rng = Rng::new(Seeds::from_u64(1));
        let sources = Sources::new(&mut rng);
        let targets = [Id::new([0; 20]), Id::new([0xff; 20]), sources.ids[3], rng.id(), rng.id()];
        for target in &targets {
            for bits in [0, 1, 2, 9, 11, 15, 16, 17, 20, 160] {
                let counted = sources.ids.iter().filter(|id| id.prefix_len(target) >= bits).count();
                assert_eq!(sources.sharing(target, bits), counted, "{bits} bits of {target}");
            }
        }
    }

    #[test]
    fn the_nearest_are_nearer_than_all_others() {
        let mut rng = Rng::new(Seeds::from_u64(2));
        let sources = Sources::new(&mut rng);
        for target in [Id::new([0; 20]), Id::new([0xff; 20]), rng.id()] {
            let mut all: Vec<u32> = (0..SOURCES).collect();
            all.sort_unstable_by_key(|&n| sources.ids[n as usize].distance(&target));
            assert_eq!(sources.nearest(&target), all[..8]);
        }
    }

    #[test]
    fn an_address_is_of_the_source_that_has_it() {
        for source in [0, 1, 255, 256, SOURCES - 1] {
            assert_eq!(at(wire(source).as_wire()), Some(source));
        }
        assert_eq!(at(wire(SOURCES).as_wire()), None, "one too many");
        assert_eq!(at(&[85, 0, 0, 7, 0x1a, 0xe2]), None, "another port");
        assert_eq!(at(&[85, 0, 0, 8, 0x1a, 0xe1]), None, "a neighbour");
    }
}
