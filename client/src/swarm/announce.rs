//! [`Announce`]: which source of peers to ask when: tracker tiers (BEP 12) and the DHT (BEP 5).
//!
//! Each tier is asked on its own, one tracker of it at a time; the first that answers moves to the
//! front. (BEP 12 asks a later tier only when the earlier ones fail; like most clients today we do
//! not let the first tracker's silence or poverty keep us from the others.) The rule for private
//! torrents (BEP 27: trackers are the only source) lives here and nowhere else.

#[cfg(test)]
mod tests;

use std::time::Duration;

use btdht::{Rng, Time};

use super::io::{AnnounceJob, TrackerId, TrackerUrl};
use super::limits::Limits;
use super::tracker_view::{TrackerState, TrackerView};
use crate::tracker::{AnnounceEvent, AnnounceReply, MIN_INTERVAL, Retry, TrackerError};

/// The state of all sources.
#[derive(Debug)]
pub(super) struct Announce {
    trackers: Vec<Tracker>,
    tiers: Vec<Tier>,
    private: bool,
    lookup: Lookup,
}

/// Which sources a torrent may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Privacy {
    /// All; also while the info dictionary is unknown.
    Public,
    /// Trackers only (BEP 27).
    Private,
}

/// What the decisions and announces are made of.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Facts {
    /// Open connections.
    pub(super) peers: usize,
    /// Nothing is missing.
    pub(super) complete: bool,
    /// Bytes sent.
    pub(super) uploaded: u64,
    /// Bytes received.
    pub(super) downloaded: u64,
    /// Bytes missing; `None` before the metadata.
    pub(super) left: Option<u64>,
}

/// Whom to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// A tracker.
    Tracker(TrackerId, AnnounceJob),
    /// The DHT.
    Lookup {
        /// Announce there, too.
        announce: bool,
    },
}

#[derive(Debug)]
struct Tracker {
    url: TrackerUrl,
    tracker_id: Option<Vec<u8>>,
    /// It knows us: `started` was answered.
    started: bool,
    /// It is owed `completed`.
    completed: bool,
    /// It said that it must not be asked again, or cannot be.
    dead: bool,
    /// When its last announce ended, and how.
    last: Option<(Time, Result<Counts, TrackerError>)>,
}

/// What a tracker has told of the swarm.
#[derive(Clone, Copy, Debug)]
struct Counts {
    peers: u32,
    seeds: Option<u32>,
    leechers: Option<u32>,
}

#[derive(Debug)]
struct Tier {
    /// In the order in which they are tried.
    order: Vec<TrackerId>,
    at: usize,
    state: TierState,
    failures: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TierState {
    /// To be asked then.
    Due(Time),
    /// Asked, or waiting for a place among the announces of all torrents; to be passed over then.
    Asking(Time),
}

#[derive(Debug)]
struct Lookup {
    enabled: bool,
    next: Time,
    /// Under way; given up then.
    running: Option<Time>,
    interval: Duration,
    announce_at: Time,
    /// The last announce.
    announced: Option<Time>,
}

/// A lookup whose end we are not told of is taken for ended after this.
const LOOKUP_LOST: Duration = Duration::from_secs(120);
/// The same of an announce of which we are not even told that it has begun: thousands may wait for a place.
const ANNOUNCE_LOST: Duration = Duration::from_secs(3600);

impl Announce {
    /// All sources are due at once. Each tier is shuffled (BEP 12). Trackers beyond the limit are
    /// dropped, later tiers first.
    pub(super) fn new(tiers: Vec<Vec<TrackerUrl>>, limits: &Limits, rng: &mut Rng, now: Time) -> Self {
        let mut trackers = Vec::new();
        let mut kept = Vec::new();
        for tier in tiers {
            let mut order = Vec::new();
            for url in tier.into_iter().take(limits.max_trackers - trackers.len()) {
                order.push(TrackerId(trackers.len() as u32));
                trackers.push(Tracker {
                    url,
                    tracker_id: None,
                    started: false,
                    completed: false,
                    dead: false,
                    last: None,
                });
            }
            for at in (1..order.len()).rev() {
                order.swap(at, rng.below(at + 1));
            }
            if !order.is_empty() {
                kept.push(Tier { order, at: 0, state: TierState::Due(now), failures: 0 });
            }
        }
        let lookup = Lookup {
            enabled: limits.dht,
            next: now,
            running: None,
            interval: limits.lookup_interval,
            announce_at: now,
            announced: None,
        };
        Self { trackers, tiers: kept, private: false, lookup }
    }

    /// The info dictionary says whether the torrent is private.
    pub(super) fn set_privacy(&mut self, privacy: Privacy) {
        self.private = privacy == Privacy::Private;
    }

    /// Whether peers may come from elsewhere than trackers (BEP 27): the DHT, other peers, the local
    /// network.
    pub(super) fn is_public(&self) -> bool {
        !self.private
    }

    /// What to ask now.
    pub(super) fn due(&mut self, now: Time, facts: &Facts, limits: &Limits, rng: &mut Rng) -> Vec<Ask> {
        let mut asks = Vec::new();
        for at in 0..self.tiers.len() {
            let tier = &self.tiers[at];
            if matches!(tier.state, TierState::Asking(until) if until <= now) {
                if let Some(id) = tier.order.get(tier.at) {
                    self.trackers[id.0 as usize].last = Some((now, Err(TrackerError::Timeout)));
                }
                self.fail(now, at, limits);
            }
        }
        let mut asking = self.tiers.iter().filter(|tier| matches!(tier.state, TierState::Asking(_))).count();
        for tier in &mut self.tiers {
            if asking >= limits.max_announces {
                break;
            }
            let TierState::Due(at) = tier.state else { continue };
            let Some(&id) = tier.order.get(tier.at).filter(|_| at <= now) else { continue };
            tier.state = TierState::Asking(now + ANNOUNCE_LOST);
            asking += 1;
            let tracker = &self.trackers[id.0 as usize];
            let event = match (tracker.started, tracker.completed) {
                (false, _) => Some(AnnounceEvent::Started),
                (true, true) => Some(AnnounceEvent::Completed),
                // BEP 21: a partial seed is no downloader.
                (true, false) if facts.complete && facts.left.is_some_and(|left| left > 0) => {
                    Some(AnnounceEvent::Paused)
                }
                (true, false) => None,
            };
            asks.push(Ask::Tracker(id, tracker.job(facts, event, limits.num_want)));
        }
        asks.extend(self.lookup(now, facts, limits, rng));
        asks
    }

    /// A tracker is asked from now on, and not waited for for longer than its patience.
    pub(super) fn begun(&mut self, now: Time, id: TrackerId, limits: &Limits) {
        for tier in self.tiers.iter_mut().filter(|tier| tier.order.get(tier.at) == Some(&id)) {
            if let TierState::Asking(until) = &mut tier.state {
                *until = (now + limits.tracker_patience).min(*until);
            }
        }
    }

    /// A tracker has answered or failed.
    pub(super) fn answered(
        &mut self,
        now: Time,
        id: TrackerId,
        reply: &Result<AnnounceReply, TrackerError>,
        facts: &Facts,
        limits: &Limits,
    ) {
        let Some(tier_at) = self.tiers.iter().position(|tier| tier.order.contains(&id)) else { return };
        let tracker = &mut self.trackers[id.0 as usize];
        let tier = &mut self.tiers[tier_at];
        let current = tier.order.get(tier.at) == Some(&id);
        tracker.last = Some((now, reply.as_ref().map(Counts::of).map_err(TrackerError::clone)));
        match reply {
            Ok(reply) => {
                tracker.completed &= !tracker.started;
                tracker.started = true;
                if reply.tracker_id.is_some() {
                    tracker.tracker_id.clone_from(&reply.tracker_id);
                }
                // BEP 12: the tracker that answers moves to the front of its tier.
                tier.order.retain(|&other| other != id);
                tier.order.insert(0, id);
                tier.at = 0;
                tier.failures = 0;
                let few = facts.peers < limits.few_peers && !facts.complete;
                let sooner = if few { limits.lookup_interval_max } else { Duration::MAX };
                let least = reply.min_interval.unwrap_or(MIN_INTERVAL);
                let wait = reply.interval.min(sooner).max(least).max(MIN_INTERVAL);
                let owed = tracker.completed;
                tier.state = TierState::Due(if owed { now } else { now + wait });
            }
            Err(error) => {
                let forbidden =
                    matches!(error, TrackerError::UnsupportedScheme | TrackerError::ForbiddenAddress);
                tracker.dead |= forbidden || error.retry() == Some(Retry::Never);
                // The answer of one that was passed over already changes nothing.
                if current && matches!(tier.state, TierState::Asking(_)) {
                    self.fail(now, tier_at, limits);
                    let tier = &mut self.tiers[tier_at];
                    // BEP 31; a tier with other trackers goes on with those.
                    if let (Some(Retry::In(wait)), [_]) = (error.retry(), &tier.order[..]) {
                        tier.state = TierState::Due(now + wait.max(MIN_INTERVAL));
                    }
                }
            }
        }
    }

    /// A DHT lookup has ended.
    pub(super) fn lookup_ended(&mut self, now: Time, facts: &Facts, limits: &Limits) {
        if self.lookup.running.take().is_some() {
            let few = facts.peers < limits.few_peers && !facts.complete;
            let interval = if few { self.lookup.interval } else { limits.lookup_interval_max };
            self.lookup.next = now + interval;
            self.lookup.interval = (self.lookup.interval * 2).min(limits.lookup_interval_max);
        }
    }

    /// The download has become complete: trackers that know us are told, the DHT as well (BEP 33).
    pub(super) fn completed(&mut self, now: Time) {
        for tracker in &mut self.trackers {
            tracker.completed = tracker.started;
        }
        for tier in &mut self.tiers {
            let knows = tier.order.get(tier.at).is_some_and(|id| self.trackers[id.0 as usize].started);
            if let (TierState::Due(at), true) = (&mut tier.state, knows) {
                *at = now;
            }
        }
        self.lookup.announce_at = self.lookup.announce_at.min(now);
    }

    /// Our address or network has changed: the DHT knows us by an old one, and who was out of reach may
    /// not be. A network that comes and goes causes no more than an announce per shortest interval.
    pub(super) fn moved(&mut self, now: Time, limits: &Limits) {
        let again = self.lookup.announced.map_or(now, |announced| announced + limits.lookup_interval);
        self.lookup.announce_at = self.lookup.announce_at.min(again.max(now));
        self.lookup.interval = limits.lookup_interval;
    }

    /// Farewells to all trackers that know us.
    pub(super) fn stop(&self, facts: &Facts) -> Vec<Ask> {
        let known = (0..).zip(&self.trackers).filter(|(_, tracker)| tracker.started && !tracker.dead);
        known
            .map(|(id, tracker)| {
                Ask::Tracker(TrackerId(id), tracker.job(facts, Some(AnnounceEvent::Stopped), 0))
            })
            .collect()
    }

    /// When something is due.
    pub(super) fn next(&self) -> Time {
        let tiers = self.tiers.iter().map(|tier| match tier.state {
            TierState::Due(at) | TierState::Asking(at) => at,
        });
        tiers.chain([self.next_lookup()]).min().unwrap_or(Time::NEVER)
    }

    /// All trackers, tier by tier, in the order in which they are tried.
    pub(super) fn view(&self, now: Time) -> Vec<TrackerView> {
        let tiers = self.tiers.iter().enumerate();
        let of_tier =
            tiers.flat_map(|(at, tier)| tier.order.iter().enumerate().map(move |id| (at, tier, id)));
        of_tier.map(|(at, tier, (place, &id))| self.view_of(now, (at, tier), id, place == tier.at)).collect()
    }

    fn view_of(&self, now: Time, (at, tier): (usize, &Tier), id: TrackerId, current: bool) -> TrackerView {
        let tracker = &self.trackers[id.0 as usize];
        let (ended, outcome) = tracker.last.as_ref().map(|(ended, outcome)| (*ended, outcome)).unzip();
        let counts = outcome.and_then(|outcome| outcome.as_ref().ok());
        let state = match (tier.state, outcome) {
            _ if tracker.dead => TrackerState::Dead,
            (TierState::Asking(_), _) if current => TrackerState::Asking,
            (_, None) => TrackerState::Unasked,
            (_, Some(Ok(_))) => TrackerState::Working,
            (_, Some(Err(_))) => TrackerState::Failed,
        };
        let next = match tier.state {
            TierState::Due(at) if current && !tracker.dead && at != Time::NEVER => Some(at.since(now)),
            TierState::Due(_) | TierState::Asking(_) => None,
        };
        TrackerView {
            id,
            tier: at,
            url: tracker.url.url.clone(),
            state,
            last: ended.map(|ended| now.since(ended)),
            next,
            error: outcome.and_then(|outcome| outcome.as_ref().err().cloned()),
            peers: counts.map_or(0, |counts| counts.peers),
            seeds: counts.and_then(|counts| counts.seeds),
            leechers: counts.and_then(|counts| counts.leechers),
        }
    }

    fn next_lookup(&self) -> Time {
        match self.lookup.running {
            _ if !self.lookup.enabled || self.private => Time::NEVER,
            Some(lost) => lost,
            None => self.lookup.next.min(self.lookup.announce_at),
        }
    }

    fn lookup(&mut self, now: Time, facts: &Facts, limits: &Limits, rng: &mut Rng) -> Option<Ask> {
        if self.next_lookup() > now {
            return None;
        }
        let announce = self.lookup.announce_at <= now;
        if announce {
            self.lookup.announced = Some(now);
            let interval = limits.dht_announce_interval;
            self.lookup.announce_at = now + interval.mul_f64(0.8 + rng.below(1024) as f64 * 0.4 / 1024.0);
        }
        self.lookup.next = now + limits.lookup_interval_max;
        if facts.complete && !announce {
            return None; // a seed is found by others
        }
        self.lookup.running = Some(now + LOOKUP_LOST);
        Some(Ask::Lookup { announce })
    }

    /// The current tracker of a tier failed: the next one is due, or after the last one all of them
    /// again later.
    fn fail(&mut self, now: Time, tier_at: usize, limits: &Limits) {
        let tier = &mut self.tiers[tier_at];
        let trackers = &self.trackers;
        let alive = |id: &TrackerId| !trackers[id.0 as usize].dead;
        if let Some(step) = tier.order.iter().skip(tier.at + 1).position(alive) {
            tier.at += step + 1;
            tier.state = TierState::Due(now);
            return;
        }
        let wait = limits.tracker_backoff * (1 << tier.failures.min(16));
        tier.failures += 1;
        tier.state = match tier.order.iter().position(alive) {
            Some(first) => {
                tier.at = first;
                TierState::Due(now + wait.min(limits.tracker_backoff_max))
            }
            None => TierState::Due(Time::NEVER),
        };
    }
}

impl Counts {
    fn of(reply: &AnnounceReply) -> Self {
        Self { peers: reply.peers.len() as u32, seeds: reply.seeds, leechers: reply.leechers }
    }
}

impl Tracker {
    fn job(&self, facts: &Facts, event: Option<AnnounceEvent>, num_want: u16) -> AnnounceJob {
        AnnounceJob {
            url: self.url.url.clone(),
            trusted: self.url.trusted,
            event,
            uploaded: facts.uploaded,
            downloaded: facts.downloaded,
            left: facts.left,
            num_want: if facts.complete { 0 } else { num_want },
            tracker_id: self.tracker_id.clone(),
        }
    }
}
