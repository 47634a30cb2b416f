//! `btdht man`: the manual page.

use std::io::Write as _;

use crate::failure::Failure;

/// Print the manual page
#[derive(clap::Args)]
#[command(after_help = "Example: btdht man | man -l -")]
pub(crate) struct Args {
    /// The page of one verb
    verb: Option<String>,
}

/// The page of `command`, which is the whole program, or of one of its verbs.
pub(crate) fn run(args: &Args, mut command: clap::Command) -> Result<(), Failure> {
    command.build();
    let page = match &args.verb {
        None => command,
        Some(verb) => command
            .find_subcommand(verb)
            .cloned()
            .ok_or_else(|| Failure::usage(format!("no verb is called `{}`", verb.escape_debug())))?,
    };
    let mut roff = Vec::new();
    clap_mangen::Man::new(page).render(&mut roff)?;
    std::io::stdout().lock().write_all(&roff)?;
    Ok(std::io::stdout().flush()?)
}
