//! `btdht`: a Mainline DHT node and questions to the DHT, from the command line. This file only
//! dispatches; each verb has a file of its own.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod announce;
mod completions;
mod config;
mod context;
mod crawl;
mod doctor;
mod failure;
mod find_node;
mod follow;
mod get;
mod get_peers;
mod hops;
mod id;
mod item_text;
mod keep;
mod krpc;
mod man;
mod output;
mod ping;
mod put;
mod random;
mod recording;
mod replay;
mod sample;
mod scrape;
mod seeder;
mod serve;
mod signals;
mod sim;
mod testnet;

use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory as _, Parser, Subcommand};

use btdht::settings::{Flags, nearest};
use context::Context;
use failure::Failure;
use output::Output;
use signals::Stop;

/// A node of the BitTorrent DHT, and questions to it.
#[derive(Parser)]
#[command(name = "btdht", version, propagate_version = true, max_term_width = 100)]
#[command(after_help = "\
Exit codes: 0 done; 1 failed; 2 wrong usage; 3 port taken; 4 nothing found or no answer; \
5 disk refused; 6 state in use; 130 and 143 ended by a signal.

Example: btdht get-peers 08ada5a7a6183aae1e09d831df6748d566095a10")]
pub(crate) struct Cli {
    #[command(flatten)]
    flags: Flags,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Serve(serve::Args),
    GetPeers(get_peers::Args),
    Announce(announce::Args),
    Ping(ping::Args),
    FindNode(find_node::Args),
    Id(id::Args),
    Get(get::Args),
    Put(put::Args),
    Scrape(scrape::Args),
    Sample(sample::Args),
    Crawl(crawl::Args),
    Testnet(testnet::Args),
    Sim(sim::Args),
    Krpc(krpc::Args),
    Replay(replay::Args),
    Doctor(doctor::Args),
    Config(config::Args),
    Completions(completions::Args),
    Man(man::Args),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return wrong_usage(&error),
    };
    cli.flags.start_logging();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    let Cli { flags, verb } = cli;
    match verb {
        Verb::Serve(args) => online(flags, async |context, stop| serve::run(&args, context, stop).await),
        Verb::GetPeers(args) => one_shot(flags, async |context| get_peers::run(&args, context).await),
        Verb::Announce(args) => one_shot(flags, async |context| announce::run(&args, context).await),
        Verb::Ping(args) => one_shot(flags, async |context| ping::run(&args, context).await),
        Verb::FindNode(args) => one_shot(flags, async |context| find_node::run(&args, context).await),
        Verb::Krpc(args) => one_shot(flags, async |context| krpc::run(&args, context).await),
        Verb::Doctor(args) => one_shot(flags, async |context| doctor::run(&args, context).await),
        Verb::Replay(args) => replay::run(&args, &Output::new(&flags)),
        Verb::Id(args) => id::run(&args, &flags),
        Verb::Config(args) => config::run(&args, &Context::new(flags)?),
        Verb::Completions(args) => completions::run(&args, Cli::command()),
        Verb::Man(args) => man::run(&args, Cli::command()),
        Verb::Get(args) => one_shot(flags, async |context| get::run(&args, context).await),
        Verb::Put(args) => one_shot(flags, async |context| put::run(&args, context).await),
        Verb::Scrape(args) => one_shot(flags, async |context| scrape::run(&args, context).await),
        Verb::Sample(args) => one_shot(flags, async |context| sample::run(&args, context).await),
        Verb::Crawl(args) => online(flags, async |context, stop| crawl::run(&args, context, stop).await),
        Verb::Testnet(args) => online(flags, async |context, stop| testnet::run(&args, context, stop).await),
        Verb::Sim(args) => sim::run(&args, &flags),
    }
}

/// Runs a verb that keeps no state: a signal ends it where it is.
fn one_shot(flags: Flags, verb: impl AsyncFnOnce(&Context) -> Result<(), Failure>) -> Result<(), Failure> {
    online(flags, async |context, stop| {
        tokio::select! {
            result = verb(context) => result,
            signal = stop.requested() => Err(Failure::signal(signal)),
        }
    })
}

/// Runs a verb that needs the network.
fn online(
    flags: Flags,
    verb: impl AsyncFnOnce(&Context, &mut Stop) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let context = Context::new(flags)?;
    // One more thread keeps the node and signals alive while the verb writes to a slow pipe. A second one
    // would wait for the sockets while the first one works, and wake up for each datagram that it gets
    // anyway: that took as much time as answering it.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| Failure::other(format!("starting the runtime: {error}")))?;
    let result = runtime.block_on(async {
        let mut stop = signals::watch().map_err(Failure::no_signals)?;
        verb(&context, &mut stop).await
    });
    // A name lookup of the system can hang for half a minute; nobody waits for it any more.
    runtime.shutdown_background();
    result
}

/// Says what is wrong with the command line; help and version are asked for in the same way.
fn wrong_usage(error: &clap::Error) -> ExitCode {
    if let (ErrorKind::InvalidSubcommand, Some(ContextValue::String(word))) =
        (error.kind(), error.get(ContextKind::InvalidSubcommand))
    {
        let verbs =
            Cli::command().get_subcommands().map(|verb| verb.get_name().to_owned()).collect::<Vec<_>>();
        let meant = nearest(word, verbs.iter().map(String::as_str));
        let meant = meant.map(|verb| format!("; did you mean `{verb}`?")).unwrap_or_default();
        return Failure::usage(format!("no verb is called `{}`{meant}", word.escape_debug()))
            .hint("`btdht --help` lists them")
            .report();
    }
    match error.print() {
        // Nobody may be left to read what is wrong.
        _ if error.use_stderr() => ExitCode::from(2),
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => Failure::from(failed).report(),
    }
}
