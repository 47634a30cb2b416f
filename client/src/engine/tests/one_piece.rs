//! Single pieces from one peer.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::*;
use crate::one_piece::{End, PieceEvent, Refused, Wanted};

/// Longer than any answer takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn wanted(index: u32) -> Wanted {
    Wanted::of(&metainfo().info, PieceIndex(index)).unwrap()
}

fn downloader(from: &Session, index: u32) -> PieceDownloader {
    let infohash = metainfo().info.hash().v1.unwrap();
    PieceDownloader::new(from.local_addrs()[0], infohash, wanted(index))
}

/// The next piece that is complete.
async fn complete(events: &mut PieceEvents) -> (u32, Vec<u8>) {
    loop {
        match events.next().await.expect("it goes on") {
            PieceEvent::Complete { index, bytes, verified: true } => return (index.0, bytes),
            PieceEvent::Failed(..) | PieceEvent::Ended(_) => panic!("no piece came"),
            _ => {}
        }
    }
}

async fn end(events: &mut PieceEvents) -> End {
    loop {
        if let PieceEvent::Ended(end) = events.next().await.expect("the end is told") {
            assert_eq!(events.next().await, None, "it is the last event");
            return end;
        }
    }
}

#[tokio::test]
async fn pieces_come_one_after_the_other_over_one_connection() {
    let (from, seed, _folder) = seeder().await;
    let session = session();
    let download = downloader(&from, 4).shape(metainfo().info.shape()).queue_depth(1).peer_id(seed.peer_id());
    let (piece, mut events) = download.name("x").spawn(&session).unwrap();
    assert_eq!(complete(&mut events).await, (4, payload()[4 * PIECE..5 * PIECE].to_vec()));
    assert_eq!(piece.status(PATIENCE).await.unwrap().piece, None);

    // By its name: the last piece, which is shorter.
    let named = session.piece("x").unwrap();
    named.switch_piece(wanted(19), PATIENCE).await.unwrap();
    assert_eq!(complete(&mut events).await, (19, payload()[19 * PIECE..].to_vec()));
    let none = Wanted { index: PieceIndex(20), ..wanted(19) };
    let refused = CallError::Piece(Refused::Shape(none));
    assert_eq!(named.switch_piece(none, PATIENCE).await, Err(refused));
    assert_eq!(named.call(crate::one_piece::PieceDownload::is_open, PATIENCE).await, Ok(true));
    let twice = downloader(&from, 1).name("x").spawn(&session).map(drop);
    assert_eq!(twice, Err(SpawnError::NameTaken("x".into())));

    piece.stop("enough", PATIENCE).await.unwrap();
    assert_eq!(end(&mut events).await, End::Stopped("enough".into()));
    assert_eq!(piece.status(PATIENCE).await, Err(CallError::Ended));
    assert!(session.piece("x").is_none());
}

#[tokio::test]
async fn a_linked_one_ends_with_its_parent_and_a_detached_one_with_its_session() {
    let (from, _seed, _folder) = seeder().await;
    let session = session();
    let parent = CancellationToken::new();
    let (_, mut linked) = downloader(&from, 0).spawn_linked(&session, &parent).unwrap();
    // Its handle is gone at once, and it goes on.
    let (_, mut detached) = downloader(&from, 1).spawn(&session).unwrap();
    assert_eq!(complete(&mut linked).await.0, 0);
    parent.cancel();
    assert_eq!(end(&mut linked).await, End::Cancelled);
    assert_eq!(complete(&mut detached).await.0, 1);
    session.shutdown().await;
    assert_eq!(end(&mut detached).await, End::Cancelled);
    assert_eq!(downloader(&from, 1).spawn(&session).map(drop), Err(SpawnError::Ended));
}

#[tokio::test]
async fn a_peer_that_is_not_there_or_is_another_ends_it_with_the_reason() {
    let (from, seed, _folder) = seeder().await;
    let session = session();
    let (_, mut events) = downloader(&from, 0).peer_id([9; 20]).spawn(&session).unwrap();
    assert_eq!(end(&mut events).await, End::WrongPeer(seed.peer_id()));

    let free = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = free.local_addr().unwrap();
    drop(free);
    let nobody = PieceDownloader::new(addr, seed.infohash(), wanted(0));
    let (_, mut events) = nobody.spawn(&session).unwrap();
    assert!(matches!(end(&mut events).await, End::Unreachable(_)));
}
