//! A BitTorrent downloader: a sans-IO swarm core and, with the feature `net`, the tokio shell around
//! it.
//!
//! # The life of a magnet link
//!
//! 1. The binary reads the link (`krpc::magnet`) and adds it to a session (`engine`, with the feature `net`), which
//!    starts one owner task with one [`Swarm`](swarm::Swarm) inside. The swarm is told the time and what
//!    happened, and answers with [`Action`](swarm::Action)s; the task carries them out.
//! 2. The first actions are a DHT lookup (BEP 5), announces to the link's trackers (BEP 3, 15; [`tracker`])
//!    and dials of the peers in the link. What is found goes into the swarm's table of known addresses,
//!    which decides whom to dial when, and whom never again.
//! 3. Each connection is a task around a [`PeerConn`](peer::PeerConn): it turns bytes into events and
//!    commands into bytes by the codecs of [`wire`], and knows one peer and nothing else.
//! 4. A few peers at a time are asked for the info dictionary (BEP 9, 10), each for a copy of its own.
//!    The one with the right hash is parsed by the same rules as a `.torrent` ([`metainfo`]).
//! 5. The swarm asks for [`storage`]: the folder is locked, a resume file is compared with the files,
//!    and what may be there is hashed. Then trackers are told how much is left.
//! 6. Blocks are asked for: rarest piece first (among seeds alone, neighbours that can be written
//!    together), as many at once as keeps a peer busy and the disk threads can take. A block is received
//!    into the buffer that the disk threads hash and write; its piece is verified when the last one is
//!    there. Whoever sent wrong ones is found and banned.
//! 7. What is verified is told to all peers and served to some of them. Every few seconds the files are
//!    synced and the resume file says what is safe: a run that ends in whatever way is gone on with.
//! 8. When nothing is missing, trackers hear `completed`, everything is synced, the user hears
//!    [`Complete`](swarm::Event::Complete), and the swarm goes on as a seed until it is told to stop.
//!
//! A `.torrent` file enters at step 5. Of files that are skipped only the edges come along, in pieces that
//! a wanted file shares with them; they lie apart, see [`storage`].
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod bitfield;
pub mod buffer;
#[cfg(feature = "net")]
pub mod engine;
pub mod hash;
pub mod metainfo;
pub mod one_piece;
pub mod peer;
pub mod piece;
#[cfg(feature = "net")]
mod rates;
#[cfg(feature = "sim")]
pub mod sim;
mod steps;
pub mod storage;
pub mod swarm;
pub mod tracker;
pub mod wire;
