//! How many nodes a DHT has, from how near the nearest ones are to random points: pure functions.
//!
//! Where `n` nodes are spread evenly over the key space, the distance from a random point to the `k`-th
//! nearest of them, as a share `d` of the whole, is the `k`-th smallest of `n` even random numbers, and
//! `(k - 1) / d` is `n` in the mean. With `m` points the distances are added first: `(m k - 1) / (d1 +
//! ... + dm)` has less spread than the mean of `m` quotients (a share of `1 / sqrt(m k)` in place of
//! `1 / sqrt(m (k - 2))`), is in the mean at most one node too high, and a cluster of Sybil nodes at a
//! point that many watch weighs less.

use krpc::Distance;

/// Nodes whose distance counts: the k of BEP 5.
pub const NEAREST: usize = 8;

/// An estimate of the number of nodes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SizeEstimate {
    /// Nodes that answer. Those that share an IP count once, those that never answer (BEP 43) not at all.
    pub nodes: f64,
    /// Its standard error, in nodes.
    pub error: f64,
    /// Points that were looked at.
    pub points: usize,
    /// The points share so many first bits: nodes were seen in such a part of the key space alone, and there are as
    /// many times more.
    pub bits: u32,
}

impl SizeEstimate {
    /// Its standard error as a share of the number.
    pub fn relative_error(&self) -> f64 {
        self.error / self.nodes
    }

    /// The bounds between which the number is in 95 of 100 cases.
    pub fn bounds(&self) -> (f64, f64) {
        // On a scale of factors, on which the error is as large upwards as downwards.
        let factor = (1.96 * self.relative_error()).exp();
        (self.nodes / factor, self.nodes * factor)
    }
}

/// Estimates the number of nodes from the distances to the [`NEAREST`]-th nearest node of so many random
/// points, each a [`share`] of the key space, where all points share their first `bits` bits. `None` without any, or
/// when all are zero.
pub fn estimate(distances: &[f64], bits: u32) -> Option<SizeEstimate> {
    let points = distances.len();
    let (m, k) = (points as f64, NEAREST as f64);
    let sum: f64 = distances.iter().sum();
    if points == 0 || sum <= 0.0 || !sum.is_finite() {
        return None;
    }
    let nodes = (m * k - 1.0) / sum;
    // What evenly spread nodes give, and what these points say: where nodes are not spread evenly, or
    // some were missed, the points differ more from one another.
    let expected = 1.0 / (m * k - 2.0).sqrt();
    let mean = sum / m;
    let squares: f64 = distances.iter().map(|distance| (distance - mean).powi(2)).sum();
    let share = 0.5f64.powf(bits.into());
    // Where fewer than that live in the part, its points see those around it.
    let in_part = (nodes * share).max(k);
    // However many points see the same few nodes, those lie as they happen to: with 256 points the estimates
    // of populations of 100 differ by 4.5 %, of 300 by 2.9 %, where `expected` is 2.2 %.
    let same = 0.5 / in_part.sqrt();
    // And as many as happen to live in the part do.
    let sampled = ((1.0 - share) / in_part).sqrt();
    let seen = if points > 1 { (squares / (m - 1.0) / m).sqrt() / mean } else { 0.0 };
    let error = nodes * expected.max(seen).max(same).hypot(sampled);
    Some(SizeEstimate { nodes, error, points, bits })
}

/// A distance as a share of the key space, from 0 to 1.
pub fn share(distance: &Distance) -> f64 {
    distance.as_bytes().iter().rev().fold(0.0, |share, &byte| (share + f64::from(byte)) / 256.0)
}

#[cfg(test)]
mod tests {
    use krpc::Id;

    use super::*;
    use crate::Rng;
    use crate::crawl::Region;

    /// The distances of `points` random points among `nodes` evenly spread nodes.
    fn distances(nodes: usize, points: usize, seed: u64) -> Vec<f64> {
        distances_in(Region::WHOLE, nodes, points, seed)
    }

    /// The same, of points of a part of the key space.
    fn distances_in(part: Region, nodes: usize, points: usize, seed: u64) -> Vec<f64> {
        let mut rng = Rng::from_seed(seed);
        let ids: Vec<_> = (0..nodes).map(|_| rng.id()).collect();
        let mut nearest = || {
            let point = part.random(&mut rng);
            let mut distances: Vec<_> = ids.iter().map(|id| id.distance(&point)).collect();
            share(distances.select_nth_unstable(NEAREST - 1).1)
        };
        (0..points).map(|_| nearest()).collect()
    }

    /// Of 100 populations, how many lie within the bounds; the mean estimate and the mean error, as shares
    /// of the truth.
    fn of_100(nodes: usize, points: usize) -> (usize, f64, f64) {
        of_100_in(Region::WHOLE, nodes, points)
    }

    fn of_100_in(part: Region, nodes: usize, points: usize) -> (usize, f64, f64) {
        let (mut within, mut mean, mut error) = (0, 0.0, 0.0);
        for seed in 0..100 {
            let estimate = estimate(&distances_in(part, nodes, points, seed), part.bits()).unwrap();
            let (low, high) = estimate.bounds();
            within += usize::from((low..=high).contains(&(nodes as f64)));
            mean += estimate.nodes / nodes as f64 / 100.0;
            error += estimate.error / nodes as f64 / 100.0;
        }
        (within, mean, error)
    }

    #[test]
    fn the_truth_is_within_the_bounds_in_95_of_100_populations() {
        for (nodes, points) in [(200, 256), (300, 256), (200, 64), (500, 16), (2000, 20)] {
            let (within, mean, error) = of_100(nodes, points);
            // Three standard deviations of a count of 100 at 95 %, rounded down.
            assert!((89..=100).contains(&within), "{within} of 100: {nodes} nodes, {points} points");
            // Not biased: the mean of 100 estimates is off by no more than three of its own errors.
            assert!((mean - 1.0).abs() < 3.0 * error / 10.0, "{nodes} nodes, {points} points: {mean}");
        }
    }

    /// What was seen is a part, and how many happen to live there says the less of all the smaller it is.
    #[test]
    fn the_truth_is_within_the_bounds_when_points_are_of_a_part() {
        for (bits, nodes, points) in
            [(4, 600, 256), (4, 3000, 64), (1, 600, 256), (8, 4000, 64), (8, 600, 64)]
        {
            let part = Region::new(Id::new([0xa5; 20]), bits);
            let (within, mean, error) = of_100_in(part, nodes, points);
            assert!((89..=100).contains(&within), "{within} of 100: {bits} bits, {nodes} nodes");
            // Where all points see the same eight, these are the last of them: k / (k - 1) too many, at most.
            assert!((0.9..1.25).contains(&mean), "{bits} bits, {nodes} nodes: {mean}");
            assert!(error > 0.9 / (nodes as f64 / f64::from(1 << bits)).max(8.0).sqrt() * 0.7, "{error}");
        }
    }

    #[test]
    fn a_part_of_a_large_dht_says_as_much_as_the_whole() {
        let distances = distances(3000, 64, 3);
        // As if each of them were a million.
        let of_many: Vec<f64> = distances.iter().map(|distance| distance / 1e6).collect();
        let (whole, part) = (estimate(&of_many, 0).unwrap(), estimate(&of_many, 4).unwrap());
        assert!((part.error / whole.error - 1.0).abs() < 1e-3, "{part:?} {whole:?}");
        assert_eq!((part.nodes, part.bits), (whole.nodes, 4));
    }

    #[test]
    fn four_times_the_points_halve_the_error() {
        let (few, many) = (of_100(300, 16).2, of_100(300, 64).2);
        assert!((1.8..2.3).contains(&(few / many)), "{few} {many}");
        let expected = 1.0 / (64.0f64 * 8.0).sqrt();
        assert!((many / expected - 1.0).abs() < 0.15, "{many} {expected}");
    }

    #[test]
    fn unevenly_spread_nodes_have_a_larger_error() {
        let mut even = distances(1000, 64, 1);
        let smooth = estimate(&even, 0).unwrap();
        // Half of the key space has a quarter of the nodes.
        even.iter_mut().step_by(2).for_each(|distance| *distance *= 4.0);
        let rough = estimate(&even, 0).unwrap();
        assert!(rough.error / rough.nodes > 1.5 * smooth.error / smooth.nodes, "{rough:?} {smooth:?}");
    }

    #[test]
    fn a_single_point_says_something_and_none_nothing() {
        let one = estimate(&distances(1000, 1, 1), 0).unwrap();
        assert_eq!(one.points, 1);
        assert!((one.error / one.nodes - 1.0 / 6f64.sqrt()).abs() < 1e-9, "{one:?}");
        assert_eq!(estimate(&[], 0), None);
        assert_eq!(estimate(&[0.0, 0.0], 0), None);
    }

    #[test]
    fn shares_are_of_the_whole_key_space() {
        let at = |first: u8| {
            let mut bytes = [0; 20];
            bytes[0] = first;
            share(&Distance::new(bytes))
        };
        assert_eq!((at(0x80), at(1), share(&Distance::ZERO)), (0.5, 1.0 / 256.0, 0.0));
        assert!((share(&Distance::MAX) - 1.0).abs() < 1e-12);
        let mut least = [0; 20];
        least[19] = 1;
        assert!(share(&Distance::new(least)) > 0.0, "as near as can be is still a distance");
    }
}
