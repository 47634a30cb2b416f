//! `btfetch completions` and `btfetch man`: files for shells and packages.

use std::io::{self, Write as _};

use clap::Command;
use clap_complete::Shell;

use crate::failure::{Exit, Failure};

/// Prints completions for a shell
///
/// Example: btfetch completions bash > ~/.local/share/bash-completion/completions/btfetch
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The shell
    shell: Shell,
}

/// Prints the completion script.
pub(crate) fn completions(args: &Args, mut command: Command) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "btfetch", &mut script);
    write(&script)
}

/// Prints the manual page.
pub(crate) fn man(command: Command) -> Result<(), Failure> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command)
        .render(&mut page)
        .map_err(|error| Failure::failed(format!("writing the manual page: {error}")))?;
    write(&page)
}

fn write(bytes: &[u8]) -> Result<(), Failure> {
    match io::stdout().write_all(bytes).and_then(|()| io::stdout().flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::quiet(Exit::Closed)),
        Err(error) => Err(Failure::failed(format!("writing to stdout: {error}"))),
    }
}
