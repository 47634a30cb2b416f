//! Two connections joined by byte queues, and one connection against bytes by hand.

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
}

impl Solo {
    fn new(shape: Option<TorrentShape>, reserved: [u8; 8]) -> Self {
        let now = Time::from_secs(100);
        let mut solo = Self { conn: PeerConn::outgoing(now, setup(1, shape)), now, events: Vec::new() };
        let theirs = Handshake { reserved, infohash: Id::new([5; 20]), peer_id: [2; 20] };
        solo.feed(&theirs.encode());
        assert!(matches!(solo.events[..], [PeerEvent::Ready(_)]), "{:?}", solo.events);
        solo.events.clear();
        solo.tell(PeerCommand::Pieces(Bitfield::new(20)));
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
        pair.tell(0, PeerCommand::Pieces(Bitfield::new(0)));
        pair.tell(1, PeerCommand::Pieces(Bitfield::full(20)));
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
        assert!(matches!(&events[..], [PeerEvent::Pieces(set)] if set.is_full() && set.len() == 20));
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

#[test]
fn what_we_have_is_the_first_thing_said() {
    let expected = [
        (Bitfield::new(20), "HaveNone", None),
        (Bitfield::full(20), "HaveAll", Some("Bitfield([255, 255, 240])")),
    ];
    for (have, fast, plain) in expected {
        for (reserved, first) in [([0, 0, 0, 0, 0, 0x10, 0, 5], Some(fast)), ([0; 8], plain)] {
            let mut solo = Solo {
                conn: PeerConn::outgoing(Time::ZERO, setup(1, Some(SHAPE))),
                now: Time::ZERO,
                events: Vec::new(),
            };
            assert_eq!(solo.drain().len(), 68);
            let theirs = Handshake { reserved, infohash: Id::new([5; 20]), peer_id: [2; 20] };
            solo.feed(&theirs.encode());
            assert!(solo.drain().is_empty(), "nothing before the swarm has told what we have");
            solo.tell(PeerCommand::Pieces(have.clone()));
            let said = solo.said();
            assert_eq!(said.first().map(String::as_str), first);
            if first == Some(fast) {
                assert!(said[1].starts_with("Extended { id: 0"));
                assert_eq!(said[2], "Port(6882)");
            }
            solo.tell(PeerCommand::Pieces(Bitfield::from_wire(&[0x80, 0, 0], 20).unwrap()));
            assert_eq!(solo.said(), ["Have(0)"], "too late for a bitfield");
        }
    }
}

#[test]
fn foreign_handshakes_are_refused() {
    let good = Handshake::new(Id::new([5; 20]), [2; 20], false);
    for bytes in [
        b"GET /announce HTTP/1.1".to_vec(),
        Handshake { infohash: Id::new([6; 20]), ..good }.encode().to_vec(),
        Handshake { peer_id: [1; 20], ..good }.encode().to_vec(), // ourselves
    ] {
        let mut conn = PeerConn::outgoing(Time::ZERO, setup(1, None));
        let mut events = Vec::new();
        receive(&mut conn, Time::ZERO, &bytes, &mut events);
        assert!(matches!(events[..], [PeerEvent::Closed(CloseReason::BadHandshake)]), "{events:?}");
        assert!(conn.is_closed() && conn.pending().is_empty() && conn.space().iter().all(|s| s.is_empty()));
        assert_eq!(conn.timeout(), Time::NEVER);
        conn.disconnected(&mut events);
        assert_eq!(events.len(), 1, "nothing follows the end");
    }
}

#[test]
fn a_slow_handshake_ends_after_ten_seconds_in_all() {
    let mut conn = PeerConn::outgoing(Time::ZERO, setup(1, None));
    let (mut events, wire) = (Vec::new(), Handshake::new(Id::new([5; 20]), [2; 20], false).encode());
    for (second, byte) in wire.iter().enumerate().take(10) {
        let now = Time::from_secs(second as u64);
        conn.handle_timeout(now, &mut events);
        receive(&mut conn, now, &[*byte], &mut events);
    }
    assert!(events.is_empty());
    assert_eq!(conn.timeout(), Time::from_secs(10));
    conn.handle_timeout(Time::from_secs(10), &mut events);
    assert!(matches!(events[..], [PeerEvent::Closed(CloseReason::HandshakeTimeout)]));
}

#[test]
fn violations_close_the_connection() {
    let deep = [b"d1:a".repeat(9), b"i1e".to_vec(), b"e".repeat(9)].concat();
    let outside = Span { index: 19, begin: 0, len: 1001 };
    let huge = Span { index: 0, begin: 0, len: (128 << 10) + 1 };
    let spare = [0xff, 0xff, 0xf8];
    for (message, violation) in [
        (Message::Have(20), Violation::OutOfRange),
        (Message::Have(u32::MAX), Violation::OutOfRange),
        (Message::Bitfield(&[0xff; 2]), Violation::BadBitfield),
        (Message::Bitfield(&[0; 4]), Violation::BadBitfield),
        (Message::Bitfield(&spare), Violation::BadBitfield),
        (Message::Request(outside), Violation::OutOfRange),
        (Message::Request(huge), Violation::OutOfRange),
        (Message::Request(Span { begin: u32::MAX, ..outside }), Violation::OutOfRange),
        (Message::Request(Span { len: 0, ..outside }), Violation::OutOfRange),
        (Message::Request(Span { index: 20, ..outside }), Violation::OutOfRange),
        (Message::Piece { index: 0, begin: 0, bytes: &[] }, Violation::BadLength),
        (Message::Extended { id: 0, payload: &deep }, Violation::BadExtension),
        (Message::Extended { id: 0, payload: b"le" }, Violation::BadExtension),
        (Message::Extended { id: 2, payload: b"garbage" }, Violation::BadExtension),
    ] {
        let mut solo = Solo::fast();
        solo.say(message);
        assert_eq!(solo.broke(), Some(violation), "{message:?}");
    }
    for (bytes, violation) in [
        (&b"\xff\xff\xff\xff"[..], Violation::Oversize),
        (&(2 + MAX_BITFIELD).to_be_bytes(), Violation::Oversize),
        (&[&(3 + MAX_EXTENSION).to_be_bytes()[..], b"\x14"].concat(), Violation::Oversize),
        (b"\0\0\0\x02\x00", Violation::BadLength),
        (b"\0\0\x80\x00\x07", Violation::Oversize),
    ] {
        let mut solo = Solo::fast();
        solo.feed(bytes);
        assert_eq!(solo.broke(), Some(violation));
    }
}

#[test]
fn fast_messages_need_the_fast_extension() {
    let span = Span { index: 0, begin: 0, len: 1 };
    for message in [
        Message::HaveAll,
        Message::HaveNone,
        Message::Reject(span),
        Message::Suggest(0),
        Message::AllowedFast(0),
    ] {
        let mut solo = Solo::plain();
        solo.say(message);
        assert_eq!(solo.broke(), Some(Violation::NotNegotiated), "{message:?}");
    }
}

#[test]
fn a_piece_set_in_the_middle_takes_the_place_of_what_was_said_before() {
    let mut solo = Solo::fast();
    solo.say(Message::Extended { id: 0, payload: b"de" }); // many clients send it before
    solo.say(Message::Have(3));
    solo.say(Message::HaveAll);
    assert!(matches!(
        &solo.events[..],
        [PeerEvent::Extended(_), PeerEvent::Have(_), PeerEvent::Pieces(set)] if set.is_full()
    ));
    solo.say(Message::HaveNone);
    assert!(matches!(solo.events.last(), Some(PeerEvent::Pieces(set)) if set.is_empty()));
    assert_eq!(solo.broke(), None);
}

#[test]
fn piece_sets_without_end_are_chatter() {
    let mut solo = Solo::fast();
    for _ in 0..100_000 {
        if solo.broke().is_some() {
            break;
        }
        solo.say(Message::HaveNone);
    }
    assert_eq!(solo.broke(), Some(Violation::Chatter));
}

#[test]
fn a_piece_set_is_kept_back_until_the_size_is_known() {
    let reserved = [0, 0, 0, 0, 0, 0x10, 0, 4];
    let mut solo = Solo::new(None, reserved);
    solo.say(Message::Bitfield(&[0x80, 0, 0]));
    solo.say(Message::Have(19));
    assert_eq!(solo.events(), [""; 0]);
    solo.tell(PeerCommand::Torrent(SHAPE));
    assert!(
        matches!(&solo.events[..], [PeerEvent::Pieces(set), PeerEvent::Have(PieceIndex(19))] if set.count() == 1)
    );
    for (message, violation) in
        [(Message::Bitfield(&[0x80, 0]), Violation::BadBitfield), (Message::Have(20), Violation::OutOfRange)]
    {
        let mut solo = Solo::new(None, reserved);
        solo.say(message);
        assert!(solo.events.is_empty());
        solo.tell(PeerCommand::Torrent(SHAPE));
        assert_eq!(solo.broke(), Some(violation));
    }
    // However many come, the memory for them is bounded.
    let mut solo = Solo::new(None, reserved);
    for index in 0..20_000 {
        solo.say(Message::Have(index));
    }
    assert_eq!(solo.broke(), Some(Violation::Chatter));
}

#[test]
fn only_outstanding_blocks_are_taken() {
    let wanted = block(1, 0, BLOCK_LEN);
    let mut solo = Solo::fast().asking(&[wanted]);
    let bytes = payload(wanted);
    for wrong in [block(2, 0, BLOCK_LEN), block(1, 1, BLOCK_LEN), block(1, 0, BLOCK_LEN - 1)] {
        solo.say(piece(wrong, &bytes[..wrong.len as usize]));
    }
    assert_eq!(solo.events(), [""; 0]);
    solo.say(piece(wanted, &bytes));
    assert!(
        matches!(&solo.events[0], PeerEvent::Block(block, got) if *block == wanted && got[..] == bytes[..])
    );
    // Duplicates are strays, too: with the three above, the sixteenth ends it.
    for _ in 0..12 {
        solo.say(piece(wanted, &bytes));
        assert_eq!(solo.closed(), None);
    }
    solo.say(piece(wanted, &bytes));
    assert_eq!(solo.broke(), Some(Violation::StrayBlocks));
}

#[test]
fn late_blocks_are_no_strays() {
    let blocks: Vec<_> = (0..40).map(|i| block(i / 4, i % 4 * BLOCK_LEN, BLOCK_LEN)).collect();
    let bytes = vec![0; BLOCK_LEN as usize];
    let mut solo = Solo::fast().asking(&blocks);
    for &block in &blocks {
        solo.tell(PeerCommand::Cancel(block));
    }
    assert_eq!(solo.said().len(), 40);
    solo.events.clear();
    blocks.iter().for_each(|&block| solo.say(piece(block, &bytes)));
    assert_eq!(solo.closed(), None);
    assert!(!solo.events.iter().any(|event| matches!(event, PeerEvent::Block(..))));
    // Once each.
    for &block in &blocks[..15] {
        solo.say(piece(block, &bytes));
    }
    assert_eq!(solo.closed(), None);
    solo.say(piece(blocks[15], &bytes));
    assert_eq!(solo.broke(), Some(Violation::StrayBlocks));

    let mut solo = Solo::plain().asking(&blocks);
    solo.say(Message::Choke);
    assert_eq!(solo.events.len(), 41, "40 rejected, then choked");
    assert!(matches!(solo.events.last(), Some(PeerEvent::Choked)));
    blocks.iter().for_each(|&block| solo.say(piece(block, &bytes)));
    assert_eq!(solo.closed(), None);
}

#[test]
fn a_block_cancelled_while_it_arrives_is_dropped() {
    let wanted = block(1, 0, BLOCK_LEN);
    let mut solo = Solo::fast().asking(&[wanted]);
    let mut wire = Vec::new();
    piece(wanted, &payload(wanted)).encode(&mut wire);
    solo.feed(&wire[..5000]);
    solo.tell(PeerCommand::Cancel(wanted));
    solo.feed(&wire[5000..]);
    assert!(!solo.events.iter().any(|event| matches!(event, PeerEvent::Block(..) | PeerEvent::Closed(_))));
}

#[test]
fn with_the_fast_extension_choke_leaves_requests_open() {
    let blocks = [block(0, 0, BLOCK_LEN), block(0, BLOCK_LEN, BLOCK_LEN)];
    let mut solo = Solo::fast().asking(&blocks);
    solo.say(Message::Choke);
    assert_eq!(solo.events(), ["Choked"]);
    solo.say(Message::Reject(Span::of(blocks[1])));
    solo.say(piece(blocks[0], &payload(blocks[0])));
    assert!(matches!(&solo.events[..], [PeerEvent::Rejected(no), PeerEvent::Block(yes, _)]
        if *no == blocks[1] && *yes == blocks[0]));
    solo.tell(PeerCommand::Request(blocks.to_vec()));
    assert!(matches!(solo.events[2..], [PeerEvent::Rejected(_), PeerEvent::Rejected(_)]), "choked");
    assert!(solo.said().is_empty());
}

#[test]
fn peers_that_reject_everything_get_a_few_requests_a_second() {
    let mut solo = Solo::fast();
    solo.say(Message::Unchoke);
    let mut requests = 0;
    for _ in 0..600 {
        let rooms: Vec<u16> = solo
            .events
            .drain(..)
            .filter_map(|event| match event {
                PeerEvent::Room(n) => Some(n),
                _ => None,
            })
            .collect();
        for _ in 0..rooms.last().copied().unwrap_or(0) {
            let block = block(requests % 19, 0, 16);
            requests += 1;
            solo.tell(PeerCommand::Request(vec![block]));
            solo.say(Message::Reject(Span::of(block)));
        }
        solo.drain();
        solo.wait(Duration::from_millis(100));
    }
    assert!((16 * 50..=16 * 62).contains(&requests), "{requests} in a minute");
}

#[test]
fn choke_flaps_get_a_few_requests_a_second_and_an_end() {
    let mut solo = Solo::plain();
    let mut requests = 0;
    for _ in 0..20_000 {
        solo.say(Message::Unchoke);
        if solo.closed().is_some() {
            break;
        }
        let room = solo.events.drain(..).rfind(|event| matches!(event, PeerEvent::Room(_)));
        if let Some(PeerEvent::Room(n)) = room {
            requests += u32::from(n);
            let blocks = (0..u32::from(n)).map(|i| block(i, 0, 16)).collect();
            solo.tell(PeerCommand::Request(blocks));
        }
        solo.say(Message::Choke);
        solo.drain();
        solo.wait(Duration::from_millis(10));
        if solo.closed().is_some() {
            break;
        }
    }
    // 200 messages a second: 100 more than are forgiven.
    assert_eq!(solo.broke(), Some(Violation::Chatter));
    let seconds = solo.now.since(Time::from_secs(100)).as_secs() as u32;
    assert!((15..=25).contains(&seconds) && requests <= 16 * (seconds + 2), "{requests} in {seconds} s");
}

#[test]
fn useless_messages_by_the_thousand_end_it() {
    for message in [
        Message::KeepAlive,
        Message::Interested,
        Message::Choke,
        Message::Port(0),
        Message::Suggest(7),
        Message::AllowedFast(7),
        Message::Unknown(99),
        Message::Cancel(Span { index: 0, begin: 0, len: 16 }),
        Message::Extended { id: 0, payload: b"de" },
        Message::Extended { id: 200, payload: b"x" },
        Message::Request(Span { index: 0, begin: 0, len: 16 }), // while choked
    ] {
        let mut solo = Solo::fast();
        for _ in 0..2000 {
            solo.say(message);
            solo.drain();
        }
        assert_eq!(solo.closed(), None, "{message:?}");
        solo.say(message);
        assert_eq!(solo.broke(), Some(Violation::Chatter), "{message:?}");
    }
}

#[test]
fn a_flood_of_requests_waits_then_ends() {
    let mut solo = Solo::fast();
    solo.tell(PeerCommand::Unchoke);
    solo.drain();
    let spans = (0..76_u32).flat_map(|i| {
        (0..16).map(move |j| Span { index: i / 4, begin: i % 4 * BLOCK_LEN + j * 1024, len: 1024 })
    });
    let mut spans = spans.chain((0..19).map(|index| Span { index, begin: 1, len: BLOCK_LEN }));
    for span in spans.by_ref().take(512) {
        solo.say(Message::Request(span));
    }
    // All of 512 kB fit into the send buffer.
    assert_eq!(solo.events().len(), 512);
    assert!(solo.said().is_empty());
    for span in spans.by_ref().take(512) {
        solo.say(Message::Request(span));
    }
    assert_eq!(solo.said().len(), 512, "the excess is rejected");
    assert_eq!(solo.closed(), None);
    solo.say(Message::Request(spans.next().unwrap()));
    assert_eq!(solo.broke(), Some(Violation::RequestFlood));
}

#[test]
fn one_request_without_end_is_chatter() {
    let mut solo = Solo::fast();
    solo.tell(PeerCommand::Unchoke);
    solo.drain();
    // The first one is to be answered; the account takes 2000 more.
    for _ in 0..2001 {
        solo.say(Message::Request(Span { index: 0, begin: 0, len: BLOCK_LEN }));
    }
    assert_eq!((solo.events().len(), solo.closed()), (1, None));
    solo.say(Message::Request(Span { index: 0, begin: 0, len: BLOCK_LEN }));
    assert_eq!(solo.broke(), Some(Violation::Chatter));
}

#[test]
fn requests_wait_for_room_in_the_send_buffer() {
    let mut solo = Solo::fast();
    solo.tell(PeerCommand::Unchoke);
    solo.drain();
    let blocks: Vec<_> = (0..8).map(|i| block(i, 0, 4 * BLOCK_LEN)).collect();
    let big = SHAPE.piece_len;
    for _ in 0..4 {
        for &block in &blocks {
            solo.say(Message::Request(Span { begin: block.begin, len: big, ..Span::of(block) }));
        }
    }
    // Duplicates count once; 8 x 64 KiB fit.
    assert_eq!(solo.events().len(), 8);
    for index in 8..19 {
        solo.say(Message::Request(Span { index, begin: 0, len: big }));
    }
    assert_eq!(solo.events().len(), 8, "1 MiB is granted");
    for &block in &blocks {
        solo.tell(PeerCommand::Send(block, vec![0; big as usize].into()));
    }
    assert_eq!(solo.events().len(), 0, "and as long as nothing goes out, no more");
    solo.conn.wrote(solo.now, 200_000, &mut solo.events);
    assert_eq!(
        solo.events(),
        ["Sent(196608)"; 1]
            .map(String::from)
            .iter()
            .chain([16, 17, 18].map(|i| format!("{:?}", PeerEvent::Requested(block(i, 0, big)))).iter())
            .cloned()
            .collect::<Vec<_>>()
    );
}

#[test]
fn a_peer_that_does_not_read_is_closed_after_thirty_seconds() {
    let mut solo = Solo::fast();
    solo.tell(PeerCommand::Unchoke);
    solo.wait(Duration::from_secs(20));
    solo.conn.wrote(solo.now, 1, &mut solo.events);
    solo.wait(Duration::from_secs(29));
    assert_eq!(solo.closed(), None, "one byte is progress");
    solo.wait(Duration::from_secs(1));
    assert_eq!(solo.closed(), Some(CloseReason::Stalled));
}

#[test]
fn a_peer_that_floods_and_does_not_read_is_read_no_further() {
    let mut solo = Solo::fast();
    solo.conn.state.setup.config.chatter_burst = u32::MAX;
    let mut wire = Vec::new();
    (0..1000).for_each(|_| Message::Request(Span { index: 0, begin: 0, len: 16 }).encode(&mut wire));
    for _ in 0..1000 {
        solo.feed(&wire);
    }
    assert!(solo.conn.space().iter().all(|space| space.is_empty()));
    assert!(solo.conn.pending_len() < 3 << 20, "{}", solo.conn.pending_len());
    solo.wait(Duration::from_secs(30));
    assert_eq!(solo.closed(), Some(CloseReason::Stalled));
}

#[test]
fn choking_voids_the_requests_of_the_peer() {
    let mut solo = Solo::fast();
    solo.tell(PeerCommand::Unchoke);
    solo.drain();
    let (a, b) = (block(0, 0, 16), block(1, 0, 16));
    solo.say(Message::Request(Span::of(a)));
    solo.say(Message::Request(Span::of(b)));
    solo.say(Message::Cancel(Span::of(b)));
    assert_eq!(solo.said(), [format!("{:?}", Message::Reject(Span::of(b)))]);
    solo.tell(PeerCommand::Choke);
    assert_eq!(solo.said(), ["Choke".to_owned(), format!("{:?}", Message::Reject(Span::of(a)))]);
    solo.tell(PeerCommand::Send(a, vec![0; 16].into()));
    assert!(solo.said().is_empty(), "the disk was late");
}

#[test]
fn silence_is_filled_and_has_an_end() {
    let mut solo = Solo::plain();
    solo.drain();
    solo.wait(Duration::from_secs(99));
    assert!(solo.said().is_empty());
    solo.wait(Duration::from_secs(1));
    assert_eq!(solo.said(), ["KeepAlive"]);
    solo.wait(Duration::from_secs(19));
    assert_eq!(solo.closed(), None);
    solo.wait(Duration::from_secs(1));
    assert_eq!(solo.closed(), Some(CloseReason::Idle));
}

#[test]
fn a_peer_that_owes_blocks_for_a_minute_snubs_us() {
    let blocks = [block(0, 0, 16), block(1, 0, 16)];
    let mut solo = Solo::fast().asking(&blocks);
    solo.wait(Duration::from_secs(59));
    assert!(solo.events.is_empty());
    solo.say(piece(blocks[0], &[0; 16]));
    solo.events.clear();
    solo.wait(Duration::from_secs(59));
    assert!(solo.events.is_empty());
    solo.wait(Duration::from_secs(2));
    assert_eq!(solo.events(), ["Snubbed"]);
    solo.drain(); // our keep-alive
    solo.say(Message::KeepAlive);
    solo.wait(Duration::from_secs(50));
    solo.wait(Duration::from_secs(20));
    assert_eq!(solo.events(), [""; 0], "said once");
    solo.say(piece(blocks[1], &[0; 16]));
    assert!(matches!(solo.events[..], [PeerEvent::Block(..), PeerEvent::Room(_)]));
}

#[test]
fn a_time_that_has_come_is_not_due_for_ever() {
    let blocks = [block(0, 0, 16), block(1, 0, 16), block(2, 0, 16)];
    let mut solo = Solo::fast().asking(&blocks);
    solo.wait(Duration::from_millis(59_500));
    // The second reject starts a pause, in whose middle the peer begins to count as snubbing us.
    solo.say(Message::Reject(Span::of(blocks[1])));
    solo.say(Message::Reject(Span::of(blocks[2])));
    solo.wait(Duration::from_millis(600));
    assert!(solo.events().iter().any(|event| event == "Snubbed"));
    solo.wait(Duration::from_secs(2));
}

#[test]
fn the_peers_queue_bounds_the_pipeline() {
    let mut solo = Solo::fast();
    solo.say(Message::Extended { id: 0, payload: b"d4:reqqi3ee" });
    solo.events.clear();
    solo.say(Message::Unchoke);
    assert_eq!(solo.events(), ["Unchoked", "Room(3)"]);
}

#[test]
fn metadata_is_served_within_bounds() {
    let mut solo = Solo::fast();
    solo.say(Message::Extended { id: 0, payload: b"d1:md11:ut_metadatai9eee" });
    solo.events.clear();
    let request = b"d8:msg_typei0e5:piecei1ee";
    for _ in 0..100 {
        solo.say(Message::Extended { id: 2, payload: request });
    }
    assert_eq!(solo.events().len(), 64);
    let said = solo.said();
    assert_eq!(said.len(), 36);
    assert!(said[0].starts_with("Extended { id: 9, payload: [100, 56"), "{}", said[0]);
    // A piece that there is none of is refused, too.
    solo.say(Message::Extended { id: 2, payload: b"d8:msg_typei0e5:piecei2ee" });
    assert_eq!((solo.events().len(), solo.said().len()), (0, 1));
    // Answered ones make room, but each piece is served about twice.
    for _ in 0..64 {
        solo.tell(PeerCommand::Metadata(MetadataMessage::Reject { piece: 1 }));
    }
    for _ in 0..100 {
        solo.say(Message::Extended { id: 2, payload: request });
    }
    assert_eq!(solo.events().len(), 4);
}

#[test]
fn metadata_that_was_not_asked_for_is_dropped() {
    let mut solo = Solo::new(None, [0, 0, 0, 0, 0, 0x10, 0, 4]);
    solo.tell(PeerCommand::Metadata(MetadataMessage::Request { piece: 0 }));
    assert!(
        matches!(solo.events[..], [PeerEvent::Metadata(MetadataMessage::Reject { piece: 0 })]),
        "takes none"
    );
    solo.say(Message::Extended { id: 0, payload: b"d1:md11:ut_metadatai1ee13:metadata_sizei2ee" });
    solo.events.clear();
    let data = b"d8:msg_typei1e5:piecei0e10:total_sizei2eeab";
    solo.say(Message::Extended { id: 2, payload: data });
    assert!(solo.events.is_empty());
    solo.tell(PeerCommand::Metadata(MetadataMessage::Request { piece: 0 }));
    assert_eq!(solo.said().len(), 1);
    solo.say(Message::Extended { id: 2, payload: data });
    solo.say(Message::Extended { id: 2, payload: data });
    let wanted = MetadataMessage::Data { piece: 0, total_size: 2, bytes: b"ab".to_vec() };
    assert!(matches!(&solo.events[..], [PeerEvent::Metadata(got)] if *got == wanted));
}

#[test]
fn commands_before_the_handshake_come_to_nothing() {
    let mut conn = PeerConn::outgoing(Time::ZERO, setup(1, Some(SHAPE)));
    let mut events = Vec::new();
    conn.command(Time::ZERO, PeerCommand::Interested, &mut events);
    conn.command(Time::ZERO, PeerCommand::Request(vec![block(0, 0, 16)]), &mut events);
    assert!(matches!(events[..], [PeerEvent::Rejected(_)]));
    assert_eq!(conn.pending_len(), 68);
    conn.command(Time::ZERO, PeerCommand::Close, &mut events);
    assert!(matches!(events.last(), Some(PeerEvent::Closed(CloseReason::Local))));
}

#[test]
fn random_bytes_never_get_past_the_checks() {
    let mut rng = Rng::from_seed(7);
    for _ in 0..300 {
        let mut solo = Solo::fast().asking(&[block(0, 0, BLOCK_LEN)]);
        let mut bytes = vec![0; 2000];
        rng.fill(&mut bytes);
        for frame in bytes.chunks_mut(20) {
            frame[..4].copy_from_slice(&[0, 0, 0, [1, 5, 13, 16, 3][rng.below(5)]]);
            frame[4..5].copy_from_slice(&[rng.below(21) as u8]);
        }
        solo.feed(&bytes);
        assert!(solo.events.iter().filter(|event| matches!(event, PeerEvent::Closed(_))).count() <= 1);
        for event in &solo.events {
            match event {
                PeerEvent::Have(piece) => assert!(piece.0 < 20),
                PeerEvent::Requested(block) => assert!(SHAPE.contains(*block)),
                PeerEvent::Block(..) => panic!("{event:?}"),
                _ => {}
            }
        }
    }
}

#[test]
fn a_request_for_the_greatest_index_there_is_ends_the_connection() {
    let mut solo = Solo::fast();
    solo.tell(PeerCommand::Unchoke);
    solo.say(Message::Request(Span { index: u32::MAX, begin: 0, len: BLOCK_LEN }));
    let last = solo.events.last();
    assert!(
        matches!(last, Some(PeerEvent::Closed(CloseReason::Protocol(Violation::OutOfRange)))),
        "{last:?}"
    );
    assert_eq!(SHAPE.piece_len(PieceIndex(19)), 1000);
    let empty = TorrentShape { pieces: 0, ..SHAPE };
    assert_eq!([SHAPE.piece_len(PieceIndex(20)), empty.piece_len(PieceIndex(0))], [0, 0]);
}
