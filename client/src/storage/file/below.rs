//! Opening what lies below a folder, so that no name of a torrent and no symbolic link leads out of it.
//!
//! Linux opens a path below a folder in one call and refuses links in it (`openat2`, since 5.6). Elsewhere, where a
//! sandbox refuses that call, and to tell what is wrong, every component is opened on its own without following
//! links.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// Opening a fifo must not wait for somebody at its other end.
const REGULAR: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);

/// A folder at the root or below it.
#[derive(Debug)]
pub(super) enum Folder<'a> {
    Root(BorrowedFd<'a>),
    Below(OwnedFd),
}

impl AsFd for Folder<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Root(root) => *root,
            Self::Below(folder) => folder.as_fd(),
        }
    }
}

/// What to do about a folder that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Absent {
    /// It is an error.
    Fail,
    /// It is made.
    Make,
    /// The deepest one above it that is there stands for it.
    Above,
}

/// The folder that holds `path`.
pub(super) fn folder<'a>(root: &'a OwnedFd, path: &Path, absent: Absent) -> io::Result<Folder<'a>> {
    let Some(path) = path.parent().filter(|path| !path.as_os_str().is_empty()) else {
        return Ok(Folder::Root(root.as_fd()));
    };
    match at_once(root, path, FOLDER) {
        Ok(folder) => Ok(Folder::Below(folder)),
        Err(Errno::NOENT) if absent == Absent::Fail => Err(Errno::NOENT.into()),
        Err(_) => step_by_step(root, path, absent),
    }
}

/// A regular file that is there, with the access of `flags`.
pub(super) fn file(root: &OwnedFd, path: &Path, flags: OFlags) -> io::Result<File> {
    match at_once(root, path, REGULAR | flags) {
        Ok(file) => if_regular(file),
        Err(Errno::NOENT) => Err(Errno::NOENT.into()),
        Err(_) => {
            let folder = folder(root, path, Absent::Fail)?;
            file_in(&folder, path.file_name().ok_or(Errno::INVAL)?, flags, Mode::empty())
        }
    }
}

/// A regular file in a folder, with the access of `flags`; should they make it, with this mode.
pub(super) fn file_in(folder: impl AsFd, name: &OsStr, flags: OFlags, mode: Mode) -> io::Result<File> {
    match rustix::fs::openat(folder, name, REGULAR | flags, mode) {
        Ok(file) => if_regular(file),
        Err(Errno::LOOP) => Err(io::Error::other("it is a symbolic link")),
        Err(error) => Err(error.into()),
    }
}

fn if_regular(file: OwnedFd) -> io::Result<File> {
    match FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode).is_file() {
        true => Ok(file.into()),
        false => Err(io::Error::other("it is no regular file")),
    }
}

/// Opens it in one call. Errors but [`Errno::NOENT`] may be about the call alone.
#[cfg(target_os = "linux")]
fn at_once(root: &OwnedFd, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    use rustix::fs::ResolveFlags;

    if !path.components().all(|component| matches!(component, Component::Normal(_))) {
        return Err(Errno::INVAL);
    }
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(root, path, flags, Mode::empty(), resolve)
}

#[cfg(not(target_os = "linux"))]
fn at_once(_: &OwnedFd, _: &Path, _: OFlags) -> Result<OwnedFd, Errno> {
    Err(Errno::NOSYS)
}

fn step_by_step<'a>(root: &'a OwnedFd, path: &Path, absent: Absent) -> io::Result<Folder<'a>> {
    let mut folder = Folder::Root(root.as_fd());
    for component in path.components() {
        // Names are cleaned before; nothing but a name is opened here, either.
        let Component::Normal(name) = component else { return Err(Errno::INVAL.into()) };
        let opened = match rustix::fs::openat(&folder, name, FOLDER, Mode::empty()) {
            Err(Errno::NOENT) if absent == Absent::Make => {
                match rustix::fs::mkdirat(&folder, name, Mode::from_raw_mode(0o777)) {
                    // Another thread was faster.
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
                rustix::fs::openat(&folder, name, FOLDER, Mode::empty())
            }
            Err(Errno::NOENT) if absent == Absent::Above => return Ok(folder),
            opened => opened,
        };
        folder = Folder::Below(match opened {
            Ok(opened) => opened,
            Err(Errno::LOOP | Errno::NOTDIR) => {
                let what = format!("{} is no folder or a symbolic link", Path::new(name).display());
                return Err(io::Error::other(what));
            }
            Err(error) => return Err(error.into()),
        });
    }
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read as _;
    use std::os::unix::fs::symlink;

    use super::*;

    fn open(dir: &Path) -> OwnedFd {
        rustix::fs::open(dir, FOLDER, Mode::empty()).unwrap()
    }

    /// Both ways to open must agree.
    fn folders<'a>(root: &'a OwnedFd, path: &str, absent: Absent) -> [io::Result<Folder<'a>>; 2] {
        let above = Path::new(path).parent().unwrap();
        [folder(root, Path::new(path), absent), step_by_step(root, above, absent)]
    }

    #[test]
    fn folders_and_files_are_found_and_made_below_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let root = open(dir.path());
        assert!(matches!(folder(&root, Path::new("file"), Absent::Fail).unwrap(), Folder::Root(_)));
        for absent in folders(&root, "a/b/file", Absent::Fail) {
            assert_eq!(absent.unwrap_err().kind(), io::ErrorKind::NotFound);
        }
        assert!(matches!(folder(&root, Path::new("a/b/file"), Absent::Above).unwrap(), Folder::Root(_)));
        folder(&root, Path::new("a/b/file"), Absent::Make).unwrap();
        fs::write(dir.path().join("a/b/file"), b"here").unwrap();
        for there in folders(&root, "a/b/file", Absent::Fail) {
            let mut text = String::new();
            let name = OsStr::new("file");
            let mut found = file_in(there.unwrap(), name, OFlags::RDONLY, Mode::empty()).unwrap();
            found.read_to_string(&mut text).unwrap();
            assert_eq!(text, "here");
        }
        assert!(file(&root, Path::new("a/b/file"), OFlags::RDWR).is_ok());
        let absent = file(&root, Path::new("a/b/other"), OFlags::RDWR).unwrap_err();
        assert_eq!(absent.kind(), io::ErrorKind::NotFound);
        let above = folder(&root, Path::new("a/b/c/d/file"), Absent::Above).unwrap();
        let ino = |fd: BorrowedFd<'_>| rustix::fs::fstat(fd).unwrap().st_ino;
        let b = folder(&root, Path::new("a/b/file"), Absent::Fail).unwrap();
        assert_eq!(ino(above.as_fd()), ino(b.as_fd()));
    }

    #[test]
    fn no_link_is_followed_and_nothing_but_files_and_folders_opened() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = open(dir.path());
        fs::write(other.path().join("file"), b"of others").unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        fs::write(dir.path().join("a/plain"), b"").unwrap();
        // Also one that stays below the root: what is at its end is another file's.
        symlink(other.path(), dir.path().join("a/out")).unwrap();
        symlink("../a", dir.path().join("a/within")).unwrap();
        symlink(other.path().join("file"), dir.path().join("a/link")).unwrap();
        for (path, why) in [
            ("a/out/file", "out is no folder or a symbolic link"),
            ("a/within/plain", "within is no folder or a symbolic link"),
            ("a/plain/file", "plain is no folder or a symbolic link"),
        ] {
            for absent in [Absent::Fail, Absent::Make, Absent::Above] {
                for opened in folders(&root, path, absent) {
                    assert_eq!(opened.unwrap_err().to_string(), why);
                }
            }
            assert_eq!(file(&root, Path::new(path), OFlags::RDONLY).unwrap_err().to_string(), why);
        }
        for (path, why) in [("a/link", "it is a symbolic link"), ("a", "it is no regular file")] {
            assert_eq!(file(&root, Path::new(path), OFlags::RDONLY).unwrap_err().to_string(), why);
        }
        for path in ["../file", "a/../../file", "a/../a/plain"] {
            assert!(file(&root, Path::new(path), OFlags::RDONLY).is_err());
            assert!(folder(&root, Path::new(&format!("{path}/x")), Absent::Make).is_err());
        }
    }
}
