//! Blocks that we ask for: which count, how many there may be, and how long we wait for them.

use super::*;

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
    assert!(solo.turns <= 90, "{} timers in a minute", solo.turns);
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
    assert!(solo.turns <= seconds as usize, "{} timers in {seconds} s", solo.turns);
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
