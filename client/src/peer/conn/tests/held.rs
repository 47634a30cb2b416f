//! A limit of ours is not the peer's fault.

use super::*;

const SENDING: Held = Held { receiving: false, sending: true };
const RECEIVING: Held = Held { receiving: true, sending: false };

impl Solo {
    fn held(&mut self, held: Held) {
        self.conn.held(self.now, held);
    }
}

#[test]
fn a_peer_is_not_to_blame_for_what_our_limit_does_not_send() {
    let mut solo = Solo::fast();
    solo.tell(PeerCommand::Unchoke);
    solo.wait(Duration::from_secs(20));
    solo.held(SENDING);
    for _ in 0..10 {
        solo.wait(Duration::from_secs(60));
        solo.say(Message::KeepAlive);
        solo.held(SENDING);
    }
    assert_eq!(solo.closed(), None);
    // From here on it is the peer that does not take it; the 20 seconds before count.
    solo.held(Held::default());
    solo.wait(Duration::from_secs(9));
    assert_eq!(solo.closed(), None);
    solo.wait(Duration::from_secs(1));
    assert_eq!(solo.closed(), Some(CloseReason::Stalled));
}

#[test]
fn a_peer_is_not_silent_whom_our_limit_does_not_read() {
    let mut solo = Solo::fast();
    solo.wait(Duration::from_secs(119));
    solo.drain();
    solo.held(RECEIVING);
    for _ in 0..50 {
        solo.wait(Duration::from_secs(20));
        solo.drain();
    }
    assert_eq!(solo.closed(), None);
    solo.held(Held::default());
    solo.wait(Duration::from_secs(1));
    assert_eq!(solo.closed(), Some(CloseReason::Idle));
}

#[test]
fn a_peer_does_not_snub_us_while_our_limit_holds_up_its_blocks_or_our_requests() {
    let mut solo = Solo::fast().asking(&[block(0, 0, 16)]);
    solo.wait(Duration::from_secs(59));
    solo.held(RECEIVING);
    solo.wait(Duration::from_secs(50));
    // Our keep-alive may not go out, nor might a request.
    solo.held(SENDING);
    assert!(solo.conn.small_len() > 0);
    solo.wait(Duration::from_secs(50));
    assert_eq!(solo.events(), [""; 0]);
    solo.drain();
    solo.held(SENDING);
    solo.wait(Duration::from_secs(1));
    assert_eq!(solo.events(), ["Snubbed"]);
}

#[test]
fn a_handshake_has_its_ten_seconds_without_those_in_which_our_limit_holds_it_up() {
    for held in [SENDING, RECEIVING] {
        let now = Time::from_secs(100);
        let mut solo = Solo::of(PeerConn::outgoing(now, setup(1, None)), now);
        assert_eq!((solo.conn.small_len(), solo.conn.greeting_len()), (68, 68));
        solo.held(held);
        solo.wait(Duration::from_secs(600));
        solo.held(Held::default());
        solo.wait(Duration::from_millis(9_999));
        assert_eq!(solo.closed(), None);
        solo.wait(Duration::from_millis(1));
        assert_eq!(solo.closed(), Some(CloseReason::HandshakeTimeout));
    }
}

#[test]
fn a_handshake_goes_ahead_without_what_is_behind_it() {
    for answers in [false, true] {
        let now = Time::from_secs(100);
        let mut solo = Solo::of(PeerConn::outgoing(now, setup(1, Some(SHAPE))), now);
        if answers {
            let theirs = Handshake { reserved: [0; 8], infohash: Id::new([5; 20]), peer_id: [2; 20] };
            solo.feed(&theirs.encode());
            solo.tell(PeerCommand::Pieces(Bitfield::full(20).into()));
        }
        let behind = solo.conn.pending_len() - 68;
        assert_eq!(behind > 0, answers);
        for (written, left) in [(0, 68), (1, 67), (66, 1)] {
            solo.conn.wrote(now, written, &mut solo.events);
            assert_eq!((solo.conn.is_ungreeted(), solo.conn.small_len()), (true, left));
        }
        solo.conn.wrote(now, 1, &mut solo.events);
        assert_eq!((solo.conn.is_ungreeted(), solo.conn.small_len()), (false, behind));
    }
}

#[test]
fn only_what_is_small_in_front_of_the_first_block_is_small() {
    let mut solo = Solo::fast();
    solo.tell(PeerCommand::Unchoke);
    solo.drain();
    let wanted = block(0, 0, BLOCK_LEN);
    solo.say(Message::Request(Span::of(wanted)));
    solo.tell(PeerCommand::Have(PieceIndex(3)));
    solo.tell(PeerCommand::Send(wanted, vec![0; BLOCK_LEN as usize].into()));
    solo.tell(PeerCommand::Have(PieceIndex(4)));
    assert_eq!(solo.conn.small_len(), 9);
    solo.conn.wrote(solo.now, 9, &mut solo.events);
    // A header that goes ahead would have its block begin.
    assert_eq!(solo.conn.small_len(), 0);
    solo.conn.wrote(solo.now, 13, &mut solo.events);
    assert_eq!(solo.conn.small_len(), 0);
    solo.conn.wrote(solo.now, BLOCK_LEN as usize, &mut solo.events);
    assert_eq!(solo.conn.small_len(), 9);
}
