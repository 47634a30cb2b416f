//! What a network costs whose nodes do their upkeep while so many lookups are always under way: as soon as
//! one ends, a node drawn at random begins another. A node runs [`crate::Config::max_lookups`] at a time and
//! has the others wait, so that in a small network fewer are under way than were asked for.
//! Nothing is to be found; events, time and memory
//! are what it is run for, so that nothing is done here that costs much beside them.

use std::time::Duration;

use super::super::fleet::{Fleet, Participant, Plan, simulated, step};
use super::super::{Orders, Told};
use super::stats::{cumulative, mean, quantile};
use super::{Chart, Curve, Params, Report, Scenario, Stopped, Watcher};
use crate::{Command, Event, LookupStats, Rng, Time};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "scale",
    about: "upkeep with --lookups always under way, for --minutes: events, time and memory",
    nodes: 10_000,
    minutes: 1,
    takes_lookups: true,
    run,
};

/// The first lookups begin within this, so that nothing is in step.
const SPREAD: Duration = Duration::from_secs(1);
/// Progress is told so often.
const SLICE: Duration = Duration::from_millis(500);

/// Lookups of random infohashes from random nodes, so many at a time.
struct Load {
    rng: Rng,
    /// Of each node, those that it was told to do and has not ended.
    begun: Vec<u32>,
    /// What a node runs of them at most,
    at_most: u32,
    /// and what all run.
    running: usize,
    /// Those that ended since somebody looked.
    over: Vec<LookupStats>,
}

fn run(params: &Params, watcher: &mut dyn Watcher) -> Result<Report, Stopped> {
    let plan = Plan::new(params.nodes, params.seed, params.threads);
    let mut fleet = Fleet::grow(plan, Vec::new(), watcher)?;
    let rng = Rng::from_seed(fleet.rng().next_u64());
    let mut load = Load::new(rng, params.nodes);
    let begin = fleet.world.now();
    let (lookups, end) = (params.lookups(), begin + params.span());
    load.begin(&mut fleet, lookups);

    let mut report = Report::new(&[
        "minute",
        "events",
        "datagrams",
        "lookups",
        "done_p50_ms",
        "done_p90_ms",
        "queries",
        "under_way",
    ]);
    let (mut before, mut all, mut at_a_time) = (fleet.totals(), Vec::new(), Vec::new());
    for minute in 1..=params.minutes {
        let until = begin + Duration::from_secs(60 * minute);
        while fleet.world.now() < until {
            let slice = until.min(fleet.world.now() + SLICE);
            fleet.world.run(slice, |orders, told| load.take(orders, &told));
            at_a_time.push(load.running as f64);
            let passed = fleet.world.now().since(begin).as_secs_f64();
            step(watcher, "running", passed / end.since(begin).as_secs_f64())?;
        }
        let (over, now) = (std::mem::take(&mut load.over), fleet.totals());
        let done: Vec<f64> = over.iter().map(|stats| stats.elapsed.as_secs_f64() * 1000.0).collect();
        let queries: Vec<f64> = over.iter().map(|stats| f64::from(stats.queries)).collect();
        report.row([
            minute.into(),
            (now.events - before.events).into(),
            (now.datagrams - before.datagrams).into(),
            over.len().into(),
            quantile(&done, 0.5).into(),
            quantile(&done, 0.9).into(),
            mean(&queries).into(),
            fleet.world.under_way().into(),
        ]);
        (before, all) = (now, [all, done].concat());
    }
    report.found("lookups_wanted_at_a_time", lookups);
    // All begin within the first second.
    report.found("lookups_at_a_time", mean(at_a_time.get(2..).unwrap_or_default()));
    report.found("lookups", all.len());
    report.found("events_a_node_and_second", rate(&fleet, params));
    report.found("entries_in_a_table", entries(&fleet));
    let points = cumulative(&all, all.len());
    report.charts = vec![Chart::of_times("time to the end", vec![Curve { name: "lookups".into(), points }])];
    report.totals = fleet.totals();
    Ok(report)
}

impl Load {
    fn new(rng: Rng, nodes: usize) -> Self {
        let at_most = u32::try_from(simulated().max_lookups).unwrap_or(u32::MAX);
        Self { rng, begun: vec![0; nodes], at_most, running: 0, over: Vec::new() }
    }

    /// Orders the first lookups.
    fn begin(&mut self, fleet: &mut Fleet, lookups: usize) {
        let now = fleet.world.now();
        for n in 0..lookups {
            let (host, command) = self.another();
            let at = now + SPREAD * n as u32 / lookups as u32;
            fleet.world.order(at, host, move |now, participant, out| {
                if let Participant::Node(node) = participant {
                    node.handle_command(now, command, out);
                }
            });
        }
    }

    /// Has another lookup begin in the place of one that has ended.
    fn take(&mut self, orders: &mut Orders<Participant>, told: &Told) {
        let Event::Done { stats, .. } = told.event else { return };
        self.over.push(stats);
        self.ended(told.host);
        let (host, command) = self.another();
        orders.act(Time::ZERO, host, move |now, participant, out| {
            if let Participant::Node(node) = participant {
                node.handle_command(now, command, out);
            }
        });
    }

    fn another(&mut self) -> (usize, Command) {
        let command = Command::GetPeers { infohash: self.rng.id(), announce: None, trace: false };
        let host = self.rng.below(self.begun.len());
        self.running += usize::from(self.begun[host] < self.at_most);
        self.begun[host] += 1;
        (host, command)
    }

    fn ended(&mut self, host: usize) {
        self.begun[host] -= 1;
        self.running -= usize::from(self.begun[host] < self.at_most);
    }
}

/// Events of a node in a second, in the mean.
fn rate(fleet: &Fleet, params: &Params) -> f64 {
    let totals = fleet.totals();
    totals.events as f64 / params.nodes as f64 / totals.span.as_secs_f64()
}

/// Entries in the tables of a thousand nodes, in the mean.
fn entries(fleet: &Fleet) -> Option<f64> {
    let some = (0..fleet.nodes()).step_by(fleet.nodes().div_ceil(1000));
    let entries: Vec<f64> = some
        .filter_map(|index| Some(fleet.node(index)?.stats(fleet.world.now()).first()?.nodes as f64))
        .collect();
    mean(&entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lookups_that_only_wait_for_their_node_are_not_told_as_under_way() {
        let mut load = Load::new(Rng::from_seed(1), 4);
        let of = |load: &Load| load.begun.iter().map(|&begun| begun.min(64) as usize).sum::<usize>();
        assert_eq!(load.at_most, 64);
        for n in 1..=400 {
            load.another();
            assert_eq!(load.running, of(&load), "{n}");
        }
        assert_eq!(load.running, 4 * 64);
        for n in 0..400 {
            let host = load.begun.iter().position(|&begun| begun > 0).unwrap();
            load.ended(host);
            assert_eq!(load.running, of(&load), "{n}");
        }
        assert_eq!(load.running, 0);
    }
}
