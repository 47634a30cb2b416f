//! [`Run`]: the shipping node in the virtual network, stepped from one datagram to the next.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use btdht::{Announce, Command, Config, Event, Home, Hop, LookupId, Node, Outbox, Outcome, Rng, Seeds, Time};
use krpc::bencode::Strings;
use krpc::compact::{self, Address as _, Contact, V4};
use krpc::{Body, Id, Message, Query, Response};

use super::network::{Index, K, Network, ROUTER_RTT};

/// Where the router lives, and where we do.
const ROUTER: ([u8; 4], u16) = ([67, 215, 246, 10], 6881);
const HERE: ([u8; 4], u16) = ([81, 2, 69, 142], 6881);

/// A node under test and what is on its way to it.
pub struct Run<'a> {
    network: &'a Network,
    node: Node,
    now: Time,
    rng: Rng,
    /// Answers by arrival; the number keeps their order at one instant.
    arriving: BinaryHeap<Reverse<Arrival>>,
    sent: u64,
    get_peers: u32,
    router: (Id, Duration, bool),
    watched: Option<Watched>,
    /// Whether each step of a lookup is printed.
    trace: bool,
    out: Outbox,
}

/// When something arrives, its number, from where, the datagram, and the infohash that was asked for.
type Arrival = (Time, u64, SocketAddr, Vec<u8>, Option<Id>);

/// A lookup under way.
struct Watched {
    infohash: Id,
    /// The nodes nearest to it that live, and when each first answered.
    goal: Vec<(Index, Option<Time>)>,
    started: Time,
    first_peer: Option<Time>,
    stored: Option<Time>,
}

/// What a lookup came to. Times are from its start.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Until the first peer, if one was found.
    pub first_peer: Option<Duration>,
    /// Until the last of those of the [`K`] nearest that answered at all.
    pub closest: Duration,
    /// How many of the [`K`] nearest of all nodes that live answered the lookup, whether it knew of them
    /// or not.
    pub reached: usize,
    /// Until the lookup, without announcing, would have been over: its last answer.
    pub done: Duration,
    /// Until the last node acknowledged the announce.
    pub stored: Option<Duration>,
    /// `get_peers` queries sent.
    pub get_peers: u32,
    /// Queries of any kind that the node sent in that time.
    pub queries: u64,
    /// Referrals to the farthest node that answered.
    pub hops: u16,
    /// How it ended.
    pub outcome: Outcome,
}

impl<'a> Run<'a> {
    /// A node at its first start: it has any id, since nobody has told it its address yet (BEP 42), and
    /// knows the router's address. `number` is its seed.
    pub fn new(network: &'a Network, config: &Arc<Config>, number: u64) -> Self {
        let mut rng = Rng::from_seed(number);
        let id = rng.id();
        let home = Home { id, local: ([0, 0, 0, 0], HERE.1).into(), external: None, saved: Vec::new() };
        let node = Node::new(Arc::clone(config), vec![home], Seeds::from_u64(number), Time::ZERO);
        let router = (rng.id(), ROUTER_RTT, true);
        let mut run = Self {
            network,
            node,
            now: Time::ZERO,
            rng,
            arriving: BinaryHeap::new(),
            sent: 0,
            get_peers: 0,
            router,
            watched: None,
            trace: false,
            out: Outbox::new(),
        };
        let routers = Command::Routers(vec![ROUTER.into()]);
        run.node.handle_command(run.now, routers, &mut run.out);
        run.deliver();
        run
    }

    /// Prints each step of its lookups.
    pub fn traced(self) -> Self {
        Self { trace: true, ..self }
    }

    /// The node's id.
    pub fn id(&self) -> Id {
        self.node.stats(self.now)[0].id
    }

    /// Nodes in its table.
    pub fn table(&self) -> usize {
        self.node.stats(self.now)[0].nodes
    }

    /// Lets `span` pass.
    pub fn pass(&mut self, span: Duration) {
        let until = self.now + span;
        while self.step(until).is_some() {}
        self.now = until;
    }

    /// Looks for peers of `infohash` and, if asked to, announces.
    pub fn look(&mut self, infohash: Id, announce: bool) -> Measured {
        let goal = self.network.closest_alive(&infohash, K).into_iter().map(|node| (node, None)).collect();
        let (first_peer, stored) = (None, None);
        self.watched = Some(Watched { infohash, goal, started: self.now, first_peer, stored });
        let (sent, get_peers) = (self.sent, self.get_peers);
        let announce = announce.then_some(Announce { port: 51_413, implied: false, seed: false });
        let command = Command::GetPeers { infohash, announce, trace: self.trace };
        let name = self.node.handle_command(self.now, command, &mut self.out).expect("it starts a lookup");
        let mut over = self.deliver_until(name);
        while over.is_none() {
            let stepped = self.step(Time::NEVER);
            over = stepped.expect("a lookup ends").into_iter().find_map(|event| done(event, name));
        }
        let (outcome, hops) = over.expect("the loop ended");
        let watched = self.watched.take().expect("it was set above");
        let since = |at: Time| at.since(watched.started);
        let answered = watched.goal.iter().filter_map(|&(_, at)| at);
        Measured {
            first_peer: watched.first_peer.map(since),
            closest: answered.clone().max().map_or(Duration::ZERO, since),
            reached: answered.count(),
            done: since(self.now),
            stored: watched.stored.map(since),
            get_peers: self.get_peers - get_peers,
            queries: self.sent - sent,
            hops,
            outcome,
        }
    }

    /// Does what happens next, if it is not after `until`; its events.
    fn step(&mut self, until: Time) -> Option<Vec<Event>> {
        let arrival = self.arriving.peek().map_or(Time::NEVER, |Reverse((at, ..))| *at);
        let next = arrival.min(self.node.timeout());
        if next > until || next == Time::NEVER {
            return None;
        }
        self.now = self.now.max(next);
        if arrival <= self.node.timeout()
            && let Some(Reverse((_, _, from, bytes, asked_for))) = self.arriving.pop()
        {
            self.note_answer(from, asked_for);
            self.node.handle_datagram(self.now, 0, from, &bytes, &mut self.out);
        } else {
            self.node.handle_timeout(self.now, &mut self.out);
        }
        Some(self.deliver())
    }

    /// Sends what the node wants sent, and takes what it tells.
    fn deliver(&mut self) -> Vec<Event> {
        let mut out = std::mem::take(&mut self.out);
        for transmit in &out.transmits {
            self.send(transmit.to, out.datagram(transmit));
        }
        let events: Vec<Event> = out.events.drain(..).collect();
        out.clear();
        self.out = out;
        for event in &events {
            self.note_event(event);
        }
        events
    }

    fn deliver_until(&mut self, name: LookupId) -> Option<(Outcome, u16)> {
        self.deliver().into_iter().find_map(|event| done(event, name))
    }

    fn send(&mut self, to: SocketAddr, bytes: &[u8]) {
        let message = Message::decode(bytes).expect("the node speaks KRPC");
        let Body::Query { query, .. } = message.body else { return };
        self.sent += 1;
        let asked_for = match query {
            Query::GetPeers { infohash, .. } => Some(infohash),
            _ => None,
        };
        self.get_peers += u32::from(asked_for.is_some());
        let (rtt, response) = if to == SocketAddr::from(ROUTER) {
            let (id, rtt, is_first) = self.router;
            let nodes = match query {
                Query::Ping => Vec::new(),
                _ => self.network.router_answer(std::mem::take(&mut self.router.2), &mut self.rng),
            };
            debug_assert!(is_first || nodes.len() <= K);
            (rtt, self.answer(message.tid, id, &nodes, &[]))
        } else {
            let Some(index) = self.network.at(to).filter(|&index| self.network.is_alive(index)) else {
                return;
            };
            let id = self.network.id(index);
            let (nodes, peers) = match query {
                Query::FindNode { target, .. } => (self.network.answer(index, &target), Vec::new()),
                Query::GetPeers { infohash, .. } => {
                    let holds = self.watched.as_ref().is_some_and(|watched| {
                        watched.infohash == infohash && watched.goal.iter().any(|&(node, _)| node == index)
                    });
                    let peers = if holds { self.network.peers(index, &infohash) } else { Vec::new() };
                    (self.network.answer(index, &infohash), peers)
                }
                _ => (Vec::new(), Vec::new()),
            };
            (self.network.rtt(index), self.answer(message.tid, id, &nodes, &peers))
        };
        if let Some(delay) = Network::delay(rtt, &mut self.rng) {
            self.arriving.push(Reverse((self.now + delay, self.sent, to, response, asked_for)));
        }
    }

    fn answer(&self, tid: &[u8], id: Id, nodes: &[Index], peers: &[SocketAddr]) -> Vec<u8> {
        let mut records = Vec::new();
        for &node in nodes {
            let addr = V4::from_socket(self.network.addr(node)).expect("all are IPv4");
            compact::put_node(&mut records, &Contact { id: self.network.id(node), addr });
        }
        let mut values = Vec::new();
        peers.iter().for_each(|&peer| compact::put_value(&mut values, peer));
        let response = Response {
            nodes: (!nodes.is_empty()).then_some(&records[..]),
            token: Some(b"a token."),
            values: (!peers.is_empty()).then(|| Strings::from_raw(&values).expect("written as such")),
            ..Response::new(id)
        };
        let mut ip = Vec::new();
        compact::put_peer(&mut ip, HERE.into());
        let (version, body) = (Some(&b"LT\x02\x00"[..]), Body::Response(response));
        let mut bytes = Vec::new();
        Message { tid, version, ip: Some(&ip), read_only: false, body }.encode(&mut bytes);
        bytes
    }

    /// Answers to questions of the upkeep are none to the lookup.
    fn note_answer(&mut self, from: SocketAddr, asked_for: Option<Id>) {
        let (index, now) = (self.network.at(from), self.now);
        let watched = self.watched.as_mut().filter(|watched| Some(watched.infohash) == asked_for);
        let goal = watched.into_iter().flat_map(|watched| &mut watched.goal);
        for (_, at) in goal.filter(|(node, _)| Some(*node) == index) {
            at.get_or_insert(now);
        }
    }

    fn note_event(&mut self, event: &Event) {
        let Some(watched) = &mut self.watched else { return };
        match event {
            Event::Peer { .. } => {
                watched.first_peer.get_or_insert(self.now);
            }
            Event::Stored { .. } => watched.stored = Some(self.now),
            Event::Hop { hop, .. } => {
                let Hop { at, node, id, depth, step } = hop;
                let millis = at.since(watched.started).as_millis();
                let bits = id.map_or(0, |id| id.prefix_len(&watched.infohash));
                let index = self.network.at(*node);
                let nearest = watched.goal.iter().position(|&(node, _)| Some(node) == index);
                let (lives, rtt) = index.map_or((true, ROUTER_RTT), |index| {
                    (self.network.is_alive(index), self.network.rtt(index))
                });
                let kind = nearest.map_or(String::new(), |n| format!("nearest {}", n + 1));
                let lives = if lives { format!("lives, {} ms", rtt.as_millis()) } else { "dead".into() };
                println!("{millis:6} ms  {bits:3} bits, depth {depth}, {lives:14} {kind:10} {node} {step:?}");
            }
            _ => {}
        }
    }
}

/// How the lookup called `name` ended, if `event` tells it.
fn done(event: Event, name: LookupId) -> Option<(Outcome, u16)> {
    match event {
        Event::Done { lookup, outcome, stats, .. } if lookup == name => Some((outcome, stats.hops)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lookups::oracle;

    #[test]
    fn node_finds_the_peers_of_a_small_network_cold_and_warm_and_never_beats_the_oracle() {
        let network = Network::new(20_000, 7);
        let config = Arc::new(Config::default());
        for number in 0..5 {
            let infohash = Rng::from_seed(900 + number).id();
            let mut run = Run::new(&network, &config, number);
            let cold = run.look(infohash, true);
            let first = cold.first_peer.expect("40 peers are stored");
            assert_eq!(cold.outcome, Outcome::Converged);
            assert!(cold.reached >= K - 2, "{cold:?}");
            assert!(cold.stored.is_some() && cold.stored > cold.first_peer);
            assert!(first >= ROUTER_RTT && u64::from(cold.get_peers) <= cold.queries);
            run.pass(Duration::from_secs(20));
            assert!(run.table() > 64, "{}", run.table());
            let warm = run.look(Rng::from_seed(800 + number).id(), false);
            assert!(warm.first_peer.is_some() && warm.stored.is_none(), "{warm:?}");
            let bound = oracle::cold(&network, &infohash, &mut Rng::from_seed(1));
            assert!(bound.first_peer <= bound.closest);
        }
    }

    #[test]
    fn run_repeats_to_the_microsecond() {
        let network = Network::new(5000, 8);
        let config = Arc::new(Config::default());
        let run = || format!("{:?}", Run::new(&network, &config, 3).look(Rng::from_seed(4).id(), true));
        assert_eq!(run(), run());
    }
}
