//! A folder with generated content, a torrent of it, and `btfetch` commands that touch nothing else on
//! the machine.

use std::fs;
use std::io::Read as _;
use std::net::SocketAddrV4;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};

use btdht::Rng;
use harness::process::Running;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

/// Generated content and where things lie.
pub(crate) struct World {
    folder: TempDir,
    /// SHA-256 of the content.
    pub(crate) sha256: [u8; 32],
}

/// The file's name, in the seeder's folder and in the leecher's.
pub(crate) const NAME: &str = "content.bin";

impl World {
    /// A file of `len` bytes of `seed` and its torrent.
    pub(crate) fn new(seed: u64, len: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut content = vec![0; len];
        Rng::from_seed(seed).fill(&mut content);
        for name in ["seeder", "leecher", "home"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        fs::write(folder.path().join("seeder").join(NAME), &content).unwrap();
        let world = Self { folder, sha256: Sha256::digest(&content).into() };
        let made = world
            .run(world.command().arg("create").arg(world.seeder().join(NAME)).arg("-o").arg(world.torrent()));
        assert!(made.status.success(), "{made:?}");
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn torrent(&self) -> PathBuf {
        self.path("content.torrent")
    }

    pub(crate) fn seeder(&self) -> PathBuf {
        self.path("seeder")
    }

    pub(crate) fn leecher(&self) -> PathBuf {
        self.path("leecher")
    }

    /// `btfetch` with an environment and a home of its own.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_btfetch"));
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.path("home")).current_dir(self.path("home"));
        command
    }

    /// A command with the flags of a transfer inside this machine.
    pub(crate) fn transfer(&self, words: &[&str]) -> Command {
        let mut command = self.command();
        command.args(words).args(["--json", "--no-dht", "--no-state", "--allow-local"]);
        command.args(["--port", "0", "--bind", "127.0.0.1"]);
        command
    }

    /// A seeder and its address.
    pub(crate) fn start_seeder(&self, more: &[&str]) -> (Running, SocketAddrV4) {
        let mut command = self.transfer(&["seed"]);
        command.arg(self.torrent()).arg("-o").arg(self.seeder()).args(more);
        let mut seeder = Running::start("seeder", &mut command);
        let addr = wait_event(&mut seeder, "listening", |event| event["addr"].as_str()?.parse().ok());
        wait_event(&mut seeder, "done", |_| Some(()));
        (seeder, addr)
    }

    /// A download of the torrent file from `peer`.
    pub(crate) fn download(&self, peer: SocketAddrV4) -> Command {
        let mut command = self.transfer(&[]);
        command.arg(self.torrent()).arg("-o").arg(self.leecher()).args(["--peer", &peer.to_string()]);
        command
    }

    /// Runs to the end.
    pub(crate) fn run(&self, command: &mut Command) -> Output {
        command.output().unwrap()
    }

    /// Whether the leecher's file is the content.
    pub(crate) fn is_whole(&self) -> bool {
        sha256(&self.leecher().join(NAME)) == Some(self.sha256)
    }
}

/// The SHA-256 of a file, if it is there.
pub(crate) fn sha256(path: &Path) -> Option<[u8; 32]> {
    let mut file = fs::File::open(path).ok()?;
    let (mut hash, mut chunk) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut chunk).ok()? {
            0 => return Some(hash.finalize().into()),
            n => hash.update(&chunk[..n]),
        }
    }
}

/// Waits for a JSON event of this name that `wanted` accepts.
pub(crate) fn wait_event<T>(
    process: &mut Running,
    name: &str,
    mut wanted: impl FnMut(&Value) -> Option<T>,
) -> T {
    process.wait_for(&format!("the event `{name}`"), |line| {
        let event: Value = serde_json::from_str(line).ok()?;
        if event["event"] == name { wanted(&event) } else { None }
    })
}

/// The JSON events of an output.
pub(crate) fn events(output: &Output) -> Vec<Value> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// Pieces that a run fetched.
pub(crate) fn pieces_of(output: &Output) -> usize {
    events(output).iter().filter(|event| event["event"] == "piece").count()
}

/// The exit code; one that is a signal's counts as 128 plus its number and is a failure of the test.
pub(crate) fn code(status: ExitStatus) -> i32 {
    assert_eq!(status.signal(), None, "killed by a signal");
    status.code().unwrap()
}
