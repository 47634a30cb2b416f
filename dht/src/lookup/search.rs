//! [`Search`]: the way of a lookup through one address family, from one home: candidates by distance,
//! which of them to ask next, and when the closest have answered.
//!
//! Width (PERFORMANCE.md "Lookups"): a search opens with [`Config::lookup_start_width`] queries, each
//! answer allows about [`Config::lookup_queries_per_answer`] further ones, and a node past its soft
//! deadline hands its query back. Who is far behind what is on its way waits (see [`super::lead`]). Among the k
//! closest a silent node is asked a second time at once; silent again, the search goes on without it,
//! though its late answer still counts.

mod lured;

use std::net::SocketAddr;

use arrayvec::ArrayVec;
use krpc::{Distance, Id};

use super::candidates::{Candidate, Candidates, Facts, Offered, Place, State, Whom};
use super::lead::Lead;
use super::weights::SPARE;
use crate::Config;
use crate::addr::source_key;
use crate::rpc::Patience;

/// One family's part of a lookup.
#[derive(Debug)]
pub(crate) struct Search {
    target: Id,
    candidates: Candidates,
    /// Queries that may be sent now.
    credit: usize,
    /// Queries before their soft deadline.
    in_flight: usize,
    answered: usize,
    /// Queries sent.
    sent: usize,
    pub(crate) phase: Phase,
    /// It asks only whom another home's search has found; see [`Search::following`].
    pub(crate) follows: bool,
}

/// How far a search is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Another home of the family looks up (BEP 45).
    Waiting,
    /// Approaching the target.
    Approaching,
    /// The closest have answered and are being told.
    Announcing,
    /// Over.
    Done,
}

/// What a search wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Ask the candidate at this index.
    Ask(usize),
    /// Wait for answers.
    Wait,
    /// The k closest reachable nodes have answered, or there is nobody left to ask.
    Converged,
}

/// A [`Step`] that tells the two reasons to wait apart.
enum Way {
    Ask(usize),
    /// Somebody could be asked, but not now.
    Blocked,
    /// Nobody is left to ask, and answers are outstanding.
    Wait,
    Converged,
}

/// A walk through the candidates of a search, nearest first, for whom to ask. When somebody has been asked
/// it goes on from there: of those before nobody becomes one to ask by that, but for whom it has passed over.
pub(crate) struct Walk {
    /// Index of the next candidate to look at.
    at: usize,
    among: Among,
    /// Networks of the nearest that answered.
    closest: ArrayVec<u64, MAX_K>,
    /// Networks of those that have been asked.
    pending: ArrayVec<u64, MAX_K>,
    waiting: bool,
    /// Somebody was passed over who is not to be asked yet: of the reserve, or beside others of its network.
    passed_over: bool,
    lead: Lead,
}

/// Who may be asked on a [`Walk`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Among {
    /// All but the reserve.
    Usual,
    All,
}

impl Walk {
    fn new(nearest_answered: Option<&Distance>, among: Among) -> Self {
        let lead = Lead::new(nearest_answered);
        let (closest, pending) = (ArrayVec::new(), ArrayVec::new());
        Self { at: 0, among, closest, pending, waiting: false, passed_over: false, lead }
    }
}

impl Search {
    pub(crate) fn new(target: Id, config: &Config) -> Self {
        Self {
            target,
            candidates: Candidates::default(),
            credit: config.lookup_start_width.max(1),
            in_flight: 0,
            answered: 0,
            sent: 0,
            phase: Phase::Approaching,
            follows: false,
        }
    }

    /// The search of this home in the place of `other`'s, which got nowhere: it may ask everybody that
    /// one knew of.
    pub(crate) fn replacing(&self, other: &Self, config: &Config) -> Self {
        self.after(other, Whom::Everybody, config)
    }

    /// The search of this home for tokens of its own (BEP 45, "Multi addresses announce_peer"): it asks the
    /// nearest of those that answered `other`, and nobody that it is told of, so that it takes about k
    /// queries and meets nobody whom the lookup has not met.
    pub(crate) fn following(&self, other: &Self, config: &Config) -> Self {
        Self { follows: true, ..self.after(other, Whom::Answerers, config) }
    }

    /// Goes on with this search in the place of `other`'s, which got nowhere while answers came to this one
    /// after all: it may ask everybody that one heard of since.
    pub(crate) fn resume(&mut self, other: &Self, config: &Config) {
        self.candidates.join(&other.candidates, config.lookup_candidates);
        self.phase = Phase::Approaching;
    }

    /// Answers to what this home has asked before, if anything, count for nobody.
    fn after(&self, other: &Self, whom: Whom, config: &Config) -> Self {
        let candidates = other.candidates.anew(whom, self.candidates.next_serial());
        Self { candidates, ..Self::new(self.target, config) }
    }

    /// Adds a candidate, unless it is there already. Beyond [`Config::lookup_candidates`] an
    /// unasked one goes, see [`Candidates::offer`]. Whether it was new and stays.
    pub(crate) fn offer(&mut self, id: Option<Id>, addr: SocketAddr, depth: u16, config: &Config) -> bool {
        self.add(Offered { id, addr, depth, line: None, is_reserve: false }, config)
    }

    /// The same with one that a node named which answered with these `facts`.
    pub(crate) fn offer_named(&mut self, id: Id, addr: SocketAddr, facts: &Facts, config: &Config) -> bool {
        let (depth, line) = (facts.depth.saturating_add(1), Some(facts.line));
        let is_new = self.add(Offered { id: Some(id), addr, depth, line, is_reserve: false }, config);
        if !is_new
            && self.may_be_lured()
            && let Some(at) = self.candidates.place_of(id, addr, &self.target)
        {
            self.candidates.named_too(at, facts.line);
        }
        is_new
    }

    /// Adds a candidate that is asked when there is nobody else to ask.
    pub(crate) fn offer_reserve(&mut self, id: Id, addr: SocketAddr, config: &Config) {
        self.add(Offered { id: Some(id), addr, depth: 0, line: None, is_reserve: true }, config);
    }

    fn add(&mut self, offered: Offered, config: &Config) -> bool {
        self.candidates.offer(offered, &self.target, config.allow_local, config.lookup_candidates)
    }

    /// The beginning of a [`Walk`].
    pub(crate) fn walk(&self) -> Walk {
        Walk::new(self.nearest_answered(), Among::Usual)
    }

    /// What to do now, and after that: who was asked in between, which [`Search::asked`] has been told, is all
    /// that may have changed since the walk began.
    pub(crate) fn go_on(&self, walk: &mut Walk, config: &Config) -> Step {
        match self.step_among(walk, config) {
            // Nobody is left to ask but the reserve, and whom the silent ones of its network kept from it until one of
            // them was asked again on this walk.
            Way::Wait | Way::Converged if walk.passed_over => {
                *walk = Walk::new(self.nearest_answered(), Among::All);
                self.go_on(walk, config)
            }
            Way::Ask(index) => Step::Ask(index),
            Way::Blocked | Way::Wait => Step::Wait,
            Way::Converged => Step::Converged,
        }
    }

    fn step_among(&self, walk: &mut Walk, config: &Config) -> Way {
        let Walk { at, closest, pending, waiting, passed_over, lead, among } = walk;
        let k = config.k.clamp(1, MAX_K);
        // Who sits around the target may be a ring of liars: some others are heard before the end.
        let enough = if self.follows { 0 } else { config.lookup_min_queries };
        let heard_enough = self.sent - self.in_flight >= enough;
        let asked_enough = self.sent >= enough;
        let places = self.candidates.places();
        while let Some(place) = places.get(*at) {
            let settled = closest.len() == k;
            if settled && heard_enough {
                break;
            }
            let subnet = place.subnet;
            match place.state {
                State::Answered => {
                    if !settled && !closest.contains(&subnet) {
                        closest.push(subnet);
                    }
                    lead.answered();
                }
                State::Asked => {
                    *waiting = true;
                    let _ = pending.try_push(subnet);
                    if !self.is_router(place) {
                        lead.pending(&place.distance, place.tries);
                    }
                }
                State::Fresh if place.is_reserve && *among == Among::Usual => *passed_over = true,
                State::Fresh | State::Again if settled && asked_enough => {}
                State::Fresh | State::Again => {
                    // One node of a network in the closest set (D7): the others wait
                    // until the nearer one turns out to be silent.
                    let is_free = !closest.contains(&subnet) && !pending.contains(&subnet);
                    let may_ask = is_free && self.may_ask(*at, config);
                    *passed_over |= is_free && !may_ask && *among == Among::Usual;
                    if may_ask {
                        let may_send = self.credit > 0
                            && self.in_flight < config.lookup_max_in_flight
                            && (!self.follows || closest.len() + self.in_flight < k)
                            && (!*waiting
                                || settled
                                || self.is_router(place)
                                || lead.allows(&place.distance));
                        return if may_send { Way::Ask(*at) } else { Way::Blocked };
                    }
                }
                State::Slow | State::Failed => {}
            }
            *at += 1;
        }
        // When nobody has answered, somebody still may.
        let late = self.answered == 0 && self.may_be_answered();
        if *waiting || late { Way::Wait } else { Way::Converged }
    }

    fn is_router(&self, place: &Place) -> bool {
        place.distance == Distance::ZERO && self.candidates.of(place).id.is_none()
    }

    /// Whether the diversity rules allow a query to the candidate at `index`: one answering node of an
    /// IP, and few queries to an IP that never answered, which may be a victim that liars point at.
    fn may_ask(&self, index: usize, config: &Config) -> bool {
        let place = &self.candidates.places()[index];
        let candidate = self.candidates.of(place);
        let source = source_key(candidate.addr, config.allow_local);
        let (mut silent, mut answers, mut failures) = (0, 0, 0);
        let mut vouched = false;
        for near in self.candidates.tried(place.subnet) {
            match near.state {
                State::Answered => answers += 1,
                State::Slow | State::Again | State::Failed => failures += 1,
                State::Fresh | State::Asked => {}
            }
            let other = self.candidates.of(near);
            if source_key(other.addr, config.allow_local) == source {
                if near.has_answered() {
                    return false;
                }
                silent += u32::from(near.tries);
                // Liars that name an honest node under ids of their own do not hide it.
                vouched |= other.answered_as.is_some() && other.answered_as == candidate.id;
            }
        }
        let retry = usize::from(place.tries > 0);
        vouched
            || silent < config.lookup_queries_per_silent_ip
                && answers < config.lookup_nodes_per_subnet
                && failures < config.lookup_nodes_per_subnet.saturating_add(retry)
    }

    /// The candidate at `index` was sent a query.
    pub(crate) fn asked(&mut self, index: usize) {
        self.candidates.change(index, |place| {
            place.state = State::Asked;
            place.tries = place.tries.saturating_add(1);
            place.open += 1;
        });
        self.credit = self.credit.saturating_sub(1);
        self.in_flight += 1;
        self.sent += 1;
    }

    /// The soft deadline of a query passed. The candidate's address, if that made a difference.
    ///
    /// A node that may be among the closest is asked a second time, because it may live and the query
    /// may be lost; so is anyone while nobody has answered.
    pub(crate) fn slow(&mut self, serial: u32, config: &Config) -> Option<Facts> {
        let index = self.candidates.position(serial)?;
        let places = self.candidates.places();
        let place = places.get(index).filter(|place| place.state == State::Asked)?;
        let may_answer = |p: &&Place| matches!(p.state, State::Fresh | State::Asked | State::Answered);
        let near = places[..index].iter().filter(may_answer).count() < config.k + SPARE || self.answered == 0;
        let state = if near && place.tries < 2 { State::Again } else { State::Slow };
        self.candidates.set_state(index, state);
        self.in_flight -= 1;
        self.credit += 1;
        Some(self.candidates.facts(index))
    }

    /// How long an answer of the candidate at `index` is worth waiting for.
    pub(crate) fn patience(&self, index: usize) -> Patience {
        if self.candidates.places()[index].tries > 0 { Patience::AgainInLookup } else { Patience::InLookup }
    }

    /// A query was given up. The candidate, if it is silent for good now.
    pub(crate) fn silent(&mut self, serial: u32) -> Option<Facts> {
        let index = self.candidates.position(serial)?;
        if self.close_one(index) > 0 { None } else { self.fail(index) }
    }

    /// The node answered with an error, or is not who it should be.
    pub(crate) fn refused(&mut self, serial: u32) -> Option<Facts> {
        let index = self.candidates.position(serial)?;
        self.close_one(index);
        self.fail(index)
    }

    /// A query to the candidate at `index` can no longer be answered. How many still can.
    fn close_one(&mut self, index: usize) -> u8 {
        self.candidates.change(index, |place| place.open = place.open.saturating_sub(1));
        self.candidates.places()[index].open
    }

    /// Gives up the candidate at `index`, if something was expected of it.
    fn fail(&mut self, index: usize) -> Option<Facts> {
        match self.candidates.places()[index].state {
            State::Asked => {
                self.in_flight -= 1;
                self.credit += 1;
            }
            State::Slow | State::Again => {}
            State::Fresh | State::Answered | State::Failed => return None,
        }
        self.candidates.set_state(index, State::Failed);
        Some(self.candidates.facts(index))
    }

    /// The node answered, now or late, as `id`. The candidate, if this is its first answer.
    pub(crate) fn answered(
        &mut self,
        serial: u32,
        id: Id,
        (token, held): (Option<&[u8]>, Option<i64>),
        config: &Config,
    ) -> Option<Facts> {
        let mut index = self.candidates.position(serial)?;
        let leads = !self.candidates.places()[..index].iter().any(Place::has_answered);
        self.close_one(index);
        match self.candidates.places()[index].state {
            State::Answered => return None,
            State::Asked => self.in_flight -= 1,
            State::Fresh | State::Slow | State::Again | State::Failed => {}
        }
        self.candidates.set_state(index, State::Answered);
        let candidate = self.candidates.at_mut(index);
        candidate.held = held;
        candidate.token = token.filter(|token| token.len() <= MAX_TOKEN).map(Into::into);
        self.answered += 1;
        let is_start = candidate.depth == 0 && candidate.id.is_some();
        self.credit = (self.credit + allowed(leads, is_start, config)).min(config.lookup_max_in_flight);
        if candidate.id.is_none() {
            index = self.candidates.identify(index, id, &self.target);
        }
        Some(self.candidates.facts(index))
    }

    /// The nearest candidates that answered, nearest first: at most `count`, one per network.
    pub(crate) fn closest(&self, count: usize) -> impl Iterator<Item = &Candidate> {
        let mut subnets = Vec::with_capacity(count);
        let answered = self.candidates.places().iter().filter(|place| place.has_answered());
        let one_of_each = answered.filter(move |place| {
            let fresh = !subnets.contains(&place.subnet);
            subnets.push(place.subnet);
            fresh
        });
        one_of_each.take(count).map(|place| self.candidates.of(place))
    }

    pub(crate) fn candidate(&self, index: usize) -> &Candidate {
        self.candidates.at(index)
    }

    pub(crate) fn facts(&self, index: usize) -> Facts {
        self.candidates.facts(index)
    }

    pub(crate) fn by_serial(&mut self, serial: u32) -> Option<&mut Candidate> {
        self.candidates.position(serial).map(|index| self.candidates.at_mut(index))
    }

    pub(crate) fn candidates(&self) -> impl Iterator<Item = &Candidate> {
        self.candidates.iter()
    }

    /// Whether nobody of a whole first wave has answered: this family may have no way out.
    pub(crate) fn is_unheard(&self, config: &Config) -> bool {
        self.answered == 0 && self.in_flight == 0 && self.sent >= config.lookup_start_width
    }

    /// Whether it takes further candidates.
    pub(crate) fn is_open(&self) -> bool {
        self.phase == Phase::Approaching && !self.follows
    }

    /// Queries that a search which has not arrived, and hears of somebody, may need until it has announced.
    pub(crate) fn wants_still(&self, config: &Config) -> usize {
        let is_under_way = self.is_open() && !self.is_empty() && !self.is_unheard(config);
        let all = config.lookup_min_queries + 2 * config.announce_nodes.max(config.k);
        if is_under_way { all.saturating_sub(self.sent) } else { 0 }
    }

    /// Whether everybody asked is past the soft deadline or worse, so that it may be our line that is dead.
    pub(crate) fn is_deaf(&self) -> bool {
        self.answered == 0 && self.in_flight == 0 && self.sent > 0
    }

    /// Whether nobody has answered and somebody is past the soft deadline or worse.
    pub(crate) fn is_worried(&self) -> bool {
        self.answered == 0 && self.in_flight < self.sent
    }

    /// Whether somebody may answer a query still, however late.
    pub(crate) fn may_be_answered(&self) -> bool {
        self.candidates.places().iter().any(|place| place.open > 0)
    }

    /// Whether this home has sent nothing so far.
    pub(crate) fn is_untried(&self) -> bool {
        self.sent == 0
    }

    /// Whether anybody has answered.
    pub(crate) fn is_heard(&self) -> bool {
        self.answered > 0
    }

    /// Candidates that it remembers: at most [`Config::lookup_candidates`] that were not asked, and those
    /// that were.
    pub(crate) fn len(&self) -> usize {
        self.candidates.places().len()
    }

    /// Whether there never was anybody to ask.
    pub(crate) fn is_empty(&self) -> bool {
        self.candidates.places().is_empty()
    }

    fn nearest_answered(&self) -> Option<&Distance> {
        self.candidates.places().iter().find(|place| place.has_answered()).map(|place| &place.distance)
    }
}

/// Queries that an answer allows: fewer if it comes from behind the nearest one, because it is seldom of
/// use. That holds most of all for those a search starts with, who answer all at once: the nearest of
/// them shows the way.
fn allowed(leads: bool, is_start: bool, config: &Config) -> usize {
    let some = config.lookup_queries_per_answer;
    let queries = match (is_start, leads) {
        (true, true) => some + 1,
        (false, true) => some,
        (false, false) => some.saturating_sub(1),
        (true, false) => some.saturating_sub(2),
    };
    queries.max(1)
}

/// Largest k.
const MAX_K: usize = 64;

/// Longest token that is kept. All but the largest items can be put with one: see
/// [`crate::rpc::Rpc::is_sendable`].
const MAX_TOKEN: usize = 128;

#[cfg(test)]
mod tests;
