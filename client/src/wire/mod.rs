//! The peer wire protocol as bytes: handshake, messages, extension messages and the incremental
//! reader. Codec only: who may say what and when is decided in [`crate::peer`].
//!
//! | file | specification |
//! |---|---|
//! | [`handshake`] | BEP 3, "peer protocol"; reserved bits of BEP 5, 6, 10 |
//! | [`message`] | BEP 3, 5 (PORT), 6, 10 |
//! | [`extension`] | BEP 10, 21 |
//! | [`metadata`] | BEP 9 |
//! | [`reader`] | cuts a stream into messages; payload of blocks is received in place |

mod ahead;
pub mod extension;
pub mod handshake;
pub mod message;
pub mod metadata;
pub mod reader;

/// Why a stream of messages cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireError {
    /// A length prefix above what its message may have.
    Oversize,
    /// A message of the wrong length.
    BadLength,
}
