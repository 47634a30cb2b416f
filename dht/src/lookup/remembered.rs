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
    closest: LruCache<Id, Arrival, KeyedHash>,
    max: usize,
}

impl Remembered {
    pub(crate) fn new(config: &Config, rng: &mut Rng) -> Self {
        let closest = LruCache::unbounded_with_hasher(KeyedHash::new(rng));
        Self { closest, max: config.lookups_remembered }
    }

    /// A lookup of `target` came to these.
    pub(crate) fn note(&mut self, now: Time, target: Id, closest: &[(Id, SocketAddr)]) {
        self.closest.put(target, (now + REMEMBERED_FOR, closest.into()));
        if self.closest.len() > self.max {
            self.closest.pop_lru();
        }
    }

    /// What the last lookup of `target` came to.
    pub(crate) fn of(&self, now: Time, target: &Id) -> &[(Id, SocketAddr)] {
        let arrival = self.closest.peek(target).filter(|&&(until, _)| now < until);
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
        let mut remembered = Remembered::new(&config, &mut rng);
        let targets = [rng.id(), rng.id(), rng.id()];
        let node = (rng.id(), SocketAddr::from(([81, 2, 3, 4], 6881)));
        let now = Time::from_secs(1);
        remembered.note(now, targets[0], &[node]);
        remembered.note(now, targets[1], &[node]);
        remembered.note(now, targets[0], &[node, node]);
        remembered.note(now, targets[2], &[]);
        assert_eq!(targets.map(|target| remembered.of(now, &target).len()), [2, 0, 0]);
        assert_eq!(remembered.of(Time::from_secs(3600), &targets[0]), [node, node]);
        assert_eq!(remembered.of(Time::from_secs(3601), &targets[0]), []);
    }
}
