//! Why a torrent was refused, in words.

use std::fmt;

use krpc::DecodeError;

/// Why a metainfo document or info dictionary is not a torrent that we can use. All of these are
/// the fault of whoever made it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MetainfoError {
    /// It is not well-formed bencode, or exceeds a limit of the decoder.
    Bencode(DecodeError),
    /// A key has a value of the wrong type.
    Field(&'static str, DecodeError),
    /// A required key is absent.
    Missing(&'static str),
    /// `piece length` outside 1 KiB to 256 MiB, or for v2 no power of two from 16 KiB on.
    PieceLength(i64),
    /// More than 2^21 pieces.
    TooManyPieces(u64),
    /// `pieces` is not a whole number of 20-byte hashes.
    PiecesRagged(usize),
    /// `pieces` has another number of hashes than the lengths ask for.
    PieceCount {
        /// Hashes that the lengths ask for.
        expected: u64,
        /// Hashes that are there.
        found: u64,
    },
    /// A file length that is negative, or a symbolic link with a length.
    Length(i64),
    /// More than 2^48 bytes in all.
    TooLarge,
    /// No bytes at all.
    Empty,
    /// More than 200,000 files.
    TooManyFiles,
    /// `length` and `files` together, or neither.
    LengthXorFiles,
    /// A name that must not be used for a file; the name is escaped and shortened.
    Name(NameError, String),
    /// A later `meta version` than 2.
    Version(i64),
    /// The v2 file tree is malformed.
    FileTree(&'static str),
    /// The v1 and v2 parts of a hybrid describe different files.
    HybridMismatch,
    /// `piece layers` do not fit the files' roots (BEP 52).
    PieceLayers(&'static str),
}

/// What is wrong with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameError {
    /// Empty, or a path without components.
    Empty,
    /// `.` or `..`.
    Dots,
    /// Holds `/` or `\`.
    Separator,
    /// Holds a NUL byte.
    Nul,
    /// A name that this program gives to files of its own beside the data: `.INFOHASH.btfetch…`.
    Reserved,
    /// A component above 255 bytes.
    ComponentTooLong,
    /// A path above 4,096 bytes.
    PathTooLong,
    /// More than 64 components.
    TooDeep,
    /// All paths together above 32 MiB.
    PathsTooLong,
    /// The same path twice.
    Duplicate,
    /// A path that is a file and a folder.
    FileAndFolder,
    /// A path that is no list of strings.
    NotStrings,
}

impl NameError {
    /// A short English description.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "is empty",
            Self::Dots => "is a reference to a folder",
            Self::Separator => "holds a path separator",
            Self::Nul => "holds a NUL byte",
            Self::Reserved => "is a name that btfetch keeps for its own files",
            Self::ComponentTooLong => "is longer than 255 bytes",
            Self::PathTooLong => "is a path longer than 4096 bytes",
            Self::TooDeep => "is more than 64 folders deep",
            Self::PathsTooLong => "makes all paths together longer than 32 MiB",
            Self::Duplicate => "occurs twice",
            Self::FileAndFolder => "is a file and a folder",
            Self::NotStrings => "is no list of strings",
        }
    }

    pub(super) fn of(self, name: &[u8]) -> MetainfoError {
        let shown = name.get(..64).unwrap_or(name).escape_ascii().to_string();
        MetainfoError::Name(self, shown.replace("\\x00", "/"))
    }
}

impl From<DecodeError> for MetainfoError {
    fn from(error: DecodeError) -> Self {
        Self::Bencode(error)
    }
}

impl fmt::Display for MetainfoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bencode(error) => write!(f, "not a torrent: {error}"),
            Self::Field(key, error) => write!(f, "{key:?}: {error}"),
            Self::Missing(key) => write!(f, "{key:?} is missing"),
            Self::PieceLength(len) => write!(f, "piece length {len} is not allowed"),
            Self::TooManyPieces(count) => write!(f, "{count} pieces are more than 2^21"),
            Self::PiecesRagged(len) => write!(f, "\"pieces\" has {len} bytes, no multiple of 20"),
            Self::PieceCount { expected, found } => {
                write!(f, "\"pieces\" has {found} hashes where the lengths ask for {expected}")
            }
            Self::Length(len) => write!(f, "file length {len} is not allowed"),
            Self::TooLarge => f.write_str("more than 2^48 bytes"),
            Self::Empty => f.write_str("the torrent holds no bytes"),
            Self::TooManyFiles => f.write_str("more than 200,000 files"),
            Self::LengthXorFiles => f.write_str("exactly one of \"length\" and \"files\" is wanted"),
            Self::Name(fault, name) => write!(f, "the name \"{name}\" {}", fault.as_str()),
            Self::Version(version) => write!(f, "meta version {version} is not known"),
            Self::FileTree(what) => write!(f, "\"file tree\": {what}"),
            Self::HybridMismatch => f.write_str("the v1 and v2 parts describe different files"),
            Self::PieceLayers(what) => write!(f, "\"piece layers\": {what}"),
        }
    }
}

impl std::error::Error for MetainfoError {}
