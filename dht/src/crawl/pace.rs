//! [`Pace`]: how fast a crawl may ask. A token bucket on injected time, and the brake that slows it down
//! while most queries get no answer.
//!
//! A crawl asks a new address with nearly every query, and each takes a place in the router's table of
//! connections for half a minute or more; a full table drops everybody's packets. Then answers become
//! rare, and asking faster makes it worse. So each time that fewer than one in five of the last queries
//! were answered the rate is halved, down to one query a second, and doubled again when more than three
//! in ten are answered. (Half of the nodes that others name are gone, so that four to six in ten is what
//! a healthy line sees.)

use std::time::Duration;

use crate::{Config, Time};

/// The rate of a crawl.
#[derive(Debug)]
pub(super) struct Pace {
    /// Queries a second; 0 for as many as may be in flight.
    full: u32,
    burst: u32,
    /// How often the rate is halved now.
    level: u32,
    /// When all queries so far would have been sent at an even rate.
    spent: Time,
    /// Of the queries that have ended since the rate was last thought about.
    answered: u32,
    silent: u32,
}

/// How the rate has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Slower,
    Faster,
}

impl Pace {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            full: config.crawl_rate,
            burst: config.crawl_burst.max(1),
            level: 0,
            spent: Time::ZERO,
            answered: 0,
            silent: 0,
        }
    }

    /// When the next query may be sent.
    pub(super) fn next(&self) -> Time {
        self.spent - self.interval() * (self.burst - 1)
    }

    /// Notes that a query is sent, at [`Pace::next`] or later.
    pub(super) fn take(&mut self, now: Time) {
        self.spent = self.spent.max(now) + self.interval();
    }

    /// Notes how a query ended.
    pub(super) fn ended(&mut self, is_answered: bool) -> Option<Turn> {
        self.answered += u32::from(is_answered);
        self.silent += u32::from(!is_answered);
        let enough = if self.level == 0 { QUERIES_TO_BRAKE } else { QUERIES_WHILE_SLOW };
        let ended = self.answered + self.silent;
        if ended < enough {
            return None;
        }
        let percent = self.answered * 100 / ended;
        (self.answered, self.silent) = (0, 0);
        match percent {
            ..BRAKE_BELOW if self.level < self.lowest() => {
                self.level += 1;
                Some(Turn::Slower)
            }
            RELEASE_ABOVE.. if self.level > 0 => {
                self.level -= 1;
                Some(Turn::Faster)
            }
            _ => None,
        }
    }

    /// Goes down to one query a second at once.
    pub(super) fn stop(&mut self) {
        (self.level, self.answered, self.silent) = (self.lowest(), 0, 0);
    }

    /// Whether the rate is lower than it should be.
    pub(super) fn is_slow(&self) -> bool {
        self.level > 0
    }

    /// Queries a second now, at least 1; 0 for as many as may be in flight.
    pub(super) fn rate(&self) -> u32 {
        if self.is_slow() { (self.brisk() >> self.level).max(1) } else { self.full }
    }

    /// Halvings down to one query a second.
    fn lowest(&self) -> u32 {
        self.brisk().ilog2()
    }

    /// The full rate as a number.
    fn brisk(&self) -> u32 {
        if self.full == 0 { UNLIMITED_COUNTS_AS } else { self.full }
    }

    /// Rounded up to a microsecond, so that the rate is never exceeded.
    fn interval(&self) -> Duration {
        match self.rate() {
            0 => Duration::ZERO,
            rate => Duration::from_micros(1_000_000u64.div_ceil(rate.into())),
        }
    }
}

/// Percent of answers below which the rate is halved.
const BRAKE_BELOW: u32 = 20;
/// Percent of answers from which it is doubled again.
const RELEASE_ABOVE: u32 = 30;
/// Queries after which a rate is thought about: with half of them answered, fewer than a fifth are by
/// chance once in millions of times.
const QUERIES_TO_BRAKE: u32 = 64;
/// While it is low, answers come slowly: less has to do.
const QUERIES_WHILE_SLOW: u32 = 16;
/// The rate from which one without a limit is halved.
const UNLIMITED_COUNTS_AS: u32 = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(rate: u32, burst: u32) -> Pace {
        Pace::new(&Config { crawl_rate: rate, crawl_burst: burst, ..Config::default() })
    }

    /// When queries are sent within `span` by somebody who always wants to send one.
    fn sent(pace: &mut Pace, start: Time, span: Duration) -> Vec<Time> {
        let mut sent = Vec::new();
        let mut now = start;
        while now < start + span {
            if pace.next() <= now {
                pace.take(now);
                sent.push(now);
            } else {
                now = pace.next();
            }
        }
        sent
    }

    #[test]
    fn no_window_holds_more_than_the_rate_and_the_burst() {
        for (rate, burst, seconds) in [(1, 1, 100), (3, 1, 100), (25, 5, 20), (1000, 50, 2)] {
            let mut pace = pace(rate, burst);
            let span = Duration::from_secs(seconds);
            let mut times = sent(&mut pace, Time::from_secs(100), span);
            // Whoever pauses may not make up for it.
            times.extend(sent(&mut pace, Time::from_secs(500), span));
            for (from, first) in times.iter().enumerate() {
                for (to, last) in times.iter().enumerate().skip(from) {
                    let micros = last.since(*first).as_micros() as usize;
                    let most = burst as usize + micros * rate as usize / 1_000_000;
                    assert!(to - from < most, "{} in {micros} us at {rate}", to - from + 1);
                }
            }
            let whole = 2 * (seconds as usize * rate as usize + burst as usize);
            assert!((whole * 97 / 100..=whole).contains(&times.len()), "{rate}: {}", times.len());
        }
    }

    #[test]
    fn few_answers_halve_the_rate_again_and_again_and_many_double_it() {
        let mut pace = pace(25, 5);
        let mut rates = vec![pace.rate()];
        for n in 0..200 {
            if pace.ended(n % 10 == 0) == Some(Turn::Slower) {
                rates.push(pace.rate());
            }
        }
        assert_eq!(rates, [25, 12, 6, 3, 1]);
        assert!(pace.is_slow());
        rates.clear();
        for n in 0..100 {
            if pace.ended(n % 2 == 0) == Some(Turn::Faster) {
                rates.push(pace.rate());
            }
        }
        assert_eq!(rates, [3, 6, 12, 25]);
        assert!(!pace.is_slow());
    }

    #[test]
    fn usual_shares_of_answers_change_nothing() {
        let mut rng = crate::Rng::from_seed(1);
        let mut pace = pace(25, 5);
        for _ in 0..10_000 {
            assert_eq!(pace.ended(rng.chance(45, 100)), None);
        }
    }

    #[test]
    fn a_stopped_crawl_asks_once_a_second_until_answers_come() {
        let mut pace = pace(100, 5);
        pace.stop();
        assert_eq!((pace.rate(), pace.is_slow()), (1, true));
        let count = sent(&mut pace, Time::from_secs(1000), Duration::from_secs(60)).len();
        assert!((60..=65).contains(&count), "{count}");
        let turns: Vec<_> = (0..96).filter_map(|_| pace.ended(true)).collect();
        assert_eq!((turns, pace.rate()), (vec![Turn::Faster; 6], 100));
    }

    #[test]
    fn a_rate_of_nothing_has_no_limit_but_can_be_slowed_down() {
        let mut pace = pace(0, 5);
        (0..1000).for_each(|_| pace.take(Time::from_secs(7)));
        assert!(pace.next() <= Time::from_secs(7));
        pace.stop();
        assert_eq!(pace.rate(), 1);
    }
}
