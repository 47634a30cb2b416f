//! [`Scenario`]: a named experiment, and [`Params`]: at which size it is run.

use std::time::Duration;

use super::super::watcher::{Stopped, Watcher};
use super::report::Report;

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
    /// Whether the number of lookups of its [`Params`] has a meaning.
    pub takes_lookups: bool,
    pub(super) run: Run,
}

pub(super) type Run = fn(&Params, &mut dyn Watcher) -> Result<Report, Stopped>;

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

impl Scenario {
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
    pub(super) fn lookups(&self) -> usize {
        self.lookups.unwrap_or_else(|| (self.nodes / 4).clamp(1, 1000))
    }

    /// The same where more than `most` would take long: only if somebody asks for more.
    pub(super) fn few_lookups(&self, most: usize) -> usize {
        self.lookups.unwrap_or_else(|| self.lookups().min(most))
    }

    pub(super) fn span(&self) -> Duration {
        Duration::from_secs(60 * self.minutes)
    }
}
