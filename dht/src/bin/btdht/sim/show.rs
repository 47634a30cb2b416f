//! A report as text for people and as lines of JSON for programs, and what the run cost.

use std::io;
use std::time::Instant;

use btdht::sim::scenario::{Cell, Chart, Curve, Params, Report, Scenario, Totals};
use serde_json::{Map, Value, json};

use super::watch::{Spent, status};
use crate::output::Output;

/// What a run cost on this machine; no part of what it found.
pub(crate) struct Cost {
    seconds: f64,
    threads: usize,
    spent: Spent,
    /// While worlds ran, without the time that it took to make them.
    events_per_second: f64,
    pace: f64,
    /// Bytes; `None` where the system does not tell.
    peak_rss: Option<u64>,
}

impl Cost {
    pub(crate) fn measure(began: Instant, threads: usize, spent: Spent, totals: &Totals) -> Self {
        let per_second = |what: f64| what / spent.running.as_secs_f64().max(1e-9);
        Self {
            seconds: began.elapsed().as_secs_f64(),
            threads,
            spent,
            events_per_second: per_second(totals.events as f64),
            pace: per_second(totals.span.as_secs_f64()),
            // The system's own mark may be a little behind its count.
            peak_rss: status("VmHWM:").max(spent.rss).max(spent.grown_rss),
        }
    }
}

/// Says what is about to run.
///
/// # Errors
/// What writing says.
pub(crate) fn begin(scenario: &Scenario, params: &Params, out: &Output) -> io::Result<()> {
    let Params { nodes, seed, minutes, .. } = params;
    let name = scenario.name;
    out.say(
        || json!({"event": "begin", "scenario": name, "nodes": nodes, "seed": seed, "minutes": minutes}),
        || format!("{name}: {nodes} nodes, seed {seed}, {minutes} minutes\n"),
    )
}

/// Prints what was found.
///
/// # Errors
/// What writing says.
pub(crate) fn report(report: &Report, out: &Output) -> io::Result<()> {
    let widths: Vec<usize> = (0..report.columns.len())
        .map(|column| {
            let cells = report.rows.iter().map(|row| row[column].to_string().chars().count());
            cells.chain([report.columns[column].len()]).max().unwrap_or(0)
        })
        .collect();
    let heading = report.columns.iter().zip(&widths).map(|(name, width)| format!("{name:>width$}"));
    out.say_plain(|| heading.collect::<Vec<_>>().join("  "))?;
    for row in &report.rows {
        out.say(
            || row_json(&report.columns, row),
            || {
                let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:>width$}"));
                cells.collect::<Vec<_>>().join("  ")
            },
        )?;
    }
    for chart in &report.charts {
        for curve in &chart.curves {
            out.say_json(|| curve_json(chart, curve))?;
        }
    }
    out.say_plain(String::new)?;
    for (name, value) in &report.findings {
        out.say(
            || json!({"event": "finding", "name": name, "value": value_json(value)}),
            || format!("{name}: {value}"),
        )?;
    }
    Ok(())
}

/// Says that the run is over and what it cost: on stderr for people, who may keep what stands on stdout.
///
/// # Errors
/// What writing says.
pub(crate) fn done(
    scenario: &Scenario,
    params: &Params,
    totals: &Totals,
    cost: &Cost,
    out: &Output,
) -> io::Result<()> {
    let virtual_seconds = totals.span.as_secs_f64();
    let Cost { seconds, threads, spent, events_per_second, pace, peak_rss } = cost;
    let (growing, running) = (spent.growing.as_secs_f64(), spent.running.as_secs_f64());
    out.note(
        || {
            json!({
                "event": "done", "scenario": scenario.name, "nodes": params.nodes, "seed": params.seed,
                "minutes": params.minutes, "hosts": totals.hosts, "events": totals.events,
                "datagrams": totals.datagrams, "virtual_seconds": virtual_seconds,
                "digest": format!("{:016x}", totals.digest),
                "cost": {
                    "seconds": seconds, "growing_seconds": growing, "running_seconds": running,
                    "threads": threads, "events_per_second": events_per_second.round(),
                    "virtual_seconds_per_second": rounded(*pace), "peak_rss_bytes": peak_rss,
                    "grown_rss_bytes": spent.grown_rss, "rss_bytes": spent.rss,
                },
            })
        },
        || {
            let figure = |bytes: Option<u64>, of: u64| {
                bytes.map_or_else(|| "?".to_owned(), |bytes| (bytes / of).to_string())
            };
            let a_host = |bytes| figure(bytes, totals.hosts.max(1));
            format!(
                "{virtual_seconds:.0} virtual seconds in {running:.1} s on {threads} threads, {pace:.2} a second, \
                 after {growing:.1} s of growing: {} events, {events_per_second:.0} a second; \
                 {} resident bytes a host when grown, {} at the end, {} MiB at most in all; digest {:016x}",
                totals.events,
                a_host(spent.grown_rss),
                a_host(spent.rss),
                figure(*peak_rss, 1 << 20),
                totals.digest,
            )
        },
    )
}

fn row_json(columns: &[&'static str], row: &[Cell]) -> Value {
    let cells = columns.iter().zip(row).map(|(name, cell)| ((*name).to_owned(), value_json(cell)));
    let event = ("event".to_owned(), "row".into());
    Value::Object([event].into_iter().chain(cells).collect::<Map<_, _>>())
}

fn curve_json(chart: &Chart, curve: &Curve) -> Value {
    let points: Vec<[f64; 2]> = curve.points.iter().map(|&(x, y)| [rounded(x), rounded(y)]).collect();
    json!({
        "event": "curve", "chart": chart.title, "x": chart.x, "y": chart.y, "name": curve.name,
        "points": points,
    })
}

fn value_json(cell: &Cell) -> Value {
    match cell {
        Cell::Text(text) => text.as_str().into(),
        Cell::Count(count) => (*count).into(),
        Cell::Real(real) => rounded(*real).into(),
        Cell::Nothing => Value::Null,
    }
}

/// To a millionth, which is more than any of them is good for.
fn rounded(real: f64) -> f64 {
    (real * 1e6).round() / 1e6
}
