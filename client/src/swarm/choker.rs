//! [`Choker`]: whom we serve (BEP 3, "choking"): tit for tat while we download, by one of the rules of
//! [`SeedChoking`] when we seed, one optimistic unchoke, and one slot per source address, so that one
//! host with many connections cannot take all slots (P15).
//!
//! How many are served follows from how fast they take it: a slot more for each peer that is faster than
//! its rank asks for. So a thin line is not split into trickles, and a thick one not held by a few slow
//! peers.

use std::collections::{BTreeMap, BTreeSet};

use btdht::addr::SourceKey;
use btdht::{Rng, Time};

use super::limits::{Limits, SeedChoking};
use crate::piece::Slot;

/// A connection that wants something of us.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    /// The connection.
    pub(super) slot: Slot,
    /// The source that has one slot.
    pub(super) source: SourceKey,
    /// Bytes per second from the peer.
    pub(super) rate_down: u64,
    /// Bytes per second to the peer.
    pub(super) rate_up: u64,
    /// It owes us blocks and gives none.
    pub(super) snubs: bool,
    /// Thousandths of the pieces that it has.
    pub(super) progress: u16,
}

/// What we are in this swarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Something is missing: those who give get.
    Leech,
    /// Nothing is missing: everybody has a turn.
    Seed,
}

/// Who is to be told.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// These are served from now on.
    pub(super) unchoke: Vec<Slot>,
    /// These no longer.
    pub(super) choke: Vec<Slot>,
}

/// Who is unchoked, since when.
#[derive(Debug)]
pub(super) struct Choker {
    unchoked: BTreeMap<Slot, Turn>,
    /// When those that are choked had their last turn.
    served: BTreeMap<Slot, Time>,
    optimistic: Option<Slot>,
    /// Peers that may be unchoked at once.
    slots: usize,
    next_round: Time,
    next_optimistic: Time,
}

#[derive(Clone, Copy, Debug)]
struct Turn {
    source: SourceKey,
    since: Time,
}

/// Rounds that a turn lasts when we seed.
const SEED_TURN: u32 = 3;

impl Choker {
    /// Everybody is choked.
    pub(super) fn new(now: Time) -> Self {
        Self {
            unchoked: BTreeMap::new(),
            served: BTreeMap::new(),
            optimistic: None,
            slots: 0,
            next_round: now,
            next_optimistic: now,
        }
    }

    /// A peer has become interested. Returns whether it is unchoked at once: when a slot is free, so
    /// that small swarms need not wait for the next round.
    pub(super) fn interested(&mut self, now: Time, slot: Slot, source: SourceKey, limits: &Limits) -> bool {
        let taken = self.unchoked.values().any(|turn| turn.source == source);
        if taken
            || self.unchoked.len() >= self.slots.max(limits.unchoke_slots)
            || self.unchoked.contains_key(&slot)
        {
            return false;
        }
        self.unchoked.insert(slot, Turn { source, since: now });
        true
    }

    /// A peer wants nothing more. Returns whether it was unchoked and is to be choked, which frees
    /// its slot.
    pub(super) fn uninterested(&mut self, now: Time, slot: Slot) -> bool {
        let was = self.unchoked.remove(&slot).is_some();
        if was {
            self.served.insert(slot, now);
        }
        was
    }

    /// A connection is over.
    pub(super) fn gone(&mut self, slot: Slot) {
        self.unchoked.remove(&slot);
        self.served.remove(&slot);
    }

    /// Chooses anew. `candidates` are all interested peers.
    pub(super) fn round(
        &mut self,
        now: Time,
        candidates: &[Candidate],
        role: Role,
        limits: &Limits,
        rng: &mut Rng,
    ) -> Changes {
        self.next_round = now + limits.choke_interval;
        self.slots = self.fitting_slots(candidates, limits);
        let mut ranked: Vec<_> =
            candidates.iter().map(|one| (self.rank(now, one, role, limits), rng.next_u32(), one)).collect();
        ranked.sort_unstable_by_key(|&(rank, lot, _)| (rank, lot));

        let mut chosen = BTreeMap::new();
        let mut sources = BTreeSet::new();
        let mut choose = |candidate: &Candidate, most: usize| {
            let has_place = chosen.len() < most && sources.insert(candidate.source);
            if has_place {
                chosen.insert(candidate.slot, candidate.source);
            }
            has_place
        };
        // One slot is for the optimistic unchoke; where all have turns, those do its work.
        let turns = role == Role::Seed && limits.seed_choking == SeedChoking::RoundRobin;
        let regular = self.slots - usize::from(!turns && self.slots > 1);
        // BEP 3: who snubs us is served by luck only.
        let gives = |candidate: &Candidate| role == Role::Seed || !candidate.snubs;
        let fit = ranked.iter().filter(|(_, _, candidate)| gives(candidate));
        let mut regulars = BTreeSet::new();
        for (_, _, candidate) in fit {
            if choose(candidate, regular) {
                regulars.insert(candidate.slot);
            }
        }
        if now >= self.next_optimistic {
            self.next_optimistic = now + limits.optimistic_interval;
            self.optimistic = None;
        }
        let kept = ranked.iter().find(|(_, _, candidate)| Some(candidate.slot) == self.optimistic);
        let mut rest: Vec<_> = ranked.iter().collect();
        rest.sort_unstable_by_key(|(_, lot, candidate)| {
            let served = self.served.get(&candidate.slot).copied();
            (self.unchoked.contains_key(&candidate.slot), served, *lot)
        });
        let mut lucky = false;
        for (_, _, candidate) in kept.into_iter().chain(rest) {
            if gives(candidate) || !lucky {
                lucky |= choose(candidate, self.slots) && !gives(candidate);
            }
        }
        // Where its holder has gone, or is served for what it gives now, whoever was chosen instead keeps the
        // slot until it moves on.
        let by_luck = |slot: &Slot| chosen.contains_key(slot) && !regulars.contains(slot);
        if !self.optimistic.as_ref().is_some_and(by_luck) {
            let mut lowest_first = ranked.iter().rev().map(|(_, _, candidate)| candidate.slot);
            self.optimistic = lowest_first.find(by_luck);
        }
        self.apply(now, &chosen)
    }

    /// When the next round is due.
    pub(super) fn next(&self) -> Time {
        self.next_round
    }

    /// Whether a peer is served.
    pub(super) fn is_unchoked(&self, slot: Slot) -> bool {
        self.unchoked.contains_key(&slot)
    }

    /// Lower is served first.
    fn rank(&self, now: Time, candidate: &Candidate, role: Role, limits: &Limits) -> (bool, u64, u64) {
        let turn = self.unchoked.get(&candidate.slot);
        match role {
            // Ties keep what they have: nobody is choked for nothing.
            Role::Leech => (candidate.snubs, u64::MAX - candidate.rate_down, u64::from(turn.is_none())),
            Role::Seed if limits.seed_choking == SeedChoking::FastestUpload => {
                (false, u64::MAX - candidate.rate_up, u64::from(turn.is_none()))
            }
            Role::Seed if limits.seed_choking == SeedChoking::AntiLeech => {
                let from_the_middle = 500_u16.abs_diff(candidate.progress.min(1000));
                (false, u64::from(500 - from_the_middle), u64::from(turn.is_none()))
            }
            Role::Seed => match turn {
                Some(turn) if now.since(turn.since) < limits.choke_interval * SEED_TURN => {
                    (false, 0, u64::MAX - candidate.rate_up)
                }
                Some(_) => (true, now.as_micros(), u64::MAX - candidate.rate_up),
                None => (true, self.served.get(&candidate.slot).map_or(0, |at| at.as_micros()), 0),
            },
        }
    }

    /// A slot for each of the fastest peers, as long as the one of rank `n` takes `n` times
    /// `slot_step`, and one more to try.
    fn fitting_slots(&self, candidates: &[Candidate], limits: &Limits) -> usize {
        let mut rates: Vec<_> = candidates
            .iter()
            .filter(|candidate| self.unchoked.contains_key(&candidate.slot))
            .map(|candidate| candidate.rate_up)
            .collect();
        rates.sort_unstable_by(|a, b| b.cmp(a));
        let fast = (1..).zip(&rates).take_while(|&(rank, &rate)| rate >= rank * limits.slot_step).count();
        (fast + 1).min(limits.unchoke_slots_max).max(limits.unchoke_slots)
    }

    fn apply(&mut self, now: Time, chosen: &BTreeMap<Slot, SourceKey>) -> Changes {
        let choke: Vec<_> = self.unchoked.keys().copied().filter(|slot| !chosen.contains_key(slot)).collect();
        for &slot in &choke {
            self.uninterested(now, slot);
        }
        let mut unchoke = Vec::new();
        for (&slot, &source) in chosen {
            if let std::collections::btree_map::Entry::Vacant(vacant) = self.unchoked.entry(slot) {
                vacant.insert(Turn { source, since: now });
                unchoke.push(slot);
            }
        }
        // A turn that goes on because nobody waits begins anew.
        for turn in self.unchoked.values_mut() {
            if choke.is_empty() && now.since(turn.since) > std::time::Duration::from_secs(300) {
                turn.since = now;
            }
        }
        Changes { unchoke, choke }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use btdht::addr::source_key;

    use super::*;

    fn candidate(index: u32, rate_down: u64) -> Candidate {
        let slot = Slot { index, generation: 0 };
        let addr = std::net::SocketAddr::from(([9, 9, (index >> 8) as u8, index as u8], 1));
        let source = source_key(addr, false);
        Candidate { slot, source, rate_down, rate_up: 0, snubs: false, progress: 0 }
    }

    fn unchoked(choker: &Choker) -> Vec<u32> {
        choker.unchoked.keys().map(|slot| slot.index).collect()
    }

    #[test]
    fn free_slots_are_given_at_the_first_interest() {
        let limits = Limits { unchoke_slots: 2, ..Limits::default() };
        let mut choker = Choker::new(Time::ZERO);
        let all: Vec<_> = (0..3).map(|index| candidate(index, 0)).collect();
        let quick: Vec<_> =
            all.iter().map(|one| choker.interested(Time::ZERO, one.slot, one.source, &limits)).collect();
        assert_eq!(quick, [true, true, false]);
        assert!(choker.uninterested(Time::ZERO, all[0].slot));
        assert!(choker.interested(Time::ZERO, all[2].slot, all[2].source, &limits));
    }

    #[test]
    fn those_who_give_most_are_served_and_one_more_by_luck() {
        let limits = Limits { unchoke_slots: 4, ..Limits::default() };
        let (mut choker, mut rng) = (Choker::new(Time::ZERO), Rng::from_seed(1));
        let all: Vec<_> = (0..20).map(|index| candidate(index, u64::from(index) * 10)).collect();
        let mut lucky = BTreeSet::new();
        for round in 0..60 {
            let now = Time::from_secs(round * 10);
            choker.round(now, &all, Role::Leech, &limits, &mut rng);
            let mut served = unchoked(&choker);
            assert_eq!(served.len(), 4);
            assert_eq!(served.split_off(1), [17, 18, 19]);
            lucky.insert(served[0]);
        }
        assert!(lucky.len() > 10, "the optimistic unchoke moves on: {lucky:?}");
    }

    #[test]
    fn the_optimistic_unchoke_stays_for_thirty_seconds() {
        let limits = Limits { unchoke_slots: 2, ..Limits::default() };
        let (mut choker, mut rng) = (Choker::new(Time::ZERO), Rng::from_seed(2));
        let all: Vec<_> = (0..9).map(|index| candidate(index, u64::from(index))).collect();
        choker.round(Time::ZERO, &all, Role::Leech, &limits, &mut rng);
        let first = unchoked(&choker);
        for second in [10, 20] {
            assert_eq!(
                choker.round(Time::from_secs(second), &all, Role::Leech, &limits, &mut rng),
                Changes::default()
            );
        }
        let changes = choker.round(Time::from_secs(30), &all, Role::Leech, &limits, &mut rng);
        assert_eq!((changes.choke.len(), changes.unchoke.len()), (1, 1));
        assert_ne!(unchoked(&choker), first);
    }

    #[test]
    fn who_takes_the_place_of_an_optimistic_unchoke_that_has_gone_or_gives_keeps_it_until_it_moves_on() {
        let limits = Limits { unchoke_slots: 2, ..Limits::default() };
        for gone in [true, false] {
            let (mut choker, mut rng) = (Choker::new(Time::ZERO), Rng::from_seed(2));
            let mut all: Vec<_> = (0..20).map(|index| candidate(index, 10 * u64::from(index))).collect();
            choker.round(Time::ZERO, &all, Role::Leech, &limits, &mut rng);
            let lucky = choker.optimistic.expect("somebody has luck");
            if gone {
                all.retain(|one| one.slot != lucky);
                choker.gone(lucky);
            } else {
                all[lucky.index as usize].rate_down = 1000;
            }
            let mut served = |second| {
                choker.round(Time::from_secs(second), &all, Role::Leech, &limits, &mut rng);
                unchoked(&choker)
            };
            let next = served(10);
            assert_eq!(next.len(), 2);
            assert_eq!(served(20), next, "gone {gone}");
            assert_ne!(served(30), next, "it moves on when it would have");
        }
    }

    #[test]
    fn a_seed_serves_everybody_in_turns() {
        let limits = Limits { unchoke_slots: 3, ..Limits::default() };
        let (mut choker, mut rng) = (Choker::new(Time::ZERO), Rng::from_seed(1));
        let all: Vec<_> = (0..9).map(|index| candidate(index, 0)).collect();
        let mut served = BTreeSet::new();
        for round in 0..10 {
            choker.round(Time::from_secs(round * 10), &all, Role::Seed, &limits, &mut rng);
            served.extend(unchoked(&choker));
        }
        assert_eq!(served.len(), 9);
        assert!(choker.next() == Time::from_secs(90) + Duration::from_secs(10));
    }

    #[test]
    fn one_source_has_one_slot() {
        let limits = Limits::default();
        let (mut choker, mut rng) = (Choker::new(Time::ZERO), Rng::from_seed(1));
        let one = candidate(0, 0);
        let all: Vec<_> = (0..9)
            .map(|index| Candidate {
                slot: Slot { index, generation: 0 },
                rate_down: u64::from(index),
                ..one
            })
            .collect();
        choker.round(Time::ZERO, &all, Role::Leech, &limits, &mut rng);
        assert_eq!(unchoked(&choker), [8]);
        assert!(!choker.interested(Time::ZERO, Slot { index: 20, generation: 0 }, one.source, &limits));
        choker.gone(all[8].slot);
        assert!(choker.interested(Time::ZERO, Slot { index: 20, generation: 0 }, one.source, &limits));
    }

    /// Who is served in `rounds` rounds, and how often.
    fn served(all: &[Candidate], role: Role, limits: &Limits, rounds: u64) -> BTreeMap<u32, u32> {
        let (mut choker, mut rng) = (Choker::new(Time::ZERO), Rng::from_seed(1));
        let mut times = BTreeMap::new();
        for round in 0..rounds {
            choker.round(Time::from_secs(round * 10), all, role, limits, &mut rng);
            unchoked(&choker).into_iter().for_each(|index| *times.entry(index).or_default() += 1);
        }
        times
    }

    #[test]
    fn who_snubs_us_is_served_by_luck_only() {
        let limits = Limits { unchoke_slots: 3, ..Limits::default() };
        let mut all: Vec<_> = (0..6).map(|index| candidate(index, u64::from(index) * 10)).collect();
        all[5].snubs = true;
        let times = served(&all, Role::Leech, &limits, 60);
        assert_eq!((times[&4], times[&3]), (60, 60));
        assert!(times[&5] <= 30, "{times:?}");
        // With nobody else there it has the one slot of luck.
        let times = served(&all[5..], Role::Leech, &limits, 60);
        assert_eq!(times, BTreeMap::from([(5, 60)]));
        let times = served(&all, Role::Seed, &limits, 60);
        assert!((25..=35).contains(&times[&5]), "a seed is owed nothing: {times:?}");
        // However many snub us and however many places are free, one of them has luck at a time.
        let all: Vec<_> = all.iter().map(|one| Candidate { snubs: true, ..*one }).collect();
        assert_eq!(served(&all, Role::Leech, &limits, 60).values().sum::<u32>(), 60);
    }

    #[test]
    fn a_seed_that_wants_speed_serves_the_fastest_and_one_more_by_luck() {
        let seed_choking = SeedChoking::FastestUpload;
        let limits =
            Limits { unchoke_slots: 3, slot_step: u64::MAX / 100, seed_choking, ..Limits::default() };
        let mut all: Vec<_> = (0..9).map(|index| candidate(index, 0)).collect();
        all.iter_mut().for_each(|one| one.rate_up = u64::from(one.slot.index) * 1000);
        let times = served(&all, Role::Seed, &limits, 90);
        assert_eq!((times[&7], times[&8]), (90, 90));
        assert!((0..7).all(|slow| times[&slow] >= 3), "everybody is tried: {times:?}");
    }

    #[test]
    fn a_seed_against_leeches_serves_those_who_begin_and_those_who_end() {
        let seed_choking = SeedChoking::AntiLeech;
        let limits = Limits { unchoke_slots: 4, seed_choking, ..Limits::default() };
        let mut all: Vec<_> = (0..9).map(|index| candidate(index, 0)).collect();
        all.iter_mut().for_each(|one| one.progress = one.slot.index as u16 * 125);
        let times = served(&all, Role::Seed, &limits, 30);
        assert_eq!((times[&0], times[&8]), (30, 30));
        assert!(times[&1] + times[&7] >= 30, "{times:?}");
        assert!(times.get(&4).is_none_or(|&times| times <= 12), "{times:?}");
    }

    #[test]
    fn slots_follow_what_peers_take() {
        let limits = Limits { unchoke_slots: 4, unchoke_slots_max: 20, ..Limits::default() };
        let count = |rate_up: u64| {
            let (mut choker, mut rng) = (Choker::new(Time::ZERO), Rng::from_seed(1));
            for round in 0..60 {
                let mut all: Vec<_> = (0..50).map(|index| candidate(index, 0)).collect();
                for one in &mut all {
                    // What we have is split among those that are served.
                    let served = unchoked(&choker).len().max(1) as u64;
                    one.rate_up = if choker.is_unchoked(one.slot) { rate_up / served } else { 0 };
                }
                choker.round(Time::from_secs(round * 10), &all, Role::Seed, &limits, &mut rng);
            }
            unchoked(&choker).len()
        };
        // The rank n takes n * 2 KiB/s when n * n * 2 KiB/s are there.
        assert_eq!(count(0), 4);
        let middling = count(200 << 10);
        assert!((9..=11).contains(&middling), "{middling}");
        assert_eq!(count(100 << 20), 20);
    }
}
