//! [`Actor`]: a host of a fleet that is no node and does as it likes, what all of them need to answer,
//! and the honest one among them: [`Router`].

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use krpc::bencode::Strings;
use krpc::compact::{self, Address as _, Contact, V4};
use krpc::{Body, Id, Message, Query, Response};

use super::Host;
use crate::{Class, Outbox, Rng, Time};

/// A host that is no node.
pub trait Actor: Host + Sync {
    /// Its id, by which tables name it.
    fn id(&self) -> Id;
}

/// An id and where it lives.
pub(super) type Contacted = (Id, SocketAddr);

/// What an actor says in an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer<'a> {
    pub(super) id: Id,
    pub(super) nodes: &'a [Contacted],
    pub(super) peers: &'a [SocketAddr],
}

impl Answer<'_> {
    /// Answers the query with that transaction id.
    pub(super) fn send(&self, to: SocketAddr, tid: &[u8], out: &mut Outbox) {
        let (mut nodes, mut values, mut ip) = (Vec::new(), Vec::new(), Vec::new());
        for &(id, addr) in self.nodes {
            if let Some(addr) = V4::from_socket(addr) {
                compact::put_node(&mut nodes, &Contact { id, addr });
            }
        }
        self.peers.iter().for_each(|&peer| compact::put_value(&mut values, peer));
        compact::put_peer(&mut ip, to);
        let values = (!values.is_empty()).then(|| Strings::from_raw(&values)).and_then(Result::ok);
        let token = Some(&b"a token."[..]);
        let response = Response { nodes: Some(&nodes), values, token, ..Response::new(self.id) };
        let body = Body::Response(response);
        out.send(0, to, Class::Reply, |bytes| {
            Message { tid, version: None, ip: Some(&ip), read_only: false, body }.encode(bytes);
        });
    }
}

/// Sends a query from `socket`.
pub(super) fn ask((socket, to): (u8, SocketAddr), own: Id, query: Query<'_>, out: &mut Outbox) {
    let body = Body::Query { id: own, query };
    out.send(socket, to, Class::Query, |bytes| {
        Message { tid: b"zz", version: None, ip: None, read_only: false, body }.encode(bytes);
    });
}

/// The query in a datagram, if it is one: transaction id, the asker's id and what it asks.
pub(super) fn query_in(bytes: &[u8]) -> Option<(&[u8], Id, Query<'_>)> {
    let message = Message::decode(bytes).ok()?;
    match message.body {
        Body::Query { id, query } => Some((message.tid, id, query)),
        Body::Response(_) | Body::Error(_) => None,
    }
}

/// What a query approaches.
pub(super) fn target_of(query: &Query<'_>) -> Option<Id> {
    match query {
        Query::FindNode { target, .. } => Some(*target),
        Query::GetPeers { infohash, .. } => Some(*infohash),
        _ => None,
    }
}

/// A router that names other nodes to whoever asks the first time than to who knows it already, as the
/// well-known ones do. It keeps no table and is in nobody's.
pub struct Router {
    id: Id,
    contacts: Vec<Contacted>,
    asked: BTreeSet<IpAddr>,
    rng: Rng,
}

/// Nodes that a router names the first time, and later.
const FIRST: usize = 16;
const AGAIN: usize = 3;

impl Router {
    /// A router that knows `contacts`.
    pub fn new(contacts: Vec<(Id, SocketAddr)>, mut rng: Rng) -> Self {
        Self { id: rng.id(), contacts, asked: BTreeSet::new(), rng }
    }
}

impl Actor for Router {
    fn id(&self) -> Id {
        self.id
    }
}

impl Host for Router {
    fn datagram(&mut self, _: Time, _: u8, from: SocketAddr, bytes: &[u8], out: &mut Outbox) {
        let Some((tid, _, query)) = query_in(bytes) else { return };
        let mut nodes = Vec::new();
        if target_of(&query).is_some() {
            let count = if self.asked.insert(from.ip()) { FIRST } else { AGAIN };
            nodes.extend((0..count).map(|_| self.contacts[self.rng.below(self.contacts.len())]));
        }
        Answer { id: self.id, nodes: &nodes, peers: &[] }.send(from, tid, out);
    }

    fn timeout(&mut self, _: Time, _: &mut Outbox) {}

    fn next(&self) -> Time {
        Time::NEVER
    }

    fn forged(&self, _: u8) -> Option<SocketAddr> {
        None
    }
}
