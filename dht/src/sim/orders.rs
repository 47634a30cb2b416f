//! [`Orders`]: what hosts are to do, given while their world runs.

use super::Presence;
use super::shard::Order;
use crate::{Outbox, Time};

/// Orders that are given while the world runs; see [`World::run`](super::World::run).
pub struct Orders<H> {
    /// The end of the window, before which nothing can be changed any more.
    pub(super) from: Time,
    /// Orders given so far, in all runs.
    pub(super) ordered: u64,
    hosts: usize,
    pub(super) list: Vec<Ordered<H>>,
}

/// An order and what decides when its turn comes.
pub(super) struct Ordered<H> {
    pub(super) at: Time,
    pub(super) number: u64,
    pub(super) host: usize,
    pub(super) order: Order<H>,
}

impl<H> Orders<H> {
    /// None yet, after `ordered` earlier ones, for so many hosts.
    pub(super) fn new(from: Time, ordered: u64, hosts: usize) -> Self {
        Self { from, ordered, hosts, list: Vec::new() }
    }

    /// Has a host do something at `at`, or as soon as can be if that has passed.
    pub fn act(
        &mut self,
        at: Time,
        index: usize,
        action: impl FnOnce(Time, &mut H, &mut Outbox) + Send + 'static,
    ) {
        self.push(at, index, Order::Act(Box::new(action)));
    }

    /// Has a host appear or vanish at `at`, or as soon as can be if that has passed.
    pub fn presence(&mut self, at: Time, index: usize, presence: Presence) {
        self.push(at, index, Order::Presence(presence));
    }

    fn push(&mut self, at: Time, host: usize, order: Order<H>) {
        assert!(host < self.hosts, "there is no host {host}");
        // What never comes is never done.
        if at != Time::NEVER {
            self.list.push(Ordered { at: at.max(self.from), number: self.ordered, host, order });
            self.ordered += 1;
        }
    }
}
