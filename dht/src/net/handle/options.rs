//! [`Options`]: how to run a node.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::Config;
use crate::net::Bind;

/// How to run a node.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Addresses to listen on; each has a node id of its own.
    pub binds: Vec<Bind>,
    /// Threads that answer strangers, each with a socket of its own at every address: 0 and 1 mean the
    /// node's own task alone, more than [`MAX_SHARDS`] that many. Where the system cannot spread
    /// senders over sockets ([`CAN_SHARE`](crate::net::udp::CAN_SHARE)) there is one. With several, replies
    /// to one sender may leave in another order than its queries came (see [`crate::shards`]).
    pub shards: usize,
    /// While datagrams come one after the other, within a millisecond, the node's task waits for the next one
    /// with its thread instead of asking the runtime for it. That takes a third of the system calls
    /// from what a query costs; other tasks of that thread wait meanwhile, for some 8 ms while datagrams come and
    /// [`LONGEST_LINGER`](crate::net::udp::LONGEST_LINGER) when no more does: for a runtime that has little else
    /// to do. Shards of their own always do so. Linux only; nothing elsewhere.
    pub lingers: bool,
    /// The numbers of the core.
    pub config: Config,
    /// Routers, `host:port`, in order of preference.
    pub bootstrap: Vec<String>,
    /// What is kept between runs.
    pub state: State,
}

impl Options {
    /// A node on 127.0.0.1 at any free port that accepts local addresses and keeps nothing: for tests
    /// and for trying things out without a network.
    pub fn loopback(bootstrap: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self {
            binds: vec![Bind { addr: ([127, 0, 0, 1], 0).into(), required: true }],
            shards: 1,
            lingers: false,
            config: Config { allow_local: true, ..Config::default() },
            bootstrap: bootstrap.into_iter().map(|addr| addr.to_string()).collect(),
            state: State::Nothing,
        }
    }
}

/// The most shards that a node has.
pub const MAX_SHARDS: usize = 64;

/// What a node keeps between runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Nothing.
    #[default]
    Nothing,
    /// Start from the nodes in this folder, whoever holds it, under a fresh id; write nothing.
    Read(PathBuf),
    /// Hold this folder: start from its ids and nodes, save every minute and at the end.
    Keep(PathBuf),
}
