//! The serving load generator: 20,000 internet-like sources in one thread that ask one node a mix of
//! queries, check every reply, and answer what the node asks them, so that its routing table is
//! full of nodes that are alive.
//!
//! Mix: 10 % ping, 40 % find_node, 20 % get_peers for one of 1,000 infohashes of ten peers, 20 % for an
//! unknown one, 10 % announce_peer with a valid token (one of those ten peers again).

mod tally;

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use btdht::secure_id::secure_id;
use btdht::{Rng, Seeds};
use krpc::bencode::Strings;
use krpc::compact::{Address as _, Contact, V4, put_node};
use krpc::{Body, Id, Message, Query, Response, Want};

use crate::mmsg::{Socket, Speaks};
pub use tally::Tally;

/// Sources: `85.x.y.7:6881`, each in a /24 of its own.
pub const SOURCES: u32 = 20_000;
/// Infohashes that have peers.
pub const INFOHASHES: u32 = 1_000;
/// Peers of each.
pub const PEERS: u32 = 10;
const PORT: u16 = 6881;
/// Queries outstanding at most; a slot's number is the last byte of its transaction id.
pub const MAX_WINDOW: usize = 256;
/// A query without a reply is lost after this.
const LOST_AFTER: Duration = Duration::from_secs(1);

/// A kind of query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `ping`.
    Ping,
    /// `find_node` for a random target.
    FindNode,
    /// `get_peers` for an infohash that has peers.
    Hit,
    /// `get_peers` for an infohash that has none.
    Miss,
    /// `announce_peer`.
    Announce,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 5] = [Self::Ping, Self::FindNode, Self::Hit, Self::Miss, Self::Announce];

    fn of_mix(rng: &mut Rng) -> Self {
        match rng.below(10) {
            0 => Self::Ping,
            1..=4 => Self::FindNode,
            5 | 6 => Self::Hit,
            7 | 8 => Self::Miss,
            _ => Self::Announce,
        }
    }
}

/// What is asked, of whom replies are expected, and how strictly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A DHT node.
    Node,
    /// The floor: an echo of the query, padded.
    Echo,
}

/// How the transaction ids look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tids {
    /// Four bytes, as everybody sends them.
    Four,
    /// One to 32 bytes.
    Any,
}

/// The generator.
pub struct Load {
    socket: Socket,
    node: SocketAddrV4,
    target: Target,
    tids: Tids,
    ids: Vec<Id>,
    /// Sources in the order of their ids.
    sorted: Vec<u32>,
    infohashes: Vec<Id>,
    /// The last token of each peer of each infohash.
    tokens: Vec<Option<Vec<u8>>>,
    stored: Vec<bool>,
    slots: Vec<Option<Asked>>,
    todo: VecDeque<(Kind, u32)>,
    only: Option<Kind>,
    rng: Rng,
    tally: Tally,
    buffer: Vec<u8>,
}

struct Asked {
    kind: Kind,
    source: u32,
    /// Which peer of which infohash, for [`Kind::Hit`] and [`Kind::Announce`].
    peer: u32,
    tid: Vec<u8>,
    at: Instant,
}

impl Load {
    /// A generator for the node at `node`; enter a [`crate::netns`] before.
    pub fn new(node: SocketAddrV4, target: Target, tids: Tids) -> io::Result<Self> {
        let mut rng = Rng::new(Seeds::from_u64(7));
        let ids: Vec<Id> = (0..SOURCES).map(|n| secure_id(IpAddr::V4(source_ip(n)), &mut rng)).collect();
        let mut sorted: Vec<u32> = (0..SOURCES).collect();
        sorted.sort_unstable_by_key(|&n| ids[n as usize]);
        Ok(Self {
            socket: Socket::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, PORT), Speaks::ForAll)?,
            node,
            target,
            tids,
            ids,
            sorted,
            infohashes: (0..INFOHASHES).map(|_| rng.id()).collect(),
            tokens: vec![None; (INFOHASHES * PEERS) as usize],
            stored: vec![false; (INFOHASHES * PEERS) as usize],
            slots: (0..MAX_WINDOW).map(|_| None).collect(),
            todo: VecDeque::new(),
            only: None,
            rng,
            tally: Tally::default(),
            buffer: Vec::new(),
        })
    }

    /// A node of this world to bootstrap from.
    pub fn router() -> SocketAddrV4 {
        SocketAddrV4::new(source_ip(0), PORT)
    }

    /// Asks gently until the node has nodes enough to give eight of them a hundred times in a row, or
    /// the time is over; says whether it has.
    pub fn teach(&mut self, limit: Duration) -> io::Result<bool> {
        let end = Instant::now() + limit;
        let mut full = 0;
        while Instant::now() < end && full < 100 {
            for kind in [Kind::Ping, Kind::FindNode] {
                self.only = Some(kind);
                self.tally = Tally::default();
                self.open(2_000, Duration::from_millis(10))?;
            }
            let (nodes, replies) = self.tally.nodes;
            full = if replies > 0 && nodes == 8 * replies { full + replies } else { 0 };
        }
        self.only = None;
        Ok(full >= 100)
    }

    /// Announces the ten peers of each infohash; says how many were accepted.
    pub fn announce_all(&mut self) -> io::Result<usize> {
        self.todo = (0..INFOHASHES * PEERS).map(|peer| (Kind::Hit, peer)).collect();
        let end = Instant::now() + Duration::from_secs(60);
        while Instant::now() < end && !(self.todo.is_empty() && self.slots.iter().all(Option::is_none)) {
            let now = Instant::now();
            for slot in 0..16 {
                if self.slots[slot].is_none()
                    && let Some((kind, peer)) = self.todo.pop_front()
                {
                    self.ask(slot, now, kind, peer)?;
                }
            }
            self.turn(now)?;
        }
        Ok(self.stored.iter().filter(|&&stored| stored).count())
    }

    /// Keeps `window` queries outstanding for `span`.
    pub fn closed(&mut self, window: usize, span: Duration) -> io::Result<Tally> {
        let start = Instant::now();
        self.tally = Tally::default();
        loop {
            let now = Instant::now();
            if now - start >= span {
                break;
            }
            for slot in 0..window.min(MAX_WINDOW) {
                if self.slots[slot].is_none() {
                    let (kind, peer) = self.choose();
                    self.ask(slot, now, kind, peer)?;
                }
            }
            self.turn(now)?;
        }
        self.finish(start)
    }

    /// Asks `rate` queries a second for `span`, whatever comes back.
    pub fn open(&mut self, rate: u32, span: Duration) -> io::Result<Tally> {
        let start = Instant::now();
        self.tally = Tally::default();
        let pause = Duration::from_secs(1) / rate;
        let mut due = start;
        while due - start < span {
            let now = Instant::now();
            while due <= now && due - start < span {
                if let Some(slot) = self.slots.iter().position(Option::is_none) {
                    let (kind, peer) = self.choose();
                    self.ask(slot, now, kind, peer)?;
                } else {
                    self.tally.unsent += 1;
                }
                due += pause;
            }
            self.turn(now)?;
        }
        self.finish(start)
    }

    /// Asks only one kind from now on; the mix for `None`.
    pub fn only(&mut self, kind: Option<Kind>) {
        self.only = kind;
    }

    /// Answers what the node asks, without asking anything.
    pub fn idle(&mut self, span: Duration) -> io::Result<()> {
        let end = Instant::now() + span;
        while Instant::now() < end {
            self.turn(Instant::now())?;
        }
        Ok(())
    }

    fn choose(&mut self) -> (Kind, u32) {
        let kind = self.only.unwrap_or_else(|| Kind::of_mix(&mut self.rng));
        let peer = self.rng.below((INFOHASHES * PEERS) as usize) as u32;
        (kind, peer)
    }

    fn ask(&mut self, slot: usize, now: Instant, kind: Kind, peer: u32) -> io::Result<()> {
        let source = match kind {
            Kind::Hit | Kind::Announce => peer,
            _ => self.rng.below(SOURCES as usize) as u32,
        };
        let mut tid = vec![0; if self.tids == Tids::Four { 4 } else { 1 + self.rng.below(32) }];
        self.rng.fill(&mut tid);
        *tid.last_mut().expect("not empty") = slot as u8;
        let infohash = self.infohashes[(peer / PEERS) as usize];
        let none = Vec::new();
        let query = match kind {
            Kind::Ping => Query::Ping,
            Kind::FindNode => Query::FindNode { target: self.rng.id(), want: Want::UNSPECIFIED },
            Kind::Hit => Query::GetPeers { infohash, want: Want::UNSPECIFIED, scrape: false, no_seed: false },
            Kind::Miss => {
                let infohash = self.rng.id();
                Query::GetPeers { infohash, want: Want::UNSPECIFIED, scrape: false, no_seed: false }
            }
            Kind::Announce => {
                let token = self.tokens[peer as usize].as_ref().unwrap_or(&none);
                Query::AnnouncePeer {
                    infohash,
                    port: i64::from(PORT),
                    // It is that one anyway; rqbit reads no announce that does not say.
                    implied_port: true,
                    token,
                    seed: false,
                }
            }
        };
        let body = Body::Query { id: self.ids[source as usize], query };
        let message = Message { tid: &tid, version: None, ip: None, read_only: false, body };
        self.buffer.clear();
        message.encode(&mut self.buffer);
        self.socket.send(source_ip(source), self.node, &self.buffer)?;
        self.slots[slot] = Some(Asked { kind, source, peer, tid, at: now });
        Ok(())
    }

    /// Sends what is queued, handles what arrived, gives up what is lost.
    fn turn(&mut self, now: Instant) -> io::Result<()> {
        self.socket.flush()?;
        let count = self.socket.receive(false)?;
        let arrived = Instant::now();
        for n in 0..count {
            self.handle(n, arrived)?;
        }
        if count == 0 {
            for slot in 0..MAX_WINDOW {
                if self.slots[slot]
                    .as_ref()
                    .is_some_and(|asked| now.saturating_duration_since(asked.at) > LOST_AFTER)
                {
                    self.give_up(slot);
                }
            }
        }
        Ok(())
    }

    fn give_up(&mut self, slot: usize) {
        if let Some(asked) = self.slots[slot].take() {
            self.tally.lost += 1;
            if let Kind::Hit | Kind::Announce = asked.kind {
                let peer = asked.peer as usize;
                if !self.stored[peer] && self.target == Target::Node {
                    self.todo.push_back((Kind::Hit, asked.peer));
                }
            }
        }
    }

    fn handle(&mut self, n: usize, now: Instant) -> io::Result<()> {
        let packet = self.socket.received(n).clone();
        if packet.remote != self.node {
            return Ok(());
        }
        if self.target == Target::Echo {
            // The transaction id stands before the end of the query, which is somewhere in the padding.
            let end = packet.bytes().windows(7).position(|window| window == b"1:y1:qe");
            let slot = end.and_then(|end| packet.bytes().get(end.checked_sub(1)?)).copied();
            if let Some(asked) = slot.and_then(|slot| self.slots[usize::from(slot)].take()) {
                self.count(&asked, now, packet.bytes().len());
            }
            return Ok(());
        }
        match Message::decode(packet.bytes()) {
            Ok(Message { tid, body: Body::Query { query, .. }, .. }) => self.answer(packet.local, tid, query),
            Ok(Message { tid, body, .. }) => {
                let slot = usize::from(tid.last().copied().unwrap_or_default());
                let Some(asked) = self.slots[slot].take_if(|asked| asked.tid == tid) else {
                    self.wrong("a transaction id that is not outstanding".to_owned());
                    return Ok(());
                };
                match self.check(&asked, packet.local, packet.bytes().len(), &body) {
                    Ok(()) => self.count(&asked, now, packet.bytes().len()),
                    Err(why) => self.wrong(format!("{:?}: {why}", asked.kind)),
                }
                Ok(())
            }
            Err(failure) => {
                self.wrong(format!("{failure:?}"));
                Ok(())
            }
        }
    }

    fn count(&mut self, asked: &Asked, now: Instant, bytes: usize) {
        self.tally.replies += 1;
        self.tally.reply_bytes += bytes as u64;
        self.tally.micros.push(now.saturating_duration_since(asked.at).as_micros() as u32);
    }

    fn wrong(&mut self, why: String) {
        self.tally.wrong += 1;
        self.tally.first_wrong.get_or_insert(why);
    }

    /// Whether a reply is what the query deserves.
    fn check(&mut self, asked: &Asked, local: Ipv4Addr, len: usize, body: &Body<'_>) -> Result<(), String> {
        if local != source_ip(asked.source) {
            return Err(format!("sent to {local}"));
        }
        if len > 1024 {
            return Err(format!("{len} bytes"));
        }
        let Body::Response(response) = body else { return Err(format!("{body:?}")) };
        let peer = asked.peer as usize;
        match asked.kind {
            Kind::Ping => {}
            Kind::FindNode => {
                let nodes = whole_nodes(response)?;
                self.tally.nodes.0 += nodes as u64;
                self.tally.nodes.1 += 1;
            }
            Kind::Hit => {
                let token = response.token.ok_or("no token")?;
                self.tokens[peer] = Some(token.to_vec());
                if self.stored[peer] {
                    let values = response.values.ok_or("no values")?;
                    check_values(values, asked.peer / PEERS)?;
                } else {
                    // At once: rqbit remembers a thousand tokens.
                    self.todo.push_front((Kind::Announce, asked.peer));
                }
            }
            Kind::Miss => {
                response.token.ok_or("no token")?;
                if response.values.is_some_and(|values| !values.is_empty()) {
                    return Err("values of an unknown infohash".to_owned());
                }
                whole_nodes(response)?;
            }
            Kind::Announce => self.stored[peer] = true,
        }
        Ok(())
    }

    /// Answers a query of the node in the name of the source that it went to.
    fn answer(&mut self, local: Ipv4Addr, tid: &[u8], query: Query<'_>) -> io::Result<()> {
        let [_, high, low, _] = local.octets();
        let source = u32::from(high) << 8 | u32::from(low);
        let Some(id) = self.ids.get(source as usize).copied() else { return Ok(()) };
        let mut nodes = Vec::new();
        let target = match query {
            Query::FindNode { target, .. } | Query::SampleInfohashes { target, .. } => Some(target),
            Query::GetPeers { infohash, .. } => Some(infohash),
            _ => None,
        };
        if let Some(target) = target {
            // The nearest share the longest prefix, so that they stand about where the target would.
            let at = self.sorted.partition_point(|&n| self.ids[n as usize] < target);
            let mut near = self.sorted[at.saturating_sub(32)..(at + 32).min(self.sorted.len())].to_vec();
            near.sort_unstable_by_key(|&n| self.ids[n as usize].distance(&target));
            for &n in &near[..8] {
                let addr = V4::from_socket(SocketAddrV4::new(source_ip(n), PORT).into()).expect("IPv4");
                put_node(&mut nodes, &Contact { id: self.ids[n as usize], addr });
            }
        }
        let response = Response {
            nodes: target.map(|_| nodes.as_slice()),
            token: target.map(|_| &b"none"[..]),
            ..Response::new(id)
        };
        let message =
            Message { tid, version: None, ip: None, read_only: false, body: Body::Response(response) };
        self.buffer.clear();
        message.encode(&mut self.buffer);
        self.socket.send(local, self.node, &self.buffer)
    }

    /// Waits for the stragglers and hands out the tally.
    fn finish(&mut self, start: Instant) -> io::Result<Tally> {
        self.tally.seconds = start.elapsed().as_secs_f64();
        let replies = self.tally.replies;
        let end = Instant::now() + LOST_AFTER + Duration::from_millis(100);
        while Instant::now() < end && self.slots.iter().any(Option::is_some) {
            self.turn(Instant::now())?;
        }
        // Stragglers must be right, but they are not part of the rate.
        self.tally.replies = replies;
        Ok(self.tally.clone())
    }
}

fn source_ip(source: u32) -> Ipv4Addr {
    Ipv4Addr::new(85, (source >> 8) as u8, source as u8, 7)
}

fn whole_nodes(response: &Response<'_>) -> Result<usize, String> {
    let nodes = response.nodes.ok_or("no nodes")?;
    let count = nodes.len() / V4::NODE_LEN;
    if nodes.len() % V4::NODE_LEN != 0 || count == 0 {
        return Err(format!("{} bytes of nodes", nodes.len()));
    }
    let is_source = |addr: V4| matches!(addr.as_wire(), [85, _, _, 7, 0x1a, 0xe1]);
    if !krpc::compact::nodes::<V4>(nodes).all(|contact| is_source(contact.addr)) {
        return Err("a node that does not exist".to_owned());
    }
    Ok(count)
}

fn check_values(values: Strings<'_>, infohash: u32) -> Result<(), String> {
    if values.is_empty() || values.len() > PEERS as usize {
        return Err(format!("{} values", values.len()));
    }
    let is_peer = |value: &[u8]| {
        (0..PEERS).any(|n| {
            let addr = SocketAddrV4::new(source_ip(infohash * PEERS + n), PORT);
            V4::from_socket(addr.into()).is_some_and(|addr| addr.as_wire() == value)
        })
    };
    if values.iter().all(is_peer) { Ok(()) } else { Err("a peer that never announced".to_owned()) }
}
