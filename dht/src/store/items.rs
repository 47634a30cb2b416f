//! [`Items`]: the items of BEP 44 that others put here, immutable and mutable ones, under their caps:
//! so many in all, so many of a source, [`Config::item_expiry`] after the last put. The one that was
//! asked for or put least recently goes when there are too many (D11).
//!
//! An item takes at most 1,000 bytes of value and 200 of the rest, so that 1,000 of them stay within
//! 1.2 MB. Nothing is allocated before the first put.

use std::time::Duration;

use krpc::{Id, Signed};
use lru::LruCache;

use crate::addr::SourceKey;
use crate::item::{Item, MutableItem};
use crate::{Config, KeyedHash, Rng, Time};

/// The items of a node.
#[derive(Debug)]
pub(crate) struct Items {
    /// Made by the first put.
    stored: Option<Box<LruCache<Id, Stored, KeyedHash>>>,
    hash: KeyedHash,
    next_sweep: Time,
    max: usize,
    per_source: usize,
    expiry: Duration,
    /// How many have gone by time and for others, since somebody asked.
    lost: (u32, u32),
}

#[derive(Debug)]
struct Stored {
    item: Item,
    put: Time,
    /// Who put it last.
    source: SourceKey,
}

/// What became of a put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Put {
    /// It is stored, in place of an older one if there was one.
    Stored,
    /// The same item was stored already; its age starts anew.
    Refreshed,
    /// `cas` is not the sequence number that is stored (error 301).
    CasMismatch,
    /// What is stored is newer, or has the same number and another value (error 302).
    NotNewer,
    /// Its source has put as many as it may (error 202).
    TooMany,
}

impl Items {
    pub(crate) fn new(config: &Config, rng: &mut Rng) -> Self {
        Self {
            stored: None,
            hash: KeyedHash::new(rng),
            next_sweep: Time::NEVER,
            max: config.max_items,
            per_source: config.items_per_ip,
            expiry: config.item_expiry,
            lost: (0, 0),
        }
    }

    /// The item under `target`; it counts as used.
    pub(crate) fn get(&mut self, now: Time, target: &Id) -> Option<&Item> {
        let stored = self.stored.as_mut()?.get(target)?;
        (now.since(stored.put) < self.expiry).then_some(&stored.item)
    }

    /// What a put would come to, as far as numbers decide. Verify the signature if it is `None`, and
    /// then [`Items::put`] it.
    pub(crate) fn objection(
        &self,
        now: Time,
        target: &Id,
        value: &[u8],
        signed: Option<&Signed<'_>>,
    ) -> Option<Put> {
        let (signed, stored) = (signed?, self.stored.as_ref()?.peek(target)?);
        let Item::Mutable(item) = &stored.item else { return None };
        if now.since(stored.put) >= self.expiry {
            None
        } else if signed.cas.is_some_and(|cas| cas != item.seq) {
            Some(Put::CasMismatch)
        } else if signed.seq < item.seq || signed.seq == item.seq && value != item.value {
            Some(Put::NotNewer)
        } else {
            None
        }
    }

    /// Stores an item that was found good, signature included.
    pub(crate) fn put(
        &mut self,
        now: Time,
        target: Id,
        source: SourceKey,
        (value, signed): (&[u8], Option<Signed<'_>>),
    ) -> Put {
        let hash = self.hash;
        let items = self.stored.get_or_insert_with(|| LruCache::unbounded_with_hasher(hash).into());
        if let Some(stored) = items.get_mut(&target)
            && stored.item.value() == value
            && stored.item.seq() == signed.map(|signed| signed.seq)
        {
            stored.put = now;
            return Put::Refreshed;
        }
        let of_source = items.iter().filter(|(_, stored)| stored.source == source).count();
        if of_source >= self.per_source && !items.contains(&target) {
            return Put::TooMany;
        }
        let item = match signed {
            None => Item::Immutable { value: value.into() },
            Some(Signed { key, signature, seq, salt, cas: _ }) => Item::Mutable(MutableItem {
                key: *key,
                salt: salt.into(),
                seq,
                value: value.into(),
                signature: *signature,
            }),
        };
        if items.is_empty() {
            self.next_sweep = now + self.expiry / SWEEPS;
        }
        items.put(target, Stored { item, put: now, source });
        while items.len() > self.max.max(1) {
            items.pop_lru();
            self.lost.1 += 1;
        }
        Put::Stored
    }

    /// Removes what has expired, when [`Items::timeout`] is due.
    pub(crate) fn expire(&mut self, now: Time) {
        if now < self.next_sweep {
            return;
        }
        let old = |(_, stored): &(&Id, &Stored)| now.since(stored.put) >= self.expiry;
        let Some(items) = &mut self.stored else { return };
        let expired: Vec<Id> = items.iter().filter(old).map(|(target, _)| *target).collect();
        self.lost.0 += expired.len() as u32;
        for target in expired {
            items.pop(&target);
        }
        if items.is_empty() {
            (self.stored, self.next_sweep) = (None, Time::NEVER);
        } else {
            self.next_sweep = now + self.expiry / SWEEPS;
        }
    }

    /// Items that expired and that were evicted since the last call.
    pub(super) fn take_lost(&mut self) -> (u32, u32) {
        std::mem::take(&mut self.lost)
    }

    pub(crate) fn timeout(&self) -> Time {
        self.next_sweep
    }

    pub(crate) fn len(&self) -> usize {
        self.stored.as_ref().map_or(0, |items| items.len())
    }

    /// Every item that has not expired, least recently used first, with its age.
    pub(crate) fn iter(&self, now: Time) -> impl Iterator<Item = (&Item, Duration)> {
        let aged = self.all().map(move |(_, stored)| (&stored.item, now.since(stored.put)));
        aged.filter(|(_, age)| *age < self.expiry)
    }

    /// Like [`Items::iter`], with who put it last.
    pub(super) fn records(&self, now: Time) -> impl Iterator<Item = (&Item, Duration, SourceKey)> {
        let aged = self.all();
        let aged = aged.map(move |(_, stored)| (&stored.item, now.since(stored.put), stored.source));
        aged.filter(|(_, age, _)| *age < self.expiry)
    }

    /// Least recently used first.
    fn all(&self) -> impl Iterator<Item = (&Id, &Stored)> {
        self.stored.iter().flat_map(|items| items.iter().rev())
    }
}

/// Sweeps in the life of an item.
const SWEEPS: u32 = 24;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::source_key;
    use crate::item::{SecretKey, immutable_target, mutable_target};

    const NOW: Time = Time::from_secs(100);

    fn items(config: &Config) -> Items {
        Items::new(config, &mut Rng::from_seed(1))
    }

    fn source(n: u8) -> SourceKey {
        source_key(([81, 2, 3, n], 6881).into(), false)
    }

    fn put_value(items: &mut Items, now: Time, from: u8, n: u32) -> Put {
        let value = format!("i{n}e").into_bytes();
        items.put(now, immutable_target(&value), source(from), (&value, None))
    }

    fn version(seq: i64, value: &[u8]) -> MutableItem {
        MutableItem::sign(&SecretKey::from_seed(&[1; 32]), b"", seq, value).unwrap()
    }

    /// What the responder does.
    fn put_version(items: &mut Items, item: &MutableItem, cas: Option<i64>) -> Put {
        let (target, signed) = (mutable_target(&item.key, b""), item.as_signed(cas));
        match items.objection(NOW, &target, &item.value, Some(&signed)) {
            Some(objection) => objection,
            None => items.put(NOW, target, source(1), (&item.value, Some(signed))),
        }
    }

    #[test]
    fn sequence_numbers_only_grow_and_the_same_number_takes_the_same_value() {
        let mut items = items(&Config::default());
        let target = mutable_target(&version(1, b"1:a").key, b"");
        assert_eq!(put_version(&mut items, &version(4, b"1:a"), None), Put::Stored);
        assert_eq!(put_version(&mut items, &version(3, b"1:b"), None), Put::NotNewer);
        assert_eq!(put_version(&mut items, &version(4, b"1:b"), None), Put::NotNewer);
        assert_eq!(put_version(&mut items, &version(4, b"1:a"), None), Put::Refreshed);
        assert_eq!(put_version(&mut items, &version(5, b"1:b"), None), Put::Stored);
        assert_eq!(items.get(NOW, &target), Some(&Item::Mutable(version(5, b"1:b"))));
    }

    #[test]
    fn cas_is_compared_with_what_is_stored_and_ignored_where_nothing_is() {
        let mut items = items(&Config::default());
        assert_eq!(put_version(&mut items, &version(4, b"1:a"), Some(77)), Put::Stored);
        assert_eq!(put_version(&mut items, &version(5, b"1:b"), Some(3)), Put::CasMismatch);
        assert_eq!(put_version(&mut items, &version(5, b"1:b"), Some(5)), Put::CasMismatch);
        assert_eq!(put_version(&mut items, &version(5, b"1:b"), Some(4)), Put::Stored);
    }

    #[test]
    fn items_expire_two_hours_after_the_last_put() {
        let mut items = items(&Config::default());
        assert_eq!(items.timeout(), Time::NEVER);
        put_value(&mut items, NOW, 1, 1);
        put_value(&mut items, NOW, 1, 2);
        let later = NOW + Duration::from_secs(3600);
        assert_eq!(put_value(&mut items, later, 1, 1), Put::Refreshed);
        let end = NOW + Duration::from_secs(7200);
        assert!(items.get(end, &immutable_target(b"i1e")).is_some());
        assert!(items.get(end, &immutable_target(b"i2e")).is_none(), "before any sweep");
        items.expire(end);
        assert_eq!((items.len(), items.iter(end).count()), (1, 1));
        items.expire(end + Duration::from_secs(7200));
        assert_eq!((items.len(), items.timeout()), (0, Time::NEVER));
    }

    #[test]
    fn the_least_recently_used_goes_when_there_are_too_many() {
        let mut items = items(&Config { max_items: 3, ..Config::default() });
        (1..=3).for_each(|n| assert_eq!(put_value(&mut items, NOW, n as u8, n), Put::Stored));
        assert!(items.get(NOW, &immutable_target(b"i1e")).is_some());
        put_value(&mut items, NOW, 4, 4);
        let kept =
            [1, 2, 3, 4].map(|n| items.get(NOW, &immutable_target(format!("i{n}e").as_bytes())).is_some());
        assert_eq!(kept, [true, false, true, true]);
    }

    #[test]
    fn a_source_has_its_share_and_no_more() {
        let mut items = items(&Config { items_per_ip: 2, ..Config::default() });
        let put: Vec<_> = (1..=3).map(|n| put_value(&mut items, NOW, 1, n)).collect();
        assert_eq!(put, [Put::Stored, Put::Stored, Put::TooMany]);
        assert_eq!(put_value(&mut items, NOW, 1, 2), Put::Refreshed);
        assert_eq!(put_value(&mut items, NOW, 2, 3), Put::Stored);
    }
}
