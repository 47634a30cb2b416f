//! [`Archive`]: what is stored, as bytes for the next run, and how it comes back.
//!
//! A copy is made in pieces, so that nobody waits for a store of many megabytes and nobody needs room
//! for two of them: an infohash that changes its place in memory between two pieces may be missed by
//! that copy (or be in it twice, which does no harm); one made in one go has everything.
//!
//! Each piece comes back alone: every announce is made once more with the time when it was made, in
//! whatever order they lie, and for none of them goes a fresher one, so that every cap holds as it did;
//! signatures are checked again. A damaged piece is none at all.

mod records;

use std::time::Duration;

use krpc::Id;
use krpc::compact::{Address, V4, V6};

use self::records::{
    ArchivedPeer, HEAD_LEN, MAX_ITEM_LEN, STAMP_LEN, put_item, put_stamp, read_items, read_peers,
};
use super::Store;
use super::full::{Full, Table};
use super::returned::Returned;
use super::slab::{MAX_PEERS, Peer, Place};
use crate::addr::{Family, acceptable};
use crate::{Config, Time};

pub use self::records::Damaged;

/// Everything that is stored. Ages are those at the time of the call that copied them; who counts them from
/// when the copy was begun makes everything older by no more than the copy took, and nothing younger.
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
    pub fn len(&self) -> usize {
        self.peers4.len() + self.peers6.len() + self.items.len()
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Most bytes that a store of `config` comes to: its memory divided into the smallest peers there
    /// are, and as many of the largest items as it may have. A copy of a store that changes meanwhile
    /// may have some of it twice.
    pub fn max_len(config: &Config) -> usize {
        let config = config.lifted();
        let peers = config.store_memory.div_ceil(size_of::<Peer<V4>>()).saturating_mul(V4::LEN + STAMP_LEN);
        peers.saturating_add(config.max_items.saturating_mul(MAX_ITEM_LEN))
    }

    /// Most bytes of one piece.
    pub const MAX_PIECE: usize =
        if MAX_PEERS_PIECE > MAX_ITEMS_PIECE { MAX_PEERS_PIECE } else { MAX_ITEMS_PIECE };
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
    /// The store that is being copied, of several: the first, then stripe by stripe.
    part: usize,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    Items(usize),
    Peers(Family, Option<Place>),
    Done,
}

impl Store {
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

    /// Takes back what is in `archive`, or in one of its pieces, begun `away` ago; how much is stored
    /// then. What has expired meanwhile is left out, as is what the caps of today or `allow_local` refuse.
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
        self.restore_by(now, (archive, away), allow_local, |store, infohash, peers| {
            store.take_back(now, infohash, peers);
        })?;
        Ok(Counts { peers: self.len() as u64, items: self.items() as u64 })
    }

    /// Stores peers of an earlier run; see [`Full::take_back`].
    pub(super) fn take_back(&mut self, now: Time, infohash: &Id, peers: &[Returned]) {
        self.filled().take_back(now, infohash, peers);
    }

    /// The same as [`Store::restore`], with peers stored by `take_back`.
    pub(super) fn restore_by(
        &mut self,
        now: Time,
        (archive, away): (&Archive, Duration),
        allow_local: bool,
        mut take_back: impl FnMut(&mut Self, &Id, &[Returned]),
    ) -> Result<(), Damaged> {
        // Before anything of it is taken.
        read_peers::<V4>(&archive.peers4, |_, _| {})?;
        read_peers::<V6>(&archive.peers6, |_, _| {})?;
        let items = read_items(&archive.items)?;
        // Times before the origin cannot be told.
        let oldest = now.since(Time::ZERO);
        let age = |seconds: u32| Duration::from_secs(seconds.into()).saturating_add(away);
        let peer_expiry = self.config.peer_expiry.min(oldest);
        let returned = |peer: ArchivedPeer| {
            let age = age(peer.age);
            let is_welcome = age < peer_expiry && acceptable(peer.addr, allow_local);
            is_welcome.then(|| Returned { addr: peer.addr, at: now - age, seed: peer.seed })
        };
        let mut all = Vec::new();
        let mut take = |infohash: &Id, peers: &mut dyn Iterator<Item = ArchivedPeer>| {
            all.clear();
            all.extend(peers.filter_map(returned));
            if !all.is_empty() {
                take_back(self, infohash, &all);
            }
        };
        read_peers::<V4>(&archive.peers4, &mut take)?;
        read_peers::<V6>(&archive.peers6, &mut take)?;
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
    fn archive_items(&self, now: Time, done: usize, archiving: &mut Archiving) {
        let mut written = 0;
        for (item, age, source) in self.items.records(now).skip(done).take(ITEMS_AT_ONCE) {
            put_item(&mut archiving.archive.items, item, age, source);
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
            let fresh = || peers.peers(run).iter().filter(|peer| !ages.is_expired(peer.stamp));
            // A run holds fewer than 2^16 peers.
            let count = fresh().count() as u16;
            if count == 0 {
                continue;
            }
            archiving.archive.counts.peers += u64::from(count);
            let out = match A::FAMILY {
                Family::V4 => &mut archiving.archive.peers4,
                Family::V6 => &mut archiving.archive.peers6,
            };
            out.extend_from_slice(peers.runs().head(run).infohash.as_bytes());
            out.extend_from_slice(&count.to_be_bytes());
            for peer in fresh() {
                out.extend_from_slice(peer.addr.as_wire());
                put_stamp(out, ages.span(ages.age(peer.stamp.tick())), peer.stamp.is_seed());
            }
        }
        archiving.stage = Stage::Peers(A::FAMILY, place);
    }
}

impl Default for Archiving {
    fn default() -> Self {
        Self { archive: Archive::default(), stage: Stage::Items(0), part: 0 }
    }
}

impl Archiving {
    /// Goes on to the next store, a stripe, which has peers only.
    pub(super) fn next_part(&mut self) {
        self.part += 1;
        self.stage = Stage::Peers(Family::V4, None);
    }

    /// The store that is being copied: 0, or one more than the number of the stripe.
    pub(super) fn part(&self) -> usize {
        self.part
    }

    /// What was copied since the last piece: [`Archive::MAX_PIECE`] at most, if it is taken after
    /// every call of [`Store::archive_some`].
    pub fn take_piece(&mut self) -> Archive {
        std::mem::take(&mut self.archive)
    }

    /// The copy, once [`Store::archive_some`] said that it is whole: what no piece has had.
    pub fn finish(self) -> Archive {
        self.archive
    }
}

/// Peers and items that one call of [`Store::archive_some`] looks at; it ends with the infohash that
/// passes the number.
const PEERS_AT_ONCE: usize = 4096;
const ITEMS_AT_ONCE: usize = 64;

const MAX_PEERS_PIECE: usize = PEERS_AT_ONCE * HEAD_LEN + (PEERS_AT_ONCE + MAX_PEERS) * (V6::LEN + STAMP_LEN);
const MAX_ITEMS_PIECE: usize = ITEMS_AT_ONCE * MAX_ITEM_LEN;

#[cfg(test)]
mod tests;
