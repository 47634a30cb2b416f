//! The exchange of the info dictionary (BEP 9).

use super::*;

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
