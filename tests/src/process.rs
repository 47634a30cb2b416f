//! Child processes whose output lines a test waits for, with a generous deadline instead of sleeps.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// How long a test waits for anything before it fails: far beyond what is expected, so that a slow
/// machine does not matter.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// A running child whose standard output arrives line by line; killed when dropped.
pub struct Running {
    name: String,
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
    stderr: Arc<Mutex<String>>,
    /// Disconnected when all of it has come.
    stderr_ends: Receiver<()>,
}

impl Running {
    /// Starts `command`. `name` appears in failures.
    pub fn start(name: &str, command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error} ({command:?})"));
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let stderr = Arc::new(Mutex::new(String::new()));
        let (sink, mut pipe) = (Arc::clone(&stderr), child.stderr.take().expect("piped"));
        let (reading, stderr_ends) = channel();
        thread::spawn(move || {
            let _reading = reading;
            let mut chunk = [0; 4096];
            while let Ok(n @ 1..) = pipe.read(&mut chunk) {
                sink.lock().expect("no panic holds it").push_str(&String::from_utf8_lossy(&chunk[..n]));
            }
        });
        Self { name: name.to_owned(), child, lines, seen: Vec::new(), stderr, stderr_ends }
    }

    /// Waits for a line that `wanted` accepts and returns what it made of it. Panics after
    /// [`DEADLINE`] or when the child ends first.
    pub fn wait_for<T>(&mut self, what: &str, wanted: impl FnMut(&str) -> Option<T>) -> T {
        match self.wait_within(DEADLINE, wanted) {
            Ok(found) => found,
            Err(why) => self.fail(&format!("{why} while waiting for {what}")),
        }
    }

    /// Like [`Running::wait_for`] with a deadline of its own; `Err` says why nothing came.
    pub fn wait_within<T>(
        &mut self,
        deadline: Duration,
        mut wanted: impl FnMut(&str) -> Option<T>,
    ) -> Result<T, &'static str> {
        let end = Instant::now() + deadline;
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    let found = wanted(&line);
                    self.seen.push(line);
                    if let Some(found) = found {
                        return Ok(found);
                    }
                }
                Err(RecvTimeoutError::Timeout) => return Err("timed out"),
                Err(RecvTimeoutError::Disconnected) => return Err("output ended"),
            }
        }
    }

    /// Writes a line to the child's standard input.
    pub fn write_line(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().expect("piped");
        if let Err(error) = writeln!(stdin, "{line}").and_then(|()| stdin.flush()) {
            self.fail(&format!("standard input: {error}"));
        }
    }

    /// Waits for the end; the remaining output is in [`Running::seen`].
    pub fn wait(&mut self, deadline: Duration) -> ExitStatus {
        drop(self.child.stdin.take());
        let end = Instant::now() + deadline;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child of ours") {
                while let Ok(line) = self.lines.recv_timeout(Duration::from_secs(5)) {
                    self.seen.push(line);
                }
                // What a child of its own that goes on may say is not waited for.
                let _ = self.stderr_ends.recv_timeout(Duration::from_secs(5));
                return status;
            }
            if Instant::now() > end {
                self.fail("did not end in time");
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Process id, for signals and `/proc`.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by its name (`TERM`, `INT`, `KILL`, `STOP`, `CONT`).
    pub fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let _ = Command::new("kill").args([format!("-{name}"), pid]).status();
    }

    /// Lines of standard output so far.
    pub fn seen(&self) -> &[String] {
        &self.seen
    }

    /// Standard error so far; all of it after [`Running::wait`].
    pub fn stderr(&self) -> String {
        self.stderr.lock().expect("no panic holds it").clone()
    }

    fn fail(&mut self, why: &str) -> ! {
        self.seen.extend(self.lines.try_iter());
        panic!("{}: {why}\n--- stdout\n{}\n--- stderr\n{}", self.name, self.seen.join("\n"), self.stderr());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Polls `probe` until it gives something; panics after [`DEADLINE`]. For rivals that tell nothing
/// by themselves.
pub fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < end, "never happened: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// The path of one of our binaries, built once by the first caller. A test in another package has no
/// `CARGO_BIN_EXE_*`, so it asks cargo.
pub fn binary(name: &str) -> PathBuf {
    static BUILT: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    let folder = BUILT.get_or_init(|| {
        let this = std::env::current_exe().expect("a running test");
        // target/PROFILE/deps/test-hash
        let profile = this.ancestors().nth(2).expect("target/PROFILE/deps").to_owned();
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        if profile.ends_with("release") {
            cargo.args(["build", "--quiet", "--release", "-p", "btdht", "-p", "btfetch", "--bins"]);
        } else {
            // With the features of all tests together: those of the binaries alone are others, and what
            // `cargo test --workspace` has built would be built once more.
            cargo.args(["test", "--quiet", "--no-run", "--workspace"]);
            cargo.args(["--test", "btdht_process", "--test", "process"]);
        }
        // What this test was built with by `--config`, cargo tells nobody.
        let configs = std::env::var("HARNESS_CARGO_CONFIG").unwrap_or_default();
        configs.split_whitespace().for_each(|config| _ = cargo.args(["--config", config]));
        // What cargo tells a test of its package. The build script of ring watches it: with that set it would run
        // again, and all that depends on ring be built once more.
        for (name, _) in std::env::vars_os() {
            let bytes = name.as_encoded_bytes();
            if bytes.starts_with(b"CARGO_PKG_") || bytes.starts_with(b"CARGO_MANIFEST_") {
                cargo.env_remove(name);
            }
        }
        cargo.current_dir(workspace());
        let status = cargo.status().expect("cargo runs");
        assert!(status.success(), "building the binaries failed");
        profile
    });
    folder.join(name)
}

/// The root of the workspace.
pub fn workspace() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}
