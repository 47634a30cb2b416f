//! Where hosts live: a seeded bijection between numbers and public-looking addresses, so that a million
//! hosts need no map, and a map for the few that a scenario puts somewhere.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use super::dice::{Draw, draw, mix};

/// The UDP port of every host that was not put elsewhere.
pub const PORT: u16 = 6881;

/// First octets of networks without private or special parts: 1 to 223 without these.
const NOT_PUBLIC: [u8; 5] = [10, 127, 169, 172, 192];
const FIRST_OCTETS: u32 = 223 - NOT_PUBLIC.len() as u32;
/// IPv4 /24 networks: as many hosts have one of their own.
const NETS: u32 = FIRST_OCTETS << 16;
/// Hosts of a /24: neither .0 nor .255.
const HOSTS: u32 = 254;

/// Numbers from here on name addresses that hosts moved to or were put at.
pub(super) const MOVED: u32 = 1 << 31;

/// Numbers ⇄ addresses, as a function of the seed. Number n and n + 1 are in networks that have nothing
/// in common; up to 14 million numbers no two share an IPv4 /24, and never an IPv6 /64.
#[derive(Clone, Debug)]
struct Plan {
    keys: [u32; 4],
    octets: u64,
}

impl Plan {
    fn new(seed: u64) -> Self {
        let keys = std::array::from_fn(|n| draw(seed, Draw::Net, n as u64, 0) as u32);
        Self { keys, octets: draw(seed, Draw::Net, 0, 1) }
    }

    fn v4(&self, number: u32) -> Ipv4Addr {
        let (round, n) = (number / NETS, number % NETS);
        let net = self.net(n);
        let last = (self.first_host(net) + round) % HOSTS + 1;
        let [_, first, second, third] = net.to_be_bytes();
        Ipv4Addr::new(public_octet(first), second, third, last as u8)
    }

    /// The number of an address; `None` for what no number has.
    fn number_of_v4(&self, ip: Ipv4Addr) -> Option<u32> {
        let [first, second, third, last] = ip.octets();
        let net = u32::from_be_bytes([0, rank_of(first)?, second, third]);
        let host = u32::from(last).checked_sub(1).filter(|&host| host < HOSTS)?;
        let round = (host + HOSTS - self.first_host(net)) % HOSTS;
        round.checked_mul(NETS)?.checked_add(self.n(net))
    }

    /// In 2a00::/16, each number with a /64 of its own.
    fn v6(&self, number: u32) -> Ipv6Addr {
        let [a, b, c, d] = self.permute::<16>(number).to_be_bytes();
        let word = |high, low| u16::from_be_bytes([high, low]);
        Ipv6Addr::new(0x2a00, word(a, b), word(c, d), 1, 0, 0, 0, 1)
    }

    fn number_of_v6(&self, ip: Ipv6Addr) -> Option<u32> {
        let [0x2a00, high, low, 1, 0, 0, 0, 1] = ip.segments() else { return None };
        Some(self.reverse::<16>(u32::from(high) << 16 | u32::from(low)))
    }

    /// The /24 of a number below [`NETS`]. The permutation is of all 24-bit numbers; whoever lands outside
    /// goes on until it is inside.
    fn net(&self, n: u32) -> u32 {
        let mut net = self.permute::<12>(n);
        while net >= NETS {
            net = self.permute::<12>(net);
        }
        net
    }

    fn n(&self, net: u32) -> u32 {
        let mut n = self.reverse::<12>(net);
        while n >= NETS {
            n = self.reverse::<12>(n);
        }
        n
    }

    fn first_host(&self, net: u32) -> u32 {
        (mix(self.octets ^ u64::from(net)) % u64::from(HOSTS)) as u32
    }

    /// A Feistel network of four rounds over two halves of `HALF` bits.
    fn permute<const HALF: u32>(&self, number: u32) -> u32 {
        let mask = (1 << HALF) - 1;
        let start = (number >> HALF, number & mask);
        let (left, right) =
            self.keys.iter().fold(start, |(left, right), &key| (right, left ^ stir::<HALF>(right, key)));
        left << HALF | right
    }

    fn reverse<const HALF: u32>(&self, number: u32) -> u32 {
        let mask = (1 << HALF) - 1;
        let start = (number >> HALF, number & mask);
        let (left, right) =
            self.keys.iter().rev().fold(start, |(left, right), &key| (right ^ stir::<HALF>(left, key), left));
        left << HALF | right
    }
}

/// The addresses of all hosts. A *number* names an address; it is the host's index until the host moves.
#[derive(Clone, Debug)]
pub(super) struct Addresses {
    plan: Plan,
    /// Who lives at the numbers from [`MOVED`] on, and where that is if it was chosen.
    moved: Vec<(u32, Option<SocketAddrV4>)>,
    chosen: BTreeMap<SocketAddrV4, u32>,
}

impl Addresses {
    pub(super) fn new(seed: u64) -> Self {
        Self { plan: Plan::new(seed), moved: Vec::new(), chosen: BTreeMap::new() }
    }

    /// The IPv4 address of `number`, or whatever was chosen for it.
    pub(super) fn v4(&self, number: u32) -> SocketAddr {
        let chosen = self.moved_to(number).and_then(|&(_, chosen)| chosen);
        chosen.unwrap_or_else(|| SocketAddrV4::new(self.plan.v4(number), PORT)).into()
    }

    /// The port of both addresses of `number`, for less than the addresses cost.
    pub(super) fn port(&self, number: u32) -> u16 {
        let chosen = self.moved_to(number).and_then(|&(_, chosen)| chosen);
        chosen.map_or(PORT, |chosen| chosen.port())
    }

    /// The IPv6 address of `number`.
    pub(super) fn v6(&self, number: u32) -> SocketAddr {
        SocketAddrV6::new(self.plan.v6(number), self.port(number), 0, 0).into()
    }

    /// The number of an address, whatever its port is, unless it was chosen for somebody; numbers that
    /// nobody has come out too.
    pub(super) fn number(&self, addr: SocketAddr) -> Option<u32> {
        match addr {
            SocketAddr::V4(addr) => {
                let chosen = self.chosen.get(&addr).copied();
                chosen.or_else(|| self.plan.number_of_v4(*addr.ip()))
            }
            SocketAddr::V6(addr) => self.plan.number_of_v6(*addr.ip()),
        }
    }

    /// Which host has or had the address.
    pub(super) fn host(&self, number: u32) -> Option<u32> {
        if number < MOVED { Some(number) } else { self.moved_to(number).map(|&(host, _)| host) }
    }

    /// A number for a host at a new address: the given one, or one that nobody has.
    pub(super) fn another(&mut self, host: u32, chosen: Option<SocketAddrV4>) -> u32 {
        let number = MOVED + u32::try_from(self.moved.len()).expect("fewer than 2^31 moves");
        self.moved.push((host, chosen));
        if let Some(addr) = chosen {
            self.chosen.insert(addr, number);
        }
        number
    }

    fn moved_to(&self, number: u32) -> Option<&(u32, Option<SocketAddrV4>)> {
        self.moved.get(number.checked_sub(MOVED)? as usize)
    }
}

/// A round of the network: cheap, for it is walked four times for each end of each datagram.
fn stir<const HALF: u32>(half: u32, key: u32) -> u32 {
    let word = (half ^ key).wrapping_mul(0x9e37_79b1);
    (word ^ word >> 15).wrapping_mul(0x85eb_ca6b) >> (u32::BITS - HALF)
}

/// The public first octet of this rank.
fn public_octet(rank: u8) -> u8 {
    NOT_PUBLIC.iter().fold(rank + 1, |octet, &private| octet + u8::from(octet >= private))
}

fn rank_of(octet: u8) -> Option<u8> {
    if octet == 0 || octet > 223 || NOT_PUBLIC.contains(&octet) {
        return None;
    }
    Some(octet - 1 - NOT_PUBLIC.iter().filter(|&&private| private < octet).count() as u8)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::addr::{acceptable, subnet_key};

    /// The last number that has an IPv4 address.
    const LAST: u32 = NETS * HOSTS - 1;

    proptest! {
        #[test]
        fn numbers_and_addresses_belong_together(seed: u64, number in 0..=LAST) {
            let addresses = Addresses::new(seed);
            for addr in [addresses.v4(number), addresses.v6(number)] {
                prop_assert!(acceptable(addr, false), "{addr}");
                prop_assert_eq!(addresses.number(addr), Some(number));
            }
        }

        #[test]
        fn any_address_is_somebodys_or_nobodys(seed: u64, bits: u32) {
            let addresses = Addresses::new(seed);
            let addr = SocketAddr::from((Ipv4Addr::from_bits(bits), PORT));
            if let Some(number) = addresses.number(addr) {
                prop_assert_eq!(addresses.v4(number), addr);
            }
        }
    }

    #[test]
    fn networks_are_not_shared() {
        let addresses = Addresses::new(1);
        for of in [Addresses::v4, Addresses::v6] {
            let nets: BTreeSet<_> =
                (0..100_000).map(|n| subnet_key(of(&addresses, n), false).to_bytes()).collect();
            assert_eq!(nets.len(), 100_000);
        }
        // Addresses of another seed are others.
        assert_ne!(addresses.v4(0), Addresses::new(2).v4(0));
    }

    #[test]
    fn moved_hosts_have_numbers_of_their_own() {
        let mut addresses = Addresses::new(3);
        let chosen = SocketAddrV4::new([8, 8, 8, 8].into(), 53);
        let (fresh, put) = (addresses.another(7, None), addresses.another(9, Some(chosen)));
        assert_eq!((addresses.host(fresh), addresses.host(put)), (Some(7), Some(9)));
        assert_eq!(addresses.number(addresses.v4(fresh)), Some(fresh));
        assert_eq!((addresses.v4(put), addresses.number(chosen.into())), (chosen.into(), Some(put)));
        assert_ne!(addresses.number(([8, 8, 8, 8], 54).into()), Some(put));
        assert_eq!((addresses.port(fresh), addresses.port(put)), (PORT, 53));
        assert_eq!(addresses.number(addresses.v6(put)), Some(put));
        assert_eq!((addresses.host(7), addresses.host(put + 1)), (Some(7), None));
    }

    #[test]
    fn private_and_odd_addresses_are_nobodys() {
        let addresses = Addresses::new(4);
        for text in ["10.0.0.1:1", "0.0.0.0:1", "255.255.255.255:1", "8.8.8.0:1", "8.8.8.255:1", "[::1]:1"] {
            assert_eq!(addresses.number(text.parse().unwrap()), None, "{text}");
        }
    }
}
