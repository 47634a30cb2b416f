//! [`Line`]: whether a home's line to the world works, and so whom a silence may be blamed on
//! (S17, S18).
//!
//! A node that does not answer may be gone, or our network is. So a node is blamed for its silence
//! only if somebody answered who was asked at the same moment or shortly before. (That somebody
//! answers while it is waited for is not enough: the network may have returned meanwhile.) The network
//! may have gone in between, so that the blame that would cost a node its place needs more: somebody
//! who was asked after it has answered, too. Otherwise it is a *suspect*, is asked once more, and so are nodes that we heard of lately. When [`crate::Config::lost_after_silences`] trusty
//! ones have been silent in a row and nobody answered in between, the line counts as lost: until the
//! next answer nobody is blamed for anything. libtorrent empties its table here, which then has to be
//! built anew from the routers.
//!
//! That old nodes are silent says nothing, however many: where half of a network has died, they are
//! the ones that are asked one after the other.
//!
//! An interface may be up while the uplink is dead, which is why the owner's word
//! ([`NetworkChange`]) is welcome but not needed.

use std::net::SocketAddr;

use crate::{Config, Time};

/// What the owner of a node noticed about the network of one of its sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkChange {
    /// There is no network any more: the last interface went down.
    Lost,
    /// There is a network, perhaps another one: an interface came up, an address changed, the machine
    /// woke up.
    Changed,
}

/// The line of one home.
#[derive(Debug)]
pub(crate) struct Line {
    lost: bool,
    /// Trusty nodes that were asked because of suspects and may answer still,
    asked: u32,
    /// and the moment at which the last of them was.
    asked_at: u32,
    /// When the line changed last: whoever was asked before cannot be blamed.
    since: Time,
    /// The last moment (see [`moment`]) at which somebody was asked who answered,
    worked: u32,
    /// and a bit for each such moment of the 64 that end with it, its own lowest.
    moments: u64,
    /// Trusty nodes that were silent since somebody answered, at most [`crate::Config::lost_after_silences`] or as many as
    /// the table has.
    suspects: Vec<SocketAddr>,
}

/// What the table says when one of its nodes was silent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Situation {
    /// The node was trusty.
    pub(crate) is_trusty: bool,
    /// One more failure costs it its place.
    pub(crate) is_last: bool,
    /// Trusty nodes in the table, but for those on our own machine, which answer without a network.
    pub(crate) trusty: usize,
}

/// What follows from the silence of a node of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Silence {
    /// It is to blame: others answered meanwhile.
    Blamed,
    /// It is not known whose fault it is: ask it once more, and so many trusty nodes, if any.
    Suspect { ask: usize },
    /// The network's fault.
    Forgiven,
    /// The network's fault, which is new.
    Lost,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            lost: false,
            since: Time::ZERO,
            asked: 0,
            asked_at: 0,
            worked: 0,
            moments: 0,
            suspects: Vec::new(),
        }
    }
}

impl Line {
    /// Somebody answered a query that was asked at `asked`; whether the line is back.
    pub(crate) fn answered(&mut self, now: Time, asked: Time, config: &Config) -> bool {
        self.note_work(moment(asked, config));
        // Where the clock went back, what lies ahead of it would be waited for.
        self.since = self.since.min(now);
        if !self.suspects.is_empty() || self.asked > 0 {
            self.forget_suspects();
        }
        let is_back = self.lost;
        if is_back {
            self.lost = false;
            self.since = now;
        }
        is_back
    }

    /// A node of the table that was asked at `asked` did not answer; so many silences of trusty nodes in
    /// a row as [`Config::lost_after_silences`] says are the line's.
    pub(crate) fn silent(
        &mut self,
        asked: Time,
        node: SocketAddr,
        situation: Situation,
        config: &Config,
    ) -> Silence {
        if self.lost || asked < self.since {
            return Silence::Forgiven;
        }
        let moment = moment(asked, config);
        let worked = if situation.is_last { self.worked_around(moment) } else { self.worked_before(moment) };
        if worked {
            return Silence::Blamed;
        }
        // Where nobody is left who would be expected to answer, anybody counts.
        if (situation.is_trusty || situation.trusty == 0) && !self.suspects.contains(&node) {
            self.suspects.push(node);
        }
        let limit = config.lost_after_silences;
        if self.suspects.len() >= situation.trusty.clamp(1, limit.max(1)) {
            self.lost = true;
            self.forget_suspects();
            return Silence::Lost;
        }
        // Whoever was asked before this one has been silent as well. Some did not count, because they had
        // lost our trust meanwhile, by what was asked right before the network went.
        if moment >= self.asked_at {
            self.asked = 0;
        }
        let ask = limit.saturating_sub(self.asked as usize).min(ASKED_AT_ONCE);
        if ask > 0 {
            self.asked += ask as u32;
            self.asked_at = moment + MOMENTS as u32;
        }
        Silence::Suspect { ask }
    }

    /// The owner says that the network is gone; whether that is news.
    pub(crate) fn lose(&mut self) -> bool {
        self.forget_suspects();
        !std::mem::replace(&mut self.lost, true)
    }

    /// The network is another one since `now`.
    pub(crate) fn change(&mut self, now: Time) {
        self.lost = false;
        self.since = now;
        self.forget_suspects();
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.lost
    }

    /// Whether the line worked at `moment`, as far as answers to what was asked then, or both before and
    /// after that, show.
    fn worked_around(&self, moment: u32) -> bool {
        let Some(age) = self.worked.checked_sub(moment).filter(|&age| age < u64::BITS) else {
            return false;
        };
        // The moment itself is bit 0 of what is left, and the earlier ones follow.
        let left = self.moments >> age;
        let later = self.moments.checked_shl(u64::BITS - age).unwrap_or(0) >> (u64::BITS - AFTER);
        left & 1 == 1 || later != 0 && left >> 1 & ((1 << BEFORE) - 1) != 0
    }

    /// Whether the line worked shortly before `moment`.
    fn worked_before(&self, moment: u32) -> bool {
        let worked = |moment| {
            let age: Option<u32> = self.worked.checked_sub(moment);
            age.and_then(|age| self.moments.checked_shr(age)).is_some_and(|moments| moments & 1 == 1)
        };
        (moment.saturating_sub(SHORTLY)..=moment).any(worked)
    }

    fn note_work(&mut self, moment: u32) {
        let (last, moments) = (self.worked, self.moments);
        (self.worked, self.moments) = match moment.checked_sub(last) {
            Some(later) => (moment, moments.checked_shl(later).unwrap_or(0) | 1),
            // An answer that came late.
            None if last - moment < u64::BITS => (last, moments | 1 << (last - moment)),
            // Nothing is waited for that long: the clock went back.
            None => {
                self.asked_at = 0;
                (moment, 1)
            }
        };
    }

    fn forget_suspects(&mut self) {
        // With its memory: most lines have none for days.
        self.suspects = Vec::new();
        self.asked = 0;
    }
}

/// Moments in the time that a query may take: those of the last two such times are remembered, which is
/// what a silence needs to be judged at its end.
const MOMENTS: u64 = 32;
/// How many moments "shortly before" are,
const SHORTLY: u32 = 12;
/// and how many "before" and "after" are where both are needed. Those who are pinged one after the other
/// are to be judged by one another.
const BEFORE: u32 = 31;
const AFTER: u32 = 24;

/// The number of the moment of `time`. At the usual timeout of four seconds a moment is an eighth of a
/// second.
fn moment(time: Time, config: &Config) -> u32 {
    let timeout = config.query_timeout.as_micros() as u64;
    (time.as_micros() / (timeout / MOMENTS).max(1)) as u32
}

/// Trusty nodes asked for each suspect, so that a dead line is found in some four timeouts.
const ASKED_AT_ONCE: usize = 2;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const TRUSTY: Situation = Situation { is_trusty: true, is_last: false, trusty: 50 };
    const LAST: Situation = Situation { is_last: true, ..OLD };
    const OLD: Situation = Situation { is_trusty: false, ..TRUSTY };

    fn config() -> Config {
        Config { lost_after_silences: 3, query_timeout: Duration::from_secs(4), ..Config::default() }
    }

    fn answered(line: &mut Line, seconds: u64, asked: u64) -> bool {
        line.answered(Time::from_secs(seconds), Time::from_secs(asked), &config())
    }

    /// The node `n`, asked after so many milliseconds, was silent.
    fn silent_at(line: &mut Line, millis: u64, n: u8, situation: Situation) -> Silence {
        line.silent(Time::from_millis(millis), ([81, 2, 3, n], 6881).into(), situation, &config())
    }

    /// The node `n`, asked after so many seconds, was silent.
    fn silent(line: &mut Line, seconds: u64, n: u8, situation: Situation) -> Silence {
        silent_at(line, seconds * 1000, n, situation)
    }

    #[test]
    fn a_node_is_blamed_if_somebody_answered_who_was_asked_then_or_shortly_before() {
        let mut line = Line::default();
        assert!(!answered(&mut line, 5, 5));
        assert_eq!(silent(&mut line, 5, 1, OLD), Silence::Blamed);
        assert_eq!(silent(&mut line, 6, 1, OLD), Silence::Blamed);
        assert_eq!(silent_at(&mut line, 6_700, 1, OLD), Silence::Suspect { ask: 2 });
        assert_eq!(silent_at(&mut line, 4_990, 2, TRUSTY), Silence::Suspect { ask: 1 });
        assert_eq!(silent(&mut line, 7, 3, TRUSTY), Silence::Suspect { ask: 0 });
        // Somebody asked later answered earlier: the network may have returned.
        assert!(!answered(&mut line, 10, 9));
        assert_eq!(silent(&mut line, 8, 4, TRUSTY), Silence::Suspect { ask: 2 });
        assert_eq!(silent(&mut line, 9, 4, TRUSTY), Silence::Blamed);
        assert_eq!(silent(&mut line, 5 + 64, 4, TRUSTY), Silence::Suspect { ask: 2 });
    }

    #[test]
    fn the_last_blame_needs_answers_to_what_was_asked_before_and_after() {
        let mut line = Line::default();
        answered(&mut line, 5, 5);
        assert_eq!(silent_at(&mut line, 5_120, 1, LAST), Silence::Blamed, "the same moment is both");
        assert_ne!(silent_at(&mut line, 5_130, 1, LAST), Silence::Blamed, "the network may have gone");
        answered(&mut line, 6, 6);
        for (millis, is_blamed) in
            [(4_990, false), (5_000, true), (5_500, true), (6_000, true), (6_125, false)]
        {
            let silence = silent_at(&mut line, millis, 1, LAST);
            assert_eq!(silence == Silence::Blamed, is_blamed, "{millis}: {silence:?}");
        }
        // In a long time without any answer the network may have been away.
        answered(&mut line, 11, 11);
        for millis in [6_500, 7_500, 10_100, 10_500] {
            assert_ne!(silent_at(&mut line, millis, 1, LAST), Silence::Blamed, "{millis}");
        }
        // An answer that came late counts for when it was asked for.
        answered(&mut line, 12, 8);
        assert_eq!(silent_at(&mut line, 10_500, 1, LAST), Silence::Blamed);
        // What is older than two timeouts cannot be known any more.
        answered(&mut line, 18, 18);
        assert_ne!(silent_at(&mut line, 5_500, 1, LAST), Silence::Blamed);
    }

    #[test]
    fn silence_of_trusty_nodes_is_the_lines_fault_until_somebody_answers() {
        let mut line = Line::default();
        for n in [1, 1, 1, 2] {
            assert!(matches!(silent(&mut line, 1, n, TRUSTY), Silence::Suspect { .. }), "each counts once");
        }
        assert_eq!(silent(&mut line, 1, 3, TRUSTY), Silence::Lost);
        assert!(line.is_lost());
        assert_eq!(silent(&mut line, 9, 4, TRUSTY), Silence::Forgiven);
        assert!(answered(&mut line, 20, 20));
        // Asked before the return, given up after it.
        assert_eq!(silent(&mut line, 19, 4, TRUSTY), Silence::Forgiven);
        assert_eq!(silent(&mut line, 20, 4, TRUSTY), Silence::Blamed);
    }

    #[test]
    fn others_are_asked_when_those_that_were_asked_did_not_count() {
        let mut line = Line::default();
        let asks: Vec<_> = [1_000, 1_100, 1_200, 4_800, 5_100, 5_200, 8_900]
            .into_iter()
            .map(|millis| match silent_at(&mut line, millis, 1, OLD) {
                Silence::Suspect { ask } => ask,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(asks, [2, 1, 0, 0, 2, 1, 0]);
    }

    #[test]
    fn a_clock_that_goes_back_a_day_leaves_nodes_to_blame_and_a_line_to_lose() {
        let mut line = Line::default();
        line.change(Time::from_secs(90_000));
        answered(&mut line, 90_001, 90_001);
        silent(&mut line, 90_005, 1, TRUSTY);
        answered(&mut line, 3_600, 3_600);
        assert_eq!(silent(&mut line, 3_600, 1, TRUSTY), Silence::Blamed);
        for n in [1, 2] {
            assert_eq!(
                silent(&mut line, 3_610, n, TRUSTY),
                Silence::Suspect { ask: [2, 1][usize::from(n) - 1] }
            );
        }
        assert_eq!(silent(&mut line, 3_610, 3, TRUSTY), Silence::Lost);
    }

    #[test]
    fn old_nodes_may_be_silent_without_end() {
        let mut line = Line::default();
        for n in 0..99 {
            assert!(matches!(silent(&mut line, 1, n, OLD), Silence::Suspect { .. }));
        }
        assert!(!line.is_lost() && line.suspects.is_empty());
    }

    #[test]
    fn where_few_are_trusty_these_have_to_be_silent() {
        let two = Situation { trusty: 2, ..TRUSTY };
        let mut line = Line::default();
        assert_eq!(silent(&mut line, 1, 1, two), Silence::Suspect { ask: 2 });
        assert_eq!(silent(&mut line, 1, 2, two), Silence::Lost);
        let none = Situation { trusty: 0, ..OLD };
        assert_eq!(silent(&mut Line::default(), 1, 1, none), Silence::Lost);
    }

    #[test]
    fn the_owners_word_counts_at_once() {
        let mut line = Line::default();
        silent(&mut line, 1, 1, TRUSTY);
        assert!(line.lose() && !line.lose());
        assert_eq!(silent(&mut line, 2, 2, TRUSTY), Silence::Forgiven);
        line.change(Time::from_secs(5));
        assert!(!line.is_lost());
        assert_eq!(silent(&mut line, 4, 2, TRUSTY), Silence::Forgiven);
        assert_eq!(silent(&mut line, 6, 2, TRUSTY), Silence::Suspect { ask: 2 });
    }
}
