//! A [`Config`] apart from the rest of the settings, as keys and values: what a trace keeps of it.

use std::path::PathBuf;

use toml::Table;

use super::error::bad_value;
use super::keys::KEYS;
use super::{Origin, Settings, SettingsError};
use crate::Config;

/// The keys of `config` whose values differ from the default, with these as TOML.
pub fn config_keys(config: &Config) -> Vec<(&'static str, String)> {
    let default = Settings::default();
    let settings = Settings { config: config.clone(), ..Settings::default() };
    let shown = KEYS.iter().map(|key| (key.name, (key.show)(&settings), (key.show)(&default)));
    shown.filter(|(_, value, default)| value != default).map(|(name, value, _)| (name, value)).collect()
}

/// The default with the given keys set: the reverse of [`config_keys`].
///
/// # Errors
/// The first key or value that is wrong, or that no node could work with.
pub fn config_from(pairs: &[(&str, &str)]) -> Result<Config, SettingsError> {
    let origin = Origin::File(PathBuf::from("trace"));
    let mut settings = Settings::default();
    settings.listen.ipv4 = true;
    for (name, text) in pairs {
        let table: Option<Table> = format!("value = {text}").parse().ok();
        let value = table.as_ref().and_then(|table| table.get("value"));
        let value = value.ok_or_else(|| bad_value(&origin, name, "a value of TOML"))?;
        settings.set(name, value, &origin)?;
    }
    settings.check()?;
    Ok(settings.config)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_what_differs_is_listed_and_it_is_read_back() {
        assert_eq!(config_keys(&Config::default()), []);
        let config = Config {
            k: 20,
            allow_local: true,
            query_timeout: Duration::from_micros(1_234_567),
            wide_buckets: vec![4, 2],
            ..Config::default()
        };
        let keys = config_keys(&config);
        assert_eq!(keys.len(), 4, "{keys:?}");
        let pairs: Vec<_> = keys.iter().map(|(key, value)| (*key, value.as_str())).collect();
        assert_eq!(config_from(&pairs).unwrap(), config);
        for (key, value) in
            [("limits.k", "0"), ("limits.k", "1\nx ="), ("limits.x", "1"), ("limits.k", "\"\"")]
        {
            assert!(config_from(&[(key, value)]).is_err(), "{key} {value}");
        }
    }
}
