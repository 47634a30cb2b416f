//! Where the user limits the rate, peers are not late for that.

use std::time::Duration;

use super::torrents::torrent;
use super::world::{Kind, World};
use crate::peer::PeerEvent;
use crate::swarm::{Command, Input, Intake};

/// A block a second.
const SLOW: Intake = Intake { all: 16 << 10, each: 0 };
const PEERS: usize = 5;

/// Peers that give what they have at once, if we let it in.
fn world() -> World {
    let mut world = World::new(torrent(8 << 20, 256 << 10), false);
    for index in 0..PEERS {
        world.add(Kind::Honest);
        world.set_speed(index, 0);
    }
    world
}

/// A block a second is let in, of each peer in turn. Returns how many came.
fn run(world: &mut World, seconds: usize) -> u64 {
    let before = world.swarm.status(world.now).downloaded;
    for second in 0..seconds {
        world.run(Duration::from_millis(990));
        world.set_speed(second % PEERS, 1);
        world.step();
        world.set_speed(second % PEERS, 0);
    }
    (world.swarm.status(world.now).downloaded - before) >> 14
}

fn snubbed(world: &World) -> usize {
    world.swarm.conns.iter().filter(|conn| conn.snubbed).count()
}

fn waiting(world: &World) -> usize {
    (0..PEERS).map(|index| world.waiting(index)).sum()
}

#[test]
fn who_stands_in_a_line_of_ours_is_not_late() {
    let mut world = world();
    world.input(Input::Command(Command::Intake(SLOW)));
    for _ in 0..20 {
        assert_eq!(run(&mut world, 10), 10);
        // A share of sixteen blocks each, and not sixteen.
        assert!(waiting(&world) <= 16 + PEERS, "{} blocks", waiting(&world));
        assert_eq!(snubbed(&world), 0);
    }
}

#[test]
fn a_limit_that_comes_and_goes_makes_nobody_late() {
    let mut world = world();
    world.run(Duration::from_secs(2));
    assert_eq!(waiting(&world), 16 * PEERS);
    world.input(Input::Command(Command::Intake(SLOW)));
    for _ in 0..8 {
        assert_eq!(run(&mut world, 10), 10);
        // Their connections have seen none for long, or might.
        let slot = world.peer(0).slot.unwrap();
        world.input(Input::Peer(slot, vec![PeerEvent::Snubbed]));
        assert_eq!(snubbed(&world), 0);
    }
    world.input(Input::Command(Command::Intake(Intake { all: 4 << 10, each: 0 })));
    world.run(Duration::from_secs(70));
    world.input(Input::Command(Command::Intake(Intake::default())));
    world.run(Duration::from_secs(30));
    assert_eq!(snubbed(&world), 0, "what is late by now was not let in");
    world.run(Duration::from_secs(32));
    assert_eq!(snubbed(&world), PEERS, "without a line of ours it is they who are late");
}

#[test]
fn who_gives_nothing_is_late_behind_a_line_too() {
    let mut world = world();
    world.input(Input::Command(Command::Intake(SLOW)));
    world.run(Duration::from_secs(60));
    let slot = world.peer(0).slot.unwrap();
    world.input(Input::Peer(slot, vec![PeerEvent::Snubbed]));
    assert_eq!(snubbed(&world), 0);
    // One was asked for all that the line takes before the others came.
    world.run(Duration::from_secs(20));
    assert_eq!(snubbed(&world), PEERS - 1);
    world.run(Duration::from_secs(70));
    assert_eq!(snubbed(&world), PEERS);
}
