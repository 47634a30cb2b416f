//! [`Sampled`]: which nodes told samples lately, so that none is asked again within its interval
//! (BEP 51). The node asked least recently is forgotten when there are too many.

use std::net::SocketAddr;

use lru::LruCache;

use crate::{Config, KeyedHash, Rng, Time};

/// Nodes and when they may be asked again.
#[derive(Debug)]
pub(crate) struct Sampled {
    /// Made with the first node that told samples.
    until: Option<Box<LruCache<SocketAddr, Time, KeyedHash>>>,
    hash: KeyedHash,
}

impl Sampled {
    pub(crate) fn new(rng: &mut Rng) -> Self {
        Self { until: None, hash: KeyedHash::new(rng) }
    }

    /// `node` wants to be left alone until then.
    pub(crate) fn note(&mut self, node: SocketAddr, until: Time, config: &Config) {
        let hash = self.hash;
        let nodes = self.until.get_or_insert_with(|| LruCache::unbounded_with_hasher(hash).into());
        nodes.put(node, until);
        if nodes.len() > config.sampled_nodes.max(1) {
            nodes.pop_lru();
        }
    }

    /// Whether `node` wants to be left alone.
    pub(crate) fn rests(&self, now: Time, node: SocketAddr) -> bool {
        self.until.as_ref().and_then(|nodes| nodes.peek(&node)).is_some_and(|&until| until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_rest_for_their_interval_and_the_oldest_are_forgotten() {
        let config = Config { sampled_nodes: 2, ..Config::default() };
        let mut sampled = Sampled::new(&mut Rng::from_seed(1));
        let addr = |n: u8| SocketAddr::from(([81, 2, 3, n], 6881));
        for n in 1..=3 {
            sampled.note(addr(n), Time::from_secs(100), &config);
        }
        let rests = |now| [1, 2, 3].map(|n| sampled.rests(Time::from_secs(now), addr(n)));
        assert_eq!(rests(99), [false, true, true]);
        assert_eq!(rests(100), [false; 3]);
    }
}
