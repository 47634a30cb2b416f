//! Which addresses of strangers count, and which addresses count as one: the one function that says
//! whether a node or peer may live at an address, and the keys of everything that is limited by
//! source or spread over networks.
//!
//! Addresses that the user gave are not asked about here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use krpc::compact::Address;

use crate::Config;

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4: `values` of 6 bytes, `nodes` of 26.
    V4,
    /// IPv6: `values` of 18 bytes, `nodes6` of 38 (BEP 32).
    V6,
}

/// Whether a stranger's datagram, node or peer may have this address.
///
/// Port 0 and addresses that no host can have (0/8, 224/4, 240/4, the IPv6 unspecified, multicast and
/// IPv4-compatible ones) are refused always; local ones (see [`is_local`]) unless `allow_local`.
/// An IPv4-mapped IPv6 address is judged as the IPv4 address inside. Documentation and benchmark
/// ranges are ordinary addresses.
pub fn acceptable(addr: SocketAddr, allow_local: bool) -> bool {
    let ip = addr.ip().to_canonical();
    addr.port() != 0 && !is_impossible(ip) && (allow_local || !is_local(ip))
}

/// Whether the address is of this host or a private network: 127/8, 10/8, 172.16/12, 192.168/16,
/// 169.254/16, and in IPv6 ::1, fe80::/10, fec0::/10 and fc00::/7.
pub fn is_local(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => {
            let first = ip.segments()[0];
            ip.is_loopback() || first & 0xfe00 == 0xfc00 || first & 0xff80 == 0xfe80
        }
    }
}

/// Whether two addresses count as one source of nodes: the same IP, or for local addresses where
/// they are allowed the same IP and port (DECISIONS.md 1).
pub(crate) fn same_source<A: Address>(a: A, b: A, config: &Config) -> bool {
    let ip = |addr: &A| addr.as_wire().len() - 2;
    if a.as_wire()[..ip(&a)] != b.as_wire()[..ip(&b)] {
        return false;
    }
    a == b || !(config.allow_local && is_local(a.to_socket().ip()))
}

/// An IPv4-mapped IPv6 address as the IPv4 address that it means, which is what a socket can send to:
/// a listener for both families names its peers so. Any other address as it is.
pub fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::from((ip, addr.port())),
        IpAddr::V6(_) => addr,
    }
}

/// The key under which a source is limited: its IPv4 address or its IPv6 /64. With `allow_local`, a
/// local address counts with its port, so that many nodes can live on one machine.
pub fn source_key(addr: SocketAddr, allow_local: bool) -> SourceKey {
    SourceKey(Key::new(addr, allow_local, Ipv4Addr::BROADCAST))
}

/// The key under which addresses count as one network: the IPv4 /24 or IPv6 /64. With `allow_local`,
/// a local address counts with its port.
pub fn subnet_key(addr: SocketAddr, allow_local: bool) -> SubnetKey {
    SubnetKey(Key::new(addr, allow_local, Ipv4Addr::new(255, 255, 255, 0)))
}

/// One source of datagrams; see [`source_key`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceKey(Key);

impl SourceKey {
    /// The key as bytes, for a keyed hash.
    pub fn to_bytes(self) -> [u8; 24] {
        self.0.to_bytes()
    }

    /// The key of these bytes, of an earlier run.
    pub(crate) fn from_bytes(bytes: &[u8; 24]) -> Self {
        Self(Key::from_bytes(bytes))
    }
}

/// One network; see [`subnet_key`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubnetKey(Key);

impl SubnetKey {
    /// The key in eight bytes. Two networks of one family differ in it, but for local IPv6 addresses with
    /// their ports, of which some share theirs.
    pub(crate) fn short(self) -> u64 {
        let Key { high, low, kind } = self.0;
        // The upper half of `high` is free in IPv4, and `kind` says nothing about the /64 of IPv6.
        if kind >> 16 & 2 == 0 {
            high | u64::from(kind) << 32
        } else {
            high ^ low.rotate_left(24) ^ u64::from(kind & 0xffff)
        }
    }

    /// The key as bytes, for a keyed hash.
    pub fn to_bytes(self) -> [u8; 24] {
        self.0.to_bytes()
    }
}

/// The part of an address that counts. `kind` tells families and local addresses apart and carries
/// the port of local ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Key {
    high: u64,
    low: u64,
    kind: u32,
}

const _: () = assert!(size_of::<SourceKey>() == 24 && size_of::<SubnetKey>() == 24);

impl Key {
    fn new(addr: SocketAddr, allow_local: bool, mask: Ipv4Addr) -> Self {
        let with_port = allow_local && is_local(addr.ip());
        let port = u32::from(addr.port());
        match (addr.ip().to_canonical(), with_port) {
            (IpAddr::V4(ip), true) => Self { high: u64::from(ip.to_bits()), low: 0, kind: 1 << 16 | port },
            (IpAddr::V4(ip), false) => Self { high: u64::from((ip & mask).to_bits()), low: 0, kind: 0 },
            (IpAddr::V6(ip), true) => {
                let bits = ip.to_bits();
                Self { high: (bits >> 64) as u64, low: bits as u64, kind: 3 << 16 | port }
            }
            (IpAddr::V6(ip), false) => Self { high: (ip.to_bits() >> 64) as u64, low: 0, kind: 2 << 16 },
        }
    }

    fn from_bytes(bytes: &[u8; 24]) -> Self {
        let word = |at: usize| u64::from_be_bytes(std::array::from_fn(|n| bytes[at + n]));
        Self { high: word(0), low: word(8), kind: (word(16) >> 32) as u32 }
    }

    fn to_bytes(self) -> [u8; 24] {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&self.high.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.low.to_be_bytes());
        bytes[16..20].copy_from_slice(&self.kind.to_be_bytes());
        bytes
    }
}

fn is_impossible(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => matches!(ip.octets()[0], 0 | 224..=255),
        // ::/96 are the IPv4-compatible addresses (deprecated by RFC 4291); ::1 is local instead.
        IpAddr::V6(ip) => ip.is_multicast() || ip.to_bits() >> 32 == 0 && ip != Ipv6Addr::LOCALHOST,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Address; acceptable without and with `allow_local`; local.
    const TABLE: &[(&str, bool, bool, bool)] = &[
        ("8.8.8.8:1", true, true, false),
        ("8.8.8.8:0", false, false, false),
        ("127.0.0.1:0", false, false, true),
        ("0.0.0.0:6881", false, false, false),
        ("0.1.2.3:6881", false, false, false),
        ("1.0.0.0:6881", true, true, false),
        ("9.255.255.255:6881", true, true, false),
        ("10.0.0.1:6881", false, true, true),
        ("10.255.255.255:6881", false, true, true),
        ("11.0.0.0:6881", true, true, false),
        ("100.64.0.1:6881", true, true, false),
        ("126.255.255.255:6881", true, true, false),
        ("127.0.0.1:6881", false, true, true),
        ("127.255.0.9:6881", false, true, true),
        ("128.0.0.0:6881", true, true, false),
        ("169.253.255.255:6881", true, true, false),
        ("169.254.169.254:80", false, true, true),
        ("172.15.255.255:6881", true, true, false),
        ("172.16.0.1:6881", false, true, true),
        ("172.31.255.255:6881", false, true, true),
        ("172.32.0.0:6881", true, true, false),
        ("192.0.2.1:6881", true, true, false),
        ("192.167.255.255:6881", true, true, false),
        ("192.168.0.1:6881", false, true, true),
        ("192.169.0.0:6881", true, true, false),
        ("198.18.0.1:6881", true, true, false),
        ("198.51.100.1:6881", true, true, false),
        ("203.0.113.1:6881", true, true, false),
        ("223.255.255.255:6881", true, true, false),
        ("224.0.0.1:6881", false, false, false),
        ("239.255.255.250:1900", false, false, false),
        ("240.0.0.1:6881", false, false, false),
        ("255.255.255.255:6881", false, false, false),
        ("[2001:4860::8888]:6881", true, true, false),
        ("[2001:4860::8888]:0", false, false, false),
        ("[2001:db8::1]:6881", true, true, false),
        ("[::]:6881", false, false, false),
        ("[::1]:6881", false, true, true),
        ("[::2]:6881", false, false, false),
        ("[::8.8.8.8]:6881", false, false, false),
        ("[::1:0:0:1]:6881", true, true, false),
        ("[::ffff:8.8.8.8]:6881", true, true, false),
        ("[::ffff:127.0.0.1]:6881", false, true, true),
        ("[::ffff:10.1.1.1]:6881", false, true, true),
        ("[::ffff:0.0.0.0]:6881", false, false, false),
        ("[::ffff:224.0.0.1]:6881", false, false, false),
        ("[fbff::1]:6881", true, true, false),
        ("[fc00::1]:6881", false, true, true),
        ("[fdff::1]:6881", false, true, true),
        ("[fe00::1]:6881", true, true, false),
        ("[fe80::1]:6881", false, true, true),
        ("[febf::1]:6881", false, true, true),
        ("[fec0::1]:6881", false, true, true),
        ("[ff02::1]:6881", false, false, false),
    ];

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn every_kind_of_address_gets_its_verdict() {
        for &(text, strict, with_local, local) in TABLE {
            assert_eq!(acceptable(addr(text), false), strict, "{text}");
            assert_eq!(acceptable(addr(text), true), with_local, "{text} with allow_local");
            assert_eq!(is_local(addr(text).ip()), local, "{text} local");
        }
    }

    #[test]
    fn sources_are_one_ipv4_address_or_one_ipv6_64() {
        let key = |text| source_key(addr(text), true);
        assert_eq!(key("8.8.8.8:1"), key("8.8.8.8:2"));
        assert_eq!(key("8.8.8.8:1"), key("[::ffff:8.8.8.8]:3"));
        assert_ne!(key("8.8.8.8:1"), key("8.8.8.9:1"));
        assert_eq!(key("[2001:db8::1]:1"), key("[2001:db8::ffff:1]:2"));
        assert_ne!(key("[2001:db8::1]:1"), key("[2001:db8:0:1::1]:1"));
        assert_ne!(key("[0:0:808:808::]:1").to_bytes(), key("8.8.8.8:1").to_bytes());
    }

    #[test]
    fn subnets_are_ipv4_24_and_ipv6_64() {
        let key = |text| subnet_key(addr(text), false);
        assert_eq!(key("8.8.8.8:1"), key("8.8.8.255:9"));
        assert_ne!(key("8.8.8.8:1"), key("8.8.9.8:1"));
        assert_eq!(key("[2001:db8::1]:1"), key("[2001:db8::2]:1"));
        assert_eq!(key("127.0.0.1:1"), key("127.0.0.2:2"));
    }

    #[test]
    fn local_addresses_count_with_their_port_only_when_allowed() {
        for (a, b) in [("127.0.0.1:1", "127.0.0.1:2"), ("[::1]:1", "[::1]:2"), ("[fe80::1]:1", "[fe80::2]:1")]
        {
            let (a, b) = (addr(a), addr(b));
            assert_ne!(source_key(a, true), source_key(b, true));
            assert_ne!(subnet_key(a, true), subnet_key(b, true));
            assert_eq!(source_key(a, false), source_key(b, false));
            assert_eq!(subnet_key(a, false), subnet_key(b, false));
        }
    }
}
