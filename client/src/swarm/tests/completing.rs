//! What is verified is told at once, what is complete when it is safe.

use std::time::Duration;

use super::world::{Kind, World, torrent, two_files};
use crate::bitfield::Bitfield;
use crate::storage::{DiskError, DiskErrorKind, Done};
use crate::swarm::{Command, Event, Input};

fn told(world: &World) -> (usize, usize) {
    let verified = world.count(|event| matches!(event, Event::Verified));
    (verified, world.count(|event| matches!(event, Event::Complete)))
}

fn saved(world: &mut World) {
    world.saves -= 1;
    world.input(Input::Disk(Done::Saved));
}

fn fail(world: &mut World) {
    world.saves = 0;
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
        assert_eq!((told(&world), world.saves), ((1, 0), saves));
        while world.saves > 0 {
            assert_eq!(told(&world), (1, 0));
            saved(&mut world);
        }
        assert_eq!(told(&world), (1, 1));
        world.run(Duration::from_secs(60));
        assert_eq!((told(&world), world.saves), ((1, 1), 0));
    }
}

#[test]
fn what_was_there_from_the_start_is_synced_before_it_is_complete() {
    let (info, payload) = torrent(300_000, 64 << 10);
    let have = Bitfield::full(info.pieces());
    let mut world = World::with((info, payload), false, have);
    world.saves_stuck = true;
    world.run(Duration::from_secs(1));
    assert_eq!((told(&world), world.saves), ((1, 0), 1));
    saved(&mut world);
    assert_eq!(told(&world), (1, 1));
}

#[test]
fn a_disk_that_refuses_the_last_save_is_asked_again_at_a_retry() {
    let mut world = verified(1 << 20);
    fail(&mut world);
    world.run(Duration::from_secs(60));
    assert_eq!((told(&world), world.saves), ((1, 0), 0));
    world.input(Input::Command(Command::Retry));
    assert_eq!((told(&world), world.saves), ((1, 0), 1));
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
    while world.saves > 0 {
        saved(&mut world);
    }
    assert_eq!(told(&world), (2, 1));
}
