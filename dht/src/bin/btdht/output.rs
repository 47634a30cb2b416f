//! What goes to stdout, a line at a time, and how logs go to stderr.

use std::io::{self, IsTerminal as _, Write as _};

use btdht::settings::Flags;
use serde_json::Value;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Longest text of a stranger that is shown.
const MAX_REMOTE: usize = 64;

/// Writes the results of a verb, each line flushed as it happens.
#[derive(Debug)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    pub(crate) fn new(flags: &Flags) -> Self {
        Self { json: flags.json }
    }

    /// One result: as an object for machines, or as a line for people.
    ///
    /// # Errors
    /// What writing says; a closed pipe among others.
    pub(crate) fn say(&self, json: impl FnOnce() -> Value, plain: impl FnOnce() -> String) -> io::Result<()> {
        line(&if self.json { json().to_string() } else { plain() })
    }

    /// A result that only machines want.
    ///
    /// # Errors
    /// What writing says.
    pub(crate) fn say_json(&self, json: impl FnOnce() -> Value) -> io::Result<()> {
        if self.json { line(&json().to_string()) } else { Ok(()) }
    }

    /// A result that only people want.
    ///
    /// # Errors
    /// What writing says.
    pub(crate) fn say_plain(&self, plain: impl FnOnce() -> String) -> io::Result<()> {
        if self.json { Ok(()) } else { line(&plain()) }
    }

    /// Progress that only people want, on stderr.
    ///
    /// # Errors
    /// What writing says.
    pub(crate) fn note_plain(&self, plain: impl FnOnce() -> String) -> io::Result<()> {
        if self.json { Ok(()) } else { writeln!(io::stderr(), "{}", plain()) }
    }

    /// Progress: an object on stdout for machines, a line on stderr for people.
    ///
    /// # Errors
    /// What writing says.
    pub(crate) fn note(
        &self,
        json: impl FnOnce() -> Value,
        plain: impl FnOnce() -> String,
    ) -> io::Result<()> {
        if self.json { line(&json().to_string()) } else { writeln!(io::stderr(), "{}", plain()) }
    }
}

/// Writes `text` and a line end to stdout.
///
/// # Errors
/// What writing says.
pub(crate) fn line(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}")?;
    stdout.flush()
}

/// A stranger's bytes, safe for a terminal: escaped, and cut off after 64 bytes (D13).
pub(crate) fn remote(bytes: &[u8]) -> String {
    let shown = bytes.get(..MAX_REMOTE).unwrap_or(bytes);
    let more = if shown.len() < bytes.len() { "..." } else { "" };
    format!("{}{more}", shown.escape_ascii())
}

/// Sends logs to stderr: as `-v` or `-q` say, or else `RUST_LOG`.
pub(crate) fn start_logging(flags: &Flags) {
    let level = match (flags.quiet, flags.verbose) {
        (true, _) => LevelFilter::ERROR,
        (false, 0) => LevelFilter::WARN,
        (false, 1) => LevelFilter::INFO,
        (false, 2) => LevelFilter::DEBUG,
        (false, _) => LevelFilter::TRACE,
    };
    // Not `EnvFilter`: its regular expressions would be a tenth of the program, for filters by spans' fields.
    let flagged = flags.quiet || flags.verbose > 0;
    let directives = std::env::var("RUST_LOG").ok().filter(|_| !flagged);
    let wanted = directives.and_then(|directives| directives.parse().ok());
    let filter: Targets = wanted.unwrap_or_else(|| Targets::new().with_default(level));
    let colour =
        io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let lines =
        tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(colour).log_internal_errors(false); // they would go to a stderr that may be what is broken
    tracing_subscriber::registry().with(lines).with(filter).init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remote_text_cannot_steer_a_terminal() {
        assert_eq!(remote(b"LT\x02\x00"), "LT\\x02\\x00");
        let shown = remote(b"\x1b[2J\xff\n");
        assert!(shown.bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{shown}");
        assert!(remote(&[b'a'; 1000]).len() < 70);
    }
}
