//! [`Search`]: the way of a lookup through one address family, from one home: candidates by distance,
//! which of them to ask next, and when the closest have answered.
//!
//! Width (PERFORMANCE.md "Lookups"): a search opens with [`Config::lookup_start_width`] queries, each
//! answer allows about [`Config::lookup_queries_per_answer`] further ones, and a node past its soft
//! deadline hands its query back. Who is far behind what is on its way waits (see [`super::lead`]). Among the k
//! closest a silent node is asked a second time at once; silent again, the search goes on without it,
//! though its late answer still counts.

use std::net::SocketAddr;

use arrayvec::ArrayVec;
use krpc::{Distance, Id};

use super::lead::Lead;
use crate::Config;
use crate::addr::{SubnetKey, source_key, subnet_key};
use crate::rpc::Patience;
use crate::secure_id::is_secure;

/// One family's part of a lookup.
#[derive(Debug)]
pub(crate) struct Search {
    target: Id,
    /// By distance, nearest first; those whose id is unknown (routers) before all.
    candidates: Vec<Candidate>,
    next_serial: u32,
    /// Queries that may be sent now.
    credit: usize,
    /// Queries before their soft deadline.
    in_flight: usize,
    answered: usize,
    /// Queries sent.
    sent: usize,
    pub(crate) phase: Phase,
}

/// How far a search is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Approaching the target.
    Approaching,
    /// The closest have answered and are being told.
    Announcing,
    /// Over.
    Done,
}

/// A node on the way.
#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) serial: u32,
    /// `None` for a router until it has answered.
    pub(crate) id: Option<Id>,
    pub(crate) addr: SocketAddr,
    /// Referrals between the start and this node.
    pub(crate) depth: u16,
    pub(crate) token: Option<Box<[u8]>>,
    /// The sequence number of the item that it has (BEP 44).
    pub(crate) held: Option<i64>,
    pub(crate) announce: AnnounceState,
    /// The id under which it answered when that was another one.
    pub(crate) answered_as: Option<Id>,
    distance: Distance,
    state: State,
    /// Queries sent.
    tries: u8,
    /// Queries that may still be answered.
    open: u8,
    /// Silent past its soft deadline, and near enough to be asked a second time.
    again: bool,
    /// Asked only when there is nobody else.
    is_reserve: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not asked yet.
    Fresh,
    /// Asked; before the soft deadline.
    Asked,
    /// Past the soft deadline of the last query.
    Slow,
    /// Answered.
    Answered,
    /// Gave no answer, an error, or one from another id.
    Failed,
}

/// What a trace tells of a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) addr: SocketAddr,
    pub(crate) id: Option<Id>,
    /// See [`Candidate::depth`].
    pub(crate) depth: u16,
}

impl Candidate {
    pub(crate) fn facts(&self) -> Facts {
        Facts { addr: self.addr, id: self.id, depth: self.depth }
    }

    /// Whether its id belongs to its address (BEP 42).
    fn is_secure(&self) -> bool {
        self.id.is_some_and(|id| is_secure(&id, self.addr.ip()))
    }
}

/// The `announce_peer` to a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AnnounceState {
    /// Not sent.
    No,
    /// Sent so many times, not acknowledged.
    Sent(u8),
    /// Acknowledged, refused or given up.
    Over,
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

impl Search {
    pub(crate) fn new(target: Id, config: &Config) -> Self {
        Self {
            target,
            candidates: Vec::new(),
            next_serial: 0,
            credit: config.lookup_start_width.max(1),
            in_flight: 0,
            answered: 0,
            sent: 0,
            phase: Phase::Approaching,
        }
    }

    /// Adds a candidate, unless it is there already. Beyond [`Config::lookup_candidates`] the farthest
    /// unasked one goes. Whether it was new and stays.
    pub(crate) fn offer(&mut self, id: Option<Id>, addr: SocketAddr, depth: u16, config: &Config) -> bool {
        // Routers come first: they are offered where nobody else is of use.
        let distance = id.map_or(ROUTERS_FIRST, |id| id.distance(&self.target));
        // Whoever claims the id of another stands behind it if only that one's belongs to its address
        // (BEP 42), or if it came first.
        let yields = |other: &Candidate| other.is_secure() || id.is_none_or(|id| !is_secure(&id, addr.ip()));
        let before = |c: &Candidate| c.distance < distance || c.distance == distance && yields(c);
        let at = self.candidates.partition_point(before);
        let same = |c: &&Candidate| c.addr == addr && (c.id == id || id.is_none() || c.id.is_none());
        if let Some(known) = self.candidates.iter_mut().find(|c| same(&&**c)) {
            known.is_reserve = false;
            return false;
        }
        let serial = self.next_serial;
        self.next_serial += 1;
        let (state, announce) = (State::Fresh, AnnounceState::No);
        let candidate = Candidate {
            serial,
            id,
            addr,
            depth,
            token: None,
            held: None,
            announce,
            answered_as: None,
            distance,
            state,
            tries: 0,
            open: 0,
            again: false,
            is_reserve: false,
        };
        self.candidates.insert(at, candidate);
        if self.candidates.iter().filter(|c| c.state == State::Fresh).count() > config.lookup_candidates {
            let farthest = self.candidates.iter().rposition(|c| c.state == State::Fresh);
            if let Some(dropped) = farthest.map(|farthest| self.candidates.remove(farthest)) {
                return dropped.serial != serial;
            }
        }
        true
    }

    /// Adds a candidate that is asked when there is nobody else to ask.
    pub(crate) fn offer_reserve(&mut self, id: Id, addr: SocketAddr, config: &Config) {
        let serial = self.next_serial;
        if self.offer(Some(id), addr, 0, config)
            && let Some(candidate) = self.by_serial(serial)
        {
            candidate.is_reserve = true;
        }
    }

    /// What to do now. Changes nothing: tell [`Search::asked`] about a query that was sent.
    pub(crate) fn step(&self, config: &Config) -> Step {
        match self.step_among(config, |candidate| !candidate.is_reserve) {
            Way::Ask(index) => Step::Ask(index),
            Way::Blocked => Step::Wait,
            // Nobody but the reserve is left to ask.
            Way::Wait | Way::Converged => match self.step_among(config, |_| true) {
                Way::Ask(index) => Step::Ask(index),
                Way::Blocked | Way::Wait => Step::Wait,
                Way::Converged => Step::Converged,
            },
        }
    }

    fn step_among(&self, config: &Config, may_be_asked: impl Fn(&Candidate) -> bool) -> Way {
        let mut closest = ArrayVec::<SubnetKey, MAX_K>::new();
        let mut pending = ArrayVec::<SubnetKey, MAX_K>::new();
        let mut waiting = false;
        let mut lead = Lead::new(self.nearest_answered());
        let k = config.k.clamp(1, MAX_K);
        // Who sits around the target may be a ring of liars: some others are heard before the end.
        let heard_enough = self.sent - self.in_flight >= config.lookup_min_queries;
        let asked_enough = self.sent >= config.lookup_min_queries;
        for (index, candidate) in self.candidates.iter().enumerate() {
            let settled = closest.len() == k;
            if settled && heard_enough {
                break;
            }
            let subnet = subnet_key(candidate.addr, config.allow_local);
            match candidate.state {
                State::Answered => {
                    if !settled && !closest.contains(&subnet) {
                        closest.push(subnet);
                    }
                    lead.answered();
                }
                State::Asked => {
                    waiting = true;
                    let _ = pending.try_push(subnet);
                    if candidate.id.is_some() {
                        lead.pending(&candidate.distance);
                    }
                }
                State::Slow if !candidate.again => {}
                State::Fresh if !may_be_asked(candidate) => {}
                State::Fresh | State::Slow if settled && asked_enough => {}
                State::Fresh | State::Slow => {
                    // One node of a network in the closest set (RELIABILITY.md D7): the others wait
                    // until the nearer one turns out to be silent.
                    if closest.contains(&subnet) || pending.contains(&subnet) || !self.may_ask(index, config)
                    {
                        continue;
                    }
                    let may_send = self.credit > 0
                        && self.in_flight < config.lookup_max_in_flight
                        && (!waiting
                            || settled
                            || candidate.id.is_none()
                            || lead.allows(&candidate.distance));
                    return if may_send { Way::Ask(index) } else { Way::Blocked };
                }
                State::Failed => {}
            }
        }
        // When nobody has answered, somebody still may.
        let late = self.answered == 0 && self.candidates.iter().any(|candidate| candidate.open > 0);
        if waiting || late { Way::Wait } else { Way::Converged }
    }

    /// Whether the diversity rules allow a query to the candidate at `index`: one answering node of an
    /// IP, and few queries to an IP that never answered, which may be a victim that liars point at.
    fn may_ask(&self, index: usize, config: &Config) -> bool {
        let candidate = &self.candidates[index];
        let source = source_key(candidate.addr, config.allow_local);
        let subnet = subnet_key(candidate.addr, config.allow_local);
        let (mut silent, mut answers, mut failures) = (0, 0, 0);
        let mut vouched = false;
        for other in self.candidates.iter().filter(|other| other.tries > 0) {
            if subnet_key(other.addr, config.allow_local) != subnet {
                continue;
            }
            match other.state {
                State::Answered => answers += 1,
                State::Slow | State::Failed => failures += 1,
                State::Fresh | State::Asked => {}
            }
            if source_key(other.addr, config.allow_local) == source {
                if other.state == State::Answered {
                    return false;
                }
                silent += u32::from(other.tries);
                // Liars that name an honest node under ids of their own do not hide it.
                vouched |= other.answered_as.is_some() && other.answered_as == candidate.id;
            }
        }
        let retry = usize::from(candidate.tries > 0);
        vouched
            || silent < config.lookup_queries_per_silent_ip
                && answers < PER_SUBNET
                && failures < PER_SUBNET + retry
    }

    /// The candidate at `index` was sent a query.
    pub(crate) fn asked(&mut self, index: usize) {
        let candidate = &mut self.candidates[index];
        candidate.state = State::Asked;
        candidate.again = false;
        candidate.tries = candidate.tries.saturating_add(1);
        candidate.open += 1;
        self.credit = self.credit.saturating_sub(1);
        self.in_flight += 1;
        self.sent += 1;
    }

    /// The soft deadline of a query passed. The candidate's address, if that made a difference.
    ///
    /// A node that may be among the closest is asked a second time, because it may live and the query
    /// may be lost; so is anyone while nobody has answered.
    pub(crate) fn slow(&mut self, serial: u32, config: &Config) -> Option<Facts> {
        let index = self.position(serial)?;
        let nearer = self.candidates[..index].iter();
        let rank =
            nearer.filter(|c| matches!(c.state, State::Fresh | State::Asked | State::Answered)).count();
        let near = rank < config.k + SPARE || self.answered == 0;
        let candidate = &mut self.candidates[index];
        if candidate.state != State::Asked {
            return None;
        }
        candidate.state = State::Slow;
        candidate.again = near && candidate.tries < 2;
        self.in_flight -= 1;
        self.credit += 1;
        Some(candidate.facts())
    }

    /// How long an answer of the candidate at `index` is worth waiting for.
    pub(crate) fn patience(&self, index: usize) -> Patience {
        if self.candidates[index].tries > 0 { Patience::AgainInLookup } else { Patience::InLookup }
    }

    /// A query was given up. The candidate, if it is silent for good now.
    pub(crate) fn silent(&mut self, serial: u32) -> Option<Facts> {
        let index = self.position(serial)?;
        let candidate = &mut self.candidates[index];
        candidate.open = candidate.open.saturating_sub(1);
        if candidate.open > 0 || !matches!(candidate.state, State::Asked | State::Slow) {
            return None;
        }
        if candidate.state == State::Asked {
            self.in_flight -= 1;
            self.credit += 1;
        }
        candidate.state = State::Failed;
        Some(candidate.facts())
    }

    /// The node answered with an error, or is not who it should be.
    pub(crate) fn refused(&mut self, serial: u32) -> Option<Facts> {
        let index = self.position(serial)?;
        let candidate = &mut self.candidates[index];
        candidate.open = candidate.open.saturating_sub(1);
        if !matches!(candidate.state, State::Asked | State::Slow) {
            return None;
        }
        if candidate.state == State::Asked {
            self.in_flight -= 1;
            self.credit += 1;
        }
        candidate.state = State::Failed;
        Some(candidate.facts())
    }

    /// The node answered, now or late, as `id`. The candidate, if this is its first answer.
    pub(crate) fn answered(
        &mut self,
        serial: u32,
        id: Id,
        (token, held): (Option<&[u8]>, Option<i64>),
        config: &Config,
    ) -> Option<Facts> {
        let mut index = self.position(serial)?;
        let leads = !self.candidates[..index].iter().any(|c| c.state == State::Answered);
        let candidate = &mut self.candidates[index];
        candidate.open = candidate.open.saturating_sub(1);
        if candidate.state == State::Answered {
            return None;
        }
        if candidate.state == State::Asked {
            self.in_flight -= 1;
        }
        candidate.state = State::Answered;
        candidate.held = held;
        candidate.token = token.filter(|token| token.len() <= MAX_TOKEN).map(Into::into);
        self.answered += 1;
        let is_start = candidate.depth == 0 && candidate.id.is_some();
        self.credit = (self.credit + allowed(leads, is_start, config)).min(config.lookup_max_in_flight);
        if candidate.id.is_none() {
            let mut candidate = self.candidates.remove(index);
            candidate.id = Some(id);
            candidate.distance = id.distance(&self.target);
            index = self.candidates.partition_point(|c| c.distance < candidate.distance);
            self.candidates.insert(index, candidate);
        }
        Some(self.candidates[index].facts())
    }

    /// The nearest candidates that answered, nearest first: at most `count`, one per network.
    pub(crate) fn closest(&self, count: usize, config: &Config) -> impl Iterator<Item = &Candidate> {
        let mut subnets = Vec::with_capacity(count);
        let answered = self.candidates.iter().filter(|c| c.state == State::Answered);
        answered
            .filter(move |candidate| {
                let subnet = subnet_key(candidate.addr, config.allow_local);
                let fresh = !subnets.contains(&subnet);
                subnets.push(subnet);
                fresh
            })
            .take(count)
    }

    pub(crate) fn candidate(&self, index: usize) -> &Candidate {
        &self.candidates[index]
    }

    pub(crate) fn by_serial(&mut self, serial: u32) -> Option<&mut Candidate> {
        self.candidates.iter_mut().find(|candidate| candidate.serial == serial)
    }

    pub(crate) fn candidates_mut(&mut self) -> impl Iterator<Item = &mut Candidate> {
        self.candidates.iter_mut()
    }

    /// Whether nobody of a whole first wave has answered: this family may have no way out.
    pub(crate) fn is_unheard(&self, config: &Config) -> bool {
        self.answered == 0 && self.in_flight == 0 && self.sent >= config.lookup_start_width
    }

    /// Candidates that it remembers: at most [`Config::lookup_candidates`] that were not asked, and those
    /// that were.
    pub(crate) fn len(&self) -> usize {
        self.candidates.len()
    }

    /// Whether there never was anybody to ask.
    pub(crate) fn is_empty(&self) -> bool {
        self.candidates.is_empty()
    }

    fn nearest_answered(&self) -> Option<&Distance> {
        self.candidates.iter().find(|c| c.state == State::Answered).map(|c| &c.distance)
    }

    fn position(&self, serial: u32) -> Option<usize> {
        self.candidates.iter().position(|candidate| candidate.serial == serial)
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

/// A silent node is asked again when fewer than k and so many others are nearer.
const SPARE: usize = 3;

/// The distance of nodes whose id is unknown.
const ROUTERS_FIRST: Distance = Distance::ZERO;

/// Largest k.
const MAX_K: usize = 64;

/// Answering nodes of one network in one search, each of which could refer us to a nearer neighbour for
/// ever; and silent ones, for which the search would wait one after the other.
const PER_SUBNET: usize = 4;

/// Longest token that is kept; a reply carries at most this much for it to fit our announce.
const MAX_TOKEN: usize = 128;

#[cfg(test)]
mod tests;
