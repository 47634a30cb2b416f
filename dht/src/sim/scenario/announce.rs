//! How announces survive while nodes come and go: those that are renewed, as the shell does it, and those
//! that are made once. A third of the nodes is away at any time; sessions last two hours in the median.

use std::time::Duration;

use krpc::Id;

use super::super::churn::Churn;
use super::super::fleet::{Fleet, Plan};
use super::look::{Batch, K, Looked};
use super::stats::{mean, share};
use super::{Chart, Curve, Params, Report, Scenario, Stopped, Watcher};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "announce",
    about: "whether announced peers are found for --minutes, renewed or not, while nodes come and go",
    nodes: 1000,
    minutes: 24 * 60,
    takes_lookups: false,
    run,
};

/// Median length of a session.
const SESSION: Duration = Duration::from_secs(2 * 60 * 60);
/// Announces are renewed and looked for this often.
const EVERY: Duration = Duration::from_secs(15 * 60);
/// Rounds between two looks, once the announces that were made once are forgotten.
const ROUNDS: u64 = 4;

struct Swarms {
    /// Who announces what: the first half is renewed.
    announced: Vec<(usize, Id)>,
    kept: usize,
}

fn run(params: &Params, watcher: &mut dyn Watcher) -> Result<Report, Stopped> {
    let mut fleet = Fleet::grow(Plan::new(params.nodes, params.seed, params.threads), Vec::new(), watcher)?;
    let count = (params.nodes / 10).clamp(8, 200);
    let routers = vec![fleet.add_router()];
    // Who announces stays, and so do as many others, who look.
    let mut churn = Churn::new(&mut fleet, SESSION, count * 2, routers);
    let announced: Vec<_> = (0..count).map(|host| (host, fleet.rng().id())).collect();
    let swarms = Swarms { announced, kept: count / 2 };
    let stored = swarms.announce(&mut fleet, &swarms.announced, watcher)?;

    let mut report = Report::new(&["minutes", "renewed_found", "once_found", "nodes_that_stored"]);
    let (mut renewed, mut once) = (Vec::new(), Vec::new());
    let mut nodes_that_stored = mean(&stored);
    let rounds = params.minutes * 60 / EVERY.as_secs();
    for round in 0..=rounds {
        let minutes = round * EVERY.as_secs() / 60;
        // The interesting time of what is never renewed is the first hour and a half.
        if round <= 6 || round.is_multiple_of(ROUNDS) || round == rounds {
            let looked = swarms.look(&mut fleet, watcher)?;
            let found = |looked: &[Looked]| share(looked, |one| one.peers > 0);
            let [kept, left] = [true, false].map(|is_kept| {
                let of: Vec<_> =
                    looked.iter().filter(|one| swarms.is_kept(&one.infohash) == is_kept).cloned().collect();
                found(&of)
            });
            report.row([minutes.into(), kept.into(), left.into(), nodes_that_stored.into()]);
            renewed.push((minutes as f64, kept.unwrap_or(0.0)));
            once.push((minutes as f64, left.unwrap_or(0.0)));
        }
        if round < rounds {
            churn.pass(&mut fleet, EVERY, "nodes come and go", watcher)?;
            let stored = swarms.announce(&mut fleet, &swarms.announced[..swarms.kept], watcher)?;
            nodes_that_stored = mean(&stored);
        }
    }
    let least = renewed.iter().map(|point| point.1).fold(1.0, f64::min);
    report.found("renewed_found_at_least", least);
    report.found("renewed_found_mean", mean(&renewed.iter().map(|point| point.1).collect::<Vec<_>>()));
    report.charts = vec![Chart {
        title: "announced peers that are found",
        x: "minutes since the first announce",
        log_x: false,
        y: "share of the lookups",
        curves: vec![
            Curve { name: "renewed every 15 minutes".into(), points: renewed },
            Curve { name: "announced once".into(), points: once },
        ],
    }];
    report.totals = fleet.totals();
    Ok(report)
}

impl Swarms {
    fn is_kept(&self, infohash: &Id) -> bool {
        self.announced[..self.kept].iter().any(|(_, kept)| kept == infohash)
    }

    /// Has the hosts announce; how many nodes took each announce.
    fn announce(
        &self,
        fleet: &mut Fleet,
        announced: &[(usize, Id)],
        watcher: &mut dyn Watcher,
    ) -> Result<Vec<f64>, Stopped> {
        let truth = fleet.living();
        let looked = Batch::new(fleet, &truth).run(announced, true, ("announcing", watcher))?;
        Ok(looked.iter().map(|one| one.stored.min(K) as f64).collect())
    }

    /// Has nodes that announce nothing look for all of them.
    fn look(&self, fleet: &mut Fleet, watcher: &mut dyn Watcher) -> Result<Vec<Looked>, Stopped> {
        let truth = fleet.living();
        let count = self.announced.len();
        let wanted: Vec<_> =
            self.announced.iter().map(|&(host, infohash)| (host + count, infohash)).collect();
        Batch::new(fleet, &truth).run(&wanted, false, ("lookups", watcher))
    }
}
