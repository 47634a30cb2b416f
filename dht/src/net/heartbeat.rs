//! [`Heartbeat`]: notices that a task stood still, whatever was due meanwhile: the machine was suspended,
//! or the process was stopped.
//!
//! The node itself knows only that a deadline was passed, so that a stop between two deadlines which lie far
//! apart is none to it. It could ask to be woken for this, but a virtual network has a million nodes
//! and no stops; a task has to wake now and then in any case.

use std::time::Duration;

use super::ports::LONGEST_WAIT;
use crate::Time;

/// When a task was last awake.
#[derive(Debug)]
pub(super) struct Heartbeat {
    last: Time,
    asleep_after: Duration,
}

impl Heartbeat {
    /// A task that is awake `now`, and stood still where it was not for longer than `asleep_after`.
    pub(super) fn new(now: Time, asleep_after: Duration) -> Self {
        Self { last: now, asleep_after: asleep_after.max(3 * SHORTEST_WAIT) }
    }

    /// The task is awake; whether it stood still before. Every stop that is longer than `asleep_after` is
    /// noticed, and none that is shorter than two thirds of it.
    pub(super) fn beat(&mut self, now: Time) -> bool {
        let passed = now.since(std::mem::replace(&mut self.last, now));
        passed > self.asleep_after
    }

    /// How long the task may wait before it beats again.
    pub(super) fn longest_wait(&self) -> Duration {
        LONGEST_WAIT.min(self.asleep_after / 3)
    }
}

/// The task does not wake more often than so, however little sleep it may have.
const SHORTEST_WAIT: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_may_never_sleep_is_not_busy_with_it() {
        let mut heartbeat = Heartbeat::new(Time::ZERO, Duration::ZERO);
        assert_eq!(heartbeat.longest_wait(), SHORTEST_WAIT);
        assert!(!heartbeat.beat(Time::ZERO + 2 * SHORTEST_WAIT));
    }

    #[test]
    fn every_stop_longer_than_asleep_after_is_noticed_and_no_wait_is_one() {
        let second = Duration::from_secs(1);
        for asleep_after in [3 * SHORTEST_WAIT, 10 * second, 3600 * second] {
            let mut now = Time::from_secs(1000);
            let mut heartbeat = Heartbeat::new(now, asleep_after);
            let wait = heartbeat.longest_wait();
            assert!(wait <= LONGEST_WAIT && wait <= asleep_after / 3);
            for n in 0..100 {
                // It may have been stopped at any moment of its wait.
                let waited = wait * n / 100;
                now += waited;
                assert!(!heartbeat.beat(now));
                now += waited + asleep_after + Duration::from_micros(1);
                assert!(heartbeat.beat(now), "{n}");
                now += waited + asleep_after / 2;
                assert!(!heartbeat.beat(now), "{n}");
            }
        }
    }
}
