//! Several addresses of one node (BEP 45) and both families in one datagram (BEP 32).

use std::cell::Cell;
use std::rc::Rc;

use krpc::compact::{self, Address, V4, V6, put_peer};

use super::*;
use crate::Class;

const MINUTE: Duration = Duration::from_secs(60);
const N4: Want = Want { n4: true, n6: false };
const N6: Want = Want { n4: false, n6: true };

/// A crowd of twenty nodes of both families, and one with two IPv4 homes and an IPv6 one among them.
fn crowd(seed: u64) -> (World, usize) {
    let mut world = World::new(seed, Config { replies_per_second_per_ip: 0, ..Config::default() });
    for n in 0..20 {
        world.add_node_at(&[World::v4(n), World::v6(n)], &[]);
    }
    let node = world.add_node_at(&[World::v4(20), World::v4(21), World::v6(20)], &[]);
    world.join(1..21, 0);
    world.run(MINUTE);
    (world, node)
}

/// A stranger of the family of the node's home at `socket`.
fn stranger(socket: u8, n: usize) -> SocketAddr {
    if socket < 2 { World::v4(1000 + n) } else { World::v6(1000 + n) }
}

/// Asks at one of the node's sockets with the longest transaction id that is echoed; the socket from which
/// the reply goes to the asker, and the reply.
fn ask(world: &mut World, node: usize, socket: u8, from: SocketAddr, ask: Query<'_>) -> (u8, Vec<u8>) {
    let body = Body::Query { id: Id::new([1; 20]), query: ask };
    let (mut bytes, mut out) = (Vec::new(), Outbox::new());
    Message { tid: &[b't'; 32], version: None, ip: None, read_only: true, body }.encode(&mut bytes);
    let Kind::Node(node) = &mut world.hosts[node].kind else { panic!() };
    node.handle_datagram(world.now, socket, from, &bytes, &mut out);
    let replies: Vec<_> = out.transmits.iter().filter(|sent| sent.class == Class::Reply).collect();
    assert!(replies.len() == 1 && replies[0].to == from && replies[0].len <= 1024, "{replies:?}");
    (replies[0].socket, out.datagram(replies[0]).to_vec())
}

fn response(bytes: &[u8]) -> Response<'_> {
    match Message::decode(bytes).unwrap().body {
        Body::Response(response) => response,
        other => panic!("{other:?}"),
    }
}

fn lookup(infohash: Id, want: Want) -> Query<'static> {
    Query::GetPeers { infohash, want, scrape: false, no_seed: false }
}

fn announce(world: &mut World, node: usize, socket: u8, from: SocketAddr, infohash: Id) {
    let (_, bytes) = ask(world, node, socket, from, lookup(infohash, Want::UNSPECIFIED));
    let token = response(&bytes).token.unwrap().to_vec();
    let query = Query::AnnouncePeer { infohash, port: 7000, implied_port: false, token: &token, seed: false };
    ask(world, node, socket, from, query);
}

fn addrs<A: Address>(records: Option<&[u8]>) -> Vec<(Id, SocketAddr)> {
    let records = records.unwrap_or_default();
    assert!(compact::is_whole_nodes::<A>(records));
    compact::nodes::<A>(records).map(|node| (node.id, node.addr.to_socket())).collect()
}

/// The peers of a reply.
fn values(response: &Response<'_>) -> Vec<SocketAddr> {
    response.values.iter().flat_map(|values| values.iter()).map(|peer| compact::peer(peer).unwrap()).collect()
}

#[test]
fn each_home_answers_for_itself_under_its_own_id() {
    let (mut world, node) = crowd(1);
    let homes = world.node(node).stats(world.now);
    assert!(homes.iter().all(|home| home.nodes >= 15), "{homes:?}");
    let prefix = |a: usize, b: usize| homes[a].id.prefix_len(&homes[b].id);
    assert!(prefix(0, 1).max(prefix(1, 2)).max(prefix(0, 2)) < 21, "BEP 45: far apart");
    for socket in 0..3 {
        let from = stranger(socket, 1);
        let (through, bytes) = ask(&mut world, node, socket, from, Query::Ping);
        assert_eq!(through, socket, "BEP 45: from the address that was asked");
        assert_eq!(response(&bytes).id, homes[usize::from(socket)].id);
        let mut ip = Vec::new();
        put_peer(&mut ip, from);
        assert_eq!(Message::decode(&bytes).unwrap().ip, Some(&ip[..]));
    }
    // Others know each of them as a node of its own.
    for (home, addr) in homes.iter().zip(world.hosts[node].addrs.clone()) {
        let known = (0..20).filter(|&host| world.node(host).closest(&home.id, 9).contains(&(home.id, addr)));
        assert!(known.count() >= 10, "{addr}");
    }
}

#[test]
fn want_is_honoured_in_datagrams_of_either_family() {
    let (mut world, node) = crowd(2);
    let target = world.random_id();
    for socket in 0..3 {
        let is_v4 = socket < 2;
        for (want, v4, v6) in [
            (Want::UNSPECIFIED, is_v4, !is_v4),
            (N4, true, false),
            (N6, false, true),
            (Want::BOTH, true, true),
        ] {
            for query in [Query::FindNode { target, want }, lookup(target, want)] {
                let (_, bytes) = ask(&mut world, node, socket, stranger(socket, 1), query);
                let answer = response(&bytes);
                assert_eq!((answer.nodes.is_some(), answer.nodes6.is_some()), (v4, v6), "{socket} {want:?}");
                let nodes = [addrs::<V4>(answer.nodes), addrs::<V6>(answer.nodes6)];
                let counts = nodes.each_ref().map(Vec::len);
                assert_eq!(counts, [if v4 { 8 } else { 0 }, if v6 { 8 } else { 0 }]);
                // The nearest that the node knows, whichever way they are told.
                let mut known = world.node(node).closest(&target, 64);
                known.sort_by_key(|(id, _)| id.distance(&target));
                known.dedup();
                for (nodes, is_v4) in nodes.iter().zip([true, false]).filter(|(nodes, _)| !nodes.is_empty()) {
                    let of_family = known.iter().filter(|(_, addr)| addr.is_ipv4() == is_v4);
                    let nearest: Vec<_> = of_family.take(12).collect();
                    assert!(nodes.iter().all(|node| nearest.contains(&node)), "{socket} {want:?}");
                }
            }
        }
    }
}

#[test]
fn homes_share_one_store_and_tell_peers_of_the_askers_family_whatever_it_wants() {
    let (mut world, node) = crowd(3);
    let infohash = world.random_id();
    let (first, second, third) = (stranger(0, 1), stranger(1, 2), stranger(2, 3));
    for (socket, from) in [(0, first), (1, second), (2, third)] {
        announce(&mut world, node, socket, from, infohash);
    }
    let port = |addr: SocketAddr| SocketAddr::new(addr.ip(), 7000);
    let (mut v4, v6) = (vec![port(first), port(second)], vec![port(third)]);
    v4.sort();
    // BEP 32: `want` governs nodes, "not the interpretation of values".
    for socket in 0..3 {
        let expected = if socket < 2 { &v4 } else { &v6 };
        for want in [Want::UNSPECIFIED, N4, N6, Want::BOTH] {
            let (_, bytes) = ask(&mut world, node, socket, stranger(socket, 9), lookup(infohash, want));
            let mut peers = values(&response(&bytes));
            peers.sort();
            assert_eq!(peers, *expected, "{socket} {want:?}");
        }
    }
    assert_eq!(world.node(node).store().len(), 3);
}

#[test]
fn no_datagram_is_longer_than_1024_bytes_with_both_families_and_all_peers() {
    let (mut world, node) = crowd(4);
    let infohash = world.random_id();
    for n in 0..150 {
        announce(&mut world, node, 0, stranger(0, n), infohash);
        announce(&mut world, node, 2, stranger(2, n), infohash);
    }
    for socket in 0..3 {
        for want in [Want::UNSPECIFIED, N4, N6, Want::BOTH] {
            for scrape in [false, true] {
                let query = Query::GetPeers { infohash, want, scrape, no_seed: false };
                let (_, bytes) = ask(&mut world, node, socket, stranger(socket, 999), query);
                assert!(bytes.len() <= 1024, "{socket} {want:?} {scrape}: {} bytes", bytes.len());
                let answer = response(&bytes);
                assert_eq!(answer.bloom_peers.is_some(), scrape);
                // It is full of peers, and names the nodes that were asked for.
                assert!(scrape || bytes.len() > 1024 - 80, "{socket} {want:?}: {} bytes", bytes.len());
                assert!(scrape || values(&answer).len() >= 15, "{socket} {want:?}");
                let (v4, v6) = (addrs::<V4>(answer.nodes).len(), addrs::<V6>(answer.nodes6).len());
                let wanted = if want == Want::BOTH && !scrape { 16 } else { 8 };
                assert!(v4 + v6 >= wanted, "{socket} {want:?} {scrape}: {v4} and {v6} nodes");
            }
        }
    }
}

/// Each family's peers come by that family's nodes, to a node that lives in both.
#[test]
fn peers_of_both_families_are_found_through_the_sockets_of_both() {
    let (mut world, node) = crowd(6);
    let infohash = world.random_id();
    let announced = world.announce(3, infohash, 7000);
    assert!(
        announced.stored.iter().any(|node| node.is_ipv4())
            && announced.stored.iter().any(|node| node.is_ipv6())
    );
    let mut expected = world.hosts[3].addrs.clone();
    expected.iter_mut().for_each(|addr| addr.set_port(7000));
    world.hosts[node].events.clear();
    let mut found = world.get_peers(node, infohash).peers;
    found.sort();
    assert_eq!(found, expected);
    for (_, event) in &world.hosts[node].events {
        if let Event::Peer { addr, node, .. } = event {
            assert_eq!(addr.is_ipv4(), node.is_ipv4(), "{addr} was told by {node}");
        }
    }
}

/// BEP 45: a token is for the address that got it, so that it has to come back from there.
#[test]
fn token_goes_back_from_the_home_that_got_it() {
    let mut world = World::new(5, Config::default());
    let (announces, wrong) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let mut saved = Vec::new();
    for _ in 0..10 {
        let own = world.random_id();
        let (announces, wrong) = (Rc::clone(&announces), Rc::clone(&wrong));
        let actor = world.add_actor(Box::new(move |_, from, message| {
            let issued = from.to_string().into_bytes();
            if let Body::Query { query: Query::AnnouncePeer { token, .. }, .. } = message.body {
                announces.set(announces.get() + 1);
                wrong.set(wrong.get() + u32::from(token != issued));
            }
            vec![(from, reply(message.tid, Response { token: Some(&issued), ..Response::new(own) }))]
        }));
        saved.push((own, world.addr(actor)));
    }
    let node = world.add_node_at(&[World::v4(20), World::v4(21)], &saved);
    let infohash = world.random_id();
    let found = world.announce(node, infohash, 4444);
    assert_eq!(found.outcome, Outcome::Converged);
    assert_eq!((announces.get(), wrong.get()), (found.stored.len(), 0));
    assert_eq!(found.stored.len(), 16, "eight for each address");
}
