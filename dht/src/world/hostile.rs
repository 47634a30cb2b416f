//! Hosts that lie, fall silent or flood (scenarios S7, S13, S25 to S27).

use std::time::Duration;

use krpc::bencode::Strings;
use krpc::compact::{Address as _, Contact, V4, put_node, put_value};

use super::*;
use crate::{HopStep, Unsound};

const MINUTE: Duration = Duration::from_secs(60);

fn records(nodes: &[(Id, SocketAddr)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for &(id, addr) in nodes {
        put_node(&mut bytes, &Contact { id, addr: V4::from_socket(addr).unwrap() });
    }
    bytes
}

// S26
#[test]
fn when_all_nodes_are_silent_a_lookup_ends_within_twelve_seconds_without_success() {
    let mut world = World::new(1, Config::default());
    let dead: Vec<_> = (0..100).map(|_| world.add_dead()).collect();
    let saved: Vec<_> = dead.iter().map(|&host| (world.random_id(), world.addr(host))).collect();
    let node = world.add_node(&saved);
    let target = world.random_id();
    let found = world.get_peers(node, target);
    assert_eq!(found.outcome, Outcome::NoAnswer);
    assert!(found.stats.elapsed <= Duration::from_secs(12), "{:?}", found.stats);
    assert!(found.closest.is_empty());
}

// S27
#[test]
fn endless_referrals_end_within_the_budget() {
    let mut world = World::new(2, Config::default());
    let target = world.random_id();
    // Each is nearer to the target than the last, and refers to the eight next.
    let crowd: Vec<_> = (0..600u16)
        .map(|n| {
            let mut distance = [0; 20];
            distance[10..12].copy_from_slice(&(u16::MAX - n).to_be_bytes());
            (target.at(&krpc::Distance::new(distance)), World::v4(usize::from(n)))
        })
        .collect();
    for n in 0..crowd.len() {
        let nodes = records(&crowd[n + 1..(n + 9).min(crowd.len())]);
        let own = crowd[n].0;
        world.add_actor(Box::new(move |_, from, message| {
            let response = Response { nodes: Some(&nodes), token: Some(b"x"), ..Response::new(own) };
            vec![(from, reply(message.tid, response))]
        }));
    }
    let node = world.add_node(&[]);
    world.join(node..node + 1, 0);
    let found = world.get_peers(node, target);
    assert!(found.stats.elapsed <= Duration::from_secs(30), "{:?}", found.stats);
    assert!((250..=300).contains(&found.stats.queries), "{:?}", found.stats);
    assert_eq!(found.outcome, Outcome::OutOfBudget);
}

/// A network of 40 nodes in which a peer of the infohash is known, and hosts that each name others, nearer to it
/// than any node: those that `referrals` numbers, of the 3,000 that there are.
fn lured(seed: u64, referrals: impl Fn(usize) -> Vec<usize>) -> (World, Id, Vec<(Id, SocketAddr)>) {
    let mut world = World::grown(seed, 40, MINUTE);
    let infohash = world.random_id();
    assert!(world.announce(0, infohash, 4444).stored.len() >= 8);
    let host = |n: usize| {
        let mut distance = [0; 20];
        distance[10..12].copy_from_slice(&(u16::MAX - n as u16).to_be_bytes());
        (infohash.at(&krpc::Distance::new(distance)), World::v4(10_000 + n))
    };
    let hosts: Vec<_> = (0..3000).map(host).collect();
    for (n, &(own, addr)) in hosts.iter().enumerate() {
        let named: Vec<_> = referrals(n).into_iter().filter_map(|n| hosts.get(n).copied()).collect();
        let nodes = records(&named);
        let response = move |_, from, message: &Message<'_>| {
            let response = Response { nodes: Some(&nodes), token: Some(b"x"), ..Response::new(own) };
            vec![(from, reply(message.tid, response))]
        };
        world.add_actor_at(addr, Box::new(response));
    }
    (world, infohash, hosts)
}

/// The honest nodes of such a network, those far from the infohash first.
fn honest(world: &World, infohash: Id) -> Vec<(Id, SocketAddr)> {
    let mut honest: Vec<_> = (0..40).map(|index| (world.id(index), world.addr(index))).collect();
    honest.sort_by_key(|(id, _)| std::cmp::Reverse(id.distance(&infohash)));
    honest
}

/// What a lookup that begins with these finds.
fn found_from(world: &mut World, infohash: Id, starts: &[(Id, SocketAddr)]) -> (bool, LookupStats) {
    let node = world.add_node(starts);
    let found = world.get_peers(node, infohash);
    assert!(found.stats.queries <= 300, "{:?}", found.stats);
    (found.peers.contains(&SocketAddr::new(world.addr(0).ip(), 4444)), found.stats)
}

// S27
#[test]
fn endless_referrals_do_not_hide_those_that_are_named_beside_them() {
    for (seed, named) in (1..=2).flat_map(|seed| [(seed, 1), (seed, 3), (seed, 8)]) {
        let (mut world, infohash, chain) = lured(seed, |n| (n + 1..n + 1 + named).collect());
        // Who is known at first names honest ones far from the infohash, and leads into the chain.
        let honest = honest(&world, infohash);
        let known: Vec<_> = honest[..4].iter().chain(&chain[..named.min(4)]).copied().collect();
        let (known, id) = (records(&known), honest[4].0);
        let router = World::v4(900);
        let response = move |_, from, message: &Message<'_>| {
            vec![(from, reply(message.tid, Response { nodes: Some(&known), ..Response::new(id) }))]
        };
        world.add_actor_at(router, Box::new(response));
        let (is_found, stats) = found_from(&mut world, infohash, &[(id, router)]);
        assert!(is_found, "seed {seed}, {named} named: {stats:?}");
    }
}

// S27: the first queries go to the chain, and so would all others.
#[test]
fn endless_referrals_do_not_hide_a_start_that_is_far_away() {
    for (seed, named) in (1..=4).flat_map(|seed| [(seed, 1), (seed, 3), (seed, 8)]) {
        let (mut world, infohash, chain) = lured(seed, |n| (n + 1..n + 1 + named).collect());
        let starts: Vec<_> = chain[..20].iter().chain(&honest(&world, infohash)[4..5]).copied().collect();
        let (is_found, stats) = found_from(&mut world, infohash, &starts);
        assert!(is_found, "seed {seed}, {named} named: {stats:?}");
    }
}

// S27: the chain names the honest nodes around the infohash before anybody else does.
#[test]
fn endless_referrals_do_not_hide_the_nodes_that_they_name_first() {
    for seed in 1..=4 {
        let (mut world, infohash, chain) = lured(seed, |n| (n + 1..=n + 8).collect());
        let (honest, own) = (honest(&world, infohash), chain[19].0);
        let nodes = records(&honest[28..].iter().rev().take(8).copied().collect::<Vec<_>>());
        let addr = World::v4(20_000);
        world.add_actor_at(
            addr,
            Box::new(move |_, from, message| {
                let response = Response { nodes: Some(&nodes), token: Some(b"x"), ..Response::new(own) };
                vec![(from, reply(message.tid, response))]
            }),
        );
        let starts: Vec<_> = chain[..19].iter().chain([&(own, addr), &honest[4]]).copied().collect();
        let (is_found, stats) = found_from(&mut world, infohash, &starts);
        assert!(is_found, "seed {seed}: {stats:?}");
    }
}

// S27: each names four of the chain and four that nobody else does, so that there are soon more of them than
// a lookup remembers.
#[test]
fn referrals_to_ever_more_nodes_do_not_drive_out_a_start_that_is_far_away() {
    for seed in 1..=4 {
        let (mut world, infohash, hosts) = lured(seed, |n| match n.checked_sub(2400) {
            Some(at) => (n + 1..=n + 4).chain(4 * at..4 * at + 4).collect(),
            None => Vec::new(),
        });
        let starts: Vec<_> =
            hosts[2400..2408].iter().chain(&honest(&world, infohash)[4..5]).copied().collect();
        let (is_found, stats) = found_from(&mut world, infohash, &starts);
        assert!(is_found, "seed {seed}: {stats:?}");
    }
}

/// A router that names `crowd` nodes, which follow `conduct`; a victim that takes no part; six honest
/// nodes, of which each knows the peer.
fn ambush(
    seed: u64,
    conduct: impl Fn(u64, &Message<'_>, SocketAddr) -> Vec<(SocketAddr, Vec<u8>)> + Clone + 'static,
) -> (World, Found, u32) {
    let mut world = World::new(seed, Config::default());
    let honest: Vec<_> = (0..6).map(|_| world.add_node(&[])).collect();
    for &index in &honest {
        for other in honest.iter().map(|&other| World::v4(other)) {
            if other != world.addr(index) {
                world.command(index, Command::AddNode(other));
            }
        }
    }
    world.run(MINUTE);
    let infohash = world.random_id();
    let found = world.announce(honest[0], infohash, 4444);
    assert_eq!(found.stored.len(), 5);
    let victim = world.add_dead();
    let mut saved: Vec<_> = honest.iter().map(|&index| (world.id(index), world.addr(index))).collect();
    for n in 0..30u64 {
        let conduct = conduct.clone();
        let index = world.add_actor(Box::new(move |_, from, message| conduct(n, message, from)));
        let mut id = *infohash.as_bytes();
        id[10..12].copy_from_slice(&(n as u16 + 1).to_be_bytes());
        saved.push((Id::new(id), world.addr(index)));
    }
    let node = world.add_node(&saved);
    let found = world.get_peers(node, infohash);
    let received = world.hosts[victim].received;
    (world, found, received)
}

/// Host index of the victim of [`ambush`].
const VICTIM: usize = 6;

fn true_peer() -> SocketAddr {
    SocketAddr::new(World::v4(0).ip(), 4444)
}

/// The id that an actor of [`ambush`] has.
fn claimed(n: u64, target: Id) -> Id {
    let mut id = *target.as_bytes();
    id[10..12].copy_from_slice(&(n as u16 + 1).to_be_bytes());
    Id::new(id)
}

#[test]
fn liars_near_the_target_do_not_hide_the_true_peer_nor_aim_us_at_a_victim() {
    let (_, found, received) = ambush(3, |n, message, from| {
        let Some(target) = target_of(message) else { return Vec::new() };
        let nodes: Vec<_> = (0..8u16)
            .map(|k| {
                let mut id = *target.as_bytes();
                id[18..].copy_from_slice(&(n as u16 * 8 + k).to_be_bytes());
                (Id::new(id), SocketAddr::new(World::v4(VICTIM).ip(), 7000 + n as u16 * 8 + k))
            })
            .collect();
        let nodes = records(&nodes);
        let mut values = Vec::new();
        for port in 1..=100 {
            put_value(&mut values, SocketAddr::new(World::v4(VICTIM).ip(), port));
        }
        let values = Strings::from_raw(&values).ok();
        let response = Response { nodes: Some(&nodes), values, ..Response::new(claimed(n, target)) };
        vec![(from, reply(message.tid, response))]
    });
    assert!(found.stats.queries <= 300 && found.stats.elapsed <= Duration::from_secs(15));
    assert!(received <= 3, "{received} datagrams to a victim");
    let at_victim = found.peers.iter().filter(|peer| peer.ip() == World::v4(VICTIM).ip()).count();
    assert_eq!(at_victim, 8);
    assert!(found.peers.contains(&true_peer()), "{found:?}");
}

// S27
#[test]
fn values_count_only_from_the_address_tid_and_id_that_were_asked() {
    let victim = || SocketAddr::new(World::v4(99).ip(), 9999);
    let (_, found, _) = ambush(4, move |n, message, from| {
        let Some(target) = target_of(message) else { return Vec::new() };
        let mut values = Vec::new();
        put_value(&mut values, victim());
        let values = Strings::from_raw(&values).ok();
        let response = Response { values, ..Response::new(claimed(n, target)) };
        match n % 3 {
            // A wrong transaction id, which is the right one but for a bit.
            0 => {
                let mut tid = message.tid.to_vec();
                tid[0] ^= 1;
                vec![(from, reply(&tid, response))]
            }
            // Another id than the one asked for.
            1 => vec![(from, reply(message.tid, Response { id: Id::new([9; 20]), ..response }))],
            // Nodes that are no whole records.
            _ => vec![(from, reply(message.tid, Response { nodes: Some(&[7; 27]), ..response }))],
        }
    });
    assert_eq!(found.peers, [true_peer()]);
}

#[test]
fn answer_from_another_port_is_no_answer() {
    let mut world = World::new(5, Config::default());
    let node = world.add_node(&[]);
    let dead = world.add_dead();
    let addr = world.addr(dead);
    world.command(node, Command::AddNode(addr));
    let now = world.now;
    world.run(Duration::from_millis(1));
    // The tid is in the only packet under way.
    let tid =
        world.packets.values().map(|packet| Message::decode(&packet.bytes).unwrap().tid.to_vec()).next();
    let answer = reply(&tid.unwrap(), Response::new(Id::new([5; 20])));
    world.inject(node, SocketAddr::new(addr.ip(), 1), &answer);
    assert_eq!(world.node(node).stats(now)[0].nodes, 0);
    let counters = world.node(node).counters();
    assert_eq!((counters.dropped_unsolicited, counters.replies_spoofed), (1, 1));
    world.inject(node, addr, &reply(b"abcd", Response::new(Id::new([5; 20]))));
    let counters = world.node(node).counters();
    assert_eq!((counters.dropped_unsolicited, counters.replies_spoofed), (2, 1));
    world.inject(node, addr, &answer);
    assert_eq!(world.node(node).stats(now)[0].nodes, 1);
}

// S25: their ids share 64 bits with the target.
#[test]
fn eclipse_from_one_network_leaves_honest_nodes_in_the_closest_set() {
    let mut world = World::grown(6, 60, MINUTE);
    let infohash = world.random_id();
    world.announce(7, infohash, 4444);
    let mut ring = Vec::new();
    for n in 0..16u8 {
        let mut id = *infohash.as_bytes();
        id[8] ^= n + 1;
        let addr: SocketAddr = ([90, 1, 1, n + 1], 6881).into();
        ring.push((Id::new(id), addr));
    }
    for n in 0..16 {
        let own = ring[n].0;
        let nodes = records(&ring[..8]);
        let conduct: Box<Conduct> = Box::new(move |_, from, message| {
            let response = Response { nodes: Some(&nodes), token: Some(b"x"), ..Response::new(own) };
            vec![(from, reply(message.tid, response))]
        });
        world.add_host(&[ring[n].1], Kind::Actor(conduct));
    }
    let saved: Vec<_> = ring.iter().copied().chain(world.node(9).saved(world.now).remove(0).nodes).collect();
    let node = world.add_node(&saved);
    let found = world.get_peers(node, infohash);
    assert_eq!(found.peers.len(), 1);
    let evil = found.closest.iter().filter(|(_, addr)| addr.ip().to_string().starts_with("90.1.1.")).count();
    assert!(evil <= 1 && found.closest.len() == 8, "{found:?}");
}

// S7
#[test]
fn flood_from_forged_sources_leaves_the_table_unchanged() {
    flood_from_forged_sources(20_000);
}

#[test]
#[ignore = "S7 whole: a million sources take a minute in a debug build"]
fn flood_from_a_million_forged_sources_leaves_the_table_unchanged() {
    flood_from_forged_sources(1_000_000);
}

fn flood_from_forged_sources(sources: u32) {
    let mut world = World::grown(7, 40, MINUTE);
    let before = world.node(5).closest(&Id::ZERO, 64);
    let mut rng = Rng::from_seed(1);
    let (mut pings, start) = (0, world.now);
    for n in 0..sources {
        let from: SocketAddr = (std::net::Ipv4Addr::from(0x5a00_0000 + n * 16), 6881).into();
        let bytes =
            if n % 2 == 0 { query(rng.id(), Query::Ping) } else { reply(b"abcd", Response::new(rng.id())) };
        for sent in world.inject(5, from, &bytes) {
            pings += u32::from(matches!(Message::decode(&sent).unwrap().body, Body::Query { .. }));
        }
        if n % 100 == 0 {
            world.run(Duration::from_millis(50));
        }
    }
    world.run(Duration::from_secs(10));
    let seconds = world.now.since(start).as_secs() as u32;
    // While the table is young it pings strangers faster (DECISIONS.md 5), but never all of them.
    assert!(pings <= 200 + 200 * seconds, "{pings} pings in {seconds} s");
    assert_eq!(world.node(5).closest(&Id::ZERO, 64), before);
}

#[test]
fn grown_table_pings_four_strangers_a_second() {
    let mut world = World::new(8, Config { young_table: 0, ..Config::default() });
    let node = world.add_node(&[]);
    let mut rng = Rng::from_seed(1);
    let mut pings = 0;
    for n in 0..10_000u32 {
        let from: SocketAddr = (std::net::Ipv4Addr::from(0x5a00_0000 + n * 256), 6881).into();
        let sent = world.inject(node, from, &query(rng.id(), Query::Ping));
        pings += sent.len() - 1;
        world.run(Duration::from_millis(1));
    }
    assert!((50..=16 + 4 * 10 + 1).contains(&pings), "{pings}");
}

// S13
#[test]
fn read_only_senders_and_unsolicited_repliers_never_enter() {
    let mut world = World::new(9, Config::default());
    let node = world.add_node(&[]);
    let read_only = Arc::new(Config { read_only: crate::ReadOnly::Yes, ..Config::default() });
    let shy = world.add_node(&[]);
    let seeds = Seeds::from_u64(3);
    let home = Home { id: Id::new([3; 20]), local: world.addr(shy), external: None, saved: Vec::new() };
    world.hosts[shy].kind = Kind::Node(Box::new(Node::new(read_only, vec![home], seeds, world.now)));
    let addr = world.addr(node);
    world.command(shy, Command::AddNode(addr));
    world.inject(node, World::v4(77), &reply(b"aaaa", Response::new(Id::new([7; 20]))));
    world.run(MINUTE);
    assert_eq!(world.node(shy).stats(world.now)[0].nodes, 1);
    assert_eq!(world.node(node).stats(world.now)[0].nodes, 0);
    // And the shy one answers nobody.
    let sent = world.inject(shy, World::v4(55), &query(Id::new([1; 20]), Query::Ping));
    assert!(sent.iter().all(|bytes| matches!(Message::decode(bytes).unwrap().body, Body::Query { .. })));
    assert_eq!(world.node(shy).counters().dropped_read_only, 1);
}

#[test]
fn answer_by_somebody_else_to_an_announce_is_silence_and_no_refusal() {
    let mut world = World::new(12, Config::default());
    let mut saved = Vec::new();
    // One is another node by the time of the announce, one says no, one takes it.
    for n in 0..3u8 {
        let (id, other) = (Id::new([n + 1; 20]), Id::new([n + 4; 20]));
        let actor = world.add_actor(Box::new(move |_, from, message| {
            let is_announce = matches!(message.body, Body::Query { query: Query::AnnouncePeer { .. }, .. });
            let answer = match (is_announce, n) {
                (true, 0) => reply(message.tid, Response::new(other)),
                (true, 1) => {
                    let mut bytes = b"d1:eli203e9:bad tokene1:t4:".to_vec();
                    bytes.extend_from_slice(message.tid);
                    bytes.extend_from_slice(b"1:y1:ee");
                    bytes
                }
                _ => reply(message.tid, Response { token: Some(b"x"), ..Response::new(id) }),
            };
            vec![(from, answer)]
        }));
        saved.push((id, world.addr(actor)));
    }
    let node = world.add_node(&saved);
    let found = world.announce(node, Id::new([9; 20]), 4444);
    assert_eq!((found.outcome, found.stored), (Outcome::Converged, vec![saved[2].1]));
    let refused = world.hosts[node].events.iter().filter_map(|(_, event)| match *event {
        Event::Refused { node, code, .. } => Some((node, code)),
        _ => None,
    });
    assert_eq!(refused.collect::<Vec<_>>(), [(saved[1].1, 203)]);
    // Who answered as somebody else was asked once more, and was who it had been before.
    assert_eq!(world.node(node).counters().ids_mismatched, 2);
}

/// A trace says what came: an error with the code that was sent, and no error where none was.
#[test]
fn a_trace_tells_answers_that_are_none_from_errors() {
    let mut world = World::new(13, Config::default());
    let mut saved = Vec::new();
    for n in 0..4u8 {
        let id = Id::new([n + 1; 20]);
        let actor = world.add_actor(Box::new(move |_, from, message| {
            let is_get = matches!(message.body, Body::Query { query: Query::Get { .. }, .. });
            let response = Response { nodes: Some(b""), ..Response::new(id) };
            let answer = match (is_get, n) {
                (true, 0) => reply(message.tid, Response { nodes: Some(&[7; 25]), ..response }),
                (true, 1) => reply(message.tid, Response { value: Some(b"5:other"), ..response }),
                (true, 2) => reply(message.tid, Response { id: Id::new([99; 20]), ..response }),
                (true, _) => [b"d1:eli203e3:bade1:t4:", message.tid, b"1:y1:ee"].concat(),
                _ => reply(message.tid, response),
            };
            vec![(from, answer)]
        }));
        saved.push((id, world.addr(actor)));
    }
    let node = world.add_node(&saved);
    let target = crate::item::immutable_target(b"3:abc");
    world.look_up(node, Command::GetImmutable { target, trace: true });
    let steps = |addr| {
        let steps = world.hosts[node].events.iter().filter_map(move |(_, event)| match event {
            Event::Hop { hop, .. } if hop.node == addr && hop.step != HopStep::Asked => {
                Some(hop.step.clone())
            }
            _ => None,
        });
        steps.collect::<Vec<_>>()
    };
    assert_eq!(steps(saved[0].1), [HopStep::Unsound(Unsound::Malformed)]);
    assert_eq!(steps(saved[1].1), [HopStep::Unsound(Unsound::Forged)]);
    assert_eq!(steps(saved[2].1)[0], HopStep::Unsound(Unsound::SomebodyElse));
    assert_eq!(steps(saved[3].1), [HopStep::Refused { code: 203 }]);
}

#[test]
fn late_answer_still_counts() {
    let mut world = World::new(11, Config::default());
    let peer: SocketAddr = "85.1.2.3:4444".parse().unwrap();
    let id = Id::new([4; 20]);
    let slow = world.add_actor(Box::new(move |_, from, message| {
        let mut values = Vec::new();
        put_value(&mut values, peer);
        let values = Strings::from_raw(&values).ok();
        vec![(from, reply(message.tid, Response { values, ..Response::new(id) }))]
    }));
    world.hosts[slow].delay = Duration::from_secs(2);
    let addr = world.addr(slow);
    let node = world.add_node(&[(id, addr)]);
    let found = world.get_peers(node, Id::new([5; 20]));
    assert_eq!((found.outcome, found.peers, found.stats.answered), (Outcome::Converged, vec![peer], 1));
    assert!(found.stats.elapsed > Duration::from_secs(2));
    assert_eq!(found.closest, [(id, addr)]);
}

/// Pretends to be every node of the table, under ids of our own neighbourhood, which has room for them.
fn pose_as_known(world: &mut World, node: usize, rounds: usize) {
    let own = world.id(node);
    for round in 0..rounds {
        let known: Vec<_> = world.node(node).table(world.now).iter().map(|known| known.addr).collect();
        for (n, from) in known.into_iter().enumerate() {
            let mut id = *own.as_bytes();
            id[18..].copy_from_slice(&[round as u8 + 1, n as u8]);
            world.inject(node, from, &query(Id::new(id), Query::Ping));
            world.run(Duration::from_secs(1));
        }
        world.run(MINUTE);
    }
}

// D6, S15: nobody is blamed for what others say in its name, where somebody waits for its place as well.
#[test]
fn nobody_loses_its_place_to_queries_that_others_send_in_its_name() {
    let config = Config { wide_buckets: Vec::new(), ..Config::default() };
    let mut world = World::new(17, config);
    for _ in 0..60 {
        world.add_node(&[]);
    }
    world.join(1..60, 0);
    world.run(5 * MINUTE);
    let sorted = |world: &World| {
        let mut nodes: Vec<_> = world.node(5).table(world.now).iter().map(|n| (n.id, n.addr)).collect();
        nodes.sort_unstable();
        nodes
    };
    let (before, counters) = (sorted(&world), world.node(5).counters());
    assert!(before.len() >= 16);
    pose_as_known(&mut world, 5, 4);
    let passed = world.node(5).counters().since(&counters);
    assert_eq!((passed.nodes_removed, passed.ids_mismatched), (0, 0), "{passed:?}");
    assert!(passed.queries_ping >= 2 * before.len() as u64);
    let after = sorted(&world);
    assert!(before.iter().all(|node| after.contains(node)), "{before:?} {after:?}");
}

// D3: whoever floods us is hardly answered, but what it answers to questions of ours is taken.
#[test]
fn answers_to_our_questions_are_taken_from_a_source_that_floods_us() {
    let mut world = World::new(19, Config::default());
    let (a, b) = (world.add_node(&[]), world.add_node(&[]));
    let (from, ping) = (world.addr(b), query(world.id(b), Query::Ping));
    let flood = |world: &mut World| (0..500).filter(|_| !world.inject(a, from, &ping).is_empty()).count();
    assert!(flood(&mut world) <= 51, "the burst, and a ping");
    for _ in 0..20 {
        let asked = Command::Ask { to: from, question: crate::Question::Ping };
        let name = world.command(a, asked).unwrap();
        for _ in 0..10 {
            flood(&mut world);
            world.run(Duration::from_millis(100));
        }
        let is_answer = |event: &Event| matches!(event, Event::Answered { lookup, answer: Some(_), .. } if *lookup == name);
        assert!(world.hosts[a].events.iter().any(|(_, event)| is_answer(event)));
    }
}
