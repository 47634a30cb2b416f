//! The tests that need no process and no network of their own, in one binary.
#![allow(clippy::unwrap_used)]

mod dependencies;
mod fuzz_smoke;
mod imports;
mod krpc_corpus;
mod metainfo_hostile;
mod peer_conn;
mod scenarios;
