//! The seeder of a testnet: a `btfetch seed` beside it, since nobody here speaks the peer protocol.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use krpc::Id;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::failure::Failure;

/// How long its end may take: it promises three seconds. How often that is looked at.
const PATIENCE: Duration = Duration::from_secs(4);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A running `btfetch seed`, which ends with this.
pub(crate) struct Seeder {
    child: Child,
    /// What it says, event by event, until it ends.
    events: mpsc::Receiver<Value>,
}

impl Seeder {
    /// Starts to seed `torrent`, whose data lies in `folder`, at a free port of `ip`. It asks nobody for
    /// peers, neither the DHT nor the trackers that the torrent names: the nodes of the testnet announce it.
    pub(crate) fn start(torrent: &Path, folder: Option<&Path>, ip: IpAddr) -> Result<Self, Failure> {
        let folder = folder.or_else(|| torrent.parent()).filter(|folder| !folder.as_os_str().is_empty());
        let mut command = Command::new(program());
        command.arg("seed").arg("--output").arg(folder.unwrap_or_else(|| Path::new(".")));
        command.arg("--bind").arg(SocketAddr::new(ip, 0).to_string());
        command.arg(if ip.is_ipv4() { "--ipv4-only" } else { "--ipv6-only" });
        command.args(["--no-dht", "--no-trackers", "--allow-local", "--no-state", "--json"]);
        command.arg("--").arg(torrent).stdin(Stdio::null()).stdout(Stdio::piped());
        // Ctrl-C is for us, who then end it: a second signal would have it leave without a word. Where we are killed it
        // ends with the next line that it cannot write, within a second.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn().map_err(|error| not_there(&error))?;
        let (sender, events) = mpsc::channel(16);
        let lines = child.stdout.take().map(BufReader::new).into_iter().flat_map(BufRead::lines);
        let reading = thread::Builder::new().name("seeder".to_owned()).spawn(move || {
            for line in lines.map_while(Result::ok) {
                let event = serde_json::from_str(&line).unwrap_or_default();
                if sender.blocking_send(event).is_err() {
                    return;
                }
            }
        });
        let seeder = Self { child, events };
        reading.map_err(|error| Failure::other(format!("listening to the seeder: {error}")))?;
        Ok(seeder)
    }

    /// Waits until its data is checked and complete. What it seeds, and where it listens.
    pub(crate) async fn ready(&mut self) -> Result<(Id, SocketAddr), Failure> {
        let mut local = None;
        while let Some(event) = self.events.recv().await {
            let said = |key: &str| event[key].as_str();
            match said("event") {
                Some("listening") => local = said("addr").and_then(|addr| addr.parse().ok()),
                Some("metadata") if event["private"] == true => {
                    return Err(Failure::usage(
                        "the torrent of --seeder is private: no DHT may know it (BEP 27)",
                    )
                    .hint("make one with `btfetch create`, without --private"));
                }
                Some("done") => {
                    let infohash = said("infohash").and_then(|infohash| infohash.parse().ok());
                    let known = infohash.zip(local);
                    return known
                        .ok_or_else(|| Failure::other("the seeder does not say what it seeds where"));
                }
                _ => {}
            }
        }
        Err(self.failure().await)
    }

    /// Waits until it ends, which nobody asked it to.
    pub(crate) async fn ended(&mut self) -> Failure {
        while self.events.recv().await.is_some() {}
        self.failure().await
    }

    /// Ends it, and waits until it has.
    pub(crate) async fn stop(mut self) {
        // Whatever it still says finds nobody, so that it waits for nobody either.
        self.events.close();
        terminate(&mut self.child);
        let _ = self.status().await;
    }

    /// It has nothing more to say; why not, it has said on standard error, which is ours too. Its exit codes mean
    /// what ours do.
    async fn failure(&mut self) -> Failure {
        match self.status().await {
            Ok(Some(status)) => Failure::of_child(status.code(), format!("the seeder ended: {status}")),
            Ok(None) => Failure::other("the seeder says nothing any more"),
            Err(error) => Failure::other(format!("the seeder is lost: {error}")),
        }
    }

    async fn status(&mut self) -> io::Result<Option<ExitStatus>> {
        let ended = async {
            loop {
                if let Some(status) = self.child.try_wait()? {
                    return Ok(Some(status));
                }
                sleep(LOOK_EVERY).await;
            }
        };
        timeout(PATIENCE, ended).await.unwrap_or(Ok(None))
    }
}

/// One that does not end when it is asked to, or was not asked, is killed.
impl Drop for Seeder {
    fn drop(&mut self) {
        // It is no failure if it has ended.
        let _ = self.child.kill();
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
