//! Compact address records: nodes of 26 or 38 bytes (BEP 5, BEP 32) and peers of 6 or 18 bytes
//! (BEP 5, BEP 23, BEP 32), read in place and appended to the caller's buffer.
//!
//! Addresses stay in wire form ([`V4`], [`V6`]) until somebody needs a [`SocketAddr`]. Whether an
//! address may be contacted is policy and not decided here; port 0 is passed through.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::Id;

/// An address family in wire form: `ip ‖ port`, both big-endian.
pub trait Address: Copy + Eq + Ord + std::hash::Hash + fmt::Debug + Send + Sync + 'static {
    /// Bytes on the wire: 6 or 18.
    const LEN: usize;
    /// Bytes of a node record: 26 or 38.
    const NODE_LEN: usize = Id::LEN + Self::LEN;

    /// Reads an address; `None` unless `bytes` is exactly [`Address::LEN`] long.
    fn from_wire(bytes: &[u8]) -> Option<Self>;
    /// The wire form.
    fn as_wire(&self) -> &[u8];
    /// The address of this family that `addr` is; an IPv4-mapped IPv6 address counts as IPv4.
    fn from_socket(addr: SocketAddr) -> Option<Self>;
    /// The address for the socket API.
    fn to_socket(self) -> SocketAddr;
}

/// An IPv4 address and port, 6 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct V4([u8; 6]);

/// An IPv6 address and port, 18 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct V6([u8; 18]);

impl Address for V4 {
    const LEN: usize = 6;

    fn from_wire(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    fn as_wire(&self) -> &[u8] {
        &self.0
    }

    fn from_socket(addr: SocketAddr) -> Option<Self> {
        let IpAddr::V4(ip) = addr.ip().to_canonical() else {
            return None;
        };
        let [a, b, c, d] = ip.octets();
        let [hi, lo] = addr.port().to_be_bytes();
        Some(Self([a, b, c, d, hi, lo]))
    }

    fn to_socket(self) -> SocketAddr {
        let [a, b, c, d, hi, lo] = self.0;
        SocketAddr::from((Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([hi, lo])))
    }
}

impl Address for V6 {
    const LEN: usize = 18;

    fn from_wire(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    fn as_wire(&self) -> &[u8] {
        &self.0
    }

    fn from_socket(addr: SocketAddr) -> Option<Self> {
        let IpAddr::V6(ip) = addr.ip().to_canonical() else {
            return None;
        };
        let mut bytes = [0; 18];
        bytes[..16].copy_from_slice(&ip.octets());
        bytes[16..].copy_from_slice(&addr.port().to_be_bytes());
        Some(Self(bytes))
    }

    fn to_socket(self) -> SocketAddr {
        let (ip, port) = self.0.split_at(16);
        let ip: [u8; 16] = ip.try_into().expect("split at 16");
        SocketAddr::from((Ipv6Addr::from(ip), u16::from_be_bytes([port[0], port[1]])))
    }
}

impl fmt::Debug for V4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_socket().fmt(f)
    }
}

impl fmt::Debug for V6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_socket().fmt(f)
    }
}

/// A node's id and address, without history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Contact<A> {
    /// The node id that it claims.
    pub id: Id,
    /// Where it listens.
    pub addr: A,
}

/// Iterates over the records of a `nodes` (`A` = [`V4`]) or `nodes6` ([`V6`]) string. A trailing
/// partial record ends the iteration silently: use [`is_whole_nodes`] to refuse such a string.
pub fn nodes<A: Address>(bytes: &[u8]) -> impl ExactSizeIterator<Item = Contact<A>> + Clone + '_ {
    bytes.chunks_exact(A::NODE_LEN).map(|record| {
        let (id, addr) = record.split_at(Id::LEN);
        Contact {
            id: Id::from_slice(id).expect("split at 20"),
            addr: A::from_wire(addr).expect("the rest of NODE_LEN"),
        }
    })
}

/// Whether `bytes` is a whole number of node records.
pub fn is_whole_nodes<A: Address>(bytes: &[u8]) -> bool {
    bytes.len().is_multiple_of(A::NODE_LEN)
}

/// Iterates over a string of peer records (BEP 23 `peers`, BEP 7 `peers6`); a trailing partial
/// record ends the iteration silently.
pub fn peers<A: Address>(bytes: &[u8]) -> impl ExactSizeIterator<Item = A> + Clone + '_ {
    bytes.chunks_exact(A::LEN).map(|record| A::from_wire(record).expect("chunks of LEN"))
}

/// Reads one peer record of either family, told apart by its length.
pub fn peer(record: &[u8]) -> Option<SocketAddr> {
    V4::from_wire(record).map(Address::to_socket).or_else(|| V6::from_wire(record).map(Address::to_socket))
}

/// Appends one node record.
pub fn put_node<A: Address>(out: &mut Vec<u8>, contact: &Contact<A>) {
    put_record(out, &contact.id, &contact.addr);
}

/// Appends the node record of `id` at `addr`.
#[inline]
pub fn put_record<A: Address>(out: &mut Vec<u8>, id: &Id, addr: &A) {
    // In one piece: a reply carries eight.
    let mut record = [0; V6::NODE_LEN];
    let record = &mut record[..A::NODE_LEN];
    record[..Id::LEN].copy_from_slice(id.as_bytes());
    record[Id::LEN..].copy_from_slice(addr.as_wire());
    out.extend_from_slice(record);
}

/// Appends one peer record, 6 or 18 bytes by the family of `addr`.
pub fn put_peer(out: &mut Vec<u8>, addr: SocketAddr) {
    match (V4::from_socket(addr), V6::from_socket(addr)) {
        (Some(v4), _) => out.extend_from_slice(v4.as_wire()),
        (None, Some(v6)) => out.extend_from_slice(v6.as_wire()),
        (None, None) => unreachable!("an address is of one of the two families"),
    }
}

/// Appends one item of a `values` list: `6:` or `18:` and the peer record. What is appended adds up
/// to what [`crate::bencode::Strings::from_raw`] takes.
pub fn put_value(out: &mut Vec<u8>, addr: SocketAddr) {
    match (V4::from_socket(addr), V6::from_socket(addr)) {
        (Some(v4), _) => {
            out.extend_from_slice(b"6:");
            out.extend_from_slice(v4.as_wire());
        }
        (None, Some(v6)) => {
            out.extend_from_slice(b"18:");
            out.extend_from_slice(v6.as_wire());
        }
        (None, None) => unreachable!("an address is of one of the two families"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_records_survive_a_round_trip() {
        let v4 = Contact {
            id: Id::new([7; 20]),
            addr: V4::from_wire(&[1, 2, 3, 4, 0x1a, 0xe1]).expect("6 bytes"),
        };
        let addr: SocketAddr = "[2001:db8::1]:6881".parse().expect("an address");
        let v6 = Contact { id: Id::new([9; 20]), addr: V6::from_socket(addr).expect("IPv6") };
        let mut bytes = Vec::new();
        put_node(&mut bytes, &v4);
        assert_eq!(bytes.len(), 26);
        assert_eq!(nodes::<V4>(&bytes).collect::<Vec<_>>(), [v4]);
        bytes.clear();
        put_node(&mut bytes, &v6);
        assert_eq!(bytes.len(), 38);
        assert_eq!(nodes::<V6>(&bytes).collect::<Vec<_>>(), [v6]);
        assert!(is_whole_nodes::<V6>(&bytes) && !is_whole_nodes::<V4>(&bytes));
    }

    #[test]
    fn mapped_addresses_count_as_ipv4() {
        let mapped: SocketAddr = "[::ffff:1.2.3.4]:80".parse().expect("an address");
        assert_eq!(V4::from_socket(mapped).map(Address::to_socket), "1.2.3.4:80".parse().ok());
        assert_eq!(V6::from_socket(mapped), None);
    }

    #[test]
    fn peer_records_are_told_apart_by_length() {
        for text in ["10.1.2.3:65535", "[2001:db8::2]:1"] {
            let addr: SocketAddr = text.parse().expect("an address");
            let mut bytes = Vec::new();
            put_peer(&mut bytes, addr);
            assert_eq!(peer(&bytes), Some(addr));
            let mut value = Vec::new();
            put_value(&mut value, addr);
            let strings = crate::bencode::Strings::from_raw(&value).unwrap();
            assert_eq!(strings.iter().map(peer).collect::<Vec<_>>(), [Some(addr)]);
        }
        assert_eq!(peer(&[0; 7]), None);
    }
}
