//! [`named`]: which of the nodes that an answer names a lookup takes, without allocation.

use std::net::SocketAddr;

use arrayvec::ArrayVec;
use krpc::compact::{self, Address};
use krpc::{Distance, Id};

use super::env::Env;
use crate::addr::acceptable;
use crate::home::Place;

/// Nodes that an answer names, with their distances from the target, nearest first.
pub(super) type Named = ArrayVec<(Distance, Id, SocketAddr), MAX_NAMED>;

/// The `most` nodes (at most [`MAX_NAMED`]) of a record string that are nearest to the target and may exist;
/// nobody of a string that ends within a record.
pub(super) fn named<A: Address>(raw: &[u8], target: &Id, most: usize, env: &Env<'_>) -> Named {
    let (mut named, most) = (Named::new(), most.min(MAX_NAMED));
    if !compact::is_whole_nodes::<A>(raw) {
        return named;
    }
    for node in compact::nodes::<A>(raw) {
        let (id, addr) = (node.id, node.addr.to_socket());
        let is_ours = |place: &Place| place.local == addr || place.id() == id;
        if !acceptable(addr, env.config.allow_local) || env.places.iter().any(is_ours) {
            continue;
        }
        let distance = id.distance(target);
        let at = named.partition_point(|(other, ..)| *other <= distance);
        if at < most {
            named.truncate(most - 1);
            named.insert(at, (distance, id, addr));
        }
    }
    named
}

/// Most nodes that are taken of one answer, whatever [`crate::Config::lookup_nodes_per_reply`] says: more than
/// there are in a datagram of [`crate::Config::max_incoming`] bytes by default.
const MAX_NAMED: usize = 96;
