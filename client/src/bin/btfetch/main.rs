//! `btfetch`: magnet links and torrents to verified files, through the project's own DHT node.
//!
//! This file reads the command line and hands it to one verb; each verb has a file.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod check;
mod claims;
mod create;
mod demo;
mod descriptors;
mod download;
mod failure;
mod fetch;
mod follow;
mod info;
mod output;
mod piece;
mod progress;
mod run;
mod scripts;
mod seed;
mod select;
mod signals;
mod sources;
mod text;
mod verbs;
mod watch;

use std::process::ExitCode;

use btdht::settings::Flags;
use clap::parser::ValueSource;
use clap::{Args as _, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use failure::{Exit, Failure};
use output::Output;

const EXAMPLES: &str = "\
Examples:
  btfetch demo                                   the whole chain on this machine, no network needed
  btfetch 'magnet:?xt=urn:btih:...' -o ~/Downloads
  btfetch file.torrent --peer 192.168.1.5:6881   also from a peer that you know
  btfetch 'magnet:?...' --metadata-only          writes NAME.torrent and ends
  btfetch --timeout 120 --json 'magnet:?...'     for scripts: JSON Lines, exit 4 after 120 s of nothing
  btfetch 'magnet:?xs=urn:btpk:...' --follow     a torrent that is updated: this and later versions
  btfetch info file.torrent                      what it holds

Exit codes: 0 done and verified, 1 failed, 2 wrong usage or invalid source, 3 port not free,
4 nothing found in time, 5 the disk refused, 6 in use by another process, 130/143 ended by a signal.";

/// Downloads magnet links and torrents through the Mainline DHT, trackers and peers, verifies every
/// piece, and goes on where it stopped when run again.
#[derive(Parser)]
#[command(name = "btfetch", version, max_term_width = 100, after_help = EXAMPLES)]
#[command(infer_subcommands = false, disable_help_subcommand = true, arg_required_else_help = true)]
#[command(
    override_usage = "btfetch [OPTIONS] <magnet | .torrent | URL | infohash>...\n       btfetch <VERB> ..."
)]
struct Cli {
    #[command(flatten)]
    flags: Flags,
    #[command(flatten)]
    fetch: fetch::Args,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Subcommand)]
enum Verb {
    Demo(demo::Args),
    Seed(seed::Args),
    Info(info::Args),
    Check(check::Args),
    Create(create::Args),
    Completions(scripts::Args),
    /// Prints the manual page
    Man,
    Piece(piece::Args),
    /// Works with the jobs of a running daemon (not yet)
    Job(Later),
    /// Runs many torrents behind an HTTP API (not yet)
    Daemon(Later),
}

/// Whatever is said to a verb that does not exist yet.
#[derive(clap::Args)]
struct Later {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _words: Vec<String>,
}

fn main() -> ExitCode {
    let matches = match Cli::command().try_get_matches() {
        Ok(matches) => matches,
        // Help and version are no errors; clap knows where each goes. A closed pipe is no matter.
        Err(asked) => {
            let _ = asked.print();
            return ExitCode::from(u8::try_from(asked.exit_code()).unwrap_or(Exit::Usage as u8));
        }
    };
    let misplaced = misplaced_flag(&matches);
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    let output = Output { json: cli.flags.json, quiet: cli.flags.quiet };
    cli.flags.start_logging();
    let result = match misplaced {
        Some(name) => Err(Failure::usage(format!("{name} belongs to a download or stands behind the verb"))),
        None => dispatch(cli, output),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output.fail(&failure);
            failure.exit.into()
        }
    }
}

fn dispatch(cli: Cli, output: Output) -> Result<(), Failure> {
    let flags = cli.flags;
    match cli.verb {
        None => download::run(&flags, cli.fetch, output),
        Some(Verb::Demo(args)) => demo::run(&flags, args, output),
        Some(Verb::Seed(args)) => seed::run(&flags, args, output),
        Some(Verb::Info(args)) => info::run(&args, output),
        Some(Verb::Check(args)) => check::run(&args, output),
        Some(Verb::Create(args)) => create::run(&args, output),
        Some(Verb::Completions(args)) => scripts::completions(&args, Cli::command()),
        Some(Verb::Man) => scripts::man(Cli::command()),
        Some(Verb::Piece(args)) => piece::run(&flags, args, output),
        Some(Verb::Job(_) | Verb::Daemon(_)) => Err(Failure::not_yet("this verb")),
    }
}

/// A flag or source of a download in front of a verb: it would be ignored, so it is refused.
fn misplaced_flag(matches: &clap::ArgMatches) -> Option<String> {
    matches.subcommand_name()?;
    let probe = fetch::Args::augment_args(clap::Command::new("download"));
    let given =
        |arg: &&clap::Arg| matches.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine);
    probe.get_arguments().find(given).map(|arg| match arg.get_long() {
        Some(long) => format!("--{long}"),
        None => "the source".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verbs_that_are_suggested_are_all_there_are() {
        let names =
            Cli::command().get_subcommands().map(|verb| verb.get_name().to_owned()).collect::<Vec<_>>();
        assert_eq!(names, verbs::NAMES);
    }
}
