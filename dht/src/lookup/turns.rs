//! Whose turn it is, where a lookup has several homes of a family (BEP 45): "avoid querying the same targets
//! from multiple sockets at once".
//!
//! One home of each family searches, another one each time. When its line turns out to be dead, another one
//! goes on with everybody that it knew of. When it has arrived and told the closest nodes of a peer, the
//! others follow one by one: a token is good for the address that got it, so that each asks those nodes
//! for its own and announces itself. Anything else is found, or put, from one address as well as from all.
//!
//! So the limits of a lookup hold for all homes together. An announce from more than some 15 addresses would
//! go beyond [`Config::lookup_max_queries`]; those that are left have their turn another time.

use std::net::SocketAddr;

use krpc::Id;

use super::Lookup;
use super::env::{Env, Owner};
use super::kind::Kind;
use super::search::{Phase, Search};
use super::weights::SAVED_AT_ONCE;
use crate::addr::subnet_key;
use crate::home::{Place, family_of};
use crate::store::Family;
use crate::{Config, Time};

/// The home of each family that searches first in lookup `key`.
#[derive(Clone, Copy, Debug)]
pub(super) struct First([Option<usize>; 2]);

impl First {
    /// In a lookup for `owner`.
    pub(super) fn of(owner: Owner, key: u64, places: &[Place]) -> Self {
        match owner {
            Owner::User { .. } => Self(FAMILIES.map(|family| first(family, key, places))),
            Owner::Upkeep { home, .. } => Self([Some(usize::from(home)), None]),
        }
    }

    /// What the search of `home` begins with.
    pub(super) fn phase(self, owner: Owner, home: usize) -> Phase {
        match owner {
            _ if self.0.contains(&Some(home)) => Phase::Approaching,
            Owner::User { .. } => Phase::Waiting,
            Owner::Upkeep { .. } => Phase::Done,
        }
    }
}

impl Lookup {
    /// Lets other homes go on where one is at its end; whether one does.
    pub(super) fn pass_on(&mut self, now: Time, env: &Env<'_>) -> bool {
        if !self.searches.iter().any(|search| search.phase == Phase::Waiting) {
            return false;
        }
        let mut begun = false;
        for family in FAMILIES {
            let is_busy = |search: &Search| matches!(search.phase, Phase::Approaching | Phase::Announcing);
            match self.homes_of(family, env.places).find(|&home| is_busy(&self.searches[home])) {
                Some(home) => begun |= self.replace(home, env),
                None => begun |= self.follow(now, family, env),
            }
        }
        begun
    }

    /// Whether it is from `home` that this lookup searches.
    pub(crate) fn searches_from(&self, home: usize) -> bool {
        self.searches.get(home).is_some_and(Search::is_open)
    }

    /// The home that searches where `home` would if it had the turn: itself, or another of its family.
    pub(super) fn acting(&self, home: usize, places: &[Place]) -> usize {
        let is_approaching = |home: &usize| self.searches[*home].phase == Phase::Approaching;
        match (self.searches.get(home), places.get(home)) {
            (Some(search), Some(place)) if search.phase == Phase::Waiting => {
                self.homes_of(place.family, places).find(is_approaching).unwrap_or(home)
            }
            _ => home,
        }
    }

    /// Whether `home`, of whose queries some are past the soft deadline and none is answered, leaves it at
    /// those for now: should nobody answer at all, another home asks the same nodes, and none is asked too often.
    /// Who follows asks nobody but those that do answer.
    pub(super) fn holds_back(&self, home: usize, env: &Env<'_>) -> bool {
        let search = &self.searches[home];
        search.is_worried() && (search.follows || self.stand_in(home, env).is_some())
    }

    /// Whether `home`, which follows and holds back, has nothing to wait for. Its answers may just take longer
    /// than those of other homes, which say where the soft deadline is; but who has met nobody so far has no
    /// way out, it seems.
    pub(super) fn is_given_up(&self, home: usize, env: &Env<'_>) -> bool {
        let (search, place) = (&self.searches[home], &env.places[home]);
        let is_dead = place.line.is_lost() || place.table.len() == 0;
        search.follows && search.is_deaf() && (is_dead || !search.may_be_answered())
    }

    /// Has another home search if it seems that the line of `home` is dead. Whether one does.
    fn replace(&mut self, home: usize, env: &Env<'_>) -> bool {
        let search = &self.searches[home];
        if !search.is_open() || !env.places[home].line.is_lost() && !search.is_deaf() {
            return false;
        }
        let Some(next) = self.stand_in(home, env) else { return false };
        let Ok([other, search]) = self.searches.get_disjoint_mut([home, next]) else { return false };
        other.phase = Phase::Waiting;
        if search.is_heard() {
            search.resume(other, env.config);
        } else {
            *search = search.replacing(other, env.config);
            offer_starts(search, &self.target, &env.places[next], env.config);
        }
        true
    }

    /// Who searches should the line of `home` be dead: who was taken for dead and is just slow, because answers
    /// have come since, or else who has not had its turn.
    fn stand_in(&self, home: usize, env: &Env<'_>) -> Option<usize> {
        let waits = |other: &usize| {
            self.searches[*other].phase == Phase::Waiting && !env.places[*other].line.is_lost()
        };
        // Once another family has brought answers, this one may have no way out at all: who has met nobody
        // there is no better than who is deaf.
        let may_work = |other: &usize| {
            let met_somebody = self.stats.answered == 0 || env.places[*other].table.len() > 0;
            self.searches[*other].is_untried() && met_somebody
        };
        let mut slow = self.homes_after(home, env.places).filter(waits);
        let mut untried = self.homes_after(home, env.places).filter(waits);
        slow.find(|&other| self.searches[other].is_heard()).or_else(|| untried.find(may_work))
    }

    /// Has the next home of a family follow the one that searched, if it has a reason. Whether one does.
    fn follow(&mut self, now: Time, family: Family, env: &Env<'_>) -> bool {
        let leads = |&home: &usize| {
            let search = &self.searches[home];
            search.phase == Phase::Done && !search.follows && search.is_heard()
        };
        let leader =
            self.homes_of(family, env.places).find(leads).filter(|_| self.has_room_for_more(now, env));
        let is_next =
            |&home: &usize| self.searches[home].phase == Phase::Waiting && !env.places[home].line.is_lost();
        let next = leader.and_then(|leader| self.homes_after(leader, env.places).find(is_next));
        if let (Some(leader), Some(next)) = (leader, next) {
            self.searches[next] = self.searches[next].following(&self.searches[leader], env.config);
            return true;
        }
        if self.go_back(family, env) {
            return true;
        }
        for (search, place) in self.searches.iter_mut().zip(env.places) {
            if place.family == family && search.phase == Phase::Waiting {
                search.phase = Phase::Done;
            }
        }
        false
    }

    /// Has a home of a family go on that was taken for dead, while nobody of the family was heard and an answer
    /// may come to it still: who took over had nobody whom it might ask. Whether one does.
    fn go_back(&mut self, family: Family, env: &Env<'_>) -> bool {
        let mut homes = self.homes_of(family, env.places);
        if self.homes_of(family, env.places).any(|home| self.searches[home].is_heard()) {
            return false;
        }
        let is_awaited = |search: &Search| search.phase == Phase::Waiting && search.may_be_answered();
        let Some(home) = homes.find(|&home| is_awaited(&self.searches[home])) else { return false };
        for other in self.homes_of(family, env.places) {
            if let Ok([search, other]) = self.searches.get_disjoint_mut([home, other])
                && other.phase == Phase::Done
            {
                search.resume(other, env.config);
            }
        }
        self.searches[home].phase == Phase::Approaching
    }

    /// Queries that nobody spends on the search: who follows, in either family, has come for the announces alone.
    pub(super) fn kept_for_announces(&self, config: &Config) -> u32 {
        let search_on = |search: &&Search| search.follows && search.phase == Phase::Approaching;
        self.searches.iter().filter(search_on).count() as u32 * config.announce_nodes as u32
    }

    /// Whether one more home may ask the closest nodes and announce to them, beside those of both families
    /// that have begun to, and beside the search of the other family, which may be slower.
    fn has_room_for_more(&self, now: Time, env: &Env<'_>) -> bool {
        let each = 2 * env.config.announce_nodes.max(env.config.k) as u32;
        let begun = self.searches.iter().filter(|search| search.follows && search.phase != Phase::Done);
        let searching = self.searches.iter().map(|search| search.wants_still(env.config) as u32);
        let queries = each * (1 + begun.count() as u32) + searching.sum::<u32>();
        matches!(self.kind, Kind::GetPeers { announce: Some(_) })
            && self.stats.queries + queries <= self.most_queries(env.config)
            && now < self.started + super::approach_time(env.config)
    }

    fn homes_of<'a>(&self, family: Family, places: &'a [Place]) -> impl Iterator<Item = usize> + use<'a> {
        let homes = places.iter().take(self.searches.len()).enumerate();
        homes.filter(move |(_, place)| place.family == family).map(|(home, _)| home)
    }

    /// The homes of its family in turn, `home` last.
    fn homes_after<'a>(&self, home: usize, places: &'a [Place]) -> impl Iterator<Item = usize> + use<'a> {
        let family = places[home].family;
        let (before, after) = (self.homes_of(family, places), self.homes_of(family, places));
        after.filter(move |&other| other > home).chain(before.filter(move |&other| other <= home))
    }
}

/// Whom a search from `place` begins with: the nearest nodes of its table, and a reserve.
pub(super) fn offer_starts(search: &mut Search, target: &Id, place: &Place, config: &Config) {
    for (id, addr) in place.starts(target, config) {
        search.offer(Some(id), addr, 0, config);
    }
    for (id, addr) in place.table.closest(target, config.lookup_min_queries, config) {
        search.offer_reserve(id, addr, config);
    }
}

/// Nodes of an earlier run to start from: the upkeep tries all of them in turn, as they may all be gone;
/// others want the nearest.
pub(super) fn from_last_run(
    owner: Owner,
    target: Id,
    place: &Place,
    config: &Config,
) -> Vec<(Id, SocketAddr)> {
    let mut saved = place.saved.clone();
    match owner {
        Owner::Upkeep { .. } => saved.truncate(SAVED_AT_ONCE),
        Owner::User { .. } => {
            saved.sort_by_key(|(id, _)| id.distance(&target));
            saved.truncate(config.lookup_candidates);
        }
    }
    saved
}

/// The nodes that a lookup has come to, nearest first: as many of each family as one search would name, one
/// of a network. Where homes took turns, who was taken for dead may not have come near the target.
pub(super) fn closest(searches: &[Search], target: &Id, config: &Config) -> Vec<(Id, SocketAddr)> {
    let searched = searches.iter().filter(|search| !search.follows);
    let found = searched.flat_map(|search| search.closest(config.k));
    let mut closest: Vec<_> = found.filter_map(|c| c.id.map(|id| (id, c.addr))).collect();
    closest.sort_by_key(|(id, _)| id.distance(target));
    let mut networks = Vec::with_capacity(closest.len());
    closest.retain(|&(_, addr)| {
        let network = (family_of(addr), subnet_key(addr, config.allow_local));
        let of_family = networks.iter().filter(|(family, _)| *family == network.0).count();
        let is_one = of_family < config.k && !networks.contains(&network);
        networks.extend(is_one.then_some(network));
        is_one
    });
    closest
}

/// The home of `family` that searches first: each in turn of those whose line works and who know many.
fn first(family: Family, key: u64, places: &[Place]) -> Option<usize> {
    let homes = || places.iter().enumerate().filter(move |(_, place)| place.family == family);
    let any_works = homes().any(|(_, place)| !place.line.is_lost());
    let working = || homes().filter(move |(_, place)| !any_works || !place.line.is_lost());
    // A home beside one that has bootstrapped may have been given the same nodes to begin with, and lead nowhere.
    let has_begun = working().any(|(_, place)| place.table.len() > 0 && place.saved.is_empty());
    let known = |place: &Place| place.table.len().max(if has_begun { 0 } else { place.saved.len() });
    let most = working().map(|(_, place)| known(place)).max()?;
    let fit = || working().filter(move |(_, place)| known(place) * 2 >= most);
    // Of lookups one after the other each begins far from where the ones before did.
    let nth = ((key.wrapping_mul(GOLDEN) >> 32) * fit().count() as u64) >> 32;
    fit().nth(nth as usize).map(|(home, _)| home)
}

/// 2^64 by the golden ratio: its multiples, modulo 2^64, divide a circle evenly.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
