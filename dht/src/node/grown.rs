//! A node that starts in the middle of its life, for virtual networks that are not to spend their first
//! hours on growing: its table is full, its neighbourhood found, and its chores lie where they would.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use krpc::Id;

use super::Node;
use crate::table::Insertion;
use crate::{Config, Home, Outbox, Rng, Seeds, Time};

/// Somebody whom a [`Node::grown`] knows when it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acquaintance {
    /// Its id.
    pub id: Id,
    /// Where it lives.
    pub addr: SocketAddr,
    /// The round-trip time of its last answer.
    pub rtt: Duration,
    /// When it answered last.
    pub seen: Time,
}

impl Node {
    /// A node with one home that has run for long and knows whom the table takes of `known`. The rules
    /// of the table hold for them as for anybody. It is quickest farthest bucket first.
    pub fn grown(config: Arc<Config>, home: Home, known: &[Acquaintance], seeds: Seeds, now: Time) -> Self {
        // Nodes that were started together would renew their secrets together.
        let spread = Rng::new(seeds.derive("grown")).below(config.token_rotation.as_millis() as usize);
        let mut node = Self::new(config, vec![home], seeds, now - Duration::from_millis(spread as u64));
        if let Some(place) = node.places.first_mut() {
            place.table.reserve_exact(known.len());
            for &Acquaintance { id, addr, rtt, seen } in known {
                let inserted = place.table.insert(seen, id, addr, rtt, &node.config);
                node.counters.nodes_inserted += u32::from(inserted == Insertion::Added);
            }
        }
        node.maintain.grown(now, &node.config);
        node.settle(now, 0, &Outbox::new());
        node
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secure_id::secure_id;
    use crate::{Event, Outbox};

    /// Ten nodes for each of the first 10 buckets, farthest first, all heard of in the last 15 minutes.
    fn acquaintances(own: &Id, now: Time) -> Vec<Acquaintance> {
        let mut rng = Rng::from_seed(5);
        let mut known = Vec::new();
        for depth in 0..10u8 {
            for n in 0..10u8 {
                let mut id = *rng.id().as_bytes();
                let own = own.as_bytes();
                // The same first bits as ours, and then the other one.
                for bit in 0..=usize::from(depth) {
                    let mask = 0x80 >> (bit % 8);
                    let same = own[bit / 8] & mask;
                    let wanted = if bit == usize::from(depth) { same ^ mask } else { same };
                    id[bit / 8] = id[bit / 8] & !mask | wanted;
                }
                let addr = ([85, depth, n, 1], 6881).into();
                let seen = now - Duration::from_secs(rng.below(900) as u64);
                known.push(Acquaintance { id: Id::new(id), addr, rtt: Duration::from_millis(90), seen });
            }
        }
        known
    }

    fn grown() -> (Node, Time) {
        let now = Time::from_secs(3600);
        let local: SocketAddr = ([81, 2, 69, 142], 6881).into();
        let id = secure_id(local.ip(), &mut Rng::from_seed(1));
        let home = Home { id, local, external: Some(local.ip()), saved: Vec::new() };
        let config = Config { wide_buckets: Vec::new(), ..Config::default() };
        let node = Node::grown(Arc::new(config), home, &acquaintances(&id, now), Seeds::from_u64(1), now);
        (node, now)
    }

    #[test]
    fn grown_node_knows_k_of_each_bucket_and_answers_with_them_at_once() {
        let (node, now) = grown();
        let stats = node.stats(now).remove(0);
        assert_eq!((stats.nodes, stats.buckets, stats.trusty), (80, 10, 80), "{stats:?}");
        // The two that found no place in each bucket wait for one.
        assert_eq!(stats.candidates, 20);
        assert_eq!(node.closest(&Id::ZERO, 8).len(), 8);
        assert!(node.timeout() >= now && node.is_online(0));
    }

    #[test]
    fn grown_node_does_not_bootstrap_or_take_its_age_for_a_sleep_but_pings_whom_it_has_not_heard_of() {
        let (mut node, now) = grown();
        let mut out = Outbox::new();
        let end = now + Duration::from_secs(600);
        while node.timeout() <= end {
            let at = node.timeout();
            node.handle_timeout(at, &mut out);
            assert!(out.events.iter().all(|event| !matches!(event, Event::Bootstrapped { .. })));
            if !out.transmits.is_empty() && node.load().lookups == 0 {
                break;
            }
        }
        assert_eq!(node.counters().network_changes, 0);
        assert_eq!(node.counters().lookups_started, 0);
        // Two thirds of the table turn questionable within ten minutes, the first within seconds.
        assert!(node.timeout() < now + Duration::from_secs(120), "{:?}", node.timeout());
        assert_eq!(out.transmits.len(), 1);
    }
}
