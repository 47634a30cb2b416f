//! [`Nursery`]: what it takes to make a node of a grown network; any number of threads make nodes from it
//! at the same time.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use krpc::Id;

use super::address::Addresses;
use super::link::{Links, Pair, Paths};
use super::topology::{Census, acquaintance};
use crate::secure_id::is_secure;
use crate::{Config, Home, Node, Rng, Seeds, Time};

/// What nodes are made from.
pub(super) struct Nursery {
    seed: u64,
    addresses: Addresses,
    paths: Paths,
    configs: Configs,
}

/// The configurations of nodes; all nodes of a kind share one.
#[derive(Clone, Debug)]
pub(super) struct Configs {
    usual: Arc<Config>,
    /// Of nodes whose id does not belong to their address: they never learn it, or they would take an id
    /// that does.
    careless: Arc<Config>,
}

impl Configs {
    pub(super) fn new(config: &Config) -> Self {
        let careless = Config { address_agreement: usize::MAX, ..config.clone() };
        Self { usual: Arc::new(config.clone()), careless: Arc::new(careless) }
    }

    /// The configuration of the node of that home.
    pub(super) fn of(&self, home: &Home) -> &Arc<Config> {
        if is_secure(&home.id, home.local.ip()) { &self.usual } else { &self.careless }
    }
}

impl Nursery {
    /// What the nodes of a world with that seed and those links are made from.
    pub(super) fn new(seed: u64, links: &Links, configs: Configs) -> Self {
        Self { seed, addresses: Addresses::new(seed), paths: Paths::new(links.clone(), seed), configs }
    }

    /// The nodes with these numbers, whose ids stand at the same places of `ids`, on so many threads.
    pub(super) fn batch(
        &self,
        now: Time,
        (numbers, ids): (Range<usize>, &[Id]),
        census: &Census,
        threads: usize,
    ) -> Vec<Node> {
        let some = |part: Range<usize>| part.map(|n| self.node(now, (n, ids[n]), census)).collect::<Vec<_>>();
        if threads <= 1 {
            return some(numbers);
        }
        let each = numbers.len().div_ceil(threads).max(1);
        std::thread::scope(|scope| {
            let spawn = |first: usize| {
                let part = first..numbers.end.min(first + each);
                scope.spawn(move || some(part))
            };
            let threads: Vec<_> = numbers.clone().step_by(each).map(spawn).collect();
            let joined = threads.into_iter().map(|thread| thread.join());
            joined.flat_map(|nodes| nodes.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
        })
    }

    fn node(&self, now: Time, (number, id): (usize, Id), census: &Census) -> Node {
        let local = self.addresses.v4(number as u32);
        let home = Home { id, local, external: Some(local.ip()), saved: Vec::new() };
        let config = self.configs.of(&home);
        let mut rng = Rng::from_seed(self.seed ^ (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let table = census.table(&id, config, &mut rng);
        let mut known: Vec<_> = table
            .into_iter()
            .map(|member| {
                let pair = Pair { from: number as u32, to: member.number };
                // The greatest random number stands for no jitter.
                let rtt = Duration::from_micros(2 * self.paths.one_way(pair, u64::MAX));
                acquaintance(member, (self.addresses.v4(member.number), rtt), now, config, &mut rng)
            })
            .collect();
        // A bucket changed last when the last of its nodes answered; in any other order most buckets of the
        // world would be due for a refresh at once, which takes it ten minutes to get over.
        known.sort_unstable_by_key(|other| (other.id.prefix_len(&id), other.seen, other.id));
        let seeds = Seeds::from_u64(rng.next_u64());
        Node::grown(Arc::clone(config), home, &known, seeds, now)
    }
}
