//! [`Value`]: a document of unknown shape as a tree over borrowed bytes, for cold paths such as the
//! BEP 10 handshake or the `v` of BEP 44. Not for datagrams and not for torrents: a value costs
//! about 50 bytes, so a hostile list of empty strings grows 25-fold within the token limit.

use super::{Limits, Reader, Token};
use crate::DecodeError;

/// A value and the bytes that it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value<'a> {
    raw: &'a [u8],
    data: Data<'a>,
}

/// What a [`Value`] holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data<'a> {
    /// An integer.
    Int(i64),
    /// A byte string.
    Bytes(&'a [u8]),
    /// A list.
    List(Vec<Value<'a>>),
    /// A dictionary: keys are unique and stand in the order in which they came.
    Dict(Vec<(&'a [u8], Value<'a>)>),
}

impl<'a> Value<'a> {
    /// Reads the one document that `bytes` must be.
    pub fn parse(bytes: &'a [u8], limits: Limits) -> Result<Self, DecodeError> {
        Self::build(Reader::new(bytes, limits))
    }

    /// As [`Value::parse`], but dictionaries must be sorted.
    pub fn parse_strict(bytes: &'a [u8], limits: Limits) -> Result<Self, DecodeError> {
        Self::build(Reader::strict(bytes, limits))
    }

    /// Keeps the open containers in a vector of its own: no recursion on input. Dropping, comparing
    /// and printing do recurse, at most [`Limits::MAX_DEPTH`] deep.
    fn build(mut reader: Reader<'a>) -> Result<Self, DecodeError> {
        let mut open: Vec<Open<'a>> = Vec::new();
        loop {
            let start = reader.position();
            let (start, data) = match reader.next()? {
                Token::Int(number) => (start, Data::Int(number)),
                Token::Bytes(string) => match open.last_mut() {
                    Some(Open { data: Data::Dict(_), key: key @ None, .. }) => {
                        *key = Some(string);
                        continue;
                    }
                    _ => (start, Data::Bytes(string)),
                },
                Token::List => {
                    open.push(Open { start, data: Data::List(Vec::new()), key: None });
                    continue;
                }
                Token::Dict => {
                    open.push(Open { start, data: Data::Dict(Vec::new()), key: None });
                    continue;
                }
                Token::End => {
                    let closed = open.pop().expect("the reader closes what it opened");
                    (closed.start, closed.data)
                }
            };
            let value = Self { raw: reader.since(start), data };
            match open.last_mut() {
                None => {
                    reader.finish()?;
                    return Ok(value);
                }
                Some(Open { data: Data::Dict(entries), key, .. }) => {
                    entries.push((key.take().expect("the reader gives a key before each value"), value));
                }
                Some(Open { data: Data::List(items), .. }) => items.push(value),
                Some(_) => unreachable!("only containers are open"),
            }
        }
    }

    /// The bytes of this value as they came, to be hashed or signed.
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// What the value holds.
    pub fn data(&self) -> &Data<'a> {
        &self.data
    }

    /// The value of `key` if this is a dictionary that has it. Walks the keys one by one.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Option<&Self> {
        let key = key.as_ref();
        self.as_dict()?.iter().find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    /// The integer that this value is.
    pub fn as_int(&self) -> Option<i64> {
        match self.data {
            Data::Int(number) => Some(number),
            _ => None,
        }
    }

    /// The byte string that this value is.
    pub fn as_bytes(&self) -> Option<&'a [u8]> {
        match self.data {
            Data::Bytes(string) => Some(string),
            _ => None,
        }
    }

    /// The byte string that this value is, if it is UTF-8.
    pub fn as_str(&self) -> Option<&'a str> {
        std::str::from_utf8(self.as_bytes()?).ok()
    }

    /// The items of the list that this value is.
    pub fn as_list(&self) -> Option<&[Self]> {
        match &self.data {
            Data::List(items) => Some(items),
            _ => None,
        }
    }

    /// The entries of the dictionary that this value is.
    pub fn as_dict(&self) -> Option<&[(&'a [u8], Self)]> {
        match &self.data {
            Data::Dict(entries) => Some(entries),
            _ => None,
        }
    }
}

/// A container whose end was not read yet.
struct Open<'a> {
    start: usize,
    data: Data<'a>,
    /// The key whose value comes next, in a dictionary.
    key: Option<&'a [u8]>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DecodeErrorKind;

    #[test]
    fn a_handshake_is_read_with_its_raw_spans() {
        let bytes = b"d1:md11:ut_metadatai3e6:ut_pexi1ee1:pi6881e1:v4:test4:listl1:ai-2eleee";
        let value = Value::parse(bytes, Limits::EXTENSION).unwrap();
        assert_eq!(value.raw(), bytes);
        let m = value.get("m").unwrap();
        assert_eq!(m.raw(), b"d11:ut_metadatai3e6:ut_pexi1ee");
        assert_eq!(m.get("ut_pex").and_then(Value::as_int), Some(1));
        assert_eq!(m.get("ut_holepunch"), None);
        assert_eq!(value.get(b"v").and_then(Value::as_str), Some("test"));
        assert_eq!(value.get("v").unwrap().raw(), b"4:test");
        let list = value.get("list").and_then(Value::as_list).unwrap();
        assert_eq!(list.iter().map(Value::raw).collect::<Vec<_>>(), [&b"1:a"[..], b"i-2e", b"le"]);
        assert_eq!(value.as_int(), None);
        assert_eq!(value.as_dict().unwrap().len(), 4);
    }

    #[test]
    fn strictness_is_the_callers_choice() {
        let unsorted = b"d1:bi1e1:ai2ee";
        assert_eq!(Value::parse(unsorted, Limits::KRPC).unwrap().get("a").unwrap().as_int(), Some(2));
        let error = Value::parse_strict(unsorted, Limits::KRPC).unwrap_err();
        assert_eq!(error.kind, DecodeErrorKind::UnsortedKeys);
    }

    #[test]
    fn the_deepest_allowed_document_is_built_and_dropped() {
        let depth = Limits::MAX_DEPTH as usize;
        let deep = [vec![b'l'; depth], vec![b'e'; depth]].concat();
        let mut value = &Value::parse(&deep, Limits::METAINFO).unwrap();
        for _ in 1..depth {
            value = &value.as_list().unwrap()[0];
        }
        assert_eq!(value.raw(), b"le");
        let deeper = [vec![b'l'; depth + 1], vec![b'e'; depth + 1]].concat();
        let error = Value::parse(&deeper, Limits { depth: 1000, ..Limits::METAINFO }).unwrap_err();
        assert_eq!(error.kind, DecodeErrorKind::TooDeep);
    }
}
