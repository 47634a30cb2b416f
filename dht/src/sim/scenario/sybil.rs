//! One key attacked by many ids in one hand, which surround it, name only one another and keep its peers to
//! themselves. They are in tables like everybody else before the first lookup, and each has an IPv4 /24
//! of its own: the strongest form of the attack. Their ids are chosen freely, or, where BEP 42 binds them
//! to their addresses, each is the nearest to the key of the eight that its address may have.

use std::sync::Arc;

use krpc::Id;

use super::super::actor::Actor;
use super::super::adversary::{Ring, Sybil};
use super::super::fleet::{Fleet, Plan};
use super::super::{Links, World};
use super::look::{self, Batch, COLUMNS, Figures};
use super::{Chart, Curve, Params, Report, Scenario, Stopped, Watcher};
use crate::secure_id::secure_id;
use crate::{Node, Rng};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "sybil",
    about: "one key surrounded by 16 to 4,096 ids in one hand, free ones and such as BEP 42 allows; after \
            --minutes",
    nodes: 10_000,
    minutes: 1,
    takes_lookups: true,
    run,
};

/// How many ids attack.
const RINGS: [usize; 6] = [0, 16, 64, 256, 1024, 4096];
/// Bits that freely chosen ids share with the key: nobody honest is as near.
const SHARED_BYTES: usize = 8;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Choice {
    Free,
    Bound,
}

fn run(params: &Params, watcher: &mut dyn Watcher) -> Result<Report, Stopped> {
    let columns: Vec<&str> = ["ids", "sybils"].into_iter().chain(COLUMNS).collect();
    let mut report = Report::new(&columns);
    let mut curves = Vec::new();
    for (choice, name) in [(Choice::Free, "free"), (Choice::Bound, "BEP 42")] {
        let mut points = Vec::new();
        for count in RINGS {
            let (figures, totals) = attack(params, choice, count, watcher)?;
            let [a, b, c, d, e, f, g, h, i] = figures.cells();
            report.row([name.into(), count.into(), a, b, c, d, e, f, g, h, i]);
            if count > 0 {
                points.push((count as f64, figures.found.unwrap_or(0.0)));
            }
            report.totals = report.totals.and(&totals);
        }
        curves.push(Curve { name: format!("{name} ids"), points });
    }
    report.charts = vec![Chart {
        title: "lookups of the attacked key that find a true peer",
        x: "ids of the attacker",
        log_x: true,
        y: "share of the lookups",
        curves,
    }];
    Ok(report)
}

fn attack(
    params: &Params,
    choice: Choice,
    count: usize,
    watcher: &mut dyn Watcher,
) -> Result<(Figures, super::Totals), Stopped> {
    let plan = Plan::new(params.nodes, params.seed, params.threads);
    let key = Rng::from_seed(params.seed ^ 0x6b65_7921).id();
    let ring = ring(&plan, key, choice, count);
    let sybils = (0..count).map(|n| {
        let rng = Rng::from_seed(params.seed ^ n as u64);
        Box::new(Sybil::new(&ring, n, rng)) as Box<dyn Actor>
    });
    let mut fleet = Fleet::grow(plan, sybils.collect(), watcher)?;
    // What is stored was announced before the attack, and is renewed where it is.
    let truth = fleet.living();
    fleet.run(params.span(), "under attack", watcher)?;
    look::plant(&mut fleet, &truth, &[key]);
    let lookups = params.few_lookups(200);
    // A node looks for the key once.
    let mut hosts: Vec<usize> = (0..lookups).map(|_| fleet.any()).collect();
    hosts.sort_unstable();
    hosts.dedup();
    let wanted: Vec<_> = hosts.into_iter().map(|host| (host, key)).collect();
    let looked = Batch::new(&mut fleet, &truth).run(&wanted, false, ("lookups", watcher))?;
    Ok((Figures::of(&looked), fleet.totals()))
}

/// The ring around `key`, at the addresses of the hosts after the nodes.
fn ring(plan: &Plan, key: Id, choice: Choice, count: usize) -> Ring {
    let addresses = World::<Node>::new(plan.seed, Links::default(), 1);
    let mut rng = Rng::from_seed(plan.seed ^ 0x7269_6e67);
    let member = |n: usize| {
        let addr = addresses.addr(plan.nodes + n);
        let id = match choice {
            Choice::Free => {
                let mut id = *rng.id().as_bytes();
                id[..SHARED_BYTES].copy_from_slice(&key.as_bytes()[..SHARED_BYTES]);
                Id::new(id)
            }
            // Each draw has one of the eight beginnings; sixty-four have all of them.
            Choice::Bound => (0..64)
                .map(|_| secure_id(addr.ip(), &mut rng))
                .min_by_key(|id| id.distance(&key))
                .unwrap_or(key),
        };
        (id, addr)
    };
    Arc::new((0..count).map(member).collect())
}
