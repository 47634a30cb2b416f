//! A BitTorrent downloader: a sans-IO swarm core and, with the feature `net`, the tokio shell around
//! it.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod bitfield;
#[cfg(feature = "net")]
pub mod engine;
pub mod metainfo;
pub mod peer;
pub mod piece;
pub mod storage;
pub mod swarm;
pub mod tracker;
pub mod wire;
