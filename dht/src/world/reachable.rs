//! Nodes that strangers cannot reach become read-only by themselves (BEP 43, DECISIONS.md 8).

use std::cell::Cell;
use std::rc::Rc;

use super::*;
use crate::{Reachability, ReadOnly};

const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

/// A node behind a NAT that joins a crowd of forty; which counts as large enough.
fn hidden(seed: u64, config: Config) -> (World, usize) {
    let mut world = World::grown(seed, 40, MINUTE);
    world.config = Arc::new(Config { reach_min_network: 0, ..config });
    let node = world.add_node(&[]);
    world.hosts[node].firewall = Some(BTreeMap::new());
    world.join(node..node + 1, 0);
    (world, node)
}

fn state(world: &World, node: usize) -> Reachability {
    world.node(node).stats(world.now)[0].reachability
}

/// Others whose table holds the node.
fn known_to(world: &World, node: usize) -> usize {
    let (id, addr) = (world.id(node), world.addr(node));
    let knows = |&host: &usize| world.node(host).closest(&id, 64).contains(&(id, addr));
    (0..40).filter(knows).count()
}

/// Whether the node says in its queries that it answers none.
fn says_so(world: &mut World, node: usize) -> bool {
    let mut out = Outbox::new();
    let (now, to) = (world.now, World::v4(3));
    let Kind::Node(node) = &mut world.hosts[node].kind else { panic!() };
    node.handle_command(now, Command::Ask { to, question: crate::Question::Ping }, &mut out);
    Message::decode(out.datagram(&out.transmits[0])).unwrap().read_only
}

/// What a stranger whom it never asked gets for a ping, as through a port that was opened.
fn answers(world: &mut World, node: usize, stranger: usize) -> bool {
    let sent = world.inject(node, World::v4(stranger), &query(Id::new([1; 20]), Query::Ping));
    sent.iter().any(|bytes| matches!(Message::decode(bytes).unwrap().body, Body::Response(_)))
}

#[test]
fn hidden_node_is_read_only_but_for_five_minutes_in_thirty() {
    let (mut world, node) = hidden(1, Config::default());
    let begun = world.now;
    let mut seen = vec![(0, Reachability::Unknown)];
    while world.now.since(begun) < 75 * MINUTE {
        world.run(SECOND);
        let state = state(&world, node);
        if seen.last().is_none_or(|&(_, last)| last != state) {
            seen.push((world.now.since(begun).as_secs() / 60, state));
            let silent = state == Reachability::ReadOnly;
            assert_eq!(says_so(&mut world, node), silent);
        }
        if world.now.since(begun) == 34 * MINUTE {
            assert_eq!(known_to(&world, node), 0, "others do not keep whom they cannot reach");
        }
        if world.now.since(begun) == 38 * MINUTE {
            assert!(known_to(&world, node) >= 20, "a probe is heard of");
        }
    }
    use Reachability::{Probing, ReadOnly, Unknown};
    let expected =
        [(0, Unknown), (10, ReadOnly), (35, Probing), (40, ReadOnly), (65, Probing), (70, ReadOnly)];
    assert_eq!(seen, expected);
    // It finds what it looks for all the same.
    let infohash = world.random_id();
    world.announce(7, infohash, 4444);
    assert_eq!(world.get_peers(node, infohash).peers.len(), 1);
}

#[test]
fn stranger_who_gets_through_ends_it_at_once() {
    let (mut world, node) = hidden(2, Config::default());
    world.run(12 * MINUTE);
    assert_eq!(state(&world, node), Reachability::ReadOnly);
    // One of the crowd that was asked lately proves nothing and gets no answer; a stranger does both.
    let asked = world.node(node).closest(&Id::ZERO, 1)[0].1;
    world.command(node, Command::AddNode(asked));
    world.run(SECOND);
    world.inject(node, asked, &query(Id::new([1; 20]), Query::Ping));
    assert_eq!(state(&world, node), Reachability::ReadOnly);
    assert!(answers(&mut world, node, 999));
    let stats = world.node(node).stats(world.now).remove(0);
    assert_eq!((stats.reachability, stats.last_unsolicited), (Reachability::Reachable, Some(Duration::ZERO)));
    assert!(!says_so(&mut world, node));
    // Ten minutes later it is as hidden as before.
    world.run(9 * MINUTE);
    assert_eq!(state(&world, node), Reachability::Reachable);
    assert_eq!(world.node(node).stats(world.now)[0].last_unsolicited, Some(9 * MINUTE));
    world.run(MINUTE);
    assert_eq!(state(&world, node), Reachability::ReadOnly);
}

#[test]
fn settings_and_local_addresses_overrule_it() {
    let yes = Config { read_only: ReadOnly::Yes, ..Config::default() };
    let (mut world, node) = hidden(3, yes);
    assert!(says_so(&mut world, node) && !answers(&mut world, node, 998));
    world.run(40 * MINUTE);
    assert_eq!((state(&world, node), known_to(&world, node)), (Reachability::ReadOnly, 0));
    for config in [
        Config { read_only: ReadOnly::No, ..Config::default() },
        Config { allow_local: true, ..Config::default() },
    ] {
        let (mut world, node) = hidden(4, config);
        for _ in 0..40 {
            world.run(MINUTE);
            assert_eq!(state(&world, node), Reachability::Unknown);
        }
        assert!(!says_so(&mut world, node) && answers(&mut world, node, 998));
    }
}

#[test]
fn small_network_does_not_fall_silent() {
    let mut world = World::grown(5, 40, 60 * MINUTE);
    assert!((0..40).all(|node| !says_so(&mut world, node)));
    assert!((1..40).all(|node| world.node(node).stats(world.now)[0].nodes >= 20));
}

#[test]
fn each_home_is_judged_by_who_reaches_it() {
    let mut world = World::new(6, Config { reach_min_network: 0, ..Config::default() });
    let node = world.add_node_at(&[World::v4(0), World::v4(1), World::v6(2)], &[]);
    world.run(9 * MINUTE);
    world.inject_at(node, 1, World::v4(50), &query(Id::new([1; 20]), Query::Ping));
    world.run(2 * MINUTE);
    let states: Vec<_> = world.node(node).stats(world.now).iter().map(|home| home.reachability).collect();
    assert_eq!(states, [Reachability::ReadOnly, Reachability::Reachable, Reachability::ReadOnly]);
    // The setting of an owner holds for all of them.
    let now = world.now;
    for (setting, silent) in [(ReadOnly::No, false), (ReadOnly::Yes, true), (ReadOnly::Auto, false)] {
        world.act(node, |node, _| node.set_read_only(now, setting));
        let answers = |world: &mut World, socket, from| {
            let sent = world.inject_at(node, socket, from, &query(Id::new([1; 20]), Query::Ping));
            sent.iter().any(|bytes| matches!(Message::decode(bytes).unwrap().body, Body::Response(_)))
        };
        assert_eq!(answers(&mut world, 0, World::v4(60)), !silent);
        assert_eq!(answers(&mut world, 2, World::v6(60)), !silent);
    }
}

/// Who answers and says that it answers nobody (`ro`) is of no use to those to whom it would be named.
#[test]
fn node_that_became_read_only_leaves_the_table_when_it_answers() {
    let mut world = World::new(5, Config::default());
    let shy = Rc::new(Cell::new(false));
    let (id, is_shy) = (world.random_id(), Rc::clone(&shy));
    let actor = world.add_actor(Box::new(move |_, from, message| {
        let mut bytes = Vec::new();
        if matches!(message.body, Body::Query { .. }) {
            let body = Body::Response(Response { nodes: Some(b""), ..Response::new(id) });
            Message { tid: message.tid, version: None, ip: None, read_only: is_shy.get(), body }
                .encode(&mut bytes);
        }
        vec![(from, bytes)]
    }));
    let node = world.add_node(&[]);
    let addr = world.addr(actor);
    world.command(node, Command::AddNode(addr));
    world.run(SECOND);
    assert_eq!(world.node(node).closest(&Id::ZERO, 9), [(id, addr)]);
    shy.set(true);
    // It is asked again at the latest when it is questionable.
    world.run(17 * MINUTE);
    assert_eq!(world.node(node).closest(&Id::ZERO, 9), []);
    shy.set(false);
    world.command(node, Command::AddNode(addr));
    world.run(SECOND);
    assert_eq!(world.node(node).closest(&Id::ZERO, 9), [(id, addr)], "it answers everybody again");
}

/// Who left the table, comes back and is read-only has nobody to bring us together with.
#[test]
fn missing_node_that_comes_back_read_only_starts_no_reunion() {
    /// Pings and lookups that it gets from the node that missed it.
    fn asked_on_return(is_shy: bool) -> (u32, u32) {
        let mut world = World::new(8, Config { drop_after_failures: 1, ..Config::default() });
        for _ in 0..20 {
            world.add_node(&[]);
        }
        world.join(1..20, 0);
        let (id, node) = (world.random_id(), world.addr(5));
        let (mute, shy) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(false)));
        let asked = Rc::new(Cell::new((0, 0)));
        let (is_mute, read_only, count) = (Rc::clone(&mute), Rc::clone(&shy), Rc::clone(&asked));
        let actor = world.add_actor(Box::new(move |_, from, message| {
            let mut bytes = Vec::new();
            let Body::Query { query, .. } = &message.body else { return Vec::new() };
            // Nobody else gets to know it.
            if is_mute.get() || from != node {
                return Vec::new();
            }
            let (pings, lookups) = count.get();
            let is_ping = matches!(query, Query::Ping);
            count.set((pings + u32::from(is_ping), lookups + u32::from(!is_ping)));
            let body = Body::Response(Response { nodes: Some(b""), ..Response::new(id) });
            let read_only = read_only.get();
            Message { tid: message.tid, version: None, ip: None, read_only, body }.encode(&mut bytes);
            vec![(from, bytes)]
        }));
        let addr = world.addr(actor);
        world.command(5, Command::AddNode(addr));
        world.run(MINUTE);
        mute.set(true);
        world.run(60 * MINUTE);
        assert!(world.node(5).closest(&id, 64).iter().all(|&(_, other)| other != addr), "it is missing");
        mute.set(false);
        shy.set(is_shy);
        asked.set((0, 0));
        world.run(40 * MINUTE);
        asked.get()
    }
    let ((pings, lookups), (others, reunions)) = (asked_on_return(true), asked_on_return(false));
    assert!(pings > 0 && others > 0 && reunions > 0, "{pings} {others} {reunions}");
    assert_eq!(lookups, 0);
}
