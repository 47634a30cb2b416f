//! Messages as strangers send them, for nodes of a test world, and what one of a node may be like.

use std::net::SocketAddr;

use krpc::{Body, Id, Message, Query, Response, Want};

/// A query as a stranger sends it.
pub(crate) fn query(id: Id, query: Query<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let body = Body::Query { id, query };
    Message { tid: b"aa", version: None, ip: None, read_only: false, body }.encode(&mut bytes);
    bytes
}

/// A reply to a query with this transaction id.
pub(crate) fn reply(tid: &[u8], response: Response<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let body = Body::Response(response);
    Message { tid, version: None, ip: None, read_only: false, body }.encode(&mut bytes);
    bytes
}

/// The target of a query, if it has one.
pub(crate) fn target_of(message: &Message<'_>) -> Option<Id> {
    match message.body {
        Body::Query { query: Query::FindNode { target, .. }, .. } => Some(target),
        Body::Query { query: Query::GetPeers { infohash, .. }, .. } => Some(infohash),
        _ => None,
    }
}

/// A `find_node` for IPv4.
pub(crate) fn find_node(target: Id) -> Query<'static> {
    Query::FindNode { target, want: Want::UNSPECIFIED }
}

/// A `get_peers` for IPv4.
pub(crate) fn get_peers(infohash: Id) -> Query<'static> {
    Query::GetPeers { infohash, want: Want::UNSPECIFIED, scrape: false, no_seed: false }
}

/// The most bytes that a datagram to `to` may have: the limit of BEP 32, which what carries an item of
/// BEP 44 may not fit. A put ends with what an Ethernet carries, of which IPv6 takes 20 bytes more.
pub(super) fn longest(bytes: &[u8], to: SocketAddr) -> usize {
    match Message::decode(bytes).map(|message| message.body) {
        Ok(Body::Query { query: Query::Put { .. }, .. }) => {
            if to.is_ipv4() {
                1472
            } else {
                1452
            }
        }
        Ok(Body::Response(response)) if response.value.is_some() => 1232,
        _ => 1024,
    }
}

#[test]
fn a_put_may_be_as_long_as_an_ethernet_carries_in_its_family_and_a_question_not() {
    let put = query(Id::ZERO, Query::Put { token: b"t", value: b"1:a", signed: None });
    let ping = query(Id::ZERO, Query::Ping);
    for (to, most) in [("81.2.3.4:6881", 1472), ("[2001:db8::1]:6881", 1452)] {
        let to = to.parse().unwrap();
        assert_eq!((longest(&put, to), longest(&ping, to)), (most, 1024));
    }
}
