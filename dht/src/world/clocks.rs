//! S21: a node whose clock goes back a day. Ours does not (`net/clock.rs`), but a core takes what time it
//! is given.

use krpc::Signed;

use super::*;
use crate::item::{MutableItem, SecretKey, immutable_target, mutable_target};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// The node whose clock it is.
const IT: usize = 7;
const INFOHASH: Id = Id::new([9; 20]);
const VALUE: &[u8] = b"5:value";

/// Each question comes from somebody else, whose share of replies is untouched.
fn stranger(n: u8) -> SocketAddr {
    ([85, 6, n, 8], 6881).into()
}

#[track_caller]
/// What `IT` answers to `from`.
fn ask(world: &mut World, from: SocketAddr, ask: Query<'_>) -> Vec<u8> {
    let sent = world.inject(IT, from, &query(Id::new([1; 20]), ask));
    let is_query = |bytes: &Vec<u8>| matches!(Message::decode(bytes).unwrap().body, Body::Query { .. });
    sent.into_iter()
        .find(|bytes| !is_query(bytes))
        .unwrap_or_else(|| panic!("an answer: {:?}", world.node(IT).counters()))
}

fn response(bytes: &[u8]) -> Response<'_> {
    match Message::decode(bytes).unwrap().body {
        Body::Response(response) => response,
        other => panic!("{other:?}"),
    }
}

fn token(world: &mut World, from: SocketAddr, target: Id) -> Vec<u8> {
    response(&ask(world, from, get_peers(target))).token.unwrap().to_vec()
}

fn get(target: Id) -> Query<'static> {
    Query::Get { target, seq: None, want: Want::UNSPECIFIED }
}

/// How many peers and which values it tells a new stranger.
fn told(world: &mut World, n: u8, mutable: Id) -> (usize, [Option<Vec<u8>>; 2]) {
    let peers = response(&ask(world, stranger(n), get_peers(INFOHASH))).values.map_or(0, |some| some.len());
    let values = [immutable_target(VALUE), mutable]
        .map(|target| response(&ask(world, stranger(n), get(target))).value.map(<[u8]>::to_vec));
    (peers, values)
}

#[test]
fn clock_that_goes_back_a_day_costs_a_node_neither_nodes_nor_tokens_nor_what_it_stores() {
    let mut world = World::new(21, Config::default());
    world.now += 2 * DAY;
    for _ in 0..60 {
        world.add_node(&[]);
    }
    world.join(1..60, 0);
    world.run(5 * MINUTE);

    let item = MutableItem::sign(&SecretKey::from_seed(&[1; 32]), b"salt", 4, b"3:old").unwrap();
    let mutable = mutable_target(&item.key, &item.salt);
    let put = |world: &mut World, from, value: &[u8], signed: Option<Signed<'_>>, target| {
        let token = token(world, from, target);
        response(&ask(world, from, Query::Put { token: &token, value, signed }));
    };
    put(&mut world, stranger(1), VALUE, None, immutable_target(VALUE));
    put(&mut world, stranger(1), &item.value, Some(item.as_signed(None)), mutable);
    let announce =
        |token| Query::AnnouncePeer { infohash: INFOHASH, port: 7, implied_port: false, token, seed: false };
    let first = token(&mut world, stranger(1), INFOHASH);
    response(&ask(&mut world, stranger(1), announce(&first)));
    let second = token(&mut world, stranger(2), INFOHASH);
    let known = (1, [Some(VALUE.to_vec()), Some(b"3:old".to_vec())]);
    assert_eq!(told(&mut world, 3, mutable), known);
    let before = world.node(IT).counters();
    let nodes = world.node(IT).saved(world.now).remove(0).nodes;
    assert!(nodes.len() >= 30);

    world.set_back(IT, DAY);
    world.run(4 * MINUTE);
    response(&ask(&mut world, stranger(2), announce(&second)));
    assert_eq!(told(&mut world, 4, mutable), (2, known.1.clone()), "a token of four minutes ago is good");

    // Lookups work, and what they meet is taken in.
    let found = world.find_node(IT, Id::new([3; 20]));
    assert_eq!(found.closest, world.truth((1..60).filter(|&host| host != IT), &Id::new([3; 20]), 8));
    world.run(30 * MINUTE);
    let passed = world.node(IT).counters().since(&before);
    assert_eq!((passed.nodes_removed, passed.network_losses), (0, 0), "{passed:?}");
    let later = world.node(IT).saved(world.clock(IT)).remove(0).nodes;
    assert!(nodes.iter().all(|node| later.contains(node)), "{} of {}", later.len(), nodes.len());
    assert_eq!(told(&mut world, 5, mutable), (2, known.1.clone()), "no mass expiry");

    // Newer versions and peers come in as ever, and a token of before is old by now.
    let newer = MutableItem::sign(&SecretKey::from_seed(&[1; 32]), b"salt", 5, b"3:new").unwrap();
    put(&mut world, stranger(6), &newer.value, Some(newer.as_signed(Some(4))), mutable);
    let third = token(&mut world, stranger(6), INFOHASH);
    response(&ask(&mut world, stranger(6), announce(&third)));
    let known = (3, [Some(VALUE.to_vec()), Some(b"3:new".to_vec())]);
    assert_eq!(told(&mut world, 7, mutable), known);
    let refused = ask(&mut world, stranger(1), announce(&first));
    assert!(matches!(Message::decode(&refused).unwrap().body, Body::Error(_)));
}
