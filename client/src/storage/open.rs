//! [`open()`]: begins a download, resumes it, or finds out what has to be checked.

use std::fmt;
use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::pool::Start;
use super::resume::Saved;
use super::{
    DiskError, DiskErrorKind, Done, FileStorage, Lock, OpenFiles, Pool, PoolConfig, Preallocation, Resume,
    ResumeFile, Stamp, Storage, Totals, default_open_files,
};
use crate::bitfield::Bitfield;
use crate::metainfo::Info;
use crate::piece::PieceIndex;

/// How to open the files of a torrent.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// What for.
    pub access: Access,
    /// Files kept open; [`default_open_files`] by default.
    pub max_open: NonZeroUsize,
    /// And no more than the share of these.
    pub sharing: Option<Arc<OpenFiles>>,
    /// How files take their space. With [`Access::Seed`] none takes any.
    pub preallocation: Preallocation,
}

impl Default for OpenOptions {
    fn default() -> Self {
        let preallocation = Preallocation::default();
        Self { access: Access::Download, max_open: default_open_files(), sharing: None, preallocation }
    }
}

/// What the files are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The folder is made if need be and must be writable; longer files are cut at the end.
    Download,
    /// Existing data is shared: no file is made or cut, and a folder that is read-only or full is fine
    /// (then without lock or resume file).
    Seed,
}

/// Why files could not be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// Another process has this torrent open in this folder.
    InUse(PathBuf),
    /// Torrents without a v1 part cannot be downloaded yet.
    V2Only,
    /// The disk refused.
    Disk(DiskError),
}

impl From<DiskError> for OpenError {
    fn from(error: DiskError) -> Self {
        Self::Disk(error)
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse(dir) => {
                write!(f, "another process is working on this torrent in {}", dir.display())
            }
            Self::V2Only => f.write_str("torrents without a v1 part cannot be downloaded yet"),
            Self::Disk(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for OpenError {}

/// The opened files of a torrent, its lock held.
pub struct Opened {
    /// Pieces that are on disk and safe.
    pub have: Bitfield,
    /// Pieces that may be on disk and have to be checked ([`super::Job::Check`]).
    pub to_check: Bitfield,
    /// Counters of earlier runs.
    pub totals: Totals,
    /// What the user should know, a line each.
    pub warnings: Vec<String>,
    info: Arc<Info>,
    storage: Arc<dyn Storage>,
    start: Start,
    access: Access,
    preallocation: Preallocation,
}

impl Opened {
    /// Starts the disk threads; see [`Pool`]. `on_done` is called from them and must not block for
    /// long.
    pub fn start(
        self,
        config: PoolConfig,
        on_done: impl Fn(Vec<Done>) + Send + Sync + 'static,
    ) -> io::Result<Pool> {
        let downloads = self.access == Access::Download;
        let (finish, full) = (config.finish && downloads, self.preallocation == Preallocation::Full);
        let config = PoolConfig { finish, reserve: downloads && (config.reserve || full), ..config };
        // Before the check is asked for: it may be stopped any time.
        let start = Start { writes: downloads, unchecked: self.to_check, ..self.start };
        Pool::start(config, self.info, self.storage, start, on_done)
    }

    /// A torrent over any storage: everything that it says to hold by `have` is believed; nothing is
    /// locked, and nothing saved but the data.
    pub fn over(info: Arc<Info>, storage: Arc<dyn Storage>, have: Bitfield) -> Result<Self, DiskError> {
        let stamps = stamps(&info, &*storage)?;
        let start = Start { have: have.clone(), stamps, ..Start::default() };
        let to_check = Bitfield::new(info.pieces());
        let (totals, warnings) = (Totals::default(), Vec::new());
        let (access, preallocation) = (Access::Download, Preallocation::default());
        Ok(Self { have, to_check, totals, warnings, info, storage, start, access, preallocation })
    }
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened")
            .field("have", &self.have.count())
            .field("to_check", &self.to_check.count())
            .field("totals", &self.totals)
            .field("warnings", &self.warnings)
            .finish_non_exhaustive()
    }
}

/// Opens the files of `info` below `dir`: takes the lock, reads the resume file, and compares what it
/// says with the files. What cannot be believed but may be there is to be checked. An empty `dir` is the
/// current folder. Blocks.
pub fn open(info: &Arc<Info>, dir: &Path, options: &OpenOptions) -> Result<Opened, OpenError> {
    // It would be no folder to open, sync or name in an error.
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    if info.is_v2_only() {
        return Err(OpenError::V2Only);
    }
    if options.access == Access::Download {
        fs::create_dir_all(dir).map_err(|error| DiskError::new("making folder", dir, &error))?;
    }
    let lock = match Lock::take(dir, info.hash().swarm()) {
        Ok(Some(lock)) => Some(lock),
        Ok(None) => return Err(OpenError::InUse(dir.to_owned())),
        Err(error) => {
            let error = DiskError::new("locking in", dir, &error);
            let tolerated = options.access == Access::Seed
                && matches!(error.kind, DiskErrorKind::ReadOnly | DiskErrorKind::NoSpace);
            tolerated.then_some(None).ok_or(error)?
        }
    };
    let &OpenOptions { access, max_open, ref sharing, preallocation } = options;
    let storage = FileStorage::new(Arc::clone(info), dir, max_open)?.with_preallocation(preallocation);
    let storage = match sharing {
        Some(all) => storage.sharing(all),
        None => storage,
    };
    let stamps = stamps(info, &storage)?;
    let file = ResumeFile::new(dir, Arc::clone(info));
    let mut warnings = Vec::new();
    let resume = file.load().unwrap_or_else(|why| {
        let path = file.path();
        warnings.push(format!("not using {}: {why}; checking what is there", path.display()));
        None
    });
    for file in info.files().filter(|file| file.is_stored()) {
        let now = stamps.get(file.index).copied().flatten();
        if let Some(now) = now.filter(|now| now.len > file.len()) {
            warnings.push(longer(dir, &file.path(), now.len, file.len(), options.access));
        }
    }
    let (have, to_check) = believe(info, &stamps, resume.as_ref());
    if let Some(resume) = resume.as_ref().filter(|resume| have.count() < resume.have.count()) {
        let lost = resume.have.count() - have.count();
        warnings.push(format!(
            "the last run was cut off, or files changed since: {lost} pieces have to be seen again"
        ));
    }
    let totals = resume.as_ref().map(|resume| resume.totals).unwrap_or_default();
    let saved = resume.as_ref().map(Saved::of);
    let resume = lock.is_some().then_some(file);
    let start = Start { have: have.clone(), stamps, resume, saved, lock, ..Start::default() };
    let (info, storage) = (Arc::clone(info), Arc::new(storage));
    Ok(Opened { have, to_check, totals, warnings, info, storage, start, access, preallocation })
}

fn longer(dir: &Path, path: &Path, now: u64, wanted: u64, access: Access) -> String {
    let path = dir.join(path);
    let then = match access {
        Access::Download => "the rest will be cut off when the download is complete",
        Access::Seed => "the rest is left alone",
    };
    format!("{} has {now} bytes where the torrent says {wanted}: {then}", path.display())
}

fn stamps(info: &Info, storage: &dyn Storage) -> Result<Vec<Option<Stamp>>, DiskError> {
    let stamp = |file: crate::metainfo::File<'_>| match file.is_stored() {
        true => storage.stamp(file.index),
        false => Ok(None),
    };
    info.files().map(stamp).collect()
}

/// Splits the pieces into those to believe, those to check, and the rest, which is not there.
///
/// A piece is believed if the resume file claims it and none of its files has changed since. It is
/// checked if its bytes may all be there and one of its files is not as the resume file knows it: a
/// run that was killed has written more than it had claimed. So is one that no run has looked at yet.
fn believe(info: &Info, stamps: &[Option<Stamp>], resume: Option<&Resume>) -> (Bitfield, Bitfield) {
    let layout = info.layout();
    let (mut have, mut to_check) = (Bitfield::new(info.pieces()), Bitfield::new(info.pieces()));
    let stored: Vec<bool> = info.files().map(|file| file.is_stored()).collect();
    for piece in 0..info.pieces() {
        let index = PieceIndex(piece);
        let (mut present, mut unchanged) = (true, resume.is_some());
        for span in layout.spans(index, 0, layout.piece_len(index)).filter(|span| !span.pad) {
            let now = stamps.get(span.file).copied().flatten();
            let end = span.offset + u64::from(span.len);
            present &= stored.get(span.file) == Some(&true) && now.is_some_and(|now| now.len >= end);
            let then = resume.and_then(|resume| resume.stamps.get(span.file).copied().flatten());
            unchanged &= now == then;
        }
        let unchecked = resume.is_some_and(|resume| resume.unchecked.contains(piece));
        if present && (unchecked || !unchanged) {
            to_check.insert(piece);
        } else if present && resume.is_some_and(|resume| resume.have.contains(piece)) {
            have.insert(piece);
        }
    }
    (have, to_check)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metainfo::create;
    use crate::piece::{BLOCK_LEN, Block, BlockRef};
    use crate::storage::{Job, SaveId};
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Duration;

    const LENGTHS: [usize; 4] = [70_000, 0, 5, 130_000];
    const NAMES: [&str; 4] = ["a", "b", "c/d", "e"];

    fn bytes(file: usize) -> Vec<u8> {
        (0..LENGTHS[file]).map(|at| (at * (file + 3) / 11) as u8).collect()
    }

    fn put(dir: &Path) {
        fs::create_dir_all(dir.join("t/c")).unwrap();
        for (file, name) in NAMES.iter().enumerate() {
            fs::write(dir.join("t").join(name), bytes(file)).unwrap();
        }
    }

    fn info() -> Arc<Info> {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path());
        let options = create::Options { piece_length: Some(16384), ..Default::default() };
        Arc::new(create::create(&dir.path().join("t"), &options, &|_| ()).unwrap().metainfo.info)
    }

    fn payload() -> Vec<u8> {
        // The order of the torrent: by component, so `c/d` comes before `e`.
        (0..LENGTHS.len()).flat_map(bytes).collect()
    }

    fn matches_payload(dir: &Path, piece: u32) -> bool {
        let on_disk: Vec<u8> = NAMES
            .iter()
            .enumerate()
            .flat_map(|(file, name)| {
                let mut bytes = fs::read(dir.join("t").join(name)).unwrap_or_default();
                bytes.resize(LENGTHS[file], 0xee);
                bytes
            })
            .collect();
        let range = piece as usize * 16384..((piece as usize + 1) * 16384).min(on_disk.len());
        on_disk[range.clone()] == payload()[range]
    }

    fn begin(info: &Arc<Info>, dir: &Path) -> Opened {
        open(info, dir, &OpenOptions::default()).unwrap()
    }

    fn start(opened: Opened) -> (Pool, Receiver<Vec<Done>>) {
        let (sender, answers) = channel();
        let config = PoolConfig { write_cache: 50_000, ..PoolConfig::default() };
        (opened.start(config, move |done| sender.send(done).unwrap_or(())).unwrap(), answers)
    }

    fn until(answers: &Receiver<Vec<Done>>, mut last: impl FnMut(&Done) -> bool) {
        while !answers.recv_timeout(Duration::from_secs(20)).expect("an answer in time").iter().any(&mut last)
        {
        }
    }

    fn write(pool: &Pool, info: &Info, piece: u32) {
        let start = piece as usize * 16384;
        let len = info.layout().piece_len(PieceIndex(piece));
        let block = payload()[start..start + len as usize].to_vec();
        assert!(len <= BLOCK_LEN);
        pool.submit(Job::Write(BlockRef { piece: PieceIndex(piece), begin: 0, len }, Block::from(block)))
            .unwrap();
    }

    fn save(pool: &Pool, answers: &Receiver<Vec<Done>>) {
        pool.submit(Job::Save(SaveId(1), Totals { downloaded: 3, uploaded: 4 })).unwrap();
        until(answers, |done| matches!(done, Done::Saved { .. }));
    }

    fn check(pool: &Pool, answers: &Receiver<Vec<Done>>, pieces: Bitfield) {
        pool.submit(Job::Check(pieces)).unwrap();
        until(answers, |done| matches!(done, Done::CheckEnded));
    }

    /// Downloads everything, saves and ends.
    fn complete(info: &Arc<Info>, dir: &Path) {
        let (pool, answers) = start(begin(info, dir));
        (0..info.pieces()).for_each(|piece| write(&pool, info, piece));
        save(&pool, &answers);
        assert!(pool.written().is_full());
    }

    #[test]
    fn a_fresh_download_begins_empty_and_resumes_from_what_was_saved() {
        let (info, dir) = (info(), tempfile::tempdir().unwrap());
        let target = dir.path().join("new/folder");
        let opened = begin(&info, &target);
        assert!(opened.have.is_empty() && opened.to_check.is_empty() && opened.warnings.is_empty());
        let error = open(&info, &target, &OpenOptions::default()).unwrap_err();
        assert_eq!(error, OpenError::InUse(target.clone()));
        let (pool, answers) = start(opened);
        (0..5).for_each(|piece| write(&pool, &info, piece));
        save(&pool, &answers);
        drop(pool);
        let opened = begin(&info, &target);
        assert_eq!(opened.have.iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        assert!(opened.to_check.is_empty() && opened.warnings.is_empty(), "{opened:?}");
        assert_eq!(opened.totals, Totals { downloaded: 3, uploaded: 4 });
        let (pool, answers) = start(opened);
        (5..info.pieces()).for_each(|piece| write(&pool, &info, piece));
        save(&pool, &answers);
        drop((pool, answers));
        assert!(begin(&info, &target).have.is_full());
        assert!((0..info.pieces()).all(|piece| matches_payload(&target, piece)));
        assert_eq!(fs::read(target.join("t/b")).unwrap(), b"");
        assert!(!target.join(format!(".{}.btfetch.lock", info.hash().swarm())).exists());
    }

    #[test]
    fn an_empty_folder_name_is_the_current_folder() {
        let info = info();
        let opened = begin(&info, Path::new(""));
        // It is the same folder by another name.
        let again = open(&info, Path::new("."), &OpenOptions::default()).unwrap_err();
        assert_eq!((again, opened.have.count()), (OpenError::InUse(PathBuf::from(".")), 0));
    }

    #[test]
    fn files_without_a_resume_file_are_checked_and_matching_pieces_kept() {
        let (info, dir) = (info(), tempfile::tempdir().unwrap());
        put(dir.path());
        // Other content in the middle of one, another too short, none missing.
        let mut other = bytes(0);
        other[20_000] ^= 1;
        fs::write(dir.path().join("t/a"), other).unwrap();
        fs::write(dir.path().join("t/e"), &bytes(3)[..100_000]).unwrap();
        let opened = begin(&info, dir.path());
        assert!(opened.have.is_empty());
        let to_check = opened.to_check.clone();
        let (pool, answers) = start(opened);
        check(&pool, &answers, to_check.clone());
        let kept = pool.written();
        for piece in 0..info.pieces() {
            assert_eq!(kept.contains(piece), matches_payload(dir.path(), piece), "piece {piece}");
        }
        assert!(!kept.contains(1) && kept.contains(0) && to_check.count() < info.pieces());
        (0..info.pieces()).for_each(|piece| write(&pool, &info, piece));
        save(&pool, &answers);
        assert!((0..info.pieces()).all(|piece| matches_payload(dir.path(), piece)));
    }

    #[test]
    fn a_longer_file_is_announced_and_cut_at_the_end_but_never_for_seeding() {
        let (info, dir) = (info(), tempfile::tempdir().unwrap());
        put(dir.path());
        let long = [bytes(3), b"tail".to_vec()].concat();
        fs::write(dir.path().join("t/e"), &long).unwrap();
        for (access, words) in [(Access::Seed, "left alone"), (Access::Download, "cut off")] {
            let opened = open(&info, dir.path(), &OpenOptions { access, ..OpenOptions::default() }).unwrap();
            assert!(opened.warnings[0].contains(words), "{:?}", opened.warnings);
            assert_eq!(fs::read(dir.path().join("t/e")).unwrap(), long);
            let missing = Bitfield::full(info.pieces());
            let (pool, answers) = start(opened);
            check(&pool, &answers, missing);
            assert!(pool.written().is_full());
            save(&pool, &answers);
        }
        assert_eq!(fs::read(dir.path().join("t/e")).unwrap(), bytes(3));
    }

    #[test]
    fn a_changed_file_loses_its_pieces_until_they_are_checked() {
        let (info, dir) = (info(), tempfile::tempdir().unwrap());
        complete(&info, dir.path());
        let path = dir.path().join("t/a");
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
        let opened = begin(&info, dir.path());
        let of_a: Vec<u32> = info.file(0).unwrap().piece_range().collect();
        assert_eq!(opened.to_check.iter().collect::<Vec<_>>(), of_a);
        assert_eq!(opened.have.count() + opened.to_check.count(), info.pieces());
        assert!(opened.warnings[0].contains("changed"));
        drop(opened);
        fs::remove_file(&path).unwrap();
        let opened = begin(&info, dir.path());
        assert!(opened.to_check.is_empty() && of_a.iter().all(|&piece| !opened.have.contains(piece)));
    }

    #[test]
    fn a_flipped_bit_in_the_resume_file_costs_a_recheck_at_most() {
        let (info, dir) = (info(), tempfile::tempdir().unwrap());
        // Only some pieces, so that a wrong claim would show.
        let (pool, answers) = start(begin(&info, dir.path()));
        (0..info.pieces()).step_by(2).for_each(|piece| write(&pool, &info, piece));
        save(&pool, &answers);
        drop(pool);
        let path = ResumeFile::new(dir.path(), Arc::clone(&info)).path();
        let good = fs::read(&path).unwrap();
        for at in 0..200 {
            let bit = at * good.len() * 8 / 200 + at % 8;
            let mut flipped = good.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, flipped).unwrap();
            let opened = begin(&info, dir.path());
            assert_eq!((opened.warnings.len(), opened.have.count()), (1, 0), "bit {bit}");
            assert!(opened.to_check.contains(0));
        }
    }

    #[test]
    fn wherever_a_run_ends_no_piece_is_claimed_that_is_not_there() {
        let info = info();
        for round in 0..6_u32 {
            let dir = tempfile::tempdir().unwrap();
            let mut seen = 0;
            let mut runs = 0;
            while seen < info.pieces() {
                let opened = begin(&info, dir.path());
                for piece in opened.have.iter() {
                    assert!(matches_payload(dir.path(), piece), "piece {piece} in round {round}");
                }
                let (mut have, to_check) = (opened.have.clone(), opened.to_check.clone());
                let (pool, answers) = start(opened);
                check(&pool, &answers, to_check);
                have.clone_from(&pool.written());
                assert!(have.count() >= seen, "what was written is found again");
                for piece in have.iter() {
                    assert!(matches_payload(dir.path(), piece), "piece {piece} in round {round}");
                }
                seen = have.count();
                let mut left: Vec<u32> = (0..info.pieces()).filter(|&piece| !have.contains(piece)).collect();
                left.truncate(3 + round as usize % 4);
                for (at, piece) in left.into_iter().enumerate() {
                    write(&pool, &info, piece);
                    if (at as u32 + round + runs).is_multiple_of(3) {
                        pool.submit(Job::Save(SaveId(1), Totals::default())).unwrap();
                    }
                }
                if runs % 2 == 0 {
                    // At least one step forward now and then; otherwise it ends at once.
                    save(&pool, &answers);
                }
                runs += 1;
                drop(pool);
            }
        }
    }
}
