//! Where a run writes: plain text or one JSON object a line to stdout, everything else to stderr.

use std::io::{self, Write as _};

use serde_json::Value;

use crate::failure::{Exit, Failure};

/// How and how much a run writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    /// JSON Lines in place of plain text.
    pub(crate) json: bool,
    /// Nothing but results and errors.
    pub(crate) quiet: bool,
}

impl Output {
    /// Writes a result as plain text, unless JSON is wanted.
    pub(crate) fn plain(self, line: impl AsRef<str>) -> Result<(), Failure> {
        if self.json { Ok(()) } else { write_line(line.as_ref()) }
    }

    /// Writes an event as JSON, if that is wanted.
    pub(crate) fn event(self, event: impl FnOnce() -> Value) -> Result<(), Failure> {
        if self.json { write_line(&event().to_string()) } else { Ok(()) }
    }

    /// Says something to the person at the terminal.
    pub(crate) fn say(self, line: impl AsRef<str>) {
        if !self.quiet && !self.json {
            // Nobody is left to tell when stderr is gone.
            let _ = writeln!(io::stderr(), "{}", line.as_ref());
        }
    }

    /// Tells how a run failed, in both forms.
    pub(crate) fn fail(self, failure: &Failure) {
        if failure.message.is_empty() {
            return;
        }
        let _ = self.event(|| {
            serde_json::json!({
                "event": "error", "message": failure.message, "hint": failure.hint, "exit": failure.exit as u8,
            })
        });
        let _ = writeln!(io::stderr(), "btfetch: {failure}");
    }
}

/// Writes a line to stdout.
fn write_line(line: &str) -> Result<(), Failure> {
    write_raw(&[line.as_bytes(), b"\n"])
}

/// Writes bytes to stdout as they are. A closed pipe ends the run without a word.
pub(crate) fn write_raw(parts: &[&[u8]]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match parts.iter().try_for_each(|part| out.write_all(part)).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::quiet(Exit::Closed)),
        Err(error) => Err(Failure::failed(format!("writing to stdout: {error}"))),
    }
}
