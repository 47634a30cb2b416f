//! [`Churn`]: nodes that come and go. A session ends without a word; who comes back has what it saved, or
//! is another one at the same address that has just been installed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::time::Duration;

use super::dice::exponential;
use super::fleet::Fleet;
use super::watcher::{Stopped, Watcher};
use super::{Presence, Told};
use crate::Time;

/// Arrivals and departures within this happen together.
const TICK: Duration = Duration::from_secs(1);
/// Of those who come, so many of a hundred were there before.
const RETURNING: u32 = 50;
/// Nodes that are away, of a thousand.
const AWAY: u32 = 333;

/// The comings and goings of the nodes of a fleet. Lengths of sessions and absences are exponential, and
/// absences are half as long, so that a third of the nodes is away at any time.
pub struct Churn {
    /// Mean length of a session.
    session: Duration,
    routers: Vec<SocketAddr>,
    /// When which node comes or goes.
    due: BinaryHeap<Reverse<(Time, usize)>>,
}

impl Churn {
    /// Lets nodes come and go, all but the first `stay`; sessions have the given median. A third of them is
    /// away from the beginning. Who is new asks `routers`.
    pub fn new(fleet: &mut Fleet, median: Duration, stay: usize, routers: Vec<SocketAddr>) -> Self {
        // The median of an exponential distribution is ln 2 of its mean.
        let mut churn = Self { session: median * 1000 / 693, routers, due: BinaryHeap::new() };
        for index in stay..fleet.nodes() {
            if fleet.rng().chance(AWAY, 1000) {
                fleet.world.set_presence(index, Presence::Down);
            }
            churn.plan(fleet, index);
        }
        churn
    }

    /// Lets `span` pass; what hosts told in it.
    ///
    /// # Errors
    /// [`Stopped`].
    pub fn pass(
        &mut self,
        fleet: &mut Fleet,
        span: Duration,
        stage: &str,
        watcher: &mut dyn Watcher,
    ) -> Result<Vec<Told>, Stopped> {
        let (begin, end) = (fleet.world.now(), fleet.world.now() + span);
        let mut told = Vec::new();
        loop {
            self.turn(fleet);
            let now = fleet.world.now();
            if now >= end {
                return Ok(told);
            }
            let next = self.due.peek().map_or(Time::NEVER, |Reverse((at, _))| (*at).max(now + TICK));
            let until = next.min(end);
            told.append(&mut fleet.run_until(until));
            super::fleet::step(watcher, stage, until.since(begin).as_secs_f64() / span.as_secs_f64())?;
        }
    }

    /// Lets come and go whose time it is.
    fn turn(&mut self, fleet: &mut Fleet) {
        while let Some(&Reverse((at, index))) = self.due.peek()
            && at <= fleet.world.now()
        {
            self.due.pop();
            if fleet.world.presence(index) == Presence::Up {
                fleet.world.set_presence(index, Presence::Down);
            } else if fleet.rng().chance(RETURNING, 100) {
                fleet.restart(index, self.routers.clone());
            } else {
                fleet.reinstall(index, self.routers.clone());
            }
            self.plan(fleet, index);
        }
    }

    /// Decides when the node comes or goes next. What is left of an exponential time is as long as all of
    /// it, so that it does not matter since when it has been as it is.
    fn plan(&mut self, fleet: &mut Fleet, index: usize) {
        let mean = match fleet.world.presence(index) {
            Presence::Up => self.session,
            Presence::Down | Presence::Offline => self.session / 2,
        };
        // In 1/65,536 of the mean.
        let length = (exponential(fleet.rng().next_u64()) as u128 * mean.as_micros()) >> 16;
        let length = Duration::from_micros(u64::try_from(length).unwrap_or(u64::MAX));
        self.due.push(Reverse((fleet.world.now() + length, index)));
    }
}
