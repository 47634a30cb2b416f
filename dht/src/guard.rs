//! [`Guard`]: cheap refusal before decoding, and the limits on what one source or all sources
//! together get out of us.
//!
//! State per source lives in an array of fixed size: a stranger never causes an allocation. The array
//! is cut into sets of four ways; a keyed hash says which set a source belongs to, so that nobody can
//! aim at the set of somebody else. A newcomer takes the way whose limit runs out first. A way that
//! has run out says the same as an empty one, so in peace nothing is lost; in a flood from more
//! sources than there are ways, sources are forgotten and start afresh with a full burst. A flood thus
//! loosens the limit per source and never silences an honest source; what it costs in all is bounded
//! by the limit over all sources.

use std::net::SocketAddr;

use crate::addr::{acceptable, source_key};
use crate::{Config, KeyedHash, Rng, Time};

/// The verdict on a datagram that has not been decoded yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Worth decoding.
    Admitted,
    /// Shorter than any message, or longer than [`Config::max_incoming`].
    BadLength,
    /// Not `d`…`e`.
    NotDictionary,
    /// Port 0, or an address that strangers cannot have; see [`acceptable`].
    BadAddress,
}

/// Refuses datagrams before they are decoded and replies before they are sent.
#[derive(Debug)]
pub struct Guard {
    max_incoming: usize,
    allow_local: bool,
    hash: KeyedHash,
    /// Empty when no limit per source is set.
    sets: Box<[[Source; WAYS]]>,
    replies: Rate,
    failed_tokens: Rate,
    bytes: ByteRate,
    scrapes: Rate,
    /// µs until which the budget of scrapes is in debt.
    scraped_until: u64,
    signatures: Rate,
    /// µs until which the budget of signature checks is in debt.
    checked_until: u64,
}

impl Guard {
    /// A guard with the limits of `config`. It allocates 16 bytes per entry of
    /// [`Config::source_table_entries`] (rounded up to a power of two, at least 4), and nothing
    /// when both limits per source are lifted.
    pub fn new(config: &Config, rng: &mut Rng) -> Self {
        let limited = config.replies_per_second_per_ip != 0 || config.failed_tokens_per_minute != 0;
        let sets = (config.source_table_entries.max(WAYS) / WAYS).next_power_of_two();
        let failed = config.failed_tokens_per_minute;
        Self {
            max_incoming: config.max_incoming,
            allow_local: config.allow_local,
            hash: KeyedHash::new(rng),
            sets: vec![[Source::default(); WAYS]; if limited { sets } else { 0 }].into(),
            replies: Rate::new(config.replies_per_second_per_ip, 1, config.reply_burst_per_ip),
            failed_tokens: Rate::new(failed, 60, failed),
            bytes: ByteRate::new(config.reply_bytes_per_second),
            scrapes: Rate::new(config.scrapes_per_second, 1, config.scrapes_per_second),
            scraped_until: 0,
            signatures: Rate::new(config.signature_checks_per_second, 1, config.signature_checks_per_second),
            checked_until: 0,
        }
    }

    /// Whether a datagram is worth decoding.
    pub fn admit(&self, from: SocketAddr, bytes: &[u8]) -> Admission {
        if bytes.len() < MIN_LEN || bytes.len() > self.max_incoming {
            return Admission::BadLength;
        }
        if bytes.first() != Some(&b'd') || bytes.last() != Some(&b'e') {
            return Admission::NotDictionary;
        }
        if !acceptable(from, self.allow_local) {
            return Admission::BadAddress;
        }
        Admission::Admitted
    }

    /// Whether `from` has had all the replies that it gets for now, so that answering its query would
    /// be wasted work. Changes nothing.
    pub fn is_exhausted(&self, now: Time, from: SocketAddr) -> bool {
        if self.replies.is_lifted() {
            return false;
        }
        let (set, tag) = self.place(from);
        let ways = self.sets.get(set).map_or(&[][..], |ways| &ways[..]);
        ways.iter().any(|way| way.tag == tag && self.replies.is_exhausted(way.replies, now))
    }

    /// Takes a reply of `reply_len` bytes out of the budgets; `false` and nothing taken if it would
    /// pass the limit of its source or of all sources.
    pub fn allow_reply(&mut self, now: Time, from: SocketAddr, reply_len: usize) -> bool {
        if self.bytes.is_exhausted(now) {
            return false;
        }
        if !self.replies.is_lifted() {
            let rate = self.replies;
            let source = self.source(now, from);
            if rate.is_exhausted(source.replies, now) {
                return false;
            }
            source.replies = rate.take(source.replies, now);
        }
        self.bytes.take(now, reply_len);
        true
    }

    /// Takes one reply with filters out of the budget of all sources; `false` when it is spent. The source
    /// of a query can be forged, so that a limit per source would not bound the work.
    pub fn allow_scrape(&mut self, now: Time) -> bool {
        take_of_all(self.scrapes, &mut self.scraped_until, now)
    }

    /// Takes one check of a signature out of the budget of all sources (RELIABILITY.md D11).
    pub fn allow_signature(&mut self, now: Time) -> bool {
        take_of_all(self.signatures, &mut self.checked_until, now)
    }

    /// Counts a token from `from` that was wrong; `false` once it sent so many
    /// ([`Config::failed_tokens_per_minute`]) that it gets no more errors for them. Its right tokens
    /// stay good: an address can be forged, so nobody is ever blocked by address.
    pub fn token_failed(&mut self, now: Time, from: SocketAddr) -> bool {
        if self.failed_tokens.is_lifted() {
            return true;
        }
        let rate = self.failed_tokens;
        let source = self.source(now, from);
        let until = Time::from_micros(u64::from(source.failures) << FAILURE_SHIFT);
        if rate.is_exhausted(until.as_micros(), now) {
            return false;
        }
        source.failures = (rate.take(until.as_micros(), now) >> FAILURE_SHIFT) as u32;
        true
    }

    /// Bytes allocated.
    pub fn memory(&self) -> usize {
        size_of_val(&*self.sets)
    }

    /// The entry of `from`, made by replacing the one whose limits run out first.
    fn source(&mut self, now: Time, from: SocketAddr) -> &mut Source {
        let (set, tag) = self.place(from);
        let ways = &mut self.sets[set];
        let way = ways.iter().position(|way| way.tag == tag).unwrap_or_else(|| {
            let stalest = (0..WAYS).min_by_key(|&way| ways[way].until()).unwrap_or(0);
            let failures = (now.as_micros() >> FAILURE_SHIFT) as u32;
            ways[stalest] = Source { replies: now.as_micros(), failures, tag };
            stalest
        });
        &mut ways[way]
    }

    /// The set of `from`, and the tag of its entry, which is never 0.
    fn place(&self, from: SocketAddr) -> (usize, u32) {
        let hash = self.hash.hash(&source_key(from, self.allow_local).to_bytes());
        (hash as usize & self.sets.len().wrapping_sub(1), (hash >> 32) as u32 | 1)
    }
}

/// Ways of a set: with 16 bytes each, a set is one cache line.
const WAYS: usize = 4;

/// No KRPC message is shorter (mldht: `docs/sanitizing-algorithms.rst`).
const MIN_LEN: usize = 15;

/// Failures are timed in units of 2^16 µs, so that four bytes last for eight years.
const FAILURE_SHIFT: u32 = 16;

/// What one source did, as two points of time until which it is "in debt" (the virtual scheduling
/// form of a token bucket: one number, no refill). A point that has passed is a full bucket.
#[derive(Clone, Copy, Debug, Default)]
struct Source {
    /// µs; for [`Guard::allow_reply`].
    replies: u64,
    /// 2^16 µs; for [`Guard::token_failed`].
    failures: u32,
    /// 32 bits of the keyed hash of the source; 0 for an empty way.
    tag: u32,
}

const _: () = assert!(size_of::<[Source; WAYS]>() == 64);

impl Source {
    fn until(&self) -> u64 {
        self.replies.max(u64::from(self.failures) << FAILURE_SHIFT)
    }
}

/// So many events in a span, with a burst.
#[derive(Clone, Copy, Debug)]
struct Rate {
    /// µs that one event costs; 0 when lifted.
    interval: u64,
    /// µs of debt at which the next event is too much.
    tolerance: u64,
}

impl Rate {
    fn new(events: u32, per_seconds: u64, burst: u32) -> Self {
        let interval = if events == 0 { 0 } else { (per_seconds * 1_000_000 / u64::from(events)).max(1) };
        Self { interval, tolerance: interval * u64::from(burst.max(1) - 1) }
    }

    fn is_lifted(&self) -> bool {
        self.interval == 0
    }

    fn is_exhausted(&self, until: u64, now: Time) -> bool {
        until > now.as_micros().saturating_add(self.tolerance)
    }

    fn take(&self, until: u64, now: Time) -> u64 {
        until.max(now.as_micros()).saturating_add(self.interval)
    }
}

/// So many bytes a second over all sources, with a burst of [`ByteRate::BURST_MICROS`].
#[derive(Clone, Copy, Debug)]
struct ByteRate {
    /// 2^-20 µs that a byte costs; 0 when lifted.
    per_byte: u64,
    /// 2^-20 µs beyond `until` that were not enough for a whole one.
    fraction: u64,
    /// µs until which the budget is in debt.
    until: u64,
}

impl ByteRate {
    /// A quarter of a second's bytes may leave at once.
    const BURST_MICROS: u64 = 250_000;

    fn new(bytes_per_second: u64) -> Self {
        let per_byte = (1_000_000u64 << 20).checked_div(bytes_per_second).unwrap_or(0);
        Self { per_byte, fraction: 0, until: 0 }
    }

    fn is_exhausted(&self, now: Time) -> bool {
        self.per_byte != 0 && self.until > now.as_micros().saturating_add(Self::BURST_MICROS)
    }

    fn take(&mut self, now: Time, bytes: usize) {
        let cost = self.fraction + self.per_byte.saturating_mul(bytes as u64);
        self.fraction = cost & ((1 << 20) - 1);
        self.until = self.until.max(now.as_micros()).saturating_add(cost >> 20);
    }
}

/// Takes one out of a budget that all sources share.
fn take_of_all(rate: Rate, until: &mut u64, now: Time) -> bool {
    let allowed = rate.is_lifted() || !rate.is_exhausted(*until, now);
    if allowed {
        *until = rate.take(*until, now);
    }
    allowed
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const A: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(81, 2, 3, 4)), 6881);

    fn guard(config: &Config) -> Guard {
        Guard::new(config, &mut Rng::from_seed(1))
    }

    fn other(n: u32) -> SocketAddr {
        (Ipv4Addr::from(0x5500_0000 + n), 6881).into()
    }

    #[test]
    fn scrapes_have_one_budget_for_all_sources_and_0_lifts_it() {
        let mut limited = guard(&Config { scrapes_per_second: 5, ..Config::default() });
        let allowed = |guard: &mut Guard, now| (0..1000).filter(|_| guard.allow_scrape(now)).count();
        assert_eq!(allowed(&mut limited, Time::from_secs(9)), 5);
        assert_eq!(allowed(&mut limited, Time::from_millis(9_400)), 2);
        assert_eq!(allowed(&mut limited, Time::from_secs(60)), 5);
        let mut lifted = guard(&Config { scrapes_per_second: 0, ..Config::default() });
        assert_eq!(allowed(&mut lifted, Time::from_secs(9)), 1000);
    }

    #[test]
    fn datagrams_are_judged_by_length_brackets_and_address() {
        let guard = guard(&Config::default());
        let ping = b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe";
        assert_eq!(guard.admit(A, ping), Admission::Admitted);
        assert_eq!(guard.admit(A, b"d1:t0:1:y1:qe"), Admission::BadLength);
        assert_eq!(guard.admit(A, b""), Admission::BadLength);
        assert_eq!(guard.admit(A, &[b'd'; 2049]), Admission::BadLength);
        assert_eq!(guard.admit(A, &ping[1..]), Admission::NotDictionary);
        assert_eq!(guard.admit(A, &ping[..ping.len() - 1]), Admission::NotDictionary);
        assert_eq!(guard.admit("81.2.3.4:0".parse().unwrap(), ping), Admission::BadAddress);
        assert_eq!(guard.admit("127.0.0.1:1".parse().unwrap(), ping), Admission::BadAddress);
        let local = Config { allow_local: true, ..Config::default() };
        assert_eq!(self::guard(&local).admit("127.0.0.1:1".parse().unwrap(), ping), Admission::Admitted);
    }

    #[test]
    fn one_source_gets_its_burst_and_then_25_a_second_while_others_are_untouched() {
        let mut guard = guard(&Config::default());
        let (mut first, mut later, mut denied_others) = (0, 0, 0);
        for step in 0..100_000u64 {
            // 10,000 a second for ten seconds, and a hundred others at 20 a second each.
            let now = Time::from_micros(1_000_000 + step * 100);
            let allowed = u32::from(guard.allow_reply(now, A, 288));
            if step < 10_000 {
                first += allowed;
            } else {
                later += allowed;
            }
            if step % 5 == 0 {
                denied_others += u32::from(!guard.allow_reply(now, other((step / 5 % 100) as u32), 288));
            }
        }
        assert!((74..=76).contains(&first), "{first} in the first second");
        assert!((224..=226).contains(&later), "{later} in nine seconds");
        assert_eq!(denied_others, 0);
    }

    #[test]
    fn asking_beforehand_agrees_with_the_verdict_and_takes_nothing() {
        let mut guard = guard(&Config::default());
        let mut rng = Rng::from_seed(9);
        let mut now = Time::from_secs(5);
        let mut seen = [0; 2];
        for _ in 0..5_000 {
            now += std::time::Duration::from_micros(rng.below(40_000) as u64);
            let source = other(rng.below(1) as u32);
            let exhausted = guard.is_exhausted(now, source);
            assert_eq!(guard.is_exhausted(now, source), exhausted);
            assert_eq!(guard.allow_reply(now, source, 100), !exhausted);
            seen[usize::from(exhausted)] += 1;
        }
        assert!(seen[0] > 1000 && seen[1] > 100, "{seen:?}");
    }

    #[test]
    fn limit_per_source_is_by_address_and_by_64() {
        let config = Config { reply_burst_per_ip: 1, ..Config::default() };
        let mut guard = guard(&config);
        let now = Time::from_secs(1);
        let mut allow = |text: &str| guard.allow_reply(now, text.parse().unwrap(), 1);
        assert!(allow("8.8.8.8:1") && !allow("8.8.8.8:2") && allow("8.8.8.9:1"));
        assert!(allow("[2001:db8::1]:1") && !allow("[2001:db8::2]:1") && allow("[2001:db8:0:1::1]:1"));
    }

    #[test]
    fn local_addresses_are_limited_by_port_when_allowed() {
        let config = Config { reply_burst_per_ip: 1, allow_local: true, ..Config::default() };
        let mut guard = guard(&config);
        let mut allow = |port| guard.allow_reply(Time::from_secs(1), ([127, 0, 0, 1], port).into(), 1);
        assert!(allow(1) && allow(2) && !allow(1) && !allow(2));
    }

    #[test]
    fn flood_of_forged_sources_does_not_silence_an_honest_one() {
        let mut guard = guard(&Config { reply_bytes_per_second: 0, ..Config::default() });
        let before = guard.memory();
        let mut denied = 0;
        for n in 0..1_000_000u32 {
            // A million sources at 100,000 a second; an honest one asks 20 times a second.
            let now = Time::from_micros(u64::from(n) * 10);
            guard.allow_reply(now, other(n + 1), 288);
            if n % 5_000 == 0 {
                denied += u32::from(!guard.allow_reply(now, A, 288));
            }
        }
        assert_eq!(denied, 0);
        assert_eq!(guard.memory(), before);
        assert_eq!(before, 16_384 * 16);
    }

    #[test]
    fn source_at_its_limit_stays_known_while_forged_sources_pass() {
        let mut guard = guard(&Config { reply_bytes_per_second: 0, ..Config::default() });
        let mut allowed = 0;
        for n in 0..200_000u32 {
            let now = Time::from_micros(u64::from(n) * 10);
            guard.allow_reply(now, other(n), 288);
            allowed += u32::from(guard.allow_reply(now, A, 288));
        }
        // Two seconds: a burst of 50 and 50 more. Whoever owes most is forgotten last.
        assert!(allowed <= 101, "{allowed}");
    }

    #[test]
    fn all_sources_together_get_the_byte_budget() {
        let mut guard = guard(&Config { reply_bytes_per_second: 1_000_000, ..Config::default() });
        let mut bytes = 0;
        for n in 0..100_000u32 {
            let now = Time::from_micros(u64::from(n) * 100);
            bytes += if guard.allow_reply(now, other(n), 300) { 300 } else { 0 };
        }
        // Ten seconds and a burst of a quarter of a second.
        assert!((10_200_000..=10_300_000).contains(&bytes), "{bytes}");
    }

    #[test]
    fn zero_lifts_each_limit() {
        let config = Config {
            replies_per_second_per_ip: 0,
            reply_bytes_per_second: 0,
            failed_tokens_per_minute: 0,
            ..Config::default()
        };
        let mut guard = guard(&config);
        assert_eq!(guard.memory(), 0);
        assert!((0..100_000).all(|_| guard.allow_reply(Time::ZERO, A, 1024)));
        assert!((0..100_000).all(|_| guard.token_failed(Time::ZERO, A)));
        assert!(!guard.is_exhausted(Time::ZERO, A));
    }

    #[test]
    fn eleventh_failed_token_in_a_minute_gets_silence() {
        let mut guard = guard(&Config::default());
        let now = Time::from_secs(100);
        assert_eq!((0..50).filter(|_| guard.token_failed(now, A)).count(), 10);
        assert!(guard.token_failed(now, other(1)));
        assert!(guard.allow_reply(now, A, 300), "replies are another matter");
        let later = now + std::time::Duration::from_secs(60);
        assert_eq!((0..50).filter(|_| guard.token_failed(later, A)).count(), 10);
    }
}
