//! A network of which many nodes are read-only (BEP 43): they ask and do not answer, so that they have to
//! be in nobody's table, and those who answer bear the load of all.

use std::sync::Arc;

use super::super::fleet::{Fleet, Plan, simulated};
use super::look::{self, Batch, COLUMNS, Figures};
use super::{Chart, Curve, Params, Report, Scenario, Stopped, Watcher};
use crate::{Config, ReadOnly};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "readonly",
    about: "a network of which none, a quarter, half or three quarters of the nodes are read-only, after \
            --minutes",
    nodes: 2000,
    minutes: 10,
    takes_lookups: true,
    run,
};

/// Nodes that are read-only, in percent.
const SHARES: [usize; 4] = [0, 25, 50, 75];

fn run(params: &Params, watcher: &mut dyn Watcher) -> Result<Report, Stopped> {
    let own = ["read_only_percent", "nodes", "read_only_in_tables", "queries_a_server_second"];
    let columns: Vec<&str> = own.into_iter().chain(COLUMNS).collect();
    let mut report = Report::new(&columns);
    let (mut load, mut curves) = (Vec::new(), Vec::new());
    for percent in SHARES {
        let servers = (params.nodes * (100 - percent) / 100).max(Params::MIN_NODES / 2);
        let mut fleet = Fleet::grow(Plan::new(servers, params.seed, params.threads), Vec::new(), watcher)?;
        let routers = vec![fleet.add_router()];
        let config = Arc::new(Config { read_only: ReadOnly::Yes, ..simulated() });
        let clients: Vec<usize> =
            (servers..params.nodes).map(|_| fleet.install(&config, routers.clone())).collect();
        fleet.run(params.span() / 2, "settling", watcher)?;
        let before = asked(&fleet);
        fleet.run(params.span() / 2, "running", watcher)?;
        let queries = (asked(&fleet) - before) as f64 / (params.span() / 2).as_secs_f64() / servers as f64;
        let foreign = read_only_in_tables(&fleet, servers);

        let truth = fleet.living();
        // Everybody looks, clients as often as they are many.
        let looker = |fleet: &mut Fleet, n: usize| match clients.get(n * 7 % params.nodes) {
            Some(&client) => client,
            None => fleet.any(),
        };
        let wanted: Vec<_> =
            (0..params.lookups()).map(|n| (looker(&mut fleet, n), fleet.rng().id())).collect();
        look::plant(&mut fleet, &truth, &wanted.iter().map(|&(_, infohash)| infohash).collect::<Vec<_>>());
        let looked = Batch::new(&mut fleet, &truth).run(&wanted, false, ("lookups", watcher))?;
        let figures = Figures::of(&looked);
        let [a, b, c, d, e, f, g, h, i] = figures.cells();
        let own = [percent.into(), (servers + clients.len()).into(), foreign.into(), queries.into()];
        let [p, n, t, q] = own;
        report.row([p, n, t, q, a, b, c, d, e, f, g, h, i]);
        load.push((percent as f64, queries));
        let points = super::stats::cumulative(&figures.first_peer, figures.done.len());
        curves.push(Curve { name: format!("{percent} % read-only"), points });
        report.totals = report.totals.and(&fleet.totals());
    }
    report.charts = vec![
        Chart {
            title: "upkeep that a node which answers bears",
            x: "read-only nodes, %",
            log_x: false,
            y: "queries a second",
            curves: vec![Curve { name: "queries".into(), points: load }],
        },
        Chart::of_times("time to the first peer", curves),
    ];
    Ok(report)
}

/// The share of entries that are read-only nodes, in the tables of all: BEP 43 wants none, neither with those
/// who answer nor with those who do not.
fn read_only_in_tables(fleet: &Fleet, servers: usize) -> Option<f64> {
    let is_client = |addr| fleet.world.at(addr).is_none_or(|host| host >= servers);
    fleet.share_in_tables_of(0..fleet.world.len(), |known| is_client(known.addr))
}

/// Queries that nodes which answer got so far.
fn asked(fleet: &Fleet) -> u64 {
    (0..fleet.nodes()).filter_map(|index| fleet.node(index)).map(|node| node.counters().queries_in()).sum()
}
