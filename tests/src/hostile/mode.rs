//! [`Mode`]: every way of misbehaving, by topic.

use std::io;

use super::blocks::Blocks;
use super::extensions::Extensions;
use super::framing::Framing;
use super::greetings::Greetings;
use super::link::Link;
use super::metadata::Metadata;
use super::pieces::Pieces;
use super::requests::Requests;

/// One way of misbehaving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Connecting and the handshake.
    Greetings(Greetings),
    /// Lengths and ids of messages.
    Framing(Framing),
    /// What the peer says it has, and whether it serves it.
    Pieces(Pieces),
    /// What the peer asks of the client.
    Requests(Requests),
    /// The blocks that the peer sends.
    Blocks(Blocks),
    /// Extension messages, for a client that has the info dictionary.
    Extensions(Extensions),
    /// The info dictionary, for a client that lacks it.
    Metadata(Metadata),
}

impl Mode {
    /// Every mode.
    pub fn all() -> impl Iterator<Item = Self> {
        let greetings = Greetings::ALL.iter().copied().map(Self::Greetings);
        greetings
            .chain(Framing::ALL.iter().copied().map(Self::Framing))
            .chain(Pieces::ALL.iter().copied().map(Self::Pieces))
            .chain(Requests::ALL.iter().copied().map(Self::Requests))
            .chain(Blocks::ALL.iter().copied().map(Self::Blocks))
            .chain(Extensions::ALL.iter().copied().map(Self::Extensions))
            .chain(Metadata::ALL.iter().copied().map(Self::Metadata))
    }

    /// Misbehaves on one connection until it ends.
    pub(super) fn misbehave(self, link: Link) -> io::Result<()> {
        match self {
            Self::Greetings(mode) => mode.misbehave(link),
            Self::Framing(mode) => mode.misbehave(link),
            Self::Pieces(mode) => mode.misbehave(link),
            Self::Requests(mode) => mode.misbehave(link),
            Self::Blocks(mode) => mode.misbehave(link),
            Self::Extensions(mode) => mode.misbehave(link),
            Self::Metadata(mode) => mode.misbehave(link),
        }
    }
}

/// An enum of modes that also lists them.
macro_rules! modes {
    ($(#[$about:meta])* $topic:ident { $($(#[$doc:meta])* $mode:ident,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $topic {
            $($(#[$doc])* $mode,)*
        }

        impl $topic {
            /// Every one of them.
            pub const ALL: &[Self] = &[$(Self::$mode,)*];
        }
    };
}
pub(super) use modes;
