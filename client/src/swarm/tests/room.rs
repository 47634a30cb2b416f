//! Begun pieces that nobody can go on with: they stop nothing, and they do not pile up.

use std::time::Duration;

use super::choosing::peer_with;
use super::torrents::{torrent, two_files};
use super::world::{Kind, World};
use crate::bitfield::Bitfield;
use crate::peer::{CloseReason, PeerEvent};
use crate::piece::PieceIndex;
use crate::swarm::{Command, Input};

/// 64 pieces of two blocks, four of which may be unfinished.
fn world() -> World {
    let mut world = World::new(torrent(64 << 15, 32 << 10), false);
    world.limit(|limits| limits.unfinished_bytes = 4 << 15);
    world.run(Duration::from_millis(10));
    world
}

/// A peer comes with one piece, gives one of its blocks, and goes.
fn begin(world: &mut World, piece: u32) {
    let slot = peer_with(world, piece as u8, &[piece], 16);
    let asked = world.requests().iter().rev().find(|(to, _)| *to == slot).map(|(_, block)| *block);
    if let Some(block) = asked {
        world.give(slot, block);
    }
    world.input(Input::Peer(slot, vec![PeerEvent::Closed(CloseReason::Disconnected)]));
    world.step();
}

/// Waits for `count` pieces.
fn run_until(world: &mut World, count: u32, most: Duration) {
    let end = world.now + most;
    while world.swarm.have().unwrap().count() < count {
        assert!(world.now < end, "{} pieces of {count}", world.swarm.have().unwrap().count());
        world.step();
    }
}

fn all_from(first: u32) -> Bitfield {
    let mut has = Bitfield::new(64);
    (first..64).for_each(|piece| assert!(has.insert(piece)));
    has
}

#[test]
fn pieces_begun_with_peers_that_have_gone_keep_nobody_from_beginning_others() {
    let mut world = world();
    (0..4).for_each(|piece| begin(&mut world, piece));
    assert_eq!(world.parts(), 4);
    world.add_with(Kind::Honest, all_from(4));
    run_until(&mut world, 60, Duration::from_secs(20));
    assert_eq!(world.swarm.status(world.now).wasted, 0, "there is room for what was begun");
    world.add(Kind::Honest);
    run_until(&mut world, 64, Duration::from_secs(20));
}

#[test]
fn of_pieces_begun_with_peers_that_have_gone_a_bounded_number_is_kept() {
    let mut world = world();
    for piece in 0..40 {
        begin(&mut world, piece);
        assert_eq!(world.parts(), 16.min(piece as usize + 1));
    }
    assert_eq!(world.swarm.status(world.now).wasted, 24 << 14);
    world.add_with(Kind::Honest, all_from(40));
    run_until(&mut world, 24, Duration::from_secs(20));
    assert!(world.parts() <= 16);
    let wasted = world.swarm.status(world.now).wasted;
    // The four that may be under way besides.
    assert!(wasted <= 28 << 14, "one at a time makes way: {wasted}");
    world.add(Kind::Honest);
    run_until(&mut world, 64, Duration::from_secs(20));
    let status = world.swarm.status(world.now);
    assert_eq!(status.downloaded, status.wanted + status.wasted);
}

#[test]
fn where_hardly_anything_may_be_unfinished_pieces_of_who_has_gone_stop_nothing_either() {
    let mut world = world();
    world.limit(|limits| limits.unfinished_bytes = 0);
    (0..9).for_each(|piece| begin(&mut world, piece));
    assert_eq!(world.parts(), 8);
    world.add_with(Kind::Honest, all_from(9));
    run_until(&mut world, 55, Duration::from_secs(20));
}

#[test]
fn what_was_begun_and_is_not_wanted_any_more_is_given_up_when_nobody_is_on_it() {
    let mut world = World::new(two_files(32 << 15, 32 << 15, 32 << 10), false);
    world.run(Duration::from_millis(10));
    begin(&mut world, 40);
    // Of this one a block is on its way.
    let slot = peer_with(&mut world, 41, &[41], 16);
    let asked: Vec<_> = world.requests().iter().filter(|(to, _)| *to == slot).map(|asked| asked.1).collect();
    world.give(slot, asked[0]);
    world.step();
    assert_eq!(world.parts(), 2);
    world.input(Input::Command(Command::Prioritize(vec![1, 0])));
    assert_eq!((world.parts(), world.swarm.status(world.now).wasted), (1, 1 << 14));
    world.give(slot, asked[1]);
    world.step();
    assert!(world.swarm.have().unwrap().contains(PieceIndex(41).0));
    world.input(Input::Command(Command::Prioritize(vec![1, 1])));
    world.add(Kind::Honest);
    world.run_until_complete(Duration::from_secs(60));
}
