//! The contract of `btdht` as a process: exit codes, output, signals, state. Everything is on
//! loopback; outcomes are asserted, durations are not, but for one generous guard.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

mod crawl;
mod doctor;
mod families;
mod harness;
mod hostile;
mod ipv6;
mod items;
mod lookups;
mod orders;
mod questions;
mod serving;
mod shards;
mod sim;
mod state;
mod swarms;
mod testnet;
mod traces;
// What the package `harness` has too: this one is below it.
#[path = "../../src/uninterrupted.rs"]
#[allow(unreachable_pub)]
mod uninterrupted;
mod usage;
mod words;
