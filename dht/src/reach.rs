//! [`Reach`]: whether strangers reach us at one home, and whether we are read-only there (BEP 43,
//! DECISIONS.md 8).
//!
//! A NAT or a firewall lets in who we asked before and nobody else. A query from an address that we
//! have not asked within [`Config::reach_window`] proves that we are reachable. With [`ReadOnly::Auto`] a
//! home where none came for so long says that it answers nobody, so that others do not spend their time
//! on it; every [`Config::reach_probe_every`] it says the opposite for [`Config::reach_probe`] and waits
//! for such a query. It never does so where local addresses are allowed, nor in a network of fewer than
//! [`Config::reach_min_network`] nodes: there everybody has asked everybody lately, and a network whose
//! nodes all fell silent would be none.
//!
//! A machine that slept was reachable for nobody: it starts afresh, as an unknown.

use std::net::SocketAddr;
use std::time::Duration;

use crate::addr::source_key;
use crate::{Config, KeyedHash, ReadOnly, Rng, Time};

/// What is known about whether strangers reach a home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reachability {
    /// Nothing: no stranger has asked us, or not for long.
    Unknown,
    /// A stranger asked within [`Config::reach_window`].
    Reachable,
    /// None did, or our owner wants it so: we say that we answer nobody, and answer nobody.
    ReadOnly,
    /// None did, but we answer for a while to see whether one will.
    Probing,
}

/// The state of one home.
#[derive(Debug)]
pub(crate) struct Reach {
    setting: ReadOnly,
    state: Reachability,
    /// When the state ends by itself.
    due: Time,
    /// When a stranger asked last, to a second.
    unsolicited: Option<Time>,
    /// Nobody is looked at before this.
    look_at: Time,
    contacts: Contacts,
}

impl Reach {
    pub(crate) fn new(now: Time, config: &Config, rng: &mut Rng) -> Self {
        let contacts = Contacts { hash: KeyedHash::new(rng), sets: Box::default() };
        let mut reach = Self {
            setting: ReadOnly::No,
            state: Reachability::Unknown,
            due: Time::NEVER,
            unsolicited: None,
            look_at: now,
            contacts,
        };
        reach.set(now, config.read_only, config);
        reach
    }

    /// Follows another setting from now on, as if the home were new.
    pub(crate) fn set(&mut self, now: Time, setting: ReadOnly, config: &Config) {
        self.setting = if setting == ReadOnly::Auto && config.allow_local { ReadOnly::No } else { setting };
        self.restart(now, config);
    }

    /// Forgets what was known: the home has another address, or its machine slept.
    pub(crate) fn restart(&mut self, now: Time, config: &Config) {
        (self.state, self.due) = match self.setting {
            ReadOnly::Auto => (Reachability::Unknown, now + config.reach_window),
            ReadOnly::Yes => (Reachability::ReadOnly, Time::NEVER),
            ReadOnly::No => (Reachability::Unknown, Time::NEVER),
        };
    }

    /// Notes that we asked `to`, whose queries prove nothing for a while.
    pub(crate) fn asked(&mut self, now: Time, to: SocketAddr, config: &Config) {
        self.contacts.note(now, to, config);
    }

    /// Notes a query from `from`; whether it shows that we are no longer read-only.
    pub(crate) fn heard(&mut self, now: Time, from: SocketAddr, config: &Config) -> bool {
        // A busy node hears of strangers all the time, and one a second is enough to know.
        if now < self.look_at || self.contacts.has(now, from, config) {
            return false;
        }
        (self.unsolicited, self.look_at) = (Some(now), now + LOOK_EVERY);
        if self.setting == ReadOnly::Yes {
            return false;
        }
        let was_read_only = self.is_read_only();
        (self.state, self.due) = (Reachability::Reachable, now + config.reach_window);
        was_read_only
    }

    /// Does what is due in a network of some `network` nodes; whether it is time for others to hear of us.
    pub(crate) fn handle_timeout(&mut self, now: Time, network: u64, config: &Config) -> bool {
        if now < self.due {
            return false;
        }
        let small = network < config.reach_min_network;
        if self.setting != ReadOnly::Auto || small || now.since(self.due) > SLEPT {
            self.restart(now, config);
            return false;
        }
        let pause = config.reach_probe_every.saturating_sub(config.reach_probe).max(LOOK_EVERY);
        (self.state, self.due) = match self.state {
            Reachability::ReadOnly => (Reachability::Probing, now + config.reach_probe),
            _ => (Reachability::ReadOnly, now + pause),
        };
        self.state == Reachability::Probing
    }

    /// When [`Reach::handle_timeout`] has something to do.
    pub(crate) fn timeout(&self) -> Time {
        self.due
    }

    /// Whether we answer nobody and say so.
    pub(crate) fn is_read_only(&self) -> bool {
        self.state == Reachability::ReadOnly
    }

    /// See [`crate::Node::warm`].
    #[cfg(feature = "sim")]
    pub(crate) fn warm(&self) -> u64 {
        self.contacts.sets.first().map_or(0, |ways| ways[0].at.into())
    }

    pub(crate) fn state(&self) -> Reachability {
        self.state
    }

    /// When somebody asked last whom we had not asked, to a second.
    pub(crate) fn unsolicited(&self) -> Option<Time> {
        self.unsolicited
    }
}

/// Whom we asked lately, by keyed hash, in an array of fixed size: when it is full the oldest of four is
/// forgotten, and would pass for a stranger. Allocated with the first query.
#[derive(Debug)]
struct Contacts {
    hash: KeyedHash,
    sets: Box<[[Contact; WAYS]]>,
}

/// An address that we asked.
#[derive(Clone, Copy, Debug, Default)]
struct Contact {
    /// 32 bits of the keyed hash of the IPv4 address or IPv6 /64: a NAT may let in all of its ports.
    /// 0 for an empty way.
    tag: u32,
    /// Seconds.
    at: u32,
}

impl Contacts {
    fn note(&mut self, now: Time, to: SocketAddr, config: &Config) {
        if self.sets.is_empty() {
            let sets = (config.reach_contacts.max(WAYS) / WAYS).next_power_of_two();
            self.sets = vec![[Contact::default(); WAYS]; sets].into();
        }
        let (set, tag) = self.place(to);
        let ways = &mut self.sets[set];
        let known = ways.iter().position(|way| way.tag == tag);
        let oldest = || (0..WAYS).min_by_key(|&way| ways[way].at).unwrap_or(0);
        let way = known.unwrap_or_else(oldest);
        ways[way] = Contact { tag, at: seconds(now) };
    }

    fn has(&self, now: Time, from: SocketAddr, config: &Config) -> bool {
        let (set, tag) = self.place(from);
        let ways = self.sets.get(set).map_or(&[][..], |ways| &ways[..]);
        let fresh = |way: &Contact| {
            u64::from(seconds(now).saturating_sub(way.at)) < config.reach_window.as_secs().max(1)
        };
        ways.iter().any(|way| way.tag == tag && fresh(way))
    }

    fn place(&self, addr: SocketAddr) -> (usize, u32) {
        let hash = self.hash.hash(&source_key(addr, false).to_bytes());
        (hash as usize & self.sets.len().wrapping_sub(1), (hash >> 32) as u32 | 1)
    }
}

fn seconds(now: Time) -> u32 {
    u32::try_from(now.as_secs()).unwrap_or(u32::MAX)
}

/// Ways of a set.
const WAYS: usize = 4;

/// Strangers are looked at no more often.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A deadline that is missed by so much was missed by a machine that slept: a running one wakes up
/// every few seconds.
const SLEPT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60;
    /// Nodes in the real network.
    const MANY: u64 = 10_000_000;

    fn at(seconds: u64) -> Time {
        Time::from_secs(seconds)
    }

    fn stranger(n: u16) -> SocketAddr {
        ([85, 1, (n >> 8) as u8, n as u8], 6881).into()
    }

    fn reach(read_only: ReadOnly) -> (Reach, Config) {
        let config = Config { read_only, ..Config::default() };
        (Reach::new(at(0), &config, &mut Rng::from_seed(1)), config)
    }

    /// Steps through all timeouts until `end`; the states that began, and when.
    fn states(reach: &mut Reach, end: u64, config: &Config) -> Vec<(u64, Reachability)> {
        let mut states = Vec::new();
        while reach.timeout() <= at(end) {
            let now = reach.timeout();
            let probes = reach.handle_timeout(now, MANY, config);
            assert_eq!(probes, reach.state() == Reachability::Probing);
            states.push((now.as_secs() / MINUTE, reach.state()));
        }
        states
    }

    #[test]
    fn unreachable_node_is_read_only_after_ten_minutes_and_probes_for_five_in_thirty() {
        let (mut reach, config) = reach(ReadOnly::Auto);
        assert_eq!((reach.state(), reach.is_read_only()), (Reachability::Unknown, false));
        let expected = [
            (10, Reachability::ReadOnly),
            (35, Reachability::Probing),
            (40, Reachability::ReadOnly),
            (65, Reachability::Probing),
            (70, Reachability::ReadOnly),
        ];
        assert_eq!(states(&mut reach, 75 * MINUTE, &config), expected);
        assert_eq!(reach.unsolicited(), None);
    }

    #[test]
    fn query_of_a_stranger_proves_that_we_are_reachable_for_ten_minutes() {
        let (mut reach, config) = reach(ReadOnly::Auto);
        reach.heard(at(100), stranger(1), &config);
        assert_eq!((reach.state(), reach.unsolicited()), (Reachability::Reachable, Some(at(100))));
        reach.heard(at(400), stranger(1), &config);
        assert_eq!(reach.timeout(), at(1000));
        reach.handle_timeout(at(1000), MANY, &config);
        assert!(reach.is_read_only());
        // One that comes all the same proves as much, whether we probe or not.
        reach.heard(at(1001), stranger(2), &config);
        assert_eq!((reach.state(), reach.timeout()), (Reachability::Reachable, at(1601)));
        assert_eq!(
            states(&mut reach, 3200, &config),
            [(26, Reachability::ReadOnly), (51, Reachability::Probing)]
        );
        reach.heard(at(3201), stranger(3), &config);
        assert_eq!(reach.state(), Reachability::Reachable);
    }

    #[test]
    fn query_of_whom_we_asked_proves_nothing_for_ten_minutes() {
        let (mut reach, config) = reach(ReadOnly::Auto);
        reach.asked(at(10), stranger(1), &config);
        // Any port of the same address: a NAT may let it in.
        reach.heard(at(20), SocketAddr::new(stranger(1).ip(), 7), &config);
        reach.heard(at(609), stranger(1), &config);
        assert_eq!((reach.state(), reach.unsolicited()), (Reachability::Unknown, None));
        reach.heard(at(610), stranger(1), &config);
        assert_eq!(reach.state(), Reachability::Reachable);
    }

    #[test]
    fn busy_node_looks_at_one_stranger_a_second() {
        let (mut reach, config) = reach(ReadOnly::Auto);
        reach.heard(at(5), stranger(1), &config);
        reach.heard(at(5) + Duration::from_millis(999), stranger(2), &config);
        assert_eq!(reach.unsolicited(), Some(at(5)));
        reach.heard(at(6), stranger(3), &config);
        assert_eq!(reach.unsolicited(), Some(at(6)));
    }

    #[test]
    fn settings_of_yes_and_no_stay_what_they_are() {
        let (mut reach, config) = reach(ReadOnly::Yes);
        reach.heard(at(5), stranger(1), &config);
        assert!(reach.is_read_only() && reach.unsolicited() == Some(at(5)) && reach.timeout() == Time::NEVER);
        reach.set(at(6), ReadOnly::No, &config);
        assert_eq!((reach.state(), reach.timeout()), (Reachability::Unknown, Time::NEVER));
        reach.heard(at(7), stranger(1), &config);
        assert_eq!(states(&mut reach, 9999, &config), [(10, Reachability::Unknown)]);
        reach.set(at(9999), ReadOnly::Auto, &config);
        assert_eq!((reach.state(), reach.timeout()), (Reachability::Unknown, at(9999 + 600)));
    }

    #[test]
    fn auto_is_never_on_where_local_addresses_are_allowed() {
        let config = Config { allow_local: true, ..Config::default() };
        let mut reach = Reach::new(at(0), &config, &mut Rng::from_seed(1));
        assert_eq!(config.read_only, ReadOnly::Auto);
        assert_eq!((states(&mut reach, 100_000, &config), reach.is_read_only()), (vec![], false));
    }

    #[test]
    fn node_of_a_small_network_does_not_fall_silent() {
        let (mut reach, config) = reach(ReadOnly::Auto);
        for round in 1..=9 {
            reach.handle_timeout(at(600 * round), 4095, &config);
            assert_eq!((reach.state(), reach.timeout()), (Reachability::Unknown, at(600 * (round + 1))));
        }
        // Nor does it stay silent in one that shrinks.
        reach.handle_timeout(at(6000), 4096, &config);
        assert!(reach.is_read_only());
        reach.handle_timeout(at(7500), 4095, &config);
        assert_eq!(reach.state(), Reachability::Unknown);
    }

    #[test]
    fn machine_that_slept_starts_afresh() {
        let (mut reach, config) = reach(ReadOnly::Auto);
        reach.heard(at(5), stranger(1), &config);
        assert!(!reach.handle_timeout(at(30_000), MANY, &config));
        assert_eq!((reach.state(), reach.timeout()), (Reachability::Unknown, at(30_600)));
        reach.handle_timeout(at(30_603), MANY, &config);
        assert!(reach.is_read_only());
        // Nor is a probe that was slept through one that failed.
        reach.handle_timeout(at(90_000), MANY, &config);
        assert_eq!(reach.state(), Reachability::Unknown);
    }

    #[test]
    fn contacts_are_bounded_and_the_oldest_is_forgotten_first() {
        let config = Config { reach_contacts: 64, ..Config::default() };
        let mut contacts = Contacts { hash: KeyedHash::new(&mut Rng::from_seed(1)), sets: Box::default() };
        assert!(!contacts.has(at(0), stranger(1), &config));
        for n in 0..1000 {
            contacts.note(at(u64::from(n) / 10), stranger(n), &config);
            assert!(contacts.has(at(u64::from(n) / 10), stranger(n), &config));
        }
        assert_eq!(contacts.sets.len() * WAYS, 64);
        let known = |range: std::ops::Range<u16>| {
            range.filter(|&n| contacts.has(at(100), stranger(n), &config)).count()
        };
        assert!(known(980..1000) >= 16 && known(0..900) <= 4, "{} {}", known(980..1000), known(0..900));
    }
}
