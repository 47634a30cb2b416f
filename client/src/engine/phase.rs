//! [`Phase`]: where a torrent stands, and why it does not go on.

use std::path::PathBuf;

use crate::storage::DiskError;

/// Where a torrent stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Phase {
    /// Something is missing.
    Running,
    /// Everything that was wanted is verified and synced, so that a crash does not take it; it is given to
    /// others. That it is written is [`Event::Verified`](crate::swarm::Event::Verified).
    Complete,
    /// It cannot go on. After [`Failed::Disk`], [`Failed::InUse`] and [`Failed::Missing`] it stays in its
    /// session and can be asked to, with [`Torrent::retry`](super::Torrent::retry), or with
    /// [`Torrent::start`](super::Torrent::start) when it has stopped; after the others it ends.
    Failed(Failed),
    /// It is stopped, or has ended.
    Stopped,
}

/// Why a torrent cannot go on.
#[derive(Clone, Debug, PartialEq)]
pub enum Failed {
    /// The disk refused.
    Disk(DiskError),
    /// Another process works on this torrent in this folder.
    InUse(PathBuf),
    /// Its info dictionary breaks a rule, or nothing of it is wanted.
    Invalid(String),
    /// We cannot do it yet.
    Unsupported(String),
    /// Not everything is there, and nothing is to be downloaded ([`Share::SeedOnly`](super::Share::SeedOnly)).
    Missing {
        /// Pieces that are missing or wrong.
        missing: u32,
        /// Pieces in all.
        pieces: u32,
    },
}

impl Failed {
    /// Whether it can go on when something outside has changed.
    pub(super) fn may_heal(&self) -> bool {
        match self {
            Self::Disk(_) | Self::InUse(_) | Self::Missing { .. } => true,
            Self::Invalid(_) | Self::Unsupported(_) => false,
        }
    }
}

/// Pieces could not be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// The files are not open: the torrent is stopped, has failed, or its metadata is not known yet.
    #[error("the files of the torrent are not open")]
    NotOpen,
    /// The torrent was stopped before the end.
    #[error("the torrent was stopped")]
    Stopped,
    /// There is no such piece.
    #[error("there is no piece {piece}: the torrent has {pieces}, counted from 0")]
    NoSuchPiece {
        /// The greatest one that was asked for.
        piece: u32,
        /// Pieces of the torrent.
        pieces: u32,
    },
}
