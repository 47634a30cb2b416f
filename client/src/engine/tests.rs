//! Sessions that talk to each other over loopback. What is waited for is an event or an answer, never a
//! time.

mod durable;
mod gone;
mod jobs;
mod limits;
mod one_piece;
mod panics;
mod space;
mod trackers;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use btdht::net::Bind;
use harness::tracker::{HttpTracker, Reply, announce_reply};
use sha1::{Digest as _, Sha1};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;
use crate::metainfo::{Info, Metainfo};
use crate::piece::PieceIndex;
use crate::swarm::{Event, Intake};
use crate::wire::handshake::Handshake;

const PIECE: usize = 32 << 10;
const LEN: usize = 20 * PIECE - 1000;

fn payload() -> Vec<u8> {
    (0..LEN).map(|at| (at / 5 + at / PIECE * 13) as u8).collect()
}

/// A torrent of two files, of which the first ends within piece 6.
pub(super) fn metainfo() -> Metainfo {
    let payload = payload();
    let hashes: Vec<u8> = payload.chunks(PIECE).flat_map(|piece| Sha1::digest(piece).to_vec()).collect();
    let (first, second) = (200_000, LEN - 200_000);
    let mut raw = format!(
        "d5:filesld6:lengthi{first}e4:pathl1:aeed6:lengthi{second}e4:pathl1:beee4:name1:t\
         12:piece lengthi{PIECE}e6:pieces{}:",
        hashes.len()
    )
    .into_bytes();
    raw.extend(hashes);
    raw.push(b'e');
    Metainfo::new(Info::parse(&raw).unwrap())
}

fn source() -> Source {
    Source::Metainfo(Box::new(metainfo()))
}

fn session() -> Session {
    let bind = Bind { addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), required: true };
    let listeners = Listeners::bind(&[bind]).unwrap();
    Session::new(Options { allow_local: true, ..Options::new(listeners) }).unwrap()
}

pub(super) fn put(folder: &Path) {
    let payload = payload();
    std::fs::create_dir(folder.join("t")).unwrap();
    std::fs::write(folder.join("t/a"), &payload[..200_000]).unwrap();
    std::fs::write(folder.join("t/b"), &payload[200_000..]).unwrap();
}

/// A session that has everything.
async fn seeder() -> (Session, Torrent, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path());
    let session = session();
    let options = AddOptions { output: folder.path().to_owned(), ..AddOptions::default() };
    let (torrent, _) = session.add(source(), options).unwrap();
    torrent.wait_complete().await.unwrap();
    (session, torrent, folder)
}

fn leech(from: &Session, session: &Session, folder: &TempDir, initial_state: State) -> (Torrent, Events) {
    let peers = from.local_addrs().to_vec();
    let options =
        AddOptions { output: folder.path().to_owned(), peers, initial_state, ..AddOptions::default() };
    session.add(source(), options).unwrap()
}

async fn until(events: &mut Events, is: impl Fn(&Event) -> bool) -> Event {
    loop {
        let event = events.next().await.expect("the torrent goes on");
        if is(&event) {
            return event;
        }
    }
}

#[tokio::test]
async fn a_paused_torrent_connects_and_goes_on_over_the_same_connection() {
    let (from, seed, _data) = seeder().await;
    let (session, folder) = (session(), tempfile::tempdir().unwrap());
    let (torrent, mut events) = leech(&from, &session, &folder, State::Paused);
    assert_eq!(torrent.state(), State::Paused);
    until(&mut events, |event| matches!(event, Event::PeerConnected(..))).await;
    let peers = torrent.peers().await;
    assert_eq!(peers.len(), 1);
    assert!(!peers[0].interests_us && peers[0].downloaded == 0, "{peers:?}");
    assert_eq!(peers[0].peer_id, seed.peer_id());
    torrent.resume().await;
    assert_eq!(torrent.state(), State::Started);
    let closed = |event: &Event| matches!(event, Event::PeerClosed(..));
    let end = until(&mut events, |event| matches!(event, Event::Verified) || closed(event)).await;
    assert!(matches!(end, Event::Verified), "{end:?}");
    torrent.wait_complete().await.unwrap();
    assert_eq!(std::fs::read(folder.path().join("t/b")).unwrap(), payload()[200_000..]);
}

#[tokio::test]
async fn pieces_with_a_deadline_come_before_the_others() {
    let (from, _seed, _data) = seeder().await;
    let (session, folder) = (session(), tempfile::tempdir().unwrap());
    let (torrent, mut events) = leech(&from, &session, &folder, State::Paused);
    until(&mut events, |event| matches!(event, Event::PeerConnected(..))).await;
    // So slow that a piece is there before the next one is begun.
    torrent.set_rates(Rates { down: 40_000, ..Rates::default() }).await;
    for (piece, within) in [(1, Some(1)), (6, Some(60)), (3, Some(30)), (1, None)] {
        torrent.set_deadline(PieceIndex(piece), within.map(std::time::Duration::from_secs)).await;
    }
    torrent.resume().await;
    // Of those that one disk thread of the seed reads, in the order of the requests; the other may be faster.
    let mut first = Vec::new();
    while first.len() < 2 {
        let is_first = |event: &Event| matches!(event, Event::Piece(PieceIndex(0..8)));
        if let Event::Piece(piece) = until(&mut events, is_first).await {
            first.push(piece.0);
        }
    }
    assert_eq!(first, [3, 6]);
}

#[tokio::test]
async fn a_stopped_torrent_refuses_and_can_be_started_again() {
    let (from, seed, _data) = seeder().await;
    seed.stop().await;
    assert_eq!((seed.state(), seed.phase()), (State::Stopped, Phase::Stopped));
    seed.resume().await;
    assert_eq!(seed.state(), State::Stopped, "only a pause is resumed");
    assert!(seed.pieces().await.unwrap().is_full(), "what it had is still known");
    let mut stream = TcpStream::connect(from.local_addrs()[0]).await.unwrap();
    let hello = Handshake { reserved: [0; 8], infohash: seed.infohash(), peer_id: [1; 20] };
    stream.write_all(&hello.encode()).await.unwrap();
    assert_eq!(stream.read(&mut [0; 100]).await.unwrap_or(0), 0, "closed without a word");
    seed.start().await;
    seed.wait_complete().await.unwrap();
    let (session, folder) = (session(), tempfile::tempdir().unwrap());
    let (torrent, _events) = leech(&from, &session, &folder, State::Started);
    torrent.wait_complete().await.unwrap();
    torrent.close().await;
    assert!(torrent.pieces().await.is_none());
}

#[tokio::test]
async fn a_swarm_hears_of_limits_whenever_they_change() {
    let (session, folder) = (session(), tempfile::tempdir().unwrap());
    let rates = Rates { down: 50_000, peer_down: 7_000, ..Rates::default() };
    let options = AddOptions { output: folder.path().to_owned(), rates, ..AddOptions::default() };
    let (torrent, _events) = session.add(source(), options).unwrap();
    assert_eq!(torrent.intake().await, Some(Intake { all: 50_000, each: 7_000 }));
    torrent.set_rates(Rates { down: 45_000, ..Rates::default() }).await;
    assert_eq!(torrent.intake().await, Some(Intake { all: 45_000, each: 0 }));
    // Of the session's it hears when it looks.
    for (rate, expected) in [(40_000, 40_000), (60_000, 45_000)] {
        session.set_rates(rate, 0);
        while torrent.intake().await != Some(Intake { all: expected, each: 0 }) {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_torrent_that_is_added_stopped_does_nothing_before_it_is_started() {
    let (from, _seed, _data) = seeder().await;
    let (session, folder) = (session(), tempfile::tempdir().unwrap());
    let (torrent, _events) = leech(&from, &session, &folder, State::Stopped);
    assert_eq!((torrent.state(), torrent.phase()), (State::Stopped, Phase::Stopped));
    assert_eq!(torrent.check(&[]).await, Err(CheckError::NotOpen));
    torrent.prioritize(vec![0, 1]).await;
    torrent.start().await;
    torrent.wait_complete().await.unwrap();
    let files = torrent.files().await;
    assert_eq!((files[0].priority, files[1].priority), (0, 1), "choices made before hold");
    assert_eq!((files[1].done, files[1].length), (LEN as u64 - 200_000, LEN as u64 - 200_000));
    assert!(files[0].done < files[0].length && !torrent.is_seed());
    // Again with what is there, and the whole of it.
    let downloaded = torrent.downloaded();
    torrent.stop().await;
    torrent.pause().await;
    assert_eq!(torrent.state(), State::Paused);
    torrent.prioritize(vec![1, 1]).await;
    torrent.start().await;
    torrent.wait_complete().await.unwrap();
    assert!(torrent.pieces().await.unwrap().is_full());
    assert!(torrent.downloaded() >= downloaded, "counters go on");
}

struct Only(usize);

impl Accepts for Only {
    fn priority(&self, index: usize, _: &Path) -> u16 {
        u16::from(index == self.0)
    }
}

#[tokio::test]
async fn priorities_that_are_given_before_the_files_are_known_hold_instead_of_the_selection() {
    let (from, seed, _data) = seeder().await;
    let (session, folder) = (session(), tempfile::tempdir().unwrap());
    let source = Source::Magnet(Box::new(krpc::magnet::Magnet::new(seed.infohash())));
    let select = Select::Matching(Box::new(Only(0)));
    let options = AddOptions {
        output: folder.path().to_owned(),
        peers: from.local_addrs().to_vec(),
        select,
        ..AddOptions::default()
    };
    // Nothing else runs on this thread before the owner is asked: no peer was dialled yet.
    let (torrent, _events) = session.add(source, options).unwrap();
    torrent.prioritize(vec![0, 3]).await;
    torrent.wait_complete().await.unwrap();
    let files = torrent.files().await;
    assert_eq!((files[0].priority, files[1].priority), (0, 3));
    assert_eq!(files[1].done, files[1].length);
}

#[tokio::test]
async fn what_is_wanted_of_a_stopped_torrent_is_seen_at_once() {
    let (_from, seed, _data) = seeder().await;
    seed.stop().await;
    seed.prioritize(vec![0, 3]).await;
    let files = seed.files().await;
    assert_eq!((files[0].priority, files[1].priority), (0, 3));
    let (session, folder) = (session(), tempfile::tempdir().unwrap());
    let select = Select::Matching(Box::new(Only(1)));
    let output = folder.path().to_owned();
    let initial_state = State::Stopped;
    let options = AddOptions { output, select, initial_state, ..AddOptions::default() };
    let (torrent, _events) = session.add(source(), options).unwrap();
    let files = torrent.files().await;
    assert_eq!((files[0].priority, files[1].priority), (0, 1), "so is a selection");
}

#[tokio::test]
async fn trackers_hear_each_start_and_stop() {
    let (from, _seed, _data) = seeder().await;
    let SocketAddr::V4(peer) = from.local_addrs()[0] else { panic!("it listens on 127.0.0.1") };
    let tracker = HttpTracker::start(move |_| Reply::Body(announce_reply(&[peer], "i1800e")));
    let (session, folder) = (session(), tempfile::tempdir().unwrap());
    let trackers = vec![tracker.url()];
    let options = AddOptions { output: folder.path().to_owned(), trackers, ..AddOptions::default() };
    let (torrent, mut events) = session.add(source(), options).unwrap();
    let heard = |event: &str| tracker.requests().iter().filter(|request| request.contains(event)).count();
    for round in 1..=2 {
        // The reply has been read then.
        until(&mut events, |event| matches!(event, Event::PeerConnected(..))).await;
        assert_eq!(heard("event=started"), round);
        torrent.stop().await;
        assert_eq!(heard("event=stopped"), round);
        torrent.start().await;
    }
}

#[tokio::test]
async fn trackers_are_shown_with_what_came_of_them() {
    use crate::swarm::TrackerState;
    let (from, _seed, _data) = seeder().await;
    let SocketAddr::V4(peer) = from.local_addrs()[0] else { panic!("it listens on 127.0.0.1") };
    let tracker = HttpTracker::start(move |_| Reply::Body(announce_reply(&[peer], "i1800e")));
    let (session, folder) = (session(), tempfile::tempdir().unwrap());
    let trackers = vec![tracker.url(), "wss://nobody.invalid/announce".to_owned()];
    let output = folder.path().to_owned();
    let initial_state = State::Stopped;
    let options = AddOptions { output, trackers, initial_state, ..AddOptions::default() };
    let (torrent, mut events) = session.add(source(), options).unwrap();
    let before = torrent.trackers().await;
    assert!(before.iter().all(|tracker| tracker.state == TrackerState::Unasked && tracker.last.is_none()));
    torrent.start().await;
    // The reply has been read then, and no announce of ours waits for another one.
    until(&mut events, |event| matches!(event, Event::Complete)).await;
    let mut seen = torrent.trackers().await;
    while seen[1].state != TrackerState::Dead {
        seen = torrent.trackers().await;
    }
    let [first, second] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!((first.tier, &first.url, first.peers), (0, &tracker.url(), 1));
    assert!(first.error.is_none() && first.last.is_some(), "{first:?}");
    assert_eq!((second.tier, second.url.as_str(), second.next), (1, "wss://nobody.invalid/announce", None));
    assert!(second.error.is_some(), "{second:?}");
}

#[tokio::test]
async fn a_program_may_have_a_peer_id_of_its_own() {
    let bind = Bind { addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), required: true };
    let listeners = Listeners::bind(&[bind]).unwrap();
    let peer_id_prefix = *b"-ZZ1234-";
    let other = Session::new(Options { allow_local: true, peer_id_prefix, ..Options::new(listeners) });
    let (other, folder) = (other.unwrap(), tempfile::tempdir().unwrap());
    let (from, seed, _data) = seeder().await;
    assert_eq!(seed.peer_id()[..8], PEER_ID_PREFIX);
    let (torrent, mut events) = leech(&from, &other, &folder, State::Paused);
    until(&mut events, |event| matches!(event, Event::PeerConnected(..))).await;
    assert_eq!(torrent.peer_id()[..8], peer_id_prefix);
    let seen = async {
        loop {
            if let [peer] = &seed.peers().await[..] {
                return peer.peer_id;
            }
            tokio::task::yield_now().await;
        }
    };
    assert_eq!(seen.await, torrent.peer_id(), "that is what the other end sees");
}

#[tokio::test]
async fn a_torrent_says_what_it_is() {
    let (from, seed, _data) = seeder().await;
    assert_eq!((seed.name().as_deref(), seed.size()), (Some("t"), Some(LEN as u64)));
    assert_eq!((seed.piece_length(), seed.port()), (Some(PIECE as u32), from.port()));
    assert_eq!(seed.infohash(), metainfo().info.hash().v1.unwrap());
    assert_eq!(seed.progress().await, Some(Progress { finished: 20, unfinished: 0, percentage: 100.0 }));
    assert!(seed.missing().await.unwrap().is_empty());
    let files = seed.files().await;
    assert_eq!(files.len(), 2);
    assert_eq!((files[0].offset_start, files[0].piece_index_range.clone()), (0, 0..7));
    assert_eq!((files[1].offset_start, files[1].piece_index_range.clone()), (200_000, 6..20));
    assert_eq!((files[0].done, files[1].path.as_path()), (200_000, Path::new("t/b")));
}

#[tokio::test]
async fn a_check_finds_what_was_damaged_and_it_is_fetched_again() {
    let (from, _seed, _data) = seeder().await;
    let (session, folder) = (session(), tempfile::tempdir().unwrap());
    let (torrent, mut events) = leech(&from, &session, &folder, State::Started);
    torrent.wait_complete().await.unwrap();
    assert_eq!(torrent.check(&[]).await, Ok(Vec::new()));
    let path = folder.path().join("t/a");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[3 * PIECE + 7] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(torrent.check(&[0..3, 5..20]).await, Ok(Vec::new()));
    while events.try_next().is_some() {}
    assert_eq!(torrent.check(&[2..4, 3..5]).await, Ok(vec![PieceIndex(3)]));
    let mut hashed = Vec::new();
    loop {
        match events.next().await.unwrap() {
            Event::Checked(piece, right) => hashed.push((piece.0, right)),
            Event::CheckEnded => break,
            _ => {}
        }
    }
    hashed.sort_unstable();
    assert_eq!(hashed, [(2, true), (3, false), (4, true)]);
    torrent.wait_complete().await.unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), payload()[..200_000]);
    assert_eq!(torrent.check(&[]).await, Ok(Vec::new()));
    let beyond = CheckError::NoSuchPiece { piece: 20, pieces: 20 };
    assert_eq!(torrent.check(&[0..1, 5..21]).await, Err(beyond));
}

/// Waits for the end of a failure that is to come.
async fn failed(torrent: &Torrent) -> Failed {
    let stopped = |phase: &Phase| !matches!(phase, Phase::Running | Phase::Complete);
    match torrent.phase.clone().wait_for(stopped).await.unwrap().clone() {
        Phase::Failed(failed) => failed,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_could_not_be_opened_is_started_or_tried_again() {
    let (from, _seed, _data) = seeder().await;
    let (session, folder) = (session(), tempfile::tempdir().unwrap());
    let infohash = metainfo().info.hash().v1.unwrap();
    let lock = crate::storage::Lock::take(folder.path(), infohash).unwrap().unwrap();
    let (torrent, _events) = leech(&from, &session, &folder, State::Started);
    let in_use = Failed::InUse(folder.path().to_owned());
    assert_eq!(failed(&torrent).await, in_use);
    torrent.start().await;
    assert_eq!(failed(&torrent).await, in_use, "it was tried");
    torrent.stop().await;
    assert_eq!((torrent.state(), failed(&torrent).await), (State::Stopped, in_use));
    drop(lock);
    torrent.retry().await;
    torrent.stop().await;
    assert_eq!((torrent.state(), torrent.phase()), (State::Stopped, Phase::Stopped), "it went on");
    torrent.start().await;
    torrent.wait_complete().await.unwrap();
    assert_eq!(std::fs::read(folder.path().join("t/b")).unwrap(), payload()[200_000..]);
}

#[tokio::test]
async fn what_a_check_finds_wrong_of_a_seed_is_said_and_left_alone() {
    let (from, _seed, _data) = seeder().await;
    let (session, folder) = (session(), tempfile::tempdir().unwrap());
    put(folder.path());
    let options = AddOptions {
        output: folder.path().to_owned(),
        peers: from.local_addrs().to_vec(),
        share: Share::SeedOnly,
        ..AddOptions::default()
    };
    let (torrent, mut events) = session.add(source(), options).unwrap();
    torrent.wait_complete().await.unwrap();
    let path = folder.path().join("t/a");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[3 * PIECE + 7] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(torrent.check(&[]).await, Ok(vec![PieceIndex(3)]));
    let missing = Phase::Failed(Failed::Missing { missing: 1, pieces: 20 });
    let phase = torrent.phase.clone().wait_for(|phase| *phase != Phase::Complete).await.unwrap().clone();
    assert_eq!(phase, missing);
    torrent.stop().await;
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    while let Some(event) = events.try_next() {
        assert!(!matches!(event, Event::Piece(_)), "{event:?}");
    }
}

#[tokio::test]
async fn a_torrent_in_memory_is_checked_after_a_stop_and_one_that_is_too_long_fails() {
    let (from, _seed, _data) = seeder().await;
    let session = session();
    let in_memory = |most| {
        let memory = Arc::new(Memory::new(most));
        let peers = from.local_addrs().to_vec();
        (Arc::clone(&memory), AddOptions { storage: Some(memory), peers, ..AddOptions::default() })
    };
    let (_, options) = in_memory(LEN as u64 - 1);
    let (torrent, _events) = session.add(source(), options).unwrap();
    let failed = torrent.wait_complete().await.unwrap_err();
    assert!(matches!(failed, Phase::Failed(Failed::Disk(_))), "{failed:?}");
    torrent.close().await;
    let (memory, options) = in_memory(LEN as u64);
    let (torrent, _events) = session.add(source(), options).unwrap();
    torrent.wait_complete().await.unwrap();
    assert_eq!(memory.bytes(0).unwrap(), payload()[..200_000]);
    torrent.stop().await;
    from.shutdown().await;
    torrent.start().await;
    torrent.wait_complete().await.unwrap();
}
