//! A network in which a quarter of the nodes speak IPv6 too (BEP 32): they know nobody there but one of
//! their own, and have to build tables of both families, announce in both and find each other's peers in
//! both, while nodes of IPv4 alone find what is announced in IPv4.

use std::net::SocketAddr;
use std::sync::Arc;

use krpc::Id;

use super::super::fleet::{Fleet, Participant, Plan, simulated};
use super::look::{Batch, Looked};
use super::stats::{cumulative, mean, quantile, share};
use super::{Chart, Curve, Params, Report, Scenario, Stopped, Watcher};
use crate::secure_id::secure_id;
use crate::{Command, Config, Home, Node, Seeds};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "ipv6",
    about: "a quarter of the nodes speak IPv6 too and join through one of them: their tables, and what is \
            found in which family, after --minutes",
    nodes: 2000,
    minutes: 10,
    takes_lookups: true,
    run,
};

fn run(params: &Params, watcher: &mut dyn Watcher) -> Result<Report, Stopped> {
    let dual = params.nodes / 4;
    let plan = Plan::new(params.nodes - dual, params.seed, params.threads);
    let mut fleet = Fleet::grow(plan, Vec::new(), watcher)?;
    let routers = vec![fleet.add_router()];
    let hosts: Vec<usize> = (0..dual).map(|_| install(&mut fleet, &routers)).collect();
    fleet.run(params.span(), "settling", watcher)?;

    let [in_v4, in_v6] = tables(&fleet, &hosts);
    let strays = misplaced(&fleet, &hosts);
    let announced: Vec<(usize, Id)> =
        (0..params.lookups()).map(|n| (hosts[n % hosts.len()], fleet.rng().id())).collect();
    let truth = fleet.living();
    let stored = Batch::new(&mut fleet, &truth).run(&announced, true, ("announcing", watcher))?;

    let mut report =
        Report::new(&["lookers", "lookups", "found", "found_v6", "first_peer_p50_ms", "queries"]);
    let mut curves = Vec::new();
    for name in ["IPv4", "IPv4 and IPv6"] {
        let looker = |fleet: &mut Fleet, n: usize| match name {
            "IPv4" => fleet.any(),
            _ => hosts[(n + 1) % hosts.len()],
        };
        let wanted: Vec<_> =
            announced.iter().enumerate().map(|(n, &(_, key))| (looker(&mut fleet, n), key)).collect();
        let looked = Batch::new(&mut fleet, &truth).run(&wanted, false, ("lookups", watcher))?;
        let first = |one: &Looked| one.first_peer.map(|span| span.as_secs_f64() * 1000.0);
        let times: Vec<f64> = looked.iter().filter_map(first).collect();
        let queries: Vec<f64> = looked.iter().map(|one| f64::from(one.queries)).collect();
        report.row([
            name.into(),
            looked.len().into(),
            share(&looked, |one| one.peers > one.peers_v6).into(),
            share(&looked, |one| one.peers_v6 > 0).into(),
            quantile(&times, 0.5).into(),
            mean(&queries).into(),
        ]);
        curves.push(Curve { name: name.into(), points: cumulative(&times, looked.len()) });
    }
    report.found("nodes_of_both", hosts.len());
    report.found("v4_table_p50", quantile(&in_v4, 0.5));
    report.found("v6_table_p10", quantile(&in_v6, 0.1));
    report.found("v6_table_p50", quantile(&in_v6, 0.5));
    report.found("of_wrong_family_in_tables", strays);
    report.found("stored_mean", mean(&stored.iter().map(|one| one.stored as f64).collect::<Vec<_>>()));
    report.charts = vec![Chart::of_times("time to the first peer", curves)];
    report.totals = fleet.totals();
    Ok(report)
}

/// Adds a node of both families that has just been installed. It knows the routers, and in IPv6 the first
/// of its kind.
fn install(fleet: &mut Fleet, routers: &[SocketAddr]) -> usize {
    let index = fleet.world.len();
    let first = fleet.nodes() + routers.len();
    let (v4, v6) = (fleet.world.addr(index), fleet.world.addr6(index));
    let mut home = |local: SocketAddr| {
        let id = secure_id(local.ip(), fleet.rng());
        Home { id, local, external: None, saved: Vec::new() }
    };
    let homes = vec![home(v4), home(v6)];
    let seeds = Seeds::from_u64(fleet.rng().next_u64());
    let config = Arc::new(Config { wide_buckets: Config::default().wide_buckets, ..simulated() });
    let node = Node::new(config, homes, seeds, fleet.world.now());
    fleet.world.add(Participant::Node(node), 0);
    let known = routers.iter().copied().chain((index != first).then(|| fleet.world.addr6(first)));
    fleet.command(index, Command::Routers(known.collect()));
    index
}

/// Nodes in the tables of each, by family.
fn tables(fleet: &Fleet, hosts: &[usize]) -> [Vec<f64>; 2] {
    let now = fleet.world.now();
    let of = |home: usize| {
        let stats = hosts.iter().filter_map(|&host| fleet.node(host)?.stats(now).into_iter().nth(home));
        stats.map(|stats| stats.nodes as f64).collect()
    };
    [of(0), of(1)]
}

/// Nodes in tables of the family that they do not live in; there must be none.
fn misplaced(fleet: &Fleet, hosts: &[usize]) -> usize {
    let tables =
        hosts.iter().filter_map(|&host| fleet.node(host)).flat_map(|node| node.table(fleet.world.now()));
    tables.filter(|known| known.addr.is_ipv6() != (known.home == 1)).count()
}
