//! [`AnswerMeter`]: how many answers of one source cross to the deciding half. Whether anybody was asked is known
//! there alone, so that whoever sends us made-up ones could fill the way there; nobody who was asked sends
//! as many.

use std::time::Duration;

use crate::addr::SourceKey;
use crate::{KeyedHash, Rng, Time};

/// Counts answers by source in a table of fixed size. Sources that share a place share its limit; a keyed hash
/// says which do, so that nobody can aim at somebody else's.
pub(super) struct AnswerMeter {
    hash: KeyedHash,
    counts: Box<[u8; PLACES]>,
    until: Time,
}

impl AnswerMeter {
    pub(super) fn new(rng: &mut Rng) -> Self {
        Self { hash: KeyedHash::new(rng), counts: Box::new([0; PLACES]), until: Time::ZERO }
    }

    /// Whether one more of `source` may cross at `now`, which is counted.
    pub(super) fn allows(&mut self, now: Time, source: SourceKey) -> bool {
        if now >= self.until {
            self.counts.fill(0);
            self.until = now + EVERY;
        }
        let place = (self.hash.hash(&source.to_bytes()) >> 32) as usize % PLACES;
        let may = self.counts[place] < MOST;
        self.counts[place] += u8::from(may);
        may
    }
}

/// A crawl at its fastest hears from some 10,000 nodes a second, five for each place.
const PLACES: usize = 2048;
/// Answers of a place that cross in [`EVERY`].
const MOST: u8 = 32;
const EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::source_key;

    fn source(n: u32) -> SourceKey {
        let [a, b, c, d] = n.to_be_bytes();
        source_key(([80 + a, b, c, d], 6881).into(), false)
    }

    #[test]
    fn one_source_is_limited_and_has_room_again_after_a_second() {
        let mut meter = AnswerMeter::new(&mut Rng::from_seed(1));
        let now = Time::from_secs(1000);
        let mut allowed = |at: Time| (0..1000).filter(|_| meter.allows(at, source(1))).count();
        assert_eq!(allowed(now), usize::from(MOST));
        assert_eq!(allowed(now + EVERY / 2), 0);
        assert_eq!(allowed(now + EVERY), usize::from(MOST));
    }

    #[test]
    fn as_many_as_a_fast_crawl_asks_have_room_beside_a_flood() {
        let mut meter = AnswerMeter::new(&mut Rng::from_seed(2));
        let now = Time::from_secs(1000);
        let flooded = (0..100_000).filter(|_| meter.allows(now, source(0))).count();
        let honest = (1..=10_000).filter(|&n| meter.allows(now, source(n))).count();
        assert_eq!(flooded, usize::from(MOST));
        // Those who share the place of the flood have none: one in 2,048.
        assert!(honest >= 9_980, "{honest}");
    }
}
