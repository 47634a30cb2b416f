//! Items between nodes on loopback, some of which disagree.

use std::time::Duration;

use krpc::{Body, ErrorBody, Message, Query, Response};
use tokio::net::UdpSocket;

use super::*;
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
