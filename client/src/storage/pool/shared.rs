//! [`Shared`]: what the threads of a pool have in common: what is written, whether they hold, saves that
//! are due.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::config::PoolConfig;
use super::progress::Progress;
use super::tasks::{Barrier, Queue};
use crate::bitfield::Bitfield;
use crate::metainfo::Info;
use crate::piece::PieceIndex;
use crate::storage::{DiskError, Done, SaveId, Storage, Totals};

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
    /// Whether anything may be written at all.
    pub(super) writes: bool,
}

/// Why all threads hold.
#[derive(Default)]
struct Hold {
    error: Option<DiskError>,
    /// A thread panicked.
    fatal: bool,
}

/// The latest save that is due: with it the earlier ones are done.
#[derive(Default)]
pub(super) struct Saves(Option<(SaveId, Totals)>);

impl Saves {
    pub(super) fn take(&mut self) -> Option<(SaveId, Totals)> {
        self.0.take()
    }
}

impl Shared {
    /// For as many workers as the config says; `have` is written already, and `writes` says whether more
    /// may be.
    pub(super) fn new(
        config: PoolConfig,
        info: Arc<Info>,
        storage: Arc<dyn Storage>,
        (have, writes): (Bitfield, bool),
        on_done: impl Fn(Vec<Done>) + Send + Sync + 'static,
    ) -> Self {
        Self {
            info,
            storage,
            on_done: Box::new(on_done),
            queues: (0..config.threads.get()).map(|_| Queue::default()).collect(),
            progress: Mutex::new(Progress::new(have)),
            hold: Mutex::default(),
            held: AtomicBool::new(false),
            saves: Mutex::default(),
            save_wake: Condvar::new(),
            stopping: AtomicBool::new(false),
            writes,
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

    /// Notes that these pieces are verified and lie in their files; says whether some are in doubt.
    pub(super) fn mark_written(&self, pieces: &[PieceIndex]) -> bool {
        let mut progress = self.lock_progress();
        for &piece in pieces {
            progress.written.insert(piece.0);
            progress.touch(piece, self.info.layout());
        }
        pieces.iter().any(|piece| progress.doubted.contains(piece.0))
    }

    /// Notes that a file looks otherwise than before, with the same content.
    pub(super) fn mark_touched(&self, file: usize) {
        let mut progress = self.lock_progress();
        // It has several steps one after the other.
        if progress.touched.last() != Some(&file) {
            progress.touched.push(file);
        }
    }

    /// Writes these pieces, or parts of them, with `write`. A sync that fails meanwhile may lose them, so
    /// they count as not synced before it begins. Another save may take that for its own sync, which comes
    /// before the write: so they do once more when it has ended, whatever came of it.
    pub(super) fn writing<T>(&self, pieces: &[PieceIndex], write: impl FnOnce() -> T) -> T {
        let layout = self.info.layout();
        let mut progress = self.lock_progress();
        pieces.iter().for_each(|&piece| progress.touch(piece, layout));
        let failures = progress.failures;
        drop(progress);
        let written = write();
        let mut progress = self.lock_progress();
        pieces.iter().for_each(|&piece| progress.touch_again(piece, layout, failures));
        written
    }

    /// These files are to be synced again, and these pieces are not synced.
    pub(super) fn put_back(&self, files: &[usize], pieces: &Bitfield) {
        self.lock_progress().put_back(files, pieces.iter());
    }

    /// Something was brought into a file.
    pub(super) fn mark_brought_back(&self, file: usize) {
        self.lock_progress().put_back(&[file], self.info.layout().piece_range(file));
    }

    /// A sync failed, of a file that holds these pieces and `gone` says whether it was taken away.
    pub(super) fn doubt(&self, pieces: Range<u32>, gone: bool) {
        let mut progress = self.lock_progress();
        match gone {
            true => progress.doubt_gone(pieces),
            false => progress.doubt_unsynced(),
        }
    }

    /// Doubted pieces of one worker that were written.
    pub(super) fn doubted(&self, worker: usize) -> VecDeque<PieceIndex> {
        let progress = self.lock_progress();
        let pieces = progress.doubted.iter().filter(|&piece| progress.written.contains(piece));
        pieces.map(PieceIndex).filter(|&piece| self.worker_of(piece) == worker).collect()
    }

    /// How many syncs have failed so far, if a piece is still in doubt and written.
    pub(super) fn failures(&self, piece: PieceIndex) -> Option<u64> {
        let progress = self.lock_progress();
        let due = progress.doubted.contains(piece.0) && progress.written.contains(piece.0);
        due.then_some(progress.failures)
    }

    /// An unfinished piece is wrong: says whether that may be because of a sync that failed. All of it is
    /// written anew, so that excuses nobody a second time.
    pub(super) fn excuse(&self, piece: PieceIndex) -> bool {
        let mut progress = self.lock_progress();
        !progress.written.contains(piece.0) && progress.doubted.remove(piece.0)
    }

    /// A doubted piece was found right and written again, or is lost. `failures`: of when that began.
    pub(super) fn renewed(&self, piece: PieceIndex, right: bool, failures: u64) {
        let mut progress = self.lock_progress();
        progress.touch(piece, self.info.layout());
        if !right {
            progress.written.remove(piece.0);
        }
        // Another sync that has failed meanwhile may have lost it once more.
        if !right || progress.failures == failures {
            progress.doubted.remove(piece.0);
        }
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
            // Every worker passes them on in order, so this is the latest.
            saves.0 = Some((barrier.id, barrier.totals));
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
