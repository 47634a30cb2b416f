//! What a [`PieceDownload`](super::PieceDownload) tells its user, and why it does not go on.

use std::fmt;

use super::{MAX_PIECE, Wanted};
use crate::peer::CloseReason;
use crate::piece::{BlockRef, PieceIndex};

/// What happens to the user's piece.
#[derive(Debug, PartialEq, Eq)]
pub enum PieceEvent {
    /// The handshake is complete; this is the peer's id.
    Connected([u8; 20]),
    /// The peer chokes us: blocks that are missing will be asked for when that ends.
    Choked,
    /// The peer answers requests.
    Unchoked,
    /// A block of the piece arrived.
    Block {
        /// Which.
        block: BlockRef,
        /// Bytes of the piece that are there.
        done: u32,
    },
    /// The piece is there.
    Complete {
        /// Its index.
        index: PieceIndex,
        /// All of it.
        bytes: Vec<u8>,
        /// Its hash was given, and is right.
        verified: bool,
    },
    /// The piece was given up. The connection is as it was, another piece can be asked for.
    Failed(PieceIndex, PieceError),
    /// The connection is over; always the last event.
    Ended(End),
}

/// Why a piece was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PieceError {
    /// Its bytes have another hash.
    WrongHash,
    /// The peer says that it does not have it, and did not get it in time.
    Absent,
    /// The peer choked us for too long.
    Choked,
    /// The peer did not send what was asked for.
    Silent,
}

/// Why a download is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// No connection could be made; what the system says.
    Unreachable(String),
    /// The connection ended.
    Closed(CloseReason),
    /// The peer has this id and not the one that it should have.
    WrongPeer([u8; 20]),
    /// The user stopped it, for this reason.
    Stopped(String),
    /// What it was bound to was cancelled.
    Cancelled,
}

/// A piece that cannot be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is empty or longer than [`MAX_PIECE`].
    Size(u32),
    /// The torrent's shape has no such piece, or one of another size.
    Shape(Wanted),
    /// The connection is over.
    Ended,
}

impl fmt::Display for PieceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WrongHash => "its bytes have another hash",
            Self::Absent => "the peer does not have it",
            Self::Choked => "the peer does not let us ask",
            Self::Silent => "the peer does not send what was asked for",
        })
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(error) => write!(f, "no connection: {error}"),
            Self::Closed(CloseReason::BadHandshake) => f.write_str("the peer does not know this torrent"),
            Self::Closed(CloseReason::HandshakeTimeout) => f.write_str("no handshake in time"),
            Self::Closed(CloseReason::Disconnected) => f.write_str("the peer closed the connection"),
            Self::Closed(reason) => write!(f, "the connection was closed: {reason:?}"),
            Self::WrongPeer(_) => f.write_str("the peer has another id"),
            Self::Stopped(reason) => write!(f, "stopped: {reason}"),
            Self::Cancelled => f.write_str("cancelled"),
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size(size) => write!(f, "a piece has 1 to {MAX_PIECE} bytes, not {size}"),
            Self::Shape(wanted) => {
                write!(f, "the torrent has no piece {} of {} bytes", wanted.index.0, wanted.size)
            }
            Self::Ended => f.write_str("the connection is over"),
        }
    }
}

impl std::error::Error for PieceError {}
impl std::error::Error for Refused {}
