//! [`Digest`]: what happened in a world, as one number. Each datagram is hashed by itself with a fixed key
//! and the hashes are added up, so that it does not matter in which order threads come to them.

use std::hash::{BuildHasher as _, Hasher as _};
use std::net::{IpAddr, SocketAddr};

use crate::{KeyedHash, Rng, Time};

/// The sum over every datagram that was sent: when, from where, to where, when it reaches the other side
/// if it does, and its bytes. Two runs with the same digest are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    /// The sum of the hashes.
    pub sum: u64,
    /// Datagrams in it.
    pub count: u64,
}

/// What a [`Digest`] takes in.
pub(super) struct Sent<'a> {
    pub(super) now: Time,
    /// [`Time::NEVER`] if it is lost.
    pub(super) arrives: Time,
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) bytes: &'a [u8],
}

impl Digest {
    /// The hash to add with; the same in every world.
    pub(super) fn hash() -> KeyedHash {
        KeyedHash::new(&mut Rng::from_seed(0x5157))
    }

    pub(super) fn add(&mut self, hash: &KeyedHash, sent: &Sent<'_>) {
        let mut head = [0; 56];
        head[..8].copy_from_slice(&sent.now.as_micros().to_le_bytes());
        head[8..16].copy_from_slice(&sent.arrives.as_micros().to_le_bytes());
        put_addr(&mut head[16..36], sent.from);
        put_addr(&mut head[36..56], sent.to);
        let mut hasher = hash.build_hasher();
        hasher.write(&head);
        hasher.write(sent.bytes);
        self.sum = self.sum.wrapping_add(hasher.finish());
        self.count += 1;
    }

    pub(super) fn merge(self, other: Self) -> Self {
        Self { sum: self.sum.wrapping_add(other.sum), count: self.count + other.count }
    }
}

/// Twenty bytes that no other address has.
fn put_addr(bytes: &mut [u8], addr: SocketAddr) {
    match addr.ip() {
        IpAddr::V4(ip) => {
            bytes[0] = 4;
            bytes[1..5].copy_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            bytes[0] = 6;
            bytes[1..17].copy_from_slice(&ip.octets());
        }
    }
    bytes[17..19].copy_from_slice(&addr.port().to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_but_the_order_counts() {
        let hash = Digest::hash();
        let addr = |port| SocketAddr::from(([8, 8, 8, 8], port));
        let of = |now, arrives, from, to, bytes: &[u8]| {
            let mut digest = Digest::default();
            let (now, arrives) = (Time::from_micros(now), Time::from_micros(arrives));
            digest.add(&hash, &Sent { now, arrives, from: addr(from), to: addr(to), bytes });
            digest
        };
        let one = of(1, 2, 3, 4, b"ab");
        let others = [
            of(2, 2, 3, 4, b"ab"),
            of(1, 1, 3, 4, b"ab"),
            of(1, 2, 4, 4, b"ab"),
            of(1, 2, 3, 3, b"ab"),
            of(1, 2, 4, 3, b"ab"),
            of(1, 2, 3, 4, b"ac"),
            of(1, 2, 3, 4, b"ab\0"),
        ];
        for other in others {
            assert_ne!(one, other);
            assert_eq!(one.merge(other), other.merge(one));
        }
        assert_eq!(one, of(1, 2, 3, 4, b"ab"));
        // What happens twice is not the same as what never happens.
        assert_ne!(one.merge(one), Digest::default());
    }
}
