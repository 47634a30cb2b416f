//! What goes to stdout, a line at a time.

use std::io::{self, Write as _};

use btdht::settings::Flags;
use serde_json::Value;

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
