//! One node and strangers' datagrams: what each gets in answer (BEP 5; S8, S10, S12).

use std::net::{IpAddr, Ipv4Addr};

use krpc::compact::V4;
use krpc::compact::nodes;

use super::*;

const STRANGER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(85, 6, 7, 8)), 6881);

fn lone() -> World {
    let mut world = World::new(1, Config { replies_per_second_per_ip: 0, ..Config::default() });
    world.add_node(&[]);
    world
}

/// The reply among what a node sent.
fn answer(sent: &[Vec<u8>]) -> Option<Message<'_>> {
    let mut answers = sent.iter().map(|bytes| Message::decode(bytes).unwrap());
    answers.find(|message| !matches!(message.body, Body::Query { .. }))
}

fn code(sent: &[Vec<u8>]) -> Option<i64> {
    match answer(sent)?.body {
        Body::Error(error) => Some(error.code),
        _ => None,
    }
}

fn token(world: &mut World, from: SocketAddr, infohash: Id) -> Vec<u8> {
    let sent = world.inject(0, from, &query(Id::new([1; 20]), get_peers(infohash)));
    let Some(Message { body: Body::Response(response), .. }) = answer(&sent) else { panic!() };
    response.token.unwrap().to_vec()
}

fn announce(infohash: Id, port: i64, implied_port: bool, token: &[u8]) -> Vec<u8> {
    query(Id::new([1; 20]), Query::AnnouncePeer { infohash, port, implied_port, token, seed: false })
}

#[test]
fn ping_is_answered_with_id_version_and_the_askers_address() {
    let mut world = lone();
    let sent = world.inject(0, STRANGER, b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe");
    let message = answer(&sent).unwrap();
    assert_eq!(message.tid, b"aa");
    assert_eq!(message.version, Some(&b"bd\x00\x01"[..]));
    assert_eq!(message.ip, Some(&[85, 6, 7, 8, 0x1a, 0xe1][..]));
    assert!(!message.read_only);
    assert_eq!(message.body, Body::Response(Response::new(world.id(0))));
}

#[test]
fn malformed_queries_get_203_unknown_methods_204_and_the_rest_silence() {
    let mut world = lone();
    let mut ask = |bytes: &[u8]| code(&world.inject(0, STRANGER, bytes));
    // find_node without target; get_peers with a short infohash; announce_peer without token.
    assert_eq!(ask(b"d1:ad2:id20:abcdefghij0123456789e1:q9:find_node1:t2:aa1:y1:qe"), Some(203));
    assert_eq!(
        ask(b"d1:ad2:id20:abcdefghij01234567899:info_hash3:abce1:q9:get_peers1:t2:aa1:y1:qe"),
        Some(203)
    );
    assert_eq!(ask(b"d1:ade1:q4:ping1:t2:aa1:y1:qe"), Some(203));
    assert_eq!(ask(b"d1:ad2:id20:abcdefghij0123456789e1:q4:vote1:t2:aa1:y1:qe"), Some(204));
    assert_eq!(ask(b"d1:ad2:id20:abcdefghij0123456789e1:q4:vote1:t0:1:y1:qe"), None);
    assert_eq!(ask(b"d1:ad2:id20:abcdefghij0123456789e1:q4:vote1:t2:aa1:y1:xe"), None);
    assert_eq!(ask(b"dddddddddddddddddddddddddddddddddddde"), None);
    assert_eq!(ask(b"d1:eli201e5:Errore1:t2:aa1:y1:ee"), None);
    // A method that is not known but has a target is treated as find_node (BEP 5, see Query::Other).
    let other = b"d1:ad2:id20:abcdefghij01234567896:target20:mnopqrstuvwxyz123456e1:q4:vote1:t2:aa1:y1:qe";
    assert!(matches!(answer(&world.inject(0, STRANGER, other)).unwrap().body, Body::Response(_)));
}

#[test]
fn transaction_ids_of_up_to_32_bytes_are_echoed() {
    let mut world = lone();
    for len in [1, 2, 4, 8, 20, 32, 33, 200] {
        let tid = vec![b'x'; len];
        let mut bytes = Vec::new();
        let body = Body::Query { id: Id::new([1; 20]), query: Query::Ping };
        Message { tid: &tid, version: None, ip: None, read_only: false, body }.encode(&mut bytes);
        let sent = world.inject(0, STRANGER, &bytes);
        let echoed = answer(&sent).map(|message| message.tid.to_vec());
        assert_eq!(echoed, (len <= 32).then_some(tid), "{len}");
    }
}

#[test]
fn find_node_names_the_closest_known_nodes() {
    let mut world = World::grown(2, 60, Duration::from_secs(60));
    let target = world.random_id();
    let sent = world.inject(5, STRANGER, &query(Id::new([1; 20]), find_node(target)));
    let Some(Message { body: Body::Response(response), .. }) = answer(&sent) else { panic!() };
    let named: Vec<_> = nodes::<V4>(response.nodes.unwrap()).map(|node| node.id).collect();
    let known: Vec<_> = world.node(5).closest(&target, 8).iter().map(|node| node.0).collect();
    assert_eq!(named, known);
    assert_eq!(named.len(), 8);
    assert!(response.token.is_none() && response.nodes6.is_none());
}

#[test]
fn get_peers_for_an_unknown_infohash_gives_nodes_and_a_token() {
    let mut world = World::grown(3, 30, Duration::from_secs(60));
    let sent = world.inject(5, STRANGER, &query(Id::new([1; 20]), get_peers(Id::new([9; 20]))));
    let Some(Message { body: Body::Response(response), .. }) = answer(&sent) else { panic!() };
    assert_eq!(response.nodes.map(<[u8]>::len), Some(8 * 26));
    assert_eq!(response.token.map(<[u8]>::len), Some(8));
    assert!(response.values.is_none());
    // An empty table says so.
    let mut world = lone();
    let sent = world.inject(0, STRANGER, &query(Id::new([1; 20]), get_peers(Id::new([9; 20]))));
    let Some(Message { body: Body::Response(response), .. }) = answer(&sent) else { panic!() };
    assert_eq!(response.nodes, Some(&b""[..]));
}

// S8
#[test]
fn token_is_good_only_for_its_address_and_infohash_and_for_ten_minutes() {
    let mut world = lone();
    let infohash = Id::new([9; 20]);
    let token = token(&mut world, STRANGER, infohash);
    let try_it = |world: &mut World, from: SocketAddr, infohash, token: &[u8]| {
        code(&world.inject(0, from, &announce(infohash, 7000, false, token)))
    };
    assert_eq!(try_it(&mut world, "85.6.7.9:6881".parse().unwrap(), infohash, &token), Some(203));
    assert_eq!(try_it(&mut world, STRANGER, Id::new([8; 20]), &token), Some(203));
    assert_eq!(try_it(&mut world, STRANGER, infohash, &token[..7]), Some(203));
    assert_eq!(try_it(&mut world, STRANGER, infohash, b""), Some(203));
    assert!(world.node(0).store().is_empty());
    assert_eq!(world.node(0).counters().tokens_refused, 4);
    assert_eq!(try_it(&mut world, STRANGER, infohash, &token), None);
    // Another port of the same address is fine (NAT), and so is a token younger than five minutes.
    assert_eq!(try_it(&mut world, "85.6.7.8:9".parse().unwrap(), infohash, &token), None);
    world.run(Duration::from_secs(299));
    assert_eq!(try_it(&mut world, STRANGER, infohash, &token), None);
    world.run(Duration::from_secs(302));
    assert_eq!(try_it(&mut world, STRANGER, infohash, &token), Some(203));
}

#[test]
fn eleventh_bad_token_in_a_minute_gets_silence_and_a_good_one_still_works() {
    let mut world = lone();
    let infohash = Id::new([9; 20]);
    let token = token(&mut world, STRANGER, infohash);
    let bad: Vec<_> = (0..15)
        .map(|_| code(&world.inject(0, STRANGER, &announce(infohash, 7000, false, b"wrong"))))
        .collect();
    assert_eq!(bad.iter().filter(|code| **code == Some(203)).count(), 10);
    let sent = world.inject(0, STRANGER, &announce(infohash, 7000, false, &token));
    assert!(matches!(answer(&sent).unwrap().body, Body::Response(_)));
}

// S12
#[test]
fn ports_that_cannot_be_are_refused_and_nothing_is_stored() {
    let mut world = lone();
    let infohash = Id::new([9; 20]);
    let token = token(&mut world, STRANGER, infohash);
    for port in [0, -1, 65_536, 65_616, i64::MAX, i64::MIN] {
        let sent = world.inject(0, STRANGER, &announce(infohash, port, false, &token));
        assert_eq!(code(&sent), Some(203), "{port}");
    }
    let mut missing = b"d1:ad2:id20:abcdefghij01234567899:info_hash20:".to_vec();
    missing.extend_from_slice(infohash.as_bytes());
    missing.extend_from_slice(b"5:token8:");
    missing.extend_from_slice(&token);
    missing.extend_from_slice(b"e1:q13:announce_peer1:t2:aa1:y1:qe");
    assert_eq!(code(&world.inject(0, STRANGER, &missing)), Some(203));
    assert!(world.node(0).store().is_empty());
    // With implied_port the source port of the datagram counts, whatever `port` says.
    for port in [0, -1, 7000] {
        let sent = world.inject(0, STRANGER, &announce(infohash, port, true, &token));
        assert!(matches!(answer(&sent).unwrap().body, Body::Response(_)));
    }
    let stored: Vec<_> = world.node(0).store().iter(world.now).map(|stored| stored.addr).collect();
    assert_eq!(stored, [STRANGER]);
}

// S10
#[test]
fn source_stores_eight_ports_and_a_reply_stays_within_its_bounds() {
    let mut world = World::grown(4, 60, Duration::from_secs(60));
    let infohash = Id::new([9; 20]);
    let mut rng = Rng::from_seed(1);
    // A crowd of sources with ten ports each, on a node that knows many nodes.
    for n in 0..200u8 {
        let from = SocketAddr::from(([86, 1, n, 1], 6881));
        let token = {
            let sent = world.inject(5, from, &query(rng.id(), get_peers(infohash)));
            let Some(Message { body: Body::Response(response), .. }) = answer(&sent) else { panic!() };
            response.token.unwrap().to_vec()
        };
        for port in 1..=10 {
            world.inject(5, from, &announce(infohash, port, false, &token));
        }
    }
    assert_eq!(world.node(5).store().len(), 1600);
    // One source alone with 1,500 ports.
    let (alone, other) = (SocketAddr::from(([87, 1, 1, 1], 6881)), Id::new([8; 20]));
    let sent = world.inject(5, alone, &query(rng.id(), get_peers(other)));
    let Some(Message { body: Body::Response(response), .. }) = answer(&sent) else { panic!() };
    let token = response.token.unwrap().to_vec();
    for port in 1..=1500 {
        world.run(Duration::from_millis(40));
        world.inject(5, alone, &announce(other, port, false, &token));
    }
    assert_eq!(world.node(5).store().len(), 1608);
    for tid_len in [2, 32] {
        let tid = vec![b't'; tid_len];
        let want = Want::BOTH;
        let ask = Query::GetPeers { infohash, want, scrape: false, no_seed: false };
        let mut bytes = Vec::new();
        let body = Body::Query { id: Id::new([1; 20]), query: ask };
        Message { tid: &tid, version: None, ip: None, read_only: false, body }.encode(&mut bytes);
        let sent = world.inject(5, STRANGER, &bytes);
        let len = sent.iter().map(Vec::len).max().unwrap();
        assert!((900..=1024).contains(&len), "{len}");
        assert!(len <= 12 * bytes.len());
        let Some(Message { body: Body::Response(response), .. }) = answer(&sent) else { panic!() };
        let values = response.values.unwrap().len();
        assert!((60..=100).contains(&values), "{values}");
    }
}

#[test]
fn scrape_gets_filters_of_seeds_and_downloaders() {
    let mut world = lone();
    let infohash = Id::new([9; 20]);
    let token = token(&mut world, STRANGER, infohash);
    world.inject(0, STRANGER, &announce(infohash, 7000, false, &token));
    let scrape = Query::GetPeers { infohash, want: Want::BOTH, scrape: true, no_seed: false };
    let sent = world.inject(0, STRANGER, &query(Id::new([1; 20]), scrape));
    let Some(Message { body: Body::Response(response), .. }) = answer(&sent) else { panic!() };
    let peers = krpc::bloom::Bloom::from_slice(response.bloom_peers.unwrap()).unwrap();
    assert!(peers.contains(STRANGER.ip()));
    assert_eq!(response.bloom_seeds.unwrap(), [0; 256]);
    assert!(sent[0].len() <= 1024);
    // Filters cost us much: forged sources get a hundred a second of them in all, and peers otherwise.
    let mut with_filters = 1;
    for n in 1..=200 {
        let sent = world.inject(0, World::v4(n), &query(Id::new([1; 20]), scrape));
        let Some(Message { body: Body::Response(response), .. }) = answer(&sent) else { panic!() };
        with_filters += usize::from(response.bloom_peers.is_some());
        assert!(response.values.is_some());
    }
    assert_eq!(with_filters, 100);
}

#[test]
fn one_source_gets_its_share_of_replies_and_others_theirs() {
    let mut world = World::new(5, Config::default());
    world.add_node(&[]);
    let ping = query(Id::new([1; 20]), Query::Ping);
    let asked = (0..1000).filter(|_| answer(&world.inject(0, STRANGER, &ping)).is_some()).count();
    assert_eq!(asked, 50);
    assert!(answer(&world.inject(0, World::v4(9), &ping)).is_some());
    assert_eq!(world.node(0).counters().dropped_rate_limit, 950);
}
