//! [`Archive`]: what is stored, as bytes for the next run, and how it comes back.
//!
//! A copy is made in pieces, so that nobody waits for a store of many megabytes: an infohash that
//! changes its place in memory between two pieces may be missed by that copy (or be in it twice,
//! which does no harm); one made in one go has everything. Where not everything fits, the freshest
//! peers stay.
//!
//! Coming back, each announce is made once more at the time when it was made, oldest first, so that
//! every cap holds as it did; signatures are checked again. A damaged archive is no store at all.

use std::net::SocketAddr;
use std::time::Duration;

use krpc::compact::{Address, V4, V6};
use krpc::{Id, Signed};

use super::Store;
use super::full::{Full, Table};
use super::peers::Peers;
use super::slab::Place;
use crate::Time;
use crate::addr::{Family, SourceKey, acceptable};
use crate::item::{Item, check_signed, check_value, immutable_target, mutable_target};

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

/// An archive that is none: damaged, or written by somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged;

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
                let seconds = whole_seconds(ages.span(ages.age(peer.stamp.tick())));
                out.extend_from_slice(&(seconds | u32::from(peer.stamp.is_seed()) << 31).to_be_bytes());
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

/// A peer as it was archived.
struct ArchivedPeer {
    infohash: Id,
    addr: SocketAddr,
    age: u32,
    seed: bool,
}

/// An item as it was archived.
struct ArchivedItem<'a> {
    age: u32,
    source: SourceKey,
    value: &'a [u8],
    signed: Option<Signed<'a>>,
}

impl ArchivedItem<'_> {
    fn is_valid(&self) -> bool {
        check_value(self.value).is_ok()
            && self.signed.as_ref().is_none_or(|signed| check_signed(signed, self.value).is_ok())
    }

    fn target(&self) -> Id {
        match &self.signed {
            Some(signed) => mutable_target(signed.key, signed.salt),
            None => immutable_target(self.value),
        }
    }
}

/// The tick of some peer of the `n`th run.
fn nth_tick<A: Table>(peers: &Peers<A>, n: usize, draw: usize) -> Option<u16> {
    let peers = peers.peers(peers.runs().nth(n)?);
    peers.get(draw % peers.len().max(1)).map(|peer| peer.stamp.tick())
}

fn put_item(out: &mut Vec<u8>, item: &Item, age: Duration, source: SourceKey) {
    out.push(u8::from(matches!(item, Item::Mutable(_))));
    out.extend_from_slice(&whole_seconds(age).to_be_bytes());
    out.extend_from_slice(&source.to_bytes());
    if let Item::Mutable(item) = item {
        out.extend_from_slice(&item.key);
        out.extend_from_slice(&item.signature);
        out.extend_from_slice(&item.seq.to_be_bytes());
        // At most 64 bytes, as the value is at most 1000.
        out.push(item.salt.len() as u8);
        out.extend_from_slice(&item.salt);
    }
    out.extend_from_slice(&(item.value().len() as u16).to_be_bytes());
    out.extend_from_slice(item.value());
}

fn read_peers<A: Address>(bytes: &[u8], peers: &mut Vec<ArchivedPeer>) -> Result<(), Damaged> {
    let mut bytes = Bytes(bytes);
    while !bytes.0.is_empty() {
        let infohash = Id::new(*bytes.array()?);
        let count = u16::from_be_bytes(*bytes.array()?);
        for _ in 0..count {
            let addr = A::from_wire(bytes.take(A::LEN)?).ok_or(Damaged)?.to_socket();
            let stamp = u32::from_be_bytes(*bytes.array()?);
            peers.push(ArchivedPeer { infohash, addr, age: stamp & !SEED, seed: stamp & SEED != 0 });
        }
    }
    Ok(())
}

fn read_items(bytes: &[u8]) -> Result<Vec<ArchivedItem<'_>>, Damaged> {
    let (mut bytes, mut items) = (Bytes(bytes), Vec::new());
    while !bytes.0.is_empty() {
        let is_mutable = match bytes.array::<1>()? {
            [0] => false,
            [1] => true,
            _ => return Err(Damaged),
        };
        let age = u32::from_be_bytes(*bytes.array()?);
        let source = SourceKey::from_bytes(bytes.array()?);
        let signed = if is_mutable {
            let (key, signature) = (bytes.array()?, bytes.array()?);
            let seq = i64::from_be_bytes(*bytes.array()?);
            let [salt_len] = *bytes.array()?;
            Some(Signed { key, signature, seq, salt: bytes.take(salt_len.into())?, cas: None })
        } else {
            None
        };
        let len = u16::from_be_bytes(*bytes.array()?);
        items.push(ArchivedItem { age, source, value: bytes.take(len.into())?, signed });
    }
    Ok(items)
}

/// Bytes still to be read.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Damaged> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Damaged)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], Damaged> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Damaged)?;
        self.0 = rest;
        Ok(taken)
    }
}

/// Rounded up: an announce must not get younger by being saved again and again.
fn whole_seconds(age: Duration) -> u32 {
    let seconds = age.as_secs() + u64::from(age.subsec_nanos() > 0);
    u32::try_from(seconds).unwrap_or(u32::MAX) & !SEED
}

/// Bit of a stamp: the peer is a seed.
const SEED: u32 = 1 << 31;

/// Bytes before the peers of an infohash, and behind each address.
const HEAD_LEN: usize = Id::LEN + 2;
const STAMP_LEN: usize = 4;

/// Peers and items that one call of [`Store::archive_some`] looks at.
const PEERS_AT_ONCE: usize = 4096;
const ITEMS_AT_ONCE: usize = 64;

/// Peers drawn to find out how old they are.
const SAMPLE: usize = 1024;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::addr::source_key;
    use crate::item::{MutableItem, SecretKey};
    use crate::store::StoredPeer;
    use crate::{Config, Rng};

    const NOW: Time = Time::from_secs(100_000);
    const MINUTE: Duration = Duration::from_secs(60);

    fn store(config: &Config) -> Store {
        Store::new(&Arc::new(config.clone()), &mut Rng::from_seed(1))
    }

    /// Announces of the last 40 minutes from random sources, in order; some infohashes get many.
    fn filled(seed: u64, announces: usize) -> Store {
        let (mut store, mut rng) = (store(&Config::default()), Rng::from_seed(seed));
        let infohashes: Vec<Id> = (0..announces / 4 + 1).map(|_| rng.id()).collect();
        for n in 0..announces {
            let at = NOW - 40 * MINUTE + 40 * MINUTE * n as u32 / announces as u32;
            let of = rng.below(infohashes.len());
            let infohash = infohashes[rng.below(of + 1)];
            let [a, b, c, d] = rng.next_u32().to_be_bytes();
            let port = 1 + rng.below(60_000) as u16;
            let addr = match rng.below(3) {
                0 => ([0x2001, 0xdb8, u16::from(a), u16::from(b), 0, 0, 0, u16::from(c)], port).into(),
                _ => ([80 + (a & 15), b, c, d], port).into(),
            };
            store.announce(at, &infohash, addr, d & 1 == 0);
        }
        store
    }

    fn archived(store: &mut Store, max_bytes: usize) -> Archive {
        let mut archiving = store.begin_archive(NOW, max_bytes);
        while !store.archive_some(NOW, &mut archiving) {}
        archiving.finish()
    }

    fn sorted(store: &Store, now: Time) -> Vec<StoredPeer> {
        let mut all: Vec<_> = store.iter(now).collect();
        all.sort_by_key(|peer| (peer.infohash, peer.addr));
        all
    }

    #[test]
    fn everything_comes_back_with_its_age() {
        let mut before = filled(1, 5000);
        let archive = archived(&mut before, usize::MAX);
        assert_eq!(archive.counts.peers as usize, before.len());
        let mut after = store(&Config::default());
        let counts = after.restore(NOW, &archive, Duration::ZERO, false).unwrap();
        assert_eq!(counts, archive.counts);
        let (old, new) = (sorted(&before, NOW), sorted(&after, NOW));
        assert_eq!(old.len(), new.len());
        for (old, new) in old.iter().zip(&new) {
            assert_eq!((old.infohash, old.addr, old.seed), (new.infohash, new.addr, new.seed));
            // Never younger; a second and two ticks of 2.1 s older at most.
            assert!(new.age >= old.age && new.age <= old.age + Duration::from_secs(6), "{old:?} {new:?}");
        }
        assert_eq!(before.infohashes(), after.infohashes());
        // The sweep goes on from here.
        assert!(after.timeout() <= NOW + 5 * MINUTE);
        let mut now = NOW;
        while now < NOW + 60 * MINUTE {
            now += Duration::from_secs(1);
            after.expire(now);
        }
        assert_eq!((after.len(), after.timeout()), (0, Time::NEVER));
    }

    #[test]
    fn time_away_makes_older_and_expires_and_the_caps_of_today_hold() {
        let mut before = filled(2, 2000);
        let archive = archived(&mut before, usize::MAX);
        let restored = |config: &Config, away| {
            let mut store = store(config);
            let counts = store.restore(NOW, &archive, away, false).unwrap();
            assert_eq!(counts.peers as usize, store.len());
            store
        };
        let later = restored(&Config::default(), 15 * MINUTE);
        let alive = before.iter(NOW).filter(|peer| peer.age < 30 * MINUTE).count();
        assert!(later.len().abs_diff(alive) < 20, "{} of {alive}", later.len());
        let tick = Duration::from_secs(3);
        assert!(later.iter(NOW).all(|peer| peer.age + tick >= 15 * MINUTE && peer.age < 45 * MINUTE));
        assert_eq!(restored(&Config::default(), 45 * MINUTE).len(), 0);
        assert_eq!(restored(&Config::default(), Duration::MAX).len(), 0);
        let few = restored(&Config { peers_per_infohash: 1, ..Config::default() }, Duration::ZERO);
        assert_eq!(few.len(), before.infohashes());
        let small = restored(&Config { store_memory: 20_000, ..Config::default() }, Duration::ZERO);
        assert!(small.memory() <= 20_000 && !small.is_empty());
        // A clock near its origin cannot tell when they were announced.
        let mut young = store(&Config::default());
        young.restore(Time::from_secs(60), &archive, Duration::ZERO, false).unwrap();
        assert!(young.iter(Time::from_secs(60)).all(|peer| peer.age <= MINUTE));
    }

    #[test]
    fn the_freshest_are_kept_when_not_all_fit() {
        let mut before = filled(3, 20_000);
        let whole = archived(&mut before, usize::MAX);
        let half = archived(&mut before, whole.len() / 2);
        assert!(half.len() <= whole.len() / 2);
        let mut after = store(&Config::default());
        after.restore(NOW, &half, Duration::ZERO, false).unwrap();
        let oldest = after.iter(NOW).map(|peer| peer.age).max().unwrap();
        assert!(after.len() * 10 >= before.len() * 3, "{} of {}", after.len(), before.len());
        assert!(oldest < 30 * MINUTE, "{oldest:?}");
        assert_eq!(archived(&mut before, 0).counts, Counts::default());
    }

    #[test]
    fn a_copy_in_pieces_survives_what_happens_between_them() {
        let (mut before, mut rng) = (filled(4, 30_000), Rng::from_seed(4));
        let known: std::collections::BTreeSet<_> =
            before.iter(NOW).map(|peer| (peer.infohash, peer.addr)).collect();
        let mut archiving = before.begin_archive(NOW, usize::MAX);
        let mut pieces = 1;
        while !before.archive_some(NOW, &mut archiving) {
            pieces += 1;
            for _ in 0..20 {
                let addr = ([99, 1, rng.below(256) as u8, rng.below(256) as u8], 7).into();
                let infohash = before.sample_infohashes(1, &mut rng)[0];
                before.announce(NOW, &infohash, addr, false);
            }
        }
        assert!(pieces >= 8, "{pieces}");
        let mut after = store(&Config::default());
        after.restore(NOW, &archiving.finish(), Duration::ZERO, false).unwrap();
        let kept = after.iter(NOW).filter(|peer| known.contains(&(peer.infohash, peer.addr))).count();
        assert!(kept * 100 >= known.len() * 99, "{kept} of {}", known.len());
    }

    #[test]
    fn items_come_back_with_age_and_source_and_forged_ones_do_not() {
        let mut before = store(&Config::default());
        let source = |n: u8| source_key(([81, 2, 3, n], 6881).into(), false);
        let secret = SecretKey::from_seed(&[1; 32]);
        let signed = MutableItem::sign(&secret, b"salt", 4, b"1:a").unwrap();
        let target = mutable_target(&signed.key, b"salt");
        let put = NOW - 30 * MINUTE;
        before.put_item(put, immutable_target(b"5:hello"), source(1), (b"5:hello", None));
        before.put_item(put, target, source(2), (&signed.value, Some(signed.as_signed(None))));
        let archive = archived(&mut before, usize::MAX);
        assert_eq!(archive.counts, Counts { peers: 0, items: 2 });
        let mut after = store(&Config::default());
        assert_eq!(after.restore(NOW, &archive, MINUTE, false), Ok(archive.counts));
        assert_eq!(after.item(NOW, &target), Some(&Item::Mutable(signed.clone())));
        let records: Vec<_> =
            after.filled().items.records(NOW).map(|(_, age, source)| (age, source)).collect();
        assert_eq!(records, [(31 * MINUTE, source(1)), (31 * MINUTE, source(2))]);
        assert_eq!(store(&Config::default()).restore(NOW, &archive, 90 * MINUTE, false).unwrap().items, 0);

        let mut forged = archive.clone();
        let end = forged.items.len();
        forged.items[end - 1] ^= 1;
        let mut after = store(&Config::default());
        assert_eq!(after.restore(NOW, &forged, MINUTE, false).unwrap().items, 1);
        assert!(after.item(NOW, &target).is_none());
    }

    #[test]
    fn addresses_that_are_refused_today_stay_out() {
        let mut before = store(&Config::default());
        before.announce(NOW, &Id::new([1; 20]), "127.0.0.1:7".parse().unwrap(), false);
        before.announce(NOW, &Id::new([1; 20]), "81.2.3.4:7".parse().unwrap(), false);
        let archive = archived(&mut before, usize::MAX);
        for (allow_local, expected) in [(false, 1), (true, 2)] {
            let restored = store(&Config::default()).restore(NOW, &archive, Duration::ZERO, allow_local);
            assert_eq!(restored.unwrap().peers, expected);
        }
    }

    #[test]
    fn an_archive_that_was_cut_is_damaged() {
        let mut before = filled(5, 50);
        before.put_item(
            NOW,
            immutable_target(b"5:hello"),
            source_key(([81, 2, 3, 4], 1).into(), false),
            (b"5:hello", None),
        );
        let archive = archived(&mut before, usize::MAX);
        let last = |bytes: &[u8]| bytes[..bytes.len() - 1].to_vec();
        for cut in [
            Archive { peers4: last(&archive.peers4), ..archive.clone() },
            Archive { peers6: last(&archive.peers6), ..archive.clone() },
            Archive { items: last(&archive.items), ..archive.clone() },
        ] {
            let mut after = store(&Config::default());
            assert_eq!(after.restore(NOW, &cut, Duration::ZERO, false), Err(Damaged));
            assert!(after.is_empty() && after.items() == 0);
        }
    }

    proptest! {
        #[test]
        fn bytes_of_any_kind_neither_panic_nor_exceed_the_caps(
            peers4 in proptest::collection::vec(any::<u8>(), 0..600),
            peers6 in proptest::collection::vec(any::<u8>(), 0..600),
            items in proptest::collection::vec(any::<u8>(), 0..600),
            away in any::<u64>(),
            now in any::<u32>(),
        ) {
            let archive = Archive { peers4, peers6, items, counts: Counts::default() };
            let (mut store, now) = (store(&Config::default()), Time::from_secs(now.into()));
            let before = (store.len(), store.items());
            match store.restore(now, &archive, Duration::from_secs(away), true) {
                Ok(counts) => prop_assert_eq!(counts.peers as usize, store.len()),
                Err(Damaged) => prop_assert_eq!((store.len(), store.items()), before),
            }
            store.expire(now);
        }

        #[test]
        fn what_was_stored_is_what_comes_back(seed in any::<u64>(), announces in 0usize..300) {
            let mut before = filled(seed, announces);
            let archive = archived(&mut before, usize::MAX);
            let mut after = store(&Config::default());
            prop_assert_eq!(after.restore(NOW, &archive, Duration::ZERO, false), Ok(archive.counts));
            let key = |peer: StoredPeer| (peer.infohash, peer.addr, peer.seed);
            let all = |store: &Store| sorted(store, NOW).into_iter().map(key).collect::<Vec<_>>();
            prop_assert_eq!(all(&before), all(&after));
        }
    }
}
