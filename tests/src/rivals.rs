//! Other people's clients as child processes: libtorrent (two series), aria2, transmission, and the
//! crate `mainline`. `tests/interop/install.sh` installs them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::process::{Running, eventually, workspace};

/// A series of libtorrent, each in its own virtual environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Series {
    /// 2.0
    V20,
    /// 2.1
    V21,
}

/// Where `install.sh` puts things.
pub fn folder() -> PathBuf {
    std::env::var_os("INTEROP_DIR").map_or_else(|| workspace().join("target/interop"), PathBuf::from)
}

/// Whether a rival that is absent fails the test instead of skipping it: so in CI.
pub fn required() -> bool {
    std::env::var_os("INTEROP_REQUIRED").is_some_and(|value| value == "1")
}

/// Prints why a test does not run here, or panics where nothing may be skipped.
pub fn skip(test: &str, why: &str) {
    assert!(!required(), "{test}: {why}, and INTEROP_REQUIRED=1 allows no skipping");
    eprintln!("SKIPPED {test}: {why} (tests/interop/install.sh installs the rivals; root is needed)");
}

/// Enters a network namespace of our own and checks that all `needs` exist; says aloud why not.
pub fn ready(test: &str, needs: &[PathBuf]) -> bool {
    if let Some(missing) = needs.iter().find(|path| !path.exists()) {
        skip(test, &format!("{} is not installed", missing.display()));
        return false;
    }
    match crate::netns::enter() {
        Ok(()) => true,
        Err(why) => {
            skip(test, &why);
            false
        }
    }
}

/// A libtorrent session, driven by `tests/interop/libtorrent_peer.py`.
pub struct Libtorrent(Running);

impl Libtorrent {
    /// The Python that has this series installed.
    pub fn python(series: Series) -> PathBuf {
        let name = match series {
            Series::V20 => "libtorrent-2.0",
            Series::V21 => "libtorrent-2.1",
        };
        folder().join(name).join("bin/python")
    }

    /// Starts a session that listens on `listen` (address:port) and knows the given routers; without
    /// DHT if `bootstrap` is `None`.
    pub fn start(series: Series, listen: &str, bootstrap: Option<&[&str]>) -> Self {
        let mut command = Self::command(series, listen);
        Self::run(&mut command, (series, listen), bootstrap)
    }

    /// As [`Libtorrent::start`], with a DHT that asks and does not answer (BEP 43).
    pub fn start_read_only(series: Series, listen: &str) -> Self {
        let mut command = Self::command(series, listen);
        command.arg("--read-only");
        Self::run(&mut command, (series, listen), Some(&[]))
    }

    fn command(series: Series, listen: &str) -> Command {
        let mut command = Command::new(Self::python(series));
        command.arg(workspace().join("tests/interop/libtorrent_peer.py")).args(["--listen", listen]);
        command
    }

    fn run(command: &mut Command, (series, listen): (Series, &str), bootstrap: Option<&[&str]>) -> Self {
        match bootstrap {
            Some(routers) => command.args(routers.iter().flat_map(|router| ["--bootstrap", router])),
            None => command.arg("--no-dht"),
        };
        let mut running = Running::start(&format!("libtorrent {series:?} {listen}"), command);
        running.wait_for("ready", |line| line.contains("\"ready\"").then_some(()));
        Self(running)
    }

    /// Sends a command and waits for its reply.
    pub fn ask(&mut self, command: &Value) -> Value {
        self.0.write_line(&command.to_string());
        let op = command["op"].clone();
        let reply = self.0.wait_for("a reply", |line| {
            let said: Value = serde_json::from_str(line).ok()?;
            (said["reply"] == op).then_some(said)
        });
        assert!(reply.get("error").is_none(), "libtorrent refused {command}: {reply}");
        reply
    }

    /// Adds a torrent file or magnet; returns its infohash in hex.
    pub fn add(&mut self, source: &str, save: &Path, peers: &[&str], seed: bool) -> String {
        let reply =
            self.ask(&json!({"op": "add", "source": source, "save": save, "peers": peers, "seed": seed}));
        reply["infohash"].as_str().expect("an infohash").to_owned()
    }

    /// Waits for an event of this name that `wanted` accepts.
    pub fn wait_for<T>(&mut self, event: &str, mut wanted: impl FnMut(&Value) -> Option<T>) -> T {
        self.0.wait_for(event, |line| {
            let said: Value = serde_json::from_str(line).ok()?;
            if said["event"] == event { wanted(&said) } else { None }
        })
    }

    /// Like [`Libtorrent::wait_for`] with a deadline of its own; `Err` says why nothing came.
    pub fn wait_within<T>(
        &mut self,
        deadline: Duration,
        event: &str,
        mut wanted: impl FnMut(&Value) -> Option<T>,
    ) -> Result<T, &'static str> {
        self.0.wait_within(deadline, |line| {
            let said: Value = serde_json::from_str(line).ok()?;
            if said["event"] == event { wanted(&said) } else { None }
        })
    }

    /// Waits until the first torrent is complete, or its peer has all of it.
    pub fn wait_finished(&mut self) {
        eventually("libtorrent finishes", || {
            self.ask(&json!({"op": "status"}))["torrents"][0]["done"].as_bool()?.then_some(())
        });
    }

    /// Asks the DHT for peers until `wanted` accepts an address.
    pub fn dht_finds(&mut self, infohash: &str, wanted: &str) {
        eventually(&format!("libtorrent finds {wanted} on the DHT"), || {
            self.ask(&json!({"op": "dht_get_peers", "infohash": infohash}));
            let found = self.0.wait_within(Duration::from_secs(4), |line| {
                let said: Value = serde_json::from_str(line).ok()?;
                let peers = said["peers"].as_array()?;
                peers.iter().any(|peer| peer == wanted).then_some(())
            });
            found.ok()
        });
    }

    /// The last event of this name so far, also if another wait has passed it over.
    pub fn last(&self, event: &str) -> Option<Value> {
        let mut said = self.0.seen().iter().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        said.find(|said| said["event"] == event)
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.0.pid()
    }
}

/// aria2 downloading or seeding one torrent; ends by itself when a download is complete and
/// `seed-time` is 0.
pub fn aria2(name: &str, arguments: &[&str]) -> Running {
    let mut command = Command::new("/usr/bin/aria2c");
    command
        .args([
            "--no-conf",
            "--enable-peer-exchange=false",
            "--bt-enable-lpd=false",
            "--file-allocation=none",
        ])
        .args(["--summary-interval=0", "--bt-stop-timeout=50", "--follow-torrent=mem"])
        .args(arguments);
    Running::start(name, &mut command)
}

/// A transmission daemon with a configuration folder of its own.
pub struct Transmission {
    /// The daemon.
    pub daemon: Running,
    rpc: String,
}

impl Transmission {
    /// Where Debian puts the daemon.
    pub fn program() -> PathBuf {
        "/usr/bin/transmission-daemon".into()
    }

    /// Starts a daemon whose peers connect to `ip:port`, with state and downloads below `home`.
    pub fn start(ip: &str, port: u16, home: &Path) -> Self {
        let config = home.join("config");
        std::fs::create_dir_all(&config).expect("a folder in the test's own");
        let settings = json!({
            "bind-address-ipv4": ip, "peer-port": port, "rpc-bind-address": ip, "rpc-port": 9091,
            "rpc-whitelist-enabled": false, "rpc-host-whitelist-enabled": false,
            "rpc-authentication-required": false, "dht-enabled": true, "lpd-enabled": false,
            "pex-enabled": false, "utp-enabled": false, "port-forwarding-enabled": false,
            "download-dir": home.join("downloads"), "incomplete-dir-enabled": false,
            "encryption": 0, "start-added-torrents": true, "peer-limit-global": 50,
        });
        std::fs::write(config.join("settings.json"), settings.to_string()).expect("writable");
        let mut command = Command::new(Self::program());
        command.args(["--foreground", "--config-dir"]).arg(&config);
        let daemon = Running::start("transmission-daemon", &mut command);
        let this = Self { daemon, rpc: format!("{ip}:9091") };
        eventually("transmission answers", || this.remote(&["--session-info"]).ok());
        this
    }

    /// Runs `transmission-remote`; `Err` holds its output.
    pub fn remote(&self, arguments: &[&str]) -> Result<String, String> {
        let output = Command::new("/usr/bin/transmission-remote").arg(&self.rpc).args(arguments).output();
        let output = output.map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let refused =
            ["Couldn't connect", "Couldn't resolve", "Error:"].iter().any(|sign| text.contains(sign));
        if output.status.success() && !refused { Ok(text) } else { Err(text) }
    }

    /// Waits until torrent 1 is at 100 %.
    pub fn wait_finished(&self) {
        eventually("transmission finishes", || {
            let info = self.remote(&["-t", "1", "--info"]).ok()?;
            info.contains("Percent Done: 100%").then_some(())
        });
    }
}

/// A node of the crate `mainline`, from the nested workspace `tests/rivals`.
pub fn mainline_program() -> PathBuf {
    folder().join("rivals/release/rivals")
}

/// Runs the `mainline` node with the given words: see `tests/rivals/src/main.rs`.
pub fn mainline(arguments: &[&str]) -> Running {
    Running::start("mainline", Command::new(mainline_program()).args(arguments))
}
