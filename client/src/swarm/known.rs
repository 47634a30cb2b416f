//! [`Known`]: the addresses that a swarm has heard of, which to dial next, and who is banned.
//!
//! Addresses of strangers are judged by `btdht::addr::acceptable`; those given by the user and those
//! that connected to us always count. An address that never completes a handshake is dialed a few
//! times in all, so that nobody can make swarms knock at a victim's door for long. One that takes the
//! connection and hangs up may be a seed without a free place, perhaps the only one: as long as
//! something is missing it gets some more dials, ever further apart.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use btdht::addr::{SourceKey, acceptable, is_local, source_key};
use btdht::{Rng, Time};

use super::io::Source;
use super::limits::Limits;

/// Known addresses, at most `Limits::max_known`.
#[derive(Debug)]
pub(super) struct Known {
    peers: BTreeMap<SocketAddr, Entry>,
    banned: BTreeSet<SourceKey>,
    /// The banned in the order of their bans; the oldest is pardoned when there are too many.
    bans: VecDeque<SourceKey>,
    /// When the next dial is due if dials came at exactly the allowed rate.
    paced: Time,
}

/// How a connection or dial went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// No handshake.
    Silent,
    /// The connection opened and was closed before the handshake: whoever is there may be full.
    HungUp,
    /// It shook hands, but gave nothing.
    Useless,
    /// It gave or took payload.
    Useful,
}

#[derive(Debug)]
struct Entry {
    source: Source,
    state: State,
    /// It completed a handshake at some time.
    real: bool,
    /// Not to be dialed again.
    retired: bool,
    /// The last dial ended with [`Outcome::HungUp`].
    hung_up: bool,
    /// Dials since the last handshake; for one that never shook hands, dials in all.
    dials: u8,
    /// Connections in a row that came to nothing.
    failures: u8,
    not_before: Time,
    /// The last dials, oldest first: what bounds reconnects a minute.
    /// [`Time::ZERO`] stands for none.
    recent: [Time; DIALS_A_MINUTE],
    /// Spreads equals.
    lot: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Busy,
}

const DIALS_A_MINUTE: usize = 5;
const MINUTE: Duration = Duration::from_secs(60);
/// A dead address may be displaced by a new one this long after its last dial.
const DEAD_KEPT: Duration = Duration::from_secs(600);

impl Known {
    /// Nobody is known.
    pub(super) fn new() -> Self {
        Self { peers: BTreeMap::new(), banned: BTreeSet::new(), bans: VecDeque::new(), paced: Time::ZERO }
    }

    /// Hears of an address; returns whether it is new. Dropped: unacceptable and banned ones, further
    /// ports of an IP and further addresses of an IPv6 /64, and, when the table is full, whatever no dead entry can make room for.
    pub(super) fn insert(
        &mut self,
        now: Time,
        addr: SocketAddr,
        source: Source,
        limits: &Limits,
        rng: &mut Rng,
    ) -> bool {
        let addr = SocketAddr::new(addr.ip().to_canonical(), addr.port());
        let trusted = matches!(source, Source::User | Source::Incoming) && addr.port() != 0;
        if !trusted && !acceptable(addr, limits.allow_local) || self.is_banned(addr, limits) {
            return false;
        }
        if let Some(entry) = self.peers.get_mut(&addr) {
            entry.source = entry.source.min(source);
            return false;
        }
        let spread = limits.allow_local && is_local(addr.ip());
        if source != Source::User && !spread && self.is_crowded(addr, limits) {
            return false;
        }
        if self.peers.len() >= limits.max_known && !self.displace(now, source, limits) {
            return false;
        }
        let entry = Entry {
            source,
            state: State::Idle,
            real: false,
            retired: false,
            hung_up: false,
            dials: 0,
            failures: 0,
            not_before: now,
            recent: [Time::ZERO; DIALS_A_MINUTE],
            lot: rng.next_u32(),
        };
        self.peers.insert(addr, entry);
        true
    }

    /// Addresses to dial now, at most `places`; they count as busy until [`Known::ended`].
    pub(super) fn due(&mut self, now: Time, places: usize, limits: &Limits) -> Vec<SocketAddr> {
        let spacing = spacing(limits);
        let burst = spacing * limits.dial_burst.max(1);
        let mut waiting: Vec<_> = self
            .peers
            .iter()
            .filter(|(_, entry)| entry.ready_at(limits).is_some_and(|at| at <= now))
            .map(|(&addr, entry)| ((entry.rank(), entry.lot), addr))
            .collect();
        waiting.sort_unstable();
        let mut chosen = Vec::new();
        for (_, addr) in waiting.into_iter().take(places) {
            self.paced = self.paced.max(now - (burst - spacing));
            if self.paced > now {
                break;
            }
            self.paced += spacing;
            if let Some(entry) = self.peers.get_mut(&addr) {
                entry.state = State::Busy;
                entry.dials = entry.dials.saturating_add(1);
                entry.recent.rotate_left(1);
                entry.recent[DIALS_A_MINUTE - 1] = now;
            }
            chosen.push(addr);
        }
        chosen
    }

    /// When [`Known::due`] will have something, if there are places.
    pub(super) fn next(&self, limits: &Limits) -> Time {
        let first = self.peers.values().filter_map(|entry| entry.ready_at(limits)).min();
        first.map_or(Time::NEVER, |at| at.max(self.paced))
    }

    /// A connection with the address begins from the other side.
    pub(super) fn busy(&mut self, addr: SocketAddr) {
        if let Some(entry) = self.peers.get_mut(&addr) {
            entry.state = State::Busy;
        }
    }

    /// The address has shaken hands.
    pub(super) fn shook_hands(&mut self, addr: SocketAddr) {
        if let Some(entry) = self.peers.get_mut(&addr) {
            entry.real = true;
            entry.dials = 0;
        }
    }

    /// A dial or connection is over.
    pub(super) fn ended(
        &mut self,
        now: Time,
        addr: SocketAddr,
        outcome: Outcome,
        limits: &Limits,
        rng: &mut Rng,
    ) {
        let Some(entry) = self.peers.get_mut(&addr) else { return };
        entry.state = State::Idle;
        entry.hung_up = outcome == Outcome::HungUp;
        entry.failures = match outcome {
            Outcome::Useful => 0,
            Outcome::Silent | Outcome::HungUp | Outcome::Useless => entry.failures.saturating_add(1),
        };
        let (first, most) = match (entry.source, outcome) {
            (Source::User, _) => (USER_BACKOFF, limits.user_backoff_max),
            (_, Outcome::HungUp) if !entry.real => (limits.dial_backoff, limits.full_backoff_max),
            _ => (limits.dial_backoff, limits.dial_backoff_max),
        };
        let wait = (first * (1 << u32::from(entry.failures.saturating_sub(1).min(16)))).min(most);
        let jitter = wait.mul_f64(rng.below(256) as f64 / 1024.0); // up to a quarter
        let minute_over = if entry.recent[0] == Time::ZERO { now } else { entry.recent[0] + MINUTE };
        entry.not_before = (now + wait + jitter).max(minute_over);
    }

    /// Bans the source of an address; its entries are forgotten.
    pub(super) fn ban(&mut self, addr: SocketAddr, limits: &Limits) {
        let key = source_key(addr, limits.allow_local);
        if self.banned.insert(key) {
            self.bans.push_back(key);
        }
        if self.bans.len() > limits.max_banned
            && let Some(oldest) = self.bans.pop_front()
        {
            self.banned.remove(&oldest);
        }
        self.peers.retain(|&addr, _| source_key(addr, limits.allow_local) != key);
    }

    /// Whether its source is banned.
    pub(super) fn is_banned(&self, addr: SocketAddr, limits: &Limits) -> bool {
        self.banned.contains(&source_key(addr, limits.allow_local))
    }

    /// Never dials the address again: both of us are seeds.
    pub(super) fn retire(&mut self, addr: SocketAddr) {
        if let Some(entry) = self.peers.get_mut(&addr) {
            entry.retired = true;
        }
    }

    /// Nothing is missing: those that hung up on us every time are left alone.
    pub(super) fn retire_full(&mut self, limits: &Limits) {
        let full = |entry: &&mut Entry| entry.is_doubtful(limits);
        self.peers.values_mut().filter(full).for_each(|entry| entry.retired = true);
    }

    /// Something is missing again: seeds and those without a place count as before.
    pub(super) fn revive(&mut self) {
        self.peers.values_mut().for_each(|entry| entry.retired = false);
    }

    /// Where an address came from.
    pub(super) fn source(&self, addr: SocketAddr) -> Option<Source> {
        self.peers.get(&addr).map(|entry| entry.source)
    }

    /// Addresses known.
    pub(super) fn len(&self) -> usize {
        self.peers.len()
    }

    /// Whether somebody could be dialed now who was never connected.
    pub(super) fn has_untried(&self, now: Time, limits: &Limits) -> bool {
        let untried = |entry: &Entry| {
            !entry.real && !entry.is_doubtful(limits) && entry.ready_at(limits).is_some_and(|at| at <= now)
        };
        self.peers.values().any(untried)
    }

    /// Whether as many addresses are known of the IP, or of its network, as may be.
    fn is_crowded(&self, addr: SocketAddr, limits: &Limits) -> bool {
        let between = |first: IpAddr, last: IpAddr| {
            self.peers.range(SocketAddr::new(first, 0)..=SocketAddr::new(last, u16::MAX)).count()
        };
        let network = match addr.ip() {
            IpAddr::V4(_) => 0,
            IpAddr::V6(ip) => {
                let first = ip.to_bits() & !u128::from(u64::MAX);
                let last = first | u128::from(u64::MAX);
                between(Ipv6Addr::from_bits(first).into(), Ipv6Addr::from_bits(last).into())
            }
        };
        between(addr.ip(), addr.ip()) >= limits.ports_per_ip || network >= limits.addresses_per_64
    }

    /// Makes room for an address of `source`.
    fn displace(&mut self, now: Time, source: Source, limits: &Limits) -> bool {
        let worst = self
            .peers
            .iter()
            .filter(|(_, entry)| entry.state == State::Idle && entry.source != Source::User)
            .find(|(_, entry)| {
                let dead = entry.is_dead(limits) || entry.is_doubtful(limits);
                let untried = entry.dials == 0 && !entry.real;
                dead && now.since(entry.recent[DIALS_A_MINUTE - 1]) >= DEAD_KEPT
                    || untried && entry.source > source
            })
            .map(|(&addr, _)| addr);
        worst.is_some_and(|addr| self.peers.remove(&addr).is_some())
    }
}

/// First wait before the user's own peer is dialed again; it may not be up yet.
const USER_BACKOFF: Duration = Duration::from_secs(2);

impl Entry {
    fn is_dead(&self, limits: &Limits) -> bool {
        let most = if self.hung_up { limits.dials_of_full } else { limits.dials_of_silent };
        self.retired || !self.real && self.source != Source::User && self.dials >= most
    }

    /// Whether nobody has shaken hands there in as many dials as a silent address gets.
    fn is_doubtful(&self, limits: &Limits) -> bool {
        !self.real && self.source != Source::User && self.dials >= limits.dials_of_silent
    }

    /// When it may be dialed; `None` while it is busy, or never again.
    fn ready_at(&self, limits: &Limits) -> Option<Time> {
        (self.state == State::Idle && !self.is_dead(limits)).then_some(self.not_before)
    }

    /// Lower is dialed first: the user's, then those that worked, then the least tried.
    fn rank(&self) -> (bool, u8, bool, Source) {
        (self.source != Source::User, self.failures, !self.real, self.source)
    }
}

fn spacing(limits: &Limits) -> Duration {
    Duration::from_secs(1) / limits.dials_per_second.max(1)
}

#[cfg(test)]
mod tests;
