//! Honest nodes together: lookups, announces, churn.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::HopStep;

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn node_with_only_a_router_announces_to_it_and_finds_it_again() {
    let mut world = World::new(2, Config::default());
    let (router, a, b) = (world.add_node(&[]), world.add_node(&[]), world.add_node(&[]));
    world.join(a..a + 1, router);
    let infohash = world.random_id();
    let found = world.announce(a, infohash, 4444);
    assert_eq!((found.outcome, found.stored), (Outcome::Converged, vec![world.addr(router)]));
    world.join(b..b + 1, router);
    let found = world.get_peers(b, infohash);
    assert_eq!(found.peers, [SocketAddr::new(world.addr(a).ip(), 4444)]);
    // Routers are asked, never inserted (BEP 5, "nodes").
    world.run(MINUTE);
    let router = world.addr(router);
    for node in [a, b] {
        assert!(world.node(node).closest(&Id::ZERO, 9).iter().all(|&(_, addr)| addr != router));
    }
}

#[test]
fn announced_peers_are_found_by_others_each_once() {
    let mut world = World::grown(4, 100, MINUTE);
    let infohash = world.random_id();
    for n in 1..=12 {
        let found = world.announce(n, infohash, 1000 + n as u16);
        assert_eq!(found.stored.len(), 8, "{found:?}");
    }
    let found = world.get_peers(50, infohash);
    let mut peers = found.peers.clone();
    peers.sort();
    let expected: Vec<_> = (1..=12).map(|n| SocketAddr::new(world.addr(n).ip(), 1000 + n as u16)).collect();
    assert_eq!(peers, expected);
    assert_eq!(found.stats.peers, 12);
    assert!(found.stats.first_peer.unwrap() < found.stats.elapsed);
    let holders = (0..100).filter(|&n| !world.node(n).store().is_empty()).count();
    assert!((8..=10).contains(&holders), "{holders} nodes hold the peers");
}

#[test]
fn lookups_converge_with_dead_nodes_and_loss() {
    // One world has 160 nodes to reach, too few to tell 97 % from 96 %.
    let counts: Vec<_> = (10..14).map(closest_reached_with_dead_nodes_and_loss).collect();
    let (right, total) = counts.iter().fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1));
    assert!(right * 100 >= total * 97, "{counts:?}");
}

/// Twenty lookups among 200 nodes of which a third is dead: how many of the true eight closest were reached,
/// and how many there were.
fn closest_reached_with_dead_nodes_and_loss(seed: u64) -> (usize, usize) {
    let mut world = World::grown(seed, 200, MINUTE);
    for index in (2..200).step_by(3) {
        world.kill(index);
    }
    world.loss = 3;
    // As in the real network many nodes in every table are dead, though not all of a sudden.
    world.run(5 * MINUTE);
    let alive: Vec<_> = (1..200).filter(|index| index % 3 != 2).collect();
    let (mut right, mut total) = (0, 0);
    for n in 0..20 {
        let target = world.random_id();
        let index = alive[n * 5];
        let found = world.find_node(index, target);
        let truth = world.truth(alive.iter().copied().filter(|&host| host != index), &target, 8);
        right += truth.iter().filter(|node| found.closest.contains(node)).count();
        total += truth.len();
        assert!(found.stats.elapsed < Duration::from_secs(4), "{:?}", found.stats);
    }
    (right, total)
}

#[test]
fn thirty_percent_loss_leaves_ninety_five_percent_of_lookups_successful() {
    let mut world = World::grown(11, 100, MINUTE);
    let infohashes: Vec<_> = (0..20).map(|_| world.random_id()).collect();
    for (n, &infohash) in infohashes.iter().enumerate() {
        assert_eq!(world.announce(1 + n, infohash, 7777).stored.len(), 8);
    }
    world.loss = 30;
    let found = |world: &mut World, n: usize| !world.get_peers(40 + n, infohashes[n]).peers.is_empty();
    assert!((0..20).filter(|&n| found(&mut world, n)).count() >= 19);
}

#[test]
fn dead_nodes_leave_the_tables_within_half_an_hour() {
    let mut world = World::grown(12, 60, MINUTE);
    for index in 30..60 {
        world.kill(index);
    }
    world.run(Duration::from_secs(30 * 60));
    let dead: Vec<_> = (30..60).map(|index| world.addr(index)).collect();
    for index in 1..30 {
        let known = world.node(index).closest(&Id::ZERO, 64);
        assert!(known.len() >= 15, "node {index} knows {}", known.len());
        let left = known.iter().filter(|(_, addr)| dead.contains(addr)).count();
        assert_eq!(left, 0, "node {index} still knows dead nodes");
    }
}

#[test]
fn both_families_are_searched_at_once_and_announced_to() {
    let mut world = World::new(13, Config::default());
    for n in 0..40 {
        // Some nodes live in one family only.
        match n % 4 {
            1 => world.add_node_at(&[World::v4(n)], &[]),
            2 => world.add_node_at(&[World::v6(n)], &[]),
            _ => world.add_node_at(&[World::v4(n), World::v6(n)], &[]),
        };
    }
    world.join(1..40, 0);
    world.run(MINUTE);
    for n in [3, 4, 7] {
        let stats = world.node(n).stats(world.now);
        assert!(stats.iter().all(|home| home.nodes >= 12), "{stats:?}");
        assert_ne!(stats[0].id, stats[1].id);
    }
    let infohash = world.random_id();
    let found = world.announce(3, infohash, 5555);
    let (v4, v6): (Vec<_>, Vec<_>) = found.stored.iter().copied().partition(SocketAddr::is_ipv4);
    assert_eq!((v4.len(), v6.len()), (8, 8), "{found:?}");
    let expected = [SocketAddr::new(World::v4(3).ip(), 5555), SocketAddr::new(World::v6(3).ip(), 5555)];
    // A node of both families finds both addresses, a node of one only its own.
    let mut peers = world.get_peers(7, infohash).peers;
    peers.sort();
    assert_eq!(peers, expected);
    assert_eq!(world.get_peers(5, infohash).peers, expected[..1]);
    assert_eq!(world.get_peers(6, infohash).peers, expected[1..]);
}

#[test]
fn same_seed_gives_the_same_bytes() {
    let run = |seed| {
        let mut world = World::grown(seed, 20, MINUTE / 2);
        let infohash = world.random_id();
        world.announce(3, infohash, 1);
        world.digest()
    };
    assert_eq!(run(14), run(14));
    assert_ne!(run(14), run(15));
}

#[test]
fn trace_tells_every_query_and_its_fate() {
    let mut world = World::grown(16, 50, MINUTE);
    let target = world.random_id();
    let found = world.find_node(5, target);
    let mut steps = BTreeMap::<SocketAddr, (u32, u32)>::new();
    for (_, event) in &world.hosts[5].events {
        if let Event::Hop { hop, .. } = event {
            let entry = steps.entry(hop.node).or_default();
            entry.0 += u32::from(hop.step == HopStep::Asked);
            entry.1 += u32::from(matches!(hop.step, HopStep::Answered { .. }));
        }
    }
    assert_eq!(steps.values().map(|step| step.0).sum::<u32>(), found.stats.queries);
    assert_eq!(steps.values().map(|step| step.1).sum::<u32>(), found.stats.answered);
    assert!(steps.values().all(|&(asked, answered)| asked >= 1 && answered <= 1));
}

#[test]
fn cancelled_and_waiting_lookups_end_once() {
    let config = Config { max_lookups: 2, ..Config::default() };
    let mut world = World::new(17, config);
    let node = world.add_node(&[]);
    let names: Vec<_> = (0..4)
        .map(|_| {
            let target = world.random_id();
            world.command(node, Command::FindNode { target, trace: false }).unwrap()
        })
        .collect();
    world.command(node, Command::Cancel(names[1]));
    world.command(node, Command::Cancel(names[3]));
    world.run(MINUTE);
    let mut done = BTreeMap::new();
    for (_, event) in &world.hosts[node].events {
        if let Event::Done { lookup, outcome, .. } = event {
            assert!(done.insert(*lookup, *outcome).is_none());
        }
    }
    let outcomes: Vec<_> = names.iter().map(|name| done[name]).collect();
    assert_eq!(outcomes, [Outcome::NoNodes, Outcome::Cancelled, Outcome::NoNodes, Outcome::Cancelled]);
}

#[test]
fn upkeep_does_not_hold_up_the_owners_lookups() {
    let mut world = World::new(24, Config { max_lookups: 1, ..Config::default() });
    for _ in 0..20 {
        world.add_node(&[]);
    }
    world.join(1..20, 0);
    let target = world.random_id();
    // Its bootstrap is under way; its owner does not wait for the end of that.
    let found = world.find_node(7, target);
    assert_eq!(found.outcome, Outcome::Converged);
    assert!(found.stats.answered > 0);
}

#[test]
fn announce_that_outlasts_the_approach_wakes_nobody_in_between() {
    // The world stops a node that wants to wake up again at once.
    let span = Duration::from_secs(6);
    let config = Config { lookup_max_time: span, query_timeout: Duration::from_secs(4), ..Config::default() };
    let mut world = World::new(25, config);
    let node = world.add_node(&[]);
    let actor = world.add_actor(Box::new(move |_, from, message| {
        let response = Response { token: Some(b"token"), ..Response::new(Id::new([3; 20])) };
        match message.body {
            // An answer just before the end of the approach, and none to the announce.
            Body::Query { query: Query::AnnouncePeer { .. }, .. } => Vec::new(),
            _ => vec![(from, reply(message.tid, response))],
        }
    }));
    world.hosts[actor].delay = Duration::from_millis(1800);
    world.join(node..node + 1, actor);
    let infohash = world.random_id();
    let found = world.announce(node, infohash, 7);
    assert_eq!((found.stats.answered, found.stored.len()), (1, 0));
    assert!(found.stats.elapsed > Duration::from_secs(2) && found.stats.elapsed <= span);
}

#[test]
fn caps_of_zero_are_lifted() {
    let config = Config {
        nodes_per_subnet_per_bucket: 0,
        lookup_max_in_flight: 0,
        lookup_max_queries: 0,
        lookup_candidates: 0,
        lookup_nodes_per_reply: 0,
        lookup_queries_per_silent_ip: 0,
        lookup_max_peers: 0,
        lookup_max_filters: 0,
        lookup_values_per_reply: 0,
        lookup_ports_per_ip: 0,
        max_lookups: 0,
        max_in_flight: 0,
        max_incoming: 0,
        max_tid: 0,
        max_values: 0,
        replies_per_second_per_ip: 0,
        reply_bytes_per_second: 0,
        failed_tokens_per_minute: 0,
        store_memory: 0,
        peers_per_infohash: 0,
        ports_per_ip: 0,
        infohashes_per_ip: 0,
        ..Config::default()
    };
    let mut world = World::new(26, config);
    for _ in 0..30 {
        world.add_node(&[]);
    }
    world.join(1..30, 0);
    world.run(MINUTE);
    let infohash = world.random_id();
    for port in 1..=20 {
        assert_eq!(world.announce(3, infohash, port).stored.len(), 8);
    }
    let found = world.get_peers(9, infohash);
    assert_eq!((found.outcome, found.peers.len()), (Outcome::Converged, 20));
    let scraped = world.command(9, Command::Scrape { infohash, trace: false }).unwrap();
    world.run(MINUTE);
    let estimate = world.hosts[9].events.iter().find_map(|(_, event)| match event {
        Event::Scraped { lookup, estimate } if *lookup == scraped => Some(*estimate),
        _ => None,
    });
    // Twenty ports of one address are one downloader (BEP 33).
    let estimate = estimate.expect("an estimate");
    assert!(estimate.downloaders == 1 && estimate.nodes >= 4, "{estimate:?}");
}

#[test]
fn mapped_address_is_asked_as_what_it_means() {
    let mut world = World::new(28, Config::default());
    let (node, other) = (world.add_node(&[]), world.add_node(&[]));
    let std::net::IpAddr::V4(ip) = world.addr(other).ip() else { panic!() };
    let mapped = SocketAddr::from((ip.to_ipv6_mapped(), 6881));
    world.command(node, Command::AddNode(mapped));
    world.command(node, Command::Ask { to: mapped, question: crate::Question::Ping });
    world.run(MINUTE);
    let answered = |event: &(Time, Event)| matches!(event.1, Event::Answered { answer: Some(_), .. });
    assert!(world.hosts[node].events.iter().any(answered));
    assert_eq!(world.node(node).stats(world.now)[0].nodes, 1);
}

#[test]
fn direct_question_is_answered_with_the_whole_datagram_or_given_up() {
    let mut world = World::new(18, Config::default());
    let (a, b, dead) = (world.add_node(&[]), world.add_node(&[]), world.add_dead());
    let ask = |world: &mut World, to, question| {
        let to = world.addr(to);
        let name = world.command(a, Command::Ask { to, question }).unwrap();
        world.run(Duration::from_secs(5));
        let answers = world.hosts[a].events.iter().filter_map(|(_, event)| match event {
            Event::Answered { lookup, answer, .. } if *lookup == name => Some(answer.clone()),
            _ => None,
        });
        let answers: Vec<_> = answers.collect();
        assert_eq!(answers.len(), 1);
        answers[0].clone()
    };
    let (bytes, rtt) = ask(&mut world, b, crate::Question::Ping).unwrap();
    let Body::Response(response) = Message::decode(&bytes).unwrap().body else { panic!() };
    assert_eq!(response.id, world.id(b));
    assert!(rtt > Duration::from_millis(20));
    assert_eq!(ask(&mut world, dead, crate::Question::Ping), None);
    let mut arguments = b"d2:id20:".to_vec();
    arguments.extend_from_slice(world.id(a).as_bytes());
    arguments.push(b'e');
    let raw = crate::Question::Raw { method: b"vote".to_vec(), arguments };
    let (bytes, _) = ask(&mut world, b, raw).unwrap();
    let Body::Error(error) = Message::decode(&bytes).unwrap().body else { panic!() };
    assert_eq!(error.code, 204);
}

#[test]
fn idle_node_is_quiet() {
    let mut world = World::grown(21, 50, 5 * MINUTE);
    let before = world.node(9).counters();
    world.run(30 * MINUTE);
    let spent = world.node(9).counters().since(&before);
    // Two refreshes of seven buckets, and pings of whom nobody heard from.
    assert!(spent.queries_out < 1200, "{} queries in half an hour", spent.queries_out);
    assert!(spent.queries_out > 20);
    assert_eq!(spent.timeouts, 0);
}

#[test]
fn family_without_a_way_out_does_not_hold_up_the_other() {
    let mut world = World::new(22, Config::default());
    for n in 0..60 {
        world.add_node_at(&[World::v4(n), World::v6(n)], &[]);
    }
    world.join(1..60, 0);
    world.run(MINUTE);
    let infohash = world.random_id();
    world.announce(3, infohash, 5555);
    let half = world.add_node_at(&[World::v4(60), World::v6(60)], &[]);
    world.by_addr.remove(&World::v6(60));
    world.join(half..half + 1, 0);
    world.run(Duration::from_secs(20));
    let found = world.get_peers(half, infohash);
    // BEP 32: what comes over IPv4 are IPv4 peers, and there is no other way out.
    let expected = [SocketAddr::new(World::v4(3).ip(), 5555)];
    assert_eq!((found.outcome, &found.peers[..]), (Outcome::Converged, &expected[..]));
    assert!(found.stats.elapsed < Duration::from_secs(2), "{:?}", found.stats);
    assert!(found.stats.queries < 100, "{:?}", found.stats);
}

#[test]
fn router_and_direct_question_may_be_at_a_private_address() {
    let mut world = World::new(23, Config::default());
    let router = world.add_node_at(&["192.168.1.5:6881".parse().unwrap()], &[]);
    let node = world.add_node(&[]);
    let addr = world.addr(router);
    // The router itself refuses private strangers, but not us.
    world.command(node, Command::Ask { to: addr, question: crate::Question::Ping });
    world.run(MINUTE);
    let answered = |event: &(Time, Event)| matches!(event.1, Event::Answered { answer: Some(_), .. });
    assert!(world.hosts[node].events.iter().any(answered));
    assert_eq!(world.node(node).stats(world.now)[0].nodes, 0);
}
