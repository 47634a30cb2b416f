//! Tables poisoned: members that answer in time name only nodes that do not exist, close to what was asked
//! for, and send forged queries to everybody, as from such nodes. What must not happen is that anybody
//! who never answered gets a place in a table.

use std::sync::Arc;
use std::time::Duration;

use super::super::actor::Actor;
use super::super::adversary::Liar;
use super::super::fleet::{BEGIN, Fleet, Plan};
use super::super::{Links, World};
use super::look::{self, Batch, COLUMNS, Figures};
use super::{Chart, Curve, Params, Report, Scenario, Stopped, Watcher};
use crate::secure_id::secure_id;
use crate::{Node, Rng};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "poison",
    about: "tables under made-up nodes from 0 to 20 % of the members, and under a flood of them; after --minutes",
    nodes: 2000,
    minutes: 10,
    takes_lookups: true,
    run,
};

/// Liars, of a thousand nodes, and the forged queries of each in a second. The last ones flood: every node gets ten
/// a second, twice as many as it may ping.
const ATTACKS: [(usize, u32); 5] = [(0, 1), (10, 1), (50, 1), (200, 1), (200, 50)];

fn run(params: &Params, watcher: &mut dyn Watcher) -> Result<Report, Stopped> {
    let own =
        ["liars_percent", "forged_a_second", "made_up_in_tables", "liars_in_tables", "pings_a_node_second"];
    let columns: Vec<&str> = own.into_iter().chain(COLUMNS).collect();
    let mut report = Report::new(&columns);
    let (mut found, mut reached, mut taken) = (Vec::new(), Vec::new(), Vec::new());
    for (permille, forged) in ATTACKS {
        let plan = Plan::new(params.nodes, params.seed, params.threads);
        let mut fleet = Fleet::grow(plan.clone(), liars(&plan, permille, forged), watcher)?;
        let before = queries(&fleet);
        fleet.run(params.span(), "under attack", watcher)?;
        let asked = (queries(&fleet) - before) as f64 / params.span().as_secs_f64() / params.nodes as f64;
        let made_up = fleet.share_in_tables(|known| Liar::made_up(known.addr));
        let first = params.nodes;
        let lying =
            fleet.share_in_tables(|known| fleet.world.at(known.addr).is_some_and(|host| host >= first));

        let truth = fleet.living();
        let wanted: Vec<_> = (0..params.lookups()).map(|_| (fleet.any(), fleet.rng().id())).collect();
        look::plant(&mut fleet, &truth, &wanted.iter().map(|&(_, infohash)| infohash).collect::<Vec<_>>());
        let looked = Batch::new(&mut fleet, &truth).run(&wanted, false, ("lookups", watcher))?;
        let figures = Figures::of(&looked);
        let [a, b, c, d, e, f, g, h, i] = figures.cells();
        let percent = permille as f64 / 10.0;
        let attack = [percent.into(), u64::from(forged).into(), made_up.into(), lying.into(), asked.into()];
        let [j, k, l, m, n] = attack;
        report.row([j, k, l, m, n, a, b, c, d, e, f, g, h, i]);
        let shares = [(&mut found, figures.found), (&mut reached, figures.reached), (&mut taken, lying)];
        for (points, share) in shares.into_iter().filter(|_| forged == 1) {
            points.push((percent, share.unwrap_or(0.0)));
        }
        report.totals = report.totals.and(&fleet.totals());
    }
    let curve = |name: &str, points| Curve { name: name.into(), points };
    report.charts = vec![Chart {
        title: "a network with liars",
        x: "liars, % of the nodes",
        log_x: false,
        y: "share",
        curves: vec![
            curve("lookups that found a peer", found),
            curve("closest reached", reached),
            curve("liars in tables", taken),
        ],
    }];
    Ok(report)
}

/// Liars at the addresses after the nodes, who know where everybody lives.
fn liars(plan: &Plan, permille: usize, forged: u32) -> Vec<Box<dyn Actor>> {
    let addresses = World::<Node>::new(plan.seed, Links::default(), 1);
    let victims = Arc::new((0..plan.nodes).map(|index| addresses.addr(index)).collect::<Vec<_>>());
    let mut rng = Rng::from_seed(plan.seed ^ 0x6c69_6172);
    let (count, every) = (plan.nodes * permille / 1000, Duration::from_secs(1) / forged);
    let liar = |n: usize| {
        let id = secure_id(addresses.addr(plan.nodes + n).ip(), &mut rng);
        let begin = BEGIN + every * n as u32 / count.max(1) as u32;
        let liar = Liar::new(id, &victims, (begin, every), Rng::from_seed(rng.next_u64()));
        Box::new(liar) as Box<dyn Actor>
    };
    (0..count).map(liar).collect()
}

fn queries(fleet: &Fleet) -> u64 {
    (0..fleet.nodes()).filter_map(|index| fleet.node(index)).map(|node| node.counters().queries_out).sum()
}
