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
    use std::sync::Arc;
    use std::time::Duration;

    use krpc::Id;

    use super::*;
    use crate::{Command, Home, Node, Outbox, Seeds, Time};

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

    /// A trace brings the settings of a stranger, and a user's file may hold a slip of the keyboard.
    #[test]
    fn no_setting_that_is_accepted_makes_a_node_fail() {
        let mut accepted = 0;
        for key in KEYS.iter().map(|key| key.name).filter(|name| name.starts_with("limits.")) {
            for value in
                ["0", "1", "9223372036854775807", "0.001", "31622400", "[0, 9223372036854775807]", "[]"]
            {
                let Ok(config) = config_from(&[(key, value)]) else { continue };
                accepted += 1;
                live(config);
            }
        }
        assert!(accepted > 100, "{accepted}");
    }

    /// A node at work for some virtual minutes.
    fn live(config: Config) {
        let local = "0.0.0.0:6881".parse().unwrap();
        let home = Home { id: Id::new([1; 20]), local, external: None, saved: Vec::new() };
        let now = Time::from_secs(3600);
        let mut node = Node::new(Arc::new(config), vec![home], Seeds::from_u64(1), now);
        let mut out = Outbox::new();
        let router = "81.2.3.4:6881".parse().unwrap();
        node.handle_command(now, Command::Routers(vec![router]), &mut out);
        node.handle_command(now, Command::FindNode { target: Id::new([9; 20]), trace: true }, &mut out);
        for query in [&b"d1:ad2:id20:aaaaaaaaaaaaaaaaaaaae1:q4:ping1:t2:aa1:y1:qe"[..], b"d1:ad2:id20:aaaaaaaaaaaaaaaaaaaa9:info_hash20:bbbbbbbbbbbbbbbbbbbbe1:q9:get_peers1:t2:aa1:y1:qe"] {
            node.handle_datagram(now, 0, "81.2.3.5:6881".parse().unwrap(), query, &mut out);
        }
        for minute in 0..10 {
            let now = now + Duration::from_secs(minute * 60);
            for _ in 0..100 {
                if node.timeout() <= now {
                    node.handle_timeout(now, &mut out);
                }
            }
            out.clear();
        }
    }
}
