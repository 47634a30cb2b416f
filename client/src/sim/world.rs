//! [`World`]: hosts, the connections between them, and what happens when.

mod links;

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use btdht::sim::{Digest, Wheel};
use btdht::{KeyedHash, Rng, Seeds, Time};

use super::fluid::{Filling, Flow};
use super::host::{Fate, Host, Kind, Later, Leaves, Running};
use super::line::End;
use super::tracker::{INTERVAL, Tracker};
use super::{PORT, VERIFY};
use crate::bitfield::Bitfield;
use crate::metainfo::Info;
use crate::peer::{CloseReason, Hello, PeerEvent};
use crate::piece::Block;
use crate::storage::{Done, Job, Totals, Verdict};
use crate::swarm::{Action, Event, Input, Limits, NewTorrent, Swarm, TrackerUrl};
use crate::tracker::AnnounceReply;

/// What everybody wants.
#[derive(Clone, Copy, Debug)]
pub struct Torrent {
    /// Pieces.
    pub pieces: u32,
    /// Bytes in each.
    pub piece_len: u32,
}

/// A virtual swarm. Hosts are named by their index, in the order in which they were added.
pub struct World {
    seed: u64,
    now: Time,
    info: Arc<Info>,
    limits: Arc<Limits>,
    hosts: Vec<Running>,
    /// Two a connection, `2n` and `2n + 1`; `None` once it is over.
    ends: Vec<Option<Box<End>>>,
    /// Those that have something to send.
    active: Vec<u32>,
    /// When lines are shared out next.
    step_at: Time,
    flows: Vec<Flow>,
    filling: Filling,
    wheel: Wheel,
    tracker: Tracker,
    rng: Rng,
    /// Things that happen later, so far.
    numbered: u64,
    digest: Digest,
    hash: KeyedHash,
}

/// When a world begins.
const START: Time = Time::from_secs(1);
/// From an announce to its answer.
const TRACKER_ROUND_TRIP: Duration = Duration::from_millis(100);
/// What incoming connections come from.
const EPHEMERAL: u16 = 50_000;

impl Torrent {
    /// Bytes in all.
    pub fn len(self) -> u64 {
        u64::from(self.pieces) * u64::from(self.piece_len)
    }

    /// Whether there is nothing in it.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// An info dictionary with hashes that nobody compares.
    fn info(self) -> Info {
        let (len, piece_len, hashes) = (self.len(), self.piece_len, 20 * self.pieces as usize);
        let head = format!("d6:lengthi{len}e4:name1:t12:piece lengthi{piece_len}e6:pieces{hashes}:");
        let mut raw = head.into_bytes();
        raw.resize(raw.len() + hashes, b'h');
        raw.push(b'e');
        Info::parse(&raw).expect("a torrent of at least one piece of at least 1 KiB")
    }
}

impl World {
    /// A world without hosts. `seed` decides about everything that is left to chance.
    ///
    /// # Panics
    /// If no such torrent can be: see [`Info`] for the sizes of pieces.
    pub fn new(torrent: Torrent, limits: Limits, seed: u64) -> Self {
        Self {
            seed,
            now: START,
            info: Arc::new(torrent.info()),
            limits: Arc::new(Limits { dht: false, ..limits }),
            hosts: Vec::new(),
            ends: Vec::new(),
            active: Vec::new(),
            step_at: START,
            flows: Vec::new(),
            filling: Filling::default(),
            wheel: Wheel::new(),
            tracker: Tracker::default(),
            rng: Rng::from_seed(seed),
            numbered: 0,
            digest: Digest::default(),
            hash: KeyedHash::new(&mut Rng::from_seed(seed)),
        }
    }

    /// Adds a host; its index. At most 2^24 of them.
    pub fn add(&mut self, plan: Host) -> usize {
        let arrives = self.now + plan.arrives;
        self.hosts.push(Running::new(plan, arrives));
        let index = self.hosts.len() - 1;
        self.later(index as u32, arrives, Later::Arrive);
        index
    }

    /// Runs everything that happens until `until`, or until nobody who is there misses anything and
    /// nobody is to come.
    pub fn run(&mut self, until: Time) {
        while !self.is_over() {
            let event = self.wheel.peek(u64::from);
            let at = event.map_or(Time::NEVER, |(at, _)| at);
            let step = if self.active.is_empty() { Time::NEVER } else { self.step_at };
            if at.min(step) > until {
                break;
            }
            self.now = self.now.max(at.min(step));
            match event {
                Some((at, item)) if at <= step => {
                    self.wheel.pop();
                    if item % 2 == 0 { self.wake_host(item / 2) } else { self.wake_end(item / 2) }
                }
                _ => self.step(),
            }
        }
        self.hosts.iter_mut().for_each(|host| host.account(self.now));
    }

    /// The present.
    pub fn now(&self) -> Time {
        self.now
    }

    /// What has become of a host until now.
    pub fn fate(&self, index: usize) -> Fate {
        self.hosts[index].fate
    }

    /// The sum of a hash of each message that has arrived: when, where, and what it says. Equal digests
    /// mean equal runs.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    fn is_over(&self) -> bool {
        self.hosts.iter().all(|host| host.fate.left || host.fate.completed.is_some())
    }

    // ---- what happens to a host ----

    fn wake_host(&mut self, host: u32) {
        let running = &mut self.hosts[host as usize];
        let due = running.later.first_entry().filter(|entry| entry.key().0 <= self.now);
        if let Some(later) = due.map(|entry| entry.remove()) {
            self.happen(host, later);
        } else if let Some(swarm) = running.swarm.as_mut().filter(|swarm| swarm.timeout() <= self.now) {
            let mut out = Vec::new();
            swarm.handle_timeout(self.now, &mut out);
            self.act(host, out);
        }
        self.arm_host(host);
    }

    fn happen(&mut self, host: u32, later: Later) {
        match later {
            Later::Input(input) => self.input(host, input),
            Later::Knock(from, slot) => self.knock(host, from, slot),
            Later::Refused(slot) => {
                self.hosts[host as usize].set_side(slot, None);
                self.input(host, Input::DialFailed(slot));
            }
            Later::HungUp(slot) => {
                self.hosts[host as usize].set_side(slot, None);
                let closed = PeerEvent::Closed(CloseReason::Disconnected);
                self.input(host, Input::Peer(slot, vec![closed]));
            }
            Later::Arrive => self.arrive(host),
            Later::Leave => self.leave(host),
        }
    }

    fn arrive(&mut self, host: u32) {
        let torrent = NewTorrent {
            infohash: self.info.hash().swarm(),
            peer_id: peer_id(host),
            info: Some(Arc::clone(&self.info)),
            trackers: vec![vec![TrackerUrl { url: "http://t/".to_owned(), trusted: false }]],
            peers: Vec::new(),
            select: None,
        };
        let seeds = Seeds::from_u64(self.hash.hash(&host.to_le_bytes()));
        let swarm = Swarm::new(Arc::clone(&self.limits), torrent, seeds, self.now);
        let running = &mut self.hosts[host as usize];
        running.swarm = Some(Box::new(swarm));
        // Nobody asks a swarm to open storage but its own first action; the world has it at hand.
        let have = match running.plan.kind {
            Kind::Seed => Bitfield::full(self.info.pieces()),
            Kind::Leech | Kind::FreeRider => Bitfield::new(self.info.pieces()),
        };
        if let Leaves::After(stay) = running.plan.leaves {
            self.later(host, self.now + stay, Later::Leave);
        }
        self.input(host, Input::Opened(have, Totals::default()));
    }

    fn leave(&mut self, host: u32) {
        let running = &mut self.hosts[host as usize];
        running.account(self.now);
        running.fate.left = true;
        running.swarm = None;
        running.written.clear();
        // Those who are about to knock find nobody.
        running.later.retain(|_, later| matches!(later, Later::Knock(..)));
        let open = running.take_ends();
        open.into_iter().for_each(|end| self.close(end));
        self.tracker.forget(host);
    }

    /// Gives a host's swarm an input and does what it wants.
    fn input(&mut self, host: u32, input: Input) {
        let Some(swarm) = &mut self.hosts[host as usize].swarm else { return };
        let mut out = Vec::new();
        swarm.handle(self.now, input, &mut out);
        self.act(host, out);
        self.arm_host(host);
    }

    fn act(&mut self, host: u32, actions: Vec<Action>) {
        let (mut actions, mut inputs) = (actions, VecDeque::new());
        loop {
            for action in actions.drain(..) {
                self.carry_out(host, action, &mut inputs);
            }
            let (Some(input), Some(swarm)) = (inputs.pop_front(), &mut self.hosts[host as usize].swarm)
            else {
                return;
            };
            swarm.handle(self.now, input, &mut actions);
        }
    }

    fn carry_out(&mut self, host: u32, action: Action, inputs: &mut VecDeque<Input>) {
        match action {
            Action::Dial(slot, addr) => self.dial(host, slot, addr),
            Action::Tell(slot, command) => self.tell(host, slot, command, inputs),
            Action::Disk(job) => self.disk(host, job, inputs),
            Action::Announce(id, job) => {
                let told = self.tracker.announce(host, usize::from(job.num_want), &mut self.rng);
                let peers = told.into_iter().map(|host| addr(host, PORT)).collect();
                let reply = AnnounceReply { interval: INTERVAL, peers, ..AnnounceReply::default() };
                let input = Input::Tracker(id, Ok(reply));
                self.later(host, self.now + TRACKER_ROUND_TRIP, Later::Input(input));
            }
            Action::Lookup { .. } => inputs.push_back(Input::LookupEnded),
            Action::Event(Event::Complete) => self.completed(host),
            Action::Open(_) | Action::DhtNode(_) | Action::Event(_) => {}
        }
    }

    fn completed(&mut self, host: u32) {
        let running = &mut self.hosts[host as usize];
        running.fate.completed = Some(self.now.since(running.arrived));
        if let Leaves::Complete(stay) = running.plan.leaves {
            self.later(host, self.now + stay, Later::Leave);
        }
    }

    /// A disk that is never the bottleneck.
    fn disk(&mut self, host: u32, job: Job, inputs: &mut VecDeque<Input>) {
        let running = &mut self.hosts[host as usize];
        match job {
            Job::Write(block, _) => {
                inputs.push_back(Input::Disk(Done::Freed(block.len)));
                let written = running.written.entry(block.piece.0).or_default();
                *written += block.len;
                if *written == self.info.shape().piece_len(block.piece) {
                    running.written.remove(&block.piece.0);
                    let verdict = Input::Disk(Done::Piece(block.piece, Verdict::Good));
                    self.later(host, self.now + VERIFY, Later::Input(verdict));
                }
            }
            Job::Forget(block) => {
                running.written.entry(block.piece.0).and_modify(|written| *written -= block.len);
            }
            Job::Discard(piece) => {
                running.written.remove(&piece.0);
            }
            Job::Read(slot, block) => {
                inputs.push_back(Input::Disk(Done::Read(slot, block, Block::from(Vec::new()))));
            }
            Job::Save(id, _) => inputs.push_back(Input::Disk(Done::Saved { id, doubted: 0 })),
            Job::MakeEmpty(_) | Job::Check(_) | Job::Want(_) => {}
        }
    }

    fn later(&mut self, host: u32, at: Time, later: Later) {
        self.hosts[host as usize].later.insert((at, self.numbered), later);
        self.numbered += 1;
        self.arm_host(host);
    }

    fn arm_host(&mut self, host: u32) {
        let due = self.hosts[host as usize].timeout();
        self.arm(2 * host, due);
    }

    fn arm_end(&mut self, number: u32) {
        if let Some(end) = &self.ends[number as usize] {
            self.arm(2 * number + 1, end.timeout());
        }
    }

    fn arm(&mut self, item: u32, due: Time) {
        if self.wheel.at(item) != due {
            self.wheel.set(item, due, u64::from(item));
        }
    }

    fn hello(&self, host: u32) -> Hello {
        let infohash = self.info.hash().swarm();
        Hello { infohash, peer_id: peer_id(host), extended: true, fast: true, dht: false }
    }

    fn host_at(&self, addr: SocketAddr) -> Option<u32> {
        let SocketAddr::V4(addr) = addr else { return None };
        let index = u32::from(*addr.ip()).checked_sub(FIRST)?;
        ((index as usize) < self.hosts.len()).then_some(index)
    }

    /// From one host to another, 10 to 80 ms.
    fn latency(&self, a: u32, b: u32) -> Duration {
        let pair = (u64::from(a.min(b)) << 32 | u64::from(a.max(b))) ^ self.seed.rotate_left(17);
        Duration::from_micros(10_000 + self.hash.hash(&pair.to_le_bytes()) % 70_000)
    }
}

/// The address of the first host: 20.0.0.0, an ordinary one.
const FIRST: u32 = 20 << 24;

fn addr(host: u32, port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::from(FIRST + host), port))
}

fn peer_id(host: u32) -> [u8; 20] {
    let mut id = *b"-bd0100-............";
    id[16..].copy_from_slice(&host.to_be_bytes());
    id
}
