//! [`Inbound`]: what tasks and users send to the owner of a torrent.

use std::net::SocketAddr;
use std::ops::Range;

use btdht::Time;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::options::{Rates, State};
use super::phase::CheckError;
use crate::peer::{Greeting, PeerEvent};
use crate::piece::{PieceIndex, Slot};
use crate::swarm::{Command, Source as Found, Swarm, TrackerId};
use crate::tracker::{AnnounceReply, TrackerError};

/// Who hears of the bad pieces of a check.
pub(super) type CheckAnswer = oneshot::Sender<Result<Vec<PieceIndex>, CheckError>>;

/// Looks at a swarm and tells somebody what it saw.
pub(super) type Question = Box<dyn FnOnce(&Swarm, Time) + Send>;

/// What comes to the owner task.
pub(super) enum Inbound {
    /// Events of a connection.
    Peer(Slot, Vec<PeerEvent>),
    /// A dial came to nothing, and why.
    DialFailed(Slot, SocketAddr, String),
    /// Somebody connected and asked for this torrent.
    Incoming(TcpStream, SocketAddr, Greeting),
    /// An announce has found a place and begins.
    Announcing(TrackerId),
    /// An announce has ended.
    Tracker(TrackerId, Result<AnnounceReply, TrackerError>),
    /// Addresses were found.
    Found(Found, Vec<SocketAddr>),
    /// A DHT lookup has ended.
    LookupEnded,
    /// The user wants it to end.
    End,
    /// The user wants another state, and to hear when it is there.
    Set(State, oneshot::Sender<()>),
    /// The user wants a pause to end.
    Resume(oneshot::Sender<()>),
    /// The user wants to know something.
    Look(Question),
    /// The user wants ranges of pieces to be checked.
    Check(Vec<Range<u32>>, CheckAnswer),
    /// The user wants it to go on after a failure of the disk.
    Retry,
    /// The user changes what is wanted.
    Prioritize(Vec<u16>),
    /// The user wants something else that changes no phase.
    Command(Command),
    /// The user changes the rate limits.
    Rates(Rates),
}
