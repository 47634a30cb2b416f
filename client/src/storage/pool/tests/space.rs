//! Space that is reserved for files, and what a restart makes of such files.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::*;
use crate::storage::{FileStorage, OpenOptions, Preallocation, Reserved, SaveId, open};

/// Files below a folder, with faults on order.
struct Disk {
    pool: Pool,
    storage: Arc<FaultyStorage<FileStorage>>,
    answers: Receiver<Vec<Done>>,
}

impl Disk {
    fn new(dir: &Path) -> Self {
        let (info, open_files) = (info(), NonZeroUsize::new(4).unwrap());
        let files = FileStorage::new(Arc::clone(&info), dir, open_files).unwrap();
        let storage = Arc::new(FaultyStorage::new(files.with_preallocation(Preallocation::Full)));
        let have = Bitfield::new(info.pieces());
        let opened = Opened::over(info, Arc::clone(&storage) as _, have).unwrap();
        let (sender, answers) = channel();
        let config = PoolConfig { reserve: true, ..threads(2) };
        let pool = opened.start(config, move |done| sender.send(done).unwrap_or(())).unwrap();
        Self { pool, storage, answers }
    }

    /// Says which files are wanted; what comes until that is done, or fails.
    fn want(&self, wanted: [bool; 4]) -> Vec<Done> {
        self.pool.submit(Job::Want(wanted.to_vec())).unwrap();
        until(&self.answers, ended)
    }
}

fn ended(done: &Done) -> bool {
    matches!(done, Done::Reserved(Reserved::Ended) | Done::Failed(_))
}

fn until(answers: &Receiver<Vec<Done>>, is: impl Fn(&Done) -> bool) -> Vec<Done> {
    let mut all = Vec::new();
    while !all.iter().any(&is) {
        all.extend(answers.recv_timeout(Duration::from_secs(20)).expect("an answer in time"));
    }
    all
}

/// Bytes that the files take on the disk; `None` for one that is not there.
fn taken(dir: &Path) -> Vec<Option<u64>> {
    let taken = |file| Some(fs::metadata(dir.join(format!("n/f{file}"))).ok()?.blocks() * 512);
    (0..LENGTHS.len()).map(taken).collect()
}

#[test]
fn wanted_files_have_their_space_and_others_when_they_are_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::new(dir.path());
    let answers = disk.want([true, true, true, false]);
    let [Done::Reserved(all), Done::Reserved(Reserved::Ended)] = &answers[..] else { panic!("{answers:?}") };
    assert_eq!(*all, Reserved::Part { done: 100_007, total: 100_007 });
    let [a, empty, b, skipped] = taken(dir.path())[..] else { panic!("there are four") };
    assert!(a >= Some(100_000) && b >= Some(7), "{a:?} and {b:?}");
    assert_eq!((empty, skipped), (None, None));
    let answers = disk.want([true; 4]);
    let part = Reserved::Part { done: 150_000, total: 150_000 };
    assert!(matches!(&answers[0], Done::Reserved(told) if *told == part), "{answers:?}");
    assert!(taken(dir.path())[3] >= Some(150_000));
    assert!(matches!(disk.want([true; 4])[..], [Done::Reserved(Reserved::Ended)]), "nothing is left");
}

#[test]
fn a_full_disk_holds_until_there_is_space_or_less_is_wanted() {
    for frees in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::new(dir.path());
        disk.storage.set(Some(Fault::NoSpace), 0);
        let answers = disk.want([true; 4]);
        assert!(matches!(&answers[..], [Done::Failed(error)] if error.kind == DiskErrorKind::NoSpace));
        // Who reserves may have made the file before it is refused.
        assert_eq!(disk.pool.shared.lock_progress().touched, [0]);
        // What there is can be saved meanwhile, and trying again fails again.
        disk.pool.submit(Job::Save(SaveId(1), Totals::default())).unwrap();
        until(&disk.answers, |done| matches!(done, Done::Saved { .. }));
        disk.pool.resume();
        assert!(matches!(until(&disk.answers, ended)[..], [Done::Failed(_)]));
        if frees {
            disk.storage.set(None, 0);
        } else {
            disk.pool.submit(Job::Want(vec![false; 4])).unwrap();
        }
        disk.pool.resume();
        let answers = until(&disk.answers, ended);
        assert!(matches!(answers.last(), Some(Done::Reserved(Reserved::Ended))), "{answers:?}");
        assert_eq!(taken(dir.path())[0].is_some(), frees);
    }
}

#[test]
fn each_time_that_files_are_wanted_has_an_end_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::new(dir.path());
    disk.storage.set(Some(Fault::NoSpace), 0);
    let answers = disk.want([true; 4]);
    assert!(matches!(&answers[..], [Done::Failed(_)]));
    for _ in 0..2 {
        disk.pool.submit(Job::Want(vec![true; 4])).unwrap();
    }
    disk.storage.set(None, 0);
    disk.pool.resume();
    // Behind all of them, with what they reserve.
    let mut ends = 0;
    let mut parts = 0;
    while ends < 3 {
        for done in disk.answers.recv_timeout(Duration::from_secs(20)).expect("an answer in time") {
            ends += usize::from(matches!(done, Done::Reserved(Reserved::Ended)));
            parts += usize::from(matches!(done, Done::Reserved(Reserved::Part { .. })));
        }
    }
    assert!(parts > 0 && taken(dir.path())[3] >= Some(150_000));
    assert!(matches!(disk.want([true; 4])[..], [Done::Reserved(Reserved::Ended)]), "nothing is left");
}

#[test]
fn a_disk_that_cannot_reserve_is_told_of_once_and_written_to() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::new(dir.path());
    disk.storage.set(Some(Fault::Unreservable), 0);
    let answers = disk.want([true; 4]);
    let [Done::Reserved(Reserved::Unsupported(why)), Done::Reserved(Reserved::Ended)] = &answers[..] else {
        panic!("{answers:?}");
    };
    assert_eq!(why.kind, DiskErrorKind::Unsupported);
    assert_eq!(disk.pool.shared.lock_progress().touched, [0]);
    assert!(matches!(disk.want([true; 4])[..], [Done::Reserved(Reserved::Ended)]));
    let block = payload()[..BLOCK_LEN as usize].to_vec();
    for begin in [0, BLOCK_LEN, 2 * BLOCK_LEN] {
        let at = BlockRef { piece: PieceIndex(0), begin, len: BLOCK_LEN };
        let bytes = payload()[begin as usize..][..block.len()].to_vec();
        disk.pool.submit(Job::Write(at, Block::from(bytes))).unwrap();
    }
    until(&disk.answers, |done| matches!(done, Done::Piece(PieceIndex(0), Verdict::Good)));
    assert_eq!(fs::metadata(dir.path().join("n/f0")).unwrap().len(), 100_000);
}

/// A run that writes these pieces and saves, if `saves`.
fn run(dir: &Path, preallocation: Preallocation, pieces: std::ops::Range<u32>, saves: bool) {
    let opened = open(&info(), dir, &OpenOptions { preallocation, ..OpenOptions::default() }).unwrap();
    let (sender, answers) = channel();
    let pool = opened.start(threads(2), move |done| sender.send(done).unwrap_or(())).unwrap();
    pool.submit(Job::Want(vec![true; 4])).unwrap();
    if preallocation == Preallocation::Full {
        until(&answers, ended);
    }
    for piece in pieces {
        let start = (piece * PIECE_LEN) as usize;
        let len = info().layout().piece_len(PieceIndex(piece)) as usize;
        for (index, block) in payload()[start..start + len].chunks(BLOCK_LEN as usize).enumerate() {
            let begin = index as u32 * BLOCK_LEN;
            let at = BlockRef { piece: PieceIndex(piece), begin, len: block.len() as u32 };
            pool.submit(Job::Write(at, Block::from(block.to_vec()))).unwrap();
        }
        until(&answers, |done| matches!(done, Done::Piece(..)));
    }
    if saves {
        pool.submit(Job::Save(SaveId(1), Totals::default())).unwrap();
        until(&answers, |done| matches!(done, Done::Saved { .. }));
    }
}

/// What the next run believes and what it checks.
fn found(dir: &Path, preallocation: Preallocation) -> (Vec<u32>, Vec<u32>) {
    let opened = open(&info(), dir, &OpenOptions { preallocation, ..OpenOptions::default() }).unwrap();
    (opened.have.iter().collect(), opened.to_check.iter().collect())
}

#[test]
fn what_is_reserved_and_not_written_is_neither_claimed_nor_hashed_by_the_next_run() {
    use Preallocation::{Full, None as Grows, Sparse};
    for (first, then) in [(Full, Full), (Full, Grows), (Sparse, Full), (Grows, Full), (Grows, Grows)] {
        let dir = tempfile::tempdir().unwrap();
        run(dir.path(), first, 0..2, true);
        assert_eq!(found(dir.path(), then), (vec![0, 1], vec![]), "{first}, then {then}");
        // Space is taken, or not, of files that hold something already.
        run(dir.path(), then, 2..2, true);
        assert_eq!(found(dir.path(), then), (vec![0, 1], vec![]), "{first}, then {then}");
        run(dir.path(), then, 2..info().pieces(), true);
        assert_eq!(found(dir.path(), then).0.len() as u32, info().pieces(), "{first}, then {then}");
        let on_disk = |file| fs::read(dir.path().join(format!("n/f{file}"))).unwrap();
        assert_eq!((0..4).flat_map(on_disk).collect::<Vec<u8>>(), payload(), "{first}, then {then}");
    }
}

#[test]
fn reserved_files_of_a_killed_run_are_hashed_and_only_what_is_right_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), Preallocation::Full, 0..2, false);
    let options = OpenOptions { preallocation: Preallocation::Full, ..OpenOptions::default() };
    let opened = open(&info(), dir.path(), &options).unwrap();
    assert_eq!((opened.have.count(), opened.to_check.count()), (0, info().pieces()));
    let to_check = opened.to_check.clone();
    let (sender, answers) = channel();
    let pool = opened.start(threads(2), move |done| sender.send(done).unwrap_or(())).unwrap();
    pool.submit(Job::Check(to_check)).unwrap();
    until(&answers, |done| matches!(done, Done::CheckEnded));
    assert_eq!(pool.written().iter().collect::<Vec<_>>(), [0, 1]);
}
