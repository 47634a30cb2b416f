//! A node and its satellites, stepped by hand: what crosses shards.

mod split;

use std::time::Duration;

use krpc::{Body, Id, Message, Query, Want};

use self::split::{INFOHASH, Split, answer_to, encode, get_peers, response, stranger, unlimited};
use super::*;
use crate::secure_id::secure_id;
use crate::store::{Archive, StoredPeer};
use crate::{Class, Command, Config, Event, Outcome, ReadOnly, Rng};

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn an_announce_at_one_shard_is_found_at_all() {
    let mut split = Split::new(unlimited(), 2);
    for announcer in 0..3 {
        let from = stranger(announcer as u16);
        let token = split.token((announcer + 1) % 3, from);
        assert!(split.announce(announcer, from, &token));
        for shard in 0..3 {
            assert_eq!(split.peers(shard, stranger(50)), announcer + 1, "{announcer} at {shard}");
        }
    }
    assert_eq!((split.node.kept().counts().peers, split.node.store().len()), (3, 0));
    assert_eq!(split.counters().announces_stored, 3);
}

#[test]
fn tokens_are_good_at_every_shard_and_across_a_rotation() {
    let mut split = Split::new(unlimited(), 1);
    let tokens = [split.token(0, stranger(1)), split.token(1, stranger(2))];
    let rotation = Config::default().token_rotation;
    split.wait(rotation);
    // Fresh ones are known everywhere as soon as they leave, and the last ones still are.
    let fresh = [split.token(0, stranger(3)), split.token(1, stranger(4))];
    assert!(split.announce(1, stranger(3), &fresh[0]) && split.announce(0, stranger(4), &fresh[1]));
    assert!(split.announce(1, stranger(1), &tokens[0]) && split.announce(0, stranger(2), &tokens[1]));
    split.wait(rotation);
    for shard in 0..2 {
        assert!(
            !split.announce(shard, stranger(1), &tokens[0])
                && !split.announce(shard, stranger(2), &tokens[1])
        );
        assert!(split.announce(shard, stranger(3), &fresh[0]));
    }
}

#[test]
fn answers_that_come_to_another_shard_complete_the_lookup() {
    let mut split = Split::new(Config::default(), 2);
    let mut rng = Rng::from_seed(9);
    let ids: Vec<Id> = (0..6).map(|n| secure_id(stranger(n).ip(), &mut rng)).collect();
    let somebody = (0..6).map(stranger).collect();
    split.node.handle_command(split.now, Command::Routers(somebody), &mut split.out);
    let target = rng.id();
    split.node.handle_command(split.now, Command::FindNode { target, trace: false }, &mut split.out);
    let done = (0..100).find_map(|_| {
        let sent = split.take_sent();
        split.now += 10 * MILLISECOND;
        for (n, (to, class, query)) in sent.into_iter().enumerate() {
            let Some(id) = (0..6).find(|&n| stranger(n) == to).map(|n| ids[usize::from(n)]) else { continue };
            assert_eq!(class, Class::Query);
            // Never to the shard that asked.
            let crossings = split.give_and_keep(1 + n % 2, to, &answer_to(&query, id));
            assert!(matches!(crossings[..], [Crossing::Datagram { is_answer: true, .. }]), "{crossings:?}");
            for crossing in crossings {
                split.node.handle_crossing(split.now, crossing, &mut split.out);
            }
        }
        split.node.handle_timeout(split.now, &mut split.out);
        split.events.append(&mut split.out.events);
        split.events.iter().find_map(|event| match event {
            Event::Done { outcome, closest, .. } => Some((*outcome, closest.len())),
            _ => None,
        })
    });
    assert_eq!(done, Some((Outcome::Converged, 6)));
    assert!(split.node.counters().replies_in >= 6);
    assert_eq!(
        split.counters().datagrams_in,
        split.node.counters().datagrams_in,
        "counted where it is handled"
    );
}

#[test]
fn what_satellites_answer_from_is_old_by_a_tenth_of_a_second_at_most() {
    let mut split = Split::new(unlimited(), 1);
    split.wait(SECOND);
    let mut rng = Rng::from_seed(2);
    let mut stale = 0;
    for n in 0..8 {
        split.teach(stranger(n), secure_id(stranger(n).ip(), &mut rng));
        let known = usize::from(n) + 1;
        assert_eq!(split.nodes(0), known);
        stale += usize::from(split.nodes(1) < known);
        assert!(split.node.timeout().since(split.now) <= 100 * MILLISECOND || split.nodes(1) == known);
        split.wait(100 * MILLISECOND);
        assert_eq!(split.nodes(1), known, "node {n}");
        split.now += 3 * MILLISECOND;
    }
    assert!(stale > 0, "copies are made now and then, not at every change");
}

#[test]
fn a_split_node_sleeps_while_nothing_happens() {
    let mut split = Split::new(unlimited(), 1);
    split.wait(2 * SECOND);
    let (mut wakes, end) = (0, split.now + MINUTE);
    while split.node.timeout() < end {
        split.now = split.node.timeout();
        split.node.handle_timeout(split.now, &mut split.out);
        split.take_sent();
        wakes += 1;
    }
    assert!(wakes < 200, "{wakes} in a minute: a sweep a second, and the bootstrap's retries");
}

#[test]
fn one_source_gets_from_all_shards_what_it_would_get_from_one() {
    let mut split = Split::new(Config::default(), 2);
    let mut replies = 0;
    for step in 0..10_000u16 {
        split.now += MILLISECOND;
        // The kernel spreads the ports of a source over the shards.
        let from = ([81, 2, 3, 4], 1000 + step).into();
        replies += usize::from(split.ask(usize::from(step) % 3, from, Query::Ping).is_some());
        if step % 50 == 0 {
            let honest = stranger(step / 50 % 10);
            assert!(split.ask(usize::from(step / 50) % 3, honest, Query::Ping).is_some());
        }
    }
    // Ten seconds: a burst of 50 and 25 a second.
    assert!((298..=301).contains(&replies), "{replies}");
    assert_eq!(split.counters().dropped_rate_limit, 10_000 - replies as u64);
}

#[test]
fn all_shards_together_send_the_bytes_of_one() {
    let rate = 200_000;
    let mut split = Split::new(Config { reply_bytes_per_second: rate, ..unlimited() }, 3);
    let (mut bytes, mut longest) = (0, 0);
    for step in 0..40_000u32 {
        split.now += MILLISECOND / 4;
        // First a load on all shards, then on two, then on one: no shard has a share of its own.
        let shard = step as usize % (split.shards() - step as usize / 14_000);
        if let Some(reply) = split.ask(shard, stranger(step as u16), Query::Ping) {
            bytes += reply.len();
            longest = longest.max(reply.len());
        }
    }
    let (ten_seconds, burst) = (10 * rate as usize, rate as usize / 4);
    assert!(bytes <= ten_seconds + burst + longest, "{bytes}");
    assert!(bytes >= ten_seconds, "{bytes}");
}

#[test]
fn failed_tokens_filters_and_amplification_are_limited_over_all_shards() {
    let mut split = Split::new(unlimited(), 2);
    let bad = |n: u16| Query::AnnouncePeer {
        infohash: Id::new([n as u8; 20]),
        port: 1,
        implied_port: false,
        token: b"notatokn",
        seed: false,
    };
    let told = (0..30).filter(|&n| split.ask(usize::from(n) % 3, stranger(1), bad(n)).is_some()).count();
    assert_eq!(told, 10, "then silence");

    let token = split.token(1, stranger(2));
    assert!(split.announce(1, stranger(2), &token));
    let scrape =
        Query::GetPeers { infohash: INFOHASH, want: Want::UNSPECIFIED, scrape: true, no_seed: false };
    let asked = encode(scrape).len();
    let mut filters = 0;
    for n in 0..300 {
        let reply = split.ask(usize::from(n) % 3, stranger(n), scrape).expect("a reply");
        filters += usize::from(response(&reply).bloom_seeds.is_some());
        assert!(reply.len() <= 12 * asked);
    }
    assert_eq!(filters, 100, "in one second");
}

#[test]
fn newcomers_that_ask_a_satellite_are_pinged_within_the_budget_of_words() {
    let mut split = Split::new(unlimited(), 1);
    let sent = split.give(1, stranger(1), &encode(Query::Ping));
    let classes: Vec<_> = sent.iter().map(|(to, class, _)| (*to, *class)).collect();
    assert_eq!(classes, [(stranger(1), Class::Reply), (stranger(1), Class::Query)]);

    let (mut told, mut answered) = (0, 0);
    for n in 0..10_000 {
        let crossings = split.give_and_keep(1, stranger(n), &encode(Query::Ping));
        told += crossings.len();
        answered += split.take_sent().len();
        split.now += MILLISECOND / 10;
    }
    assert_eq!(answered, 10_000);
    assert!((310..=352).contains(&told), "{told} in a second");
}

#[test]
fn a_lost_crossing_is_counted_and_harms_nobody_else() {
    let mut split = Split::new(unlimited(), 1);
    split.node.handle_command(split.now, Command::AddNode(stranger(1)), &mut split.out);
    let (.., ping) = split.take_sent().pop().expect("a ping");
    let id = secure_id(stranger(1).ip(), &mut Rng::from_seed(1));
    let crossings = split.give_and_keep(1, stranger(1), &answer_to(&ping, id));
    crossings.iter().for_each(|crossing| split.satellites[0].lost(crossing));
    assert_eq!((split.counters().crossings_dropped, split.counters().datagrams_in), (1, 1));
    // As if the answer had been lost on its way.
    split.wait(Config::default().query_timeout);
    assert_eq!((split.node.counters().timeouts, split.node.table(split.now).len()), (1, 0));
    let token = split.token(1, stranger(2));
    assert!(split.announce(0, stranger(2), &token) && split.peers(1, stranger(3)) == 1);
}

#[test]
fn a_flood_of_made_up_answers_does_not_cross() {
    let mut split = Split::new(unlimited(), 1);
    split.node.handle_command(split.now, Command::AddNode(stranger(1)), &mut split.out);
    let (.., ping) = split.take_sent().pop().expect("a ping");
    let made_up = |tid: &[u8]| {
        let mut bytes = Vec::new();
        let body = Body::Response(krpc::Response::new(Id::new([9; 20])));
        Message { tid, version: None, ip: None, read_only: false, body }.encode(&mut bytes);
        bytes
    };
    // No query of ours has such a name.
    for tid in [&b"a"[..], b"ab", b"abc", b"abcde", b"abcdefgh"] {
        assert!(split.give_and_keep(1, stranger(2), &made_up(tid)).is_empty(), "{tid:?}");
    }
    assert_eq!(split.counters().dropped_unsolicited, 5);
    let crossed: usize =
        (0..5000).map(|_| split.give_and_keep(1, stranger(2), &made_up(b"abcd")).len()).sum();
    assert_eq!(crossed, 32, "in a second");
    let counters = split.counters();
    assert_eq!((counters.crossings_dropped, counters.datagrams_in), (4968, 4973));
    // Who was asked is heard all the same.
    let id = secure_id(stranger(1).ip(), &mut Rng::from_seed(1));
    split.give(1, stranger(1), &answer_to(&ping, id));
    assert_eq!((split.node.counters().replies_in, split.node.table(split.now).len()), (1, 1));
}

#[test]
fn peers_expire_in_the_stripes() {
    let mut split = Split::new(unlimited(), 1);
    for n in 0..40 {
        let infohash = Id::new([n as u8; 20]);
        let reply = split.ask(1, stranger(n), get_peers(infohash)).unwrap();
        let token = response(&reply).token.unwrap().to_vec();
        let query =
            Query::AnnouncePeer { infohash, port: 7, implied_port: false, token: &token, seed: false };
        split.ask(usize::from(n) % 2, stranger(n), query).unwrap();
    }
    split.wait(44 * MINUTE);
    assert_eq!((split.peers(1, stranger(1)), split.node.kept().counts().peers), (1, 40));
    split.wait(MINUTE);
    assert_eq!(split.peers(1, stranger(1)), 0, "before any sweep");
    split.wait(6 * MINUTE);
    assert!(split.node.kept().is_empty());
}

#[test]
fn what_is_stored_is_saved_and_comes_back_into_other_stripes_or_none() {
    let mut split = Split::new(unlimited(), 1);
    for n in 0..200 {
        let infohash = Id::new([n as u8; 20]);
        let reply = split.ask(0, stranger(n), get_peers(infohash)).unwrap();
        let token = response(&reply).token.unwrap().to_vec();
        let query =
            Query::AnnouncePeer { infohash, port: 7, implied_port: false, token: &token, seed: n % 2 == 0 };
        split.ask(usize::from(n) % 2, stranger(n), query).unwrap();
    }
    put(&mut split, 1);
    let all = split.archive();
    assert_eq!((all.counts.peers, all.counts.items), (200, 1));
    let mut other = Split::new(unlimited(), 3);
    let counts = other.node.restore(other.now, &all, MINUTE).unwrap();
    assert_eq!((counts.peers, counts.items), (200, 1));
    assert_eq!((other.peers(2, stranger(500)), other.node.store().items()), (1, 1));
    let mut alone = Split::new(unlimited(), 0);
    alone.node.restore(alone.now, &all, MINUTE).unwrap();
    let peers: Vec<StoredPeer> = alone.node.store().iter(alone.now).collect();
    assert_eq!(peers.len(), 200);
    // Ages are kept to within three seconds.
    assert!(
        peers.iter().all(|peer| peer.age + 3 * SECOND >= MINUTE
            && peer.seed == peer.infohash.as_bytes()[0].is_multiple_of(2))
    );
}

#[test]
fn what_full_stripes_save_is_no_longer_than_the_configuration_says() {
    let config = Config {
        store_memory: 1 << 18,
        infohashes_per_ip: 0,
        ports_per_ip: 1000,
        max_items: 1,
        ..unlimited()
    };
    let most = Archive::max_len(&config);
    for (peers_each, announces) in [(1, 8000), (100, 36_000)] {
        let mut split = Split::new(config.clone(), 1);
        let mut token = Vec::new();
        for n in 0..announces {
            let mut infohash = [0; 20];
            infohash[..4].copy_from_slice(&u32::to_be_bytes(n / peers_each));
            let (infohash, port) = (Id::new(infohash), i64::from(1 + n % peers_each));
            if n % peers_each == 0 {
                let reply = split.ask(1, stranger(1), get_peers(infohash)).unwrap();
                token = response(&reply).token.unwrap().to_vec();
            }
            let query =
                Query::AnnouncePeer { infohash, port, implied_port: false, token: &token, seed: false };
            split.ask(1, stranger(1), query).unwrap();
        }
        assert!(put(&mut split, 1));
        let all = split.archive();
        assert!(all.counts.peers < u64::from(announces), "it is full");
        assert!(all.len() <= most && all.len() * 2 > most, "{} of {most} bytes", all.len());
    }
}

/// Puts an immutable item at a shard; whether it was taken.
fn put(split: &mut Split, shard: usize) -> bool {
    let value = b"5:hello";
    let target = crate::item::immutable_target(value);
    let from = stranger(77);
    let reply = split.ask(shard, from, Query::Get { target, seq: None, want: Want::UNSPECIFIED }).unwrap();
    let token = response(&reply).token.unwrap().to_vec();
    let reply = split.ask(shard, from, Query::Put { token: &token, value, signed: None }).unwrap();
    matches!(Message::decode(&reply).unwrap().body, Body::Response(_))
}

#[test]
fn items_and_samples_are_the_deciding_shards_and_are_answered_wherever_they_are_asked_for() {
    let mut split = Split::new(unlimited(), 1);
    assert!(put(&mut split, 1));
    let target = crate::item::immutable_target(b"5:hello");
    for shard in 0..2 {
        let get = Query::Get { target, seq: None, want: Want::UNSPECIFIED };
        let reply = split.ask(shard, stranger(1), get).unwrap();
        assert_eq!(response(&reply).value, Some(&b"5:hello"[..]), "{shard}");
    }
    for n in 0..30 {
        let infohash = Id::new([n as u8; 20]);
        let reply = split.ask(1, stranger(n), get_peers(infohash)).unwrap();
        let token = response(&reply).token.unwrap().to_vec();
        let query =
            Query::AnnouncePeer { infohash, port: 7, implied_port: false, token: &token, seed: false };
        split.ask(1, stranger(n), query).unwrap();
    }
    let sample = Query::SampleInfohashes { target, want: Want::UNSPECIFIED };
    let replies = [0, 1].map(|shard| split.ask(shard, stranger(1), sample).unwrap());
    let [first, second] = replies.each_ref().map(|reply| response(reply));
    assert_eq!((first.num, first.samples.map(<[u8]>::len)), (Some(30), Some(20 * 20)));
    assert_eq!((second.num, second.samples), (first.num, first.samples), "they stay the same for hours");
    let counters = split.counters();
    assert_eq!((counters.queries_get, counters.queries_put, counters.queries_sample_infohashes), (3, 1, 2));
}

#[test]
fn a_source_that_had_enough_does_not_cross_with_rare_queries() {
    let mut split = Split::new(Config::default(), 1);
    let sample = encode(Query::SampleInfohashes { target: INFOHASH, want: Want::UNSPECIFIED });
    let crossed: usize = (0..200)
        .map(|_| {
            let crossings = split.give_and_keep(1, stranger(1), &sample);
            let count = crossings.len();
            for crossing in crossings {
                split.node.handle_crossing(split.now, crossing, &mut split.out);
            }
            count
        })
        .sum();
    assert_eq!((crossed, split.take_sent().iter().filter(|sent| sent.1 == Class::Reply).count()), (50, 50));
}

#[test]
fn read_only_nodes_are_silent_at_every_shard_and_announces_are_told_from_every_shard() {
    let mut split = Split::new(Config { read_only: ReadOnly::Yes, ..unlimited() }, 1);
    for shard in 0..2 {
        assert!(split.ask(shard, stranger(1), Query::Ping).is_none());
        assert!(
            split
                .ask(
                    shard,
                    stranger(1),
                    Query::SampleInfohashes { target: INFOHASH, want: Want::UNSPECIFIED }
                )
                .is_none()
        );
    }
    split.node.set_read_only(split.now, ReadOnly::No);
    split.node.handle_command(split.now, Command::TellAnnounces(true), &mut split.out);
    for shard in 0..2 {
        let token = split.token(shard, stranger(shard as u16));
        assert!(split.announce(shard, stranger(shard as u16), &token));
    }
    let told = split.events.iter().filter(|event| matches!(event, Event::Announced { seed: true, .. }));
    assert_eq!(told.count(), 2);
}

#[test]
fn garbage_is_refused_at_a_satellite_as_elsewhere() {
    let mut split = Split::new(unlimited(), 1);
    let (from, local) = (stranger(1), ([127, 0, 0, 1], 6881).into());
    assert!(split.give(1, from, b"d1:t0:1:y1:qe").is_empty());
    assert!(split.give(1, from, b"li1ei2ei3ei4ei5ei6ee").is_empty());
    // Somebody there may have been asked by our owner: the deciding half knows, and drops it.
    assert!(split.give(1, local, &encode(Query::Ping)).is_empty());
    let malformed = b"d1:ad2:id3:abce1:q4:ping1:t2:aa1:y1:qe";
    let sent = split.give(1, from, malformed);
    let Body::Error(error) = Message::decode(&sent[0].2).unwrap().body else { panic!("{sent:?}") };
    assert_eq!((error.code, sent.len()), (203, 1));
    let counters = split.counters();
    assert_eq!(
        (counters.dropped_length, counters.dropped_not_dictionary, counters.dropped_address),
        (1, 1, 1)
    );
    assert_eq!(
        (counters.dropped_undecodable, counters.datagrams_in, counters.errors_protocol_out),
        (1, 4, 1)
    );
}

#[test]
fn a_node_is_split_once() {
    let mut split = Split::new(unlimited(), 1);
    assert!(split.node.split(split.now, 2).is_empty());
    let mut alone = Split::new(unlimited(), 0);
    let token = alone.token(0, stranger(1));
    assert!(alone.announce(0, stranger(1), &token));
    assert_eq!(alone.node.store().len(), 1, "a node that was not split keeps its peers itself");
}
