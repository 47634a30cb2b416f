//! What is fetched first, from whom, and what not at all.

use std::time::Duration;

use super::world::{Kind, World, torrent, two_files};
use crate::piece::PieceIndex;
use crate::swarm::{Command, Event, Input};

/// Pieces of each of two files of 32 pieces that were fetched so far.
fn pieces_of_files(world: &World) -> [usize; 2] {
    let have = world.swarm.have().unwrap();
    let first = have.iter().filter(|&piece| piece < 32).count();
    [first, have.count() as usize - first]
}

fn two_of_32_pieces() -> World {
    let mut world = World::new(two_files(32 << 15, 32 << 15, 32 << 10), false);
    // A few pieces at a time, so that the order in which they are begun shows.
    world.limit(|limits| limits.unfinished_bytes = 4 << 15);
    world
}

fn prioritize(world: &mut World, priorities: &[u16]) {
    world.input(Input::Command(Command::Prioritize(priorities.to_vec())));
}

#[test]
fn a_file_of_twenty_times_the_weight_is_whole_before_a_quarter_of_the_other() {
    let mut world = two_of_32_pieces();
    world.add(Kind::Honest);
    prioritize(&mut world, &[1, 20]);
    while world.count(|event| matches!(event, Event::File(1))) == 0 {
        world.run(Duration::from_millis(10));
    }
    let [first, second] = pieces_of_files(&world);
    assert!(first < 8 && second == 32, "{first} pieces of the file that weighs 1");
    world.run_until_complete(Duration::from_secs(60));
    assert_eq!(world.count(|event| matches!(event, Event::File(0))), 1);
}

#[test]
fn priorities_change_in_the_middle_of_a_download_and_after_it() {
    let mut world = two_of_32_pieces();
    world.add(Kind::Honest);
    world.run(Duration::from_millis(150));
    let before = pieces_of_files(&world);
    assert!(before[0] > 0 && before[1] > 0 && before[1] < 28, "{before:?}");
    prioritize(&mut world, &[1, 0]);
    world.run_until_complete(Duration::from_secs(60));
    let skipped = pieces_of_files(&world);
    // What was begun is finished.
    assert!(skipped[0] == 32 && skipped[1] <= before[1] + 4, "{before:?} {skipped:?}");
    let status = world.swarm.status(world.now);
    assert_eq!((status.wanted, status.left), (1 << 20, 0));
    prioritize(&mut world, &[1, 1]);
    assert!(!world.swarm.is_complete());
    world.run_until_complete(Duration::from_secs(60));
    assert!(world.swarm.have().unwrap().is_full());
    assert_eq!(world.count(|event| matches!(event, Event::Complete)), 2);
}

fn need(world: &mut World, piece: u32, within: Duration) {
    world.input(Input::Command(Command::Deadline(PieceIndex(piece), Some(within))));
}

/// Verified pieces in the order of their verdicts.
fn order(world: &World) -> Vec<u32> {
    let piece = |event: &Event| match event {
        Event::Piece(piece) => Some(piece.0),
        _ => None,
    };
    world.events.iter().filter_map(piece).collect()
}

#[test]
fn pieces_with_deadlines_come_first_and_the_soonest_before_all() {
    let mut world = two_of_32_pieces();
    world.run(Duration::from_millis(10));
    for (piece, seconds) in [(50, 9), (20, 5), (7, 3), (33, 4)] {
        need(&mut world, piece, Duration::from_secs(seconds));
    }
    world.input(Input::Command(Command::Deadline(PieceIndex(33), None)));
    world.add(Kind::Honest);
    world.run_until_complete(Duration::from_secs(60));
    assert_eq!(order(&world)[..3], [7, 20, 50]);
    assert_eq!(order(&world).len(), 64);
}

#[test]
fn a_late_block_of_a_piece_with_a_deadline_is_taken_over_by_a_faster_peer() {
    // How many pieces were there before the one that the slow peer had begun.
    let place = |deadline: bool| {
        let mut world = World::new(torrent(24 << 20, 256 << 10), false);
        world.limit(|limits| limits.random_first = 0);
        world.add(Kind::Drips);
        world.run(Duration::from_millis(100));
        // Its first requests are for one piece.
        let begun = world.first_request(0).unwrap().piece;
        if deadline {
            need(&mut world, begun.0, Duration::from_secs(2));
        }
        world.add(Kind::Honest);
        world.run(Duration::from_secs(3));
        (world.peer(0).requests, order(&world).iter().position(|&piece| piece == begun.0))
    };
    let (requests, nobody) = place(false);
    assert!(requests >= 16 && nobody.is_none(), "the slow peer keeps its blocks: {nobody:?}");
    let (_, taken) = place(true);
    assert!(taken.is_some_and(|place| place < 40), "{taken:?}");
}
