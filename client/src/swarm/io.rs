//! The doors of a [`Swarm`](super::Swarm): what goes in ([`Input`]) and what comes out ([`Action`]).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use krpc::Id;

use crate::bitfield::Bitfield;
use crate::metainfo::Info;
use crate::peer::{PeerCommand, PeerEvent};
use crate::piece::{PieceIndex, Slot};
use crate::storage::{DiskError, Done, Job, Totals};
use crate::tracker::{AnnounceEvent, AnnounceReply, TrackerError};

/// What happens to a swarm.
#[derive(Debug)]
pub enum Input {
    /// Addresses of peers.
    Found(Source, Vec<SocketAddr>),
    /// A dial of [`Action::Dial`] came to nothing. A dial that succeeds is followed by the
    /// connection's own events.
    DialFailed(Slot),
    /// Events of one connection, in order.
    Peer(Slot, Vec<PeerEvent>),
    /// The disk threads have done something.
    Disk(Done),
    /// Storage is open after [`Action::Open`]: the pieces that are on disk and safe, and the saved
    /// counters.
    Opened(Bitfield, Totals),
    /// A tracker answered or failed.
    Tracker(TrackerId, Result<AnnounceReply, TrackerError>),
    /// A lookup of [`Action::Lookup`] has ended.
    LookupEnded,
    /// What the user wants.
    Command(Command),
}

/// What the user wants of a swarm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Say good-bye: save, announce `stopped`, close all connections. [`Event::Stopped`] follows.
    Stop,
    /// Go on after [`Event::DiskFailed`].
    Retry,
}

/// Where an address came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// Given by the user (`--peer`): always allowed, also when private.
    User,
    /// `x.pe` of a magnet.
    Magnet,
    /// A tracker's reply.
    Tracker,
    /// The DHT.
    Dht,
    /// It connected to us.
    Incoming,
}

/// Names a tracker of a torrent: an index that never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrackerId(pub u32);

/// What a swarm wants done.
#[derive(Debug)]
pub enum Action {
    /// Connect to a peer and greet it.
    Dial(Slot, SocketAddr),
    /// Pass commands to a connection.
    Tell(Slot, PeerCommand),
    /// Give a job to the disk threads.
    Disk(Job),
    /// The info dictionary is known and verified: open storage, try the resume file, check what the
    /// disk holds if there is none, then answer with [`Input::Opened`].
    Open(Arc<Info>),
    /// Announce to a tracker.
    Announce(TrackerId, AnnounceJob),
    /// Look for peers on the DHT, and announce there when `announce` says so; the found peers come as
    /// [`Input::Found`], the end as [`Input::LookupEnded`].
    Lookup {
        /// The torrent.
        infohash: Id,
        /// Whether to announce our port.
        announce: bool,
        /// Whether we have everything (BEP 33).
        seed: bool,
    },
    /// A peer runs a DHT node at this address (PORT message).
    DhtNode(SocketAddr),
    /// Tell the user.
    Event(Event),
}

/// What to tell a tracker (BEP 3, BEP 15).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnounceJob {
    /// The tracker's URL.
    pub url: String,
    /// Given by the user (`--tracker`): may be a private address.
    pub trusted: bool,
    /// `started`, `completed`, `stopped` or a regular one.
    pub event: Option<AnnounceEvent>,
    /// Payload bytes sent.
    pub uploaded: u64,
    /// Payload bytes received.
    pub downloaded: u64,
    /// Bytes missing; `None` while the size is unknown (magnet).
    pub left: Option<u64>,
    /// Peers wanted; 0 when stopping.
    pub num_want: u16,
}

/// What a swarm tells the user.
#[derive(Clone, Debug)]
pub enum Event {
    /// The info dictionary is known and verified.
    Metadata(Arc<Info>),
    /// A piece is verified and written.
    Piece(PieceIndex),
    /// A piece had the wrong hash; peers banned for it.
    BadPiece(PieceIndex, Vec<SocketAddr>),
    /// A file (its index) is complete.
    File(usize),
    /// Everything that was wanted is verified and on disk.
    Complete,
    /// A connection was made.
    PeerConnected(Slot, SocketAddr, Source),
    /// A connection ended.
    PeerClosed(Slot, SocketAddr, &'static str),
    /// Something the user should know, once a minute at most per cause.
    Warning(String),
    /// The disk refused; everything is on hold.
    DiskFailed(DiskError),
    /// The swarm has stopped and saved.
    Stopped,
}

/// A picture of a swarm, for progress displays.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Status {
    /// Payload bytes received, wasted ones included.
    pub downloaded: u64,
    /// Payload bytes sent.
    pub uploaded: u64,
    /// Received bytes that were thrown away.
    pub wasted: u64,
    /// Bytes wanted in all; 0 before the metadata.
    pub wanted: u64,
    /// Wanted bytes not verified yet.
    pub left: u64,
    /// Bytes per second.
    pub rate_down: u64,
    /// Bytes per second.
    pub rate_up: u64,
    /// Open connections that have shaken hands.
    pub peers: u32,
    /// Those of them that have everything.
    pub seeds: u32,
    /// Addresses known.
    pub known: u32,
    /// Estimated time to completion.
    pub eta: Option<Duration>,
}
