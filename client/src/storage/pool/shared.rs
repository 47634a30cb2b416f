//! [`Shared`]: what the threads of a pool have in common: what is written, whether they hold, saves that
//! are due.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::config::PoolConfig;
use super::progress::Progress;
use super::tasks::{Barrier, Queue};
use crate::bitfield::Bitfield;
use crate::metainfo::Info;
use crate::piece::PieceIndex;
use crate::storage::{DiskError, DiskErrorKind, Done, SaveId, Storage, Totals};

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
    /// Which files are wanted, by index; those beyond the end are.
    wanted: Mutex<Vec<bool>>,
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
    /// For as many workers as the config says; `have` is written already, what is `unchecked` may be, and
    /// `writes` says whether more may be.
    pub(super) fn new(
        config: PoolConfig,
        info: Arc<Info>,
        storage: Arc<dyn Storage>,
        ((have, unchecked), writes): ((Bitfield, Bitfield), bool),
        on_done: impl Fn(Vec<Done>) + Send + Sync + 'static,
    ) -> Self {
        Self {
            info,
            storage,
            on_done: Box::new(on_done),
            queues: (0..config.threads.get()).map(|_| Queue::default()).collect(),
            progress: Mutex::new(Progress::new(have, unchecked)),
            hold: Mutex::default(),
            held: AtomicBool::new(false),
            saves: Mutex::default(),
            save_wake: Condvar::new(),
            stopping: AtomicBool::new(false),
            wanted: Mutex::default(),
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
            progress.mark_written(piece, self.info.layout());
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

    /// Writes these pieces, or parts of them, to their files. If one of the files was taken away, or is another
    /// one now, nothing of it is believed any more before it was hashed: that is an error if anything was,
    /// else the file is made anew.
    pub(super) fn write(
        &self,
        pieces: &[PieceIndex],
        mut write: impl FnMut() -> Result<(), DiskError>,
    ) -> Result<(), DiskError> {
        match self.writing(pieces, &mut write) {
            Err(error) if error.kind == DiskErrorKind::Missing && !self.were_believed(pieces) => {
                self.writing(pieces, write)
            }
            written => written,
        }
    }

    /// Takes the files of these pieces that are not as they were for gone; says whether anything of them was
    /// believed, or there are none and it is something else.
    fn were_believed(&self, pieces: &[PieceIndex]) -> bool {
        let layout = self.info.layout();
        let spans = pieces.iter().flat_map(|&piece| layout.spans(piece, 0, layout.piece_len(piece)));
        let files: BTreeSet<usize> = spans.filter(|span| !span.pad).map(|span| span.file).collect();
        let is_gone = |&file: &usize| {
            let confirmed = self.storage.confirm(file);
            confirmed.is_err_and(|error| error.kind == DiskErrorKind::Missing)
        };
        let gone: Vec<usize> = files.into_iter().filter(is_gone).collect();
        // All of them, whatever is believed of the first.
        gone.is_empty() || gone.into_iter().filter(|&file| self.gone(file)).count() > 0
    }

    /// A file was taken away, or is another one now. Says whether anything of it was believed until now.
    pub(super) fn gone(&self, file: usize) -> bool {
        let believed = self.lock_progress().doubt_gone(self.info.layout().piece_range(file));
        // Not before: what is made from now on must not be taken for what was there.
        self.storage.forget(file);
        believed
    }

    /// The same for a file that could not be worked on, which is an error in any case.
    pub(super) fn gone_if_missing(&self, file: usize, error: DiskError) -> DiskError {
        if error.kind == DiskErrorKind::Missing {
            self.gone(file);
        }
        error
    }

    /// These pieces are about to be hashed. Files of which nothing else is believed may have been changed until
    /// now.
    pub(super) fn take_as_they_are(&self, pieces: &[u32]) {
        let mut hashed = Bitfield::new(self.info.pieces());
        for &piece in pieces {
            hashed.insert(piece);
        }
        let written = self.lock_progress().written.clone();
        for file in self.info.files().filter(|file| file.is_stored() && !file.is_empty()) {
            let mut range = file.piece_range();
            if range.clone().any(|piece| hashed.contains(piece))
                && range.all(|piece| hashed.contains(piece) || !written.contains(piece))
            {
                self.storage.forget(file.index);
                // What cannot be looked at is not right either.
                let _ = self.storage.stamp(file.index);
            }
        }
    }

    /// A piece cannot be read because a file is not there, or too short. All that lies where nothing is any
    /// more is given up, and what else there is of such files is hashed again.
    pub(super) fn lose_unreadable(&self, piece: PieceIndex) -> Vec<PieceIndex> {
        let layout = self.info.layout();
        let mut lost = BTreeSet::from([piece]);
        let spans = layout.spans(piece, 0, layout.piece_len(piece)).filter(|span| !span.pad);
        let files: BTreeSet<usize> = spans.map(|span| span.file).collect();
        let mut short = Vec::new();
        for file in files.into_iter().filter_map(|file| self.info.file(file)) {
            let there = self.storage.stamp(file.index).ok().flatten().map_or(0, |stamp| stamp.len);
            if there < file.len() {
                let first = (file.extent.offset + there) / u64::from(layout.nominal_piece_len().max(1));
                lost.extend(file.piece_range().filter(|&piece| u64::from(piece) >= first).map(PieceIndex));
                short.push(file.index);
            }
        }
        let mut progress = self.lock_progress();
        let lost: Vec<_> = lost.into_iter().filter(|piece| progress.written.contains(piece.0)).collect();
        progress.lose(&lost);
        drop(progress);
        if short.into_iter().filter(|&file| self.gone(file)).count() > 0 {
            self.queues.iter().for_each(Queue::renew);
            self.queues.iter().for_each(Queue::wake);
        }
        lost
    }

    /// A sync failed: what was not synced may be lost.
    pub(super) fn doubt_unsynced(&self) {
        self.lock_progress().doubt_unsynced();
    }

    /// From now on these files are wanted.
    pub(super) fn want(&self, files: &[bool]) {
        self.storage.want(files);
        *self.wanted.lock().unwrap_or_else(PoisonError::into_inner) = files.to_vec();
    }

    /// Whether it was said which files are wanted.
    pub(super) fn knows_wanted(&self) -> bool {
        !self.wanted.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    pub(super) fn wants(&self, file: usize) -> bool {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner).get(file).copied().unwrap_or(true)
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
            // Every worker passes them on in order, so this is the latest; and the answer to one that nobody
            // waits for is none to whoever waits for the one before it.
            let due = saves.0.map_or(barrier.id, |(due, _)| due.max(barrier.id));
            saves.0 = Some((due, barrier.totals));
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
