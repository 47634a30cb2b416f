//! The shards of a fuzzed node: which of them a datagram comes to, and what crosses, at once, later or
//! never, as a shell that is busy would have it.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use btdht::shards::{Crossing, Satellite};
use btdht::{Counters, Node, Outbox, Time};

use super::node::check_replies;

/// Crossings that wait; half of the places are for answers.
const ROOM: usize = 8;

/// The satellites of a node, none if it is whole, and what is on its way from them.
pub(super) struct Shards {
    satellites: Vec<Satellite>,
    crossing: VecDeque<Crossing>,
}

impl Shards {
    pub(super) fn of(node: &mut Node, now: Time, satellites: usize) -> Self {
        Self { satellites: node.split(now, satellites), crossing: VecDeque::new() }
    }

    /// Gives a datagram to one of the shards.
    pub(super) fn deliver(
        &mut self,
        node: &mut Node,
        now: Time,
        (socket, from): (u8, SocketAddr),
        bytes: &[u8],
        out: &mut Outbox,
    ) {
        let number = shard_of(from, bytes) % (1 + self.satellites.len());
        let Some(satellite) = self.satellites.get_mut(number) else {
            return node.handle_datagram(now, socket, from, bytes, out);
        };
        let mut crossed = Vec::new();
        satellite.handle_datagram(now, (socket, from), bytes, (out, &mut crossed));
        assert!(crossed.len() <= 2, "{crossed:?} of one datagram");
        for crossing in crossed {
            let room = if crossing.is_minor() { ROOM / 2 } else { ROOM };
            if self.crossing.len() < room {
                self.crossing.push_back(crossing);
            } else {
                satellite.lost(&crossing);
            }
        }
    }

    /// Gives the deciding half what is on its way.
    pub(super) fn carry(&mut self, node: &mut Node, now: Time, out: &mut Outbox) {
        for crossing in self.crossing.drain(..) {
            let asked = match &crossing {
                Crossing::Datagram { socket, from, bytes, .. } => Some(((*socket, *from), bytes.clone())),
                Crossing::Asked { .. } | Crossing::Announced { .. } => None,
            };
            let before = out.transmits.len();
            node.handle_crossing(now, crossing, out);
            let sent = &out.transmits[before..];
            match asked {
                Some((asker, bytes)) => check_replies(sent, asker, &bytes),
                // Who asked was answered before: a reply would have nobody to go to.
                None => check_replies(sent, (u8::MAX, ([0, 0, 0, 0], 0).into()), &[]),
            }
        }
    }

    /// What the node and its satellites did together.
    pub(super) fn counters(&self, node: &Node) -> Counters {
        let mut sum = node.counters().snapshot();
        self.satellites.iter().for_each(|satellite| sum.merge(&satellite.counters()));
        sum
    }
}

/// Any number; not always the same for a sender, whose ports the kernel spreads over the shards.
fn shard_of(from: SocketAddr, bytes: &[u8]) -> usize {
    let octets = match from.ip() {
        IpAddr::V4(ip) => ip.octets().iter().map(|&octet| usize::from(octet)).sum::<usize>(),
        IpAddr::V6(ip) => ip.octets().iter().map(|&octet| usize::from(octet)).sum(),
    };
    octets + usize::from(from.port()) + bytes.len()
}
