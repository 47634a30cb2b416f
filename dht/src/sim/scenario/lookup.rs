//! How long lookups take on the network of the lookup benchmarks: 40 % of the members dead, three quarters
//! of the ids as BEP 42 wants them, log-normal round-trip times of 90 ms in the median, 3 % loss; but every
//! answer comes from a shipping node. All lookups run at the same time.

use std::sync::Arc;

use krpc::Id;

use super::super::fleet::{Fleet, Plan, simulated};
use super::look::{self, Batch, COLUMNS, Figures};
use super::stats::{counts, cumulative};
use super::{Chart, Curve, Params, Report, Scenario, Stopped, Watcher};
use crate::{Config, ReadOnly};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "lookup",
    about: "how long get_peers takes, from nodes that have just started and from others; \
            --minutes of life before",
    nodes: 10_000,
    minutes: 1,
    takes_lookups: true,
    run,
};

/// Members that are dead, of a thousand, and ids that belong to their address.
const DEAD: u32 = 400;
const SECURE: u32 = 750;

fn run(params: &Params, watcher: &mut dyn Watcher) -> Result<Report, Stopped> {
    let plan = Plan {
        dead_permille: DEAD,
        secure_permille: SECURE,
        ..Plan::new(params.nodes, params.seed, params.threads)
    };
    let mut fleet = Fleet::grow(plan, Vec::new(), watcher)?;
    fleet.run(params.span(), "settling", watcher)?;
    let truth = fleet.living();
    let infohashes: Vec<Id> = (0..params.lookups()).map(|_| fleet.rng().id()).collect();
    look::plant(&mut fleet, &truth, &infohashes);

    let routers = vec![fleet.add_router()];
    let fresh = Arc::new(one_shot());
    let cold: Vec<_> =
        infohashes.iter().map(|&infohash| (fleet.install(&fresh, routers.clone()), infohash)).collect();
    let cold = Batch::new(&mut fleet, &truth).run(&cold, false, ("cold lookups", watcher))?;
    let warm: Vec<_> = infohashes.iter().map(|&infohash| (fleet.any(), infohash)).collect();
    let warm = Batch::new(&mut fleet, &truth).run(&warm, false, ("warm lookups", watcher))?;

    let columns: Vec<&str> = ["nodes"].into_iter().chain(COLUMNS).collect();
    let mut report = Report::new(&columns);
    let figures = [("just started", Figures::of(&cold)), ("long there", Figures::of(&warm))];
    for (name, figures) in &figures {
        let [a, b, c, d, e, f, g, h, i] = figures.cells();
        report.row([(*name).into(), a, b, c, d, e, f, g, h, i]);
    }
    report.charts = charts(&figures);
    report.totals = fleet.totals();
    Ok(report)
}

/// The configuration of a node that looks something up and ends: it answers nobody, and so does not change
/// the network that it looks at.
pub(super) fn one_shot() -> Config {
    Config { wide_buckets: Config::default().wide_buckets, read_only: ReadOnly::Yes, ..simulated() }
}

fn charts(figures: &[(&str, Figures); 2]) -> Vec<Chart> {
    let curves = |of: &dyn Fn(&Figures) -> Vec<(f64, f64)>| -> Vec<Curve> {
        figures.iter().map(|(name, figures)| Curve { name: (*name).into(), points: of(figures) }).collect()
    };
    vec![
        Chart::of_times("time to the first peer", curves(&|of| cumulative(&of.first_peer, of.done.len()))),
        Chart::of_times("time to the end", curves(&|of| cumulative(&of.done, of.done.len()))),
        Chart {
            title: "queries of a lookup",
            x: "queries",
            log_x: false,
            y: "share of the lookups",
            curves: curves(&|figures| cumulative(&figures.queries, figures.done.len())),
        },
        Chart {
            title: "referrals to the farthest node that answered",
            x: "hops",
            log_x: false,
            y: "lookups",
            curves: curves(&|figures| counts(figures.hops.iter().map(|&hops| hops as usize))),
        },
    ]
}
