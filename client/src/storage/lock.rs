//! [`Lock`]: one process per torrent and folder. Other torrents may use the folder meanwhile.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use krpc::Id;
use rustix::fs::{Mode, OFlags};

/// A held lock: an advisory lock on a hidden file in the download folder, which goes when the
/// process ends however it ends. The file is removed when the lock is dropped.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    /// Takes the lock, or says `None` if another process (or another download of this process) has
    /// it. Does not wait.
    pub fn take(dir: &Path, infohash: Id) -> io::Result<Option<Self>> {
        let path = dir.join(format!(".{infohash}.btfetch.lock"));
        loop {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = File::from(rustix::fs::open(&path, flags, Mode::from_raw_mode(0o666))?);
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
            // The holder before us may have removed the file between our open and our lock; then we
            // hold a lock that nobody else will see.
            match fs::symlink_metadata(&path) {
                Ok(seen) if seen.ino() == file.metadata()?.ino() => {
                    return Ok(Some(Self { path, _file: file }));
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The folder that it was taken in has another name now.
    #[cfg(feature = "net")]
    pub(crate) fn moved(&mut self, dir: &Path) {
        if let Some(name) = self.path.file_name() {
            self.path = dir.join(name);
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // While the lock is still held, so that only the file that we locked is removed.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torrent_is_locked_once_per_folder() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (Id::new([1; 20]), Id::new([2; 20]));
        let lock = Lock::take(dir.path(), one).unwrap();
        assert!(lock.is_some());
        assert!(Lock::take(dir.path(), one).unwrap().is_none());
        assert!(Lock::take(dir.path(), two).unwrap().is_some());
        drop(lock);
        assert!(Lock::take(dir.path(), one).unwrap().is_some());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(Lock::take(&dir.path().join("none"), one).is_err());
    }
}
