//! A node that has just been installed joins a grown network through a router: how soon it knows its
//! neighbourhood, and how its table fills. Many of them join, together one in fifty.

use std::sync::Arc;
use std::time::Duration;

use super::super::fleet::{Fleet, Plan, simulated};
use super::stats::{cumulative, mean, quantile};
use super::{Chart, Curve, Params, Report, Scenario, Stopped, Watcher};
use crate::{Config, Event, Rng, Time};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "join",
    about: "a fresh node: time until it has bootstrapped, and how its table fills for --minutes",
    nodes: 10_000,
    minutes: 15,
    takes_lookups: false,
    run,
};

/// When tables are looked at, in seconds; and every five minutes.
const MOMENTS: [u64; 10] = [1, 2, 3, 5, 10, 20, 30, 60, 120, 180];

/// The fresh nodes.
struct Newcomers {
    hosts: Vec<usize>,
    since: Time,
    /// Milliseconds until each had bootstrapped.
    bootstrapped: Vec<f64>,
}

fn run(params: &Params, watcher: &mut dyn Watcher) -> Result<Report, Stopped> {
    let plan = Plan::new(params.nodes, params.seed, params.threads);
    let mut fleet = Fleet::grow(plan, Vec::new(), watcher)?;
    let routers = vec![fleet.add_router()];
    let config = Arc::new(Config { wide_buckets: Config::default().wide_buckets, ..simulated() });
    let count = (params.nodes / 50).clamp(4, 200);
    let hosts: Vec<_> = (0..count).map(|_| fleet.install(&config, routers.clone())).collect();
    let mut newcomers = Newcomers { hosts, since: fleet.world.now(), bootstrapped: Vec::new() };

    let mut report =
        Report::new(&["seconds", "nodes_p10", "nodes_p50", "nodes_p90", "buckets_p50", "queries_p50"]);
    let mut curves = [0.1, 0.5, 0.9].map(|q| (q, Vec::new()));
    let fives = (1..).map(|n| 300 * n).take_while(|&seconds| seconds <= 60 * params.minutes);
    let early = MOMENTS.into_iter().filter(|&seconds| seconds <= 60 * params.minutes);
    for seconds in early.chain(fives) {
        let pause = (newcomers.since + Duration::from_secs(seconds)).since(fleet.world.now());
        newcomers.pass(&mut fleet, pause, watcher)?;
        let [nodes, buckets, queries] = newcomers.figures(&fleet);
        for (q, points) in &mut curves {
            points.push((seconds as f64, quantile(&nodes, *q).unwrap_or(0.0)));
        }
        let [low, middle, high] = [0.1, 0.5, 0.9].map(|q| quantile(&nodes, q).into());
        let (buckets, queries) = (quantile(&buckets, 0.5), quantile(&queries, 0.5));
        report.row([seconds.into(), low, middle, high, buckets.into(), queries.into()]);
    }

    let full = newcomers.full_tables(&fleet, &config);
    let now = mean(&newcomers.figures(&fleet)[0]);
    report.found("joined", count);
    report.found("bootstrapped", newcomers.bootstrapped.len());
    report.found("bootstrapped_p50_ms", quantile(&newcomers.bootstrapped, 0.5));
    report.found("bootstrapped_p90_ms", quantile(&newcomers.bootstrapped, 0.9));
    report.found("nodes_of_a_full_table", full);
    report.found("table_fill", now.zip(full).map(|(now, full)| now / full));
    report.charts = charts(&newcomers, &fleet, curves);
    report.totals = fleet.totals();
    Ok(report)
}

impl Newcomers {
    fn pass(&mut self, fleet: &mut Fleet, span: Duration, watcher: &mut dyn Watcher) -> Result<(), Stopped> {
        for told in fleet.run(span, "joining", watcher)? {
            if matches!(told.event, Event::Bootstrapped { .. }) && self.hosts.contains(&told.host) {
                self.bootstrapped.push(told.at.since(self.since).as_secs_f64() * 1000.0);
            }
        }
        Ok(())
    }

    /// Of each: nodes in its table, buckets, queries sent.
    fn figures(&self, fleet: &Fleet) -> [Vec<f64>; 3] {
        let nodes = || self.hosts.iter().filter_map(|&host| fleet.node(host));
        let stats = || nodes().flat_map(|node| node.stats(fleet.world.now()));
        [
            stats().map(|stats| stats.nodes as f64).collect(),
            stats().map(|stats| stats.buckets as f64).collect(),
            nodes().map(|node| node.counters().queries_out as f64).collect(),
        ]
    }

    /// Nodes in the mean in tables as full as they can be.
    fn full_tables(&self, fleet: &Fleet, config: &Config) -> Option<f64> {
        let (living, mut rng) = (fleet.living(), Rng::from_seed(0));
        let ids = self.hosts.iter().filter_map(|&host| fleet.id(host));
        let full: Vec<f64> = ids.map(|id| living.table(&id, config, &mut rng).len() as f64).collect();
        mean(&full)
    }
}

fn charts(newcomers: &Newcomers, fleet: &Fleet, curves: [(f64, Vec<(f64, f64)>); 3]) -> Vec<Chart> {
    let named = |(q, points): (f64, _)| Curve { name: format!("{:.0} % have fewer", 100.0 * q), points };
    let fills = newcomers.hosts.iter().filter_map(|&host| fleet.node(host)?.buckets(fleet.world.now()).pop());
    let fills: Vec<_> = fills.collect();
    let deepest = fills.iter().map(Vec::len).max().unwrap_or(0);
    let at = |depth: usize| fills.iter().filter_map(move |fill| fill.get(depth));
    let curve = |name: &str, of: &dyn Fn(usize) -> Option<f64>| Curve {
        name: name.to_owned(),
        points: (0..deepest).filter_map(|depth| Some((depth as f64, of(depth)?))).collect(),
    };
    let each = |depth: usize| mean(&at(depth).map(|bucket| bucket.nodes as f64).collect::<Vec<_>>());
    let room = |depth: usize| mean(&at(depth).map(|bucket| bucket.capacity as f64).collect::<Vec<_>>());
    vec![
        Chart {
            title: "nodes in the table of a fresh node",
            x: "seconds",
            log_x: true,
            y: "nodes",
            curves: curves.map(named).into(),
        },
        Chart {
            title: "time until bootstrapped",
            x: "ms",
            log_x: false,
            y: "share of the fresh nodes",
            curves: vec![Curve {
                name: "bootstrapped".into(),
                points: cumulative(&newcomers.bootstrapped, newcomers.hosts.len()),
            }],
        },
        Chart {
            title: "bucket fill at the end, in the mean",
            x: "bits shared with the own id",
            log_x: false,
            y: "nodes",
            curves: vec![curve("nodes", &each), curve("room", &room)],
        },
    ]
}
