//! [`StateKeeper`]: saves what changed, off the task's thread: the table every minute, the store as
//! often as its size allows, both at the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::Error;
use super::moment::Moment;
use super::persist::{Piece, Saved, StateFolder};
use crate::store::{Archiving, Counts, Kept};
use crate::{Node, Time};

/// Pause between saves of state that changed.
const SAVE_EVERY: Duration = Duration::from_secs(60);
/// Bytes per second that saving the store writes, in the mean, unless the pause between two saves became
/// too long: a store of 16 MiB is saved every four minutes.
const STORE_RATE: u64 = 64 << 10;
/// Longest pause between saves of the store, a fraction of the time for which an announce counts: a crash
/// loses no more than came since. The largest store of the defaults writes some 130 KB/s by it.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
/// Pieces of the store, of some 50 KB, that wait for the disk.
const PIECES: usize = 8;
/// Pause of the copy while the disk has no room for more: twice as long each time, so that a disk that
/// hangs wakes nobody two hundred times a second.
const DISK_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_DISK_PAUSE: Duration = Duration::from_secs(1);

/// What was loaded and saved by one process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StateStats {
    /// What an earlier run left.
    pub loaded: Counts,
    /// What the last save of the store held.
    pub saved: Counts,
    /// Saves that were begun, of table and store.
    pub saves: u64,
}

/// Saves what changed.
#[derive(Debug)]
pub(super) struct StateKeeper {
    folder: Arc<StateFolder>,
    last: Saved,
    due: Time,
    running: Option<JoinHandle<Result<(), Error>>>,
    /// The last save failed, so that `last` is not on disk.
    failed: Arc<AtomicBool>,
    /// None if the store is not kept.
    store: Option<StoreKeeper>,
    stats: StateStats,
}

/// The store's part.
#[derive(Debug)]
struct StoreKeeper {
    /// When to begin a copy, or to go on with it.
    due: Time,
    copying: Option<Copying>,
    running: Option<JoinHandle<Result<(), Error>>>,
    /// The file may hold something, so that an empty store is news.
    is_on_disk: bool,
}

/// A copy on its way to the disk. It is given up when this is dropped.
#[derive(Debug)]
struct Copying {
    pieces: mpsc::Sender<Piece>,
    copied: Copied,
    /// How long to wait when the disk has no room.
    pause: Duration,
}

/// How far a copy has come.
#[derive(Debug, Default)]
struct Copied {
    archiving: Archiving,
    counts: Counts,
    bytes: usize,
}

impl Copying {
    /// Starts a writer of a copy whose ages count from `at`, which waits for pieces.
    fn begin(folder: &Arc<StateFolder>, at: Moment) -> (Self, JoinHandle<Result<(), Error>>) {
        let (pieces, mut inbox) = mpsc::channel(PIECES);
        let folder = Arc::clone(folder);
        let writer = tokio::task::spawn_blocking(move || folder.write_store(&at, || inbox.blocking_recv()));
        (Self { pieces, copied: Copied::default(), pause: DISK_PAUSE }, writer)
    }
}

impl Copied {
    fn next(&mut self, now: Time, store: Kept<'_>) -> Piece {
        let is_last = store.archive_some(now, &mut self.archiving);
        let archive = self.archiving.take_piece();
        self.counts.peers += archive.counts.peers;
        self.counts.items += archive.counts.items;
        self.bytes += archive.len();
        Piece { archive, is_last }
    }
}

impl StateKeeper {
    /// Keeps `folder`, which holds `last` now.
    pub(super) fn new(folder: StateFolder, last: Saved, now: Time) -> Self {
        Self {
            folder: Arc::new(folder),
            last,
            due: now + SAVE_EVERY,
            running: None,
            failed: Arc::default(),
            store: None,
            stats: StateStats::default(),
        }
    }

    /// Keeps the store too, in which there is what was `loaded`.
    pub(super) fn with_store(mut self, loaded: Counts, now: Time) -> Self {
        let (due, is_on_disk) = (now + SAVE_EVERY, self.folder.has_store());
        self.store = Some(StoreKeeper { due, copying: None, running: None, is_on_disk });
        self.stats.loaded = loaded;
        self
    }

    /// Does a little of what is due, which takes some 50 µs at most; whether there is more to do.
    pub(super) fn work(&mut self, now: Time, node: &Node, saved: impl FnOnce() -> Saved) -> bool {
        if self.due <= now {
            self.save(now, saved());
        }
        self.work_on_store(now, node.kept())
    }

    /// When [`StateKeeper::work`] wants to be called.
    pub(super) fn due(&self) -> Time {
        let store = self.store.as_ref();
        store.map_or(self.due, |store| store.due.min(self.due))
    }

    pub(super) fn stats(&self) -> StateStats {
        self.stats
    }

    /// Saves for the last time: the table first, which waits for nothing but its own writer. The store is
    /// a thousand times larger, and a disk that is too slow for it has room for the table.
    ///
    /// # Errors
    /// [`Error::State`]; what could be saved was.
    pub(super) async fn finish(
        mut self,
        now: Time,
        store: impl Into<Kept<'_>>,
        saved: Saved,
    ) -> Result<(), Error> {
        // The ages of the copy count from `now`, however long the waits are.
        let at = Moment::now();
        let store = store.into();
        if let Some(kept) = &mut self.store {
            // Given up, since the store may have changed behind it.
            kept.copying = None;
        }
        let written = self.finish_table(saved).await;
        let Some(mut kept) = self.store.take() else { return written };
        if let Some(running) = kept.running.take() {
            // However it went: the store is written anew.
            let _ = running.await;
        }
        if !kept.is_on_disk && store.is_empty() {
            return written;
        }
        let stored = copy_whole((now, at), store, &self.folder).await;
        written.and(stored)
    }

    async fn finish_table(&mut self, saved: Saved) -> Result<(), Error> {
        if let Some(running) = self.running.take() {
            // How it went is in `failed`.
            let _ = running.await;
        }
        if saved == self.last && !self.failed.load(Ordering::Relaxed) {
            return Ok(());
        }
        let folder = Arc::clone(&self.folder);
        let written = tokio::task::spawn_blocking(move || folder.write(&saved));
        written.await.unwrap_or(Err(Error::Stopped))
    }

    /// Starts to save `saved` if it differs from what is on disk, unless a save is running.
    fn save(&mut self, now: Time, saved: Saved) {
        self.due = now + SAVE_EVERY;
        if is_running(self.running.as_ref())
            || saved == self.last && !self.failed.swap(false, Ordering::Relaxed)
        {
            return;
        }
        self.last = saved.clone();
        self.stats.saves += 1;
        let (folder, failed) = (Arc::clone(&self.folder), Arc::clone(&self.failed));
        self.running = Some(tokio::task::spawn_blocking(move || {
            let written = folder.write(&saved);
            if let Err(error) = &written {
                failed.store(true, Ordering::Relaxed);
                tracing::warn!(%error, "state was not saved; trying again in a minute");
            }
            written
        }));
    }

    fn work_on_store<'a>(&mut self, now: Time, store: impl Into<Kept<'a>>) -> bool {
        let store = store.into();
        let Some(keeper) = &mut self.store else { return false };
        if now < keeper.due {
            return false;
        }
        let Some(Copying { pieces, copied, pause }) = &mut keeper.copying else {
            keeper.due = now + SAVE_EVERY;
            if is_running(keeper.running.as_ref()) || store.is_empty() && !keeper.is_on_disk {
                return false;
            }
            let (copying, writer) = Copying::begin(&self.folder, Moment::now());
            self.stats.saves += 1;
            keeper.due = Time::ZERO;
            keeper.copying = Some(copying);
            keeper.running = Some(tokio::spawn(warn(writer)));
            return true;
        };
        if pieces.is_closed() {
            // The writer has failed, and says so.
            (keeper.copying, keeper.due) = (None, now + SAVE_EVERY);
            return false;
        }
        let Ok(room) = pieces.try_reserve() else {
            keeper.due = now + *pause;
            *pause = LONGEST_DISK_PAUSE.min(*pause * 2);
            return false;
        };
        *pause = DISK_PAUSE;
        let piece = copied.next(now, store);
        let is_last = piece.is_last;
        room.send(piece);
        if !is_last {
            keeper.due = Time::ZERO;
            return true;
        }
        let pause = Duration::from_secs(copied.bytes as u64 / STORE_RATE);
        keeper.due = now + pause.clamp(SAVE_EVERY, LONGEST_PAUSE);
        keeper.is_on_disk = copied.counts != Counts::default();
        self.stats.saved = copied.counts;
        keeper.copying = None;
        false
    }
}

/// Copies everything to the disk, as fast as it takes it.
async fn copy_whole(
    (now, at): (Time, Moment),
    store: Kept<'_>,
    folder: &Arc<StateFolder>,
) -> Result<(), Error> {
    let (Copying { pieces, mut copied, .. }, writer) = Copying::begin(folder, at);
    // A writer that has failed takes no more.
    while let Ok(room) = pieces.reserve().await {
        let piece = copied.next(now, store);
        let is_last = piece.is_last;
        room.send(piece);
        if is_last {
            break;
        }
    }
    writer.await.unwrap_or(Err(Error::Stopped))
}

/// Waits for a writer of the store, and says when it fails.
async fn warn(writer: JoinHandle<Result<(), Error>>) -> Result<(), Error> {
    let written = writer.await.unwrap_or(Err(Error::Stopped));
    if let Err(error) = &written {
        tracing::warn!(%error, "announced peers were not saved; trying again");
    }
    written
}

fn is_running(task: Option<&JoinHandle<Result<(), Error>>>) -> bool {
    task.is_some_and(|task| !task.is_finished())
}

#[cfg(test)]
mod tests;
