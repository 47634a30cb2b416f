//! The network around a node under test: a million nodes, of which only those exist that it meets.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use btdht::{Acquaintance, Class, Node, Outbox, Rng, Time};
use krpc::compact::{Address as _, Contact, V4, put_node, put_peer};
use krpc::{Body, Id, Message, Query, Response};

/// Nodes in the network, and in a bucket.
pub(crate) const NODES: usize = 1_000_000;
pub(crate) const K: usize = 8;
/// Bits of a target that a node and the nearest others share.
const NEAR: u32 = 17;

/// Those whom the node has met, by address.
pub(crate) struct Around {
    rng: Rng,
    met: HashMap<SocketAddr, Id>,
    next: u32,
}

impl Around {
    pub(crate) fn new(seed: u64) -> Self {
        Self { rng: Rng::from_seed(seed), met: HashMap::new(), next: 0 }
    }

    /// Somebody whose id shares exactly `bits` bits with `id`.
    pub(crate) fn sharing(&mut self, id: &Id, bits: u32) -> (Id, SocketAddr) {
        let mut bytes = *self.rng.id().as_bytes();
        for bit in 0..=bits {
            let (index, mask) = (bit as usize / 8, 0x80u8 >> (bit % 8));
            let flipped = if bit == bits { mask } else { 0 };
            bytes[index] = bytes[index] & !mask | (id.as_bytes()[index] & mask) ^ flipped;
        }
        self.next += 1;
        // An address of its own, in another network than that of the one before.
        let ip = Ipv4Addr::from(0x5500_0000 | self.next.wrapping_mul(0x9e_3779) & 0xff_ffff);
        let met = (Id::new(bytes), SocketAddr::from((ip, 6881)));
        self.met.insert(met.1, met.0);
        met
    }

    /// Whom a node knows that has been in the network for long: k of each bucket, as far as there are so
    /// many.
    pub(crate) fn table_of(&mut self, own: &Id, now: Time) -> Vec<Acquaintance> {
        let mut known = Vec::new();
        for depth in 0..Id::BITS {
            let expected = NODES as f64 / 2f64.powi(depth as i32 + 1);
            let more = f64::from(self.rng.next_u32()) / 2f64.powi(32) < expected.fract();
            let count = (expected as usize + usize::from(more)).min(K);
            for _ in 0..count {
                let (id, addr) = self.sharing(own, depth);
                let rtt = Duration::from_millis(20 + self.rng.below(200) as u64);
                let seen = now - Duration::from_secs(self.rng.below(15 * 60) as u64);
                known.push(Acquaintance { id, addr, rtt, seen });
            }
        }
        known
    }

    /// Answers everything that the node asks until it asks no more, and clears `out`.
    pub(crate) fn answer_all(&mut self, node: &mut Node, now: &mut Time, out: &mut Outbox) {
        loop {
            let turn = std::mem::take(out);
            let mut queries = turn.transmits.iter().filter(|sent| sent.class == Class::Query).peekable();
            if queries.peek().is_none() {
                return;
            }
            for query in queries {
                *now += Duration::from_millis(5);
                let reply = self.reply(query.to, turn.datagram(query));
                node.handle_datagram(*now, 0, query.to, &reply, out);
            }
        }
    }

    fn reply(&mut self, asked: SocketAddr, query: &[u8]) -> Vec<u8> {
        let message = Message::decode(query).unwrap();
        let Body::Query { query, .. } = message.body else { panic!("only queries are answered") };
        let own = self.met[&asked];
        let mut nodes = Vec::new();
        if let Query::FindNode { target, .. } | Query::GetPeers { infohash: target, .. } = query {
            let shared = own.prefix_len(&target);
            for n in 0..K as u32 {
                let (id, addr) = self.sharing(&target, (shared + 1 + n % 3).min(NEAR));
                put_node(&mut nodes, &Contact { id, addr: V4::from_socket(addr).unwrap() });
            }
        }
        let mut ip = Vec::new();
        put_peer(&mut ip, HERE.into());
        let token = matches!(query, Query::GetPeers { .. }).then_some(&b"token"[..]);
        let body = Body::Response(Response { nodes: Some(&nodes), token, ..Response::new(own) });
        let mut reply = Vec::new();
        Message { tid: message.tid, version: None, ip: Some(&ip), read_only: false, body }.encode(&mut reply);
        reply
    }
}

/// Where the node under test lives.
pub(crate) const HERE: ([u8; 4], u16) = ([81, 2, 69, 142], 6881);
