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
            config: Config { allow_local: true, ..Config::default() },
            bootstrap: bootstrap.into_iter().map(|addr| addr.to_string()).collect(),
            state: State::Nothing,
        }
    }
}

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
