//! Bytes ⇄ borrowed values for the Mainline DHT: bencode, KRPC messages, compact addresses, ids and
//! magnet URIs.
//!
//! This crate is pure codec. It knows no time, no socket and no policy: who may be answered, stored
//! or believed is decided in the `btdht` crate. Decoding borrows from the caller's bytes, never
//! recurses and is bounded by [`bencode::Limits`]; encoding appends to the caller's buffer with the
//! keys already in order.
//!
//! | what | where | specification |
//! |---|---|---|
//! | bencode grammar, reader, writer | [`bencode`] | BEP 3 |
//! | [`Message`], [`Query`], [`Response`] | `message`, `query`, `response` | BEP 5, 32, 33, 42, 43, 44, 51 |
//! | [`compact`] node and peer records | `compact` | BEP 5, 23, 32 |
//! | [`Id`] and XOR distance | `id` | BEP 5 |
//! | [`magnet`] URIs | `magnet` | BEP 9, 52, 53 |
#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod bencode;
pub mod bloom;
pub mod compact;
mod decode;
mod encode;
mod error;
mod id;
pub mod magnet;
mod message;
mod query;
mod response;

pub use decode::{DecodeFailure, Tolerated};
pub use error::{DecodeError, DecodeErrorKind, ErrorCode};
pub use id::{Distance, Id};
pub use message::{Body, ErrorBody, Message};
pub use query::{Query, Signed, Want};
pub use response::Response;
