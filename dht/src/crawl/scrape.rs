//! [`Scrapes`]: asks for the sizes of swarms (BEP 33). Whoever told an infohash stores its peers, so it is
//! asked first; its answer names the nodes nearest to the infohash, which store them too, and a few of
//! these are asked next. So a size costs some four queries where a lookup would cost forty.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use krpc::bloom::Bloom;
use krpc::{Distance, Id, Response};

use crate::addr::SourceKey;
use crate::lookup::merge_filters;
use crate::{Rng, SwarmEstimate, Time};

/// A node that an answer names: its id, address and source.
pub(super) type Named = (Id, SocketAddr, SourceKey);

/// The swarms that are asked for and that wait.
#[derive(Debug)]
pub(super) struct Scrapes {
    nodes: usize,
    most_waiting: usize,
    waiting: VecDeque<(Id, SocketAddr)>,
    running: Vec<Scrape>,
    next_serial: u64,
    /// Who was asked in the last moments: nobody is asked twice within them.
    asked: BTreeMap<SourceKey, Time>,
}

#[derive(Debug)]
struct Scrape {
    serial: u64,
    infohash: Id,
    /// Sources asked, at most [`Scrapes::nodes`].
    asked: Vec<SourceKey>,
    in_flight: usize,
    /// Whom to ask next, nearest first.
    candidates: Vec<(Distance, SocketAddr, SourceKey)>,
    filters: Vec<(Bloom, Bloom)>,
}

impl Scrapes {
    pub(super) fn new(nodes: usize, most_waiting: usize) -> Self {
        Self {
            nodes: nodes.max(1),
            most_waiting,
            waiting: VecDeque::new(),
            running: Vec::new(),
            next_serial: 0,
            asked: BTreeMap::new(),
        }
    }

    /// Wants the size of the swarm that `node` told of; `false` when too many wait already.
    pub(super) fn want(&mut self, infohash: Id, node: SocketAddr) -> bool {
        let known = self.waiting.iter().any(|(waiting, _)| *waiting == infohash)
            || self.running.iter().any(|scrape| scrape.infohash == infohash);
        if known || self.waiting.len() >= self.most_waiting {
            return known;
        }
        self.waiting.push_back((infohash, node));
        true
    }

    /// Whom to ask next and for what: the scrape's name, its infohash and a node.
    pub(super) fn next(
        &mut self,
        now: Time,
        rng: &mut Rng,
        source: impl Fn(SocketAddr) -> SourceKey,
    ) -> Option<(u64, Id, SocketAddr)> {
        self.asked.retain(|_, at| now.since(*at) < SAME_NODE_AFTER);
        let Self { asked, running, nodes, .. } = self;
        for scrape in running {
            if let Some((addr, source)) = scrape.next(*nodes, |source| asked.contains_key(source)) {
                asked.insert(source, now);
                return Some((scrape.serial, scrape.infohash, addr));
            }
        }
        if self.running.len() >= AT_ONCE {
            return None;
        }
        // Infohashes that wait one behind the other were told by one node most often.
        let free = |addr: SocketAddr| !self.asked.contains_key(&source(addr));
        let chosen = (0..TRIES)
            .map(|_| rng.below(self.waiting.len()))
            .find(|&index| self.waiting.get(index).is_some_and(|&(_, addr)| free(addr)))?;
        let (infohash, addr) = self.waiting.swap_remove_back(chosen)?;
        let serial = self.next_serial;
        self.next_serial += 1;
        self.asked.insert(source(addr), now);
        self.running.push(Scrape {
            serial,
            infohash,
            asked: vec![source(addr)],
            in_flight: 1,
            candidates: Vec::new(),
            filters: Vec::new(),
        });
        Some((serial, infohash, addr))
    }

    /// The query of a scrape has ended: what was answered, and which nodes that named. The result, when it
    /// was the last.
    pub(super) fn ended(
        &mut self,
        serial: u64,
        answer: Option<(&Response<'_>, &[Named])>,
    ) -> Option<(Id, SwarmEstimate)> {
        let index = self.running.iter().position(|scrape| scrape.serial == serial)?;
        let scrape = &mut self.running[index];
        scrape.in_flight -= 1;
        if let Some((response, nodes)) = answer {
            scrape.take(response, nodes);
        }
        if scrape.in_flight > 0 || !scrape.candidates.is_empty() && scrape.asked.len() < self.nodes {
            return None;
        }
        let Scrape { infohash, filters, .. } = self.running.swap_remove(index);
        Some((infohash, merge_filters(&filters)))
    }

    /// Whether nothing is wanted.
    pub(super) fn is_idle(&self) -> bool {
        self.len() == 0
    }

    /// Swarms that are asked for or wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.running.len()
    }
}

impl Scrape {
    /// Whom to ask next, of those that are not `busy`.
    fn next(&mut self, nodes: usize, busy: impl Fn(&SourceKey) -> bool) -> Option<(SocketAddr, SourceKey)> {
        if self.asked.len() >= nodes {
            return None;
        }
        let index = self.candidates.iter().position(|(.., source)| !busy(source))?;
        let (_, addr, source) = self.candidates.remove(index);
        self.candidates.retain(|&(.., other)| other != source);
        self.asked.push(source);
        self.in_flight += 1;
        Some((addr, source))
    }

    fn take(&mut self, response: &Response<'_>, nodes: &[Named]) {
        let filter = |bytes: Option<&[u8]>| bytes.and_then(Bloom::from_slice);
        let (seeds, downloaders) = (filter(response.bloom_seeds), filter(response.bloom_peers));
        if seeds.is_some() || downloaders.is_some() {
            self.filters.push((seeds.unwrap_or_default(), downloaders.unwrap_or_default()));
        }
        for &(id, addr, source) in nodes.iter().filter(|(.., source)| !self.asked.contains(source)) {
            let candidate = (id.distance(&self.infohash), addr, source);
            if let Err(at) = self.candidates.binary_search(&candidate) {
                self.candidates.insert(at, candidate);
                self.candidates.truncate(CANDIDATES);
            }
        }
    }
}

/// Swarms that are asked for at the same time.
const AT_ONCE: usize = 32;
/// Nodes that one scrape remembers.
const CANDIDATES: usize = 16;
/// libtorrent shuts out for five minutes whoever asks more than five times a second.
pub(super) const SAME_NODE_AFTER: Duration = Duration::from_secs(2);
/// Infohashes that are looked at for one whose node may be asked.
const TRIES: usize = 16;

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::addr::source_key;

    const NOW: Time = Time::from_secs(1000);

    fn addr(n: u8) -> SocketAddr {
        ([81, 2, 3, n], 6881).into()
    }

    fn source(addr: SocketAddr) -> SourceKey {
        source_key(addr, false)
    }

    fn filter(ips: std::ops::Range<u8>) -> Bloom {
        let mut bloom = Bloom::new();
        ips.for_each(|n| bloom.insert(IpAddr::from([85, 1, 1, n])));
        bloom
    }

    fn next(scrapes: &mut Scrapes, now: Time) -> Option<(u64, Id, SocketAddr)> {
        scrapes.next(now, &mut Rng::from_seed(1), source)
    }

    #[test]
    fn whoever_told_is_asked_and_then_the_nearest_that_he_names() {
        let mut scrapes = Scrapes::new(3, 10);
        let infohash = Id::new([7; 20]);
        assert!(scrapes.want(infohash, addr(1)));
        let (serial, asked, to) = next(&mut scrapes, NOW).unwrap();
        assert_eq!((asked, to), (infohash, addr(1)));
        assert_eq!(next(&mut scrapes, NOW), None);
        let (seeds, peers) = (filter(0..3), filter(10..20));
        let answer = Response {
            bloom_seeds: Some(seeds.as_bytes()),
            bloom_peers: Some(peers.as_bytes()),
            ..Response::new(Id::ZERO)
        };
        let id = |n: u8| {
            let mut bytes = [7; 20];
            bytes[0] = n;
            Id::new(bytes)
        };
        let nodes = [(id(0xff), 4), (id(6), 2), (id(5), 3), (infohash, 1)]
            .map(|(id, n)| (id, addr(n), source(addr(n))));
        assert_eq!(scrapes.ended(serial, Some((&answer, &nodes))), None);
        let second = next(&mut scrapes, NOW).unwrap();
        let third = next(&mut scrapes, NOW).unwrap();
        assert_eq!((second.2, third.2), (addr(2), addr(3)), "the nearest two, and no more than three in all");
        assert_eq!(next(&mut scrapes, NOW), None);
        assert_eq!(scrapes.ended(serial, Some((&answer, &nodes))), None);
        let (told, estimate) = scrapes.ended(serial, None).unwrap();
        assert_eq!((told, estimate.seeds, estimate.downloaders, estimate.nodes), (infohash, 3, 10, 2));
        assert!(scrapes.is_idle());
    }

    #[test]
    fn nobody_is_asked_twice_in_a_moment() {
        let mut scrapes = Scrapes::new(1, 100);
        for n in 0..50 {
            scrapes.want(Id::new([n; 20]), addr(n % 2));
        }
        assert!(next(&mut scrapes, NOW).is_some() && next(&mut scrapes, NOW).is_some());
        assert_eq!(next(&mut scrapes, NOW), None);
        assert_eq!(next(&mut scrapes, NOW + SAME_NODE_AFTER - Duration::from_micros(1)), None);
        assert!(next(&mut scrapes, NOW + SAME_NODE_AFTER).is_some());
    }

    #[test]
    fn what_waits_is_bounded_and_wanted_once() {
        let mut scrapes = Scrapes::new(4, 3);
        let wanted: Vec<_> = (0..5).map(|n| scrapes.want(Id::new([n; 20]), addr(n))).collect();
        assert_eq!(wanted, [true, true, true, false, false]);
        assert!(scrapes.want(Id::new([1; 20]), addr(9)), "it waits already");
        assert_eq!(scrapes.len(), 3);
    }

    #[test]
    fn a_swarm_that_nobody_tells_of_is_told_to_have_no_size() {
        let mut scrapes = Scrapes::new(4, 3);
        scrapes.want(Id::new([1; 20]), addr(1));
        let (serial, ..) = next(&mut scrapes, NOW).unwrap();
        let (_, estimate) = scrapes.ended(serial, None).unwrap();
        assert_eq!(estimate, SwarmEstimate::default());
        assert_eq!(scrapes.ended(serial, None), None, "it is over");
    }
}
