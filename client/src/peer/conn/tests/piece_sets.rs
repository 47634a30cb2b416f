//! Which pieces we say that we have, and which the peer says that it has.

use super::*;

#[test]
fn what_we_have_is_the_first_thing_said() {
    let expected = [
        (Bitfield::new(20), "HaveNone", None),
        (Bitfield::full(20), "HaveAll", Some("Bitfield([255, 255, 240])")),
    ];
    for (have, fast, plain) in expected {
        for (reserved, first) in [([0, 0, 0, 0, 0, 0x10, 0, 5], Some(fast)), ([0; 8], plain)] {
            let mut solo = Solo::of(PeerConn::outgoing(Time::ZERO, setup(1, Some(SHAPE))), Time::ZERO);
            assert_eq!(solo.drain().len(), 68);
            let theirs = Handshake { reserved, infohash: Id::new([5; 20]), peer_id: [2; 20] };
            solo.feed(&theirs.encode());
            assert!(solo.drain().is_empty(), "nothing before the swarm has told what we have");
            solo.tell(PeerCommand::Pieces(have.clone().into()));
            let said = solo.said();
            assert_eq!(said.first().map(String::as_str), first);
            if first == Some(fast) {
                assert!(said[1].starts_with("Extended { id: 0"));
                assert_eq!(said[2], "Port(6882)");
            }
            solo.tell(PeerCommand::Pieces(Bitfield::from_wire(&[0x80, 0, 0], 20).unwrap().into()));
            assert_eq!(solo.said(), ["Have(0)"], "too late for a bitfield");
        }
    }
}

#[test]
fn a_piece_set_in_the_middle_takes_the_place_of_what_was_said_before() {
    let mut solo = Solo::fast();
    solo.say(Message::Extended { id: 0, payload: b"de" }); // many clients send it before
    solo.say(Message::Have(3));
    solo.say(Message::HaveAll);
    assert!(matches!(&solo.events[..], [PeerEvent::Extended(_), PeerEvent::Have(_), PeerEvent::HaveAll]));
    solo.say(Message::HaveNone);
    assert!(matches!(solo.events.last(), Some(PeerEvent::HaveNone)));
    solo.say(Message::Bitfield(&[0x80, 0, 0]));
    assert!(matches!(solo.events.last(), Some(PeerEvent::Pieces(set)) if set.count() == 1));
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
fn suggestions_are_passed_on_if_there_is_such_a_piece() {
    let mut solo = Solo::fast();
    [0, SHAPE.pieces - 1, SHAPE.pieces, u32::MAX]
        .into_iter()
        .for_each(|index| solo.say(Message::Suggest(index)));
    let suggested = |event: &PeerEvent| match event {
        PeerEvent::Suggested(piece) => Some(piece.0),
        _ => None,
    };
    let told: Vec<_> = solo.events.iter().filter_map(suggested).collect();
    assert_eq!((told, solo.broke()), (vec![0, SHAPE.pieces - 1], None));
    solo.tell(PeerCommand::Suggest(PieceIndex(3)));
    assert!(!solo.drain().is_empty());
    let mut plain = Solo::plain();
    plain.tell(PeerCommand::Suggest(PieceIndex(3)));
    assert!(plain.drain().is_empty(), "it would not understand");
}

#[test]
fn short_piece_sets_of_many_pieces_make_no_bitfields_and_come_to_an_end() {
    let shape = TorrentShape { pieces: 2_000_000, ..SHAPE };
    let wire = {
        let mut wire = Vec::new();
        (0..1900).for_each(|_| Message::HaveAll.encode(&mut wire));
        wire
    };
    let mut solo = Solo::new(Some(shape), [0, 0, 0, 0, 0, 0x10, 0, 4]);
    assert_eq!(crate::steps::of(|| solo.feed(&wire)), 0);
    assert_eq!(solo.broke(), Some(Violation::Chatter));
    let sets = solo.events.iter().filter(|event| matches!(event, PeerEvent::HaveAll)).count();
    assert_eq!(sets, 1 + 16 + 1, "the first, those that are forgiven, and the one too many");
    // With time some more are.
    let mut solo = Solo::new(Some(shape), [0, 0, 0, 0, 0, 0x10, 0, 4]);
    for _ in 0..100 {
        solo.say(Message::HaveNone);
        solo.drain();
        solo.wait(Duration::from_secs(2));
    }
    assert_eq!(solo.closed(), None);
}

#[test]
fn sets_of_few_pieces_may_stand_for_many_haves() {
    // As aria2 does it; half a minute of one in 50 ms.
    let mut solo = Solo::fast();
    for _ in 0..600 {
        solo.say(Message::Bitfield(&[0x80, 0, 0]));
        solo.wait(Duration::from_millis(50));
    }
    assert_eq!(solo.closed(), None);
}

/// A peer without the fast extension, whom we told at first that we have nothing of so many pieces.
fn told_nothing(pieces: u32) -> Solo {
    let mut solo = Solo::new(Some(TorrentShape { pieces, ..SHAPE }), [0; 8]);
    assert!(solo.drain().is_empty());
    solo
}

/// Takes what waits, so many bytes at a time; returns the pieces that it told of, and how much waited at most.
fn take_haves(solo: &mut Solo, at_a_time: usize) -> (Vec<u32>, usize) {
    let (mut bytes, mut most) = (Vec::new(), 0);
    while solo.conn.pending_len() > 0 {
        most = most.max(solo.conn.pending_len());
        let n = solo.conn.pending()[0].len().min(at_a_time);
        bytes.extend_from_slice(&solo.conn.pending()[0][..n]);
        solo.conn.wrote(solo.now, n, &mut solo.events);
    }
    let have = |frame: &[u8]| match Message::decode(&frame[4..]) {
        Ok(Message::Have(index)) => index,
        other => panic!("{other:?}"),
    };
    (bytes.chunks(9).map(have).collect(), most)
}

#[test]
fn late_pieces_are_all_told_and_few_wait_at_a_time() {
    let pieces = 300_000;
    let mut solo = told_nothing(pieces);
    solo.tell(PeerCommand::Pieces(Bitfield::full(pieces).into()));
    let (told, most) = take_haves(&mut solo, usize::MAX);
    assert!(told.into_iter().eq(0..pieces));
    assert!(most <= 24 << 10, "{most} bytes waited");
    assert_eq!(solo.closed(), None);
}

#[test]
fn later_sets_of_pieces_join_what_is_not_told_yet() {
    let (pieces, every) = (20_000, |step: usize| {
        let mut set = Bitfield::new(20_000);
        for index in (0..20_000).step_by(step) {
            set.insert(index);
        }
        set
    });
    let mut solo = told_nothing(pieces);
    solo.tell(PeerCommand::Pieces(every(2).into()));
    solo.tell(PeerCommand::Have(PieceIndex(1)));
    solo.tell(PeerCommand::Pieces(every(3).into()));
    let (mut told, _) = take_haves(&mut solo, 1000);
    told.sort_unstable();
    told.dedup();
    assert!(told.into_iter().eq((0..pieces).filter(|index| index % 2 == 0 || index % 3 == 0 || *index == 1)));
}

#[test]
fn new_pieces_may_come_in_one_command() {
    let mut solo = Solo::plain();
    solo.tell(PeerCommand::Haves([3, 1, 2].map(PieceIndex).into()));
    assert_eq!(solo.said(), ["Have(3)", "Have(1)", "Have(2)"]);
}
