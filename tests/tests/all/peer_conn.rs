//! One connection on a real socket, without swarm and engine: against the honest seeder, and against
//! every way of misbehaving. The peers are written without our wire code, so a misreading of the
//! protocol shows.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use btdht::Time;
use btfetch::bitfield::Bitfield;
use btfetch::peer::{
    CloseReason, MetadataMessage, PeerCommand, PeerConfig, PeerConn, PeerEvent, PeerSetup, TorrentShape,
};
use btfetch::piece::{BLOCK_LEN, BlockPool, BlockRef, PieceIndex};
use harness::hostile::{Honest, Mode, Peer, Torrent};
use krpc::Id;

/// The smallest shell: one socket, one thread, and a taker of everything for a swarm.
struct Taker {
    conn: PeerConn,
    stream: TcpStream,
    start: Instant,
    shape: TorrentShape,
    wanted: Vec<BlockRef>,
    asked: Vec<BlockRef>,
    room: usize,
    blocks: BTreeMap<(u32, u32), Vec<u8>>,
    info: BTreeMap<u32, Vec<u8>>,
    /// Starts without the info dictionary.
    magnet: bool,
    closed: Option<CloseReason>,
}

impl Taker {
    fn dial(peer: &Peer, torrent: &Torrent, magnet: bool) -> Self {
        let stream = TcpStream::connect(peer.addr).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        stream.set_write_timeout(Some(Duration::from_millis(5))).unwrap();
        let pieces = torrent.pieces();
        let last = torrent.payload.len() as u32 - (pieces - 1) * torrent.piece_len;
        let shape = TorrentShape {
            pieces,
            piece_len: torrent.piece_len,
            last_piece_len: last,
            metadata_size: torrent.info.len() as u32,
        };
        let mut wanted = Vec::new();
        for piece in (0..pieces).map(PieceIndex) {
            let len = shape.piece_len(piece);
            let begins = (0..len).step_by(BLOCK_LEN as usize);
            wanted.extend(begins.map(|begin| BlockRef { piece, begin, len: BLOCK_LEN.min(len - begin) }));
        }
        wanted.reverse();
        let setup = PeerSetup {
            config: PeerConfig::default(),
            infohash: Id::new(torrent.infohash),
            peer_id: *b"-bd0100-taker-of-all",
            remote: peer.addr.ip(),
            listen_port: None,
            dht_port: Some(6881),
            shape: (!magnet).then_some(shape),
            blocks: BlockPool::new(64),
        };
        let conn = PeerConn::outgoing(Time::ZERO, setup);
        Self {
            conn,
            stream,
            start: Instant::now(),
            shape,
            wanted,
            asked: Vec::new(),
            room: 0,
            blocks: BTreeMap::new(),
            info: BTreeMap::new(),
            magnet,
            closed: None,
        }
    }

    /// Goes on until everything is there, the connection is closed or the time is up.
    fn run(&mut self, limit: Duration) {
        let mut events = Vec::new();
        while self.start.elapsed() < limit && self.closed.is_none() && !self.is_done() {
            self.turn(&mut events);
            for event in std::mem::take(&mut events) {
                self.handle(event, &mut events);
            }
            assert!(self.conn.pending_len() < 10 << 20, "{} bytes pending", self.conn.pending_len());
        }
    }

    fn turn(&mut self, events: &mut Vec<PeerEvent>) {
        let now = self.now();
        self.conn.handle_timeout(now, events);
        if self.conn.pending_len() > 0 {
            let written = self.stream.write_vectored(&self.conn.pending());
            match written {
                Ok(n) => self.conn.wrote(now, n, events),
                Err(error) => self.failed(&error, events),
            }
        }
        let mut space = self.conn.space();
        if space.iter().all(|slice| slice.is_empty()) {
            thread::yield_now();
            return;
        }
        let read = self.stream.read_vectored(&mut space);
        drop(space);
        match read {
            Ok(0) => self.conn.disconnected(events),
            Ok(n) => self.conn.received(now, n, events),
            Err(error) => self.failed(&error, events),
        }
    }

    fn failed(&mut self, error: &std::io::Error, events: &mut Vec<PeerEvent>) {
        if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) {
            self.conn.disconnected(events);
        }
    }

    fn handle(&mut self, event: PeerEvent, events: &mut Vec<PeerEvent>) {
        match event {
            PeerEvent::Ready(_) => {
                // One piece, so that there is something to ask for.
                let mut have = Bitfield::new(self.shape.pieces);
                have.insert(0);
                self.tell(PeerCommand::Pieces(have.into()), events);
                self.tell(PeerCommand::Interested, events);
                self.tell(PeerCommand::Unchoke, events);
            }
            PeerEvent::Extended(hello) if self.magnet && hello.metadata => {
                for piece in 0..self.shape.metadata_size.div_ceil(1 << 14) {
                    self.tell(PeerCommand::Metadata(MetadataMessage::Request { piece }), events);
                }
            }
            PeerEvent::Metadata(MetadataMessage::Data { piece, bytes, .. }) => {
                assert!(bytes.len() <= 1 << 14);
                self.info.insert(piece, bytes);
                if self.info.len() as u32 == self.shape.metadata_size.div_ceil(1 << 14) {
                    self.tell(PeerCommand::Torrent(self.shape), events);
                }
            }
            PeerEvent::Room(n) => self.room = n.into(),
            PeerEvent::Choked => self.room = 0,
            PeerEvent::Rejected(block) => {
                self.asked.retain(|&asked| asked != block);
                self.wanted.push(block);
            }
            PeerEvent::Block(block, payload) => {
                assert!(self.asked.contains(&block), "{block:?} was not asked for");
                assert_eq!(payload.len(), block.len as usize);
                self.asked.retain(|&asked| asked != block);
                self.blocks.insert((block.piece.0, block.begin), payload.to_vec());
            }
            PeerEvent::Have(piece) => assert!(piece.0 < self.shape.pieces),
            PeerEvent::Pieces(set) => assert_eq!(set.len(), self.shape.pieces),
            PeerEvent::Requested(block) => {
                assert!(self.shape.contains(block));
                // Answers everything, as a seeder that is not careful would.
                self.tell(PeerCommand::Send(block, vec![0; block.len as usize].into()), events);
            }
            PeerEvent::Closed(reason) => self.closed = Some(reason),
            _ => {}
        }
        let here = self.room.min(self.wanted.len());
        if here > 0 {
            let blocks = self.wanted.split_off(self.wanted.len() - here);
            self.asked.extend(&blocks);
            self.room -= here;
            self.tell(PeerCommand::Request(blocks), events);
        }
    }

    fn tell(&mut self, command: PeerCommand, events: &mut Vec<PeerEvent>) {
        let now = self.now();
        self.conn.command(now, command, events);
    }

    fn is_done(&self) -> bool {
        self.wanted.is_empty() && self.asked.is_empty()
    }

    fn now(&self) -> Time {
        Time::from_micros(self.start.elapsed().as_micros() as u64)
    }
}

#[test]
fn an_honest_peer_gives_everything() {
    let torrent = Arc::new(Torrent::new(1_000_000, 1 << 16, 20_000, 1));
    for options in 0..8 {
        let honest = Honest {
            rate: 1 << 30,
            extended: options & 1 != 0,
            fast: options & 2 != 0,
            extension_first: options & 4 != 0,
        };
        let peer = Peer::honest(&torrent, honest);
        let mut taker = Taker::dial(&peer, &torrent, honest.extended);
        taker.run(Duration::from_secs(60));
        let whole: Vec<u8> = taker.blocks.values().flatten().copied().collect();
        assert!(whole == torrent.payload, "{honest:?}: {} bytes, {:?}", whole.len(), taker.closed);
        let info: Vec<u8> = taker.info.values().flatten().copied().collect();
        assert!(!honest.extended || info == torrent.info, "{honest:?}");
        assert_eq!(peer.seen.complaints(), [""; 0], "{honest:?}");
    }
}

#[test]
fn no_way_of_misbehaving_gets_past_a_connection() {
    let torrent = Arc::new(Torrent::new(300_000, 1 << 15, 20_000, 2));
    let modes: Vec<Mode> = Mode::all().collect();
    let mut outcomes = Vec::new();
    for some in modes.chunks(32) {
        thread::scope(|scope| {
            let threads: Vec<_> = some
                .iter()
                .map(|&mode| {
                    let torrent = &torrent;
                    scope.spawn(move || {
                        let peer = Peer::hostile(torrent, mode);
                        let mut taker = Taker::dial(&peer, torrent, matches!(mode, Mode::Metadata(_)));
                        taker.run(Duration::from_secs(2));
                        (mode, taker.closed, taker.blocks.len(), peer.seen.requests.total())
                    })
                })
                .collect();
            outcomes.extend(threads.into_iter().map(|thread| thread.join().unwrap()));
        });
    }
    for (mode, closed, blocks, requests) in &outcomes {
        println!("{mode:?}: {closed:?}, {blocks} blocks, {requests} requests");
        // Those that give nothing are asked for little: a pipeline's worth a second.
        assert!(*blocks > 0 || *requests <= 16 * 4, "{mode:?}: {requests} requests for nothing");
    }
    let violations = outcomes.iter().filter(|outcome| matches!(outcome.1, Some(CloseReason::Protocol(_))));
    assert!(violations.count() >= 40, "most ways break the protocol visibly");
}
