//! When a standing order has its next round: an announce that is renewed (BEP 5), an item that is put
//! again (BEP 44), a key that is followed (BEP 46). A calculation on [`Time`] and [`Rng`] alone; what a
//! round does is the business of whoever keeps a [`Schedule`] (in this crate `net::StandingOrder`).

use std::time::Duration;

use crate::{Config, Rng, Time};

/// How often an order has a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// From a round that went well to the next, a tenth more or less, so that orders which began
    /// together drift apart.
    pub every: Duration,
    /// From a round that came to nothing to the next; doubled by each further one. Also the shortest
    /// time between two rounds.
    pub retry_min: Duration,
    /// Longest pause after a round that came to nothing.
    pub retry_max: Duration,
}

/// Why a round began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The order is new.
    New,
    /// It was time again.
    Due,
    /// The round before came to nothing.
    Retry,
    /// Our address or network changed.
    Moved,
}

/// The schedule of one order. Its owner carries out a round when [`Schedule::timeout`] has come, between
/// [`Schedule::begin`] and [`Schedule::end`].
#[derive(Debug)]
pub struct Schedule {
    pace: Pace,
    rng: Rng,
    state: State,
    /// When the last round began.
    began: Option<Time>,
    /// Rounds in a row that came to nothing.
    failures: u32,
}

#[derive(Debug)]
enum State {
    /// The next round is due then.
    Waiting(Time, Cause),
    /// A round is on its way; whether the network has changed since it began.
    Running { moved: bool },
}

impl Pace {
    /// Of announces.
    pub fn of_announces(config: &Config) -> Self {
        Self::every(config.announce_every, config)
    }

    /// Of items that are kept.
    pub fn of_items(config: &Config) -> Self {
        Self::every(config.keep_every, config)
    }

    /// Of keys that are followed.
    pub fn of_keys(config: &Config) -> Self {
        Self::every(config.follow_every, config)
    }

    fn every(every: Duration, config: &Config) -> Self {
        // A pause of zero would ask the network without end.
        let floor = |pause: Duration| pause.max(SHORTEST);
        let retry_min = floor(config.renew_retry_min);
        Self { every: floor(every), retry_min, retry_max: config.renew_retry_max.max(retry_min) }
    }
}

impl Schedule {
    /// A schedule whose first round is due at once.
    pub fn new(now: Time, pace: Pace, rng: Rng) -> Self {
        Self { pace, rng, state: State::Waiting(now, Cause::New), began: None, failures: 0 }
    }

    /// Notes that a round begins: why.
    pub fn begin(&mut self, now: Time) -> Cause {
        self.began = Some(now);
        match std::mem::replace(&mut self.state, State::Running { moved: false }) {
            State::Waiting(_, cause) => cause,
            State::Running { .. } => Cause::Due,
        }
    }

    /// Notes that a round has ended, and whether anything came of it: how long until the next one.
    pub fn end(&mut self, now: Time, successful: bool) -> Duration {
        self.failures = if successful { 0 } else { self.failures.saturating_add(1) };
        let moved = matches!(self.state, State::Running { moved: true });
        let (pause, cause) = match self.failures {
            _ if moved => {
                self.failures = 0;
                (self.earliest().since(now), Cause::Moved)
            }
            0 => (self.jittered(self.pace.every), Cause::Due),
            failures => {
                let factor = 1u32.checked_shl(failures - 1).unwrap_or(u32::MAX);
                let pause = self.pace.retry_min.saturating_mul(factor).min(self.pace.retry_max);
                (self.jittered(pause), Cause::Retry)
            }
        };
        self.state = State::Waiting(now + pause, cause);
        pause
    }

    /// Notes that our address or network has changed: what others have stored of us is wrong or out of
    /// reach. The next round is due at once, or as soon after the last one as a network that comes and
    /// goes may make it.
    pub fn moved(&mut self, now: Time) {
        let earliest = self.earliest().max(now);
        match &mut self.state {
            State::Running { moved } => *moved = true,
            State::Waiting(due, cause) => {
                self.failures = 0;
                if earliest < *due {
                    (*due, *cause) = (earliest, Cause::Moved);
                }
            }
        }
    }

    /// When the next round is due; [`Time::NEVER`] while one is on its way.
    pub fn timeout(&self) -> Time {
        match self.state {
            State::Waiting(due, _) => due,
            State::Running { .. } => Time::NEVER,
        }
    }

    /// When the next round may begin at the earliest.
    fn earliest(&self) -> Time {
        self.began.map_or(Time::ZERO, |began| began + self.pace.retry_min)
    }

    /// Between nine and eleven tenths of `span`.
    fn jittered(&mut self, span: Duration) -> Duration {
        let tenth = usize::try_from(span.as_micros() / 10).unwrap_or(usize::MAX / 2);
        let more = self.rng.below(2 * tenth + 1);
        span.saturating_sub(span / 10) + Duration::from_micros(more as u64)
    }
}

/// No order has rounds more often, whatever the config says.
const SHORTEST: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn schedule(seed: u64) -> Schedule {
        let pace = Pace::of_announces(&Config::default());
        Schedule::new(Time::from_secs(100), pace, Rng::from_seed(seed))
    }

    /// A round of a second that begins when it is due: why, how long until the next, and when it ended.
    fn round(schedule: &mut Schedule, successful: bool) -> (Cause, Duration, Time) {
        let began = schedule.timeout();
        let cause = schedule.begin(began);
        assert_eq!(schedule.timeout(), Time::NEVER, "one round at a time");
        let now = began + Duration::from_secs(1);
        let pause = schedule.end(now, successful);
        assert_eq!(schedule.timeout(), now + pause);
        (cause, pause, now)
    }

    #[test]
    fn the_first_round_is_at_once_and_the_next_about_every_quarter_of_an_hour() {
        let mut schedule = schedule(1);
        assert_eq!(schedule.timeout(), Time::from_secs(100));
        let mut pauses = Vec::new();
        for nth in 0..100 {
            let (cause, pause, _) = round(&mut schedule, true);
            assert_eq!(cause, if nth == 0 { Cause::New } else { Cause::Due });
            assert!((MINUTE * 27 / 2..=MINUTE * 33 / 2).contains(&pause), "{pause:?}");
            pauses.push(pause);
        }
        let (least, most) = (pauses.iter().min().unwrap(), pauses.iter().max().unwrap());
        assert!(*most - *least > MINUTE * 2, "they are spread: {least:?} to {most:?}");
    }

    #[test]
    fn orders_of_another_seed_have_other_times_and_those_of_the_same_the_same() {
        let times = |seed| {
            let mut schedule = schedule(seed);
            (0..10).map(|_| round(&mut schedule, true).2).collect::<Vec<_>>()
        };
        assert_eq!(times(1), times(1));
        assert_ne!(times(1), times(2));
    }

    #[test]
    fn rounds_that_come_to_nothing_are_tried_again_after_10_seconds_to_5_minutes() {
        let mut schedule = schedule(3);
        for expected in [10, 20, 40, 80, 160, 300, 300, 300] {
            let (_, pause, _) = round(&mut schedule, false);
            let expected = Duration::from_secs(expected);
            assert!((expected * 9 / 10..=expected * 11 / 10).contains(&pause), "{pause:?}, {expected:?}");
        }
        let (cause, pause, _) = round(&mut schedule, true);
        assert_eq!(cause, Cause::Retry);
        assert!(pause > MINUTE * 13);
        let (cause, pause, _) = round(&mut schedule, false);
        assert_eq!(cause, Cause::Due);
        assert!(pause <= Duration::from_secs(11), "a success forgives all failures: {pause:?}");
        for _ in 0..100 {
            assert!(round(&mut schedule, false).1 <= MINUTE * 11 / 2);
        }
    }

    #[test]
    fn a_change_of_the_network_brings_the_next_round_forward() {
        let mut schedule = schedule(4);
        let (_, _, ended) = round(&mut schedule, true);
        let changed = ended + MINUTE * 3;
        schedule.moved(changed);
        assert_eq!(schedule.timeout(), changed);
        assert_eq!(round(&mut schedule, true).0, Cause::Moved);
        assert_eq!(round(&mut schedule, true).0, Cause::Due);
    }

    #[test]
    fn a_network_that_comes_and_goes_causes_a_round_every_10_seconds_at_most() {
        let mut schedule = schedule(5);
        let start = schedule.timeout();
        let mut rounds = 0;
        for second in 0..600 {
            let now = start + Duration::from_secs(second);
            schedule.moved(now);
            if schedule.timeout() <= now {
                schedule.begin(now);
                schedule.end(now, true);
                rounds += 1;
            }
        }
        assert_eq!(rounds, 60);
    }

    #[test]
    fn a_change_during_a_round_makes_the_next_one_follow() {
        let mut schedule = schedule(6);
        let began = schedule.timeout();
        schedule.begin(began);
        schedule.moved(began + Duration::from_secs(1));
        assert_eq!(schedule.timeout(), Time::NEVER);
        let pause = schedule.end(began + Duration::from_secs(2), true);
        assert_eq!(pause, Duration::from_secs(8), "ten after the first began");
        assert_eq!(round(&mut schedule, true).0, Cause::Moved);
    }

    #[test]
    fn a_change_ends_a_long_pause_after_failures() {
        let mut schedule = schedule(7);
        let mut ended = Time::ZERO;
        for _ in 0..8 {
            ended = round(&mut schedule, false).2;
        }
        let changed = ended + Duration::from_secs(20);
        schedule.moved(changed);
        assert_eq!(schedule.timeout(), changed);
        let (_, pause, _) = round(&mut schedule, false);
        assert!(pause <= Duration::from_secs(11), "a new network has a new chance: {pause:?}");
    }

    #[test]
    fn a_change_never_puts_a_round_off() {
        let mut schedule = schedule(8);
        let started = schedule.timeout();
        schedule.moved(started + Duration::from_secs(5));
        assert_eq!(schedule.timeout(), started);
    }

    #[test]
    fn a_pace_of_zero_does_not_spin() {
        let zero = Duration::ZERO;
        let config = Config {
            announce_every: zero,
            renew_retry_min: zero,
            renew_retry_max: zero,
            ..Config::default()
        };
        let mut schedule = Schedule::new(Time::ZERO, Pace::of_announces(&config), Rng::from_seed(9));
        assert!(round(&mut schedule, true).1 >= Duration::from_millis(9));
        assert!(round(&mut schedule, false).1 >= Duration::from_millis(9));
    }
}
