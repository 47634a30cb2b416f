//! [`Maintain`]: when a node bootstraps, refreshes its buckets and pings whom. It decides; `Node`
//! carries out each [`Chore`] with the lookups and queries that it has.
//!
//! Bootstrap: nodes of an earlier run first; routers when those leave us with fewer than k nodes.
//! Attempts repeat after 1 to 60 seconds, with jitter (S17). Routers are asked, never
//! inserted (BEP 5, DECISIONS.md 13). After a bootstrap, and when the line
//! has returned, the buckets are filled and gaps in the wide ones looked for.
//!
//! While a line is lost (see [`crate::network`]) its home does nothing but find out whether somebody
//! answers: a ping every few seconds and attempts to bootstrap. When it is back, nodes not heard of
//! since are pinged quickly, and the bootstrap is repeated over the table that we have (S18).
//!
//! Strangers that query us get a ping, so that they can prove that they answer; a few per second, and
//! at most one a minute per source, so that forged queries cannot use us as a reflector (DECISIONS.md 5).

mod newcomers;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::time::Duration;

use krpc::Id;

use self::newcomers::{Newcomers, Why};
use crate::home::{Place, family_of};
use crate::table::FamilyTable;
use crate::{Config, Rng, Time};

/// The upkeep of all homes.
#[derive(Debug)]
pub(crate) struct Maintain {
    rng: Rng,
    routers: Box<[SocketAddr]>,
    homes: Box<[Upkeep]>,
    newcomers: Newcomers,
    /// The owner knows that we have bootstrapped.
    told: bool,
}

/// Something to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chore {
    /// Find our own neighbourhood, `with_routers` if nodes that we know are not enough.
    Bootstrap { home: usize, with_routers: bool },
    /// Look up a target in a bucket that nobody was added to for long.
    Refresh { home: usize, target: Id },
    /// Ask `node` for nodes near `target`, where the table has nobody.
    Spread { home: usize, node: (Id, SocketAddr), target: Id },
    /// Ask a questionable node whether it is there.
    Ping { home: usize, node: (Id, SocketAddr) },
    /// Ask a node that lost its place for being silent whether it is back.
    Seek { home: usize, node: (Id, SocketAddr) },
}

/// What a lookup of our own id brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Nothing new.
    None,
    /// The neighbourhood is known.
    Settled,
    /// The first bootstrap of the node is complete.
    Bootstrapped,
}

/// When which chore of a home is due.
#[derive(Debug)]
struct Upkeep {
    bootstrap_at: Time,
    refresh_at: Time,
    ping_at: Time,
    spread_at: Time,
    /// Questions for gaps in the table that may still be asked before the next refresh.
    spreads: u32,
    /// Pause after the next unanswered bootstrap.
    pause: Duration,
    attempts: u32,
    /// k nodes answered a lookup of our own id.
    settled: bool,
    /// The next bucket to fill for the first time; 0 when that is over or has not begun.
    filling: u32,
    line: LineState,
    /// Lookups done for that bucket.
    fills: u32,
}

/// What a home knows of its line to the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LineState {
    /// It works.
    Usual,
    /// Nobody answers.
    Lost,
    /// It came back or changed then, and not all nodes have been pinged since.
    Returned(Time),
}

impl Maintain {
    /// Upkeep of so many homes; all of them bootstrap at once.
    pub(crate) fn new(now: Time, homes: usize, config: &Config, mut rng: Rng) -> Self {
        let home = || Upkeep {
            bootstrap_at: now,
            refresh_at: Time::NEVER,
            ping_at: now,
            spread_at: Time::NEVER,
            spreads: 0,
            pause: config.bootstrap_retry_min,
            attempts: 0,
            settled: false,
            filling: 0,
            line: LineState::Usual,
            fills: 0,
        };
        let newcomers = Newcomers::new(&mut rng);
        let homes = (0..homes).map(|_| home()).collect();
        Self { rng, routers: Box::default(), homes, newcomers, told: false }
    }

    /// Begins in the middle: every home knows its neighbourhood and has filled its buckets, and what is
    /// next is due at some time or other, as in a node that has run for long.
    #[cfg(feature = "sim")]
    pub(crate) fn grown(&mut self, now: Time, config: &Config) {
        self.told = true;
        for upkeep in &mut self.homes {
            let mut within = |span: Duration| now + span * self.rng.below(1024) as u32 / 1024;
            upkeep.settled = true;
            upkeep.bootstrap_at = within(config.bootstrap_retry_max);
            upkeep.refresh_at = within(IDLE_CHECK);
            upkeep.ping_at = within(IDLE_CHECK);
            upkeep.spread_at = within(config.refresh_after);
        }
    }

    /// Replaces the routers and tries them soon where they are needed, if there is a new one among them.
    pub(crate) fn set_routers(
        &mut self,
        now: Time,
        routers: Vec<SocketAddr>,
        places: &[Place],
        config: &Config,
    ) {
        let is_news = routers.iter().any(|router| !self.routers.contains(router));
        self.routers = routers.into();
        if !is_news {
            return;
        }
        for (upkeep, place) in self.homes.iter_mut().zip(places) {
            if place.table.len() < config.k {
                upkeep.bootstrap_at = upkeep.bootstrap_at.min(now);
                upkeep.pause = config.bootstrap_retry_min;
            }
        }
    }

    /// The next thing to do at `now`; call it until it says `None`.
    pub(crate) fn next_chore(&mut self, now: Time, places: &mut [Place], config: &Config) -> Option<Chore> {
        self.newcomers.forget(now);
        for (home, (upkeep, place)) in self.homes.iter_mut().zip(places).enumerate() {
            if upkeep.bootstrap_at <= now {
                let routers = self.routers.iter().any(|&router| family_of(router) == place.family);
                if let Some(with_routers) = upkeep.bootstrap(now, place, routers, config, &mut self.rng) {
                    return Some(Chore::Bootstrap { home, with_routers });
                }
            }
            if upkeep.refresh_at <= now
                && let Some(target) = upkeep.refresh(now, &mut place.table, config, &mut self.rng)
            {
                return Some(Chore::Refresh { home, target });
            }
            if upkeep.spread_at <= now
                && let Some((node, target)) = upkeep.spread(now, &place.table, config, &mut self.rng)
            {
                return Some(Chore::Spread { home, node, target });
            }
            if upkeep.ping_at <= now
                && let Some(node) = upkeep.ping(now, &mut place.table, config, &mut self.rng)
            {
                return Some(Chore::Ping { home, node });
            }
            // In a grown table the check whether to bootstrap comes every minute, which is often enough.
            if upkeep.line == LineState::Usual
                && upkeep.settled
                && let Some(node) = place.missing.next(now, config)
            {
                return Some(Chore::Seek { home, node });
            }
        }
        None
    }

    /// A lookup of our own id ended with so many answers. It is repeated until k nodes have answered;
    /// in a network of fewer nodes for ever, at the longest pause.
    pub(crate) fn looked_around(
        &mut self,
        now: Time,
        home: usize,
        answered: u32,
        config: &Config,
    ) -> Progress {
        let Some(upkeep) = self.homes.get_mut(home) else {
            return Progress::None;
        };
        let settled = answered as usize >= config.k;
        if settled && !upkeep.settled {
            upkeep.settled = true;
            (upkeep.filling, upkeep.fills) = (Id::BITS, 0);
            upkeep.refresh_at = now + FIRST_FILL_PAUSE;
            upkeep.spread_at = upkeep.refresh_at;
        }
        // One answer may be that of a router that has just started itself.
        if self.told || answered == 0 || !settled && upkeep.attempts < 2 {
            return if settled { Progress::Settled } else { Progress::None };
        }
        self.told = true;
        upkeep.refresh_at = upkeep.refresh_at.min(now + config.refresh_after);
        Progress::Bootstrapped
    }

    /// Nobody answers any more: from now on only attempts to find somebody.
    pub(crate) fn line_lost(&mut self, now: Time, home: usize, config: &Config) {
        if let Some(upkeep) = self.homes.get_mut(home) {
            upkeep.line = LineState::Lost;
            upkeep.begin_anew(config);
            upkeep.bootstrap_at = now + upkeep.pause;
            upkeep.ping_at = now + config.lost_ping_interval;
            upkeep.refresh_at = Time::NEVER;
        }
    }

    /// The line works again, or is another one: everything that is known is looked at anew.
    pub(crate) fn line_returned(&mut self, now: Time, home: usize, config: &Config) {
        if let Some(upkeep) = self.homes.get_mut(home) {
            upkeep.line = LineState::Returned(now);
            upkeep.begin_anew(config);
            (upkeep.bootstrap_at, upkeep.ping_at) = (now, now);
            if upkeep.refresh_at == Time::NEVER {
                upkeep.refresh_at = now + config.refresh_after;
            }
        }
    }

    /// A node entered the table. The first one is a place to start from.
    pub(crate) fn grew(&mut self, now: Time, home: usize, nodes: usize) {
        if let Some(upkeep) = self.homes.get_mut(home)
            && !upkeep.settled
            && nodes == 1
        {
            upkeep.bootstrap_at = upkeep.bootstrap_at.min(now + FIRST_NODE_PAUSE);
        }
    }

    /// A home has to find its neighbourhood and fill its buckets anew: it has another id, or others have
    /// to hear of it.
    pub(crate) fn look_around(&mut self, now: Time, home: usize, config: &Config) {
        if let Some(upkeep) = self.homes.get_mut(home) {
            upkeep.settled = false;
            upkeep.bootstrap_at = now;
            upkeep.pause = config.bootstrap_retry_min;
        }
    }

    /// Whether a stranger that queried us should be pinged now, and under which id; counts it as pinged if
    /// so. One that we know at that address under another id may have changed it, or somebody poses as it:
    /// it may answer under any.
    pub(crate) fn may_ping_newcomer(
        &mut self,
        now: Time,
        (id, from): (Id, SocketAddr),
        table: &FamilyTable,
        config: &Config,
    ) -> Option<Option<Id>> {
        let young = table.len() < config.young_table;
        let may_look = self.newcomers.has_budget(now, young, config)
            && self.newcomers.may_look(now, young, config)
            && !self.is_router(from);
        if !may_look {
            return None;
        }
        let (expected, why) = if table.wants(now, id, from, config) {
            (Some(id), Why::Stranger)
        } else if table.knows_otherwise(id, from) {
            (None, Why::Doubt)
        } else {
            return None;
        };
        self.newcomers.take(now, from, why, young, config).then_some(expected)
    }

    /// Whether a node that somebody named should be pinged because nobody is known where it lives: if the
    /// table would take it, and once a minute per source, so that liars cannot aim us at a victim.
    pub(crate) fn may_ping_for_gap(
        &mut self,
        now: Time,
        (id, addr): (Id, SocketAddr),
        table: &FamilyTable,
        config: &Config,
    ) -> bool {
        table.is_gap(&id, config)
            && !self.is_router(addr)
            && table.wants(now, id, addr, config)
            && self.newcomers.is_new(now, addr, Why::Stranger, config)
    }

    /// Whether `addr` is a router, which is never inserted.
    pub(crate) fn is_router(&self, addr: SocketAddr) -> bool {
        self.routers.contains(&addr)
    }

    /// Routers that a home of this family can ask.
    pub(crate) fn routers(&self, place: &Place) -> Vec<SocketAddr> {
        let family = place.family;
        self.routers.iter().copied().filter(|&router| family_of(router) == family).collect()
    }

    /// When the next chore is due.
    pub(crate) fn timeout(&self) -> Time {
        let dues = self
            .homes
            .iter()
            .flat_map(|home| [home.bootstrap_at, home.refresh_at, home.ping_at, home.spread_at]);
        dues.min().unwrap_or(Time::NEVER)
    }
}

impl Upkeep {
    /// Has us find our neighbourhood once more, as if nobody had answered yet.
    fn begin_anew(&mut self, config: &Config) {
        self.settled = false;
        self.attempts = 0;
        self.pause = config.bootstrap_retry_min;
    }

    /// Whether to bootstrap now, and if so whether with routers.
    fn bootstrap(
        &mut self,
        now: Time,
        place: &Place,
        has_routers: bool,
        config: &Config,
        rng: &mut Rng,
    ) -> Option<bool> {
        let grown = place.table.len() >= config.k;
        if grown && self.settled {
            self.pause = config.bootstrap_retry_min;
            self.bootstrap_at = now + config.bootstrap_retry_max;
            return None;
        }
        self.bootstrap_at = now + retry(self.pause, config, rng);
        let nobody = place.table.len() == 0 && place.saved.is_empty() && !has_routers;
        if nobody {
            return None;
        }
        self.pause = (self.pause * 2).min(config.bootstrap_retry_max);
        self.attempts = self.attempts.saturating_add(1);
        // Nodes that we know come first, then routers too: the whole table may have moved while we slept.
        Some(has_routers && (self.attempts > 1 || !grown && place.saved.is_empty()))
    }

    /// The target of the refresh that is due.
    fn refresh(&mut self, now: Time, table: &mut FamilyTable, config: &Config, rng: &mut Rng) -> Option<Id> {
        let deepest = Id::BITS + 1 - table.buckets().max(1) as u32;
        while self.filling >= deepest && self.filling > 0 {
            let number = self.filling;
            // A lookup meets some 30 nodes of the far half; a wide bucket takes several. In a small network
            // everybody names the same k nearest to its target, so each looks where the others did not.
            let width = config.wide_buckets.get((Id::BITS - number) as usize).copied().unwrap_or(config.k);
            let lookups = width.div_ceil(32) as u32;
            let target = table.random_id_in_part(number, (self.fills, lookups), rng);
            if table.is_full(&target, config) || self.fills >= lookups {
                (self.filling, self.fills) = (number - 1, 0);
            } else {
                self.fills += 1;
                table.refreshing(now, number);
                self.refresh_at = now + FILL_PAUSE;
                return Some(target);
            }
        }
        self.filling = 0;
        let Some((number, due)) = table.next_refresh(config).filter(|_| table.len() > 0) else {
            self.refresh_at = now + IDLE_CHECK;
            return None;
        };
        if table.is_fresh(now, number, config) {
            self.refresh_at = due.min(now + config.refresh_after).max(now + FILL_PAUSE);
            return None;
        }
        table.refreshing(now, number);
        self.refresh_at = now + jittered(FILL_PAUSE * 2, rng);
        // The deepest bucket is our neighbourhood: looking for ourselves serves it best.
        Some(if number == deepest { *table.own() } else { table.random_id(number, rng) })
    }

    /// Whom to ask for a node near which target, so that wide buckets have somebody everywhere.
    fn spread(
        &mut self,
        now: Time,
        table: &FamilyTable,
        config: &Config,
        rng: &mut Rng,
    ) -> Option<((Id, SocketAddr), Id)> {
        if self.line == LineState::Lost {
            self.spread_at = now + IDLE_CHECK;
            return None;
        }
        if self.spreads == 0 {
            self.spreads = table.gap_count(config) as u32 * SPREADS_PER_GAP;
        }
        let target = if self.spreads > 0 { table.uncovered(rng, config) } else { None };
        let question = target.and_then(|target| Some((*table.closest(&target, 1, config).first()?, target)));
        self.spreads = self.spreads.saturating_sub(1);
        let over = self.spreads == 0 || question.is_none();
        if over {
            self.spreads = 0;
        }
        self.spread_at = now + if over { config.refresh_after } else { SPREAD_PAUSE };
        question
    }

    fn ping(
        &mut self,
        now: Time,
        table: &mut FamilyTable,
        config: &Config,
        rng: &mut Rng,
    ) -> Option<(Id, SocketAddr)> {
        match self.line {
            LineState::Usual => {}
            LineState::Lost => {
                self.ping_at = now + config.lost_ping_interval;
                return table.any(rng);
            }
            LineState::Returned(since) => {
                if let Some(node) = table.ping_unheard_since(since) {
                    self.ping_at = now + Duration::from_secs(1) / config.recovery_pings_per_second.max(1);
                    return Some(node);
                }
                self.line = LineState::Usual;
            }
        }
        let rate = config.questionable_pings_per_second.max(1);
        let node = table.ping_most_questionable(now, config);
        self.ping_at = match node {
            Some(_) => now + Duration::from_secs(1) / rate,
            None => {
                let next = table.next_questionable(config).unwrap_or(Time::NEVER);
                next.clamp(now + Duration::from_secs(1), now + IDLE_CHECK)
            }
        };
        node
    }
}

/// `pause` or up to a third less, so that nodes that lost the network together do not come back in
/// step; never outside of the bounds that the config sets.
fn retry(pause: Duration, config: &Config, rng: &mut Rng) -> Duration {
    let sooner = pause - pause * rng.below(341) as u32 / 1024;
    sooner.max(config.bootstrap_retry_min)
}

/// `pause` or up to a half more, so that nodes that lost the network together do not come back in step.
fn jittered(pause: Duration, rng: &mut Rng) -> Duration {
    pause + pause * rng.below(512) as u32 / 1024
}

/// Pause between two refreshes.
const FILL_PAUSE: Duration = Duration::from_millis(500);

/// Pause between two questions for gaps in the table, and how many are asked for each gap.
const SPREAD_PAUSE: Duration = Duration::from_millis(40);
const SPREADS_PER_GAP: u32 = 2;

/// Filling the table can wait until a lookup that we were started for is through.
const FIRST_FILL_PAUSE: Duration = Duration::from_secs(3);

/// The first node in an empty table may be followed by others of the same burst.
const FIRST_NODE_PAUSE: Duration = Duration::from_millis(100);

/// How often an upkeep without deadline looks again.
const IDLE_CHECK: Duration = Duration::from_secs(60);
