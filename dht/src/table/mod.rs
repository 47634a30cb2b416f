//! [`Table`]: the routing table of BEP 5 for one own id and one address family.
//!
//! Only a node that answered one of our queries enters a bucket. A full bucket takes nobody in:
//! the newcomer becomes a *candidate* and the bucket's most questionable node is pinged; once that
//! one has failed twice, a candidate takes its place. A bucket splits off our own half of the key
//! space until the last bit, so that bucket numbers are bit lengths of distances; the farthest
//! buckets are wide ([`Config::wide_buckets`]) and keep their nodes apart ([`spread`]).
//!
//! Diversity (D6): one node per IP in the table, two per /24 (IPv6: /64) in a bucket.
//! A node that comes back with another id at the same address is evicted and asked once more. Whoever answers
//! from another address under an id that is in the table has a [claim](claims) to the place of the node
//! that had it, which is pinged and keeps its place if it answers. Nodes whose
//! id belongs to their address (BEP 42) are preferred: they wait in front and take the place of
//! questionable others.
//!
//! The table decides about places; when to ping and to refresh is [`crate::maintain`]'s business.

mod bucket;
mod candidates;
mod claims;
mod closest;
mod entry;
mod family;
mod fill;
mod known;
mod room;
mod snapshot;
mod spread;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;

use krpc::Id;
use krpc::compact::{Address, Contact};

use self::bucket::{Bounds, bucket_number, capacity, depth};
pub(crate) use self::closest::MAX_CLOSEST;
pub(crate) use self::entry::Entry;
pub use self::entry::Standing;
use self::entry::Ticks;
pub(crate) use self::family::FamilyTable;
pub use self::fill::BucketFill;
pub use self::known::KnownNode;
use self::room::{give_back, make_room};
use crate::addr::{same_source, subnet_key};
use crate::{Config, Rng, Time};

/// Our own addresses, as far as known: who lives there hears us without any network.
pub(crate) type OwnIps = [Option<IpAddr>; 2];

/// Nodes by distance from our own id.
#[derive(Clone, Debug)]
pub(crate) struct Table<A> {
    own: Id,
    /// In bucket order, farthest bucket first.
    entries: Vec<Entry<A>>,
    bounds: Bounds,
    /// Replacements: nodes that answered when their bucket was full. Few, of all buckets together.
    candidates: Vec<Entry<A>>,
}

/// What became of a node that answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Insertion<A> {
    /// It has an entry, which is refreshed.
    Known,
    /// It has a place now.
    Added,
    /// The bucket is full, or its id lives elsewhere: it is a candidate, and `ping` names the node whose place
    /// is in doubt.
    Candidate {
        /// The most questionable node of the bucket, or who has the id; `None` if all are trusty, or it is
        /// being pinged.
        ping: Option<Contact<A>>,
    },
    /// The address had an entry with another id: that one is gone, and this one has to answer again.
    Evicted,
    /// A diversity rule, or our own id.
    Refused,
}

/// What became of a node that did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It has no entry.
    Unknown,
    /// It stays.
    Kept,
    /// It stays, but somebody waits for its place: ask it once more now.
    PingAgain,
    /// It is gone.
    Removed,
}

impl<A: Address> Table<A> {
    /// An empty table around `own`.
    pub(crate) fn new(own: Id) -> Self {
        Self { own, entries: Vec::new(), bounds: Bounds::default(), candidates: Vec::new() }
    }

    /// Takes in a node that answered one of our queries, if there is room for it.
    pub(crate) fn insert(
        &mut self,
        now: Time,
        contact: Contact<A>,
        rtt: Duration,
        config: &Config,
    ) -> Insertion<A> {
        if contact.id == self.own {
            return Insertion::Refused;
        }
        let known = self.position(&contact.id);
        if let Some(index) = known
            && self.entries[index].addr == contact.addr
        {
            self.entries[index].answered(now, rtt);
            self.bounds.touch(self.depth_of(&contact.id), Ticks::new(now));
            self.drop_candidates(|claim| claim.id == contact.id);
            return Insertion::Known;
        }
        let entry = Entry::new(now, contact, rtt);
        let is_refused = |index| !self.may_claim(now, &entry, index, config);
        if known.is_some_and(is_refused) || self.is_outdone(&entry) {
            return Insertion::Refused;
        }
        let at_source = self.entries.iter().enumerate().find_map(|(index, other)| {
            (Some(index) != known && same_source(other.addr, contact.addr, config)).then_some(index)
        });
        if let Some(index) = at_source {
            if self.entries[index].addr == contact.addr {
                self.remove(index);
                return Insertion::Evicted;
            }
            if self.standing(index, now, config) != Standing::Bad {
                return Insertion::Refused;
            }
            self.remove(index);
        }
        self.drop_candidates(|e| e.id == contact.id || same_source(e.addr, contact.addr, config));
        match self.position(&contact.id) {
            Some(index) => self.claim(now, entry, index, config),
            None => self.place(now, entry, config),
        }
    }

    /// Notes a query from a node; only one that has an entry gains by it. Whether it has one.
    pub(crate) fn heard(&mut self, now: Time, contact: &Contact<A>) -> bool {
        let Some(index) = self.position(&contact.id) else {
            return false;
        };
        let entry = &mut self.entries[index];
        let known = entry.addr == contact.addr;
        if known {
            entry.heard(now);
        }
        known
    }

    /// Notes that the node at `addr` did not answer in time.
    pub(crate) fn failed(&mut self, addr: A, config: &Config) -> Failure {
        self.drop_candidates(|candidate| candidate.addr == addr);
        let Some(index) = self.entries.iter().position(|entry| entry.addr == addr) else {
            return Failure::Unknown;
        };
        let (is_last, successor) = self.next_failure(index, config);
        self.entries[index].failed();
        if is_last {
            let depth = self.depth_of(&self.entries[index].id);
            self.remove(index);
            if let Some(successor) = successor {
                let entry = self.candidates.remove(successor);
                self.add(depth, entry);
            }
            return Failure::Removed;
        }
        if successor.is_some() { Failure::PingAgain } else { Failure::Kept }
    }

    /// Whether one more failure costs the node at `addr` its place.
    pub(crate) fn is_at_its_last(&self, addr: A, config: &Config) -> bool {
        let index = self.entries.iter().position(|entry| entry.addr == addr);
        index.is_some_and(|index| self.next_failure(index, config).0)
    }

    /// Whether the next failure of an entry is its last, and which candidate waits for its place.
    fn next_failure(&self, index: usize, config: &Config) -> (bool, Option<usize>) {
        let entry = &self.entries[index];
        let successor = self.successor(self.depth_of(&entry.id), index, config);
        let fails = entry.fails().saturating_add(1);
        let is_last =
            fails >= config.drop_after_failures || fails >= config.bad_after_failures && successor.is_some();
        (is_last, successor)
    }

    /// That the node at `addr` did not answer says nothing about it: it may be pinged again.
    pub(crate) fn forgive(&mut self, addr: A) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.addr == addr) {
            entry.unmark_pinged();
        }
    }

    /// Forgets all failures: the network went, perhaps while somebody answered still, and all will be
    /// asked anew.
    pub(crate) fn pardon_all(&mut self) {
        self.entries.iter_mut().for_each(Entry::pardon);
    }

    /// Whether the node at `addr` is trusty, if somebody there has a place.
    pub(crate) fn is_trusty_at(&self, now: Time, addr: A, config: &Config) -> Option<bool> {
        let index = self.entries.iter().position(|entry| entry.addr == addr)?;
        Some(self.standing(index, now, config) == Standing::Trusty)
    }

    /// The trusty node that was heard of last, if it is not being pinged and lives at none of our own
    /// addresses; it is marked as pinged.
    pub(crate) fn ping_freshest(&mut self, now: Time, own: OwnIps, config: &Config) -> Option<Contact<A>> {
        let freshest = (0..self.entries.len())
            .filter(|&index| !self.entries[index].is_pinged() && !self.is_at(index, own))
            .filter(|&index| self.standing(index, now, config) == Standing::Trusty)
            .max_by_key(|&index| self.entries[index].seen())?;
        self.entries[freshest].mark_pinged();
        Some(self.entries[freshest].contact())
    }

    /// The node in the whole table that was heard of least recently, before `since`, if it has not
    /// failed and is not being pinged; it is marked as pinged.
    pub(crate) fn ping_unheard_since(&mut self, since: Time) -> Option<Contact<A>> {
        let unheard = |entry: &&mut Entry<A>| {
            entry.seen() < Ticks::new(since) && entry.fails() == 0 && !entry.is_pinged()
        };
        let stalest = self.entries.iter_mut().filter(unheard).min_by_key(|entry| entry.seen())?;
        stalest.mark_pinged();
        Some(stalest.contact())
    }

    /// A node at random, to find out whether anybody answers; it is not marked as pinged.
    pub(crate) fn any(&self, rng: &mut Rng) -> Option<Contact<A>> {
        (!self.entries.is_empty()).then(|| self.entries[rng.below(self.entries.len())].contact())
    }

    /// Removes whoever is at `addr`, where somebody answered as `answered`. Whoever is known under that id
    /// stays: then somebody else lied who named it under another one. Whether anybody went.
    pub(crate) fn evict(&mut self, addr: A, answered: &Id) -> bool {
        let lied = |entry: &Entry<A>| entry.addr == addr && entry.id != *answered;
        self.drop_candidates(lied);
        let index = self.entries.iter().position(lied);
        index.map(|index| self.remove(index)).is_some()
    }

    /// The node in the whole table that was heard of least recently, if it is questionable or failing
    /// and not being pinged; it is marked as pinged.
    pub(crate) fn ping_most_questionable(&mut self, now: Time, config: &Config) -> Option<Contact<A>> {
        let stalest = (0..self.entries.len())
            .filter(|&index| !self.entries[index].is_pinged())
            .filter(|&index| self.standing(index, now, config) != Standing::Trusty)
            .min_by_key(|&index| self.entries[index].seen())?;
        self.entries[stalest].mark_pinged();
        Some(self.entries[stalest].contact())
    }

    /// Takes another id of our own. Everybody moves to the bucket that follows from it; where that one is
    /// too small for all, trusty nodes whose id belongs to their address come first and the rest waits.
    pub(crate) fn rekey(&mut self, now: Time, own: Id, config: &Config) {
        let Self { entries, candidates, .. } = self;
        candidates.retain(|claim| entries.iter().all(|entry| entry.id != claim.id));
        let mut nodes = std::mem::take(&mut self.entries);
        nodes.append(&mut self.candidates);
        nodes.retain(|entry| entry.id != own);
        nodes.sort_by_key(|entry| {
            let standing = entry.standing(now, config.questionable_after, config.bad_after_failures);
            (standing, entry.is_insecure())
        });
        *self = Self::new(own);
        for entry in nodes {
            let depth = self.depth_of(&entry.id);
            self.bounds.reach(depth, self.entries.len(), Ticks::new(now));
            if !self.has_subnet_room(depth, entry.addr, usize::MAX, config) {
                continue;
            }
            if self.is_full(&entry.id, config) {
                self.wait(depth, entry, config);
            } else {
                self.add(depth, entry);
            }
        }
    }

    /// Makes room for so many further nodes and no more.
    #[cfg(feature = "sim")]
    pub(crate) fn reserve_exact(&mut self, nodes: usize) {
        self.entries.reserve_exact(nodes);
    }

    /// Notes that the bucket `number` is being refreshed.
    pub(crate) fn refreshing(&mut self, now: Time, number: u32) {
        self.bounds.touch(depth(number), Ticks::new(now));
    }

    /// Our own id.
    pub(crate) fn own(&self) -> &Id {
        &self.own
    }

    /// Nodes in the buckets.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Buckets down to the deepest that holds a node.
    pub(crate) fn buckets(&self) -> usize {
        self.entries.last().map_or(0, |deepest| self.depth_of(&deepest.id) + 1)
    }

    /// Nodes in the whole network, by how many of them are how near to us; 0 while we know fewer than k.
    pub(crate) fn network_size(&self, config: &Config) -> u64 {
        // The k nearest fill a share of 2^-depth of the key space.
        let depth =
            self.len().checked_sub(config.k).map(|farthest| self.depth_of(&self.entries[farthest].id));
        depth.map_or(0, |depth| (config.k as u64) << depth.min(50))
    }

    /// All entries, farthest bucket first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry<A>> {
        self.entries.iter()
    }

    /// Entries that are trusty.
    pub(crate) fn trusty(&self, now: Time, config: &Config) -> usize {
        (0..self.len()).filter(|&index| self.standing(index, now, config) == Standing::Trusty).count()
    }

    /// Entries that are trusty and live at none of our own addresses.
    pub(crate) fn trusty_elsewhere(&self, now: Time, own: OwnIps, config: &Config) -> usize {
        let trusty = |&index: &usize| self.standing(index, now, config) == Standing::Trusty;
        (0..self.len()).filter(trusty).filter(|&index| !self.is_at(index, own)).count()
    }

    fn is_at(&self, index: usize, own: OwnIps) -> bool {
        own.contains(&Some(self.entries[index].addr.to_socket().ip()))
    }

    /// Entries whose id does not belong to their address (BEP 42).
    pub(crate) fn insecure(&self) -> usize {
        self.entries.iter().filter(|entry| entry.is_insecure()).count()
    }

    /// Whether the bucket of `id` has no room.
    pub(crate) fn is_full(&self, id: &Id, config: &Config) -> bool {
        let depth = self.depth_of(id);
        self.bounds.range(depth, self.len()).len() >= capacity(depth, &config.wide_buckets, config.k)
    }

    /// Whether a stranger would find a place if it answered, so that pinging it makes sense.
    pub(crate) fn wants(&self, now: Time, contact: &Contact<A>, config: &Config) -> bool {
        let depth = self.depth_of(&contact.id);
        // What is cheap and says no most often comes first: in a grown table the bucket is full of
        // trusty nodes.
        contact.id != self.own
            && (!self.is_full(&contact.id, config)
                || self.is_gap(&contact.id, config)
                || self
                    .bounds
                    .range(depth, self.len())
                    .any(|i| self.standing(i, now, config) != Standing::Trusty))
            && !self.entries.iter().any(|entry| same_source(entry.addr, contact.addr, config))
            && self.has_subnet_room(depth, contact.addr, usize::MAX, config)
    }

    /// Whether somebody is known at this very address under another id, so that it may have changed it.
    pub(crate) fn knows_otherwise(&self, contact: &Contact<A>) -> bool {
        self.entries.iter().any(|entry| entry.addr == contact.addr && entry.id != contact.id)
    }

    /// The number of the bucket that should be refreshed first, and when.
    pub(crate) fn next_refresh(&self, config: &Config) -> Option<(u32, Time)> {
        let stalest = (0..self.buckets()).min_by_key(|&depth| self.bounds.changed(depth))?;
        let changed = self.bounds.changed(stalest)?;
        Some((Id::BITS - stalest as u32, changed.time() + config.refresh_after))
    }

    /// Whether bucket `number` changed within [`Config::refresh_after`].
    pub(crate) fn is_fresh(&self, now: Time, number: u32, config: &Config) -> bool {
        self.bounds.changed(depth(number)).is_some_and(|at| now.since(at.time()) < config.refresh_after)
    }

    /// A random id of bucket `number`.
    pub(crate) fn random_id(&self, number: u32, rng: &mut Rng) -> Id {
        bucket::random_id(&self.own, number, rng)
    }

    /// When the node heard of least recently becomes questionable.
    pub(crate) fn next_questionable(&self, config: &Config) -> Option<Time> {
        let pingable = self.entries.iter().filter(|entry| !entry.is_pinged());
        pingable.map(|entry| entry.seen().time() + config.questionable_after).min()
    }

    fn place(&mut self, now: Time, entry: Entry<A>, config: &Config) -> Insertion<A> {
        let depth = self.depth_of(&entry.id);
        if !self.has_subnet_room(depth, entry.addr, usize::MAX, config) {
            return Insertion::Refused;
        }
        self.bounds.reach(depth, self.entries.len(), Ticks::new(now));
        let bucket = self.bounds.range(depth, self.len());
        if bucket.len() >= capacity(depth, &config.wide_buckets, config.k) {
            let leaving = self.replaceable(now, bucket.clone(), &entry, config);
            match leaving.or_else(|| self.surplus(&entry.id, depth, config)) {
                Some(leaving) => self.remove(leaving),
                None => {
                    self.wait(depth, entry, config);
                    return Insertion::Candidate { ping: self.most_questionable(now, bucket, config) };
                }
            }
        }
        self.add(depth, entry);
        self.bounds.touch(depth, Ticks::new(now));
        Insertion::Added
    }

    /// Whoever has to make room for `newcomer` in a full bucket at once: a bad node, or a questionable one
    /// whose id does not belong to its address if that of the newcomer does (BEP 42).
    fn replaceable(
        &self,
        now: Time,
        bucket: Range<usize>,
        newcomer: &Entry<A>,
        config: &Config,
    ) -> Option<usize> {
        let standing = |index| self.standing(index, now, config);
        let bad = bucket.clone().filter(|&index| standing(index) == Standing::Bad);
        bad.max_by_key(|&index| self.entries[index].fails()).or_else(|| {
            let insecure = bucket
                .filter(|&index| !newcomer.is_insecure() && self.entries[index].is_insecure())
                .filter(|&index| standing(index) == Standing::Questionable);
            insecure.min_by_key(|&index| self.entries[index].seen())
        })
    }

    fn most_questionable(&mut self, now: Time, bucket: Range<usize>, config: &Config) -> Option<Contact<A>> {
        let stalest = bucket
            .filter(|&index| !self.entries[index].is_pinged())
            .filter(|&index| self.standing(index, now, config) == Standing::Questionable)
            .min_by_key(|&index| self.entries[index].seen())?;
        self.entries[stalest].mark_pinged();
        Some(self.entries[stalest].contact())
    }

    fn has_subnet_room(&self, depth: usize, addr: A, except: usize, config: &Config) -> bool {
        let subnet = |addr: A| subnet_key(addr.to_socket(), config.allow_local);
        let own = subnet(addr);
        let bucket = self.bounds.range(depth, self.len()).filter(|&index| index != except);
        bucket.filter(|&index| subnet(self.entries[index].addr) == own).count()
            < config.nodes_per_subnet_per_bucket
    }

    fn standing(&self, index: usize, now: Time, config: &Config) -> Standing {
        self.entries[index].standing(now, config.questionable_after, config.bad_after_failures)
    }

    fn position(&self, id: &Id) -> Option<usize> {
        let bucket = self.bounds.range(self.depth_of(id), self.len());
        let start = bucket.start;
        // A single comparison passes over a stranger, and every query asks: eight in a row.
        let same_head = |entry: &Entry<A>| entry.id.distance_head(id) == 0;
        let (eights, rest) = self.entries[bucket].as_chunks::<8>();
        let nobody = |eight: &&[Entry<A>; 8]| !eight.iter().any(same_head);
        let passed = eights.iter().take_while(nobody).count();
        let left = eights[passed..].as_flattened().iter().chain(rest);
        left.into_iter().position(|entry| entry.id == *id).map(|index| start + passed * 8 + index)
    }

    fn add(&mut self, depth: usize, mut entry: Entry<A>) {
        entry.set_claim(false);
        let end = self.bounds.range(depth, self.len()).end;
        make_room(&mut self.entries, room::ENTRIES);
        self.entries.insert(end, entry);
        self.bounds.grew(depth);
    }

    fn remove(&mut self, index: usize) {
        let entry = self.entries.remove(index);
        give_back(&mut self.entries, room::ENTRIES);
        self.bounds.shrank(self.depth_of(&entry.id));
    }

    fn depth_of(&self, id: &Id) -> usize {
        depth(bucket_number(&self.own, id))
    }
}
