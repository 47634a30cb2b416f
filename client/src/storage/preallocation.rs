//! [`Preallocation`]: how much of a file is taken from the disk before its bytes come.

use std::fmt;
use std::str::FromStr;

/// How the files of a download take their space. Skipped files take none in any way, and what pieces
/// bring along of them lies in the part file, which grows; a file that is brought out of it has its
/// full length at once. A length or space says nothing of content: what was not verified is not
/// claimed, and a file that is found without a resume file is hashed whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Preallocation {
    /// Files grow as they are written. For file systems without holes (exFAT), where a full length means
    /// that zeros are written.
    None,
    /// Files have their full length when they are made, and take space as they are written. What most
    /// clients do if nobody says otherwise (libtorrent, transmission, rqbit): it costs nothing, and disks
    /// are seldom so full that it is missed.
    #[default]
    Sparse,
    /// The space of all wanted files is taken before anything is downloaded (`fallocate`), so that a disk
    /// that is too small is known then, and nobody else can fill it meanwhile. Files lie in one piece where
    /// the file system can have it so. Where it cannot reserve, a warning says so and files are sparse:
    /// zeros are never written in place of it.
    Full,
}

/// Their names, as they are written on a command line.
const NAMES: [(Preallocation, &str); 3] =
    [(Preallocation::None, "none"), (Preallocation::Sparse, "sparse"), (Preallocation::Full, "full")];

impl fmt::Display for Preallocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = NAMES.iter().find(|(preallocation, _)| preallocation == self);
        f.write_str(name.map_or("", |(_, name)| name))
    }
}

impl FromStr for Preallocation {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = NAMES.iter().find(|(_, name)| *name == text);
        named.map(|(preallocation, _)| *preallocation).ok_or("expected none, sparse or full")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for (preallocation, name) in NAMES {
            assert_eq!((preallocation.to_string().as_str(), name.parse()), (name, Ok(preallocation)));
        }
        assert!("Full".parse::<Preallocation>().is_err());
        assert_eq!(Preallocation::default(), Preallocation::Sparse);
    }
}
