//! [`Life`]: whether an owner task is at work, or on its way out.

use tokio::time::Instant;

use crate::engine::options::State;

/// How far the owner task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// The swarm is at work, or paused.
    Running,
    /// Good-byes are said until `by`; then comes a state, or the end.
    Leaving { by: Instant, then: Option<State> },
    /// Nothing is under way.
    Stopped,
    /// The task ends.
    Over,
}
