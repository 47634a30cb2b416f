//! How loud a program is on stderr.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::Flags;

impl Flags {
    /// Sends logs to stderr: as `-v` or `-q` say, or else `RUST_LOG` (`level` or `target=level`, with commas),
    /// or else warnings and errors. In colour on a terminal, unless `NO_COLOR` is set. Once in a process.
    pub fn start_logging(&self) {
        let level = match (self.quiet, self.verbose) {
            (true, _) => LevelFilter::ERROR,
            (false, 0) => LevelFilter::WARN,
            (false, 1) => LevelFilter::INFO,
            (false, 2) => LevelFilter::DEBUG,
            (false, _) => LevelFilter::TRACE,
        };
        // Not `EnvFilter`: its regular expressions would be a tenth of the program, for filters by spans' fields.
        let flagged = self.quiet || self.verbose > 0;
        let directives = std::env::var("RUST_LOG").ok().filter(|_| !flagged);
        let wanted = directives.and_then(|directives| directives.parse().ok());
        let filter: Targets = wanted.unwrap_or_else(|| Targets::new().with_default(level));
        let colour =
            io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(io::stderr)
            .with_ansi(colour)
            .log_internal_errors(false); // they would go to a stderr that may be what is broken
        tracing_subscriber::registry().with(lines).with(filter).init();
    }
}
