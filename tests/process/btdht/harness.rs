//! Runs the program and fake nodes for it to talk to.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use btdht::testnet::Testnet;
use krpc::{Id, Message};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// No run takes anywhere near as long; what does is stuck.
pub(crate) const GUARD: Duration = Duration::from_secs(60);
/// Nobody listens here: tests never ask the internet.
pub(crate) const NOBODY: &str = "127.0.0.1:1";

/// What tests look for.
pub(crate) const INFOHASH: &str = "08ada5a7a6183aae1e09d831df6748d566095a10";

/// A home of its own, so that no test sees the user's settings or another test's state.
pub(crate) struct Home(TempDir);

/// A finished run.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A running program; killed when dropped.
pub(crate) struct Running {
    child: Child,
    lines: Receiver<String>,
    stderr: Receiver<String>,
}

/// A DHT of nodes in this process, on loopback.
pub(crate) struct Loopback {
    net: Testnet,
    /// Behind the network, which ends in it.
    _runtime: Runtime,
}

/// Runs a verb on loopback to its end, in a home of its own, with `router` to start from.
pub(crate) fn run(args: &[&str], router: &str) -> Finished {
    let home = Home::new();
    home.run(&[args, &["--bind", "127.0.0.1", "--allow-local", "--bootstrap", router]].concat())
}

impl Loopback {
    /// `count` nodes that know one another.
    pub(crate) fn new(count: usize) -> Self {
        let runtime = Runtime::new().unwrap();
        let net = runtime.block_on(Testnet::new(count)).unwrap();
        Self { net, _runtime: runtime }
    }

    /// The same, out of the way of all others: whoever lists everybody is not to find those of another test by a
    /// port that was somebody else's before.
    pub(crate) fn alone(count: usize) -> Self {
        static ALONE: AtomicU8 = AtomicU8::new(1);
        let [.., high, low] = std::process::id().to_be_bytes();
        let ipv4 = Ipv4Addr::new(127, 128 | high, low, ALONE.fetch_add(1, Ordering::Relaxed));
        let options = btdht::testnet::Options { nodes: count, ipv4, ..Default::default() };
        let runtime = Runtime::new().unwrap();
        let net = runtime.block_on(Testnet::start(options)).unwrap();
        Self { net, _runtime: runtime }
    }

    /// Ids and addresses of the nodes.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = (Id, SocketAddr)> {
        let nodes = self.net.nodes().iter();
        nodes.map(|node| (node.ids().next().unwrap(), node.local_addrs().next().unwrap()))
    }

    /// A node to start from.
    pub(crate) fn router(&self) -> String {
        self.nodes().last().unwrap().1.to_string()
    }
}

impl Home {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &std::path::Path {
        self.0.path()
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_btdht"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("BTDHT_")) {
            command.env_remove(name);
        }
        command
            .args(args)
            .env("HOME", self.path())
            .env_remove("RUST_LOG")
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("XDG_STATE_HOME")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs to the end.
    pub(crate) fn run(&self, args: &[&str]) -> Finished {
        Running::start(&mut self.command(args)).finish()
    }

    /// Starts a node on loopback that knows `router` and waits until it listens: the node and its
    /// address.
    pub(crate) fn serve(&self, router: &str, more: &[&str]) -> (Running, SocketAddr) {
        let args = ["serve", "--bind", "127.0.0.1", "--port", "0", "--allow-local", "--bootstrap", router];
        let running = Running::start(&mut self.command(&[&args, more].concat()));
        let line = running.line(|line| line.starts_with("listening "));
        let addr = line.split(' ').nth(1).unwrap().parse().unwrap();
        (running, addr)
    }
}

impl Finished {
    #[track_caller]
    pub(crate) fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.status.code(), Some(code), "{self:#?}");
        self
    }

    /// The objects of stdout, one a line.
    #[track_caller]
    pub(crate) fn objects(&self) -> Vec<serde_json::Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The only line of stderr: errors are said in one.
    #[track_caller]
    pub(crate) fn error(&self) -> &str {
        let lines: Vec<_> = self.stderr.lines().collect();
        assert_eq!(lines.len(), 1, "{self:#?}");
        lines[0]
    }
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let lines = lines_of(child.stdout.take().unwrap());
        let stderr = lines_of(child.stderr.take().unwrap());
        Self { child, lines, stderr }
    }

    /// Waits for a line of stdout.
    #[track_caller]
    pub(crate) fn line(&self, wanted: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + GUARD;
        let mut seen = Vec::new();
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if wanted(&line) => return line,
                Ok(line) => seen.push(line),
                Err(error) => {
                    let stderr: Vec<_> = self.stderr.try_iter().collect();
                    panic!("{error}; stdout {seen:#?} stderr {stderr:#?}");
                }
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Time that it has had of the processors, its own and the kernel's, in hundredths of a second.
    #[cfg(target_os = "linux")]
    pub(crate) fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        // The name stands in parentheses and may hold anything.
        let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum()
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    /// Ends it without a chance to save anything.
    pub(crate) fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for the end.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Finished {
        let deadline = Instant::now() + GUARD;
        let rest = |lines: &Receiver<String>| {
            let mut text = String::new();
            loop {
                match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                    Ok(line) => text += &format!("{line}\n"),
                    Err(RecvTimeoutError::Disconnected) => return Ok(text),
                    Err(RecvTimeoutError::Timeout) => return Err(text),
                }
            }
        };
        match (rest(&self.lines), rest(&self.stderr)) {
            (Ok(stdout), Ok(stderr)) => Finished { status: self.child.wait().unwrap(), stdout, stderr },
            stuck => panic!("does not end: {stuck:?}"),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A socket that never answers.
pub(crate) fn silent_node() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").unwrap()
}

/// A node that answers every query with `answer(query)` where that is something, until the process
/// ends.
pub(crate) fn fake_node(answer: impl Fn(&Message<'_>) -> Option<Vec<u8>> + Send + 'static) -> SocketAddr {
    let socket = silent_node();
    let addr = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((len, from)) = socket.recv_from(&mut buffer) {
            let reply = Message::decode(&buffer[..len]).ok().and_then(|query| answer(&query));
            if let Some(reply) = reply {
                let _ = socket.send_to(&reply, from);
            }
        }
    });
    addr
}

/// The answer to `query` of a node called `nnnnnnnnnnnnnnnnnnnn`, with `more` in its `r` after the
/// id, and the version `v`.
pub(crate) fn reply(query: &Message<'_>, more: &[u8], v: &[u8]) -> Vec<u8> {
    let mut reply = b"d1:rd2:id20:nnnnnnnnnnnnnnnnnnnn".to_vec();
    reply.extend_from_slice(more);
    for (key, value) in [(&b"e1:t"[..], query.tid), (b"1:v", v)] {
        reply.extend_from_slice(key);
        reply.extend_from_slice(format!("{}:", value.len()).as_bytes());
        reply.extend_from_slice(value);
    }
    reply.extend_from_slice(b"1:y1:re");
    reply
}

/// Reads a pipe to its end, line by line. Bytes that are no UTF-8 fail the test that reads them.
fn lines_of(pipe: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = String::new();
        while pipe.read_line(&mut line).is_ok_and(|len| len > 0) {
            if sender.send(line.trim_end_matches('\n').to_owned()).is_err() {
                // Nobody reads any more; the program must not block on a full pipe.
                let _ = pipe.read_to_end(&mut Vec::new());
                return;
            }
            line.clear();
        }
    });
    lines
}
