//! [`Shared`]: what the threads of a pool have in common: what is written, whether they hold, saves that
//! are due.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::config::PoolConfig;
use super::tasks::{Barrier, Queue};
use crate::bitfield::Bitfield;
use crate::metainfo::Info;
use crate::piece::PieceIndex;
use crate::storage::{DiskError, Done, Storage, Totals};

/// What the threads of a pool share.
pub(super) struct Shared {
    pub(super) config: PoolConfig,
    pub(super) info: Arc<Info>,
    pub(super) storage: Arc<dyn Storage>,
    pub(super) on_done: Box<dyn Fn(Vec<Done>) + Send + Sync>,
    pub(super) queues: Vec<Queue>,
    progress: Mutex<Progress>,
    hold: Mutex<Hold>,
    /// Copy of whether there is a hold, for a cheap look.
    held: AtomicBool,
    saves: Mutex<Saves>,
    pub(super) save_wake: Condvar,
    stopping: AtomicBool,
}

/// What is written so far.
#[derive(Default)]
pub(super) struct Progress {
    /// Pieces that are verified and written.
    pub(super) written: Bitfield,
    /// Files written to, or believed because of what they hold, since they were last synced.
    pub(super) dirty: Vec<usize>,
    /// Files whose sync failed once. The kernel may have dropped what it could not write, and report
    /// success the next time: their pieces are not claimed any more in this run.
    pub(super) doubted: Vec<usize>,
}

/// Why all threads hold.
#[derive(Default)]
struct Hold {
    error: Option<DiskError>,
    /// A thread panicked.
    fatal: bool,
}

/// Saves that are due; several become one.
#[derive(Default)]
pub(super) struct Saves {
    pub(super) totals: Totals,
    pub(super) answers: u32,
}

impl Shared {
    /// For as many workers as the config says; `have` is written already.
    pub(super) fn new(
        config: PoolConfig,
        info: Arc<Info>,
        storage: Arc<dyn Storage>,
        have: Bitfield,
        on_done: impl Fn(Vec<Done>) + Send + Sync + 'static,
    ) -> Self {
        Self {
            info,
            storage,
            on_done: Box::new(on_done),
            queues: (0..config.threads.get()).map(|_| Queue::default()).collect(),
            progress: Mutex::new(Progress { written: have, ..Progress::default() }),
            hold: Mutex::default(),
            held: AtomicBool::new(false),
            saves: Mutex::default(),
            save_wake: Condvar::new(),
            stopping: AtomicBool::new(false),
            config,
        }
    }

    pub(super) fn queue(&self, worker: usize) -> &Queue {
        &self.queues[worker]
    }

    pub(super) fn worker_of(&self, piece: PieceIndex) -> usize {
        let stretch = self.config.join / self.info.layout().nominal_piece_len().max(1);
        (piece.0 / stretch.max(1)) as usize % self.queues.len()
    }

    pub(super) fn workers(&self) -> usize {
        self.queues.len()
    }

    pub(super) fn is_held(&self) -> bool {
        self.held.load(Ordering::Acquire)
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    pub(super) fn lock_progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that these pieces are verified and lie in their files.
    pub(super) fn mark_written(&self, pieces: &[PieceIndex]) {
        let mut progress = self.lock_progress();
        for &piece in pieces {
            progress.written.insert(piece.0);
            self.dirty(&mut progress, piece, self.info.layout().piece_len(piece));
        }
    }

    /// Notes that part of `piece` was written before it was verified.
    pub(super) fn mark_dirty(&self, piece: PieceIndex) {
        let len = self.info.layout().piece_len(piece);
        self.dirty(&mut self.lock_progress(), piece, len);
    }

    fn dirty(&self, progress: &mut Progress, piece: PieceIndex, len: u32) {
        for span in self.info.layout().spans(piece, 0, len).filter(|span| !span.pad) {
            if let Err(at) = progress.dirty.binary_search(&span.file) {
                progress.dirty.insert(at, span.file);
            }
        }
    }

    /// These files are to be synced again.
    pub(super) fn put_back(&self, files: &[usize]) {
        let mut progress = self.lock_progress();
        progress.dirty.extend_from_slice(files);
        progress.dirty.sort_unstable();
        progress.dirty.dedup();
    }

    /// Lets all threads hold and reports why, unless they hold already.
    pub(super) fn hold(&self, error: DiskError, fatal: bool) {
        let mut hold = self.lock_hold();
        hold.fatal |= fatal;
        if hold.error.is_some() && !fatal {
            return;
        }
        hold.error = Some(error.clone());
        self.held.store(true, Ordering::Release);
        drop(hold);
        (self.on_done)(vec![Done::Failed(error)]);
    }

    /// Ends the hold, unless a thread has panicked: then says why it stays.
    pub(super) fn release(&self) -> Option<DiskError> {
        let mut hold = self.lock_hold();
        if !hold.fatal {
            hold.error = None;
            self.held.store(false, Ordering::Release);
        }
        hold.error.clone()
    }

    /// Lets all threads end.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.queues.iter().for_each(Queue::wake);
        drop(self.lock_saves());
        self.save_wake.notify_all();
    }

    /// A barrier has reached one more worker.
    pub(super) fn arrive(&self, barrier: &Barrier) {
        if barrier.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            let mut saves = self.lock_saves();
            saves.totals = barrier.totals;
            saves.answers += 1;
            self.save_wake.notify_one();
        }
    }

    fn lock_hold(&self) -> MutexGuard<'_, Hold> {
        self.hold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn lock_saves(&self) -> MutexGuard<'_, Saves> {
        self.saves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn panicked() -> DiskError {
    let error = io::Error::other("a disk thread panicked; this is a bug");
    DiskError::new("working on", Path::new("the disk"), &error)
}
