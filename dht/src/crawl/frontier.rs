//! [`Frontier`]: the nodes that a crawl knows, one for each IP (D7): who may be asked, who
//! has been asked and is left alone, and until when.
//!
//! Memory is bounded twice. Nodes that may be asked lie in slices of equal parts of the key space, each of
//! which holds an even choice of those that it was offered: a flood of nodes in one part pushes nobody
//! out elsewhere. Nodes that have been asked are remembered until they may be asked again; room for
//! another is made by forgetting who was silent and then who does not know BEP 51, never by forgetting
//! who is within its interval, unless it has gone. If everybody is, nobody else can be asked. That a node is
//! remembered does not say that it still lives: who counts as alive is told in `trust`.
//!
//! Of one network (IPv4 /24, IPv6 /64) at most [`Config::crawl_nodes_per_subnet`] are known at a time, but for
//! those who were silent lately; further ones are not taken, whatever their ids, unless one that refused can give up
//! its seat for them. It is remembered all the same: forgotten, it would be asked as soon as somebody named it, and
//! those of a crowded network who refuse would be asked for ever. Those of an earlier run who are within their interval
//! are remembered in any case.

mod entry;
mod lists;
mod slices;
mod subnets;
#[cfg(test)]
mod tests;
mod trust;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hashbrown::HashTable;
use krpc::Id;

use self::entry::{Entry, Kept, State};
use self::slices::Slices;
use self::subnets::Subnets;
use super::event::{NodeRecord, Standing};
use super::region::Region;
use super::voids::Voids;
use crate::addr::{SourceKey, source_key};
use crate::{Config, KeyedHash, Rng, Time};

/// For so long an answer says that a node lives: as long as a node is left alone at least, so that a survey asks
/// nobody who answers more often than a turn would. Of sessions with a median of 30 minutes one in nine ends within it, one in 35
/// where it is two hours. Those who count unasked are on average half as old and few of all: a round of a large
/// DHT takes hours, and a survey asks most of whom it counts.
const TRUSTED: Duration = Duration::from_secs(5 * 60);

/// Questions in a row that a node does not answer until it counts as gone.
const GONE: u8 = 2;

/// The nodes that are known.
#[derive(Debug)]
pub(super) struct Frontier {
    region: Region,
    allow_local: bool,
    asked_cap: usize,
    rng: Rng,
    hash: KeyedHash,
    entries: Vec<Entry>,
    /// Indices of entries that are free.
    holes: Vec<u32>,
    by_source: HashTable<u32>,
    /// Everybody but the silent, and what was asked about.
    voids: Voids,
    /// The fresh, and those who live.
    slices: Slices,
    /// Everybody but the silent and the unseated.
    subnets: Subnets,
    asking: usize,
    resting: BTreeSet<(Time, u32)>,
    silent: BTreeSet<(Time, u32)>,
    /// Those who refused, with a seat or without.
    refused: BTreeSet<(Time, u32)>,
    /// Nodes that something has happened to, for whoever keeps them.
    changes: Vec<(SourceKey, Option<NodeRecord>)>,
}

/// A node that is to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) index: u32,
    pub(super) id: Id,
    pub(super) addr: SocketAddr,
    pub(super) is_inside: bool,
}

/// What is known of the node of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    Unknown,
    /// Known under another id or port.
    Otherwise,
    /// It may be asked.
    Fresh,
    /// It is being asked.
    Asking,
    /// It answered a moment ago.
    Alive,
    /// It answered, too long ago to say that it lives, or was silent once, which a lost packet is too.
    Stale,
    /// It was silent lately, and when it was asked once more.
    Gone,
}

impl Frontier {
    pub(super) fn new(region: Region, config: &Config, mut rng: Rng) -> Self {
        let hash = KeyedHash::new(&mut rng);
        Self {
            region,
            allow_local: config.allow_local,
            asked_cap: config.crawl_asked.max(1),
            hash,
            rng,
            entries: Vec::new(),
            holes: Vec::new(),
            by_source: HashTable::new(),
            voids: Voids::default(),
            slices: Slices::new(region, (config.crawl_frontier / (2 * slices::SLICES)).max(1)),
            subnets: Subnets::new(config, hash),
            asking: 0,
            resting: BTreeSet::new(),
            silent: BTreeSet::new(),
            refused: BTreeSet::new(),
            changes: Vec::new(),
        }
    }

    /// Hears of a node. Whether it is new and stays.
    pub(super) fn offer(&mut self, now: Time, id: Id, addr: SocketAddr) -> bool {
        let source = self.source(addr);
        if let Some(index) = self.find(source) {
            let entry = &self.entries[index as usize];
            if entry.state != State::Silent || entry.at > now {
                return false;
            }
            self.remove(index);
        }
        if !self.make_seat(addr) {
            return false;
        }
        let index = self.add(id, addr, source);
        let stays = self.make_fresh(index);
        if stays {
            self.entries[index as usize].kept = Kept::Now;
        }
        stays
    }

    /// Takes a node of an earlier run as it was kept, or has it forgotten; one outside of the region that finds no
    /// place is left as it is kept.
    pub(super) fn restore(&mut self, now: Time, record: &NodeRecord) {
        let source = self.source(record.addr);
        if self.find(source).is_some() {
            return;
        }
        match record.standing {
            Standing::Silent(until) | Standing::Refused(until) if until <= now => {}
            Standing::Fresh => {
                self.offer(now, record.id, record.addr);
                if self.find(source).is_none() && !self.region.contains(&record.id) {
                    return;
                }
            }
            Standing::Resting(_) | Standing::Silent(_) | Standing::Refused(_) => {
                let has_room = match record.standing {
                    // Who was forgotten might be asked again within its interval (BEP 51, "interval").
                    Standing::Resting(_) => self.has_room(),
                    Standing::Silent(_) => self.asked() < self.asked_cap,
                    _ => self.asked() < self.asked_cap && self.make_seat(record.addr),
                };
                if has_room {
                    let index = self.add(record.id, record.addr, source);
                    let silences = u8::from(matches!(record.standing, Standing::Silent(_)));
                    self.entries[index as usize].silences = silences;
                    self.place_asked(index, record.standing);
                }
            }
        }
        let Some(index) = self.find(source) else {
            self.changes.push((source, None));
            return;
        };
        self.entries[index as usize].kept = Kept::Before;
        if self.changes.last() == Some(&(source, Some(*record))) {
            // Whoever keeps it has it as it is.
            self.changes.pop();
        }
    }

    /// Whether the network of `addr` has a seat for one more; one that refused gives up its own.
    fn make_seat(&mut self, addr: SocketAddr) -> bool {
        let IpAddr::V4(ip) = addr.ip().to_canonical() else { return true };
        let [a, b, c, _] = ip.octets();
        let mut hosts = 0..=u8::MAX;
        while !self.subnets.has_room(addr) {
            if !self.subnets.could_have_room(addr) {
                return false;
            }
            let refused = hosts.find_map(|d| {
                let index = self.find(self.source(([a, b, c, d], addr.port()).into()))?;
                (self.entries[index as usize].state == State::Refused).then_some(index)
            });
            // Where every port is a node there is more to a network than its hosts.
            let Some(index) = refused else { return false };
            self.subnets.pardon(addr);
            self.subnets.leave(addr);
            self.entries[index as usize].state = State::Unseated;
        }
        true
    }

    /// Lets those whose interval is over be asked again, and forgets those who were silent or refused long ago.
    pub(super) fn wake(&mut self, now: Time) {
        while let Some(&(_, index)) = self.resting.first().filter(|(at, _)| *at <= now) {
            self.unlist(index);
            self.make_fresh(index);
        }
        while let Some(&(_, index)) = self.silent.first().filter(|(at, _)| *at <= now) {
            self.remove(index);
        }
        while let Some(&(_, index)) = self.refused.first().filter(|(at, _)| *at <= now) {
            self.remove(index);
        }
    }

    /// The next node to ask: from one slice after the other, each far from the last; nodes outside of the
    /// region, nearest first, when there is nobody inside.
    pub(super) fn next(&mut self) -> Option<Chosen> {
        if self.fresh() == 0 || !self.has_room() {
            return None;
        }
        let nodes = self.slices.next()?;
        let index = nodes[self.rng.below(nodes.len())].index;
        Some(self.ask(index))
    }

    /// Takes a node that may be known or not, for being asked now; `None` if it may not be.
    pub(super) fn claim(&mut self, now: Time, id: Id, addr: SocketAddr) -> Option<Chosen> {
        if !matches!(self.known(now, id, addr), Known::Unknown | Known::Fresh) || !self.has_room() {
            return None;
        }
        let source = self.source(addr);
        if let Some(index) = self.find(source) {
            if self.entries[index as usize].state == State::Fresh {
                return Some(self.ask(index));
            }
            // Silent long ago, and perhaps under another id.
            self.remove(index);
        }
        if !self.make_seat(addr) {
            return None;
        }
        let index = self.add(id, addr, source);
        Some(self.ask(index))
    }

    /// What is known of the node of this id at this address.
    pub(super) fn known(&self, now: Time, id: Id, addr: SocketAddr) -> Known {
        let Some(index) = self.find(self.source(addr)) else { return Known::Unknown };
        let entry = &self.entries[index as usize];
        match entry.state {
            State::Silent if entry.at <= now => Known::Unknown,
            State::Silent if entry.silences >= GONE => Known::Gone,
            _ if entry.id != id || entry.addr != addr => Known::Otherwise,
            State::Silent | State::Resting | State::Refused | State::Unseated => entry.known_asked(now),
            State::Asking => Known::Asking,
            State::Fresh | State::Free => Known::Fresh,
        }
    }

    /// Whether somebody who is taken for being asked could be remembered for it; makes room if it can.
    pub(super) fn has_room(&mut self) -> bool {
        while self.asked() >= self.asked_cap {
            let Some(&(_, index)) = self.silent.first().or_else(|| self.refused.first()) else {
                return false;
            };
            self.remove(index);
        }
        true
    }

    /// The query to a node has ended; under which id it answered, if it did, and how it stands now.
    pub(super) fn settle(&mut self, now: Time, index: u32, id: Option<Id>, standing: Standing) {
        self.asking -= 1;
        let entry = &mut self.entries[index as usize];
        if let Some(id) = id {
            self.voids.remove(&entry.id);
            self.voids.insert(&id);
            (entry.id, entry.trusted, entry.silences) = (id, now + TRUSTED, 0);
        } else if matches!(standing, Standing::Silent(_)) {
            entry.trusted = Time::ZERO;
            entry.silences = entry.silences.saturating_add(1);
        }
        self.place_asked(index, standing);
    }

    /// The fresh nodes of a family that are nearest to `target` by the slice that they are in.
    pub(super) fn near(&self, target: &Id, ipv6: bool, count: usize) -> Vec<(Id, SocketAddr)> {
        self.slices.near(target, ipv6, count, &self.entries)
    }

    /// The nodes of a family that are nearest to `target` of all that may be asked or have answered, nearest first.
    pub(super) fn nearest(
        &self,
        now: Time,
        target: &Id,
        ipv6: bool,
        count: usize,
    ) -> Vec<(Id, SocketAddr, Known)> {
        let nearest = self.slices.nearest(target, ipv6, count, &self.entries);
        let known = |index: u32| {
            let entry = &self.entries[index as usize];
            let known = if entry.state == State::Fresh { Known::Fresh } else { entry.known_asked(now) };
            (entry.id, entry.addr, known)
        };
        nearest.into_iter().map(known).collect()
    }

    /// What to ask a node about that is being asked: the widest gap near it.
    pub(super) fn gap(&mut self, index: u32) -> Id {
        let Entry { id, target: before, .. } = self.entries[index as usize];
        let target = self.voids.widest(&id, self.region.bits(), &mut self.rng);
        if before != id {
            self.voids.remove(&before);
        }
        self.voids.insert(&target);
        self.entries[index as usize].target = target;
        target
    }

    /// A node that answered not long ago, and that rests.
    pub(super) fn anybody_alive(&mut self) -> Option<SocketAddr> {
        let (_, first) = *self.resting.first()?;
        let drawn = (0..DRAWS).map(|_| self.rng.below(self.entries.len()));
        let resting = drawn.map(|index| &self.entries[index]).find(|entry| entry.state == State::Resting);
        Some(resting.unwrap_or(&self.entries[first as usize]).addr)
    }

    /// Id and address of a node that is being asked.
    pub(super) fn node(&self, index: u32) -> (Id, SocketAddr) {
        let entry = &self.entries[index as usize];
        (entry.id, entry.addr)
    }

    pub(super) fn source(&self, addr: SocketAddr) -> SourceKey {
        source_key(addr, self.allow_local)
    }

    /// What has happened to nodes since this was asked last. Its memory goes with it: after many were restored it
    /// may be a lot.
    pub(super) fn changes(&mut self) -> impl Iterator<Item = (SourceKey, Option<NodeRecord>)> + use<> {
        std::mem::take(&mut self.changes).into_iter()
    }

    /// When somebody's interval is over.
    pub(super) fn next_due(&self) -> Time {
        self.resting.first().map_or(Time::NEVER, |&(at, _)| at)
    }

    pub(super) fn fresh(&self) -> usize {
        self.slices.fresh()
    }

    pub(super) fn resting(&self) -> usize {
        self.resting.len()
    }

    pub(super) fn silent(&self) -> usize {
        self.silent.len()
    }

    pub(super) fn refused(&self) -> usize {
        self.refused.len()
    }

    /// Nodes of all kinds.
    pub(super) fn len(&self) -> usize {
        self.by_source.len()
    }

    fn asked(&self) -> usize {
        self.asking + self.resting.len() + self.silent.len() + self.refused.len()
    }

    fn find(&self, source: SourceKey) -> Option<u32> {
        let same = |&index: &u32| self.source(self.entries[index as usize].addr) == source;
        self.by_source.find(self.hash.hash(&source.to_bytes()), same).copied()
    }
}

/// Entries that are looked at for one that rests.
const DRAWS: usize = 16;
