//! Our node and our downloader against other people's and beside each other, each test in a network namespace of its own
//! with internet-like addresses (85.x.0.1). Installed by `tests/interop/install.sh`; a test whose
//! rival is absent says so aloud, and fails where `INTEROP_REQUIRED=1`.
#![allow(clippy::unwrap_used)]

mod clients;
mod dht;
mod differences;
mod ids;
mod ipv6;
mod items;
mod magnet;
mod swarms;
mod testnet;
mod world;
