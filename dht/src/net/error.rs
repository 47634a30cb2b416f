//! [`Error`]: what can go wrong between a caller and its node.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// A failure of the shell; each says what was being done. Nothing that strangers send ends up here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An address could not be bound; the caller's choice or another program's doing.
    #[error("binding {addr}: {source}")]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Not one of the addresses exists on this machine.
    #[error("binding: no address family to listen on")]
    NoAddress,
    /// More than 255 sockets were asked for.
    #[error("binding: at most 255 addresses")]
    TooManyAddresses,
    /// The state folder could not be made or used.
    #[error("using the state folder {path}: {source}")]
    State {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process holds the state folder.
    #[error("using the state folder {path}: in use by another process")]
    StateInUse {
        /// The folder.
        path: PathBuf,
    },
    /// A router is not written as `host:port`.
    #[error("reading the router `{router}`: expected host:port")]
    Router {
        /// The text.
        router: String,
    },
    /// A name could not be resolved.
    #[error("resolving {name}: {source}")]
    Resolve {
        /// The name.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// A thread of a serving shard could not be started.
    #[error("starting a serving shard: {source}")]
    Shard {
        /// Why.
        source: io::Error,
    },
    /// The system gave no randomness.
    #[error("drawing random numbers: {0}")]
    Random(getrandom::Error),
    /// What was to be stored is no item of BEP 44; the caller's doing.
    #[error("making an item: {0}")]
    Item(crate::item::InvalidItem),
    /// The node has stopped.
    #[error("the node has stopped")]
    Stopped,
}
