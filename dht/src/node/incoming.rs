//! Where messages and expired queries go: a query to the responder, an answer to the table and to
//! whoever asked, silence to the table and to whoever waits.

use std::net::SocketAddr;

use krpc::{Body, Id, Message, Query, Response, Tolerated, compact};

use super::Node;
use crate::addr::{acceptable, canonical};
use crate::home::{Place, family_of};
use crate::lookup::AnnounceEnd;
use crate::purpose::Purpose;
use crate::responder::Asker;
use crate::rpc::{Destination, Expired, Taken};
use crate::secure_id::is_secure;
use crate::table::Insertion;
use crate::{Event, HopStep, Outbox, Time, Unsound};

impl Node {
    pub(super) fn handle_message(
        &mut self,
        now: Time,
        (socket, from): (u8, SocketAddr),
        bytes: &[u8],
        out: &mut Outbox,
    ) {
        let mut tolerated = Tolerated::default();
        let decoded = Message::decode_counting(bytes, &mut tolerated);
        self.counters.tolerated_unsorted += tolerated.unsorted_keys as u32;
        match decoded {
            Ok(message) => match message.body {
                Body::Query { id, query } => {
                    let asker = Asker { socket, from, tid: message.tid, len: bytes.len() };
                    self.handle_query(now, asker, (id, message.read_only), &query, out);
                }
                Body::Response(_) | Body::Error(_) => {
                    self.handle_answer(now, (socket, from), &message, bytes, out);
                }
            },
            Err(failure) => {
                self.counters.dropped_undecodable += 1;
                let read_only = self.places[usize::from(socket)].reach.is_read_only();
                if let (Some(tid), false) = (failure.answerable(), read_only) {
                    self.refuse_malformed(now, Asker { socket, from, tid, len: bytes.len() }, out);
                }
            }
        }
    }

    fn handle_query(
        &mut self,
        now: Time,
        asker: Asker<'_>,
        (id, read_only): (Id, bool),
        query: &Query<'_>,
        out: &mut Outbox,
    ) {
        let home = usize::from(asker.socket);
        self.reached(now, home, asker.from);
        if self.places[home].reach.is_read_only() {
            self.counters.dropped_read_only += 1;
        } else {
            self.answer(now, asker, query, out);
        }
        self.note_asker(now, home, (id, asker.from, read_only), out);
    }

    /// Somebody asked at a home, which may show that strangers reach us there.
    pub(super) fn reached(&mut self, now: Time, home: usize, from: SocketAddr) {
        if self.places[home].reach.heard(now, from, &self.config) {
            self.follow_reach(home);
        }
    }

    /// Somebody asked, and may be a node for the table.
    pub(super) fn note_asker(
        &mut self,
        now: Time,
        home: usize,
        (id, from, read_only): (Id, SocketAddr, bool),
        out: &mut Outbox,
    ) {
        // BEP 43: who does not answer has no business in a table.
        if read_only {
            return;
        }
        let table = &mut self.places[home].table;
        if !table.heard(now, id, from)
            && let Some(expected) = self.maintain.may_ping_newcomer(now, (id, from), table, &self.config)
        {
            self.counters.newcomers_pinged += 1;
            self.ping(now, home, (expected, from), out);
        }
    }

    fn handle_answer(
        &mut self,
        now: Time,
        (socket, from): (u8, SocketAddr),
        message: &Message<'_>,
        bytes: &[u8],
        out: &mut Outbox,
    ) {
        let Some(taken) = self.rpc.take(now, socket, from, message.tid) else {
            self.counters.dropped_unsolicited += 1;
            self.counters.replies_spoofed += u32::from(self.rpc.knows(message.tid));
            return;
        };
        self.touch();
        self.line_answered(now, usize::from(socket), (from, taken.rtt), out);
        match &message.body {
            Body::Response(response) => {
                let expected = taken.destination.id.is_none_or(|id| id == response.id);
                let own = self.places.iter().any(|place| place.id() == response.id);
                if expected && !own || matches!(taken.purpose, Purpose::Ask(_)) {
                    self.handle_response(now, (&taken, bytes), response, message.read_only, out);
                } else {
                    // Another node lives there now, or somebody lies.
                    self.counters.dropped_unsolicited += 1;
                    self.counters.ids_mismatched += 1;
                    let table = &mut self.places[usize::from(socket)].table;
                    let to = taken.destination.to;
                    if table.evict(to, &response.id) {
                        self.counters.nodes_removed += 1;
                        self.ping(now, usize::from(socket), (Some(response.id), to), out);
                    }
                    if let Purpose::Lookup(asked) = taken.purpose
                        && let Some(lookup) = self.lookups.get_mut(asked.lookup)
                    {
                        lookup.mistaken(asked, response.id);
                    }
                    self.handle_refusal(now, (&taken, bytes), None, out);
                    return;
                }
            }
            Body::Error(error) => {
                self.counters.errors_in += 1;
                self.handle_refusal(now, (&taken, bytes), Some(error.code), out);
            }
            Body::Query { .. } => return,
        }
        // BEP 42 has nodes that enforce ids send an error, so that its `ip` counts too.
        self.hear_our_address(now, (usize::from(socket), from), message.ip, out);
    }

    /// A node that we asked says what our address is. When enough agree on another one, and our id does
    /// not belong to it, we take one that does (BEP 42).
    fn hear_our_address(
        &mut self,
        now: Time,
        (home, voter): (usize, SocketAddr),
        ip: Option<&[u8]>,
        out: &mut Outbox,
    ) {
        let place = &mut self.places[home];
        let claim = ip.and_then(compact::peer).map(canonical);
        let Some(claim) = claim.filter(|&claim| family_of(claim) == place.family) else {
            return;
        };
        self.counters.address_votes += 1;
        let before = place.external.ip();
        let Some(addr) = place.external.vote(now, voter, claim, &self.config) else {
            return;
        };
        if !is_secure(&place.id(), addr.ip()) {
            self.rekey(now, home, addr.ip(), out);
        }
        if before.is_some() {
            // Other NATs and firewalls may stand there.
            self.places[home].reach.restart(now, &self.config);
            self.follow_reach(home);
        }
        let id = self.places[home].id();
        out.events.push(Event::ExternalAddress { home, addr, before, id });
    }

    fn handle_response(
        &mut self,
        now: Time,
        (taken, bytes): (&Taken<Purpose>, &[u8]),
        response: &Response<'_>,
        read_only: bool,
        out: &mut Outbox,
    ) {
        let is_as_known = if read_only {
            // BEP 43: it answers us and nobody else, so that naming it to others is of no use.
            self.forget(taken.destination.to);
            true
        } else {
            self.insert(now, taken, response.id, out)
        };
        if is_as_known || taken.destination.id.is_some() {
            self.counters.replies_in += 1;
        } else {
            // It is counted once, as wherever the node that was asked is another one by now. What it says is
            // heeded, since no certain one was meant.
            self.counters.dropped_unsolicited += 1;
            self.counters.ids_mismatched += 1;
        }
        match taken.purpose {
            Purpose::Lookup(asked) => {
                let (lookups, mut env) = self.lookups_and_env(out);
                for key in lookups.answered(now, (asked, taken), response, &mut env) {
                    self.advance(now, key, out);
                }
            }
            Purpose::Announce(asked) => {
                self.announce_over(now, asked, AnnounceEnd::Stored(taken.destination.to), out);
            }
            Purpose::Spread => self.fill_gaps(now, usize::from(taken.destination.socket), response, out),
            Purpose::Ping => {}
            // Whoever answers nobody else knows of no part of the network that we could come back to.
            Purpose::Missing if read_only => {}
            Purpose::Missing => {
                let Destination { socket, to, .. } = taken.destination;
                self.reunite(now, usize::from(socket), (response.id, to), out);
            }
            Purpose::Ask(lookup) => {
                let (from, answer) = (taken.destination.to, Some((bytes.to_vec(), taken.rtt)));
                out.events.push(Event::Answered { lookup, from, answer });
            }
        }
    }

    /// An error with its code, or an answer by somebody else than we asked.
    fn handle_refusal(
        &mut self,
        now: Time,
        (taken, bytes): (&Taken<Purpose>, &[u8]),
        code: Option<i64>,
        out: &mut Outbox,
    ) {
        match taken.purpose {
            Purpose::Lookup(asked) => {
                let (lookups, mut env) = self.lookups_and_env(out);
                if let Some(lookup) = lookups.get_mut(asked.lookup) {
                    let somebody_else = HopStep::Unsound(Unsound::SomebodyElse);
                    let step = code.map_or(somebody_else, |code| HopStep::Refused { code });
                    lookup.refused(now, asked, step, &mut env);
                }
                self.advance(now, asked.lookup, out);
            }
            Purpose::Announce(asked) => {
                let refused = |code| AnnounceEnd::Refused(taken.destination.to, code);
                let end = code.map_or(AnnounceEnd::Silent, refused);
                self.announce_over(now, asked, end, out);
            }
            // Who lives but answers no ping is no better than who is gone; who answers under another id has
            // lost its place, or has it under that one.
            Purpose::Ping if code.is_some() => self.blame(now, taken.destination, out),
            Purpose::Ping | Purpose::Spread | Purpose::Missing => {}
            Purpose::Ask(lookup) => {
                let (from, answer) = (taken.destination.to, Some((bytes.to_vec(), taken.rtt)));
                out.events.push(Event::Answered { lookup, from, answer });
            }
        }
    }

    pub(super) fn handle_expired(&mut self, now: Time, expired: Expired<Purpose>, out: &mut Outbox) {
        self.touch();
        match expired {
            Expired::Slow(_, Purpose::Lookup(asked)) => {
                let (lookups, mut env) = self.lookups_and_env(out);
                if let Some(lookup) = lookups.get_mut(asked.lookup) {
                    lookup.slow(now, asked, &mut env);
                }
                self.advance(now, asked.lookup, out);
            }
            Expired::Slow(_, Purpose::Announce(asked)) => {
                let (lookups, mut env) = self.lookups_and_env(out);
                if let Some(lookup) = lookups.get_mut(asked.lookup) {
                    lookup.announce_slow(now, asked, &mut env);
                }
                self.advance(now, asked.lookup, out);
            }
            Expired::Slow(..) => {}
            Expired::Silent(destination, purpose) => {
                self.counters.timeouts += 1;
                self.line_silent(now, destination, out);
                match purpose {
                    Purpose::Lookup(asked) => {
                        let (lookups, mut env) = self.lookups_and_env(out);
                        if let Some(lookup) = lookups.get_mut(asked.lookup) {
                            lookup.silent(now, asked, &mut env);
                        }
                        self.advance(now, asked.lookup, out);
                    }
                    Purpose::Announce(asked) => self.announce_over(now, asked, AnnounceEnd::Silent, out),
                    Purpose::Ping | Purpose::Spread | Purpose::Missing => {}
                    Purpose::Ask(lookup) => {
                        out.events.push(Event::Answered { lookup, from: destination.to, answer: None });
                    }
                }
            }
        }
    }

    /// Whoever is at `addr` leaves the table, and is not sought any more.
    pub(super) fn forget(&mut self, addr: SocketAddr) {
        for place in &mut self.places {
            place.missing.found(addr);
            self.counters.nodes_removed += u32::from(place.table.forget(addr));
        }
    }

    /// A node answered: it gets a place in the table if there is one. `false` if the table knew it by another id.
    fn insert(&mut self, now: Time, taken: &Taken<Purpose>, id: Id, out: &mut Outbox) -> bool {
        let Destination { socket, to, .. } = taken.destination;
        let home = usize::from(socket);
        if self.maintain.is_router(to) || !acceptable(to, self.config.allow_local) {
            return true;
        }
        let Place { table, missing, .. } = &mut self.places[home];
        missing.found(to);
        let before = table.len();
        match table.insert(now, id, to, taken.rtt, &self.config) {
            Insertion::Added => {
                self.counters.nodes_inserted += 1;
                self.counters.nodes_removed += (before + 1 - table.len()) as u32;
                let nodes = table.len();
                self.maintain.grew(now, home, nodes);
            }
            Insertion::Candidate { ping } => {
                self.counters.nodes_refused += 1;
                if let Some(node) = ping {
                    self.ping(now, home, (Some(node.id), node.addr), out);
                }
            }
            Insertion::Evicted => {
                self.counters.nodes_removed += 1;
                self.ping(now, home, (Some(id), to), out);
                return false;
            }
            Insertion::Refused => self.counters.nodes_refused += 1,
            Insertion::Known => {}
        }
        true
    }
}
