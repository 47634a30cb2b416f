//! Figures of many: quantiles, shares, curves.

/// The value below which a share `q` of the values lies; `None` of no values.
pub(super) fn quantile(values: &[f64], q: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(((sorted.len() as f64 * q) as usize).min(sorted.len().saturating_sub(1))).copied()
}

/// The mean; `None` of no values.
pub(super) fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The share of which `is_so`; `None` of nothing.
pub(super) fn share<T>(all: &[T], is_so: impl Fn(&T) -> bool) -> Option<f64> {
    (!all.is_empty()).then(|| all.iter().filter(|one| is_so(one)).count() as f64 / all.len() as f64)
}

/// The distribution of the values as a curve: which share, of `of` in all, is at most how large. At most
/// [`POINTS`] points.
pub(super) fn cumulative(values: &[f64], of: usize) -> Vec<(f64, f64)> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let step = sorted.len().div_ceil(POINTS).max(1);
    let last = sorted.len().saturating_sub(1);
    let is_shown = |rank: usize| rank.is_multiple_of(step) || rank == last;
    let point = |(rank, value)| (value, (rank + 1) as f64 / of.max(1) as f64);
    sorted.into_iter().enumerate().filter(|&(rank, _)| is_shown(rank)).map(point).collect()
}

/// How many of the values are each whole number from 0 on.
pub(super) fn counts(values: impl Iterator<Item = usize>) -> Vec<(f64, f64)> {
    let mut counts = Vec::new();
    for value in values {
        let value = value.min(POINTS);
        counts.resize(counts.len().max(value + 1), 0u32);
        counts[value] += 1;
    }
    counts.into_iter().enumerate().map(|(value, count)| (value as f64, f64::from(count))).collect()
}

/// Points of a curve at most.
const POINTS: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_shares_and_means_are_right_and_nothing_has_none() {
        let values = [5.0, 1.0, 4.0, 2.0, 3.0];
        assert_eq!([0.0, 0.5, 0.9, 1.0].map(|q| quantile(&values, q).unwrap()), [1.0, 3.0, 5.0, 5.0]);
        assert_eq!((mean(&values), share(&values, |&v| v > 3.0)), (Some(3.0), Some(0.4)));
        assert_eq!((quantile(&[], 0.5), mean(&[]), share(&[] as &[u8], |_| true)), (None, None, None));
    }

    #[test]
    fn distribution_rises_to_the_share_that_has_a_value_in_few_points() {
        assert_eq!(cumulative(&[3.0, 1.0], 4), [(1.0, 0.25), (3.0, 0.5)]);
        let many: Vec<f64> = (0..10_000).map(f64::from).collect();
        let curve = cumulative(&many, 10_000);
        assert!(curve.len() <= POINTS + 1 && curve.last() == Some(&(9999.0, 1.0)));
        assert!(cumulative(&[], 9).is_empty());
        assert_eq!(counts([0, 2, 2].into_iter()), [(0.0, 1.0), (1.0, 0.0), (2.0, 2.0)]);
    }
}
