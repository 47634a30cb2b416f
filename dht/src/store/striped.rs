//! [`Striped`]: announced peers in several stores, each behind a lock of its own, for a node whose
//! shards all take announces. Which one an infohash belongs to is told by a keyed hash, so that nobody
//! can aim at one.
//!
//! All caps hold for the node: an infohash with its peers lies in one stripe, and they share one budget of
//! memory (see `budget`) and count the infohashes of a source together. Two shards that count at the
//! very same moment may pass that last cap by one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use krpc::Id;

use super::budget::Budget;
use super::sketch::Sketch;
use super::{Lost, Store};
use crate::{Config, KeyedHash, Rng, Time};

/// The peers of a node with shards.
#[derive(Debug)]
pub struct Striped {
    stripes: Box<[Mutex<Store>]>,
    hash: KeyedHash,
    /// Kept here, so that its memory is counted once.
    sketch: Option<Sketch>,
}

impl Striped {
    /// Empty stripes with the caps of `config`: 64, or fewer where there would be less than 64 KiB of
    /// [`Config::store_memory`] for each.
    pub fn new(config: &Config, rng: &mut Rng) -> Self {
        let sketch = (config.infohashes_per_ip != 0).then(|| Sketch::new(config.store_memory, rng));
        let left = config.store_memory.saturating_sub(sketch.as_ref().map_or(0, Sketch::memory));
        // The power of two below it.
        let count = 1 << (left / MIN_STRIPE).clamp(1, MAX_STRIPES).ilog2();
        let config = Arc::new(config.clone());
        let stripe =
            |budget| Mutex::new(Store::stripe(&config, rng, budget, sketch.as_ref().map(Sketch::share)));
        let stripes = Budget::shared(left, count).map(stripe).collect();
        Self { stripes, hash: KeyedHash::new(rng), sketch }
    }

    /// The stripe of `infohash`.
    pub fn stripe(&self, infohash: &Id) -> MutexGuard<'_, Store> {
        let hash = self.hash.hash(infohash.as_bytes());
        lock(&self.stripes[(hash >> 32) as usize & (self.stripes.len() - 1)])
    }

    /// The stripes one by one, each locked while it is looked at.
    pub fn iter(&self) -> impl Iterator<Item = MutexGuard<'_, Store>> {
        self.stripes.iter().map(lock)
    }

    /// How many there are.
    pub(super) fn stripes(&self) -> usize {
        self.stripes.len()
    }

    /// The `n`th stripe.
    pub(super) fn nth(&self, n: usize) -> Option<MutexGuard<'_, Store>> {
        self.stripes.get(n).map(lock)
    }

    /// Peers stored, with expired ones that no sweep has met yet.
    pub fn len(&self) -> usize {
        self.iter().map(|stripe| stripe.len()).sum()
    }

    /// Whether no peer is stored.
    pub fn is_empty(&self) -> bool {
        self.iter().all(|stripe| stripe.is_empty())
    }

    /// Infohashes that have peers.
    pub fn infohashes(&self) -> usize {
        self.iter().map(|stripe| stripe.infohashes()).sum()
    }

    /// Bytes allocated, with what the allocator adds.
    pub fn memory(&self) -> usize {
        let stripes: usize = self.iter().map(|stripe| stripe.memory()).sum();
        stripes + size_of_val(&*self.stripes) + self.sketch.as_ref().map_or(0, Sketch::memory)
    }

    /// Does what is due in every stripe, see [`Store::expire`]; when to call again, a second later at
    /// most: others fill the stripes meanwhile. `lost` is told what went.
    pub fn expire(&self, now: Time, mut lost: impl FnMut(Lost)) -> Time {
        let mut next = now + LOOK_EVERY;
        for mut stripe in self.iter() {
            if stripe.timeout() <= now {
                lost(stripe.expire(now));
            }
            next = next.min(stripe.timeout());
        }
        next
    }

    /// Has a store that holds no infohashes itself tell of those here.
    pub(crate) fn tell_by(&self, now: Time, store: &mut Store, rng: &mut Rng) {
        store.stand_for(now, self.infohashes(), |max| self.sample_infohashes(max, rng));
    }

    /// Up to `max` different infohashes drawn at random (BEP 51, "samples").
    fn sample_infohashes(&self, max: usize, rng: &mut Rng) -> Vec<Id> {
        let counts: Vec<usize> = self.iter().map(|stripe| stripe.infohashes()).collect();
        let total: usize = counts.iter().sum();
        let mut ids: Vec<Id> = Vec::new();
        if total <= 2 * max {
            // Few: all of them, from a random stripe on.
            let start = rng.below(counts.len());
            for n in 0..counts.len() {
                let stripe = lock(&self.stripes[(start + n) % counts.len()]);
                ids.extend(stripe.sample_infohashes(max - ids.len(), rng));
            }
            return ids;
        }
        for _ in 0..4 * max {
            let mut nth = rng.below(total);
            let drawn = counts.iter().position(|&count| {
                let is_here = nth < count;
                nth = nth.saturating_sub(count);
                is_here
            });
            let Some(stripe) = drawn.and_then(|drawn| self.nth(drawn)) else { continue };
            let id = stripe.sample_infohashes(1, rng).pop();
            ids.extend(id.filter(|id| !ids.contains(id)));
            if ids.len() == max {
                break;
            }
        }
        ids
    }
}

/// A panic elsewhere may leave a stripe that has lost some of what it held, which is nobody's harm.
fn lock(stripe: &Mutex<Store>) -> MutexGuard<'_, Store> {
    stripe.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Half of the queries want a stripe, and hold it for a µs: so many make waiting for one rare. With 16, two
/// shards gave a twelfth fewer replies; more than 64 would cost memory, since each has blocks of its
/// own that are not full.
const MAX_STRIPES: usize = 64;

/// A stripe that was smaller would be full before it held its first infohash.
const MIN_STRIPE: usize = 64 << 10;

/// Longest pause between two looks at the stripes.
const LOOK_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::store::{Announced, Archiving, Kept};

    const NOW: Time = Time::from_secs(100_000);

    fn striped(config: &Config) -> Striped {
        Striped::new(config, &mut Rng::from_seed(1))
    }

    fn peer(n: u32) -> SocketAddr {
        let [_, b, c, d] = n.to_be_bytes();
        ([81, b, c, d], 6881).into()
    }

    fn announce(striped: &Striped, infohash: &Id, peer: SocketAddr) -> Announced {
        striped.stripe(infohash).announce(NOW, infohash, peer, false)
    }

    #[test]
    fn an_infohash_is_in_one_stripe_and_many_are_in_all() {
        let (striped, mut rng) = (striped(&Config::default()), Rng::from_seed(2));
        for n in 0..6400 {
            let infohash = rng.id();
            announce(&striped, &infohash, peer(n));
            announce(&striped, &infohash, peer(n + 10_000));
            assert_eq!(
                striped.iter().filter(|s| s.iter(NOW).any(|p| p.infohash == infohash)).count().min(2),
                1
            );
            if n == 20 {
                break;
            }
        }
        for n in 0..6400 {
            announce(&striped, &rng.id(), peer(n));
        }
        let sizes: Vec<usize> = striped.iter().map(|stripe| stripe.infohashes()).collect();
        assert_eq!((sizes.len(), sizes.iter().sum::<usize>()), (64, striped.infohashes()));
        assert!(sizes.iter().all(|size| (50..200).contains(size)), "{sizes:?}");
    }

    #[test]
    fn the_infohashes_of_a_source_are_counted_over_all_stripes() {
        let striped = striped(&Config { infohashes_per_ip: 100, ..Config::default() });
        let mut rng = Rng::from_seed(3);
        let taken = (0..1000).filter(|_| announce(&striped, &rng.id(), peer(1)) == Announced::Stored).count();
        assert_eq!(taken, 100);
        let infohash = rng.id();
        assert!(!striped.stripe(&infohash).accepts_more(&infohash, peer(1).ip()));
        assert!(striped.stripe(&infohash).accepts_more(&infohash, peer(2).ip()));
        // What expires is counted no more: some is swept, and stripes that nobody asked for a whole life
        // forget everything at once.
        let mut now = NOW + Config::default().peer_expiry / 2;
        for n in 0..30 {
            let infohash = rng.id();
            striped.stripe(&infohash).announce(now, &infohash, peer(2 + n), false);
        }
        while !striped.is_empty() {
            now = striped.expire(now, |_| {});
        }
        let announce = |infohash: &Id| striped.stripe(infohash).announce(now, infohash, peer(1), false);
        let taken = (0..1000).filter(|_| announce(&rng.id()) == Announced::Stored).count();
        assert_eq!(taken, 100);
    }

    #[test]
    fn stripes_share_one_budget_of_memory() {
        for budget in [256 << 10, 1 << 20] {
            let config = Config { store_memory: budget, infohashes_per_ip: 0, ..Config::default() };
            let (striped, mut rng) = (striped(&config), Rng::from_seed(4));
            for n in 0..budget as u32 / 8 {
                announce(&striped, &rng.id(), peer(n));
            }
            let used: usize = striped.iter().map(|stripe| stripe.memory()).sum();
            assert!(used <= budget && used > budget / 2, "{used} of {budget}");
        }
    }

    #[test]
    fn what_fits_before_a_restart_fits_after_it() {
        // Some 30 large infohashes a stripe, in other ones after it.
        let config = Config { store_memory: 4 << 20, infohashes_per_ip: 0, ..Config::default() };
        let (before, mut rng) = (striped(&config), Rng::from_seed(6));
        let mut infohash = rng.id();
        for n in 0..600_000 {
            if n % 200 == 0 {
                infohash = rng.id();
            }
            let at = NOW + Duration::from_millis(n.into());
            before.stripe(&infohash).announce(at, &infohash, peer(n), false);
        }
        assert!(before.memory() > config.store_memory * 98 / 100 && before.memory() <= config.store_memory);
        let now = NOW + Duration::from_secs(600);
        let (mut store, after) =
            (Store::new(&Arc::new(config.clone()), &mut rng), Striped::new(&config, &mut rng));
        let empty = Store::new(&Arc::new(config.clone()), &mut rng);
        let (mut archiving, mut is_done) = (Archiving::default(), false);
        while !is_done {
            is_done = Kept::new(&empty, Some(&before)).archive_some(now, &mut archiving);
            after
                .restore(&mut store, now, (&archiving.take_piece(), Duration::ZERO), false)
                .expect("just written");
        }
        assert!(after.memory() <= config.store_memory);
        assert!(after.len() * 1000 >= before.len() * 995, "{} of {}", after.len(), before.len());
    }

    #[test]
    fn shards_that_announce_at_once_keep_to_the_budget() {
        let config = Config { store_memory: 1 << 20, infohashes_per_ip: 0, ..Config::default() };
        let striped = striped(&config);
        std::thread::scope(|scope| {
            for seed in 0..3 {
                let striped = &striped;
                scope.spawn(move || {
                    let mut rng = Rng::from_seed(seed);
                    for n in 0..100_000u32 {
                        let infohash = Id::new([rng.below(200) as u8; 20]);
                        announce(striped, &infohash, peer(n * 3 + seed as u32));
                    }
                });
            }
        });
        let memory = striped.memory() - size_of_val(&*striped.stripes);
        assert!(memory <= config.store_memory && memory > config.store_memory * 9 / 10, "{memory}");
    }

    #[test]
    fn no_stripe_is_smaller_than_is_of_use_unless_it_is_the_only_one() {
        for (budget, stripes) in
            [(0, 1), (MIN_STRIPE, 1), (5 * MIN_STRIPE, 4), (63 * MIN_STRIPE, 32), (1 << 30, 64)]
        {
            let config = Config { store_memory: budget, infohashes_per_ip: 0, ..Config::default() };
            assert_eq!(striped(&config).stripes.len(), stripes, "{budget}");
        }
        // What counts the infohashes of a source is no room for peers.
        for budget in (0..200).map(|n| n * MIN_STRIPE / 3) {
            let striped = striped(&Config { store_memory: budget, ..Config::default() });
            let taken = striped.sketch.as_ref().map_or(0, Sketch::memory);
            let each = budget.saturating_sub(taken) / striped.stripes.len();
            assert!(each >= MIN_STRIPE || striped.stripes.len() == 1, "{each} of {budget}");
        }
    }

    #[test]
    fn samples_are_drawn_from_all_stripes() {
        let (striped, mut rng) = (striped(&Config::default()), Rng::from_seed(5));
        assert!(striped.sample_infohashes(20, &mut rng).is_empty());
        let ids: Vec<Id> = (0..300).map(|_| rng.id()).collect();
        for (n, id) in (0..).zip(&ids) {
            announce(&striped, id, peer(n));
            let drawn = striped.sample_infohashes(20, &mut rng);
            assert_eq!(drawn.len(), 20.min(n as usize + 1));
        }
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..200 {
            seen.extend(striped.sample_infohashes(20, &mut rng));
        }
        assert_eq!(seen.len(), 300, "everybody is drawn sooner or later");
    }
}
