//! [`Settings`]: what the programs are told by the built-in `bootstrap.toml`, the user's file, the
//! environment and flags, in that order, each beating the one before, and where each value came from.
//!
//! Shared by all programs; the core sees only the plain [`crate::Config`].

mod apart;
mod check;
mod error;
mod flags;
mod keys;
mod logging;
mod merged;
mod shards;
mod suggest;
mod value;

use std::path::{Path, PathBuf};

use etcetera::BaseStrategy as _;
use toml::{Table, Value};

use error::{bad_value, unknown};
use keys::KEYS;

pub use apart::{config_from, config_keys};
pub use error::{Origin, SettingsError};
pub use flags::Flags;
pub use merged::{Folders, Listen, Settings};
pub use shards::{BadShards, Shards};
pub use suggest::nearest;
pub use value::{BadBindAddr, BindAddr};

/// The file that is compiled in.
const BUILT_IN: &str = include_str!("../../../bootstrap.toml");
/// Longest settings file that is read.
const MAX_FILE: u64 = 1 << 20;
/// Routers beyond this many are refused: a list that long is a mistake.
const MAX_ROUTERS: usize = 256;

/// A program that has settings.
#[derive(Clone, Copy)]
pub struct Program<'a> {
    /// What its environment variables begin with, without the underscore: `BTDHT`.
    pub prefix: &'a str,
    /// Reads one environment variable.
    pub environment: &'a dyn Fn(&str) -> Option<String>,
}

impl Settings {
    /// Merges all sources for `program`. What is taken otherwise than it was asked for is said in the log, too.
    ///
    /// # Errors
    /// The first setting that is wrong, and where it stands.
    pub fn load(program: &Program<'_>, flags: &Flags) -> Result<Self, SettingsError> {
        let mut settings = Self::default();
        settings.apply_text(BUILT_IN, &Origin::BuiltIn)?;
        settings.folders.state = default_state_folder(program);
        if let Some(path) = settings_file(program, flags) {
            let text = read(&path)?;
            settings.apply_text(&text, &Origin::File(path))?;
        }
        settings.apply_environment(program)?;
        settings.apply_flags(flags)?;
        settings.check()?;
        settings.bend();
        for warning in &settings.warnings {
            tracing::warn!("{warning}");
        }
        Ok(settings)
    }

    /// Every key that has a value, as TOML, with its origin.
    pub fn list(&self) -> impl Iterator<Item = (&'static str, String, Origin)> {
        KEYS.iter()
            .map(|key| (key.name, (key.show)(self), self.origin(key.name)))
            .filter(|(_, value, _)| !value.is_empty())
    }

    fn apply_text(&mut self, text: &str, origin: &Origin) -> Result<(), SettingsError> {
        let table: Table = text
            .parse()
            .map_err(|source| SettingsError::Syntax { origin: origin.clone(), source: Box::new(source) })?;
        for (section, content) in &table {
            match (section.as_str(), content) {
                ("router", Value::Array(routers)) => self.add_routers(routers, origin)?,
                ("node" | "limits", Value::Table(values)) => {
                    for (name, value) in values {
                        self.set(&format!("{section}.{name}"), value, origin)?;
                    }
                }
                ("router", _) => return Err(bad_value(origin, section, "a list of [[router]] tables")),
                ("node" | "limits", _) => return Err(bad_value(origin, section, "a section in brackets")),
                _ => return Err(unknown(origin, section, ["router", "node", "limits"])),
            }
        }
        Ok(())
    }

    /// Puts the routers of a file before those known so far.
    fn add_routers(&mut self, routers: &[Value], origin: &Origin) -> Result<(), SettingsError> {
        let mut added = Vec::new();
        for router in routers {
            let Value::Table(router) = router else {
                return Err(bad_value(origin, "router", "a list of [[router]] tables"));
            };
            if let Some(key) = router.keys().find(|key| !["host", "port"].contains(&key.as_str())) {
                return Err(unknown(origin, key, ["host", "port"]));
            }
            let host = router.get("host").and_then(Value::as_str).filter(|host| !host.is_empty());
            let port =
                router.get("port").and_then(Value::as_integer).and_then(|port| u16::try_from(port).ok());
            match (host, port) {
                (Some(host), Some(1..)) => added.push(host_and_port(host, port.unwrap_or_default())),
                (None, _) => return Err(bad_value(origin, "router.host", "a name or an address")),
                _ => return Err(bad_value(origin, "router.port", "a number from 1 to 65535")),
            }
        }
        self.routers.retain(|known| !added.contains(known));
        added.append(&mut self.routers);
        self.set_routers(added, origin.clone())
    }

    fn set_routers(&mut self, routers: Vec<String>, origin: Origin) -> Result<(), SettingsError> {
        if routers.len() > MAX_ROUTERS {
            return Err(bad_value(&origin, "router", "at most 256 routers"));
        }
        self.routers = routers;
        self.origins.insert("router", origin);
        Ok(())
    }

    fn set(&mut self, name: &str, value: &Value, origin: &Origin) -> Result<(), SettingsError> {
        let Some(key) = keys::key(name) else {
            return Err(unknown(origin, name, KEYS.iter().map(|key| key.name)));
        };
        (key.set)(self, value).map_err(|form| bad_value(origin, name, form))?;
        self.origins.insert(key.name, origin.clone());
        Ok(())
    }

    fn apply_environment(&mut self, program: &Program<'_>) -> Result<(), SettingsError> {
        for key in KEYS {
            let variable = format!("{}_{}", program.prefix, key.short().to_ascii_uppercase());
            if let Some(text) = (program.environment)(&variable) {
                self.set(key.name, &Value::String(text), &Origin::Environment(variable))?;
            }
        }
        let variable = format!("{}_BOOTSTRAP", program.prefix);
        if let Some(text) = (program.environment)(&variable) {
            let origin = Origin::Environment(variable);
            let routers = text.split(',').map(str::trim).filter(|router| !router.is_empty());
            self.replace_routers(routers.map(str::to_owned).collect(), origin)?;
        }
        Ok(())
    }

    fn apply_flags(&mut self, flags: &Flags) -> Result<(), SettingsError> {
        if flags.port.is_some() {
            self.listen.port = flags.port;
            self.origins.insert("node.port", Origin::Flag("--port"));
        }
        if !flags.bind.is_empty() {
            self.listen.bind.clone_from(&flags.bind);
            self.origins.insert("node.bind", Origin::Flag("--bind"));
        }
        if flags.ipv4_only {
            (self.listen.ipv4, self.listen.ipv6) = (true, false);
            self.origins.insert("node.ipv6", Origin::Flag("--ipv4-only"));
        }
        if flags.ipv6_only {
            (self.listen.ipv4, self.listen.ipv6) = (false, true);
            self.origins.insert("node.ipv4", Origin::Flag("--ipv6-only"));
        }
        if flags.allow_local {
            self.config.allow_local = true;
            self.origins.insert("node.allow_local", Origin::Flag("--allow-local"));
        }
        if flags.state.is_some() {
            self.folders.state.clone_from(&flags.state);
            self.origins.insert("node.state", Origin::Flag("--state"));
        }
        if flags.no_state {
            self.folders.state = None;
            self.origins.insert("node.state", Origin::Flag("--no-state"));
        }
        if !flags.bootstrap.is_empty() {
            self.replace_routers(flags.bootstrap.clone(), Origin::Flag("--bootstrap"))?;
        }
        Ok(())
    }

    fn replace_routers(&mut self, routers: Vec<String>, origin: Origin) -> Result<(), SettingsError> {
        if let Some(bad) = routers.iter().find(|router| !is_host_and_port(router)) {
            return Err(bad_value(&origin, bad, "HOST:PORT"));
        }
        self.set_routers(routers, origin)
    }
}

/// The state folder of a program that was given none.
fn default_state_folder(program: &Program<'_>) -> Option<PathBuf> {
    let folders = etcetera::choose_base_strategy().ok()?;
    let base = folders.state_dir().unwrap_or_else(|| folders.data_dir());
    Some(base.join(program.prefix.to_ascii_lowercase()))
}

/// The file to read: the one named by a flag or the environment, or the user's own if it exists.
fn settings_file(program: &Program<'_>, flags: &Flags) -> Option<PathBuf> {
    let named = || (program.environment)(&format!("{}_CONFIG", program.prefix)).map(PathBuf::from);
    flags.config.clone().or_else(named).or_else(|| {
        let own = etcetera::choose_base_strategy().ok()?.config_dir().join("btdht/bootstrap.toml");
        own.exists().then_some(own)
    })
}

fn read(path: &Path) -> Result<String, SettingsError> {
    let failed = |source| SettingsError::Read { path: path.into(), source };
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > MAX_FILE {
        return Err(failed(std::io::ErrorKind::FileTooLarge.into()));
    }
    std::fs::read_to_string(path).map_err(failed)
}

fn host_and_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn is_host_and_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty()
            && (!host.contains(':') || host.starts_with('[') && host.ends_with(']'))
            && port.parse::<u16>().is_ok_and(|port| port != 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    fn load(file: &str, environment: &[(&str, &str)], flags: &Flags) -> Result<Settings, SettingsError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bootstrap.toml");
        std::fs::write(&path, file).unwrap();
        let mut flags = flags.clone();
        flags.config = Some(path);
        let lookup = |name: &str| {
            environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        Settings::load(&Program { prefix: "BTDHT", environment: &lookup }, &flags)
    }

    #[test]
    fn built_in_settings_are_the_defaults_of_the_core_and_name_six_routers() {
        let settings = load("", &[], &Flags::default()).unwrap();
        assert_eq!(settings.config, Config::default());
        assert!(
            settings.routers.len() >= 6 && settings.routers.iter().all(|router| is_host_and_port(router))
        );
        assert_eq!(settings.binds(6881).len(), 2);
        assert_eq!(settings.origin("limits.k"), Origin::BuiltIn);
    }

    #[test]
    fn a_flag_beats_the_environment_which_beats_the_file() {
        let file = "[node]\nport = 1000\n[limits]\nk = 16\nstore_memory = \"1 MiB\"\n";
        let environment = [("BTDHT_PORT", "2000"), ("BTDHT_K", "20"), ("BTFETCH_PORT", "9")];
        let flags = Flags { port: Some(3000), ..Flags::default() };
        let settings = load(file, &environment, &flags).unwrap();
        assert_eq!((settings.listen.port, settings.config.k), (Some(3000), 20));
        assert_eq!(settings.config.store_memory, 1 << 20);
        assert_eq!(settings.origin("node.port"), Origin::Flag("--port"));
        assert_eq!(settings.origin("limits.k"), Origin::Environment("BTDHT_K".into()));
        assert!(matches!(settings.origin("limits.store_memory"), Origin::File(_)));
        let without = load(file, &environment[1..], &Flags::default()).unwrap();
        assert_eq!(without.listen.port, Some(1000));
    }

    #[test]
    fn routers_of_a_file_come_first_and_those_of_a_flag_stand_alone() {
        let file =
            "[[router]]\nhost = \"::1\"\nport = 7\n[[router]]\nhost = \"dht.aelitis.com\"\nport = 6881\n";
        let settings = load(file, &[], &Flags::default()).unwrap();
        assert_eq!(settings.routers[..2], ["[::1]:7", "dht.aelitis.com:6881"]);
        assert_eq!(settings.routers.iter().filter(|router| router.contains("aelitis")).count(), 1);
        let flags = Flags { bootstrap: vec!["127.0.0.1:9".into()], ..Flags::default() };
        assert_eq!(load(file, &[], &flags).unwrap().routers, ["127.0.0.1:9"]);
        let flags = Flags { bootstrap: vec!["127.0.0.1".into()], ..Flags::default() };
        assert!(load(file, &[], &flags).unwrap_err().to_string().contains("HOST:PORT"));
    }

    #[test]
    fn unknown_keys_are_errors_with_a_suggestion() {
        let message = |file: &str| load(file, &[], &Flags::default()).unwrap_err().to_string();
        assert!(message("[limits]\nstore_memroy = 1\n").contains("did you mean `limits.store_memory`?"));
        assert!(message("[limit]\nk = 1\n").contains("did you mean `limits`?"));
        assert!(message("[[router]]\nhots = \"a\"\n").contains("did you mean `host`?"));
        assert!(message("[node]\nport = 70000\n").contains("`node.port` has to be a whole number"));
        assert!(message("[limits]\nk = 0\n").contains("from 1 to 64"));
        for (key, value) in [
            ("bootstrap_retry_max", "0"),
            ("lookup_max_silence", "\"0 s\""),
            ("query_timeout", "30"),
            ("lookup_max_time", "4"),
            ("refresh_after", "9223372036854775807"),
            ("lookup_queries_per_answer", "0"),
            ("announce_nodes", "9223372036854775807"),
            ("source_table_entries", "4611686018427387904"),
            ("max_datagram", "199"),
            ("max_datagram", "1025"),
        ] {
            let file = format!("[limits]\n{key} = {value}\n");
            let said = message(&file);
            assert!(said.contains(&format!("`limits.{key}` has to be ")), "{said}");
        }
        assert!(message("[limits\n").contains("bootstrap.toml"));
    }

    #[test]
    fn what_an_older_version_took_is_bent_to_the_nearest_that_works_and_said() {
        let bent = |file: &str| {
            let settings = load(file, &[], &Flags::default()).unwrap();
            (settings.config.max_datagram, settings.config.max_samples, settings.warnings)
        };
        assert_eq!(bent("[limits]\nmax_datagram = 512\nmax_samples = 34\n"), (512, 34, Vec::new()));
        assert_eq!(bent(""), (1024, 20, Vec::new()));
        let (datagram, samples, warnings) = bent("[limits]\nmax_datagram = 200\nmax_samples = 35\n");
        assert_eq!((datagram, samples), (512, 34));
        let [datagram, samples] = &warnings[..] else { panic!("{warnings:?}") };
        assert!(
            datagram.contains("bootstrap.toml: `limits.max_datagram` is 200 and taken as 512"),
            "{datagram}"
        );
        assert!(samples.contains("`limits.max_samples` is 35 and taken as 34"), "{samples}");
        let (datagram, _, warnings) = bent("[limits]\nmax_datagram = 511\n");
        assert_eq!((datagram, warnings.len()), (512, 1));
    }

    #[test]
    fn what_is_listed_loads_again() {
        let flags = Flags { bind: vec!["127.0.0.1:5".parse().unwrap()], port: Some(4), ..Flags::default() };
        let settings = load("[limits]\nquery_timeout = 1.5\n", &[], &flags).unwrap();
        let mut text = String::new();
        for (name, value, _) in settings.list() {
            let (section, key) = name.split_once('.').unwrap();
            text += &format!("[{section}]\n{key} = {value}\n");
        }
        // TOML has each section once.
        let mut merged = [String::from("[node]\n"), String::from("[limits]\n")];
        for pair in text.lines().collect::<Vec<_>>().chunks(2) {
            merged[usize::from(pair[0] == "[limits]")] += &format!("{}\n", pair[1]);
        }
        let again = load(&merged.concat(), &[], &Flags::default()).unwrap();
        assert_eq!(again.config, settings.config);
        assert_eq!(again.binds(1), settings.binds(1));
    }
}
