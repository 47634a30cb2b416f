//! [`Clock`]: where the shell's [`Time`] comes from.
//!
//! It counts the time that a laptop sleeps (`CLOCK_BOOTTIME`): a routing table is as old after a
//! night in a bag as the world thinks it is. The wall clock plays no part, so it may jump.

use std::time::Duration;

use crate::Time;

/// Tells time since it was made.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Duration,
}

/// What a new clock shows, so that "older than" has room before the first event: announces of an
/// earlier run among them, whatever `peer_expiry` is.
const LEAD: Duration = Duration::from_secs(30 * 24 * 3600);

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Self {
        Self { start: since_boot() }
    }

    /// The same clock, that much ahead.
    #[cfg(test)]
    pub(super) fn ahead(self, span: Duration) -> Self {
        Self { start: self.start.saturating_sub(span) }
    }

    /// Now. Never goes back.
    pub fn now(&self) -> Time {
        Time::ZERO + LEAD + since_boot().saturating_sub(self.start)
    }
}

/// Time since the machine was started, suspended time included.
#[cfg(target_os = "linux")]
pub(super) fn since_boot() -> Duration {
    use rustix::time::{ClockId, clock_gettime};

    let now = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

#[cfg(not(target_os = "linux"))]
pub(super) fn since_boot() -> Duration {
    use std::sync::LazyLock;
    use std::time::Instant;

    static FIRST: LazyLock<Instant> = LazyLock::new(Instant::now);
    FIRST.elapsed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_never_goes_back_and_starts_after_the_lead() {
        let clock = Clock::start();
        let mut last = Time::ZERO + LEAD;
        for _ in 0..1000 {
            let now = clock.now();
            assert!(now >= last);
            last = now;
        }
    }
}
