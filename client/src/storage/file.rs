//! [`FileStorage`]: the files of a torrent below a folder.
//!
//! The folder is opened once; no name of a torrent and no link in it leads out of it (`below`). Files are
//! made when first written to, at their full length unless [`Preallocation`] says otherwise; of unwanted ones
//! that do not exist the bytes lie in a [`PartFile`].

mod below;
mod edges;
mod known;
mod sharing;
mod space;

use std::fs::File;
use std::io::{self, IoSlice};
use std::num::{NonZeroU64, NonZeroUsize};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;
use rustix::fs::{Advice, AtFlags, Mode, OFlags, Stat, StatVfsMountFlags};
use rustix::io::Errno;

use super::part::PartFile;
use super::{DiskError, Preallocation, Stamp, Storage};
use crate::bitfield::Bitfield;
use crate::metainfo::Info;
use below::Absent;
use known::{Known, Writer, taken_away};
pub use sharing::OpenFiles;
use sharing::Share;

/// Slices of one vectored write (IOV_MAX of Linux).
const MAX_SLICES: usize = 1024;

/// Files below a folder.
#[derive(Debug)]
pub struct FileStorage {
    info: Arc<Info>,
    root: OwnedFd,
    root_path: PathBuf,
    open: Mutex<LruCache<usize, Arc<Open>>>,
    /// What it may keep open of all that others have, too.
    share: Option<Share>,
    known: Arc<Known>,
    /// Held while a file is made of what lies in it, which waits for the disk.
    part: Mutex<PartFile>,
    /// By index; files beyond its end are wanted. Held for a look or a change alone: whoever says what is
    /// wanted must not wait for the disk.
    skipped: Mutex<Vec<bool>>,
    preallocation: Preallocation,
}

#[derive(Debug)]
struct Open {
    file: File,
    writable: bool,
    /// Hears of the end of a handle that may have changed the file.
    writer: Option<(Writer, Arc<Known>)>,
    /// Held while one writes, only for speed (two handles of a file have two). Most file systems let in one at a time
    /// anyway, and the kernel has the next spin on its core until then: a profile showed that as an eighth of what a
    /// download of one large file cost.
    writing: Mutex<()>,
}

impl Open {
    fn new(file: File, writable: bool, writer: Option<(Writer, Arc<Known>)>) -> Self {
        Self { file, writable, writer, writing: Mutex::default() }
    }

    fn write(&self, offset: u64, bufs: &mut [IoSlice<'_>]) -> io::Result<()> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        write_all_at(&self.file, offset, bufs)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some((writer, known)) = &self.writer {
            known.leave(writer, || rustix::fs::fstat(&self.file).ok().map(|stat| stamp_of(&stat)));
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Want {
    Read,
    /// Make it and its folders if absent; lengthen it to its full length, unless it grows.
    Write,
}

impl FileStorage {
    /// The files of `info` below the folder `dir`, which must be there. At most `max_open` files are
    /// kept open, beside the folder.
    pub fn new(info: Arc<Info>, dir: &Path, max_open: NonZeroUsize) -> Result<Self, DiskError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(dir, flags, Mode::empty())
            .map_err(|error| DiskError::new("opening folder", dir, &error.into()))?;
        let part = PartFile::open(&info, root.as_fd())
            .map_err(|error| DiskError::new("opening the part file in", dir, &error))?;
        let open = Mutex::new(LruCache::new(max_open));
        let known = Arc::new(Known::new(info.layout().files().len(), keeps_times(&root)));
        let (part, skipped) = (Mutex::new(part), Mutex::default());
        let preallocation = Preallocation::default();
        let root_path = dir.to_owned();
        Ok(Self { info, root, root_path, open, share: None, known, part, skipped, preallocation })
    }

    /// How its files take their space; sparse if nothing is said. With [`Preallocation::Full`] it is for the
    /// caller to have it reserved ([`Storage::plan`], [`Storage::reserve`]).
    #[must_use]
    pub fn with_preallocation(self, preallocation: Preallocation) -> Self {
        Self { preallocation, ..self }
    }

    /// It keeps no more open than its share, either.
    #[must_use]
    pub fn sharing(self, all: &Arc<OpenFiles>) -> Self {
        Self { share: Some(Share::of(Arc::clone(all))), ..self }
    }

    fn file(&self, index: usize, want: Want) -> io::Result<Arc<Open>> {
        if let Some(open) = self.lock().get(&index)
            && (open.writable || want == Want::Read)
        {
            return Ok(Arc::clone(open));
        }
        // Those that fall out are closed after the lock is gone.
        let mut fallen = Vec::new();
        let (open, mut files) = loop {
            // Outside the lock: a slow folder must not stop the other threads.
            let open = Arc::new(self.freeing(|| self.open(index, want))?);
            let files = self.lock();
            // A file that was forgotten meanwhile may be another one.
            if open.writer.as_ref().is_none_or(|(writer, known)| known.is_current(writer)) {
                break (open, files);
            }
        };
        while self.share.as_ref().is_some_and(|share| files.len() >= share.most())
            && let Some(oldest) = files.pop_lru()
        {
            fallen.push(oldest);
        }
        fallen.extend(files.push(index, Arc::clone(&open)));
        drop(files);
        Ok(open)
    }

    /// Opens something, and closes files for it while no descriptor is left: what others have open is theirs,
    /// and what we have is opened again when it is needed.
    fn freeing<T>(&self, open: impl Fn() -> io::Result<T>) -> io::Result<T> {
        loop {
            match open() {
                Err(error) if is_out_of_descriptors(&error) && self.close_oldest() => {}
                opened => return opened,
            }
        }
    }

    /// Closes the file that was not used for longest, if there is one.
    fn close_oldest(&self) -> bool {
        let oldest = self.lock().pop_lru();
        oldest.is_some()
    }

    fn open(&self, index: usize, want: Want) -> io::Result<Open> {
        let info = self.info.file(index).ok_or(Errno::NOENT)?;
        let path = info.path();
        let open = |access| below::file(&self.root, &path, access);
        if want == Want::Read {
            return Ok(Open::new(open(OFlags::RDONLY)?, false, None));
        }
        let file = match open(OFlags::RDWR) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => match self.check_known(index, None) {
                Ok(()) => {
                    let folder = below::folder(&self.root, &path, Absent::Make)?;
                    let name = path.file_name().ok_or(Errno::INVAL)?;
                    below::file_in(&folder, name, OFlags::RDWR | OFlags::CREATE, mode_of(info))?
                }
                // What is believed of it has gone with it; unless another thread has just made it.
                Err(gone) => open(OFlags::RDWR).map_err(|_| gone)?,
            },
            file => file?,
        };
        let look = || Ok(stamp_of(&rustix::fs::fstat(&file)?));
        let writer = match info.is_empty() {
            true => None,
            false => Some((self.known.admit(index, look)?, Arc::clone(&self.known))),
        };
        let grows = self.preallocation == Preallocation::None;
        let open = Open::new(file, true, writer);
        if !grows && (rustix::fs::fstat(&open.file)?.st_size as u64) < info.len() {
            rustix::fs::ftruncate(&open.file, info.len())?;
        }
        Ok(open)
    }

    /// Fails if a file is not as it is known; empty ones may come and go.
    fn check_known(&self, index: usize, stat: Option<&Stat>) -> io::Result<()> {
        match self.info.file(index).is_some_and(|file| !file.is_empty()) {
            true => self.known.check(index, stat.map(stamp_of)),
            false => Ok(()),
        }
    }

    /// Fails if a file is not as it is known, or not the one that is open.
    fn confirm_file(&self, index: usize) -> io::Result<()> {
        let open = self.lock().peek(&index).map(Arc::clone);
        twice(|| {
            let stat = self.stat(index)?;
            self.check_known(index, stat.as_ref())?;
            open.as_ref().map_or(Ok(()), |open| is_at(&open.file, stat.as_ref()))
        })
    }

    fn stat(&self, index: usize) -> io::Result<Option<Stat>> {
        let Some(info) = self.info.file(index) else { return Ok(None) };
        let path = info.path();
        let stat = self.freeing(|| below::folder(&self.root, &path, Absent::Fail)).and_then(|folder| {
            let name = path.file_name().ok_or(Errno::INVAL)?;
            Ok(rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW)?)
        });
        match stat {
            Ok(stat) => Ok(Some(stat)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn sync_file(&self, index: usize) -> io::Result<()> {
        let open = match self.file(index, Want::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return self.sync_part(index, error),
            open => open?,
        };
        // The file's entry in its folder is left to the file system: should it be lost in a crash,
        // the file is missed on the next start and its pieces are not believed.
        match open.file.sync_all() {
            Err(error) if has_nothing_to_sync(&open.file, &error) => {}
            synced => synced?,
        }
        // Writes to a file that was deleted or renamed meanwhile succeed and are lost.
        let there = twice(|| {
            let stat = self.stat(index)?;
            is_at(&open.file, stat.as_ref()).and_then(|()| self.check_known(index, stat.as_ref()))
        });
        if there.is_err() {
            let fallen = self.lock().pop(&index);
            drop(fallen);
        }
        there
    }

    fn failed(&self, doing: &'static str, index: usize) -> impl FnOnce(io::Error) -> DiskError {
        let path = self.info.file(index).map(|file| file.path());
        let path = self.root_path.join(path.unwrap_or_default());
        move |error| DiskError::new(doing, &path, &error)
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<usize, Arc<Open>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Storage for FileStorage {
    fn read(&self, file: usize, offset: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        let read = match self.file(file, Want::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.read_part(file, offset, buf),
            open => open.and_then(|open| open.file.read_exact_at(buf, offset)),
        };
        read.map_err(|error| self.failed("reading", file)(error))
    }

    fn ahead(&self, file: usize, offset: u64, len: u32) {
        if let (Ok(open), Some(len)) = (self.file(file, Want::Read), NonZeroU64::new(u64::from(len))) {
            // Advice alone: without it reading takes longer.
            let _ = rustix::fs::fadvise(&open.file, offset, Some(len), Advice::WillNeed);
        }
    }

    fn write(&self, file: usize, offset: u64, bufs: &mut [IoSlice<'_>]) -> Result<(), DiskError> {
        let write = self.write_part(file, offset, bufs).and_then(|written| match written {
            true => Ok(()),
            false => self.file(file, Want::Write)?.write(offset, bufs),
        });
        write.map_err(|error| self.failed("writing", file)(error))
    }

    fn finish(&self, file: usize) -> Result<(), DiskError> {
        if self.skips(file) && self.stat(file).is_ok_and(|stat| stat.is_none()) {
            return Ok(());
        }
        let len = self.info.file(file).map_or(0, |file| file.len());
        let finish = self.file(file, Want::Write).and_then(|open| match open.file.metadata()?.len() == len {
            true => Ok(()),
            false => {
                // Not before, lest the file be found too short for what is known.
                self.known.cut(file, len);
                open.file.set_len(len)
            }
        });
        finish.map_err(|error| self.failed("finishing", file)(error))
    }

    fn sync(&self, file: usize) -> Result<(), DiskError> {
        self.sync_file(file).map_err(|error| self.failed("syncing", file)(error))
    }

    fn stamp(&self, file: usize) -> Result<Option<Stamp>, DiskError> {
        let stat = self.stat(file).map_err(|error| self.failed("looking at", file)(error))?;
        let Some(stat) = stat else {
            return self.stamp_part(file).map_err(|error| self.failed("looking at the part of", file)(error));
        };
        let stamp = stamp_of(&stat);
        self.known.saw(file, stamp);
        Ok(Some(stamp))
    }

    fn confirm(&self, file: usize) -> Result<(), DiskError> {
        self.confirm_file(file).map_err(|error| self.failed("looking at", file)(error))
    }

    fn forget(&self, file: usize) {
        self.known.forget(file);
        // Closed after the lock is gone.
        let fallen = self.lock().pop(&file);
        drop(fallen);
    }

    fn want(&self, files: &[bool]) {
        let skipped = files.iter().map(|wanted| !wanted).collect();
        *self.skipped.lock().unwrap_or_else(PoisonError::into_inner) = skipped;
    }

    fn bring_back(&self, file: usize) -> Result<bool, DiskError> {
        self.bring_part(file).map_err(|error| self.failed("moving out of the part file", file)(error))
    }

    fn plan(&self, there: &Bitfield) -> Result<Vec<(usize, u64)>, DiskError> {
        self.plan_space(there)
    }

    fn reserve(&self, file: usize, from: u64) -> Result<u64, DiskError> {
        self.reserve_space(file, from).map_err(|error| self.failed("reserving space for", file)(error))
    }
}

/// How many files to keep open: a quarter of what the process may open, 4 to 128.
pub fn default_open_files() -> NonZeroUsize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let quarter = usize::try_from(limit.unwrap_or(u64::MAX) / 4).unwrap_or(usize::MAX);
    NonZeroUsize::new(quarter.clamp(4, 128)).unwrap_or(NonZeroUsize::MIN)
}

fn mode_of(file: crate::metainfo::File<'_>) -> Mode {
    Mode::from_raw_mode(if file.attributes.is_executable() { 0o777 } else { 0o666 })
}

/// Fails if an open file is not what lies in its place now.
fn is_at(file: &File, place: Option<&Stat>) -> io::Result<()> {
    let open = rustix::fs::fstat(file)?;
    // By more than one sign: some file systems make up their inodes.
    let is_other = |there: &Stat| {
        (there.st_dev, there.st_ino) != (open.st_dev, open.st_ino) && stamp_of(there) != stamp_of(&open)
    };
    match open.st_nlink == 0 || place.is_none_or(is_other) {
        true => Err(taken_away()),
        false => Ok(()),
    }
}

/// File systems that cannot be written to, like squashfs, know of no sync and say so.
fn has_nothing_to_sync(file: &File, error: &io::Error) -> bool {
    let refused = [Errno::INVAL, Errno::ROFS].map(|errno| Some(errno.raw_os_error()));
    let only_reads =
        || rustix::fs::fstatvfs(file).is_ok_and(|facts| facts.f_flag.contains(StatVfsMountFlags::RDONLY));
    refused.contains(&error.raw_os_error()) && only_reads()
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    [Errno::MFILE, Errno::NFILE].iter().any(|full| error.raw_os_error() == Some(full.raw_os_error()))
}

/// What `look` says, the second time if it fails: another thread may have written in between.
fn twice(look: impl Fn() -> io::Result<()>) -> io::Result<()> {
    look().or_else(|_| look())
}

/// Whether the time of a file that nobody writes to stays as it is. CIFS sets it anew some time after the file is
/// closed; of other file systems that are elsewhere or a program's the same may hold.
#[cfg(target_os = "linux")]
fn keeps_times(root: &OwnedFd) -> bool {
    const ELSEWHERE: [u32; 5] = [0xff53_4d42, 0xfe53_4d42, 0x517b, 0x6573_5546, 0x6969];
    rustix::fs::fstatfs(root).is_ok_and(|facts| !ELSEWHERE.contains(&(facts.f_type as u32)))
}

#[cfg(not(target_os = "linux"))]
fn keeps_times(_: &OwnedFd) -> bool {
    true
}

fn stamp_of(stat: &Stat) -> Stamp {
    let mtime = stat.st_mtime.saturating_mul(1_000_000_000).saturating_add(stat.st_mtime_nsec as i64);
    Stamp { len: stat.st_size as u64, mtime }
}

/// Writes all slices, however many calls that takes.
fn write_all_at(file: &File, mut offset: u64, mut bufs: &mut [IoSlice<'_>]) -> io::Result<()> {
    IoSlice::advance_slices(&mut bufs, 0); // drops empty ones
    while !bufs.is_empty() {
        let batch = bufs.len().min(MAX_SLICES);
        match rustix::io::pwritev(file, &bufs[..batch], offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                offset += written as u64;
                IoSlice::advance_slices(&mut bufs, written);
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
