//! [`Shards`]: how many threads a node that serves has.

use std::fmt;
use std::str::FromStr;

use toml::Value;

use super::value::Field;
use crate::net::MAX_SHARDS;

/// Threads of a node that serves, each with sockets of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shards {
    /// As many as the cores that this process may use.
    #[default]
    Auto,
    /// So many: 1 to [`MAX_SHARDS`].
    Count(usize),
}

impl Shards {
    /// How many that is, where so many cores can be used.
    pub fn count(self, cores: usize) -> usize {
        match self {
            Self::Auto => cores.clamp(1, MAX_SHARDS),
            Self::Count(count) => count,
        }
    }
}

/// The text is neither `auto` nor a number from 1 to [`MAX_SHARDS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadShards;

impl FromStr for Shards {
    type Err = BadShards;

    fn from_str(text: &str) -> Result<Self, BadShards> {
        if text.trim().eq_ignore_ascii_case("auto") {
            return Ok(Self::Auto);
        }
        let count = text.trim().parse().ok().filter(|count| (1..=MAX_SHARDS).contains(count));
        count.map(Self::Count).ok_or(BadShards)
    }
}

impl fmt::Display for BadShards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}", Shards::FORM)
    }
}

impl std::error::Error for BadShards {}

impl Field for Shards {
    const FORM: &'static str = "\"auto\" or a number from 1 to 64";

    fn read(value: &Value) -> Option<Self> {
        match value {
            Value::Integer(count) => count.to_string().parse().ok(),
            Value::String(text) => text.parse().ok(),
            _ => None,
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Auto => "\"auto\"".into(),
            Self::Count(count) => count.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_a_number_or_as_many_as_cores() {
        let read = |value: Value| Shards::read(&value);
        assert_eq!(read("auto".into()), Some(Shards::Auto));
        assert_eq!(read(3.into()), Some(Shards::Count(3)));
        assert_eq!(read("64".into()), Some(Shards::Count(MAX_SHARDS)));
        for bad in [0.into(), 65.into(), (-1).into(), "many".into(), true.into()] {
            assert_eq!(read(bad), None);
        }
        assert_eq!([0, 1, 8, 1000].map(|cores| Shards::Auto.count(cores)), [1, 1, 8, MAX_SHARDS]);
        assert_eq!(Shards::Count(2).count(8), 2);
    }
}
