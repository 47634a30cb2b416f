//! Tests of [`FileStorage`] by itself.

use super::*;
use crate::metainfo::create;
use crate::storage::DiskErrorKind;
use std::fs;

/// `root/a` with 5 bytes, `root/b/c` with 10, `root/e` empty; nothing on disk.
fn info() -> Arc<Info> {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    fs::create_dir_all(root.join("b")).unwrap();
    fs::write(root.join("a"), b"01234").unwrap();
    fs::write(root.join("b/c"), b"0123456789").unwrap();
    fs::write(root.join("e"), b"").unwrap();
    let options = create::Options { piece_length: Some(1024), ..Default::default() };
    Arc::new(create::create(&root, &options, &|_| ()).unwrap().metainfo.info)
}

fn storage(dir: &Path, max_open: usize) -> FileStorage {
    FileStorage::new(info(), dir, NonZeroUsize::new(max_open).unwrap()).unwrap()
}

#[test]
fn files_are_made_sparse_when_first_written_to() {
    let dir = tempfile::tempdir().unwrap();
    let storage = storage(dir.path(), 1);
    assert_eq!(storage.stamp(1), Ok(None));
    assert_eq!(storage.read(1, 0, &mut [0]).unwrap_err().kind, DiskErrorKind::Missing);
    let mut slices = [IoSlice::new(b"x"), IoSlice::new(b""), IoSlice::new(b"yz")];
    storage.write(1, 4, &mut slices).unwrap();
    assert_eq!(fs::read(dir.path().join("root/b/c")).unwrap(), b"\0\0\0\0xyz\0\0\0");
    assert_eq!(storage.stamp(1).unwrap().unwrap().len, 10);
    storage.write(0, 0, &mut [IoSlice::new(b"ab")]).unwrap();
    let mut buf = [0; 3];
    storage.read(1, 4, &mut buf).unwrap();
    assert_eq!(&buf, b"xyz");
    assert_eq!(storage.read(1, 8, &mut buf).unwrap_err().kind, DiskErrorKind::Missing);
    assert!(storage.sync(1).is_ok() && storage.lock().len() == 1);
    storage.finish(2).unwrap();
    assert_eq!(fs::read(dir.path().join("root/e")).unwrap(), b"");
}

#[test]
fn more_slices_than_one_call_takes_are_written() {
    let file = tempfile::tempfile().unwrap();
    let bytes: Vec<u8> = (0..3000_u32).map(|at| at as u8).collect();
    let mut slices: Vec<_> = bytes.iter().map(|byte| IoSlice::new(std::slice::from_ref(byte))).collect();
    write_all_at(&file, 7, &mut slices).unwrap();
    let mut written = vec![0; 3000];
    file.read_exact_at(&mut written, 7).unwrap();
    assert_eq!(written, bytes);
}

#[test]
fn longer_files_are_cut_only_when_finished() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("root")).unwrap();
    let path = dir.path().join("root/a");
    fs::write(&path, b"longer than that").unwrap();
    let storage = storage(dir.path(), 8);
    storage.write(0, 0, &mut [IoSlice::new(b"01234")]).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"01234r than that");
    storage.finish(0).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"01234");
}

#[test]
fn links_and_fifos_are_not_followed() {
    let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir(dir.path().join("root")).unwrap();
    let victim = outside.path().join("victim");
    fs::write(&victim, b"").unwrap();
    std::os::unix::fs::symlink(&victim, dir.path().join("root/a")).unwrap();
    std::os::unix::fs::symlink(outside.path(), dir.path().join("root/b")).unwrap();
    let storage = storage(dir.path(), 8);
    for file in [0, 1] {
        let error = storage.write(file, 0, &mut [IoSlice::new(b"x")]).unwrap_err();
        assert!(error.detail.contains("symbolic link"), "{error}");
        assert!(storage.read(file, 0, &mut [0]).is_err());
    }
    assert_eq!(fs::read(&victim).unwrap(), b"");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    let fifo = dir.path().join("root/e");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
        .unwrap();
    assert!(storage.finish(2).unwrap_err().detail.contains("no regular file"));
}

#[test]
fn what_is_wanted_is_said_while_the_part_file_is_busy() {
    let dir = tempfile::tempdir().unwrap();
    let storage = storage(dir.path(), 8);
    let (said, heard) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        // As a copy out of it, or a sync, holds it.
        let busy = storage.part();
        let storage = &storage;
        scope.spawn(move || {
            storage.want(&[true, false]);
            said.send(storage.skips(1)).unwrap();
        });
        let skipped = heard.recv_timeout(std::time::Duration::from_secs(20));
        drop(busy);
        assert_eq!(skipped, Ok(true));
    });
}

#[test]
fn only_a_writer_waits_for_another_writer_of_the_same_file() {
    let dir = tempfile::tempdir().unwrap();
    let storage = storage(dir.path(), 8);
    storage.write(0, 0, &mut [IoSlice::new(b"01234")]).unwrap();
    let (said, heard) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let open = storage.file(0, Want::Write).unwrap();
        let busy = open.writing.lock().unwrap();
        let storage = &storage;
        let done = scope.spawn(move || {
            let mut read = [0; 5];
            storage.read(0, 0, &mut read).unwrap();
            storage.write(1, 0, &mut [IoSlice::new(b"x")]).unwrap();
            storage.stamp(0).unwrap();
            storage.confirm(0).unwrap();
            storage.sync(0).unwrap();
            said.send(read).unwrap();
            storage.write(0, 1, &mut [IoSlice::new(b"y")]).unwrap();
        });
        let read = heard.recv_timeout(std::time::Duration::from_secs(20));
        drop(busy);
        assert_eq!(read, Ok(*b"01234"));
        done.join().unwrap();
    });
    let mut read = [0; 3];
    storage.read(0, 0, &mut read).unwrap();
    assert_eq!(&read, b"0y2");
}

/// In a process of its own, which cannot have many descriptors.
#[test]
fn files_are_closed_where_no_descriptor_is_left_for_another() {
    const NAME: &str = "storage::file::tests::files_are_closed_where_no_descriptor_is_left_for_another";
    if std::env::var_os("BTFETCH_FEW_DESCRIPTORS").is_none() {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", NAME]).env("BTFETCH_FEW_DESCRIPTORS", "1");
        harness::faults::limit_descriptors(&mut child, 32);
        let ended = child.output().unwrap();
        let said = String::from_utf8_lossy(&ended.stdout);
        return assert!(ended.status.success() && said.contains("1 passed"), "{said}");
    }
    let dir = tempfile::tempdir().unwrap();
    let storage = storage(dir.path(), 8);
    storage.write(0, 0, &mut [IoSlice::new(b"01234")]).unwrap();
    let mut others: Vec<_> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    // A folder and a file in it take two.
    others.pop();
    storage.write(1, 0, &mut [IoSlice::new(b"56789")]).unwrap();
    assert_eq!(storage.lock().len(), 1);
    drop(others);
    assert_eq!(fs::read(dir.path().join("root/b/c")).unwrap(), b"56789\0\0\0\0\0");
}

#[test]
fn torrents_that_share_keep_no_more_open_than_their_share() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let all = OpenFiles::new(NonZeroUsize::new(2).unwrap());
    let first = storage(one.path(), 8).sharing(&all);
    let write = |storage: &FileStorage, file| storage.write(file, 0, &mut [IoSlice::new(b"x")]).unwrap();
    (0..2).for_each(|file| write(&first, file));
    assert_eq!(first.lock().len(), 2);
    let second = storage(two.path(), 8).sharing(&all);
    (0..2).for_each(|file| write(&second, file));
    first.finish(2).unwrap();
    assert_eq!((first.lock().len(), second.lock().len()), (1, 1));
}

#[test]
fn a_file_that_was_deleted_is_noticed_when_synced() {
    let dir = tempfile::tempdir().unwrap();
    let storage = storage(dir.path(), 8);
    storage.write(0, 0, &mut [IoSlice::new(b"01234")]).unwrap();
    fs::remove_dir_all(dir.path().join("root")).unwrap();
    assert_eq!(storage.sync(0).unwrap_err().kind, DiskErrorKind::Missing);
}

/// All tests of this module once more, in processes that have to do without `openat2`.
#[cfg(target_os = "linux")]
#[test]
fn where_a_path_cannot_be_opened_at_once_all_of_this_holds() {
    const ALONE: &str = "BTFETCH_NO_OPENAT2";
    if std::env::var_os(ALONE).is_some() {
        return;
    }
    for errno in [Errno::NOSYS, Errno::PERM] {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.arg("storage::file::").env(ALONE, "1");
        harness::faults::refuse_openat2(&mut child, errno.raw_os_error());
        let ended = child.output().unwrap();
        let said = String::from_utf8_lossy(&ended.stdout);
        assert!(ended.status.success() && !said.contains("running 0 tests"), "{errno}: {said}");
    }
}
