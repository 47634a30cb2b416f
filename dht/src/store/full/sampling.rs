//! Which infohashes a store tells of (BEP 51).

use std::time::Duration;

use krpc::Id;

use super::Full;
use crate::store::samples::Samples;
use crate::{Rng, Time};

impl Full {
    /// See [`crate::store::Store::samples`].
    pub(in crate::store) fn samples(&mut self, now: Time, rng: &mut Rng) -> (&[u8], u32) {
        if self.elsewhere == 0 {
            let mut samples = std::mem::replace(&mut self.samples, Samples::new(0, Duration::ZERO));
            samples.at(now, self.infohashes(), |max| self.sample_infohashes(max, rng));
            self.samples = samples;
        }
        let remaining = self.samples.remaining(now);
        (self.samples.bytes(), remaining)
    }

    /// See [`crate::store::Store::stand_for`].
    pub(in crate::store) fn stand_for(
        &mut self,
        now: Time,
        stored: usize,
        choose: impl FnOnce(usize) -> Vec<Id>,
    ) {
        self.elsewhere = stored;
        self.samples.at(now, stored, choose);
    }

    /// Up to `max` different infohashes drawn at random (BEP 51, "samples").
    pub(in crate::store) fn sample_infohashes(&self, max: usize, rng: &mut Rng) -> Vec<Id> {
        let total = self.runs();
        let mut ids: Vec<Id> = Vec::with_capacity(max.min(total));
        let mut take = |n| {
            match self.nth(n) {
                Some(id) if ids.len() < max && !ids.contains(&id) => ids.push(id),
                _ => {}
            }
            ids.len() < max
        };
        if total <= 2 * max {
            // Few: all of them, from a random start.
            let start = rng.below(total);
            (0..total).all(|n| take((start + n) % total));
        } else {
            // Many: half of the draws or more are new ones.
            (0..4 * max).all(|_| take(rng.below(total)));
        }
        ids
    }
}
