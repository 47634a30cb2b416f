//! [`Draft`]: the folder of a job while it is made.
//!
//! It is made beside its place under a hidden name, and gets its own name when all in it is synced: a
//! folder of that name is a whole job. Who makes it has the lock of the job, which goes when the process
//! ends however it ends: one that nobody has was left by a run that was killed, and is taken over.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use krpc::Id;
use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;

use super::error::JobError;
use crate::storage::{DiskError, Lock, replace_file};

/// What a job is read from, in its folder.
pub(super) const FILE: &str = "job";

/// A folder without its name.
#[derive(Debug)]
pub(super) struct Draft {
    path: PathBuf,
    lock: Lock,
}

impl Draft {
    /// Makes the folder that will be `dir`, or takes over one that was left.
    pub(super) fn begin(dir: &Path, infohash: Id) -> Result<Self, JobError> {
        if fs::symlink_metadata(dir).is_ok() {
            return Err(JobError::Exists(dir.to_owned()));
        }
        let path = parent(dir).join(format!(".{infohash}.btfetch.job"));
        loop {
            match make(&path).and_then(|()| Lock::take(&path, infohash)) {
                Ok(Some(lock)) => return Ok(Self { path, lock }),
                Ok(None) => return Err(JobError::InUse(path)),
                // Who had it has given it its name.
                Err(error) if error.kind() == io::ErrorKind::NotFound && parent(dir).is_dir() => {}
                Err(error) => return Err(DiskError::new("making folder", &path, &error).into()),
            }
        }
    }

    /// Writes the file of the job; one that was left is replaced.
    pub(super) fn write(&self, bytes: &[u8]) -> Result<(), JobError> {
        let path = self.path.join(FILE);
        Ok(replace_file(&path, bytes).map_err(|error| DiskError::new("saving", &path, &error))?)
    }

    /// Gives the folder its name; the lock stays with it.
    pub(super) fn publish(mut self, dir: &Path) -> Result<Lock, JobError> {
        let named = match rustix::fs::renameat_with(CWD, &self.path, CWD, dir, RenameFlags::NOREPLACE) {
            // Some file systems know no such flag. At worst an empty folder is replaced.
            Err(Errno::INVAL | Errno::NOSYS) => fs::rename(&self.path, dir),
            renamed => renamed.map_err(io::Error::from),
        };
        if let Err(error) = named {
            self.discard();
            return Err(match error.kind() {
                io::ErrorKind::AlreadyExists => JobError::Exists(dir.to_owned()),
                _ => DiskError::new("making folder", dir, &error).into(),
            });
        }
        self.lock.moved(dir);
        let synced = File::open(parent(dir)).and_then(|parent| parent.sync_all());
        synced.map_err(|error| DiskError::new("making folder", dir, &error))?;
        Ok(self.lock)
    }

    /// Removes what cannot be finished. What stays is of no harm: the next one takes it over.
    pub(super) fn discard(self) {
        let _ = fs::remove_file(self.path.join(FILE));
        drop(self.lock);
        let _ = fs::remove_dir(&self.path);
    }
}

/// Makes a folder that may be there already, but not as a link to another one.
fn make(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => return made,
    }
    match fs::symlink_metadata(path)?.is_dir() {
        true => Ok(()),
        false => Err(io::Error::other("it is no folder")),
    }
}

fn parent(dir: &Path) -> &Path {
    match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draft_that_ends_after_any_of_its_steps_leaves_nothing_or_a_whole_folder() {
        let infohash = Id::new([7; 20]);
        for steps in 0..3 {
            let folder = tempfile::tempdir().unwrap();
            let dir = folder.path().join("made");
            let draft = Draft::begin(&dir, infohash).unwrap();
            assert!(matches!(Draft::begin(&dir, infohash), Err(JobError::InUse(_))));
            // Dropping it is what the end of a process does, but that the file of the lock stays then.
            if steps > 0 {
                draft.write(b"first").unwrap();
            }
            if steps > 1 {
                drop(draft.publish(&dir).unwrap());
                assert_eq!(fs::read(dir.join(FILE)).unwrap(), b"first");
                assert!(matches!(Draft::begin(&dir, infohash), Err(JobError::Exists(_))));
                continue;
            }
            drop(draft);
            assert!(!dir.exists());
            let again = Draft::begin(&dir, infohash).unwrap();
            again.write(b"second").unwrap();
            drop(again.publish(&dir).unwrap());
            assert_eq!(fs::read(dir.join(FILE)).unwrap(), b"second");
            assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn a_link_in_the_place_of_a_draft_is_refused() {
        let (folder, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let infohash = Id::new([7; 20]);
        let link = folder.path().join(format!(".{infohash}.btfetch.job"));
        std::os::unix::fs::symlink(outside.path(), link).unwrap();
        let refused = Draft::begin(&folder.path().join("made"), infohash);
        assert!(matches!(refused, Err(JobError::Disk(_))));
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_that_somebody_makes_meanwhile_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("made");
        let draft = Draft::begin(&dir, Id::new([7; 20])).unwrap();
        draft.write(b"ours").unwrap();
        fs::create_dir(&dir).unwrap();
        assert!(matches!(draft.publish(&dir), Err(JobError::Exists(_))));
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
