//! Nodes come and go all the time: what lookups come to, how full of the gone tables are, and what traffic
//! that makes, for several lengths of sessions.

use std::time::Duration;

use super::super::Stats;
use super::super::churn::Churn;
use super::super::fleet::{Fleet, Plan};
use super::look::{self, Batch, COLUMNS, Figures};
use super::{Chart, Curve, Params, Report, Scenario, Stopped, Watcher};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "churn",
    about: "lookups and traffic after --minutes in which nodes come and go, with sessions of 30 minutes and 2 \
            hours in the median",
    nodes: 2000,
    minutes: 60,
    takes_lookups: true,
    run,
};

/// Median lengths of sessions in minutes; 0 for nodes that stay.
const SESSIONS: [u64; 3] = [0, 120, 30];

fn run(params: &Params, watcher: &mut dyn Watcher) -> Result<Report, Stopped> {
    let own = ["session_minutes", "away_in_tables", "datagrams_a_node_second", "bytes_a_node_second"];
    let columns: Vec<&str> = own.into_iter().chain(COLUMNS).collect();
    let mut report = Report::new(&columns);
    let mut curves = Vec::new();
    for minutes in SESSIONS {
        let mut fleet =
            Fleet::grow(Plan::new(params.nodes, params.seed, params.threads), Vec::new(), watcher)?;
        let routers = vec![fleet.add_router()];
        // A tenth stays: who looks has to be there.
        let stay = if minutes == 0 { params.nodes } else { params.nodes / 10 };
        let mut churn = Churn::new(&mut fleet, Duration::from_secs(60 * minutes), stay, routers);
        churn.pass(&mut fleet, params.span() * 3 / 4, "settling", watcher)?;
        let (before, since) = (fleet.world.stats(), fleet.world.now());
        churn.pass(&mut fleet, params.span() / 4, "nodes come and go", watcher)?;
        let seconds = fleet.world.now().since(since).as_secs_f64();
        let [datagrams, bytes] = traffic(&before, &fleet.world.stats())
            .map(|count| count as f64 / seconds / fleet.living().len() as f64);
        let away = fleet.share_in_tables(|known| !fleet.lives_at(known.addr));

        let truth = fleet.living();
        let wanted: Vec<_> = (0..params.lookups()).map(|n| (n % stay, fleet.rng().id())).collect();
        look::plant(&mut fleet, &truth, &wanted.iter().map(|&(_, infohash)| infohash).collect::<Vec<_>>());
        let looked = Batch::new(&mut fleet, &truth).run(&wanted, false, ("lookups", watcher))?;
        let figures = Figures::of(&looked);
        let [a, b, c, d, e, f, g, h, i] = figures.cells();
        let own = [minutes.into(), away.into(), datagrams.into(), bytes.into()];
        let [m, w, n, y] = own;
        report.row([m, w, n, y, a, b, c, d, e, f, g, h, i]);
        let name =
            if minutes == 0 { "nobody leaves".into() } else { format!("sessions of {minutes} minutes") };
        curves
            .push(Curve { name, points: super::stats::cumulative(&figures.first_peer, figures.done.len()) });
        report.totals = report.totals.and(&fleet.totals());
    }
    report.charts = vec![Chart::of_times("time to the first peer while nodes come and go", curves)];
    Ok(report)
}

/// Datagrams and bytes sent in between.
fn traffic(before: &Stats, after: &Stats) -> [u64; 2] {
    [after.sent - before.sent, after.bytes - before.bytes]
}
