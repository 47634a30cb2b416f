//! Where a file goes that is to be there as a whole or not at all: behind symbolic links, and under another name
//! until it is whole. What is no file, a pipe or a device, is written to as it is.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// What a path names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A file that is or may be there, by its own name.
    File(PathBuf),
    /// A pipe, a device, or what nothing can be written to.
    Other(PathBuf),
    /// Our own output.
    Stdout,
}

impl Place {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        match fs::metadata(path) {
            // By its name it would be opened once more: what is there is neither appended to nor replaced.
            Ok(found) if is_stdout(&found) => Ok(Self::Stdout),
            Ok(found) if !found.is_file() => Ok(Self::Other(path.to_owned())),
            Ok(_) => Ok(Self::File(followed(path))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::File(followed(path))),
            Err(error) => Err(error),
        }
    }
}

/// Opens what is no file for writing. Blocks until somebody reads a pipe.
pub(super) fn straight(path: &Path) -> io::Result<impl Write + use<>> {
    OpenOptions::new().write(true).open(path)
}

/// Makes a file beside `path` that nobody else has.
pub(super) fn beside(path: &Path) -> io::Result<(PathBuf, File)> {
    for number in 0..NAMES {
        let temporary = with(path, &format!(".{}-{number}.new", std::process::id()));
        match OpenOptions::new().write(true).create_new(true).open(&temporary) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            opened => return opened.map(|file| (temporary, file)),
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

/// The path with this at the end of its name.
pub(super) fn with(path: &Path, end: &str) -> PathBuf {
    let mut longer = path.as_os_str().to_owned();
    longer.push(end);
    longer.into()
}

/// What the symbolic links at the end of a path lead to, whether it is there or not: renaming a file to a link
/// would replace the link.
pub(super) fn followed(path: &Path) -> PathBuf {
    let mut place = path.to_owned();
    for _ in 0..LINKS {
        let Ok(target) = fs::read_link(&place) else { break };
        place.pop();
        place.push(target);
    }
    place
}

/// Whether two paths lead to one file, by links of either kind or not.
#[cfg(unix)]
pub(super) fn is_same(one: &Path, other: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;

    let file = |path: &Path| fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
    file(one).is_some_and(|one| file(other) == Some(one))
}

#[cfg(not(unix))]
pub(super) fn is_same(one: &Path, other: &Path) -> bool {
    let file = |path: &Path| fs::canonicalize(path).ok();
    file(one).is_some_and(|one| file(other) == Some(one))
}

/// Whether a path leads to the file that our output goes to.
pub(super) fn is_our_output(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| is_stdout(&found))
}

#[cfg(unix)]
fn is_stdout(found: &Metadata) -> bool {
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::MetadataExt as _;

    let ours = io::stdout().as_fd().try_clone_to_owned().and_then(|own| File::from(own).metadata());
    ours.is_ok_and(|ours| (ours.dev(), ours.ino()) == (found.dev(), found.ino()))
}

#[cfg(not(unix))]
fn is_stdout(_: &Metadata) -> bool {
    false
}

/// Links that are followed, as many as Linux does.
const LINKS: usize = 40;
/// Names that are tried: a kill leaves one behind, and process ids come again.
const NAMES: usize = 100;

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_followed_and_what_is_no_file_is_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("below")).unwrap();
        symlink("below/link", at("link")).unwrap();
        symlink("file", at("below/link")).unwrap();
        for _ in 0..2 {
            assert_eq!(Place::of(&at("link")).unwrap(), Place::File(at("below/file")));
            // First it leads nowhere.
            fs::write(at("below/file"), "").unwrap();
        }
        assert_eq!(Place::of(&at("below")).unwrap(), Place::Other(at("below")));
        assert_eq!(Place::of(Path::new("/dev/full")).unwrap(), Place::Other("/dev/full".into()));
        symlink("round", at("round")).unwrap();
        assert!(Place::of(&at("round")).is_err());
    }

    #[test]
    fn one_file_is_the_same_by_all_of_its_names() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), "").unwrap();
        fs::write(at("other"), "").unwrap();
        fs::hard_link(at("file"), at("hard")).unwrap();
        symlink("hard", at("soft")).unwrap();
        symlink("nothing", at("loose")).unwrap();
        for (name, same) in
            [("file", true), ("hard", true), ("soft", true), ("other", false), ("loose", false)]
        {
            assert_eq!(is_same(&at("file"), &at(name)), same, "{name}");
        }
        assert!(!is_same(&at("nothing"), &at("nothing")), "what is not there is no file");
    }

    #[test]
    fn a_name_of_ones_own_is_one_that_nobody_has() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("all.csv");
        let (first, _) = beside(&path).unwrap();
        let (second, _) = beside(&path).unwrap();
        assert!(first != second && first.exists() && second.exists() && !path.exists());
    }
}
