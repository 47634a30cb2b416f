//! [`Fleet`]: a DHT of shipping nodes in a [`World`]. It starts grown: each node has the table that it
//! would have after hours among the others. Tables name dead members too, which have an id and an
//! address but no host; nobody answers there.
//!
//! # What large ones take
//!
//! Measured with release builds on two cores; bytes are those of all there is, engine, census and datagrams
//! under way included:
//!
//! - A node of 100,000, with 117 others in its table, takes 5.7 KB after a minute, one of a million 6.8 KB at most.
//!   An entry takes 32 bytes, and a table has 8 for each doubling of the network: 145 among a million.
//! - Making a node takes some 70 µs of a core.
//! - One thread handles 373,000 events a second among 100,000 nodes, two handle 463,000 among a million, whose tables
//!   fit no cache; an event is a datagram that arrives or a timer that comes.
//! - In the first minute of a fleet of 100,000 a node has 0.68 of them a second, of a million 0.80 (47.8 million in
//!   all); of 2,000, 0.4 to 0.65.
//!
//! These are of a quiet machine and from before the digest took in all events, which costs under 2 %; on one whose
//! memory took 190 to 340 ns to answer, two threads handled 136,000 events a second among 100,000 nodes.
//!
//! The first two lines are measured; "making it" is time of a core. The others follow from the second:
//! entries grow as above, events by 0.12 a second and node for ten times the nodes, as from the first line to the
//! second, and a core handles 231,000, as each of those two does:
//!
//! | nodes | bytes a node | memory | making it | events a virtual second | cores for real time |
//! |---|---|---|---|---|---|
//! | 100,000 | 5.7 KB | 0.6 GB | 7 s | 68,000 | 0.2 |
//! | 1,000,000 | 6.8 KB | 6.8 GB | 70 s | 797,000 | 3.4 |
//! | 10,000,000 | 7.7 KB | 77 GB | 12 min | 9.2 million | 40 |
//! | 28,000,000 | 8.0 KB | 225 GB | 33 min | 27 million | 117 |
//!
//! Time grows with the nodes and hardly faster: two cores take 20 seconds for a virtual one of ten million nodes and
//! 59 for one of 28 million, so that minutes can be watched in some hours, and days cannot. What does not fit
//! is the memory. Entries of 8 bytes, an index into the census and what is known of the node, would
//! take 10 million nodes to some 40 GB; a fleet whose idle nodes are functions of the seed, as those of the
//! lookup benchmarks are, to the census' 0.3 GB. Of 28 million IPv4 hosts two share each public /24, which the limits of
//! tables for one network see; over IPv6 each has a /64 of its own.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use krpc::Id;

use super::actor::{Actor, Router};
use super::nursery::{Configs, Nursery};
use super::topology::{Census, Member};
use super::totals::Totals;
use super::watcher::{Stopped, Watcher};
use super::{Host, Links, Presence, Told, World};
use crate::secure_id::secure_id;
use crate::{
    Command, Config, Home, HomeRecord, KnownNode, LookupId, Node, Outbox, Reachability, ReadOnly, Rng, Seeds,
    Time,
};

/// Numbers of dead members begin here: hosts never have so many.
const DEAD: u32 = 1 << 30;
/// When a fleet begins. Everybody in a table was heard of in the last quarter of an hour.
pub(super) const BEGIN: Time = Time::from_secs(3600);
/// Nodes made at a time, by all threads together: progress is told in between.
const BATCH: usize = 16_384;

/// A host of a fleet.
#[expect(clippy::large_enum_variant, reason = "nearly all are nodes, and lie in one array")]
pub enum Participant {
    /// The shipping node.
    Node(Node),
    /// Anything else.
    Actor(Box<dyn Actor>),
}

/// What a fleet is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Nodes.
    pub nodes: usize,
    /// Everything random follows from it.
    pub seed: u64,
    /// Threads.
    pub threads: usize,
    /// What lies between hosts.
    pub links: Links,
    /// Nodes and dead members whose id belongs to their address (BEP 42), of a thousand. The others' nodes
    /// never learn their address, or they would take such an id.
    pub secure_permille: u32,
    /// Members that are dead, of a thousand.
    pub dead_permille: u32,
    /// Of all nodes.
    pub config: Config,
}

/// A virtual DHT.
pub struct Fleet {
    /// Where it lives. Hosts 0 to [`Fleet::nodes`] are the nodes that it began with.
    pub world: World<Participant>,
    plan: Plan,
    configs: Configs,
    rng: Rng,
    /// Everybody whom tables could name at the beginning.
    census: Census,
}

impl Host for Participant {
    fn datagram(&mut self, now: Time, socket: u8, from: SocketAddr, bytes: &[u8], out: &mut Outbox) {
        match self {
            Self::Node(node) => node.handle_datagram(now, socket, from, bytes, out),
            Self::Actor(actor) => actor.datagram(now, socket, from, bytes, out),
        }
    }

    fn timeout(&mut self, now: Time, out: &mut Outbox) {
        match self {
            Self::Node(node) => node.handle_timeout(now, out),
            Self::Actor(actor) => actor.timeout(now, out),
        }
    }

    fn next(&self) -> Time {
        match self {
            Self::Node(node) => node.timeout(),
            Self::Actor(actor) => actor.next(),
        }
    }

    fn warm(&self, depth: usize) -> u64 {
        match self {
            Self::Node(node) => node.warm(depth),
            Self::Actor(_) => 0,
        }
    }

    fn forged(&self, socket: u8) -> Option<SocketAddr> {
        match self {
            Self::Node(_) => None,
            Self::Actor(actor) => actor.forged(socket),
        }
    }
}

impl Participant {
    /// The node, if it is one.
    pub fn node(&self) -> Option<&Node> {
        match self {
            Self::Node(node) => Some(node),
            Self::Actor(_) => None,
        }
    }
}

impl Plan {
    /// A fleet of so many nodes on the network of the lookup benchmarks, where all live and all ids belong
    /// to their addresses.
    pub fn new(nodes: usize, seed: u64, threads: usize) -> Self {
        Self {
            nodes,
            seed,
            threads,
            links: Links::default(),
            secure_permille: 1000,
            dead_permille: 0,
            config: simulated(),
        }
    }
}

/// The configuration of nodes in a fleet: as shipped, but with k nodes in every bucket, since most nodes
/// of the world are like that; always reachable, since they are; and with arrays against strangers that
/// suit a node whom few ask.
pub fn simulated() -> Config {
    Config {
        wide_buckets: Vec::new(),
        read_only: ReadOnly::No,
        reach_contacts: 4,
        source_table_entries: 4,
        lookups_remembered: 8,
        ..Config::default()
    }
}

impl Fleet {
    /// A grown fleet. `actors` are hosts after the nodes, and in tables like everybody else.
    ///
    /// # Errors
    /// [`Stopped`].
    pub fn grow(plan: Plan, actors: Vec<Box<dyn Actor>>, watcher: &mut dyn Watcher) -> Result<Self, Stopped> {
        let mut rng = Rng::from_seed(plan.seed);
        let mut world = World::new(plan.seed, plan.links.clone(), plan.threads);
        world.run(BEGIN, |_, _| ());
        let dead = plan.nodes * plan.dead_permille as usize / (1000 - plan.dead_permille as usize).max(1);
        let mut members = Vec::with_capacity(plan.nodes + actors.len() + dead);
        let numbers = (0..plan.nodes as u32).chain(DEAD..DEAD + dead as u32);
        for number in numbers {
            let is_secure = rng.chance(plan.secure_permille, 1000);
            let ip = world.addr(number as usize).ip();
            members.push(Member { id: if is_secure { secure_id(ip, &mut rng) } else { rng.id() }, number });
        }
        let ids: Vec<Id> = members[..plan.nodes].iter().map(|member| member.id).collect();
        let intruders = actors.iter().enumerate();
        members
            .extend(intruders.map(|(n, actor)| Member { id: actor.id(), number: (plan.nodes + n) as u32 }));
        let configs = Configs::new(&plan.config);
        let mut fleet = Self { world, configs, rng, census: Census::new(members), plan };
        fleet.populate(&ids, watcher)?;
        for actor in actors {
            fleet.world.add(Participant::Actor(actor), 0);
        }
        Ok(fleet)
    }

    /// Makes all nodes, on all threads.
    fn populate(&mut self, ids: &[Id], watcher: &mut dyn Watcher) -> Result<(), Stopped> {
        self.world.reserve(ids.len());
        let nursery = Nursery::new(self.plan.seed, &self.plan.links, self.configs.clone());
        for first in (0..ids.len()).step_by(BATCH) {
            let batch = first..ids.len().min(first + BATCH);
            let end = batch.end;
            for node in nursery.batch(self.world.now(), (batch, ids), &self.census, self.plan.threads) {
                self.world.add(Participant::Node(node), 0);
            }
            step(watcher, "growing", end as f64 / ids.len() as f64)?;
        }
        Ok(())
    }

    /// Adds a node that has just been installed: it knows nobody but `routers`, and runs with `config`.
    pub fn install(&mut self, config: &Arc<Config>, routers: Vec<SocketAddr>) -> usize {
        let index = self.world.len();
        let id = secure_id(self.world.addr(index).ip(), &mut self.rng);
        let home = Home { id, local: self.world.addr(index), external: None, saved: Vec::new() };
        let seeds = Seeds::from_u64(self.rng.next_u64());
        let node = Node::new(Arc::clone(config), vec![home], seeds, self.world.now());
        self.world.add(Participant::Node(node), 0);
        self.command(index, Command::Routers(routers));
        index
    }

    /// Starts the node of a host anew with what it saved, its id and whom it knew, and lets it take part.
    pub fn restart(&mut self, index: usize, routers: Vec<SocketAddr>) {
        let (now, local) = (self.world.now(), self.world.addr(index));
        let saved = self.world.host(index).node().and_then(|node| node.saved(now).into_iter().next());
        if let Some(HomeRecord { id, external, nodes }) = saved {
            self.start(index, Home { id, local, external, saved: nodes }, routers);
        }
    }

    /// Puts a node that has just been installed in the place of another, at the same address, and lets it
    /// take part.
    pub fn reinstall(&mut self, index: usize, routers: Vec<SocketAddr>) {
        let local = self.world.addr(index);
        let id = secure_id(local.ip(), &mut self.rng);
        self.start(index, Home { id, local, external: None, saved: Vec::new() }, routers);
    }

    fn start(&mut self, index: usize, home: Home, routers: Vec<SocketAddr>) {
        let seeds = Seeds::from_u64(self.rng.next_u64());
        let config = Arc::clone(self.configs.of(&home));
        let node = Node::new(config, vec![home], seeds, self.world.now());
        self.world.replace(index, Participant::Node(node));
        self.world.set_presence(index, Presence::Up);
        self.command(index, Command::Routers(routers));
    }

    /// Gives a node a command; the name of what that started. What one that is not up sends is lost.
    pub fn command(&mut self, index: usize, command: Command) -> Option<LookupId> {
        self.world.act(index, |now, host, out| match host {
            Participant::Node(node) => node.handle_command(now, command, out),
            Participant::Actor(_) => None,
        })
    }

    /// Lets `span` pass; what hosts told in it.
    ///
    /// # Errors
    /// [`Stopped`].
    pub fn run(
        &mut self,
        span: Duration,
        stage: &str,
        watcher: &mut dyn Watcher,
    ) -> Result<Vec<Told>, Stopped> {
        let (begin, end) = (self.world.now(), self.world.now() + span);
        let slice = (span / 100).clamp(Duration::from_millis(50), Duration::from_secs(10));
        let mut told = Vec::new();
        while self.world.now() < end {
            told.append(&mut self.run_until(end.min(self.world.now() + slice)));
            step(watcher, stage, self.world.now().since(begin).as_secs_f64() / span.as_secs_f64())?;
        }
        Ok(told)
    }

    /// Runs what happens until then; what hosts told.
    pub(super) fn run_until(&mut self, until: Time) -> Vec<Told> {
        let mut told = Vec::new();
        self.world.run(until, |_, event| told.push(event));
        told
    }

    /// Nodes that the fleet began with.
    pub fn nodes(&self) -> usize {
        self.plan.nodes
    }

    /// The node of a host, if it is one and takes part.
    pub fn node(&self, index: usize) -> Option<&Node> {
        let is_up = self.world.presence(index) == Presence::Up;
        self.world.host(index).node().filter(|_| is_up)
    }

    /// The id of a node now.
    pub fn id(&self, index: usize) -> Option<Id> {
        let now = self.world.now();
        self.node(index)?.stats(now).first().map(|stats| stats.id)
    }

    /// One of the nodes that the fleet began with and that take part, at random.
    pub fn any(&mut self) -> usize {
        loop {
            let index = self.rng.below(self.nodes());
            if self.node(index).is_some() {
                return index;
            }
        }
    }

    /// So many members at random with their addresses, `living` of a thousand of which live.
    pub fn contacts(&mut self, count: usize, living: u32) -> Vec<(Id, SocketAddr)> {
        let members = self.census.members();
        let is_dead = |member: &Member| member.number >= DEAD;
        let has_dead = members.iter().any(is_dead);
        let mut contacts = Vec::with_capacity(count);
        while contacts.len() < count {
            let wants_dead = has_dead && !self.rng.chance(living, 1000);
            let member = members[self.rng.below(members.len())];
            if is_dead(&member) == wants_dead {
                contacts.push((member.id, self.world.addr(member.number as usize)));
            }
        }
        contacts
    }

    /// Adds a router that knows 500 members, four of five of which live; its address.
    pub fn add_router(&mut self) -> SocketAddr {
        let contacts = self.contacts(500, 800);
        let rng = Rng::from_seed(self.rng.next_u64());
        let index = self.world.add(Participant::Actor(Box::new(Router::new(contacts, rng))), 0);
        self.world.addr(index)
    }

    /// The share of entries in the tables of nodes that take part which `is_so`; of a thousand nodes, evenly
    /// chosen, if there are more. `None` if all tables are empty.
    pub fn share_in_tables(&self, is_so: impl Fn(&KnownNode) -> bool) -> Option<f64> {
        self.share_in_tables_of((0..self.nodes()).step_by(self.nodes().div_ceil(1000)), is_so)
    }

    /// The share of the entries of which `is_so`, in the tables of those of the hosts that are nodes; one table
    /// is looked at after the other. `None` if all are empty.
    pub fn share_in_tables_of(
        &self,
        hosts: impl Iterator<Item = usize>,
        is_so: impl Fn(&KnownNode) -> bool,
    ) -> Option<f64> {
        let (mut all, mut such) = (0u64, 0u64);
        for node in hosts.filter_map(|index| self.node(index)) {
            for known in node.table(self.world.now()) {
                all += 1;
                such += u64::from(is_so(&known));
            }
        }
        (all > 0).then(|| such as f64 / all as f64)
    }

    /// Chance of the scenario's own.
    pub fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }

    /// Whether a node lives at an address and takes part.
    pub fn lives_at(&self, addr: SocketAddr) -> bool {
        self.world.at(addr).is_some_and(|index| self.node(index).is_some())
    }

    /// All nodes that take part now and answer queries, with the ids that they have now.
    pub fn living(&self) -> Census {
        let living = |index: usize| {
            let stats = self.node(index)?.stats(self.world.now()).into_iter().next()?;
            let answers = stats.reachability != Reachability::ReadOnly;
            answers.then_some(Member { id: stats.id, number: index as u32 })
        };
        Census::new((0..self.world.len()).filter_map(living).collect())
    }

    /// What the run consisted of so far.
    pub fn totals(&self) -> Totals {
        Totals {
            hosts: self.world.len() as u64,
            events: self.world.stats().events(),
            datagrams: self.world.stats().sent,
            span: self.world.now().since(BEGIN),
            digest: self.world.digest().sum,
        }
    }
}

/// Tells the watcher, and whether it wants to go on.
pub(super) fn step(watcher: &mut dyn Watcher, stage: &str, done: f64) -> Result<(), Stopped> {
    match watcher.progress(stage, done) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Stopped),
    }
}
