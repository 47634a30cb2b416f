//! Floods on one node: garbage from a thousand sources (S5), one source that asks without end (S6), one that
//! announces without end (S11). The same with real sockets is in `tests/tests/serving/floods.rs`.

use std::net::Ipv4Addr;

use super::*;

const HONEST: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(81, 2, 3, 4)), 6881);
const GREEDY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(85, 6, 7, 8)), 6881);

fn lone() -> World {
    let mut world = World::new(1, Config::default());
    world.add_node(&[]);
    world
}

/// The answers, without the pings of a curious node.
fn answers(sent: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let is_answer = |bytes: &Vec<u8>| !matches!(Message::decode(bytes).unwrap().body, Body::Query { .. });
    sent.into_iter().filter(is_answer).collect()
}

fn is_answered(sent: Vec<Vec<u8>>) -> bool {
    let answers = answers(sent);
    answers.iter().any(|bytes| matches!(Message::decode(bytes).unwrap().body, Body::Response(_)))
}

/// S5, at 100,000 datagrams a second of virtual time: every honest ping is answered, the garbage never.
#[test]
fn garbage_from_a_thousand_sources_gets_silence_and_honest_pings_their_answers() {
    let mut world = lone();
    let mut rng = Rng::from_seed(5);
    let ping = query(Id::new([1; 20]), Query::Ping);
    let (mut honest, mut garbage) = (0, Vec::new());
    let datagrams = 200_000u32;
    for n in 0..datagrams {
        let from = SocketAddr::from((Ipv4Addr::from(0x5a00_0000 + n % 1000 * 256), 6881));
        garbage.resize(1 + rng.below(600), 0);
        rng.fill(&mut garbage);
        // A half of it begins and ends like a message.
        if n % 2 == 0 {
            garbage[0] = b'd';
            *garbage.last_mut().unwrap() = b'e';
        }
        assert!(world.inject(0, from, &garbage).is_empty());
        if n % 5000 == 0 {
            honest += u32::from(is_answered(world.inject(0, HONEST, &ping)));
        }
        if n % 100 == 0 {
            world.run(Duration::from_millis(1));
        }
    }
    assert_eq!(honest, datagrams / 5000);
    let counters = world.node(0).counters();
    assert_eq!(counters.replies_out, u64::from(honest));
    assert!(counters.dropped_undecodable > 40_000 && counters.dropped_not_dictionary > 40_000);
}

/// S6, at 10,000 `get_peers` a second for five seconds; D3: 25 a second, a burst of 50, and no block.
#[test]
fn one_source_gets_25_replies_a_second_and_another_all_of_its_own() {
    let mut world = lone();
    let (mut greedy, mut honest) = ([0; 5], 0);
    let ask = query(Id::new([1; 20]), get_peers(Id::new([9; 20])));
    for n in 0..50_000usize {
        greedy[n / 10_000] += u32::from(is_answered(world.inject(0, GREEDY, &ask)));
        // The other one asks 20 times a second.
        if n % 500 == 0 {
            honest += u32::from(is_answered(world.inject(0, HONEST, &ask)));
        }
        world.run(Duration::from_micros(100));
    }
    assert_eq!(honest, 100);
    assert!((70..=75).contains(&greedy[0]), "{greedy:?}");
    assert!(greedy[1..].iter().all(|&replies| (24..=25).contains(&replies)), "{greedy:?}");
    // Two seconds of peace, and it has a whole burst again.
    world.run(Duration::from_secs(2));
    assert_eq!((0..100).filter(|_| is_answered(world.inject(0, GREEDY, &ask))).count(), 50);
}

/// S11 (D5), with tokens got honestly and the rate limit lifted, which would allow an hour of announces.
#[test]
fn one_source_keeps_500_infohashes_of_100_000_and_others_still_store() {
    let mut world = World::new(11, Config { replies_per_second_per_ip: 0, ..Config::default() });
    world.add_node(&[]);
    let mut rng = Rng::from_seed(11);
    let mut announce = |world: &mut World, from: SocketAddr| {
        let infohash = rng.id();
        let sent = answers(world.inject(0, from, &query(Id::new([1; 20]), get_peers(infohash))));
        let Body::Response(response) = Message::decode(&sent[0]).unwrap().body else { panic!() };
        // Whoever has its share gets no token any more; it tries with any.
        let token = response.token.unwrap_or(b"deadbeef");
        let ask = Query::AnnouncePeer { infohash, port: 7, implied_port: false, token, seed: false };
        let bytes = query(Id::new([1; 20]), ask);
        is_answered(world.inject(0, from, &bytes))
    };
    for n in 0..100_000 {
        announce(&mut world, GREEDY);
        if n % 1000 == 0 {
            world.run(Duration::from_millis(100));
        }
    }
    let store = world.node(0).store();
    assert!((450..=500).contains(&store.infohashes()), "{}", store.infohashes());
    assert!(store.memory() <= 2 << 20, "{} bytes", store.memory());
    for n in 0..100 {
        assert!(announce(&mut world, World::v4(n + 1)), "another source is refused");
    }
    assert!(world.node(0).store().infohashes() >= 550);
}
