//! The seeder of a testnet: a `btfetch seed` beside it, since nobody here speaks the peer protocol.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use krpc::Id;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::failure::Failure;

/// A running `btfetch seed`, which ends with this.
pub(crate) struct Seeder {
    child: Child,
    /// What it says, event by event, until it ends.
    events: mpsc::Receiver<Value>,
}

impl Seeder {
    /// Starts to seed `torrent`, whose data lies in `folder`, at a free port of `ip`. It is left out of the
    /// DHT: the nodes of the testnet announce it.
    pub(crate) fn start(torrent: &Path, folder: Option<&Path>, ip: IpAddr) -> Result<Self, Failure> {
        let folder = folder.or(torrent.parent()).filter(|folder| !folder.as_os_str().is_empty());
        let mut command = Command::new(program());
        command.arg("seed").arg("--output").arg(folder.unwrap_or(Path::new(".")));
        command.arg("--bind").arg(SocketAddr::new(ip, 0).to_string());
        command.args(["--no-dht", "--allow-local", "--no-state", "--json"]).arg("--").arg(torrent);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| not_there(&error))?;
        let (sender, events) = mpsc::channel(16);
        let stdout = child.stdout.take().map(BufReader::new);
        thread::spawn(move || {
            for line in stdout.into_iter().flat_map(BufRead::lines).map_while(Result::ok) {
                let event = serde_json::from_str(&line).unwrap_or_default();
                if sender.blocking_send(event).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, events })
    }

    /// Waits until its data is checked and complete. What it seeds, and where it listens.
    pub(crate) async fn ready(&mut self) -> Result<(Id, SocketAddr), Failure> {
        let (mut infohash, mut local) = (None, None);
        while let Some(event) = self.events.recv().await {
            let said = |key: &str| event[key].as_str();
            match said("event") {
                Some("listening") => local = said("addr").and_then(|addr| addr.parse().ok()),
                Some("metadata") => infohash = said("infohash").and_then(|infohash| infohash.parse().ok()),
                Some("done") => {
                    let known = infohash.zip(local);
                    return known
                        .ok_or_else(|| Failure::other("the seeder does not say what it seeds where"));
                }
                _ => {}
            }
        }
        Err(self.end())
    }

    /// Waits until it ends, which nobody asked it to.
    pub(crate) async fn ended(&mut self) -> Failure {
        while self.events.recv().await.is_some() {}
        self.end()
    }

    /// It has said why on standard error, which is ours too.
    fn end(&mut self) -> Failure {
        match self.child.wait() {
            Ok(status) => Failure::other(format!("the seeder ended: {status}")),
            Err(error) => Failure::other(format!("the seeder ended: {error}")),
        }
    }
}

impl Drop for Seeder {
    fn drop(&mut self) {
        // Whatever it still says finds nobody, so that it does not wait for us while we wait for it.
        self.events.close();
        terminate(&mut self.child);
        // One that had ended is no failure.
        let _ = self.child.wait();
    }
}

/// Asks it to end, if it has not.
fn terminate(child: &mut Child) {
    if !matches!(child.try_wait(), Ok(None)) {
        return;
    }
    #[cfg(unix)]
    {
        use rustix::process::{Pid, Signal, kill_process};

        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        if pid.is_some_and(|pid| kill_process(pid, Signal::TERM).is_ok()) {
            return;
        }
    }
    let _ = child.kill();
}

/// The `btfetch` that stands beside this program, or the one of the search path.
fn program() -> PathBuf {
    let mut name = OsString::from("btfetch");
    name.push(std::env::consts::EXE_SUFFIX);
    let beside = std::env::current_exe().ok().map(|this| this.with_file_name(&name));
    beside.filter(|program| program.is_file()).unwrap_or_else(|| name.into())
}

fn not_there(error: &io::Error) -> Failure {
    Failure::other(format!("starting btfetch for --seeder: {error}"))
        .hint("it has to stand beside btdht or in the PATH; --announce INFOHASH:PORT names another seeder")
}
