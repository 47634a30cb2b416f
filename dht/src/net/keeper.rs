//! [`StateKeeper`]: saves what changed, off the task's thread: the table every minute, the store as
//! often as its size allows, both at the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::Error;
use super::moment::Moment;
use super::persist::{Saved, StateFolder};
use super::stored::{MAX_ARCHIVE, Stored};
use crate::store::{Archiving, Counts, Kept};
use crate::{Node, Time};

/// Pause between saves of state that changed.
const SAVE_EVERY: Duration = Duration::from_secs(60);
/// Bytes per second that saving the store writes at most, in the mean: a store of 16 MiB is saved
/// every four minutes.
const STORE_RATE: u64 = 64 << 10;

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
    due: Time,
    copying: Option<(Moment, Archiving)>,
    running: Option<JoinHandle<Result<(), Error>>>,
    /// The file may hold something, so that an empty store is news.
    is_on_disk: bool,
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
        store.map_or(self.due, |store| {
            if store.copying.is_some() { Time::ZERO } else { store.due }.min(self.due)
        })
    }

    pub(super) fn stats(&self) -> StateStats {
        self.stats
    }

    /// Saves for the last time.
    ///
    /// # Errors
    /// [`Error::State`]; what could be saved was.
    pub(super) async fn finish(
        mut self,
        now: Time,
        store: impl Into<Kept<'_>>,
        saved: Saved,
    ) -> Result<(), Error> {
        let store = store.into();
        let running = [self.running.take(), self.store.as_mut().and_then(|store| store.running.take())];
        for running in running.into_iter().flatten() {
            // How it went is in `failed`; the store is written anew in any case.
            let _ = running.await;
        }
        let table = (saved != self.last || self.failed.load(Ordering::Relaxed)).then_some(saved);
        let stored = self.store.filter(|kept| kept.is_on_disk || !store.is_empty()).map(|_| {
            let (at, mut archiving) = (Moment::now(), store.begin_archive(now, MAX_ARCHIVE));
            while !store.archive_some(now, &mut archiving) {}
            Stored { archive: archiving.finish(), at }
        });
        let folder = self.folder;
        let written = tokio::task::spawn_blocking(move || {
            let table = table.map_or(Ok(()), |saved| folder.write(&saved));
            let stored = stored.map_or(Ok(()), |stored| folder.write_store(stored));
            table.and(stored)
        });
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
        let Some((at, mut archiving)) = keeper.copying.take() else {
            if now < keeper.due {
                return false;
            }
            keeper.due = now + SAVE_EVERY;
            if is_running(keeper.running.as_ref()) || store.is_empty() && !keeper.is_on_disk {
                return false;
            }
            keeper.copying = Some((Moment::now(), store.begin_archive(now, MAX_ARCHIVE)));
            return true;
        };
        if !store.archive_some(now, &mut archiving) {
            keeper.copying = Some((at, archiving));
            return true;
        }
        let archive = archiving.finish();
        keeper.is_on_disk = archive.counts != Counts::default();
        keeper.due = now + SAVE_EVERY.max(Duration::from_secs(archive.len() as u64 / STORE_RATE));
        self.stats.saved = archive.counts;
        self.stats.saves += 1;
        let folder = Arc::clone(&self.folder);
        keeper.running = Some(tokio::task::spawn_blocking(move || {
            let written = folder.write_store(Stored { archive, at });
            if let Err(error) = &written {
                tracing::warn!(%error, "announced peers were not saved; trying again");
            }
            written
        }));
        false
    }
}

fn is_running(task: Option<&JoinHandle<Result<(), Error>>>) -> bool {
    task.is_some_and(|task| !task.is_finished())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::SavedHome;
    use crate::store::Store;
    use crate::{Config, Rng};

    fn some(seed: u64) -> Saved {
        let id = Rng::from_seed(seed).id();
        Saved { homes: vec![SavedHome { id, ipv6: false, external: None, nodes: Vec::new() }] }
    }

    fn empty() -> Store {
        Store::new(&Arc::new(Config::default()), &mut Rng::from_seed(1))
    }

    /// A store with so many peers, announced at `now`.
    fn stored(now: Time, peers: u32) -> Store {
        let (mut store, mut rng) = (empty(), Rng::from_seed(2));
        for n in 0..peers {
            let [_, b, c, d] = n.to_be_bytes();
            store.announce(now, &rng.id(), ([81, b, c, d], 6881).into(), false);
        }
        store
    }

    #[tokio::test]
    async fn state_is_saved_when_it_changed_and_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let mut now = Time::from_secs(100);
        let mut keeper = StateKeeper::new(StateFolder::open(folder.path()).unwrap(), Saved::default(), now);
        assert_eq!(keeper.due(), now + SAVE_EVERY);
        now = keeper.due;
        keeper.save(now, Saved::default());
        assert!(keeper.running.is_none(), "nothing has changed");
        keeper.save(now, some(1));
        keeper.running.as_mut().expect("it has changed").await.unwrap().unwrap();
        assert_eq!((Saved::read(folder.path()), keeper.due), (some(1), now + SAVE_EVERY));
        keeper.running = None;
        keeper.save(now, some(2));
        keeper.finish(now, &empty(), some(3)).await.unwrap();
        assert_eq!(Saved::read(folder.path()), some(3), "the last save comes last");
    }

    #[tokio::test]
    async fn a_save_that_failed_is_tried_again_in_a_minute_and_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let (state, away) = (folder.path().join("state"), folder.path().join("away"));
        let mut keeper = StateKeeper::new(StateFolder::open(&state).unwrap(), Saved::default(), Time::ZERO);
        for in_the_end in [false, true] {
            std::fs::rename(&state, &away).unwrap();
            let saved = some(in_the_end.into());
            keeper.save(Time::ZERO, saved.clone());
            keeper.running.as_mut().expect("it has changed").await.unwrap().unwrap_err();
            keeper.running = None;
            std::fs::rename(&away, &state).unwrap();
            if in_the_end {
                keeper.finish(Time::ZERO, &empty(), saved.clone()).await.unwrap();
                assert_eq!(Saved::read(&state), saved);
                return;
            }
            keeper.save(Time::ZERO, saved.clone());
            keeper.running.as_mut().expect("the last one failed").await.unwrap().unwrap();
            keeper.running = None;
            assert_eq!(Saved::read(&state), saved);
        }
    }

    #[tokio::test]
    async fn the_store_is_copied_in_pieces_and_written_behind() {
        let folder = tempfile::tempdir().unwrap();
        let now = Time::from_secs(10_000);
        let state = StateFolder::open(folder.path()).unwrap();
        let mut keeper = StateKeeper::new(state, Saved::default(), now).with_store(Counts::default(), now);
        let store = stored(now, 20_000);
        assert!(!keeper.work_on_store(now, &store), "not yet");
        let later = keeper.due();
        let mut pieces = 0;
        while keeper.work_on_store(later, &store) {
            assert_eq!(keeper.due(), Time::ZERO, "at once");
            pieces += 1;
        }
        assert!(pieces > 5, "{pieces}");
        keeper.store.as_mut().unwrap().running.take().unwrap().await.unwrap().unwrap();
        assert_eq!(keeper.stats().saved.peers, 20_000);
        let read = keeper.folder.read_store().unwrap();
        assert_eq!(empty().restore(later, &read.archive, Duration::ZERO, false).unwrap().peers, 20_000);

        // What came since is saved at the end, and an emptied store empties the file.
        keeper.finish(later, &stored(now, 7), Saved::default()).await.unwrap();
        let state = StateFolder::open(folder.path()).unwrap();
        let read = state.read_store().unwrap();
        assert_eq!(empty().restore(later, &read.archive, Duration::ZERO, false).unwrap().peers, 7);
        let keeper = StateKeeper::new(state, Saved::default(), now).with_store(Counts::default(), now);
        keeper.finish(later, &empty(), Saved::default()).await.unwrap();
        let read = StateFolder::open(folder.path()).unwrap().read_store().unwrap();
        assert_eq!(read.archive, crate::store::Archive::default());
    }

    #[tokio::test]
    async fn a_node_that_stores_nothing_writes_no_store() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateFolder::open(folder.path()).unwrap();
        let mut keeper =
            StateKeeper::new(state, Saved::default(), Time::ZERO).with_store(Counts::default(), Time::ZERO);
        assert!(!keeper.work_on_store(Time::from_secs(600), &empty()));
        keeper.finish(Time::from_secs(600), &empty(), Saved::default()).await.unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "the lock alone");
    }
}
