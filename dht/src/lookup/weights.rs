//! The numbers by which a lookup chooses whom to ask, all that are no limits of [`Config`](crate::Config).
//!
//! These and the waits of [`crate::rpc::Patience`] were found by measuring some fifty settings on the
//! network of `tests/src/bin/lookups.rs` and `tests/src/lookups/`: fewer queries in flight cost time, more of
//! them cost queries that come too late to matter.

use std::time::Duration;

/// What a node that answered counts for; one that was asked: six of ten do answer; and one that was silent and
/// asked again: nine of ten of them are gone. When a silent one counted as much as the others, a search
/// whose nearest nodes were all gone waited for their second silence, too, before it asked somebody behind
/// them.
pub(super) const ANSWERED: u32 = 10;
pub(super) const PENDING: u32 = 6;
pub(super) const PENDING_AGAIN: u32 = 1;

/// Most that may be ahead of a candidate that is asked.
pub(super) const WINDOW_ON_THE_WAY: u32 = 88;
pub(super) const WINDOW_AT_THE_GOAL: u32 = 117;

/// A silent node is asked again when fewer than k and so many others are nearer.
pub(super) const SPARE: usize = 3;

/// Nodes of an earlier run that one attempt to bootstrap begins with.
pub(crate) const SAVED_AT_ONCE: usize = 40;

/// Pause after a query that found too many in flight.
pub(super) const RETRY: Duration = Duration::from_millis(100);
