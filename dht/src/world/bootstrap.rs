//! How nodes find the network: by routers, by whom they knew, and again when it was away.

use std::time::Duration;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn two_nodes_meet_when_one_hears_of_the_other() {
    let mut world = World::new(1, Config::default());
    let (a, b) = (world.add_node(&[]), world.add_node(&[]));
    let addr = world.addr(a);
    world.command(b, Command::AddNode(addr));
    world.run(MINUTE);
    let expected = [(world.id(a), world.addr(a))];
    assert_eq!(world.node(b).closest(&Id::ZERO, 9), expected);
    // The stranger that asked was pinged, answered and has its place.
    let expected = [(world.id(b), world.addr(b))];
    assert_eq!(world.node(a).closest(&Id::ZERO, 9), expected);
}

/// Routers are never inserted (DECISIONS.md 13), and whoever turns out to be one leaves.
#[test]
fn node_that_turns_out_to_be_a_router_leaves_the_table() {
    let mut world = World::new(4, Config::default());
    let (node, other, router) = (world.add_node(&[]), world.add_node(&[]), world.add_node(&[]));
    for known in [other, router] {
        let addr = world.addr(known);
        world.command(node, Command::AddNode(addr));
    }
    world.run(MINUTE);
    let knows = |world: &World, who: usize| {
        world.node(node).closest(&Id::ZERO, 9).contains(&(world.id(who), world.addr(who)))
    };
    assert!(knows(&world, other) && knows(&world, router));
    let removed = world.node(node).counters().nodes_removed;
    world.join(node..node + 1, router);
    assert!(knows(&world, other) && !knows(&world, router));
    assert_eq!(world.node(node).counters().nodes_removed, removed + 1);
    world.run(10 * MINUTE);
    assert!(!knows(&world, router), "it answers, which gives a router no place");
}

#[test]
fn crowd_bootstraps_from_one_router_and_lookups_find_the_true_closest() {
    let mut world = World::grown(3, 150, MINUTE);
    for index in 1..150 {
        let stats = world.node(index).stats(world.now).remove(0);
        assert!(stats.nodes >= 45, "node {index}: {stats:?}");
        let bootstrapped =
            world.hosts[index].events.iter().find(|event| matches!(event.1, Event::Bootstrapped { .. }));
        assert!(bootstrapped.unwrap().0 < Time::from_secs(6), "node {index}");
    }
    let mut queries = 0;
    for n in 0..20 {
        let target = world.random_id();
        let index = 1 + n * 7;
        let found = world.find_node(index, target);
        let truth = world.truth((1..150).filter(|&host| host != index), &target, 8);
        assert_eq!(found.closest, truth, "lookup {n}");
        assert_eq!(found.outcome, Outcome::Converged);
        assert!(found.stats.elapsed < Duration::from_millis(1500), "{:?}", found.stats);
        queries += found.stats.queries;
    }
    assert!(queries <= 20 * 50, "{queries} queries in 20 lookups");
}

#[test]
fn cold_start_asks_routers_and_finds_peers_before_the_bootstrap_is_over() {
    let mut world = World::grown(5, 100, MINUTE);
    let infohash = world.random_id();
    world.announce(9, infohash, 4444);
    let cold = world.add_node(&[]);
    world.join(cold..cold + 1, 0);
    let found = world.get_peers(cold, infohash);
    assert_eq!(found.peers.len(), 1);
    assert!(found.stats.first_peer.unwrap() < Duration::from_millis(800), "{:?}", found.stats);
    assert_eq!(found.outcome, Outcome::Converged);
}

#[test]
fn lookup_that_comes_before_the_routers_waits_for_them() {
    let mut world = World::grown(6, 50, MINUTE);
    let infohash = world.random_id();
    world.announce(9, infohash, 4444);
    let cold = world.add_node(&[]);
    let name = world.command(cold, Command::GetPeers { infohash, announce: None, trace: false }).unwrap();
    world.run(Duration::from_secs(3));
    assert!(world.hosts[cold].events.is_empty());
    world.join(cold..cold + 1, 0);
    world.run(Duration::from_secs(3));
    let found = |event: &(Time, Event)| matches!(event.1, Event::Peer { lookup, .. } if lookup == name);
    assert!(world.hosts[cold].events.iter().any(found));
}

#[test]
fn node_that_knows_nobody_says_so() {
    let mut world = World::new(7, Config::default());
    let lonely = world.add_node(&[]);
    let target = world.random_id();
    let found = world.find_node(lonely, target);
    assert_eq!((found.outcome, found.stats.queries), (Outcome::NoNodes, 0));
    assert!(found.stats.elapsed <= Duration::from_secs(12));
}

#[test]
fn saved_nodes_are_asked_before_any_router() {
    let mut world = World::grown(8, 60, MINUTE);
    let saved = world.node(10).saved(world.now).remove(0).nodes;
    assert!(saved.len() >= 30);
    let router = world.add_actor(Box::new(|_, _, _| Vec::new()));
    let back = world.add_node(&saved);
    world.join(back..back + 1, router);
    world.run(MINUTE);
    assert!(world.node(back).stats(world.now)[0].nodes >= 30);
    assert_eq!(world.hosts[router].received, 0);
}

#[test]
fn stale_saved_nodes_do_not_keep_a_node_from_the_routers() {
    for count in [40, 60, 300] {
        let mut world = World::grown(9, 60, MINUTE);
        let dead: Vec<_> = (0..count).map(|_| world.add_dead()).collect();
        let saved: Vec<_> = dead.iter().map(|&host| (world.random_id(), world.addr(host))).collect();
        let back = world.add_node(&saved);
        world.join(back..back + 1, 0);
        // Our owner's lookup is glad of the routers too.
        let target = world.random_id();
        let found = world.find_node(back, target);
        assert_eq!(found.outcome, Outcome::Converged, "{count}: {:?}", found.stats);
        world.run(Duration::from_secs(10));
        assert!(world.node(back).stats(world.now)[0].nodes >= 20, "{count}");
    }
}

#[test]
fn the_only_saved_node_that_lives_is_found_among_many_dead_ones() {
    let mut world = World::grown(9, 60, MINUTE);
    let dead: Vec<_> = (0..150).map(|_| world.add_dead()).collect();
    let mut saved: Vec<_> = dead.iter().map(|&host| (world.random_id(), world.addr(host))).collect();
    saved.push((world.id(5), world.addr(5)));
    let back = world.add_node(&saved);
    world.run(2 * MINUTE);
    assert!(world.node(back).stats(world.now)[0].nodes >= 20);
}

#[test]
fn nodes_of_the_last_run_are_kept_until_the_bootstrap() {
    let mut world = World::new(27, Config::default());
    let alive = world.add_node(&[]);
    let mut saved: Vec<_> = (0..15).map(|n| (world.random_id(), World::v4(100 + n))).collect();
    saved.push((world.id(alive), world.addr(alive)));
    let node = world.add_node(&saved);
    // Half of them are asked at once, the others when those turn out to be silent.
    world.run(Duration::from_millis(700));
    assert_eq!(world.node(node).stats(world.now)[0].nodes, 1);
    let mut kept = world.node(node).saved(world.now).remove(0).nodes;
    assert_eq!(kept[0], saved[15], "who has answered comes first");
    kept.sort();
    saved.sort();
    assert_eq!(kept, saved);
}

#[test]
fn routers_are_tried_again_until_the_network_is_there() {
    let mut world = World::grown(19, 40, MINUTE);
    // Ten minutes without network, as far as the newcomer can tell.
    let late = world.add_node(&[]);
    world.loss = 100;
    world.join(late..late + 1, 0);
    world.run(10 * MINUTE);
    assert_eq!(world.node(late).stats(world.now)[0].nodes, 0);
    let attempts = world.node(late).counters().queries_out;
    assert!((8..=40).contains(&attempts), "{attempts} queries in ten minutes");
    world.loss = 0;
    world.run(Duration::from_secs(90));
    assert!(world.node(late).stats(world.now)[0].nodes >= 15);
}

#[test]
fn network_that_comes_and_goes_is_found_again_within_two_minutes() {
    let mut world = World::grown(20, 80, MINUTE);
    let target = world.random_id();
    for _ in 0..5 {
        world.loss = 100;
        world.run(3 * MINUTE);
        world.loss = 0;
        world.run(2 * MINUTE);
        let stats = world.node(7).stats(world.now).remove(0);
        assert!(stats.trusty >= 50, "S18: {stats:?}");
        let found = world.find_node(7, target);
        assert_eq!(found.closest, world.truth((1..80).filter(|&host| host != 7), &target, 8));
    }
}
