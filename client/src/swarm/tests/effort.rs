//! What a piece costs, however many there are.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use btdht::{Seeds, Time};

use crate::bitfield::Bitfield;
use crate::metainfo::Info;
use crate::peer::{Hello, PeerCommand, PeerEvent};
use crate::piece::{BLOCK_LEN, Block, BlockRef, PieceIndex, Slot};
use crate::steps;
use crate::storage::{Done, Job, Totals, Verdict};
use crate::swarm::{Action, Input, Limits, NewTorrent, Swarm};

const ROUND: Duration = Duration::from_millis(1);
/// Requests that a peer may have.
const ROOM: u16 = 64;

/// A swarm that downloads pieces of one block, and what it has asked of whom.
struct Download {
    swarm: Swarm,
    now: Time,
    info: Arc<Info>,
    asked: VecDeque<(Slot, BlockRef)>,
    peers: u8,
    saves: usize,
}

impl Download {
    fn new(pieces: u32) -> Self {
        let (len, hashes) = (u64::from(pieces) * u64::from(BLOCK_LEN), 20 * pieces as usize);
        let mut raw = format!("d6:lengthi{len}e4:name1:t12:piece lengthi{BLOCK_LEN}e6:pieces{hashes}:");
        raw.push_str(&"h".repeat(hashes));
        raw.push('e');
        let info = Arc::new(Info::parse(raw.as_bytes()).unwrap());
        let torrent = NewTorrent {
            infohash: info.hash().swarm(),
            peer_id: [9; 20],
            info: Some(Arc::clone(&info)),
            trackers: Vec::new(),
            peers: Vec::new(),
            select: None,
        };
        let now = Time::from_secs(1);
        let swarm = Swarm::new(Arc::new(Limits::default()), torrent, Seeds::from_u64(1), now);
        let mut download = Self { swarm, now, info, asked: VecDeque::new(), peers: 0, saves: 0 };
        download.tick();
        download.input(Input::Opened(Bitfield::new(pieces), Totals::default()));
        download
    }

    fn pieces(&self) -> u32 {
        self.info.pieces()
    }

    /// A peer that lets us ask.
    fn peer(&mut self, has: Bitfield) -> Slot {
        self.peers += 1;
        let addr = SocketAddr::from(([60, 0, 0, self.peers], 6881));
        let slot = self.swarm.accept(self.now, addr).unwrap();
        let infohash = self.info.hash().swarm();
        let hello = Hello { infohash, peer_id: [self.peers; 20], extended: true, fast: true, dht: false };
        self.tell(slot, vec![PeerEvent::Ready(hello), PeerEvent::Pieces(has)]);
        self.tell(slot, vec![PeerEvent::Unchoked, PeerEvent::Room(ROOM)]);
        slot
    }

    fn tell(&mut self, slot: Slot, events: Vec<PeerEvent>) {
        self.input(Input::Peer(slot, events));
    }

    fn has(&mut self, slot: Slot, piece: u32) {
        self.tell(slot, vec![PeerEvent::Have(PieceIndex(piece)), PeerEvent::Room(ROOM)]);
    }

    /// The oldest request of a peer is answered; its piece is right.
    fn answer(&mut self, slot: Slot) {
        let Some(at) = self.asked.iter().position(|asked| asked.0 == slot) else { return };
        let (_, block) = self.asked.remove(at).unwrap();
        let bytes = Block::zeroed(block.len as usize);
        self.tell(slot, vec![PeerEvent::Block(block, bytes), PeerEvent::Room(1)]);
    }

    fn tick(&mut self) {
        self.now += ROUND;
        let mut out = Vec::new();
        self.swarm.handle_timeout(self.now, &mut out);
        self.act(out);
    }

    fn input(&mut self, input: Input) {
        let mut out = Vec::new();
        self.swarm.handle(self.now, input, &mut out);
        self.act(out);
    }

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Tell(slot, PeerCommand::Request(blocks)) => {
                    self.asked.extend(blocks.into_iter().map(|block| (slot, block)));
                }
                Action::Disk(Job::Write(block, _)) => {
                    self.input(Input::Disk(Done::Freed(block.len)));
                    self.input(Input::Disk(Done::Piece(block.piece, Verdict::Good)));
                }
                Action::Disk(Job::Save(id, _)) => {
                    // The disk writes a bit a piece.
                    self.saves += 1;
                    steps::count(self.pieces() as usize / 64);
                    self.input(Input::Disk(Done::Saved { id, doubted: 0 }));
                }
                _ => {}
            }
        }
    }
}

/// What each thing costs, in steps.
#[derive(Debug)]
struct Costs {
    /// A whole round: two pieces that peers tell of, one that is fetched, the status, and a share of
    /// what saves cost.
    round: usize,
    /// A piece of a bitfield that comes, and of one that goes, in hundredths.
    bitfield: usize,
}

fn costs(pieces: u32) -> Costs {
    const ROUNDS: u32 = 5000;
    let mut download = Download::new(pieces);
    let seed = download.peer(Bitfield::full(pieces));
    let [quick, late] = [(); 2].map(|()| download.peer(Bitfield::new(pieces)));
    // A bitfield is made once for each of them.
    for slot in [quick, late] {
        download.has(slot, 0);
    }
    let round = steps::of(|| {
        for round in 1..=ROUNDS {
            download.tick();
            // One tells of pieces far apart, nearly all of which nobody has begun, and gives them.
            let fresh = (u64::from(round) * 7919 % u64::from(pieces)) as u32;
            download.has(quick, fresh);
            download.answer(quick);
            // One tells of what is on its way from the seed.
            let under_way = download.asked.iter().rev().find(|asked| asked.0 == seed);
            let under_way = under_way.map_or(0, |asked| asked.1.piece.0);
            download.has(late, under_way);
            download.answer(seed);
            let status = download.swarm.status(download.now);
            assert!(status.left > 0);
        }
    });
    let have = download.swarm.have().unwrap().count();
    assert!((8000..=10_000).contains(&have), "{have} pieces");
    assert!(download.saves > 0);

    let mut half = Bitfield::new(pieces);
    for piece in (0..pieces).step_by(2) {
        half.insert(piece);
    }
    let members = half.count() as usize;
    let bitfield = steps::of(|| {
        let slot = download.peer(half);
        download.tell(slot, vec![PeerEvent::Closed(crate::peer::CloseReason::Disconnected)]);
    });
    Costs { round: round / ROUNDS as usize, bitfield: bitfield * 100 / members }
}

#[test]
fn a_piece_costs_the_same_of_fifty_thousand_as_of_two_million() {
    let (few, many) = (costs(50_000), costs(2_000_000));
    println!("of 50,000: {few:?}, of 2,000,000: {many:?}");
    assert!(few.round <= 60 && many.round <= few.round + 10, "{few:?} {many:?}");
    // Fewer where many of the pieces are there already.
    assert!(few.bitfield <= 250 && many.bitfield <= 250, "{few:?} {many:?}");
}

#[test]
fn of_many_piece_sets_in_one_batch_only_the_last_costs_anything() {
    let pieces = 50_000;
    let half = |first: u32| {
        let mut half = Bitfield::new(pieces);
        (first..pieces).step_by(2).for_each(|piece| assert!(half.insert(piece)));
        half
    };
    let mut download = Download::new(pieces);
    let slot = download.peer(half(0));
    let batch = |sets: u32| -> Vec<_> {
        let set = |n| [PeerEvent::Pieces(half(n % 2)), PeerEvent::Have(PieceIndex(n % 2))];
        (0..sets).flat_map(set).chain([PeerEvent::Pieces(half(1)), PeerEvent::Have(PieceIndex(0))]).collect()
    };
    let [none_before, many_before] = [batch(0), batch(40)];
    let one = steps::of(|| download.tell(slot, none_before));
    let many = steps::of(|| download.tell(slot, many_before));
    assert!(many <= one + one / 10, "{one} steps for one, {many} for all");
    // It counts as it stands, with the piece that came after it.
    let (slots, has) = (download.swarm.conns.len(), &download.swarm.conns.get(slot).unwrap().has);
    assert_eq!((slots, has.contains(0), has.contains(1), has.contains(2)), (1, true, true, false));
}
