//! Chance without state and without floats: every draw is a function of a seed and of what is asked, so
//! that it does not matter who asks first, on which thread or on which machine.

/// One in a unit interval is `1 << 16` in all fixed-point numbers here.
pub(super) const ONE: i64 = 1 << 16;

/// What is drawn for; each is independent of all others.
#[derive(Clone, Copy)]
pub(super) enum Draw {
    Host = 1,
    Pair,
    Packet,
    Arrival,
    Burst,
    Side,
    Port,
    Net,
}

/// A uniform number that belongs to the seed, the question and two numbers (splitmix64's finalizer).
pub(super) fn draw(seed: u64, what: Draw, a: u64, b: u64) -> u64 {
    let first = mix(seed ^ a.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (what as u64) << 56);
    mix(first ^ b.wrapping_mul(0xd1b5_4a32_d192_ed03))
}

/// A uniform number that belongs to the given one.
pub(super) fn mix(mut word: u64) -> u64 {
    word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

/// Whether something happens that happens `ppm` times in a million.
pub(super) fn happens(random: u64, ppm: u32) -> bool {
    ((random >> 32) * 1_000_000) >> 32 < u64::from(ppm)
}

/// A normal number of mean 0 and deviation [`ONE`]: the sum of eight uniform ones (Irwin and Hall), whose
/// quantiles from 1 % to 99 % are within 0.04 of the true ones, and which is never beyond 4.9.
pub(super) fn normal(random: u64) -> i64 {
    // √(12/8) of the sum's own scale.
    const SCALE: i64 = 80_265;
    let lanes = |word: u64| (0..4).map(|n| (word >> (16 * n) & 0xffff) as i64).sum::<i64>();
    ((lanes(random) + lanes(mix(random)) - 4 * (ONE - 1)) * SCALE) >> 16
}

/// An exponential number of mean [`ONE`].
pub(super) fn exponential(random: u64) -> i64 {
    const LN_2: i64 = 45_426;
    // -log2 of a uniform number: its leading zeros, and what its other bits say.
    let zeros = random.leading_zeros().min(47);
    let bits = (random << zeros << 1 >> 48) as i64;
    // log2(1 + m) within 0.008.
    let log = bits + ((bits * (ONE - bits)) >> 16) * 22_500 / ONE;
    ((i64::from(zeros) * ONE + ONE - log) * LN_2) >> 16
}

/// `base · e^exponent`, at most `u32::MAX`.
pub(super) fn exp_of(base: u64, exponent: i64) -> u64 {
    const LOG2_E: i64 = 94_548;
    // Taylor's series of 2^x; the last term takes what the cut ones would add at 1.
    const SERIES: [i64; 4] = [45_426, 15_743, 3_638, 729];
    let log2 = (exponent * LOG2_E) >> 16;
    let (whole, part) = (log2 >> 16, log2 & (ONE - 1));
    let power = SERIES.iter().rev().fold(0, |sum, &term| ((sum + term) * part) >> 16) + ONE;
    let scaled = u128::from(base) * power as u128;
    let shifted = match 16 - whole {
        left @ ..0 => scaled << (-left).min(40),
        right => scaled >> right.min(127),
    };
    u64::try_from(shifted).unwrap_or(u64::MAX).min(u64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Quantiles of 100,000 draws in percent of [`ONE`].
    fn quantiles(of: fn(u64) -> i64, percents: &[usize]) -> Vec<i64> {
        let mut all: Vec<_> = (0..100_000).map(|n| of(draw(7, Draw::Packet, n, 0))).collect();
        all.sort_unstable();
        percents.iter().map(|percent| all[percent * 1000] * 100 / ONE).collect()
    }

    #[test]
    fn draws_have_the_quantiles_of_their_distributions() {
        // True: ±2.326, ±1.282, 0.
        assert_eq!(quantiles(normal, &[1, 10, 50, 90, 99]), [-228, -129, 0, 129, 231]);
        // True: 0.105, 0.693, 2.303, 4.605.
        assert_eq!(quantiles(exponential, &[10, 50, 90, 99]), [10, 68, 230, 464]);
        let mean = (0..100_000).map(|n| exponential(draw(8, Draw::Pair, n, 1))).sum::<i64>() / 100_000;
        assert!((ONE * 98 / 100..ONE * 102 / 100).contains(&mean), "{mean}");
    }

    #[test]
    fn powers_of_e_are_right_to_a_thousandth_and_end_somewhere() {
        for (exponent, thousandths) in [(0, 1000), (ONE, 2718), (-ONE, 368), (ONE / 3, 1396), (2 * ONE, 7389)]
        {
            let power = exp_of(1_000_000, exponent) / 1000;
            assert!(power.abs_diff(thousandths) <= 1 + thousandths / 1000, "{exponent}: {power}");
        }
        assert_eq!(exp_of(90_000, 1000 * ONE), u64::from(u32::MAX));
        assert_eq!(exp_of(90_000, -1000 * ONE), 0);
        assert_eq!(exp_of(u64::MAX, ONE), u64::from(u32::MAX));
    }

    #[test]
    fn share_of_what_happens_is_right_and_never_and_always_are_exact() {
        let count = |ppm| (0..100_000).filter(|&n| happens(draw(3, Draw::Burst, n, 2), ppm)).count();
        assert_eq!((count(0), count(1_000_000)), (0, 100_000));
        assert!(count(30_000).abs_diff(3000) < 200, "{}", count(30_000));
    }

    #[test]
    fn extremes_of_random_numbers_are_no_trouble() {
        for random in [0, 1, u64::MAX, 1 << 63] {
            assert!(normal(random).abs() < 5 * ONE);
            assert!((0..40 * ONE).contains(&exponential(random)), "{random}: {}", exponential(random));
        }
    }
}
