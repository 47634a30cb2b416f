//! [`Message`]: one KRPC datagram as a borrowed value (BEP 5, "KRPC Protocol").

use crate::{Id, Query, Response};

/// One KRPC message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Transaction id (`t`), echoed by the answer.
    pub tid: &'a [u8],
    /// Client version (`v`): usually two letters and two version bytes.
    pub version: Option<&'a [u8]>,
    /// The receiver's address as the sender sees it, 6 or 18 bytes (`ip`, BEP 42).
    pub ip: Option<&'a [u8]>,
    /// The sender does not answer queries (`ro`, BEP 43).
    pub read_only: bool,
    /// Query, response or error.
    pub body: Body<'a>,
}

/// What a message is (`y`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// `y` = `q`.
    Query {
        /// Id of the asking node.
        id: Id,
        /// The question.
        query: Query<'a>,
    },
    /// `y` = `r`.
    Response(Response<'a>),
    /// `y` = `e`.
    Error(ErrorBody<'a>),
}

/// The `e` list of an error message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ErrorBody<'a> {
    /// The number, see [`crate::ErrorCode`].
    pub code: i64,
    /// Text for humans; a stranger's bytes, to be escaped before they are shown.
    pub text: &'a [u8],
}
