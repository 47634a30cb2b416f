//! Swarms that talk to each other through real connections: every byte of the wire, no socket.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use btdht::{Seeds, Time};

use super::torrents::{torrent, two_files};
use crate::bitfield::Bitfield;
use crate::metainfo::Info;
use crate::peer::{Greeting, PeerConfig, PeerConn, PeerEvent, PeerSetup};
use crate::piece::{Block, BlockPool, PieceIndex, Slot};
use crate::storage::{Done, Job, Totals, Verdict};
use crate::swarm::{Action, Command, Input, Limits, NewTorrent, Source, Swarm};

const STEP: Duration = Duration::from_millis(5);
/// Bytes per step that a connection carries each way: 6.4 MB/s.
const SPEED: usize = 32 << 10;

/// A swarm with its connections and its disk.
struct End {
    addr: SocketAddr,
    swarm: Swarm,
    conns: BTreeMap<Slot, PeerConn>,
    have: Bitfield,
    data: Vec<u8>,
    received: BTreeMap<PieceIndex, usize>,
    todo: VecDeque<Action>,
    dials: Vec<(Slot, SocketAddr)>,
}

struct Net {
    now: Time,
    info: Arc<Info>,
    payload: Vec<u8>,
    ends: Vec<End>,
    /// Ends and slots of both sides.
    links: Vec<[(usize, Slot); 2]>,
}

fn setup(info: &Info, shape: bool, id: u8) -> PeerSetup {
    PeerSetup {
        config: PeerConfig::default(),
        infohash: info.hash().v1.unwrap(),
        peer_id: [id; 20],
        remote: [60, 0, 0, 1].into(),
        listen_port: Some(6881),
        dht_port: None,
        shape: shape.then(|| info.shape()),
        blocks: BlockPool::new(16),
    }
}

impl End {
    fn new(info: &Arc<Info>, payload: &[u8], seed: bool, index: u8, now: Time) -> Self {
        let new = NewTorrent {
            infohash: info.hash().v1.unwrap(),
            peer_id: [index; 20],
            info: seed.then(|| Arc::clone(info)),
            trackers: Vec::new(),
            peers: Vec::new(),
            select: None,
        };
        let limits = Arc::new(Limits { dht: false, ..Limits::default() });
        Self {
            addr: SocketAddr::from(([60, 0, 0, index], 6881)),
            swarm: Swarm::new(limits, new, Seeds::from_u64(u64::from(index)), now),
            conns: BTreeMap::new(),
            have: if seed { Bitfield::full(info.pieces()) } else { Bitfield::new(info.pieces()) },
            data: if seed { payload.to_vec() } else { vec![0; payload.len()] },
            received: BTreeMap::new(),
            todo: VecDeque::new(),
            dials: Vec::new(),
        }
    }

    fn input(&mut self, now: Time, input: Input) {
        let mut out = Vec::new();
        self.swarm.handle(now, input, &mut out);
        self.todo.extend(out);
    }

    fn events(&mut self, now: Time, slot: Slot, events: Vec<PeerEvent>) {
        if !events.is_empty() {
            self.input(now, Input::Peer(slot, events));
        }
    }

    fn work(&mut self, now: Time, info: &Info) {
        while let Some(action) = self.todo.pop_front() {
            match action {
                Action::Dial(slot, addr) => self.dials.push((slot, addr)),
                Action::Tell(slot, command) => {
                    let mut events = Vec::new();
                    if let Some(conn) = self.conns.get_mut(&slot) {
                        conn.command(now, command, &mut events);
                    }
                    self.events(now, slot, events);
                }
                Action::Open(_) => self.input(now, Input::Opened(self.have.clone(), Totals::default())),
                Action::Disk(job) => self.disk(now, info, job),
                Action::Announce(..) | Action::Lookup { .. } | Action::DhtNode(_) | Action::Event(_) => {}
            }
        }
    }

    fn disk(&mut self, now: Time, info: &Info, job: Job) {
        let begin = |at: crate::piece::BlockRef| {
            at.piece.0 as usize * info.piece_length() as usize + at.begin as usize
        };
        match job {
            Job::Write(at, bytes) => {
                self.data[begin(at)..begin(at) + bytes.len()].copy_from_slice(&bytes);
                let there = self.received.entry(at.piece).or_default();
                *there += bytes.len();
                let whole = *there == info.shape().piece_len(at.piece) as usize;
                self.input(now, Input::Disk(Done::Freed(at.len)));
                if whole {
                    self.have.insert(at.piece.0);
                    self.input(now, Input::Disk(Done::Piece(at.piece, Verdict::Good)));
                }
            }
            Job::Read(slot, at) => {
                assert!(self.have.contains(at.piece.0));
                let bytes = self.data[begin(at)..begin(at) + at.len as usize].to_vec();
                self.input(now, Input::Disk(Done::Read(slot, at, Block::from(bytes))));
            }
            Job::Save(id, _) => self.input(now, Input::Disk(Done::Saved { id, doubted: 0 })),
            Job::Forget(_) | Job::Discard(_) | Job::Check(_) | Job::MakeEmpty(_) | Job::Want(_) => {}
        }
    }
}

impl Net {
    /// One seed and so many leechers that know nothing but the infohash and each other's addresses.
    fn new(leechers: u8, len: usize, piece_len: usize) -> Self {
        Self::with(torrent(len, piece_len), leechers)
    }

    fn with(torrent: (Arc<Info>, Vec<u8>), leechers: u8) -> Self {
        Self::limited(torrent, leechers, |_| ())
    }

    /// The same; the seed has other limits.
    fn limited(
        (info, payload): (Arc<Info>, Vec<u8>),
        leechers: u8,
        change: impl FnOnce(&mut Limits),
    ) -> Self {
        let now = Time::from_secs(1);
        let mut ends: Vec<_> =
            (0..=leechers).map(|index| End::new(&info, &payload, index == 0, index, now)).collect();
        change(Arc::make_mut(&mut ends[0].swarm.limits));
        let addrs: Vec<_> = ends.iter().map(|end| end.addr).collect();
        for (index, end) in ends.iter_mut().enumerate().skip(1) {
            let others = addrs.iter().copied().enumerate().filter(|(other, _)| *other != index);
            end.input(now, Input::Found(Source::Tracker, others.map(|(_, addr)| addr).collect()));
        }
        Self { now, info, payload, ends, links: Vec::new() }
    }

    fn step(&mut self) {
        self.now += STEP;
        for index in 0..self.ends.len() {
            let end = &mut self.ends[index];
            if end.swarm.timeout() <= self.now {
                let mut out = Vec::new();
                end.swarm.handle_timeout(self.now, &mut out);
                end.todo.extend(out);
            }
            let due: Vec<_> = end
                .conns
                .iter()
                .filter(|(_, conn)| conn.timeout() <= self.now)
                .map(|(slot, _)| *slot)
                .collect();
            for slot in due {
                let mut events = Vec::new();
                end.conns.get_mut(&slot).unwrap().handle_timeout(self.now, &mut events);
                end.events(self.now, slot, events);
            }
            end.work(self.now, &self.info);
            for (slot, addr) in std::mem::take(&mut end.dials) {
                self.connect(index, slot, addr);
            }
        }
        for link in self.links.clone() {
            for _ in 0..4 {
                self.carry(link[0], link[1]);
                self.carry(link[1], link[0]);
            }
        }
        let open =
            |&(end, slot): &(usize, Slot)| self.ends[end].conns.get(&slot).is_some_and(|c| !c.is_closed());
        let (links, broken): (Vec<_>, Vec<_>) = self.links.iter().partition(|link| link.iter().all(open));
        self.links = links;
        for (end, slot) in broken.into_iter().flatten() {
            let mut events = Vec::new();
            if let Some(mut conn) = self.ends[end].conns.remove(&slot) {
                conn.disconnected(&mut events);
            }
            self.ends[end].events(self.now, slot, events);
        }
    }

    fn connect(&mut self, from: usize, slot: Slot, addr: SocketAddr) {
        let now = self.now;
        let ends = &self.ends;
        let to = ends.iter().position(|end| end.addr == addr).unwrap();
        let port = 40_000 + self.links.len() as u16;
        let seen_as = SocketAddr::new(ends[from].addr.ip(), port);
        let Some(theirs) = self.ends[to].swarm.accept(now, seen_as) else {
            return self.ends[from].input(now, Input::DialFailed(slot));
        };
        let config = |end: usize| setup(&self.info, self.ends[end].swarm.info().is_some(), end as u8);
        let (ours, incoming) = (config(from), config(to));
        let greeting = Greeting::new(now, Duration::from_secs(10));
        self.ends[from].conns.insert(slot, PeerConn::outgoing(now, ours));
        self.ends[to].conns.insert(theirs, greeting.accept(now, incoming));
        self.links.push([(from, slot), (to, theirs)]);
    }

    /// Moves bytes one way.
    fn carry(&mut self, from: (usize, Slot), to: (usize, Slot)) {
        let now = self.now;
        let Some(sender) = self.ends[from.0].conns.get(&from.1) else { return };
        let mut bytes: Vec<u8> = sender.pending().iter().flat_map(|slice| slice.to_vec()).collect();
        bytes.truncate(SPEED / 4);
        let mut events = Vec::new();
        let Some(receiver) = self.ends[to.0].conns.get_mut(&to.1) else { return };
        let mut moved = 0;
        while moved < bytes.len() {
            let mut n = 0;
            for mut space in receiver.space() {
                let part = space.len().min(bytes.len() - moved - n);
                space[..part].copy_from_slice(&bytes[moved + n..moved + n + part]);
                n += part;
            }
            if n == 0 {
                break;
            }
            receiver.received(now, n, &mut events);
            moved += n;
        }
        self.ends[to.0].events(now, to.1, events);
        let mut events = Vec::new();
        if let Some(sender) = self.ends[from.0].conns.get_mut(&from.1) {
            sender.wrote(now, moved, &mut events);
        }
        self.ends[from.0].events(now, from.1, events);
        for end in [from.0, to.0] {
            let info = Arc::clone(&self.info);
            self.ends[end].work(now, &info);
        }
    }

    fn run(&mut self, most: Duration) {
        let end = self.now + most;
        while !self.ends.iter().all(|end| end.swarm.is_complete()) {
            let status: Vec<_> = self.ends.iter().map(|end| end.swarm.status(self.now)).collect();
            assert!(self.now < end, "{status:#?}");
            self.step();
        }
        assert!(self.ends.iter().all(|end| end.data == self.payload));
    }
}

#[test]
fn a_magnet_is_fetched_over_the_wire() {
    let mut net = Net::new(1, 1_000_000, 64 << 10);
    net.run(Duration::from_secs(10));
    let status = net.ends[1].swarm.status(net.now);
    assert_eq!((status.downloaded, status.wasted), (1_000_000, 0));
    assert_eq!(net.ends[0].swarm.status(net.now).uploaded, 1_000_000);
    for _ in 0..10 {
        net.step();
    }
    assert!(net.links.is_empty(), "seeds part");
}

#[test]
fn leechers_exchange_what_they_have() {
    let mut net = Net::new(4, 2_000_000, 64 << 10);
    net.run(Duration::from_secs(30));
    let uploaded: Vec<_> = net.ends.iter().map(|end| end.swarm.status(net.now).uploaded).collect();
    let by_leechers: u64 = uploaded[1..].iter().sum();
    assert!(by_leechers > 2_000_000, "{uploaded:?}");
    let wasted: u64 = net.ends.iter().map(|end| end.swarm.status(net.now).wasted).sum();
    assert!(wasted < 400_000, "{wasted}");
}

#[test]
fn pieces_of_many_blocks_and_of_less_than_one_are_fetched() {
    for (len, piece_len) in [(3_000_000, 2 << 20), (100_001, 1 << 10), (1, 16 << 10)] {
        let mut net = Net::new(2, len, piece_len);
        net.run(Duration::from_secs(30));
        assert_eq!(
            net.ends[1].swarm.have().unwrap().iter().map(PieceIndex).count() as u32,
            net.info.pieces()
        );
    }
}

#[test]
fn partial_seeds_part_and_meet_again_when_one_wants_more() {
    let mut net = Net::with(two_files(200_000, 200_000, 32 << 10), 2);
    for end in &mut net.ends[1..] {
        end.input(net.now, Input::Command(Command::Select(vec![true, false])));
    }
    for _ in 0..2000 {
        net.step();
    }
    let states: Vec<_> = net.ends.iter().map(|end| end.swarm.status(net.now)).collect();
    assert!(states.iter().all(|status| status.complete), "{states:?}");
    assert_eq!(states.iter().map(|status| status.seed).collect::<Vec<_>>(), [true, false, false]);
    assert_eq!(states[1].wanted, net.ends[1].swarm.have().unwrap().count() as u64 * (32 << 10));
    assert!(net.links.is_empty(), "nobody wants anything: {states:?}");
    net.ends[2].input(net.now, Input::Command(Command::Select(vec![true, true])));
    assert!(net.ends[2].swarm.missing().is_some_and(|missing| !missing.is_empty()));
    for _ in 0..20_000 {
        if net.ends[2].swarm.is_seed() {
            return;
        }
        net.step();
    }
    panic!("{:?}", net.ends[2].swarm.status(net.now));
}

#[test]
fn a_super_seed_gives_little_more_than_one_copy_and_shows_itself_to_nobody() {
    let uploaded = |super_seed: bool| {
        let change = |limits: &mut Limits| limits.super_seed = super_seed;
        let mut net = Net::limited(torrent(4_000_000, 64 << 10), 4, change);
        net.run(Duration::from_secs(240));
        net.ends[0].swarm.status(net.now).uploaded
    };
    let (given, usual) = (uploaded(true), uploaded(false));
    assert!((4_000_000..=4_800_000).contains(&given), "{given} where others give {usual}");
    assert!(usual > given, "{given} where others give {usual}");
}

#[test]
fn a_super_seed_feeds_one_leecher_alone() {
    let change = |limits: &mut Limits| limits.super_seed = true;
    let mut net = Net::limited(torrent(1_000_000, 64 << 10), 1, change);
    net.run(Duration::from_secs(60));
    assert_eq!(net.ends[0].swarm.status(net.now).uploaded, 1_000_000);
}
