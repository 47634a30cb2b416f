//! [`Fields`]: the keys of a JSON object that a stranger may have written, each checked as it is read.

use std::net::{IpAddr, SocketAddr};

use krpc::Id;
use serde_json::{Map, Value};

/// The keys of one object. What is wrong is said with the name of the key.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a>(pub(super) &'a Map<String, Value>);

impl<'a> Fields<'a> {
    /// The keys of `value`, which has to be an object.
    pub(super) fn of(value: &'a Value, what: &str) -> Result<Self, String> {
        value.as_object().map(Self).ok_or_else(|| format!("{what} has to be an object"))
    }

    pub(super) fn object(self, key: &str) -> Result<Self, String> {
        self.read(key, "an object", |value| value.as_object().map(Self))
    }

    pub(super) fn list(self, key: &str) -> Result<&'a [Value], String> {
        self.read(key, "a list", |value| value.as_array().map(Vec::as_slice))
    }

    pub(super) fn text(self, key: &str) -> Result<&'a str, String> {
        self.read(key, "a text", Value::as_str)
    }

    pub(super) fn flag(self, key: &str) -> Result<bool, String> {
        self.read(key, "true or false", Value::as_bool)
    }

    pub(super) fn number(self, key: &str) -> Result<u64, String> {
        self.read(key, "a whole number", Value::as_u64)
    }

    /// A number that may be absent.
    pub(super) fn signed(self, key: &str) -> Result<Option<i64>, String> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(_) => self.read(key, "a whole number", Value::as_i64).map(Some),
        }
    }

    pub(super) fn bytes(self, key: &str) -> Result<Vec<u8>, String> {
        self.read(key, "an even number of hexadecimal digits", |value| unhex(value.as_str()?))
    }

    pub(super) fn id(self, key: &str) -> Result<Id, String> {
        self.read(key, "40 hexadecimal digits", |value| Id::from_hex(value.as_str()?))
    }

    pub(super) fn addr(self, key: &str) -> Result<SocketAddr, String> {
        self.read(key, "IP:PORT", |value| value.as_str()?.parse().ok())
    }

    pub(super) fn ip(self, key: &str) -> Result<IpAddr, String> {
        self.read(key, "an IP address", |value| value.as_str()?.parse().ok())
    }

    fn read<T>(self, key: &str, form: &str, read: impl FnOnce(&'a Value) -> Option<T>) -> Result<T, String> {
        self.0.get(key).and_then(read).ok_or_else(|| format!("`{key}` has to be {form}"))
    }
}

pub(super) fn unhex(digits: &str) -> Option<Vec<u8>> {
    data_encoding::HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).ok()
}

pub(super) fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}
