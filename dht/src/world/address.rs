//! Our own address as others see it (BEP 42; D10, S16), and several of them (BEP 45).

use std::cell::RefCell;
use std::rc::Rc;

use krpc::compact::put_peer;
use krpc::{ErrorBody, ErrorCode};

use super::*;
use crate::secure_id::is_secure;

const MINUTE: Duration = Duration::from_secs(60);

fn home(id: Id, local: SocketAddr) -> Home {
    Home { id, local, external: None, saved: Vec::new() }
}

/// What sixteen nodes, each in a network of its own, say about the address of whoever asks them.
type Claims = Rc<RefCell<Vec<SocketAddr>>>;

/// A message as [`reply`] makes it, with the address of its receiver (BEP 42).
fn with_ip(tid: &[u8], ip: SocketAddr, body: Body<'_>) -> Vec<u8> {
    let (mut bytes, mut record) = (Vec::new(), Vec::new());
    put_peer(&mut record, ip);
    Message { tid, version: None, ip: Some(&record), read_only: false, body }.encode(&mut bytes);
    bytes
}

/// A node at 80.0.0.1 with an id that belongs there, and sixteen voters; every fourth answers with
/// errors, which count as well.
fn sixteen_voters(seed: u64) -> (World, usize, Claims) {
    let mut world = World::new(seed, Config::default());
    let node = world.add_node(&[]);
    let claims: Claims = Rc::new(RefCell::new(vec![world.addr(node); 16]));
    for n in 0..16 {
        let (own, claims) = (world.random_id(), Rc::clone(&claims));
        world.add_actor(Box::new(move |_, from, message| {
            let error = ErrorBody { code: ErrorCode::Server.number(), text: b"no" };
            let body = if n % 4 == 3 {
                Body::Error(error)
            } else {
                Body::Response(Response { nodes: Some(&[]), ..Response::new(own) })
            };
            vec![(from, with_ip(message.tid, claims.borrow()[n], body))]
        }));
    }
    poll(&mut world, node);
    (world, node, claims)
}

/// Lets the node ask all voters.
fn poll(world: &mut World, node: usize) {
    for voter in 1..=16 {
        let addr = world.addr(voter);
        world.command(node, Command::AddNode(addr));
    }
    world.run(Duration::from_secs(1));
}

fn says(claims: &Claims, voters: std::ops::Range<usize>, addr: SocketAddr) {
    claims.borrow_mut()[voters].fill(addr);
}

/// The addresses that the node told its owner, with the ids that came with them.
fn told(world: &World, node: usize) -> Vec<(SocketAddr, Id)> {
    let told = world.hosts[node].events.iter().filter_map(|(_, event)| match *event {
        Event::ExternalAddress { home: 0, addr, id, .. } => Some((addr, id)),
        _ => None,
    });
    told.collect()
}

fn stats(world: &World, node: usize) -> crate::HomeStats {
    world.node(node).stats(world.now).remove(0)
}

fn lie(n: u8) -> SocketAddr {
    ([99, n, 9, 9], 6881).into()
}

#[test]
fn s16_lies_of_seven_of_sixteen_networks_leave_the_id() {
    let (mut world, node, claims) = sixteen_voters(1);
    let (id, addr) = (world.id(node), world.addr(node));
    assert_eq!(stats(&world, node).votes, [(addr.ip(), 16)]);
    for minute in 0..60u8 {
        // All in one voice, or each time with another lie.
        says(&claims, 0..7, if minute < 30 { lie(0) } else { lie(minute) });
        poll(&mut world, node);
        world.run(MINUTE);
        assert_eq!(world.id(node), id);
    }
    assert_eq!(stats(&world, node).external, Some(addr));
    assert_eq!(stats(&world, node).votes, [(addr.ip(), 9), (lie(59).ip(), 7)]);
    assert_eq!(told(&world, node), [(addr, id)]);
    assert_eq!(world.node(node).counters().own_ids_changed, 0);
}

#[test]
fn s16_nine_of_sixteen_change_the_id_once_and_again_only_ten_minutes_later() {
    let (mut world, node, claims) = sixteen_voters(2);
    let (id, nodes) = (world.id(node), stats(&world, node).nodes);
    world.run(10 * MINUTE);
    says(&claims, 0..9, lie(1));
    poll(&mut world, node);
    let second = world.id(node);
    assert!(second != id && is_secure(&second, lie(1).ip()));
    assert_eq!(told(&world, node)[1..], [(lie(1), second)]);
    assert_eq!((stats(&world, node).external, stats(&world, node).nodes), (Some(lie(1)), nodes));

    // Everybody agrees on a third address, again and again.
    says(&claims, 0..16, lie(2));
    let changed = world.now;
    while world.now.since(changed) < 10 * MINUTE - Duration::from_secs(5) {
        poll(&mut world, node);
        assert_eq!(world.id(node), second, "{:?} later", world.now.since(changed));
        world.run(Duration::from_secs(20));
    }
    world.run(Duration::from_secs(10));
    poll(&mut world, node);
    let third = world.id(node);
    assert!(third != second && is_secure(&third, lie(2).ip()));
    assert_eq!(world.node(node).counters().own_ids_changed, 2);
    // The id goes with the address into the next run.
    let record = world.node(node).saved(world.now).remove(0);
    assert_eq!((record.id, record.external), (third, Some(lie(2).ip())));
}

#[test]
fn s16_flapping_liars_move_us_once_in_ten_minutes_at_most() {
    let (mut world, node, claims) = sixteen_voters(3);
    let start = world.now;
    for round in 0..120 {
        says(&claims, 0..16, lie(round % 5));
        poll(&mut world, node);
        world.run(Duration::from_secs(29));
    }
    let changed = world.node(node).counters().own_ids_changed;
    let minutes = world.now.since(start).as_secs() / 60;
    assert!((2..=minutes / 10 + 1).contains(&changed), "{changed} ids in {minutes} minutes");
}

#[test]
fn addresses_that_cannot_be_ours_are_not_counted() {
    let (mut world, node, claims) = sixteen_voters(4);
    let votes = stats(&world, node).votes;
    for bad in ["10.0.0.9:6881", "0.0.0.0:6881", "99.9.9.9:0", "224.0.0.1:6881", "[2001:db8::1]:6881"] {
        says(&claims, 0..16, bad.parse().unwrap());
        poll(&mut world, node);
        assert_eq!(stats(&world, node).votes, votes, "{bad}");
    }
    // Nor is what nobody asked for, nor what is no address.
    let unasked = with_ip(b"abcd", lie(1), Body::Response(Response::new(Id::new([7; 20]))));
    world.inject(node, World::v4(1), &unasked);
    let actor = world.add_actor(Box::new(|_, from, message| {
        let mut bytes = b"d2:ip3:abc1:rd2:id20:abcdefghij0123456789e1:t4:".to_vec();
        bytes.extend_from_slice(message.tid);
        bytes.extend_from_slice(b"1:y1:re");
        vec![(from, bytes)]
    }));
    let addr = world.addr(actor);
    world.command(node, Command::AddNode(addr));
    world.run(Duration::from_secs(1));
    assert!(world.node(node).closest(&Id::ZERO, 64).iter().any(|&(_, other)| other == addr));
    assert_eq!(stats(&world, node).votes, votes);
}

#[test]
fn address_of_an_earlier_run_is_kept_with_the_id_that_belongs_to_it() {
    let mut world = World::new(5, Config::default());
    let mut rng = Rng::from_seed(1);
    let local: SocketAddr = "192.168.1.5:6881".parse().unwrap();
    let ip = lie(1).ip();
    for (id, kept) in [(secure_id(ip, &mut rng), true), (rng.id(), false)] {
        let home = Home { external: Some(ip), ..home(id, local) };
        let node = Node::new(Arc::clone(&world.config), vec![home], Seeds::from_u64(1), world.now);
        let stats = node.stats(world.now).remove(0);
        assert_eq!(stats.external, kept.then(|| SocketAddr::new(ip, 0)));
        assert_eq!(node.saved(world.now)[0].id, id);
    }
    // Behind a NAT, the first answers say where we are, and at which port.
    let id = rng.id();
    let node = world.add_node_with(vec![home(id, local)]);
    let outside: SocketAddr = "99.1.2.3:50001".parse().unwrap();
    for n in 1..=9 {
        let own = world.random_id();
        let voter = world.add_actor(Box::new(move |_, from, message| {
            vec![(from, with_ip(message.tid, outside, Body::Response(Response::new(own))))]
        }));
        let addr = world.addr(voter);
        world.command(node, Command::AddNode(addr));
        world.run(Duration::from_secs(1));
        assert_eq!(stats(&world, node).external, (n == 9).then_some(outside), "{n} votes");
    }
    assert!(is_secure(&world.id(node), outside.ip()));
}

/// A crowd of real nodes, and one more whose id belongs nowhere.
fn newcomer(seed: u64) -> (World, usize, Id) {
    let mut world = World::grown(seed, 60, MINUTE);
    let (id, addr) = (world.random_id(), World::v4(60));
    let node = world.add_node_with(vec![home(id, addr)]);
    world.join(node..node + 1, 0);
    (world, node, id)
}

#[test]
fn newcomer_takes_an_id_that_belongs_to_it_and_the_crowd_learns_it() {
    let (mut world, node, old) = newcomer(6);
    world.run(MINUTE);
    let (id, addr) = (world.id(node), world.addr(node));
    assert!(id != old && is_secure(&id, addr.ip()));
    assert_eq!(told(&world, node), [(addr, id)]);
    let counters = world.node(node).counters();
    assert_eq!((counters.own_ids_changed, counters.ids_mismatched), (1, 0));
    let stats = stats(&world, node);
    assert!(stats.nodes >= 30 && stats.insecure == 0, "{stats:?}");
    let bootstrapped = |event: &&(Time, Event)| matches!(event.1, Event::Bootstrapped { .. });
    assert_eq!(world.hosts[node].events.iter().filter(bootstrapped).count(), 1);
    // Its new neighbours know it, and nobody keeps it under the id that it had for a second.
    world.run(20 * MINUTE);
    let knows = |host: usize, id: Id| world.node(host).closest(&id, 1).first() == Some(&(id, addr));
    assert!((1..60).filter(|&host| knows(host, id)).count() >= 20);
    assert_eq!((1..60).filter(|&host| knows(host, old)).count(), 0);
}

#[test]
fn lookups_go_on_under_the_new_id() {
    let (mut world, node, old) = newcomer(7);
    let infohash = world.random_id();
    world.announce(9, infohash, 4444);
    // The votes come with the answers to this very lookup.
    let found = world.announce(node, infohash, 5555);
    assert_eq!((found.outcome, found.peers.len(), found.stored.len()), (Outcome::Converged, 1, 8));
    assert_ne!(world.id(node), old);
    assert!(found.closest.iter().all(|&(id, _)| id != world.id(node)));
}

#[test]
fn table_keeps_its_nodes_when_the_id_changes() {
    let mut world = World::grown(8, 100, 11 * MINUTE);
    let (node, before) = (7, stats(&world, 7));
    assert!(before.nodes >= 60, "{before:?}");
    // Nine nodes turn liars overnight.
    let old = world.id(node);
    let nodes: Vec<_> = world.node(node).closest(&old, 64).into_iter().take(9).collect();
    for (id, addr) in nodes {
        let host = world.by_addr[&addr].0;
        world.hosts[host].kind = Kind::Actor(Box::new(move |_, from, message| {
            vec![(from, with_ip(message.tid, lie(1), Body::Response(Response::new(id))))]
        }));
        world.rearm(host);
        world.command(node, Command::AddNode(addr));
    }
    world.run(Duration::from_millis(200));
    let after = stats(&world, node);
    assert!(after.id != old && after.external == Some(lie(1)));
    // The same nodes around another id: some wait where their bucket is full.
    assert!(after.nodes + after.candidates >= before.nodes, "{before:?} {after:?}");
    world.run(MINUTE);
    let target = world.random_id();
    assert_eq!(world.find_node(node, target).outcome, Outcome::Converged);
}

#[test]
fn each_home_asks_for_its_own_address() {
    let mut world = World::grown(9, 40, MINUTE);
    for index in 40..60 {
        world.add_node_at(&[World::v4(index), World::v6(index)], &[]);
    }
    world.join(40..60, 0);
    for index in 41..60 {
        let router = World::v6(40);
        world.command(index, Command::AddNode(router));
    }
    world.run(MINUTE);
    let addrs = [World::v4(70), World::v4(71), World::v6(72)];
    let homes = addrs.iter().map(|&local| home(world.random_id(), local)).collect();
    let node = world.add_node_with(homes);
    world.join(node..node + 1, 0);
    world.command(node, Command::AddNode(World::v6(40)));
    world.run(5 * MINUTE);
    let stats = world.node(node).stats(world.now);
    for (stats, addr) in stats.iter().zip(addrs) {
        assert_eq!(stats.external, Some(addr));
        assert!(is_secure(&stats.id, addr.ip()), "{stats:?}");
    }
    assert!(stats[0].id != stats[1].id && stats[1].id != stats[2].id);
    assert_eq!(world.node(node).counters().own_ids_changed, 3);
}

/// Nodes that start together all take another id once they hear where they are. Whoever knew them under
/// the first one, and has no router but itself, is left with nobody unless it takes them in again.
#[test]
fn network_whose_nodes_all_change_their_ids_at_the_start_knows_itself() {
    const NODES: usize = 20;
    let mut world = World::new(26, Config::default());
    for n in 0..NODES {
        let id = world.random_id();
        world.add_node_with(vec![home(id, World::v4(n))]);
    }
    world.join(0..NODES, 0);
    world.run(2 * MINUTE);
    for node in 0..NODES {
        let named: Vec<_> = world.node(node).table(world.now).iter().map(|n| (n.id, n.addr)).collect();
        // A router is in no table.
        let others = (1..NODES).filter(|&other| other != node);
        let unknown = others.filter(|&other| !named.contains(&(world.id(other), world.addr(other)))).count();
        assert_eq!((node, unknown), (node, 0), "{named:?} {:?}", world.node(node).counters());
        assert_eq!(world.node(node).counters().own_ids_changed, 1);
    }
}
