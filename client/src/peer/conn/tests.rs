//! Two connections joined by byte queues, and one connection against bytes by hand.

mod breaches;
mod floods;
mod held;
mod metadata;
mod piece_sets;
mod requests;

use std::time::Duration;

use btdht::Rng;

use super::*;
use crate::bitfield::Bitfield;
use crate::peer::{Greeting, MetadataMessage};
use crate::piece::{BLOCK_LEN, BlockRef, PieceIndex};
use crate::wire::message::{MAX_BITFIELD, MAX_EXTENSION};

const SHAPE: TorrentShape =
    TorrentShape { pieces: 20, piece_len: 4 * BLOCK_LEN, last_piece_len: 1000, metadata_size: 20_000 };

fn setup(id: u8, shape: Option<TorrentShape>) -> PeerSetup {
    PeerSetup {
        config: PeerConfig::default(),
        infohash: Id::new([5; 20]),
        peer_id: [id; 20],
        remote: "1.2.3.4".parse().unwrap(),
        listen_port: Some(6881),
        dht_port: Some(6882),
        shape,
        blocks: BlockPool::new(4),
    }
}

fn block(piece: u32, begin: u32, len: u32) -> BlockRef {
    BlockRef { piece: PieceIndex(piece), begin, len }
}

/// Content that differs at every place.
fn payload(block: BlockRef) -> Vec<u8> {
    (0..block.len)
        .map(|i| (block.piece.0.wrapping_mul(31) + (block.begin + i).wrapping_mul(7) / 3) as u8)
        .collect()
}

/// Copies `bytes` into the space of `conn` as a socket with `most` readable bytes would; returns how
/// many went in.
fn receive(conn: &mut PeerConn, now: Time, bytes: &[u8], out: &mut Vec<PeerEvent>) -> usize {
    let mut n = 0;
    for space in &mut conn.space() {
        let here = space.len().min(bytes.len() - n);
        space[..here].copy_from_slice(&bytes[n..n + here]);
        n += here;
    }
    conn.received(now, n, out);
    n
}

/// One connection against bytes by hand: past the handshake, the peer's extension bits as wished.
struct Solo {
    conn: PeerConn,
    now: Time,
    events: Vec<PeerEvent>,
    /// Timers that came due, in all.
    turns: usize,
}

impl Solo {
    fn of(conn: PeerConn, now: Time) -> Self {
        Self { conn, now, events: Vec::new(), turns: 0 }
    }

    fn new(shape: Option<TorrentShape>, reserved: [u8; 8]) -> Self {
        let now = Time::from_secs(100);
        let mut solo = Self::of(PeerConn::outgoing(now, setup(1, shape)), now);
        let theirs = Handshake { reserved, infohash: Id::new([5; 20]), peer_id: [2; 20] };
        solo.feed(&theirs.encode());
        assert!(matches!(solo.events[..], [PeerEvent::Ready(_)]), "{:?}", solo.events);
        solo.events.clear();
        solo.tell(PeerCommand::Pieces(Bitfield::new(20).into()));
        solo.drain();
        solo
    }

    fn fast() -> Self {
        Self::new(Some(SHAPE), [0, 0, 0, 0, 0, 0x10, 0, 4])
    }

    fn plain() -> Self {
        Self::new(Some(SHAPE), [0; 8])
    }

    fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let n = receive(&mut self.conn, self.now, bytes, &mut self.events);
            if n == 0 {
                return;
            }
            bytes = &bytes[n..];
        }
    }

    fn say(&mut self, message: Message<'_>) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        self.feed(&bytes);
    }

    fn tell(&mut self, command: PeerCommand) {
        self.conn.command(self.now, command, &mut self.events);
    }

    /// Writes everything out; returns it.
    fn drain(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        loop {
            let bytes: Vec<u8> = self.conn.pending().iter().flat_map(|slice| slice.to_vec()).collect();
            if bytes.is_empty() {
                return out;
            }
            self.conn.wrote(self.now, bytes.len(), &mut self.events);
            out.extend_from_slice(&bytes);
        }
    }

    /// The messages that went out since the last call.
    fn said(&mut self) -> Vec<String> {
        let bytes = self.drain();
        let (mut rest, mut said) = (&bytes[..], Vec::new());
        while let Some((len, tail)) = rest.split_first_chunk() {
            let (body, tail) = tail.split_at(u32::from_be_bytes(*len) as usize);
            said.push(format!("{:?}", Message::decode(body).unwrap()));
            rest = tail;
        }
        said
    }

    fn events(&mut self) -> Vec<String> {
        self.events.drain(..).map(|event| format!("{event:?}")).collect()
    }

    fn closed(&self) -> Option<CloseReason> {
        match self.events.last() {
            Some(PeerEvent::Closed(reason)) => Some(*reason),
            _ => None,
        }
    }

    fn broke(&self) -> Option<Violation> {
        match self.closed() {
            Some(CloseReason::Protocol(violation)) => Some(violation),
            _ => None,
        }
    }

    fn wait(&mut self, span: Duration) {
        let (until, mut turns) = (self.now + span, 0);
        while self.conn.timeout() <= until {
            turns += 1;
            assert!(turns < 1000, "a timer that is due all the time is a busy loop");
            self.now = self.now.max(self.conn.timeout());
            self.conn.handle_timeout(self.now, &mut self.events);
        }
        self.turns += turns;
        self.now = until;
    }

    /// Unchoked, and asked for `blocks`.
    fn asking(mut self, blocks: &[BlockRef]) -> Self {
        self.say(Message::Unchoke);
        self.tell(PeerCommand::Request(blocks.to_vec()));
        self.drain();
        self.events.clear();
        self
    }
}

fn piece(block: BlockRef, bytes: &[u8]) -> Message<'_> {
    Message::Piece { index: block.piece.0, begin: block.begin, bytes }
}

/// A stranger dials, and the two talk over queues that split at random.
struct Pair {
    conns: [PeerConn; 2],
    events: [Vec<PeerEvent>; 2],
    now: Time,
    rng: Rng,
}

impl Pair {
    fn new(seed: u64) -> Self {
        let now = Time::from_secs(1);
        let dialer = PeerConn::outgoing(now, setup(1, None));
        let mut greeting = Greeting::new(now, Duration::from_secs(10));
        let hello: Vec<u8> = dialer.pending().iter().flat_map(|slice| slice.to_vec()).collect();
        greeting.space().copy_from_slice(&hello[..48]);
        assert_eq!(greeting.received(48), Ok(Some(Id::new([5; 20]))));
        let mut pair = Self {
            conns: [dialer, greeting.accept(now, setup(2, Some(SHAPE)))],
            events: Default::default(),
            now,
            rng: Rng::from_seed(seed),
        };
        pair.conns[0].wrote(now, 48, &mut pair.events[0]);
        pair.run();
        pair
    }

    /// Moves bytes, a random number at a time, until there is nothing to move.
    fn run(&mut self) {
        while self.conns.iter().any(|conn| conn.pending_len() > 0) {
            for (from, to) in [(0, 1), (1, 0)] {
                let bytes: Vec<u8> =
                    self.conns[from].pending().iter().flat_map(|slice| slice.to_vec()).collect();
                let most = if self.rng.chance(1, 2) { 20 } else { 40_000 };
                let n = bytes.len().min(1 + self.rng.below(most));
                let n = receive(&mut self.conns[to], self.now, &bytes[..n], &mut self.events[to]);
                self.conns[from].wrote(self.now, n, &mut self.events[from]);
                self.now += Duration::from_micros(10);
            }
        }
    }

    fn tell(&mut self, who: usize, command: PeerCommand) {
        self.conns[who].command(self.now, command, &mut self.events[who]);
    }

    fn take(&mut self, who: usize) -> Vec<PeerEvent> {
        std::mem::take(&mut self.events[who])
    }
}

#[test]
fn two_connections_go_from_a_magnet_to_blocks() {
    for seed in 0..20 {
        let mut pair = Pair::new(seed);
        for who in [0, 1] {
            let events = pair.take(who);
            let [PeerEvent::Ready(hello)] = events[..] else { panic!("{events:?}") };
            assert!(hello.fast && hello.extended && hello.dht);
            assert_eq!(hello.peer_id, [2 - who as u8; 20]);
        }
        // The one without metadata has nothing to tell; the other has everything.
        pair.tell(0, PeerCommand::Pieces(Bitfield::new(0).into()));
        pair.tell(1, PeerCommand::Pieces(Bitfield::full(20).into()));
        pair.run();
        let events = pair.take(0);
        let [PeerEvent::Extended(hello), PeerEvent::DhtPort(6882)] = &events[..] else {
            panic!("{events:?}")
        };
        assert!(hello.metadata && hello.metadata_size == Some(20_000));
        assert_eq!((hello.request_queue, hello.listen_port), (Some(512), Some(6881)));
        assert_eq!(pair.take(1).len(), 3);

        let info = payload(block(0, 0, 20_000));
        for index in [0, 1] {
            pair.tell(0, PeerCommand::Metadata(MetadataMessage::Request { piece: index }));
        }
        pair.run();
        for event in pair.take(1) {
            let PeerEvent::Metadata(MetadataMessage::Request { piece }) = event else { panic!("{event:?}") };
            let bytes = info.chunks(1 << 14).nth(piece as usize).unwrap().to_vec();
            pair.tell(1, PeerCommand::Metadata(MetadataMessage::Data { piece, total_size: 20_000, bytes }));
        }
        pair.run();
        let mut got = Vec::new();
        for event in pair.take(0) {
            let PeerEvent::Metadata(MetadataMessage::Data { bytes, .. }) = event else { panic!("{event:?}") };
            got.extend(bytes);
        }
        assert_eq!(got, info);

        pair.tell(0, PeerCommand::Torrent(SHAPE));
        let events = pair.take(0);
        assert!(matches!(events[..], [PeerEvent::HaveAll]), "{events:?}");
        pair.tell(0, PeerCommand::Interested);
        pair.tell(1, PeerCommand::Unchoke);
        pair.run();
        let events = pair.take(0);
        assert!(matches!(events[..], [PeerEvent::Unchoked, PeerEvent::Room(16)]), "{events:?}");
        pair.take(1);

        let wanted: Vec<_> = (0..16).map(|i| block(i / 4, i % 4 * BLOCK_LEN, BLOCK_LEN)).collect();
        pair.tell(0, PeerCommand::Request(wanted.clone()));
        pair.run();
        for event in pair.take(1) {
            let PeerEvent::Requested(block) = event else { panic!("{event:?}") };
            pair.tell(1, PeerCommand::Send(block, payload(block).into()));
        }
        pair.run();
        let (mut blocks, mut room) = (Vec::new(), 0);
        for event in pair.take(0) {
            match event {
                PeerEvent::Block(block, bytes) => {
                    assert_eq!(bytes[..], payload(block)[..], "seed {seed}");
                    blocks.push(block);
                }
                PeerEvent::Room(n) => room = n,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(blocks, wanted);
        assert_eq!(room, 32, "the pipeline doubles");
        let sent: u32 =
            pair.take(1).iter().map(|event| if let PeerEvent::Sent(n) = event { *n } else { 0 }).sum();
        assert_eq!(sent, 16 * BLOCK_LEN);
    }
}
