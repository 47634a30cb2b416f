//! The serving load generator: 20,000 internet-like sources in one thread that ask one node a mix of
//! queries, check every reply, and answer what the node asks them, so that its routing table is
//! full of nodes that are alive.
//!
//! Mix: 10 % ping, 40 % find_node, 20 % get_peers for one of 1,000 infohashes of ten peers, 20 % for an
//! unknown one, 10 % announce_peer with a valid token (one of those ten peers again).

mod check;
mod sources;
mod tally;

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use btdht::{Rng, Seeds};
use krpc::compact::{Contact, put_node};
use krpc::{Body, Id, Message, Query, Response, Want};

use crate::mmsg::{Socket, Speaks};
pub use check::PEERS;
use check::{Checker, check_existence, check_values};
pub use sources::SOURCES;
use sources::{PORT, Sources};
pub use tally::Tally;

/// Infohashes that have peers.
pub const INFOHASHES: u32 = 1_000;
/// Queries outstanding at most; a slot's number is the last byte of its transaction id.
pub const MAX_WINDOW: usize = 256;
/// A query without a reply is lost after this.
const LOST_AFTER: Duration = Duration::from_secs(1);
/// Replies in a row that are those of a full table before it is taken for one.
const ENOUGH: u64 = 1000;

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
    /// Who is asked.
    node: SocketAddrV4,
    target: Target,
    /// The node whose queries are answered while an echo is asked.
    home: Option<SocketAddrV4>,
    /// What else it sent then.
    strays: u64,
    tids: Tids,
    sources: Sources,
    checker: Checker,
    /// Whether the checker demands near nodes.
    near: bool,
    /// Whether every bucket of the node is asked about as often as the others.
    probes: bool,
    infohashes: Vec<Id>,
    /// The last token of each peer of each infohash.
    tokens: Vec<Option<Vec<u8>>>,
    /// A bit for each peer of each infohash whose announce was accepted.
    stored: Vec<u16>,
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
    /// What was asked for: an id or an infohash.
    target: Id,
    /// Peers of that infohash that were stored then.
    stored: u16,
    tid: Vec<u8>,
    at: Instant,
}

impl Load {
    /// A generator for the node at `node`; enter a [`crate::netns`] before.
    pub fn new(node: SocketAddrV4, target: Target, tids: Tids) -> io::Result<Self> {
        Self::of_infohashes(node, target, tids, INFOHASHES)
    }

    /// The same with so many infohashes that have peers. Where there are fewer sources than peers, one is a peer
    /// of several infohashes.
    pub fn of_infohashes(
        node: SocketAddrV4,
        target: Target,
        tids: Tids,
        infohashes: u32,
    ) -> io::Result<Self> {
        let mut rng = Rng::new(Seeds::from_u64(7));
        let sources = Sources::new(&mut rng);
        Ok(Self {
            socket: Socket::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, PORT), Speaks::ForAll)?,
            node,
            target,
            home: None,
            strays: 0,
            tids,
            sources,
            checker: Checker::new(false),
            near: false,
            probes: false,
            infohashes: (0..infohashes).map(|_| rng.id()).collect(),
            tokens: vec![None; (infohashes * PEERS) as usize],
            stored: vec![0; infohashes as usize],
            slots: (0..MAX_WINDOW).map(|_| None).collect(),
            todo: VecDeque::new(),
            only: None,
            rng,
            tally: Tally::default(),
            buffer: Vec::new(),
        })
    }

    /// Demands of a node that is taught from now on that it names the nodes which are near to a target.
    pub fn demand_near(&mut self) {
        self.near = true;
    }

    /// A node of this world to bootstrap from.
    pub fn router() -> SocketAddrV4 {
        SocketAddrV4::new(sources::ip(0), PORT)
    }

    /// Asks gently, about each of the node's buckets, until it has given, a thousand times in a row, what a full
    /// table holds, or the time is over; says whether it has. From then on it has to name the nodes that a full
    /// table holds.
    pub fn teach(&mut self, limit: Duration) -> io::Result<bool> {
        let end = Instant::now() + limit;
        let mut full = 0;
        self.probes = true;
        while Instant::now() < end && full < ENOUGH {
            for kind in [Kind::Ping, Kind::FindNode] {
                self.only = Some(kind);
                self.tally = Tally::default();
                // Only now may a node learn its address and take an id that belongs to it.
                self.checker = Checker::new(self.near);
                self.open(2_000, Duration::from_millis(10))?;
            }
            let (full_replies, replies) = self.tally.nodes;
            full = if replies > 0 && full_replies == replies { full + replies } else { 0 };
        }
        (self.only, self.probes) = (None, false);
        if full >= ENOUGH {
            self.checker.table_is_full();
        }
        Ok(full >= ENOUGH)
    }

    /// Announces the ten peers of each infohash, within `limit`; says how many were accepted.
    pub fn announce_all(&mut self, limit: Duration) -> io::Result<usize> {
        self.todo = (0..self.peers()).map(|peer| (Kind::Hit, peer)).collect();
        let end = Instant::now() + limit;
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
        Ok(self.stored.iter().map(|stored| stored.count_ones() as usize).sum())
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
        // Half of nothing is asked by who measures a node that answers nothing.
        let pause = Duration::from_secs(1) / rate.max(1);
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

    /// Asks an echo instead of the node; what the node asks meanwhile is answered.
    pub fn visiting<T>(&mut self, echo: SocketAddrV4, ask: impl FnOnce(&mut Self) -> T) -> T {
        let before = (self.node, self.target, self.tids);
        self.home = (self.target == Target::Node).then_some(self.node);
        (self.node, self.target, self.tids) = (echo, Target::Echo, Tids::Four);
        let asked = ask(self);
        (self.node, self.target, self.tids) = before;
        self.home = None;
        asked
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
        let peer = self.rng.below(self.peers() as usize) as u32;
        (kind, peer)
    }

    /// Peers of all infohashes.
    fn peers(&self) -> u32 {
        self.infohashes.len() as u32 * PEERS
    }

    fn ask(&mut self, slot: usize, now: Instant, kind: Kind, peer: u32) -> io::Result<()> {
        let source = match kind {
            Kind::Hit | Kind::Announce => peer % SOURCES,
            _ => self.rng.below(SOURCES as usize) as u32,
        };
        let mut tid = vec![0; if self.tids == Tids::Four { 4 } else { 1 + self.rng.below(32) }];
        self.rng.fill(&mut tid);
        *tid.last_mut().expect("not empty") = slot as u8;
        let target = match kind {
            Kind::Hit | Kind::Announce => self.infohashes[(peer / PEERS) as usize],
            // Random ones are hardly ever of a deep bucket, which fills last.
            Kind::FindNode if self.probes => self.checker.of_some_bucket(&mut self.rng),
            _ => self.rng.id(),
        };
        let none = Vec::new();
        let query = match kind {
            Kind::Ping => Query::Ping,
            Kind::FindNode => Query::FindNode { target, want: Want::UNSPECIFIED },
            Kind::Hit | Kind::Miss => {
                Query::GetPeers { infohash: target, want: Want::UNSPECIFIED, scrape: false, no_seed: false }
            }
            Kind::Announce => {
                let token = self.tokens[peer as usize].as_ref().unwrap_or(&none);
                Query::AnnouncePeer {
                    infohash: target,
                    port: i64::from(PORT),
                    // It is that one anyway; rqbit reads no announce that does not say.
                    implied_port: true,
                    token,
                    seed: false,
                }
            }
        };
        let id = self.sources.id(source).expect("a source");
        let body = Body::Query { id, query };
        let message = Message { tid: &tid, version: None, ip: None, read_only: false, body };
        self.buffer.clear();
        message.encode(&mut self.buffer);
        self.socket.send(sources::ip(source), self.node, &self.buffer)?;
        let stored = self.stored[(peer / PEERS) as usize];
        self.slots[slot] = Some(Asked { kind, source, peer, target, stored, tid, at: now });
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
            if let Kind::Hit | Kind::Announce = asked.kind
                && !self.is_stored(asked.peer)
                && self.target == Target::Node
            {
                self.todo.push_back((Kind::Hit, asked.peer));
            }
        }
    }

    fn handle(&mut self, n: usize, now: Instant) -> io::Result<()> {
        let packet = self.socket.received(n).clone();
        if self.home == Some(packet.remote) {
            let Ok(Message { tid, body: Body::Query { query, .. }, .. }) = Message::decode(packet.bytes())
            else {
                self.strays += 1;
                return Ok(());
            };
            return self.answer(packet.local, tid, query);
        }
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

    fn is_stored(&self, peer: u32) -> bool {
        self.stored[(peer / PEERS) as usize] >> (peer % PEERS) & 1 == 1
    }

    /// Whether a reply is what the query deserves.
    fn check(&mut self, asked: &Asked, local: Ipv4Addr, len: usize, body: &Body<'_>) -> Result<(), String> {
        if local != sources::ip(asked.source) {
            return Err(format!("sent to {local}"));
        }
        if len > 1024 {
            return Err(format!("{len} bytes"));
        }
        let Body::Response(response) = body else { return Err(format!("{body:?}")) };
        self.checker.check_id(response.id)?;
        match asked.kind {
            Kind::Ping => {}
            Kind::FindNode => {
                let is_whole = self.check_nodes(asked, response)?;
                self.tally.nodes.0 += u64::from(is_whole);
                self.tally.nodes.1 += 1;
            }
            Kind::Hit => self.check_hit(asked, response)?,
            Kind::Miss => {
                response.token.ok_or("no token")?;
                if response.values.is_some_and(|values| !values.is_empty()) {
                    return Err("values of an unknown infohash".to_owned());
                }
                self.check_nodes(asked, response)?;
            }
            Kind::Announce => self.stored[(asked.peer / PEERS) as usize] |= 1 << (asked.peer % PEERS),
        }
        Ok(())
    }

    fn check_nodes(&self, asked: &Asked, response: &Response<'_>) -> Result<bool, String> {
        let nodes = response.nodes.unwrap_or_default();
        self.checker.check_nodes(nodes, (&asked.target, asked.source), &self.sources)
    }

    fn check_hit(&mut self, asked: &Asked, response: &Response<'_>) -> Result<(), String> {
        let token = response.token.ok_or("no token")?;
        self.tokens[asked.peer as usize] = Some(token.to_vec());
        if !self.is_stored(asked.peer) {
            // At once: rqbit remembers a thousand tokens.
            self.todo.push_front((Kind::Announce, asked.peer));
        }
        // It may leave nodes out where it has peers.
        check_existence(response.nodes.unwrap_or_default(), &self.sources, |_, _| {})?;
        check_values(response.values, asked.peer / PEERS, asked.stored)
    }

    /// Answers a query of the node in the name of the source that it went to.
    fn answer(&mut self, local: Ipv4Addr, tid: &[u8], query: Query<'_>) -> io::Result<()> {
        let [_, high, low, _] = local.octets();
        let source = u32::from(high) << 8 | u32::from(low);
        let Some(id) = self.sources.id(source) else { return Ok(()) };
        let mut nodes = Vec::new();
        let target = match query {
            Query::FindNode { target, .. } | Query::SampleInfohashes { target, .. } => Some(target),
            Query::GetPeers { infohash, .. } => Some(infohash),
            _ => None,
        };
        if let Some(target) = target {
            for n in self.sources.nearest(&target) {
                let id = self.sources.id(n).expect("a source");
                put_node(&mut nodes, &Contact { id, addr: sources::wire(n) });
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
        self.socket.send(local, self.home.unwrap_or(self.node), &self.buffer)
    }

    /// Waits for the stragglers and hands out the tally.
    fn finish(&mut self, start: Instant) -> io::Result<Tally> {
        self.tally.seconds = start.elapsed().as_secs_f64();
        let replies = self.tally.replies;
        let end = Instant::now() + LOST_AFTER + Duration::from_millis(100);
        while Instant::now() < end && self.slots.iter().any(Option::is_some) {
            self.turn(Instant::now())?;
        }
        // Stragglers must be right and cost something, but they are not part of the rate.
        (self.tally.answered, self.tally.replies) = (self.tally.replies, replies);
        if self.home.is_none() && self.strays > 0 {
            self.tally.wrong += std::mem::take(&mut self.strays);
            self.tally.first_wrong.get_or_insert_with(|| "a reply while nothing was asked".to_owned());
        }
        Ok(self.tally.clone())
    }
}
