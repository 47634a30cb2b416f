//! S4 (D2): what a node that knows and stores all that it may sends for each kind of query, in bytes per
//! byte of the query, which may come from a forged source.

use super::*;
use crate::item::{MutableItem, SecretKey, immutable_target, mutable_target};

const VICTIM: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(85, 6, 7, 8)), 6881);

/// A node that knows eight nodes for every target, and has a full infohash, samples and the largest items.
struct Full {
    world: World,
    infohash: Id,
    immutable: Vec<u8>,
    mutable: MutableItem,
}

/// The largest value of an item: 1,000 bytes with its length.
fn largest() -> Vec<u8> {
    [b"996:".to_vec(), vec![b'x'; 996]].concat()
}

fn full() -> Full {
    let mut world = World::grown(4, 60, Duration::from_secs(60));
    let infohash = world.random_id();
    let immutable = largest();
    let mutable = MutableItem::sign(&SecretKey::from_seed(&[1; 32]), &[b's'; 64], 7, &largest()).unwrap();
    let mut full = Full { world, infohash, immutable, mutable };
    for n in 0..400u16 {
        let from = SocketAddr::from(([86, (n >> 8) as u8, n as u8, 1], 6881));
        // Every tenth of another torrent, for samples.
        let infohash = if n % 10 == 0 { full.world.random_id() } else { infohash };
        let token = full.token(from, get_peers(infohash));
        let announce =
            Query::AnnouncePeer { infohash, port: 7, implied_port: false, token: &token, seed: false };
        assert!(full.ask(from, announce).1.is_some());
    }
    let puts = [(full.immutable.clone(), None), (full.mutable.value.clone(), Some(full.mutable.clone()))];
    for (value, mutable) in puts {
        let signed = mutable.as_ref().map(|item| item.as_signed(None));
        let target = signed.map_or_else(|| immutable_target(&value), |s| mutable_target(s.key, s.salt));
        let token = full.token(VICTIM, Query::Get { target, seq: None, want: Want::UNSPECIFIED });
        full.ask(VICTIM, Query::Put { token: &token, value: &value, signed });
    }
    assert_eq!((full.world.node(5).store().len(), full.world.node(5).store().items()), (400, 2));
    full.world.run(Duration::from_secs(30));
    full
}

impl Full {
    /// Asks; the length of the query, and the answer, which is not a ping of a curious node.
    fn ask(&mut self, from: SocketAddr, ask: Query<'_>) -> (usize, Option<Vec<u8>>) {
        let (asked, sent) = self.send(from, ask);
        let is_answer = |sent: &Vec<u8>| !matches!(Message::decode(sent).unwrap().body, Body::Query { .. });
        (asked, sent.into_iter().find(is_answer))
    }

    /// Asks; the length of the query, and all that is sent to whoever asked.
    fn send(&mut self, from: SocketAddr, ask: Query<'_>) -> (usize, Vec<Vec<u8>>) {
        let bytes = query(Id::new([1; 20]), ask);
        (bytes.len(), self.world.inject(5, from, &bytes))
    }

    fn token(&mut self, from: SocketAddr, ask: Query<'_>) -> Vec<u8> {
        let answer = self.ask(from, ask).1.unwrap();
        let Body::Response(response) = Message::decode(&answer).unwrap().body else { panic!() };
        response.token.unwrap().to_vec()
    }
}

#[test]
fn replies_are_at_most_twelve_times_their_query_and_four_times_on_average() {
    let mut full = full();
    let (infohash, unknown) = (full.infohash, Id::new([0x77; 20]));
    let (value, item) = (full.immutable.clone(), full.mutable.clone());
    let (immutable, mutable) = (immutable_target(&value), mutable_target(&item.key, &item.salt));
    let token = full.token(VICTIM, get_peers(infohash));
    let (token_i, token_m) = {
        let get = |target| Query::Get { target, seq: None, want: Want::UNSPECIFIED };
        (full.token(VICTIM, get(immutable)), full.token(VICTIM, get(mutable)))
    };
    let peers =
        |infohash, scrape| Query::GetPeers { infohash, want: Want::UNSPECIFIED, scrape, no_seed: false };
    let announce =
        |port, implied_port, token| Query::AnnouncePeer { infohash, port, implied_port, token, seed: false };
    let newer = MutableItem::sign(&SecretKey::from_seed(&[1; 32]), &item.salt, 8, b"1:a").unwrap();
    let (want, seq) = (Want::UNSPECIFIED, None);
    // The queries of BEP 5, 32, 33, 44 and 51, once each.
    let queries = [
        Query::Ping,
        find_node(unknown),
        Query::FindNode { target: unknown, want: Want::BOTH },
        peers(infohash, false),
        peers(infohash, true),
        peers(unknown, false),
        peers(unknown, true),
        announce(6881, false, &token),
        announce(6881, true, &token),
        announce(6881, false, b"aoeusnth"),
        announce(0, false, &token),
        Query::SampleInfohashes { target: unknown, want },
        Query::Get { target: immutable, seq, want },
        Query::Get { target: mutable, seq, want },
        Query::Get { target: mutable, seq: Some(7), want },
        Query::Get { target: unknown, seq, want },
        Query::Put { token: &token_i, value: &value, signed: None },
        Query::Put { token: &token_m, value: &newer.value, signed: Some(newer.as_signed(Some(7))) },
        Query::Put { token: &token_m, value: &item.value, signed: Some(item.as_signed(None)) },
        Query::Put { token: b"aoeusnth", value: &value, signed: None },
        Query::Other { method: b"vote", target: None, want },
        Query::Other { method: b"vote", target: Some(unknown), want },
    ];
    let (mut bytes_in, mut bytes_out, mut most) = (0, 0, 0.0f64);
    // Whoever asks for the first time may be pinged besides, once a minute.
    let stranger = SocketAddr::from(([85, 6, 7, 9], 6881));
    let (_, sent) = full.send(stranger, Query::Ping);
    assert_eq!(sent.len(), 2, "an answer and a ping");
    bytes_out += sent[1].len();
    for ask in queries {
        let (asked, answer) = full.ask(VICTIM, ask);
        let answer = answer.unwrap_or_else(|| panic!("no answer to {ask:?}"));
        let times = answer.len() as f64 / asked as f64;
        let most_of_kind = match Message::decode(&answer).unwrap().body {
            Body::Error(_) => 2.0,
            _ => 12.0,
        };
        assert!(times <= most_of_kind, "{times:.1} times {ask:?}");
        most = most.max(times);
        // A put brings more bytes than any reply has; whoever wants amplification sends none.
        if !matches!(ask, Query::Put { .. }) {
            bytes_in += asked;
            bytes_out += answer.len();
        }
    }
    assert!(bytes_out <= 4 * bytes_in, "{bytes_out} bytes for {bytes_in}");
    println!("at most {most:.1} times, {:.1} on average", bytes_out as f64 / bytes_in as f64);
    // It has something to say: the limits were near.
    assert!(most >= 9.0, "at most {most:.1} times");
}

#[test]
fn errors_are_at_most_twice_what_they_answer_or_silence() {
    let mut world = World::grown(4, 20, Duration::from_secs(60));
    // The shortest that can be answered would be answered with 41 bytes.
    assert!(world.inject(5, VICTIM, b"d1:t2:aa1:y1:qe").is_empty());
    let mut answered = 0;
    for length in 1..60 {
        let method = vec![b'x'; length];
        let start = format!("d1:ade1:q{length}:").into_bytes();
        let malformed = [&start[..], &method, b"1:t2:aa1:y1:qe"].concat();
        for sent in world.inject(5, VICTIM, &malformed) {
            assert!(sent.len() <= 2 * malformed.len(), "{} for {}", sent.len(), malformed.len());
            answered += 1;
        }
        world.run(Duration::from_millis(100));
    }
    assert!(answered > 30, "{answered}");
}
