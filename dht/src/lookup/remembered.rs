//! [`Remembered`]: the closest nodes that earlier lookups ended at, so that a second lookup of the same
//! target, as every renewed announce is one, starts where the first one arrived. The targets looked for
//! least recently are forgotten when there are too many.

use std::net::SocketAddr;

use krpc::Id;
use lru::LruCache;

use crate::{Config, KeyedHash, Rng};

/// Targets and the closest nodes that answered, of all families together.
#[derive(Debug)]
pub(crate) struct Remembered {
    closest: LruCache<Id, Box<[(Id, SocketAddr)]>, KeyedHash>,
    max: usize,
}

impl Remembered {
    pub(crate) fn new(config: &Config, rng: &mut Rng) -> Self {
        let closest = LruCache::unbounded_with_hasher(KeyedHash::new(rng));
        Self { closest, max: config.lookups_remembered }
    }

    /// A lookup of `target` came to these.
    pub(crate) fn note(&mut self, target: Id, closest: &[(Id, SocketAddr)]) {
        self.closest.put(target, closest.into());
        if self.closest.len() > self.max {
            self.closest.pop_lru();
        }
    }

    /// What the last lookup of `target` came to.
    pub(crate) fn of(&self, target: &Id) -> &[(Id, SocketAddr)] {
        self.closest.peek(target).map_or(&[], |closest| closest)
    }
}

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
        remembered.note(targets[0], &[node]);
        remembered.note(targets[1], &[node]);
        remembered.note(targets[0], &[node, node]);
        remembered.note(targets[2], &[]);
        assert_eq!(targets.map(|target| remembered.of(&target).len()), [2, 0, 0]);
        assert_eq!(remembered.of(&targets[0]), [node, node]);
    }
}
