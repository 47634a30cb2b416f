//! Who is there and who knows whom, as functions of a seed.

use std::ops::Range;

use krpc::Id;

use crate::{Config, Rng, Seeds};

/// Everybody, in the order of their ids.
#[derive(Debug)]
pub(super) struct Topology {
    /// Ids with the numbers of the nodes.
    sorted: Vec<(Id, u32)>,
    /// Where each node is in that order.
    places: Vec<usize>,
}

/// So many ids.
pub(super) fn ids(count: usize, seeds: Seeds) -> Vec<Id> {
    let mut rng = Rng::new(seeds.derive("ids"));
    (0..count).map(|_| rng.id()).collect()
}

impl Topology {
    /// A network of the nodes with these ids; a node's number is the index of its id.
    pub(super) fn new(ids: &[Id]) -> Self {
        let mut sorted: Vec<_> = ids.iter().copied().zip(0..).collect();
        sorted.sort_unstable();
        let mut places = vec![0; sorted.len()];
        for (place, &(_, number)) in sorted.iter().enumerate() {
            places[number as usize] = place;
        }
        Self { sorted, places }
    }

    /// Whom node `number` has met, farthest bucket first: of each bucket twice as many as have room in it,
    /// drawn by `rng`, so that the table can choose who keeps a wide bucket even.
    pub(super) fn known_by(&self, number: u32, config: &Config, rng: &mut Rng) -> Vec<(u32, Id)> {
        let own = self.places[number as usize];
        let id = self.sorted[own].0;
        let (mut low, mut high) = (0, self.sorted.len());
        let mut known = Vec::new();
        for depth in 0..Id::BITS {
            // Who shares one bit more with us lies around us, and the rest of this bucket on one side.
            let is_nearer = |(other, _): &(Id, u32)| id.prefix_len(other) > depth;
            let from = low + self.sorted[low..own].partition_point(|other| !is_nearer(other));
            let to = own + self.sorted[own..high].partition_point(is_nearer);
            let bucket = if from > low { low..from } else { to..high };
            let room = config.wide_buckets.get(depth as usize).copied().unwrap_or(config.k);
            let drawn = draw(bucket, 2 * room, rng).into_iter();
            known.extend(drawn.map(|place| self.sorted[place]).map(|(id, number)| (number, id)));
            (low, high) = (from, to);
            if high - low <= 1 {
                break;
            }
        }
        known
    }
}

/// At most `count` different numbers of a range, each as likely as the others.
fn draw(range: Range<usize>, count: usize, rng: &mut Rng) -> Vec<usize> {
    let mut all: Vec<_> = range.collect();
    let count = count.min(all.len());
    for nth in 0..count {
        let other = nth + rng.below(all.len() - nth);
        all.swap(nth, other);
    }
    all.truncate(count);
    all
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn everybody_knows_somebody_of_every_bucket_and_its_whole_neighbourhood() {
        let config = Config { wide_buckets: vec![32, 16], ..Config::default() };
        let all = ids(300, Seeds::from_u64(1));
        let topology = Topology::new(&all);
        for (number, own) in (0..).zip(&all) {
            let known = topology.known_by(number, &config, &mut Rng::from_seed(number.into()));
            assert!(known.iter().all(|&(other, id)| other != number && all[other as usize] == id));
            let distinct: BTreeSet<_> = known.iter().map(|(other, _)| other).collect();
            assert_eq!(distinct.len(), known.len());
            let depths: Vec<_> = known.iter().map(|(_, id)| own.prefix_len(id)).collect();
            assert!(depths.is_sorted(), "farthest bucket first");
            for (depth, room) in [(0, 32), (1, 16), (2, 8), (3, 8), (4, 8), (5, 8), (6, 8), (7, 8), (8, 8)] {
                let there = all.iter().filter(|id| own.prefix_len(id) == depth).count();
                let known = depths.iter().filter(|&&known| known == depth).count();
                assert_eq!(known, there.min(2 * room), "at depth {depth} of {own}");
            }
        }
    }

    #[test]
    fn one_alone_knows_nobody() {
        let all = ids(1, Seeds::from_u64(1));
        let known = Topology::new(&all).known_by(0, &Config::default(), &mut Rng::from_seed(1));
        assert_eq!(known, []);
    }

    #[test]
    fn draws_are_distinct_and_even() {
        let mut rng = Rng::from_seed(3);
        let mut counts = [0; 10];
        for _ in 0..1000 {
            let drawn = draw(5..15, 4, &mut rng);
            assert_eq!(drawn.iter().collect::<BTreeSet<_>>().len(), 4);
            drawn.iter().for_each(|number| counts[number - 5] += 1);
        }
        assert!(counts.iter().all(|count| (330..=470).contains(count)), "{counts:?}");
        assert_eq!(draw(3..5, 9, &mut rng).len(), 2);
    }
}
