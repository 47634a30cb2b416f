//! [`Totals`]: what a run consisted of, in figures that follow from its seed.

use std::time::Duration;

/// What a run consisted of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Nodes and other hosts in the worlds of the run.
    pub hosts: u64,
    /// Datagrams that arrived and timers that came due.
    pub events: u64,
    /// Datagrams sent.
    pub datagrams: u64,
    /// Virtual time that passed, of all worlds of the run together.
    pub span: Duration,
    /// The digest over all events: equal runs have equal ones.
    pub digest: u64,
}

impl Totals {
    /// Those of two worlds of a run, the later one last.
    pub(super) fn and(&self, later: &Self) -> Self {
        Self {
            hosts: self.hosts + later.hosts,
            events: self.events + later.events,
            datagrams: self.datagrams + later.datagrams,
            span: self.span + later.span,
            digest: self.digest.rotate_left(1) ^ later.digest,
        }
    }
}
