//! [`Census`]: everybody of a network in the order of their ids, and from it what a network knows that
//! has grown: tables are drawn bucket by bucket, in O(log n) each, so that a million of them take
//! seconds. Nobody's table is made from anybody else's.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use krpc::Id;

use crate::{Acquaintance, Config, Rng, Time};

/// Somebody with an id, and the number that the network knows it by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: Id,
    /// Its number; whoever has none of a host answers nobody.
    pub number: u32,
}

/// All members of a network, by id. It takes 32 bytes a member.
#[derive(Clone, Debug, Default)]
pub struct Census {
    /// The first 64 bits of each id, ascending.
    heads: Vec<u64>,
    members: Vec<Member>,
}

impl Census {
    /// A census of the given members.
    pub fn new(mut members: Vec<Member>) -> Self {
        members.sort_unstable_by(|a, b| (a.id.as_bytes(), a.number).cmp(&(b.id.as_bytes(), b.number)));
        Self { heads: members.iter().map(|member| head(&member.id)).collect(), members }
    }

    /// Members.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether it has no members.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// All members by id.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The `count` members nearest to `target`, nearest first.
    pub fn closest(&self, target: &Id, count: usize) -> Vec<Member> {
        let mut depth = (self.len().max(1).ilog2() + 1).min(64);
        loop {
            let range = self.range(target, depth);
            if range.len() >= count || depth == 0 {
                let mut near = self.members[range].to_vec();
                near.sort_unstable_by_key(|member| member.id.distance(target));
                near.truncate(count);
                return near;
            }
            depth -= 1;
        }
    }

    /// Whom a node with the id `own` knows once it has been there for long, farthest bucket first: of
    /// each bucket as many at random as it holds.
    pub fn table(&self, own: &Id, config: &Config, rng: &mut Rng) -> Vec<Member> {
        let mut known = Vec::new();
        let mut near = 0..self.len();
        for depth in 0..64 {
            // Those who share more bits lie within those who share fewer.
            let nearer = self.range_within(near.clone(), head(own), depth + 1);
            let far =
                if nearer.start == near.start { nearer.end..near.end } else { near.start..nearer.start };
            let capacity = config.wide_buckets.get(depth as usize).copied().unwrap_or(config.k);
            self.sample(far, capacity, rng, &mut known);
            near = nearer;
            if near.len() <= 1 {
                break;
            }
        }
        known.retain(|member| member.id != *own);
        known
    }

    /// The members that share at least `depth` bits with `id`.
    fn range(&self, id: &Id, depth: u32) -> Range<usize> {
        self.range_within(0..self.len(), head(id), depth)
    }

    fn range_within(&self, within: Range<usize>, head: u64, depth: u32) -> Range<usize> {
        let mask = u64::MAX.checked_shl(64 - depth).unwrap_or(0);
        let heads = &self.heads[within.clone()];
        let start = heads.partition_point(|&other| other & mask < head & mask);
        let end = start + heads[start..].partition_point(|&other| other & mask == head & mask);
        within.start + start..within.start + end
    }

    /// Appends `count` members of the range, all different, or all if it has no more.
    fn sample(&self, range: Range<usize>, count: usize, rng: &mut Rng, known: &mut Vec<Member>) {
        if range.len() <= count {
            known.extend_from_slice(&self.members[range]);
            return;
        }
        // Floyd's algorithm: each subset is as likely as any other, in `count` draws.
        let first = known.len();
        for last in range.len() - count..range.len() {
            let drawn = self.members[range.start + rng.below(last + 1)];
            let is_new = !known[first..].contains(&drawn);
            known.push(if is_new { drawn } else { self.members[range.start + last] });
        }
    }
}

/// What a node remembers of `member`: it answered within the last [`Config::questionable_after`].
pub(super) fn acquaintance(
    member: Member,
    (addr, rtt): (SocketAddr, Duration),
    now: Time,
    config: &Config,
    rng: &mut Rng,
) -> Acquaintance {
    let age = Duration::from_millis(rng.below(config.questionable_after.as_millis() as usize) as u64);
    Acquaintance { id: member.id, addr, rtt, seen: now - age }
}

/// The first 64 bits of an id.
fn head(id: &Id) -> u64 {
    id.distance_head(&Id::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn census(count: u32, seed: u64) -> Census {
        let mut rng = Rng::from_seed(seed);
        Census::new((0..count).map(|number| Member { id: rng.id(), number }).collect())
    }

    #[test]
    fn closest_are_the_closest() {
        let (census, mut rng) = (census(3000, 1), Rng::from_seed(2));
        for count in [1, 8, 20] {
            let target = rng.id();
            let mut all = census.members().to_vec();
            all.sort_by_key(|member| member.id.distance(&target));
            assert_eq!(census.closest(&target, count), all[..count]);
        }
        assert_eq!(census.closest(&Id::ZERO, 5000).len(), 3000);
        assert!(Census::default().closest(&Id::ZERO, 8).is_empty());
    }

    #[test]
    fn table_holds_k_different_members_of_each_bucket_or_all_that_there_are() {
        let census = census(2000, 3);
        let config = Config { wide_buckets: vec![32], ..Config::default() };
        let mut rng = Rng::from_seed(4);
        for own in [census.members()[0], census.members()[1234], census.members()[1999]] {
            let table = census.table(&own.id, &config, &mut rng);
            for depth in 0..160 {
                let of = |members: &[Member]| {
                    let mut of: Vec<_> =
                        members.iter().filter(|m| own.id.prefix_len(&m.id) == depth).map(|m| m.id).collect();
                    of.sort_unstable_by_key(|id| id.distance(&Id::ZERO));
                    of.dedup();
                    of.len()
                };
                let capacity = if depth == 0 { 32 } else { 8 };
                assert_eq!(of(&table), of(census.members()).min(capacity), "bucket {depth}");
            }
            assert!(table.is_sorted_by_key(|member| own.id.prefix_len(&member.id)));
        }
    }

    #[test]
    fn every_member_of_a_bucket_is_as_likely_as_any_other() {
        let census = census(400, 5);
        let own = census.members()[7].id;
        let mut rng = Rng::from_seed(6);
        let mut counts = vec![0u32; 400];
        let config = Config { wide_buckets: Vec::new(), ..Config::default() };
        for _ in 0..4000 {
            for member in census.table(&own, &config, &mut rng) {
                counts[member.number as usize] += u32::from(own.prefix_len(&member.id) == 0);
            }
        }
        let far = census.members().iter().filter(|m| own.prefix_len(&m.id) == 0).count();
        let expected = 4000 * 8 / far as u32;
        for member in census.members().iter().filter(|m| own.prefix_len(&m.id) == 0) {
            let count = counts[member.number as usize];
            assert!((expected * 6 / 10..expected * 14 / 10).contains(&count), "{count} of {expected}");
        }
    }
}
