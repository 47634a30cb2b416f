//! What is fetched first, from whom, and what not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use super::torrents::{torrent, two_files};
use super::world::{Kind, World};
use crate::bitfield::Bitfield;
use crate::peer::{CloseReason, PeerEvent};
use crate::piece::{PieceIndex, Slot};
use crate::swarm::{Action, Command, Event, Input, Source};

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

#[test]
fn pieces_that_are_verified_when_they_are_not_wanted_any_more_leave_the_wanted_ones_wanted() {
    for seed in 0..20 {
        let mut world = World::seeded(two_files(32 << 15, 32 << 15, 32 << 10), false, seed);
        world.limit(|limits| limits.unfinished_bytes = 4 << 15);
        world.add(Kind::Honest);
        world.run(Duration::from_millis(150));
        prioritize(&mut world, &[1, 0]);
        world.run_until_complete(Duration::from_secs(60));
    }
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
fn deadlines_of_pieces_that_nobody_has_are_in_the_way_of_no_other() {
    let mut world = two_of_32_pieces();
    world.run(Duration::from_millis(10));
    for piece in 0..20 {
        need(&mut world, piece, Duration::from_secs(1));
    }
    for piece in [60, 30] {
        need(&mut world, piece, Duration::from_secs(9));
    }
    let mut has = Bitfield::full(64);
    (0..20).for_each(|piece| assert!(has.remove(piece)));
    world.add_with(Kind::Honest, has);
    while world.swarm.have().unwrap().count() < 44 {
        assert!(world.now.as_secs() < 60);
        world.run(Duration::from_millis(10));
    }
    // Of the same time the one with the lower number is first.
    assert_eq!(order(&world)[..2], [30, 60]);
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

/// A peer that connects, has what it has, and takes so many requests.
pub(super) fn peer_with(world: &mut World, last: u8, has: &[u32], room: u16) -> Slot {
    let slot = world.connect(SocketAddr::from(([77, 0, 0, last], 50_000)));
    let mut pieces = Bitfield::new(64);
    for &piece in has {
        pieces.insert(piece);
    }
    let events = vec![PeerEvent::Pieces(pieces), PeerEvent::Unchoked, PeerEvent::Room(room)];
    world.input(Input::Peer(slot, events));
    slot
}

#[test]
fn the_rarest_piece_is_begun_first_but_for_the_first_few_that_are_random() {
    let first = |random_first: u32, seed: u64| {
        let mut world = World::seeded(torrent(64 << 15, 32 << 10), false, seed);
        world.limit(|limits| limits.random_first = random_first);
        world.run(Duration::from_millis(10));
        let common: Vec<_> = (0..64).filter(|&piece| piece != 41).collect();
        for last in 1..5 {
            peer_with(&mut world, last, &common, 0);
        }
        let all: Vec<_> = (0..63).collect();
        let slot = peer_with(&mut world, 9, &all, 2);
        world.requests().iter().find(|(to, _)| *to == slot).unwrap().1.piece.0
    };
    assert!((0..10).all(|seed| first(0, seed) == 41));
    let random: BTreeSet<_> = (0..10).map(|seed| first(4, seed)).collect();
    assert!(random.len() >= 6, "{random:?}");
}

#[test]
fn a_piece_comes_from_one_peer_as_long_as_there_are_pieces_for_all() {
    let mut world = World::new(torrent(8 << 20, 256 << 10), false);
    (0..3).for_each(|_| world.add(Kind::Honest));
    world.run_until_complete(Duration::from_secs(60));
    let mut asked: BTreeMap<u32, BTreeSet<Slot>> = BTreeMap::new();
    for (slot, block) in world.requests() {
        asked.entry(block.piece.0).or_default().insert(*slot);
    }
    let shared = asked.values().filter(|peers| peers.len() > 1).count();
    // The last ones, for which peers that have nothing else to do come to help.
    assert!(asked.len() == 32 && shared <= 4, "{shared} pieces of several peers");
}

#[test]
fn dials_under_way_connections_and_their_rate_are_bounded() {
    let mut world = World::new(torrent(64 << 15, 32 << 10), false);
    world.run(Duration::from_millis(10));
    world.limit(|limits| (limits.max_peers, limits.max_half_open) = (20, 12));
    let addrs = (0..200u8).map(|n| SocketAddr::from(([61, 0, n, 1], 6881))).collect();
    let mut out = Vec::new();
    world.swarm.handle(world.now, Input::Found(Source::Tracker, addrs), &mut out);
    let mut dialed: Vec<Slot> = Vec::new();
    for _ in 0..400 {
        world.now += Duration::from_millis(10);
        world.swarm.handle_timeout(world.now, &mut out);
        let dials = out.drain(..).filter_map(|action| match action {
            Action::Dial(slot, _) => Some(slot),
            _ => None,
        });
        dialed.extend(dials);
    }
    assert_eq!(dialed.len(), 12, "nobody has answered");
    // Nine strangers fill the places but for one.
    let accepted = (0..9).filter(|&n| {
        let from = SocketAddr::from(([62, 0, n, 1], 7000));
        world.swarm.accept(world.now, from).is_some()
    });
    assert_eq!(accepted.count(), 8);
    let mut later = Vec::new();
    world.swarm.handle(world.now, Input::DialFailed(dialed[0]), &mut later);
    assert_eq!(world.swarm.status(world.now).failed_dials, 1, "of an address that nobody vouches for, too");
    world.swarm.handle_timeout(world.now, &mut later);
    assert_eq!(later.iter().filter(|action| matches!(action, Action::Dial(..))).count(), 1);
}

#[test]
fn fewer_connections_may_be_had_at_any_time() {
    let mut world = World::new(torrent(64 << 20, 256 << 10), false);
    (0..6).for_each(|_| world.add(Kind::NeverUnchokes));
    (0..2).for_each(|_| world.add(Kind::Honest));
    world.run(Duration::from_secs(2));
    assert_eq!(world.swarm.status(world.now).peers, 8);
    world.input(Input::Command(Command::MaxPeers(2)));
    world.run(Duration::from_secs(1));
    let open: Vec<_> = (0..8).filter(|&index| world.peer(index).slot.is_some()).collect();
    assert_eq!(open, [6, 7], "those that give stay");
}

#[test]
fn who_knocks_in_vain_finds_the_place_of_somebody_idle_soon_after() {
    let mut world = World::new(torrent(64 << 15, 32 << 10), false);
    world.run(Duration::from_millis(10));
    world.limit(|limits| limits.max_peers = 4);
    let from = |last| SocketAddr::from(([78, 0, 0, last], 50_000));
    let slots: Vec<_> = (1..=4).map(|last| world.connect(from(last))).collect();
    world.run(Duration::from_secs(20));
    assert_eq!(world.swarm.status(world.now).peers, 4, "nobody waits");
    assert!(world.swarm.accept(world.now, from(9)).is_none());
    world.run(Duration::from_secs(5));
    let closed = |event: &Event| matches!(event, Event::PeerClosed(slot, ..) if slots.contains(slot));
    assert_eq!(world.count(closed), 1, "one a knock");
    assert!(world.swarm.accept(world.now, from(9)).is_some());
}

/// Pieces of which a peer was asked for blocks.
fn asked_of(world: &World, slot: Slot) -> BTreeSet<PieceIndex> {
    world.requests().iter().filter(|(to, _)| *to == slot).map(|(_, block)| block.piece).collect()
}

#[test]
fn who_has_proved_nothing_takes_over_no_third_piece_in_one_go() {
    for gone in 1..=3 {
        let mut world = World::new(torrent(64 << 15, 32 << 10), false);
        world.run(Duration::from_millis(10));
        let all: Vec<_> = (0..63).collect();
        let others: Vec<_> = (0..gone).map(|last| peer_with(&mut world, last, &all, 2)).collect();
        let slot = peer_with(&mut world, 9, &all, 2);
        assert_eq!(asked_of(&world, slot).len(), 1);
        for other in others {
            world.input(Input::Peer(other, vec![PeerEvent::Closed(CloseReason::Disconnected)]));
        }
        world.input(Input::Peer(slot, vec![PeerEvent::Room(16)]));
        assert_eq!(asked_of(&world, slot).len(), 2, "{gone} pieces that nobody works on, and fresh ones");
    }
}

#[test]
fn who_has_proved_nothing_is_asked_for_two_pieces_in_the_end_game() {
    let mut world = World::new(torrent(64 << 15, 32 << 10), false);
    let wanted = 4;
    for piece in wanted..64 {
        world.find(piece);
    }
    world.run(Duration::from_millis(10));
    for piece in 0..wanted {
        peer_with(&mut world, piece as u8, &[piece], 2);
    }
    let slot = peer_with(&mut world, 9, &[0, 1, 2, 3], 16);
    assert_eq!(asked_of(&world, slot).len(), 2);
}

/// All of 64 pieces but the first.
fn all_but_one() -> Bitfield {
    let mut has = Bitfield::full(64);
    has.remove(0);
    has
}

#[test]
fn the_last_pieces_wait_for_no_silent_peer_though_one_can_be_had_of_nobody() {
    // Of nobody who is there, then of a seed that chokes us.
    for seeds in [0, 1] {
        let mut world = World::new(torrent(64 << 15, 32 << 10), false);
        (0..seeds).for_each(|_| world.add(Kind::NeverUnchokes));
        world.add_with(Kind::Silent, all_but_one());
        world.run(Duration::from_secs(1));
        assert!(world.first_request(seeds).is_some());
        world.add_with(Kind::Honest, all_but_one());
        let end = world.now + Duration::from_secs(8);
        while world.swarm.have().unwrap().count() < 63 {
            assert!(world.now < end, "{seeds} seeds: {} pieces", world.swarm.have().unwrap().count());
            world.run(Duration::from_millis(10));
        }
        assert_eq!(world.requests().len() - world.peer(seeds).requests, 126, "each block once");
    }
}

#[test]
fn before_the_end_game_what_is_owed_is_asked_once_more_where_nothing_comes_at_all() {
    let of_two = || {
        let mut has = Bitfield::new(64);
        for piece in [7, 8] {
            has.insert(piece);
        }
        has
    };
    for silent in [true, false] {
        let mut world = World::new(torrent(64 << 15, 32 << 10), false);
        world.add_with(if silent { Kind::Silent } else { Kind::Honest }, of_two());
        world.set_speed(0, 0);
        world.run(Duration::from_millis(100));
        let others = [2, 3].map(|last| peer_with(&mut world, last, &[7, 8], 4));
        let asked = |world: &World| others.map(|slot| asked_of(world, slot).len()).iter().sum::<usize>();
        world.run(Duration::from_millis(4800));
        assert_eq!((world.peer(0).requests, asked(&world)), (4, 0));
        for _ in 0..2 {
            world.set_speed(0, 1);
            world.run(Duration::from_millis(10));
            world.set_speed(0, 0);
            world.run(Duration::from_secs(2));
        }
        let twice = world.requests().len() - world.peer(0).requests;
        assert_eq!(twice, if silent { 4 } else { 0 }, "silent {silent}");
    }
}
