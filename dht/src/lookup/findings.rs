//! [`Findings`]: what the answers of a lookup bring beside nodes: peers, an item, filters, samples.
//!
//! All of it is a stranger's word. Peers pass [`Peers`]; an item counts if it hashes to the target and
//! its signature is right; filters are judged beside one another ([`estimate`]).

use std::net::SocketAddr;
use std::time::Duration;

use krpc::bloom::Bloom;
use krpc::compact;
use krpc::{Id, Response};

use super::kind::Interest;
use super::peers::Peers;
use crate::item::{InvalidItem, Item};
use crate::{Config, Event, LookupId, SwarmEstimate};

/// What one lookup has found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    peers: Peers,
    /// The newest version of the item, of those that are wanted.
    item: Option<Item>,
    /// Whether another item of the same number has been told.
    is_tied: bool,
    /// Filters over seeds and downloaders, a pair for each node that sent them.
    filters: Vec<(Bloom, Bloom)>,
}

/// What one answer brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Brought {
    /// Peers that are new.
    pub(crate) peers: u16,
    /// The sequence number of the item that the node has; 0 for an immutable one.
    pub(crate) held: Option<i64>,
    /// For how long the node's samples stay the same.
    pub(crate) rest: Option<Duration>,
}

impl Findings {
    /// Takes what an answer from `node` brings to a lookup for `target`; what is new is told in
    /// `events`.
    ///
    /// # Errors
    /// The node sent an item that is none: nothing it says is worth anything.
    pub(crate) fn take(
        &mut self,
        (lookup, target, interest): (LookupId, &Id, Interest<'_>),
        node: SocketAddr,
        response: &Response<'_>,
        config: &Config,
        events: &mut Vec<Event>,
    ) -> Result<Brought, InvalidItem> {
        let mut brought = Brought::default();
        match interest {
            Interest::Nodes => {}
            Interest::Peers => brought.peers = self.take_peers(lookup, node, response, config, events),
            Interest::Filters => self.take_filters(response, config),
            Interest::Samples => {
                if let Some(event) = samples(lookup, node, response) {
                    if let Event::Samples { interval, .. } = event {
                        brought.rest = Some(Duration::from_secs(interval.into()));
                    }
                    events.push(event);
                }
            }
            Interest::Item { salt, newer_than } => {
                let item = Item::from_response(target, salt, response)?;
                brought.held = response.seq.or_else(|| item.as_ref().map(|_| 0));
                // Nodes may send what they have whatever number they were told (BEP 44, "get message": they
                // SHOULD NOT), which makes nobody a liar.
                let is_newer = |item: &Item| match &self.item {
                    Some(best) => item.seq() > best.seq(),
                    None => newer_than.is_none() || item.seq() > newer_than,
                };
                let is_newer = item.as_ref().is_some_and(is_newer);
                if let Some(item) = item.filter(|item| is_newer || self.ties(item)) {
                    self.is_tied = !is_newer;
                    if is_newer {
                        self.item = Some(item.clone());
                    }
                    events.push(Event::Item { lookup, node, item: Box::new(item) });
                }
            }
        }
        Ok(brought)
    }

    /// Peers found.
    pub(crate) fn peers(&self) -> usize {
        self.peers.len()
    }

    /// Whether there is an item.
    pub(crate) fn has_item(&self) -> bool {
        self.item.is_some()
    }

    /// What the filters come to.
    pub(crate) fn estimate(&self) -> SwarmEstimate {
        estimate(&self.filters)
    }

    /// Whether `item` shows that two writers took the number of the newest version. Once is enough, however
    /// many they are: one of two is another one than any writer's own.
    fn ties(&self, item: &Item) -> bool {
        let same_number = |best: &Item| best.seq() == item.seq() && best.value() != item.value();
        !self.is_tied && self.item.as_ref().is_some_and(same_number)
    }

    fn take_peers(
        &mut self,
        lookup: LookupId,
        node: SocketAddr,
        response: &Response<'_>,
        config: &Config,
        events: &mut Vec<Event>,
    ) -> u16 {
        let mut new = 0;
        let values = response.values.unwrap_or_default();
        for addr in values.iter().take(config.lookup_values_per_reply).filter_map(compact::peer) {
            if self.peers.insert(addr, config) {
                new += 1;
                events.push(Event::Peer { lookup, addr, node });
            }
        }
        new
    }

    fn take_filters(&mut self, response: &Response<'_>, config: &Config) {
        let filter = |bytes: Option<&[u8]>| bytes.and_then(Bloom::from_slice);
        let (seeds, downloaders) = (filter(response.bloom_seeds), filter(response.bloom_peers));
        if (seeds.is_some() || downloaders.is_some()) && self.filters.len() < config.lookup_max_filters {
            self.filters.push((seeds.unwrap_or_default(), downloaders.unwrap_or_default()));
        }
    }
}

/// Merges filters (BEP 33): an address that several nodes have counts once. A node whose filter says
/// more than [`OUTLIER`] times what the median node's does is left out, or one liar with a full filter
/// would decide the number; so is nobody when few answer, for then there is no median to speak of.
pub(crate) fn estimate(filters: &[(Bloom, Bloom)]) -> SwarmEstimate {
    let sizes: Vec<f64> = filters.iter().map(|(seeds, peers)| seeds.estimate() + peers.estimate()).collect();
    let mut sorted: Vec<f64> = sizes.iter().copied().filter(|&size| size > 0.0).collect();
    sorted.sort_by(f64::total_cmp);
    let most = match sorted.get((sorted.len().max(1) - 1) / 2) {
        Some(median) if sorted.len() >= 3 => median * OUTLIER + OUTLIER,
        _ => f64::INFINITY,
    };
    let (mut seeds, mut downloaders) = (Bloom::new(), Bloom::new());
    let mut used = 0;
    for ((of_seeds, of_downloaders), size) in filters.iter().zip(sizes) {
        if size <= most {
            seeds.union(of_seeds);
            downloaders.union(of_downloaders);
            used += 1;
        }
    }
    SwarmEstimate {
        seeds: seeds.estimate().round() as u32,
        downloaders: downloaders.estimate().round() as u32,
        nodes: used,
        ignored: filters.len() as u32 - used,
    }
}

/// What an answer tells of the infohashes that a node stores (BEP 51).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Told {
    /// A choice of them.
    pub(crate) samples: Vec<Id>,
    /// How many it stores in all, by its own word.
    pub(crate) num: u64,
    /// Seconds for which the choice stays the same, at most six hours.
    pub(crate) interval: u32,
}

/// The samples of an answer, if it has any that are whole.
pub(crate) fn told_samples(response: &Response<'_>) -> Option<Told> {
    let raw = response.samples.filter(|raw| raw.len() % Id::LEN == 0)?;
    let samples = raw.chunks_exact(Id::LEN).filter_map(Id::from_slice).collect();
    // BEP 51: at most six hours; a stranger's number that makes no sense is the longest.
    let interval = response.interval.unwrap_or(0).clamp(0, MAX_INTERVAL) as u32;
    let num = response.num.unwrap_or(0).max(0) as u64;
    Some(Told { samples, num, interval })
}

/// The samples of an answer as they are told.
fn samples(lookup: LookupId, node: SocketAddr, response: &Response<'_>) -> Option<Event> {
    let Told { samples, num, interval } = told_samples(response)?;
    Some(Event::Samples { lookup, node, samples, num, interval })
}

/// Times the median node's estimate beyond which a filter is not believed. The eight nodes closest to
/// an infohash see the same announces but for losses and churn: within a factor of two or three.
const OUTLIER: f64 = 8.0;

/// Seconds (BEP 51: 21600).
const MAX_INTERVAL: i64 = 21_600;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::item::{MutableItem, SecretKey, mutable_target};

    fn filter(range: std::ops::Range<u32>) -> Bloom {
        let mut bloom = Bloom::new();
        range.for_each(|n| bloom.insert(Ipv4Addr::from_bits(0x5100_0000 + n * 7).into()));
        bloom
    }

    #[test]
    fn filters_of_many_nodes_count_each_address_once() {
        let filters: Vec<_> = (0..8).map(|n| (filter(n * 5..60), filter(1000 + n * 10..1500))).collect();
        let merged = estimate(&filters);
        assert!((56..=64).contains(&merged.seeds), "{merged:?}");
        assert!((470..=530).contains(&merged.downloaders), "{merged:?}");
        assert_eq!((merged.nodes, merged.ignored), (8, 0));
        let mut backwards = filters.clone();
        backwards.reverse();
        assert_eq!(estimate(&backwards), merged);
    }

    #[test]
    fn a_full_filter_among_honest_ones_is_left_out() {
        let full = Bloom::from_slice(&[0xff; 256]).unwrap();
        let mut filters = vec![(filter(0..40), filter(50..90)); 5];
        filters.extend([(full.clone(), full.clone()), (Bloom::new(), full.clone())]);
        let merged = estimate(&filters);
        assert_eq!((merged.nodes, merged.ignored), (5, 2));
        assert!((37..=43).contains(&merged.seeds) && (37..=43).contains(&merged.downloaders), "{merged:?}");
        // Nodes that have nothing do not make the others liars.
        let empty = (Bloom::new(), Bloom::new());
        let merged = estimate(&[empty.clone(), empty.clone(), empty, (filter(0..40), filter(0..0))]);
        assert_eq!((merged.nodes, merged.ignored), (4, 0));
        assert!(merged.seeds >= 38, "{merged:?}");
        assert_eq!(estimate(&[]), SwarmEstimate::default());
    }

    #[test]
    fn a_version_that_is_not_newer_than_wanted_is_held_by_its_sender_and_no_finding() {
        let secret = SecretKey::from_seed(&[1; 32]);
        let version = |seq| MutableItem::sign(&secret, b"salt", seq, b"1:x").unwrap();
        let target = mutable_target(&secret.public(), b"salt");
        let take = |findings: &mut Findings, newer_than, item: &MutableItem| {
            let response = Response {
                value: Some(&item.value),
                key: Some(&item.key),
                signature: Some(&item.signature),
                seq: Some(item.seq),
                ..Response::new(Id::ZERO)
            };
            let interest = Interest::Item { salt: b"salt", newer_than };
            let (node, mut events) = (([81, 2, 3, 4], 1).into(), Vec::new());
            let name = (LookupId(1), &target, interest);
            let brought = findings.take(name, node, &response, &Config::default(), &mut events);
            (brought.map(|brought| brought.held), events.len())
        };
        for (newer_than, told) in [(None, true), (Some(4), true), (Some(5), false), (Some(6), false)] {
            let mut findings = Findings::default();
            let held = Ok(Some(5));
            assert_eq!(take(&mut findings, newer_than, &version(5)), (held, told.into()), "{newer_than:?}");
            assert_eq!(findings.has_item(), told);
            assert_eq!(take(&mut findings, newer_than, &version(7)), (Ok(Some(7)), 1));
            assert_eq!(take(&mut findings, newer_than, &version(6)), (Ok(Some(6)), 0), "the best so far");
        }
        let mut forged = version(5);
        forged.value = b"1:y".to_vec();
        let refused = take(&mut Findings::default(), Some(9), &forged);
        assert_eq!(refused, (Err(InvalidItem::BadSignature), 0), "forged, whatever its number");
    }

    #[test]
    fn another_value_of_the_newest_number_is_told_once() {
        let secret = SecretKey::from_seed(&[1; 32]);
        let target = mutable_target(&secret.public(), b"");
        let (mut findings, mut events) = (Findings::default(), Vec::new());
        let versions: [(i64, &[u8]); 8] = [
            (1, b"1:a"),
            (1, b"1:a"),
            (1, b"1:b"),
            (1, b"1:c"),
            (2, b"1:d"),
            (1, b"1:b"),
            (2, b"1:e"),
            (2, b"1:f"),
        ];
        for (seq, value) in versions {
            let item = MutableItem::sign(&secret, b"", seq, value).unwrap();
            let response = Response {
                value: Some(&item.value),
                key: Some(&item.key),
                signature: Some(&item.signature),
                seq: Some(seq),
                ..Response::new(Id::ZERO)
            };
            let name = (LookupId(1), &target, Interest::Item { salt: b"", newer_than: None });
            let node = ([81, 2, 3, 4], 1).into();
            findings.take(name, node, &response, &Config::default(), &mut events).unwrap();
        }
        let told = events.iter().map(|event| match event {
            Event::Item { item, .. } => item.value()[2],
            other => panic!("{other:?}"),
        });
        assert_eq!(told.collect::<Vec<_>>(), b"abde");
    }

    #[test]
    fn samples_are_whole_and_numbers_make_sense() {
        let of = |samples: &[u8], interval, num| {
            let response = Response {
                samples: Some(samples),
                interval: Some(interval),
                num: Some(num),
                ..Response::new(Id::ZERO)
            };
            match super::samples(LookupId(1), ([81, 2, 3, 4], 1).into(), &response) {
                Some(Event::Samples { samples, interval, num, .. }) => Some((samples.len(), interval, num)),
                _ => None,
            }
        };
        assert_eq!(of(&[7; 40], 60, 9), Some((2, 60, 9)));
        assert_eq!(of(&[7; 39], 60, 9), None);
        assert_eq!(of(&[], -1, -1), Some((0, 0, 0)));
        assert_eq!(of(&[7; 20], i64::MAX, i64::MAX), Some((1, 21_600, i64::MAX as u64)));
    }
}
