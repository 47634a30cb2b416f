//! A node on several cores: what its deciding half does beside deciding (see [`crate::shards`]).

use std::sync::Arc;

use krpc::{Id, Query};

use super::Node;
use crate::guard::ShardGuard;
use crate::home::Place;
use crate::outbox::Outbox;
use crate::responder::{Asker, Responder};
use crate::shards::{Commons, Crossing, Deciding, Satellite, Snapshot, infohash_of};
use crate::store::Kept;
use crate::{Rng, Seeds, Time};

impl Node {
    /// Lets `count` satellites answer strangers beside this node, which is their deciding half from now
    /// on: give it what they have for it by [`Node::handle_crossing`]. Once in its life, and before any
    /// input; a second call returns nobody.
    pub fn split(&mut self, now: Time, count: usize) -> Vec<Satellite> {
        if count == 0 || self.deciding.is_some() {
            return Vec::new();
        }
        let mut seed = [0; 32];
        self.rng.fill(&mut seed);
        let seeds = Seeds(seed);
        let mut rng = Rng::new(seeds.derive("commons"));
        let first = Snapshot::new(&self.places, &self.tokens, self.tells_announces);
        let commons = Arc::new(Commons::new(&self.config, count + 1, first, &mut rng));
        // The budgets are in the commons now; the node's own guard judges datagrams only.
        self.deciding = Some(Deciding::new(now, Arc::clone(&commons), &mut rng).into());
        self.timeout = now;
        let rng = |n: usize| Rng::new(seeds.derive(&format!("satellite {n}")));
        (0..count).map(|n| Satellite::new(now, Arc::clone(&commons), rng(n))).collect()
    }

    /// Takes what a satellite hands over.
    pub fn handle_crossing(&mut self, now: Time, crossing: Crossing, out: &mut Outbox) {
        self.counters.crossings += 1;
        match crossing {
            Crossing::Datagram { socket, from, bytes, .. } => {
                self.handle_datagram(now, socket, from, &bytes, out);
            }
            Crossing::Asked { socket, from, id, read_only } if usize::from(socket) < self.places.len() => {
                let sent = out.transmits.len();
                self.notice_sleep(now, out);
                self.reached(now, usize::from(socket), from);
                self.note_asker(now, usize::from(socket), (id, from, read_only), out);
                self.settle(now, sent, out);
            }
            Crossing::Asked { .. } => {}
            Crossing::Announced { infohash, peer, seed } => {
                out.events.push(crate::Event::Announced { infohash, peer, seed });
            }
        }
    }

    /// Everything that others stored here, for saving it.
    pub fn kept(&self) -> Kept<'_> {
        Kept::new(&self.store, self.deciding.as_ref().map(|deciding| &deciding.commons.store))
    }

    pub(super) fn answer(&mut self, now: Time, asker: Asker<'_>, query: &Query<'_>, out: &mut Outbox) {
        if self.deciding.is_none() {
            return self.respond(out, |responder, out| responder.answer(now, asker, query, out));
        }
        let shelf = match query {
            Query::SampleInfohashes { .. } => Shelf::Samples,
            query => infohash_of(query).map_or(Shelf::Items, Shelf::Peers),
        };
        self.respond_shared(now, shelf, out, |responder, out| responder.answer(now, asker, query, out));
    }

    pub(super) fn refuse_malformed(&mut self, now: Time, asker: Asker<'_>, out: &mut Outbox) {
        if self.deciding.is_none() {
            return self.respond(out, |responder, out| responder.refuse_malformed(now, asker, out));
        }
        self.respond_shared(now, Shelf::Items, out, |responder, out| {
            responder.refuse_malformed(now, asker, out);
        });
    }

    /// Has a responder answer into `out` that shares its budgets and the peers with other shards.
    fn respond_shared(
        &mut self,
        now: Time,
        shelf: Shelf,
        out: &mut Outbox,
        answer: impl FnOnce(&mut Responder<'_, Place, ShardGuard>, &mut Outbox),
    ) {
        let Some(deciding) = self.deciding.as_deref_mut() else { return };
        let Deciding { commons, guard, samples, .. } = deciding;
        let mut stripe;
        let store = match shelf {
            Shelf::Items => &mut self.store,
            Shelf::Samples => {
                commons.store.tell_by(now, samples, &mut self.rng);
                samples
            }
            Shelf::Peers(infohash) => {
                stripe = commons.store.stripe(&infohash);
                &mut *stripe
            }
        };
        let mut scratch = out.scratch.take().unwrap_or_default();
        let mut responder = Responder {
            config: &self.config,
            places: &self.places,
            store,
            tokens: &self.tokens,
            guard,
            rng: &mut self.rng,
            counters: &mut self.counters,
            scratch: &mut scratch,
            tells_announces: self.tells_announces,
        };
        answer(&mut responder, out);
        out.scratch = Some(scratch);
    }

    /// Notes that the tables may have changed.
    pub(super) fn touch(&mut self) {
        if let Some(deciding) = &mut self.deciding {
            deciding.touch();
        }
    }

    /// Notes that satellites have to know of a change at once.
    pub(super) fn hurry(&mut self) {
        if let Some(deciding) = &mut self.deciding {
            deciding.hurry();
        }
    }

    /// Lets satellites know what has changed, if it is time, and wakes up for it later otherwise.
    pub(super) fn publish(&mut self, now: Time) {
        if let Some(deciding) = &mut self.deciding {
            deciding.publish(now, (&self.places, &self.tokens), self.tells_announces, &self.config);
            self.timeout = self.timeout.min(deciding.timeout().max(now));
        }
    }
}

/// What of the stored a query is about.
enum Shelf {
    /// Items of BEP 44, or nothing.
    Items,
    /// Samples of all infohashes.
    Samples,
    /// The peers of this infohash.
    Peers(Id),
}
