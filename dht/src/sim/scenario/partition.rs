//! The network falls in two halves that do not hear each other, and heals. What was announced before, and
//! renewed where it is stored, is looked for by either half; what one half announces meanwhile by the
//! other, once it can.

use std::time::Duration;

use krpc::Id;

use super::super::fleet::{BEGIN, Fleet, Plan};
use super::super::topology::Census;
use super::super::{Links, Partition, Split};
use super::look::{self, Batch, COLUMNS, Figures};
use super::{Chart, Curve, Params, Report, Scenario, Stopped, Watcher};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "partition",
    about: "the network falls in two halves for --minutes and heals: lookups before, in between and after",
    nodes: 2000,
    minutes: 30,
    takes_lookups: true,
    run,
};

/// Until it falls apart.
const BEFORE: Duration = Duration::from_secs(60);
/// One half announces so long before they meet again, so that all of it is stored by then and none of it
/// forgotten while they are watched, however long they were apart.
const ANNOUNCED: Duration = Duration::from_secs(50);
/// How long it is watched afterwards.
const AFTER: Duration = Duration::from_secs(15 * 60);

/// A network of two halves, and what was announced.
struct Halves {
    fleet: Fleet,
    lookups: usize,
    /// Announced before,
    old: Vec<Id>,
    /// while these lived, which store it.
    whole: Census,
    /// Announced by nodes of the first half while it was alone.
    new: Vec<Id>,
    report: Report,
    found: Vec<(f64, f64)>,
    strangers: Vec<(f64, f64)>,
    crossing: Vec<(f64, f64)>,
}

fn run(params: &Params, watcher: &mut dyn Watcher) -> Result<Report, Stopped> {
    let (from, half) = (BEGIN + BEFORE, params.nodes / 2);
    let partition = Partition { from, until: from + params.span(), split: Split::Below(half) };
    let links = Links { partitions: vec![partition], ..Links::default() };
    let plan = Plan { links, ..Plan::new(params.nodes, params.seed, params.threads) };
    let fleet = Fleet::grow(plan, Vec::new(), watcher)?;
    let columns: Vec<&str> =
        ["when", "minutes", "other_half_in_tables", "other_half_finds"].into_iter().chain(COLUMNS).collect();
    let whole = fleet.living();
    let mut halves = Halves {
        fleet,
        whole,
        lookups: params.lookups(),
        old: Vec::new(),
        new: Vec::new(),
        report: Report::new(&columns),
        found: Vec::new(),
        strangers: Vec::new(),
        crossing: Vec::new(),
    };
    halves.old = (0..halves.lookups).map(|_| halves.fleet.rng().id()).collect();
    let truth = halves.fleet.living();
    halves.look("before", &truth, watcher)?;

    let apart = |minutes: u32, of: u32| from + params.span() * minutes / of;
    for at in [apart(1, 100) + Duration::from_secs(10), apart(1, 2)] {
        halves.wait(at.since(halves.fleet.world.now()), watcher)?;
        let own = halves.of_first_half(&truth);
        halves.look("apart", &own, watcher)?;
    }
    halves.wait((partition.until - ANNOUNCED).since(halves.fleet.world.now()), watcher)?;
    halves.announce(watcher)?;
    halves.wait((partition.until + Duration::from_secs(1)).since(halves.fleet.world.now()), watcher)?;
    for after in [Duration::ZERO, AFTER / 3, AFTER] {
        let at = partition.until + after + Duration::from_secs(2);
        halves.wait(at.since(halves.fleet.world.now()), watcher)?;
        let truth = halves.fleet.living();
        halves.look("healed", &truth, watcher)?;
    }
    let mut report = halves.report;
    report.charts = vec![Chart {
        title: "two halves that part and meet again",
        x: "minutes since they parted",
        log_x: false,
        y: "share",
        curves: vec![
            Curve { name: "lookups that found a peer".into(), points: halves.found },
            Curve { name: "nodes of the other half in tables".into(), points: halves.strangers },
            Curve { name: "what the other half announced is found".into(), points: halves.crossing },
        ],
    }];
    report.totals = halves.fleet.totals();
    Ok(report)
}

impl Halves {
    fn half(&self) -> usize {
        self.fleet.nodes() / 2
    }

    fn wait(&mut self, span: Duration, watcher: &mut dyn Watcher) -> Result<(), Stopped> {
        self.fleet.run(span, "waiting", watcher).map(|_| ())
    }

    /// Those who are reached while the halves are apart.
    fn of_first_half(&self, all: &Census) -> Census {
        let half = self.half() as u32;
        Census::new(all.members().iter().filter(|member| member.number < half).copied().collect())
    }

    /// Nodes of the first half look for what was announced before, and those of the second for what the first
    /// announced while it was alone.
    fn look(&mut self, when: &str, truth: &Census, watcher: &mut dyn Watcher) -> Result<(), Stopped> {
        let now = self.fleet.world.now();
        let half = self.half();
        // Peers are forgotten after 45 minutes, and who is still there renews its announce before.
        look::plant(&mut self.fleet, &self.whole, &self.old);
        let wanted: Vec<_> =
            self.old.iter().map(|&infohash| (self.fleet.rng().below(half), infohash)).collect();
        let strangers = self.strangers();
        let looked = Batch::new(&mut self.fleet, truth).run(&wanted, false, ("lookups", watcher))?;
        let figures = Figures::of(&looked);
        let minutes = (now.as_micros() as f64 - (BEGIN + BEFORE).as_micros() as f64) / 60e6;
        self.found.push((minutes, figures.found.unwrap_or(0.0)));
        self.strangers.push((minutes, strangers));
        let [a, b, c, d, e, f, g, h, i] = figures.cells();
        let crossing = self.cross(watcher)?;
        let own = [when.into(), minutes.into(), strangers.into(), crossing.into()];
        let [w, m, s, x] = own;
        self.report.row([w, m, s, x, a, b, c, d, e, f, g, h, i]);
        self.crossing.extend(crossing.map(|found| (minutes, found)));
        Ok(())
    }

    /// The share of the other half in tables, 0.5 in a whole network.
    fn strangers(&self) -> f64 {
        let half = self.half();
        let is_other = |addr| self.fleet.world.at(addr).is_some_and(|host| host >= half);
        let some = (0..half).step_by(half.div_ceil(500));
        self.fleet.share_in_tables_of(some, |known| is_other(known.addr)).unwrap_or(0.0)
    }

    /// Nodes of the first half announce.
    fn announce(&mut self, watcher: &mut dyn Watcher) -> Result<(), Stopped> {
        let (half, truth) = (self.half(), self.fleet.living());
        let wanted: Vec<_> =
            (0..self.lookups).map(|_| (self.fleet.rng().below(half), self.fleet.rng().id())).collect();
        self.new = wanted.iter().map(|&(_, infohash)| infohash).collect();
        Batch::new(&mut self.fleet, &truth).run(&wanted, true, ("announcing", watcher)).map(|_| ())
    }

    /// Nodes of the second half look for what the first announced; the share that is found, if anything was.
    fn cross(&mut self, watcher: &mut dyn Watcher) -> Result<Option<f64>, Stopped> {
        let (half, truth) = (self.half(), self.fleet.living());
        let wanted: Vec<_> =
            self.new.iter().map(|&infohash| (half + self.fleet.rng().below(half), infohash)).collect();
        let looked = Batch::new(&mut self.fleet, &truth).run(&wanted, false, ("lookups", watcher))?;
        Ok(Figures::of(&looked).found)
    }
}
