//! [`Full`]: the inside of a [`super::Store`] that holds something: both families under one budget of
//! memory, the sweep that finds what has expired, and the items and samples beside them.

mod sampling;
mod table_of;

use std::net::{IpAddr, SocketAddr};

use krpc::Id;
use krpc::bloom::Bloom;
use krpc::compact::{Address, V4, V6};

use super::budget::Budget;
use super::items::Items;
use super::limits::Limits;
use super::lost::Lost;
use super::peers::{Met, Peers, Stored};
use super::samples::Samples;
use super::select::{Scrape, StoredPeer, Wanted, fill, live, sample};
use super::sketch::Sketch;
use super::slab::{Ages, Peer, Place, Stamp};
use crate::addr::Family;
use crate::{Config, Rng, Time};

pub(super) use self::table_of::Table;

/// What became of an announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announced {
    /// The peer is new.
    Stored,
    /// The peer was there; its age starts anew.
    Refreshed,
    /// A rule said no: port 0; too many infohashes of the source; an infohash with all its peers, or a source
    /// with all its ports, fresher than this one or of the other family; or no memory could be freed, since
    /// what was drawn for it is fresher.
    Refused,
}

/// The peers of infohashes.
#[derive(Debug)]
pub(super) struct Full {
    pub(super) v4: Peers<V4>,
    pub(super) v6: Peers<V6>,
    /// Infohashes with peers of both families.
    in_both: usize,
    /// Infohashes that are kept in other stores and told of here.
    elsewhere: usize,
    /// Made when a source could first be at its cap.
    pub(super) sketch: Option<Sketch>,
    pub(super) ages: Ages,
    last_call: Time,
    pub(super) items: Items,
    samples: Samples,
    pub(super) next_sweep: Time,
    sweeping: Family,
    /// The most runs in this round of the sweep, which says how fast it goes.
    round: usize,
    pub(super) rng: Rng,
    pub(super) limits: Limits,
    pub(super) budget: Budget,
    /// Without what its items have lost.
    lost: Lost,
}

impl Full {
    /// With the caps of `config`.
    pub(super) fn new(config: &Config, mut rng: Rng) -> Self {
        Self {
            v4: Peers::new(&mut rng),
            v6: Peers::new(&mut rng),
            in_both: 0,
            elsewhere: 0,
            sketch: None,
            items: Items::new(config, &mut rng),
            samples: Samples::new(config.max_samples, config.sample_interval),
            ages: Ages::new(config.peer_expiry),
            last_call: Time::ZERO,
            next_sweep: Time::NEVER,
            sweeping: Family::V4,
            round: 0,
            rng,
            limits: Limits::new(config),
            budget: Budget::new(config.store_memory),
            lost: Lost::default(),
        }
    }

    /// See [`super::Store::announce`].
    pub(super) fn announce(&mut self, now: Time, infohash: &Id, peer: SocketAddr, seed: bool) -> Announced {
        self.tick(now);
        self.announce_stamped(now, infohash, peer, Stamp::new(self.ages.now(), seed))
    }

    /// See [`super::Store::values`].
    pub(super) fn values(
        &mut self,
        now: Time,
        infohash: &Id,
        wanted: Wanted,
        rng: &mut Rng,
        out: &mut Vec<u8>,
    ) -> usize {
        self.tick(now);
        match wanted.family {
            Family::V4 => sample(&mut self.v4, &self.ages, infohash, wanted, b"6:", rng, out),
            Family::V6 => sample(&mut self.v6, &self.ages, infohash, wanted, b"18:", rng, out),
        }
    }

    /// See [`super::Store::scrape`].
    pub(super) fn scrape(&mut self, now: Time, infohash: &Id) -> Option<Scrape> {
        self.tick(now);
        let mut scrape = Scrape { seeds: Bloom::new(), downloaders: Bloom::new() };
        let found = [
            fill(&mut self.v4, &self.ages, infohash, &mut scrape),
            fill(&mut self.v6, &self.ages, infohash, &mut scrape),
        ];
        found.contains(&true).then_some(scrape)
    }

    /// See [`super::Store::expire`].
    pub(super) fn expire(&mut self, now: Time) {
        self.items.expire(now);
        self.tick(now);
        if now < self.next_sweep {
            return;
        }
        self.round = self.round.max(self.runs());
        let steps = (self.round / SWEPT_AT_ONCE).max(1) as u32;
        for _ in 0..SWEPT_AT_ONCE {
            let sweeping = self.sweeping;
            match sweeping {
                Family::V4 if self.sweep_next::<V4>() => self.sweeping = Family::V6,
                Family::V6 if self.sweep_next::<V6>() => {
                    self.sweeping = Family::V4;
                    self.round = self.runs();
                    break;
                }
                _ => {}
            }
        }
        self.next_sweep =
            if self.is_empty() { Time::NEVER } else { now + self.limits.sweep_period() / steps };
    }

    /// See [`super::Store::take_lost`].
    pub(super) fn take_lost(&mut self) -> Lost {
        let (items_expired, items_evicted) = self.items.take_lost();
        Lost { items_expired, items_evicted, ..std::mem::take(&mut self.lost) }
    }

    /// See [`super::Store::timeout`].
    pub(super) fn timeout(&self) -> Time {
        self.next_sweep.min(self.items.timeout())
    }

    /// Items of BEP 44 that are stored, with expired ones that no sweep has met yet.
    pub(super) fn items(&self) -> usize {
        self.items.len()
    }

    /// See [`super::Store::accepts_more`].
    pub(super) fn accepts_more(&self, infohash: &Id, ip: IpAddr) -> bool {
        let addr = SocketAddr::new(ip, 1);
        match V4::from_socket(addr) {
            Some(addr) => accepts(&self.v4, self.sketch.as_ref(), &self.limits, infohash, &addr),
            None => V6::from_socket(addr)
                .is_some_and(|addr| accepts(&self.v6, self.sketch.as_ref(), &self.limits, infohash, &addr)),
        }
    }

    /// Peers stored, with expired ones that no sweep has met yet.
    pub(super) fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Whether no peer is stored.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Infohashes that have peers.
    pub(super) fn infohashes(&self) -> usize {
        self.runs() - self.in_both + self.elsewhere
    }

    /// Bytes allocated, with what the allocator adds.
    pub(super) fn memory(&self) -> usize {
        self.v4.memory() + self.v6.memory() + self.sketch.as_ref().map_or(0, Sketch::memory)
    }

    /// Every peer that has not expired.
    pub(super) fn iter(&self, now: Time) -> impl Iterator<Item = StoredPeer> {
        let ages = self.ages_at(now);
        live(&self.v4, ages).chain(live(&self.v6, ages))
    }

    fn announce_stamped(&mut self, now: Time, infohash: &Id, peer: SocketAddr, stamp: Stamp) -> Announced {
        if peer.port() == 0 {
            return Announced::Refused;
        }
        match V4::from_socket(peer) {
            Some(addr) => self.announce_in(now, infohash, addr, stamp),
            None => V6::from_socket(peer)
                .map_or(Announced::Refused, |addr| self.announce_in(now, infohash, addr, stamp)),
        }
    }

    pub(super) fn announce_in<A: Table>(
        &mut self,
        now: Time,
        infohash: &Id,
        addr: A,
        stamp: Stamp,
    ) -> Announced {
        let (ages, max_ports) = (self.ages, self.limits.ports_per_source);
        let peers = A::of_mut(self);
        let place = peers.find(infohash);
        let mut known_source = false;
        if let Some(place) = place {
            match peers.meet(&ages, place, addr, stamp, max_ports) {
                Met::Same => return Announced::Refreshed,
                Met::Replaced => {
                    self.lost.peers_evicted += 1;
                    return Announced::Stored;
                }
                Met::Stale => return Announced::Refused,
                Met::Nothing { known_source: known } => known_source = known,
            }
        }
        self.add(now, (infohash, place), Peer { addr, stamp }, known_source)
    }

    /// Stores a peer that is not in the run of its infohash, which is at `place` if there is one.
    /// Whether the run holds other ports of the source is `known_source`.
    pub(super) fn add<A: Table>(
        &mut self,
        now: Time,
        (infohash, mut place): (&Id, Option<Place>),
        Peer { addr, stamp }: Peer<A>,
        mut known_source: bool,
    ) -> Announced {
        let (ages, limits) = (self.ages, self.limits);
        if !known_source && self.is_at_cap(addr.source()) {
            return Announced::Refused;
        }
        let stored = A::of(self).count(place) + A::Other::of(self).count(A::Other::of(self).find(infohash));
        if stored >= limits.peers_per_infohash {
            return self.announce_in_full(place, addr, stamp, known_source);
        }
        let mut evictions = 0..MAX_EVICTIONS;
        while !self.budget.allows(self.memory(), A::of(self).cost(place, infohash)) {
            if evictions.next().is_none() || !self.evict(ages.age(stamp.tick())) {
                return Announced::Refused;
            }
            place = A::of(self).find(infohash);
            known_source &= place.is_some();
        }
        if self.is_empty() {
            self.next_sweep = now + limits.sweep_period();
        }
        if place.is_none() && A::Other::of(self).find(infohash).is_some() {
            self.in_both += 1;
        }
        A::of_mut(self).insert(&ages, place, infohash, addr, stamp);
        self.budget.settle(self.memory());
        self.count_source(addr.source(), known_source);
        Announced::Stored
    }

    /// Stores a peer of an infohash that has all that it may have.
    fn announce_in_full<A: Table>(
        &mut self,
        place: Option<Place>,
        addr: A,
        stamp: Stamp,
        known_source: bool,
    ) -> Announced {
        // All of them may be of the other family.
        let Some(place) = place else { return Announced::Refused };
        let (ages, mut rng) = (self.ages, self.rng.clone());
        let mut gone = None;
        let is_stored = A::of_mut(self)
            .replace_stalest(&ages, place, addr, stamp, &mut rng, |source| gone = Some(source));
        self.rng = rng;
        if !is_stored {
            return Announced::Refused;
        }
        self.lost.peers_evicted += 1;
        let source = addr.source();
        if gone != Some(source) {
            if let (Some(gone), Some(sketch)) = (gone, &self.sketch) {
                sketch.remove(gone);
            }
            self.count_source(source, known_source);
        }
        Announced::Stored
    }

    fn count_source(&mut self, source: u64, known: bool) {
        if known || self.limits.infohashes_per_source == 0 {
            return;
        }
        if let Some(sketch) = &self.sketch {
            sketch.add(source);
        } else if self.len() >= self.limits.infohashes_per_source {
            // Before, no source can have had so many infohashes.
            let sketch = Sketch::new(self.limits.memory, &mut self.rng);
            self.v4.each_source(|source| sketch.add(source));
            self.v6.each_source(|source| sketch.add(source));
            self.sketch = Some(sketch);
        }
    }

    fn is_at_cap(&self, source: u64) -> bool {
        let cap = self.limits.infohashes_per_source;
        cap != 0 && self.sketch.as_ref().is_some_and(|sketch| sketch.count(source) >= cap)
    }

    /// Removes the stalest of some infohashes drawn at random, in one of its families, unless it has
    /// been announced later than so many ticks ago; `false` then.
    fn evict(&mut self, age: u16) -> bool {
        let (v4, all) = (self.v4.runs().total(), self.runs());
        let mut stalest: Option<(u16, usize)> = None;
        for _ in 0..DRAWN {
            let n = self.rng.below(all);
            if let Some(age) = self.staleness(n) {
                stalest = stalest.max(Some((age, n)));
            }
        }
        match stalest {
            Some((its_age, _)) if its_age < age => return false,
            Some((_, n)) if n < v4 => self.evict_nth::<V4>(n),
            Some((_, n)) => self.evict_nth::<V6>(n - v4),
            None => {}
        }
        true
    }

    fn evict_nth<A: Table>(&mut self, n: usize) {
        if let Some(place) = A::of(self).runs().nth(n) {
            let (sketch, before) = (self.sketch.take(), self.len());
            let removed = A::of_mut(self).remove(place, |source| {
                if let Some(sketch) = &sketch {
                    sketch.remove(source);
                }
            });
            self.sketch = sketch;
            self.lost.peers_evicted += (before - self.len()) as u32;
            self.note_removed::<A>(removed);
            self.budget.settle(self.memory());
        }
    }

    /// Handles the next infohash of one family; `true` at the end of its round.
    fn sweep_next<A: Table>(&mut self) -> bool {
        let (ages, memory, before) = (self.ages, self.memory(), self.len());
        let Some(place) = A::of_mut(self).next_to_sweep() else { return true };
        let (sketch, mut budget) = (self.sketch.take(), std::mem::replace(&mut self.budget, Budget::new(0)));
        let gone = |source| {
            if let Some(sketch) = &sketch {
                sketch.remove(source);
            }
        };
        let removed = A::of_mut(self).expire(&ages, place, |more| budget.allows(memory, more), gone);
        (self.sketch, self.budget) = (sketch, budget);
        let expired = before - self.len();
        if expired > 0 {
            self.budget.settle(self.memory());
        }
        self.lost.peers_expired += expired as u32;
        self.note_removed::<A>(removed);
        false
    }

    fn note_removed<A: Table>(&mut self, removed: Option<Id>) {
        if removed.is_some_and(|infohash| A::Other::of(self).find(&infohash).is_some()) {
            self.in_both -= 1;
        }
    }

    /// Sets the coarse clock. If nobody called for a whole life, everything has expired.
    pub(super) fn tick(&mut self, now: Time) {
        let now = now.max(self.last_call);
        if now.since(self.last_call) >= self.limits.expiry && !self.is_empty() {
            self.clear();
        }
        self.last_call = now;
        self.ages.set(now);
    }

    pub(super) fn ages_at(&self, now: Time) -> Ages {
        let mut ages = self.ages;
        ages.set(now.max(self.last_call));
        ages
    }

    fn clear(&mut self) {
        self.lost.peers_expired += self.len() as u32;
        match &self.sketch {
            Some(sketch) if sketch.is_shared() => {
                self.v4.each_source(|source| sketch.remove(source));
                self.v6.each_source(|source| sketch.remove(source));
            }
            _ => self.sketch = None,
        }
        self.v4 = Peers::new(&mut self.rng);
        self.v6 = Peers::new(&mut self.rng);
        self.budget.settle(self.memory());
        self.in_both = 0;
        // At once, although nothing is left to sweep: whoever sweeps counts what was lost, and frees the rest.
        self.next_sweep = self.last_call;
    }

    fn runs(&self) -> usize {
        self.v4.runs().total() + self.v6.runs().total()
    }

    /// Ticks since the newest announce of the `n`th run of both families.
    fn staleness(&self, n: usize) -> Option<u16> {
        let v4 = self.v4.runs();
        let newest = match v4.nth(n) {
            Some(place) => v4.head(place).newest,
            None => {
                let v6 = self.v6.runs();
                v6.head(v6.nth(n - v4.total())?).newest
            }
        };
        Some(self.ages.age(newest))
    }

    fn nth(&self, n: usize) -> Option<Id> {
        let (v4, v6) = (self.v4.runs(), self.v6.runs());
        match v4.nth(n) {
            Some(place) => Some(v4.head(place).infohash),
            None => v6.nth(n - v4.total()).map(|place| v6.head(place).infohash),
        }
    }
}

/// Infohashes drawn to find a stale one.
const DRAWN: usize = 16;

/// Infohashes that one announce may evict. One is enough on the average; more are needed when the
/// evicted ones are of other sizes and leave no whole block.
const MAX_EVICTIONS: usize = 256;

/// Infohashes that one call of [`super::Store::expire`] looks at: some 20 µs.
const SWEPT_AT_ONCE: usize = 256;

fn accepts<A: Stored>(
    peers: &Peers<A>,
    sketch: Option<&Sketch>,
    limits: &Limits,
    infohash: &Id,
    addr: &A,
) -> bool {
    let cap = limits.infohashes_per_source;
    let below = |sketch: &Sketch| cap == 0 || sketch.count(addr.source()) < cap;
    let is_known = |place| peers.peers(place).iter().any(|peer| peer.addr.source() == addr.source());
    sketch.is_none_or(below) || peers.find(infohash).is_some_and(is_known)
}
