//! Peers that say too much, or read nothing of what we say, or keep silent.

use super::*;

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
fn a_seed_may_suggest_as_many_pieces_as_it_gives_blocks() {
    let mut solo = Solo::fast().asking(&[]);
    let (wanted, bytes) = (block(1, 0, BLOCK_LEN), vec![0; BLOCK_LEN as usize]);
    for _ in 0..5000 {
        solo.tell(PeerCommand::Request(vec![wanted]));
        solo.drain();
        solo.say(piece(wanted, &bytes));
        solo.say(Message::Suggest(7));
        solo.events.clear();
    }
    assert_eq!(solo.closed(), None);
    // What was not earned counts, as the unchoke did.
    for _ in 1..2000 {
        solo.say(Message::Suggest(7));
    }
    assert_eq!(solo.closed(), None);
    solo.say(Message::Suggest(7));
    assert_eq!(solo.broke(), Some(Violation::Chatter));
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
    assert_eq!(solo.events().len(), 4, "768 KiB are granted");
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
            .chain([12, 13, 14, 15].map(|i| format!("{:?}", PeerEvent::Requested(block(i, 0, big)))).iter())
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
    // What the last read has led to comes on top.
    let most = (1 << 20) + wire.len();
    assert!(solo.conn.pending_len() <= most, "{}", solo.conn.pending_len());
    solo.wait(Duration::from_secs(30));
    assert_eq!(solo.closed(), Some(CloseReason::Stalled));
}

#[test]
fn a_peer_that_takes_blocks_slowly_is_read_all_the_same() {
    let mut solo = Solo::fast();
    solo.tell(PeerCommand::Unchoke);
    solo.drain();
    for index in 0..19 {
        solo.say(Message::Request(Span { index, begin: 0, len: SHAPE.piece_len }));
        for event in std::mem::take(&mut solo.events) {
            if let PeerEvent::Requested(block) = event {
                solo.tell(PeerCommand::Send(block, vec![0; block.len as usize].into()));
            }
        }
    }
    assert!((768 << 10..1 << 20).contains(&solo.conn.pending_len()), "{}", solo.conn.pending_len());
    assert!(solo.conn.space().iter().any(|space| !space.is_empty()));
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
