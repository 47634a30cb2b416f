//! How a run ends: the exit codes that all programs of the project share, and one line of reason.

use std::fmt;
use std::process::ExitCode;

use btfetch::engine::Failed;
use btfetch::storage::DiskErrorKind;

use crate::text::{escape, escape_path};

/// Exit codes; scripts depend on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Nobody reads what we write any more: a quiet end.
    Closed = 0,
    /// Failed for another reason than those below.
    Failed = 1,
    /// Wrong usage; an invalid magnet, infohash, `.torrent` or setting.
    Usage = 2,
    /// An address or port could not be bound.
    Bind = 3,
    /// Nothing found, or nobody answered, in time.
    Nothing = 4,
    /// The disk refused.
    Disk = 5,
    /// The torrent is in use by another process in this folder.
    InUse = 6,
    /// Ended by SIGINT after saving.
    Interrupted = 130,
    /// Ended by SIGTERM after saving.
    Terminated = 143,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a run did not end well.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The code.
    pub(crate) exit: Exit,
    /// One line; empty when there is nothing more to say.
    pub(crate) message: String,
    /// What the user could do.
    pub(crate) hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, message)
    }

    /// The answer to what a later version will do.
    pub(crate) fn not_yet(what: &str) -> Self {
        Self::failed(format!("{what} is not there yet")).hint("it comes with a later version")
    }

    /// An end without words: everything was said, or nobody listens.
    pub(crate) fn quiet(exit: Exit) -> Self {
        Self::new(exit, "")
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

/// The exit code and words of a failed torrent.
impl From<&Failed> for Failure {
    fn from(failed: &Failed) -> Self {
        match failed {
            Failed::Disk(error) => {
                let message = format!("{} {}: {}", error.doing, escape_path(&error.path), error.detail);
                let failure = Self::new(Exit::Disk, message);
                match error.kind {
                    DiskErrorKind::NoSpace => {
                        failure.hint("free some and run it again; what is there is kept")
                    }
                    _ => failure,
                }
            }
            Failed::InUse(path) => {
                let message =
                    format!("{}: another process works on this torrent in this folder", escape_path(path));
                Self::new(Exit::InUse, message)
            }
            Failed::Invalid(what) => Self::usage(escape(what)),
            Failed::Unsupported(what) => Self::failed(escape(what)),
            Failed::Missing { missing, pieces } => {
                Self::failed(format!("{missing} of {pieces} pieces are missing or wrong"))
                    .hint("btfetch TORRENT -o DIR fetches them, btfetch check lists them")
            }
        }
    }
}
