//! `--select`: files by index (`0,2-4`) or by a glob over their paths (`*.txt`); and `--prio`, what each
//! of them weighs.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use btfetch::engine::Accepts;

/// Files in one list of indices.
const MAX_FILES: u32 = 200_000;
/// Parts of one list.
const MAX_RANGES: usize = 1000;

/// What the user wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Selection {
    /// Indices, first and last.
    Indices(Vec<(u32, u32)>),
    /// `*` stands for any bytes, `?` for one.
    Glob(String),
}

impl Selection {
    /// Reads a list; what is none is a glob.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("expected a list of indices or a glob".into());
        }
        if !text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b',' | b'-')) {
            return Ok(Self::Glob(text.to_owned()));
        }
        let range = |part: &str| -> Option<(u32, u32)> {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (first.parse().ok()?, last.parse().ok()?);
            (first <= last && last < MAX_FILES).then_some((first, last))
        };
        let ranges: Option<Vec<_>> = text.split(',').take(MAX_RANGES).map(range).collect();
        ranges
            .map(Self::Indices)
            .ok_or_else(|| "expected a list such as 0,2-4 or a glob such as *.txt".into())
    }
}

/// `--prio`: a number for the files of a list or glob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Priority {
    files: Selection,
    weight: u16,
}

impl Priority {
    /// Reads `GLOB=N`; the number is behind the last `=`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (files, weight) = text.rsplit_once('=').ok_or("expected GLOB=N, such as '*.mkv=5'")?;
        let weight = weight.parse().map_err(|_| "expected a number from 0 (skip) to 65535 behind `=`")?;
        Ok(Self { files: Selection::parse(files)?, weight })
    }
}

/// What the user wants of the files of a torrent: what is selected (else all) weighs 1, and where
/// `--prio` says something the last one holds.
#[derive(Clone, Debug)]
pub(crate) struct Choice {
    pub(crate) select: Option<Selection>,
    pub(crate) prio: Vec<Priority>,
}

impl Accepts for Choice {
    fn priority(&self, index: usize, path: &Path) -> u16 {
        let selected = self.select.as_ref().is_none_or(|select| select.accepts(index, path));
        let said = self.prio.iter().rfind(|prio| prio.files.accepts(index, path));
        if selected { said.map_or(1, |prio| prio.weight) } else { 0 }
    }
}

impl Selection {
    fn accepts(&self, index: usize, path: &Path) -> bool {
        match self {
            Self::Indices(ranges) => {
                ranges.iter().any(|&(first, last)| (first as usize..=last as usize).contains(&index))
            }
            Self::Glob(glob) => matches_path(glob, path.as_os_str().as_bytes()),
        }
    }
}

/// A glob with a slash is matched against the whole path, one without against every ending of it that
/// begins behind a slash: `*.txt` and `b.bin` find files in any folder.
fn matches_path(glob: &str, path: &[u8]) -> bool {
    let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at + 1);
    std::iter::once(0).chain(ends).any(|at| matches(glob.as_bytes(), &path[at..]))
}

/// Whether all of `text` matches, in time proportional to the product of the lengths at worst.
fn matches(glob: &[u8], text: &[u8]) -> bool {
    let (mut g, mut t) = (0, 0);
    // Where the last star was, and up to where it has been tried to reach.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match glob.get(g) {
            Some(b'*') => {
                star = Some((g, t));
                g += 1;
            }
            Some(&c) if c == b'?' || c == text[t] => {
                g += 1;
                t += 1;
            }
            _ => match star {
                Some((at, reached)) => {
                    star = Some((at, reached + 1));
                    g = at + 1;
                    t = reached + 1;
                }
                None => return false,
            },
        }
    }
    glob[g..].iter().all(|&c| c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_globs_are_told_apart() {
        assert_eq!(Selection::parse("0,2-4"), Ok(Selection::Indices(vec![(0, 0), (2, 4)])));
        assert_eq!(Selection::parse("*.txt"), Ok(Selection::Glob("*.txt".into())));
        for wrong in ["", "4-2", "1,,2", "-", "9999999999"] {
            assert!(Selection::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_last_priority_that_fits_holds_and_what_is_not_selected_stays_out() {
        let prio = |texts: &[&str]| texts.iter().map(|text| Priority::parse(text).unwrap()).collect();
        let all = Choice { select: None, prio: prio(&["*.txt=0", "a=b=7", "2-3=65535", "album/x*=0"]) };
        let of = |choice: &Choice, index, path: &str| choice.priority(index, Path::new(path));
        assert_eq!((of(&all, 0, "album/r.txt"), of(&all, 1, "album/a=b"), of(&all, 5, "album/y")), (0, 7, 1));
        assert_eq!((of(&all, 2, "album/r.txt"), of(&all, 3, "album/x")), (65535, 0));
        let some = Choice { select: Selection::parse("0-1").ok(), prio: prio(&["*=9"]) };
        assert_eq!((of(&some, 1, "album/a"), of(&some, 2, "album/b")), (9, 0));
        for wrong in ["*.txt", "*=", "=1", "*=-1", "*=65536", "4-2=1"] {
            assert!(Priority::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn globs_match_names_in_any_folder() {
        let wanted = |glob: &str, path: &str| Selection::parse(glob).unwrap().accepts(7, Path::new(path));
        assert!(wanted("*.txt", "album/a.txt") && wanted("a.*", "album/deep/a.txt"));
        assert!(wanted("album/*", "album/deep/a.txt") && wanted("?.txt", "a.txt"));
        assert!(!wanted("*.txt", "album/a.txt.exe") && !wanted("b*", "album/a.txt"));
        assert!(wanted("7", "x") && wanted("5-9", "x") && !wanted("8", "x"));
        assert!(wanted("*a*b*c*", "xxaxxbxxc") && !wanted("*a*b*c", "xxaxxbxx"));
    }
}
