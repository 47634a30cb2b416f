//! `btdht completions`: a completion script for a shell.

use clap_complete::Shell;

use crate::failure::Failure;

/// Print a completion script
#[derive(clap::Args)]
#[command(after_help = "Example: btdht completions bash > ~/.local/share/bash-completion/completions/btdht")]
pub(crate) struct Args {
    /// The shell
    shell: Shell,
}

/// The script for `command`, which is the whole program.
pub(crate) fn run(args: &Args, mut command: clap::Command) -> Result<(), Failure> {
    use std::io::Write as _;

    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "btdht", &mut script);
    std::io::stdout().lock().write_all(&script)?;
    Ok(std::io::stdout().flush()?)
}
