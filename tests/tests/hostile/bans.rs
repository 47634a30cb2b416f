//! S35 and S36: who sends wrong data is found out and left, and a crowd of such peers only delays.

use std::sync::Arc;
use std::time::Duration;

use harness::hostile::{Blocks, Honest, Mode, Peer, Pieces, Torrent};

use crate::run::{Fetch, Source, addresses, each, hostile};

#[test]
fn a_peer_of_wrong_data_is_left_after_two_pieces() {
    let cases =
        [(64 << 10, Blocks::WrongData), (256 << 10, Blocks::WrongData), (64 << 10, Blocks::OtherPiece)];
    each(&cases, |&(piece_len, mode)| {
        let torrent = Arc::new(Torrent::new(3 << 20, piece_len, 0, 4));
        let evil = hostile(&torrent, Mode::Blocks(mode), 2);
        let honest = Peer::honest(&torrent, Honest::default());
        let outcome = Fetch::new(&torrent, Source::File, addresses(evil.iter().chain([&honest]))).run();
        let figures = outcome.complete(&torrent)?;
        let blocks_of_a_piece = u64::from(piece_len / 16_384);
        for peer in &evil {
            let (blocks, pieces) = (peer.seen.blocks_spoiled.total(), peer.seen.spoiled_pieces());
            if blocks > 2 * blocks_of_a_piece || pieces > 2 {
                return Err(format!("took {blocks} wrong blocks of {pieces} pieces from one peer"));
            }
            if peer.seen.handshakes.total() > 1 {
                return Err(format!("came back {} times", peer.seen.handshakes.total() - 1));
            }
        }
        Ok(figures)
    });
}

#[test]
fn rare_wrong_data_costs_less_than_a_third_of_the_file() {
    let torrent = Arc::new(Torrent::new(3 << 20, 64 << 10, 0, 5));
    let evil = hostile(&torrent, Mode::Blocks(Blocks::WrongDataRarely), 2);
    let honest = Peer::honest(&torrent, Honest::default());
    let peers = || evil.iter().chain([&honest]);
    let outcome = Fetch::new(&torrent, Source::File, addresses(peers())).run();
    println!("{}", outcome.complete(&torrent).unwrap());
    for peer in peers() {
        println!("{:?}", peer.seen);
    }
    let blocks: u64 = peers().map(|peer| peer.seen.blocks_sent.total()).sum();
    assert!(blocks * 10 <= 192 * 13, "{blocks} blocks for a file of 192");
}

#[test]
fn fifty_hostile_peers_of_all_kinds_do_not_triple_the_time() {
    let torrent = Arc::new(Torrent::new(3 << 20, 64 << 10, 0, 6));
    let alone = Peer::honest(&torrent, Honest::default());
    let alone = Fetch::new(&torrent, Source::File, [alone.addr]).run();
    alone.complete(&torrent).unwrap();

    let every_third: Vec<_> = Mode::all().filter(|mode| !matches!(mode, Mode::Metadata(_))).collect();
    let mut peers: Vec<_> =
        every_third.iter().step_by(2).take(50).map(|&mode| Peer::hostile(&torrent, mode)).collect();
    assert_eq!(peers.len(), 50);
    let honest = Peer::honest(&torrent, Honest::default());
    peers.insert(25, honest);
    let outcome = Fetch::new(&torrent, Source::File, addresses(&peers)).run();
    println!("{}", outcome.complete(&torrent).unwrap());
    // A debug build on a busy machine spends its time elsewhere.
    let most = if cfg!(debug_assertions) { 8 } else { 3 };
    assert!(outcome.took <= most * alone.took, "{:?} instead of {:?}", outcome.took, alone.took);
}

#[test]
fn peers_that_never_serve_are_asked_sparingly() {
    let modes = [Pieces::RejectAll, Pieces::RejectAllUnasked, Pieces::ChokeFlap, Pieces::SilentSeed];
    each(&modes, |&mode| serves_nothing(mode, 1 << 20));
}

#[test]
#[ignore = "takes a minute"]
fn peers_that_never_serve_are_asked_sparingly_for_a_minute() {
    let modes = [Pieces::RejectAll, Pieces::ChokeFlap];
    each(&modes, |&mode| serves_nothing(mode, 50 << 10));
}

/// S39: at most a hundred requests a second, and the start of a pipeline.
fn serves_nothing(mode: Pieces, rate: u64) -> Result<String, String> {
    let torrent = Arc::new(Torrent::new(3 << 20, 64 << 10, 0, 7));
    let evil = Peer::hostile(&torrent, Mode::Pieces(mode));
    let honest = Peer::honest(&torrent, Honest { rate, ..Honest::default() });
    let live = Fetch::new(&torrent, Source::File, addresses([&evil, &honest])).start();
    let outcome = live.finish(Duration::from_secs(120));
    let figures = outcome.complete(&torrent)?;
    let requests = evil.seen.requests.total();
    if requests as f64 > 100.0 * (outcome.took.as_secs_f64() + 1.0) {
        return Err(format!("{requests} requests in {:?}", outcome.took));
    }
    // A tenth of a core, and what starting takes.
    if outcome.usage.cpu > outcome.took / 10 + Duration::from_secs(if cfg!(debug_assertions) { 5 } else { 1 })
    {
        return Err(format!("{:?} of CPU in {:?}", outcome.usage.cpu, outcome.took));
    }
    Ok(format!("{figures}, {requests} requests"))
}
