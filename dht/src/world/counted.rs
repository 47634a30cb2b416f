//! What happens often is counted, each time once.

use super::*;
use crate::item::immutable_target;

const MINUTE: Duration = Duration::from_secs(60);

fn from(n: u8) -> SocketAddr {
    SocketAddr::from(([85, 6, 7, n], 6881))
}

/// Asks the only node; the token that it gives, if any.
fn ask(world: &mut World, from: SocketAddr, ask: Query<'_>) -> Option<Vec<u8>> {
    let sent = world.inject(0, from, &query(Id::new([1; 20]), ask));
    let mut tokens = sent.iter().filter_map(|bytes| match Message::decode(bytes).unwrap().body {
        Body::Response(response) => Some(response.token.map(<[u8]>::to_vec)),
        _ => None,
    });
    tokens.next().expect("an answer")
}

#[test]
fn what_strangers_ask_for_and_what_a_store_loses_is_counted() {
    for satellites in [0, 1] {
        let config = Config {
            peers_per_infohash: 1,
            ports_per_ip: 1,
            max_items: 1,
            scrapes_per_second: 1,
            replies_per_second_per_ip: 0,
            ..Config::default()
        };
        let mut world = World::new(3, config);
        world.add_node(&[]);
        let now = world.now;
        world.act(0, |node, _| drop(node.split(now, satellites)));
        let infohash = world.random_id();
        let peers = |scrape| Query::GetPeers { infohash, want: Want::UNSPECIFIED, scrape, no_seed: false };
        let token = ask(&mut world, from(1), peers(false)).unwrap();
        for (port, n) in [(1, 1), (2, 1), (3, 2)] {
            let token = if n == 1 { token.clone() } else { ask(&mut world, from(n), peers(false)).unwrap() };
            let announce =
                Query::AnnouncePeer { infohash, port, implied_port: false, token: &token, seed: false };
            ask(&mut world, from(n), announce);
            ask(&mut world, from(n), peers(false));
            world.run(MINUTE);
        }
        ask(&mut world, from(3), peers(true));
        ask(&mut world, from(3), peers(true));
        for value in [&b"1:a"[..], b"1:b"] {
            let get = Query::Get { target: immutable_target(value), seq: None, want: Want::UNSPECIFIED };
            let token = ask(&mut world, from(1), get).unwrap();
            ask(&mut world, from(1), Query::Put { token: &token, value, signed: None });
        }
        let counters = world.node(0).counters();
        assert_eq!((counters.get_peers_hits, counters.get_peers_misses), (6, 1), "{satellites} satellites");
        assert_eq!(counters.scrapes_withheld, 1);
        assert_eq!((counters.peers_evicted, counters.items_evicted), (2, 1), "a port, a peer, an item");
        assert_eq!((counters.peers_expired, counters.items_expired), (0, 0));
        world.run(180 * MINUTE);
        let counters = world.node(0).counters();
        assert_eq!((counters.peers_expired, counters.items_expired), (1, 1), "{satellites} satellites");
        assert_eq!((counters.peers_evicted, counters.items_evicted), (2, 1));
    }
}

#[test]
fn what_a_node_does_for_its_table_is_counted() {
    let mut world = World::grown(5, 30, MINUTE);
    let before = world.node(5).counters();
    assert!(before.address_votes > 0 && before.address_votes <= before.replies_in + before.errors_in);
    assert!(before.lookups_of_upkeep > 0 && before.lookups_started == 0, "{before:?}");
    let target = world.random_id();
    world.find_node(5, target);
    let after = world.node(5).counters();
    assert_eq!((after.lookups_started, after.lookups_of_upkeep), (1, before.lookups_of_upkeep));
    let stranger = query(Id::new([77; 20]), Query::Ping);
    for _ in 0..3 {
        world.inject(5, from(9), &stranger);
    }
    assert_eq!(world.node(5).counters().since(&after).newcomers_pinged, 1, "once a minute");
}
