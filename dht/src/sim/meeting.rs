//! [`Meeting`]: where the threads of a world meet between windows of time.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Barrier, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Host;
use super::orders::{Ordered, Orders};
use super::shard::{Batch, Shard, Space, Told};
use crate::Time;

/// Where threads meet between windows.
pub(super) struct Meeting<H> {
    until: Time,
    barrier: Barrier,
    /// When something happens next in each shard, and when the next new order is to be obeyed, last.
    next: Vec<AtomicU64>,
    failed: AtomicBool,
    /// Packets from each shard to each.
    batches: Vec<Mutex<Batch>>,
    told: Mutex<Vec<Told>>,
    /// New orders of each shard.
    orders: Vec<Mutex<Vec<Ordered<H>>>>,
}

/// What a thread panicked with.
pub(super) type Panic = Box<dyn Any + Send>;

/// What the first thread does with what hosts tell.
pub(super) type Sink<'a, H> = (&'a mut Orders<H>, &'a mut dyn FnMut(&mut Orders<H>, Told));

impl<H: Host> Meeting<H> {
    pub(super) fn new(shards: usize, until: Time) -> Self {
        Self {
            until,
            barrier: Barrier::new(shards),
            next: (0..=shards).map(|_| AtomicU64::new(u64::MAX)).collect(),
            failed: AtomicBool::new(false),
            batches: (0..shards * shards).map(|_| Mutex::default()).collect(),
            told: Mutex::default(),
            orders: (0..shards).map(|_| Mutex::default()).collect(),
        }
    }

    /// Runs a shard until the end. What panics is caught, so that nobody waits for a thread that is gone.
    pub(super) fn attend(
        &self,
        index: usize,
        shard: &mut Shard<H>,
        space: &Space,
        mut sink: Option<Sink<'_, H>>,
    ) -> Option<Panic> {
        let mut panic = None;
        let mut end = shard.now;
        loop {
            self.post(index, shard);
            self.barrier.wait();
            // From here to the second wait nobody runs hosts and nobody reads what is written.
            if let Some(sink) = &mut sink
                && panic.is_none()
            {
                panic = catch_unwind(AssertUnwindSafe(|| self.tell(end, sink))).err();
            }
            self.collect(index, shard);
            self.next[index].store(shard.next().as_micros(), Ordering::SeqCst);
            self.failed.fetch_or(panic.is_some(), Ordering::SeqCst);
            self.barrier.wait();
            let next = self.next.iter().map(|next| next.load(Ordering::SeqCst)).min();
            let next = Time::from_micros(next.unwrap_or(u64::MAX));
            self.obey(index, shard, space);
            if next > self.until || next == Time::NEVER || self.failed.load(Ordering::SeqCst) {
                return panic;
            }
            end = next + Duration::from_micros(space.paths.minimum());
            end = end.min(self.until + Duration::from_micros(1));
            panic = catch_unwind(AssertUnwindSafe(|| shard.run(end, space))).err();
        }
    }

    /// Lays out what a shard has for others.
    fn post(&self, index: usize, shard: &mut Shard<H>) {
        let shards = shard.outgoing.len();
        for (to, batch) in shard.outgoing.iter_mut().enumerate() {
            if to != index {
                std::mem::swap(batch, &mut *lock(&self.batches[to * shards + index]));
            }
        }
        if !shard.told.is_empty() {
            lock(&self.told).append(&mut shard.told);
        }
    }

    fn collect(&self, index: usize, shard: &mut Shard<H>) {
        let shards = shard.outgoing.len();
        for from in (0..shards).filter(|&from| from != index) {
            shard.collect(&mut lock(&self.batches[index * shards + from]));
        }
    }

    /// Hands out what hosts told in the window that ended at `end`, and takes orders.
    fn tell(&self, end: Time, (orders, sink): &mut Sink<'_, H>) {
        let mut told = std::mem::take(&mut *lock(&self.told));
        told.sort_by_key(|told| (told.at, told.host));
        orders.from = end;
        told.into_iter().for_each(|told| sink(orders, told));
        let first = orders.list.iter().map(|ordered| ordered.at).min().unwrap_or(Time::NEVER);
        self.next[self.orders.len()].store(first.as_micros(), Ordering::SeqCst);
        for ordered in orders.list.drain(..) {
            lock(&self.orders[ordered.host % self.orders.len()]).push(ordered);
        }
    }

    /// Takes the orders for a shard's hosts.
    fn obey(&self, index: usize, shard: &mut Shard<H>, space: &Space) {
        for Ordered { at, number, host, order } in lock(&self.orders[index]).drain(..) {
            shard.orders.insert((at, number), (host / space.shards, order));
        }
    }
}

/// What a mutex guards is whole after a panic too: the world is given up then.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
