//! [`Network`]: ten million nodes of which only ids and addresses are kept, sorted by id; all else is
//! computed from the seed when somebody asks.
//!
//! Its figures are those of published measurements of Mainline (Jimenez 2009 and 2011, Wang 2013): of the
//! nodes that others know 40 % never answer, three quarters have an id that belongs to their address
//! (BEP 42), round-trip times are log-normal, each node knows k nodes of each bucket.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::ops::Range;
use std::time::Duration;

use btdht::addr::acceptable;
use btdht::secure_id::secure_id;
use btdht::{KeyedHash, Rng};
use krpc::Id;

/// Nodes in a bucket, in a reply, and that store a peer.
pub const K: usize = 8;
/// Nodes that never answer.
const DEAD: f64 = 0.4;
/// Nodes whose id belongs to their address.
const SECURE: f64 = 0.75;
/// Median round-trip time and the sigma of its logarithm.
const RTT_MEDIAN: Duration = Duration::from_millis(90);
const RTT_SIGMA: f64 = 0.65;
/// Mean of the exponential jitter, of the node's round-trip time.
const JITTER: f64 = 0.08;
/// Queries of which either way is lost.
const LOSS: f64 = 0.03;
/// Nodes that the router names to who asks for the first time, those of them that live, and nodes that
/// it names later.
const ROUTER_NODES: usize = 16;
const ROUTER_LIVE: f64 = 0.8;
const ROUTER_NODES_AGAIN: usize = 3;
/// Peers of an infohash, and the chance of each to be stored at each of the nodes closest to it.
const PEERS: u16 = 40;
const STORED: f64 = 0.7;

/// The router's round-trip time.
pub const ROUTER_RTT: Duration = RTT_MEDIAN;

/// Port of every node.
const PORT: u16 = 6881;

/// The index of a node, by id.
pub type Index = usize;

/// Nodes as functions of a seed.
pub struct Network {
    hash: KeyedHash,
    seed: u64,
    /// The first 64 bits of each id, ascending.
    heads: Vec<u64>,
    /// The address of the node of the same index.
    ips: Vec<u32>,
}

/// What is asked of the network's hash: each question is independent of all others.
#[derive(Clone, Copy)]
enum Draw {
    Alive,
    Rtt,
    Bucket,
    Stored,
}

impl Network {
    /// A network of `size` nodes; ten million take four seconds and 160 MB.
    pub fn new(size: usize, seed: u64) -> Self {
        let mut network = Self {
            hash: KeyedHash::new(&mut Rng::from_seed(seed)),
            seed,
            heads: Vec::new(),
            ips: Vec::new(),
        };
        // A bijection of 32-bit numbers, so that no address comes twice.
        let addresses = (0u32..).map(|n| (n ^ seed as u32).wrapping_mul(0x9e37_79b1).rotate_left(13));
        let public = addresses.filter(|&ip| acceptable(SocketAddrV4::new(ip.into(), PORT).into(), false));
        let mut nodes: Vec<_> = public.take(size).map(|ip| (head(&network.id_of(ip)), ip)).collect();
        nodes.sort_unstable();
        (network.heads, network.ips) = nodes.into_iter().unzip();
        network
    }

    /// Nodes, dead ones included.
    pub fn len(&self) -> usize {
        self.heads.len()
    }

    /// Whether it has no nodes.
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// The node's id.
    pub fn id(&self, index: Index) -> Id {
        self.id_of(self.ips[index])
    }

    /// The node's address.
    pub fn addr(&self, index: Index) -> SocketAddr {
        (Ipv4Addr::from(self.ips[index]), PORT).into()
    }

    /// Who lives at `addr`.
    pub fn at(&self, addr: SocketAddr) -> Option<Index> {
        let SocketAddr::V4(addr) = addr else { return None };
        let ip = addr.ip().to_bits();
        let head = head(&self.id_of(ip));
        let mut index = self.heads.partition_point(|&other| other < head);
        while self.heads.get(index) == Some(&head) {
            if self.ips[index] == ip && addr.port() == PORT {
                return Some(index);
            }
            index += 1;
        }
        None
    }

    /// Whether the node ever answers.
    pub fn is_alive(&self, index: Index) -> bool {
        self.fraction(Draw::Alive, self.ips[index].into(), 0) >= DEAD
    }

    /// The node's round-trip time without jitter.
    pub fn rtt(&self, index: Index) -> Duration {
        self.log_normal(self.ips[index].into())
    }

    /// The time that an answer takes after `rtt` in the mean, or `None` when it is lost.
    pub fn delay(rtt: Duration, rng: &mut Rng) -> Option<Duration> {
        (unit(rng.next_u64()) >= LOSS).then(|| rtt.mul_f64(1.0 - JITTER * (1.0 - unit(rng.next_u64())).ln()))
    }

    /// The nodes nearest to `target` that the node knows, at most [`K`], nearest first.
    pub fn answer(&self, index: Index, target: &Id) -> Vec<Index> {
        let own = self.id(index);
        let shared = own.prefix_len(target);
        let mut known = self.bucket(index, &own, shared);
        if known.len() < K {
            // Buckets nearer to the node are all equally far from the target in their first bits.
            let mut depth = shared + 1;
            while self.range(&own, depth).len() > 1 {
                known.extend(self.bucket(index, &own, depth));
                depth += 1;
            }
        }
        let mut depth = shared;
        while known.len() < K && depth > 0 {
            depth -= 1;
            known.extend(self.bucket(index, &own, depth));
        }
        known.sort_by_cached_key(|&node| self.id(node).distance(target));
        known.truncate(K);
        known
    }

    /// The nodes that the router names: more to who asks for the first time.
    pub fn router_answer(&self, is_first: bool, rng: &mut Rng) -> Vec<Index> {
        let mut nodes = Vec::new();
        let count = if is_first { ROUTER_NODES } else { ROUTER_NODES_AGAIN };
        while nodes.len() < count.min(self.len()) {
            let alive = unit(rng.next_u64()) < ROUTER_LIVE;
            let node = rng.below(self.len());
            if self.is_alive(node) == alive && !nodes.contains(&node) {
                nodes.push(node);
            }
        }
        nodes
    }

    /// The `count` living nodes nearest to `target`, nearest first.
    pub fn closest_alive(&self, target: &Id, count: usize) -> Vec<Index> {
        let mut depth = self.len().ilog2() + 1;
        loop {
            let mut alive: Vec<_> = self.range(target, depth).filter(|&node| self.is_alive(node)).collect();
            if alive.len() >= count || depth == 0 {
                alive.sort_by_cached_key(|&node| self.id(node).distance(target));
                alive.truncate(count);
                return alive;
            }
            depth -= 1;
        }
    }

    /// The peers of `infohash` that the node stores; it has to be one of the [`K`] nearest that live.
    pub fn peers(&self, index: Index, infohash: &Id) -> Vec<SocketAddr> {
        let ip = u64::from(self.ips[index]);
        let stored = (0..PEERS)
            .filter(|&n| self.fraction(Draw::Stored, ip, u64::from(n) | head(infohash) & !0xffff) < STORED);
        stored.map(|n| ([185, 10, 7, n as u8], 10_000 + n).into()).collect()
    }

    /// The living nodes of a table around `own` whose buckets have the given capacities, farthest
    /// first, and [`K`] from there on: what a node knows that has been here for long.
    pub fn grown_table(&self, own: &Id, wide: &[usize], rng: &mut Rng) -> Vec<Index> {
        let mut table = Vec::new();
        for depth in 0.. {
            let range = self.bucket_range(own, depth);
            let capacity = wide.get(depth as usize).copied().unwrap_or(K);
            if range.len() <= capacity {
                table.extend(range.filter(|&node| self.is_alive(node)));
                if self.range(own, depth + 1).is_empty() {
                    return table;
                }
                continue;
            }
            let (mut taken, mut tries) = (Vec::new(), 0);
            while taken.len() < capacity && tries < 40 * capacity {
                let node = range.start + rng.below(range.len());
                if self.is_alive(node) && !taken.contains(&node) {
                    taken.push(node);
                }
                tries += 1;
            }
            table.extend(taken);
        }
        table
    }

    /// What the node knows of the ids that share exactly `depth` bits with its own: [`K`] drawn from all.
    fn bucket(&self, index: Index, own: &Id, depth: u32) -> Vec<Index> {
        let range = self.bucket_range(own, depth);
        if range.len() <= K {
            return range.collect();
        }
        let mut nodes = Vec::with_capacity(K);
        let draws = (0..).map(|n| {
            let drawn = self.fraction(Draw::Bucket, self.ips[index].into(), u64::from(depth) << 32 | n);
            range.start + (drawn * range.len() as f64) as usize
        });
        for node in draws {
            if !nodes.contains(&node) {
                nodes.push(node);
                if nodes.len() == K {
                    break;
                }
            }
        }
        nodes
    }

    /// The nodes that share exactly `depth` bits with `own`.
    fn bucket_range(&self, own: &Id, depth: u32) -> Range<Index> {
        self.prefix_range(head(own) ^ 1 << (63 - depth), depth + 1)
    }

    /// The nodes that share at least `depth` bits with `id`.
    fn range(&self, id: &Id, depth: u32) -> Range<Index> {
        self.prefix_range(head(id), depth)
    }

    fn prefix_range(&self, head: u64, bits: u32) -> Range<Index> {
        if bits == 0 {
            return 0..self.len();
        }
        let mask = u64::MAX << (64 - bits);
        let start = self.heads.partition_point(|&other| other < head & mask);
        start..start + self.heads[start..].partition_point(|&other| other & mask == head & mask)
    }

    fn id_of(&self, ip: u32) -> Id {
        let mut rng = Rng::from_seed(self.seed ^ u64::from(ip).wrapping_mul(0x2545_f491_4f6c_dd1d));
        if unit(rng.next_u64()) < SECURE { secure_id(Ipv4Addr::from(ip).into(), &mut rng) } else { rng.id() }
    }

    fn log_normal(&self, of: u64) -> Duration {
        let radius = (-2.0 * (1.0 - self.fraction(Draw::Rtt, of, 0)).ln()).sqrt();
        let normal = radius * (std::f64::consts::TAU * self.fraction(Draw::Rtt, of, 1)).cos();
        RTT_MEDIAN.mul_f64((RTT_SIGMA * normal).exp())
    }

    /// A number from 0 to 1 that belongs to the question.
    fn fraction(&self, draw: Draw, of: u64, n: u64) -> f64 {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&of.to_le_bytes());
        bytes[8..16].copy_from_slice(&n.to_le_bytes());
        bytes[16] = draw as u8;
        unit(self.hash.hash(&bytes))
    }
}

/// The first 64 bits of an id.
fn head(id: &Id) -> u64 {
    id.distance_head(&Id::ZERO)
}

/// A uniform number from 0 to 1, below 1.
fn unit(random: u64) -> f64 {
    (random >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brute(network: &Network, target: &Id) -> Vec<Index> {
        let mut alive: Vec<_> = (0..network.len()).filter(|&node| network.is_alive(node)).collect();
        alive.sort_by_key(|&node| network.id(node).distance(target));
        alive.truncate(K);
        alive
    }

    #[test]
    fn ids_are_sorted_and_found_by_address_and_the_closest_are_the_closest() {
        let network = Network::new(5000, 1);
        let mut rng = Rng::from_seed(2);
        assert!((1..network.len()).all(|node| network.id(node - 1) < network.id(node)));
        for _ in 0..20 {
            let node = rng.below(network.len());
            assert_eq!(network.at(network.addr(node)), Some(node));
            let target = rng.id();
            assert_eq!(network.closest_alive(&target, K), brute(&network, &target));
        }
        assert_eq!(network.at(([1, 2, 3, 4], 6881).into()), None);
    }

    #[test]
    fn shares_are_those_of_the_measured_network() {
        let network = Network::new(20_000, 3);
        let share = |of: &dyn Fn(Index) -> bool| {
            (0..network.len()).filter(|&node| of(node)).count() as f64 / network.len() as f64
        };
        assert!((share(&|n| network.is_alive(n)) - 0.6).abs() < 0.02);
        let secure = |n| btdht::secure_id::is_secure(&network.id(n), network.addr(n).ip());
        assert!((share(&secure) - SECURE).abs() < 0.02);
        // 10 %, half, 90 % and 99 % of the log-normal distribution.
        for (millis, below) in [(39, 0.1), (90, 0.5), (206, 0.9), (409, 0.99)] {
            let fast = share(&|n| network.rtt(n) < Duration::from_millis(millis));
            assert!((fast - below).abs() < 0.02, "{millis} ms: {fast}");
        }
    }

    #[test]
    fn answers_are_the_nearest_of_true_buckets() {
        let network = Network::new(3000, 4);
        let mut rng = Rng::from_seed(5);
        for _ in 0..50 {
            let (node, target) = (rng.below(network.len()), rng.id());
            let own = network.id(node);
            let answer = network.answer(node, &target);
            assert!(answer.len() == K && !answer.contains(&node));
            // Each answer brings us nearer by a bucket, where there is one.
            let shared = own.prefix_len(&target);
            if network.bucket_range(&own, shared).len() >= K {
                assert!(answer.iter().all(|&n| network.id(n).prefix_len(&target) > shared));
            }
            assert!(answer.is_sorted_by_key(|&n| network.id(n).distance(&target)));
        }
    }
}
