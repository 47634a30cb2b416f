//! Runs `btfetch` and measures it from outside.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use harness::hostile::{Mode, Peer, Torrent};
use harness::process::{Running, binary};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

/// Resident memory of any run (S34).
pub(crate) const MOST_RSS_KIB: u64 = 100 << 10;

/// CPU time of a run of a few seconds (S34). A debug build is some ten times slower.
pub(crate) const MOST_CPU: Duration = Duration::from_secs(if cfg!(debug_assertions) { 20 } else { 2 });

/// How long a run beside hostile peers takes (S34). A debug build on a busy machine spends its time elsewhere.
pub(crate) const MOST_TIME: Duration =
    if cfg!(debug_assertions) { PATIENCE } else { Duration::from_secs(12) };

/// No run of a few seconds takes anywhere near as long; what does is stuck.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// A download that is about to start.
pub(crate) struct Fetch<'t> {
    torrent: &'t Torrent,
    source: Source,
    peers: Vec<SocketAddr>,
    more: Vec<&'static str>,
    home: Option<TempDir>,
}

/// What `btfetch` starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A .torrent file, and `--peer` for each peer.
    File,
    /// A magnet link that names the peers.
    Magnet,
}

/// A running download.
pub(crate) struct Live {
    pub(crate) running: Running,
    start: Instant,
    usage: Arc<Mutex<Usage>>,
    ended: Arc<AtomicBool>,
    home: TempDir,
    file: PathBuf,
}

/// A finished download.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) took: Duration,
    pub(crate) usage: Usage,
    pub(crate) stdout: Vec<String>,
    pub(crate) stderr: String,
    /// SHA-256 of the downloaded file.
    pub(crate) sha256: Option<[u8; 32]>,
    /// The folder around the folder of the download.
    pub(crate) home: TempDir,
}

/// What a process used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Its largest resident memory, in KiB.
    pub(crate) peak_rss_kib: u64,
    pub(crate) cpu: Duration,
}

impl<'t> Fetch<'t> {
    /// Of the torrent's file or magnet, from these peers.
    pub(crate) fn new(
        torrent: &'t Torrent,
        source: Source,
        peers: impl IntoIterator<Item = SocketAddr>,
    ) -> Self {
        Self { torrent, source, peers: peers.into_iter().collect(), more: Vec::new(), home: None }
    }

    /// With further arguments.
    pub(crate) fn with(mut self, more: &[&'static str]) -> Self {
        self.more.extend(more);
        self
    }

    /// Where another run has been.
    pub(crate) fn again(mut self, home: TempDir) -> Self {
        self.home = Some(home);
        self
    }

    pub(crate) fn start(self) -> Live {
        let home = self.home.unwrap_or_else(|| tempfile::tempdir().expect("a temporary folder"));
        let folder = home.path().join("downloads");
        std::fs::create_dir_all(&folder).expect("room for a folder");
        let mut command = Command::new(binary("btfetch"));
        match self.source {
            Source::Magnet => _ = command.arg(self.torrent.magnet(&self.peers)),
            Source::File => {
                let file = home.path().join("test.torrent");
                std::fs::write(&file, self.torrent.file()).expect("room for a torrent");
                command.arg(file);
                for peer in &self.peers {
                    command.args(["--peer", &peer.to_string()]);
                }
            }
        }
        command.arg("-o").arg(&folder);
        command.args(["--no-dht", "--allow-local", "--no-state", "--json", "--port", "0"]).args(self.more);
        command.env("HOME", home.path()).env_remove("RUST_LOG");
        let running = Running::start("btfetch", &mut command);
        let (usage, ended) = (Arc::<Mutex<Usage>>::default(), Arc::<AtomicBool>::default());
        let (pid, into, until) = (running.pid(), Arc::clone(&usage), Arc::clone(&ended));
        thread::spawn(move || {
            while !until.load(Ordering::SeqCst) {
                measure(pid, &into);
                thread::sleep(Duration::from_millis(20));
            }
        });
        let file = folder.join(&self.torrent.name);
        Live { running, start: Instant::now(), usage, ended, home, file }
    }

    /// Runs to the end; panics if there is none.
    pub(crate) fn run(self) -> Outcome {
        self.start().finish(PATIENCE)
    }
}

impl Live {
    pub(crate) fn usage(&self) -> Usage {
        *self.usage.lock().expect("no panic holds it")
    }

    /// Where the download goes.
    pub(crate) fn folder(&self) -> PathBuf {
        self.home.path().join("downloads")
    }

    pub(crate) fn finish(mut self, patience: Duration) -> Outcome {
        let status = self.running.wait(patience);
        Outcome {
            code: status.code(),
            took: self.start.elapsed(),
            usage: self.usage(),
            stdout: self.running.seen().to_vec(),
            stderr: self.running.stderr(),
            sha256: std::fs::read(&self.file).ok().map(|bytes| Sha256::digest(bytes).into()),
            home: std::mem::replace(&mut self.home, tempfile::tempdir().expect("a temporary folder")),
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
    }
}

impl Outcome {
    /// The right file, exit 0, and within the limits of S34; a line of figures.
    pub(crate) fn complete(&self, torrent: &Torrent) -> Result<String, String> {
        let figures = format!(
            "{:.1} s, {} MiB, {:.2} s CPU",
            self.took.as_secs_f64(),
            self.usage.peak_rss_kib >> 10,
            self.usage.cpu.as_secs_f64()
        );
        let wrong = if self.code != Some(0) {
            "exit code"
        } else if self.sha256 != Some(torrent.sha256()) {
            "the file"
        } else if self.usage.peak_rss_kib > MOST_RSS_KIB {
            "too much memory"
        } else if self.usage.cpu > MOST_CPU {
            "too much work"
        } else if self.stderr.contains("panicked") {
            "a panic"
        } else {
            return Ok(figures);
        };
        Err(format!("{wrong}: {:?}, {figures}\n{}", self.code, self.output()))
    }

    /// Why it failed: the message of its error event.
    pub(crate) fn reason(&self) -> Option<String> {
        let mut events =
            self.stdout.iter().rev().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let message = events.find(|event| event["event"] == "error")?["message"].as_str()?.to_owned();
        (!message.is_empty()).then_some(message)
    }

    /// Its last lines, for a failure.
    pub(crate) fn output(&self) -> String {
        let tail: Vec<_> = self.stdout.iter().rev().take(8).rev().cloned().collect();
        format!("--- stdout\n{}\n--- stderr\n{}", tail.join("\n"), self.stderr)
    }
}

/// Hostile peers of one mode.
pub(crate) fn hostile(torrent: &Arc<Torrent>, mode: Mode, count: usize) -> Vec<Peer> {
    (0..count).map(|_| Peer::hostile(torrent, mode)).collect()
}

/// The addresses of hostile peers and then of honest ones.
pub(crate) fn addresses<'p>(peers: impl IntoIterator<Item = &'p Peer>) -> Vec<SocketAddr> {
    peers.into_iter().map(|peer| peer.addr).collect()
}

/// Checks every item, twelve at a time since they mostly wait, and fails with all that failed.
pub(crate) fn each<T: Debug + Sync>(items: &[T], check: impl Fn(&T) -> Result<String, String> + Sync) {
    let next = Mutex::new(items.iter());
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                loop {
                    let Some(item) = next.lock().expect("no panic holds it").next() else { return };
                    let checked = catch_unwind(AssertUnwindSafe(|| check(item)))
                        .unwrap_or_else(|panic| Err(said(&*panic)));
                    match checked {
                        Ok(figures) => println!("{item:?}: {figures}"),
                        Err(why) => {
                            failures.lock().expect("no panic holds it").push(format!("{item:?}: {why}"));
                        }
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("no panic holds it");
    assert!(failures.is_empty(), "{} of {} failed\n\n{}", failures.len(), items.len(), failures.join("\n\n"));
}

/// Every path below `folder`, except the folder of the download and the torrent.
pub(crate) fn strangers(home: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![home.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder of the test").flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(path.clone());
            }
            found.push(path);
        }
    }
    found.retain(|path| *path != home.join("downloads") && *path != home.join("test.torrent"));
    found
}

fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.unwrap_or_else(|| panic.downcast_ref::<&str>().copied().unwrap_or("a panic").to_owned())
}

/// Reads what the kernel counts of a process; what is gone keeps its last value.
fn measure(pid: u32, into: &Mutex<Usage>) {
    let peak = std::fs::read_to_string(format!("/proc/{pid}/status")).ok().and_then(|status| {
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.trim().trim_end_matches(" kB").parse().ok()
    });
    let ticks = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok().and_then(|stat| {
        // utime and stime are fields 14 and 15; the name in field 2 may hold spaces.
        let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
        Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
    });
    let mut usage = into.lock().expect("no panic holds it");
    // The last word counts, not the greatest: at first the child still has the memory of the test.
    usage.peak_rss_kib = peak.unwrap_or(usage.peak_rss_kib);
    // Linux tells user space a hundred ticks a second on every machine.
    usage.cpu = usage.cpu.max(Duration::from_millis(ticks.unwrap_or(0) * 10));
}
