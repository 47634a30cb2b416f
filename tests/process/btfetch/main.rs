//! `btfetch` as a process, over real sockets and files on this machine. A test of this kind asserts
//! outcomes; what happens when is tested in the cores on virtual time.
#![allow(clippy::unwrap_used)]

mod demo;
mod disk;
mod hostile;
mod links;
mod machine;
mod many;
mod mutable;
mod piece;
mod together;
mod trackers;
mod transfer;
mod verbs;
mod words;
mod world;
