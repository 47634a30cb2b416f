//! [`Moment`]: a point in time that outlives the process, for the ages of what is saved.
//!
//! Within one boot of the machine the time since that boot counts, so that a wall clock which was set
//! anew changes nothing. Across a boot there is only the wall clock: what it says is clamped by whoever
//! uses it, and a clock that went back counts as no time at all.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::clock::since_boot;

/// A point in time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Moment {
    /// Since 1970.
    pub(super) wall: Duration,
    /// Which boot of the machine it was; empty where the system does not say.
    pub(super) boot: Vec<u8>,
    /// Since that boot.
    pub(super) uptime: Duration,
}

impl Moment {
    /// Now.
    pub(super) fn now() -> Self {
        Self {
            wall: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
            boot: boot_id(),
            uptime: since_boot(),
        }
    }

    /// Time passed since `earlier`.
    pub(super) fn since(&self, earlier: &Self) -> Duration {
        let same_boot = !self.boot.is_empty() && self.boot == earlier.boot;
        match self.uptime.checked_sub(earlier.uptime) {
            Some(passed) if same_boot => passed,
            _ => self.wall.saturating_sub(earlier.wall),
        }
    }
}

/// A name that the kernel draws at each boot.
#[cfg(target_os = "linux")]
fn boot_id() -> Vec<u8> {
    let id = std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim_ascii().iter().copied().take(MAX_BOOT_ID).collect()
}

#[cfg(not(target_os = "linux"))]
fn boot_id() -> Vec<u8> {
    Vec::new()
}

/// Longest name of a boot; Linux has 36 bytes.
const MAX_BOOT_ID: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);
    const MINUTE: Duration = Duration::from_secs(60);

    fn moment(wall: Duration, boot: &str, uptime: Duration) -> Moment {
        Moment { wall, boot: boot.into(), uptime }
    }

    // S21
    #[test]
    fn a_wall_clock_that_jumps_within_a_boot_changes_nothing() {
        let saved = moment(100 * DAY, "a", 10 * MINUTE);
        for wall in [99 * DAY, 100 * DAY, 101 * DAY] {
            assert_eq!(moment(wall, "a", 15 * MINUTE).since(&saved), 5 * MINUTE);
        }
    }

    #[test]
    fn across_a_boot_the_wall_clock_counts_and_never_back() {
        let saved = moment(100 * DAY, "a", 10 * MINUTE);
        assert_eq!(moment(100 * DAY + MINUTE, "b", MINUTE).since(&saved), MINUTE);
        assert_eq!(moment(99 * DAY, "b", MINUTE).since(&saved), Duration::ZERO);
        assert_eq!(moment(101 * DAY, "b", MINUTE).since(&saved), DAY);
        // Systems that name no boot.
        let nameless = moment(100 * DAY, "", 10 * MINUTE);
        assert_eq!(moment(101 * DAY, "", 11 * MINUTE).since(&nameless), DAY);
        // The same name with less uptime: a copy of a machine.
        assert_eq!(moment(100 * DAY + MINUTE, "a", MINUTE).since(&saved), MINUTE);
    }

    #[test]
    fn now_is_later_than_before() {
        let before = Moment::now();
        assert!(before.wall > 10_000 * DAY && Moment::now().since(&before) < DAY);
    }
}
