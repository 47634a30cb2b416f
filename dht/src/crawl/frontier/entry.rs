//! [`Entry`]: what a frontier knows of a node.

use std::net::SocketAddr;

use krpc::Id;

use crate::Time;

/// A node, whose list `state` tells.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) addr: SocketAddr,
    /// When it may be asked again, or is forgotten.
    pub(super) at: Time,
    pub(super) id: Id,
    /// What it was asked about.
    pub(super) target: Id,
    /// Until when it counts as alive without being asked.
    pub(super) trusted: Time,
    /// Where it is in a list of its slice.
    pub(super) place: u32,
    /// Questions in a row that it did not answer.
    pub(super) silences: u8,
    pub(super) state: State,
    pub(super) kept: Kept,
}

const _: () = assert!(size_of::<Entry>() == 96);

/// How a node stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Free,
    Fresh,
    Asking,
    Resting,
    Silent,
    Refused,
    /// Refused, and gave up its seat in its network.
    Unseated,
}

/// What whoever keeps the changes has of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// What an earlier run told, if anything.
    Before,
    /// What this one told.
    Now,
}
