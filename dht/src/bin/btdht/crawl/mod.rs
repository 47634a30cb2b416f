//! `btdht crawl`: which infohashes does the DHT hold, and how many nodes has it?

mod args;
mod batch;
mod db;
mod export;
mod open;
mod place;
mod record;
mod report;
mod status;
mod task;
mod walk;

use std::path::PathBuf;

use self::args::Walk;
use crate::context::Context;
use crate::failure::Failure;
use crate::signals::Stop;

/// Walk the key space and record infohashes in a database (BEP 51)
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_help = "\
Asks one node after the other which infohashes it stores, at a polite rate that a home router \
survives, and leaves each alone for as long as it wants. What it finds, and whom it may ask when, \
goes to a database, so that the next run goes on where this one ended; a kill at any moment costs \
two seconds' work. Runs until a signal, or as long as --duration, --limit or --rounds say. \
Of an answer it takes 20 infohashes at most, as \
many as BEP 51 nodes send; strangers who make up more cannot fill the disk beyond --max-infohashes. \
When most queries get no answer it slows down by itself, says why, and recovers by itself.

Exit code 4 when nothing was found or, within --timeout, nobody answered; 5 when the database is \
damaged or the disk refuses; 6 when another crawl uses it; 2 when it is no crawl's.

Example: btdht crawl --duration 3600 --scrape
Example: btdht crawl export --format csv -o infohashes.csv")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    walk: Walk,
    /// The database [default: crawl.redb in the state folder]
    #[arg(long, global = true, value_name = "FILE")]
    db: Option<PathBuf>,
}

#[derive(clap::Subcommand)]
enum Verb {
    Export(export::Args),
    Status(status::Args),
}

pub(crate) async fn run(args: &Args, context: &Context, stop: &mut Stop) -> Result<(), Failure> {
    let path = path(args, context)?;
    match &args.verb {
        None => walk::run(&args.walk, path, context, stop).await,
        Some(Verb::Export(export)) => export::run(export, path, stop).await,
        Some(Verb::Status(_)) => stoppable(status::run(path, context), stop).await,
    }
}

/// Ends what only reads when a signal comes.
async fn stoppable(verb: impl Future<Output = Result<(), Failure>>, stop: &mut Stop) -> Result<(), Failure> {
    tokio::select! {
        result = verb => result,
        signal = stop.requested() => Err(Failure::signal(signal)),
    }
}

fn path(args: &Args, context: &Context) -> Result<PathBuf, Failure> {
    let default = || context.settings.folders.state.as_ref().map(|folder| folder.join("crawl.redb"));
    let none =
        || Failure::usage("there is no state folder to keep the database in").hint("--db FILE names one");
    args.db.clone().or_else(default).ok_or_else(none)
}
