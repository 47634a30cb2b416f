//! How a value of a settings file, an environment variable or a flag becomes a field, and back.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use toml::Value;

use crate::ReadOnly;

/// A type that a key can have.
pub(super) trait Field: Sized {
    /// What a value has to look like, for error messages.
    const FORM: &'static str;

    /// The field from a TOML value; texts (all that the environment has) are accepted for every
    /// type.
    fn read(value: &Value) -> Option<Self>;

    /// The field as TOML.
    fn show(&self) -> String;
}

/// An address to bind: `ADDR` or `ADDR:PORT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BindAddr {
    /// The address.
    pub ip: IpAddr,
    /// Its port; `None` takes that of `--port`.
    pub port: Option<u16>,
}

macro_rules! whole_numbers {
    ($($number:ty),*) => {$(
        impl Field for $number {
            const FORM: &'static str = "a whole number, or a size such as \"64 MiB\"";

            fn read(value: &Value) -> Option<Self> {
                match value {
                    Value::Integer(number) => Self::try_from(*number).ok(),
                    Value::String(text) => size(text)?.try_into().ok(),
                    _ => None,
                }
            }

            fn show(&self) -> String {
                self.to_string()
            }
        }
    )*};
}

whole_numbers!(u8, u16, u32, u64, usize);

impl Field for bool {
    const FORM: &'static str = "true or false";

    fn read(value: &Value) -> Option<Self> {
        match value {
            Value::Boolean(yes) => Some(*yes),
            Value::String(text) => match text.trim().to_ascii_lowercase().as_str() {
                "true" | "yes" | "on" | "1" => Some(true),
                "false" | "no" | "off" | "0" => Some(false),
                _ => None,
            },
            _ => None,
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Field for ReadOnly {
    const FORM: &'static str = "\"auto\", true or false";

    fn read(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) if text.trim().eq_ignore_ascii_case("auto") => Some(Self::Auto),
            other => bool::read(other).map(|yes| if yes { Self::Yes } else { Self::No }),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Auto => "\"auto\"".into(),
            Self::Yes => true.show(),
            Self::No => false.show(),
        }
    }
}

impl Field for Duration {
    const FORM: &'static str = "seconds, or a time such as \"250 ms\", \"4 s\" or \"15 min\"";

    fn read(value: &Value) -> Option<Self> {
        match value {
            Value::Integer(seconds) => u64::try_from(*seconds).ok().map(Self::from_secs),
            Value::Float(seconds) => Self::try_from_secs_f64(*seconds).ok(),
            Value::String(text) => span(text),
            _ => None,
        }
    }

    fn show(&self) -> String {
        match self.as_millis() {
            _ if !self.subsec_nanos().is_multiple_of(1_000_000) => {
                format!("\"{} ms\"", self.as_secs_f64() * 1e3)
            }
            millis if millis % 60_000 == 0 && millis > 0 => format!("\"{} min\"", millis / 60_000),
            millis if millis % 1000 == 0 => format!("\"{} s\"", millis / 1000),
            millis => format!("\"{millis} ms\""),
        }
    }
}

impl Field for Vec<usize> {
    const FORM: &'static str = "a list of whole numbers";

    fn read(value: &Value) -> Option<Self> {
        match value {
            Value::Array(values) => values.iter().map(usize::read).collect(),
            Value::String(text) => text
                .split(',')
                .filter(|part| !part.trim().is_empty())
                .map(|part| part.trim().parse().ok())
                .collect(),
            _ => None,
        }
    }

    fn show(&self) -> String {
        format!("{self:?}")
    }
}

impl Field for Vec<BindAddr> {
    const FORM: &'static str = "a list of addresses such as [\"0.0.0.0\", \"[::]:6881\"]";

    fn read(value: &Value) -> Option<Self> {
        match value {
            Value::Array(values) => values.iter().map(|value| value.as_str()?.parse().ok()).collect(),
            Value::String(text) => text.split(',').map(|part| part.trim().parse().ok()).collect(),
            _ => None,
        }
    }

    fn show(&self) -> String {
        let quoted: Vec<_> = self.iter().map(|bind| format!("\"{bind}\"")).collect();
        format!("[{}]", quoted.join(", "))
    }
}

impl Field for PathBuf {
    const FORM: &'static str = "a path";

    fn read(value: &Value) -> Option<Self> {
        let text = value.as_str().filter(|text| !text.is_empty())?;
        match (text.strip_prefix("~/"), etcetera::home_dir()) {
            (Some(rest), Ok(home)) => Some(home.join(rest)),
            _ => Some(text.into()),
        }
    }

    fn show(&self) -> String {
        Value::String(self.to_string_lossy().into_owned()).to_string()
    }
}

/// An optional key: absent is `None`, and shown as nothing.
impl<T: Field> Field for Option<T> {
    const FORM: &'static str = T::FORM;

    fn read(value: &Value) -> Option<Self> {
        T::read(value).map(Some)
    }

    fn show(&self) -> String {
        self.as_ref().map(T::show).unwrap_or_default()
    }
}

/// The text is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadBindAddr;

impl FromStr for BindAddr {
    type Err = BadBindAddr;

    fn from_str(text: &str) -> Result<Self, BadBindAddr> {
        if let Ok(addr) = text.parse::<SocketAddr>() {
            return Ok(Self { ip: addr.ip(), port: Some(addr.port()) });
        }
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        bare.parse().map(|ip| Self { ip, port: None }).map_err(|_| BadBindAddr)
    }
}

impl fmt::Display for BindAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => SocketAddr::new(self.ip, port).fmt(f),
            None => self.ip.fmt(f),
        }
    }
}

impl fmt::Display for BadBindAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected an IP address, with or without :PORT")
    }
}

impl std::error::Error for BadBindAddr {}

/// `64`, `64 MiB`, `8MB`, `200k`.
fn size(text: &str) -> Option<u64> {
    let (number, unit) = number_and_unit(text)?;
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// `30`, `250 ms`, `4 s`, `1.5 min`, `2 h`.
fn span(text: &str) -> Option<Duration> {
    let (number, unit) = number_and_unit(text)?;
    let factor = match unit.to_ascii_lowercase().as_str() {
        "ms" => 0.001,
        "" | "s" | "sec" | "seconds" => 1.0,
        "m" | "min" | "minutes" => 60.0,
        "h" | "hours" => 3600.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * factor).ok()
}

fn number_and_unit(text: &str) -> Option<(&str, &str)> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    (!number.is_empty()).then(|| (number, unit.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::String(text.into())
    }

    #[test]
    fn sizes_and_times_have_units() {
        assert_eq!(usize::read(&text("64 MiB")), Some(64 << 20));
        assert_eq!(u64::read(&text("8MB")), Some(8_000_000));
        assert_eq!(u32::read(&Value::Integer(25)), Some(25));
        assert_eq!(Duration::read(&text("250 ms")), Some(Duration::from_millis(250)));
        assert_eq!(Duration::read(&text("1.5 min")), Some(Duration::from_secs(90)));
        assert_eq!(Duration::read(&Value::Float(0.5)), Some(Duration::from_millis(500)));
    }

    #[test]
    fn read_only_is_auto_or_true_or_false() {
        for (value, setting) in [
            (text("auto"), ReadOnly::Auto),
            (text("Auto "), ReadOnly::Auto),
            (Value::Boolean(true), ReadOnly::Yes),
            (text("no"), ReadOnly::No),
        ] {
            assert_eq!(ReadOnly::read(&value), Some(setting));
            let shown: toml::Table = format!("x = {}", setting.show()).parse().unwrap();
            assert_eq!(ReadOnly::read(&shown["x"]), Some(setting));
        }
        assert_eq!(ReadOnly::read(&text("maybe")), None);
    }

    #[test]
    fn values_out_of_range_or_of_another_type_are_refused() {
        assert_eq!(u32::read(&Value::Integer(-1)), None);
        assert_eq!(u8::read(&text("300")), None);
        assert_eq!(usize::read(&text("64 parsecs")), None);
        assert_eq!(u64::read(&text("99999999999 GiB")), None);
        assert_eq!(Duration::read(&text("-4 s")), None);
        assert_eq!(Duration::read(&Value::Boolean(true)), None);
        assert_eq!(bool::read(&text("maybe")), None);
        assert_eq!("300.1.1.1".parse::<BindAddr>(), Err(BadBindAddr));
    }

    #[test]
    fn what_is_shown_reads_back() {
        for span in [
            Duration::from_micros(1_500),
            Duration::from_millis(250),
            Duration::from_secs(4),
            Duration::from_secs(900),
        ] {
            let shown: toml::Table = format!("x = {}", span.show()).parse().unwrap();
            assert_eq!(Duration::read(&shown["x"]), Some(span));
        }
        let binds: Vec<BindAddr> = Field::read(&text("127.0.0.1, [::1]:6881,::")).unwrap();
        let shown: toml::Table = format!("x = {}", binds.show()).parse().unwrap();
        assert_eq!(Vec::<BindAddr>::read(&shown["x"]), Some(binds));
    }
}
