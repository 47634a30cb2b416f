//! What the integration tests and benchmarks share: child processes, private networks, other
//! people's clients.
#![allow(clippy::unwrap_used)]

pub mod corpus;
pub mod faults;
pub mod fuzz;
pub mod heap;
pub mod hostile;
pub mod load;
pub mod lookups;
pub mod mmsg;
pub mod netns;
pub mod process;
pub mod rivals;
pub mod scenarios;
pub mod strangers;
pub mod tracker;
pub mod uninterrupted;
pub mod wan;
pub mod wire;
