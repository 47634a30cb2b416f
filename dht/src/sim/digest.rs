//! [`Digest`]: what happened in a world, as one number. Each event is hashed by itself with a fixed key
//! and the hashes are added up, so that it does not matter in which order threads come to them.

use std::hash::{BuildHasher as _, Hasher as _};
use std::net::{IpAddr, SocketAddr};

use super::Presence;
use crate::event::Event;
use crate::{KeyedHash, Rng, Time};

/// The sum over all events: every datagram that was sent, with when, from where, to where, when it reaches the other
/// side if it does, and its bytes; every one that came to a host's line, and through it where that takes time, and
/// whether it was let in; whose timer went off when; when hosts were made to do something or switched on or off; and
/// what they told. What the owner of the world changes besides shows in what follows from it. Two runs of the same
/// plan with the same digest are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    /// The sum of the hashes.
    pub sum: u64,
    /// Events in it.
    pub count: u64,
}

/// A datagram that leaves a host.
pub(super) struct Sent<'a> {
    pub(super) now: Time,
    /// [`Time::NEVER`] if it is lost.
    pub(super) arrives: Time,
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) bytes: &'a [u8],
}

/// What happens at a host.
pub(super) enum Happening<'a> {
    /// A datagram comes to its line, by the number and the count of its sender.
    Came { source: u32, sequence: u32, is_let_in: bool },
    /// Its timer goes off.
    Woken,
    /// It is made to do something.
    Acted,
    /// It is switched on or off.
    Switched(Presence),
    /// It tells something.
    Told(&'a Event),
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
        self.sum_up(hasher.finish());
    }

    pub(super) fn note(&mut self, hash: &KeyedHash, now: Time, host: usize, what: &Happening<'_>) {
        let mut hasher = hash.build_hasher();
        let mut head = [0; 26];
        head[..8].copy_from_slice(&now.as_micros().to_le_bytes());
        head[8..16].copy_from_slice(&(host as u64).to_le_bytes());
        (head[16], head[17]) = match what {
            Happening::Came { is_let_in, .. } => (1, u8::from(*is_let_in)),
            Happening::Woken => (2, 0),
            Happening::Acted => (3, 0),
            Happening::Switched(presence) => (4, *presence as u8),
            Happening::Told(_) => (5, 0),
        };
        if let Happening::Came { source, sequence, .. } = what {
            head[18..22].copy_from_slice(&source.to_le_bytes());
            head[22..].copy_from_slice(&sequence.to_le_bytes());
        }
        hasher.write(&head);
        if let Happening::Told(event) = what {
            // At once: into how many pieces it falls is for the standard library to say.
            hasher.write(format!("{event:?}").as_bytes());
        }
        self.sum_up(hasher.finish());
    }

    fn sum_up(&mut self, hash: u64) {
        self.sum = self.sum.wrapping_add(hash);
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

    #[test]
    fn every_event_counts_with_its_time_and_its_host() {
        let hash = Digest::hash();
        let of = |now, host, what: &Happening<'_>| {
            let mut digest = Digest::default();
            digest.note(&hash, Time::from_micros(now), host, what);
            digest.sum
        };
        let came = |source, sequence, is_let_in| Happening::Came { source, sequence, is_let_in };
        let events = [1, 2].map(|nodes| Event::Bootstrapped { nodes });
        let mut sums = vec![of(2, 1, &Happening::Woken), of(1, 2, &Happening::Woken)];
        for what in [
            came(1, 1, true),
            came(2, 1, true),
            came(1, 2, true),
            came(1, 1, false),
            Happening::Woken,
            Happening::Acted,
            Happening::Switched(Presence::Up),
            Happening::Switched(Presence::Down),
            Happening::Told(&events[0]),
            Happening::Told(&events[1]),
        ] {
            assert_eq!(of(1, 1, &what), of(1, 1, &what));
            sums.push(of(1, 1, &what));
        }
        sums.sort_unstable();
        assert!(sums.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
