//! Whether a query is short enough to be sent: a large item with the long token of a stranger may not be.

use krpc::{Body, Id, Message, Query};

use super::{Destination, Rpc, VERSION};

impl<P: Copy> Rpc<P> {
    /// Whether a query as `own` passes an Ethernet in one piece, as a datagram with DF has to.
    pub(crate) fn is_sendable(&self, destination: Destination, (own, query): (Id, Query<'_>)) -> bool {
        let most = if destination.to.is_ipv4() { MAX_V4 } else { MAX_V6 };
        let (read_only, body) = (self.is_read_only(destination.socket), Body::Query { id: own, query });
        let mut bytes = Vec::new();
        Message { tid: &[0; 4], version: Some(VERSION), ip: None, read_only, body }.encode(&mut bytes);
        bytes.len() <= most
    }
}

/// What 1,500 bytes hold beside the headers of IP and UDP.
const MAX_V4: usize = 1500 - 20 - 8;
const MAX_V6: usize = 1500 - 40 - 8;
