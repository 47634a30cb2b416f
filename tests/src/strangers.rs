//! A node alone with its strangers, in process and without sockets: what serving costs is measured on it
//! (`serving_core`, `serving_shards`).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use btdht::secure_id::secure_id;
use btdht::shards::Satellite;
use btdht::store::Archive;
use btdht::{Class, Config, Home, Node, Outbox, Rng, Seeds, Time};
use krpc::compact::{Address as _, V4};
use krpc::{Body, Id, Message, Query, Response, Want};

/// Whoever asks, each at an address of its own.
pub const SOURCES: u32 = 4_000;
/// Infohashes that have peers, unless the world has more ([`World::storing`]).
pub const INFOHASHES: usize = 1_000;
/// Peers of each.
pub const PEERS: usize = 10;
/// Kinds of queries; `hit` and `miss` are get_peers of an infohash with peers and of one without.
pub const KINDS: [&str; 5] = ["ping", "find_node", "hit", "miss", "announce"];
/// Queries between two clearings of the outbox, as many as the shell takes in a turn.
pub const BATCH: usize = 64;

/// A node with a full table and a thousand infohashes of ten peers, and the strangers around it.
pub struct World {
    /// The node.
    pub node: Node,
    /// Its satellites, if it was split.
    pub satellites: Vec<Satellite>,
    /// Now.
    pub now: Time,
    out: Outbox,
    ids: Vec<Id>,
    infohashes: Vec<Id>,
    rng: Rng,
}

/// The defaults with no limit on replies.
pub fn unlimited() -> Config {
    Config { replies_per_second_per_ip: 0, reply_bytes_per_second: 0, ..Config::default() }
}

impl World {
    /// A node of `config`, split off so many satellites.
    pub fn new(config: Config, satellites: usize) -> Self {
        let mut world = Self::empty(config, satellites, INFOHASHES);
        world.announce_all();
        world
    }

    /// A node of `config` that has taken back so many infohashes of an earlier run.
    pub fn storing(config: Config, infohashes: usize) -> Self {
        let mut world = Self::empty(config, 0, infohashes);
        let archive = world.archive();
        let taken = world.node.restore(world.now, &archive, Duration::ZERO).expect("an archive");
        assert_eq!(taken.peers, (infohashes * PEERS) as u64, "every peer is stored");
        world
    }

    /// A node with a full table that stores nothing yet.
    fn empty(config: Config, satellites: usize, infohashes: usize) -> Self {
        let mut rng = Rng::from_seed(7);
        let local: SocketAddr = ([85, 255, 0, 1], 6882).into();
        let home = Home { id: secure_id(local.ip(), &mut rng), local, ..home_without_past() };
        let now = Time::from_secs(1);
        let mut node = Node::new(Arc::new(config), vec![home], Seeds::from_u64(3), now);
        let mut world = Self {
            satellites: node.split(now, satellites),
            node,
            out: Outbox::new(),
            now,
            ids: (0..SOURCES).map(|n| secure_id(source(n).ip(), &mut rng)).collect(),
            infohashes: (0..infohashes).map(|_| rng.id()).collect(),
            rng,
        };
        world.teach();
        world
    }

    /// Lets every source introduce itself and answer the ping that follows.
    fn teach(&mut self) {
        for n in 0..SOURCES {
            self.now += Duration::from_millis(300);
            let ping = encode(self.ids[n as usize], Query::Ping);
            self.node.handle_datagram(self.now, 0, source(n), &ping, &mut self.out);
            self.answer_queries();
            self.node.handle_timeout(self.now, &mut self.out);
            self.answer_queries();
        }
    }

    /// Answers what the node asks of the sources, until it asks no more.
    fn answer_queries(&mut self) {
        let mut out = std::mem::take(&mut self.out);
        for transmit in out.transmits.iter().filter(|transmit| transmit.class == Class::Query) {
            let asked = Message::decode(out.datagram(transmit)).expect("we write what we can read");
            let Some(n) = number(transmit.to) else { continue };
            let mut reply = Vec::new();
            let body = Body::Response(Response { nodes: Some(&[]), ..Response::new(self.ids[n as usize]) });
            Message { tid: asked.tid, version: None, ip: None, read_only: false, body }.encode(&mut reply);
            self.node.handle_datagram(self.now, 0, transmit.to, &reply, &mut self.out);
        }
        out.clear();
        self.out.clear();
    }

    fn announce_all(&mut self) {
        for index in 0..INFOHASHES * PEERS {
            let (from, query) = self.announce(index);
            self.node.handle_datagram(self.now, 0, from, &query, &mut self.out);
            self.out.clear();
        }
        assert_eq!(self.node.kept().counts().peers, (INFOHASHES * PEERS) as u64, "every announce is stored");
    }

    /// Every infohash with its peers, as the node would have kept them.
    fn archive(&self) -> Archive {
        let mut peers4 = Vec::with_capacity(self.infohashes.len() * (22 + 10 * PEERS));
        for (n, infohash) in self.infohashes.iter().enumerate() {
            peers4.extend_from_slice(infohash.as_bytes());
            peers4.extend_from_slice(&(PEERS as u16).to_be_bytes());
            for peer in 0..PEERS {
                let addr = V4::from_socket(source((n * PEERS + peer) as u32 % SOURCES)).expect("IPv4");
                peers4.extend_from_slice(addr.as_wire());
                peers4.extend_from_slice(&0u32.to_be_bytes());
            }
        }
        Archive { peers4, ..Archive::default() }
    }

    /// The announce of one peer, with a token fetched for it.
    fn announce(&mut self, index: usize) -> (SocketAddr, Vec<u8>) {
        let (n, infohash) = (index as u32 % SOURCES, self.infohashes[index / PEERS]);
        let id = self.ids[n as usize];
        self.out.clear();
        self.node.handle_datagram(self.now, 0, source(n), &encode(id, get_peers(infohash)), &mut self.out);
        let reply = self.out.transmits.iter().find(|transmit| transmit.class == Class::Reply);
        let reply = Message::decode(self.out.datagram(reply.expect("a reply"))).expect("readable");
        let Body::Response(Response { token: Some(token), .. }) = reply.body else { panic!("no token") };
        let query = Query::AnnouncePeer { infohash, port: 6881, implied_port: false, token, seed: false };
        let query = encode(id, query);
        self.out.clear();
        (source(n), query)
    }

    /// A thousand queries of one kind, written beforehand.
    ///
    /// # Panics
    /// For another kind than [`KINDS`].
    pub fn queries(&mut self, kind: &str) -> Vec<(SocketAddr, Vec<u8>)> {
        (0..INFOHASHES).map(|n| self.query(kind, n)).collect()
    }

    /// So many queries of one kind about infohashes drawn from all that are stored.
    ///
    /// # Panics
    /// For another kind than [`KINDS`].
    pub fn queries_about_any(&mut self, kind: &str, count: usize) -> Vec<(SocketAddr, Vec<u8>)> {
        (0..count)
            .map(|_| {
                let infohash = self.rng.below(self.infohashes.len());
                self.query(kind, infohash)
            })
            .collect()
    }

    /// A query of one kind, about the infohash of that number if it is about a stored one.
    fn query(&mut self, kind: &str, infohash: usize) -> (SocketAddr, Vec<u8>) {
        let from = self.rng.below(SOURCES as usize);
        let query = match kind {
            "ping" => Query::Ping,
            "find_node" => Query::FindNode { target: self.rng.id(), want: Want::UNSPECIFIED },
            "hit" => get_peers(self.infohashes[infohash]),
            "miss" => get_peers(self.rng.id()),
            "announce" => return self.announce(infohash * PEERS),
            _ => panic!("kinds: {KINDS:?}"),
        };
        (source(from as u32), encode(self.ids[from], query))
    }

    /// Queries of all kinds in the shares of the serving benchmark, in random order, each with the number of its
    /// source.
    pub fn mix(&mut self, count: usize) -> Vec<(u32, SocketAddr, Vec<u8>)> {
        let shares = [0, 1, 1, 1, 1, 2, 2, 3, 3, 4].map(|kind: usize| KINDS[kind]);
        let pools = KINDS.map(|kind| (kind, self.queries(kind)));
        (0..count)
            .map(|_| {
                let kind = shares[self.rng.below(shares.len())];
                let pool = &pools.iter().find(|(name, _)| *name == kind).expect("one of the kinds").1;
                let (from, query) = pool[self.rng.below(pool.len())].clone();
                (number(from).expect("a source"), from, query)
            })
            .collect()
    }

    /// Gives the node `rounds` of these queries in turn.
    ///
    /// # Panics
    /// When one is not answered.
    pub fn run(&mut self, queries: &[(SocketAddr, Vec<u8>)], rounds: usize) {
        let mut replies = 0;
        for (round, (from, query)) in queries.iter().cycle().take(rounds).enumerate() {
            self.node.handle_datagram(self.now, 0, *from, query, &mut self.out);
            if round % BATCH == BATCH - 1 || round == rounds - 1 {
                replies += self.out.transmits.iter().filter(|sent| sent.class == Class::Reply).count();
                self.now += Duration::from_micros(100);
                self.out.clear();
            }
        }
        assert_eq!(replies, rounds, "every query is answered");
    }
}

fn home_without_past() -> Home {
    Home { id: Id::ZERO, local: ([0, 0, 0, 0], 0).into(), external: None, saved: Vec::new() }
}

fn source(n: u32) -> SocketAddr {
    ([85, (n >> 8) as u8, n as u8, 7], 6881).into()
}

fn number(addr: SocketAddr) -> Option<u32> {
    let SocketAddr::V4(addr) = addr else { return None };
    let [_, a, b, _] = addr.ip().octets();
    Some(u32::from(a) << 8 | u32::from(b)).filter(|&n| n < SOURCES)
}

fn get_peers(infohash: Id) -> Query<'static> {
    Query::GetPeers { infohash, want: Want::UNSPECIFIED, scrape: false, no_seed: false }
}

fn encode(id: Id, query: Query<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let body = Body::Query { id, query };
    Message { tid: b"abcd", version: None, ip: None, read_only: false, body }.encode(&mut bytes);
    bytes
}
