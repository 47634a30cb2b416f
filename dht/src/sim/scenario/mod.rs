//! Named experiments on virtual networks: each a file that says what is done and a [`Report`] of what it
//! came to, at any size and from a seed. `btdht sim NAME` runs them, tests hold them to bounds.

mod address;
mod announce;
mod churn;
mod dead;
mod eclipse;
mod experiment;
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

pub use self::experiment::{Params, Scenario};
pub use self::report::{Cell, Chart, Curve, Report};
pub use super::totals::Totals;
pub use super::watcher::{Stopped, Unwatched, Watcher};

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

impl Scenario {
    /// The scenario called `name`.
    pub fn named(name: &str) -> Option<&'static Self> {
        ALL.iter().copied().find(|scenario| scenario.name == name)
    }
}
