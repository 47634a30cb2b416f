//! [`Socket`]: what queries from one of our sockets go by. Each has its own line: answers on a fast one say
//! nothing about how long those on a slow one take, as that of a tunnel.

use std::time::Duration;

use super::Patience;
use crate::Config;

/// Smoothed round-trip time and mean deviation in microseconds, as TCP keeps them (RFC 6298), and what our
/// queries say about us.
#[derive(Clone, Copy, Debug)]
pub(super) struct Socket {
    smoothed: u32,
    deviation: u32,
    /// Round trips that were measured, as long as that matters.
    measured: u8,
    /// Whether queries say that we answer none here (BEP 43).
    pub(super) read_only: bool,
}

// An idle node's memory is counted; that of its first socket lies within.
const _: () = assert!(size_of::<Socket>() == 12);

impl Socket {
    /// The start is what the field sees in the mean: a median of 90 ms, log-normal with sigma 0.65, of
    /// which 95 % come within 262 ms = mean + 8/3 mean deviations.
    pub(super) fn new(config: &Config) -> Self {
        let start = micros(config.soft_timeout_start);
        Self { smoothed: start * 2 / 5, deviation: start * 9 / 40, measured: 0, read_only: false }
    }

    pub(super) fn measured(&mut self, rtt: Duration) {
        let rtt = micros(rtt);
        // Quick at first, so that a slow line is known after a few answers.
        let gain = if self.measured < 16 { 4 } else { 16 };
        self.measured = self.measured.saturating_add(1);
        let deviation = self.smoothed.abs_diff(rtt);
        self.deviation = (self.deviation * (gain - 1) + deviation) / gain;
        self.smoothed = (self.smoothed * (gain - 1) + rtt) / gain;
    }

    pub(super) fn soft_timeout(&self, patience: Patience, config: &Config) -> Duration {
        let thirds = match patience {
            Patience::Full => 8,
            Patience::InLookup => 6,
            Patience::AgainInLookup => 4,
        };
        let (min, max) = (config.soft_timeout_min, config.soft_timeout_max.max(config.soft_timeout_min));
        Duration::from_micros(u64::from(self.smoothed + self.deviation * thirds / 3)).clamp(min, max)
    }
}

/// Microseconds, at most a minute's, so that sums of sixteen fit.
fn micros(span: Duration) -> u32 {
    span.as_micros().min(60_000_000) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn soft_timeout_follows_the_line_within_its_bounds() {
        let config = Config::default();
        let mut fast = Socket::new(&config);
        assert_eq!(fast.soft_timeout(Patience::Full, &config).as_millis(), 250);
        (0..200).for_each(|_| fast.measured(Duration::from_millis(1)));
        assert_eq!(fast.soft_timeout(Patience::Full, &config), config.soft_timeout_min);
        let mut slow = Socket::new(&config);
        (0..8).for_each(|_| slow.measured(Duration::from_millis(700)));
        assert_eq!(slow.soft_timeout(Patience::Full, &config), config.soft_timeout_max);
        (0..200).for_each(|_| slow.measured(Duration::from_millis(300)));
        assert!(
            (300..330).contains(&slow.soft_timeout(Patience::Full, &config).as_millis()),
            "{:?}",
            slow.soft_timeout(Patience::Full, &config)
        );
    }
}
