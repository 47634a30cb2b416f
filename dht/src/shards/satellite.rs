//! [`Satellite`]: a shard that answers strangers and decides nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use krpc::{Body, Id, Message, Query, Tolerated};

use super::answers::AnswerMeter;
use super::deciding::infohash_of;
use super::{Commons, Crossing, Snapshot};
use crate::addr::source_key;
use crate::counters::Tally;
use crate::guard::{Admission, Budgets as _, ShardGuard};
use crate::responder::{Asker, Responder};
use crate::store::Store;
use crate::{Counters, Event, Outbox, Rng, Time};

/// A shard that answers strangers from what the deciding one publishes: a core without clock, socket or
/// thread. Made by [`crate::Node::split`].
pub struct Satellite {
    commons: Arc<Commons>,
    snapshot: Arc<Snapshot>,
    /// The number of `snapshot`.
    version: u64,
    guard: ShardGuard,
    /// Always empty: what has no infohash touches no peers.
    nothing: Store,
    rng: Rng,
    tally: Tally,
    /// What was counted before `tally`.
    counted: Counters,
    answers: AnswerMeter,
    /// How many more askers the deciding half hears of until `told_until`.
    to_tell: u32,
    told_until: Time,
}

impl Satellite {
    pub(crate) fn new(now: Time, commons: Arc<Commons>, mut rng: Rng) -> Self {
        Self {
            snapshot: commons.snapshot(),
            version: commons.version(),
            guard: ShardGuard::new(Arc::clone(&commons.guard)),
            nothing: Store::new(&commons.config, &mut rng),
            answers: AnswerMeter::new(&mut rng),
            rng,
            tally: Tally::default(),
            counted: Counters::default(),
            to_tell: TOLD,
            told_until: now,
            commons,
        }
    }

    /// Takes a datagram that came to `socket`. Replies go to `out`; what the deciding half has to know is
    /// appended to `crossings`, at most two for each datagram.
    pub fn handle_datagram(
        &mut self,
        now: Time,
        (socket, from): (u8, SocketAddr),
        bytes: &[u8],
        (out, crossings): (&mut Outbox, &mut Vec<Crossing>),
    ) {
        self.refresh();
        let (sent, told) = (out.transmits.len(), out.events.len());
        match self.guard.admit(from, bytes) {
            Admission::Admitted if usize::from(socket) < self.snapshot.tables.len() => {
                self.handle_message(now, (socket, from), bytes, (out, crossings));
            }
            // It may be the answer of somebody whom our owner has us ask, who may live anywhere.
            Admission::BadAddress if self.may_tell(now) => {
                crossings.push(datagram((socket, from), bytes, false));
            }
            Admission::Admitted | Admission::BadAddress => {
                self.count_in(bytes);
                self.tally.dropped_address += 1;
            }
            Admission::BadLength => {
                self.count_in(bytes);
                self.tally.dropped_length += 1;
            }
            Admission::NotDictionary => {
                self.count_in(bytes);
                self.tally.dropped_not_dictionary += 1;
            }
        }
        for transmit in &out.transmits[sent..] {
            self.tally.datagrams_out += 1;
            self.tally.bytes_out += u32::from(transmit.len);
        }
        if self.tally.is_full() {
            self.counted.add(&std::mem::take(&mut self.tally));
        }
        for event in out.events.drain(told..) {
            if let Event::Announced { infohash, peer, seed } = event {
                crossings.push(Crossing::Announced { infohash, peer, seed });
            }
        }
    }

    /// Notes that the shell had to drop something that was to cross.
    pub fn lost(&mut self, crossing: &Crossing) {
        self.tally.crossings_dropped += 1;
        if let Crossing::Datagram { bytes, .. } = crossing {
            self.count_in(bytes);
        }
    }

    /// What this shard did. Datagrams that crossed are counted by the deciding half.
    pub fn counters(&self) -> Counters {
        let mut counters = self.counted;
        counters.add(&self.tally);
        counters
    }

    /// Answers from the newest snapshot: one look at a number that seldom changes. A token that another
    /// shard issued under a new secret can be here as soon as that shard's reply has left.
    fn refresh(&mut self) {
        let version = self.commons.version();
        if version != self.version {
            (self.snapshot, self.version) = (self.commons.snapshot(), version);
        }
    }

    fn handle_message(
        &mut self,
        now: Time,
        (socket, from): (u8, SocketAddr),
        bytes: &[u8],
        (out, crossings): (&mut Outbox, &mut Vec<Crossing>),
    ) {
        let mut tolerated = Tolerated::default();
        let decoded = Message::decode_counting(bytes, &mut tolerated);
        let read_only = self.snapshot.read_only[usize::from(socket)];
        match decoded {
            Ok(Message { body: Body::Query { id, query }, tid, read_only: is_read_only, .. }) => {
                if is_rare(&query) && !read_only {
                    if self.guard.is_exhausted(now, from) {
                        self.count_in(bytes);
                        self.tally.dropped_rate_limit += 1;
                    } else {
                        crossings.push(datagram((socket, from), bytes, false));
                    }
                    return;
                }
                self.count_in(bytes);
                self.tally.tolerated_unsorted += tolerated.unsorted_keys as u32;
                if read_only {
                    self.tally.dropped_read_only += 1;
                } else {
                    self.answer(now, Asker { socket, from, tid, len: bytes.len() }, &query, out);
                }
                if self.may_tell(now) {
                    crossings.push(Crossing::Asked { socket, from, id, read_only: is_read_only });
                }
            }
            Ok(Message { tid, .. }) if tid.len() != OWN_TID => {
                self.count_in(bytes);
                self.tally.dropped_unsolicited += 1;
            }
            Ok(_) if self.answers.allows(now, source_key(from, self.commons.config.allow_local)) => {
                crossings.push(datagram((socket, from), bytes, true));
            }
            Ok(_) => {
                self.count_in(bytes);
                self.tally.crossings_dropped += 1;
            }
            Err(failure) => {
                self.count_in(bytes);
                self.tally.dropped_undecodable += 1;
                if let (Some(tid), false) = (failure.answerable(), read_only) {
                    let asker = Asker { socket, from, tid, len: bytes.len() };
                    self.respond(None, out, |responder, out| responder.refuse_malformed(now, asker, out));
                }
            }
        }
    }

    fn answer(&mut self, now: Time, asker: Asker<'_>, query: &Query<'_>, out: &mut Outbox) {
        self.respond(infohash_of(query), out, |responder, out| responder.answer(now, asker, query, out));
    }

    /// Has a responder answer into `out`, over the stripe of `infohash` if there is one.
    fn respond(
        &mut self,
        infohash: Option<Id>,
        out: &mut Outbox,
        answer: impl FnOnce(&mut ShardResponder<'_>, &mut Outbox),
    ) {
        let mut stripe = infohash.map(|infohash| self.commons.store.stripe(&infohash));
        let mut scratch = out.scratch.take().unwrap_or_default();
        let mut responder = Responder {
            config: &self.commons.config,
            places: &self.snapshot.tables,
            store: stripe.as_deref_mut().unwrap_or(&mut self.nothing),
            tokens: &self.snapshot.tokens,
            guard: &mut self.guard,
            rng: &mut self.rng,
            counters: &mut self.tally,
            scratch: &mut scratch,
            tells_announces: self.snapshot.tells_announces,
        };
        answer(&mut responder, out);
        out.scratch = Some(scratch);
    }

    /// Whether the deciding half hears of one more asker. Under load it hears of a few of them, which is
    /// enough: it hears of all that its own shard serves, and could ping no more newcomers.
    fn may_tell(&mut self, now: Time) -> bool {
        if now >= self.told_until {
            (self.to_tell, self.told_until) = (TOLD, now + TOLD_EVERY);
        }
        let may = self.to_tell > 0;
        self.to_tell = self.to_tell.saturating_sub(1);
        may
    }

    fn count_in(&mut self, bytes: &[u8]) {
        self.tally.datagrams_in += 1;
        self.tally.bytes_in += bytes.len() as u32;
    }
}

/// A responder over a snapshot.
type ShardResponder<'a> = Responder<'a, crate::table::FamilyTable, ShardGuard>;

/// Whether a query is about what only the deciding half has: items (BEP 44) and samples (BEP 51).
fn is_rare(query: &Query<'_>) -> bool {
    matches!(query, Query::Get { .. } | Query::Put { .. } | Query::SampleInfohashes { .. })
}

fn datagram((socket, from): (u8, SocketAddr), bytes: &[u8], is_answer: bool) -> Crossing {
    Crossing::Datagram { socket, from, bytes: bytes.into(), is_answer }
}

/// Bytes of the transaction ids of our own queries ([`crate::rpc`]): who answers to another asked nobody.
const OWN_TID: usize = size_of::<u32>();
/// Askers that one satellite tells of in [`TOLD_EVERY`].
const TOLD: u32 = 32;
const TOLD_EVERY: Duration = Duration::from_millis(100);
