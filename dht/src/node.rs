//! [`Node`]: the deciding half of a DHT node. It owns the parts and hands each input to one of them;
//! what a message means is decided in the parts.

use std::net::SocketAddr;
use std::sync::Arc;

use krpc::{Body, Id, Message, Query, Response, Tolerated};

use crate::guard::{Admission, Guard};
use crate::home::{Home, HomeStats, Place, reaching};
use crate::lookup::{Env, Finished, Kind, Lookups, Owner, Upkeep};
use crate::maintain::{Chore, Maintain, Progress};
use crate::purpose::{Asked, Purpose};
use crate::responder::{Asker, Responder, Scratch};
use crate::rpc::{Destination, Expired, Rpc, Taken};
use crate::store::Store;
use crate::table::{Failure, Insertion};
use crate::token::TokenServer;
use crate::{Class, Command, Config, Counters, Event, LookupId, Outbox, Outcome, Question, Rng, Seeds, Time};

/// One DHT node at one or more addresses (BEP 5, 32, 45): a core without clock, socket or thread.
///
/// Feed it datagrams, commands and the passing of time; it appends what it wants sent and told to an
/// [`Outbox`]. Nothing that a stranger sends makes it fail or grow without bound.
pub struct Node {
    config: Arc<Config>,
    rng: Rng,
    places: Vec<Place>,
    rpc: Rpc<Purpose>,
    lookups: Lookups,
    maintain: Maintain,
    store: Store,
    tokens: TokenServer,
    guard: Guard,
    scratch: Scratch,
    counters: Counters,
    read_only: bool,
    timeout: Time,
}

impl Node {
    /// A node with a home per socket; a home's index in `homes` is the index of its socket. It wants
    /// [`Node::handle_timeout`] at once.
    pub fn new(config: Arc<Config>, homes: Vec<Home>, seeds: Seeds, now: Time) -> Self {
        let mut rng = Rng::new(seeds);
        let places: Vec<Place> = homes.into_iter().map(Place::new).collect();
        Self {
            rpc: Rpc::new(&config, seeds.derive("rpc")),
            lookups: Lookups::default(),
            maintain: Maintain::new(now, places.len(), &config, Rng::new(seeds.derive("maintain"))),
            store: Store::new(&config, &mut Rng::new(seeds.derive("store"))),
            tokens: TokenServer::new(&mut Rng::new(seeds.derive("tokens")), now, config.token_rotation),
            guard: Guard::new(&config, &mut rng),
            scratch: Scratch::default(),
            counters: Counters::default(),
            read_only: config.read_only,
            timeout: now,
            places,
            rng,
            config,
        }
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
        self.counters.datagrams_in += 1;
        self.counters.bytes_in += bytes.len() as u64;
        match self.guard.admit(from, bytes) {
            Admission::Admitted if usize::from(socket) < self.places.len() => {
                self.handle_message(now, (socket, from), bytes, out);
            }
            Admission::Admitted | Admission::BadAddress => self.counters.dropped_address += 1,
            Admission::BadLength => self.counters.dropped_length += 1,
            Admission::NotDictionary => self.counters.dropped_not_dictionary += 1,
        }
        self.settle(sent, out);
    }

    /// Does what its owner asks. A command that starts something returns its name, under which exactly
    /// one [`Event::Done`] or [`Event::Answered`] follows.
    pub fn handle_command(&mut self, now: Time, command: Command, out: &mut Outbox) -> Option<LookupId> {
        let sent = out.transmits.len();
        let name = match command {
            Command::FindNode { target, trace } => Some(self.start(now, Kind::FindNode, target, trace, out)),
            Command::GetPeers { infohash, announce, trace } => {
                Some(self.start(now, Kind::GetPeers { announce }, infohash, trace, out))
            }
            Command::Ask { to, question } => Some(self.ask_directly(now, to, &question, out)),
            Command::AddNode(addr) => {
                if let Some(home) = reaching(&self.places, addr) {
                    self.ping(now, home, (None, addr), out);
                }
                None
            }
            Command::Routers(routers) => {
                self.maintain.set_routers(now, routers, &self.places, &self.config);
                self.upkeep(now, out);
                None
            }
            Command::Cancel(id) => {
                let (lookups, mut env) = self.lookups_and_env(out);
                lookups.cancel(now, id, &mut env);
                self.start_waiting(now, out);
                None
            }
        };
        self.settle(sent, out);
        name
    }

    /// Does what is due at `now`; call it when [`Node::timeout`] has come.
    pub fn handle_timeout(&mut self, now: Time, out: &mut Outbox) {
        let sent = out.transmits.len();
        self.tokens.handle_timeout(now, &mut self.rng);
        if self.store.timeout() <= now {
            self.store.expire(now);
        }
        while let Some(expired) = self.rpc.expire(now) {
            self.handle_expired(now, expired, out);
        }
        for key in self.lookups.due(now, &self.config) {
            self.advance(now, key, out);
        }
        self.upkeep(now, out);
        self.settle(sent, out);
    }

    /// When [`Node::handle_timeout`] wants to be called, at the latest.
    pub fn timeout(&self) -> Time {
        self.timeout
    }

    /// Says by BEP 43 whether we answer queries, and acts accordingly.
    pub fn set_read_only(&mut self, read_only: bool) {
        self.read_only = read_only;
        self.rpc.set_read_only(read_only);
    }

    /// What this node did so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The state of each home's routing table, in the order of the homes.
    pub fn stats(&self, now: Time) -> Vec<HomeStats> {
        self.places.iter().map(|place| place.stats(now, &self.config)).collect()
    }

    /// What is worth saving of each home: our id there, and nodes for [`Home::saved`], trusty ones first.
    pub fn saved(&self, now: Time) -> Vec<(Id, Vec<(Id, SocketAddr)>)> {
        let of = |place: &Place| {
            let nodes = place.table.saved(now, &self.config);
            // Before the first bootstrap the list of the last run is better than nothing.
            (place.id(), if nodes.is_empty() { place.saved.clone() } else { nodes })
        };
        self.places.iter().map(of).collect()
    }

    /// The peers that others announced to us.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The known nodes of all homes nearest to `target`, at most `count` of each home.
    pub fn closest(&self, target: &Id, count: usize) -> Vec<(Id, SocketAddr)> {
        self.places.iter().flat_map(|place| place.table.closest(target, count, &self.config)).collect()
    }

    fn handle_message(
        &mut self,
        now: Time,
        (socket, from): (u8, SocketAddr),
        bytes: &[u8],
        out: &mut Outbox,
    ) {
        let mut tolerated = Tolerated::default();
        let decoded = Message::decode_counting(bytes, &mut tolerated);
        self.counters.tolerated_unsorted += tolerated.unsorted_keys;
        match decoded {
            Ok(message) => match message.body {
                Body::Query { id, query } => {
                    let asker = Asker { socket, from, tid: message.tid };
                    self.handle_query(now, asker, (id, message.read_only), &query, out);
                }
                Body::Response(_) | Body::Error(_) => {
                    self.handle_answer(now, (socket, from), &message, bytes, out);
                }
            },
            Err(failure) => {
                self.counters.dropped_undecodable += 1;
                if let (Some(tid), false) = (failure.answerable(), self.read_only) {
                    self.responder().refuse_malformed(now, Asker { socket, from, tid }, out);
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
        if self.read_only {
            self.counters.dropped_read_only += 1;
        } else {
            self.responder().answer(now, asker, query, out);
        }
        // BEP 43: who does not answer has no business in a table.
        if read_only {
            return;
        }
        let home = usize::from(asker.socket);
        let table = &mut self.places[home].table;
        if !table.heard(now, id, asker.from)
            && self.maintain.may_ping_newcomer(now, (id, asker.from), table, &self.config)
        {
            self.ping(now, home, (Some(id), asker.from), out);
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
            return;
        };
        match &message.body {
            Body::Response(response) => {
                let expected = taken.destination.id.is_none_or(|id| id == response.id);
                let own = self.places.iter().any(|place| place.id() == response.id);
                if expected && !own || matches!(taken.purpose, Purpose::Ask(_)) {
                    self.counters.replies_in += 1;
                    self.handle_response(now, (&taken, bytes), response, message.read_only, out);
                } else {
                    // Another node lives there now, or somebody lies.
                    self.counters.dropped_unsolicited += 1;
                    let evicted = self.places[usize::from(socket)].table.evict(taken.destination.to);
                    self.counters.nodes_removed += u64::from(evicted);
                    self.handle_refusal(now, (&taken, bytes), 0, out);
                }
            }
            Body::Error(error) => {
                self.counters.errors_in += 1;
                self.handle_refusal(now, (&taken, bytes), error.code, out);
            }
            Body::Query { .. } => {}
        }
    }

    fn handle_response(
        &mut self,
        now: Time,
        (taken, bytes): (&Taken<Purpose>, &[u8]),
        response: &Response<'_>,
        read_only: bool,
        out: &mut Outbox,
    ) {
        if !read_only {
            self.insert(now, taken, response.id, out);
        }
        match taken.purpose {
            Purpose::Lookup(asked) => {
                let (lookups, mut env) = self.lookups_and_env(out);
                lookups.answered(now, (asked, taken), response, &mut env);
                self.advance(now, asked.lookup, out);
            }
            Purpose::Announce(asked) => {
                self.announce_over(now, asked, Some(taken.destination.to), out);
            }
            Purpose::Ping => {}
            Purpose::Ask(lookup) => {
                let (from, answer) = (taken.destination.to, Some((bytes.to_vec(), taken.rtt)));
                out.events.push(Event::Answered { lookup, from, answer });
            }
        }
    }

    /// An error, or an answer by somebody else than we asked.
    fn handle_refusal(
        &mut self,
        now: Time,
        (taken, bytes): (&Taken<Purpose>, &[u8]),
        code: i64,
        out: &mut Outbox,
    ) {
        match taken.purpose {
            Purpose::Lookup(asked) => {
                let (lookups, mut env) = self.lookups_and_env(out);
                if let Some(lookup) = lookups.get_mut(asked.lookup) {
                    lookup.refused(now, asked, code, &mut env);
                }
                self.advance(now, asked.lookup, out);
            }
            Purpose::Announce(asked) => self.announce_over(now, asked, None, out),
            Purpose::Ping => {}
            Purpose::Ask(lookup) => {
                let (from, answer) = (taken.destination.to, Some((bytes.to_vec(), taken.rtt)));
                out.events.push(Event::Answered { lookup, from, answer });
            }
        }
    }

    fn handle_expired(&mut self, now: Time, expired: Expired<Purpose>, out: &mut Outbox) {
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
                self.blame(now, destination, out);
                match purpose {
                    Purpose::Lookup(asked) => {
                        let (lookups, mut env) = self.lookups_and_env(out);
                        if let Some(lookup) = lookups.get_mut(asked.lookup) {
                            lookup.silent(now, asked, &mut env);
                        }
                        self.advance(now, asked.lookup, out);
                    }
                    Purpose::Announce(asked) => self.announce_over(now, asked, None, out),
                    Purpose::Ping => {}
                    Purpose::Ask(lookup) => {
                        out.events.push(Event::Answered { lookup, from: destination.to, answer: None });
                    }
                }
            }
        }
    }

    /// A node answered: it gets a place in the table if there is one.
    fn insert(&mut self, now: Time, taken: &Taken<Purpose>, id: Id, out: &mut Outbox) {
        let Destination { socket, to, .. } = taken.destination;
        let home = usize::from(socket);
        if self.maintain.is_router(to) || !crate::addr::acceptable(to, self.config.allow_local) {
            return;
        }
        let table = &mut self.places[home].table;
        let before = table.len();
        match table.insert(now, id, to, taken.rtt, &self.config) {
            Insertion::Added => {
                self.counters.nodes_inserted += 1;
                self.counters.nodes_removed += (before + 1 - table.len()) as u64;
                let nodes = table.len();
                self.maintain.grew(now, home, nodes);
            }
            Insertion::Candidate { ping } => {
                self.counters.nodes_refused += 1;
                if let Some(node) = ping {
                    self.ping(now, home, (Some(node.id), node.addr), out);
                }
            }
            Insertion::Evicted => self.counters.nodes_removed += 1,
            Insertion::Refused => self.counters.nodes_refused += 1,
            Insertion::Known => {}
        }
    }

    /// A node did not answer. If somebody waits for its place it is asked once more (BEP 5).
    fn blame(&mut self, now: Time, destination: Destination, out: &mut Outbox) {
        let home = usize::from(destination.socket);
        match self.places[home].table.failed(destination.to, &self.config) {
            Failure::PingAgain => self.ping(now, home, (destination.id, destination.to), out),
            Failure::Removed => self.counters.nodes_removed += 1,
            Failure::Kept | Failure::Unknown => {}
        }
    }

    fn ping(&mut self, now: Time, home: usize, (id, to): (Option<Id>, SocketAddr), out: &mut Outbox) {
        let own = self.places[home].id();
        let destination = Destination { socket: home as u8, to, id };
        if !self.rpc.ask(now, destination, (own, Query::Ping), Purpose::Ping, out) {
            self.places[home].table.failed(to, &self.config);
        }
    }

    fn start(&mut self, now: Time, kind: Kind, target: Id, trace: bool, out: &mut Outbox) -> LookupId {
        let name = self.lookups.queue(kind, target, trace);
        self.start_waiting(now, out);
        name
    }

    fn start_waiting(&mut self, now: Time, out: &mut Outbox) {
        loop {
            let (lookups, env) = self.lookups_and_env(out);
            let Some(key) = lookups.start_waiting(now, &env) else {
                return;
            };
            self.counters.lookups_started += 1;
            // Cold: nobody to start from but the routers.
            for home in 0..self.places.len() {
                if self.places[home].table.len() < self.config.k && self.places[home].saved.is_empty() {
                    self.offer_routers(key, home, out);
                }
            }
            self.advance(now, key, out);
        }
    }

    fn offer_routers(&mut self, key: u64, home: usize, out: &mut Outbox) {
        let routers = self.maintain.routers(&self.places[home]);
        let (lookups, env) = self.lookups_and_env(out);
        if let Some(lookup) = lookups.get_mut(key) {
            for router in routers {
                lookup.offer(home, None, router, &env);
            }
        }
    }

    fn announce_over(&mut self, now: Time, asked: Asked, stored: Option<SocketAddr>, out: &mut Outbox) {
        if let Some(lookup) = self.lookups.get_mut(asked.lookup) {
            lookup.announce_over(asked, stored, out);
        }
        self.advance(now, asked.lookup, out);
    }

    /// Lets a lookup go on, and what follows from its end.
    fn advance(&mut self, now: Time, key: u64, out: &mut Outbox) {
        let (lookups, mut env) = self.lookups_and_env(out);
        let Some(Finished { owner, outcome, answered }) = lookups.advance(now, key, &mut env) else {
            return;
        };
        match owner {
            Owner::User { .. } => {
                let done = matches!(outcome, Outcome::Converged | Outcome::OutOfBudget);
                self.counters.lookups_done += u64::from(done);
                self.counters.lookups_failed += u64::from(!done);
                self.start_waiting(now, out);
            }
            Owner::Upkeep { home, kind: Upkeep::Own } => {
                let home = usize::from(home);
                let progress = self.maintain.looked_around(now, home, answered, &self.config);
                if progress != Progress::None {
                    self.places[home].saved = Vec::new();
                }
                if progress == Progress::Bootstrapped {
                    let nodes = self.places.iter().map(|place| place.table.len()).sum();
                    out.events.push(Event::Bootstrapped { nodes });
                }
            }
            Owner::Upkeep { kind: Upkeep::Refresh, .. } => {}
        }
    }

    fn upkeep(&mut self, now: Time, out: &mut Outbox) {
        while let Some(chore) = self.maintain.next_chore(now, &mut self.places, &self.config) {
            match chore {
                Chore::Bootstrap { home, with_routers } => self.bootstrap(now, home, with_routers, out),
                Chore::Refresh { home, target } => {
                    let owner = Owner::Upkeep { home: home as u8, kind: Upkeep::Refresh };
                    let (lookups, env) = self.lookups_and_env(out);
                    let key = lookups.start_upkeep(now, owner, target, &env);
                    self.advance(now, key, out);
                }
                Chore::Ping { home, node: (id, addr) } => self.ping(now, home, (Some(id), addr), out),
            }
        }
    }

    fn bootstrap(&mut self, now: Time, home: usize, with_routers: bool, out: &mut Outbox) {
        let owner = Owner::Upkeep { home: home as u8, kind: Upkeep::Own };
        let own = self.places[home].id();
        let (lookups, env) = self.lookups_and_env(out);
        if !lookups.has(owner) {
            lookups.start_upkeep(now, owner, own, &env);
        }
        // Whoever has no answer yet is glad of a router too, our owner's lookups among them.
        for key in self.lookups.hungry() {
            if with_routers {
                self.offer_routers(key, home, out);
            }
            self.advance(now, key, out);
        }
    }

    fn ask_directly(&mut self, now: Time, to: SocketAddr, question: &Question, out: &mut Outbox) -> LookupId {
        let name = self.lookups.name();
        let sent = reaching(&self.places, to).is_some_and(|home| {
            let own = self.places[home].id();
            let destination = Destination { socket: home as u8, to, id: None };
            let purpose = Purpose::Ask(name);
            let query = match *question {
                Question::Ping => Query::Ping,
                Question::FindNode(target, want) => Query::FindNode { target, want },
                Question::GetPeers(infohash, want) => {
                    Query::GetPeers { infohash, want, scrape: false, no_seed: false }
                }
                Question::Raw { ref method, ref arguments } => {
                    return self.rpc.ask_raw(now, destination, (method, arguments), purpose, out);
                }
            };
            self.rpc.ask(now, destination, (own, query), purpose, out)
        });
        if !sent {
            out.events.push(Event::Answered { lookup: name, from: to, answer: None });
        }
        name
    }

    fn responder(&mut self) -> Responder<'_> {
        Responder {
            config: &self.config,
            places: &self.places,
            store: &mut self.store,
            tokens: &self.tokens,
            guard: &mut self.guard,
            rng: &mut self.rng,
            counters: &mut self.counters,
            scratch: &mut self.scratch,
        }
    }

    fn lookups_and_env<'a>(&'a mut self, out: &'a mut Outbox) -> (&'a mut Lookups, Env<'a>) {
        let env = Env { config: &self.config, places: &self.places, rpc: &mut self.rpc, out };
        (&mut self.lookups, env)
    }

    /// Counts what was sent and computes when to wake up.
    fn settle(&mut self, sent: usize, out: &Outbox) {
        for transmit in &out.transmits[sent..] {
            self.counters.datagrams_out += 1;
            self.counters.bytes_out += u64::from(transmit.len);
            self.counters.queries_out += u64::from(transmit.class == Class::Query);
        }
        self.timeout = self
            .rpc
            .timeout()
            .min(self.lookups.timeout(&self.config))
            .min(self.maintain.timeout())
            .min(self.tokens.timeout())
            .min(self.store.timeout());
    }
}
