//! One node eclipsed: many ids in one hand, spread over the buckets of its table, ask it again and again so
//! that they are taken in. The victim has just been installed, and is under attack from its first second,
//! or has long been there. Every attacker has an IPv4 /24 of its own.

use std::sync::Arc;
use std::time::Duration;

use krpc::Id;

use super::super::adversary::{Ring, Sybil};
use super::super::fleet::{Fleet, Participant, Plan, simulated};
use super::look::{self, Batch, COLUMNS, Figures};
use super::{Chart, Curve, Params, Report, Scenario, Stopped, Watcher};
use crate::{Config, Rng};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "eclipse",
    about: "one node asked again and again by 16 to 1,024 ids in one hand that want into its table; after \
            --minutes",
    nodes: 2000,
    minutes: 30,
    takes_lookups: true,
    run,
};

/// How many ids attack.
const RINGS: [usize; 4] = [16, 64, 256, 1024];
/// Buckets that they spread over: deeper ones are empty.
const BUCKETS: usize = 16;
/// Pause between two visits of one attacker.
const EVERY: Duration = Duration::from_secs(30);
/// How long a victim that is long there was left alone.
const GROWN: Duration = Duration::from_secs(5 * 60);

fn run(params: &Params, watcher: &mut dyn Watcher) -> Result<Report, Stopped> {
    let own = ["victim", "attackers", "in_table", "attackers_in_table", "attackers_in_closest"];
    let columns: Vec<&str> = own.into_iter().chain(COLUMNS).collect();
    let mut report = Report::new(&columns);
    let mut curves = Vec::new();
    for (name, alone) in [("just installed", Duration::ZERO), ("long there", GROWN)] {
        let mut points = Vec::new();
        // More than twice as many as there are nodes say nothing that fewer do not.
        for count in RINGS.into_iter().filter(|&count| count <= 2 * params.nodes) {
            let mut siege = Siege::begin(params, count, alone, watcher)?;
            siege.fleet.run(params.span(), "under attack", watcher)?;
            let (nodes, taken, closest) = siege.table();
            let looked = siege.look(params.few_lookups(100), watcher)?;
            let [a, b, c, d, e, f, g, h, i] = looked.cells();
            let own = [name.into(), count.into(), nodes.into(), taken.into(), closest.into()];
            let [v, n, t, s, q] = own;
            report.row([v, n, t, s, q, a, b, c, d, e, f, g, h, i]);
            points.push((count as f64, taken));
            report.totals = report.totals.and(&siege.fleet.totals());
        }
        curves.push(Curve { name: name.into(), points });
    }
    report.charts = vec![Chart {
        title: "share of a node's table that attackers took",
        x: "ids of the attacker",
        log_x: true,
        y: "share of the table",
        curves,
    }];
    Ok(report)
}

/// A victim and those around it.
struct Siege {
    fleet: Fleet,
    victim: usize,
    first: usize,
}

impl Siege {
    fn begin(
        params: &Params,
        count: usize,
        alone: Duration,
        watcher: &mut dyn Watcher,
    ) -> Result<Self, Stopped> {
        let plan = Plan::new(params.nodes, params.seed, params.threads);
        let mut fleet = Fleet::grow(plan, Vec::new(), watcher)?;
        let routers = vec![fleet.add_router()];
        let config = Arc::new(Config { wide_buckets: Config::default().wide_buckets, ..simulated() });
        let victim = fleet.install(&config, routers);
        fleet.run(alone, "growing up", watcher)?;
        let first = fleet.world.len();
        let Some(own) = fleet.id(victim) else { return Err(Stopped) };
        let mut rng = Rng::from_seed(params.seed ^ 0x0065_636c);
        let member = |n: usize| (near(&own, n % BUCKETS, &mut rng), fleet.world.addr(first + n));
        let ring: Ring = Arc::new((0..count).map(member).collect());
        let (addr, now) = (fleet.world.addr(victim), fleet.world.now());
        for n in 0..count {
            let begin = now + EVERY * n as u32 / count as u32;
            let rng = Rng::from_seed(params.seed ^ n as u64 ^ 0x7369);
            let attacker = Sybil::new(&ring, n, rng).visiting(addr, EVERY, begin);
            fleet.world.add(Participant::Actor(Box::new(attacker)), 0);
        }
        Ok(Self { fleet, victim, first })
    }

    /// Nodes in the victim's table, the share of them that are attackers, and how many of the eight nodes
    /// that it knows nearest to itself are.
    fn table(&self) -> (usize, f64, usize) {
        let now = self.fleet.world.now();
        let is_attacker = |addr| self.fleet.world.at(addr).is_some_and(|host| host >= self.first);
        let Some(node) = self.fleet.node(self.victim) else { return (0, 0.0, 0) };
        let table = node.table(now);
        let taken = table.iter().filter(|known| is_attacker(known.addr)).count();
        let own = self.fleet.id(self.victim).unwrap_or(Id::ZERO);
        let closest = node.closest(&own, look::K).iter().filter(|(_, addr)| is_attacker(*addr)).count();
        (table.len(), taken as f64 / table.len().max(1) as f64, closest)
    }

    /// The victim looks for keys all over the key space.
    fn look(&mut self, lookups: usize, watcher: &mut dyn Watcher) -> Result<Figures, Stopped> {
        let first = self.first as u32;
        let truth = self.fleet.living();
        debug_assert!(truth.members().iter().all(|member| member.number < first));
        let infohashes: Vec<Id> = (0..lookups).map(|_| self.fleet.rng().id()).collect();
        look::plant(&mut self.fleet, &truth, &infohashes);
        let mut all = Vec::new();
        // A node runs only so many at a time.
        for some in infohashes.chunks(10) {
            let wanted: Vec<_> = some.iter().map(|&infohash| (self.victim, infohash)).collect();
            all.append(&mut Batch::new(&mut self.fleet, &truth).run(&wanted, false, ("lookups", watcher))?);
        }
        Ok(Figures::of(&all))
    }
}

/// A random id that shares exactly `bits` bits with `own`.
fn near(own: &Id, bits: usize, rng: &mut Rng) -> Id {
    let (mut id, own) = (*rng.id().as_bytes(), own.as_bytes());
    for bit in 0..=bits {
        let (byte, mask) = (bit / 8, 0x80u8 >> (bit % 8));
        let wanted = if bit == bits { !own[byte] } else { own[byte] } & mask;
        id[byte] = id[byte] & !mask | wanted;
    }
    Id::new(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_ids_share_as_many_bits_as_wanted() {
        let mut rng = Rng::from_seed(1);
        let own = rng.id();
        for bits in 0..40 {
            assert_eq!(own.prefix_len(&near(&own, bits, &mut rng)), bits as u32);
        }
    }
}
