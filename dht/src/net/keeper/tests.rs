use super::*;
use crate::net::SavedHome;
use crate::store::Store;
use crate::{Config, Rng};

fn some(seed: u64) -> Saved {
    let id = Rng::from_seed(seed).id();
    Saved { homes: vec![SavedHome { id, ipv6: false, local: None, external: None, nodes: Vec::new() }] }
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
    let pieces = save_store(&mut keeper, later, &store).await;
    assert!(pieces > 5, "{pieces}");
    keeper.store.as_mut().unwrap().running.take().unwrap().await.unwrap().unwrap();
    assert_eq!((keeper.stats().saved.peers, saved_peers(&keeper.folder)), (20_000, 20_000));

    // What came since is saved at the end, and an emptied store empties the file.
    keeper.finish(later, &stored(now, 7), Saved::default()).await.unwrap();
    let state = StateFolder::open(folder.path()).unwrap();
    assert_eq!(saved_peers(&state), 7);
    let keeper = StateKeeper::new(state, Saved::default(), now).with_store(Counts::default(), now);
    keeper.finish(later, &empty(), Saved::default()).await.unwrap();
    assert_eq!(saved_peers(&StateFolder::open(folder.path()).unwrap()), 0);
}

#[tokio::test]
async fn a_copy_waits_for_the_disk_and_is_given_up_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let now = Time::from_secs(10_000);
    let state = StateFolder::open(folder.path()).unwrap();
    let mut keeper = StateKeeper::new(state, Saved::default(), now).with_store(Counts::default(), now);
    let store = stored(now, 100_000);
    let later = keeper.due();
    assert!(keeper.work_on_store(later, &store));
    // A disk that takes nothing, for a writer that does.
    let kept = keeper.store.as_mut().unwrap();
    let (pieces, mut inbox) = mpsc::channel(PIECES);
    let copied = std::mem::take(&mut kept.copying.as_mut().unwrap().copied);
    kept.copying = Some(Copying { pieces, copied, pause: DISK_PAUSE });
    for _ in 0..PIECES {
        assert!(keeper.work_on_store(later, &store));
    }
    let mut waiting = later;
    for pause in [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000] {
        assert!(!keeper.work_on_store(waiting, &store));
        waiting += Duration::from_millis(pause);
        assert_eq!(store_due(&keeper), waiting);
    }
    // Once it takes one more, the next wait is a short one again.
    drop(inbox.try_recv().unwrap());
    assert!(keeper.work_on_store(waiting, &store) && !keeper.work_on_store(waiting, &store));
    assert_eq!(store_due(&keeper), waiting + DISK_PAUSE);
    drop(inbox);
    assert!(!keeper.work_on_store(waiting + DISK_PAUSE, &store));
    let again = store_due(&keeper);
    assert_eq!(again, waiting + DISK_PAUSE + SAVE_EVERY, "a writer that has failed");
    keeper.store.as_mut().unwrap().running.take().unwrap().await.unwrap().unwrap();
    assert!(!keeper.folder.has_store(), "half a copy is none");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "the lock alone");

    // One that is under way at the end makes way for the last one.
    assert!(keeper.work_on_store(again, &store) && keeper.work_on_store(again, &store));
    keeper.finish(again, &stored(now, 7), Saved::default()).await.unwrap();
    assert_eq!(saved_peers(&StateFolder::open(folder.path()).unwrap()), 7);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "nothing half written");
}

/// The clock moves once nothing runs any more but what waits for ever.
#[tokio::test(start_paused = true)]
async fn a_disk_that_hangs_with_the_store_has_the_table_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let now = Time::from_secs(100);
    let state = StateFolder::open(folder.path()).unwrap();
    let mut keeper = StateKeeper::new(state, Saved::default(), now).with_store(Counts::default(), now);
    keeper.save(now, some(1));
    keeper.store.as_mut().unwrap().running = Some(tokio::spawn(std::future::pending()));
    let store = stored(now, 7);
    let finished = tokio::time::timeout(SAVE_EVERY, keeper.finish(now, &store, some(2))).await;
    assert!(finished.is_err(), "the store is waited for");
    assert_eq!(Saved::read(folder.path()), some(2));
}

/// However long the writers before it take, the ages of the last copy are those of its beginning.
#[tokio::test]
async fn the_last_copy_is_as_old_as_its_ages() {
    let folder = tempfile::tempdir().unwrap();
    let now = Time::from_secs(100);
    let state = StateFolder::open(folder.path()).unwrap();
    let mut keeper = StateKeeper::new(state, Saved::default(), now).with_store(Counts::default(), now);
    let later = Arc::new(std::sync::Mutex::new(None));
    let said = Arc::clone(&later);
    keeper.store.as_mut().unwrap().running = Some(tokio::spawn(async move {
        *said.lock().unwrap() = Some(Moment::now());
        Ok(())
    }));
    keeper.finish(now, &stored(now, 7), Saved::default()).await.unwrap();
    let later = later.lock().unwrap().take().expect("it was waited for");
    let mut began = None;
    StateFolder::open(folder.path()).unwrap().read_store(u64::MAX, |at, _| {
        began = Some(at.uptime);
        Ok(())
    });
    assert!(began.unwrap() <= later.uptime);
}

#[tokio::test]
async fn a_large_store_is_saved_every_ten_minutes() {
    let folder = tempfile::tempdir().unwrap();
    let now = Time::from_secs(10_000);
    let state = StateFolder::open(folder.path()).unwrap();
    let mut keeper = StateKeeper::new(state, Saved::default(), now).with_store(Counts::default(), now);
    for (bytes, pause) in [(1 << 20, 60), (16 << 20, 256), (80 << 20, 600)] {
        let now = store_due(&keeper);
        let (copying, writer) = Copying::begin(&keeper.folder, Moment::now());
        let kept = keeper.store.as_mut().unwrap();
        kept.copying = Some(Copying { copied: Copied { bytes, ..copying.copied }, ..copying });
        let store = stored(now, 1);
        while keeper.store.as_ref().unwrap().copying.is_some() {
            keeper.work_on_store(now, &store);
        }
        writer.await.unwrap().unwrap();
        assert_eq!(store_due(&keeper), now + Duration::from_secs(pause));
    }
}

fn store_due(keeper: &StateKeeper) -> Time {
    keeper.store.as_ref().unwrap().due
}

/// Works until the store is copied; in how many pieces.
async fn save_store(keeper: &mut StateKeeper, now: Time, store: &Store) -> usize {
    let mut pieces = 0;
    assert!(keeper.work_on_store(now, store), "it is due");
    let mut now = now;
    while keeper.store.as_ref().unwrap().copying.is_some() {
        if keeper.work_on_store(now, store) {
            assert_eq!(keeper.due(), Time::ZERO, "at once");
            pieces += 1;
        } else {
            // The disk lags behind; were it asked again and again, hours would pass on this clock.
            now = now.max(store_due(keeper));
            if let Some(copying) = &keeper.store.as_ref().unwrap().copying {
                drop(copying.pieces.reserve().await);
            }
        }
    }
    pieces
}

/// Peers that come back.
fn saved_peers(state: &StateFolder) -> u64 {
    let (mut store, now) = (empty(), Time::from_secs(20_000));
    state.read_store(u64::MAX, |_, piece| store.restore(now, piece, Duration::ZERO, false).map(drop));
    store.len() as u64
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
