//! A small virtual network for tests: nodes and actors of any conduct on virtual time, with latency
//! and loss from a seed. Everything that happens goes into a digest, so that two runs can be compared.
//! Which tests belong to which scenario of `tests/SCENARIOS.md` is listed in `tests/src/scenarios.rs`.

mod address;
mod amplification;
mod announced;
mod bootstrap;
mod changed_ids;
mod clocks;
mod counted;
mod crawl;
mod crowd;
mod fitting;
mod floods;
mod homes;
mod hostile;
mod items;
mod messages;
mod modes;
mod network;
mod numbers;
mod pokes;
mod reachable;
mod serving;
mod stand_ins;
mod street;
mod turns;
#[cfg(feature = "sim")]
mod weather;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use krpc::{Body, Id, Message, Query, Response, Want};
use sha1::{Digest as _, Sha1};

use self::messages::longest;
pub(crate) use self::messages::{find_node, get_peers, query, reply, target_of};
use crate::secure_id::secure_id;
use crate::{
    Announce, Command, Config, Event, Home, LookupId, LookupStats, NetworkChange, Node, Outbox, Outcome, Rng,
    Seeds, Time,
};

/// Hosts and the packets between them.
pub(crate) struct World {
    pub(crate) now: Time,
    pub(crate) config: Arc<Config>,
    /// Percent of packets lost.
    pub(crate) loss: u32,
    /// Each packet takes up to so much longer than its path.
    pub(crate) jitter: Duration,
    /// Microseconds of the path between two addresses; the same both ways.
    pub(crate) path: Box<dyn Fn(SocketAddr, SocketAddr) -> u64>,
    pub(crate) hosts: Vec<Host>,
    by_addr: BTreeMap<SocketAddr, (usize, u8)>,
    packets: BTreeMap<(Time, u64), Packet>,
    /// Datagrams to addresses where nobody lives.
    pub(crate) strays: BTreeMap<IpAddr, u32>,
    timers: BTreeSet<(Time, usize)>,
    sent: u64,
    rng: Rng,
    digest: DefaultHasher,
}

/// A host: its sockets and what runs there.
pub(crate) struct Host {
    pub(crate) addrs: Vec<SocketAddr>,
    pub(crate) kind: Kind,
    pub(crate) events: Vec<(Time, Event)>,
    /// What it sends leaves so much later.
    pub(crate) delay: Duration,
    /// Datagrams that came.
    pub(crate) received: u32,
    /// Datagrams that it sent.
    pub(crate) sent: u32,
    /// Nothing that it sends or that is sent to it arrives, but from and to others on its machine.
    pub(crate) offline: bool,
    /// The machine is suspended: no timer runs either.
    pub(crate) asleep: bool,
    /// What it takes for now lies so far back.
    pub(crate) behind: Duration,
    /// Whom it sent to last when; it is reached only by whom it sent to within two minutes, as behind a NAT.
    pub(crate) firewall: Option<BTreeMap<SocketAddr, Time>>,
    timer: Time,
}

pub(crate) enum Kind {
    /// A real node.
    Node(Box<Node>),
    /// Nobody answers.
    Dead,
    /// Answers as it likes: gets the time, the sender and the query, gives datagrams to send.
    Actor(Box<Conduct>),
}

/// What an actor does: (now, sender, query) → datagrams and their destinations.
pub(crate) type Conduct = dyn FnMut(Time, SocketAddr, &Message<'_>) -> Vec<(SocketAddr, Vec<u8>)>;

struct Packet {
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

/// 10 to 60 ms one way by the pair of addresses.
fn even_path(from: SocketAddr, to: SocketAddr) -> u64 {
    let pair = Sha1::digest(format!("{} {}", from.min(to), from.max(to)));
    10_000 + u64::from(u16::from_be_bytes([pair[0], pair[1]])) * 50_000 / 65_536
}

/// How a lookup ended, gathered from its events.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) outcome: Outcome,
    pub(crate) stats: LookupStats,
    pub(crate) closest: Vec<(Id, SocketAddr)>,
    pub(crate) peers: Vec<SocketAddr>,
    pub(crate) stored: Vec<SocketAddr>,
}

impl World {
    pub(crate) fn new(seed: u64, config: Config) -> Self {
        Self {
            now: Time::from_secs(1),
            config: Arc::new(config),
            loss: 0,
            jitter: Duration::from_millis(5),
            path: Box::new(even_path),
            hosts: Vec::new(),
            by_addr: BTreeMap::new(),
            packets: BTreeMap::new(),
            strays: BTreeMap::new(),
            timers: BTreeSet::new(),
            sent: 0,
            rng: Rng::from_seed(seed),
            digest: DefaultHasher::new(),
        }
    }

    /// A world of `count` nodes that bootstrap from host 0 and have run for `span`.
    pub(crate) fn grown(seed: u64, count: usize, span: Duration) -> Self {
        let mut world = Self::new(seed, Config::default());
        for _ in 0..count {
            world.add_node(&[]);
        }
        world.join(1..count, 0);
        world.run(span);
        world
    }

    /// An IPv4 address of a network of its own. The last octet counts whole in an id (BEP 42), so that
    /// it is what spreads ids over the key space.
    pub(crate) fn v4(n: usize) -> SocketAddr {
        ([80 + (n >> 16) as u8, (n >> 8) as u8, n as u8, (n * 37 % 251) as u8 + 1], 6881).into()
    }

    /// An IPv6 address of a network of its own.
    pub(crate) fn v6(n: usize) -> SocketAddr {
        ([0x2001, 0xdb8, 1, n as u16, 0, 0, 0, 1], 6881).into()
    }

    /// A node with a random id at the next IPv4 address.
    pub(crate) fn add_node(&mut self, saved: &[(Id, SocketAddr)]) -> usize {
        let addr = Self::v4(self.hosts.len());
        self.add_node_at(&[addr], saved)
    }

    /// A node whose ids belong to its addresses (BEP 42), so that it keeps them.
    pub(crate) fn add_node_at(&mut self, addrs: &[SocketAddr], saved: &[(Id, SocketAddr)]) -> usize {
        let home = |&local: &SocketAddr| {
            let id = secure_id(local.ip(), &mut self.rng);
            Home { id, local, external: None, saved: saved.to_vec() }
        };
        let homes = addrs.iter().map(home).collect();
        self.add_node_with(homes)
    }

    pub(crate) fn add_node_with(&mut self, homes: Vec<Home>) -> usize {
        let addrs: Vec<_> = homes.iter().map(|home| home.local).collect();
        let seeds = Seeds::from_u64(self.rng.next_u64());
        let node = Node::new(Arc::clone(&self.config), homes, seeds, self.now);
        self.add_host(&addrs, Kind::Node(Box::new(node)))
    }

    pub(crate) fn add_actor(&mut self, conduct: Box<Conduct>) -> usize {
        self.add_actor_at(Self::v4(self.hosts.len()), conduct)
    }

    pub(crate) fn add_actor_at(&mut self, addr: SocketAddr, conduct: Box<Conduct>) -> usize {
        self.add_host(&[addr], Kind::Actor(conduct))
    }

    pub(crate) fn add_dead(&mut self) -> usize {
        let addr = Self::v4(self.hosts.len());
        self.add_host(&[addr], Kind::Dead)
    }

    fn add_host(&mut self, addrs: &[SocketAddr], kind: Kind) -> usize {
        let index = self.hosts.len();
        for (socket, &addr) in addrs.iter().enumerate() {
            assert!(self.by_addr.insert(addr, (index, socket as u8)).is_none());
        }
        let addrs = addrs.to_vec();
        self.hosts.push(Host {
            addrs,
            kind,
            events: Vec::new(),
            delay: Duration::ZERO,
            received: 0,
            sent: 0,
            offline: false,
            asleep: false,
            behind: Duration::ZERO,
            firewall: None,
            timer: Time::NEVER,
        });
        self.rearm(index);
        index
    }

    /// Tells nodes that host `router` is their router.
    pub(crate) fn join(&mut self, nodes: std::ops::Range<usize>, router: usize) {
        let routers = self.hosts[router].addrs.clone();
        for node in nodes {
            self.command(node, Command::Routers(routers.clone()));
        }
    }

    pub(crate) fn kill(&mut self, index: usize) {
        self.hosts[index].kind = Kind::Dead;
        self.rearm(index);
    }

    /// Gives the only socket of a host another address.
    pub(crate) fn move_to(&mut self, index: usize, addr: SocketAddr) {
        self.by_addr.remove(&self.hosts[index].addrs[0]);
        self.by_addr.insert(addr, (index, 0));
        self.hosts[index].addrs = vec![addr];
    }

    /// Suspends the machine or wakes it up.
    pub(crate) fn set_asleep(&mut self, index: usize, asleep: bool) {
        self.hosts[index].asleep = asleep;
        self.hosts[index].offline = asleep;
        self.rearm(index);
    }

    /// Sets the clock of a host back.
    pub(crate) fn set_back(&mut self, index: usize, span: Duration) {
        self.hosts[index].behind += span;
        self.rearm(index);
    }

    /// Now, as a host has it.
    pub(crate) fn clock(&self, index: usize) -> Time {
        self.now - self.hosts[index].behind
    }

    pub(crate) fn node(&self, index: usize) -> &Node {
        match &self.hosts[index].kind {
            Kind::Node(node) => node,
            Kind::Dead | Kind::Actor(_) => panic!("host {index} is no node"),
        }
    }

    pub(crate) fn id(&self, index: usize) -> Id {
        self.node(index).stats(self.clock(index))[0].id
    }

    pub(crate) fn addr(&self, index: usize) -> SocketAddr {
        self.hosts[index].addrs[0]
    }

    pub(crate) fn random_id(&mut self) -> Id {
        self.rng.id()
    }

    pub(crate) fn digest(&self) -> u64 {
        self.digest.finish()
    }

    pub(crate) fn command(&mut self, index: usize, command: Command) -> Option<LookupId> {
        let now = self.clock(index);
        let mut name = None;
        self.act(index, |node, out| name = node.handle_command(now, command, out));
        name
    }

    /// Tells a node what happened to the network of its first socket.
    pub(crate) fn tell(&mut self, index: usize, change: NetworkChange) {
        let now = self.clock(index);
        self.act(index, |node, out| node.handle_network(now, 0, change, out));
    }

    /// Has a node ping `to`; the query.
    pub(crate) fn ask_from(&mut self, index: usize, to: SocketAddr) -> Vec<u8> {
        let (now, command) = (self.clock(index), Command::Ask { to, question: crate::Question::Ping });
        let ask = |node: &mut Node, out: &mut Outbox| {
            node.handle_command(now, command, out);
        };
        self.act(index, ask).remove(0)
    }

    /// Gives a datagram to a node as if it had come from `from`; what the node sends at once.
    pub(crate) fn inject(&mut self, index: usize, from: SocketAddr, bytes: &[u8]) -> Vec<Vec<u8>> {
        self.inject_at(index, 0, from, bytes)
    }

    /// The same at one of a node's sockets.
    pub(crate) fn inject_at(
        &mut self,
        index: usize,
        socket: u8,
        from: SocketAddr,
        bytes: &[u8],
    ) -> Vec<Vec<u8>> {
        let now = self.clock(index);
        self.act(index, |node, out| node.handle_datagram(now, socket, from, bytes, out))
    }

    pub(crate) fn run(&mut self, span: Duration) {
        let end = self.now + span;
        while self.step(end) {}
        self.now = end;
    }

    /// Runs a lookup to its end.
    pub(crate) fn look_up(&mut self, index: usize, command: Command) -> Found {
        let name = self.command(index, command).unwrap();
        let limit = self.now + Duration::from_secs(40);
        let done = |world: &Self| {
            let is_it =
                |event: &&(Time, Event)| matches!(event.1, Event::Done { lookup, .. } if lookup == name);
            world.hosts[index].events.iter().find(is_it).map(|event| event.1.clone())
        };
        let event = loop {
            if let Some(event) = done(self) {
                break event;
            }
            assert!(self.step(limit), "a lookup did not end");
        };
        let Event::Done { outcome, stats, closest, .. } = event else { unreachable!() };
        let mut found = Found { outcome, stats, closest, peers: Vec::new(), stored: Vec::new() };
        for (_, event) in &self.hosts[index].events {
            match *event {
                Event::Peer { lookup, addr, .. } if lookup == name => found.peers.push(addr),
                Event::Stored { lookup, node, .. } if lookup == name => found.stored.push(node),
                _ => {}
            }
        }
        found
    }

    pub(crate) fn find_node(&mut self, index: usize, target: Id) -> Found {
        self.look_up(index, Command::FindNode { target, trace: true })
    }

    pub(crate) fn get_peers(&mut self, index: usize, infohash: Id) -> Found {
        self.look_up(index, Command::GetPeers { infohash, announce: None, trace: true })
    }

    pub(crate) fn announce(&mut self, index: usize, infohash: Id, port: u16) -> Found {
        let announce = Some(Announce { port, implied: false, seed: false });
        self.look_up(index, Command::GetPeers { infohash, announce, trace: true })
    }

    /// The true `count` closest of the given hosts to `target`.
    pub(crate) fn truth(
        &self,
        hosts: impl Iterator<Item = usize>,
        target: &Id,
        count: usize,
    ) -> Vec<(Id, SocketAddr)> {
        let mut all: Vec<_> = hosts.map(|host| (self.id(host), self.addr(host))).collect();
        all.sort_by_key(|(id, _)| id.distance(target));
        all.truncate(count);
        all
    }

    /// Handles the next thing that happens before `end`; `false` if nothing does.
    fn step(&mut self, end: Time) -> bool {
        let packet = self.packets.first_key_value().map_or(Time::NEVER, |(&(at, _), _)| at);
        let timer = self.timers.first().map_or(Time::NEVER, |&(at, _)| at);
        if packet.min(timer) > end {
            return false;
        }
        if packet <= timer {
            let ((at, _), packet) = self.packets.pop_first().unwrap();
            self.now = self.now.max(at);
            self.deliver(&packet);
        } else {
            let &(at, index) = self.timers.first().unwrap();
            self.now = self.now.max(at);
            let now = self.clock(index);
            self.act(index, |node, out| node.handle_timeout(now, out));
            assert!(self.hosts[index].timer > self.now, "host {index} wants to wake up again at once");
        }
        true
    }

    fn deliver(&mut self, packet: &Packet) {
        let Some(&(index, socket)) = self.by_addr.get(&packet.to) else {
            *self.strays.entry(packet.to.ip()).or_default() += 1;
            return;
        };
        let host = &self.hosts[index];
        if host.asleep || host.offline && packet.from.ip() != packet.to.ip() {
            return;
        }
        let now = self.now;
        let sent_to = |sent: &BTreeMap<SocketAddr, Time>| sent.get(&packet.from).copied();
        if let Some(firewall) = &self.hosts[index].firewall
            && sent_to(firewall).is_none_or(|at| now.since(at) > Duration::from_secs(120))
        {
            return;
        }
        self.hosts[index].received += 1;
        if let Kind::Actor(conduct) = &mut self.hosts[index].kind {
            if let Ok(query) = Message::decode(&packet.bytes) {
                for (to, bytes) in conduct(now, packet.from, &query) {
                    self.send(packet.to, to, bytes);
                }
            }
            return;
        }
        let now = self.clock(index);
        self.act(index, |node, out| node.handle_datagram(now, socket, packet.from, &packet.bytes, out));
    }

    /// Lets a node do something; sends what it wants sent, and says what that was.
    fn act(&mut self, index: usize, action: impl FnOnce(&mut Node, &mut Outbox)) -> Vec<Vec<u8>> {
        let Kind::Node(node) = &mut self.hosts[index].kind else {
            return Vec::new();
        };
        let mut out = Outbox::new();
        action(node, &mut out);
        let now = self.now;
        self.hosts[index].events.extend(out.events.drain(..).map(|event| (now, event)));
        let mut sent = Vec::new();
        for transmit in &out.transmits {
            let bytes = out.datagram(transmit).to_vec();
            assert!(bytes.len() <= longest(&bytes, transmit.to), "{} bytes", bytes.len());
            let from = self.hosts[index].addrs[usize::from(transmit.socket)];
            sent.push(bytes.clone());
            self.send(from, transmit.to, bytes);
        }
        self.rearm(index);
        sent
    }

    fn send(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        self.sent += 1;
        (self.now.as_micros(), from, to, &bytes).hash(&mut self.digest);
        if let Some(&(host, _)) = self.by_addr.get(&from) {
            let host = &mut self.hosts[host];
            host.sent += 1;
            if let Some(firewall) = &mut host.firewall {
                firewall.insert(to, self.now);
            }
        }
        let is_lost = self.rng.below(100) < self.loss as usize;
        let is_offline = self.by_addr.get(&from).is_some_and(|&(host, _)| self.hosts[host].offline);
        if is_lost || is_offline && from.ip() != to.ip() {
            return;
        }
        let micros = (self.path)(from, to) + self.rng.below(self.jitter.as_micros() as usize) as u64;
        let delay = self.by_addr.get(&from).map_or(Duration::ZERO, |&(host, _)| self.hosts[host].delay);
        let at = self.now + delay + Duration::from_micros(micros);
        self.packets.insert((at, self.sent), Packet { from, to, bytes });
    }

    fn rearm(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        let timer = match &host.kind {
            Kind::Node(_) if host.asleep => Time::NEVER,
            Kind::Node(node) => node.timeout() + host.behind,
            Kind::Dead | Kind::Actor(_) => Time::NEVER,
        };
        if timer != host.timer {
            self.timers.remove(&(host.timer, index));
            host.timer = timer;
            if timer != Time::NEVER {
                self.timers.insert((timer, index));
            }
        }
    }
}
