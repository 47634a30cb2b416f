//! The tables of what was measured.

use harness::load::Tally;

use super::{Measured, Memory, Row};

/// Below saturation fewer of a hundred queries are lost.
pub(crate) const LOST_PERCENT: f64 = 1.0;

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
            sum(|tally| tally.reply_bytes) as f64 / sum(|tally| tally.answered).max(1) as f64,
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
        print_flaws(row);
    }
}

/// The marks of a program that answered less than it was to.
pub(crate) fn print_flaws(row: &Row) {
    for flaw in &row.flaws {
        println!("{:16} MARK: {} {flaw}", "", row.name);
    }
}

/// One line each: these results, at a given `rate`.
pub(crate) fn print_open(rate: &str, floor: &Row, nodes: &[Row], of: impl Fn(&Row) -> &Vec<Measured>) {
    println!("\nat {rate}");
    println!(
        "{:16} {:>8} {:>16} {:>8} {:>16} {:>8} {:>7} {:>7} {:>7} {:>7}",
        "node", "CPU us", "x floor", "p50 us", "x floor", "p99 us", "unsent", "lost", "wrong", "aside %"
    );
    for row in std::iter::once(floor).chain(nodes) {
        let results = of(row);
        println!(
            "{:16} {:>8.2} {:>16} {:>8.0} {:>16} {:>8.0} {:>7} {:>7} {:>7} {:>7.2}",
            row.name,
            median(results.iter().map(|result| result.cpu_micros)),
            spread(&cpu_ratios(results)),
            median(results.iter().map(|result| quantile(&result.tally, 0.5))),
            spread(&p50_ratios(results)),
            median(results.iter().map(|result| quantile(&result.tally, 0.99))),
            results.iter().map(|result| result.tally.unsent).sum::<u64>(),
            results.iter().map(|result| result.tally.lost).sum::<u64>(),
            results.iter().map(|result| result.tally.wrong).sum::<u64>(),
            median(results.iter().map(|result| result.aside_percent)),
        );
        let lost = lost_percent(results.iter().map(|result| &result.tally));
        if lost >= LOST_PERCENT {
            println!("{:16} MARK: {lost:.1} % lost, so that the round trips are those of the rest", "");
        }
    }
}

/// Queries without a reply, of a hundred.
pub(crate) fn lost_percent<'a>(tallies: impl Iterator<Item = &'a Tally>) -> f64 {
    let of = |(lost, all), tally: &Tally| (lost + tally.lost, all + tally.lost + tally.replies + tally.wrong);
    let (lost, all) = tallies.fold((0, 0), of);
    100.0 * lost as f64 / all.max(1) as f64
}

/// A quantile of the round trips, µs.
pub(crate) fn quantile(tally: &Tally, q: f64) -> f64 {
    f64::from(tally.clone().quantile(q))
}

pub(crate) fn rate(row: &Row, kind: usize) -> f64 {
    median(row.closed[kind].iter().map(|result| result.tally.rate()))
}

pub(crate) fn cpu_ratios(results: &[Measured]) -> Vec<f64> {
    results.iter().map(|result| result.cpu_micros / result.floor.cpu_micros).collect()
}

pub(crate) fn p50_ratios(results: &[Measured]) -> Vec<f64> {
    results.iter().map(|result| quantile(&result.tally, 0.5) / result.floor.p50_micros).collect()
}

/// What storing a peer took of memory, as far as the pages of 10,000 peers tell.
fn bytes_per_peer(memory: Memory) -> String {
    let (before, behind, stored) = memory.storing;
    let bytes = behind.saturating_sub(before) * 1024;
    bytes.checked_div(stored as u64).map_or_else(|| "-".to_owned(), |bytes| bytes.to_string())
}

pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn spread(values: &[f64]) -> String {
    let min = values.iter().copied().fold(f64::INFINITY, f64::min);
    let max = values.iter().copied().fold(0.0, f64::max);
    format!("{min:.2}/{:.2}/{max:.2}", median(values.iter().copied()))
}
