//! [`Archive`]: what is stored, as bytes for the next run, and how it comes back.
//!
//! A copy is made in pieces, so that nobody waits for a store of many megabytes: an infohash that
//! changes its place in memory between two pieces may be missed by that copy (or be in it twice,
//! which does no harm); one made in one go has everything. Where not everything fits, the freshest
//! peers stay.
//!
//! Coming back, each announce is made once more at the time when it was made, oldest first, so that
//! every cap holds as it did; signatures are checked again. A damaged archive is no store at all.

mod records;

use std::net::SocketAddr;
use std::time::Duration;

use krpc::Id;
use krpc::compact::{Address, V4, V6};

use self::records::{HEAD_LEN, STAMP_LEN, put_item, put_stamp, read_items, read_peers};
use super::Store;
use super::full::{Full, Table};
use super::peers::Peers;
use super::slab::Place;
use crate::Time;
use crate::addr::{Family, acceptable};

pub use self::records::Damaged;

/// Everything that is stored. Ages count from when the copy was begun.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Archive {
    /// For each infohash its 20 bytes, a u16 that counts its IPv4 peers, and these: compact address
    /// and a u32 of their age in seconds, rounded up, with the top bit set for a seed.
    pub peers4: Vec<u8>,
    /// The same of IPv6 peers.
    pub peers6: Vec<u8>,
    /// Items of BEP 44, least recently used first.
    pub items: Vec<u8>,
    /// What is in it.
    pub counts: Counts,
}

impl Archive {
    /// Bytes of it.
    #[allow(clippy::len_without_is_empty, reason = "an empty archive is one like any other")]
    pub fn len(&self) -> usize {
        self.peers4.len() + self.peers6.len() + self.items.len()
    }
}

/// How much of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Announced peers.
    pub peers: u64,
    /// Items of BEP 44.
    pub items: u64,
}

/// A copy in the making.
#[derive(Debug)]
pub struct Archiving {
    archive: Archive,
    stage: Stage,
    /// Bytes that may still be written.
    room: usize,
    /// Peers of a greater age in ticks are left out.
    max_age: u16,
    /// The store that is being copied, of several: the first, then stripe by stripe.
    part: usize,
    /// Bytes that all stripes together would take.
    striped_len: usize,
    /// Bytes that the whole copy may take.
    max_bytes: usize,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    Items(usize),
    Peers(Family, Option<Place>),
    Done,
}

impl Store {
    /// Begins a copy of everything, of at most `max_bytes`.
    pub fn begin_archive(&self, now: Time, max_bytes: usize) -> Archiving {
        Archiving {
            archive: Archive::default(),
            stage: Stage::Items(0),
            room: max_bytes,
            max_age: self.oldest_that_fits(now, max_bytes),
            part: 0,
            striped_len: 0,
            max_bytes,
        }
    }

    /// Goes on to this store, a stripe, with a copy of others.
    pub(super) fn archive_next(&self, now: Time, archiving: &mut Archiving) {
        archiving.part += 1;
        let (all, max) = (archiving.striped_len, archiving.max_bytes);
        let left = max.saturating_sub(archiving.archive.len());
        let share = self.archive_len() as u128 * max as u128 / all.max(1) as u128;
        archiving.room = if all <= left { left } else { left.min(share as usize) };
        archiving.max_age = self.oldest_that_fits(now, archiving.room);
        archiving.stage = Stage::Peers(Family::V4, None);
    }

    /// Bytes of a copy of all peers, with expired ones that no sweep has met yet.
    pub(super) fn archive_len(&self) -> usize {
        self.full.as_ref().map_or(0, |full| full.archive_len())
    }

    fn oldest_that_fits(&self, now: Time, max_bytes: usize) -> u16 {
        self.full.as_ref().map_or(0, |full| full.oldest_that_fits(now, max_bytes))
    }

    /// Copies some thousand peers, which takes some 50 µs. Call it until it says `true`.
    pub fn archive_some(&self, now: Time, archiving: &mut Archiving) -> bool {
        // What it was begun for may have expired meanwhile.
        let Some(full) = &self.full else {
            archiving.stage = Stage::Done;
            return true;
        };
        match archiving.stage {
            Stage::Items(done) => full.archive_items(now, done, archiving),
            Stage::Peers(Family::V4, from) => full.archive_peers::<V4>(now, from, archiving),
            Stage::Peers(Family::V6, from) => full.archive_peers::<V6>(now, from, archiving),
            Stage::Done => {}
        }
        matches!(archiving.stage, Stage::Done)
    }

    /// Takes back what is in `archive`, begun `away` ago, into a store that is empty; how much was
    /// taken and kept. What has expired meanwhile is left out, as is what the caps of today or `allow_local`
    /// refuse.
    ///
    /// # Errors
    /// [`Damaged`]; nothing was taken then.
    pub fn restore(
        &mut self,
        now: Time,
        archive: &Archive,
        away: Duration,
        allow_local: bool,
    ) -> Result<Counts, Damaged> {
        self.restore_by(now, (archive, away), allow_local, |store, at, infohash, peer, seed| {
            store.announce(at, infohash, peer, seed);
        })?;
        Ok(Counts { peers: self.len() as u64, items: self.items() as u64 })
    }

    /// The same, with peers stored by `announce`.
    pub(super) fn restore_by(
        &mut self,
        now: Time,
        (archive, away): (&Archive, Duration),
        allow_local: bool,
        mut announce: impl FnMut(&mut Self, Time, &Id, SocketAddr, bool),
    ) -> Result<(), Damaged> {
        let mut peers = Vec::new();
        read_peers::<V4>(&archive.peers4, &mut peers)?;
        read_peers::<V6>(&archive.peers6, &mut peers)?;
        let items = read_items(&archive.items)?;
        // Times before the origin cannot be told.
        let oldest = now.since(Time::ZERO);
        let age = |seconds: u32| Duration::from_secs(seconds.into()).saturating_add(away);
        peers.retain(|peer| {
            age(peer.age) < self.config.peer_expiry.min(oldest) && acceptable(peer.addr, allow_local)
        });
        peers.sort_by_key(|peer| std::cmp::Reverse(peer.age));
        for peer in peers {
            announce(self, now - age(peer.age), &peer.infohash, peer.addr, peer.seed);
        }
        let too_many = items.len().saturating_sub(self.config.max_items);
        for item in items.into_iter().skip(too_many) {
            if age(item.age) < self.config.item_expiry.min(oldest) && item.is_valid() {
                let put = (item.value, item.signed);
                self.put_item(now - age(item.age), item.target(), item.source, put);
            }
        }
        Ok(())
    }
}

impl Full {
    fn archive_len(&self) -> usize {
        let of = |runs: usize, peers: usize, len: usize| runs * HEAD_LEN + peers * (len + STAMP_LEN);
        of(self.v4.runs().total(), self.v4.len(), V4::LEN)
            + of(self.v6.runs().total(), self.v6.len(), V6::LEN)
    }

    fn archive_items(&self, now: Time, done: usize, archiving: &mut Archiving) {
        let mut written = 0;
        for (item, age, source) in self.items.records(now).skip(done).take(ITEMS_AT_ONCE) {
            let before = archiving.archive.items.len();
            put_item(&mut archiving.archive.items, item, age, source);
            let len = archiving.archive.items.len() - before;
            if len > archiving.room {
                archiving.archive.items.truncate(before);
                written = 0;
                break;
            }
            archiving.room -= len;
            archiving.archive.counts.items += 1;
            written += 1;
        }
        archiving.stage = if written == ITEMS_AT_ONCE {
            Stage::Items(done + written)
        } else {
            Stage::Peers(Family::V4, None)
        };
    }

    fn archive_peers<A: Table>(&self, now: Time, from: Option<Place>, archiving: &mut Archiving) {
        let (ages, peers) = (self.ages_at(now), A::of(self));
        let mut place = from;
        let mut looked_at = 0;
        while looked_at < PEERS_AT_ONCE {
            place = peers.runs().before(place);
            let Some(run) = place else {
                archiving.stage = match A::FAMILY {
                    Family::V4 => Stage::Peers(Family::V6, None),
                    Family::V6 => Stage::Done,
                };
                return;
            };
            looked_at += 1 + peers.peers(run).len();
            let fresh = peers.peers(run).iter().filter(|peer| {
                !ages.is_expired(peer.stamp) && ages.age(peer.stamp.tick()) <= archiving.max_age
            });
            let fresh: Vec<_> = fresh.collect();
            let len = HEAD_LEN + fresh.len() * (A::LEN + STAMP_LEN);
            if fresh.is_empty() || len > archiving.room {
                continue;
            }
            archiving.room -= len;
            archiving.archive.counts.peers += fresh.len() as u64;
            let out = match A::FAMILY {
                Family::V4 => &mut archiving.archive.peers4,
                Family::V6 => &mut archiving.archive.peers6,
            };
            out.extend_from_slice(peers.runs().head(run).infohash.as_bytes());
            // A run holds fewer than 2^16 peers.
            out.extend_from_slice(&(fresh.len() as u16).to_be_bytes());
            for peer in fresh {
                out.extend_from_slice(peer.addr.as_wire());
                put_stamp(out, ages.span(ages.age(peer.stamp.tick())), peer.stamp.is_seed());
            }
        }
        archiving.stage = Stage::Peers(A::FAMILY, place);
    }

    /// The age in ticks up to which peers fit `max_bytes`, by a sample of them.
    fn oldest_that_fits(&self, now: Time, max_bytes: usize) -> u16 {
        let ages = self.ages_at(now);
        let all = self.archive_len();
        if all <= max_bytes {
            return u16::MAX;
        }
        let (v4, v6) = (self.v4.runs().total(), self.v6.runs().total());
        // Evenly spread over memory, where age is not. Big infohashes count as much as small ones:
        // their peers are about as old.
        let sample = (0..SAMPLE).filter_map(|draw| {
            let n = draw * (v4 + v6) / SAMPLE;
            if n < v4 { nth_tick(&self.v4, n, draw) } else { nth_tick(&self.v6, n - v4, draw) }
        });
        let mut drawn: Vec<u16> = sample.map(|tick| ages.age(tick)).collect();
        drawn.sort_unstable();
        let rank = drawn.len() as u128 * max_bytes as u128 / all.max(1) as u128;
        drawn.get(rank as usize).copied().unwrap_or(0)
    }
}

impl Archiving {
    /// With stripes behind the first store, which take so many bytes together.
    pub(super) fn of_parts(self, striped_len: usize) -> Self {
        Self { striped_len, ..self }
    }

    /// The store that is being copied: 0, or one more than the number of the stripe.
    pub(super) fn part(&self) -> usize {
        self.part
    }

    /// The copy, once [`Store::archive_some`] said that it is whole.
    pub fn finish(self) -> Archive {
        self.archive
    }
}

/// The tick of some peer of the `n`th run.
fn nth_tick<A: Table>(peers: &Peers<A>, n: usize, draw: usize) -> Option<u16> {
    let peers = peers.peers(peers.runs().nth(n)?);
    peers.get(draw % peers.len().max(1)).map(|peer| peer.stamp.tick())
}

/// Peers and items that one call of [`Store::archive_some`] looks at.
const PEERS_AT_ONCE: usize = 4096;
const ITEMS_AT_ONCE: usize = 64;

/// Peers drawn to find out how old they are.
const SAMPLE: usize = 1024;

#[cfg(test)]
mod tests;
