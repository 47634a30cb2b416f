//! The exchange of the info dictionary (BEP 9).

use super::*;
use crate::wire::metadata::PIECE_LEN;

#[test]
fn metadata_is_served_within_bounds() {
    let mut solo = Solo::fast();
    solo.say(Message::Extended { id: 0, payload: b"d1:md11:ut_metadatai9eee" });
    solo.events.clear();
    let request = b"d8:msg_typei0e5:piecei1ee";
    for _ in 0..100 {
        solo.say(Message::Extended { id: 2, payload: request });
    }
    // Three quarters of the send buffer are as many as are read at a time; each piece is served about twice.
    assert_eq!(solo.events().len(), 48);
    let said = solo.said();
    assert_eq!(said.len(), 100 - (64 + 2 * 2));
    assert!(said[0].starts_with("Extended { id: 9, payload: [100, 56"), "{}", said[0]);
    // A piece that there is none of is refused, too.
    solo.say(Message::Extended { id: 2, payload: b"d8:msg_typei0e5:piecei2ee" });
    assert_eq!((solo.events().len(), solo.said().len()), (0, 1));
    // Answered ones make room for those that wait, and for no others.
    for _ in 0..68 {
        solo.tell(PeerCommand::Metadata(MetadataMessage::Reject { piece: 1 }));
    }
    assert_eq!(solo.events().len(), 20);
    solo.say(Message::Extended { id: 2, payload: request });
    assert_eq!(solo.events().len(), 0);
}

/// Some clients ask for all pieces at once, and never again for one that is refused.
#[test]
fn who_asks_for_all_metadata_at_once_gets_it_and_no_more_is_queued_than_fits() {
    let pieces = 200;
    let shape = TorrentShape { metadata_size: pieces * PIECE_LEN, ..SHAPE };
    let mut solo = Solo::new(Some(shape), [0, 0, 0, 0, 0, 0x10, 0, 4]);
    solo.say(Message::Extended { id: 0, payload: b"d1:md11:ut_metadatai9eee" });
    solo.events.clear();
    for piece in 0..pieces {
        let request = format!("d8:msg_typei0e5:piecei{piece}ee");
        solo.say(Message::Extended { id: 2, payload: request.as_bytes() });
    }
    let (mut answered, mut said) = (Vec::new(), 0);
    loop {
        let asked: Vec<_> = solo.events.drain(..).collect();
        if asked.is_empty() {
            break;
        }
        for event in asked {
            let PeerEvent::Metadata(MetadataMessage::Request { piece }) = event else { panic!("{event:?}") };
            let bytes = vec![0; PIECE_LEN as usize];
            let data = MetadataMessage::Data { piece, total_size: shape.metadata_size, bytes };
            solo.tell(PeerCommand::Metadata(data));
            answered.push(piece);
        }
        assert!(solo.conn.state.send.len() <= PeerConfig::default().send_buffer);
        said += solo.said().len();
    }
    assert_eq!((answered, said), ((0..pieces).collect(), pieces as usize));
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
