//! Node ids that belong to an address (BEP 42): the first 21 bits are a CRC of the masked address
//! and of three random bits, so that nobody can choose where in the key space a node stands.
//!
//! Local addresses are exempt (BEP 42, "local networks").

use std::net::IpAddr;

use crc::{CRC_32_ISCSI, Crc};
use krpc::Id;

use crate::Rng;
use crate::addr::is_local;

/// Makes an id that belongs to `ip`.
pub fn secure_id(ip: IpAddr, rng: &mut Rng) -> Id {
    let mut bytes = *rng.id().as_bytes();
    let [a, b, c, _] = prefix(ip, bytes[Id::LEN - 1]).to_be_bytes();
    bytes[0] = a;
    bytes[1] = b;
    bytes[2] = c & 0xf8 | bytes[2] & 0x07;
    Id::new(bytes)
}

/// Whether `id` belongs to `ip`; always so for local addresses.
pub fn is_secure(id: &Id, ip: IpAddr) -> bool {
    let &[a, b, c, .., last] = id.as_bytes();
    is_local(ip) || prefix(ip, last) ^ u32::from_be_bytes([a, b, c, 0]) < 1 << (32 - PREFIX_BITS)
}

/// Bits of an id that the address decides.
const PREFIX_BITS: u32 = 21;

/// The Castagnoli CRC that BEP 42 names.
const CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// The CRC whose first 21 bits an id of `ip` starts with, if `last` is its last byte.
fn prefix(ip: IpAddr, last: u8) -> u32 {
    let random = last & 0x07;
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let masked = ip.to_bits() & 0x030f_3fff | u32::from(random) << 29;
            CRC32C.checksum(&masked.to_be_bytes())
        }
        IpAddr::V6(ip) => {
            let masked = (ip.to_bits() >> 64) as u64 & 0x0103_070f_1f3f_7fff | u64::from(random) << 61;
            CRC32C.checksum(&masked.to_be_bytes())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// BEP 42, "Node ID restriction": the table of test vectors as printed there.
    const VECTORS: [(&str, u8, &str); 5] = [
        ("124.31.75.21", 1, "5fbfbff10c5d6a4ec8a88e4c6ab4c28b95eee401"),
        ("21.75.31.124", 86, "5a3ce9c14e7a08645677bbd1cfe7d8f956d53256"),
        ("65.23.51.170", 22, "a5d43220bc8f112a3d426c84764f8c2a1150e616"),
        ("84.124.73.14", 65, "1b0321dd1bb1fe518101ceef99462b947a01ff41"),
        ("43.213.53.83", 90, "e56f6cbf5b7c4be0237986d5243b87aa6d51305a"),
    ];

    #[test]
    fn ids_of_the_bep_belong_to_their_addresses() {
        for (ip, last, id) in VECTORS {
            let id = Id::from_hex(id).unwrap();
            assert_eq!(id.as_bytes()[19], last);
            assert!(is_secure(&id, ip.parse().unwrap()), "{ip}");
            assert!(!is_secure(&id, "124.31.75.22".parse().unwrap()), "{ip}");
        }
    }

    #[test]
    fn each_of_the_first_21_bits_and_the_random_bits_matter() {
        for (ip, _, id) in VECTORS {
            let id = *Id::from_hex(id).unwrap().as_bytes();
            for bit in (0..21).chain(157..160) {
                let mut flipped = id;
                flipped[bit / 8] ^= 0x80 >> (bit % 8);
                assert!(!is_secure(&Id::new(flipped), ip.parse().unwrap()), "{ip} bit {bit}");
            }
            for bit in 21..157 {
                let mut flipped = id;
                flipped[bit / 8] ^= 0x80 >> (bit % 8);
                assert!(is_secure(&Id::new(flipped), ip.parse().unwrap()), "{ip} bit {bit}");
            }
        }
    }

    #[test]
    fn made_ids_belong_to_their_address_and_differ() {
        let mut rng = Rng::from_seed(1);
        for ip in ["81.2.3.4", "2001:db8:1:2::3", "::ffff:81.2.3.4"] {
            let ip: IpAddr = ip.parse().unwrap();
            let (a, b) = (secure_id(ip, &mut rng), secure_id(ip, &mut rng));
            assert!(is_secure(&a, ip) && is_secure(&b, ip) && a != b, "{ip}");
        }
        let id = secure_id("81.2.3.4".parse().unwrap(), &mut rng);
        assert!(is_secure(&id, "::ffff:81.2.3.4".parse().unwrap()), "mapped is the same address");
        assert!(!is_secure(&id, "2001:db8::1".parse().unwrap()));
    }

    #[test]
    fn local_addresses_are_exempt() {
        for ip in ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.1.1", "::1", "fe80::1"] {
            assert!(is_secure(&Id::ZERO, ip.parse().unwrap()), "{ip}");
        }
        assert!(!is_secure(&Id::ZERO, "8.8.8.8".parse().unwrap()));
    }
}
