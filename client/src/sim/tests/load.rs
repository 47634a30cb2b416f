//! Swarms for the tests, and what they are held against.

use std::time::Duration;

use btdht::{Rng, Time};

use crate::sim::{Fate, Host, Kind, Torrent, World};
use crate::swarm::Limits;

/// 4 MiB, little enough for the ordinary suite.
pub(super) const SMALL: Torrent = Torrent { pieces: 64, piece_len: 64 << 10 };

/// 64 MiB.
pub(super) const LARGE: Torrent = Torrent { pieces: 256, piece_len: 256 << 10 };

/// A swarm: the world, and who was put into it.
pub(super) struct Run {
    pub(super) world: World,
    pub(super) torrent: Torrent,
    pub(super) hosts: Vec<Host>,
}

impl Run {
    /// Runs hosts for at most `most`.
    pub(super) fn new(torrent: Torrent, limits: Limits, seed: u64, hosts: Vec<Host>, most: Duration) -> Self {
        let mut world = World::new(torrent, limits, seed);
        for &host in &hosts {
            world.add(host);
        }
        world.run(Time::from_secs(1) + most);
        Self { world, torrent, hosts }
    }

    /// What became of those that `which` accepts.
    pub(super) fn fates(&self, which: impl Fn(&Host) -> bool) -> Vec<Fate> {
        let all = (0..).zip(&self.hosts).filter(|(_, host)| which(host));
        all.map(|(index, _)| self.world.fate(index)).collect()
    }

    /// Seconds from arrival to completion of those that `which` accepts, in order.
    ///
    /// # Panics
    /// If one of them is not complete.
    pub(super) fn seconds(&self, which: impl Fn(&Host) -> bool) -> Vec<f64> {
        let done = |fate: Fate| fate.completed.unwrap_or_else(|| panic!("{fate:?}")).as_secs_f64();
        let mut all: Vec<_> = self.fates(which).into_iter().map(done).collect();
        all.sort_unstable_by(f64::total_cmp);
        all
    }

    /// The shortest time in which everybody can have everything if all come at once: the seed has to
    /// send it once, the slowest to receive it, and all together to send it to all.
    pub(super) fn bound(&self) -> f64 {
        let len = self.torrent.len() as f64;
        let leeches = || self.hosts.iter().filter(|host| host.kind != Kind::Seed);
        let seeds: u64 = self.hosts.iter().filter(|host| host.kind == Kind::Seed).map(|host| host.up).sum();
        let giving: u64 =
            self.hosts.iter().filter(|host| host.kind != Kind::FreeRider).map(|host| host.up).sum();
        let slowest = leeches().map(|host| host.down).min().unwrap_or(u64::MAX);
        let bounds =
            [len / seeds as f64, len / slowest as f64, leeches().count() as f64 * len / giving as f64];
        bounds.into_iter().fold(0.0, f64::max)
    }
}

pub(super) fn leech(host: &Host) -> bool {
    host.kind == Kind::Leech
}

pub(super) fn median(sorted: &[f64]) -> f64 {
    sorted[sorted.len() / 2]
}

/// A seed from the start and `count` others that come within `span`.
pub(super) fn crowd(count: u64, span: Duration, rates: (u64, u64), seed_up: u64) -> Vec<Host> {
    let mut rng = Rng::from_seed(count);
    let seed = Host { kind: Kind::Seed, ..Host::new(seed_up, rates.1, Duration::ZERO) };
    let comes = |rng: &mut Rng| Duration::from_millis(rng.below(span.as_millis() as usize) as u64);
    let others = (0..count).map(|_| Host::new(rates.0, rates.1, comes(&mut rng)));
    std::iter::once(seed).chain(others).collect()
}

/// Few neighbours of each, so that a swarm of a hundred is not one where all know all.
pub(super) fn limits() -> Limits {
    Limits { max_peers: 30, ..Limits::default() }
}
