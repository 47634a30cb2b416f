//! Why bytes could not be read ([`DecodeError`]: small, `Copy`, never a `String` of a stranger's
//! text) and the error codes that KRPC sends ([`ErrorCode`]).

use std::fmt;

/// Why a document was refused, and at which byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// The rule that was broken.
    pub kind: DecodeErrorKind,
    /// Offset of the byte at which it was noticed.
    pub at: u32,
}

/// The rules of the grammar, in the order in which a reader meets them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DecodeErrorKind {
    /// The document is longer than [`crate::bencode::Limits`] allows.
    TooLong,
    /// The document ended inside a value.
    Truncated,
    /// A byte that starts no value.
    UnexpectedByte,
    /// An integer with a leading zero, `-0`, `+`, no digits or other characters.
    BadInteger,
    /// An integer outside `i64`.
    IntegerOverflow,
    /// A string length with a leading zero or other characters.
    BadLength,
    /// A string reaches past the end of the document.
    LengthPastEnd,
    /// More nested containers than the limit.
    TooDeep,
    /// More tokens than the limit.
    TooManyTokens,
    /// A dictionary key that is not a string.
    KeyNotString,
    /// A key occurs twice in one dictionary.
    DuplicateKey,
    /// Keys not in ascending order, where order is asked for.
    UnsortedKeys,
    /// Bytes after the end of the document.
    TrailingBytes,
    /// A value of another type than the field has.
    WrongType,
    /// A required key is absent.
    MissingKey,
    /// A value of the right type that the protocol does not allow.
    BadValue,
    /// The typed reader (serde) refused a well-formed document.
    Typed,
}

impl DecodeErrorKind {
    /// A short English description of the rule.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooLong => "document too long",
            Self::Truncated => "document ends inside a value",
            Self::UnexpectedByte => "unexpected byte",
            Self::BadInteger => "malformed integer",
            Self::IntegerOverflow => "integer does not fit 64 bits",
            Self::BadLength => "malformed string length",
            Self::LengthPastEnd => "string reaches past the end",
            Self::TooDeep => "nested too deeply",
            Self::TooManyTokens => "too many values",
            Self::KeyNotString => "dictionary key is not a string",
            Self::DuplicateKey => "duplicate dictionary key",
            Self::UnsortedKeys => "dictionary keys not sorted",
            Self::TrailingBytes => "bytes after the end of the document",
            Self::WrongType => "value has the wrong type",
            Self::MissingKey => "required key is missing",
            Self::BadValue => "value not allowed here",
            Self::Typed => "document does not have the expected shape",
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.kind.as_str(), self.at)
    }
}

impl std::error::Error for DecodeError {}

/// The error codes of KRPC (BEP 5, BEP 44). Any other number is kept in [`crate::ErrorBody`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
#[non_exhaustive]
pub enum ErrorCode {
    /// 201: generic error.
    Generic = 201,
    /// 202: server error.
    Server = 202,
    /// 203: protocol error, such as a malformed packet, invalid arguments or a bad token.
    Protocol = 203,
    /// 204: method unknown.
    MethodUnknown = 204,
    /// 205: message (`v` field) too big (BEP 44).
    ValueTooBig = 205,
    /// 206: invalid signature (BEP 44).
    InvalidSignature = 206,
    /// 207: salt too big (BEP 44).
    SaltTooBig = 207,
    /// 301: the CAS hash mismatched, re-read value and try again (BEP 44).
    CasMismatch = 301,
    /// 302: sequence number less than current (BEP 44).
    SequenceTooLow = 302,
}

impl ErrorCode {
    /// The number on the wire.
    pub const fn number(self) -> i64 {
        self as u16 as i64
    }
}
