//! `btdht sim`: the node in a virtual network, an experiment at a time.

mod pages;
mod plot;
mod show;
mod watch;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use btdht::settings::{Flags, nearest};
use btdht::sim::scenario::{ALL, Params, Report, Scenario, Stopped};
use serde_json::json;

use self::show::Cost;
use self::watch::{Screen, Spent};
use crate::failure::Failure;
use crate::output::Output;
use crate::signals;

/// Run an experiment in a virtual network of nodes like this one
#[derive(clap::Args)]
#[command(after_help = "\
Every node of the virtual network runs the code of `btdht serve`; time, links and chance are made from \
the seed, so that equal runs give equal results, byte for byte, on any number of threads. No network \
is opened: of the common flags only those of what is printed say anything to it. Prints a table and figures; the last line says what the run cost. What --minutes means is \
said by each experiment; a million nodes take some 7 GB.

Exit code 0 when the experiment ran to its end, 2 for an unknown name.

Example: btdht sim lookup --nodes 10000 --plot lookup.svg
         btdht sim scale --nodes 1000000 --lookups 1000 --json
         btdht sim --list")]
pub(crate) struct Args {
    /// Which experiment
    #[arg(value_name = "NAME", required_unless_present = "list")]
    name: Option<String>,
    /// Print the names of all experiments and what they do
    #[arg(long, conflicts_with = "name")]
    list: bool,
    /// Nodes in the network [default: as suits the experiment]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(Params::MIN_NODES as i64..=20_000_000))]
    nodes: Option<u32>,
    /// Everything random follows from it
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Threads [default: one a core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: Option<u16>,
    /// Virtual minutes [default: as suits the experiment]
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    minutes: Option<u64>,
    /// Lookups to measure or keep under way at a time [default: one for every fourth node, at most 1,000];
    /// not for join, announce and address
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    lookups: Option<u32>,
    /// Draw the curves into a file, which is replaced
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
}

pub(crate) fn run(args: &Args, flags: &Flags) -> Result<(), Failure> {
    let out = Output::new(flags);
    let Some(name) = &args.name else {
        return list(&out);
    };
    let scenario = Scenario::named(name).ok_or_else(|| unknown(name))?;
    let params = params(args, scenario)?;
    if let Some(file) = &args.plot {
        plot::check(file)?;
    }
    pages::enlarge(params.nodes);
    let began = Instant::now();
    let (report, spent) = watched(scenario, params, (flags, &out))?;
    let cost = Cost::measure(began, params.threads, spent, &report.totals);
    show::report(&report, &out)?;
    // What took long is told before anything can fail.
    show::done(scenario, &params, &report.totals, &cost, &out)?;
    args.plot.as_ref().map_or(Ok(()), |file| plot::draw(scenario, &report, file))
}

fn list(out: &Output) -> Result<(), Failure> {
    for scenario in ALL {
        out.say(
            || {
                let Scenario { name, about, nodes, minutes, .. } = scenario;
                json!({"event": "scenario", "name": name, "about": about, "nodes": nodes, "minutes": minutes})
            },
            || format!("{:10} {}", scenario.name, scenario.about),
        )?;
    }
    Ok(())
}

fn unknown(name: &str) -> Failure {
    let meant = nearest(name, ALL.iter().map(|scenario| scenario.name));
    let meant = meant.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
    Failure::usage(format!("no experiment is called `{}`{meant}", name.escape_debug()))
        .hint("`btdht sim --list` names them")
}

fn params(args: &Args, scenario: &Scenario) -> Result<Params, Failure> {
    if args.lookups.is_some() && !scenario.takes_lookups {
        let name = scenario.name;
        return Err(Failure::usage(format!(
            "--lookups says nothing to `{name}`, which has a number of its own"
        )));
    }
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let own = scenario.params();
    Ok(Params {
        nodes: args.nodes.map_or(own.nodes, |nodes| nodes as usize),
        seed: args.seed,
        threads: args.threads.map_or_else(cores, usize::from),
        minutes: args.minutes.unwrap_or(own.minutes),
        lookups: args.lookups.map(|lookups| lookups as usize),
    })
}

/// Runs the scenario until it ends or a signal ends it.
fn watched(
    scenario: &'static Scenario,
    params: Params,
    (flags, out): (&Flags, &Output),
) -> Result<(Report, Spent), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| Failure::other(format!("starting the runtime: {error}")))?;
    runtime.block_on(async {
        let mut stop = signals::watch().map_err(Failure::no_signals)?;
        show::begin(scenario, &params, out)?;
        let stopped = Arc::new(AtomicBool::new(false));
        let mut screen = Screen::new(flags, Arc::clone(&stopped));
        let spent = screen.spent();
        let mut work = tokio::task::spawn_blocking(move || scenario.run(&params, &mut screen));
        let (ended, signal) = tokio::select! {
            ended = &mut work => (ended, None),
            signal = stop.requested() => {
                stopped.store(true, Ordering::Relaxed);
                (work.await, Some(signal))
            }
        };
        match (ended, signal) {
            (_, Some(signal)) => Err(Failure::signal(signal)),
            (Ok(Ok(report)), None) => Ok((report, *spent.lock().unwrap_or_else(PoisonError::into_inner))),
            (Ok(Err(Stopped)), None) => Err(Failure::other("the experiment was stopped")),
            (Err(error), None) => Err(Failure::other(format!("the experiment failed: {error}"))),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_lookups_is_refused_where_it_would_change_nothing() {
        let args = |lookups| Args {
            name: None,
            list: false,
            nodes: None,
            seed: 1,
            threads: Some(1),
            minutes: None,
            lookups,
            plot: None,
        };
        let deaf: Vec<_> = ALL.iter().filter(|scenario| !scenario.takes_lookups).collect();
        assert_eq!(
            deaf.iter().map(|scenario| scenario.name).collect::<Vec<_>>(),
            ["join", "announce", "address"]
        );
        for scenario in ALL {
            assert_eq!(params(&args(Some(7)), scenario).is_ok(), scenario.takes_lookups, "{}", scenario.name);
            assert!(params(&args(None), scenario).is_ok());
        }
    }
}
