//! Named experiments on virtual networks: each a file that says what is done and a [`Report`] of what it
//! came to, at any size and from a seed. `btdht sim NAME` runs them, tests hold them to bounds.

mod address;
mod announce;
mod churn;
mod dead;
mod eclipse;
mod ipv6;
mod join;
mod look;
mod lookup;
mod nat;
mod partition;
mod poison;
mod readonly;
mod report;
mod scale;
mod stats;
mod sybil;
#[cfg(test)]
mod tests;

use std::ops::ControlFlow;
use std::time::Duration;

pub use self::report::{Cell, Chart, Curve, Report, Totals};

/// All scenarios, in the order that they are listed in.
pub const ALL: &[&Scenario] = &[
    &lookup::SCENARIO,
    &join::SCENARIO,
    &churn::SCENARIO,
    &dead::SCENARIO,
    &partition::SCENARIO,
    &announce::SCENARIO,
    &address::SCENARIO,
    &readonly::SCENARIO,
    &nat::SCENARIO,
    &ipv6::SCENARIO,
    &sybil::SCENARIO,
    &eclipse::SCENARIO,
    &poison::SCENARIO,
    &scale::SCENARIO,
];

/// A named experiment.
#[derive(Debug)]
pub struct Scenario {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What it does and tells, in a line.
    pub about: &'static str,
    /// Nodes, if nobody says how many.
    pub nodes: usize,
    /// Virtual minutes, if nobody says how many; each scenario says of what.
    pub minutes: u64,
    run: Run,
}

type Run = fn(&Params, &mut dyn Watcher) -> Result<Report, Stopped>;

/// How to run a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params {
    /// Nodes in the network, at least [`Params::MIN_NODES`].
    pub nodes: usize,
    /// Everything random follows from it.
    pub seed: u64,
    /// Threads, at least 1; what is found does not depend on them.
    pub threads: usize,
    /// Virtual minutes; see [`Scenario::minutes`].
    pub minutes: u64,
    /// Lookups to measure at a time; `None` for as many as suit the size of the network.
    pub lookups: Option<usize>,
}

/// Looks on while a scenario runs, and may stop it.
pub trait Watcher {
    /// So much of the stage called `stage` is over, from 0 to 1. It is asked some hundred times a stage.
    fn progress(&mut self, stage: &str, done: f64) -> ControlFlow<()>;
}

/// A [`Watcher`] stopped the scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped;

/// A [`Watcher`] that lets everything run to its end.
#[derive(Clone, Copy, Debug)]
pub struct Unwatched;

impl Scenario {
    /// The scenario called `name`.
    pub fn named(name: &str) -> Option<&'static Self> {
        ALL.iter().copied().find(|scenario| scenario.name == name)
    }

    /// The parameters that it has by itself, with a seed of 1 and one thread.
    pub fn params(&self) -> Params {
        Params { nodes: self.nodes, seed: 1, threads: 1, minutes: self.minutes, lookups: None }
    }

    /// Runs it to its end; it takes as long as it takes.
    ///
    /// # Errors
    /// [`Stopped`] when the watcher wanted it.
    pub fn run(&self, params: &Params, watcher: &mut dyn Watcher) -> Result<Report, Stopped> {
        let params =
            Params { nodes: params.nodes.max(Params::MIN_NODES), threads: params.threads.max(1), ..*params };
        (self.run)(&params, watcher)
    }
}

impl Params {
    /// Fewer nodes than these are no network.
    pub const MIN_NODES: usize = 32;

    /// Lookups to measure at a time: one for every fourth node, at most 1,000.
    fn lookups(&self) -> usize {
        self.lookups.unwrap_or_else(|| (self.nodes / 4).clamp(1, 1000))
    }

    fn span(&self) -> Duration {
        Duration::from_secs(60 * self.minutes)
    }
}

impl Watcher for Unwatched {
    fn progress(&mut self, _: &str, _: f64) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}
