//! What the threads of a pool are given, and the queues in which it waits.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::hash::Lanes;
use crate::piece::PieceIndex;
use crate::storage::{Job, SaveId, Totals};

/// What a worker is given.
pub(super) enum Task {
    Job(Job),
    Check(Arc<Check>),
    Found(Found),
    Save(Arc<Barrier>),
}

/// A [`Job::Check`]: every worker takes the next pieces that nobody has taken.
pub(super) struct Check {
    pieces: Vec<u32>,
    next: AtomicUsize,
    /// Pieces that are taken together.
    share: usize,
    /// Workers that still have a piece of it in hand, and [`Found`]s on their way.
    pub(super) open: AtomicUsize,
    begun: AtomicBool,
}

/// What a check has found about pieces of one worker.
pub(super) struct Found {
    pub(super) check: Arc<Check>,
    /// Whether the bytes that were read had the right hash.
    pub(super) pieces: Vec<(PieceIndex, bool)>,
}

impl Check {
    pub(super) fn new(pieces: Vec<u32>, workers: usize, lanes: Lanes) -> Self {
        let share = lanes.share(pieces.len(), workers);
        let (next, open) = (AtomicUsize::new(0), AtomicUsize::new(workers));
        Self { pieces, next, share, open, begun: AtomicBool::new(false) }
    }

    /// All its pieces, for the first who asks.
    pub(super) fn begin(&self) -> Option<&[u32]> {
        (!self.begun.swap(true, Ordering::AcqRel)).then_some(&self.pieces)
    }

    pub(super) fn take(&self) -> &[u32] {
        let begin = self.next.fetch_add(self.share, Ordering::Relaxed).min(self.pieces.len());
        let end = (begin + self.share).min(self.pieces.len());
        &self.pieces[begin..end]
    }
}

/// A [`Job::Save`] on its way through all threads: the last one that it reaches starts it.
pub(super) struct Barrier {
    pub(super) left: AtomicUsize,
    pub(super) id: SaveId,
    pub(super) totals: Totals,
}

/// Tasks for one worker.
#[derive(Default)]
pub(super) struct Queue {
    tasks: Mutex<VecDeque<Task>>,
    wake: Condvar,
    /// Tasks here and in the worker's hands.
    pub(super) waiting: AtomicUsize,
    /// Before all tasks, pieces that a sync may have lost are to be written again.
    renew: AtomicBool,
}

impl Queue {
    /// Has the worker write again what a sync may have lost, when it may go on; it is not woken.
    pub(super) fn renew(&self) {
        self.renew.store(true, Ordering::Release);
    }

    pub(super) fn is_to_renew(&self) -> bool {
        self.renew.load(Ordering::Acquire)
    }

    pub(super) fn take_renew(&self) -> bool {
        self.renew.swap(false, Ordering::AcqRel)
    }

    pub(super) fn push(&self, tasks: Vec<Task>) {
        if !tasks.is_empty() {
            self.waiting.fetch_add(tasks.len(), Ordering::Relaxed);
            self.lock().extend(tasks);
            self.wake.notify_one();
        }
    }

    pub(super) fn wake(&self) {
        // With the lock, so that a worker about to sleep does not miss it.
        drop(self.lock());
        self.wake.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Task>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves all tasks to `into`; waits for one if `wait` says so for as long as none is there.
    pub(super) fn take(&self, into: &mut VecDeque<Task>, wait: impl Fn() -> bool) {
        let mut tasks = self.lock();
        while tasks.is_empty() && wait() {
            tasks = self.wake.wait(tasks).unwrap_or_else(PoisonError::into_inner);
        }
        into.append(&mut tasks);
    }

    /// Notes that a task has been worked on.
    pub(super) fn ended(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
