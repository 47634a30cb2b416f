//! [`Remembered`]: the closest nodes that earlier lookups ended at, so that a second lookup of the same
//! target, as every renewed announce is one, starts where the first one arrived. The targets looked for
//! least recently are forgotten when there are too many, all after an hour: many nodes are gone by then.

use std::net::SocketAddr;

use krpc::Id;
use krpc::compact::{self, Address as _, Contact, V4, V6};
use lru::LruCache;

use crate::{Config, KeyedHash, Rng, Time};

/// What is remembered of a target.
#[derive(Debug)]
struct Arrival {
    until: Time,
    /// The closest nodes of both families, as in `nodes` and `nodes6` of a reply: half of what they take
    /// elsewhere.
    nodes: Box<[u8]>,
    nodes6: Box<[u8]>,
}

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
        arrivals.put(target, Arrival::new(now + config.lookups_remembered_for, closest));
        if arrivals.len() > config.lookups_remembered {
            arrivals.pop_lru();
        }
    }

    /// What the last lookup of `target` came to.
    pub(crate) fn of(&self, now: Time, target: &Id) -> impl Iterator<Item = (Id, SocketAddr)> {
        let arrival = self.closest.as_ref().and_then(|closest| closest.peek(target));
        arrival.filter(|arrival| now < arrival.until).into_iter().flat_map(Arrival::closest)
    }
}

impl Arrival {
    fn new(until: Time, closest: &[(Id, SocketAddr)]) -> Self {
        let (mut nodes, mut nodes6) = (Vec::new(), Vec::new());
        for &(id, addr) in closest {
            if let Some(addr) = V4::from_socket(addr) {
                compact::put_node(&mut nodes, &Contact { id, addr });
            } else if let Some(addr) = V6::from_socket(addr) {
                compact::put_node(&mut nodes6, &Contact { id, addr });
            }
        }
        Self { until, nodes: nodes.into(), nodes6: nodes6.into() }
    }

    fn closest(&self) -> impl Iterator<Item = (Id, SocketAddr)> {
        let v4 = compact::nodes::<V4>(&self.nodes).map(|node| (node.id, node.addr.to_socket()));
        v4.chain(compact::nodes::<V6>(&self.nodes6).map(|node| (node.id, node.addr.to_socket())))
    }
}

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
        let node6 = (rng.id(), "[2001:db8::7]:6881".parse().unwrap());
        let now = Time::from_secs(1);
        remembered.note(now, targets[0], &[node], &config);
        remembered.note(now, targets[1], &[node], &config);
        remembered.note(now, targets[0], &[node6, node, node6], &config);
        remembered.note(now, targets[2], &[], &config);
        assert_eq!(targets.map(|target| remembered.of(now, &target).count()), [3, 0, 0]);
        assert!(remembered.of(Time::from_secs(3600), &targets[0]).eq([node, node6, node6]));
        assert_eq!(remembered.of(Time::from_secs(3601), &targets[0]).count(), 0);
    }
}
