//! What our own node has to reach (`PERFORMANCE.md`) beside what was measured.

use harness::load::{Kind, Tally};

use super::programs::{Missing, OURS};
use super::report::{LOST_PERCENT, cpu_ratios, lost_percent, median, p50_ratios, rate};
use super::{Measured, Row};

/// A goal and what was reached.
pub(crate) struct Goal {
    name: String,
    reached: f64,
    bound: Bound,
}

#[derive(Clone, Copy)]
enum Bound {
    AtMost(f64),
    Below(f64),
    AtLeast(f64),
    None,
}

impl Goal {
    fn new(name: impl Into<String>, reached: f64, bound: Bound) -> Self {
        Self { name: name.into(), reached, bound }
    }

    /// Whether that is enough; what could not be measured is not.
    pub(crate) fn is_met(&self) -> bool {
        match self.bound {
            Bound::AtMost(most) => self.reached <= most,
            Bound::Below(limit) => self.reached < limit,
            Bound::AtLeast(least) => self.reached >= least,
            Bound::None => true,
        }
    }
}

/// One line each.
pub(crate) fn print(goals: &[Goal]) {
    if goals.is_empty() {
        return;
    }
    println!("\n{:44} {:>8} {:>8}", "goal", "wanted", "reached");
    for goal in goals {
        let wanted = match goal.bound {
            Bound::AtMost(most) => format!("<= {most}"),
            Bound::Below(limit) => format!("< {limit}"),
            Bound::AtLeast(least) => format!(">= {least}"),
            Bound::None => String::new(),
        };
        let verdict = match goal.bound {
            Bound::None => "",
            _ if goal.is_met() => "met",
            _ => "MISSED",
        };
        println!("{:44} {wanted:>8} {:>8.2} {verdict}", goal.name, goal.reached);
    }
}

/// Those that these measurements tell of; none if our node is not among them.
pub(crate) fn of(nodes: &[Row], kinds: &[Option<Kind>]) -> Vec<Goal> {
    let Some(ours) = nodes.iter().find(|row| row.name == OURS) else { return Vec::new() };
    let mut goals: Vec<Goal> =
        kinds.iter().zip(&ours.closed).map(|(kind, results)| cost(*kind, results)).collect();
    let all = ours.closed.iter().flatten().chain(&ours.gentle).chain(&ours.half);
    let wrong = sum(all, |tally| tally.wrong);
    goals.push(Goal::new("wrong replies", wrong, Bound::AtMost(0.0)));
    let lost = sum(ours.closed.iter().flatten(), |tally| tally.lost);
    goals.push(Goal::new("lost with the window full", lost, Bound::AtMost(0.0)));
    if kinds == [None] {
        goals.extend(speed(ours, nodes));
        goals.extend(below_saturation(ours));
        let fresh = ours.memory.fresh as f64 * 1024.0 / 1e6;
        goals.push(Goal::new("fresh RSS, MB", fresh, Bound::AtMost(6.0)));
    }
    goals
}

/// What cannot be checked with these nodes, a line each: without our own nothing, and without a rival that was
/// wanted not what is measured by it.
pub(crate) fn unchecked(nodes: &[Row], missing: &[Missing]) -> Vec<String> {
    let mut lines: Vec<String> =
        missing.iter().map(|Missing { name, why }| format!("{name}: {why}")).collect();
    let is_ours = |name: &str| name == OURS;
    if !nodes.iter().any(|row| is_ours(row.name)) && !missing.iter().any(|missing| is_ours(missing.name)) {
        lines.push(format!("--only leaves out {OURS}, whose goals they are"));
    }
    lines
}

fn cost(kind: Option<Kind>, results: &[Measured]) -> Goal {
    let reached = median(cpu_ratios(results).into_iter());
    match kind {
        None => Goal::new("CPU a query of the mix, x floor", reached, Bound::AtMost(1.5)),
        Some(kind) => Goal::new(format!("CPU a query, {kind:?} only, x floor"), reached, Bound::AtMost(2.0)),
    }
}

fn speed(ours: &Row, nodes: &[Row]) -> Vec<Goal> {
    let mut goals = Vec::new();
    let rivals = nodes.iter().filter(|row| row.name != OURS);
    if let Some(fastest) = rivals.max_by(|a, b| rate(a, 0).total_cmp(&rate(b, 0))) {
        let name = format!("replies a second, x those of {}", fastest.name);
        goals.push(Goal::new(name, rate(ours, 0) / rate(fastest, 0), Bound::AtLeast(1.8)));
    }
    let of_floor = ours.closed[0].iter().map(|result| result.tally.rate() / result.floor.rate);
    goals.push(Goal::new("replies a second, x those of the floor", median(of_floor), Bound::None));
    goals
}

fn below_saturation(ours: &Row) -> [Goal; 4] {
    let gentle = &ours.gentle;
    let cpu = median(cpu_ratios(gentle).into_iter());
    let p50 = median(p50_ratios(gentle).into_iter());
    let lost = sum(gentle.iter().chain(&ours.half), |tally| tally.lost);
    let percent = lost_percent(ours.half.iter().map(|result| &result.tally));
    [
        Goal::new("CPU at 5,000 a second, x floor", cpu, Bound::AtMost(1.4)),
        Goal::new("p50 at 5,000 a second, x floor", p50, Bound::AtMost(1.3)),
        Goal::new("lost at 5,000 a second and at half load", lost, Bound::AtMost(0.0)),
        Goal::new("lost at half load, % of queries", percent, Bound::Below(LOST_PERCENT)),
    ]
}

fn sum<'a>(results: impl Iterator<Item = &'a Measured>, of: fn(&Tally) -> u64) -> f64 {
    results.map(|result| of(&result.tally)).sum::<u64>() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Floor, programs};

    fn measured(tally: Tally) -> Measured {
        let floor = Floor { cpu_micros: 1.0, rate: 1000.0, p50_micros: 10.0 };
        Measured { tally, cpu_micros: 1.2, aside_percent: 0.0, floor }
    }

    /// A second in which all went well.
    fn good() -> Tally {
        Tally { seconds: 1.0, replies: 1000, micros: vec![11; 1000], ..Tally::default() }
    }

    /// Our node with such results in the window and at half load, and a rival that answered so much.
    fn rows(closed: Tally, half: Tally, rival: u64) -> Vec<Row> {
        let mut ours = programs::row_of(OURS);
        ours.closed = vec![vec![measured(closed)]];
        (ours.gentle, ours.half) = (vec![measured(good())], vec![measured(half)]);
        let mut other = programs::row_of("other");
        other.closed = vec![vec![measured(Tally { replies: rival, ..good() })]];
        vec![ours, other]
    }

    fn missed(nodes: &[Row]) -> Vec<String> {
        let goals = of(nodes, &[None]);
        goals.into_iter().filter(|goal| !goal.is_met()).map(|goal| goal.name).collect()
    }

    #[test]
    fn a_good_run_misses_nothing() {
        assert!(missed(&rows(good(), good(), 500)).is_empty());
    }

    #[test]
    fn one_wrong_reply_is_missed() {
        let wrong = || Tally { wrong: 1, ..good() };
        assert_eq!(missed(&rows(wrong(), good(), 500)), ["wrong replies"]);
        assert_eq!(missed(&rows(good(), wrong(), 500)), ["wrong replies"]);
    }

    #[test]
    fn lost_replies_are_missed() {
        let lost = |lost| Tally { lost, ..good() };
        assert_eq!(missed(&rows(lost(1), good(), 500)), ["lost with the window full"]);
        let half = "lost at 5,000 a second and at half load";
        assert_eq!(missed(&rows(good(), lost(1), 500)), [half]);
        assert_eq!(missed(&rows(good(), lost(11), 500)), [half, "lost at half load, % of queries"]);
    }

    #[test]
    fn a_rival_that_is_too_fast_is_missed_and_one_that_is_silent_is_not() {
        assert_eq!(missed(&rows(good(), good(), 600)), ["replies a second, x those of other"]);
        assert!(missed(&rows(good(), good(), 0)).is_empty());
    }

    fn missing(name: &'static str) -> Missing {
        Missing { name, why: format!("bin/{name} is not there (make {name})") }
    }

    #[test]
    fn where_all_that_was_wanted_is_there_all_is_checked() {
        let nodes = rows(good(), good(), 500);
        assert!(unchecked(&nodes, &[]).is_empty());
        // A run of our own node alone may be wanted.
        assert!(unchecked(&nodes[..1], &[]).is_empty());
    }

    #[test]
    fn without_our_own_node_nothing_is_checked_and_what_makes_it_is_told() {
        let nodes = rows(good(), good(), 500);
        assert!(of(&nodes[1..], &[None]).is_empty(), "there is no goal to be missed");
        assert_eq!(unchecked(&nodes[1..], &[missing(OURS)]), ["btdht: bin/btdht is not there (make btdht)"]);
        assert_eq!(unchecked(&[], &[missing(OURS)]).len(), 1);
        let left_out = unchecked(&nodes[1..], &[]);
        assert!(left_out.len() == 1 && left_out[0].contains("--only leaves out btdht"), "{left_out:?}");
    }

    #[test]
    fn a_rival_that_was_wanted_and_is_not_there_is_told() {
        let nodes = rows(good(), good(), 500);
        let all = unchecked(&nodes[..1], &[missing("other"), missing("another")]);
        assert_eq!(
            all,
            [
                "other: bin/other is not there (make other)",
                "another: bin/another is not there (make another)"
            ]
        );
    }

    #[test]
    fn a_node_that_is_silent_misses_its_goals() {
        let nothing = || Tally { seconds: 1.0, lost: 1000, ..Tally::default() };
        let missed = missed(&rows(nothing(), nothing(), 500));
        assert!(missed.contains(&"replies a second, x those of other".to_owned()), "{missed:?}");
        assert!(missed.contains(&"lost at half load, % of queries".to_owned()), "{missed:?}");
    }
}
