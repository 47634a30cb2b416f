//! What the peer must not say, and what nobody says before the handshake.

use super::*;

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
