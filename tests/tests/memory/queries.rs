//! What answering takes from the allocator: nothing. Clocks, sockets and threads are no part of the core, so that
//! this is all that a query could cost beside its work.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use btdht::{Class, Config, Home, Node, Outbox, ReadOnly, Rng, Seeds, Time};
use harness::heap::{Held, peak_of};
use krpc::{Body, Id, Message, Query, Response, Want};

use crate::around::{Around, HERE};

const NOW: Time = Time::from_secs(10_000);
/// Between two queries: the limit of replies to one source is not met.
const PAUSE: Duration = Duration::from_millis(100);
/// Queries of each kind, and those before, after which nothing is new any longer.
const ASKED: u32 = 200;
const BEFORE: u32 = 50;

/// Takes a datagram and replies into the outbox.
type Shard<'a> = &'a mut dyn FnMut(Time, SocketAddr, &[u8], &mut Outbox);

#[test]
fn a_node_answers_what_strangers_ask_most_without_an_allocation() {
    let (mut node, asker) = grown();
    check(asker, &mut |now, from, bytes, out| node.handle_datagram(now, 0, from, bytes, out));
}

#[test]
fn a_satellite_answers_what_strangers_ask_most_without_an_allocation() {
    let (mut node, asker) = grown();
    let mut satellite = node.split(NOW, 1).pop().expect("a satellite");
    let mut out = Outbox::new();
    node.handle_timeout(NOW, &mut out);
    let mut crossings = Vec::with_capacity(8);
    check(asker, &mut |now, from, bytes, out| {
        crossings.clear();
        satellite.handle_datagram(now, (0, from), bytes, (out, &mut crossings));
    });
}

/// A node among a million, and one of those that it knows.
fn grown() -> (Node, (Id, SocketAddr)) {
    let config = Arc::new(Config { read_only: ReadOnly::No, ..Config::default() });
    let id = Rng::from_seed(1).id();
    let home =
        Home { id, local: HERE.into(), external: Some(SocketAddr::from(HERE).ip()), saved: Vec::new() };
    let known = Around::new(1).table_of(&id, NOW);
    let asker = (known[0].id, known[0].addr);
    (Node::grown(config, home, &known, Seeds::from_u64(1), NOW), asker)
}

fn check((id, from): (Id, SocketAddr), shard: Shard<'_>) {
    let mut out = Outbox::new();
    let mut now = NOW;
    let mut again = Vec::with_capacity(2048);
    let infohash = Rng::from_seed(2).id();
    let get_peers = Query::GetPeers { infohash, want: Want::UNSPECIFIED, scrape: false, no_seed: false };
    let reply = ask(shard, now, from, &encode(id, get_peers), &mut out);
    let Body::Response(Response { token: Some(token), .. }) = Message::decode(&reply).unwrap().body else {
        panic!("a token")
    };
    let announce = Query::AnnouncePeer { infohash, port: 6881, implied_port: false, token, seed: false };
    let target = Rng::from_seed(3).id();
    let queries = [
        ("ping", Query::Ping),
        ("find_node", Query::FindNode { target, want: Want::UNSPECIFIED }),
        ("announce_peer", announce),
        ("get_peers", get_peers),
    ];
    for (name, query) in queries {
        let query = encode(id, query);
        for n in 0..BEFORE + ASKED {
            now += PAUSE;
            out.clear();
            let before = Held::now();
            let ((), peak) = peak_of(|| shard(now, from, &query, &mut out));
            let replies = out.transmits.iter().filter(|sent| sent.class == Class::Reply).count();
            assert_eq!(replies, 1, "{name} {n}");
            let reply = out.transmits.iter().find(|sent| sent.class == Class::Reply).unwrap();
            let message = Message::decode(out.datagram(reply)).unwrap();
            let Body::Response(response) = &message.body else { panic!("{name} {n}: {message:?}") };
            assert_eq!(response.values.is_some(), name == "get_peers", "{name} {n}");
            let held = before.since();
            again.clear();
            // The writer checks itself in builds for debugging, for which it takes memory; in others this is 0.
            let ((), writing) = peak_of(|| message.encode(&mut again));
            if n >= BEFORE {
                assert_eq!((peak, held), (writing, Held::default()), "{name} {n}");
            }
        }
    }
}

fn ask(shard: Shard<'_>, now: Time, from: SocketAddr, query: &[u8], out: &mut Outbox) -> Vec<u8> {
    out.clear();
    shard(now, from, query, out);
    let reply = out.transmits.iter().find(|sent| sent.class == Class::Reply).expect("a reply");
    out.datagram(reply).to_vec()
}

fn encode(id: Id, query: Query<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let body = Body::Query { id, query };
    Message { tid: b"abcd", version: None, ip: None, read_only: false, body }.encode(&mut bytes);
    bytes
}
