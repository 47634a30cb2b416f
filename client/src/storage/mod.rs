//! The disk side of a torrent: jobs, files and the threads that work on them.

mod job;

pub use job::{DiskError, DiskErrorKind, Done, Job, Totals, Verdict};
