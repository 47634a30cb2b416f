//! A [`Swarm`] among played peers, with a disk in memory.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use btdht::{Seeds, Time};
use krpc::Id;

use crate::bitfield::Bitfield;
use crate::metainfo::Info;
use crate::peer::{ExtendedHello, Hello, MetadataMessage, PeerCommand, PeerEvent};
use crate::piece::{Block, BlockRef, PieceIndex, Slot};
use crate::storage::{SaveId, Totals};
use crate::swarm::{Action, Event, Input, Limits, NewTorrent, Source, Swarm, TrackerUrl, metadata};
use crate::tracker::{AnnounceEvent, AnnounceReply};

mod disk;

/// How a peer behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Honest,
    /// Every block is wrong.
    Liar,
    /// Every fifth block is wrong.
    LiarNowAndThen,
    GarbageMetadata,
    Rejects,
    /// Unchokes, takes requests, chokes.
    ChokeFlaps,
    /// Closes after so many blocks.
    ClosesAfter(u32),
    /// Takes requests and never answers.
    Silent,
    /// Answers a request every 50 seconds.
    Drips,
    NeverUnchokes,
}

pub(crate) struct Peer {
    kind: Kind,
    addr: SocketAddr,
    pub(crate) slot: Option<Slot>,
    queue: VecDeque<BlockRef>,
    served: u32,
    pub(crate) dials: u32,
    pub(crate) requests: usize,
    pub(crate) banned: bool,
    unchoked: bool,
    /// Blocks that it gives per step.
    pub(crate) speed: usize,
    /// What it has.
    has: Bitfield,
    /// The wrong blocks that it gave.
    pub(crate) lies: Vec<BlockRef>,
}

pub(crate) struct World {
    pub(crate) swarm: Swarm,
    pub(crate) now: Time,
    pub(crate) events: Vec<Event>,
    pub(crate) announces: Vec<Option<AnnounceEvent>>,
    pub(crate) sent: Vec<(Slot, BlockRef)>,
    /// Everything that was done, for comparing runs.
    pub(crate) log: Vec<String>,
    pub(crate) bad_pieces: usize,
    pub(crate) disk_stuck: bool,
    pub(crate) disk_bytes: u64,
    /// Saves are not answered, but counted.
    pub(crate) saves_stuck: bool,
    /// Saves that are stuck, in order.
    pub(crate) saves: VecDeque<SaveId>,
    /// The most that they were.
    pub(crate) disk_peak: u64,
    /// Bytes of unfinished pieces that the disk keeps, and writes when there are more.
    pub(crate) disk_cache: u64,
    disk_kept: u64,
    /// Blocks that the disk takes per step.
    pub(crate) disk_speed: usize,
    /// Empty files that the disk was to make.
    pub(crate) made: Vec<usize>,
    /// How often the swarm's timer came due.
    pub(crate) wakeups: usize,
    /// All requests, in order.
    requests: Vec<(Slot, BlockRef)>,
    info: Arc<Info>,
    payload: Vec<u8>,
    peers: Vec<Peer>,
    writes: VecDeque<(BlockRef, Block)>,
    pieces: BTreeMap<PieceIndex, BTreeMap<u32, Vec<u8>>>,
    pub(crate) have: Bitfield,
}

/// Blocks that a peer gives per step of [`STEP`].
const SPEED: usize = 4;
const STEP: Duration = Duration::from_millis(10);

impl World {
    pub(crate) fn new(torrent: (Arc<Info>, Vec<u8>), magnet: bool) -> Self {
        Self::seeded(torrent, magnet, 1)
    }

    pub(crate) fn seeded((info, payload): (Arc<Info>, Vec<u8>), magnet: bool, seed: u64) -> Self {
        let have = Bitfield::new(info.pieces());
        Self::build(info, payload, magnet, seed, have)
    }

    pub(crate) fn complete((info, payload): (Arc<Info>, Vec<u8>)) -> Self {
        let have = Bitfield::full(info.pieces());
        let mut world = Self::build(info, payload, false, 1, have);
        world.run(STEP);
        world
    }

    /// A world whose disk holds some pieces.
    pub(crate) fn with((info, payload): (Arc<Info>, Vec<u8>), magnet: bool, have: Bitfield) -> Self {
        Self::build(info, payload, magnet, 1, have)
    }

    fn build(info: Arc<Info>, payload: Vec<u8>, magnet: bool, seed: u64, have: Bitfield) -> Self {
        let now = Time::from_secs(1);
        let torrent = NewTorrent {
            infohash: info.hash().v1.unwrap(),
            peer_id: [9; 20],
            info: (!magnet).then(|| Arc::clone(&info)),
            trackers: vec![vec![TrackerUrl { url: "http://t/".to_owned(), trusted: false }]],
            peers: Vec::new(),
            select: None,
        };
        let swarm = Swarm::new(Arc::new(Limits::default()), torrent, Seeds::from_u64(seed), now);
        Self {
            swarm,
            now,
            events: Vec::new(),
            announces: Vec::new(),
            sent: Vec::new(),
            log: Vec::new(),
            bad_pieces: 0,
            made: Vec::new(),
            wakeups: 0,
            requests: Vec::new(),
            disk_stuck: false,
            disk_bytes: 0,
            saves_stuck: false,
            saves: VecDeque::new(),
            disk_peak: 0,
            disk_cache: 0,
            disk_kept: 0,
            disk_speed: usize::MAX,
            info,
            payload,
            peers: Vec::new(),
            writes: VecDeque::new(),
            pieces: BTreeMap::new(),
            have,
        }
    }

    pub(crate) fn limit(&mut self, change: impl FnOnce(&mut Limits)) {
        change(Arc::make_mut(&mut self.swarm.limits));
    }

    /// Adds a peer that a tracker names.
    pub(crate) fn add(&mut self, kind: Kind) {
        self.add_with(kind, Bitfield::full(self.info.pieces()));
    }

    /// The same of one that does not have all.
    pub(crate) fn add_with(&mut self, kind: Kind, has: Bitfield) {
        let addr = SocketAddr::from(([60, 0, 0, self.peers.len() as u8], 6881));
        self.peers.push(Peer {
            kind,
            addr,
            slot: None,
            queue: VecDeque::new(),
            served: 0,
            dials: 0,
            requests: 0,
            banned: false,
            unchoked: false,
            speed: SPEED,
            has,
            lies: Vec::new(),
        });
        self.input(Input::Found(Source::Tracker, vec![addr]));
    }

    /// The disk has a piece that nobody fetched.
    pub(crate) fn find(&mut self, piece: u32) {
        self.have.insert(piece);
    }

    /// The disk no longer has a piece.
    pub(crate) fn lose(&mut self, piece: u32) {
        self.have.remove(piece);
    }

    pub(crate) fn peer(&self, index: usize) -> &Peer {
        &self.peers[index]
    }

    /// Wrong blocks that the disk has, of pieces that are not judged yet.
    pub(crate) fn lies_kept(&self) -> usize {
        let wrong = |at: PieceIndex, begin: u32, first: u8| {
            first != self.payload[at.0 as usize * self.info.piece_length() as usize + begin as usize]
        };
        let waiting = self.writes.iter().filter(|(at, bytes)| wrong(at.piece, at.begin, bytes[0])).count();
        let kept = self.pieces.iter().flat_map(|(&at, blocks)| blocks.iter().map(move |block| (at, block)));
        waiting + kept.filter(|(at, (begin, bytes))| wrong(*at, **begin, bytes[0])).count()
    }

    /// Makes a peer give so many blocks per step.
    pub(crate) fn set_speed(&mut self, index: usize, speed: usize) {
        self.peers[index].speed = speed;
    }

    /// All requests to all peers, in order.
    pub(crate) fn requests(&self) -> &[(Slot, BlockRef)] {
        &self.requests
    }

    /// The oldest request that a peer has not answered.
    pub(crate) fn first_request(&self, index: usize) -> Option<BlockRef> {
        self.peers[index].queue.front().copied()
    }

    /// A peer that connects to us and has nothing.
    pub(crate) fn connect(&mut self, addr: SocketAddr) -> Slot {
        let slot = self.swarm.accept(self.now, addr).unwrap();
        let hello = self.hello(77);
        self.input(Input::Peer(slot, vec![PeerEvent::Ready(hello)]));
        slot
    }

    /// A peer that is not played gives a block.
    pub(crate) fn give(&mut self, slot: Slot, block: BlockRef) {
        let begin = block.piece.0 as usize * self.info.piece_length() as usize + block.begin as usize;
        let bytes = Block::from(self.payload[begin..begin + block.len as usize].to_vec());
        self.input(Input::Peer(slot, vec![PeerEvent::Block(block, bytes)]));
    }

    /// How often a connection was told something that is written like this.
    pub(crate) fn told_of(&self, slot: Slot, what: &str) -> usize {
        let to = format!("Tell({slot:?}, ");
        self.log.iter().filter(|line| line.split_once(&to).is_some_and(|line| line.1.contains(what))).count()
    }

    /// Requests that a peer has not answered.
    pub(crate) fn waiting(&self, index: usize) -> usize {
        self.peers[index].queue.len()
    }

    /// Pieces of which the disk has a part.
    pub(crate) fn parts(&self) -> usize {
        self.pieces.len()
    }

    pub(crate) fn count(&self, which: impl Fn(&Event) -> bool) -> usize {
        self.events.iter().filter(|event| which(event)).count()
    }

    pub(crate) fn input(&mut self, input: Input) {
        let mut out = Vec::new();
        self.swarm.handle(self.now, input, &mut out);
        self.act(out);
    }

    pub(crate) fn run(&mut self, span: Duration) {
        let end = self.now + span;
        while self.now < end {
            self.step();
        }
    }

    pub(crate) fn run_until_complete(&mut self, most: Duration) {
        let end = self.now + most;
        while !self.swarm.is_complete() {
            assert!(self.now < end, "not complete: {:?}", self.swarm.status(self.now));
            self.step();
        }
        for piece in self.swarm.have().unwrap().iter() {
            assert!(self.have.contains(piece));
        }
    }

    pub(crate) fn step(&mut self) {
        self.now += STEP;
        for _ in 0..100 {
            if self.swarm.timeout() > self.now {
                break;
            }
            self.wakeups += 1;
            let mut out = Vec::new();
            self.swarm.handle_timeout(self.now, &mut out);
            self.act(out);
        }
        assert!(self.swarm.timeout() > self.now, "the timeout never moves on");
        for index in 0..self.peers.len() {
            self.serve(index);
        }
        self.work_disk();
    }

    fn hello(&self, id: u8) -> Hello {
        let infohash = self.info.hash().v1.unwrap_or(Id::ZERO);
        Hello { infohash, peer_id: [id; 20], extended: true, fast: true, dht: false }
    }

    fn act(&mut self, actions: Vec<Action>) {
        let mut inputs = Vec::new();
        for action in actions {
            if !matches!(action, Action::Disk(_)) {
                self.log.push(format!("{:?} {action:?}", self.now));
            }
            match action {
                Action::Dial(slot, addr) => inputs.push(self.dialed(slot, addr)),
                Action::Tell(slot, command) => self.told(slot, command, &mut inputs),
                Action::Disk(job) => self.disk(job, &mut inputs),
                Action::Open(_) => inputs.push(Input::Opened(self.have.clone(), Totals::default())),
                Action::Announce(id, job) => {
                    self.announces.push(job.event);
                    let reply =
                        AnnounceReply { interval: Duration::from_secs(1800), ..AnnounceReply::default() };
                    inputs.push(Input::Tracker(id, Ok(reply)));
                }
                Action::Lookup { .. } => inputs.push(Input::LookupEnded),
                Action::DhtNode(_) => {}
                Action::Event(event) => {
                    if let Event::PeerClosed(_, addr, why) = &event
                        && why.starts_with("sent ")
                    {
                        self.peers
                            .iter_mut()
                            .filter(|peer| peer.addr == *addr)
                            .for_each(|peer| peer.banned = true);
                    }
                    self.events.push(event);
                }
            }
        }
        for input in inputs {
            self.input(input);
        }
    }

    fn dialed(&mut self, slot: Slot, addr: SocketAddr) -> Input {
        let index = self.peers.iter().position(|peer| peer.addr == addr).expect("a known address");
        let peer = &mut self.peers[index];
        peer.slot = Some(slot);
        peer.dials += 1;
        peer.served = 0;
        peer.unchoked = false;
        peer.queue.clear();
        let extended = ExtendedHello {
            metadata: true,
            metadata_size: Some(self.info.raw().len() as u32),
            ..ExtendedHello::default()
        };
        let mut events = vec![PeerEvent::Ready(self.hello(index as u8)), PeerEvent::Extended(extended)];
        if self.swarm.info().is_some() {
            events.push(PeerEvent::Pieces(self.peers[index].has.clone()));
        }
        Input::Peer(slot, events)
    }

    fn told(&mut self, slot: Slot, command: PeerCommand, inputs: &mut Vec<Input>) {
        if let PeerCommand::Send(block, bytes) = &command {
            assert_eq!(bytes.len(), block.len as usize);
            self.sent.push((slot, *block));
        }
        if let PeerCommand::Request(blocks) = &command {
            self.requests.extend(blocks.iter().map(|&block| (slot, block)));
        }
        let Some(peer) = self.peers.iter_mut().find(|peer| peer.slot == Some(slot)) else { return };
        match command {
            PeerCommand::Torrent(_) => {
                // A magnet's peers told their pieces before; the connection gives them out now.
                if !self.events.iter().any(|event| matches!(event, Event::PeerConnected(s, ..) if *s == slot))
                {
                    return;
                }
                if !self.swarm.is_complete() && peer.queue.is_empty() && !peer.unchoked {
                    inputs.push(Input::Peer(slot, vec![PeerEvent::Pieces(peer.has.clone())]));
                }
            }
            PeerCommand::Interested if peer.kind != Kind::NeverUnchokes => {
                peer.unchoked = true;
                inputs.push(Input::Peer(slot, vec![PeerEvent::Unchoked, PeerEvent::Room(16)]));
            }
            PeerCommand::Request(blocks) => {
                for block in blocks {
                    assert!(self.info.shape().contains(block), "{block:?}");
                    assert!(!self.have.contains(block.piece.0), "asked for what is there: {block:?}");
                    assert!(!peer.queue.contains(&block), "asked twice: {block:?}");
                    peer.queue.push_back(block);
                    peer.requests += 1;
                }
            }
            PeerCommand::Cancel(block) => peer.queue.retain(|&queued| queued != block),
            PeerCommand::Close => peer.slot = None,
            PeerCommand::Metadata(MetadataMessage::Request { piece }) => {
                let mut answer = metadata::answer(self.info.raw(), piece);
                if let (MetadataMessage::Data { bytes, .. }, Kind::GarbageMetadata) = (&mut answer, peer.kind)
                {
                    bytes.fill(b'x');
                }
                inputs.push(Input::Peer(slot, vec![PeerEvent::Metadata(answer)]));
            }
            _ => {}
        }
    }

    /// Lets a peer answer requests.
    fn serve(&mut self, index: usize) {
        let peer = &mut self.peers[index];
        let Some(slot) = peer.slot else { return };
        let mut events = Vec::new();
        let closes = matches!(peer.kind, Kind::ClosesAfter(most) if peer.served >= most);
        if closes {
            peer.slot = None;
            events.push(PeerEvent::Closed(crate::peer::CloseReason::Disconnected));
        }
        for _ in 0..peer.speed {
            if matches!(peer.kind, Kind::Silent) || closes {
                break;
            }
            let seconds = self.now.since(Time::from_secs(1)).as_secs();
            if peer.kind == Kind::Drips && u64::from(peer.served) * 50 >= seconds {
                break;
            }
            let Some(block) = peer.queue.pop_front() else { break };
            peer.served += 1;
            match peer.kind {
                Kind::Rejects => events.push(PeerEvent::Rejected(block)),
                Kind::ChokeFlaps => {
                    events.push(PeerEvent::Rejected(block));
                    events.extend(peer.queue.drain(..).map(PeerEvent::Rejected));
                    events.extend([PeerEvent::Choked, PeerEvent::Unchoked]);
                }
                kind => {
                    let begin =
                        block.piece.0 as usize * self.info.piece_length() as usize + block.begin as usize;
                    let mut bytes = self.payload[begin..begin + block.len as usize].to_vec();
                    let lies = match kind {
                        Kind::Liar => true,
                        Kind::LiarNowAndThen => peer.served.is_multiple_of(5),
                        _ => false,
                    };
                    if lies {
                        bytes[0] ^= 0xff;
                        peer.lies.push(block);
                    }
                    events.push(PeerEvent::Block(block, Block::from(bytes)));
                }
            }
        }
        if !events.is_empty() {
            events.push(PeerEvent::Room(16 - peer.queue.len().min(16) as u16));
            if closes {
                events.pop();
            }
            self.input(Input::Peer(slot, events));
        }
    }
}
