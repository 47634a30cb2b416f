//! Replies of a node in both families are answers whatever is asked and however long its parts are: no longer
//! than a datagram may be (BEP 32, "Maximum packet size"), and never silence.

use krpc::compact;

use super::*;
use crate::Class;
use crate::item::{MutableItem, SecretKey, immutable_target, mutable_target};

/// A crowd of dual-stack nodes under `config`, of which the first knows the others and has peers of `stored`
/// infohashes.
fn crowd(config: Config, count: usize, stored: usize) -> World {
    let mut world = World::new(9, Config { replies_per_second_per_ip: 0, scrapes_per_second: 0, ..config });
    for n in 0..count {
        world.add_node_at(&[World::v4(n), World::v6(n)], &[]);
    }
    world.join(1..count, 0);
    world.run(Duration::from_secs(60));
    for n in 0..stored {
        let infohash = world.random_id();
        announce(&mut world, stranger(u8::from(n % 2 == 1), n), infohash);
    }
    world
}

fn stranger(socket: u8, n: usize) -> SocketAddr {
    if socket == 0 { World::v4(1000 + n) } else { World::v6(1000 + n) }
}

fn encoded(tid: &[u8], query: Query<'_>) -> Vec<u8> {
    let body = Body::Query { id: Id::new([1; 20]), query };
    let mut bytes = Vec::new();
    Message { tid, version: None, ip: None, read_only: true, body }.encode(&mut bytes);
    bytes
}

/// Asks the first node at one of its sockets; its only reply.
fn ask(world: &mut World, from: SocketAddr, tid: &[u8], query: Query<'_>) -> Vec<u8> {
    let (bytes, mut out) = (encoded(tid, query), Outbox::new());
    let Kind::Node(node) = &mut world.hosts[0].kind else { panic!() };
    node.handle_datagram(world.now, u8::from(from.is_ipv6()), from, &bytes, &mut out);
    let replies: Vec<_> = out.transmits.iter().filter(|sent| sent.class == Class::Reply).collect();
    assert_eq!(replies.len(), 1, "silence to {query:?} from {from} with a tid of {}", tid.len());
    out.datagram(replies[0]).to_vec()
}

fn response(bytes: &[u8]) -> Response<'_> {
    match Message::decode(bytes).unwrap().body {
        Body::Response(response) => response,
        other => panic!("{other:?}"),
    }
}

fn announce(world: &mut World, from: SocketAddr, infohash: Id) {
    let bytes = ask(world, from, b"aa", get_peers(infohash));
    let token = response(&bytes).token.unwrap().to_vec();
    let query = Query::AnnouncePeer { infohash, port: 7000, implied_port: false, token: &token, seed: false };
    ask(world, from, b"aa", query);
}

/// What a reply has: nodes of the asker's family, of the other one, infohashes.
struct Parts {
    own: usize,
    other: usize,
    samples: usize,
    len: usize,
}

/// Asks and looks at what every reply has to have.
fn parts(world: &mut World, from: SocketAddr, tid_len: usize, query: Query<'_>) -> Parts {
    let bytes = ask(world, from, &vec![b't'; tid_len], query);
    let (longest, message) = (world.config.max_datagram, Message::decode(&bytes).unwrap());
    assert!(bytes.len() <= longest, "{} bytes to {query:?}", bytes.len());
    assert_eq!(message.ip.and_then(compact::peer), Some(from), "BEP 42");
    let response = response(&bytes);
    let count = |records: Option<&[u8]>, len| {
        let records = records.unwrap_or_default();
        assert_eq!(records.len() % len, 0);
        records.len() / len
    };
    let (v4, v6) = (count(response.nodes, 26), count(response.nodes6, 38));
    let (own, other) = if from.is_ipv4() { (v4, v6) } else { (v6, v4) };
    Parts { own, other, samples: count(response.samples, 20), len: bytes.len() }
}

/// What shorter lengths of parts save beside the parts.
const DIGITS: usize = 6;

const TIDS: [usize; 5] = [1, 2, 4, 20, 32];

fn peers_of(infohash: Id, want: Want, scrape: bool) -> Query<'static> {
    Query::GetPeers { infohash, want, scrape, no_seed: false }
}

/// BEP 51 with BEP 32: eight nodes of each family and twenty infohashes are 18 bytes too many.
#[test]
fn sampling_with_both_families_is_answered_with_all_that_fits() {
    let mut world = crowd(Config::default(), 20, 40);
    let (target, before) = (world.random_id(), world.node(0).counters());
    for socket in [0, 1] {
        for tid_len in TIDS {
            let query = Query::SampleInfohashes { target, want: Want::BOTH };
            let parts = parts(&mut world, stranger(socket, 99), tid_len, query);
            assert_eq!((parts.own, parts.samples), (8, 20), "{socket} {tid_len}");
            assert!((5..8).contains(&parts.other), "{socket} {tid_len}: {} of the other family", parts.other);
        }
        // Whoever asks for one family gets all of it.
        let query = Query::SampleInfohashes { target, want: Want::UNSPECIFIED };
        let parts = parts(&mut world, stranger(socket, 99), 32, query);
        assert_eq!((parts.own, parts.other, parts.samples), (8, 0, 20));
    }
    let counted = world.node(0).counters().since(&before);
    assert_eq!((counted.dropped_too_long, counted.replies_shortened), (0, 2 * TIDS.len() as u64));
}

#[test]
fn nodes_of_both_families_fit_what_else_is_asked() {
    let mut world = crowd(Config::default(), 20, 1);
    let infohash = world.node(0).store().sample_infohashes(1, &mut Rng::from_seed(1))[0];
    for socket in [0, 1] {
        for tid_len in TIDS {
            let from = stranger(socket, 99);
            for query in [
                Query::FindNode { target: infohash, want: Want::BOTH },
                Query::Other { method: b"vote", target: Some(infohash), want: Want::BOTH },
                Query::Get { target: infohash, seq: None, want: Want::BOTH },
                peers_of(infohash, Want::BOTH, false),
            ] {
                let parts = parts(&mut world, from, tid_len, query);
                assert_eq!((parts.own, parts.other), (8, 8), "{query:?}");
            }
            // Filters take half of a datagram.
            let parts = parts(&mut world, from, tid_len, peers_of(infohash, Want::BOTH, true));
            assert_eq!(parts.own, 8);
        }
    }
}

/// Whatever the settings allow, nobody is mute by it.
#[test]
fn any_k_and_any_number_of_samples_leave_an_answer() {
    for (k, max_samples, max_datagram) in [(16, 20, 1024), (64, 1000, 1024), (64, 40, 512), (8, 36, 600)] {
        let mut world = crowd(Config { k, max_samples, max_datagram, ..Config::default() }, 60, 60);
        let target = world.random_id();
        let infohash = world.node(0).store().sample_infohashes(1, &mut Rng::from_seed(1))[0];
        for socket in [0, 1] {
            let (from, record) = (stranger(socket, 99), if socket == 0 { 26 } else { 38 });
            for (tid_len, want) in
                [(2, Want::UNSPECIFIED), (32, Want::UNSPECIFIED), (2, Want::BOTH), (32, Want::BOTH)]
            {
                let which = format!("k {k}, {max_samples} samples, {max_datagram} bytes: {socket} {want:?}");
                let found = parts(&mut world, from, tid_len, Query::FindNode { target, want });
                assert!(
                    found.own == k.min(60) || found.len + record + DIGITS > max_datagram,
                    "{which}: {}",
                    found.own
                );
                let told = parts(&mut world, from, tid_len, Query::SampleInfohashes { target, want });
                assert_eq!(told.own, 8, "{which}");
                assert!(told.samples > 0, "{which}");
                assert!(
                    told.samples == max_samples || told.len + 20 + DIGITS > max_datagram,
                    "{which}: {}",
                    told.samples
                );
                for scrape in [false, true] {
                    let peers = parts(&mut world, from, tid_len, peers_of(infohash, want, scrape));
                    assert_eq!(peers.own, 8, "{which}");
                }
            }
        }
        assert_eq!(world.node(0).counters().dropped_too_long, 0);
    }
}

/// A query of a few bytes is worth no more than twelve times them, and what is left out for that is counted
/// as what it is.
#[test]
fn reply_too_long_for_its_query_is_shortened_and_an_error_counted() {
    let mut world = crowd(Config { max_amplification: 2, ..Config::default() }, 20, 0);
    let target = world.random_id();
    let short = parts(&mut world, stranger(0, 99), 2, Query::FindNode { target, want: Want::UNSPECIFIED });
    assert!((1..8).contains(&short.own), "{} nodes", short.own);
    let before = world.node(0).counters();
    assert!(world.inject(0, stranger(0, 99), b"d1:t2:aa1:y1:qe").is_empty());
    let counted = world.node(0).counters().since(&before);
    assert_eq!((counted.dropped_too_long, counted.dropped_rate_limit), (1, 0));
}

/// However little may be sent for a `get`, it is answered: with the item where that fits, and else without.
#[test]
fn item_that_is_too_long_for_its_query_is_left_out_of_an_answer() {
    for max_amplification in [1, 2, 3, 4, 6, 12] {
        let unlimited = Config { items_per_ip: 0, signature_checks_per_second: 0, ..Config::default() };
        let mut world = crowd(Config { max_amplification, ..unlimited }, 12, 0);
        let secret = SecretKey::from_seed(&[1; 32]);
        for len in (10..900).step_by(7) {
            let value = [format!("{len}:").into_bytes(), vec![b'x'; len]].concat();
            let item = MutableItem::sign(&secret, format!("{len}").as_bytes(), i64::MAX - 7, &value).unwrap();
            let mutable = mutable_target(&item.key, &item.salt);
            for (target, signed) in [(mutable, Some(item.as_signed(None))), (immutable_target(&value), None)]
            {
                let get = Query::Get { target, seq: None, want: Want::UNSPECIFIED };
                let token = response(&ask(&mut world, stranger(0, 1), b"aa", get)).token.unwrap().to_vec();
                let put = Query::Put { token: &token, value: &value, signed };
                response(&ask(&mut world, stranger(0, 1), b"aa", put));
                for (socket, tid_len) in [(0, 1), (0, 2), (0, 32), (1, 2), (1, 32)] {
                    let (from, tid) = (stranger(socket, 99), vec![b't'; tid_len]);
                    let before = world.node(0).counters().replies_shortened;
                    let bytes = ask(&mut world, from, &tid, get);
                    let most = max_amplification * encoded(&tid, get).len();
                    assert!(bytes.len() <= most, "{} bytes for {most}", bytes.len());
                    let told = response(&bytes);
                    let shortened = world.node(0).counters().replies_shortened - before;
                    assert!(shortened == 1 || told.value.is_some() && shortened == 0, "{len} {most}");
                    let which = format!("{len} bytes, {max_amplification} times, {from}, {tid_len}");
                    assert_eq!(told.token.map(<[u8]>::len), Some(8), "{which}");
                    assert!(told.value.is_none_or(|told| told == value), "{which}");
                    assert_eq!(told.value.is_some() && signed.is_some(), told.signature.is_some(), "{which}");
                    // A key, a signature, a version and the bare reply are less than 240 bytes.
                    assert!(told.value.is_some() || value.len() + 240 > most, "{which}");
                    let nodes = told.nodes.or(told.nodes6).unwrap_or_default();
                    assert!(told.value.is_some() || most < 300 || nodes.len() >= 26 * 3, "{which}");
                }
            }
        }
        assert_eq!(world.node(0).counters().dropped_too_long, 0);
    }
}
