//! A network of which two fifths are households behind NATs: full cones let anybody in, restricted and
//! symmetric ones only whom they talked to. Nodes behind the latter look like others at first, since they
//! answer whoever they asked. They have to find out that no stranger reaches them, say so (BEP 43), and
//! leave the tables of others; and look up and announce all the same.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use krpc::Id;

use super::super::fleet::{Fleet, Plan, simulated};
use super::super::topology::Census;
use super::super::{Access, Leg, Links, Nat, NatKind};
use super::look::{self, Batch, COLUMNS, Figures, K};
use super::stats::{mean, share};
use super::{Chart, Curve, Params, Report, Scenario, Stopped, Watcher};
use crate::{Config, Reachability, ReadOnly};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "nat",
    about: "two fifths of the nodes come from behind NATs of four kinds, on household lines: who is in tables \
            after --minutes, and lookups and announces from behind each kind",
    nodes: 2000,
    minutes: 30,
    takes_lookups: true,
    run,
};

/// Who comes, a tenth of the nodes each, by the index of the line.
const KINDS: [(&str, NatKind); 4] = [
    ("full cone", NatKind::FullCone),
    ("address restricted", NatKind::AddressRestricted),
    ("port restricted", NatKind::PortRestricted),
    ("symmetric", NatKind::Symmetric),
];
const OPEN: &str = "open";

/// RFC 4787 asks for two minutes at least (REQ-5), and that is what most routers do.
const TIMEOUT: Duration = Duration::from_secs(120);

/// A line of 20 Mbit/s down and 2 up that takes 8 ms, has PPPoE's MTU (RFC 2516) and a queue of a quarter
/// of a second upwards.
fn household(kind: NatKind) -> Access {
    let leg = Leg { delay: Duration::from_millis(8), ..Leg::default() };
    Access {
        up: Leg { rate: 250_000, queue: 62_500, ..leg },
        down: Leg { rate: 2_500_000, queue: 250_000, ..leg },
        mtu: 1492,
        fragment_loss_ppm: 0,
        nat: Some(Nat { kind, timeout: TIMEOUT }),
    }
}

/// The nodes of a kind of line.
struct Group {
    name: &'static str,
    /// In order.
    hosts: Vec<usize>,
    /// Whether strangers reach them.
    is_open: bool,
}

fn run(params: &Params, watcher: &mut dyn Watcher) -> Result<Report, Stopped> {
    let each = params.nodes / 10;
    let servers = params.nodes - KINDS.len() * each;
    let households = KINDS.map(|(_, kind)| household(kind));
    let access = std::iter::once(Access::default()).chain(households).collect();
    let links = Links { access, ..Links::default() };
    let plan = Plan { links, ..Plan::new(servers, params.seed, params.threads) };
    let mut fleet = Fleet::grow(plan, Vec::new(), watcher)?;
    let groups = move_in(&mut fleet, servers, each);
    fleet.run(params.span(), "settling", watcher)?;

    let own = ["line", "nodes", "of_tables", "read_only", "stored", "announce_found"];
    let columns: Vec<&str> = own.into_iter().chain(COLUMNS).collect();
    let mut report = Report::new(&columns);
    let mut curves = Vec::new();
    let truth = reachable(&fleet, &groups);
    let lookups = (params.lookups() / groups.len()).max(8);
    for group in &groups {
        let of_tables = fleet.share_in_tables(|known| group.lives_at(&fleet, known.addr));
        let read_only = share(&group.hosts, |&host| is_read_only(&fleet, host));
        let hosts = |fleet: &mut Fleet| group.hosts[fleet.rng().below(group.hosts.len())];
        let wanted: Vec<_> = (0..lookups).map(|_| (hosts(&mut fleet), fleet.rng().id())).collect();
        let infohashes: Vec<Id> = wanted.iter().map(|&(_, infohash)| infohash).collect();
        look::plant(&mut fleet, &truth, &infohashes);
        let looked = Batch::new(&mut fleet, &truth).run(&wanted, false, ("lookups", watcher))?;
        let figures = Figures::of(&looked);

        let announced: Vec<_> = (0..lookups).map(|_| (hosts(&mut fleet), fleet.rng().id())).collect();
        let stored = Batch::new(&mut fleet, &truth).run(&announced, true, ("announcing", watcher))?;
        let stored: Vec<f64> = stored.iter().map(|one| one.stored.min(K) as f64).collect();
        let others: Vec<_> = announced.iter().map(|&(_, infohash)| (fleet.any(), infohash)).collect();
        let looked = Batch::new(&mut fleet, &truth).run(&others, false, ("lookups", watcher))?;
        let found = share(&looked, |one| one.peers > 0);

        let [a, b, c, d, e, f, g, h, i] = figures.cells();
        let own = [of_tables.into(), read_only.into(), mean(&stored).into(), found.into()];
        let [t, r, s, p] = own;
        report.row([group.name.into(), group.hosts.len().into(), t, r, s, p, a, b, c, d, e, f, g, h, i]);
        let points = super::stats::cumulative(&figures.first_peer, figures.done.len());
        curves.push(Curve { name: group.name.into(), points });
    }
    let unreachable = |addr| groups.iter().any(|group| !group.is_open && group.lives_at(&fleet, addr));
    report.found("unreachable_in_tables", fleet.share_in_tables(|known| unreachable(known.addr)));
    report.charts = vec![Chart::of_times("time to the first peer", curves)];
    report.totals = fleet.totals();
    Ok(report)
}

/// Installs the nodes behind NATs.
fn move_in(fleet: &mut Fleet, servers: usize, each: usize) -> Vec<Group> {
    let routers = vec![fleet.add_router()];
    // As shipped: they find out by themselves, also in a network as small as this one.
    let reach_contacts = Config::default().reach_contacts;
    let config =
        Arc::new(Config { read_only: ReadOnly::Auto, reach_min_network: 0, reach_contacts, ..simulated() });
    let mut groups = vec![Group { name: OPEN, hosts: (0..servers).collect(), is_open: true }];
    for (line, (name, kind)) in (1..).zip(KINDS) {
        let mut settle = |_| {
            let host = fleet.install(&config, routers.clone());
            fleet.world.set_access(host, line);
            host
        };
        let hosts = (0..each).map(&mut settle).collect();
        groups.push(Group { name, hosts, is_open: kind == NatKind::FullCone });
    }
    groups
}

/// Those who answer everybody.
fn reachable(fleet: &Fleet, groups: &[Group]) -> Census {
    let living = fleet.living();
    let is_open = |host: usize| groups.iter().any(|group| group.is_open && group.has(host));
    let members = living.members().iter().filter(|member| is_open(member.number as usize));
    Census::new(members.copied().collect())
}

fn is_read_only(fleet: &Fleet, host: usize) -> bool {
    let stats = fleet.node(host).and_then(|node| node.stats(fleet.world.now()).into_iter().next());
    stats.is_some_and(|stats| stats.reachability == Reachability::ReadOnly)
}

impl Group {
    fn has(&self, host: usize) -> bool {
        self.hosts.binary_search(&host).is_ok()
    }

    /// Whether one of them lives at an address.
    fn lives_at(&self, fleet: &Fleet, addr: SocketAddr) -> bool {
        fleet.world.at(addr).is_some_and(|host| self.has(host))
    }
}
