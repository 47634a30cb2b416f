//! [`Rate`]: bytes per second, smoothed over a window.

use btdht::Time;

/// Seconds over which a rate is smoothed.
const WINDOW: u64 = 20;

/// A counter of bytes and their recent rate.
#[derive(Clone, Debug)]
pub(super) struct Rate {
    total: u64,
    /// Bytes of each of the last [`WINDOW`] seconds; second `s` is at `s % WINDOW`.
    seconds: [u32; WINDOW as usize],
    /// The second that is being counted.
    current: u64,
    since: u64,
}

impl Rate {
    /// A rate that is measured from `now` on.
    pub(super) fn new(now: Time) -> Self {
        Self { total: 0, seconds: [0; WINDOW as usize], current: now.as_secs(), since: now.as_secs() }
    }

    /// Counts bytes.
    pub(super) fn add(&mut self, now: Time, bytes: u64) {
        self.advance(now);
        self.total += bytes;
        let second = &mut self.seconds[(self.current % WINDOW) as usize];
        *second = second.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    /// Bytes in all.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Bytes per second over the last 20 seconds, or since the beginning if that is sooner.
    pub(super) fn per_second(&self, now: Time) -> u64 {
        let passed = now.as_secs().saturating_sub(self.current);
        let counted = (0..WINDOW.saturating_sub(passed))
            .filter_map(|back| self.current.checked_sub(back))
            .map(|second| u64::from(self.seconds[(second % WINDOW) as usize]))
            .sum::<u64>();
        counted / (now.as_secs().saturating_sub(self.since) + 1).min(WINDOW)
    }

    fn advance(&mut self, now: Time) {
        let now = now.as_secs();
        for second in (self.current + 1..=now).take(WINDOW as usize) {
            self.seconds[(second % WINDOW) as usize] = 0;
        }
        self.current = self.current.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_flow_has_its_rate_and_fades_after_the_window() {
        let mut rate = Rate::new(Time::from_secs(100));
        for second in 100..160 {
            rate.add(Time::from_secs(second), 1000);
        }
        assert_eq!(rate.per_second(Time::from_secs(159)), 1000);
        assert_eq!(rate.per_second(Time::from_secs(169)), 500);
        assert_eq!(rate.per_second(Time::from_secs(200)), 0);
        assert_eq!(rate.total(), 60_000);
        rate.add(Time::from_secs(500), 20_000);
        assert_eq!(rate.per_second(Time::from_secs(500)), 1000);
    }

    #[test]
    fn a_young_rate_is_over_its_own_age() {
        let mut rate = Rate::new(Time::from_secs(0));
        rate.add(Time::from_millis(500), 4000);
        assert_eq!(rate.per_second(Time::from_millis(900)), 4000);
        assert_eq!(rate.per_second(Time::from_millis(1900)), 2000);
    }
}
