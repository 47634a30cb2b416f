//! Where a setting came from, and what can be wrong with it.

use std::fmt;
use std::path::PathBuf;

use super::suggest::nearest;

/// Where a value came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// The program itself.
    #[default]
    BuiltIn,
    /// A settings file.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
    /// A flag.
    Flag(&'static str),
}

/// A setting is wrong; the user's mistake, exit code 2.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// The file could not be read.
    #[error("reading settings from {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("reading settings from {origin}: {source}")]
    Syntax {
        /// The file.
        origin: Origin,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// A key that does not exist.
    #[error("{origin}: unknown key `{key}`{}", suggestion.as_ref().map(|s| format!("; did you mean `{s}`?")).unwrap_or_default())]
    UnknownKey {
        /// Where it stands.
        origin: Origin,
        /// The key.
        key: String,
        /// The nearest one that exists.
        suggestion: Option<&'static str>,
    },
    /// A value of the wrong form.
    #[error("{origin}: `{key}` has to be {form}")]
    BadValue {
        /// Where it stands.
        origin: Origin,
        /// The key.
        key: String,
        /// What it has to look like.
        form: &'static str,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn => f.write_str("built-in"),
            Self::File(path) => path.display().fmt(f),
            Self::Environment(variable) => f.write_str(variable),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

pub(super) fn unknown(
    origin: &Origin,
    key: &str,
    known: impl IntoIterator<Item = &'static str>,
) -> SettingsError {
    SettingsError::UnknownKey {
        origin: origin.clone(),
        key: key.escape_debug().to_string(),
        suggestion: nearest(key, known),
    }
}

pub(super) fn bad_value(origin: &Origin, key: &str, form: &'static str) -> SettingsError {
    SettingsError::BadValue { origin: origin.clone(), key: key.escape_debug().to_string(), form }
}
