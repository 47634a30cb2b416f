//! [`Node`]: the deciding half of a DHT node. It owns the parts and hands each input to one of them;
//! what a message means is decided in the parts. Messages and expired queries are handed out in
//! `incoming`, what we do of ourselves in `tasks`.

#[cfg(feature = "sim")]
mod grown;
mod incoming;
mod lines;
mod shards;
mod tasks;
#[cfg(feature = "sim")]
mod warm;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use krpc::Id;

#[cfg(feature = "sim")]
pub use self::grown::Acquaintance;
use crate::addr::canonical;
use crate::counters::Tally;
use crate::guard::{Admission, Guard};
use crate::home::{Home, HomeRecord, HomeStats, Place, reaching};
use crate::lookup::{Env, Kind, Lookups, Remembered, Sampled};
use crate::maintain::Maintain;
use crate::purpose::Purpose;
use crate::responder::Responder;
use crate::rpc::Rpc;
use crate::shards::Deciding;
use crate::store::{Archive, Counts, Damaged, Store};
use crate::table::{BucketFill, KnownNode};
use crate::token::TokenServer;
use crate::{Class, Command, Config, Counters, LookupId, Outbox, ReadOnly, Rng, Seeds, Time};

/// One DHT node at one or more addresses (BEP 5, 32, 45): a core without clock, socket or thread.
///
/// Feed it datagrams, commands and the passing of time; it appends what it wants sent and told to an
/// [`Outbox`]. Nothing that a stranger sends makes it fail or grow without bound.
pub struct Node {
    config: Arc<Config>,
    rng: Rng,
    places: Box<[Place]>,
    rpc: Rpc<Purpose>,
    lookups: Lookups,
    sampled: Sampled,
    remembered: Remembered,
    maintain: Maintain,
    store: Store,
    tokens: TokenServer,
    guard: Guard,
    counters: Tally,
    /// What no longer fits them.
    counted: Option<Box<Counters>>,
    tells_announces: bool,
    /// Of a node that was split.
    deciding: Option<Box<Deciding>>,
    timeout: Time,
}

/// What a node has under way, for gauges and for proof that strangers cannot make it grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Queries that nobody has answered yet.
    pub in_flight: usize,
    /// Lookups that run, those of the upkeep included.
    pub lookups: usize,
    /// Lookups that wait for others to end.
    pub waiting: usize,
    /// The most nodes that one of them remembers in one address family.
    pub candidates: usize,
}

impl Node {
    /// A node with a home per socket; a home's index in `homes` is the index of its socket. It wants
    /// [`Node::handle_timeout`] at once.
    pub fn new(config: Arc<Config>, homes: Vec<Home>, seeds: Seeds, now: Time) -> Self {
        let config = config.lifted_once();
        let mut rng = Rng::new(seeds);
        let mut reach = Rng::new(seeds.derive("reach"));
        let place = |home| Place::new(now, home, &config, &mut reach);
        let places: Box<[Place]> = homes.into_iter().map(place).collect();
        let mut node = Self {
            rpc: Rpc::new(&config, seeds.derive("rpc")),
            lookups: Lookups::default(),
            sampled: Sampled::new(&mut rng),
            remembered: Remembered::new(&mut rng),
            maintain: Maintain::new(now, places.len(), &config, Rng::new(seeds.derive("maintain"))),
            store: Store::new(&config, &mut Rng::new(seeds.derive("store"))),
            tokens: TokenServer::new(&mut Rng::new(seeds.derive("tokens")), now, config.token_rotation),
            guard: Guard::new(&config, &mut rng),
            counters: Tally::default(),
            counted: None,
            tells_announces: false,
            deciding: None,
            timeout: now,
            places,
            rng,
            config,
        };
        (0..node.places.len()).for_each(|home| node.follow_reach(home));
        node
    }

    /// Takes a datagram that came to `socket`.
    pub fn handle_datagram(
        &mut self,
        now: Time,
        socket: u8,
        from: SocketAddr,
        bytes: &[u8],
        out: &mut Outbox,
    ) {
        let sent = out.transmits.len();
        self.notice_sleep(now, out);
        self.counters.datagrams_in += 1;
        self.counters.bytes_in += bytes.len() as u32;
        match self.guard.admit(from, bytes) {
            Admission::Admitted if usize::from(socket) < self.places.len() => {
                self.handle_message(now, (socket, from), bytes, out);
            }
            // What our owner has us ask may live anywhere (DECISIONS.md 1).
            Admission::BadAddress
                if usize::from(socket) < self.places.len() && self.rpc.is_waiting_for(from) =>
            {
                self.handle_message(now, (socket, from), bytes, out);
            }
            Admission::Admitted | Admission::BadAddress => self.counters.dropped_address += 1,
            Admission::BadLength => self.counters.dropped_length += 1,
            Admission::NotDictionary => self.counters.dropped_not_dictionary += 1,
        }
        self.settle(now, sent, out);
    }

    /// Does what its owner asks. A command that starts something returns its name, under which exactly
    /// one [`crate::Event::Done`] or [`crate::Event::Answered`] follows.
    pub fn handle_command(&mut self, now: Time, command: Command, out: &mut Outbox) -> Option<LookupId> {
        let sent = out.transmits.len();
        self.notice_sleep(now, out);
        self.touch();
        let name = match command {
            Command::Ask { to, question } => Some(self.ask_directly(now, canonical(to), &question, out)),
            Command::AddNode(addr) => {
                let addr = canonical(addr);
                if let Some(home) = reaching(&self.places, addr) {
                    self.ping(now, home, (None, addr), out);
                }
                None
            }
            Command::RemoveNode(addr) => {
                self.forget(canonical(addr));
                None
            }
            Command::Routers(routers) => {
                let routers: Vec<_> = routers.into_iter().map(canonical).collect();
                // Whoever had a place before we knew has none as a router (DECISIONS.md 13).
                routers.iter().for_each(|&router| self.forget(router));
                self.maintain.set_routers(now, routers, &self.places, &self.config);
                self.upkeep(now, out);
                None
            }
            Command::TellAnnounces(tells) => {
                self.tells_announces = tells;
                self.hurry();
                None
            }
            Command::Cancel(id) => {
                let (lookups, mut env) = self.lookups_and_env(out);
                lookups.cancel(now, id, &mut env);
                self.start_waiting(now, out);
                None
            }
            lookup => Kind::of(lookup).map(|(kind, target, trace)| self.start(now, kind, target, trace, out)),
        };
        self.settle(now, sent, out);
        name
    }

    /// Does what is due at `now`; call it when [`Node::timeout`] has come.
    pub fn handle_timeout(&mut self, now: Time, out: &mut Outbox) {
        let sent = out.transmits.len();
        self.notice_sleep(now, out);
        if self.tokens.handle_timeout(now, &mut self.rng) {
            self.hurry();
        }
        if let Some(deciding) = &mut self.deciding {
            deciding.handle_timeout(now, |lost| self.counters.count_lost(lost));
        }
        if self.store.timeout() <= now {
            self.counters.count_lost(self.store.expire(now));
        }
        self.watch_reach(now);
        while let Some(expired) = self.rpc.expire(now) {
            self.handle_expired(now, expired, out);
        }
        for key in self.lookups.due(now, &self.config) {
            self.advance(now, key, out);
        }
        self.upkeep(now, out);
        self.settle(now, sent, out);
    }

    /// Whether the network of `socket` works, as far as is known.
    pub fn is_online(&self, socket: u8) -> bool {
        self.places.get(usize::from(socket)).is_some_and(|place| !place.line.is_lost())
    }

    /// When [`Node::handle_timeout`] wants to be called, at the latest.
    pub fn timeout(&self) -> Time {
        self.timeout
    }

    /// Replaces [`Config::read_only`] at all homes (BEP 43). With [`ReadOnly::Auto`] they start as if they
    /// were new.
    pub fn set_read_only(&mut self, now: Time, setting: ReadOnly) {
        for home in 0..self.places.len() {
            self.places[home].reach.set(now, setting, &self.config);
            self.follow_reach(home);
        }
        self.timeout = self.timeout.min(self.reach_timeout());
    }

    /// What this node did so far.
    pub fn counters(&self) -> Counters {
        let mut counters = self.counted.as_deref().copied().unwrap_or_default();
        counters.add(&self.counters);
        counters
    }

    /// The state of each home's routing table, in the order of the homes.
    pub fn stats(&self, now: Time) -> Vec<HomeStats> {
        self.places.iter().map(|place| place.stats(now, &self.config)).collect()
    }

    /// Everybody in the routing tables, home by home, farthest bucket first.
    pub fn table(&self, now: Time) -> Vec<KnownNode> {
        let known = |(home, place): (usize, &Place)| place.table.known(now, home, &self.config);
        self.places.iter().enumerate().flat_map(known).collect()
    }

    /// The buckets of each home's routing table, farthest first, in the order of the homes.
    pub fn buckets(&self, now: Time) -> Vec<Vec<BucketFill>> {
        self.places.iter().map(|place| place.table.fill(now, &self.config)).collect()
    }

    /// What is worth keeping of each home until the next run, in the order of the homes.
    pub fn saved(&self, now: Time) -> Vec<HomeRecord> {
        self.places.iter().map(|place| place.record(now, &self.config)).collect()
    }

    /// What this node has under way.
    pub fn load(&self) -> Load {
        let (lookups, waiting, candidates) = self.lookups.load();
        Load { in_flight: self.rpc.in_flight(), lookups, waiting, candidates }
    }

    /// Takes back what others stored in an earlier run that ended `away` ago, before any input; see
    /// [`Store::restore`].
    ///
    /// # Errors
    /// [`Damaged`].
    pub fn restore(&mut self, now: Time, archive: &Archive, away: Duration) -> Result<Counts, Damaged> {
        match &self.deciding {
            None => self.store.restore(now, archive, away, self.config.allow_local),
            Some(deciding) => {
                let striped = &deciding.commons.store;
                striped.restore(&mut self.store, now, (archive, away), self.config.allow_local)
            }
        }
    }

    /// Lets a node that has had no input yet begin `now`, if it was made earlier: what passed meanwhile, since
    /// much was restored, was no sleep.
    pub fn begin(&mut self, now: Time) {
        self.timeout = self.timeout.max(now);
    }

    /// The peers that others announced to us; those of a node that was split are in [`Node::kept`] only.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The known nodes of all homes nearest to `target`, at most `count` of each home.
    pub fn closest(&self, target: &Id, count: usize) -> Vec<(Id, SocketAddr)> {
        self.places.iter().flat_map(|place| place.table.closest(target, count, &self.config)).collect()
    }

    /// Has a responder answer into `out`, whose scratch buffers it borrows.
    fn respond(&mut self, out: &mut Outbox, answer: impl FnOnce(&mut Responder<'_>, &mut Outbox)) {
        let mut scratch = out.scratch.take().unwrap_or_default();
        let mut responder = Responder {
            config: &self.config,
            places: &self.places,
            store: &mut self.store,
            tokens: &self.tokens,
            guard: &mut self.guard,
            rng: &mut self.rng,
            counters: &mut self.counters,
            scratch: &mut scratch,
            tells_announces: self.tells_announces,
        };
        answer(&mut responder, out);
        out.scratch = Some(scratch);
    }

    fn lookups_and_env<'a>(&'a mut self, out: &'a mut Outbox) -> (&'a mut Lookups, Env<'a>) {
        let Self { config, places, rpc, sampled, remembered, counters, .. } = self;
        let env = Env { config, places, rpc, sampled, remembered, counters, out };
        (&mut self.lookups, env)
    }

    fn reach_timeout(&self) -> Time {
        self.places.iter().map(|place| place.reach.timeout()).min().unwrap_or(Time::NEVER)
    }

    /// Counts what was sent and computes when to wake up.
    fn settle(&mut self, now: Time, sent: usize, out: &Outbox) {
        for transmit in &out.transmits[sent..] {
            self.counters.datagrams_out += 1;
            self.counters.bytes_out += u32::from(transmit.len);
            if transmit.class == Class::Query {
                self.counters.queries_out += 1;
                if let Some(place) = self.places.get_mut(usize::from(transmit.socket)) {
                    place.reach.asked(now, transmit.to, &self.config);
                }
            }
        }
        if self.counters.is_full() {
            self.counted.get_or_insert_default().add(&std::mem::take(&mut self.counters));
        }
        self.timeout = self
            .rpc
            .timeout()
            .min(self.lookups.timeout(&self.config))
            .min(self.maintain.timeout())
            .min(self.tokens.timeout())
            .min(self.store.timeout())
            .min(self.reach_timeout())
            // A deadline that has passed is due now; how long ago it was would look like a sleep.
            .max(now);
        self.publish(now);
    }
}
