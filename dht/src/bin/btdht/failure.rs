//! [`Failure`]: how a verb ends when it is not well: an exit code, one line, a hint.

use std::io::{self, Write as _};
use std::process::ExitCode;

use btdht::net::Error;
use btdht::settings::SettingsError;

use crate::signals::Signal;

/// The end of a verb that did not do what was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    /// Empty where the code says it all.
    message: String,
    hint: Option<String>,
}

impl Failure {
    /// Failed for a reason that has no code of its own.
    pub(crate) fn other(message: impl Into<String>) -> Self {
        Self { code: 1, message: message.into(), hint: None }
    }

    /// The system has no room for another signal handler.
    pub(crate) fn no_signals(error: io::Error) -> Self {
        Self::other(format!("watching signals: {error}"))
    }

    /// A program of ours that was to help has ended.
    pub(crate) fn of_child(code: Option<i32>, message: impl Into<String>) -> Self {
        let code = code.and_then(|code| u8::try_from(code).ok()).filter(|code| (1..=6).contains(code));
        Self { code: code.unwrap_or(1), message: message.into(), hint: None }
    }

    /// Wrong usage.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { code: 2, message: message.into(), hint: None }
    }

    /// The disk refused.
    pub(crate) fn disk(message: impl Into<String>) -> Self {
        Self { code: 5, message: message.into(), hint: None }
    }

    /// Another process uses it.
    pub(crate) fn in_use(message: impl Into<String>) -> Self {
        Self { code: 6, message: message.into(), hint: None }
    }

    /// Nothing found, or nobody answered.
    pub(crate) fn nothing(message: impl Into<String>) -> Self {
        Self { code: 4, message: message.into(), hint: None }
    }

    /// Ended by a signal after saving state.
    pub(crate) fn signal(signal: Signal) -> Self {
        Self { code: signal.exit_code(), message: String::new(), hint: None }
    }

    /// Adds what the user may do about it.
    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// Says it on stderr, in one line.
    pub(crate) fn report(self) -> ExitCode {
        if !self.message.is_empty() {
            let hint = self.hint.map(|hint| format!(" (hint: {hint})")).unwrap_or_default();
            // Nobody may be left to read it.
            let _ = writeln!(io::stderr(), "btdht: {}{hint}", self.message);
        }
        ExitCode::from(self.code)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        let (code, hint) = match &error {
            Error::Bind { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
                (3, Some("another program has this port; --port N takes another, --port 0 any"))
            }
            Error::Bind { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                (3, Some("ports below 1024 belong to the administrator"))
            }
            Error::Bind { .. } | Error::TooManyAddresses => (3, None),
            Error::NoAddress => (3, Some("is --ipv4-only or --ipv6-only right for this machine?")),
            Error::State { .. } => (5, Some("--state DIR takes another folder, --no-state none")),
            Error::StateInUse { .. } => {
                (6, Some("another node runs on it; --state DIR takes another folder, --no-state none"))
            }
            Error::Router { .. } => (2, Some("--bootstrap router.example:6881")),
            _ => (1, None),
        };
        Self { code, message, hint: hint.map(str::to_owned) }
    }
}

impl From<SettingsError> for Failure {
    fn from(error: SettingsError) -> Self {
        // A message of the TOML parser shows the place in several lines; one is what we say.
        let text = error.to_string();
        let message: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        Self::usage(message.join(" ")).hint("`btdht config` lists all keys")
    }
}

/// Writing to stdout failed: a closed pipe is a quiet end.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self { code: 0, message: String::new(), hint: None },
            _ => Self { code: 5, message: format!("writing the output: {error}"), hint: None },
        }
    }
}
