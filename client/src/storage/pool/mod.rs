//! [`Pool`]: the disk threads of one torrent.
//!
//! Plain threads with bounded queues, not the runtime's blocking pool: its hundreds of threads would
//! hide that the disk is too slow. Jobs of a piece always go to the same thread, so a piece needs no
//! lock and its jobs keep their order. One more thread syncs and saves, so that a slow fsync stops
//! no hashing.
//!
//! When the disk refuses, [`Done::Failed`] is reported once and all threads hold: no block that was
//! accepted is lost, and what failed is tried again after [`Pool::resume`] (but for a read for a
//! peer, which is dropped, and a save, which has to be asked for again). Only saving goes on, so
//! that a download can end with what it has. What was written before a failed sync may be lost although
//! the next sync succeeds; it is hashed and written again before a save claims it.

mod config;
mod progress;
mod ready;
mod reserving;
mod saver;
mod shared;
mod tasks;
mod worker;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::{fmt, io};

use super::resume::Saved;
use super::{Done, Job, Lock, ResumeFile, Stamp, Storage};
use crate::bitfield::Bitfield;
use crate::metainfo::Info;
use crate::piece::BlockRef;
pub use config::PoolConfig;
pub(crate) use config::WRITE_CACHE;
use saver::Saver;
use shared::{Shared, panicked};
use tasks::{Barrier, Check, Queue, Task};
use worker::Worker;

/// What a pool begins with; [`super::open()`] finds it out.
#[derive(Debug, Default)]
pub(super) struct Start {
    pub(super) have: Bitfield,
    /// What may be there beside it, and was not looked at yet.
    pub(super) unchecked: Bitfield,
    pub(super) stamps: Vec<Option<Stamp>>,
    pub(super) resume: Option<ResumeFile>,
    /// What it says.
    pub(super) saved: Option<Saved>,
    /// Held as long as the pool lives.
    pub(super) lock: Option<Lock>,
    /// Whether the files may be written to: not for [`Access::Seed`](super::Access::Seed).
    pub(super) writes: bool,
}

/// The disk threads of one torrent. Dropping it waits for what each thread does at the moment (a
/// write, perhaps a sync) and forgets the rest; give [`Job::Save`] and wait for [`Done::Saved`]
/// before.
pub struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    _lock: Option<Lock>,
}

impl Pool {
    /// Starts the threads. `on_done` is called from them with one or more answers at a time; it must
    /// not block for long.
    pub(super) fn start(
        config: PoolConfig,
        info: Arc<Info>,
        storage: Arc<dyn Storage>,
        start: Start,
        on_done: impl Fn(Vec<Done>) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let Start { have, unchecked, stamps, resume, saved, lock, writes } = start;
        let count = config.threads.get();
        // Of a storage whose pieces nobody has to check that is an empty set without a length.
        let unchecked = if unchecked.len() == have.len() { unchecked } else { Bitfield::new(have.len()) };
        let shared = Shared::new(config, info, storage, ((have, unchecked), writes), on_done);
        let shared = Arc::new(shared);
        // From here on a failure to start a thread drops the pool and so ends the others.
        let mut pool = Self { shared: Arc::clone(&shared), threads: Vec::new(), _lock: lock };
        for index in 0..count {
            let shared = Arc::clone(&shared);
            let name = format!("disk-{index}");
            let run = move || run_worker(&shared, index);
            pool.threads.push(std::thread::Builder::new().name(name).spawn(run)?);
        }
        let saver = Saver::new(shared, stamps, resume, saved);
        let run = move || saver.run();
        pool.threads.push(std::thread::Builder::new().name("disk-save".into()).spawn(run)?);
        Ok(pool)
    }

    /// Gives a job. A block to write or read comes back if its thread has too many waiting already
    /// ([`PoolConfig::queue`]); every other job is accepted. Does not block.
    pub fn submit(&self, job: Job) -> Result<(), Job> {
        let mut jobs = VecDeque::from([job]);
        self.submit_all(&mut jobs);
        jobs.pop_front().map_or(Ok(()), Err)
    }

    /// Gives jobs in order, as [`Pool::submit`] does, up to the first one that would come back: it and
    /// all behind it stay in `jobs`. A thread that waits is woken once for all that is new to it.
    pub fn submit_all(&self, jobs: &mut VecDeque<Job>) {
        let mut batches: Vec<Vec<Task>> = self.shared.queues.iter().map(|_| Vec::new()).collect();
        while let Some(job) = jobs.pop_front() {
            if let Err(job) = self.sort(job, &mut batches) {
                jobs.push_front(job);
                break;
            }
        }
        self.shared.queues.iter().zip(batches).for_each(|(queue, batch)| queue.push(batch));
    }

    /// Puts a job to the tasks of the threads that it concerns, unless they have too many.
    fn sort(&self, job: Job, batches: &mut [Vec<Task>]) -> Result<(), Job> {
        let all = |batches: &mut [Vec<Task>], task: &dyn Fn() -> Task| {
            batches.iter_mut().for_each(|batch| batch.push(task()));
        };
        match job {
            Job::Write(BlockRef { piece, .. }, _) | Job::Read(_, BlockRef { piece, .. }) => {
                let worker = self.shared.worker_of(piece);
                let waiting = self.shared.queues[worker].waiting.load(Ordering::Relaxed);
                if waiting + batches[worker].len() >= self.shared.config.queue {
                    return Err(job);
                }
                batches[worker].push(Task::Job(job));
            }
            Job::Forget(BlockRef { piece, .. }) | Job::Discard(piece) => {
                batches[self.shared.worker_of(piece)].push(Task::Job(job));
            }
            // Any thread will do; in front of the next save, as every thread passes that on.
            Job::MakeEmpty(_) => batches[0].push(Task::Job(job)),
            Job::Want(files) => {
                // At once, so that no thread makes a file that is skipped; the rest is work.
                self.shared.want(&files);
                batches[0].push(Task::Job(Job::Want(files)));
            }
            Job::Check(pieces) => {
                let (workers, lanes) = (self.shared.workers(), self.shared.config.lanes);
                let check = Arc::new(Check::new(pieces.iter().collect(), workers, lanes));
                all(batches, &|| Task::Check(Arc::clone(&check)));
            }
            Job::Save(id, totals) => {
                let barrier = Arc::new(Barrier { left: AtomicUsize::new(batches.len()), id, totals });
                all(batches, &|| Task::Save(Arc::clone(&barrier)));
            }
        }
        Ok(())
    }

    /// Goes on after [`Done::Failed`]: tries again what failed, then writes again what a failed sync may
    /// have lost, in steps between all that waits; saves wait for that. After a panic in a disk thread
    /// there is no going on; [`Done::Failed`] is repeated.
    pub fn resume(&self) {
        // Before anybody goes on: no save that is given from now on is told of doubts that need not be.
        if !self.shared.lock_progress().doubted.is_empty() {
            self.shared.queues.iter().for_each(Queue::renew);
        }
        if let Some(error) = self.shared.release() {
            return (self.shared.on_done)(vec![Done::Failed(error)]);
        }
        self.shared.queues.iter().for_each(Queue::wake);
    }

    /// The pieces that are verified and written, though perhaps not synced.
    pub fn written(&self) -> Bitfield {
        self.shared.lock_progress().written.clone()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("threads", &self.threads.len()).finish_non_exhaustive()
    }
}

/// The main function of a worker's thread. A panic, which is a bug of ours, must not leave the owner
/// waiting: it becomes a failure that does not heal.
fn run_worker(shared: &Arc<Shared>, index: usize) {
    let mut worker = Worker::new(Arc::clone(shared), index);
    while !shared.is_stopping() {
        if catch_unwind(AssertUnwindSafe(|| worker.turn())).is_err() {
            shared.hold(panicked(), true);
        }
    }
}
