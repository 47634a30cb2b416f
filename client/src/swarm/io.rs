//! The doors of a [`Swarm`](super::Swarm): what it starts from ([`NewTorrent`]), what goes in
//! ([`Input`]) and what comes out ([`Action`]).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use krpc::Id;
use krpc::magnet::Selection;

use super::intake::Intake;
use crate::bitfield::Bitfield;
use crate::metainfo::{Info, MetainfoError};
use crate::peer::{PeerCommand, PeerEvent};
use crate::piece::{PieceIndex, Slot};
use crate::storage::{DiskError, Done, Job, Totals};
use crate::tracker::{AnnounceEvent, AnnounceReply, TrackerError};

/// What a swarm starts from.
#[derive(Clone, Debug)]
pub struct NewTorrent {
    /// The infohash that peers, trackers and the DHT know it by.
    pub infohash: Id,
    /// Our peer id. Of two connections between the same two peers both sides keep the one that the
    /// peer with the greater id dialed.
    pub peer_id: [u8; 20],
    /// The info dictionary; `None` for a magnet, whose peers are asked for it (BEP 9).
    pub info: Option<Arc<Info>>,
    /// Tracker tiers (BEP 12): URLs, and whether the user gave them. Of a magnet each is its own tier.
    pub trackers: Vec<Vec<TrackerUrl>>,
    /// Addresses to begin with: [`Source::User`] and [`Source::Magnet`].
    pub peers: Vec<(Source, SocketAddr)>,
    /// The wanted files (`so`, `--select`); `None` means all. See also [`Command::Select`].
    pub select: Option<Selection>,
}

/// A tracker's URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackerUrl {
    /// `http`, `https` or `udp`; others fail when announced to and are not asked again.
    pub url: String,
    /// Given by the user (`--tracker`): may be a private address.
    pub trusted: bool,
}

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
    /// An announce of [`Action::Announce`] has begun, after it has waited for those before it.
    Announcing(TrackerId),
    /// A tracker answered or failed.
    Tracker(TrackerId, Result<AnnounceReply, TrackerError>),
    /// A lookup of [`Action::Lookup`] has ended.
    LookupEnded,
    /// Our address or network has changed.
    Moved,
    /// What the user wants.
    Command(Command),
}

/// What the user wants of a swarm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Say good-bye: save, announce `stopped`, close all connections. [`Event::Stopped`] follows.
    Stop,
    /// Go on after [`Event::DiskFailed`]; the shell has let the disk threads go on before.
    Retry,
    /// Keep the connections, but neither ask for blocks nor give any until [`Command::Unpause`].
    Pause,
    /// End a pause.
    Unpause,
    /// Hash these pieces again: [`Event::Checked`] for each, [`Event::CheckEnded`] for all. What is
    /// wrong is fetched again, what is found is kept. Ends at once before storage is open.
    Check(Bitfield),
    /// Want these files only, one flag a file (a glob cannot be matched before
    /// [`Event::Metadata`]). Missing flags mean wanted.
    Select(Vec<bool>),
    /// Want the files whose priority is above 0, one a file; missing ones mean 1. Priorities are
    /// weights: of what is begun next, a file of priority 6 gets twice as much as one of priority 3
    /// (in sequential order all of the higher one before the lower one). A piece has the highest
    /// priority of its files.
    Prioritize(Vec<u16>),
    /// Have at most so many connections; those that give least are closed when there are more.
    MaxPeers(usize),
    /// Ask for no more than what the shell lets in from now on: see [`Limits::intake`].
    ///
    /// [`Limits::intake`]: super::Limits::intake
    Intake(Intake),
    /// Need a piece within this time: it is fetched before all others, the soonest first, and a block
    /// of it that is late is taken over by a faster peer. `None` takes the deadline back. Without
    /// effect before [`Event::Metadata`] and for pieces that are not wanted.
    Deadline(PieceIndex, Option<Duration>),
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
    /// What the tracker gave us to send back.
    pub tracker_id: Option<Vec<u8>>,
}

/// What a swarm tells the user.
#[derive(Clone, Debug)]
pub enum Event {
    /// The info dictionary is known and verified.
    Metadata(Arc<Info>),
    /// The info dictionary has the right hash, but says something that we refuse or cannot do yet;
    /// the swarm does nothing more.
    Refused(Refusal),
    /// A piece is verified and written.
    Piece(PieceIndex),
    /// A piece had the wrong hash; peers banned for it.
    BadPiece(PieceIndex, Vec<SocketAddr>),
    /// A piece was hashed for [`Command::Check`]: whether it is right.
    Checked(PieceIndex, bool),
    /// A [`Command::Check`] has ended.
    CheckEnded,
    /// A file (its index) is complete.
    File(usize),
    /// So much of the space that wanted files lacked is reserved, in bytes
    /// ([`Preallocation::Full`](crate::storage::Preallocation::Full)). Comes now and then, and once for all;
    /// before anything is downloaded, and again when more is wanted.
    Preallocating {
        /// Reserved.
        done: u64,
        /// To be reserved in all.
        total: u64,
    },
    /// Everything that was wanted is verified and written, though a crash might still take it.
    /// [`Event::Complete`] follows, unless the disk refuses or more is wanted.
    Verified,
    /// Everything that was wanted is verified and synced: it survives a crash. Again after the disk has
    /// refused something and [`Command::Retry`].
    Complete,
    /// A peer that the user named ([`Source::User`]) could not be connected to, and why; it is dialed
    /// again. Of the addresses that strangers name most lead nowhere: these are only counted
    /// ([`Status::failed_dials`]).
    DialFailed(SocketAddr, String),
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

/// Why a torrent is not downloaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Its info dictionary breaks a rule.
    Invalid(MetainfoError),
    /// It has no SHA-1 pieces (BEP 52 only): not yet supported.
    V2Only,
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
    /// Everything that is wanted is there.
    pub complete: bool,
    /// Everything is there, wanted or not.
    pub seed: bool,
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
    /// Dials that came to nothing, whoever named the address.
    pub failed_dials: u64,
    /// Estimated time to completion.
    pub eta: Option<Duration>,
    /// Pieces that were hashed before anything was fetched, of `to_check`; the shell counts them.
    pub checked: u32,
    /// Pieces that may be on disk and are hashed first; 0 when that is over.
    pub to_check: u32,
}
