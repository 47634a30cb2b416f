//! Why there is no job.

use std::path::PathBuf;

use crate::engine::session::AddError;
use crate::storage::DiskError;

/// A job could not be made, loaded, changed or opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JobError {
    /// [`Job::create`](super::Job::create) makes the folder itself.
    #[error("{} is there already", .0.display())]
    Exists(PathBuf),
    /// There is no job.
    #[error("{} holds no job", .0.display())]
    NoJob(PathBuf),
    /// Its file is not as it was written.
    #[error("{} cannot be used: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Another process, or another [`Job`](super::Job) of this one, has it.
    #[error("the job in {} is in use", .0.display())]
    InUse(PathBuf),
    /// Its torrent was closed with its session, or has failed for good ([`Torrent::phase`](super::Torrent::phase)
    /// says why): it has to be opened again ([`Job::open`](super::Job::open)).
    #[error("the torrent of the job in {} has ended", .0.display())]
    Ended(PathBuf),
    /// The disk refused.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The session refused; or there can be no job of such a source.
    #[error(transparent)]
    Add(#[from] AddError),
}
