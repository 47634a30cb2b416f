//! What becomes of what a failed sync may have lost. The kernel reports a failure of writing back once:
//! the next sync succeeds although the bytes are in its cache alone.

use std::io::IoSlice;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use super::*;
use crate::storage::{DiskError, Stamp};

/// Files with a cache above a disk that may fail once.
struct Kernel {
    cache: MemStorage,
    disk: MemStorage,
    state: Mutex<State>,
    /// The next sync panics.
    panics: AtomicBool,
}

#[derive(Default)]
struct State {
    /// Writes that are not on the disk: file, offset, bytes.
    dirty: Vec<(usize, u64, Vec<u8>)>,
    /// The next sync of this file fails, and what it should have written is taken for written.
    fails: Option<(usize, DiskErrorKind)>,
    /// All files are one for the disk: a sync is for all, and so is its failure.
    one: bool,
    /// There is no space to reserve.
    full: bool,
}

impl Kernel {
    fn fail(&self, file: usize, kind: DiskErrorKind) {
        self.state.lock().unwrap().fails = Some((file, kind));
    }

    fn on_disk(&self) -> Vec<u8> {
        (0..LENGTHS.len()).flat_map(|file| self.disk.bytes(file).unwrap_or_default()).collect()
    }

    /// What is in memory alone is lost: read from the disk instead.
    fn drop_cache(&self) {
        for (file, &len) in LENGTHS.iter().enumerate() {
            let bytes = self.disk.bytes(file).unwrap_or_else(|| vec![0; len as usize]);
            self.cache.write(file, 0, &mut [IoSlice::new(&bytes)]).unwrap();
        }
    }
}

impl Storage for Kernel {
    fn read(&self, file: usize, offset: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        self.cache.read(file, offset, buf)
    }

    fn ahead(&self, _: usize, _: u64, _: u32) {}

    fn write(&self, file: usize, offset: u64, bufs: &mut [IoSlice<'_>]) -> Result<(), DiskError> {
        let bytes = bufs.iter().flat_map(|buf| buf.to_vec()).collect();
        self.state.lock().unwrap().dirty.push((file, offset, bytes));
        self.cache.write(file, offset, bufs)
    }

    fn finish(&self, file: usize) -> Result<(), DiskError> {
        self.cache.finish(file)?;
        self.disk.finish(file)
    }

    fn sync(&self, file: usize) -> Result<(), DiskError> {
        assert!(!self.panics.swap(false, Ordering::Relaxed), "injected");
        let mut state = self.state.lock().unwrap();
        let one = state.one;
        let written: Vec<_> = state.dirty.extract_if(.., |(of, ..)| one || *of == file).collect();
        if let Some((_, kind)) = state.fails.take_if(|(of, _)| *of == file) {
            return Err(DiskError {
                kind,
                doing: "syncing",
                path: Path::new("x").into(),
                detail: "once".into(),
            });
        }
        written.iter().try_for_each(|(of, at, bytes)| self.disk.write(*of, *at, &mut [IoSlice::new(bytes)]))
    }

    fn stamp(&self, file: usize) -> Result<Option<Stamp>, DiskError> {
        self.cache.stamp(file)
    }

    fn confirm(&self, _: usize) -> Result<(), DiskError> {
        Ok(())
    }

    fn forget(&self, _: usize) {}

    fn want(&self, _: &[bool]) {}

    fn bring_back(&self, _: usize) -> Result<bool, DiskError> {
        Ok(false)
    }

    fn plan(&self, _: &Bitfield) -> Result<Vec<(usize, u64)>, DiskError> {
        let full = self.state.lock().unwrap().full.then_some(io::ErrorKind::StorageFull);
        full.map_or(Ok(Vec::new()), |why| Err(DiskError::new("reserving", Path::new("x"), &why.into())))
    }

    fn reserve(&self, file: usize, _: u64) -> Result<u64, DiskError> {
        Ok(LENGTHS[file])
    }
}

/// A pool over such files; the storage of the fixture is not used.
fn over_kernel(config: PoolConfig) -> (Fixture, Arc<Kernel>) {
    let mut fixture = Fixture::new(PoolConfig::default());
    let (cache, disk) = (MemStorage::new(LENGTHS), MemStorage::new(LENGTHS));
    let kernel = Arc::new(Kernel { cache, disk, state: Mutex::default(), panics: AtomicBool::new(false) });
    let have = Bitfield::new(fixture.info.pieces());
    let opened = Opened::over(Arc::clone(&fixture.info), Arc::clone(&kernel) as _, have).unwrap();
    let (sender, answers) = channel();
    fixture.pool = opened.start(config, move |done| sender.send(done).unwrap_or(())).unwrap();
    fixture.answers = answers;
    (fixture, kernel)
}

fn doubted(done: &[Done]) -> u32 {
    match done.last() {
        Some(Done::Saved { doubted, .. }) => *doubted,
        other => panic!("{other:?}"),
    }
}

/// All pieces are written; a first save keeps those that are in `safe`, the second one fails for file 3.
fn failed(config: PoolConfig, safe: u32, kind: DiskErrorKind) -> (Fixture, Arc<Kernel>) {
    let (fixture, kernel) = over_kernel(config);
    let mut good = 0;
    let mut pieces = |range: std::ops::Range<u32>| {
        range.clone().for_each(|piece| fixture.write_piece(piece));
        fixture.until(|done| {
            good += u32::from(matches!(done, Done::Piece(_, Verdict::Good)));
            good == range.end
        });
    };
    if safe > 0 {
        pieces(0..safe);
        assert_eq!(doubted(&fixture.save()), 0);
    }
    pieces(safe..fixture.info.pieces());
    kernel.fail(3, kind);
    assert!(matches!(fixture.save()[..], [.., Done::Failed(_), Done::Unsaved(_)]));
    (fixture, kernel)
}

#[test]
fn what_a_failed_sync_lost_is_written_again_before_it_is_claimed() {
    for count in [1, 3] {
        let (fixture, kernel) = failed(threads(count), 0, DiskErrorKind::Io);
        // Nothing is written while the threads hold, and a sync that succeeds proves nothing, nor does one
        // of another file before the one that failed.
        assert_eq!(doubted(&fixture.save()), fixture.info.pieces());
        assert_ne!(kernel.on_disk(), payload());
        fixture.pool.resume();
        assert_eq!(doubted(&fixture.save()), 0);
        assert_eq!(kernel.on_disk(), payload());
    }
}

#[test]
fn what_was_synced_before_a_failed_sync_is_not_in_doubt() {
    let (fixture, kernel) = failed(threads(2), 4, DiskErrorKind::Io);
    assert_eq!(doubted(&fixture.save()), fixture.info.pieces() - 4);
    fixture.pool.resume();
    assert_eq!(doubted(&fixture.save()), 0);
    assert_eq!(kernel.on_disk(), payload());
}

#[test]
fn what_the_cache_does_not_keep_either_is_lost_and_comes_anew() {
    let (fixture, kernel) = failed(threads(2), 4, DiskErrorKind::Io);
    kernel.drop_cache();
    fixture.pool.resume();
    let mut lost = Vec::new();
    for done in fixture.save() {
        match done {
            Done::Lost(pieces) => lost.extend(pieces),
            Done::Saved { doubted, .. } => assert_eq!(doubted, 0),
            Done::Freed(_) => {}
            other => panic!("{other:?}"),
        }
    }
    lost.sort_unstable();
    assert_eq!(lost, (4..fixture.info.pieces()).map(PieceIndex).collect::<Vec<_>>());
    assert_eq!(fixture.pool.written().count(), 4);
    let mut left = lost.len();
    lost.iter().for_each(|piece| fixture.write_piece(piece.0));
    fixture.until(|done| {
        left -= usize::from(matches!(done, Done::Piece(_, Verdict::Good)));
        left == 0
    });
    assert_eq!(doubted(&fixture.save()), 0);
    assert_eq!(kernel.on_disk(), payload());
}

#[test]
fn of_a_file_that_was_taken_away_all_is_in_doubt() {
    let (fixture, _) = failed(threads(2), 4, DiskErrorKind::Missing);
    assert_eq!(doubted(&fixture.save()), fixture.info.layout().piece_range(3).len() as u32);
}

#[test]
fn a_part_that_was_written_early_and_lost_is_written_again_with_its_piece() {
    let (fixture, kernel) = over_kernel(PoolConfig { write_cache: 0, ..threads(1) });
    let last = fixture.info.pieces() - 2;
    let blocks = fixture.blocks(last);
    fixture.write(blocks[0].clone());
    fixture.until(|done| matches!(done, Done::Freed(_)));
    kernel.fail(3, DiskErrorKind::Io);
    assert!(matches!(fixture.save()[..], [.., Done::Failed(_), Done::Unsaved(_)]));
    fixture.pool.resume();
    blocks[1..].iter().for_each(|block| fixture.write(block.clone()));
    fixture.until(|done| matches!(done, Done::Piece(_, Verdict::Good)));
    assert_eq!(doubted(&fixture.save()), 0);
    let whole: Vec<u8> = blocks.into_iter().flat_map(|(_, bytes)| bytes).collect();
    let begin = last as usize * PIECE_LEN as usize;
    // The file before it was not written to.
    let before = LENGTHS[0] as usize + LENGTHS[2] as usize;
    assert_eq!(kernel.disk.bytes(3).unwrap()[begin - before..][..whole.len()], whole);
}

#[test]
fn a_failure_that_files_share_is_told_once_and_counts_for_all() {
    let (fixture, kernel) = over_kernel(threads(2));
    kernel.state.lock().unwrap().one = true;
    fixture.write_piece(0);
    fixture.until(|done| matches!(done, Done::Piece(_, Verdict::Good)));
    let last = fixture.info.pieces() - 1;
    fixture.write_piece(last);
    fixture.until(|done| matches!(done, Done::Piece(_, Verdict::Good)));
    kernel.fail(0, DiskErrorKind::Io);
    assert!(matches!(fixture.save()[..], [.., Done::Failed(_), Done::Unsaved(_)]));
    // Also what the first file has nothing to do with was on its way to the disk, and is lost.
    assert_eq!((kernel.disk.bytes(3), doubted(&fixture.save())), (None, 2));
    fixture.pool.resume();
    assert_eq!(doubted(&fixture.save()), 0);
    let of_last = fixture.info.layout().piece_len(PieceIndex(last)) as usize;
    assert!(kernel.disk.bytes(3).unwrap().ends_with(&payload()[payload().len() - of_last..]));
}

#[test]
fn a_sync_that_fails_while_a_part_is_written_is_not_overlooked() {
    let (fixture, kernel) = over_kernel(threads(1));
    let (early, other) = (fixture.info.pieces() - 1, fixture.info.pieces() - 2);
    // As a thread that writes it early, while another save has begun before it.
    fixture.pool.shared.writing(&[PieceIndex(early)], || {
        assert_eq!(doubted(&fixture.save()), 0);
        kernel.write(3, LENGTHS[3] - 5, &mut [IoSlice::new(b"early")]).unwrap();
        fixture.write_piece(other);
        fixture.until(|done| matches!(done, Done::Piece(_, Verdict::Good)));
        kernel.fail(3, DiskErrorKind::Io);
        assert!(matches!(fixture.save()[..], [.., Done::Failed(_), Done::Unsaved(_)]));
    });
    fixture.pool.resume();
    assert_eq!(doubted(&fixture.save()), 0);
    // It is not written again before it is whole.
    assert!(fixture.pool.shared.lock_progress().doubted.contains(early));
    fixture.write_piece(early);
    fixture.until(|done| matches!(done, Done::Piece(_, Verdict::Good)));
    assert_eq!(doubted(&fixture.save()), 0);
}

#[test]
fn after_a_panic_while_saving_nothing_more_is_claimed() {
    let (fixture, kernel) = over_kernel(threads(2));
    fixture.write_piece(0);
    fixture.until(|done| matches!(done, Done::Piece(_, Verdict::Good)));
    kernel.panics.store(true, Ordering::Relaxed);
    assert!(matches!(fixture.save()[..], [.., Done::Failed(_), Done::Unsaved(_)]));
    for _ in 0..2 {
        fixture.pool.resume();
        assert!(matches!(fixture.save()[..], [.., Done::Failed(_), Done::Unsaved(_)]));
    }
}

#[test]
fn what_may_be_lost_is_written_again_also_where_there_is_no_space_to_reserve() {
    let (fixture, kernel) = failed(PoolConfig { reserve: true, ..threads(1) }, 0, DiskErrorKind::Io);
    kernel.state.lock().unwrap().full = true;
    fixture.pool.submit(Job::Want(vec![true; 4])).unwrap();
    fixture.pool.resume();
    fixture.until(|done| matches!(done, Done::Failed(error) if error.kind == DiskErrorKind::NoSpace));
    assert_eq!(doubted(&fixture.save()), 0);
    assert_eq!(kernel.on_disk(), payload());
}

#[test]
fn no_peer_is_blamed_for_what_a_failed_sync_lost_of_an_unfinished_piece() {
    let (fixture, kernel) = over_kernel(PoolConfig { write_cache: 0, ..threads(1) });
    let last = fixture.info.pieces() - 2;
    let blocks = fixture.blocks(last);
    // Not the first one: it would be hashed before it is written.
    fixture.write(blocks[1].clone());
    fixture.until(|done| matches!(done, Done::Freed(_)));
    kernel.fail(3, DiskErrorKind::Io);
    assert!(matches!(fixture.save()[..], [.., Done::Failed(_), Done::Unsaved(_)]));
    kernel.drop_cache();
    fixture.pool.resume();
    let verdict = || {
        let done = fixture.until(|done| matches!(done, Done::Piece(..)));
        done.into_iter()
            .find_map(|done| if let Done::Piece(_, verdict) = done { Some(verdict) } else { None })
    };
    [0, 2].iter().for_each(|&at: &usize| fixture.write(blocks[at].clone()));
    assert_eq!(verdict(), Some(Verdict::Lost));
    // That excuses nobody who sends what is wrong then.
    let mut wrong = blocks.clone();
    wrong[1].1[0] ^= 1;
    [1, 0, 2].iter().for_each(|&at: &usize| fixture.write(wrong[at].clone()));
    assert!(matches!(verdict(), Some(Verdict::Bad { .. })));
    fixture.write_piece(last);
    assert_eq!(verdict(), Some(Verdict::Good));
    assert_eq!(doubted(&fixture.save()), 0);
}
