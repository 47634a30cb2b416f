//! What is verified is told at once, what is complete when it is safe.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use btdht::{Seeds, Time};

use super::torrents::{torrent, two_files};
use super::world::{Kind, World};
use crate::bitfield::Bitfield;
use crate::piece::PieceIndex;
use crate::storage::{DiskError, DiskErrorKind, Done, Job, SaveId, Verdict};
use crate::swarm::{Action, Command, Event, Input, Limits, NewTorrent, Swarm};
use crate::tracker::AnnounceEvent;

fn told(world: &World) -> (usize, usize) {
    let verified = world.count(|event| matches!(event, Event::Verified));
    (verified, world.count(|event| matches!(event, Event::Complete)))
}

/// The oldest save ends.
fn saved(world: &mut World) {
    let id = world.saves.pop_front().expect("a save");
    world.input(Input::Disk(Done::Saved { id, doubted: 0 }));
}

/// The disk refuses, and with it all saves that are on their way.
fn fail(world: &mut World) {
    refuse(world);
    while let Some(id) = world.saves.pop_front() {
        world.input(Input::Disk(Done::Unsaved(id)));
    }
}

/// The disk refuses something else.
fn refuse(world: &mut World) {
    let (kind, detail) = (DiskErrorKind::Io, "it is broken".to_owned());
    let error = DiskError { kind, doing: "syncing", path: "x".into(), detail };
    world.input(Input::Disk(Done::Failed(error)));
}

/// A download whose last piece is verified and whose disk has not synced anything.
fn verified(save_bytes: u64) -> World {
    let mut world = World::new(torrent(300_000, 64 << 10), false);
    world.limit(|limits| (limits.save_bytes, limits.save_pause) = (save_bytes, Duration::ZERO));
    world.saves_stuck = true;
    world.add(Kind::Honest);
    world.run_until_complete(Duration::from_secs(30));
    world
}

#[test]
fn a_download_is_complete_when_the_last_save_has_ended() {
    // The second one has a save under way that began before the last piece.
    for (save_bytes, saves) in [(1 << 20, 1), (1, 2)] {
        let mut world = verified(save_bytes);
        world.run(Duration::from_secs(60));
        assert_eq!((told(&world), world.saves.len()), ((1, 0), saves));
        while !world.saves.is_empty() {
            assert_eq!(told(&world), (1, 0));
            saved(&mut world);
        }
        assert_eq!(told(&world), (1, 1));
        world.run(Duration::from_secs(60));
        assert_eq!((told(&world), world.saves.len()), ((1, 1), 0));
    }
}

#[test]
fn what_was_there_from_the_start_is_synced_before_it_is_complete() {
    let (info, payload) = torrent(300_000, 64 << 10);
    let have = Bitfield::full(info.pieces());
    let mut world = World::with((info, payload), false, have);
    world.saves_stuck = true;
    world.run(Duration::from_secs(1));
    assert_eq!((told(&world), world.saves.len()), ((1, 0), 1));
    saved(&mut world);
    assert_eq!(told(&world), (1, 1));
}

#[test]
fn a_disk_that_refuses_the_last_save_is_asked_again_at_a_retry() {
    let mut world = verified(1 << 20);
    fail(&mut world);
    world.run(Duration::from_secs(60));
    assert_eq!((told(&world), world.saves.len()), ((1, 0), 0));
    world.input(Input::Command(Command::Retry));
    assert_eq!((told(&world), world.saves.len()), ((1, 0), 1));
    saved(&mut world);
    assert_eq!(told(&world), (1, 1));
    // Also what was complete before the disk refused something is told to be so again.
    fail(&mut world);
    world.input(Input::Command(Command::Retry));
    saved(&mut world);
    assert_eq!(told(&world), (1, 2));
}

#[test]
fn a_save_from_before_more_was_wanted_completes_nothing() {
    let mut world = World::new(two_files(300_000, 300_000, 32 << 10), false);
    world.saves_stuck = true;
    world.add(Kind::Honest);
    world.input(Input::Command(Command::Select(vec![false, true])));
    world.run_until_complete(Duration::from_secs(30));
    world.input(Input::Command(Command::Select(vec![true, true])));
    saved(&mut world);
    assert_eq!(told(&world), (1, 0));
    world.run_until_complete(Duration::from_secs(60));
    assert_eq!(told(&world), (2, 0));
    while !world.saves.is_empty() {
        saved(&mut world);
    }
    assert_eq!(told(&world), (2, 1));
}

#[test]
fn a_save_from_before_a_failure_is_not_taken_for_the_one_that_was_asked_for_since() {
    // Two saves are on their way, the second of which has all, when a read fails.
    let mut world = verified(1);
    assert_eq!(world.saves.len(), 2);
    refuse(&mut world);
    world.input(Input::Command(Command::Retry));
    assert_eq!((told(&world), world.saves.len()), ((1, 0), 3));
    for _ in 0..2 {
        saved(&mut world);
        assert_eq!(told(&world), (1, 0));
    }
    saved(&mut world);
    assert_eq!(told(&world), (1, 1));
}

#[test]
fn one_answer_may_end_several_saves() {
    let mut world = verified(1);
    let id = world.saves.pop_back().unwrap();
    world.input(Input::Disk(Done::Saved { id, doubted: 0 }));
    assert_eq!(told(&world), (1, 1));
    saved(&mut world);
    assert_eq!(told(&world), (1, 1));
}

#[test]
fn what_a_failed_sync_left_in_doubt_is_not_complete() {
    let mut world = verified(1 << 20);
    let id = world.saves.pop_front().unwrap();
    refuse(&mut world);
    world.input(Input::Disk(Done::Saved { id, doubted: 1 }));
    world.run(Duration::from_secs(60));
    assert_eq!((told(&world), world.saves.len()), ((1, 0), 0), "it holds");
    world.input(Input::Command(Command::Retry));
    saved(&mut world);
    assert_eq!(told(&world), (1, 1));
}

/// A save that was under way at a failure, and needed, ends after the disk was tried again: the way how is up
/// to `ends`.
fn ended_late(ends: impl Fn(SaveId) -> Done) {
    let mut world = World::new(torrent(300_000, 64 << 10), false);
    world.limit(|limits| limits.save_bytes = 1 << 20);
    world.saves_stuck = true;
    world.run(Duration::from_secs(1));
    // It fails before the last piece comes, which has been on its way.
    refuse(&mut world);
    for piece in 0..5 {
        world.input(Input::Disk(Done::Piece(PieceIndex(piece), Verdict::Good)));
    }
    let id = world.saves.pop_front().expect("what is all there is to be saved");
    world.input(Input::Command(Command::Retry));
    assert_eq!((told(&world), world.saves.len()), ((1, 0), 0), "that save is on its way");
    world.input(Input::Disk(ends(id)));
    assert_eq!((told(&world), world.saves.len()), ((1, 0), 1), "another one is asked for");
    saved(&mut world);
    assert_eq!(told(&world), (1, 1));
}

#[test]
fn a_save_that_ends_in_doubt_after_a_retry_is_followed_by_another() {
    ended_late(|id| Done::Saved { id, doubted: 3 });
    ended_late(Done::Unsaved);
}

#[test]
fn a_save_that_kept_not_all_is_followed_by_another_also_without_peers() {
    for ends in [|id| Done::Saved { id, doubted: 1 }, Done::Unsaved] {
        let mut world = World::new(torrent(300_000, 64 << 10), false);
        world.limit(|limits| (limits.save_bytes, limits.save_pause) = (1, Duration::ZERO));
        world.saves_stuck = true;
        world.run(Duration::from_secs(1));
        world.input(Input::Disk(Done::Piece(PieceIndex(0), Verdict::Good)));
        world.limit(|limits| limits.save_bytes = 1 << 20);
        let id = world.saves.pop_front().expect("a save");
        world.input(Input::Disk(ends(id)));
        assert_eq!(world.saves.len(), 0, "not at once: it may not be better yet");
        world.run(Duration::from_secs(600));
        assert_eq!(world.saves.len(), 1);
    }
}

#[test]
fn a_piece_that_our_disk_has_lost_is_fetched_again_and_nobody_is_banned() {
    let mut world = World::new(torrent(300_000, 64 << 10), false);
    world.disk_stuck = true;
    world.add(Kind::Honest);
    world.run(Duration::from_secs(5));
    world.input(Input::Disk(Done::Piece(PieceIndex(1), Verdict::Lost)));
    world.disk_stuck = false;
    world.run_until_complete(Duration::from_secs(30));
    assert!(world.swarm.have().unwrap().is_full());
    assert_eq!(world.count(|event| matches!(event, Event::BadPiece(..))), 0);
    assert!(world.swarm.status(world.now).wasted > 0);
}

#[test]
fn blocks_on_their_way_of_a_piece_that_a_check_finds_are_called_off() {
    let mut world = World::new(torrent(300_000, 64 << 10), false);
    world.add(Kind::Honest);
    world.set_speed(0, 0);
    world.run(Duration::from_millis(100));
    let piece = world.first_request(0).expect("it was asked for something").piece;
    let all = Bitfield::full(5);
    world.input(Input::Command(Command::Check(all)));
    world.find(piece.0);
    world.input(Input::Disk(Done::Checked(piece, true)));
    assert!(world.first_request(0).is_some_and(|block| block.piece != piece), "the peer was told");
    // Another check, and the piece is gone. The world sees that no block is asked for twice.
    world.lose(piece.0);
    world.input(Input::Disk(Done::Checked(piece, false)));
    world.input(Input::Disk(Done::CheckEnded));
    world.set_speed(0, 4);
    world.run_until_complete(Duration::from_secs(30));
    let status = world.swarm.status(world.now);
    assert_eq!((status.downloaded, status.wasted), (300_000, 0));
}

#[test]
fn a_super_seed_that_loses_a_piece_tells_everybody_what_it_has() {
    for fetch_lost in [true, false] {
        let (info, payload) = torrent(300_000, 64 << 10);
        let all = Bitfield::full(info.pieces());
        let mut world = World::with((info, payload), false, all);
        world.limit(|limits| (limits.super_seed, limits.fetch_lost) = (true, fetch_lost));
        world.run(Duration::from_secs(1));
        let slots = [1, 2].map(|last| world.connect(SocketAddr::from(([77, 0, 0, last], 50_000))));
        world.run(Duration::from_secs(1));
        let told = |world: &World, what: &str| slots.map(|slot| world.told_of(slot, what));
        assert_eq!((told(&world, "ones: 4"), told(&world, "UploadOnly(true)")), ([0, 0], [0, 0]));
        world.lose(2);
        world.input(Input::Disk(Done::Checked(PieceIndex(2), false)));
        world.input(Input::Disk(Done::CheckEnded));
        assert_eq!(told(&world, "ones: 4"), [1, 1]);
        // With nothing that it wants it is a partial seed.
        assert_eq!(told(&world, "UploadOnly(true)"), if fetch_lost { [0, 0] } else { [1, 1] });
    }
}

#[test]
fn who_is_complete_already_tells_trackers_when_what_was_on_its_way_makes_everything_whole() {
    let (info, payload) = two_files(32 << 15, 32 << 15, 32 << 10);
    let mut have = Bitfield::full(64);
    for piece in [3, 40] {
        assert!(have.remove(piece));
    }
    let mut world = World::with((info, payload), false, have);
    for (index, piece) in [3, 40].into_iter().enumerate() {
        let mut has = Bitfield::new(64);
        assert!(has.insert(piece));
        world.add_with(Kind::Honest, has);
        world.set_speed(index, 0);
    }
    world.run(Duration::from_secs(1));
    assert!([0, 1].iter().all(|&index| world.first_request(index).is_some()));
    world.input(Input::Command(Command::Select(vec![true, false])));
    world.set_speed(0, 4);
    world.run(Duration::from_secs(1));
    assert!(world.swarm.is_complete() && !world.swarm.is_seed());
    assert_eq!(world.announces, [Some(AnnounceEvent::Started)]);
    world.set_speed(1, 4);
    world.run(Duration::from_secs(1));
    assert!(world.swarm.is_seed());
    assert_eq!(world.announces, [Some(AnnounceEvent::Started), Some(AnnounceEvent::Completed)]);
}

#[test]
fn what_is_lost_after_it_was_verified_is_fetched_again() {
    let mut world = verified(1 << 20);
    world.have.remove(2);
    world.input(Input::Disk(Done::Lost(vec![PieceIndex(2)])));
    assert!(!world.swarm.is_complete());
    // The save from before has one piece less.
    saved(&mut world);
    assert_eq!(told(&world), (1, 0));
    world.run_until_complete(Duration::from_secs(30));
    assert!(world.swarm.have().unwrap().is_full());
    while !world.saves.is_empty() {
        saved(&mut world);
    }
    assert_eq!(told(&world), (2, 1));
}

#[test]
fn a_swarm_that_stops_waits_for_its_last_save_though_the_disk_refuses_something_else() {
    let mut world = verified(1);
    world.input(Input::Command(Command::Stop));
    assert_eq!(world.saves.len(), 3);
    let stopped = |world: &World| world.count(|event| matches!(event, Event::Stopped));
    refuse(&mut world);
    for _ in 0..3 {
        assert_eq!(stopped(&world), 0);
        saved(&mut world);
    }
    assert_eq!(stopped(&world), 1);
    let mut world = verified(1);
    world.input(Input::Command(Command::Stop));
    fail(&mut world);
    assert_eq!(stopped(&world), 1, "a disk that refuses everything is not waited for");
}

/// It takes hours to look at some disks.
#[test]
fn a_swarm_that_stops_before_it_knows_what_is_there_has_what_was_seen_saved() {
    let (info, _) = torrent(300_000, 64 << 10);
    let new = NewTorrent {
        infohash: info.hash().v1.unwrap(),
        peer_id: [9; 20],
        info: Some(info),
        trackers: Vec::new(),
        peers: Vec::new(),
        select: None,
    };
    let (now, mut out) = (Time::from_secs(1), Vec::new());
    let mut swarm = Swarm::new(Arc::new(Limits::default()), new, Seeds::from_u64(1), now);
    swarm.handle_timeout(now, &mut out);
    swarm.handle(now, Input::Command(Command::Stop), &mut out);
    let saves = out.iter().filter_map(|action| match action {
        Action::Disk(Job::Save(id, _)) => Some(*id),
        _ => None,
    });
    let stopped = |out: &[Action]| out.iter().any(|action| matches!(action, Action::Event(Event::Stopped)));
    let saves: Vec<_> = saves.collect();
    assert!(!stopped(&out));
    swarm.handle(now, Input::Disk(Done::Saved { id: saves[0], doubted: 0 }), &mut out);
    assert_eq!((saves.len(), stopped(&out)), (1, true));
}
