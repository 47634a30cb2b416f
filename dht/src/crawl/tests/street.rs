//! [`Street`]: a crawl among nodes that are functions of a list.

use std::collections::{BTreeMap, BTreeSet};

use krpc::compact::{self, Address, V4, V6};
use krpc::{ErrorCode, Response};

use super::super::*;
use crate::Question;

/// What a node in these tests does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Conduct {
    Tells,
    /// Does not know BEP 51 and says so.
    Old,
    /// Takes the question for `find_node`.
    Older,
    Silent,
}

pub(super) struct Neighbour {
    pub(super) id: Id,
    pub(super) addr: SocketAddr,
    pub(super) conduct: Conduct,
    pub(super) infohashes: Vec<Id>,
    pub(super) interval: i64,
    /// When it was asked for samples.
    pub(super) asked: Vec<Time>,
}

/// Nodes and a crawl among them; answers take 100 ms, silences four seconds.
pub(super) struct Street {
    pub(super) nodes: Vec<Neighbour>,
    pub(super) by_addr: BTreeMap<SocketAddr, usize>,
    pub(super) crawler: Crawler,
    pub(super) now: Time,
    pub(super) answers: BTreeMap<(Time, u64), Option<Vec<u8>>>,
    pub(super) sent: Vec<(Time, Query)>,
    pub(super) events: Vec<(Time, Event)>,
    /// Nobody answers.
    pub(super) dead: bool,
    /// Of a hundred questions or answers so many are lost.
    pub(super) loss: u32,
    rng: Rng,
    /// The owner answers wishes for nodes with these.
    pub(super) table: Vec<(Id, SocketAddr)>,
    /// Whom each node knows; everybody if this is empty.
    pub(super) tables: Vec<BTreeSet<usize>>,
}

pub(super) const START: Time = Time::from_secs(1_000_000);
pub(super) const MINUTE: Duration = Duration::from_secs(60);

impl Street {
    pub(super) fn new(seed: u64, count: usize, config: &Config) -> Self {
        Self::of_region(seed, count, config, Region::WHOLE)
    }

    pub(super) fn of_region(seed: u64, count: usize, config: &Config, region: Region) -> Self {
        let mut rng = Rng::from_seed(seed);
        let nodes: Vec<_> = (0..count)
            .map(|n| Neighbour {
                id: rng.id(),
                addr: addr(n),
                conduct: Conduct::Tells,
                infohashes: (0..5).map(|_| rng.id()).collect(),
                interval: 3600,
                asked: Vec::new(),
            })
            .collect();
        let by_addr = nodes.iter().enumerate().map(|(index, node)| (node.addr, index)).collect();
        let table = nodes.iter().take(8).map(|node| (node.id, node.addr)).collect();
        let crawler = Crawler::new(START, config, region, (true, false), Seeds::from_u64(seed));
        Self {
            nodes,
            by_addr,
            crawler,
            now: START,
            answers: BTreeMap::new(),
            sent: Vec::new(),
            events: Vec::new(),
            dead: false,
            loss: 0,
            rng,
            table,
            tables: Vec::new(),
        }
    }

    /// The same, but each node knows eight of the others that share so many bits with it, for each number of
    /// bits (BEP 5).
    pub(super) fn of_tables(seed: u64, count: usize, config: &Config) -> Self {
        let mut street = Self::new(seed, count, config);
        let mut rng = Rng::from_seed(!seed);
        let table = |own: usize| {
            let mut buckets: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
            for other in (0..count).filter(|&other| other != own) {
                let bits = street.nodes[own].id.prefix_len(&street.nodes[other].id);
                buckets.entry(bits).or_default().push(other);
            }
            let mut known = BTreeSet::new();
            for mut bucket in buckets.into_values() {
                for _ in 0..8.min(bucket.len()) {
                    known.insert(bucket.swap_remove(rng.below(bucket.len())));
                }
            }
            known
        };
        street.tables = (0..count).map(table).collect();
        street
    }

    pub(super) fn run(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            let answer = self.answers.first_key_value().map_or(Time::NEVER, |(&(at, _), _)| at);
            let timer = self.crawler.timeout();
            let next = answer.min(timer).max(self.now);
            if next > end {
                break;
            }
            self.now = next;
            let mut out = Actions::default();
            if answer <= timer {
                let ((_, ticket), bytes) = self.answers.pop_first().unwrap();
                self.crawler.handle_answer(self.now, ticket, bytes.as_deref(), &mut out);
            } else {
                self.crawler.handle_timeout(self.now, &mut out);
                assert!(self.crawler.timeout() > self.now, "it wants to wake up again at once");
            }
            self.take(out);
        }
        self.now = end;
    }

    pub(super) fn take(&mut self, out: Actions) {
        for query in out.queries {
            let answer = self.answer(&query).filter(|_| !self.rng.chance(self.loss, 100));
            let after = Duration::from_millis(if answer.is_some() { 100 } else { 4000 });
            self.answers.insert((self.now + after, query.ticket), answer);
            self.sent.push((self.now, query));
        }
        self.events.extend(out.events.into_iter().map(|event| (self.now, event)));
        if out.wants_nodes {
            let mut out = Actions::default();
            let table = self.table.clone();
            self.crawler.handle_nodes(self.now, &table, &mut out);
            self.take(out);
        }
    }

    pub(super) fn answer(&mut self, query: &Query) -> Option<Vec<u8>> {
        let index = *self.by_addr.get(&query.to)?;
        let (target, is_sample) = match query.question {
            Question::Sample(target, _) => (target, true),
            Question::FindNode(target, _) | Question::Scrape(target, _) => (target, false),
            Question::Ping => (Id::ZERO, false),
            _ => panic!("{query:?}"),
        };
        if is_sample {
            self.nodes[index].asked.push(self.now);
        }
        let node = &self.nodes[index];
        if node.conduct == Conduct::Silent || self.dead {
            return None;
        }
        let body = if is_sample && node.conduct == Conduct::Old {
            Body::Error(krpc::ErrorBody { code: ErrorCode::MethodUnknown as i64, text: b"" })
        } else {
            // A node knows everybody but itself.
            let (mut nodes, mut nodes6) = (Vec::new(), Vec::new());
            for node in self.nearest(target, index, false) {
                let addr = V4::from_socket(node.addr).unwrap();
                compact::put_node(&mut nodes, &compact::Contact { id: node.id, addr });
            }
            for node in self.nearest(target, index, true) {
                let addr = V6::from_socket(node.addr).unwrap();
                compact::put_node(&mut nodes6, &compact::Contact { id: node.id, addr });
            }
            let samples: Vec<u8> = node.infohashes.iter().flat_map(|id| *id.as_bytes()).collect();
            let tells = is_sample && node.conduct == Conduct::Tells;
            let response = Response {
                nodes: Some(&nodes),
                nodes6: (!nodes6.is_empty()).then_some(&nodes6[..]),
                samples: tells.then_some(&samples[..]),
                interval: tells.then_some(node.interval),
                num: tells.then_some(node.infohashes.len() as i64),
                ..Response::new(node.id)
            };
            let mut bytes = Vec::new();
            let body = Body::Response(response);
            Message { tid: b"aa", version: None, ip: None, read_only: false, body }.encode(&mut bytes);
            return Some(bytes);
        };
        let mut bytes = Vec::new();
        Message { tid: b"aa", version: None, ip: None, read_only: false, body }.encode(&mut bytes);
        Some(bytes)
    }

    /// The eight of a family that are nearest to `target`, but for one.
    pub(super) fn nearest(&self, target: Id, but: usize, ipv6: bool) -> Vec<&Neighbour> {
        let others = self
            .nodes
            .iter()
            .enumerate()
            .filter(|(index, node)| *index != but && node.addr.is_ipv6() == ipv6)
            .filter(|(index, _)| self.tables.get(but).is_none_or(|table| table.contains(index)));
        let mut nearest: Vec<_> = others.map(|(_, other)| (other.id.distance_head(&target), other)).collect();
        if nearest.len() > 8 {
            nearest.select_nth_unstable_by_key(7, |(distance, _)| *distance);
        }
        nearest.into_iter().take(8).map(|(_, node)| node).collect()
    }

    /// What whoever keeps the nodes has of them.
    pub(super) fn kept(&self) -> Vec<NodeRecord> {
        let mut kept = BTreeMap::new();
        for (_, event) in &self.events {
            if let Event::Node { source, record } = event {
                kept.insert(*source, *record);
            }
        }
        kept.into_values().flatten().collect()
    }

    pub(super) fn found(&self) -> BTreeSet<Id> {
        let infohashes = self.events.iter().filter_map(|(_, event)| match event {
            Event::Samples { infohashes, .. } => Some(infohashes),
            _ => None,
        });
        infohashes.flatten().copied().collect()
    }

    pub(super) fn conditions(&self) -> Vec<Condition> {
        let conditions = self.events.iter().filter_map(|(_, event)| match event {
            Event::Condition(condition) => Some(*condition),
            _ => None,
        });
        conditions.collect()
    }
}

pub(super) fn addr(n: usize) -> SocketAddr {
    ([80 + (n >> 16) as u8, (n >> 8) as u8, n as u8, 9], 6881).into()
}

pub(super) fn fast() -> Config {
    Config { crawl_rate: 1000, ..Config::default() }
}
