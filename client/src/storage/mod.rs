//! The disk side of a torrent, from jobs down to files.
//!
//! | what | where |
//! |---|---|
//! | what a swarm asks and is told | [`Job`], [`Done`] |
//! | bytes of files | the trait [`Storage`]; [`FileStorage`], [`MemStorage`] |
//! | edges of files that are skipped | a hidden part file in the folder |
//! | begin, resume or recheck a download | [`open()`] |
//! | sparse, full or growing files | [`Preallocation`] |
//! | threads that hash, write, read, check and save | [`Pool`] |
//! | what survives a restart | [`ResumeFile`] |
//! | one process per torrent and folder | [`Lock`] |
//!
//! Nothing here decides which piece to fetch. Nothing is mapped into memory: an I/O error would come
//! as SIGBUS and stalls would hide in page faults.
//!
//! # The part file
//!
//! A piece that overlaps a wanted file may hold bytes of one that is skipped. They are fetched, checked
//! and shared with the piece, but do not make the skipped file appear: they are kept in the hidden file
//! `.<infohash>.btfetch.part` in the download folder, at most two pieces of each file. When the file comes
//! to be wanted ([`Job::Want`]) they are moved into it, and the part file goes with the last of them.
//! Deleting it between two runs costs the pieces at those edges and nothing else: what is wanted of them is
//! fetched again. A skipped file that exists already is written to as any other.

mod cache;
mod file;
mod job;
mod lock;
mod mem;
mod open;
mod part;
mod pool;
mod preallocation;
mod resume;
mod span;

use std::io::{self, IoSlice};
use std::path::Path;

pub use file::{FileStorage, default_open_files};
pub use job::{DiskError, DiskErrorKind, Done, Job, Reserved, SaveId, Totals, Verdict};
pub use lock::Lock;
pub use mem::{Fault, FaultyStorage, MemStorage};
pub use open::{Access, OpenError, OpenOptions, Opened, open};
pub(crate) use pool::WRITE_CACHE;
pub use pool::{Pool, PoolConfig};
pub use preallocation::Preallocation;
pub use resume::{Resume, ResumeFile};
#[cfg(feature = "net")]
pub(crate) use resume::{checksum, read as read_file, replace as replace_file};

use crate::bitfield::Bitfield;

/// The files of one torrent, by their index in its layout. Calls block, and may come from several
/// threads at once. Whoever implements this loops over short reads and writes and over EINTR, so
/// that no caller can overlook a count.
pub trait Storage: Send + Sync {
    /// Fills `buf` from `offset` on. A file that is absent or too short is
    /// [`DiskErrorKind::Missing`].
    fn read(&self, file: usize, offset: u64, buf: &mut [u8]) -> Result<(), DiskError>;

    /// Says that these bytes will be read soon. What is not there is no error.
    fn ahead(&self, file: usize, offset: u64, len: u32);

    /// Writes the buffers one behind the other from `offset` on, making the file and its folders if
    /// need be. The slices are used up.
    fn write(&self, file: usize, offset: u64, bufs: &mut [IoSlice<'_>]) -> Result<(), DiskError>;

    /// Makes the file exist with exactly its length: makes an empty one, cuts a longer one.
    fn finish(&self, file: usize) -> Result<(), DiskError>;

    /// Returns when what was written to the file survives a crash. Fails with
    /// [`DiskErrorKind::Missing`] if the file was taken away meanwhile.
    fn sync(&self, file: usize) -> Result<(), DiskError>;

    /// The file as it is now; `None` if it is absent.
    fn stamp(&self, file: usize) -> Result<Option<Stamp>, DiskError>;

    /// Says which files are wanted, by index; those beyond the end are. Writing to one that is not, and
    /// is absent, does not make it as long as only the first or last piece's length is written: the
    /// bytes lie elsewhere, and are read from there. Does not wait for the disk.
    fn want(&self, files: &[bool]);

    /// Brings what lies elsewhere into a file that is wanted; says whether there was anything.
    fn bring_back(&self, file: usize) -> Result<bool, DiskError>;

    /// What has to be reserved so that writing to wanted files cannot run out of space: their indices,
    /// and bytes that each lacks. Reserves nothing. None at all where files take space as they are
    /// written, and none of those whose pieces are all `there`, which may take less than their length.
    /// Fails with [`DiskErrorKind::NoSpace`], and says how much is missing, where there is less.
    fn plan(&self, there: &Bitfield) -> Result<Vec<(usize, u64)>, DiskError>;

    /// Reserves space for the next bytes of a file from `from` on, as many as go in a moment, and says
    /// where that ended: at the file's length when nothing is left to do. Makes the file. Content stays
    /// as it is. Fails with [`DiskErrorKind::Unsupported`] where space cannot be reserved.
    fn reserve(&self, file: usize, from: u64) -> Result<u64, DiskError>;
}

/// By what a change of a file is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Its bytes.
    pub len: u64,
    /// When it was last written to, in nanoseconds since 1970.
    pub mtime: i64,
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
