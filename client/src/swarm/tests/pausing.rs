//! Pauses, and pieces that a check finds or loses.

use std::net::SocketAddr;
use std::time::Duration;

use super::torrents::torrent;
use super::world::{Kind, World};
use crate::bitfield::Bitfield;
use crate::peer::PeerEvent;
use crate::piece::{BLOCK_LEN, BlockRef, PieceIndex, Slot};
use crate::storage::Done;
use crate::swarm::{Command, Event, Input};

fn command(world: &mut World, command: Command) {
    world.input(Input::Command(command));
}

fn first_block(piece: u32) -> BlockRef {
    BlockRef { piece: PieceIndex(piece), begin: 0, len: BLOCK_LEN }
}

/// A peer that wants everything, served if `world` serves anybody.
fn wanting(world: &mut World) -> Slot {
    let slot = world.connect(SocketAddr::from(([50, 0, 0, 1], 6881)));
    world.input(Input::Peer(slot, vec![PeerEvent::Interested]));
    slot
}

fn request(world: &mut World, slot: Slot, piece: u32) {
    world.input(Input::Peer(slot, vec![PeerEvent::Requested(first_block(piece))]));
}

/// What was told to a connection since `from`, by the name of the command.
fn told(world: &World, from: usize, what: &str) -> usize {
    world.log[from..].iter().filter(|line| line.contains(what)).count()
}

fn checked(world: &mut World, piece: u32, right: bool) {
    world.input(Input::Disk(Done::Checked(PieceIndex(piece), right)));
}

#[test]
fn a_pause_takes_requests_back_and_keeps_the_connection() {
    let mut world = World::new(torrent(4_000_000, 64 << 10), false);
    world.add(Kind::Honest);
    world.run(Duration::from_millis(100));
    let open = world.peer(0).requests;
    assert!(open > 0 && world.first_request(0).is_some());
    let from = world.log.len();
    command(&mut world, Command::Pause);
    assert!(world.swarm.is_paused());
    assert!(told(&world, from, "Cancel") > 0 && world.first_request(0).is_none());
    assert_eq!(told(&world, from, "NotInterested"), 1);
    let (asked, dials) = (world.peer(0).requests, world.peer(0).dials);
    world.run(Duration::from_secs(300));
    assert_eq!(world.peer(0).requests, asked, "nothing is asked for");
    assert_eq!((world.swarm.status(world.now).peers, world.peer(0).dials), (1, dials));
    command(&mut world, Command::Unpause);
    world.run_until_complete(Duration::from_secs(60));
    assert_eq!(world.peer(0).dials, dials, "over the same connection");
    assert_eq!(world.swarm.status(world.now).wasted, 0);
}

#[test]
fn nobody_is_served_in_a_pause() {
    let mut world = World::complete(torrent(1 << 20, 64 << 10));
    let slot = wanting(&mut world);
    request(&mut world, slot, 3);
    assert_eq!(world.sent.len(), 1);
    let from = world.log.len();
    command(&mut world, Command::Pause);
    assert_eq!(told(&world, from, "Choke"), 1);
    request(&mut world, slot, 4);
    world.input(Input::Peer(slot, vec![PeerEvent::NotInterested, PeerEvent::Interested]));
    world.run(Duration::from_secs(60));
    request(&mut world, slot, 5);
    assert_eq!((world.sent.len(), told(&world, from, "Refuse")), (1, 2));
    assert_eq!(told(&world, from, "Unchoke"), 0);
    assert_eq!(world.swarm.status(world.now).peers, 1);
    command(&mut world, Command::Unpause);
    assert_eq!(told(&world, from, "Unchoke"), 1);
    request(&mut world, slot, 5);
    assert_eq!(world.sent.len(), 2);
}

#[test]
fn a_piece_that_a_check_finds_wrong_is_fetched_again() {
    let mut world = World::new(torrent(1 << 20, 64 << 10), false);
    world.add(Kind::Honest);
    world.run_until_complete(Duration::from_secs(60));
    let slot = wanting(&mut world);
    world.lose(7);
    command(&mut world, Command::Check(Bitfield::full(16)));
    checked(&mut world, 6, true);
    checked(&mut world, 7, false);
    request(&mut world, slot, 7);
    assert_eq!(world.sent.len(), 0, "what is wrong is given to nobody");
    world.input(Input::Disk(Done::CheckEnded));
    assert!(!world.swarm.is_complete());
    let status = world.swarm.status(world.now);
    assert_eq!((status.left, status.wanted), (64 << 10, 1 << 20));
    world.run_until_complete(Duration::from_secs(60));
    assert_eq!(world.count(|event| matches!(event, Event::Piece(PieceIndex(7)))), 2);
    assert_eq!(world.count(|event| matches!(event, Event::File(0))), 2);
    assert_eq!(world.count(|event| matches!(event, Event::Checked(_, true))), 1);
    assert_eq!(world.count(|event| matches!(event, Event::Checked(PieceIndex(7), false))), 1);
    assert_eq!(world.count(|event| matches!(event, Event::CheckEnded)), 1);
}

#[test]
fn a_piece_that_a_check_finds_is_not_fetched() {
    let mut world = World::new(torrent(1 << 20, 64 << 10), false);
    world.run(Duration::from_millis(20));
    world.find(3);
    checked(&mut world, 3, true);
    assert!(world.swarm.have().unwrap().contains(3));
    world.add(Kind::Honest);
    world.run_until_complete(Duration::from_secs(60));
    let asked = world.requests().iter().filter(|(_, block)| block.piece == PieceIndex(3)).count();
    assert_eq!(asked, 0);
}

#[test]
fn a_check_before_storage_is_open_ends_at_once() {
    let mut world = World::new(torrent(1 << 20, 64 << 10), true);
    command(&mut world, Command::Check(Bitfield::full(16)));
    assert_eq!(world.count(|event| matches!(event, Event::CheckEnded)), 1);
}
