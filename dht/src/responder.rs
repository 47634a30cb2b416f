//! [`Responder`]: strangers' queries in, replies out (BEP 5, 32, 33, 42, 44, 51). The only writer of replies;
//! lookups and the table's growth are no business of its.
//!
//! Nobody gets much for little: a reply is at most [`Config::max_datagram`](crate::Config::max_datagram) bytes, errors carry no
//! version and few words, and the guard has the last word on every reply (D2, D3).

mod fit;
mod items;
mod reply;

use std::net::SocketAddr;

use krpc::{ErrorCode, Id, Query, Want};

use self::fit::{ENVELOPE_BYTES, FILTERS_BYTES, NODES_BESIDE};
use self::reply::Parts;
use crate::guard::Budgets;
use crate::home::family_of;
use crate::store::{Announced, Family, Wanted};
use crate::table::FamilyTable;
use crate::{Event, Outbox, Time};

pub(crate) use self::reply::{Asker, Responder};

impl<P: AsRef<FamilyTable>, G: Budgets> Responder<'_, P, G> {
    /// Answers `query`, or leaves it unanswered: when we don't echo so long a transaction id, or when
    /// its sender had enough replies.
    pub(crate) fn answer(&mut self, now: Time, asker: Asker<'_>, query: &Query<'_>, out: &mut Outbox) {
        if asker.tid.len() > self.config.max_tid {
            self.counters.dropped_undecodable += 1;
            return;
        }
        if self.guard.is_exhausted(now, asker.from) {
            self.counters.dropped_rate_limit += 1;
            return;
        }
        self.count(query);
        match *query {
            Query::Ping => self.reply(now, asker, Parts::default(), out),
            Query::SampleInfohashes { target, want } => {
                self.gather_nodes(asker, (&target, want), NODES_BESIDE);
                self.reply(now, asker, Parts { nodes: true, samples: true, ..Parts::default() }, out);
            }
            Query::FindNode { target, want } | Query::Other { target: Some(target), want, .. } => {
                self.find_node(now, asker, (target, want), out);
            }
            Query::GetPeers { infohash, want, scrape, no_seed } => {
                self.get_peers(now, asker, (infohash, want), (scrape, no_seed), out);
            }
            Query::AnnouncePeer { infohash, port, implied_port, token, seed } => {
                self.announce_peer(now, asker, (infohash, token), (port, implied_port, seed), out);
            }
            Query::Get { target, seq, want } => self.get(now, asker, (target, seq, want), out),
            Query::Put { token, value, signed } => self.put(now, asker, (token, value, signed), out),
            _ => self.refuse(now, asker, (ErrorCode::MethodUnknown, b"unknown method"), out),
        }
    }

    /// Tells a sender that its query makes no sense (BEP 5, "Errors").
    pub(crate) fn refuse_malformed(&mut self, now: Time, asker: Asker<'_>, out: &mut Outbox) {
        if asker.tid.len() <= self.config.max_tid && !self.guard.is_exhausted(now, asker.from) {
            self.refuse(now, asker, (ErrorCode::Protocol, b"bad arguments"), out);
        }
    }

    fn find_node(&mut self, now: Time, asker: Asker<'_>, (target, want): (Id, Want), out: &mut Outbox) {
        self.gather_nodes(asker, (&target, want), self.config.k);
        self.reply(now, asker, Parts { nodes: true, ..Parts::default() }, out);
    }

    fn get_peers(
        &mut self,
        now: Time,
        asker: Asker<'_>,
        (infohash, want): (Id, Want),
        (scrape, no_seed): (bool, bool),
        out: &mut Outbox,
    ) {
        self.gather_nodes(asker, (&infohash, want), NODES_BESIDE);
        let ip = asker.from.ip();
        let mut room = self.limit(asker, false).saturating_sub(ENVELOPE_BYTES + asker.tid.len());
        let wants_filters = scrape && room >= FILTERS_BYTES && self.guard.allow_scrape(now);
        self.counters.scrapes_withheld += u32::from(scrape && !wants_filters);
        let scrape = if wants_filters { self.store.scrape(now, &infohash) } else { None };
        let token = self.tokens.issue(ip, &infohash);
        // BEP 5 lets a node that stores no more withhold its token.
        let token = self.store.accepts_more(&infohash, ip).then_some(token);

        if scrape.is_some() {
            room -= FILTERS_BYTES;
        }
        // Whoever wants filters has the nodes of its own family at most; filters and both would not fit.
        let shortened = room < self.scratch.nodes.len() + self.scratch.nodes6.len();
        if shortened {
            match family_of(asker.from) {
                Family::V4 => self.scratch.nodes6.clear(),
                Family::V6 => self.scratch.nodes.clear(),
            }
        }
        room = room.saturating_sub(self.scratch.nodes.len() + self.scratch.nodes6.len());
        self.scratch.values.clear();
        // BEP 32: `want` is about nodes. Whoever lives in both families asks in both.
        let family = family_of(asker.from);
        let wanted = Wanted { family, max: self.config.max_values, max_bytes: room, no_seed };
        let told = self.store.values(now, &infohash, wanted, self.rng, &mut self.scratch.values);
        self.counters.get_peers_hits += u32::from(told > 0);
        self.counters.get_peers_misses += u32::from(told == 0);
        let parts = Parts { nodes: true, values: true, token, scrape, shortened, ..Parts::default() };
        self.reply(now, asker, parts, out);
    }

    fn announce_peer(
        &mut self,
        now: Time,
        asker: Asker<'_>,
        (infohash, token): (Id, &[u8]),
        (port, implied_port, seed): (i64, bool, bool),
        out: &mut Outbox,
    ) {
        let port = if implied_port { asker.from.port() } else { u16::try_from(port).unwrap_or(0) };
        if port == 0 {
            return self.refuse(now, asker, (ErrorCode::Protocol, b"bad port"), out);
        }
        let ip = asker.from.ip().to_canonical();
        if !self.accepts_token(now, asker, (&infohash, token), out) {
            return;
        }
        let peer = SocketAddr::new(ip, port);
        let announced = self.store.announce(now, &infohash, peer, seed);
        self.counters.count_lost(self.store.take_lost());
        match announced {
            Announced::Stored => self.counters.announces_stored += 1,
            Announced::Refreshed => self.counters.announces_refreshed += 1,
            Announced::Refused => self.counters.announces_refused += 1,
        }
        if self.tells_announces && announced != Announced::Refused {
            out.events.push(Event::Announced { infohash, peer, seed });
        }
        self.reply(now, asker, Parts::default(), out);
    }

    fn count(&mut self, query: &Query<'_>) {
        let counter = match query {
            Query::Ping => &mut self.counters.queries_ping,
            Query::FindNode { .. } => &mut self.counters.queries_find_node,
            Query::GetPeers { .. } => &mut self.counters.queries_get_peers,
            Query::AnnouncePeer { .. } => &mut self.counters.queries_announce_peer,
            Query::Get { .. } => &mut self.counters.queries_get,
            Query::Put { .. } => &mut self.counters.queries_put,
            Query::SampleInfohashes { .. } => &mut self.counters.queries_sample_infohashes,
            _ => &mut self.counters.queries_unknown,
        };
        *counter += 1;
    }
}
