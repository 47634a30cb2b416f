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

mod backend;
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

pub use backend::{Stamp, Storage};
pub use file::{FileStorage, OpenFiles, default_open_files};
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
