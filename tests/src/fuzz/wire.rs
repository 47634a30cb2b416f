//! What peers and trackers say.

use std::net::IpAddr;
use std::time::Duration;

use btdht::{Rng, Time};
use btfetch::bitfield::Bitfield;
use btfetch::peer::{MetadataMessage, PeerCommand, PeerConfig, PeerConn, PeerEvent, PeerSetup, TorrentShape};
use btfetch::piece::{BLOCK_LEN, BlockPool, BlockRef, PieceIndex};
use btfetch::tracker::udp::{Patience, UdpTracker};
use btfetch::tracker::{
    Announce, AnnounceReply, MAX_INTERVAL, MAX_PEERS, MAX_TEXT, MAX_TRACKER_ID, MIN_INTERVAL, TrackerError,
    http,
};
use btfetch::wire::extension::{MAX_METADATA, TheirHandshake};
use btfetch::wire::handshake::Handshake;
use btfetch::wire::message::{Message, Span};
use btfetch::wire::metadata::Metadata;
use krpc::Id;

const SHAPE: TorrentShape =
    TorrentShape { pieces: 20, piece_len: 4 * BLOCK_LEN, last_piece_len: 1000, metadata_size: 40_000 };

/// A whole connection is fed a stream, in parts whose length its first bytes choose. It stays within
/// its memory, gives out only what was checked, and ends once.
pub fn peer_conn(data: &[u8]) {
    let Some((&[options, split], mut stream)) = data.split_first_chunk() else { return };
    let setup = PeerSetup {
        config: PeerConfig::default(),
        infohash: Id::new([5; 20]),
        peer_id: [1; 20],
        remote: IpAddr::from([1, 2, 3, 4]),
        listen_port: Some(6881),
        dht_port: Some(6881),
        shape: (options & 1 != 0).then_some(SHAPE),
        blocks: BlockPool::new(2),
    };
    let mut now = Time::from_secs(10);
    let mut conn = PeerConn::outgoing(now, setup);
    let mut known = options & 1 != 0;
    let mut events = Vec::new();
    let reserved = [0, 0, 0, 0, 0, 0x10, 0, if options & 2 != 0 { 4 } else { 0 }];
    let hello = Handshake { reserved, infohash: Id::new([5; 20]), peer_id: [2; 20] }.encode();
    feed(&mut conn, now, &mut &hello[..], usize::MAX, &mut events);
    conn.command(now, PeerCommand::Pieces(Bitfield::full(20).into()), &mut events);
    conn.command(now, PeerCommand::Unchoke, &mut events);
    let mut seen = 0;
    while !stream.is_empty() && !conn.is_closed() {
        if !feed(&mut conn, now, &mut stream, 1 + usize::from(split), &mut events) {
            break;
        }
        now += Duration::from_millis(u64::from(split));
        conn.handle_timeout(now, &mut events);
        for at in std::mem::replace(&mut seen, events.len())..events.len() {
            let command = match &events[at] {
                PeerEvent::Requested(block) => {
                    assert!(SHAPE.contains(*block) && block.len <= 128 << 10);
                    PeerCommand::Send(*block, vec![0; block.len as usize].into())
                }
                PeerEvent::Room(_) => PeerCommand::Request(vec![WANTED]),
                PeerEvent::Block(block, payload) => {
                    assert!(*block == WANTED && payload.len() == WANTED.len as usize);
                    continue;
                }
                PeerEvent::Have(piece) => {
                    assert!(known && piece.0 < SHAPE.pieces);
                    continue;
                }
                PeerEvent::Pieces(set) => {
                    assert!(known && set.len() == SHAPE.pieces);
                    continue;
                }
                PeerEvent::HaveAll | PeerEvent::HaveNone => {
                    assert!(known);
                    continue;
                }
                PeerEvent::Extended(_) => PeerCommand::Metadata(MetadataMessage::Request { piece: 0 }),
                PeerEvent::Metadata(MetadataMessage::Request { piece }) => {
                    PeerCommand::Metadata(MetadataMessage::Reject { piece: *piece })
                }
                PeerEvent::Interested if !known => {
                    known = true;
                    PeerCommand::Torrent(SHAPE)
                }
                _ => continue,
            };
            conn.command(now, command, &mut events);
        }
        if options & 4 != 0 {
            let n = conn.pending().iter().map(|slice| slice.len()).sum();
            conn.wrote(now, n, &mut events);
        }
        assert!(conn.pending_len() < 10 << 20);
    }
    let ends = events.iter().filter(|event| matches!(event, PeerEvent::Closed(_))).count();
    assert_eq!(ends, usize::from(conn.is_closed()));
    assert!(ends == 0 || matches!(events.last(), Some(PeerEvent::Closed(_))));
}

const WANTED: BlockRef = BlockRef { piece: PieceIndex(0), begin: 0, len: 64 };

/// Gives at most `most` bytes of the stream; `false` if the connection takes none.
fn feed(
    conn: &mut PeerConn,
    now: Time,
    stream: &mut &[u8],
    most: usize,
    events: &mut Vec<PeerEvent>,
) -> bool {
    let mut n = 0;
    for space in &mut conn.space() {
        let (here, rest) = stream.split_at(space.len().min(stream.len()).min(most - n));
        space[..here.len()].copy_from_slice(here);
        *stream = rest;
        n += here.len();
    }
    conn.received(now, n, events);
    n > 0
}

/// What an extension handshake says is within bounds.
pub fn extension_handshake(data: &[u8]) {
    let Ok(told) = TheirHandshake::decode(data) else { return };
    assert!(told.metadata_size.is_none_or(|size| (1..=MAX_METADATA).contains(&size)));
    assert!(told.request_queue != Some(0) && told.listen_port != Some(0));
    assert!(
        told.client
            .is_none_or(|name| name.len() <= 4 * 64 && name.bytes().all(|b| (b' '..0x7f).contains(&b)))
    );
}

/// A metadata message survives a round trip, and its payload has the length that its numbers imply.
pub fn metadata_message(data: &[u8]) {
    let Some(message) = Metadata::decode(data) else { return };
    if let Metadata::Data { piece, total_size, bytes } = message {
        assert!(total_size <= MAX_METADATA && !bytes.is_empty());
        assert!(u64::from(piece) * 16_384 + bytes.len() as u64 <= u64::from(total_size));
    }
    if message != Metadata::Unknown {
        let mut out = Vec::new();
        message.encode(&mut out);
        assert_eq!(Metadata::decode(&out), Some(message));
    }
}

/// What a tracker says over HTTP is within bounds.
pub fn http_tracker(data: &[u8]) {
    match http::parse_reply(data) {
        Ok(reply) => check_reply(&reply),
        Err(TrackerError::Refused { reason, .. }) => assert!(reason.len() <= 4 * MAX_TEXT + 3),
        Err(error) => assert_eq!(error, TrackerError::Malformed),
    }
}

/// Datagrams from a UDP tracker, each behind a length byte: right transaction ids are filled in, so
/// that they get past the first check.
pub fn udp_tracker(data: &[u8]) {
    let remote = "1.2.3.4:80".parse().unwrap();
    let mut tracker = UdpTracker::new(remote, "/announce", Rng::from_seed(1));
    let announce = Announce {
        infohash: Id::new([7; 20]),
        peer_id: [8; 20],
        port: 6881,
        uploaded: 0,
        downloaded: 0,
        left: None,
        event: None,
        num_want: 50,
        key: 9,
        tracker_id: None,
    };
    tracker.announce(Time::ZERO, announce.clone(), Patience::Failover);
    let mut tid = [0; 4];
    let mut rest = data;
    while let Some((&len, tail)) = rest.split_first() {
        if let Some(sent) = tracker.poll_transmit() {
            assert!(sent.len() == 16 || sent.len() >= 98);
            tid.copy_from_slice(&sent[12..16]);
        }
        let (datagram, tail) = tail.split_at(tail.len().min(usize::from(len)));
        rest = tail;
        let mut datagram = datagram.to_vec();
        if let Some(place) = datagram.get_mut(4..8) {
            place.copy_from_slice(&tid);
        }
        match tracker.handle_datagram(Time::ZERO, remote, &datagram) {
            Some(Ok(reply)) => check_reply(&reply),
            Some(Err(error)) => assert!(matches!(error, TrackerError::Refused { .. })),
            None => continue,
        }
        assert_eq!(tracker.timeout(), Time::NEVER);
        tracker.announce(Time::ZERO, announce.clone(), Patience::Failover);
    }
}

fn check_reply(reply: &AnnounceReply) {
    assert!((MIN_INTERVAL..=MAX_INTERVAL).contains(&reply.interval));
    assert!(reply.min_interval.is_none_or(|interval| interval <= MAX_INTERVAL));
    assert!(reply.peers.len() <= MAX_PEERS && reply.peers.iter().all(|peer| peer.port() != 0));
    assert!(reply.warning.as_ref().is_none_or(|text| text.len() <= 4 * MAX_TEXT + 3));
    assert!(reply.tracker_id.as_ref().is_none_or(|id| id.len() <= MAX_TRACKER_ID));
}

/// Streams with every message in them, for each kind of connection.
pub(super) fn streams() -> Vec<Vec<u8>> {
    let span = Span { index: 0, begin: 0, len: 64 };
    let all = [
        Message::Bitfield(&[0xff, 0xff, 0xf0]),
        Message::Extended { id: 0, payload: b"d1:md11:ut_metadatai3ee13:metadata_sizei40000e4:reqqi9ee" },
        Message::Interested,
        Message::Unchoke,
        Message::Piece { index: 0, begin: 0, bytes: &[7; 64] },
        Message::Request(span),
        Message::Cancel(span),
        Message::Have(19),
        Message::Port(6881),
        Message::KeepAlive,
        Message::Extended { id: 2, payload: b"d8:msg_typei0e5:piecei0ee" },
        Message::Extended { id: 2, payload: b"d8:msg_typei1e5:piecei0e10:total_sizei2eeab" },
        Message::Choke,
    ];
    let fast = [
        Message::HaveAll,
        Message::Suggest(3),
        Message::AllowedFast(3),
        Message::Unchoke,
        Message::Reject(span),
        Message::Interested,
        Message::Unknown(21),
    ];
    let encode = |options: u8, split: u8, messages: &[Message<'_>]| {
        let mut out = vec![options, split];
        messages.iter().for_each(|message| message.encode(&mut out));
        out
    };
    (0..8).map(|options| encode(options, options * 30, if options & 2 != 0 { &fast } else { &all })).collect()
}

pub(super) fn handshakes() -> Vec<Vec<u8>> {
    let forms: [&[u8]; 3] = [
        b"d1:md11:ut_metadatai3e6:ut_pexi1ee13:metadata_sizei31235e1:pi6881e4:reqqi250e1:v4:teste",
        b"d11:upload_onlyi1e6:yourip4:\x01\x02\x03\x04e",
        b"d1:mde6:yourip16:aaaaaaaaaaaaaaaae",
    ];
    forms.map(<[u8]>::to_vec).to_vec()
}

pub(super) fn metadata_messages() -> Vec<Vec<u8>> {
    let forms: [&[u8]; 4] = [
        b"d8:msg_typei0e5:piecei1ee",
        b"d8:msg_typei1e5:piecei0e10:total_sizei8eexxxxxxxx",
        b"d8:msg_typei2e5:piecei0ee",
        b"d8:msg_typei9e5:piecei0e1:xlee",
    ];
    forms.map(<[u8]>::to_vec).to_vec()
}

pub(super) fn http_replies() -> Vec<Vec<u8>> {
    let forms: [&[u8]; 4] = [
        b"d8:completei5e11:external ip4:\x01\x02\x03\x0410:incompletei7e8:intervali900e12:min intervali120e\
          5:peers6:\x01\x02\x03\x04\x1a\xe16:peers618:aaaaaaaaaaaaaaaaaa10:tracker id3:xyz15:warning message1:be",
        b"d5:peersld2:ip7:1.2.3.47:peer id20:aaaaaaaaaaaaaaaaaaaa4:porti6881eeee",
        b"d14:failure reason3:no!8:retry in5:nevere",
        b"d14:failure reason3:no!8:retry ini5ee",
    ];
    forms.map(<[u8]>::to_vec).to_vec()
}

pub(super) fn udp_replies() -> Vec<Vec<u8>> {
    let connect = b"\x10\0\0\0\0ttttconnect!";
    let announce = b"\x1a\0\0\0\x01tttt\0\0\x07\x08\0\0\0\x05\0\0\0\x06\x01\x02\x03\x04\x1a\xe1";
    let error = b"\x0c\0\0\0\x03ttttgone";
    vec![
        connect.to_vec(),
        [&connect[..], announce, announce].concat(),
        [&connect[..], error, connect].concat(),
    ]
}
