//! A download against a peer in memory: two connections joined by byte queues, on time that the test
//! moves.

use std::sync::Arc;

use krpc::Id;

use super::*;
use crate::peer::{PeerConfig, PeerConn, PeerSetup};
use crate::piece::BlockPool;

const SHAPE: TorrentShape =
    TorrentShape { pieces: 3, piece_len: 4 * BLOCK_LEN, last_piece_len: 1000, metadata_size: 20_000 };
const SEED: [u8; 20] = [2; 20];

fn piece(index: u32) -> Vec<u8> {
    (0..SHAPE.piece_len(PieceIndex(index)))
        .map(|at| (at / 7 + at / BLOCK_LEN * 3 + index * 31) as u8)
        .collect()
}

fn wanted(index: u32) -> Wanted {
    let bytes = piece(index);
    Wanted { index: PieceIndex(index), size: bytes.len() as u32, hash: Some(Sha1::digest(&bytes).into()) }
}

/// How the peer behaves.
#[derive(Default)]
struct Manners {
    /// It never unchokes.
    chokes: bool,
    /// It takes requests and sends nothing.
    silent: bool,
    /// One byte of each block is wrong.
    lies: bool,
    /// Blocks that it refuses before it begins to give.
    refuses: usize,
}

struct World {
    now: Time,
    ours: PeerConn,
    theirs: PeerConn,
    manners: Manners,
    download: PieceDownload,
    events: Vec<PieceEvent>,
    /// Requests that reached the peer, and those that it was told to forget.
    requested: Vec<BlockRef>,
    cancelled: Vec<BlockRef>,
}

fn conn(now: Time, peer_id: [u8; 20], shape: Option<TorrentShape>) -> PeerConn {
    let setup = PeerSetup {
        config: PeerConfig::default(),
        infohash: Id::new([5; 20]),
        peer_id,
        remote: "1.2.3.4".parse().unwrap(),
        listen_port: None,
        dht_port: None,
        shape,
        blocks: BlockPool::new(4),
    };
    PeerConn::outgoing(now, setup)
}

/// Moves all that `from` has to say; whether it said anything.
fn carry(
    now: Time,
    from: &mut PeerConn,
    to: &mut PeerConn,
    said: &mut Vec<PeerEvent>,
    heard: &mut Vec<PeerEvent>,
) -> bool {
    let bytes: Vec<u8> = from.pending().iter().flat_map(|slice| slice.to_vec()).collect();
    from.wrote(now, bytes.len(), said);
    let mut rest = &bytes[..];
    while !rest.is_empty() && !to.is_closed() {
        let mut n = 0;
        for space in &mut to.space() {
            let here = space.len().min(rest.len() - n);
            space[..here].copy_from_slice(&rest[n..n + here]);
            n += here;
        }
        to.received(now, n, heard);
        rest = &rest[n..];
    }
    !bytes.is_empty()
}

impl World {
    fn new(rules: Rules, have: &[u32], manners: Manners) -> Self {
        let now = Time::from_secs(100);
        let download = PieceDownload::new(now, wanted(1), rules).unwrap();
        let (ours, theirs) = (conn(now, [1; 20], rules.shape), conn(now, SEED, Some(SHAPE)));
        let (events, requested, cancelled) = Default::default();
        let mut world = Self { now, ours, theirs, manners, download, events, requested, cancelled };
        let mut bits = Bitfield::new(SHAPE.pieces);
        for &index in have {
            bits.insert(index);
        }
        // The handshakes first: a peer tells what it has behind its own.
        let (mut heard, mut said) = (Vec::new(), Vec::new());
        carry(now, &mut world.ours, &mut world.theirs, &mut heard, &mut said);
        world.theirs.command(now, PeerCommand::Pieces(Arc::new(bits)), &mut said);
        world.hear(heard);
        world.settle();
        world
    }

    fn hear(&mut self, events: Vec<PeerEvent>) {
        let mut out = Vec::new();
        for event in events {
            self.download.handle(self.now, event, &mut out);
        }
        self.carry_out(out);
    }

    fn carry_out(&mut self, out: Vec<Output>) {
        let mut back = Vec::new();
        for output in out {
            match output {
                Output::Tell(command) => self.ours.command(self.now, command, &mut back),
                Output::Event(event) => self.events.push(event),
            }
        }
        if !back.is_empty() {
            self.hear(back);
        }
    }

    /// Carries bytes to and fro until both are silent.
    fn settle(&mut self) {
        loop {
            let (mut heard, mut asked) = (Vec::new(), Vec::new());
            let out = carry(self.now, &mut self.ours, &mut self.theirs, &mut heard, &mut asked);
            let back = carry(self.now, &mut self.theirs, &mut self.ours, &mut asked, &mut heard);
            self.hear(heard);
            let answers = asked.into_iter().filter_map(|event| self.answer(event)).collect::<Vec<_>>();
            for answer in answers {
                self.theirs.command(self.now, answer, &mut Vec::new());
            }
            if !out && !back {
                return;
            }
        }
    }

    /// What the peer does.
    fn answer(&mut self, event: PeerEvent) -> Option<PeerCommand> {
        match event {
            PeerEvent::Interested if !self.manners.chokes => Some(PeerCommand::Unchoke),
            PeerEvent::Requested(block) => {
                self.requested.push(block);
                if self.manners.refuses > 0 {
                    self.manners.refuses -= 1;
                    return Some(PeerCommand::Refuse(block));
                }
                let mut bytes = piece(block.piece.0)[block.begin as usize..][..block.len as usize].to_vec();
                bytes[9] ^= u8::from(self.manners.lies);
                (!self.manners.silent).then(|| PeerCommand::Send(block, bytes.into()))
            }
            PeerEvent::Cancelled(block) => {
                self.cancelled.push(block);
                None
            }
            _ => None,
        }
    }

    fn switch(&mut self, wanted: Wanted) -> Result<(), Refused> {
        let mut out = Vec::new();
        let result = self.download.switch(self.now, wanted, &mut out);
        self.carry_out(out);
        self.settle();
        result
    }

    /// Moves the time and lets all that is due happen.
    fn pass(&mut self, time: Duration) {
        self.now += time;
        let (mut out, mut heard) = (Vec::new(), Vec::new());
        self.ours.handle_timeout(self.now, &mut heard);
        self.hear(heard);
        self.download.handle_timeout(self.now, &mut out);
        self.carry_out(out);
        self.settle();
    }

    /// Pieces that came, with whether they were verified.
    fn complete(&self) -> Vec<(u32, &[u8], bool)> {
        let complete = |event: &'_ PieceEvent| matches!(event, PieceEvent::Complete { .. });
        let events = self.events.iter().filter(|event| complete(event));
        events
            .map(|event| match event {
                PieceEvent::Complete { index, bytes, verified } => (index.0, &bytes[..], *verified),
                _ => unreachable!(),
            })
            .collect()
    }
}

fn with_shape() -> Rules {
    Rules { shape: Some(SHAPE), ..Rules::default() }
}

#[test]
fn a_piece_comes_with_and_without_the_shape_of_the_torrent() {
    for rules in [Rules::default(), with_shape()] {
        let world = World::new(rules, &[0, 1, 2], Manners::default());
        assert_eq!(world.complete(), [(1, &piece(1)[..], true)], "{:?}", world.events);
        assert_eq!(world.events[..2], [PieceEvent::Connected(SEED), PieceEvent::Unchoked]);
        assert_eq!(world.requested.len(), 4, "each block is asked for once");
        let done = world.events.iter().filter_map(|event| match event {
            PieceEvent::Block { done, .. } => Some(*done / BLOCK_LEN),
            _ => None,
        });
        assert_eq!(done.collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert_eq!(world.download.timeout(), Time::NEVER);
    }
}

#[test]
fn without_a_hash_nothing_counts_as_verified() {
    let mut world = World::new(Rules::default(), &[0, 1, 2], Manners { lies: true, ..Manners::default() });
    assert_eq!(world.events.last(), Some(&PieceEvent::Failed(PieceIndex(1), PieceError::WrongHash)));
    world.switch(Wanted { hash: None, ..wanted(2) }).unwrap();
    let complete = world.complete();
    assert_eq!((complete.len(), complete[0].0, complete[0].2), (1, 2, false));
}

#[test]
fn a_switch_on_the_live_connection_cancels_what_was_asked_for() {
    let mut world = World::new(with_shape(), &[0, 1, 2], Manners { silent: true, ..Manners::default() });
    assert_eq!(world.download.status().outstanding, 4);
    world.manners.silent = false;
    world.switch(wanted(2)).unwrap();
    assert_eq!(world.cancelled.len(), 4);
    assert_eq!(world.complete(), [(2, &piece(2)[..], true)]);
    // And once more when idle: interest is told again, the handshake is not.
    world.switch(wanted(0)).unwrap();
    assert_eq!(world.complete()[1..], [(0, &piece(0)[..], true)]);
    let connected = world.events.iter().filter(|event| matches!(event, PieceEvent::Connected(_)));
    assert_eq!(connected.count(), 1);
}

#[test]
fn a_block_that_is_refused_is_asked_for_again() {
    let mut world = World::new(with_shape(), &[1], Manners { refuses: 2, ..Manners::default() });
    world.pass(Duration::from_secs(1));
    assert_eq!(world.complete(), [(1, &piece(1)[..], true)], "{:?}", world.events);
    assert_eq!(world.requested.len(), 6);
}

#[test]
fn a_piece_that_does_not_come_is_given_up_with_the_reason() {
    let silent = || Manners { silent: true, ..Manners::default() };
    let chokes = || Manners { chokes: true, ..Manners::default() };
    let cases = [
        (&[0, 1][..], silent(), PieceError::Silent),
        (&[1], chokes(), PieceError::Choked),
        (&[0, 2], silent(), PieceError::Absent),
    ];
    for (have, manners, error) in cases {
        let mut world = World::new(with_shape(), have, manners);
        world.pass(Duration::from_millis(59_999));
        assert!(!world.events.iter().any(|event| matches!(event, PieceEvent::Failed(..))), "{error:?}");
        world.pass(Duration::from_millis(1));
        assert_eq!(world.events.last(), Some(&PieceEvent::Failed(PieceIndex(1), error)));
        assert_eq!(world.requested.is_empty(), error != PieceError::Silent);
        assert_eq!(world.download.timeout(), Time::NEVER, "it is given up once");
    }
}

#[test]
fn a_piece_that_the_peer_gets_later_is_asked_for_then() {
    let mut world = World::new(with_shape(), &[0], Manners::default());
    assert!(world.requested.is_empty());
    world.theirs.command(world.now, PeerCommand::Have(PieceIndex(1)), &mut Vec::new());
    world.settle();
    assert_eq!(world.complete(), [(1, &piece(1)[..], true)]);
}

#[test]
fn a_peer_with_another_id_is_left_at_once_and_a_stop_says_why() {
    let other = Rules { peer_id: Some([7; 20]), ..with_shape() };
    let world = World::new(other, &[1], Manners::default());
    assert_eq!(world.events, [PieceEvent::Ended(End::WrongPeer(SEED))]);
    assert!(world.download.is_over() && world.requested.is_empty());

    let mut world = World::new(with_shape(), &[1], Manners { silent: true, ..Manners::default() });
    let mut out = Vec::new();
    world.download.stop(End::Stopped("enough".into()), &mut out);
    assert_eq!(world.download.timeout(), Time::NEVER, "nothing is waited for");
    world.carry_out(out);
    assert_eq!(world.events.last(), Some(&PieceEvent::Ended(End::Stopped("enough".into()))));
    assert_eq!(world.switch(wanted(0)), Err(Refused::Ended));
}

#[test]
fn what_cannot_be_a_piece_is_refused_and_changes_nothing() {
    let mut world = World::new(with_shape(), &[1], Manners { silent: true, ..Manners::default() });
    let before = world.download.status();
    for (index, size) in [(0, 0), (0, MAX_PIECE + 1), (3, 1000), (2, 1001), (u32::MAX, 1)] {
        let wanted = Wanted { index: PieceIndex(index), size, hash: None };
        assert!(world.switch(wanted).is_err(), "{wanted:?}");
        assert!(PieceDownload::new(world.now, wanted, with_shape()).is_err());
    }
    assert_eq!(world.download.status(), before);
}
