//! Stepped tests of whole swarms: peers that are played by the test, a disk in memory, virtual time.

mod choosing;
mod completing;
mod effort;
mod idling;
mod intake;
mod pair;
mod pausing;
mod room;
mod torrents;
mod world;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use torrents::{torrent, two_files};
use world::{Kind, World};

use super::*;
use crate::peer::{CloseReason, ExtendedHello, PeerEvent};
use crate::piece::PieceIndex;
use crate::storage::{DiskError, DiskErrorKind, Done, Verdict, WRITE_CACHE};
use crate::tracker::AnnounceEvent;

#[test]
fn a_torrent_is_fetched_from_one_peer_and_from_three() {
    for peers in [1, 3] {
        let mut world = World::new(torrent(1_000_000, 64 << 10), false);
        (0..peers).for_each(|_| world.add(Kind::Honest));
        world.run_until_complete(Duration::from_secs(60));
        assert_eq!(world.count(|event| matches!(event, Event::Complete)), 1);
        assert_eq!(world.count(|event| matches!(event, Event::File(0))), 1);
        assert_eq!(world.count(|event| matches!(event, Event::Piece(_))), 16);
        let status = world.swarm.status(world.now);
        assert_eq!((status.left, status.wanted), (0, 1_000_000));
        assert!(status.downloaded - status.wasted == 1_000_000, "{status:?}");
        // All peers were seeds: nobody is needed any more, and nobody is dialed again.
        assert_eq!(status.peers, 0);
        world.run(Duration::from_secs(600));
        assert_eq!(world.swarm.status(world.now).peers, 0);
    }
}

#[test]
fn a_magnet_gets_its_metadata_first() {
    let mut world = World::new(torrent(500_000, 16 << 10), true);
    world.add(Kind::Honest);
    world.run_until_complete(Duration::from_secs(30));
    assert_eq!(world.count(|event| matches!(event, Event::Metadata(_))), 1);
}

#[test]
fn garbage_metadata_from_two_of_three_peers_is_survived_in_fifteen_seconds() {
    for seed in 0..20 {
        let mut world = World::seeded(torrent(500_000, 16 << 10), true, seed);
        world.add(Kind::GarbageMetadata);
        world.add(Kind::GarbageMetadata);
        world.add(Kind::Honest);
        world.run(Duration::from_secs(15));
        assert!(world.swarm.info().is_some(), "seed {seed}");
        world.run_until_complete(Duration::from_secs(30));
        assert!(!world.peer(2).banned);
    }
}

#[test]
fn the_sole_giver_of_bad_pieces_is_banned_after_at_most_two() {
    let mut world = World::new(torrent(2_000_000, 64 << 10), false);
    world.add(Kind::Liar);
    world.add(Kind::Honest);
    world.run_until_complete(Duration::from_secs(60));
    assert!(world.peer(0).banned && !world.peer(1).banned);
    assert!(world.bad_pieces <= 2, "{}", world.bad_pieces);
    assert!(world.peer(0).dials <= 1);
}

#[test]
fn liars_that_share_their_pieces_with_a_fast_peer_spoil_two_and_no_third() {
    for seed in 0..40 {
        let mut world = World::seeded(torrent(3 << 20, 256 << 10), false, seed);
        for (index, kind) in [Kind::Liar, Kind::Liar, Kind::Honest].into_iter().enumerate() {
            world.add(kind);
            world.set_speed(index, if kind == Kind::Honest { 16 } else { 1 });
        }
        world.run_until_complete(Duration::from_secs(60));
        assert!(!world.peer(2).banned, "seed {seed}");
        for liar in [0, 1] {
            let lies = &world.peer(liar).lies;
            let pieces: BTreeSet<_> = lies.iter().map(|block| block.piece).collect();
            let figures = format!("seed {seed}: {} wrong blocks of {} pieces", lies.len(), pieces.len());
            assert!(pieces.len() <= 2 && lies.len() <= 2 * 16, "{figures}");
        }
    }
}

#[test]
fn a_liar_in_shared_pieces_is_found_and_honest_peers_stay() {
    for seed in 0..10 {
        // One piece at a time, so that all peers share it.
        let mut world = World::seeded(torrent(3_000_000, 1 << 20), false, seed);
        world.limit(|limits| limits.unfinished_bytes = 0);
        world.add(Kind::LiarNowAndThen);
        world.add(Kind::Honest);
        world.add(Kind::Honest);
        world.run_until_complete(Duration::from_secs(120));
        assert!(world.bad_pieces <= 3, "seed {seed}: {}", world.bad_pieces);
        assert!(!world.peer(1).banned && !world.peer(2).banned, "seed {seed}");
    }
}

#[test]
fn what_a_banned_liar_gave_of_unfinished_pieces_is_fetched_anew() {
    for seed in 0..20 {
        let mut world = World::seeded(torrent(3 << 20, 256 << 10), false, seed);
        for (index, kind) in [Kind::Liar, Kind::Honest, Kind::Honest].into_iter().enumerate() {
            world.add(kind);
            world.set_speed(index, if kind == Kind::Liar { 2 } else { 1 });
        }
        // The disk is slow to judge its first piece: it has given part of another one meanwhile.
        world.disk_stuck = true;
        while world.peer(0).lies.len() < 24 {
            world.step();
            assert!(world.now < Time::from_secs(60), "seed {seed}: {} lies", world.peer(0).lies.len());
        }
        assert!(world.lies_kept() >= 24 && !world.peer(0).banned);
        world.disk_stuck = false;
        world.step();
        assert!(world.peer(0).banned, "seed {seed}");
        assert_eq!((world.lies_kept(), world.bad_pieces), (0, 1), "seed {seed}");
        world.run_until_complete(Duration::from_secs(60));
        assert_eq!(world.bad_pieces, 1, "seed {seed}: spoilt by what was known to be a lie");
        let (status, lies) = (world.swarm.status(world.now), world.peer(0).lies.len() as u64);
        assert_eq!(
            status.downloaded,
            status.wanted + lies * (16 << 10),
            "seed {seed}: nothing else is wasted"
        );
        assert_eq!(status.wasted, lies * (16 << 10));
    }
}

/// S36.
#[test]
fn fifty_liars_do_not_keep_one_honest_peer_from_giving_everything() {
    for seed in 0..3 {
        let run = |liars| {
            let mut world = World::seeded(torrent(20_000_000, 64 << 10), false, seed);
            let began = world.now;
            (0..liars).for_each(|_| world.add(Kind::Liar));
            world.add(Kind::Honest);
            world.run_until_complete(Duration::from_secs(60));
            (world.now.since(began), world.bad_pieces)
        };
        let ((alone, _), (among, bad)) = (run(0), run(50));
        assert!(bad <= 100, "seed {seed}: {bad} bad pieces");
        assert!(among <= 3 * alone, "seed {seed}: {among:?} instead of {alone:?}");
    }
}

#[test]
fn peers_that_reject_choke_close_or_keep_silent_delay_but_do_not_stop() {
    for kind in [Kind::Rejects, Kind::ChokeFlaps, Kind::ClosesAfter(3), Kind::Silent, Kind::NeverUnchokes] {
        let mut world = World::new(torrent(1_000_000, 64 << 10), false);
        world.add(kind);
        world.add(kind);
        world.add(Kind::Honest);
        world.run_until_complete(Duration::from_secs(70));
        if kind == Kind::Silent {
            assert!(world.now <= Time::from_secs(5), "end game: {:?}", world.now);
        }
    }
}

#[test]
fn who_rejects_a_piece_that_one_peer_is_to_give_alone_loses_it_to_others() {
    for seed in 0..20 {
        let mut world = World::seeded(torrent(1_000_000, 64 << 10), false, seed);
        (0..6).for_each(|_| world.add(Kind::Liar));
        (0..6).for_each(|_| world.add(Kind::Rejects));
        world.add(Kind::Honest);
        world.run_until_complete(Duration::from_secs(60));
    }
}

#[test]
fn a_peer_that_rejects_everything_is_asked_rarely() {
    let mut world = World::new(torrent(1_000_000, 64 << 10), false);
    world.add(Kind::Rejects);
    world.run(Duration::from_secs(60));
    assert!(world.peer(0).requests <= 300, "{}", world.peer(0).requests);
    assert!(world.peer(0).requests >= 5);
}

#[test]
fn a_peer_that_closes_at_once_is_dialed_five_times_a_minute_at_most() {
    let mut world = World::new(torrent(1_000_000, 64 << 10), false);
    world.add(Kind::ClosesAfter(0));
    world.run(Duration::from_secs(60));
    assert!((2..=5).contains(&world.peer(0).dials), "{}", world.peer(0).dials);
}

#[test]
fn snubbed_blocks_are_fetched_elsewhere() {
    let mut world = World::new(torrent(1_000_000, 64 << 10), false);
    world.add(Kind::Silent);
    world.run(Duration::from_secs(1));
    world.add(Kind::Honest);
    world.limit(|limits| limits.endgame_holders = 0);
    world.limit(|limits| limits.endgame_holders_late = 0);
    world.run(Duration::from_secs(20));
    assert!(!world.swarm.is_complete(), "the silent peer holds some");
    let slot = world.peer(0).slot.unwrap();
    world.input(Input::Peer(slot, vec![PeerEvent::Snubbed]));
    world.run_until_complete(Duration::from_secs(10));
}

#[test]
fn peers_that_drip_neither_starve_others_nor_keep_their_blocks() {
    let mut world = World::new(torrent(8 << 20, 256 << 10), false);
    // What they are asked for at first is more than the whole budget.
    world.limit(|limits| limits.write_budget = 2 << 20);
    (0..20).for_each(|_| world.add(Kind::Drips));
    world.run(Duration::from_secs(10));
    world.add(Kind::Honest);
    world.run(Duration::from_secs(20));
    assert!(
        world.peer(20).requests > 100,
        "{} requests while others owe everything",
        world.peer(20).requests
    );
    world.run_until_complete(Duration::from_secs(60));
}

#[test]
fn one_address_gets_a_few_places_among_the_incoming() {
    let mut world = World::new(torrent(100_000, 32 << 10), false);
    world.run(Duration::from_secs(1));
    let from = |ip: [u8; 4], port| std::net::SocketAddr::from((ip, port));
    let accepted = |world: &mut World, ip| {
        (1..=200).filter(|&port| world.swarm.accept(world.now, from(ip, port)).is_some()).count()
    };
    assert_eq!(accepted(&mut world, [9, 9, 9, 9]), 8);
    assert_eq!(accepted(&mut world, [9, 9, 9, 8]), 8);
}

#[test]
fn a_stranger_takes_one_place_among_the_known_however_many_ports_it_names() {
    // Where even many ports of one address are many peers.
    let mut world = World::new(torrent(100_000, 32 << 10), false);
    world.limit(|limits| limits.allow_local = true);
    world.run(Duration::from_secs(1));
    let slot = world.connect(SocketAddr::from(([127, 0, 0, 1], 50_000)));
    for port in 20_000..21_200 {
        let hello = ExtendedHello { listen_port: Some(port), ..ExtendedHello::default() };
        world.input(Input::Peer(slot, vec![PeerEvent::Extended(hello)]));
    }
    assert_eq!(world.swarm.known.len(), 1);
    world.add(Kind::Honest);
    world.run_until_complete(Duration::from_secs(30));
}

#[test]
fn one_dht_node_is_taken_from_a_connection() {
    let mut world = World::new(torrent(100_000, 32 << 10), false);
    world.run(Duration::from_secs(1));
    for last in 1..=2 {
        let slot = world.connect(SocketAddr::from(([77, 0, 0, last], 50_000)));
        let ports = (1..=2000).map(PeerEvent::DhtPort).collect();
        world.input(Input::Peer(slot, ports));
        world.input(Input::Peer(slot, vec![PeerEvent::DhtPort(7)]));
    }
    let nodes: Vec<_> = world.log.iter().filter_map(|line| line.split_once("DhtNode(")).collect();
    assert_eq!(nodes.iter().map(|node| node.1).collect::<Vec<_>>(), ["77.0.0.1:1)", "77.0.0.2:1)"]);
}

#[test]
fn what_is_there_is_told_in_one_command() {
    let (info, payload) = torrent(6000 * 1024, 1024);
    let mut have = Bitfield::full(info.pieces());
    have.remove(7);
    let mut world = World::with((info, payload), true, have);
    world.add(Kind::Honest);
    world.run_until_complete(Duration::from_secs(20));
    let told = |what: &str| world.log.iter().filter(|line| line.contains(what)).count();
    assert!(told("Have(") <= 1, "{} commands", told("Have("));
    assert!(told("Pieces(") >= 2);
}

#[test]
fn what_a_check_finds_is_told_in_one_command_however_much_it_is() {
    let (info, payload) = torrent(6000 * 1024, 1024);
    let pieces = info.pieces();
    let mut world = World::new((info, payload), false);
    world.run(Duration::from_secs(1));
    let slots = [1, 2].map(|last| world.connect(SocketAddr::from(([77, 0, 0, last], 50_000))));
    for slot in slots {
        world.input(Input::Peer(slot, vec![PeerEvent::HaveNone, PeerEvent::Interested]));
    }
    let before = world.log.len();
    world.input(Input::Command(Command::Check(Bitfield::full(pieces))));
    for piece in 1..pieces {
        world.find(piece);
        world.input(Input::Disk(Done::Checked(PieceIndex(piece), true)));
    }
    let told = |world: &World, what: &str| {
        world.log[before..].iter().filter(|line| line.contains("Tell(") && line.contains(what)).count()
    };
    assert_eq!(told(&world, "Have("), 0);
    // One that is fetched meanwhile is told at once, and not again.
    world.input(Input::Disk(Done::Piece(PieceIndex(0), Verdict::Good)));
    assert_eq!((told(&world, "Have("), told(&world, "Pieces(")), (2, 0));
    world.input(Input::Disk(Done::CheckEnded));
    assert_eq!((told(&world, "Have("), told(&world, "ones: 5999")), (2, 2));
    assert!(told(&world, "") < 20, "{} commands", told(&world, ""));
}

#[test]
fn empty_files_are_made_when_they_are_wanted() {
    for (wanted, made) in [([true, true], vec![1]), ([false, true], vec![1]), ([true, false], vec![])] {
        let mut world = World::new(two_files(100_000, 0, 32 << 10), false);
        world.input(Input::Command(Command::Select(wanted.to_vec())));
        world.run(Duration::from_secs(1));
        assert_eq!(world.made, made);
    }
}

#[test]
fn a_full_disk_holds_everything_until_retry() {
    let mut world = World::new(torrent(1_000_000, 64 << 10), false);
    world.add(Kind::Honest);
    world.run(Duration::from_millis(30));
    let error = DiskError {
        kind: DiskErrorKind::NoSpace,
        doing: "writing",
        path: "x".into(),
        detail: "no space".to_owned(),
    };
    world.input(Input::Disk(Done::Failed(error)));
    world.run(Duration::from_secs(5));
    let requests = world.peer(0).requests;
    world.run(Duration::from_secs(5));
    assert_eq!((world.peer(0).requests, world.swarm.is_complete()), (requests, false));
    assert_eq!(world.count(|event| matches!(event, Event::DiskFailed(_))), 1);
    world.input(Input::Command(Command::Retry));
    world.run_until_complete(Duration::from_secs(30));
}

#[test]
fn a_slow_disk_slows_requests_down() {
    let mut world = World::new(torrent(8 << 20, 256 << 10), false);
    world.limit(|limits| limits.write_budget = 1 << 20);
    world.disk_stuck = true;
    world.add(Kind::Honest);
    world.run(Duration::from_secs(10));
    assert!(world.disk_bytes <= (1 << 20) + (64 << 10), "{}", world.disk_bytes);
    world.disk_stuck = false;
    world.run_until_complete(Duration::from_secs(60));
}

#[test]
fn a_piece_larger_than_all_budgets_waits_for_the_disk_and_is_fetched() {
    let cache = WRITE_CACHE as u64;
    assert!(cache < Limits::default().write_budget);
    // Of a user who allows less than the disk keeps, too.
    for budget in [Limits::default().write_budget, 1 << 20] {
        let mut world = World::new(torrent(24 << 20, 32 << 20), false);
        world.limit(|limits| limits.write_budget = budget);
        (world.disk_cache, world.disk_stuck) = (cache, true);
        (0..4).for_each(|_| world.add(Kind::Honest));
        world.run(Duration::from_secs(20));
        let most = budget.max(cache) + (256 << 10);
        assert!(world.disk_bytes <= most && most < 13 << 20, "{} of {budget}", world.disk_bytes);
        (world.disk_stuck, world.disk_speed) = (false, 1);
        world.run_until_complete(Duration::from_secs(60));
        assert!(world.disk_peak <= most, "{} of {budget}", world.disk_peak);
    }
}

#[test]
fn only_wanted_files_are_fetched() {
    let mut world = World::new(two_files(300_000, 300_000, 32 << 10), false);
    world.add(Kind::Honest);
    world.input(Input::Command(Command::Select(vec![false, true])));
    world.run_until_complete(Duration::from_secs(30));
    let have = world.swarm.have().unwrap();
    assert_eq!(have.iter().collect::<Vec<_>>(), (9..19).collect::<Vec<_>>());
    assert_eq!(world.count(|event| matches!(event, Event::File(1))), 1);
    assert_eq!(world.count(|event| matches!(event, Event::File(0))), 0);
    world.input(Input::Command(Command::Select(vec![true, true])));
    world.run_until_complete(Duration::from_secs(60));
    assert!(world.swarm.have().unwrap().is_full());
}

#[test]
fn sequential_order_is_kept() {
    let mut world = World::new(torrent(1_000_000, 32 << 10), false);
    world.limit(|limits| limits.sequential = true);
    world.add(Kind::Honest);
    world.run_until_complete(Duration::from_secs(30));
    let order = world.events.iter().filter_map(|event| match event {
        Event::Piece(piece) => Some(piece.0),
        _ => None,
    });
    let order: Vec<_> = order.collect();
    assert!(order.is_sorted(), "{order:?}");
}

#[test]
fn stopping_says_good_bye_and_saves() {
    let mut world = World::new(torrent(1_000_000, 64 << 10), false);
    world.add(Kind::Honest);
    world.run(Duration::from_millis(50));
    world.input(Input::Command(Command::Stop));
    world.run(Duration::from_secs(1));
    assert_eq!(world.count(|event| matches!(event, Event::Stopped)), 1);
    assert!(world.peer(0).slot.is_none());
    assert_eq!(world.announces.last(), Some(&Some(AnnounceEvent::Stopped)));
    assert_eq!(world.swarm.timeout(), Time::NEVER);
}

#[test]
fn a_download_tells_trackers_started_and_completed_once() {
    let mut world = World::new(torrent(300_000, 64 << 10), false);
    world.add(Kind::Honest);
    world.run_until_complete(Duration::from_secs(30));
    world.run(Duration::from_secs(1));
    assert_eq!(world.announces, [Some(AnnounceEvent::Started), Some(AnnounceEvent::Completed)]);
}

#[test]
fn late_events_of_a_closed_connection_are_ignored() {
    let mut world = World::new(torrent(300_000, 64 << 10), false);
    world.add(Kind::Silent);
    world.run(Duration::from_secs(1));
    let slot = world.peer(0).slot.unwrap();
    world.input(Input::Peer(slot, vec![PeerEvent::Closed(CloseReason::Disconnected), PeerEvent::Unchoked]));
    world.input(Input::Peer(slot, vec![PeerEvent::Room(100), PeerEvent::Snubbed]));
    world.input(Input::DialFailed(slot));
    let status = world.swarm.status(world.now);
    assert_eq!((status.peers, status.failed_dials), (0, 0));
    world.add(Kind::Honest);
    world.run_until_complete(Duration::from_secs(30));
}

#[test]
fn incoming_peers_are_served_and_the_banned_are_not() {
    let mut world = World::complete(torrent(300_000, 64 << 10));
    let addr = SocketAddr::from(([77, 0, 0, 1], 50_000));
    let slot = world.connect(addr);
    world.input(Input::Peer(slot, vec![PeerEvent::Interested]));
    let block = crate::piece::BlockRef { piece: PieceIndex(1), begin: 0, len: 16 << 10 };
    world.input(Input::Peer(slot, vec![PeerEvent::Requested(block)]));
    assert_eq!(world.sent, [(slot, block)]);
    let outside = crate::piece::BlockRef { piece: PieceIndex(99), ..block };
    world.input(Input::Peer(slot, vec![PeerEvent::Requested(outside)]));
    assert_eq!(world.sent.len(), 1);
    world.swarm.known.ban(addr, &Limits::default());
    assert!(world.swarm.accept(world.now, addr).is_none());
}

#[test]
fn a_slot_that_is_free_between_rounds_is_for_nobody_who_snubs_us_before_all_is_there() {
    for complete in [false, true] {
        let have = if complete { Bitfield::full(5) } else { Bitfield::new(5) };
        let mut world = World::with(torrent(300_000, 64 << 10), false, have);
        world.limit(|limits| limits.unchoke_slots = 1);
        world.run(Duration::from_secs(1));
        let [first, snubs] = [1, 2].map(|last| world.connect(SocketAddr::from(([77, 0, 0, last], 50_000))));
        world.input(Input::Peer(first, vec![PeerEvent::Interested]));
        world.input(Input::Peer(snubs, vec![PeerEvent::Snubbed, PeerEvent::Interested]));
        assert_eq!([first, snubs].map(|slot| world.told_of(slot, "Unchoke")), [1, 0]);
        world.input(Input::Peer(first, vec![PeerEvent::NotInterested]));
        assert_eq!(world.told_of(snubs, "Unchoke"), usize::from(complete), "a slot has become free");
        world.input(Input::Peer(snubs, vec![PeerEvent::NotInterested, PeerEvent::Interested]));
        assert_eq!(world.told_of(snubs, "Unchoke"), 2 * usize::from(complete), "it was free");
        // In the next round it has luck, as there is nobody else.
        world.run(Duration::from_secs(11));
        assert!(world.swarm.choker.is_unchoked(snubs));
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let mut world = World::seeded(torrent(1_000_000, 32 << 10), false, seed);
        (0..3).for_each(|_| world.add(Kind::Honest));
        world.run_until_complete(Duration::from_secs(60));
        world.log
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}
