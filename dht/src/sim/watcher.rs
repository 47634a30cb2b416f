//! [`Watcher`]: who looks on while something long runs in a virtual network, and may stop it.

use std::ops::ControlFlow;

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

impl Watcher for Unwatched {
    fn progress(&mut self, _: &str, _: f64) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}
