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
}

impl SizeEstimate {
    /// The bounds between which the number is in 95 of 100 cases.
    pub fn bounds(&self) -> (f64, f64) {
        // On a scale of factors, on which the error is as large upwards as downwards.
        let factor = (1.96 * self.error / self.nodes).exp();
        (self.nodes / factor, self.nodes * factor)
    }
}

/// Estimates the number of nodes from the distances to the [`NEAREST`]-th nearest node of so many random
/// points, each a [`share`] of the key space. `None` without any, or when all are zero.
pub fn estimate(distances: &[f64]) -> Option<SizeEstimate> {
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
    // However many points see the same few nodes, those lie as they happen to: with 256 points the estimates
    // of populations of 100 differ by 4.5 %, of 300 by 2.9 %, where `expected` is 2.2 %.
    let same = 0.5 / nodes.sqrt();
    let seen = if points > 1 { (squares / (m - 1.0) / m).sqrt() / mean } else { 0.0 };
    Some(SizeEstimate { nodes, error: nodes * expected.max(seen).max(same), points })
}

/// A distance as a share of the key space, from 0 to 1.
pub fn share(distance: &Distance) -> f64 {
    distance.as_bytes().iter().rev().fold(0.0, |share, &byte| (share + f64::from(byte)) / 256.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rng;

    /// The distances of `points` random points among `nodes` evenly spread nodes.
    fn distances(nodes: usize, points: usize, seed: u64) -> Vec<f64> {
        let mut rng = Rng::from_seed(seed);
        let ids: Vec<_> = (0..nodes).map(|_| rng.id()).collect();
        let mut nearest = || {
            let point = rng.id();
            let mut distances: Vec<_> = ids.iter().map(|id| id.distance(&point)).collect();
            share(distances.select_nth_unstable(NEAREST - 1).1)
        };
        (0..points).map(|_| nearest()).collect()
    }

    /// Of 100 populations, how many lie within the bounds; the mean estimate and the mean error, as shares
    /// of the truth.
    fn of_100(nodes: usize, points: usize) -> (usize, f64, f64) {
        let (mut within, mut mean, mut error) = (0, 0.0, 0.0);
        for seed in 0..100 {
            let estimate = estimate(&distances(nodes, points, seed)).unwrap();
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
        let smooth = estimate(&even).unwrap();
        // Half of the key space has a quarter of the nodes.
        even.iter_mut().step_by(2).for_each(|distance| *distance *= 4.0);
        let rough = estimate(&even).unwrap();
        assert!(rough.error / rough.nodes > 1.5 * smooth.error / smooth.nodes, "{rough:?} {smooth:?}");
    }

    #[test]
    fn a_single_point_says_something_and_none_nothing() {
        let one = estimate(&distances(1000, 1, 1)).unwrap();
        assert_eq!(one.points, 1);
        assert!((one.error / one.nodes - 1.0 / 6f64.sqrt()).abs() < 1e-9, "{one:?}");
        assert_eq!(estimate(&[]), None);
        assert_eq!(estimate(&[0.0, 0.0]), None);
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
