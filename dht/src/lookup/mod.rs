//! [`Lookup`]: the iterative search of BEP 5 for a target, in all our families at once.
//!
//! A lookup has one [`Search`] per home, of which one in each family searches at a time (BEP 45, see
//! [`turns`]). Nodes that a reply names in `nodes` and `nodes6` go to the
//! searches of their family (BEP 32), peers are told as they come. When the closest nodes of a family
//! have answered, they are announced to at once, with the token that each gave; a slow family does
//! not hold up the other. One struct serves all kinds of lookups; [`Kind`] has what differs.
//!
//! Everything in a reply is a stranger's word: addresses that cannot be, our own, port 0, more than
//! [`Config::lookup_nodes_per_reply`] nodes and half records are ignored (D7, D9).

mod candidates;
mod env;
mod findings;
mod kind;
mod lead;
mod lines;
mod named;
mod peers;
mod remembered;
mod running;
mod sampled;
mod search;
mod turns;
mod weights;

use std::net::SocketAddr;
use std::time::Duration;

use krpc::compact::{self, V4, V6};
use krpc::{Id, Response};

use self::candidates::{AnnounceState, Candidate, Facts};
pub(crate) use self::env::{AnnounceEnd, Env, Finished, Owner, Upkeep};
use self::findings::Findings;
pub(crate) use self::findings::{estimate as merge_filters, told_samples};
use self::kind::Interest;
pub(crate) use self::kind::Kind;
use self::named::{Named, named};
pub(crate) use self::remembered::Remembered;
pub(crate) use self::running::Lookups;
pub(crate) use self::sampled::Sampled;
use self::search::{Phase, Search, Step};
use self::turns::{First, from_last_run, offer_starts};
use self::weights::RETRY;
pub(crate) use self::weights::SAVED_AT_ONCE;
use crate::addr::acceptable;
use crate::home::{Place, family_of, want};
use crate::purpose::{Asked, Purpose};
use crate::rpc::{Destination, Taken};
use crate::store::Family;
use crate::{Config, Event, Hop, HopStep, LookupId, LookupStats, Outbox, Outcome, Time, Unsound};

/// One lookup.
#[derive(Debug)]
pub(crate) struct Lookup {
    key: u64,
    owner: Owner,
    kind: Kind,
    target: Id,
    /// By home; homes that take no part have a search that is over, and those whose turn may come one that
    /// waits.
    searches: Vec<Search>,
    findings: Findings,
    started: Time,
    stats: LookupStats,
    out_of_budget: bool,
    /// A query could not be sent because too many are in flight; tried again at this time.
    retry: Time,
}

impl Lookup {
    /// A lookup with the nodes that we know near the target as first candidates, and with those that an
    /// earlier lookup of it came to; nodes of an earlier run fill up what is missing. A reunion begins with
    /// nobody.
    pub(crate) fn new(now: Time, key: u64, (owner, kind, target): (Owner, Kind, Id), env: &Env<'_>) -> Self {
        let (config, places) = (env.config, env.places);
        let (first, is_reunion) =
            (First::of(owner, key, places), matches!(owner, Owner::Upkeep { kind: Upkeep::Reunion, .. }));
        let mut searches = Vec::with_capacity(places.len());
        for (index, place) in places.iter().enumerate() {
            let mut search = Search::new(target, config);
            search.phase = first.phase(owner, index);
            if is_reunion || search.phase != Phase::Approaching {
                searches.push(search);
                continue;
            }
            offer_starts(&mut search, &target, place, config);
            for (id, addr) in env.remembered.of(now, &target) {
                if family_of(addr) == place.family {
                    search.offer(Some(id), addr, 0, config);
                }
            }
            if place.table.len() < config.k {
                for (id, addr) in from_last_run(owner, target, place, config) {
                    search.offer(Some(id), addr, 0, config);
                }
            }
            searches.push(search);
        }
        Self {
            key,
            owner,
            kind,
            target,
            searches,
            findings: Findings::default(),
            started: now,
            stats: LookupStats::default(),
            out_of_budget: false,
            retry: Time::NEVER,
        }
    }

    /// Sends what may be sent. The outcome, once the lookup is over.
    pub(crate) fn advance(&mut self, now: Time, env: &mut Env<'_>) -> Option<Outcome> {
        self.retry = Time::NEVER;
        loop {
            for home in 0..self.searches.len() {
                if self.searches[home].phase == Phase::Approaching {
                    self.approach(now, home, env);
                }
                if self.searches[home].phase == Phase::Announcing {
                    self.announce(now, home, env);
                }
            }
            // Each home begins twice at most, and is back once at most when it has been heard, because it is not
            // deaf then, and once each time that another one is at its end without a query.
            if !self.pass_on(now, env) {
                return self.outcome(now, env.config);
            }
        }
    }

    /// Adds a node to ask, in the search of `home`: a router, or one named by an answer to another
    /// question.
    pub(crate) fn offer(&mut self, home: usize, id: Option<Id>, addr: SocketAddr, env: &Env<'_>) -> bool {
        let config = env.config;
        let is_ours = |place: &Place| place.local == addr || Some(place.id()) == id;
        if !acceptable(addr, config.allow_local) && id.is_some() || env.places.iter().any(is_ours) {
            return false;
        }
        let home = self.acting(home, env.places);
        let search = self.searches.get_mut(home).filter(|search| search.is_open());
        search.is_some_and(|search| search.offer(id, addr, 0, config))
    }

    /// Takes an answer to one of this lookup's queries.
    pub(crate) fn answered(
        &mut self,
        now: Time,
        (asked, taken): (Asked, &Taken<Purpose>),
        response: &Response<'_>,
        env: &mut Env<'_>,
    ) {
        let from = taken.destination.to;
        let (target, interest) = (self.target, self.kind.interest());
        let name = (LookupId(self.key), &target, interest);
        // Whoever cannot name nodes is not believed in the rest either (S27).
        let is_whole = response.nodes.is_none_or(compact::is_whole_nodes::<V4>)
            && response.nodes6.is_none_or(compact::is_whole_nodes::<V6>);
        if !is_whole {
            return self.refused(now, asked, HopStep::Unsound(Unsound::Malformed), env);
        }
        let Ok(brought) = self.findings.take(name, from, response, env.config, &mut env.out.events) else {
            return self.refused(now, asked, HopStep::Unsound(Unsound::Forged), env);
        };
        if let Some(interval) = brought.rest {
            env.sampled.note(from, now + interval, env.config);
        }
        if brought.peers > 0 && self.stats.first_peer.is_none() {
            self.stats.first_peer = Some(now.since(self.started));
        }
        let Some(search) = self.searches.get_mut(usize::from(asked.home)) else {
            return;
        };
        let first = search.answered(asked.serial, response.id, (response.token, brought.held), env.config);
        let Some(facts) = first else {
            return;
        };
        self.stats.answered += 1;
        self.stats.hops = self.stats.hops.max(facts.depth);
        let nodes = self.take_nodes(response, taken.destination.id.map(|_| &facts), env);
        let token = response.token.is_some();
        let step = HopStep::Answered { rtt: taken.rtt, nodes, peers: brought.peers, token };
        self.hop(now, first, step, env.out);
    }

    /// Takes the nodes that a router named to another lookup, unless this one has got beyond routers.
    /// Whether that helped.
    pub(crate) fn overhears(&mut self, response: &Response<'_>, env: &Env<'_>) -> bool {
        self.stats.hops == 0 && self.take_nodes(response, None, env) > 0
    }

    /// The node answered with an error, or in a way that is no answer: a `step` that says so.
    pub(crate) fn refused(&mut self, now: Time, asked: Asked, step: HopStep, env: &mut Env<'_>) {
        let node = self.searches.get_mut(usize::from(asked.home)).and_then(|s| s.refused(asked.serial));
        self.hop(now, node, step, env.out);
    }

    /// Somebody answered as `id` where another id was expected. It is told as a refusal too.
    pub(crate) fn mistaken(&mut self, asked: Asked, id: Id) {
        let search = self.searches.get_mut(usize::from(asked.home));
        if let Some(candidate) = search.and_then(|search| search.by_serial(asked.serial)) {
            candidate.answered_as = Some(id);
        }
    }

    /// A query is past its soft deadline.
    pub(crate) fn slow(&mut self, now: Time, asked: Asked, env: &mut Env<'_>) {
        let node =
            self.searches.get_mut(usize::from(asked.home)).and_then(|s| s.slow(asked.serial, env.config));
        self.hop(now, node, HopStep::Slow, env.out);
    }

    /// A query was given up.
    pub(crate) fn silent(&mut self, now: Time, asked: Asked, env: &mut Env<'_>) {
        let node = self.searches.get_mut(usize::from(asked.home)).and_then(|s| s.silent(asked.serial));
        self.hop(now, node, HopStep::Silent, env.out);
    }

    /// A node took our announce, refused it or is silent for good.
    pub(crate) fn announce_over(&mut self, asked: Asked, end: AnnounceEnd, out: &mut Outbox) {
        let search = self.searches.get_mut(usize::from(asked.home));
        let Some(candidate) = search.and_then(|search| search.by_serial(asked.serial)) else {
            return;
        };
        if candidate.announce == AnnounceState::Over {
            return;
        }
        let again = matches!(candidate.announce, AnnounceState::Sent(times) if times > 1);
        candidate.announce = AnnounceState::Over;
        let Owner::User { id: lookup, .. } = self.owner else { return };
        match (end, candidate.id) {
            (AnnounceEnd::Stored(node), Some(id)) => {
                let doubtful = self.kind.is_doubtful(candidate.held, again);
                out.events.push(Event::Stored { lookup, id, node, doubtful });
            }
            (AnnounceEnd::Refused(node, code), _) => {
                out.events.push(Event::Refused { lookup, node, code });
            }
            (AnnounceEnd::Stored(_) | AnnounceEnd::Silent, _) => {}
        }
    }

    /// An announce is past its soft deadline: it is sent once more, and then not waited for.
    pub(crate) fn announce_slow(&mut self, now: Time, asked: Asked, env: &mut Env<'_>) {
        let home = usize::from(asked.home);
        let again = self.searches.get_mut(home).and_then(|search| {
            let candidate = search.by_serial(asked.serial)?;
            match candidate.announce {
                AnnounceState::Sent(1) => Some(()),
                AnnounceState::Sent(_) => {
                    candidate.announce = AnnounceState::Over;
                    None
                }
                AnnounceState::No | AnnounceState::Over => None,
            }
        });
        if again.is_some() {
            self.send_announce(now, home, asked.serial, env);
        }
    }

    /// Tells the owner how it ended.
    pub(crate) fn finish(mut self, now: Time, outcome: Outcome, env: &mut Env<'_>) -> Finished {
        self.stats.elapsed = now.since(self.started);
        self.stats.peers = self.findings.peers() as u32;
        if let Owner::User { id: lookup, .. } = self.owner {
            if self.kind.interest() == Interest::Filters {
                let estimate = self.findings.estimate();
                env.out.events.push(Event::Scraped { lookup, estimate });
            }
            let closest = turns::closest(&self.searches, &self.target, env.config);
            if outcome == Outcome::Converged {
                env.remembered.note(now, self.target, &closest, env.config);
            }
            env.out.events.push(Event::Done { lookup, outcome, stats: self.stats, closest });
        }
        Finished { owner: self.owner, outcome, answered: self.stats.answered }
    }

    /// When something happens without an answer.
    pub(crate) fn timeout(&self, config: &Config) -> Time {
        let approaching = self.searches.iter().any(|search| search.phase == Phase::Approaching);
        let deadline = match (self.stats.answered, approaching) {
            (0, _) => self.started + config.lookup_max_silence,
            (_, true) => self.started + approach_time(config),
            // Announces in flight end by themselves; a deadline that has passed would wake us for ever.
            (_, false) => self.started + config.lookup_max_time,
        };
        deadline.min(self.started + config.lookup_max_time).min(self.retry)
    }

    /// Nodes that its largest search remembers.
    pub(crate) fn candidates(&self) -> usize {
        self.searches.iter().map(Search::len).max().unwrap_or(0)
    }

    pub(crate) fn key(&self) -> u64 {
        self.key
    }

    pub(crate) fn owner(&self) -> Owner {
        self.owner
    }

    /// Whether nobody has answered yet, so that any node is welcome.
    pub(crate) fn is_hungry(&self) -> bool {
        self.stats.answered == 0
    }

    fn approach(&mut self, now: Time, home: usize, env: &mut Env<'_>) {
        let Some(place) = env.places.get(home) else {
            return;
        };
        let late = now >= self.started + approach_time(env.config);
        // Who is late goes on to its end: a deadline that has passed would wake us for ever.
        if !late && self.holds_back(home, env) {
            if self.is_given_up(home, env) {
                self.searches[home].phase = Phase::Done;
            }
            return;
        }
        let (own, query) = (place.id(), self.kind.query(self.target, want(env.places)));
        let mut walk = self.searches[home].walk();
        loop {
            let rest = self.kept_for_announces(env.config);
            let spent = late || self.stats.queries + rest >= self.most_queries(env.config);
            let search = &mut self.searches[home];
            let index = match search.go_on(&mut walk, env.config) {
                // The lookup itself has arrived where somebody follows.
                Step::Ask(_) if spent => {
                    self.out_of_budget |= !search.follows;
                    search.phase = Phase::Announcing;
                    return;
                }
                Step::Wait if late => {
                    self.out_of_budget |= !search.follows;
                    search.phase = Phase::Announcing;
                    return;
                }
                Step::Ask(_) if self.stats.answered > 0 && search.is_unheard(env.config) => return,
                Step::Ask(nearest) => {
                    let index = search.whom_instead(nearest, env.config);
                    if index != nearest {
                        walk = search.walk();
                    }
                    index
                }
                Step::Wait => return,
                // A search that nobody was offered to waits for a bootstrap or for the other family.
                Step::Converged if search.is_empty() && !late => return,
                Step::Converged => {
                    search.phase = Phase::Announcing;
                    return;
                }
            };
            let &Candidate { serial, id, addr, .. } = search.candidate(index);
            let facts = search.facts(index);
            let destination = Destination { socket: home as u8, to: addr, id };
            let purpose = Purpose::Lookup(Asked { lookup: self.key, home: home as u8, serial });
            // BEP 51: whoever told samples lately is asked for nodes alone.
            let rests = self.kind == Kind::Sample && env.sampled.rests(now, addr);
            let query = if rests { Kind::FindNode.query(self.target, want(env.places)) } else { query };
            let asked = (purpose, self.searches[home].patience(index));
            if !env.rpc.ask_within(now, destination, (own, query), asked, env.out) {
                self.retry = now + RETRY;
                return;
            }
            self.searches[home].asked(index);
            self.stats.queries += 1;
            self.hop(now, Some(facts), HopStep::Asked, env.out);
        }
    }

    /// Announces to the closest nodes that gave a token; the search is over when all are through.
    fn announce(&mut self, now: Time, home: usize, env: &mut Env<'_>) {
        if self.kind.announces() {
            let closest = self.searches[home].closest(env.config.announce_nodes);
            let fresh = closest.filter(|c| c.announce == AnnounceState::No && c.token.is_some());
            let serials: Vec<u32> = fresh.map(|candidate| candidate.serial).collect();
            for serial in serials {
                self.send_announce(now, home, serial, env);
            }
        }
        let search = &mut self.searches[home];
        if !search.candidates().any(|c| matches!(c.announce, AnnounceState::Sent(_))) {
            search.phase = Phase::Done;
        }
    }

    fn send_announce(&mut self, now: Time, home: usize, serial: u32, env: &mut Env<'_>) {
        let (Some(candidate), Some(place)) = (self.searches[home].by_serial(serial), env.places.get(home))
        else {
            return;
        };
        let (held, again) = (candidate.held, matches!(candidate.announce, AnnounceState::Sent(_)));
        let query = |token| self.kind.announce(self.target, token, held, again);
        let Some(query) = candidate.token.as_deref().and_then(query) else {
            return;
        };
        let destination = Destination { socket: home as u8, to: candidate.addr, id: candidate.id };
        if !env.rpc.is_sendable(destination, (place.id(), query)) {
            env.counters.puts_too_long += 1;
            candidate.announce = AnnounceState::Over;
            return;
        }
        let purpose = Purpose::Announce(Asked { lookup: self.key, home: home as u8, serial });
        let sent = env.rpc.ask(now, destination, (place.id(), query), purpose, env.out);
        candidate.announce = match candidate.announce {
            _ if !sent => AnnounceState::Over,
            AnnounceState::Sent(times) => AnnounceState::Sent(times + 1),
            AnnounceState::No | AnnounceState::Over => AnnounceState::Sent(1),
        };
        self.stats.queries += u32::from(sent);
    }

    /// Gives the nodes of a reply to the searches of their family: that of a router, or of a node of which there
    /// are `facts`. How many were new.
    fn take_nodes(&mut self, response: &Response<'_>, facts: Option<&Facts>, env: &Env<'_>) -> u16 {
        // Routers answer with 16 (libtorrent's bootstrap node), and there are few of them.
        let most = env.config.lookup_nodes_per_reply.saturating_mul(if facts.is_none() { 2 } else { 1 });
        let v4 = response.nodes.map_or_else(Named::new, |raw| named::<V4>(raw, &self.target, most, env));
        let v6 = response.nodes6.map_or_else(Named::new, |raw| named::<V6>(raw, &self.target, most, env));
        let mut new = 0;
        for (index, place) in env.places.iter().enumerate() {
            let nodes = if place.family == Family::V4 { &v4 } else { &v6 };
            let search = &mut self.searches[index];
            if search.is_open() {
                let offered = nodes.iter().filter(|&&(_, id, addr)| match facts {
                    Some(facts) => search.offer_named(id, addr, facts, env.config),
                    None => search.offer(Some(id), addr, 1, env.config),
                });
                new += offered.count() as u16;
            }
        }
        new
    }

    /// The upkeep makes do with a third of the queries, so that whoever lures us into endless referrals gets
    /// few out of it (S24: 500 datagrams with those of our owner's lookup).
    fn most_queries(&self, config: &Config) -> u32 {
        match self.owner {
            Owner::User { .. } => config.lookup_max_queries,
            Owner::Upkeep { .. } => config.lookup_max_queries.div_ceil(3),
        }
    }

    fn outcome(&self, now: Time, config: &Config) -> Option<Outcome> {
        if self.kind.ends_at_first() && self.findings.has_item() {
            return Some(Outcome::Converged);
        }
        let passed = now.since(self.started);
        // A search is over as soon as another family is if nobody named a node for it, or if nobody
        // answers in it: a host may have addresses of a family and no way out. Whoever follows knows that
        // others had one, and says itself when it gives up.
        let anyone = self.stats.answered > 0;
        let is_lost = |search: &Search| !search.follows && (search.is_empty() || search.is_unheard(config));
        // Whoever waits and could go on does, once we are here.
        let over = |search: &Search| match search.phase {
            Phase::Done => true,
            Phase::Waiting => anyone,
            Phase::Approaching | Phase::Announcing => anyone && is_lost(search),
        };
        let all_over = self.searches.iter().all(over);
        if anyone && (all_over || passed >= config.lookup_max_time) {
            let is_short = |search: &Search| match search.phase {
                // Its line was lost on the way, and nobody could go on.
                Phase::Waiting => all_over && search.is_heard(),
                _ => !search.follows && !over(search),
            };
            let late = self.out_of_budget || self.searches.iter().any(is_short);
            return Some(if late { Outcome::OutOfBudget } else { Outcome::Converged });
        }
        let tried_all = self.searches.iter().all(|search| search.phase == Phase::Done);
        if !anyone && (tried_all || passed >= config.lookup_max_silence.min(config.lookup_max_time)) {
            return Some(if self.stats.queries > 0 { Outcome::NoAnswer } else { Outcome::NoNodes });
        }
        None
    }

    fn hop(&self, at: Time, node: Option<Facts>, step: HopStep, out: &mut Outbox) {
        if let (Some(Facts { addr, id, depth, .. }), Owner::User { id: lookup, trace: true }) =
            (node, self.owner)
        {
            out.events.push(Event::Hop { lookup, hop: Hop { at, node: addr, id, depth, step } });
        }
    }
}

/// How long a lookup asks new nodes: what is left of [`Config::lookup_max_time`] is for announcing.
fn approach_time(config: &Config) -> Duration {
    config.lookup_max_time.saturating_sub(config.query_timeout)
}
