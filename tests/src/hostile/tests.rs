//! The peers against a tiny leecher that knows no more than BEP 3, so that a failure of the client's
//! tests is not one of the peers.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::link::{INTERESTED, Link, OUR_UT_METADATA, PIECE, REQUEST, UNCHOKE, Wanted};
use super::*;

fn torrent() -> Arc<Torrent> {
    Arc::new(Torrent::new(150_000, 65_536, 40_000, 7))
}

fn dial(peer: &Peer, torrent: &Arc<Torrent>) -> Link {
    let stream = TcpStream::connect(peer.addr).unwrap();
    let mut link = Link::new(stream, *b"-TT0001-test-leecher", Arc::clone(torrent), Arc::default()).unwrap();
    let hello = link.hello(super::link::FAST_BITS);
    link.write(&hello).unwrap();
    link
}

/// Asks for every block in turn; the bytes.
fn leech(link: &mut Link) -> io::Result<Vec<u8>> {
    link.read_hello()?;
    link.send(INTERESTED, b"")?;
    while link.next()?.id != UNCHOKE {}
    let torrent = Arc::clone(&link.torrent);
    let mut payload = Vec::new();
    while payload.len() < torrent.payload.len() {
        let index = payload.len() as u32 / torrent.piece_len;
        let begin = payload.len() as u32 % torrent.piece_len;
        let len = (torrent.piece_len - begin).min(16_384).min((torrent.payload.len() - payload.len()) as u32);
        link.send(REQUEST, &Wanted { index, begin, len }.body())?;
        let piece = loop {
            match link.next()? {
                message if message.id == PIECE => break message.body,
                _ => {}
            }
        };
        assert_eq!(piece[..8], Wanted { index, begin, len }.body()[..8]);
        payload.extend(&piece[8..]);
    }
    Ok(payload)
}

#[test]
fn an_honest_seeder_serves_the_payload() {
    let torrent = torrent();
    for options in [
        Honest::default(),
        Honest { fast: true, ..Honest::default() },
        Honest { extension_first: true, extended: false, ..Honest::default() },
    ] {
        let peer = Peer::honest(&torrent, Honest { rate: 50 << 20, ..options });
        assert_eq!(leech(&mut dial(&peer, &torrent)).unwrap(), torrent.payload, "{options:?}");
        assert_eq!(peer.seen.complaints(), [""; 0]);
        assert_eq!(peer.seen.requests.total(), 10, "{options:?}");
    }
}

#[test]
fn an_honest_seeder_keeps_to_its_rate_over_all_connections() {
    let torrent = torrent();
    let peer = Peer::honest(&torrent, Honest { rate: 1_000_000, ..Honest::default() });
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| leech(&mut dial(&peer, &torrent)).unwrap());
        }
    });
    // 300,000 bytes at a megabyte a second.
    assert!(start.elapsed() >= Duration::from_millis(290), "{:?}", start.elapsed());
}

#[test]
fn an_honest_seeder_serves_the_info_dictionary() {
    let torrent = torrent();
    let peer = Peer::honest(&torrent, Honest::default());
    let mut link = dial(&peer, &torrent);
    link.read_hello().unwrap();
    super::honest::send_handshake(&mut link).unwrap();
    let mut info: Vec<u8> = Vec::new();
    for piece in 0..torrent.info.len().div_ceil(16_384) {
        let request = format!("d8:msg_typei0e5:piecei{piece}ee");
        link.send_extended(OUR_UT_METADATA, request.as_bytes()).unwrap();
        let message = loop {
            let message = link.next().unwrap();
            if message.body.first() == Some(&OUR_UT_METADATA) {
                break message.body;
            }
        };
        let end = message.windows(2).position(|pair| pair == b"ee").unwrap() + 2;
        info.extend(&message[end..]);
    }
    assert_eq!(info, torrent.info);
    assert_eq!(peer.seen.metadata_requests.total(), 3);
}

#[test]
fn complaints_are_made_about_what_no_client_may_send() {
    let torrent = torrent();
    let peer = Peer::honest(&torrent, Honest::default());
    let mut link = dial(&peer, &torrent);
    link.read_hello().unwrap();
    link.send(REQUEST, &Wanted { index: 0, begin: 0, len: 32_768 }.body()).unwrap();
    link.send(REQUEST, &Wanted { index: 2, begin: 16_384, len: 16_384 }.body()).unwrap();
    link.send(99, b"").unwrap();
    crate::process::eventually("the complaints", || (peer.seen.complaints().len() >= 4).then_some(()));
}

#[test]
fn wrong_data_is_counted_by_piece() {
    let torrent = torrent();
    let peer = Peer::hostile(&torrent, Mode::Blocks(Blocks::WrongData));
    let payload = leech(&mut dial(&peer, &torrent)).unwrap();
    assert_ne!(payload, torrent.payload);
    assert_eq!((peer.seen.spoiled_pieces(), peer.seen.blocks_spoiled.total()), (3, 10));
}

#[test]
fn bitfields_have_no_bits_behind_the_last_piece() {
    assert_eq!(torrent().full_bitfield(), [0b1110_0000]);
    assert_eq!(Torrent::new(16 * 1024, 1024, 0, 1).full_bitfield(), [0xff, 0xff]);
    assert_eq!(torrent().empty_bitfield(), [0]);
}

#[test]
fn there_are_as_many_modes_as_the_bar_asks_for_and_each_takes_a_connection() {
    let torrent = torrent();
    assert!(Mode::all().count() >= 60);
    std::thread::scope(|scope| {
        for mode in Mode::all() {
            let torrent = &torrent;
            scope.spawn(move || {
                let peer = Peer::hostile(torrent, mode);
                let mut link = dial(&peer, torrent);
                super::honest::send_handshake(&mut link).ok();
                let _ = link.closed_within(Duration::from_millis(50));
                crate::process::eventually("a connection", || {
                    (peer.seen.connections.total() == 1).then_some(())
                });
            });
        }
    });
}

#[test]
fn the_connection_of_a_dropped_peer_ends() {
    let torrent = torrent();
    let peer = Peer::hostile(&torrent, Mode::Greetings(Greetings::Silence));
    let mut link = dial(&peer, &torrent);
    crate::process::eventually("a connection", || (peer.seen.connections.total() == 1).then_some(()));
    drop(peer);
    assert!(link.closed_within(Duration::from_secs(10)).unwrap());
}
