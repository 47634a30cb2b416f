//! [`PartFile`]: the bytes of unwanted files that pieces at their edges bring along.
//!
//! A piece that overlaps a wanted file may hold the end or the start of one that was skipped. Those
//! bytes are needed to check and to share the piece, but must not make the skipped file appear. They
//! lie in one hidden, sparse file in the download folder: of each file the first and the last piece's
//! length, each file at a place of its own that follows from the torrent alone. There is no index
//! that could be wrong: whether bytes are right says the hash of their piece, as everywhere.
//!
//! A file that exists is where its bytes are, whatever lies here. When a file comes to be wanted, its
//! bytes are copied into a file beside this one (or beside the file, if that is on another file system),
//! synced, and that one gets the file's name; only then are they dropped here. Whenever the process is
//! killed, one of the two has them.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::UNIX_EPOCH;

use rustix::fs::{AtFlags, FallocateFlags, Mode, OFlags, RenameFlags, SeekFrom};
use rustix::io::Errno;

use crate::metainfo::Info;

/// Places begin at multiples of this, so that dropping a file's bytes frees whole blocks of a disk.
const ALIGNMENT: u64 = 4096;
/// Bytes copied at a time.
const CHUNK: usize = 64 << 10;

/// The file, made when first written to and removed when nothing is left in it.
#[derive(Debug)]
pub(super) struct PartFile {
    name: String,
    moving: String,
    /// Where the bytes of each file begin.
    bases: Vec<u64>,
    piece_len: u64,
    file: Option<File>,
}

/// The place of a file's bytes: its first piece's length, then its last one's, or all of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    base: u64,
    len: u64,
    piece_len: u64,
}

impl Place {
    /// Bytes that fit.
    fn capacity(&self) -> u64 {
        self.len.min(2 * self.piece_len)
    }

    /// Where `len` bytes from `offset` of the file on lie; `None` if they do not belong here.
    fn at(&self, offset: u64, len: u64) -> Option<u64> {
        let end = offset.checked_add(len).filter(|&end| end <= self.len)?;
        if self.len <= 2 * self.piece_len || end <= self.piece_len {
            Some(self.base + offset)
        } else if offset >= self.len - self.piece_len {
            Some(self.base + 2 * self.piece_len - (self.len - offset))
        } else {
            None
        }
    }

    /// Where a byte of this place belongs in the file.
    fn offset_of(&self, within: u64) -> u64 {
        match self.len <= 2 * self.piece_len || within < self.piece_len {
            true => within,
            false => self.len - 2 * self.piece_len + within,
        }
    }
}

impl PartFile {
    /// The part file of a torrent in the folder `root`, opened if it is there.
    pub(super) fn open(info: &Info, root: BorrowedFd<'_>) -> io::Result<Self> {
        let piece_len = u64::from(info.piece_length());
        let mut next = 0_u64;
        let place = |len: u64| {
            let base = next;
            next = next.saturating_add(len.min(2 * piece_len).next_multiple_of(ALIGNMENT));
            base
        };
        let bases =
            info.files().map(|file| if file.is_stored() { file.len() } else { 0 }).map(place).collect();
        let hash = info.hash().swarm();
        let (name, moving) = (format!(".{hash}.btfetch.part"), format!(".{hash}.btfetch.moving"));
        let file = match open(root, &name, OFlags::RDWR) {
            Err(Errno::ROFS | Errno::ACCESS) => open(root, &name, OFlags::RDONLY),
            other => other,
        };
        let file = match file {
            Ok(file) => Some(file),
            Err(Errno::NOENT) => None,
            Err(error) => return Err(error.into()),
        };
        Ok(Self { name, moving, bases, piece_len, file })
    }

    /// The place of the file of this index and length.
    pub(super) fn place(&self, index: usize, len: u64) -> Option<Place> {
        let base = *self.bases.get(index)?;
        Some(Place { base, len, piece_len: self.piece_len })
    }

    /// Whether anything was written to a place. Where the file system cannot tell, it may be nothing
    /// but zeros.
    pub(super) fn holds(&self, place: Place) -> bool {
        let Some(file) = self.file.as_ref().filter(|_| place.len > 0) else { return false };
        match rustix::fs::seek(file, SeekFrom::Data(place.base)) {
            Ok(at) => at < place.base + place.capacity(),
            Err(Errno::NXIO) => false,
            Err(_) => true,
        }
    }

    /// Whether bytes of a file may lie here at all.
    pub(super) fn takes(place: Place, offset: u64, len: u64) -> bool {
        place.at(offset, len).is_some()
    }

    /// Fills `buf` with the bytes of a file from `offset` on.
    pub(super) fn read(&self, place: Place, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let at = place.at(offset, buf.len() as u64);
        let (Some(file), Some(at)) = (&self.file, at) else { return Err(io::ErrorKind::NotFound.into()) };
        file.read_exact_at(buf, at)
    }

    /// The file to write to, made if need be, and where the bytes from `offset` on go.
    pub(super) fn for_writing(
        &mut self,
        root: BorrowedFd<'_>,
        place: Place,
        (offset, len): (u64, u64),
    ) -> io::Result<(&File, u64)> {
        let at = place.at(offset, len).ok_or(Errno::INVAL)?;
        let file = match self.file.take() {
            Some(file) => file,
            None => open(root, &self.name, OFlags::RDWR | OFlags::CREATE)?,
        };
        Ok((self.file.insert(file), at))
    }

    /// Returns when what was written survives a crash; fails if the file was taken away meanwhile.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        file.sync_all()?;
        if rustix::fs::fstat(file)?.st_nlink == 0 {
            self.file = None;
            return Err(io::Error::new(io::ErrorKind::NotFound, "the part file was deleted"));
        }
        Ok(())
    }

    /// A number that another part file of this name would not have: it goes by inode and time of birth,
    /// where the file system knows that.
    pub(super) fn mark(&self) -> io::Result<Option<u64>> {
        let Some(file) = &self.file else { return Ok(None) };
        let metadata = file.metadata()?;
        let born = metadata.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
        let born = born.map_or(0, |born| born.as_nanos() as u64);
        // Spread, so that neighbouring inodes of one moment do not meet.
        Ok(Some(metadata.ino().wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ born))
    }

    /// Makes the file `name` in the folder `at` of what lies at a place, over a copy in the folder `by`. A
    /// file of that name that is there already stays as it is.
    pub(super) fn put(
        &self,
        by: BorrowedFd<'_>,
        place: Place,
        (at, name): (BorrowedFd<'_>, &OsStr),
        mode: Mode,
    ) -> io::Result<()> {
        let moving = self.copy_out(by, place, mode)?;
        let renamed = match rustix::fs::renameat_with(by, moving, at, name, RenameFlags::NOREPLACE) {
            // Some file systems know no such flag; it was absent, and others of us wait.
            Err(Errno::INVAL | Errno::NOSYS) => rustix::fs::renameat(by, moving, at, name),
            renamed => renamed,
        };
        if renamed.is_err() {
            let _ = rustix::fs::unlinkat(by, moving, AtFlags::empty());
        }
        match renamed {
            Err(Errno::EXIST) => Ok(()),
            renamed => Ok(renamed?),
        }
    }

    /// Copies what lies at a place into a new file of full length, synced, whose name is returned. It
    /// replaces what an earlier run has left behind; a copy that fails leaves nothing.
    fn copy_out(&self, root: BorrowedFd<'_>, place: Place, mode: Mode) -> io::Result<&str> {
        let copied = self.copy(root, place, mode);
        if copied.is_err() {
            let _ = rustix::fs::unlinkat(root, &self.moving, AtFlags::empty());
        }
        copied.map(|()| self.moving.as_str())
    }

    fn copy(&self, root: BorrowedFd<'_>, place: Place, mode: Mode) -> io::Result<()> {
        match rustix::fs::unlinkat(root, &self.moving, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let to = File::from(rustix::fs::openat(root, &self.moving, flags, mode)?);
        to.set_len(place.len)?;
        let mut buf = vec![0; CHUNK];
        let mut done = 0;
        while let Some(from) = self.file.as_ref().filter(|_| done < place.capacity()) {
            // Not across the middle, where bytes that are neighbours here are none in the file.
            let border = if done < self.piece_len { self.piece_len } else { 2 * self.piece_len };
            let most = (border.min(place.capacity()) - done).min(CHUNK as u64) as usize;
            let len = match from.read_at(&mut buf[..most], place.base + done) {
                Ok(0) => break, // nothing further was ever written
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            if buf[..len].iter().any(|&byte| byte != 0) {
                to.write_all_at(&buf[..len], place.offset_of(done))?;
            }
            done += len as u64;
        }
        to.sync_all()
    }

    /// Drops what lies at a place, and the file when nothing is left in it. Where the file system
    /// cannot free part of a file, the bytes stay and are not looked at.
    pub(super) fn drop_place(&mut self, root: BorrowedFd<'_>, place: Place) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let len = place.capacity().next_multiple_of(ALIGNMENT);
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(file, flags, place.base, len) {
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
        if rustix::fs::seek(file, SeekFrom::Data(0)) == Err(Errno::NXIO) {
            self.remove(root)?;
        }
        Ok(())
    }

    fn remove(&mut self, root: BorrowedFd<'_>) -> io::Result<()> {
        self.file = None;
        match rustix::fs::unlinkat(root, &self.name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn open(root: BorrowedFd<'_>, name: &str, flags: OFlags) -> Result<File, Errno> {
    let common = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = rustix::fs::openat(root.as_fd(), name, common | flags, Mode::from_raw_mode(0o666))?;
    let stat = rustix::fs::fstat(&file)?;
    match rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file() {
        true => Ok(file.into()),
        false => Err(Errno::INVAL),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metainfo::create;
    use crate::storage::{DiskErrorKind, FileStorage, Storage};
    use std::fs;
    use std::io::IoSlice;
    use std::num::NonZeroUsize;
    use std::path::Path;
    use std::sync::Arc;

    const LENGTHS: [usize; 3] = [20_000, 100_000, 20_000];
    const PIECE_LEN: usize = 16384;

    /// Files `a`, `b`, `c` in `t`, none of which ends with a piece.
    fn info() -> Arc<Info> {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("t");
        fs::create_dir(&root).unwrap();
        for (name, len) in ["a", "b", "c"].iter().zip(LENGTHS) {
            fs::write(root.join(name), vec![1; len]).unwrap();
        }
        let options = create::Options { piece_length: Some(PIECE_LEN as u32), ..Default::default() };
        Arc::new(create::create(&root, &options, &|_| ()).unwrap().metainfo.info)
    }

    fn storage(dir: &Path) -> FileStorage {
        FileStorage::new(info(), dir, NonZeroUsize::new(4).unwrap()).unwrap()
    }

    /// A storage of which only `a` and `c` are wanted, with the two ends of `b` written.
    fn with_ends(dir: &Path) -> FileStorage {
        let storage = storage(dir);
        storage.want(&[true, false, true]);
        storage.write(0, 0, &mut [IoSlice::new(&[7; 20_000])]).unwrap();
        storage.write(1, 0, &mut [IoSlice::new(&[8; 12_000]), IoSlice::new(&[9; 768])]).unwrap();
        storage.write(1, 98_304 + 12_768 - PIECE_LEN as u64, &mut [IoSlice::new(&[10; 5_312])]).unwrap();
        storage
    }

    fn hidden(dir: &Path) -> Vec<String> {
        let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| name.starts_with('.')).collect();
        names.sort();
        names
    }

    fn ends(storage: &FileStorage) -> (Vec<u8>, Vec<u8>) {
        let (mut head, mut tail) = (vec![0; 12_768], vec![0; 5_312]);
        storage.read(1, 0, &mut head).unwrap();
        storage.read(1, 94_688, &mut tail).unwrap();
        (head, tail)
    }

    fn right_ends() -> (Vec<u8>, Vec<u8>) {
        ([vec![8; 12_000], vec![9; 768]].concat(), vec![10; 5_312])
    }

    #[test]
    fn place_holds_both_ends_of_a_file_and_not_its_middle() {
        let place = Place { base: 8192, len: 1000, piece_len: 100 };
        assert_eq!((place.at(0, 100), place.at(60, 40)), (Some(8192), Some(8252)));
        assert_eq!((place.at(900, 100), place.at(999, 1)), (Some(8292), Some(8391)));
        assert_eq!((place.at(50, 51), place.at(899, 10)), (None, None), "the middle");
        assert_eq!((place.at(950, 51), place.at(u64::MAX, 2)), (None, None), "past the end");
        assert_eq!((place.offset_of(99), place.offset_of(100), place.offset_of(199)), (99, 900, 999));
        let short = Place { base: 0, len: 150, piece_len: 100 };
        assert_eq!((short.at(0, 150), short.offset_of(149), short.capacity()), (Some(0), 149, 150));
    }

    #[test]
    fn skipped_file_is_not_made_and_its_ends_are_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let first = with_ends(dir.path());
        assert!(!dir.path().join("t/b").exists() && dir.path().join("t/a").exists());
        assert_eq!(ends(&first), right_ends());
        let stamp = first.stamp(1).unwrap().unwrap();
        assert_eq!((stamp.len, first.stamp(2)), (100_000, Ok(None)));
        assert_eq!(
            (first.sync(1), first.sync(2).map_err(|error| error.kind)),
            (Ok(()), Err(DiskErrorKind::Missing))
        );
        drop(first);
        // A later run, that nobody has told what is wanted.
        let later = storage(dir.path());
        assert_eq!((ends(&later), later.stamp(1)), (right_ends(), Ok(Some(stamp))));
        assert_eq!(hidden(dir.path()).len(), 1);
    }

    #[test]
    fn file_that_comes_to_be_wanted_gets_its_ends_and_the_part_file_goes() {
        let dir = tempfile::tempdir().unwrap();
        let storage = with_ends(dir.path());
        assert_eq!(storage.bring_back(1), Ok(false), "still skipped");
        storage.want(&[]);
        assert_eq!((storage.bring_back(1), storage.bring_back(1)), (Ok(true), Ok(false)));
        let bytes = fs::read(dir.path().join("t/b")).unwrap();
        assert_eq!(
            (bytes.len(), &bytes[..12_768], &bytes[94_688..]),
            (100_000, &right_ends().0[..], &right_ends().1[..])
        );
        assert!(bytes[12_768..94_688].iter().all(|&byte| byte == 0));
        assert_eq!(hidden(dir.path()), Vec::<String>::new());
        assert_eq!(ends(&storage), right_ends());
    }

    #[test]
    fn file_in_a_folder_of_another_file_system_gets_its_ends_too() {
        let in_mounts = || {
            if let Err(why) = harness::netns::enter_mounts() {
                return harness::rivals::skip("a file in a folder of another file system", &why);
            }
            let dir = tempfile::tempdir().unwrap();
            let folder = dir.path().join("t");
            fs::create_dir(&folder).unwrap();
            let run = |command: &mut std::process::Command| assert!(command.status().unwrap().success());
            run(std::process::Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(&folder));
            let storage = with_ends(dir.path());
            // Left by a run that was killed in the middle of it.
            fs::write(folder.join(moving_name(dir.path())), b"half of it").unwrap();
            storage.want(&[]);
            assert_eq!((storage.bring_back(1), storage.bring_back(1)), (Ok(true), Ok(false)));
            assert_eq!(fs::read(folder.join("b")).unwrap().len(), 100_000);
            assert_eq!(ends(&storage), right_ends());
            assert_eq!((hidden(dir.path()), hidden(&folder)), (vec![], vec![]));
            drop(storage);
            run(std::process::Command::new("umount").arg(&folder));
        };
        std::thread::spawn(in_mounts).join().unwrap();
    }

    /// The name of a copy that is under way.
    fn moving_name(dir: &Path) -> String {
        hidden(dir)[0].replace(".part", ".moving")
    }

    #[test]
    fn first_write_into_the_middle_brings_the_ends_along() {
        for wanted in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let storage = with_ends(dir.path());
            storage.want(&[true, wanted, true]);
            storage.write(1, 40_000, &mut [IoSlice::new(&[5; 100])]).unwrap();
            assert_eq!(ends(&storage), right_ends());
            assert_eq!(fs::read(dir.path().join("t/b")).unwrap()[40_000..40_100], [5; 100]);
            assert_eq!(hidden(dir.path()), Vec::<String>::new());
        }
    }

    #[test]
    fn killed_between_any_two_steps_of_the_move_nothing_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let killed = with_ends(dir.path());
        // After the copy was begun, or made: it has no name yet.
        let part = PartFile::open(&info(), File::open(dir.path()).unwrap().as_fd()).unwrap();
        let root = File::open(dir.path()).unwrap();
        let place = part.place(1, 100_000).unwrap();
        let moving = part.copy_out(root.as_fd(), place, Mode::RUSR | Mode::WUSR).unwrap().to_owned();
        fs::write(dir.path().join(&moving), b"half of it").unwrap();
        drop(killed);
        let next = storage(dir.path());
        assert_eq!(ends(&next), right_ends());
        assert_eq!((next.bring_back(1), hidden(dir.path())), (Ok(true), Vec::new()));
        assert_eq!(ends(&next), right_ends());
        drop(next);
        // After it got its name, before anything was dropped: the file is what counts.
        fs::remove_file(dir.path().join("t/b")).unwrap();
        let killed = with_ends(dir.path());
        part_copied_to(&killed, dir.path());
        drop(killed);
        let next = storage(dir.path());
        let part_file = dir.path().join(&hidden(dir.path())[0]);
        next.write(1, 0, &mut [IoSlice::new(&[3])]).unwrap();
        assert_eq!((ends(&next).0[0], ends(&next).1), (3, right_ends().1));
        assert!(part_file.exists());
        assert_eq!((next.bring_back(1), part_file.exists()), (Ok(true), false));
        assert_eq!(ends(&next).0[0], 3, "the file is not replaced by what was left behind");
        assert_eq!(hidden(dir.path()), Vec::<String>::new());
    }

    /// Does the move up to the new name.
    fn part_copied_to(_held: &FileStorage, dir: &Path) {
        let root = File::open(dir).unwrap();
        let part = PartFile::open(&info(), root.as_fd()).unwrap();
        let place = part.place(1, 100_000).unwrap();
        let moving = part.copy_out(root.as_fd(), place, Mode::RUSR | Mode::WUSR).unwrap();
        fs::rename(dir.join(moving), dir.join("t/b")).unwrap();
    }

    #[test]
    fn links_in_the_place_of_the_part_file_are_refused() {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::NamedTempFile::new().unwrap());
        drop(with_ends(dir.path()));
        let part = dir.path().join(&hidden(dir.path())[0]);
        fs::remove_file(&part).unwrap();
        std::os::unix::fs::symlink(outside.path(), &part).unwrap();
        assert!(FileStorage::new(info(), dir.path(), NonZeroUsize::MIN).is_err());
        assert_eq!(fs::read(outside.path()).unwrap(), b"");
    }

    #[test]
    fn part_file_is_no_larger_than_two_pieces_a_file() {
        let dir = tempfile::tempdir().unwrap();
        drop(with_ends(dir.path()));
        let len = fs::metadata(dir.path().join(&hidden(dir.path())[0])).unwrap().len();
        assert!(len <= 2 * 3 * PIECE_LEN as u64 + 3 * ALIGNMENT, "{len}");
    }
}
