//! Nodes that die all at once: what lookups come to at once, while tables are full of them, and some time
//! later, when tables have been tidied up.

use super::super::fleet::{Fleet, Plan};
use super::look::{self, Batch, COLUMNS, Figures};
use super::{Chart, Curve, Params, Report, Scenario, Stopped, Watcher};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "dead",
    about: "lookups when none, 10, 30 or 50 % of all nodes have just died, and --minutes later",
    nodes: 10_000,
    minutes: 30,
    takes_lookups: true,
    run,
};

/// Members that are dead, of a thousand.
const SHARES: [u32; 4] = [0, 100, 300, 500];

fn run(params: &Params, watcher: &mut dyn Watcher) -> Result<Report, Stopped> {
    let columns: Vec<&str> =
        ["dead_percent", "minutes", "dead_in_tables"].into_iter().chain(COLUMNS).collect();
    let mut report = Report::new(&columns);
    let (mut found, mut reached, mut tables) = (Vec::new(), Vec::new(), Vec::new());
    for permille in SHARES {
        let plan = Plan { dead_permille: permille, ..Plan::new(params.nodes, params.seed, params.threads) };
        let mut fleet = Fleet::grow(plan, Vec::new(), watcher)?;
        for minutes in [0, params.minutes] {
            if minutes > 0 {
                fleet.run(params.span(), "tidying up", watcher)?;
            }
            let dead = fleet.share_in_tables(|known| !fleet.lives_at(known.addr));
            let figures = look_up(&mut fleet, params, watcher)?;
            let [a, b, c, d, e, f, g, h, i] = figures.cells();
            let percent = u64::from(permille / 10);
            report.row([percent.into(), minutes.into(), dead.into(), a, b, c, d, e, f, g, h, i]);
            let curves = [(&mut found, figures.found), (&mut reached, figures.reached), (&mut tables, dead)];
            for (points, share) in curves {
                points.push((minutes, percent as f64, share.unwrap_or(0.0)));
            }
        }
        report.totals = report.totals.and(&fleet.totals());
    }
    report.charts = vec![Chart {
        title: "nodes that died at once",
        x: "dead, %",
        log_x: false,
        y: "share",
        curves: [
            ("lookups that found a peer", found),
            ("closest reached", reached),
            ("dead in tables", tables),
        ]
        .into_iter()
        .flat_map(|(name, points)| by_minutes(name, &points, params.minutes))
        .collect(),
    }];
    Ok(report)
}

fn look_up(fleet: &mut Fleet, params: &Params, watcher: &mut dyn Watcher) -> Result<Figures, Stopped> {
    let truth = fleet.living();
    let wanted: Vec<_> = (0..params.lookups()).map(|_| (fleet.any(), fleet.rng().id())).collect();
    look::plant(fleet, &truth, &wanted.iter().map(|&(_, infohash)| infohash).collect::<Vec<_>>());
    let looked = Batch::new(fleet, &truth).run(&wanted, false, ("lookups", watcher))?;
    Ok(Figures::of(&looked))
}

/// A curve of what was so at once and one of what was so later.
fn by_minutes(name: &str, points: &[(u64, f64, f64)], later: u64) -> [Curve; 2] {
    [(0, "at once".to_owned()), (later, format!("after {later} minutes"))].map(|(minutes, when)| Curve {
        name: format!("{name}, {when}"),
        points: points.iter().filter(|point| point.0 == minutes).map(|&(_, x, y)| (x, y)).collect(),
    })
}
