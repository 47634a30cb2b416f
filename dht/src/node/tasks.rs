//! What a node does of itself or for its owner: lookups, direct questions, upkeep.

use std::net::{IpAddr, SocketAddr};

use krpc::compact::{self, Address, V4, V6};
use krpc::{Id, Query, Response, Want};

use super::Node;
use crate::addr::acceptable;
use crate::home::{Place, reaching};
use crate::lookup::{AnnounceEnd, Finished, Kind, Owner, SAVED_AT_ONCE, Upkeep};
use crate::maintain::{Chore, Progress};
use crate::purpose::{Asked, Purpose};
use crate::rpc::Destination;
use crate::secure_id::secure_id;
use crate::store::Family;
use crate::{Event, LookupId, Outbox, Outcome, Question, Time};

impl Node {
    pub(super) fn ping(
        &mut self,
        now: Time,
        home: usize,
        (id, to): (Option<Id>, SocketAddr),
        out: &mut Outbox,
    ) {
        let own = self.places[home].id();
        let destination = Destination { socket: home as u8, to, id };
        if !self.rpc.ask(now, destination, (own, Query::Ping), Purpose::Ping, out) {
            // Too much is waited for already, which is no fault of the node's.
            self.places[home].table.forgive(to);
        }
    }

    pub(super) fn start(
        &mut self,
        now: Time,
        kind: Kind,
        target: Id,
        trace: bool,
        out: &mut Outbox,
    ) -> LookupId {
        let name = self.lookups.queue(kind, target, trace);
        self.start_waiting(now, out);
        name
    }

    pub(super) fn start_waiting(&mut self, now: Time, out: &mut Outbox) {
        loop {
            let (lookups, env) = self.lookups_and_env(out);
            let Some(key) = lookups.start_waiting(now, &env) else {
                return;
            };
            self.counters.lookups_started += 1;
            // Cold: nobody to start from but the routers. Another home, which may never get any nodes, is
            // no reason to ask them (BEP 45).
            for home in 0..self.places.len() {
                let place = &self.places[home];
                let is_cold = place.table.len() < self.config.k && place.saved.is_empty();
                if is_cold && self.lookups.get_mut(key).is_some_and(|lookup| lookup.searches_from(home)) {
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

    pub(super) fn announce_over(&mut self, now: Time, asked: Asked, end: AnnounceEnd, out: &mut Outbox) {
        if let Some(lookup) = self.lookups.get_mut(asked.lookup) {
            lookup.announce_over(asked, end, out);
        }
        self.advance(now, asked.lookup, out);
    }

    /// Lets a lookup go on, and what follows from its end.
    pub(super) fn advance(&mut self, now: Time, key: u64, out: &mut Outbox) {
        let (lookups, mut env) = self.lookups_and_env(out);
        let Some(Finished { owner, outcome, answered }) = lookups.advance(now, key, &mut env) else {
            return;
        };
        match owner {
            Owner::User { .. } => {
                let done = matches!(outcome, Outcome::Converged | Outcome::OutOfBudget);
                self.counters.lookups_done += u32::from(done);
                self.counters.lookups_failed += u32::from(!done);
                self.start_waiting(now, out);
            }
            Owner::Upkeep { home, kind: Upkeep::Own } => {
                let home = usize::from(home);
                let progress = self.maintain.looked_around(now, home, answered, &self.config);
                if answered == 0 {
                    self.pass_over_saved(home);
                }
                if progress != Progress::None {
                    self.places[home].saved = Vec::new();
                }
                if progress == Progress::Bootstrapped {
                    let nodes = self.places.iter().map(|place| place.table.len()).sum();
                    out.events.push(Event::Bootstrapped { nodes });
                }
            }
            Owner::Upkeep { kind: Upkeep::Refresh | Upkeep::Reunion, .. } => {}
        }
    }

    /// Has the next lookup of our own id begin with other saved nodes than the one that nobody has answered.
    pub(super) fn pass_over_saved(&mut self, home: usize) {
        let saved = &mut self.places[home].saved;
        let tried = SAVED_AT_ONCE.min(saved.len());
        saved.rotate_left(tried);
    }

    pub(super) fn upkeep(&mut self, now: Time, out: &mut Outbox) {
        while let Some(chore) = self.maintain.next_chore(now, &mut self.places, &self.config) {
            match chore {
                Chore::Bootstrap { home, with_routers } => self.bootstrap(now, home, with_routers, out),
                Chore::Refresh { home, target } => {
                    let owner = Owner::Upkeep { home: home as u8, kind: Upkeep::Refresh };
                    let (lookups, mut env) = self.lookups_and_env(out);
                    let key = lookups.start_upkeep(now, owner, target, &mut env);
                    self.advance(now, key, out);
                }
                Chore::Spread { home, node, target } => self.ask_for_gap(now, home, node, target, out),
                Chore::Ping { home, node: (id, addr) } => self.ping(now, home, (Some(id), addr), out),
                Chore::Seek { home, node: (id, addr) } => self.seek(now, home, (id, addr), out),
            }
        }
    }

    /// Asks a missing node whether it is back.
    fn seek(&mut self, now: Time, home: usize, (id, to): (Id, SocketAddr), out: &mut Outbox) {
        let destination = Destination { socket: home as u8, to, id: Some(id) };
        self.rpc.ask(now, destination, (self.places[home].id(), Query::Ping), Purpose::Missing, out);
    }

    /// A missing node is back: perhaps a whole part of the network is, which it knows and we do not.
    pub(super) fn reunite(&mut self, now: Time, home: usize, node: (Id, SocketAddr), out: &mut Outbox) {
        self.places[home].missing.rest(now, &self.config);
        let owner = Owner::Upkeep { home: home as u8, kind: Upkeep::Reunion };
        let own = self.places[home].id();
        let (lookups, mut env) = self.lookups_and_env(out);
        if lookups.has(owner) {
            return;
        }
        let key = lookups.start_upkeep(now, owner, own, &mut env);
        if let Some(lookup) = lookups.get_mut(key) {
            lookup.offer(home, Some(node.0), node.1, &env);
        }
        self.advance(now, key, out);
    }

    /// Takes an id that belongs to `ip` at a home. Its table is kept, under other buckets; a lookup of the old neighbourhood has
    /// lost its point, and all others go on under the new id.
    pub(super) fn rekey(&mut self, now: Time, home: usize, ip: IpAddr, out: &mut Outbox) {
        self.counters.own_ids_changed += 1;
        let id = secure_id(ip, &mut self.rng);
        self.places[home].table.rekey(now, id, &self.config);
        self.hurry();
        let mut drop = |kind| self.lookups.drop_upkeep(Owner::Upkeep { home: home as u8, kind });
        drop(Upkeep::Own);
        if drop(Upkeep::Reunion) {
            self.places[home].missing.resume(now, &self.config);
        }
        self.maintain.look_around(now, home, &self.config);
        self.upkeep(now, out);
    }

    /// Moves every home on that nobody has reached for long (BEP 43).
    pub(super) fn watch_reach(&mut self, now: Time) {
        for home in 0..self.places.len() {
            let Place { reach, table, .. } = &mut self.places[home];
            if reach.timeout() <= now {
                // A probe needs others to hear of us, which they do when we look around.
                if reach.handle_timeout(now, table.network_size(&self.config), &self.config) {
                    self.maintain.look_around(now, home, &self.config);
                }
                self.follow_reach(home);
            }
        }
    }

    /// Lets our queries say what has become of a home.
    pub(super) fn follow_reach(&mut self, home: usize) {
        self.rpc.set_read_only(home as u8, self.places[home].reach.is_read_only());
        self.hurry();
    }

    fn ask_for_gap(
        &mut self,
        now: Time,
        home: usize,
        (id, to): (Id, SocketAddr),
        target: Id,
        out: &mut Outbox,
    ) {
        let destination = Destination { socket: home as u8, to, id: Some(id) };
        let query = (self.places[home].id(), Query::FindNode { target, want: Want::UNSPECIFIED });
        self.rpc.ask(now, destination, query, Purpose::Spread, out);
    }

    /// Pings those of the nodes that an answer names who live where the table has nobody.
    pub(super) fn fill_gaps(&mut self, now: Time, home: usize, response: &Response<'_>, out: &mut Outbox) {
        fn addresses<A: Address>(raw: Option<&[u8]>) -> Vec<(Id, SocketAddr)> {
            let raw = raw.filter(|raw| compact::is_whole_nodes::<A>(raw)).unwrap_or_default();
            compact::nodes::<A>(raw).map(|node| (node.id, node.addr.to_socket())).collect()
        }
        let place = &self.places[home];
        let nodes = match place.family {
            Family::V4 => addresses::<V4>(response.nodes),
            Family::V6 => addresses::<V6>(response.nodes6),
        };
        let mut pinged = 0;
        for (id, addr) in nodes {
            let Place { table, local, .. } = &self.places[home];
            let may_ping = pinged < PINGS_PER_GAP
                && acceptable(addr, self.config.allow_local)
                && *local != addr
                && self.maintain.may_ping_for_gap(now, (id, addr), table, &self.config);
            if may_ping {
                self.counters.newcomers_pinged += 1;
                self.ping(now, home, (Some(id), addr), out);
                pinged += 1;
            }
        }
    }

    fn bootstrap(&mut self, now: Time, home: usize, with_routers: bool, out: &mut Outbox) {
        let owner = Owner::Upkeep { home: home as u8, kind: Upkeep::Own };
        let own = self.places[home].id();
        let (lookups, mut env) = self.lookups_and_env(out);
        if !lookups.has(owner) {
            lookups.start_upkeep(now, owner, own, &mut env);
        }
        // Whoever has no answer yet is glad of a router too, our owner's lookups among them.
        for key in self.lookups.hungry() {
            if with_routers {
                self.offer_routers(key, home, out);
            }
            self.advance(now, key, out);
        }
    }

    pub(super) fn ask_directly(
        &mut self,
        now: Time,
        to: SocketAddr,
        question: &Question,
        out: &mut Outbox,
    ) -> LookupId {
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
                Question::Scrape(infohash, want) => {
                    Query::GetPeers { infohash, want, scrape: true, no_seed: false }
                }
                Question::Sample(target, want) => Query::SampleInfohashes { target, want },
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
}

/// Nodes that are pinged of those that one answer names where the table has nobody.
const PINGS_PER_GAP: usize = 3;
