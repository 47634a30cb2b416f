//! [`Nat`]: a translator of addresses before a host, and [`Mappings`]: what it remembers (RFC 4787's words
//! in brackets). Only datagrams from inside keep a mapping alive, as the RFC asks at least.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::dice::{Draw, draw, mix};
use crate::Time;

/// What a NAT remembers at most; then it forgets what was used longest ago.
const MAX_MAPPINGS: usize = 8192;

/// A translator of addresses before one host, which has an outer address of its own. IPv6 addresses are
/// not translated, but what comes from outside is filtered in the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nat {
    /// Whom it lets in.
    pub kind: NatKind,
    /// How long it remembers what went out.
    pub timeout: Duration,
}

/// Kinds of NAT by their old names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NatKind {
    /// Anybody is let in while anything went out of late [endpoint-independent mapping and filtering].
    FullCone,
    /// Addresses that something went to are let in [address-dependent filtering].
    AddressRestricted,
    /// Addresses and ports that something went to are let in [address and port-dependent filtering].
    PortRestricted,
    /// The same, and each address and port sees another outer port [address and port-dependent mapping].
    Symmetric,
}

/// What went out through a NAT of late.
#[derive(Debug, Default)]
pub(super) struct Mappings {
    /// By key.
    entries: Vec<Mapping>,
    /// How many entries there were when the stale ones were last thrown out.
    kept: usize,
}

#[derive(Clone, Copy, Debug)]
struct Mapping {
    /// The other side, as far as the NAT tells it apart.
    key: u64,
    last: Time,
}

impl Nat {
    /// Takes note of a datagram to `to`.
    pub(super) fn opens(&self, now: Time, to: SocketAddr, mappings: &mut Mappings) {
        let key = self.key(to);
        match mappings.entries.binary_search_by_key(&key, |entry| entry.key) {
            Ok(at) => mappings.entries[at].last = now,
            Err(_) => {
                mappings.make_room(now, self.timeout);
                let at = mappings.entries.partition_point(|entry| entry.key < key);
                mappings.entries.insert(at, Mapping { key, last: now });
            }
        }
    }

    /// Whether a datagram from `from` is let in.
    pub(super) fn admits(&self, now: Time, from: SocketAddr, mappings: &Mappings) -> bool {
        let key = self.key(from);
        let found = mappings.entries.binary_search_by_key(&key, |entry| entry.key);
        found.is_ok_and(|at| now.since(mappings.entries[at].last) <= self.timeout)
    }

    /// The outer port of the host numbered `number` for datagrams to and from `other`; `inner` is that of
    /// its socket.
    pub(super) fn port(&self, seed: u64, number: u32, other: SocketAddr, inner: u16) -> u16 {
        match self.kind {
            NatKind::Symmetric if other.is_ipv4() => {
                1024 + (draw(seed, Draw::Port, number.into(), self.key(other)) % 64_512) as u16
            }
            _ => inner,
        }
    }

    fn key(&self, other: SocketAddr) -> u64 {
        let ip = match other.ip() {
            IpAddr::V4(ip) => u64::from(ip.to_bits()) << 16,
            IpAddr::V6(ip) => {
                let bits = ip.to_bits();
                mix(mix((bits >> 64) as u64) ^ bits as u64) & !0xffff
            }
        };
        match self.kind {
            NatKind::FullCone => u64::from(other.is_ipv6()),
            NatKind::AddressRestricted => ip,
            NatKind::PortRestricted | NatKind::Symmetric => ip | u64::from(other.port()),
        }
    }
}

impl Mappings {
    /// Bytes on the heap.
    pub(super) fn memory(&self) -> usize {
        self.entries.capacity() * size_of::<Mapping>()
    }

    /// Forgets stale entries whenever their number has doubled, and old ones when there are too many.
    fn make_room(&mut self, now: Time, timeout: Duration) {
        if self.entries.len() < (2 * self.kept).clamp(16, MAX_MAPPINGS) {
            return;
        }
        self.entries.retain(|entry| now.since(entry.last) <= timeout);
        if self.entries.len() >= MAX_MAPPINGS {
            let mut times: Vec<_> = self.entries.iter().map(|entry| entry.last).collect();
            let (_, &mut median, _) = times.select_nth_unstable(MAX_MAPPINGS / 2);
            // Of those of one instant that of the greatest key may go too: what counts is that half go.
            let mut left = MAX_MAPPINGS / 2;
            self.entries.retain(|entry| {
                let stays = entry.last >= median && left > 0;
                left -= usize::from(stays);
                stays
            });
        }
        self.kept = self.entries.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(120);

    fn addr(ip: u8, port: u16) -> SocketAddr {
        ([8, 8, 8, ip], port).into()
    }

    /// Whether `kind` lets in, after one datagram to 8.8.8.1:1: the same, another port, another address.
    fn admits(kind: NatKind, later: Duration) -> [bool; 3] {
        let (nat, mut mappings) = (Nat { kind, timeout: TIMEOUT }, Mappings::default());
        let now = Time::from_secs(9);
        assert!(!nat.admits(now, addr(1, 1), &mappings));
        nat.opens(now, addr(1, 1), &mut mappings);
        [addr(1, 1), addr(1, 2), addr(2, 1)].map(|from| nat.admits(now + later, from, &mappings))
    }

    #[test]
    fn each_kind_lets_in_whom_it_should_until_its_timeout() {
        use NatKind::*;
        assert_eq!(admits(FullCone, TIMEOUT), [true, true, true]);
        assert_eq!(admits(AddressRestricted, TIMEOUT), [true, true, false]);
        assert_eq!(admits(PortRestricted, TIMEOUT), [true, false, false]);
        assert_eq!(admits(Symmetric, TIMEOUT), [true, false, false]);
        for kind in [FullCone, AddressRestricted, PortRestricted, Symmetric] {
            assert_eq!(admits(kind, TIMEOUT + Duration::from_micros(1)), [false; 3]);
        }
    }

    #[test]
    fn only_symmetric_ones_change_the_port() {
        let nat = |kind| Nat { kind, timeout: TIMEOUT };
        let ports = |kind| [addr(1, 1), addr(1, 2), addr(2, 1)].map(|to| nat(kind).port(7, 5, to, 6881));
        assert_eq!(ports(NatKind::PortRestricted), [6881; 3]);
        let [a, b, c] = ports(NatKind::Symmetric);
        assert!(a != b && b != c && a != c && a.min(b).min(c) >= 1024);
        assert_eq!(ports(NatKind::Symmetric), [a, b, c]);
        // IPv6 is filtered, not translated.
        let v6 = "[2a00::1]:9".parse().unwrap();
        assert_eq!(nat(NatKind::Symmetric).port(7, 5, v6, 6881), 6881);
    }

    #[test]
    fn memory_has_a_limit_and_the_newest_stay() {
        let (nat, mut mappings) =
            (Nat { kind: NatKind::PortRestricted, timeout: TIMEOUT }, Mappings::default());
        for n in 0..100_000u32 {
            let to = SocketAddr::from((n.to_be_bytes(), 1));
            nat.opens(Time::from_micros(n.into()), to, &mut mappings);
            assert!(nat.admits(Time::from_micros(n.into()), to, &mappings));
        }
        assert!(mappings.entries.len() <= MAX_MAPPINGS && mappings.memory() <= 2 * MAX_MAPPINGS * 16);
        // All at one instant.
        for n in 0..100_000u32 {
            nat.opens(Time::from_secs(9), (n.to_be_bytes(), 2).into(), &mut mappings);
        }
        assert!(mappings.entries.len() <= MAX_MAPPINGS);
        // A host that talks to few keeps little, however long it does.
        let mut few = Mappings::default();
        for n in 0..10_000u64 {
            nat.opens(Time::from_secs(100 * n), addr((n % 250) as u8, n as u16), &mut few);
        }
        assert!(few.entries.len() <= 16, "{}", few.entries.len());
    }
}
