//! [`Message`] to bytes: appended to the caller's buffer, keys in ascending order, no allocation
//! beyond the buffer's growth.

use sha1::{Digest as _, Sha1};

use crate::bencode::Writer;
use crate::{Body, ErrorBody, Id, Message, Query, Response, Signed, Want};

impl Message<'_> {
    /// Appends the datagram to `out`. [`Message::decode`] reads back an equal message, unless a
    /// [`Query::Other`] bears the name of a method that has a type of its own.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.reserve(RESERVE);
        let w = &mut Writer::new(out);
        w.dict();
        match &self.body {
            Body::Query { id, query } => write_args(w, id, query),
            Body::Error(error) => write_error(w, error),
            Body::Response(_) => {}
        }
        if let Some(ip) = self.ip {
            w.key(b"ip").bytes(ip);
        }
        match &self.body {
            Body::Query { query, .. } => {
                w.key(b"q").bytes(query.method());
            }
            Body::Response(response) => write_response(w, response),
            Body::Error(_) => {}
        }
        if self.read_only {
            w.key(b"ro").int(1);
        }
        w.key(b"t").bytes(self.tid);
        if let Some(version) = self.version {
            w.key(b"v").bytes(version);
        }
        let kind: &[u8] = match self.body {
            Body::Query { .. } => b"q",
            Body::Response(_) => b"r",
            Body::Error(_) => b"e",
        };
        w.key(b"y").bytes(kind).end();
    }
}

fn write_args(w: &mut Writer<'_>, id: &Id, query: &Query<'_>) {
    w.key(b"a").dict();
    if let Query::Put { signed: Some(Signed { cas: Some(cas), .. }), .. } = *query {
        w.key(b"cas").int(cas);
    }
    w.key(b"id").bytes(id.as_bytes());
    match *query {
        Query::Ping => {}
        Query::Get { target, seq, want } => {
            write_int(w, b"seq", seq);
            w.key(b"target").bytes(target.as_bytes());
            write_want(w, want);
        }
        Query::Put { token, value, signed } => write_put(w, token, value, signed),
        Query::FindNode { target, want } | Query::SampleInfohashes { target, want } => {
            w.key(b"target").bytes(target.as_bytes());
            write_want(w, want);
        }
        Query::GetPeers { infohash, want, scrape, no_seed } => {
            w.key(b"info_hash").bytes(infohash.as_bytes());
            if no_seed {
                w.key(b"noseed").int(1);
            }
            if scrape {
                w.key(b"scrape").int(1);
            }
            write_want(w, want);
        }
        Query::AnnouncePeer { infohash, port, implied_port, token, seed } => {
            if implied_port {
                w.key(b"implied_port").int(1);
            }
            w.key(b"info_hash").bytes(infohash.as_bytes()).key(b"port").int(port);
            if seed {
                w.key(b"seed").int(1);
            }
            w.key(b"token").bytes(token);
        }
        Query::Other { target, want, .. } => {
            if let Some(target) = target {
                w.key(b"target").bytes(target.as_bytes());
            }
            write_want(w, want);
        }
    }
    w.end();
}

/// All of a put's arguments behind `cas` and `id`. BEP 44 knows no `target` among them, the item says it;
/// but nodes of the crate `mainline` (8.0) take no put without, and nobody else minds.
fn write_put(w: &mut Writer<'_>, token: &[u8], value: &[u8], signed: Option<Signed<'_>>) {
    if let Some(Signed { key, signature, seq, salt, cas: _ }) = signed {
        w.key(b"k").bytes(key);
        if !salt.is_empty() {
            w.key(b"salt").bytes(salt);
        }
        w.key(b"seq").int(seq).key(b"sig").bytes(signature);
    }
    let target = match signed {
        None => Sha1::digest(value),
        Some(Signed { key, salt, .. }) => Sha1::new().chain_update(key).chain_update(salt).finalize(),
    };
    w.key(b"target").bytes(&target).key(b"token").bytes(token).key(b"v").raw(value);
}

fn write_want(w: &mut Writer<'_>, want: Want) {
    if want == Want::UNSPECIFIED {
        return;
    }
    w.key(b"want").list();
    if want.n4 {
        w.bytes(b"n4");
    }
    if want.n6 {
        w.bytes(b"n6");
    }
    w.end();
}

fn write_error(w: &mut Writer<'_>, error: &ErrorBody<'_>) {
    w.key(b"e").list().int(error.code).bytes(error.text).end();
}

fn write_response(w: &mut Writer<'_>, response: &Response<'_>) {
    w.key(b"r").dict();
    write_bytes(w, b"BFpe", response.bloom_peers);
    write_bytes(w, b"BFsd", response.bloom_seeds);
    w.key(b"id").bytes(response.id.as_bytes());
    write_int(w, b"interval", response.interval);
    write_bytes(w, b"k", response.key);
    write_bytes(w, b"nodes", response.nodes);
    write_bytes(w, b"nodes6", response.nodes6);
    write_int(w, b"num", response.num);
    write_bytes(w, b"samples", response.samples);
    write_int(w, b"seq", response.seq);
    write_bytes(w, b"sig", response.signature);
    write_bytes(w, b"token", response.token);
    if let Some(value) = response.value {
        w.key(b"v").raw(value);
    }
    if let Some(values) = response.values {
        w.key(b"values").list().raw(values.as_raw()).end();
    }
    w.end();
}

#[inline]
fn write_bytes(w: &mut Writer<'_>, key: &[u8], value: Option<&[u8]>) {
    if let Some(value) = value {
        w.key(key).bytes(value);
    }
}

#[inline]
fn write_int(w: &mut Writer<'_>, key: &[u8], value: Option<i64>) {
    if let Some(value) = value {
        w.key(key).int(value);
    }
}

/// Room for most messages, so that a fresh buffer grows once.
const RESERVE: usize = 512;

#[cfg(test)]
mod tests;
