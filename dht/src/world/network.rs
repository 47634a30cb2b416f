//! A node whose network goes and comes back (S17, S18, S21).

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use krpc::compact::{Address as _, Contact, V4, put_node};

use super::*;
use crate::{Counters, HomeStats};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
/// The node whose network fails.
const IT: usize = 0;
/// S18: so many good nodes again, within so long.
const ENOUGH: usize = 50;
const SOON: Duration = Duration::from_secs(120);

fn stats(world: &World) -> HomeStats {
    world.node(IT).stats(world.now).remove(0)
}

fn counters(world: &World) -> Counters {
    world.node(IT).counters()
}

/// A node among `count` answerers, which cost nothing while nobody asks them; it knows them well.
fn grown(seed: u64, count: usize) -> World {
    let mut world = World::new(seed, Config::default());
    let mut ids = Rng::from_seed(seed);
    let all: Rc<Vec<_>> = Rc::new((1..=count).map(|host| (ids.id(), World::v4(host))).collect());
    world.add_node(&[]);
    for host in 0..count {
        let all = Rc::clone(&all);
        world.add_actor(Box::new(move |_, from, query| {
            let nodes = target_of(query).map(|target| closest(&all, &target)).unwrap_or_default();
            let response = Response { nodes: Some(&nodes), ..Response::new(all[host].0) };
            vec![(from, reply(query.tid, response))]
        }));
    }
    for (_, addr) in &all[..4] {
        world.command(IT, Command::AddNode(*addr));
    }
    world.run(3 * MINUTE);
    assert!(stats(&world).trusty >= ENOUGH.min(count / 2), "{:?}", stats(&world));
    world
}

/// The records of the eight nearest to `target`.
fn closest(all: &[(Id, SocketAddr)], target: &Id) -> Vec<u8> {
    let mut nearest: Vec<_> = all.iter().collect();
    nearest.sort_by_key(|(id, _)| id.distance(target));
    let mut records = Vec::new();
    for &&(id, addr) in nearest.iter().take(8) {
        put_node(&mut records, &Contact { id, addr: V4::from_socket(addr).unwrap() });
    }
    records
}

// S17
#[test]
fn dead_routers_are_tried_every_1_to_60_seconds_and_met_within_90_when_they_are_back() {
    for seed in 1..=6 {
        let mut world = grown(seed, 60);
        let (asked, works) = (Rc::new(RefCell::new(Vec::new())), Rc::new(Cell::new(false)));
        let mut nodes = Vec::new();
        for (id, addr) in world.node(IT).closest(&Id::ZERO, 8) {
            put_node(&mut nodes, &Contact { id, addr: V4::from_socket(addr).unwrap() });
        }
        let router = {
            let (asked, works) = (Rc::clone(&asked), Rc::clone(&works));
            world.add_actor(Box::new(move |now, from, query| {
                asked.borrow_mut().push(now);
                let response = Response { nodes: Some(&nodes), ..Response::new(Id::new([7; 20])) };
                if works.get() { vec![(from, reply(query.tid, response))] } else { Vec::new() }
            }))
        };
        let node = world.add_node(&[]);
        world.join(node..node + 1, router);
        world.run(15 * MINUTE);
        let times = asked.borrow().clone();
        // An attempt asks a silent router once more; the next one comes at least a second after it began.
        let begun: Vec<Time> = times.chunks(2).map(|attempt| attempt[0]).collect();
        let again = times.chunks_exact(2).map(|attempt| attempt[1].since(attempt[0]));
        assert!(again.into_iter().all(|pause| pause < SECOND / 2), "{times:?}");
        let attempts: Vec<Duration> = begun.windows(2).map(|pair| pair[1].since(pair[0])).collect();
        let latest = &attempts[attempts.len() - 8..];
        assert!(attempts.iter().all(|pause| (SECOND..=61 * SECOND).contains(pause)), "{attempts:?}");
        // It backs off, and not in step with others.
        assert!(attempts[..2].iter().all(|pause| *pause < 10 * SECOND), "{attempts:?}");
        assert!(latest.iter().all(|pause| *pause >= 40 * SECOND), "{attempts:?}");
        assert!(latest.iter().max().unwrap().saturating_sub(*latest.iter().min().unwrap()) > SECOND);
        assert!((20..60).contains(&attempts.len()), "{attempts:?}");

        works.set(true);
        world.run(90 * SECOND);
        let bootstrapped = |event: &(Time, Event)| matches!(event.1, Event::Bootstrapped { .. });
        assert!(world.hosts[node].events.iter().any(bootstrapped), "seed {seed}");
        assert!(world.node(node).stats(world.now)[0].trusty >= 8);
    }
}

// S18
#[test]
fn network_that_goes_and_comes_20_times_costs_no_node() {
    for is_told in [false, true] {
        let mut world = grown(20, 120);
        let removed = counters(&world).nodes_removed;
        for round in 0..20u32 {
            world.hosts[IT].offline = true;
            if is_told {
                world.tell(IT, NetworkChange::Lost);
            }
            // From a few seconds to more than what makes all nodes questionable.
            world.run((round * round * 5 + 3) * SECOND);
            let nodes = stats(&world).nodes;
            world.hosts[IT].offline = false;
            if is_told {
                world.tell(IT, NetworkChange::Changed);
            }
            world.run(SOON);
            let stats = stats(&world);
            assert!(
                stats.trusty >= ENOUGH && stats.nodes >= nodes,
                "round {round}: {stats:?} {nodes} {:?}",
                counters(&world)
            );
            assert!(stats.online);
        }
        let counters = counters(&world);
        assert_eq!(counters.nodes_removed, removed, "nobody left: {counters:?}");
        let losses = if is_told { 20 } else { 5 };
        assert!(counters.timeouts_forgiven > 0 && counters.network_losses >= losses, "{counters:?}");
        assert_eq!(counters.network_changes, if is_told { 20 } else { 0 });
    }
}

// S18
#[test]
fn a_neighbour_on_our_own_machine_does_not_hide_that_the_network_is_gone() {
    let mut world = grown(24, 7);
    let (id, mut addr) = (world.random_id(), world.addr(IT));
    addr.set_port(7000);
    world.add_actor_at(
        addr,
        Box::new(move |_, from, query| vec![(from, reply(query.tid, Response::new(id)))]),
    );
    world.command(IT, Command::AddNode(addr));
    world.run(5 * SECOND);
    assert_eq!(stats(&world).trusty, 8, "all others and the neighbour");

    world.hosts[IT].offline = true;
    world.run(20 * MINUTE);
    assert!(!stats(&world).online, "{:?} {:?}", stats(&world), counters(&world));
    assert_eq!((stats(&world).nodes, counters(&world).nodes_removed), (8, 0));
    world.hosts[IT].offline = false;
    world.run(SOON);
    assert!(stats(&world).online && stats(&world).trusty == 8, "{:?}", stats(&world));
}

#[test]
fn dead_uplink_is_noticed_and_probed_politely() {
    let mut world = grown(21, 120);
    let before = counters(&world);
    world.hosts[IT].offline = true;
    world.run(20 * MINUTE);
    assert!(!stats(&world).online, "{:?}", counters(&world).since(&before));
    let lost = counters(&world).since(&before);
    assert_eq!((lost.network_losses, lost.network_returns, lost.nodes_removed), (1, 0, 0), "{lost:?}");
    let before = counters(&world);
    world.run(10 * MINUTE);
    let sent = counters(&world).since(&before).queries_out;
    assert!((100..2000).contains(&sent), "{sent} queries in ten minutes");
    world.hosts[IT].offline = false;
    world.run(SOON);
    let counters = counters(&world).since(&before);
    assert_eq!((counters.network_returns, counters.nodes_removed), (1, 0));
    assert!(stats(&world).online && stats(&world).trusty >= ENOUGH, "{:?}", stats(&world));
}

#[test]
fn dead_nodes_still_leave_the_table_of_a_node_whose_network_works() {
    let mut world = grown(22, 120);
    (60..=120).for_each(|host| world.kill(host));
    world.run(90 * MINUTE);
    let known = world.node(IT).closest(&Id::ZERO, 200);
    assert!(stats(&world).online && !known.is_empty());
    let living: Vec<SocketAddr> = (0..60).map(|host| world.addr(host)).collect();
    let dead = known.iter().filter(|(_, addr)| !living.contains(addr)).count();
    assert!(dead * 10 <= known.len(), "{dead} of {} are dead", known.len());
    assert!(counters(&world).nodes_removed >= 20, "{:?} {:?}", stats(&world), counters(&world));
}

// S18, S16
#[test]
fn node_at_another_address_is_known_again_within_two_minutes() {
    let mut world = World::grown(23, 70, MINUTE);
    world.hosts[IT].offline = true;
    world.tell(IT, NetworkChange::Lost);
    world.run(MINUTE);
    world.move_to(IT, World::v4(1000));
    world.hosts[IT].offline = false;
    world.tell(IT, NetworkChange::Changed);
    world.run(SOON);
    assert!(stats(&world).trusty >= ENOUGH, "{:?}", stats(&world));
    // Others know it at its new place, so that it is asked and stores again.
    let (id, addr) = (world.id(IT), world.addr(IT));
    let knows = |host: &usize| world.node(*host).closest(&id, 1).first() == Some(&(id, addr));
    let known = (1..70).filter(knows).count();
    assert!(known >= 20, "{known} nodes know it");
}

#[test]
fn change_of_the_network_pings_each_node_once_and_not_in_a_flood() {
    let mut world = grown(24, 120);
    world.run(2 * MINUTE);
    let (before, nodes) = (counters(&world), stats(&world).nodes as u64);
    world.tell(IT, NetworkChange::Changed);
    world.run(SECOND);
    let first = counters(&world).since(&before).queries_out;
    assert!((15..=120).contains(&first), "{first} queries in the first second");
    world.run(MINUTE);
    let all = counters(&world).since(&before);
    assert!(all.queries_out >= nodes && all.timeouts == 0, "{all:?}");
}

// S21: a night in a bag. The wall clock plays no part in the core.
#[test]
fn suspended_node_keeps_its_table_and_none_of_its_tokens() {
    let mut world = grown(25, 120);
    let (infohash, stranger) = (Id::new([9; 20]), SocketAddr::from(([85, 6, 7, 8], 6881)));
    let ask = query(Id::new([1; 20]), get_peers(infohash));
    let token = |sent: &[Vec<u8>]| {
        let answers = sent.iter().map(|bytes| Message::decode(bytes).unwrap().body);
        answers
            .filter_map(|body| if let Body::Response(r) = body { r.token } else { None }.map(<[u8]>::to_vec))
            .next()
    };
    let announce = |token: &[u8]| {
        let announce = Query::AnnouncePeer { infohash, port: 7, implied_port: false, token, seed: false };
        query(Id::new([1; 20]), announce)
    };
    let old = token(&world.inject(IT, stranger, &ask)).unwrap();
    let (before, known) = (counters(&world), stats(&world));

    world.set_asleep(IT, true);
    world.run(8 * 60 * MINUTE);
    world.set_asleep(IT, false);
    world.run(SECOND);
    assert!(stats(&world).nodes >= known.nodes);
    world.inject(IT, stranger, &announce(&old));
    assert!(world.node(IT).store().is_empty(), "a token of the day before is worth nothing");
    let fresh = token(&world.inject(IT, stranger, &ask)).unwrap();
    world.inject(IT, stranger, &announce(&fresh));
    assert_eq!(world.node(IT).store().len(), 1);

    world.run(SOON);
    let woken = counters(&world).since(&before);
    assert!(stats(&world).trusty >= ENOUGH, "{:?} of {known:?}", stats(&world));
    assert_eq!((woken.network_changes, woken.nodes_removed), (1, 0), "{woken:?}");
}

/// Whom the node asks within `span`, and for which place of the key space.
fn asked(world: &mut World, span: Duration) -> Vec<(SocketAddr, Option<Id>)> {
    let (own, end) = (world.addr(IT), world.now + span);
    let mut asked = Vec::new();
    // No packet is on its way for less than 10 ms.
    while world.now < end {
        world.run(Duration::from_millis(9));
        for packet in world.packets.values().filter(|packet| packet.from == own) {
            let message = Message::decode(&packet.bytes).unwrap();
            let question = (packet.to, target_of(&message));
            if matches!(message.body, Body::Query { .. }) && !asked.contains(&question) {
                asked.push(question);
            }
        }
    }
    asked
}

// S21: an answer that has lain in the socket's buffer meanwhile does not show that its sender hears us now.
#[test]
fn who_answered_while_the_node_was_asleep_is_asked_again_when_it_wakes() {
    let mut world = grown(26, 120);
    let known = world.node(IT).table(world.now);
    let questions: Vec<_> = known.iter().map(|node| world.ask_from(IT, node.addr)).collect();
    world.set_asleep(IT, true);
    world.run(MINUTE / 2);
    world.set_asleep(IT, false);
    let before = counters(&world);
    for (node, question) in known.iter().zip(&questions) {
        let tid = Message::decode(question).unwrap().tid;
        world.inject(IT, node.addr, &reply(tid, Response::new(node.id)));
    }
    let woken = counters(&world).since(&before);
    assert_eq!((woken.dropped_unsolicited as usize, woken.replies_spoofed), (known.len(), 0));
    let asked = asked(&mut world, 10 * SECOND);
    for node in known {
        assert!(asked.iter().any(|(to, _)| *to == node.addr), "{node:?}");
    }
}

// S21: what a lookup of the own id heard before the sleep does not stand for one that comes after it.
#[test]
fn own_neighbourhood_is_looked_up_on_waking_whatever_was_under_way_before() {
    let mut world = grown(27, 120);
    for pause in [50, 100, 150, 200, 300, 400] {
        world.tell(IT, NetworkChange::Changed);
        world.run(Duration::from_millis(pause));
        world.set_asleep(IT, true);
        world.run(MINUTE);
        world.set_asleep(IT, false);
        let (own, asked) = (world.id(IT), asked(&mut world, 5 * SECOND));
        let own = asked.iter().filter(|(_, target)| *target == Some(own)).count();
        assert!(own >= 8, "{own} of {} asked for it, {pause} ms after it was looked up", asked.len());
    }
}

/// Nodes that answer and know nobody.
fn answerers(world: &mut World, count: usize) -> Vec<(Id, SocketAddr)> {
    let mut nodes = Vec::new();
    for n in 0..count {
        let (id, addr) = (world.random_id(), World::v4(600 + n));
        world.add_actor_at(
            addr,
            Box::new(move |_, from, query| {
                vec![(from, reply(query.tid, Response { nodes: Some(&[]), ..Response::new(id) }))]
            }),
        );
        nodes.push((id, addr));
    }
    nodes
}

/// A machine whose interfaces come and go, as that of containers, and that knows more dead nodes than it asks at
/// once.
#[test]
fn all_saved_nodes_have_their_turn_however_often_the_network_changes() {
    let mut world = World::new(28, Config::default());
    let mut saved: Vec<_> = (0..60).map(|n| (world.random_id(), World::v4(500 + n))).collect();
    saved.extend(answerers(&mut world, 8));
    let node = world.add_node(&saved);
    for _ in 0..60 {
        world.run(5 * SECOND);
        world.tell(node, NetworkChange::Changed);
    }
    let nodes = world.node(node).stats(world.now)[0].nodes;
    assert!(nodes >= 4, "{nodes} nodes");
}

#[test]
fn whom_a_dead_network_hid_is_asked_at_once_when_there_is_another_one() {
    let mut world = World::new(29, Config::default());
    let saved = answerers(&mut world, 8);
    let node = world.add_node(&saved);
    world.hosts[node].offline = true;
    // All have been asked twice, and the lookup still waits for answers.
    world.run(2 * SECOND);
    world.hosts[node].offline = false;
    world.tell(node, NetworkChange::Changed);
    world.run(SECOND);
    let nodes = world.node(node).stats(world.now)[0].nodes;
    assert_eq!(nodes, 8);
}

#[test]
fn answers_from_the_own_machine_do_not_stand_for_the_network() {
    let mut world = grown(25, 120);
    // Another node behind the same address, which answers whether there is a network or not.
    let (own, id) = (world.addr(IT).ip(), Id::new([9; 20]));
    let neighbour = SocketAddr::new(own, 7000);
    world.run(20 * MINUTE);
    let removed = counters(&world).nodes_removed;
    world.hosts[IT].offline = true;
    for _ in 0..20 {
        world.run(MINUTE);
        let sent = world.ask_from(IT, neighbour);
        let Body::Query { .. } = Message::decode(&sent).unwrap().body else { panic!() };
        let tid = Message::decode(&sent).unwrap().tid.to_vec();
        world.inject(IT, neighbour, &reply(&tid, Response::new(id)));
    }
    assert!(!stats(&world).online);
    assert_eq!(counters(&world).nodes_removed, removed);
}

/// Nodes that start one after the other and take an id of their address when they have heard of it.
fn internet(seed: u64, count: usize) -> World {
    let mut world = World::new(seed, Config::default());
    for host in 0..count {
        add_unsettled(&mut world, host);
        world.run(SECOND / 50);
    }
    world.run(MINUTE / 2);
    world
}

/// A node that does not know its address yet, with host 0 as its router.
fn add_unsettled(world: &mut World, address: usize) -> usize {
    let home = Home { id: world.random_id(), local: World::v4(address), external: None, saved: Vec::new() };
    let node = world.add_node_with(vec![home]);
    world.join(node..node + 1, 0);
    node
}

// S17, S18: nobody of the others looks around any more, so that it finds only whom it looks for.
#[test]
fn node_that_comes_late_to_a_small_network_knows_fifty_of_eighty_within_two_minutes() {
    for seed in [2, 7, 11, 12] {
        let mut world = internet(seed, 80);
        let late = add_unsettled(&mut world, 100);
        world.hosts[late].offline = true;
        world.run(MINUTE / 4);
        for (address, span) in [(100, SOON), (101, SOON)] {
            world.move_to(late, World::v4(address));
            world.hosts[late].offline = false;
            world.tell(late, NetworkChange::Changed);
            world.run(span);
            let stats = world.node(late).stats(world.now).remove(0);
            assert!(stats.trusty >= ENOUGH, "seed {seed}: {stats:?}");
            world.hosts[late].offline = true;
            world.run(MINUTE);
        }
        let sent = world.hosts[late].sent;
        assert!(sent < 2500, "seed {seed}: {sent} datagrams");
    }
}

// S21: nobody holds a node under the id that it had before it learned its address, which would be called
// for in vain.
#[test]
fn node_that_comes_late_is_known_under_its_id_of_its_address_alone() {
    for seed in [2, 7, 11, 12] {
        let mut world = internet(seed, 80);
        let late = add_unsettled(&mut world, 100);
        world.run(SOON);
        let own = (world.id(late), world.addr(late));
        let known: Vec<_> = (0..80)
            .flat_map(|other| world.node(other).table(world.now))
            .filter(|node| node.addr == own.1)
            .map(|node| node.id)
            .collect();
        let stale = known.iter().filter(|&&id| id != own.0).count();
        assert_eq!((known.len() >= ENOUGH, stale), (true, 0), "seed {seed}: {} know it", known.len());
    }
}
