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

/// Queries after which a search may be lured, see [`super::lines`]: of the lookups that these numbers were found with
/// 99 of 100 sent 106 or fewer.
pub(super) const LURED: usize = 120;

/// Candidates that nobody has asked in a line from which some may be forgotten although others are farther away.
pub(super) const LONG_LINE: u32 = 8;

/// What a line of the reserve counts for beside the queries that it had, when a search may be lured: where
/// a few of each line are asked, one line after the other leads nowhere.
pub(super) const RESERVE_WAITS: u32 = 4;

/// Pause after a query that found too many in flight.
pub(super) const RETRY: Duration = Duration::from_millis(100);
