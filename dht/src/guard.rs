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

mod shared;

use std::net::SocketAddr;
use std::sync::Arc;

use crate::addr::{acceptable, source_key};
use crate::{Config, KeyedHash, Rng, Time};

pub(crate) use self::shared::{ShardGuard, SharedGuard};

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

/// What a responder asks before it works and before it sends: the limits on what one source or all
/// sources together get out of us.
pub(crate) trait Budgets {
    /// See [`Guard::is_exhausted`].
    fn is_exhausted(&self, now: Time, from: SocketAddr) -> bool;
    /// See [`Guard::allow_reply`].
    fn allow_reply(&mut self, now: Time, from: SocketAddr, reply_len: usize) -> bool;
    /// See [`Guard::allow_scrape`].
    fn allow_scrape(&mut self, now: Time) -> bool;
    /// See [`Guard::allow_signature`].
    fn allow_signature(&mut self, now: Time) -> bool;
    /// See [`Guard::token_failed`].
    fn token_failed(&mut self, now: Time, from: SocketAddr) -> bool;
}

/// Refuses datagrams before they are decoded and replies before they are sent.
#[derive(Debug)]
pub struct Guard {
    config: Arc<Config>,
    hash: KeyedHash,
    /// Empty as long as no limit per source was needed.
    sets: Box<[[Source; WAYS]]>,
    replies: Rate,
    bytes: ByteRate,
    /// µs until which the budget of scrapes is in debt.
    scraped_until: u64,
    /// µs until which the budget of signature checks is in debt.
    checked_until: u64,
}

impl Guard {
    /// A guard with the limits of `config`. With the first reply that is counted it allocates 16 bytes per
    /// entry of [`Config::source_table_entries`] (rounded up to a power of two, at least 4), and nothing
    /// when both limits per source are lifted.
    pub fn new(config: &Arc<Config>, rng: &mut Rng) -> Self {
        Self {
            hash: KeyedHash::new(rng),
            sets: Box::default(),
            replies: Rate::of_replies(config),
            bytes: ByteRate::new(config.reply_bytes_per_second),
            scraped_until: 0,
            checked_until: 0,
            config: Arc::clone(config),
        }
    }

    /// Whether a datagram is worth decoding.
    pub fn admit(&self, from: SocketAddr, bytes: &[u8]) -> Admission {
        admit(&self.config, from, bytes)
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
        take_of_all(self.config.scrapes_per_second, &mut self.scraped_until, now)
    }

    /// Takes one check of a signature out of the budget of all sources (D11).
    pub fn allow_signature(&mut self, now: Time) -> bool {
        take_of_all(self.config.signature_checks_per_second, &mut self.checked_until, now)
    }

    /// Counts a token from `from` that was wrong; `false` once it sent so many
    /// ([`Config::failed_tokens_per_minute`]) that it gets no more errors for them. Its right tokens
    /// stay good: an address can be forged, so nobody is ever blocked by address.
    pub fn token_failed(&mut self, now: Time, from: SocketAddr) -> bool {
        let rate = Rate::of_failed_tokens(&self.config);
        if rate.is_lifted() {
            return true;
        }
        self.source(now, from).token_failed(rate, now)
    }

    /// See [`crate::Node::warm`].
    #[cfg(feature = "sim")]
    pub(crate) fn warm(&self) -> u64 {
        self.sets.first().map_or(0, |ways| ways[0].replies)
    }

    /// Bytes allocated.
    pub fn memory(&self) -> usize {
        size_of_val(&*self.sets)
    }

    /// The entry of `from`, made by replacing the one whose limits run out first.
    fn source(&mut self, now: Time, from: SocketAddr) -> &mut Source {
        if self.sets.is_empty() {
            self.sets = vec![[Source::default(); WAYS]; set_count(&self.config)].into();
        }
        let (set, tag) = self.place(from);
        source_in(&mut self.sets[set], now, tag)
    }

    /// The set of `from`, and the tag of its entry, which is never 0.
    fn place(&self, from: SocketAddr) -> (usize, u32) {
        place(self.hash, self.sets.len(), self.config.allow_local, from)
    }
}

impl Budgets for Guard {
    fn is_exhausted(&self, now: Time, from: SocketAddr) -> bool {
        self.is_exhausted(now, from)
    }

    fn allow_reply(&mut self, now: Time, from: SocketAddr, reply_len: usize) -> bool {
        self.allow_reply(now, from, reply_len)
    }

    fn allow_scrape(&mut self, now: Time) -> bool {
        self.allow_scrape(now)
    }

    fn allow_signature(&mut self, now: Time) -> bool {
        self.allow_signature(now)
    }

    fn token_failed(&mut self, now: Time, from: SocketAddr) -> bool {
        self.token_failed(now, from)
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

/// See [`Guard::admit`].
fn admit(config: &Config, from: SocketAddr, bytes: &[u8]) -> Admission {
    if bytes.len() < MIN_LEN || bytes.len() > config.max_incoming {
        return Admission::BadLength;
    }
    if bytes.first() != Some(&b'd') || bytes.last() != Some(&b'e') {
        return Admission::NotDictionary;
    }
    if !acceptable(from, config.allow_local) {
        return Admission::BadAddress;
    }
    Admission::Admitted
}

/// Sets that the limits per source need: none when they are lifted.
fn set_count(config: &Config) -> usize {
    let limited = config.replies_per_second_per_ip != 0 || config.failed_tokens_per_minute != 0;
    if limited { (config.source_table_entries.max(WAYS) / WAYS).next_power_of_two() } else { 0 }
}

/// The set of `from` among so many, and the tag of its entry, which is never 0.
fn place(hash: KeyedHash, sets: usize, allow_local: bool, from: SocketAddr) -> (usize, u32) {
    let hash = hash.hash(&source_key(from, allow_local).to_bytes());
    (hash as usize & sets.wrapping_sub(1), (hash >> 32) as u32 | 1)
}

/// The entry of that tag, made by replacing the one whose limits run out first.
fn source_in(ways: &mut [Source; WAYS], now: Time, tag: u32) -> &mut Source {
    let way = ways.iter().position(|way| way.tag == tag).unwrap_or_else(|| {
        let stalest = (0..WAYS).min_by_key(|&way| ways[way].until()).unwrap_or(0);
        let failures = (now.as_micros() >> FAILURE_SHIFT) as u32;
        ways[stalest] = Source { replies: now.as_micros(), failures, tag };
        stalest
    });
    &mut ways[way]
}

impl Source {
    /// See [`Guard::token_failed`].
    fn token_failed(&mut self, rate: Rate, now: Time) -> bool {
        let until = u64::from(self.failures) << FAILURE_SHIFT;
        if rate.is_exhausted(until, now) {
            return false;
        }
        self.failures = (rate.take(until, now) >> FAILURE_SHIFT) as u32;
        true
    }

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

    fn of_replies(config: &Config) -> Self {
        Self::new(config.replies_per_second_per_ip, 1, config.reply_burst_per_ip)
    }

    fn of_failed_tokens(config: &Config) -> Self {
        Self::new(config.failed_tokens_per_minute, 60, config.failed_tokens_per_minute)
    }

    fn of_scrapes(config: &Config) -> Self {
        Self::new(config.scrapes_per_second, 1, config.scrapes_per_second)
    }

    fn of_signatures(config: &Config) -> Self {
        Self::new(config.signature_checks_per_second, 1, config.signature_checks_per_second)
    }

    fn is_lifted(&self) -> bool {
        self.interval == 0
    }

    fn is_exhausted(&self, until: u64, now: Time) -> bool {
        let debt = until.saturating_sub(now.as_micros());
        debt > self.tolerance && debt <= self.deepest_debt()
    }

    fn take(&self, until: u64, now: Time) -> u64 {
        let now = now.as_micros();
        let owes = until > now && until - now <= self.deepest_debt();
        if owes { until } else { now }.saturating_add(self.interval)
    }

    /// A debt beyond this is of a clock that has gone back since; it is forgiven, lest nobody is answered
    /// until the clock is where it was.
    fn deepest_debt(&self) -> u64 {
        self.tolerance.saturating_add(self.interval).saturating_add(UNEVEN_MICROS)
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

    fn is_lifted(&self) -> bool {
        self.per_byte == 0
    }

    /// µs that so many bytes cost, rounded up.
    fn micros(&self, bytes: u64) -> u64 {
        self.per_byte.saturating_mul(bytes).div_ceil(1 << 20)
    }

    fn is_exhausted(&self, now: Time) -> bool {
        let debt = self.until.saturating_sub(now.as_micros());
        self.per_byte != 0 && debt > Self::BURST_MICROS && debt <= self.deepest_debt()
    }

    fn take(&mut self, now: Time, bytes: usize) {
        if self.until.saturating_sub(now.as_micros()) > self.deepest_debt() {
            self.until = 0;
        }
        let cost = self.fraction + self.per_byte.saturating_mul(bytes as u64);
        self.fraction = cost & ((1 << 20) - 1);
        self.until = self.until.max(now.as_micros()).saturating_add(cost >> 20);
    }

    /// As in [`Rate::deepest_debt`].
    fn deepest_debt(&self) -> u64 {
        let last = self.micros(u64::from(u16::MAX));
        Self::BURST_MICROS.saturating_add(last).saturating_add(UNEVEN_MICROS)
    }
}

/// So far apart may be what two shards that share a budget take for now.
const UNEVEN_MICROS: u64 = 60_000_000;

/// Takes one out of a budget of so many a second that all sources share.
fn take_of_all(per_second: u32, until: &mut u64, now: Time) -> bool {
    let rate = Rate::new(per_second, 1, per_second);
    let allowed = rate.is_lifted() || !rate.is_exhausted(*until, now);
    if allowed {
        *until = rate.take(*until, now);
    }
    allowed
}

#[cfg(test)]
mod tests;
