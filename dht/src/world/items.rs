//! Items (BEP 44), scrapes (BEP 33) and samples (BEP 51) between nodes, and among liars.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use krpc::{ErrorCode, Signed};

use super::*;
use crate::SwarmEstimate;
use crate::item::{Item, MutableItem, SecretKey, immutable_target, mutable_target};

const MINUTE: Duration = Duration::from_secs(60);
const STRANGER: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(85, 6, 7, 8)), 6881);

fn lone() -> World {
    let mut world = World::new(1, Config { replies_per_second_per_ip: 0, ..Config::default() });
    world.add_node(&[]);
    world
}

fn version(seq: i64, value: &[u8]) -> MutableItem {
    MutableItem::sign(&SecretKey::from_seed(&[1; 32]), b"salt", seq, value).unwrap()
}

fn string(len: usize) -> Vec<u8> {
    [format!("{len}:").into_bytes(), vec![b'x'; len]].concat()
}

/// The datagram that answers `ask`, among what a node sent.
fn reply(world: &mut World, ask: Query<'_>) -> Vec<u8> {
    let sent = world.inject(0, STRANGER, &query(Id::new([1; 20]), ask));
    let is_answer = |bytes: &&Vec<u8>| !matches!(Message::decode(bytes).unwrap().body, Body::Query { .. });
    sent.iter().find(is_answer).expect("an answer").clone()
}

fn token(world: &mut World, target: Id) -> Vec<u8> {
    let bytes = reply(world, Query::Get { target, seq: None, want: Want::UNSPECIFIED });
    let Body::Response(response) = Message::decode(&bytes).unwrap().body else { panic!() };
    response.token.unwrap().to_vec()
}

/// Puts with a fresh token; the error code, or 0.
fn put(world: &mut World, value: &[u8], signed: Option<Signed<'_>>) -> i64 {
    let target = signed.map_or_else(|| immutable_target(value), |s| mutable_target(s.key, s.salt));
    let token = token(world, target);
    code(&reply(world, Query::Put { token: &token, value, signed }))
}

fn code(bytes: &[u8]) -> i64 {
    match Message::decode(bytes).unwrap().body {
        Body::Error(error) => error.code,
        _ => 0,
    }
}

/// S14: each error of BEP 44 for what it is meant for.
#[test]
fn puts_get_the_errors_of_the_bep() {
    let mut world = lone();
    let put_version =
        |world: &mut World, item: &MutableItem, cas| put(world, &item.value, Some(item.as_signed(cas)));
    assert_eq!(put(&mut world, &string(997), None), ErrorCode::ValueTooBig.number());
    assert_eq!(put(&mut world, &string(996), None), 0);
    assert_eq!(put(&mut world, b"d1:bi1e1:ai2ee", None), ErrorCode::Protocol.number(), "unsorted");
    let good = version(4, b"1:a");
    let forged = Signed { seq: 5, ..good.as_signed(None) };
    assert_eq!(put(&mut world, b"1:a", Some(forged)), ErrorCode::InvalidSignature.number());
    let negative = Signed { seq: -1, ..good.as_signed(None) };
    assert_eq!(put(&mut world, b"1:a", Some(negative)), ErrorCode::Protocol.number());
    let salted = Signed { salt: &[b's'; 65], ..good.as_signed(None) };
    assert_eq!(put(&mut world, b"1:a", Some(salted)), ErrorCode::SaltTooBig.number());
    assert_eq!(put_version(&mut world, &good, Some(9)), 0, "cas is ignored where nothing is stored");
    assert_eq!(put_version(&mut world, &version(5, b"1:b"), Some(3)), ErrorCode::CasMismatch.number());
    assert_eq!(put_version(&mut world, &version(3, b"1:b"), None), ErrorCode::SequenceTooLow.number());
    assert_eq!(put_version(&mut world, &version(4, b"1:b"), None), ErrorCode::SequenceTooLow.number());
    assert_eq!(put_version(&mut world, &version(4, b"1:a"), None), 0, "the same again keeps it alive");
    assert_eq!(put_version(&mut world, &version(5, b"1:b"), Some(4)), 0);
    let bad_token = Query::Put { token: b"12345678", value: b"1:z", signed: None };
    assert_eq!(code(&reply(&mut world, bad_token)), ErrorCode::Protocol.number());
    let counters = world.node(0).counters();
    assert_eq!((counters.items_stored, counters.errors_item_out, counters.tokens_refused), (4, 6, 1));
    assert_eq!(world.node(0).store().items(), 2);
}

/// Whether an item fits is known to the byte: with the longest of all numbers and transaction ids there is an
/// answer too, which has the item as long as a datagram can take it.
#[test]
fn largest_item_of_the_last_version_is_told_or_left_out_but_never_silence() {
    let mut world = lone();
    let item = MutableItem::sign(&SecretKey::from_seed(&[1; 32]), b"", i64::MAX, &string(996)).unwrap();
    assert_eq!(put(&mut world, &item.value, Some(item.as_signed(None))), 0);
    let target = mutable_target(&item.key, b"");
    let queries = (1..=32).flat_map(|len| [(len, Want::BOTH), (len, Want { n4: true, n6: false })]);
    let mut left_out = 0;
    for (len, want) in queries {
        let (tid, get) = (vec![b't'; len], Query::Get { target, seq: None, want });
        let body = Body::Query { id: Id::new([1; 20]), query: get };
        let mut asked = Vec::new();
        Message { tid: &tid, version: None, ip: None, read_only: false, body }.encode(&mut asked);
        let sent = world.inject(0, STRANGER, &asked);
        let is_reply = |bytes: &&Vec<u8>| Message::decode(bytes).unwrap().tid == tid;
        let bytes = sent.iter().find(is_reply).unwrap_or_else(|| panic!("silence to a tid of {len}"));
        let Body::Response(response) = Message::decode(bytes).unwrap().body else { panic!("{len}") };
        assert_eq!(response.seq, Some(i64::MAX));
        // `d1:rd2:id20:…1:k32:…3:seqi…e3:sig64:…5:token8:…1:v…e1:t32:…1:y1:re`
        let whole = 32 + 38 + 26 + 72 + 17 + 3 + 1000 + 1 + 6 + len + 7;
        let fits = whole <= 1232.min(12 * asked.len());
        assert_eq!(response.value.is_some(), fits, "tid of {len}, {} asked", asked.len());
        left_out += usize::from(!fits);
    }
    assert!((2..32).contains(&left_out), "{left_out}");
}

/// S14: 1,000 bytes are kept bit by bit; S4: no reply is over twelve times its query.
#[test]
fn largest_items_are_told_whole_to_all_but_the_shortest_queries() {
    let mut world = World::new(3, Config { replies_per_second_per_ip: 0, ..Config::default() });
    for _ in 0..40 {
        world.add_node(&[]);
    }
    world.join(0..40, 1);
    world.run(MINUTE);
    let secret = SecretKey::from_seed(&[1; 32]);
    for len in [3, 400, 700, 996] {
        let item = MutableItem::sign(&secret, b"", i64::MAX - 1000 + len as i64, &string(len)).unwrap();
        let target = mutable_target(&item.key, b"");
        assert_eq!(put(&mut world, &item.value, Some(item.as_signed(None))), 0);
        for want in [Want::UNSPECIFIED, Want::BOTH] {
            let get = Query::Get { target, seq: None, want };
            let bytes = reply(&mut world, get);
            let Body::Response(response) = Message::decode(&bytes).unwrap().body else { panic!() };
            let asked = query(Id::new([1; 20]), get).len();
            assert!(bytes.len() <= 12 * asked && bytes.len() <= 1232, "{} for {asked}", bytes.len());
            assert!(bytes.len() <= 1024 || response.nodes.is_none());
            let whole = response.value == Some(&item.value[..]) && response.seq == Some(item.seq);
            assert!(whole || want == Want::UNSPECIFIED && len == 996, "{len}");
            assert!(response.nodes.is_some_and(|nodes| nodes.len() % 26 == 0) || len == 996);
        }
    }
    // Only a newer version is told to whoever names the one that he has.
    let target = mutable_target(&secret.public(), b"");
    for (seq, told) in [(i64::MAX - 5, true), (i64::MAX - 4, false), (i64::MAX, false)] {
        let bytes = reply(&mut world, Query::Get { target, seq: Some(seq), want: Want::BOTH });
        let Body::Response(response) = Message::decode(&bytes).unwrap().body else { panic!() };
        assert_eq!((response.value.is_some(), response.seq), (told, Some(i64::MAX - 4)), "{seq}");
    }
}

#[test]
fn signature_checks_have_one_budget_for_all_sources() {
    let mut world = lone();
    let mut busy = 0;
    for n in 0..260 {
        let item =
            MutableItem::sign(&SecretKey::from_seed(&[n as u8; 32]), &[n as u8, (n >> 8) as u8], 1, b"0:")
                .unwrap();
        let code = put(&mut world, b"0:", Some(item.as_signed(None)));
        assert!(code == 0 || code == 202, "{code}");
        busy += u32::from(code == 202);
    }
    // 100 items of one source fit, and 200 checks a second.
    assert_eq!((busy, world.node(0).store().items()), (160, 100));
}

fn items(world: &World, index: usize, from: usize) -> Vec<Item> {
    let told = world.hosts[index].events[from..].iter();
    told.filter_map(|(_, event)| match event {
        Event::Item { item, .. } => Some((**item).clone()),
        _ => None,
    })
    .collect()
}

#[test]
fn items_are_put_to_the_closest_nodes_and_found_from_anywhere() {
    let mut world = World::grown(4, 100, MINUTE);
    let value = string(500);
    let item = Item::Immutable { value: value.clone() };
    let found = world.look_up(7, Command::Put { item: Box::new(item.clone()), cas: None, trace: true });
    assert_eq!((found.outcome, found.stored.len()), (Outcome::Converged, 8));
    let truth = world.truth((1..100).filter(|&host| host != 7), &item.target(), 8);
    assert!(truth.iter().all(|(_, addr)| found.stored.contains(addr)));
    let from = world.hosts[60].events.len();
    world.look_up(60, Command::GetImmutable { target: item.target(), trace: false });
    assert_eq!(items(&world, 60, from), [item]);

    let mutable = version(1, b"5:first");
    let get = || Command::GetMutable { key: mutable.key, salt: b"salt".to_vec(), seq: None, trace: false };
    let put = |item: &MutableItem, cas| Command::Put {
        item: Box::new(Item::Mutable(item.clone())),
        cas,
        trace: false,
    };
    assert_eq!(world.look_up(8, put(&mutable, None)).stored.len(), 8);
    let second = version(2, b"6:second");
    assert_eq!(world.look_up(9, put(&second, Some(1))).stored.len(), 8);
    // Another writer who has not seen the second version is told by everybody.
    let from = world.hosts[10].events.len();
    let late = world.look_up(10, put(&version(2, b"4:late"), Some(1)));
    assert!(late.stored.is_empty(), "{late:?}");
    let codes: Vec<i64> = world.hosts[10].events[from..]
        .iter()
        .filter_map(|(_, event)| match event {
            Event::Refused { code, .. } => Some(*code),
            _ => None,
        })
        .collect();
    assert_eq!(codes, [301; 8]);
    let from = world.hosts[50].events.len();
    world.look_up(50, get());
    assert_eq!(items(&world, 50, from), [Item::Mutable(second)]);
    // Nobody has anything newer.
    let from = world.hosts[51].events.len();
    world.look_up(
        51,
        Command::GetMutable { key: mutable.key, salt: b"salt".to_vec(), seq: Some(2), trace: false },
    );
    assert!(items(&world, 51, from).is_empty());
}

/// A node's answer to `get` with whatever it likes in it.
fn liar(world: &mut World, answer: impl Fn(Id) -> Vec<u8> + 'static) -> usize {
    let id = world.random_id();
    world.add_actor(Box::new(move |_, from, query: &Message<'_>| {
        let mut bytes = b"d1:rd2:id20:".to_vec();
        bytes.extend_from_slice(id.as_bytes());
        if matches!(query.body, Body::Query { query: Query::Get { .. }, .. }) {
            bytes.extend_from_slice(&answer(id));
        }
        bytes.extend_from_slice(b"e1:t4:");
        bytes.extend_from_slice(query.tid);
        bytes.extend_from_slice(b"1:y1:re");
        vec![(from, bytes)]
    }))
}

#[test]
fn forged_items_are_not_believed_and_old_versions_do_not_hide_new_ones() {
    let mut world = World::new(6, Config::default());
    for _ in 0..12 {
        world.add_node(&[]);
    }
    world.join(1..12, 0);
    world.run(MINUTE);
    let good = version(7, b"4:good");
    let old = version(3, b"3:old");
    let encode = |item: &MutableItem, seq: i64, value: &[u8]| {
        [
            b"1:k32:",
            &item.key[..],
            format!("3:seqi{seq}e3:sig64:").as_bytes(),
            &item.signature,
            b"5:token4:abcd1:v",
            value,
        ]
        .concat()
    };
    let answers = [
        encode(&good, 99, b"4:good"),
        encode(&good, 7, b"4:evil"),
        encode(&old, 3, b"3:old"),
        encode(&old, 3, &string(3000)),
        encode(&good, 7, b"d1:bi1e1:ai2ee"),
        b"1:v4:evil".to_vec(),
        b"3:seqi99e".to_vec(),
    ];
    for answer in answers {
        liar(&mut world, move |_| answer.clone());
    }
    for liar in 12..19 {
        let addr = world.addr(liar);
        for node in 0..12 {
            world.command(node, Command::AddNode(addr));
        }
    }
    world.run(MINUTE);
    let put = Command::Put { item: Box::new(Item::Mutable(good.clone())), cas: None, trace: false };
    world.look_up(1, put);
    for reader in 2..12 {
        let from = world.hosts[reader].events.len();
        let get = Command::GetMutable { key: good.key, salt: b"salt".to_vec(), seq: None, trace: false };
        world.look_up(reader, get);
        let told = items(&world, reader, from);
        assert_eq!(told.last(), Some(&Item::Mutable(good.clone())), "reader {reader}");
        assert!(told.iter().all(|item| [3, 7].contains(&item.seq().unwrap())), "{told:?}");
    }
}

#[test]
fn scrapes_merge_what_the_closest_nodes_have() {
    let mut world = World::grown(9, 60, MINUTE);
    let infohash = world.random_id();
    for n in 1..=30 {
        let announce = Some(Announce { port: 1000, implied: false, seed: n % 3 == 0 });
        world.look_up(n, Command::GetPeers { infohash, announce, trace: false });
    }
    let estimate = |world: &World, index: usize| {
        let told = world.hosts[index].events.iter().rev().find_map(|(_, event)| match event {
            Event::Scraped { estimate, .. } => Some(*estimate),
            _ => None,
        });
        told.expect("an estimate")
    };
    world.look_up(40, Command::Scrape { infohash, trace: false });
    let SwarmEstimate { seeds, downloaders, nodes, ignored } = estimate(&world, 40);
    assert!((9..=11).contains(&seeds) && (19..=22).contains(&downloaders), "{seeds} {downloaders}");
    assert!((8..=10).contains(&nodes) && ignored == 0, "{nodes} {ignored}");
    let nothing = world.random_id();
    world.look_up(41, Command::Scrape { infohash: nothing, trace: false });
    assert_eq!(estimate(&world, 41).seeds + estimate(&world, 41).downloaders, 0);
}

#[test]
fn samples_are_a_choice_that_stays_and_nobody_is_asked_twice_within_his_interval() {
    let mut world = World::grown(10, 40, MINUTE);
    let mut announced = BTreeSet::new();
    for n in 1..=30 {
        let infohash = world.random_id();
        announced.insert(infohash);
        world.announce(n, infohash, 1000);
    }
    let sampled = |world: &World, from: usize| {
        let mut told = Vec::new();
        for (_, event) in &world.hosts[35].events[from..] {
            if let Event::Samples { node, samples, num, interval, .. } = event {
                assert!(samples.len() <= 20 && samples.len() as u64 <= *num && *interval <= 21_600);
                told.push((*node, samples.clone()));
            }
        }
        told
    };
    let target = world.random_id();
    world.look_up(35, Command::Sample { target, trace: false });
    let first = sampled(&world, 0);
    assert!(first.len() >= 8, "{} nodes", first.len());
    assert!(first.iter().flat_map(|(_, samples)| samples).all(|infohash| announced.contains(infohash)));
    let from = world.hosts[35].events.len();
    world.look_up(35, Command::Sample { target, trace: false });
    let asked: BTreeSet<_> = first.iter().map(|(node, _)| *node).collect();
    assert!(sampled(&world, from).iter().all(|(node, _)| !asked.contains(node)));
    // The choice is the same for everybody, and fits a datagram with nodes of both families.
    let ask = Query::SampleInfohashes { target, want: Want::BOTH };
    let samples = |bytes: &[u8]| {
        let Body::Response(response) = Message::decode(bytes).unwrap().body else { panic!() };
        response.samples.map(<[u8]>::to_vec)
    };
    let (a, b) = (reply(&mut world, ask), reply(&mut world, ask));
    assert!(samples(&a).is_some() && samples(&a) == samples(&b));
}

/// The condition of each put that a node was sent which has version 4, stores everything and whose first answer
/// to a put is lost; and how many it stored as far as the writer knows.
fn conditions(seq: i64) -> (Vec<Option<i64>>, usize) {
    let mut world = World::new(3, Config::default());
    let (name, item) = (world.random_id(), version(seq, b"4:next"));
    let (target, puts) = (mutable_target(&item.key, &item.salt), Rc::new(RefCell::new(Vec::new())));
    let noted = Rc::clone(&puts);
    let holder = world.add_actor(Box::new(move |_, from, message| {
        let Body::Query { query, .. } = &message.body else { return Vec::new() };
        if let Query::Put { signed, .. } = query {
            noted.borrow_mut().push(signed.expect("a version").cas);
            if noted.borrow().len() == 1 {
                return Vec::new();
            }
        }
        let wants = matches!(query, Query::Get { target: wanted, .. } if *wanted == target);
        let (token, seq) = (wants.then_some(&b"abcd"[..]), wants.then_some(4));
        vec![(from, super::reply(message.tid, Response { token, seq, ..Response::new(name) }))]
    }));
    let node = world.add_node(&[(name, World::v4(holder))]);
    let put = Command::Put { item: Box::new(Item::Mutable(item)), cas: Some(4), trace: false };
    let stored = world.look_up(node, put).stored.len();
    (puts.take(), stored)
}

/// Who has stored it and whose answer was lost does not have the old version any more: asked with the same
/// condition it would say that somebody was faster.
#[test]
fn a_put_that_is_sent_again_does_without_the_condition_that_its_number_makes_needless() {
    assert_eq!(conditions(5), (vec![Some(4), None], 1));
    // Here versions 5 to 9 would be overwritten.
    assert_eq!(conditions(10), (vec![Some(4), Some(4)], 1));
}

/// A put of the largest item over another version to a node at `addr` that gives a token of `len` bytes: the
/// length of what it was sent, if it was, and how many puts were not sent.
fn put_with_token(addr: SocketAddr, own: SocketAddr, len: usize) -> (Option<usize>, u64) {
    let item =
        MutableItem::sign(&SecretKey::from_seed(&[1; 32]), &[b's'; 64], i64::MAX, &string(996)).unwrap();
    let mut world = World::new(1, Config::default());
    let (name, token) = (world.random_id(), vec![b't'; len]);
    let (sent, seen) = (Rc::new(Cell::new(None)), mutable_target(&item.key, &item.salt));
    let noted = Rc::clone(&sent);
    world.add_actor_at(
        addr,
        Box::new(move |_, from, message| {
            let Body::Query { query, .. } = &message.body else { return Vec::new() };
            if let Query::Put { .. } = query {
                let mut again = Vec::new();
                message.encode(&mut again);
                noted.set(Some(again.len()));
            }
            let wants = matches!(query, Query::Get { target, .. } if *target == seen);
            let seq = wants.then_some(i64::MAX - 1);
            let response = Response { token: wants.then_some(&token), seq, ..Response::new(name) };
            vec![(from, super::reply(message.tid, response))]
        }),
    );
    let node = world.add_node_at(&[own], &[(name, addr)]);
    let put = Command::Put { item: Box::new(Item::Mutable(item)), cas: Some(i64::MAX - 1), trace: false };
    world.look_up(node, put);
    (sent.get(), world.node(node).counters().puts_too_long)
}

#[test]
fn a_put_that_its_token_makes_too_long_for_an_ethernet_is_counted_and_not_sent() {
    for (addr, own, most) in [(World::v4(9), World::v4(10), 1472), (World::v6(9), World::v6(10), 1452)] {
        let (len, _) = put_with_token(addr, own, 8);
        // Three digits of length instead of one.
        let longest = 8 + most - len.expect("a short token fits") - 2;
        assert!((100..128).contains(&longest), "{longest}");
        assert_eq!(put_with_token(addr, own, longest), (Some(most), 0));
        assert_eq!(put_with_token(addr, own, longest + 1), (None, 1));
    }
}
