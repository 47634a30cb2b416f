//! [`Remembered`]: the closest nodes that earlier lookups ended at, so that a second lookup of the same
//! target, as every renewed announce is one, starts where the first one arrived. The targets looked for
//! least recently are forgotten when there are too many, all after an hour: many nodes are gone by then.

use std::net::SocketAddr;
use std::time::Duration;

use krpc::Id;
use lru::LruCache;

use crate::{Config, KeyedHash, Rng, Time};

/// What is remembered of a target: until when, and the closest nodes of all families together.
type Arrival = (Time, Box<[(Id, SocketAddr)]>);

/// Where lookups arrived, by target.
#[derive(Debug)]
pub(crate) struct Remembered {
    /// Made when there is something to remember.
    closest: Option<Box<LruCache<Id, Arrival, KeyedHash>>>,
    hash: KeyedHash,
}

impl Remembered {
    pub(crate) fn new(rng: &mut Rng) -> Self {
        Self { closest: None, hash: KeyedHash::new(rng) }
    }

    /// A lookup of `target` came to these.
    pub(crate) fn note(&mut self, now: Time, target: Id, closest: &[(Id, SocketAddr)], config: &Config) {
        if config.lookups_remembered == 0 {
            return;
        }
        let hash = self.hash;
        let arrivals = self.closest.get_or_insert_with(|| LruCache::unbounded_with_hasher(hash).into());
        arrivals.put(target, (now + REMEMBERED_FOR, closest.into()));
        if arrivals.len() > config.lookups_remembered {
            arrivals.pop_lru();
        }
    }

    /// What the last lookup of `target` came to.
    pub(crate) fn of(&self, now: Time, target: &Id) -> &[(Id, SocketAddr)] {
        let arrival =
            self.closest.as_ref().and_then(|closest| closest.peek(target)).filter(|&&(until, _)| now < until);
        arrival.map_or(&[], |(_, closest)| closest)
    }
}

/// How long nodes are worth starting from.
const REMEMBERED_FOR: Duration = Duration::from_secs(60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_remembered_until_there_are_too_many() {
        let config = Config { lookups_remembered: 2, ..Config::default() };
        let mut rng = Rng::from_seed(1);
        let mut remembered = Remembered::new(&mut rng);
        let targets = [rng.id(), rng.id(), rng.id()];
        let node = (rng.id(), SocketAddr::from(([81, 2, 3, 4], 6881)));
        let now = Time::from_secs(1);
        remembered.note(now, targets[0], &[node], &config);
        remembered.note(now, targets[1], &[node], &config);
        remembered.note(now, targets[0], &[node, node], &config);
        remembered.note(now, targets[2], &[], &config);
        assert_eq!(targets.map(|target| remembered.of(now, &target).len()), [2, 0, 0]);
        assert_eq!(remembered.of(Time::from_secs(3600), &targets[0]), [node, node]);
        assert_eq!(remembered.of(Time::from_secs(3601), &targets[0]), []);
    }
}
