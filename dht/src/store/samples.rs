//! [`Samples`]: the infohashes that BEP 51 hands out. A choice is made once and kept for
//! [`crate::Config::sample_interval`], so that asking again gains nobody anything and costs us little
//! (D12).

use std::time::Duration;

use krpc::Id;

use crate::Time;

/// The choice of the hour.
#[derive(Debug)]
pub(crate) struct Samples {
    /// Infohashes one behind the other, as they are sent.
    bytes: Vec<u8>,
    /// When another choice is made.
    until: Time,
    max: usize,
    interval: Duration,
}

impl Samples {
    pub(crate) fn new(max: usize, interval: Duration) -> Self {
        Self { bytes: Vec::new(), until: Time::ZERO, max, interval }
    }

    /// The choice, made by `choose` if it is time for another one or if the last one was small for want
    /// of infohashes and there are more by now.
    pub(crate) fn at(&mut self, now: Time, stored: usize, choose: impl FnOnce(usize) -> Vec<Id>) -> &[u8] {
        let held = self.bytes.len() / Id::LEN;
        if now >= self.until || held < self.max.min(stored) {
            self.bytes.clear();
            choose(self.max).iter().for_each(|id| self.bytes.extend_from_slice(id.as_bytes()));
            self.until = now + self.interval;
        }
        &self.bytes
    }

    /// The choice as it is.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Seconds for which the choice stays as it is.
    pub(crate) fn remaining(&self, now: Time) -> u32 {
        self.until.since(now).as_secs().try_into().unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_kept_for_its_interval_and_grows_while_it_is_small() {
        let mut samples = Samples::new(2, Duration::from_secs(100));
        let ids = |n: u8| move |max: usize| (0..n).map(|i| Id::new([n + i; 20])).take(max).collect();
        let now = Time::from_secs(1000);
        assert_eq!(samples.at(now, 0, ids(0)), b"");
        assert_eq!(samples.at(now, 1, ids(1)), [1; 20]);
        assert_eq!(samples.at(now, 9, ids(9)).len(), 40);
        let kept = samples.at(now + Duration::from_secs(99), 9, |_| panic!("chosen again")).to_vec();
        assert_eq!(samples.remaining(now + Duration::from_secs(40)), 60);
        assert_ne!(samples.at(now + Duration::from_secs(100), 9, ids(8)), kept);
    }
}
