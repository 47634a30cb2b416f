//! [`TokenServer`]: the write tokens of BEP 5 ("get_peers", "announce_peer"), which prove that
//! whoever announces can receive at the address that it announces from (D4).
//!
//! A token is HMAC-SHA1 (RFC 2104) over the whole address (not its /64) and the infohash, cut to eight
//! bytes. A CRC, as some nodes use, is linear: a few tokens of one's own give everybody else's.
//!
//! A keyed state takes 200 bytes, which a node that nobody asks for tokens need not have: it is made with the
//! first token of a secret and goes with the secret.

use std::net::IpAddr;
use std::sync::OnceLock;
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use krpc::Id;
use sha1::Sha1;
use subtle::ConstantTimeEq as _;

use crate::{Rng, Time};

/// Issues tokens with the current secret and accepts those of the current and the previous one.
#[derive(Clone)]
pub struct TokenServer {
    current: Secret,
    previous: Secret,
    rotated: Time,
    rotation: Duration,
}

impl TokenServer {
    /// Bytes in a token.
    pub const LEN: usize = 8;

    /// A server that replaces its secret every `rotation` (BEP 5: five minutes), so that a token is
    /// good for at least one and at most two rotations.
    pub fn new(rng: &mut Rng, now: Time, rotation: Duration) -> Self {
        Self { current: Secret::new(rng), previous: Secret::new(rng), rotated: now, rotation }
    }

    /// Replaces the secrets that are due.
    ///
    /// After a gap of two rotations or more (a suspended machine) both go, so that no token outlives
    /// two rotations of the clock. A clock that went back counts as a rotation: the old deadline
    /// would be too far away.
    /// Whether any were.
    pub fn handle_timeout(&mut self, now: Time, rng: &mut Rng) -> bool {
        if now >= self.rotated && now < self.timeout() {
            return false;
        }
        let missed = now.since(self.rotated) >= self.rotation.saturating_mul(2);
        let fresh = if missed { Secret::new(rng) } else { self.current.clone() };
        self.previous = fresh;
        self.current = Secret::new(rng);
        self.rotated = now;
        true
    }

    /// When the secret is to be replaced.
    pub fn timeout(&self) -> Time {
        self.rotated + self.rotation
    }

    /// The token that lets `ip` announce for `infohash`.
    pub fn issue(&self, ip: IpAddr, infohash: &Id) -> [u8; Self::LEN] {
        self.current.token(ip, infohash)
    }

    /// Whether `token` was issued to `ip` for `infohash` since the last but one rotation. The time
    /// that this takes does not tell how many bytes were right.
    pub fn accepts(&self, ip: IpAddr, infohash: &Id, token: &[u8]) -> bool {
        let is_from = |secret: &Secret| bool::from(secret.token(ip, infohash)[..].ct_eq(token));
        is_from(&self.current) || is_from(&self.previous)
    }
}

/// A key of HMAC-SHA1.
#[derive(Clone)]
struct Secret {
    key: [u8; 20],
    keyed: OnceLock<Box<Hmac<Sha1>>>,
}

impl Secret {
    fn new(rng: &mut Rng) -> Self {
        let mut key = [0; 20];
        rng.fill(&mut key);
        Self { key, keyed: OnceLock::new() }
    }

    /// HMAC-SHA1(secret, ip ‖ infohash). The infohash has a fixed length, so that the two cannot be cut
    /// at another place.
    fn token(&self, ip: IpAddr, infohash: &Id) -> [u8; TokenServer::LEN] {
        let mut mac = Hmac::clone(self.keyed.get_or_init(|| Box::new(keyed(&self.key))));
        match ip.to_canonical() {
            IpAddr::V4(ip) => mac.update(&ip.octets()),
            IpAddr::V6(ip) => mac.update(&ip.octets()),
        }
        mac.update(infohash.as_bytes());
        let digest = mac.finalize().into_bytes();
        std::array::from_fn(|i| digest[i])
    }
}

#[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
fn keyed(key: &[u8]) -> Hmac<Sha1> {
    Hmac::new_from_slice(key).expect("a key of any length")
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const ROTATION: Duration = Duration::from_secs(300);
    const IP: IpAddr = IpAddr::V4(Ipv4Addr::new(81, 2, 3, 4));

    fn server(seed: u64) -> (TokenServer, Rng, Id) {
        let mut rng = Rng::from_seed(seed);
        let infohash = rng.id();
        (TokenServer::new(&mut rng, Time::ZERO, ROTATION), rng, infohash)
    }

    /// HMAC by its definition (RFC 2104, 2).
    fn hmac_by_hand(key: &[u8; 20], message: &[u8]) -> [u8; 20] {
        use sha1::Digest as _;
        let padded = |pad: u8| -> Vec<u8> { (0..64).map(|i| pad ^ key.get(i).unwrap_or(&0)).collect() };
        let inner = Sha1::digest([&padded(0x36), message].concat());
        Sha1::digest([&padded(0x5c)[..], &inner].concat()).into()
    }

    #[test]
    fn token_is_the_head_of_what_another_hmac_gives() {
        let mut rng = Rng::from_seed(7);
        for _ in 0..100 {
            let mut v6 = [0; 16];
            rng.fill(&mut v6);
            let (v4, infohash) = (Ipv4Addr::from(rng.next_u32()), rng.id());
            let secret = Secret::new(&mut rng);
            let expected = |ip: &[u8]| hmac_by_hand(&secret.key, &[ip, infohash.as_bytes()].concat());
            assert_eq!(secret.token(v4.into(), &infohash)[..], expected(&v4.octets())[..8]);
            assert_eq!(secret.token(Ipv6Addr::from(v6).into(), &infohash)[..], expected(&v6)[..8]);
        }
    }

    #[test]
    fn token_is_bound_to_address_and_infohash() {
        let (server, mut rng, infohash) = server(1);
        let token = server.issue(IP, &infohash);
        assert!(server.accepts(IP, &infohash, &token));
        assert!(server.accepts(Ipv4Addr::new(81, 2, 3, 4).to_ipv6_mapped().into(), &infohash, &token));
        assert!(!server.accepts(Ipv4Addr::new(81, 2, 3, 5).into(), &infohash, &token));
        assert!(!server.accepts(IP, &rng.id(), &token));
        let in_64 = |host| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host));
        assert!(!server.accepts(in_64(2), &infohash, &server.issue(in_64(1), &infohash)));
    }

    // S8
    #[test]
    fn changed_cut_and_lengthened_tokens_are_refused() {
        let (server, _, infohash) = server(2);
        let token = server.issue(IP, &infohash);
        for bit in 0..64 {
            let mut flipped = token;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!server.accepts(IP, &infohash, &flipped), "bit {bit}");
        }
        for len in 0..token.len() {
            assert!(!server.accepts(IP, &infohash, &token[..len]), "{len} bytes");
        }
        for extra in [0, 1, 0xff] {
            assert!(!server.accepts(IP, &infohash, &[&token[..], &[extra]].concat()));
        }
    }

    #[test]
    fn token_lives_for_one_to_two_rotations() {
        let (mut server, mut rng, infohash) = server(3);
        for start in [0, 1, 299] {
            let begin = server.timeout() - ROTATION;
            let issued = begin + Duration::from_secs(start);
            server.handle_timeout(issued, &mut rng);
            let token = server.issue(IP, &infohash);
            for second in start..900 {
                let now = begin + Duration::from_secs(second);
                server.handle_timeout(now, &mut rng);
                let accepted = server.accepts(IP, &infohash, &token);
                if now.since(issued) < ROTATION {
                    assert!(accepted, "issued at {start}, {now:?}");
                }
                assert_eq!(accepted, second < 600, "issued at {start}, {now:?}");
            }
            server.handle_timeout(begin + Duration::from_secs(900), &mut rng);
        }
    }

    #[test]
    fn clock_jumps_never_lengthen_a_token_beyond_two_rotations() {
        let (mut server, mut rng, infohash) = server(4);
        let token = server.issue(IP, &infohash);
        server.handle_timeout(Time::from_secs(86_400), &mut rng);
        assert!(!server.accepts(IP, &infohash, &token), "both secrets went with the gap");

        let token = server.issue(IP, &infohash);
        server.handle_timeout(Time::from_secs(10), &mut rng);
        assert!(server.accepts(IP, &infohash, &token), "a clock that goes back costs one rotation");
        assert_eq!(server.timeout(), Time::from_secs(310));
        server.handle_timeout(Time::from_secs(310), &mut rng);
        assert!(!server.accepts(IP, &infohash, &token));
    }

    #[test]
    fn nothing_rotates_before_its_time() {
        let (mut server, mut rng, infohash) = server(5);
        let token = server.issue(IP, &infohash);
        server.handle_timeout(Time::from_micros(299_999_999), &mut rng);
        assert_eq!(server.issue(IP, &infohash), token);
        server.handle_timeout(Time::from_secs(300), &mut rng);
        assert_ne!(server.issue(IP, &infohash), token);
    }

    // S9
    #[test]
    fn tokens_of_own_addresses_do_not_predict_another() {
        let (server, mut rng, infohash) = server(6);
        let mut predicted = 0;
        for _ in 0..400 {
            let (a, b, c) = (rng.next_u32(), rng.next_u32(), rng.next_u32());
            let token = |ip: u32| u64::from_be_bytes(server.issue(Ipv4Addr::from(ip).into(), &infohash));
            // What a CRC gives away: t(a ^ b ^ c) = t(a) ^ t(b) ^ t(c).
            predicted += u32::from(token(a) ^ token(b) ^ token(c) == token(a ^ b ^ c));
        }
        assert!(predicted <= 1, "{predicted} of 400");
    }

    #[test]
    fn address_and_infohash_cannot_be_cut_at_another_place() {
        let (server, _, _) = server(7);
        // The same 24 and 36 bytes when strung together with the first four moved.
        let long: [u8; 36] = std::array::from_fn(|i| i as u8);
        let v6 = IpAddr::from(<[u8; 16]>::try_from(&long[..16]).unwrap());
        let v4 = IpAddr::from(<[u8; 4]>::try_from(&long[..4]).unwrap());
        let token = server.issue(v6, &Id::from_slice(&long[16..]).unwrap());
        for at in 4..=16 {
            assert!(!server.accepts(v4, &Id::from_slice(&long[at..at + 20]).unwrap(), &token), "{at}");
        }
    }
}
