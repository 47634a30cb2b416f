//! The verbs by name, for "did you mean".

use btdht::settings;

/// All of them, as `--help` lists them.
pub(crate) const NAMES: [&str; 10] =
    ["demo", "seed", "info", "check", "create", "completions", "man", "piece", "job", "daemon"];

/// The verb that is nearest to a word that is none.
pub(crate) fn did_you_mean(word: &str) -> Option<&'static str> {
    settings::nearest(word, NAMES)
}
