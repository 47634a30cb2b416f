//! What all answers are made of: who asked, what the [`Responder`] borrows, the parts of a reply, and how it
//! and errors are written and sent.

use std::net::SocketAddr;

use krpc::bencode::Strings;
use krpc::compact::put_peer;
use krpc::{Body, ErrorBody, ErrorCode, Id, Message, Response, Want};

use super::fit::encode_within;
use crate::counters::Tally;
use crate::guard::{Budgets, Guard};
use crate::home::{Place, family_of};
use crate::rpc::VERSION;
use crate::scratch::Scratch;
use crate::store::{Family, Scrape, Store};
use crate::table::FamilyTable;
use crate::token::TokenServer;
use crate::{Class, Config, Outbox, Rng, Time};

/// Answers with what it borrows from its siblings.
pub(crate) struct Responder<'a, P = Place, G = Guard> {
    pub(crate) config: &'a Config,
    /// Of each home: who lives there, and our id.
    pub(crate) places: &'a [P],
    pub(crate) store: &'a mut Store,
    pub(crate) tokens: &'a TokenServer,
    pub(crate) guard: &'a mut G,
    pub(crate) rng: &'a mut Rng,
    pub(crate) counters: &'a mut Tally,
    pub(crate) scratch: &'a mut Scratch,
    /// Stored announces are told to our owner.
    pub(crate) tells_announces: bool,
}

/// A query's sender and how to answer it.
#[derive(Clone, Copy)]
pub(crate) struct Asker<'a> {
    /// The socket that it came to.
    pub(crate) socket: u8,
    pub(crate) from: SocketAddr,
    pub(crate) tid: &'a [u8],
    /// Length of its datagram.
    pub(crate) len: usize,
}

impl<P: AsRef<FamilyTable>, G: Budgets> Responder<'_, P, G> {
    /// Whether `token` is one of ours for this asker and target; whoever sends others is told, for a
    /// while.
    pub(super) fn accepts_token(
        &mut self,
        now: Time,
        asker: Asker<'_>,
        (target, token): (&Id, &[u8]),
        out: &mut Outbox,
    ) -> bool {
        let accepted = self.tokens.accepts(asker.from.ip(), target, token);
        if !accepted {
            self.counters.tokens_refused += 1;
            if self.guard.token_failed(now, asker.from) {
                self.refuse(now, asker, (ErrorCode::Protocol, b"bad token"), out);
            }
        }
        accepted
    }

    /// The longest reply that this asker gets, in bytes.
    pub(super) fn limit(&self, asker: Asker<'_>, large: bool) -> usize {
        let longest = if large { self.config.max_item_datagram } else { self.config.max_datagram };
        longest.min(asker.len.saturating_mul(self.config.max_amplification))
    }

    /// Collects the records of the `most` nodes nearest to `target` of each family that was asked for.
    pub(super) fn gather_nodes(&mut self, asker: Asker<'_>, (target, want): (&Id, Want), most: usize) {
        self.scratch.nodes.clear();
        self.scratch.nodes6.clear();
        for family in wanted_families(want, asker.from) {
            let records = match family {
                Family::V4 => &mut self.scratch.nodes,
                Family::V6 => &mut self.scratch.nodes6,
            };
            // The home that was asked knows best; a node of the other family answers for its first one.
            let table = self.places.get(usize::from(asker.socket)).map(AsRef::as_ref);
            let asked = table.filter(|table| table.family() == family);
            let mut others = self.places.iter().map(AsRef::as_ref);
            if let Some(table) = asked.or_else(|| others.find(|table| table.family() == family)) {
                table.put_closest(target, most.min(self.config.k), self.config, records);
            }
        }
    }

    pub(super) fn reply(&mut self, now: Time, asker: Asker<'_>, parts: Parts, out: &mut Outbox) {
        let Some(place) = self.places.get(usize::from(asker.socket)) else {
            return;
        };
        let limit = self.limit(asker, parts.item.large);
        let scratch = &mut *self.scratch;
        scratch.ip.clear();
        put_peer(&mut scratch.ip, asker.from);
        let wants_empty = parts.nodes && scratch.nodes.is_empty() && scratch.nodes6.is_empty();
        let mut response = Response::new(*place.as_ref().own());
        if parts.nodes {
            // An empty table says so in the family of the asker: the key is not optional in BEP 5.
            let v4 = wants_empty && family_of(asker.from) == Family::V4;
            let v6 = wants_empty && family_of(asker.from) == Family::V6;
            response.nodes = (v4 || !scratch.nodes.is_empty()).then_some(&scratch.nodes);
            response.nodes6 = (v6 || !scratch.nodes6.is_empty()).then_some(&scratch.nodes6);
        }
        if parts.values && !scratch.values.is_empty() {
            response.values = Strings::from_raw(&scratch.values).ok();
        }
        response.token = parts.token.as_ref().map(|token| &token[..]);
        response.bloom_seeds = parts.scrape.as_ref().map(|scrape| &scrape.seeds.as_bytes()[..]);
        response.bloom_peers = parts.scrape.as_ref().map(|scrape| &scrape.downloaders.as_bytes()[..]);
        if parts.samples {
            // BEP 51: present even when empty, which tells nodes that speak it from others.
            response.num = Some(self.store.infohashes() as i64);
            let (samples, interval) = self.store.samples(now, self.rng);
            (response.samples, response.interval) = (Some(samples), Some(i64::from(interval)));
        }
        if parts.item.value {
            response.value = Some(&scratch.value);
        }
        response.key = parts.item.signed.as_ref().map(|(key, _)| &key[..]);
        response.signature = parts.item.signed.as_ref().map(|(_, signature)| &signature[..]);
        response.seq = parts.item.seq;
        let mut message = Message {
            tid: asker.tid,
            version: (!parts.item.large).then_some(VERSION),
            ip: (!parts.item.large).then_some(&scratch.ip),
            read_only: false,
            body: Body::Response(response),
        };
        let (guard, counters) = (&mut *self.guard, &mut *self.counters);
        out.send(asker.socket, asker.from, Class::Reply, |bytes| {
            let start = bytes.len();
            let cut = encode_within(limit, family_of(asker.from), &mut message, bytes);
            match release(now, asker.from, (guard, limit), start, bytes) {
                Release::Sent => {
                    counters.replies_out += 1;
                    counters.replies_shortened += u32::from(cut || parts.shortened);
                }
                withheld => withheld.count(counters),
            }
        });
    }

    /// Sends an error: short and without version, so that it is smaller than any query.
    pub(super) fn refuse(
        &mut self,
        now: Time,
        asker: Asker<'_>,
        (code, text): (ErrorCode, &[u8]),
        out: &mut Outbox,
    ) {
        let body = Body::Error(ErrorBody { code: code.number(), text });
        let message = Message { tid: asker.tid, version: None, ip: None, read_only: false, body };
        // S4: nobody is made to receive more than twice what he sent by what is no query.
        let max = self.config.max_datagram.min(self.config.max_error_amplification.saturating_mul(asker.len));
        let (guard, counters) = (&mut *self.guard, &mut *self.counters);
        out.send(asker.socket, asker.from, Class::Reply, |bytes| {
            let start = bytes.len();
            message.encode(bytes);
            match release(now, asker.from, (guard, max), start, bytes) {
                Release::Sent => *counters.errors_out(code) += 1,
                withheld => withheld.count(counters),
            }
        });
    }
}

/// What a reply carries of the scratch buffers and beside them.
#[derive(Default)]
pub(super) struct Parts {
    pub(super) nodes: bool,
    pub(super) values: bool,
    pub(super) samples: bool,
    pub(super) token: Option<[u8; TokenServer::LEN]>,
    pub(super) scrape: Option<Scrape>,
    pub(super) item: ItemParts,
    /// Something was left out already.
    pub(super) shortened: bool,
}

/// What a reply says of an item beside its value.
#[derive(Clone, Copy, Default)]
pub(super) struct ItemParts {
    pub(super) value: bool,
    pub(super) signed: Option<([u8; 32], [u8; 64])>,
    pub(super) seq: Option<i64>,
    /// It leaves no room for anything else.
    pub(super) large: bool,
}

/// What became of a reply or an error that was written.
enum Release {
    Sent,
    /// It is longer than a datagram or than its query allows.
    TooLong,
    /// Its asker, or all askers together, had enough.
    Exhausted,
}

impl Release {
    /// Counts what was not sent.
    fn count(self, counters: &mut Tally) {
        match self {
            Self::Sent => {}
            Self::TooLong => counters.dropped_too_long += 1,
            Self::Exhausted => counters.dropped_rate_limit += 1,
        }
    }
}

/// Lets the message go that `bytes` end with, from `start`, or takes it away: it is too long, or the guard
/// says no.
fn release(
    now: Time,
    to: SocketAddr,
    (guard, max): (&mut impl Budgets, usize),
    start: usize,
    bytes: &mut Vec<u8>,
) -> Release {
    let len = bytes.len() - start;
    let release = match len <= max {
        false => Release::TooLong,
        true if guard.allow_reply(now, to, len) => return Release::Sent,
        true => Release::Exhausted,
    };
    bytes.truncate(start);
    release
}

/// The families of nodes that a query asks for: without `want`, that of its datagram (BEP 32).
fn wanted_families(want: Want, from: SocketAddr) -> impl Iterator<Item = Family> {
    let own = family_of(from);
    let (v4, v6) = match want {
        Want::UNSPECIFIED => (own == Family::V4, own == Family::V6),
        Want { n4, n6 } => (n4, n6),
    };
    [(Family::V4, v4), (Family::V6, v6)].into_iter().filter(|&(_, wanted)| wanted).map(|(family, _)| family)
}
