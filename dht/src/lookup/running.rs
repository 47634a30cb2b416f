//! [`Lookups`]: all lookups of a node. At most [`Config::max_lookups`] of the owner's run; further
//! ones wait for their turn. Those of the upkeep, a few at a time, never hold up the owner's.

use std::collections::VecDeque;

use krpc::{Id, Response};

use super::Lookup;
use super::env::{Env, Finished, Owner};
use super::kind::Kind;
use crate::purpose::{Asked, Purpose};
use crate::rpc::Taken;
use crate::{Config, Event, LookupId, LookupStats, Outcome, Time};

/// Lookups by key, which is the number of their [`LookupId`].
#[derive(Debug, Default)]
pub(crate) struct Lookups {
    /// There as long as a lookup runs or waits.
    busy: Option<Box<Busy>>,
    next_key: u64,
}

#[derive(Debug, Default)]
struct Busy {
    /// By key. Few, most often one, and walked for each answer.
    running: Vec<Lookup>,
    waiting: VecDeque<(LookupId, Kind, Id, bool)>,
    /// Cached minimum of the timeouts of those that run.
    timeout: Option<Time>,
}

impl Lookups {
    /// A name for a lookup or for a direct question.
    pub(crate) fn name(&mut self) -> LookupId {
        self.next_key += 1;
        LookupId(self.next_key)
    }

    /// Makes a lookup for our owner. It starts with [`Lookups::start_waiting`].
    pub(crate) fn queue(&mut self, kind: Kind, target: Id, trace: bool) -> LookupId {
        let id = self.name();
        self.busy.get_or_insert_default().waiting.push_back((id, kind, target, trace));
        id
    }

    /// The next lookup whose turn it is, made but not advanced; its key.
    pub(crate) fn start_waiting(&mut self, now: Time, env: &Env<'_>) -> Option<u64> {
        let busy = self.busy.as_mut()?;
        let owners = busy.running.iter().filter(|lookup| matches!(lookup.owner(), Owner::User { .. }));
        if owners.count() >= env.config.max_lookups {
            return None;
        }
        let (id, kind, target, trace) = busy.waiting.pop_front()?;
        let what = (Owner::User { id, trace }, kind, target);
        busy.add(Lookup::new(now, id.0, what, env));
        Some(id.0)
    }

    /// Starts a lookup of our own, made but not advanced; its key.
    pub(crate) fn start_upkeep(&mut self, now: Time, owner: Owner, target: Id, env: &mut Env<'_>) -> u64 {
        env.counters.lookups_of_upkeep += 1;
        let key = self.name().0;
        let what = (owner, Kind::FindNode, target);
        self.busy.get_or_insert_default().add(Lookup::new(now, key, what, env));
        key
    }

    /// Lets a lookup send what it may; what it was, if it is over.
    pub(crate) fn advance(&mut self, now: Time, key: u64, env: &mut Env<'_>) -> Option<Finished> {
        let busy = self.busy.as_mut()?;
        busy.timeout = None;
        let at = busy.position(key)?;
        let outcome = busy.running[at].advance(now, env)?;
        let lookup = busy.running.remove(at);
        self.rest();
        Some(lookup.finish(now, outcome, env))
    }

    /// Ends a lookup of our owner's.
    pub(crate) fn cancel(&mut self, now: Time, id: LookupId, env: &mut Env<'_>) {
        let Some(busy) = &mut self.busy else { return };
        busy.timeout = None;
        if let Some(at) = busy.position(id.0) {
            busy.running.remove(at).finish(now, Outcome::Cancelled, env);
        } else if let Some(at) = busy.waiting.iter().position(|waiting| waiting.0 == id) {
            busy.waiting.remove(at);
            let (outcome, stats) = (Outcome::Cancelled, LookupStats::default());
            env.out.events.push(Event::Done { lookup: id, outcome, stats, closest: Vec::new() });
        }
        self.rest();
    }

    /// Forgets a lookup of our own that has lost its point; whether there was one that nobody had answered.
    pub(crate) fn drop_upkeep(&mut self, owner: Owner) -> bool {
        let Some(busy) = &mut self.busy else { return false };
        busy.timeout = None;
        let mut was_hungry = false;
        busy.running.retain(|lookup| {
            let is_dropped = lookup.owner() == owner;
            was_hungry |= is_dropped && lookup.is_hungry();
            !is_dropped
        });
        self.rest();
        was_hungry
    }

    /// Takes an answer to one of their queries. Keys of those that can go on with it.
    ///
    /// The nodes that a router names are of use to every lookup that knows nobody else: it names many
    /// to who asks for the first time and few to who repeats himself.
    pub(crate) fn answered(
        &mut self,
        now: Time,
        (asked, taken): (Asked, &Taken<Purpose>),
        response: &Response<'_>,
        env: &mut Env<'_>,
    ) -> impl Iterator<Item = u64> + use<> {
        let mut fed = Vec::new();
        if taken.destination.id.is_none() {
            for lookup in self.busy.iter_mut().flat_map(|busy| &mut busy.running) {
                if lookup.key() != asked.lookup && lookup.overhears(response, env) {
                    fed.push(lookup.key());
                }
            }
        }
        if let Some(lookup) = self.get_mut(asked.lookup) {
            lookup.answered(now, (asked, taken), response, env);
        }
        std::iter::once(asked.lookup).chain(fed)
    }

    pub(crate) fn get_mut(&mut self, key: u64) -> Option<&mut Lookup> {
        let busy = self.busy.as_mut()?;
        busy.position(key).map(|at| &mut busy.running[at])
    }

    /// Keys of those that nobody has answered yet.
    pub(crate) fn hungry(&self) -> Vec<u64> {
        self.running().filter(|lookup| lookup.is_hungry()).map(Lookup::key).collect()
    }

    /// Keys of those that are due.
    pub(crate) fn due(&self, now: Time, config: &Config) -> Vec<u64> {
        self.running().filter(|lookup| lookup.timeout(config) <= now).map(Lookup::key).collect()
    }

    /// Whether a lookup of this kind is under way.
    pub(crate) fn has(&self, owner: Owner) -> bool {
        self.running().any(|lookup| lookup.owner() == owner)
    }

    /// Lookups that run and that wait, and the most candidates that one of those that run remembers.
    pub(crate) fn load(&self) -> (usize, usize, usize) {
        let most = self.running().map(Lookup::candidates).max().unwrap_or(0);
        let waiting = self.busy.as_ref().map_or(0, |busy| busy.waiting.len());
        (self.running().count(), waiting, most)
    }

    /// When [`Lookups::due`] has something to say.
    pub(crate) fn timeout(&mut self, config: &Config) -> Time {
        let Some(busy) = &mut self.busy else { return Time::NEVER };
        let running = &busy.running;
        *busy.timeout.get_or_insert_with(|| {
            running.iter().map(|lookup| lookup.timeout(config)).min().unwrap_or(Time::NEVER)
        })
    }

    fn running(&self) -> impl Iterator<Item = &Lookup> {
        self.busy.iter().flat_map(|busy| &busy.running)
    }

    /// Gives the memory back when nothing is left to do.
    fn rest(&mut self) {
        self.busy.take_if(|busy| busy.running.is_empty() && busy.waiting.is_empty());
    }
}

impl Busy {
    fn add(&mut self, lookup: Lookup) {
        // Who waited has an older key than what the upkeep began meanwhile.
        let at = self.running.partition_point(|other| other.key() < lookup.key());
        self.running.reserve_exact(1);
        self.running.insert(at, lookup);
    }

    fn position(&self, key: u64) -> Option<usize> {
        self.running.iter().position(|lookup| lookup.key() == key)
    }
}
