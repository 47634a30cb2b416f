//! The tables, and our goals (`PERFORMANCE.md`) beside what was measured.

use harness::load::{Kind, Tally};

use super::programs::OURS;
use super::{Measured, Memory, Row};

/// One line each: with the window full, for the kind with that number.
pub(crate) fn print_closed(floor: &Row, nodes: &[Row], kind: usize) {
    println!(
        "{:16} {:>10} {:>8} {:>16} {:>8} {:>6} {:>6} {:>6} {:>7} {:>15} {:>7}",
        "node",
        "replies/s",
        "CPU us",
        "x floor",
        "B/reply",
        "nodes",
        "lost",
        "wrong",
        "p99 us",
        "RSS MiB",
        "B/peer"
    );
    for row in std::iter::once(floor).chain(nodes) {
        let results = &row.closed[kind];
        let sum = |of: fn(&Tally) -> u64| results.iter().map(|result| of(&result.tally)).sum::<u64>();
        println!(
            "{:16} {:>10.0} {:>8.2} {:>16} {:>8.0} {:>6.2} {:>6} {:>6} {:>7.0} {:>15} {:>7}",
            row.name,
            rate(row, kind),
            median(results.iter().map(|result| result.cpu_micros)),
            spread(&cpu_ratios(results)),
            sum(|tally| tally.reply_bytes) as f64 / sum(|tally| tally.replies).max(1) as f64,
            sum(|tally| tally.nodes.0) as f64 / sum(|tally| tally.nodes.1).max(1) as f64,
            sum(|tally| tally.lost),
            sum(|tally| tally.wrong),
            median(results.iter().map(|result| quantile(&result.tally, 0.99))),
            format!("{:.1}/{:.1}", row.memory.fresh as f64 / 1024.0, row.memory.loaded as f64 / 1024.0),
            bytes_per_peer(row.memory),
        );
        if let Some(why) = results.iter().find_map(|result| result.tally.first_wrong.as_ref()) {
            println!("{:16} first wrong reply: {why}", "");
        }
    }
}

/// One line each: these results, at a given `rate`.
pub(crate) fn print_open(rate: &str, floor: &Row, nodes: &[Row], of: impl Fn(&Row) -> &Vec<Measured>) {
    println!("\nat {rate}");
    println!(
        "{:16} {:>8} {:>16} {:>8} {:>16} {:>8} {:>7} {:>7} {:>7}",
        "node", "CPU us", "x floor", "p50 us", "x floor", "p99 us", "unsent", "lost", "wrong"
    );
    for row in std::iter::once(floor).chain(nodes) {
        let results = of(row);
        println!(
            "{:16} {:>8.2} {:>16} {:>8.0} {:>16} {:>8.0} {:>7} {:>7} {:>7}",
            row.name,
            median(results.iter().map(|result| result.cpu_micros)),
            spread(&cpu_ratios(results)),
            median(results.iter().map(|result| quantile(&result.tally, 0.5))),
            spread(&p50_ratios(results)),
            median(results.iter().map(|result| quantile(&result.tally, 0.99))),
            results.iter().map(|result| result.tally.unsent).sum::<u64>(),
            results.iter().map(|result| result.tally.lost).sum::<u64>(),
            results.iter().map(|result| result.tally.wrong).sum::<u64>(),
        );
    }
}

/// What our own node has to reach, what it reached, and whether that is enough.
pub(crate) fn print_goals(nodes: &[Row], kinds: &[Option<Kind>]) {
    let Some(ours) = nodes.iter().find(|row| row.name == OURS) else { return };
    println!("\n{:44} {:>8} {:>8}", "goal", "wanted", "reached");
    for (n, kind) in kinds.iter().enumerate() {
        let reached = median(cpu_ratios(&ours.closed[n]).into_iter());
        match kind {
            None => goal("CPU a query of the mix, x floor", reached, Bound::AtMost(1.5)),
            Some(kind) => goal(&format!("CPU a query, {kind:?} only, x floor"), reached, Bound::AtMost(2.0)),
        }
    }
    let results = ours.closed.iter().flatten().chain(&ours.gentle).chain(&ours.half);
    let wrong = results.map(|result| result.tally.wrong).sum::<u64>();
    goal("wrong replies", wrong as f64, Bound::AtMost(0.0));
    if kinds != [None] {
        return;
    }
    let rivals = nodes.iter().filter(|row| row.name != OURS);
    if let Some(fastest) = rivals.max_by(|a, b| rate(a, 0).total_cmp(&rate(b, 0))) {
        let name = format!("replies a second, x those of {}", fastest.name);
        goal(&name, rate(ours, 0) / rate(fastest, 0), Bound::AtLeast(1.8));
    }
    let of_floor = ours.closed[0].iter().map(|result| result.tally.rate() / result.floor.rate);
    goal("replies a second, x those of the floor", median(of_floor), Bound::None);
    let gentle = &ours.gentle;
    goal("CPU at 5,000 a second, x floor", median(cpu_ratios(gentle).into_iter()), Bound::AtMost(1.4));
    goal("p50 at 5,000 a second, x floor", median(p50_ratios(gentle).into_iter()), Bound::AtMost(1.3));
    let below = gentle.iter().chain(&ours.half);
    let lost = below.map(|result| result.tally.lost).sum::<u64>();
    goal("lost at 5,000 a second and at half load", lost as f64, Bound::AtMost(0.0));
    goal("fresh RSS, MB", ours.memory.fresh as f64 * 1024.0 / 1e6, Bound::AtMost(6.0));
}

#[derive(Clone, Copy)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
    None,
}

fn goal(name: &str, reached: f64, bound: Bound) {
    let (wanted, verdict) = match bound {
        Bound::AtMost(most) => (format!("<= {most}"), if reached <= most { "met" } else { "MISSED" }),
        Bound::AtLeast(least) => (format!(">= {least}"), if reached >= least { "met" } else { "MISSED" }),
        Bound::None => (String::new(), ""),
    };
    println!("{name:44} {wanted:>8} {reached:>8.2} {verdict}");
}

/// A quantile of the round trips, µs.
pub(crate) fn quantile(tally: &Tally, q: f64) -> f64 {
    f64::from(tally.clone().quantile(q))
}

fn rate(row: &Row, kind: usize) -> f64 {
    median(row.closed[kind].iter().map(|result| result.tally.rate()))
}

fn cpu_ratios(results: &[Measured]) -> Vec<f64> {
    results.iter().map(|result| result.cpu_micros / result.floor.cpu_micros).collect()
}

fn p50_ratios(results: &[Measured]) -> Vec<f64> {
    results.iter().map(|result| quantile(&result.tally, 0.5) / result.floor.p50_micros).collect()
}

/// What storing a peer took of memory, as far as the pages of 10,000 peers tell.
fn bytes_per_peer(memory: Memory) -> String {
    let (before, behind, stored) = memory.storing;
    let bytes = behind.saturating_sub(before) * 1024;
    bytes.checked_div(stored as u64).map_or_else(|| "-".to_owned(), |bytes| bytes.to_string())
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn spread(values: &[f64]) -> String {
    let min = values.iter().copied().fold(f64::INFINITY, f64::min);
    let max = values.iter().copied().fold(0.0, f64::max);
    format!("{min:.2}/{:.2}/{max:.2}", median(values.iter().copied()))
}
