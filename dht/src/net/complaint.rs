//! [`Complaint`]: problems that repeat.

use std::time::Duration;

use crate::Time;

/// Pause between complaints about the same thing.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// A repeated problem: one line a minute with a count.
pub(super) struct Complaint {
    next: Time,
    count: u64,
}

impl Complaint {
    /// A problem that is not spoken of before `next`.
    pub(super) fn new(next: Time) -> Self {
        Self { next, count: 0 }
    }

    /// Says it, unless that was done less than a minute ago.
    pub(super) fn about(&mut self, now: Time, say: impl FnOnce(u64)) {
        self.count += 1;
        if now >= self.next {
            self.next = now + COMPLAIN_EVERY;
            say(std::mem::take(&mut self.count));
        }
    }

    /// Whether it would be said now.
    pub(super) fn is_due(&self, now: Time) -> bool {
        now >= self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_complaint_is_one_line_a_minute_with_a_count() {
        let mut complaint = Complaint::new(Time::ZERO);
        let mut said = Vec::new();
        for seconds in 0..130 {
            complaint.about(Time::from_secs(seconds), |count| said.push(count));
        }
        assert_eq!(said, [1, 60, 60]);
    }
}
