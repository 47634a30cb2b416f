//! [`Bloom`]: the 256-byte filter of BEP 33, which counts the distinct addresses of a swarm over
//! many nodes. When to send or ask for one is not decided here.

use std::fmt;
use std::net::IpAddr;

use sha1::{Digest, Sha1};

/// A set of IP addresses with two hash functions over 2,048 bits (BEP 33, "Bloom Filters").
#[derive(Clone, PartialEq, Eq)]
pub struct Bloom([u8; Self::LEN]);

impl Bloom {
    /// Bytes on the wire.
    pub const LEN: usize = 256;
    /// Bits of the filter, `m` in the BEP.
    const BITS: usize = 8 * Self::LEN;
    /// Bits set for each address, `k` in the BEP.
    const HASHES: f64 = 2.0;

    /// An empty filter.
    pub const fn new() -> Self {
        Self([0; Self::LEN])
    }

    /// A filter from the wire; `None` unless it is exactly 256 bytes long.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Adds an address; an IPv4-mapped IPv6 address counts as IPv4.
    pub fn insert(&mut self, ip: IpAddr) {
        for (byte, mask) in bits(ip) {
            self.0[byte] |= mask;
        }
    }

    /// Adds everything that `other` holds.
    pub fn union(&mut self, other: &Self) {
        for (own, other) in self.0.iter_mut().zip(&other.0) {
            *own |= other;
        }
    }

    /// Whether `ip` was probably added; `false` is certain.
    pub fn contains(&self, ip: IpAddr) -> bool {
        bits(ip).iter().all(|&(byte, mask)| self.0[byte] & mask != 0)
    }

    /// The estimated number of addresses. Useful up to about 6,000; a full filter says 7,800.
    pub fn estimate(&self) -> f64 {
        let bits = Self::BITS as f64;
        let ones: u32 = self.0.iter().map(|byte| byte.count_ones()).sum();
        // BEP 33 writes min(m - 1, zeroes). A full filter has none, whose logarithm is infinite, so
        // one is the least that we count; an empty one is exactly zero instead of a half.
        if ones == 0 {
            return 0.0;
        }
        let zeroes = f64::from((Self::BITS as u32 - ones).max(1));
        (zeroes / bits).ln() / (Self::HASHES * (1.0 - 1.0 / bits).ln())
    }

    /// The wire form.
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl Default for Bloom {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Bloom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bloom(~{:.0})", self.estimate())
    }
}

/// Index and mask of the two bytes that an address sets, both inside the filter.
fn bits(ip: IpAddr) -> [(usize, u8); 2] {
    let hash = match ip.to_canonical() {
        IpAddr::V4(ip) => Sha1::digest(ip.octets()),
        IpAddr::V6(ip) => Sha1::digest(ip.octets()),
    };
    [[hash[0], hash[1]], [hash[2], hash[3]]].map(|pair| {
        let index = usize::from(u16::from_le_bytes(pair)) % Bloom::BITS;
        (index / 8, 1 << (index % 8))
    })
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use data_encoding::HEXUPPER;

    use super::*;

    /// BEP 33, "Test Vectors", as printed there.
    const VECTOR: &str = "
 F6C3F5EA A07FFD91 BDE89F77 7F26FB2B FF37BDB8 FB2BBAA2 FD3DDDE7 BACFFF75 EE7CCBAE
 FE5EEDB1 FBFAFF67 F6ABFF5E 43DDBCA3 FD9B9FFD F4FFD3E9 DFF12D1B DF59DB53 DBE9FA5B
 7FF3B8FD FCDE1AFB 8BEDD7BE 2F3EE71E BBBFE93B CDEEFE14 8246C2BC 5DBFF7E7 EFDCF24F
 D8DC7ADF FD8FFFDF DDFFF7A4 BBEEDF5C B95CE81F C7FCFF1F F4FFFFDF E5F7FDCB B7FD79B3
 FA1FC77B FE07FFF9 05B7B7FF C7FEFEFF E0B8370B B0CD3F5B 7F2BD93F EB4386CF DD6F7FD5
 BFAF2E9E BFFFFEEC D67ADBF7 C67F17EF D5D75EBA 6FFEBA7F FF47A91E B1BFBB53 E8ABFB57
 62ABE8FF 237279BF EFBFEEF5 FFC5FEBF DFE5ADFF ADFEE1FB 737FFFFB FD9F6AEF FEEE76B6
 FD8F72EF";

    fn addresses() -> impl Iterator<Item = IpAddr> {
        let v4 = (0..=255).map(|last| IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)));
        let v6 = (0..=0x3e7).map(|last| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last)));
        v4.chain(v6)
    }

    #[test]
    fn the_vector_of_bep_33_comes_out() {
        let mut bloom = Bloom::new();
        addresses().for_each(|ip| bloom.insert(ip));
        let expected: String = VECTOR.split_whitespace().collect();
        assert_eq!(HEXUPPER.encode(bloom.as_bytes()), expected);
        assert!((bloom.estimate() - 1224.9308).abs() < 0.0001, "{}", bloom.estimate());
        assert!(addresses().all(|ip| bloom.contains(ip)));
        assert_eq!(Bloom::from_slice(bloom.as_bytes()), Some(bloom));
    }

    #[test]
    fn a_union_equals_inserting_everything_into_one() {
        let (mut even, mut odd, mut all) = (Bloom::new(), Bloom::new(), Bloom::new());
        for (index, ip) in addresses().enumerate() {
            let half = if index % 2 == 0 { &mut even } else { &mut odd };
            half.insert(ip);
            all.insert(ip);
        }
        even.union(&odd);
        assert_eq!(even, all);
    }

    #[test]
    fn empty_and_full_filters_have_finite_estimates() {
        assert_eq!(Bloom::new().estimate(), 0.0);
        assert!(!Bloom::new().contains(Ipv4Addr::LOCALHOST.into()));
        let full = Bloom([0xff; 256]).estimate();
        assert!((7000.0..8000.0).contains(&full), "{full}");
        assert_eq!(Bloom::from_slice(&[0; 255]), None);
    }

    #[test]
    fn a_mapped_address_is_the_same_address() {
        let mut bloom = Bloom::new();
        bloom.insert("::ffff:192.0.2.7".parse().unwrap());
        let mut same = Bloom::new();
        same.insert("192.0.2.7".parse().unwrap());
        assert_eq!(bloom, same);
    }
}
