//! Files that are taken away, cut or replaced while a download knows of them.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::UNIX_EPOCH;

use super::*;
use crate::storage::{Access, FileStorage, OpenOptions, Stamp, open};

/// A pool over a folder.
struct Run {
    pool: Pool,
    answers: Receiver<Vec<Done>>,
    info: Arc<Info>,
    have: Vec<u32>,
    to_check: Vec<u32>,
}

impl Run {
    fn begin(dir: &Path) -> Self {
        Self::with(dir, &OpenOptions::default())
    }

    fn with(dir: &Path, options: &OpenOptions) -> Self {
        let info = info();
        let opened = open(&info, dir, options).unwrap();
        let (have, to_check) = (opened.have.iter().collect(), opened.to_check.iter().collect());
        let (sender, answers) = channel();
        let pool = opened.start(threads(1), move |done| sender.send(done).unwrap_or(())).unwrap();
        Self { pool, answers, info, have, to_check }
    }

    fn give(&self, piece: u32) {
        for begin in (0..self.info.layout().piece_len(PieceIndex(piece))).step_by(BLOCK_LEN as usize) {
            let start = (piece * PIECE_LEN + begin) as usize;
            let end = payload().len().min(start + BLOCK_LEN as usize);
            let at = BlockRef { piece: PieceIndex(piece), begin, len: (end - start) as u32 };
            self.pool.submit(Job::Write(at, Block::from(payload()[start..end].to_vec()))).unwrap();
        }
    }

    fn until(&self, is: impl Fn(&Done) -> bool) -> Vec<Done> {
        let mut all = Vec::new();
        while !all.iter().any(&is) {
            all.extend(self.answers.recv_timeout(Duration::from_secs(20)).expect("an answer in time"));
        }
        all
    }

    /// Gives these pieces, all of which are written without a failure.
    fn write(&self, pieces: impl IntoIterator<Item = u32>) {
        for piece in pieces {
            self.give(piece);
            let ended = |done: &Done| matches!(done, Done::Piece(..) | Done::Failed(_));
            let done = self.until(ended);
            let good = |done: &Done| matches!(done, Done::Piece(at, Verdict::Good) if at.0 == piece);
            assert!(done.iter().any(good), "{done:?}");
        }
    }

    /// The failure, if there is one, and how the save ended.
    fn save(&self) -> (Option<DiskErrorKind>, Option<u32>) {
        self.pool.submit(Job::Save(SaveId(1), Totals::default())).unwrap();
        let done = self.until(|done| matches!(done, Done::Saved { .. } | Done::Unsaved(_)));
        let failed = done.iter().find_map(|done| match done {
            Done::Failed(error) => Some(error.kind),
            _ => None,
        });
        let doubted = done.iter().find_map(|done| match done {
            Done::Saved { doubted, .. } => Some(*doubted),
            _ => None,
        });
        (failed, doubted)
    }

    /// Waits until the pool says what it has lost.
    fn lost(&self) -> Vec<u32> {
        let mut all = Vec::new();
        for done in self.until(|done| matches!(done, Done::Lost(_) | Done::Failed(_))) {
            match done {
                Done::Lost(pieces) => all.extend(pieces.into_iter().map(|piece| piece.0)),
                Done::Failed(error) => panic!("{error}"),
                _ => {}
            }
        }
        all.sort_unstable();
        all
    }
}

/// The files that are not empty.
fn on_disk(dir: &Path) -> Vec<u8> {
    [0, 2, 3].into_iter().flat_map(|file| fs::read(path(dir, file)).unwrap_or_default()).collect()
}

fn path(dir: &Path, file: usize) -> std::path::PathBuf {
    dir.join(format!("n/f{file}"))
}

/// Puts all files in their places.
fn put(dir: &Path) {
    fs::create_dir_all(dir.join("n")).unwrap();
    let mut rest = &payload()[..];
    for (file, &len) in LENGTHS.iter().enumerate() {
        let (bytes, behind) = rest.split_at(len as usize);
        fs::write(path(dir, file), bytes).unwrap();
        rest = behind;
    }
}

/// As another program would long before or after us.
fn replace(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
    File::options().write(true).open(path).unwrap().set_modified(UNIX_EPOCH).unwrap();
}

#[test]
fn a_file_that_is_not_as_it_was_left_is_not_written_to_as_if_it_were() {
    let tampers: [&dyn Fn(&Path); 3] = [
        &|path| fs::remove_file(path).unwrap(),
        &|path| replace(path, &vec![0; LENGTHS[3] as usize]),
        &|path| File::options().write(true).open(path).unwrap().set_len(10).unwrap(),
    ];
    for tamper in tampers {
        let dir = tempfile::tempdir().unwrap();
        let first = Run::begin(dir.path());
        first.write([0, 3, 4]);
        assert_eq!(first.save(), (None, Some(0)));
        drop(first);

        let run = Run::begin(dir.path());
        assert_eq!(run.have, [0, 3, 4]);
        tamper(&path(dir.path(), 3));
        run.give(5);
        let failed =
            |done: &Done| matches!(done, Done::Failed(error) if error.kind == DiskErrorKind::Missing);
        run.until(failed);
        assert_eq!(run.save(), (None, Some(2)), "nothing is claimed of it");
        run.pool.resume();
        assert_eq!(run.lost(), [3, 4]);
        run.write([1, 2, 3, 4]);
        assert_eq!((run.save(), run.pool.written().is_full()), ((None, Some(0)), true));
        assert_eq!(on_disk(dir.path()), payload());
    }
}

#[test]
fn a_piece_at_the_edge_does_not_make_a_neighbour_anew_that_was_done_and_taken_away() {
    let dir = tempfile::tempdir().unwrap();
    // Only the last one stays open.
    let options = OpenOptions { max_open: NonZeroUsize::MIN, ..OpenOptions::default() };
    let run = Run::with(dir.path(), &options);
    run.write([0, 1, 3]);
    fs::remove_file(path(dir.path(), 0)).unwrap();
    run.give(2);
    run.until(|done| matches!(done, Done::Failed(error) if error.kind == DiskErrorKind::Missing));
    assert!(!path(dir.path(), 0).exists());
    run.pool.resume();
    assert_eq!(run.lost(), [0, 1]);
    run.write([0, 1, 4, 5]);
    assert_eq!((run.save(), on_disk(dir.path())), ((None, Some(0)), payload()));
}

#[test]
fn what_was_done_long_ago_is_looked_at_when_all_is_there() {
    let moves: [&dyn Fn(&Path); 2] = [&|path| fs::remove_file(path).unwrap(), &|path| {
        fs::rename(path, path.with_extension("moved")).unwrap();
    }];
    for away in moves {
        for saved in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let run = Run::begin(dir.path());
            run.write([0, 1, 2]);
            if saved {
                assert_eq!(run.save(), (None, Some(0)));
            }
            away(&path(dir.path(), 0));
            run.write([3, 4, 5]);
            assert_eq!(run.save(), (Some(DiskErrorKind::Missing), None));
            run.pool.resume();
            assert_eq!(run.lost(), [0, 1, 2]);
            assert_eq!(run.save(), (None, Some(0)), "nothing is left to be missed");
            run.write([0, 1, 2]);
            assert_eq!((run.save(), on_disk(dir.path())), ((None, Some(0)), payload()));
        }
    }
}

#[test]
fn a_file_of_which_nothing_was_believed_may_be_taken_away() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("n")).unwrap();
    replace(&path(dir.path(), 3), &vec![7; LENGTHS[3] as usize]);
    let run = Run::begin(dir.path());
    run.pool.submit(Job::Check(Bitfield::full(run.info.pieces()))).unwrap();
    run.until(|done| matches!(done, Done::CheckEnded));
    fs::remove_file(path(dir.path(), 3)).unwrap();
    run.write(0..6);
    assert_eq!((run.save(), on_disk(dir.path())), ((None, Some(0)), payload()));
}

#[test]
fn a_file_that_was_changed_and_checked_again_is_mended() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path());
    let run = Run::begin(dir.path());
    let check = || {
        run.pool.submit(Job::Check(Bitfield::full(run.info.pieces()))).unwrap();
        run.until(|done| matches!(done, Done::CheckEnded));
    };
    check();
    assert!(run.pool.written().is_full());
    let mut bytes = fs::read(path(dir.path(), 3)).unwrap();
    bytes[149_999] ^= 1;
    replace(&path(dir.path(), 3), &bytes);
    check();
    run.write([5]);
    assert_eq!((run.save(), on_disk(dir.path())), ((None, Some(0)), payload()));
}

#[test]
fn a_part_that_was_written_early_and_taken_away_comes_anew() {
    let dir = tempfile::tempdir().unwrap();
    let files = FileStorage::new(info(), dir.path(), NonZeroUsize::MIN).unwrap();
    let (sender, answers) = channel();
    let opened = Opened::over(info(), Arc::new(files), Bitfield::new(6)).unwrap();
    let config = PoolConfig { write_cache: 0, ..threads(1) };
    let pool = opened.start(config, move |done| sender.send(done).unwrap_or(())).unwrap();
    let run = Run { pool, answers, info: info(), have: Vec::new(), to_check: Vec::new() };
    let block = |begin: u32| {
        let start = (4 * PIECE_LEN + begin) as usize;
        let at = BlockRef { piece: PieceIndex(4), begin, len: BLOCK_LEN };
        let block = payload()[start..start + BLOCK_LEN as usize].to_vec();
        run.pool.submit(Job::Write(at, Block::from(block))).unwrap();
    };
    // The second one, lest it be hashed before it is written; another file takes its place among the open.
    block(BLOCK_LEN);
    run.until(|done| matches!(done, Done::Freed(_)));
    run.write([0]);
    fs::remove_file(path(dir.path(), 3)).unwrap();
    block(0);
    block(2 * BLOCK_LEN);
    let done = run.until(|done| matches!(done, Done::Piece(PieceIndex(4), _) | Done::Failed(_)));
    let lost = |done: &Done| matches!(done, Done::Piece(_, Verdict::Lost));
    assert!(done.iter().any(lost), "nobody is to blame: {done:?}");
    run.write(1..6);
    assert_eq!((run.save(), on_disk(dir.path())), ((None, Some(0)), payload()));
}

#[test]
fn a_peer_that_asks_for_what_was_taken_away_stops_nothing() {
    for (len, gone) in [(None, vec![2, 3, 4, 5]), (Some(60_000), vec![3, 4, 5])] {
        for access in [Access::Seed, Access::Download] {
            let dir = tempfile::tempdir().unwrap();
            put(dir.path());
            // A file that is still open can be read whatever its name is.
            let max_open = NonZeroUsize::MIN;
            let run = Run::with(dir.path(), &OpenOptions { access, max_open, ..OpenOptions::default() });
            run.pool.submit(Job::Check(Bitfield::full(run.info.pieces()))).unwrap();
            run.until(|done| matches!(done, Done::CheckEnded));
            let ask = |piece: u32| {
                let at = BlockRef { piece: PieceIndex(piece), begin: 0, len: BLOCK_LEN };
                run.pool.submit(Job::Read(PEER, at)).unwrap();
            };
            ask(0);
            run.until(|done| matches!(done, Done::Read(..)));
            match len {
                None => fs::remove_file(path(dir.path(), 3)).unwrap(),
                Some(len) => {
                    File::options().write(true).open(path(dir.path(), 3)).unwrap().set_len(len).unwrap();
                }
            }
            ask(4);
            assert_eq!(run.lost(), gone);
            for piece in (0..6).filter(|piece| !gone.contains(piece)) {
                ask(piece);
                let read = |done: &Done| matches!(done, Done::Read(_, at, _) if at.piece.0 == piece);
                let done = run.until(|done| read(done) || matches!(done, Done::Failed(_) | Done::Lost(_)));
                assert!(done.iter().any(read), "{done:?}");
            }
            assert_eq!(run.save(), (None, Some(0)), "{access:?}");
            if access == Access::Download {
                run.write(gone.clone());
                assert_eq!((run.save(), on_disk(dir.path())), ((None, Some(0)), payload()));
            }
        }
    }
}

#[test]
fn a_file_that_was_moved_away_and_back_is_believed_again_once_it_was_checked() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path());
    let access = Access::Seed;
    let run =
        Run::with(dir.path(), &OpenOptions { access, max_open: NonZeroUsize::MIN, ..OpenOptions::default() });
    let check = || {
        run.pool.submit(Job::Check(Bitfield::full(run.info.pieces()))).unwrap();
        run.until(|done| matches!(done, Done::CheckEnded));
    };
    check();
    let ask = |piece: u32| {
        let at = BlockRef { piece: PieceIndex(piece), begin: 0, len: BLOCK_LEN };
        run.pool.submit(Job::Read(PEER, at)).unwrap();
    };
    // Another file is open when it goes.
    ask(0);
    run.until(|done| matches!(done, Done::Read(..)));
    let (there, away) = (path(dir.path(), 3), dir.path().join("away"));
    fs::rename(&there, &away).unwrap();
    ask(4);
    assert!(!run.lost().is_empty());
    fs::rename(&away, &there).unwrap();
    check();
    assert_eq!(run.save(), (None, Some(0)), "nothing stays in doubt");
    drop(run);
    let again = Run::with(dir.path(), &OpenOptions { access, ..OpenOptions::default() });
    assert_eq!((again.have, again.to_check), ((0..6).collect(), vec![]), "the resume file says so");
}

#[test]
fn a_check_that_is_stopped_goes_on_in_the_next_run() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path());
    let run = Run::begin(dir.path());
    assert_eq!(run.to_check, [0, 1, 2, 3, 4, 5]);
    let mut first = Bitfield::new(6);
    for piece in [0, 1, 3] {
        first.insert(piece);
    }
    run.pool.submit(Job::Check(first)).unwrap();
    run.until(|done| matches!(done, Done::CheckEnded));
    assert_eq!(run.save(), (None, Some(0)));
    drop(run);
    let run = Run::begin(dir.path());
    assert_eq!((&run.have[..], &run.to_check[..]), (&[0, 1, 3][..], &[2, 4, 5][..]));
    // What is fetched meanwhile need not be looked at.
    run.write([4]);
    run.save();
    drop(run);
    let run = Run::begin(dir.path());
    assert_eq!((&run.have[..], &run.to_check[..]), (&[0, 1, 3, 4][..], &[2, 5][..]));
    run.pool.submit(Job::Check(Bitfield::full(6))).unwrap();
    run.until(|done| matches!(done, Done::CheckEnded));
    run.save();
    drop(run);
    assert_eq!(Run::begin(dir.path()).have.len(), 6);
}

#[test]
fn a_longer_file_is_cut_when_it_is_there_though_others_are_not_wanted() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("n")).unwrap();
    for file in [0, 3] {
        fs::write(path(dir.path(), file), vec![7; 200_000]).unwrap();
    }
    let run = Run::begin(dir.path());
    let len = |file| fs::metadata(path(dir.path(), file)).unwrap().len();
    run.pool.submit(Job::Want(vec![true, false, false, false])).unwrap();
    run.write([0, 1]);
    assert_eq!(run.save(), (None, Some(0)));
    assert_eq!(len(0), 200_000, "its last piece is missing");
    run.write([2]);
    assert_eq!(run.save(), (None, Some(0)));
    assert_eq!((len(0), len(3)), (LENGTHS[0], 200_000), "nobody wants the other one");
    assert_eq!(fs::read(path(dir.path(), 0)).unwrap(), payload()[..LENGTHS[0] as usize]);
}

#[test]
fn a_save_amid_the_first_check_cuts_no_file_that_may_not_be_wanted() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path());
    let mut longer = fs::OpenOptions::new().append(true).open(path(dir.path(), 3)).unwrap();
    longer.write_all(b"and more").unwrap();
    let run = Run::begin(dir.path());
    let of_file = run.info.layout().piece_range(3);
    let mut pieces = Bitfield::new(6);
    of_file.for_each(|piece| assert!(pieces.insert(piece)));
    assert!(pieces.count() < 6);
    run.pool.submit(Job::Check(pieces)).unwrap();
    run.until(|done| matches!(done, Done::CheckEnded));
    assert_eq!(run.save(), (None, Some(0)));
    assert_eq!(fs::metadata(path(dir.path(), 3)).unwrap().len(), LENGTHS[3] + 8);
    // What a run finds that comes to an end before it has looked at the rest.
    run.pool.submit(Job::Want(vec![false, true, true, true])).unwrap();
    assert_eq!(run.save(), (None, Some(0)));
    assert_eq!(fs::metadata(path(dir.path(), 3)).unwrap().len(), LENGTHS[3]);
}

/// Something lies where the resume file would be made: it cannot be written, as on a full disk.
fn block_resume_file(dir: &Path) {
    fs::create_dir_all(dir.join(format!(".{}.btfetch.new/x", info().hash().swarm()))).unwrap();
}

#[test]
fn a_resume_file_that_cannot_be_written_is_no_failure_where_nothing_is_lost_by_it() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path());
    let save = |run: &Run, uploaded| {
        run.pool.submit(Job::Save(SaveId(1), Totals { downloaded: 0, uploaded })).unwrap();
        let done = run.until(|done| matches!(done, Done::Saved { .. } | Done::Unsaved(_)));
        let warned = done.iter().filter(|done| matches!(done, Done::Warning(_))).count();
        (warned, matches!(done.last(), Some(Done::Saved { .. })))
    };
    let check = |run: &Run| {
        run.pool.submit(Job::Check(Bitfield::full(6))).unwrap();
        run.until(|done| matches!(done, Done::CheckEnded));
    };
    block_resume_file(dir.path());
    let seed = Run::with(dir.path(), &OpenOptions { access: Access::Seed, ..OpenOptions::default() });
    check(&seed);
    assert_eq!((save(&seed, 0), save(&seed, 0)), ((1, true), (0, true)), "it is said once");
    drop(seed);
    // A download would have to look at all of it again; but nobody waits for what is saved in between.
    let run = Run::begin(dir.path());
    check(&run);
    run.pool.submit(Job::Save(SaveId::IN_PASSING, Totals::default())).unwrap();
    let ended = |done: &Done| matches!(done, Done::Saved { .. } | Done::Unsaved(_) | Done::Failed(_));
    assert!(matches!(run.until(ended)[..], [Done::Saved { id: SaveId::IN_PASSING, .. }]));
    assert_eq!(save(&run, 0), (0, false));
    drop(run);
    fs::remove_dir_all(dir.path().join(format!(".{}.btfetch.new", info().hash().swarm()))).unwrap();
    let run = Run::begin(dir.path());
    check(&run);
    assert_eq!(save(&run, 5), (0, true));
    drop(run);
    // All that is known of it is in the file.
    block_resume_file(dir.path());
    let run = Run::begin(dir.path());
    assert_eq!(run.have.len(), 6);
    assert_eq!((save(&run, 5), save(&run, 6)), ((0, true), (1, true)));
}

#[test]
fn a_resume_file_that_would_say_the_same_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let run = Run::begin(dir.path());
    run.write(0..6);
    run.save();
    let file = dir.path().join(format!(".{}.btfetch", info().hash().swarm()));
    fs::remove_file(&file).unwrap();
    run.save();
    assert!(!file.exists());
    run.pool.submit(Job::Save(SaveId(2), Totals { downloaded: 1, uploaded: 0 })).unwrap();
    run.until(|done| matches!(done, Done::Saved { .. }));
    assert!(file.exists());
}

#[test]
fn files_that_may_be_all_there_are_not_reserved_before_they_were_looked_at() {
    use crate::storage::{Preallocation, Reserved};
    let dir = tempfile::tempdir().unwrap();
    put(dir.path());
    // It takes no space, and may be right nevertheless for all that is known.
    File::create(path(dir.path(), 3)).unwrap().set_len(LENGTHS[3]).unwrap();
    let preallocation = Preallocation::Full;
    let run = Run::with(dir.path(), &OpenOptions { preallocation, ..OpenOptions::default() });
    let reserved = || {
        run.pool.submit(Job::Want(vec![true; 4])).unwrap();
        let done = run.until(|done| matches!(done, Done::Reserved(Reserved::Ended)));
        done.iter().any(|done| matches!(done, Done::Reserved(Reserved::Part { .. })))
    };
    assert!(!reserved());
    run.pool.submit(Job::Check(Bitfield::full(6))).unwrap();
    run.until(|done| matches!(done, Done::CheckEnded));
    assert!(reserved(), "it is known to be wrong");
}

/// Stamps that are known are those of the file system.
#[test]
fn a_file_that_another_takes_the_place_of_is_not_confirmed() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path());
    let storage = FileStorage::new(info(), dir.path(), NonZeroUsize::new(4).unwrap()).unwrap();
    let Some(Stamp { len, .. }) = storage.stamp(0).unwrap() else { panic!("it is there") };
    assert_eq!(len, LENGTHS[0]);
    storage.write(0, 0, &mut [std::io::IoSlice::new(b"x")]).unwrap();
    assert_eq!(storage.confirm(0), Ok(()));
    let other = dir.path().join("other");
    replace(&other, &[1; 100_000]);
    fs::rename(&other, path(dir.path(), 0)).unwrap();
    assert_eq!(storage.confirm(0).unwrap_err().kind, DiskErrorKind::Missing);
    assert_eq!(storage.sync(0).unwrap_err().kind, DiskErrorKind::Missing);
    storage.forget(0);
    assert_eq!((storage.confirm(0), storage.sync(0)), (Ok(()), Ok(())));
}
