//! [`Links`]: what lies between two hosts, as data: how long a datagram takes and whether it arrives. What
//! a host's own line does ([`Access`]) is at either end, the rest between any two.
//!
//! Every decision is a function of the world's seed, the hosts and the number of the datagram, in integer
//! arithmetic, so that it comes out the same on every machine and on any number of threads.

use std::time::Duration;

use super::dice::{Draw, ONE, draw, exp_of, exponential, happens, mix, normal};
use super::nat::Nat;
use crate::Time;

/// Points of the table of round-trip times a deviation.
const STEPS: i64 = 64;
/// The table reaches from minus to plus so many deviations.
const DEVIATIONS: i64 = 5;

/// IP and UDP headers, which count for a line's rate and its MTU (IPv4).
pub(super) const HEADERS: u64 = 28;

/// What lies between hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Links {
    /// Median of the round-trip times of pairs of hosts, which are log-normal.
    pub rtt_median: Duration,
    /// Deviation of their logarithm, in thousandths.
    pub rtt_sigma_permille: u32,
    /// How much of its variance comes from the two hosts, in thousandths, each having half of that: a
    /// host that is far away is so for everybody. The rest belongs to the pair.
    pub rtt_hosts_permille: u32,
    /// No datagram takes less than this one way; at least a microsecond. Threads run apart for so long,
    /// so that a large world needs some milliseconds here.
    pub minimum: Duration,
    /// Mean of the exponential jitter, in thousandths of the time one way.
    pub jitter_permille: u32,
    /// Datagrams lost on the way, one way, in a million.
    pub loss_ppm: u32,
    /// Times in which a host's line loses more.
    pub bursts: Option<Bursts>,
    /// Times in which not everybody reaches everybody.
    pub partitions: Vec<Partition>,
    /// Kinds of lines that hosts are given by their index here; at most 256.
    pub access: Vec<Access>,
}

/// Bursts of loss: time is cut into spans, and in some spans, other ones for each host, its line is bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bursts {
    /// Length of a span; at least a microsecond.
    pub span: Duration,
    /// Bad spans in a million.
    pub share_ppm: u32,
    /// Datagrams that a bad line loses, in a million, either way.
    pub loss_ppm: u32,
}

/// A time in which hosts reach only those of their own side. What was sent before it begins arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// When it begins.
    pub from: Time,
    /// When it has healed.
    pub until: Time,
    /// Who is on which side.
    pub split: Split,
}

/// How hosts fall in two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// The first so many hosts are on one side.
    Below(usize),
    /// So many in a million, drawn by the seed, are on one side.
    SharePpm(u32),
}

/// A host's line to the network. The default one limits nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Access {
    /// From the host to the network.
    pub up: Leg,
    /// From the network to the host.
    pub down: Leg,
    /// The longest IP packet that passes whole, headers included, either way; 0 for no limit.
    pub mtu: u16,
    /// Fragments of longer ones that are lost, in a million, each; a million if none passes.
    pub fragment_loss_ppm: u32,
    /// What translates its addresses.
    pub nat: Option<Nat>,
}

/// One direction of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Leg {
    /// What it adds to the way.
    pub delay: Duration,
    /// Datagrams that it loses, in a million.
    pub loss_ppm: u32,
    /// Bytes a second, headers included; 0 for no limit.
    pub rate: u32,
    /// Bytes that may wait for their turn; what does not fit is dropped.
    pub queue: u32,
}

impl Default for Links {
    /// The network of the lookup benchmarks: a median round trip of 90 ms with a sigma of 0.65, 8 % of
    /// jitter, 3 % loss of queries, either way together.
    fn default() -> Self {
        Self {
            rtt_median: Duration::from_millis(90),
            rtt_sigma_permille: 650,
            rtt_hosts_permille: 500,
            minimum: Duration::from_millis(4),
            jitter_permille: 80,
            loss_ppm: 15_114,
            bursts: None,
            partitions: Vec::new(),
            access: vec![Access::default()],
        }
    }
}

impl Links {
    /// Links on which everything takes the same time one way and nothing is lost.
    pub fn perfect(one_way: Duration) -> Self {
        Self {
            rtt_median: 2 * one_way,
            rtt_sigma_permille: 0,
            minimum: one_way,
            jitter_permille: 0,
            loss_ppm: 0,
            ..Self::default()
        }
    }
}

/// [`Links`] made ready for use.
pub(crate) struct Paths {
    links: Links,
    /// Of hosts whose kind of line is not there.
    plain: Access,
    seed: u64,
    /// Microseconds one way by deviation.
    table: Vec<u32>,
    /// What a host and what the pair adds to the deviation, of [`ONE`].
    weights: (i64, i64),
    minimum: u64,
}

/// Who sends to whom, by the hosts' indices.
#[derive(Clone, Copy)]
pub(crate) struct Pair {
    pub(crate) from: u32,
    pub(crate) to: u32,
}

impl Paths {
    pub(crate) fn new(links: Links, seed: u64) -> Self {
        let median = micros(links.rtt_median / 2);
        let sigma = i64::from(links.rtt_sigma_permille);
        let point = |n| exp_of(median, n * ONE / STEPS * sigma / 1000) as u32;
        let table = (-DEVIATIONS * STEPS..=DEVIATIONS * STEPS).map(point).collect();
        // Variances add up, so that weights are their roots.
        let hosts = links.rtt_hosts_permille.min(1000);
        let root = |variance: u32| (u64::from(variance) * (ONE * ONE) as u64 / 2000).isqrt() as i64;
        let weights = (root(hosts), root(2 * (1000 - hosts)));
        Self { minimum: micros(links.minimum).max(1), plain: Access::default(), table, weights, seed, links }
    }

    /// The least time that a datagram takes, in microseconds.
    pub(super) fn minimum(&self) -> u64 {
        self.minimum
    }

    /// The line of this kind; the default one for kinds that are not there.
    pub(super) fn access(&self, kind: u8) -> &Access {
        self.links.access.get(usize::from(kind)).unwrap_or(&self.plain)
    }

    /// Microseconds that the datagram takes between the two lines; `random` is its own number.
    pub(crate) fn one_way(&self, pair: Pair, random: u64) -> u64 {
        let base = self.base(pair);
        let jitter = u64::from(self.links.jitter_permille) * base / 1000;
        let late = if jitter == 0 { 0 } else { (jitter as u128 * exponential(random) as u128) >> 16 };
        (base + late as u64).max(self.minimum)
    }

    /// Whether the datagram is lost between the two lines.
    pub(super) fn loses(&self, now: Time, pair: Pair, random: u64) -> bool {
        happens(random, self.links.loss_ppm)
            || self.links.bursts.is_some_and(|bursts| {
                (self.is_bad(&bursts, now, pair.from) || self.is_bad(&bursts, now, pair.to))
                    && happens(mix(random), bursts.loss_ppm)
            })
    }

    /// Whether a partition lies between the two.
    pub(super) fn parts(&self, now: Time, pair: Pair) -> bool {
        let lies_between = |partition: &Partition| {
            let side = |host: u32| match partition.split {
                Split::Below(count) => (host as usize) < count,
                Split::SharePpm(ppm) => happens(draw(self.seed, Draw::Side, host.into(), 0), ppm),
            };
            (partition.from..partition.until).contains(&now) && side(pair.from) != side(pair.to)
        };
        self.links.partitions.iter().any(lies_between)
    }

    /// Microseconds one way between two hosts, without jitter; the same in both directions.
    fn base(&self, pair: Pair) -> u64 {
        let of = |host: u32| normal(draw(self.seed, Draw::Host, host.into(), 0));
        let (low, high) = (pair.from.min(pair.to), pair.from.max(pair.to));
        let own = normal(draw(self.seed, Draw::Pair, low.into(), high.into()));
        let (host, whole) = self.weights;
        let deviation = ((of(low) + of(high)) * host + own * whole) >> 16;
        let at = (deviation + DEVIATIONS * ONE).clamp(0, 2 * DEVIATIONS * ONE - 1) * STEPS;
        let (point, part) = ((at >> 16) as usize, at & (ONE - 1));
        let (before, after) = (i64::from(self.table[point]), i64::from(self.table[point + 1]));
        (before + (((after - before) * part) >> 16)) as u64
    }

    fn is_bad(&self, bursts: &Bursts, now: Time, host: u32) -> bool {
        let span = now.as_micros() / micros(bursts.span).max(1);
        happens(draw(self.seed, Draw::Burst, host.into(), span), bursts.share_ppm)
    }
}

impl Access {
    /// Whether a datagram of so many bytes passes the MTU.
    pub(super) fn passes(&self, len: usize, random: u64) -> bool {
        let (mtu, size) = (u64::from(self.mtu), len as u64 + HEADERS);
        if mtu == 0 || size <= mtu {
            return true;
        }
        // Each fragment repeats the IP header.
        let fragments = (size - 20).div_ceil(mtu.saturating_sub(20).max(8));
        let lost = |n| happens(draw(random, Draw::Packet, n, 0), self.fragment_loss_ppm);
        !(0..fragments).any(lost)
    }
}

impl Leg {
    /// When a datagram of so many bytes has passed, if it does; `busy` is until when the line sends what
    /// came before.
    pub(super) fn pass(&self, now: Time, len: usize, busy: &mut Time) -> Option<Time> {
        if self.rate == 0 {
            return Some(now + self.delay);
        }
        let (size, rate) = (len as u64 + HEADERS, u64::from(self.rate));
        let waiting = u128::from(micros(busy.since(now))) * u128::from(rate) / 1_000_000;
        if waiting + u128::from(size) > u128::from(self.queue).max(size.into()) {
            return None;
        }
        *busy = (*busy).max(now) + Duration::from_micros((size * 1_000_000).div_ceil(rate));
        Some(*busy + self.delay)
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}
