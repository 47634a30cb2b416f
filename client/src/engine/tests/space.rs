//! Space that is taken before anything is downloaded.

use std::os::unix::fs::MetadataExt as _;

use super::*;
use crate::storage::{
    DiskError, DiskErrorKind, Fault, FaultyStorage, FileStorage, Storage, default_open_files,
};

/// Files in a folder whose space is reserved, with faults on order.
#[derive(Debug)]
struct Faulty(Arc<FaultyStorage<FileStorage>>);

impl Faulty {
    fn new(folder: &TempDir) -> Self {
        let info = Arc::new(metainfo().info);
        let files = FileStorage::new(info, folder.path(), default_open_files()).unwrap();
        Self(Arc::new(FaultyStorage::new(files.with_preallocation(Preallocation::Full))))
    }
}

impl Backend for Faulty {
    fn open(&self, _: &Info) -> Result<Arc<dyn Storage>, DiskError> {
        Ok(Arc::clone(&self.0) as _)
    }
}

fn taken(path: &Path) -> Option<u64> {
    Some(std::fs::metadata(path).ok()?.blocks() * 512)
}

/// Events until the torrent is complete.
async fn all(events: &mut Events) -> Vec<Event> {
    let mut all = Vec::new();
    loop {
        all.push(events.next().await.expect("the torrent goes on"));
        if matches!(all.last(), Some(Event::Complete)) {
            return all;
        }
    }
}

#[tokio::test]
async fn space_is_taken_before_the_first_piece_and_later_for_what_is_wanted_later() {
    struct First;
    impl Accepts for First {
        fn priority(&self, index: usize, _: &Path) -> u16 {
            u16::from(index == 0)
        }
    }
    let (from, _seed, _data) = seeder().await;
    let bind = Bind { addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), required: true };
    let listeners = Listeners::bind(&[bind]).unwrap();
    // The session says so, or the torrent.
    let (preallocation, allow_local) = (Preallocation::Full, true);
    let full = Session::new(Options { preallocation, allow_local, ..Options::new(listeners) }).unwrap();
    for (session, preallocation) in [(full, None), (session(), Some(Preallocation::Full))] {
        let folder = tempfile::tempdir().unwrap();
        let options = AddOptions {
            output: folder.path().to_owned(),
            peers: from.local_addrs().to_vec(),
            select: Select::Matching(Box::new(First)),
            preallocation,
            ..AddOptions::default()
        };
        let (torrent, mut events) = session.add(source(), options).unwrap();
        let seen = all(&mut events).await;
        let begins = seen.iter().position(|event| matches!(event, Event::Piece(_))).unwrap();
        let total = 200_000;
        let told = |event: &Event| matches!(event, Event::Preallocating { done, total: all } if (*done, *all) == (total, total));
        assert!(seen[..begins].iter().any(told), "{seen:?}");
        let [a, b] = ["t/a", "t/b"].map(|name| folder.path().join(name));
        assert!(taken(&a) >= Some(200_000) && taken(&b).is_none());
        torrent.prioritize(vec![1, 1]).await;
        until(&mut events, |event| matches!(event, Event::Preallocating { done, total } if done == total))
            .await;
        assert!(taken(&b) >= Some(LEN as u64 - 200_000));
        torrent.wait_complete().await.unwrap();
        assert_eq!(std::fs::read(b).unwrap(), payload()[200_000..]);
        torrent.close().await;
    }
}

#[tokio::test]
async fn a_disk_without_space_is_told_before_anything_is_asked_for_and_may_be_tried_again() {
    let (from, seed, _data) = seeder().await;
    let (session, folder) = (session(), tempfile::tempdir().unwrap());
    let faulty = Faulty::new(&folder);
    faulty.0.set(Some(Fault::NoSpace), 0);
    let disk = Arc::clone(&faulty.0);
    let options = AddOptions {
        storage: Some(Arc::new(faulty)),
        peers: from.local_addrs().to_vec(),
        preallocation: Some(Preallocation::Full),
        ..AddOptions::default()
    };
    let (torrent, _events) = session.add(source(), options).unwrap();
    let full = |phase: Phase| matches!(phase, Phase::Failed(Failed::Disk(error)) if error.kind == DiskErrorKind::NoSpace);
    assert!(full(torrent.wait_complete().await.unwrap_err()));
    assert_eq!((torrent.downloaded(), seed.uploaded(), torrent.progress().await), (0, 0, None));
    // Nothing is wanted then: the whole is not tried again.
    torrent.prioritize(vec![0, 0]).await;
    torrent.retry().await;
    // It has heard that when it answers.
    torrent.peers().await;
    torrent.wait_complete().await.unwrap();
    assert_eq!((torrent.downloaded(), taken(&folder.path().join("t/a"))), (0, None));
    // More is wanted, and there is still no space.
    torrent.prioritize(vec![1, 1]).await;
    torrent.peers().await;
    assert!(full(torrent.wait_complete().await.unwrap_err()));
    disk.set(None, 0);
    torrent.retry().await;
    torrent.peers().await;
    torrent.wait_complete().await.unwrap();
    assert_eq!(std::fs::read(folder.path().join("t/a")).unwrap(), payload()[..200_000]);
}

#[tokio::test]
async fn memory_has_nothing_to_preallocate() {
    let (from, _seed, _data) = seeder().await;
    let (session, memory) = (session(), Arc::new(Memory::new(1 << 20)));
    let options = AddOptions {
        storage: Some(memory.clone()),
        peers: from.local_addrs().to_vec(),
        preallocation: Some(Preallocation::Full),
        ..AddOptions::default()
    };
    let (torrent, mut events) = session.add(source(), options).unwrap();
    let seen = all(&mut events).await;
    assert!(
        !seen.iter().any(|event| matches!(event, Event::Preallocating { .. } | Event::Warning(_))),
        "{seen:?}"
    );
    assert!(torrent.is_seed());
    assert_eq!(memory.bytes(1).unwrap(), payload()[200_000..]);
}

#[tokio::test]
async fn a_seed_takes_no_space() {
    let (folder, session) = (tempfile::tempdir().unwrap(), session());
    put(folder.path());
    let path = folder.path().join("t/b");
    // All of it is there, with a hole where zeros are.
    let options = AddOptions {
        output: folder.path().to_owned(),
        share: Share::SeedOnly,
        preallocation: Some(Preallocation::Full),
        ..AddOptions::default()
    };
    std::fs::File::options().write(true).open(&path).unwrap().set_len(1 << 30).unwrap();
    let before = taken(&path);
    let (torrent, _) = session.add(source(), options).unwrap();
    torrent.wait_complete().await.unwrap();
    assert_eq!((taken(&path), std::fs::metadata(&path).unwrap().len()), (before, 1 << 30));
}
