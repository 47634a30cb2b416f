//! What a swarm asks of its disk threads ([`Job`]) and what they answer ([`Done`]).

use std::path::{Path, PathBuf};
use std::{fmt, io};

use crate::bitfield::Bitfield;
use crate::piece::{Block, BlockRef, PieceIndex, Slot};

/// Work for the disk threads. Jobs of one piece run in the order in which they were given.
#[derive(Debug)]
pub enum Job {
    /// Keep a block. It is hashed while hot; the last block of a piece has it compared and written,
    /// and [`Done::Piece`] answered.
    Write(BlockRef, Block),
    /// Forget a block that was given, unless its piece is all there; it will come anew. No answer but
    /// [`Done::Freed`].
    Forget(BlockRef),
    /// Forget the blocks of an unfinished piece.
    Discard(PieceIndex),
    /// Read a block for a peer; answered by [`Done::Read`].
    Read(Slot, BlockRef),
    /// Make these files, which are empty in the torrent (never for [`super::Access::Seed`]). No answer.
    MakeEmpty(Vec<usize>),
    /// From now on these files are wanted, by index, those beyond the end included: see
    /// [`super::Storage::want`]. What others kept of them is brought into them, then their space is
    /// reserved if [`super::PoolConfig::reserve`] says so, in steps between other jobs: that is answered
    /// by [`Done::Reserved`], whose end comes once for each of them. No answer otherwise.
    Want(Vec<bool>),
    /// Hash pieces on disk; each is answered by [`Done::Checked`], all by [`Done::CheckEnded`].
    Check(Bitfield),
    /// Write everything out, sync it, then write the resume file with the pieces that are safe now
    /// and these counters; answered by [`Done::Saved`] or [`Done::Unsaved`].
    Save(SaveId, Totals),
}

/// Names a save: each one has a greater number than those before it. An answer is for exactly the saves
/// up to the one that it names, however many are on their way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SaveId(pub u64);

impl SaveId {
    /// Of a save that nobody waits for, before all others: where there is no space for the resume file it
    /// holds up nothing, as the next one keeps the same and more.
    pub const IN_PASSING: Self = Self(0);
}

/// Counters that survive a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Payload bytes received, wasted ones included.
    pub downloaded: u64,
    /// Payload bytes sent.
    pub uploaded: u64,
}

/// What the disk threads have done.
#[derive(Debug)]
pub enum Done {
    /// All blocks of a piece were there.
    Piece(PieceIndex, Verdict),
    /// A block was taken from memory to disk or dropped: this many bytes of the write budget are
    /// free again.
    Freed(u32),
    /// A block for a peer.
    Read(Slot, BlockRef, Block),
    /// A piece on disk was hashed.
    Checked(PieceIndex, bool),
    /// A [`Job::Check`] has ended.
    CheckEnded,
    /// This [`Job::Save`] has ended, and so have those before it: what was written before it survives a
    /// crash, but for pieces, so many, that an earlier sync may have lost. The resume file does not claim
    /// them; they are written again when the threads go on after [`Done::Failed`].
    Saved {
        /// The latest save that this answers.
        id: SaveId,
        /// Verified and written pieces that are not claimed.
        doubted: u32,
    },
    /// This [`Job::Save`] and those before it that were not answered have come to nothing;
    /// [`Done::Failed`] has said why.
    Unsaved(SaveId),
    /// Pieces that were verified and written, and are not there any more.
    Lost(Vec<PieceIndex>),
    /// How far space is reserved.
    Reserved(Reserved),
    /// The user should know this; nothing stops for it.
    Warning(String),
    /// The disk refused; the job was not done and no further one will be until the swarm resumes.
    Failed(DiskError),
}

/// How far the space of wanted files is reserved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reserved {
    /// So far; the last one has all.
    Part {
        /// Bytes that were reserved.
        done: u64,
        /// Bytes that files lacked at the beginning.
        total: u64,
    },
    /// It cannot be done here, and is not tried again: files take their space as they are written.
    Unsupported(DiskError),
    /// It has ended, one way or the other.
    Ended,
}

/// Whether a piece had the right hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It matched and is written.
    Good,
    /// It did not match and was dropped. The SHA-1 of each block, in order, tells later which of
    /// them were wrong.
    Bad {
        /// SHA-1 of each block of the piece.
        blocks: Vec<[u8; 20]>,
    },
    /// It did not match and was dropped. Blocks of it were written before a sync that failed, and may be
    /// others than came: nobody is to blame.
    Lost,
}

/// Why the disk refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskError {
    /// What kind of refusal; decides the exit code and whether waiting helps.
    pub kind: DiskErrorKind,
    /// What was attempted.
    pub doing: &'static str,
    /// On which file.
    pub path: PathBuf,
    /// The system's words.
    pub detail: String,
}

impl DiskError {
    /// Classifies an error of the system.
    pub fn new(doing: &'static str, path: &Path, error: &io::Error) -> Self {
        use io::ErrorKind as K;
        let kind = match error.kind() {
            K::StorageFull | K::QuotaExceeded => DiskErrorKind::NoSpace,
            K::ReadOnlyFilesystem | K::PermissionDenied => DiskErrorKind::ReadOnly,
            K::NotFound | K::UnexpectedEof => DiskErrorKind::Missing,
            K::Unsupported => DiskErrorKind::Unsupported,
            _ => DiskErrorKind::Io,
        };
        let detail = match kind {
            DiskErrorKind::NoSpace => "no space left on the device".into(),
            _ => error.to_string(),
        };
        Self { kind, doing, path: path.to_owned(), detail }
    }
}

/// Kinds of [`DiskError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskErrorKind {
    /// No space left, or over quota.
    NoSpace,
    /// Read-only file system or no permission.
    ReadOnly,
    /// The file or folder has gone.
    Missing,
    /// The file system cannot do that.
    Unsupported,
    /// Anything else.
    Io,
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.doing, self.path.display(), self.detail)
    }
}

impl std::error::Error for DiskError {}
