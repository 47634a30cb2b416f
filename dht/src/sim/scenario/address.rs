//! Nodes whose address changes, as at night or from one network to the next: the table is kept, an id that
//! belongs to the new address is taken once others agree on it (BEP 42), and soon they are known there.

use std::sync::Arc;
use std::time::Duration;

use super::super::fleet::{Fleet, Participant, Plan, simulated};
use super::stats::{cumulative, mean, quantile, share};
use super::{Chart, Curve, Params, Report, Scenario, Stopped, Watcher};
use crate::{Config, Event, NetworkChange, Time};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "address",
    about: "nodes that get another address: what is kept of their tables, time to 50 trusty nodes and to a new \
            id, within --minutes",
    nodes: 2000,
    minutes: 10,
    takes_lookups: false,
    run,
};

/// How long they live before it: an id stays for ten minutes at least.
const BEFORE: Duration = Duration::from_secs(12 * 60);
/// Enough nodes that have answered at the new address (S18).
const ENOUGH: usize = 50;
/// When is looked, in seconds since the change; and every minute.
const MOMENTS: [u64; 7] = [1, 2, 5, 10, 20, 30, 45];

/// A node that moves.
struct Mover {
    host: usize,
    /// Nodes in its table when it moved.
    before: usize,
    /// Milliseconds until so many nodes had answered again, and until it had a new id.
    enough: Option<f64>,
    id: Option<f64>,
}

fn run(params: &Params, watcher: &mut dyn Watcher) -> Result<Report, Stopped> {
    let plan = Plan::new(params.nodes, params.seed, params.threads);
    let mut fleet = Fleet::grow(plan, Vec::new(), watcher)?;
    let routers = vec![fleet.add_router()];
    let config = Arc::new(Config { wide_buckets: Config::default().wide_buckets, ..simulated() });
    let hosts: Vec<_> =
        (0..(params.nodes / 50).clamp(4, 100)).map(|_| fleet.install(&config, routers.clone())).collect();
    fleet.run(BEFORE, "growing up", watcher)?;
    let mut movers: Vec<_> = hosts.into_iter().map(|host| relocate(&mut fleet, host)).collect();
    let since = fleet.world.now();

    let mut report =
        Report::new(&["seconds", "kept", "heard_again_p10", "heard_again_p50", "new_id", "known_by_p50"]);
    let mut curve = Vec::new();
    let minutes = (1..=params.minutes).map(|minute| 60 * minute);
    for seconds in MOMENTS.into_iter().chain(minutes) {
        let at = since + Duration::from_secs(seconds);
        follow(&mut fleet, &mut movers, (since, at), watcher)?;
        let heard: Vec<f64> = movers.iter().map(|mover| mover.heard(&fleet, since) as f64).collect();
        let kept: Vec<f64> = movers.iter().map(|mover| mover.kept(&fleet)).collect();
        let new_id = share(&movers, |mover| mover.id.is_some());
        let [low, middle] = [0.1, 0.5].map(|q| quantile(&heard, q));
        let known = quantile(&known_by(&fleet, &movers), 0.5);
        report.row([
            seconds.into(),
            mean(&kept).into(),
            low.into(),
            middle.into(),
            new_id.into(),
            known.into(),
        ]);
        curve.push((seconds as f64, middle.unwrap_or(0.0)));
    }
    let times = |of: fn(&Mover) -> Option<f64>| movers.iter().filter_map(of).collect::<Vec<f64>>();
    let (enough, ids) = (times(|mover| mover.enough), times(|mover| mover.id));
    report.found("moved", movers.len());
    report.found("fifty_heard_again", enough.len());
    report.found("fifty_heard_again_p50_ms", quantile(&enough, 0.5));
    report.found("fifty_heard_again_p90_ms", quantile(&enough, 0.9));
    report.found("new_id_p50_ms", quantile(&ids, 0.5));
    let of = |name: &str, times: &[f64]| Curve { name: name.into(), points: cumulative(times, movers.len()) };
    report.charts = vec![
        Chart {
            title: "nodes that answered at the new address, median",
            x: "seconds since the change",
            log_x: true,
            y: "nodes",
            curves: vec![Curve { name: "nodes".into(), points: curve }],
        },
        Chart {
            title: "after a change of the address",
            x: "ms",
            log_x: false,
            y: "share of the nodes",
            curves: vec![of("50 nodes heard again", &enough), of("id of the new address", &ids)],
        },
    ];
    report.totals = fleet.totals();
    Ok(report)
}

fn relocate(fleet: &mut Fleet, host: usize) -> Mover {
    let before = fleet.node(host).map_or(0, |node| node.table(fleet.world.now()).len());
    fleet.world.relocate(host);
    fleet.world.act(host, |now, host, out| {
        if let Participant::Node(node) = host {
            node.handle_network(now, 0, NetworkChange::Changed, out);
        }
    });
    Mover { host, before, enough: None, id: None }
}

/// Runs until `at` and notes what happens to whom, to a tenth of a second.
fn follow(
    fleet: &mut Fleet,
    movers: &mut [Mover],
    (since, at): (Time, Time),
    watcher: &mut dyn Watcher,
) -> Result<(), Stopped> {
    while fleet.world.now() < at {
        let waits = movers.iter().any(|mover| mover.enough.is_none());
        let step = if waits { Duration::from_millis(500) } else { Duration::from_secs(10) };
        let told = fleet.run(step.min(at.since(fleet.world.now())), "after the change", watcher)?;
        let millis = |at: Time| at.since(since).as_secs_f64() * 1000.0;
        for told in told {
            if let (Event::ExternalAddress { .. }, Some(mover)) =
                (&told.event, movers.iter_mut().find(|mover| mover.host == told.host))
            {
                mover.id = mover.id.or_else(|| Some(millis(told.at)));
            }
        }
        let now = fleet.world.now();
        for mover in movers.iter_mut().filter(|mover| mover.enough.is_none()) {
            if mover.heard(fleet, since) >= ENOUGH {
                mover.enough = Some(millis(now));
            }
        }
    }
    Ok(())
}

impl Mover {
    /// Nodes in its table that it has heard of since the change.
    fn heard(&self, fleet: &Fleet, since: Time) -> usize {
        let now = fleet.world.now();
        let table = fleet.node(self.host).map(|node| node.table(now)).unwrap_or_default();
        // Ages are in tenths of a second.
        table.iter().filter(|known| known.age + Duration::from_millis(100) < now.since(since)).count()
    }

    /// The size of its table, of what it was.
    fn kept(&self, fleet: &Fleet) -> f64 {
        let nodes = fleet.node(self.host).map_or(0, |node| node.table(fleet.world.now()).len());
        nodes as f64 / self.before.max(1) as f64
    }
}

/// How many nodes know each mover at its new address.
fn known_by(fleet: &Fleet, movers: &[Mover]) -> Vec<f64> {
    let now = fleet.world.now();
    let mut counts = vec![0.0; movers.len()];
    for node in (0..fleet.nodes()).filter_map(|index| fleet.node(index)) {
        for known in node.table(now) {
            let host = fleet.world.at(known.addr);
            if let Some(mover) = movers.iter().position(|mover| Some(mover.host) == host) {
                counts[mover] += 1.0;
            }
        }
    }
    counts
}
