//! Items between nodes on loopback, some of which disagree.

use std::time::Duration;

use krpc::{Body, ErrorBody, Message, Query, Response};
use tokio::net::UdpSocket;

use super::*;
use crate::LookupId;
use crate::net::Options;

const SALT: &[u8] = b"salt";

fn secret() -> SecretKey {
    SecretKey::from_seed(&[8; 32])
}

fn node(others: &[&Dht]) -> Dht {
    Dht::bind(Options::loopback(others.iter().flat_map(|dht| dht.local_addrs()))).unwrap()
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("long before the guard")
}

async fn put(writer: &Dht, seq: i64, cas: Option<i64>) -> PutReport {
    let item = MutableItem::sign(&secret(), SALT, seq, format!("i{seq}e").as_bytes()).unwrap();
    within(writer.put_mutable(item, cas)).await.unwrap()
}

/// The number of the version that `holder` has, asked from a node that knows nobody else.
async fn held(holder: &Dht) -> Option<i64> {
    let reader = node(&[holder]);
    within(reader.get_mutable(secret().public(), SALT, None)).await.unwrap().map(|item| item.seq)
}

/// Nodes apart that have versions 2, 2 and 1: the last one missed something.
async fn holders() -> [Dht; 3] {
    let holders = [node(&[]), node(&[]), node(&[])];
    for (holder, seq) in holders.iter().zip([2, 2, 1]) {
        let stored = put(&node(&[holder]), seq, None).await.stored;
        assert_eq!(stored, holder.local_addrs().collect::<Vec<_>>());
    }
    holders
}

#[tokio::test]
async fn who_missed_a_version_gets_the_next_one_and_makes_no_conflict() {
    for over in [false, true] {
        let holders = holders().await;
        let writer = node(&holders.each_ref());
        let (seq, report) = within(async {
            match over {
                true => writer.update_over(&secret(), SALT, b"4:next", 2).await.unwrap(),
                false => writer.update(&secret(), SALT, b"4:next").await.unwrap(),
            }
        })
        .await;
        assert_eq!((seq, report.is_conflict()), (3, false), "{report:?}");
        assert!(report.refused.is_empty(), "{report:?}");
        for holder in &holders {
            assert!(holder.local_addrs().all(|addr| report.stored.contains(&addr)), "{report:?}");
            assert_eq!(held(holder).await, Some(3));
        }
    }
}

/// A condition that the caller sets is each node's to check.
#[tokio::test]
async fn a_condition_over_another_version_than_everybody_has_is_a_conflict() {
    let holders = holders().await;
    let writer = node(&holders.each_ref());
    let report = put(&writer, 10, Some(9)).await;
    assert!(report.is_conflict() && report.stored.is_empty(), "{report:?}");
    assert_eq!(report.refused.iter().map(|&(_, code)| code).collect::<Vec<_>>(), [301; 3]);
    // One of three has missed a version: it refuses, and it is not what counts.
    let report = put(&writer, 10, Some(2)).await;
    assert!(!report.is_conflict() && report.stored.len() == 2 && report.refused.len() == 1, "{report:?}");
}

#[tokio::test]
async fn another_writer_who_was_faster_is_a_conflict_that_names_the_version() {
    let holders = holders().await;
    let writer = node(&holders.each_ref());
    put(&writer, 5, None).await;
    let (_, report) = within(writer.update_over(&secret(), SALT, b"4:next", 2)).await.unwrap();
    assert!(report.is_conflict(), "{report:?}");
    assert_eq!(report.newer.map(|item| item.seq), Some(5));
}

/// Refuses every put, for a version that it does not show.
async fn refuse(socket: UdpSocket) {
    let mut buffer = [0; 2048];
    while let Ok((len, from)) = socket.recv_from(&mut buffer).await {
        let query = Message::decode(&buffer[..len]).unwrap();
        let body = match query.body {
            Body::Query { query: Query::Put { .. }, .. } => {
                Body::Error(ErrorBody { code: 302, text: b"sequence number less than current" })
            }
            _ => Body::Response(Response {
                token: Some(b"abcd"),
                seq: Some(2),
                ..Response::new(Id::new([9; 20]))
            }),
        };
        let mut bytes = Vec::new();
        Message { body, ..query }.encode(&mut bytes);
        socket.send_to(&bytes, from).await.unwrap();
    }
}

#[tokio::test]
async fn a_node_that_refuses_whatever_it_is_told_makes_no_conflict() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let liar = socket.local_addr().unwrap();
    let lies = tokio::spawn(refuse(socket));
    let holders = holders().await;
    let routers = holders.iter().flat_map(Dht::local_addrs).chain([liar]);
    let writer = Dht::bind(Options::loopback(routers)).unwrap();
    let (seq, report) = within(writer.update(&secret(), SALT, b"4:next")).await.unwrap();
    assert_eq!((seq, report.is_conflict()), (3, false), "{report:?}");
    assert_eq!((report.stored.len(), &report.refused[..]), (3, &[(liar, 302)][..]), "{report:?}");
    lies.abort();
}

/// Answers each query as `answer` says, or not at all; to a `get` a moment later than others do.
async fn act(socket: UdpSocket, name: u8, mut answer: impl FnMut(&Query<'_>) -> Option<Act>) {
    let mut buffer = [0; 2048];
    while let Ok((len, from)) = socket.recv_from(&mut buffer).await {
        let message = Message::decode(&buffer[..len]).unwrap();
        let Body::Query { query, .. } = &message.body else { continue };
        let Some(act) = answer(query) else { continue };
        if let Query::Get { .. } = query {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let plain = Response { token: Some(b"abcd"), ..Response::new(Id::new([name; 20])) };
        let body = match &act {
            Act::Plain => Body::Response(plain),
            Act::Number(seq) => Body::Response(Response { seq: Some(*seq), ..plain }),
            Act::Refuse(code) => Body::Error(ErrorBody { code: *code, text: b"no" }),
            Act::Show(item) => Body::Response(Response {
                seq: Some(item.seq),
                key: Some(&item.key),
                signature: Some(&item.signature),
                value: Some(&item.value),
                ..plain
            }),
        };
        let mut bytes = Vec::new();
        Message { body, ..message }.encode(&mut bytes);
        socket.send_to(&bytes, from).await.unwrap();
    }
}

/// What a node that acts does with a query.
enum Act {
    Plain,
    /// Says which version it has, and that it is not newer than was asked for.
    Number(i64),
    Refuse(i64),
    Show(MutableItem),
}

fn signed(seq: i64, value: &[u8]) -> MutableItem {
    MutableItem::sign(&secret(), SALT, seq, value).unwrap()
}

/// As libtorrent has it: of two values of one number a node keeps the first, and says to the second one that all
/// is well where no condition is set.
#[tokio::test]
async fn two_writers_of_one_number_are_a_conflict_whoever_is_met_first() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let other = socket.local_addr().unwrap();
    let mut has_changed = false;
    let acting = tokio::spawn(act(socket, 9, move |query| {
        Some(match query {
            Query::Get { .. } if has_changed => Act::Show(signed(2, b"5:other")),
            Query::Get { .. } => Act::Show(signed(1, b"i1e")),
            Query::Put { signed: Some(item), .. } if item.cas.is_some() => {
                has_changed = true;
                Act::Refuse(301)
            }
            _ => Act::Plain,
        })
    }));
    let holder = node(&[]);
    put(&node(&[&holder]), 1, None).await;
    let writer = Dht::bind(Options::loopback(holder.local_addrs().chain([other]))).unwrap();
    let (seq, report) = within(writer.update(&secret(), SALT, b"4:mine")).await.unwrap();
    assert_eq!((seq, report.is_conflict()), (2, true), "{report:?}");
    assert_eq!(report.newer.map(|item| item.value), Some(b"5:other".to_vec()));
    acting.abort();
}

/// The same of writers who set no condition, because they chose the number or found nothing.
#[tokio::test]
async fn another_value_of_a_number_is_a_conflict_where_no_condition_was_set() {
    for chosen in [true, false] {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let other = socket.local_addr().unwrap();
        let mut has_changed = chosen;
        let acting = tokio::spawn(act(socket, 9, move |query| {
            Some(match query {
                Query::Get { seq: Some(_), .. } if has_changed => Act::Number(1),
                Query::Get { .. } if has_changed => Act::Show(signed(1, b"5:other")),
                Query::Put { .. } => {
                    has_changed = true;
                    Act::Plain
                }
                _ => Act::Plain,
            })
        }));
        let writer = Dht::bind(Options::loopback([other])).unwrap();
        let report = within(async {
            match chosen {
                true => writer.put_mutable(signed(1, b"4:mine"), None).await.unwrap(),
                false => writer.update(&secret(), SALT, b"4:mine").await.unwrap().1,
            }
        })
        .await;
        assert_eq!(report.newer.map(|item| item.value), Some(b"5:other".to_vec()), "chosen: {chosen}");
        acting.abort();
    }
}

/// A node that takes a value and then says no more: who waits no longer for what is read after that knows where
/// the value is stored.
#[tokio::test]
async fn a_put_that_is_given_up_tells_who_took_it() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let other = socket.local_addr().unwrap();
    let (tell, told) = tokio::sync::oneshot::channel();
    let (mut has_taken, mut tell) = (false, Some(tell));
    let acting = tokio::spawn(act(socket, 9, move |query| {
        if has_taken {
            tell.take().map(|tell| tell.send(()));
            return None;
        }
        has_taken = matches!(query, Query::Put { .. });
        Some(Act::Plain)
    }));
    let dht = Dht::bind(Options::loopback([other])).unwrap();
    let (secret, mut writing) = (secret(), dht.writing());
    within(async {
        tokio::select! {
            end = writing.update(&secret, SALT, b"4:mine") => panic!("nobody answered its last question: {end:?}"),
            told = told => told.unwrap(),
        }
    })
    .await;
    assert_eq!((writing.seq(), &writing.report().stored[..]), (Some(1), &[other][..]));
    acting.abort();
}

#[test]
fn what_a_node_said_last_counts_and_who_took_an_item_may_refuse_it_later() {
    let node = |n: u8| SocketAddr::from(([127, 0, 0, n], 1));
    let item = Item::Mutable(signed(1, b"4:mine"));
    let mut report = PutReport::default();
    let (lookup, id) = (LookupId(1), Id::ZERO);
    for (n, code) in [(1, 0), (2, 0), (3, 301), (4, 301), (5, 301), (1, 302), (3, 0), (4, 302)] {
        report.hear(
            match code {
                0 => Event::Stored { lookup, id, node: node(n), doubtful: false },
                _ => Event::Refused { lookup, node: node(n), code },
            },
            &item,
        );
    }
    assert_eq!(report.stored, [1, 2, 3].map(node));
    assert_eq!(report.refused, [(node(5), 301), (node(4), 302)]);
    assert!(!report.is_conflict());
}

/// A put whose first answer is lost, to a node that has taken another value in the meantime.
#[tokio::test]
async fn what_is_said_to_a_put_without_its_condition_is_looked_into() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let other = socket.local_addr().unwrap();
    let mut has_changed = false;
    let acting = tokio::spawn(act(socket, 9, move |query| match query {
        Query::Get { .. } if has_changed => Some(Act::Show(signed(2, b"5:other"))),
        Query::Get { .. } => Some(Act::Show(signed(1, b"i1e"))),
        Query::Put { signed: Some(item), .. } if item.cas.is_some() => {
            has_changed = true;
            None
        }
        _ => Some(Act::Plain),
    }));
    let writer = Dht::bind(Options::loopback([other])).unwrap();
    let (seq, report) = within(writer.update(&secret(), SALT, b"4:mine")).await.unwrap();
    assert_eq!((seq, report.is_conflict()), (2, true), "{report:?}");
    acting.abort();
}

#[tokio::test]
async fn who_refused_and_fell_silent_still_counts() {
    let silent = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let (mut addrs, mut acting) = (Vec::new(), Vec::new());
    for name in 1..4 {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        addrs.push(socket.local_addr().unwrap());
        let silent = std::sync::Arc::clone(&silent);
        let mut has_answered = false;
        acting.push(tokio::spawn(act(socket, name, move |query| {
            let is_put = matches!(query, Query::Put { .. });
            if has_answered || !is_put && silent.load(std::sync::atomic::Ordering::Relaxed) == 3 {
                return None;
            }
            if is_put {
                has_answered = true;
                silent.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
            Some(if is_put && name > 1 { Act::Refuse(301) } else { Act::Plain })
        })));
    }
    let mut options = Options::loopback(addrs);
    options.config.lookup_max_silence = Duration::from_secs(2);
    let writer = Dht::bind(options).unwrap();
    let report = within(writer.put_mutable(signed(2, b"4:mine"), Some(1))).await.unwrap();
    assert!(report.is_conflict(), "{report:?}");
    assert_eq!((report.stored.len(), report.refused.len()), (1, 2), "{report:?}");
    acting.iter().for_each(tokio::task::JoinHandle::abort);
}

/// A node with an address of each family has one store behind both.
#[tokio::test]
async fn a_condition_over_the_version_before_holds_where_nodes_have_two_addresses() {
    if std::net::UdpSocket::bind("[::1]:0").is_err() {
        eprintln!("not run: there is no IPv6 here");
        return;
    }
    let both = |others: &[&Dht]| {
        let mut options = Options::loopback(others.iter().flat_map(|dht| dht.local_addrs()));
        let v6 = crate::net::Bind { addr: "[::1]:0".parse().unwrap(), required: true };
        options.binds.push(v6);
        Dht::bind(options).unwrap()
    };
    let first = both(&[]);
    let second = both(&[&first]);
    let writer = both(&[&first, &second]);
    put(&writer, 1, None).await;
    let report = within(writer.put_mutable(signed(2, b"4:next"), Some(1))).await.unwrap();
    assert!(!report.is_conflict() && report.refused.is_empty(), "{report:?}");
    assert!(report.stored.len() >= 2, "{report:?}");
}
