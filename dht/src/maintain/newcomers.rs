//! [`Newcomers`]: which strangers that query us are pinged, so that they can prove that they answer: a few
//! a second, and at most one a minute ([`Config::newcomer_ping_pause`]) per source, so that forged queries cannot use us as a reflector
//! (DECISIONS.md 5).

use std::net::SocketAddr;
use std::time::Duration;

use crate::addr::source_key;
use crate::{Config, KeyedHash, Rng, Time};

/// Why somebody is to be pinged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Nobody that we know.
    Stranger,
    /// A node that we know asks under another id. It is often asked for the first time just before it
    /// learns its address and with it its id (BEP 42), so that this counts apart: one more a minute, for
    /// addresses that have answered us only.
    Doubt,
}

/// The budget of pings of strangers: so many a second, and one a minute per source and [`Why`].
#[derive(Debug)]
pub(super) struct Newcomers {
    hash: KeyedHash,
    /// The time until which the budget is in debt; that it has passed means a full budget.
    until: Time,
    /// No stranger is looked at before this.
    look_at: Time,
    /// There as long as there are any.
    recent: Recent,
    forget_at: Time,
}

impl Newcomers {
    pub(super) fn new(rng: &mut Rng) -> Self {
        Self {
            hash: KeyedHash::new(rng),
            until: Time::ZERO,
            look_at: Time::ZERO,
            recent: Recent::default(),
            forget_at: Time::ZERO,
        }
    }

    /// Whether to look for a place for this stranger. In a grown table there is none for nearly all of
    /// them, and finding that out costs as much as answering, so it is done for some of them only.
    pub(super) fn may_look(&mut self, now: Time, young: bool, config: &Config) -> bool {
        let may = young || now >= self.look_at;
        if may {
            self.look_at = now + pace(young, config).0 / LOOKS_PER_PING;
        }
        may
    }

    pub(super) fn has_budget(&self, now: Time, young: bool, config: &Config) -> bool {
        let (interval, burst) = pace(young, config);
        self.until <= now + interval * (burst - 1)
    }

    pub(super) fn take(
        &mut self,
        now: Time,
        from: SocketAddr,
        why: Why,
        young: bool,
        config: &Config,
    ) -> bool {
        let is_new = self.is_new(now, from, why, config);
        if is_new {
            self.until = self.until.max(now) + pace(young, config).0;
        }
        is_new
    }

    /// Forgets the sources once they are not recent any more.
    pub(super) fn forget(&mut self, now: Time) {
        if now >= self.forget_at && !self.recent.is_empty() {
            self.recent = Recent::default();
        }
    }

    /// Whether this source was not pinged lately; now it was.
    pub(super) fn is_new(&mut self, now: Time, from: SocketAddr, why: Why, config: &Config) -> bool {
        self.forget(now);
        if self.recent.is_empty() {
            self.forget_at = now + config.newcomer_ping_pause;
        }
        let slots = config.newcomer_sources.clamp(1, MAX_SLOTS).next_power_of_two();
        let source = self.hash.hash(&source_key(from, config.allow_local).to_bytes());
        self.recent.insert(if why == Why::Doubt { !source } else { source }, slots)
    }
}

/// Sources pinged lately, each in the slot that its hash names, where the next one takes its place. Of a
/// node that few ask only the slots that are occupied are kept, in a row.
#[derive(Debug, Default)]
struct Recent {
    /// The number of the slot in the lowest byte and above it what is left of the hash; or, once a
    /// quarter of them is occupied, all slots in order, where 0 is an empty one.
    marks: Vec<u32>,
}

impl Recent {
    fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// Puts the source with this hash in its slot; whether it was not there.
    fn insert(&mut self, hash: u64, slots: usize) -> bool {
        let slot = hash as usize % slots;
        let mark = (hash >> 32) as u32 & !0xff | 0x100 | slot as u32;
        let at = if self.marks.len() == slots {
            Some(slot)
        } else {
            self.marks.iter().position(|other| *other as usize % slots == slot)
        };
        match at {
            Some(at) => std::mem::replace(&mut self.marks[at], mark) != mark,
            None => {
                self.push(mark, slots);
                true
            }
        }
    }

    fn push(&mut self, mark: u32, slots: usize) {
        if self.marks.len() == slots / 4 {
            let few = std::mem::replace(&mut self.marks, vec![0; slots]);
            few.into_iter().chain([mark]).for_each(|mark| self.marks[mark as usize % slots] = mark);
            return;
        }
        if self.marks.len() == self.marks.capacity() {
            self.marks.reserve_exact(STEP);
        }
        self.marks.push(mark);
    }
}

/// Time per ping, and how many may go at once.
fn pace(young: bool, config: &Config) -> (Duration, u32) {
    let (rate, burst) = if young {
        (config.young_newcomer_pings_per_second, config.young_newcomer_pings_per_second)
    } else {
        (config.newcomer_pings_per_second, config.newcomer_ping_burst)
    };
    (Duration::from_secs(1) / rate.max(1), burst.max(1))
}

/// Strangers for whom a place is looked for, for each that may be pinged.
const LOOKS_PER_PING: u32 = 64;

/// Most slots for sources: one byte of a mark names one.
const MAX_SLOTS: usize = 256;
/// Sources that there is more room for at a time, as long as they are kept without the empty slots between
/// them.
const STEP: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;

    /// What stands in each slot by the rule, and nothing else.
    fn by_the_rule(slots: &mut [u32], hash: u64) -> bool {
        let mark = (hash >> 32) as u32 & !0xff | 0x100;
        std::mem::replace(&mut slots[hash as usize % slots.len()], mark) != mark
    }

    #[test]
    fn few_and_many_sources_are_told_apart_as_by_an_array_of_slots() {
        let mut rng = Rng::from_seed(1);
        // Of 40 sources most come again, of 4,000 most take the slot of another.
        for (sources, count) in [(40u64, 256), (70, 256), (200, 256), (4000, 256), (40, 16), (9, 2), (9, 1)] {
            let hashes: Vec<u64> = (0..sources).map(|_| rng.next_u64()).collect();
            let (mut recent, mut slots) = (Recent::default(), vec![0; count]);
            for _ in 0..5000 {
                let hash = hashes[rng.below(hashes.len())];
                assert_eq!(recent.insert(hash, count), by_the_rule(&mut slots, hash));
            }
            let occupied = slots.iter().filter(|&&mark| mark != 0).count();
            let wanted = if occupied <= count / 4 { occupied } else { count };
            assert_eq!(recent.marks.len(), wanted, "{sources} sources");
        }
    }

    #[test]
    fn a_source_is_pinged_once_a_minute_whatever_its_port() {
        let config = Config::default();
        let mut newcomers = Newcomers::new(&mut Rng::from_seed(2));
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let mut is_new =
            |secs, from| newcomers.is_new(Time::from_secs(secs), at(from), Why::Stranger, &config);
        assert!(is_new(100, "81.2.3.4:1000"));
        assert!(!is_new(101, "81.2.3.4:1000") && !is_new(102, "81.2.3.4:1001"));
        assert!(is_new(103, "81.2.3.5:1000"));
        assert!(is_new(104, "[2001:41d0:1:7::1]:1000"));
        assert!(!is_new(105, "[2001:41d0:1:7::2]:1000"), "a /64 is one source");
        assert!(!is_new(159, "81.2.3.4:1000"));
        assert!(is_new(160, "81.2.3.4:1000"));
        // A doubt about somebody whom we know counts apart, and once a minute as well.
        let mut is_new =
            |secs, why| newcomers.is_new(Time::from_secs(secs), at("81.2.3.4:1000"), why, &config);
        assert!(is_new(161, Why::Doubt) && !is_new(162, Why::Doubt) && !is_new(163, Why::Stranger));
    }
}
