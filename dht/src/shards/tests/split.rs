//! [`Split`]: a node and its satellites, and what strangers say to them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use krpc::{Body, Id, Message, Query, Response, Want};

use crate::secure_id::secure_id;
use crate::shards::{Crossing, Satellite};
use crate::store::{Archive, Archiving};
use crate::{Class, Config, Counters, Event, Home, Node, Outbox, Rng, Seeds, Time};

/// What is looked for and announced.
pub(super) const INFOHASH: Id = Id::new([7; 20]);

/// A deciding node, which is shard 0, and satellites.
pub(super) struct Split {
    pub(super) node: Node,
    pub(super) satellites: Vec<Satellite>,
    pub(super) now: Time,
    pub(super) out: Outbox,
    pub(super) events: Vec<Event>,
}

impl Split {
    pub(super) fn new(config: Config, satellites: usize) -> Self {
        let now = Time::from_secs(100_000);
        let local: SocketAddr = ([85, 255, 0, 1], 6881).into();
        let id = secure_id(local.ip(), &mut Rng::from_seed(5));
        let home = Home { id, local, external: None, saved: Vec::new() };
        let mut node = Node::new(Arc::new(config), vec![home], Seeds::from_u64(3), now);
        let satellites = node.split(now, satellites);
        let mut split = Self { node, satellites, now, out: Outbox::new(), events: Vec::new() };
        split.wait(Duration::ZERO);
        split
    }

    pub(super) fn shards(&self) -> usize {
        self.satellites.len() + 1
    }

    /// Gives a datagram to a shard, and what it hands over to the deciding one. What both send, with its class.
    pub(super) fn give(
        &mut self,
        shard: usize,
        from: SocketAddr,
        bytes: &[u8],
    ) -> Vec<(SocketAddr, Class, Vec<u8>)> {
        for crossing in self.give_and_keep(shard, from, bytes) {
            self.node.handle_crossing(self.now, crossing, &mut self.out);
        }
        self.take_sent()
    }

    /// The same, but what is handed over is returned.
    pub(super) fn give_and_keep(&mut self, shard: usize, from: SocketAddr, bytes: &[u8]) -> Vec<Crossing> {
        let mut crossings = Vec::new();
        match shard.checked_sub(1) {
            None => self.node.handle_datagram(self.now, 0, from, bytes, &mut self.out),
            Some(n) => {
                let out = (&mut self.out, &mut crossings);
                self.satellites[n].handle_datagram(self.now, (0, from), bytes, out);
            }
        }
        crossings
    }

    pub(super) fn take_sent(&mut self) -> Vec<(SocketAddr, Class, Vec<u8>)> {
        self.events.append(&mut self.out.events);
        let sent = self.out.transmits.iter();
        let sent = sent.map(|t| (t.to, t.class, self.out.datagram(t).to_vec())).collect();
        self.out.clear();
        sent
    }

    /// The reply of a shard to a query, if it gives one.
    pub(super) fn ask(&mut self, shard: usize, from: SocketAddr, query: Query<'_>) -> Option<Vec<u8>> {
        let sent = self.give(shard, from, &encode(query));
        let mut replies = sent.into_iter().filter(|(to, class, _)| *to == from && *class == Class::Reply);
        let reply = replies.next().map(|(.., bytes)| bytes);
        assert!(replies.next().is_none(), "one reply at most");
        reply
    }

    pub(super) fn token(&mut self, shard: usize, from: SocketAddr) -> Vec<u8> {
        let reply = self.ask(shard, from, get_peers(INFOHASH)).expect("a reply");
        response(&reply).token.expect("a token").to_vec()
    }

    /// Announces with that token; whether it was accepted.
    pub(super) fn announce(&mut self, shard: usize, from: SocketAddr, token: &[u8]) -> bool {
        let query =
            Query::AnnouncePeer { infohash: INFOHASH, port: 7000, implied_port: false, token, seed: true };
        let reply = self.ask(shard, from, query).expect("a reply");
        matches!(Message::decode(&reply).unwrap().body, Body::Response(_))
    }

    /// How many peers a shard names.
    pub(super) fn peers(&mut self, shard: usize, from: SocketAddr) -> usize {
        let reply = self.ask(shard, from, get_peers(INFOHASH)).expect("a reply");
        response(&reply).values.map_or(0, |values| values.len())
    }

    /// Lets time pass, doing what is due.
    pub(super) fn wait(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            self.now = self.node.timeout().min(end).max(self.now);
            if self.node.timeout() > self.now {
                return;
            }
            self.node.handle_timeout(self.now, &mut self.out);
            self.take_sent();
        }
    }

    /// Lets somebody enter the table: he asks the deciding shard, is pinged, and answers there.
    pub(super) fn teach(&mut self, from: SocketAddr, id: Id) {
        let sent = self.give(0, from, &encode_as(id, Query::Ping));
        let (.., ping) = sent.into_iter().find(|(_, class, _)| *class == Class::Query).expect("a ping");
        self.give(0, from, &answer_to(&ping, id));
    }

    /// The nodes in the reply of a shard to a `find_node` of the same target.
    pub(super) fn nodes(&mut self, shard: usize) -> usize {
        let query = Query::FindNode { target: INFOHASH, want: Want::UNSPECIFIED };
        let reply = self.ask(shard, stranger(900), query).expect("a reply");
        response(&reply).nodes.map_or(0, <[u8]>::len) / 26
    }

    pub(super) fn counters(&self) -> Counters {
        let mut counters = self.node.counters();
        self.satellites.iter().for_each(|satellite| counters.merge(&satellite.counters()));
        counters
    }

    pub(super) fn archive(&self) -> Archive {
        let kept = self.node.kept();
        let mut archiving = Archiving::default();
        while !kept.archive_some(self.now, &mut archiving) {}
        archiving.finish()
    }
}

pub(super) fn unlimited() -> Config {
    Config { replies_per_second_per_ip: 0, reply_bytes_per_second: 0, ..Config::default() }
}

pub(super) fn stranger(n: u16) -> SocketAddr {
    let [high, low] = n.to_be_bytes();
    ([81, high, low, 9], 6881).into()
}

pub(super) fn get_peers(infohash: Id) -> Query<'static> {
    Query::GetPeers { infohash, want: Want::UNSPECIFIED, scrape: false, no_seed: false }
}

pub(super) fn encode(query: Query<'_>) -> Vec<u8> {
    encode_as(Id::new([0x55; 20]), query)
}

pub(super) fn encode_as(id: Id, query: Query<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let body = Body::Query { id, query };
    Message { tid: b"ab", version: None, ip: None, read_only: false, body }.encode(&mut bytes);
    bytes
}

pub(super) fn answer_to(query: &[u8], id: Id) -> Vec<u8> {
    let asked = Message::decode(query).unwrap();
    let mut bytes = Vec::new();
    let body = Body::Response(Response { nodes: Some(&[]), ..Response::new(id) });
    Message { tid: asked.tid, version: None, ip: None, read_only: false, body }.encode(&mut bytes);
    bytes
}

pub(super) fn response(reply: &[u8]) -> Response<'_> {
    match Message::decode(reply).unwrap().body {
        Body::Response(response) => response,
        other => panic!("{other:?}"),
    }
}
