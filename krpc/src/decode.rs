//! Bytes to [`Message`]: one forward pass that borrows everything and allocates nothing.
//!
//! What we merely read is read tolerantly: unknown keys, keys in any order, optional fields of
//! another type (treated as absent), errors of a strange shape. Each is counted in [`Tolerated`] and
//! has a test with its name. Who gets an answer is the responder's business; [`DecodeFailure`] tells
//! it what it needs to know.

mod straight;

use std::fmt;

use crate::bencode::{Kind, Limits, Reader, Strings};
use crate::{Body, DecodeError, DecodeErrorKind, ErrorBody, Id, Message, Query, Response, Signed, Want};

/// Why a datagram is no message, and whether its sender may be told (error 203).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeFailure<'a> {
    /// What is wrong.
    pub error: DecodeError,
    /// The transaction id, present only if the datagram is otherwise well-formed bencode within the
    /// limits: without it there is nothing to answer to.
    pub tid: Option<&'a [u8]>,
    /// The datagram says that it is a query (`y` = `q`). Anything else is never answered.
    pub query: bool,
}

impl<'a> DecodeFailure<'a> {
    /// The transaction id to answer with error 203, "malformed packet, invalid arguments" (BEP 5):
    /// present for well-formed queries with wrong arguments, absent for anything that deserves
    /// silence.
    pub fn answerable(&self) -> Option<&'a [u8]> {
        self.tid.filter(|_| self.query)
    }
}

impl fmt::Display for DecodeFailure<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for DecodeFailure<'_> {}

/// Bad forms that were read all the same; add one up per node and show it among the counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tolerated {
    /// Dictionary keys out of order.
    pub unsorted_keys: u64,
    /// Known fields ignored because their value had a wrong type or length.
    pub ignored_fields: u64,
}

impl<'a> Message<'a> {
    /// Reads a datagram, at most [`Limits::KRPC`]. Transaction ids of any length but 0 are
    /// accepted; a cap on them is policy.
    pub fn decode(datagram: &'a [u8]) -> Result<Self, DecodeFailure<'a>> {
        Self::decode_counting(datagram, &mut Tolerated::default())
    }

    /// As [`Message::decode`], and adds to `tolerated` what it let pass.
    pub fn decode_counting(datagram: &'a [u8], tolerated: &mut Tolerated) -> Result<Self, DecodeFailure<'a>> {
        straight::query(datagram).map_or_else(|| Self::decode_any(datagram, tolerated), Ok)
    }

    /// The same for messages of any form.
    fn decode_any(datagram: &'a [u8], tolerated: &mut Tolerated) -> Result<Self, DecodeFailure<'a>> {
        let mut fields = Fields::default();
        let mut reader = Reader::new(datagram, Limits::KRPC);
        let read = fields.read(&mut reader);
        tolerated.unsorted_keys += u64::from(reader.unsorted());
        tolerated.ignored_fields += u64::from(fields.ignored);
        if let Err(error) = read.and_then(|()| reader.finish()) {
            return Err(DecodeFailure { error, tid: None, query: false });
        }
        fields.message().map_err(|kind| DecodeFailure {
            error: DecodeError { kind, at: fields.args_at },
            tid: fields.tid.filter(|tid| !tid.is_empty()),
            query: fields.kind == Some(b"q"),
        })
    }
}

/// Everything that a message can say, as found.
#[derive(Default)]
struct Fields<'a> {
    args: Args<'a>,
    /// Offset of `a` or `r`, where the errors of their contents are reported.
    args_at: u32,
    error: ErrorBody<'a>,
    ip: Option<&'a [u8]>,
    method: Option<&'a [u8]>,
    returned: Returned<'a>,
    read_only: bool,
    tid: Option<&'a [u8]>,
    version: Option<&'a [u8]>,
    kind: Option<&'a [u8]>,
    ignored: u32,
}

/// The arguments of all queries together.
#[derive(Default)]
struct Args<'a> {
    cas: Option<i64>,
    id: Option<Id>,
    implied_port: bool,
    infohash: Option<Id>,
    key: Option<&'a [u8]>,
    no_seed: bool,
    port: i64,
    salt: Option<&'a [u8]>,
    scrape: bool,
    seed: bool,
    seq: Option<i64>,
    signature: Option<&'a [u8]>,
    target: Option<Id>,
    token: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    want: Want,
}

/// The `r` dictionary; `id` is absent until it is found.
#[derive(Default)]
struct Returned<'a> {
    id: Option<Id>,
    rest: Option<Response<'a>>,
}

impl<'a> Fields<'a> {
    fn read(&mut self, reader: &mut Reader<'a>) -> Result<(), DecodeError> {
        reader.expect_dict()?;
        while let Some(key) = reader.key()? {
            match key {
                b"a" => self.read_args(reader)?,
                b"e" => self.read_error(reader)?,
                b"ip" => self.ip = self.bytes(reader)?,
                b"q" => self.method = self.bytes(reader)?,
                b"r" => self.read_returned(reader)?,
                b"ro" => self.read_only = self.int(reader)?.is_some_and(|ro| ro != 0),
                b"t" => self.tid = self.bytes(reader)?,
                b"v" => self.version = self.bytes(reader)?,
                b"y" => self.kind = self.bytes(reader)?,
                _ => {
                    reader.skip()?;
                }
            }
        }
        Ok(())
    }

    fn read_args(&mut self, reader: &mut Reader<'a>) -> Result<(), DecodeError> {
        if !self.enter(reader, Kind::Dict)? {
            return Ok(());
        }
        self.args_at = reader.position() as u32;
        while let Some(key) = reader.key()? {
            match key {
                b"cas" => self.args.cas = self.int(reader)?,
                b"id" => self.args.id = self.id(reader)?,
                b"implied_port" => self.args.implied_port = self.int(reader)?.is_some_and(|port| port != 0),
                b"info_hash" => self.args.infohash = self.id(reader)?,
                b"k" => self.args.key = self.bytes(reader)?,
                // BEP 33: "if no seed key was present or the value was not 1" it is no seed.
                b"noseed" => self.args.no_seed = self.int(reader)? == Some(1),
                b"port" => self.args.port = self.int(reader)?.unwrap_or_default(),
                b"salt" => self.args.salt = self.bytes(reader)?,
                b"scrape" => self.args.scrape = self.int(reader)? == Some(1),
                b"seed" => self.args.seed = self.int(reader)? == Some(1),
                b"seq" => self.args.seq = self.int(reader)?,
                b"sig" => self.args.signature = self.bytes(reader)?,
                b"target" => self.args.target = self.id(reader)?,
                b"token" => self.args.token = self.bytes(reader)?,
                b"v" => self.args.value = Some(reader.skip()?),
                b"want" => self.read_want(reader)?,
                _ => {
                    reader.skip()?;
                }
            }
        }
        Ok(())
    }

    /// BEP 32: a list of `n4` and `n6`; other strings are for other protocols.
    fn read_want(&mut self, reader: &mut Reader<'a>) -> Result<(), DecodeError> {
        if !self.enter(reader, Kind::List)? {
            return Ok(());
        }
        while reader.item()? {
            match self.bytes(reader)? {
                Some(b"n4") => self.args.want.n4 = true,
                Some(b"n6") => self.args.want.n6 = true,
                _ => {}
            }
        }
        Ok(())
    }

    fn read_returned(&mut self, reader: &mut Reader<'a>) -> Result<(), DecodeError> {
        if !self.enter(reader, Kind::Dict)? {
            return Ok(());
        }
        self.args_at = reader.position() as u32;
        let mut response = Response::new(Id::ZERO);
        while let Some(key) = reader.key()? {
            match key {
                b"BFpe" => response.bloom_peers = self.bytes(reader)?,
                b"BFsd" => response.bloom_seeds = self.bytes(reader)?,
                b"id" => self.returned.id = self.id(reader)?,
                b"interval" => response.interval = self.int(reader)?,
                b"k" => response.key = self.bytes(reader)?,
                b"nodes" => response.nodes = self.bytes(reader)?,
                b"nodes6" => response.nodes6 = self.bytes(reader)?,
                b"num" => response.num = self.int(reader)?,
                b"samples" => response.samples = self.bytes(reader)?,
                b"seq" => response.seq = self.int(reader)?,
                b"sig" => response.signature = self.bytes(reader)?,
                b"token" => response.token = self.bytes(reader)?,
                b"v" => response.value = Some(reader.skip()?),
                b"values" => response.values = self.read_values(reader)?,
                _ => {
                    reader.skip()?;
                }
            }
        }
        self.returned.rest = Some(response);
        Ok(())
    }

    /// A list that holds anything but strings is ignored as a whole.
    fn read_values(&mut self, reader: &mut Reader<'a>) -> Result<Option<Strings<'a>>, DecodeError> {
        if !self.enter(reader, Kind::List)? {
            return Ok(None);
        }
        let start = reader.position();
        let (mut count, mut only_strings) = (0, true);
        let mut raw = reader.since(start);
        while reader.item()? {
            match reader.bytes_or_skip()? {
                Some(_) => count += 1,
                None => only_strings = false,
            }
            raw = reader.since(start);
        }
        if !only_strings {
            self.ignored += 1;
            return Ok(None);
        }
        Ok(Some(Strings::from_checked(raw, count)))
    }

    /// BEP 5: a code and a text. Clients send other shapes too, and those are errors all the same:
    /// the first integer and the first string count, wherever they stand.
    fn read_error(&mut self, reader: &mut Reader<'a>) -> Result<(), DecodeError> {
        if let Some(Kind::Bytes) = reader.peek() {
            self.error.text = reader.bytes()?;
            self.ignored += 1;
            return Ok(());
        }
        if !self.enter(reader, Kind::List)? {
            return Ok(());
        }
        let (mut code, mut text) = (None, None);
        while reader.item()? {
            match reader.peek() {
                Some(Kind::Int) if code.is_none() => code = Some(reader.int()?),
                Some(Kind::Bytes) if text.is_none() => text = Some(reader.bytes()?),
                _ => {
                    reader.skip()?;
                    self.ignored += 1;
                }
            }
        }
        self.error = ErrorBody { code: code.unwrap_or_default(), text: text.unwrap_or_default() };
        Ok(())
    }

    #[inline]
    fn bytes(&mut self, reader: &mut Reader<'a>) -> Result<Option<&'a [u8]>, DecodeError> {
        let value = reader.bytes_or_skip()?;
        self.ignored += u32::from(value.is_none());
        Ok(value)
    }

    #[inline]
    fn int(&mut self, reader: &mut Reader<'a>) -> Result<Option<i64>, DecodeError> {
        let value = reader.int_or_skip()?;
        self.ignored += u32::from(value.is_none());
        Ok(value)
    }

    #[inline]
    fn id(&mut self, reader: &mut Reader<'a>) -> Result<Option<Id>, DecodeError> {
        let value = reader.bytes_or_skip()?.and_then(Id::from_slice);
        self.ignored += u32::from(value.is_none());
        Ok(value)
    }

    /// Enters the container that comes next if it is of `kind`; skips and counts anything else.
    #[inline]
    fn enter(&mut self, reader: &mut Reader<'a>, kind: Kind) -> Result<bool, DecodeError> {
        if reader.peek() != Some(kind) {
            reader.skip()?;
            self.ignored += 1;
            return Ok(false);
        }
        reader.next()?;
        Ok(true)
    }

    fn message(&self) -> Result<Message<'a>, DecodeErrorKind> {
        let body = match self.kind.ok_or(DecodeErrorKind::MissingKey)? {
            b"q" => {
                let id = self.args.id.ok_or(DecodeErrorKind::MissingKey)?;
                Body::Query { id, query: self.query()? }
            }
            b"r" => {
                let id = self.returned.id.ok_or(DecodeErrorKind::MissingKey)?;
                let rest = self.returned.rest.ok_or(DecodeErrorKind::MissingKey)?;
                Body::Response(Response { id, ..rest })
            }
            b"e" => Body::Error(self.error),
            _ => return Err(DecodeErrorKind::BadValue),
        };
        let tid = self.tid.ok_or(DecodeErrorKind::MissingKey)?;
        if tid.is_empty() {
            return Err(DecodeErrorKind::BadValue);
        }
        Ok(Message { tid, version: self.version, ip: self.ip, read_only: self.read_only, body })
    }

    fn query(&self) -> Result<Query<'a>, DecodeErrorKind> {
        let args = &self.args;
        let missing = DecodeErrorKind::MissingKey;
        Ok(match self.method.ok_or(missing)? {
            b"ping" => Query::Ping,
            b"find_node" => Query::FindNode { target: args.target.ok_or(missing)?, want: args.want },
            b"get_peers" => Query::GetPeers {
                infohash: args.infohash.ok_or(missing)?,
                want: args.want,
                scrape: args.scrape,
                no_seed: args.no_seed,
            },
            b"announce_peer" => Query::AnnouncePeer {
                infohash: args.infohash.ok_or(missing)?,
                port: args.port,
                implied_port: args.implied_port,
                token: args.token.ok_or(missing)?,
                seed: args.seed,
            },
            b"get" => Query::Get { target: args.target.ok_or(missing)?, seq: args.seq, want: args.want },
            b"put" => Query::Put {
                token: args.token.ok_or(missing)?,
                value: args.value.ok_or(missing)?,
                signed: args.key.map(|key| args.signed(key)).transpose()?,
            },
            b"sample_infohashes" => {
                Query::SampleInfohashes { target: args.target.ok_or(missing)?, want: args.want }
            }
            method => Query::Other { method, target: args.target.or(args.infohash), want: args.want },
        })
    }
}

impl<'a> Args<'a> {
    /// BEP 44: a key makes the item a mutable one, which needs a signature and a number.
    fn signed(&self, key: &'a [u8]) -> Result<Signed<'a>, DecodeErrorKind> {
        let signature = self.signature.ok_or(DecodeErrorKind::MissingKey)?;
        Ok(Signed {
            key: key.try_into().map_err(|_| DecodeErrorKind::BadValue)?,
            signature: signature.try_into().map_err(|_| DecodeErrorKind::BadValue)?,
            seq: self.seq.ok_or(DecodeErrorKind::MissingKey)?,
            salt: self.salt.unwrap_or_default(),
            cas: self.cas,
        })
    }
}

#[cfg(test)]
mod tests;
