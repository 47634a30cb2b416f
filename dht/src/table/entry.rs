//! [`Entry`]: a contact with history, 32 bytes in IPv4 and 44 in IPv6. Every entry answered one of
//! our queries at least once; see [`crate::table`] for what follows from its history.

use std::time::Duration;

use krpc::Id;
use krpc::compact::{Address, Contact, V4, V6};

use crate::Time;
use crate::secure_id::is_secure;

/// A node that answered us, and how it has behaved since.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Entry<A> {
    pub(crate) id: Id,
    pub(crate) addr: A,
    rtt: u8,
    state: u8,
    seen: Ticks,
}

const _: () = assert!(size_of::<Entry<V4>>() == 32 && size_of::<Entry<V6>>() == 44);

/// Units of 100 ms since the origin of [`Time`]: four bytes last for 13 years.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticks(u32);

impl Ticks {
    pub(crate) fn new(now: Time) -> Self {
        Self(u32::try_from(now.as_millis() / 100).unwrap_or(u32::MAX))
    }

    pub(crate) fn time(self) -> Time {
        Time::from_millis(u64::from(self.0) * 100)
    }
}

/// What an entry's history says about it (BEP 5, "Routing Table").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// BEP 5 "good": heard of within [`crate::Config::questionable_after`].
    Trusty,
    /// Silent for longer, or silent to one query.
    Questionable,
    /// Silent to several queries in a row.
    Bad,
}

impl<A: Address> Entry<A> {
    /// An entry of a node that has just answered. Here and nowhere else its id is held against its
    /// address (BEP 42).
    pub(crate) fn new(now: Time, contact: Contact<A>, rtt: Duration) -> Self {
        let Contact { id, addr } = contact;
        let state = if is_secure(&id, addr.to_socket().ip()) { 0 } else { INSECURE };
        Self { id, addr, rtt: log_rtt(rtt), state, seen: Ticks::new(now) }
    }

    /// It answered: whatever it failed before is forgiven.
    pub(crate) fn answered(&mut self, now: Time, rtt: Duration) {
        // Half old, half new: one slow answer does not make a slow node.
        self.rtt = u16::midpoint(u16::from(self.rtt), u16::from(log_rtt(rtt))) as u8;
        self.state &= INSECURE;
        self.seen = Ticks::new(now);
    }

    /// It sent us a query, which makes it good again (BEP 5) but forgives no failure: many nodes can
    /// ask and not be asked.
    pub(crate) fn heard(&mut self, now: Time) {
        self.seen = Ticks::new(now);
    }

    /// It did not answer.
    pub(crate) fn failed(&mut self) {
        self.state = self.state & INSECURE | (self.fails() + 1).min(FAILS);
    }

    /// What it did not answer is forgotten.
    pub(crate) fn pardon(&mut self) {
        self.state &= !FAILS;
    }

    /// A ping is on its way.
    pub(crate) fn mark_pinged(&mut self) {
        self.state |= PINGED;
    }

    /// The ping came to nothing that says anything about the node.
    pub(crate) fn unmark_pinged(&mut self) {
        self.state &= !PINGED;
    }

    pub(crate) fn is_pinged(&self) -> bool {
        self.state & PINGED != 0
    }

    /// Whether its id does not belong to its address (BEP 42).
    pub(crate) fn is_insecure(&self) -> bool {
        self.state & INSECURE != 0
    }

    /// Whether it waits for the place of the node that has its id, and for no other.
    pub(crate) fn is_claim(&self) -> bool {
        self.state & CLAIM != 0
    }

    pub(crate) fn set_claim(&mut self, is_claim: bool) {
        self.state = self.state & !CLAIM | if is_claim { CLAIM } else { 0 };
    }

    /// Queries in a row that it did not answer.
    pub(crate) fn fails(&self) -> u8 {
        self.state & FAILS
    }

    pub(crate) fn seen(&self) -> Ticks {
        self.seen
    }

    pub(crate) fn rtt(&self) -> Duration {
        let (log, rest) = (self.rtt >> 3, u64::from(self.rtt & 7));
        Duration::from_micros((1 << log) + ((rest << log) >> 3))
    }

    pub(crate) fn contact(&self) -> Contact<A> {
        Contact { id: self.id, addr: self.addr }
    }

    pub(crate) fn standing(
        &self,
        now: Time,
        questionable_after: Duration,
        bad_after_failures: u8,
    ) -> Standing {
        if self.fails() >= bad_after_failures.min(FAILS) {
            Standing::Bad
        } else if self.fails() > 0 || now.since(self.seen.time()) >= questionable_after {
            Standing::Questionable
        } else {
            Standing::Trusty
        }
    }
}

/// Low bits of `state`: failures in a row, saturating.
const FAILS: u8 = 0x0f;

/// Bit of `state`: a ping is on its way.
const PINGED: u8 = 0x10;

/// Bit of `state`: see [`Entry::is_insecure`].
const INSECURE: u8 = 0x20;

/// Bit of `state`: see [`Entry::is_claim`].
const CLAIM: u8 = 0x40;

/// Microseconds as a logarithm with three binary places: 12 % precision from 1 µs to over an hour.
fn log_rtt(rtt: Duration) -> u8 {
    let micros = u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX).clamp(1, (1 << 31) - 1);
    let log = micros.ilog2();
    let rest = ((micros - (1 << log)) << 3) >> log;
    (log << 3) as u8 | rest as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(now: Time) -> Entry<V4> {
        let addr = V4::from_socket("81.2.3.4:6881".parse().unwrap()).unwrap();
        Entry::new(now, Contact { id: Id::new([1; 20]), addr }, Duration::from_millis(90))
    }

    #[test]
    fn entry_is_trusty_then_questionable_then_bad() {
        let quarter = Duration::from_secs(900);
        let mut entry = entry(Time::from_secs(100));
        assert_eq!(entry.standing(Time::from_secs(999), quarter, 2), Standing::Trusty);
        assert_eq!(entry.standing(Time::from_secs(1000), quarter, 2), Standing::Questionable);
        entry.heard(Time::from_secs(1000));
        assert_eq!(entry.standing(Time::from_secs(1001), quarter, 2), Standing::Trusty);
        entry.mark_pinged();
        entry.failed();
        assert!(!entry.is_pinged());
        assert_eq!(entry.standing(Time::from_secs(1001), quarter, 2), Standing::Questionable);
        entry.failed();
        entry.heard(Time::from_secs(1001));
        assert_eq!(entry.standing(Time::from_secs(1001), quarter, 2), Standing::Bad);
        entry.answered(Time::from_secs(1002), Duration::from_millis(90));
        assert_eq!(entry.standing(Time::from_secs(1002), quarter, 2), Standing::Trusty);
    }

    #[test]
    fn failures_saturate() {
        let mut entry = entry(Time::ZERO);
        (0..100).for_each(|_| entry.failed());
        assert_eq!(entry.fails(), 15);
        assert!(!entry.is_pinged());
    }

    #[test]
    fn whether_an_id_belongs_to_its_address_is_never_forgotten() {
        let mut insecure = entry(Time::ZERO);
        let id = crate::secure_id::secure_id([81, 2, 3, 4].into(), &mut crate::Rng::from_seed(1));
        let mut secure = Entry::new(Time::ZERO, Contact { id, ..insecure.contact() }, Duration::ZERO);
        for entry in [&mut insecure, &mut secure] {
            (0..20).for_each(|_| entry.failed());
            entry.mark_pinged();
            entry.answered(Time::ZERO, Duration::ZERO);
            entry.heard(Time::ZERO);
            assert!(entry.fails() == 0 && !entry.is_pinged());
        }
        assert!(insecure.is_insecure() && !secure.is_insecure());
    }

    #[test]
    fn round_trip_time_keeps_an_eighth_of_precision() {
        for micros in [1, 7, 90_000, 123_456, 4_000_000, 1_999_999_999] {
            let mut kept = entry(Time::ZERO);
            kept.rtt = log_rtt(Duration::from_micros(micros));
            let kept = kept.rtt().as_micros() as u64;
            assert!(kept <= micros && micros - kept <= micros / 7 + 1, "{micros} {kept}");
        }
    }
}
