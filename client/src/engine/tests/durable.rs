//! A torrent is complete when a crash could not take it any more.

use std::io::IoSlice;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::net::TcpListener;
use tokio::time::{Instant, advance, pause};

use super::*;
use crate::bitfield::Bitfield;
use crate::storage::{DiskError, Fault, FaultyStorage, MemStorage, Stamp, Storage};

/// Files in memory whose syncs wait until they may end.
struct Files {
    inner: FaultyStorage<MemStorage>,
    may_end: Mutex<bool>,
    told: Condvar,
    synced: AtomicUsize,
}

impl Files {
    fn let_syncs_end(&self) {
        *self.may_end.lock().unwrap() = true;
        self.told.notify_all();
    }
}

impl Storage for Files {
    fn read(&self, file: usize, offset: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        self.inner.read(file, offset, buf)
    }

    fn ahead(&self, file: usize, offset: u64, len: u32) {
        self.inner.ahead(file, offset, len);
    }

    fn write(&self, file: usize, offset: u64, bufs: &mut [IoSlice<'_>]) -> Result<(), DiskError> {
        self.inner.write(file, offset, bufs)
    }

    fn finish(&self, file: usize) -> Result<(), DiskError> {
        self.inner.finish(file)
    }

    fn sync(&self, file: usize) -> Result<(), DiskError> {
        drop(self.told.wait_while(self.may_end.lock().unwrap(), |may_end| !*may_end).unwrap());
        self.inner.sync(file)?;
        self.synced.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn stamp(&self, file: usize) -> Result<Option<Stamp>, DiskError> {
        self.inner.stamp(file)
    }

    fn confirm(&self, file: usize) -> Result<(), DiskError> {
        self.inner.confirm(file)
    }

    fn forget(&self, file: usize) {
        self.inner.forget(file);
    }

    fn want(&self, files: &[bool]) {
        self.inner.want(files);
    }

    fn bring_back(&self, file: usize) -> Result<bool, DiskError> {
        self.inner.bring_back(file)
    }

    fn plan(&self, there: &Bitfield) -> Result<Vec<(usize, u64)>, DiskError> {
        self.inner.plan(there)
    }

    fn reserve(&self, file: usize, from: u64) -> Result<u64, DiskError> {
        self.inner.reserve(file, from)
    }
}

#[derive(Clone)]
struct Kept(Arc<Files>);

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Kept")
    }
}

impl Backend for Kept {
    fn open(&self, _: &Info) -> Result<Arc<dyn Storage>, DiskError> {
        Ok(Arc::clone(&self.0) as _)
    }
}

/// A download into such files.
fn into_files(from: &Session, session: &Session) -> (Arc<Files>, Torrent, Events) {
    into_files_of(from, session, Vec::new())
}

/// The same with trackers.
fn into_files_of(from: &Session, session: &Session, trackers: Vec<String>) -> (Arc<Files>, Torrent, Events) {
    let files = Arc::new(Files {
        inner: FaultyStorage::new(MemStorage::new([200_000, LEN as u64 - 200_000])),
        may_end: Mutex::new(false),
        told: Condvar::new(),
        synced: AtomicUsize::new(0),
    });
    let storage: Option<Arc<dyn Backend>> = Some(Arc::new(Kept(Arc::clone(&files))));
    let peers = from.local_addrs().to_vec();
    let options = AddOptions { storage, peers, trackers, ..AddOptions::default() };
    let (torrent, events) = session.add(source(), options).unwrap();
    (files, torrent, events)
}

/// S50. The disk is slow, and the tracker takes our connection and says nothing.
#[tokio::test]
async fn a_session_ends_within_three_seconds_whoever_does_not_answer() {
    let (from, _seed, _data) = seeder().await;
    let session = session();
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tracker = format!("http://{}/announce", mute.local_addr().unwrap());
    let (files, _torrent, mut events) = into_files_of(&from, &session, vec![tracker]);
    let (_held, _) = mute.accept().await.unwrap();
    until(&mut events, |event| matches!(event, Event::Verified)).await;

    pause();
    let (begun, step) = (Instant::now(), Duration::from_millis(100));
    let mut end = std::pin::pin!(session.shutdown());
    while end.as_mut().now_or_never().is_none() {
        assert!(begun.elapsed() < Duration::from_secs(3), "it still waits");
        advance(step).await;
    }
    // They were waited for, or this shows nothing.
    assert!(begun.elapsed() > Duration::from_secs(1), "{:?}", begun.elapsed());
    files.let_syncs_end();
}

/// The disk is in the middle of a sync that takes long.
#[tokio::test]
async fn a_torrent_is_closed_within_three_seconds_whatever_the_disk_does() {
    let (from, _seed, _data) = seeder().await;
    let session = session();
    let (files, torrent, mut events) = into_files(&from, &session);
    until(&mut events, |event| matches!(event, Event::Verified)).await;

    pause();
    let (begun, step) = (Instant::now(), Duration::from_millis(100));
    let mut end = std::pin::pin!(torrent.close());
    while end.as_mut().now_or_never().is_none() {
        assert!(begun.elapsed() < Duration::from_secs(3), "it still waits");
        advance(step).await;
    }
    files.let_syncs_end();
}

#[tokio::test]
async fn a_torrent_is_complete_when_its_files_are_synced() {
    let (from, _seed, _data) = seeder().await;
    let session = session();
    let (files, torrent, mut events) = into_files(&from, &session);
    until(&mut events, |event| matches!(event, Event::Verified)).await;
    assert!(torrent.is_complete(), "it is written");
    assert_eq!((torrent.phase(), files.synced.load(Ordering::SeqCst)), (Phase::Running, 0));
    while let Some(event) = events.try_next() {
        assert!(!matches!(event, Event::Complete));
    }
    files.let_syncs_end();
    torrent.wait_complete().await.unwrap();
    assert_eq!(files.synced.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_torrent_whose_last_sync_fails_is_not_complete_before_a_retry() {
    let (from, _seed, _data) = seeder().await;
    let session = session();
    let (files, torrent, mut events) = into_files(&from, &session);
    files.inner.set(Some(Fault::SyncError), 0);
    files.let_syncs_end();
    let failed = torrent.wait_complete().await.unwrap_err();
    assert!(matches!(failed, Phase::Failed(Failed::Disk(_))), "{failed:?}");
    while let Some(event) = events.try_next() {
        assert!(!matches!(event, Event::Complete));
    }
    files.inner.set(None, 0);
    torrent.retry().await;
    until(&mut events, |event| matches!(event, Event::Complete)).await;
    assert_eq!((torrent.phase(), files.synced.load(Ordering::SeqCst)), (Phase::Complete, 2));
}
