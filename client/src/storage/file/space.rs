//! How a [`FileStorage`] reserves space ([`Preallocation::Full`]).

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd as _;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::below::{self, Absent};
use super::{FileStorage, Want};
use crate::bitfield::Bitfield;
use crate::metainfo::File;
use crate::storage::{DiskError, DiskErrorKind, Preallocation};

/// Bytes that are reserved at once: few calls, and on a file system that takes its time nobody who wants
/// the download to end waits for more.
const STEP: u64 = 256 << 20;
/// Of `st_blocks`, whatever the file system's own blocks are.
const SECTOR: u64 = 512;

/// What files on one file system need, in bytes.
#[derive(Clone, Copy, Debug)]
struct Room {
    block: u64,
    needed: u64,
    /// `None` where the file system does not know.
    free: Option<u64>,
}

impl FileStorage {
    /// The wanted files that lack space, and how many bytes each. One of which all pieces are `there` lacks
    /// none, though it have holes or be compressed.
    pub(super) fn plan_space(&self, there: &Bitfield) -> Result<Vec<(usize, u64)>, DiskError> {
        if self.preallocation != Preallocation::Full {
            return Ok(Vec::new());
        }
        let (mut plan, mut rooms) = (Vec::new(), BTreeMap::new());
        let stored = self.info.files().filter(|file| file.is_stored() && !file.is_empty());
        let whole = |file: usize| self.info.layout().piece_range(file).all(|piece| there.contains(piece));
        for file in stored.filter(|file| !self.skips(file.index) && !whole(file.index)) {
            let lacks = self.lack(&file, &mut rooms);
            let lacks = lacks.map_err(|error| self.failed("looking at", file.index)(error))?;
            if lacks > 0 {
                plan.push((file.index, lacks));
            }
        }
        let missing = |room: &Room| room.needed.saturating_sub(room.free.unwrap_or(u64::MAX));
        match rooms.values().map(missing).max() {
            Some(missing @ 1..) => Err(self.too_small(missing)),
            _ => Ok(plan),
        }
    }

    /// Bytes that a file lacks, added to what its file system must have. A file counts as reserved if it has
    /// as many blocks as its length takes: which of them are before its end nobody tells.
    fn lack(&self, file: &File<'_>, rooms: &mut BTreeMap<u64, Room>) -> io::Result<u64> {
        let (stat, path) = (self.stat(file.index)?, file.path());
        let has = stat.map_or(0, |stat| (stat.st_blocks as u64).saturating_mul(SECTOR));
        let lacks = file.len().saturating_sub(has);
        if lacks == 0 {
            return Ok(0);
        }
        let folder = below::folder(&self.root, &path, Absent::Above)?;
        let at = folder.as_fd();
        // Only what the user may take: others' reserves are no room for downloads.
        let device =
            stat.map_or_else(|| rustix::fs::fstat(at).map(|stat| stat.st_dev), |stat| Ok(stat.st_dev))?;
        let room = match rooms.entry(device) {
            std::collections::btree_map::Entry::Occupied(room) => room.into_mut(),
            std::collections::btree_map::Entry::Vacant(room) => {
                let fs = rustix::fs::fstatvfs(at)?;
                let free = (fs.f_blocks > 0).then_some(fs.f_bavail.saturating_mul(fs.f_frsize));
                room.insert(Room { block: fs.f_frsize.max(1), needed: 0, free })
            }
        };
        room.needed = room.needed.saturating_add(lacks.next_multiple_of(room.block));
        Ok(lacks)
    }

    fn too_small(&self, missing: u64) -> DiskError {
        let kind = DiskErrorKind::NoSpace;
        let detail =
            format!("no space left on the device: {} MiB more are needed", missing.div_ceil(1 << 20));
        DiskError { kind, doing: "reserving space in", path: self.root_path.clone(), detail }
    }

    /// Reserves the next bytes of a file, which is made if need be; says where that ended.
    pub(super) fn reserve_space(&self, index: usize, from: u64) -> io::Result<u64> {
        let len = self.info.file(index).map_or(0, |file| file.len());
        if self.preallocation != Preallocation::Full || self.skips(index) || from >= len {
            return Ok(len);
        }
        self.make(index)?;
        let open = self.file(index, Want::Write)?;
        let step = STEP.min(len - from);
        loop {
            match rustix::fs::fallocate(&open.file, FallocateFlags::empty(), from, step) {
                Ok(()) => return Ok(from + step),
                Err(Errno::INTR) => {}
                // Some file systems call it invalid when they mean that they cannot.
                Err(Errno::INVAL | Errno::NOSYS) => return Err(Errno::OPNOTSUPP.into()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::IoSlice;
    use std::num::NonZeroUsize;
    use std::os::unix::fs::MetadataExt as _;
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::metainfo::{Info, create};
    use crate::storage::Storage as _;

    const LENGTHS: [usize; 3] = [300_000, 1_000_000, 200_000];

    /// Files `a`, `b`, `c` in `t`.
    fn info() -> Arc<Info> {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("t");
        fs::create_dir(&root).unwrap();
        for (name, len) in ["a", "b", "c"].iter().zip(LENGTHS) {
            fs::write(root.join(name), vec![1; len]).unwrap();
        }
        let options = create::Options { piece_length: Some(16384), ..Default::default() };
        Arc::new(create::create(&root, &options, &|_| ()).unwrap().metainfo.info)
    }

    fn nothing() -> Bitfield {
        Bitfield::new(info().pieces())
    }

    fn storage(dir: &Path, preallocation: Preallocation) -> FileStorage {
        let storage = FileStorage::new(info(), dir, NonZeroUsize::new(4).unwrap()).unwrap();
        storage.with_preallocation(preallocation)
    }

    fn reserve_all(storage: &FileStorage) {
        for (file, _) in storage.plan(&nothing()).unwrap() {
            let mut from = 0;
            while from < LENGTHS[file] as u64 {
                from = storage.reserve(file, from).unwrap();
            }
        }
    }

    /// Length and bytes on the disk.
    fn sizes(dir: &Path, name: &str) -> Option<(u64, u64)> {
        let metadata = fs::metadata(dir.join("t").join(name)).ok()?;
        Some((metadata.len(), metadata.blocks() * SECTOR))
    }

    #[test]
    fn a_first_write_takes_as_much_as_was_chosen() {
        for (preallocation, len, least, most) in [
            (Preallocation::None, 20_000, 0, 100_000),
            (Preallocation::Sparse, 1_000_000, 0, 100_000),
            (Preallocation::Full, 1_000_000, 1_000_000, 1_100_000),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let storage = storage(dir.path(), preallocation);
            reserve_all(&storage);
            storage.write(1, 10_000, &mut [IoSlice::new(&[7; 10_000])]).unwrap();
            storage.sync(1).unwrap();
            let (length, taken) = sizes(dir.path(), "b").unwrap();
            assert_eq!(length, len, "{preallocation}");
            assert!((least..=most).contains(&taken), "{preallocation}: {taken}");
            // Only the full way makes what nothing was written to.
            assert_eq!(sizes(dir.path(), "a").is_some(), preallocation == Preallocation::Full);
        }
    }

    #[test]
    fn a_file_that_grows_has_its_length_when_finished() {
        let dir = tempfile::tempdir().unwrap();
        let storage = storage(dir.path(), Preallocation::None);
        storage.write(0, 5, &mut [IoSlice::new(b"x")]).unwrap();
        assert_eq!(sizes(dir.path(), "a").unwrap().0, 6);
        storage.finish(0).unwrap();
        assert_eq!(sizes(dir.path(), "a").unwrap().0, 300_000);
    }

    #[test]
    fn skipped_files_are_not_reserved_before_they_are_wanted() {
        let dir = tempfile::tempdir().unwrap();
        let storage = storage(dir.path(), Preallocation::Full);
        storage.want(&[true, false, true]);
        reserve_all(&storage);
        assert!(sizes(dir.path(), "a").unwrap().1 >= 300_000 && sizes(dir.path(), "b").is_none());
        // What a piece brings along of it is found in it later.
        storage.write(1, 0, &mut [IoSlice::new(b"begins")]).unwrap();
        assert_eq!(storage.reserve(1, 0), Ok(1_000_000), "nothing is left to do");
        assert_eq!(sizes(dir.path(), "b"), None);
        storage.want(&[true; 3]);
        assert_eq!(storage.plan(&nothing()), Ok(vec![(1, 1_000_000)]));
        reserve_all(&storage);
        assert!(sizes(dir.path(), "b").unwrap().1 >= 1_000_000);
        let mut begin = [0; 6];
        storage.read(1, 0, &mut begin).unwrap();
        assert_eq!(&begin, b"begins");
        assert_eq!(storage.plan(&nothing()), Ok(Vec::new()), "all is reserved");
    }

    #[test]
    fn a_file_that_is_all_there_needs_no_space_though_it_has_holes() {
        let dir = tempfile::tempdir().unwrap();
        let storage = storage(dir.path(), Preallocation::Full);
        fs::create_dir(dir.path().join("t")).unwrap();
        for (name, len) in ["a", "b"].iter().zip(LENGTHS) {
            fs::File::create(dir.path().join("t").join(name)).unwrap().set_len(len as u64).unwrap();
        }
        let mut there = nothing();
        let of_b = storage.info.layout().piece_range(1);
        for piece in of_b.clone() {
            there.insert(piece);
        }
        assert_eq!(storage.plan(&there), Ok(vec![(0, 300_000), (2, 200_000)]));
        there.remove(of_b.end - 1);
        assert_eq!(storage.plan(&there).unwrap().len(), 3);
    }

    #[test]
    fn a_longer_file_keeps_its_end_and_what_is_written_stays() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("t")).unwrap();
        let path = dir.path().join("t/a");
        let long = vec![3; 310_000];
        fs::write(&path, &long).unwrap();
        fs::write(dir.path().join("t/c"), [4; 1000]).unwrap();
        let storage = storage(dir.path(), Preallocation::Full);
        reserve_all(&storage);
        assert_eq!(fs::read(&path).unwrap(), long);
        let c = fs::read(dir.path().join("t/c")).unwrap();
        assert_eq!((c.len(), &c[..1000]), (200_000, &[4; 1000][..]));
        assert!(sizes(dir.path(), "c").unwrap().1 >= 200_000);
    }

    #[test]
    fn a_disk_that_is_too_small_is_named_with_what_is_missing_and_nothing_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let there = rustix::fs::statvfs(dir.path()).unwrap();
        // A torrent that is a GiB too large, of which nothing is known but its name.
        let len = there.f_bavail * there.f_frsize + (1 << 30);
        let piece_len = 1 << 28;
        let hashes = (len.div_ceil(piece_len) * 20) as usize;
        let mut raw =
            format!("d6:lengthi{len}e4:name1:x12:piece lengthi{piece_len}e6:pieces{hashes}:").into_bytes();
        raw.resize(raw.len() + hashes, b'h');
        raw.push(b'e');
        let info = Arc::new(Info::parse(&raw).unwrap());
        let storage = FileStorage::new(info, dir.path(), NonZeroUsize::MIN).unwrap();
        let storage = storage.with_preallocation(Preallocation::Full);
        let error = storage.plan(&nothing()).unwrap_err();
        assert_eq!((error.kind, &*error.path), (DiskErrorKind::NoSpace, dir.path()));
        // Others take and give space meanwhile.
        let words = error.detail.strip_suffix(" MiB more are needed").unwrap();
        let missing: u64 = words.strip_prefix("no space left on the device: ").unwrap().parse().unwrap();
        assert!((512..16_384).contains(&missing), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        storage.want(&[false]);
        assert_eq!(storage.plan(&nothing()), Ok(Vec::new()));
    }
}
