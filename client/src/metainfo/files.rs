//! The names of a torrent's files, compactly, and the rules that names obey (DECISIONS: traversal,
//! NUL, empty, separators and duplicates are refused; all other bytes are kept as they are).

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use krpc::bencode::Strings;

use super::error::{MetainfoError, NameError};

/// Most files of a torrent.
pub const MAX_FILES: usize = 200_000;
/// Longest component of a path in bytes.
const MAX_COMPONENT: usize = 255;
/// Longest path in bytes, the torrent's name included.
const MAX_PATH: usize = 4096;
/// Deepest path below the torrent's name.
const MAX_DEPTH: usize = 64;
/// Bytes of all paths together. A v2 tree names each folder once, so 200,000 files could otherwise
/// grow a small document to 800 MB of paths.
const MAX_PATHS: usize = 32 << 20;

/// Paths and attributes of all files: 8 bytes a file and the bytes of the paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FileTable {
    /// The paths below the torrent's name, one after the other, their components joined by NUL,
    /// which no component holds and which sorts first.
    paths: Vec<u8>,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    path_end: u32,
    attributes: Attributes,
}

const _: () = assert!(size_of::<Entry>() == 8);

/// Attributes of a file (BEP 47).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes(u8);

impl Attributes {
    /// Reads the `attr` string; unknown letters are ignored.
    pub fn parse(letters: &[u8]) -> Self {
        Self(letters.iter().take(16).fold(0, |bits, letter| bits | Self::bit(*letter)))
    }

    /// A pad file.
    pub const PAD: Self = Self(1);

    /// Zeros that only fill a piece; never written.
    pub fn is_pad(self) -> bool {
        self.0 & Self::bit(b'p') != 0
    }

    /// A symbolic link; never made by us.
    pub fn is_symlink(self) -> bool {
        self.0 & Self::bit(b'l') != 0
    }

    /// Executable.
    pub fn is_executable(self) -> bool {
        self.0 & Self::bit(b'x') != 0
    }

    /// Hidden.
    pub fn is_hidden(self) -> bool {
        self.0 & Self::bit(b'h') != 0
    }

    /// The same without pad and link: the only file of a torrent is neither.
    pub(super) fn of_only_file(self) -> Self {
        Self(self.0 & !(Self::bit(b'p') | Self::bit(b'l')))
    }

    const fn bit(letter: u8) -> u8 {
        match letter {
            b'p' => 1,
            b'l' => 2,
            b'x' => 4,
            b'h' => 8,
            _ => 0,
        }
    }
}

impl FileTable {
    /// Adds a file whose path is a bencoded list of strings, as it came. The path of a pad file is
    /// not looked at (equal pads share a path, and it may be absent).
    pub(super) fn push_list(
        &mut self,
        raw: Option<&[u8]>,
        attributes: Attributes,
    ) -> Result<(), MetainfoError> {
        if attributes.is_pad() {
            return self.push(&[], attributes);
        }
        let raw = raw.ok_or(MetainfoError::Missing("path"))?;
        let inner = raw.strip_prefix(b"l").and_then(|raw| raw.strip_suffix(b"e"));
        let inner = inner.ok_or_else(|| NameError::NotStrings.of(raw))?;
        let components = Strings::from_raw(inner).map_err(|_| NameError::NotStrings.of(raw))?;
        let start = self.paths.len();
        let mut depth = 0;
        for component in components.iter() {
            check_component(component)?;
            depth += 1;
            if depth > MAX_DEPTH {
                return Err(NameError::TooDeep.of(component));
            }
            if depth > 1 {
                self.paths.push(0);
            }
            self.paths.extend_from_slice(component);
        }
        if depth == 0 {
            return Err(NameError::Empty.of(b""));
        }
        self.close(start, attributes)
    }

    /// Adds a file whose path has been checked already, its components joined by NUL.
    pub(super) fn push(&mut self, path: &[u8], attributes: Attributes) -> Result<(), MetainfoError> {
        let start = self.paths.len();
        self.paths.extend_from_slice(path);
        self.close(start, attributes)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The path of a file below the torrent's name, components joined by NUL; empty for pads and
    /// for the only file of a torrent that is one file.
    pub(super) fn path(&self, file: usize) -> &[u8] {
        let start = match file.checked_sub(1) {
            Some(before) => self.entries.get(before).map_or(0, |entry| entry.path_end),
            None => 0,
        };
        let end = self.entries.get(file).map_or(start, |entry| entry.path_end);
        self.paths.get(start as usize..end as usize).unwrap_or_default()
    }

    pub(super) fn attributes(&self, file: usize) -> Attributes {
        self.entries.get(file).map(|entry| entry.attributes).unwrap_or_default()
    }

    /// Checks what concerns all paths: lengths with the torrent's name, duplicates and clashes.
    pub(super) fn check(&self, name: &[u8]) -> Result<(), MetainfoError> {
        let mut order: Vec<u32> = (0..self.len() as u32).collect();
        order.retain(|&file| !self.attributes(file as usize).is_pad());
        let path = |file: u32| self.path(file as usize);
        if let Some(&long) = order.iter().find(|&&file| path(file).len() + 1 + name.len() > MAX_PATH) {
            return Err(NameError::PathTooLong.of(path(long)));
        }
        // Components are joined by the smallest byte, so whatever lies below a path follows it.
        order.sort_unstable_by(|&a, &b| path(a).cmp(path(b)));
        for pair in order.windows(2) {
            let (first, second) = (path(pair[0]), path(pair[1]));
            match second.strip_prefix(first) {
                Some([]) => return Err(NameError::Duplicate.of(first)),
                Some([0, ..]) => return Err(NameError::FileAndFolder.of(first)),
                _ => {}
            }
        }
        Ok(())
    }

    fn close(&mut self, start: usize, attributes: Attributes) -> Result<(), MetainfoError> {
        if self.entries.len() >= MAX_FILES {
            return Err(MetainfoError::TooManyFiles);
        }
        if self.paths.len() > MAX_PATHS {
            let path = self.paths.get(start..).unwrap_or_default();
            return Err(NameError::PathsTooLong.of(path));
        }
        self.entries.push(Entry { path_end: self.paths.len() as u32, attributes });
        Ok(())
    }
}

/// Whether this may be a file of ours: the part file of another torrent in the same folder, say. Where
/// upper and lower case are one, so they are here.
fn is_reserved(name: &[u8]) -> bool {
    let Some((hash, rest)) = name.strip_prefix(b".").and_then(|rest| rest.split_at_checked(40)) else {
        return false;
    };
    hash.iter().all(u8::is_ascii_hexdigit)
        && rest.get(..8).is_some_and(|rest| rest.eq_ignore_ascii_case(b".btfetch"))
}

/// Checks one component of a path, or the name of a torrent.
pub(super) fn check_component(name: &[u8]) -> Result<(), MetainfoError> {
    let fault = match name {
        b"" => NameError::Empty,
        b"." | b".." => NameError::Dots,
        _ if name.len() > MAX_COMPONENT => NameError::ComponentTooLong,
        _ if is_reserved(name) => NameError::Reserved,
        _ => match name.iter().find(|byte| matches!(byte, 0 | b'/' | b'\\')) {
            Some(0) => NameError::Nul,
            Some(_) => NameError::Separator,
            None => return Ok(()),
        },
    };
    Err(fault.of(name))
}

/// Builds the path of a v2 tree, component by component.
#[derive(Debug, Default)]
pub(super) struct PathStack {
    path: Vec<u8>,
    ends: Vec<usize>,
}

impl PathStack {
    pub(super) fn enter(&mut self, component: &[u8]) -> Result<(), MetainfoError> {
        check_component(component)?;
        if self.ends.len() >= MAX_DEPTH {
            return Err(NameError::TooDeep.of(component));
        }
        self.ends.push(self.path.len());
        if !self.path.is_empty() {
            self.path.push(0);
        }
        self.path.extend_from_slice(component);
        Ok(())
    }

    /// Leaves the innermost folder; `false` at the root.
    pub(super) fn leave(&mut self) -> bool {
        let end = self.ends.pop();
        self.path.truncate(end.unwrap_or(0));
        end.is_some()
    }

    pub(super) fn path(&self) -> &[u8] {
        &self.path
    }
}

/// The path of a file below the download folder: the torrent's name, then the file's components.
pub(super) fn join(name: &[u8], path: &[u8]) -> PathBuf {
    let mut joined = PathBuf::from(OsStr::from_bytes(name));
    if !path.is_empty() {
        joined.extend(path.split(|&byte| byte == 0).map(OsStr::from_bytes));
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(paths: &[&[u8]]) -> Result<FileTable, MetainfoError> {
        let mut table = FileTable::default();
        for raw in paths {
            table.push_list(Some(raw), Attributes::default())?;
        }
        table.check(b"name").map(|()| table)
    }

    fn fault(paths: &[&[u8]]) -> NameError {
        match table(paths) {
            Err(MetainfoError::Name(fault, _)) => fault,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn paths_keep_their_bytes() {
        let table = table(&[b"l1:a3:b\xffce", b"l1:aa1:be", b"l3:a b1:be"]);
        assert_eq!(table, Err(NameError::NotStrings.of(b"l1:aa1:be")));
        let table = self::table(&[b"l1:a3:b\xffce", b"l2:aa1:be"]).unwrap();
        assert_eq!(table.path(0), b"a\0b\xffc");
        assert_eq!(table.path(1), b"aa\0b");
        assert_eq!(table.path(2), b"");
        assert_eq!(join(b"name", table.path(0)).as_os_str().as_bytes(), b"name/a/b\xffc");
        assert_eq!(join(b"name", b"").as_os_str().as_bytes(), b"name");
    }

    #[test]
    fn names_that_leave_the_folder_are_refused() {
        assert_eq!(fault(&[b"l2:..e"]), NameError::Dots);
        assert_eq!(fault(&[b"l1:.e"]), NameError::Dots);
        assert_eq!(fault(&[b"l3:a/be"]), NameError::Separator);
        assert_eq!(fault(&[b"l3:a\\be"]), NameError::Separator);
        assert_eq!(fault(&[b"l3:a\0be"]), NameError::Nul);
        assert_eq!(fault(&[b"l0:e"]), NameError::Empty);
        assert_eq!(fault(&[b"le"]), NameError::Empty);
        assert_eq!(fault(&[b"li1ee"]), NameError::NotStrings);
        assert_eq!(fault(&[b"4:path"]), NameError::NotStrings);
        assert_eq!(fault(&[format!("l256:{}e", "x".repeat(256)).as_bytes()]), NameError::ComponentTooLong);
        let own = format!("l54:.{}.btFetch.parte", "aB".repeat(20));
        assert_eq!(fault(&[own.as_bytes()]), NameError::Reserved);
        assert_eq!(fault(&[format!("l{}e", "1:a".repeat(65)).as_bytes()]), NameError::TooDeep);
        let long = format!("l{}e", format!("250:{}", "x".repeat(250)).repeat(17));
        assert_eq!(fault(&[long.as_bytes()]), NameError::PathTooLong);
        for fine in [&b"l3:...e"[..], b"l2: .e", b"l4:\xf0\x9f\x92\xa9e", b"l3:a:be", b"l3:NULe"] {
            assert!(table(&[fine]).is_ok(), "{}", fine.escape_ascii());
        }
    }

    #[test]
    fn duplicates_and_files_that_are_folders_are_refused() {
        assert_eq!(fault(&[b"l1:ae", b"l1:be", b"l1:ae"]), NameError::Duplicate);
        // `a!` sorts between `a` and `a/b` as text; the clash must still be seen.
        assert_eq!(fault(&[b"l1:a1:be", b"l2:a!e", b"l1:ae"]), NameError::FileAndFolder);
        assert!(table(&[b"l1:a1:be", b"l1:a1:ce", b"l2:ab1:be"]).is_ok());
    }

    #[test]
    fn pads_may_share_a_path_or_have_none() {
        let mut table = FileTable::default();
        for raw in [None, Some(&b"l2:..e"[..]), Some(b"l4:.pad2:16e"), Some(b"l4:.pad2:16e")] {
            table.push_list(raw, Attributes::parse(b"p")).unwrap();
        }
        assert_eq!(table.check(b"name"), Ok(()));
        assert_eq!(table.push_list(None, Attributes::parse(b"xh")), Err(MetainfoError::Missing("path")));
    }
}
