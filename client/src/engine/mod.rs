//! The tokio shell around the swarm core: a [`Session`] of many torrents.
//!
//! | what | where |
//! |---|---|
//! | [`Session`], what its tasks share | `session`, `shared` |
//! | the owner task of one swarm, what comes to it | `owner`, `inbound` |
//! | its handle, a [`Torrent`] | `torrent` |
//! | how it is run, where it stands | `options`, `phase` |
//! | bytes kept elsewhere than in files | `backend` |
//! | between it and the disk threads | `disk` |
//! | the task of one connection | `peer` |
//! | outgoing and incoming TCP | `dial`, `listen` |
//! | a torrent in a folder of its own | `job` |
//! | one piece from one peer, its handle | `one_piece`, `piece_handle` |
//! | trackers: one door, HTTP(S), UDP | `tracker`, `http`, `udp_tracker` |
//! | rate limits | `throttle` |
//! | what a torrent shows | `view` |
//! | mutable torrents (BEP 46), what a folder knows of them | `versions`, `version_file` |
//!
//! It decides nothing about the protocol: a [`Swarm`](crate::swarm::Swarm) and its
//! [`PeerConn`](crate::peer::PeerConn)s say what to do, and this module does it. Every task owns what
//! it works on; they talk over bounded channels:
//!
//! - connection → torrent: batches of events. When full, the connection stops reading.
//! - torrent → connection: commands. When full, the connection is beyond help and is closed.
//! - torrent → user: events. When full, the oldest are lost; [`Torrent::phase`] never is.
//!
//! A panic in the task of a connection closes that connection and nothing else.

pub mod http;

mod backend;
mod dial;
mod disk;
mod inbound;
mod job;
mod listen;
mod news;
mod one_piece;
mod options;
mod owner;
mod peer;
mod phase;
mod piece_handle;
mod session;
mod shared;
mod throttle;
mod torrent;
mod tracker;
mod udp_tracker;
mod version_file;
mod versions;
mod view;

#[cfg(test)]
mod tests;

pub use crate::storage::Preallocation;
pub use backend::{Backend, Memory};
pub use job::{Job, JobError, JobStatus};
pub use listen::{BindError, Listeners};
pub use one_piece::{PieceDownloader, PieceEvents, SpawnError};
pub use options::{Accepts, AddOptions, Rates, Select, Share, Source, State};
pub use phase::{CheckError, Failed, Phase};
pub use piece_handle::{CallError, PieceHandle};
pub use session::{AddError, Options, PEER_ID_PREFIX, Session, SessionError};
pub use torrent::{Events, Torrent};
pub use version_file::VersionFile;
pub use versions::{Version, VersionError, Versions};
pub use view::{FileView, Progress};
