//! Nodes, files and torrents that the interop tests share.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use harness::netns;
use harness::process::{Running, binary, eventually};
use harness::rivals::{Libtorrent, Series, mainline, ready, skip};
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;
use sha2::{Digest as _, Sha256};

/// The addresses of one family in a namespace of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Net {
    /// 85.0.0.0/8
    V4,
    /// 2a85::/16
    V6,
}

impl Net {
    /// An address in a network (/24 or /64) of its own.
    pub(crate) fn ip(self, a: u8, b: u8) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(85, a, b, 1).into(),
            Self::V6 => Ipv6Addr::new(0x2a85, a.into(), b.into(), 0, 0, 0, 0, 1).into(),
        }
    }

    /// Where node `n` listens.
    pub(crate) fn node(self, n: u8) -> String {
        SocketAddr::new(self.ip(n, 0), 6881).to_string()
    }

    /// Where one-shot node `n` is bound, at any port.
    pub(crate) fn client(self, n: u8) -> String {
        SocketAddr::new(self.ip(n, 0), 0).to_string()
    }

    /// As [`ready`], for nodes of this family.
    pub(crate) fn ready(self, test: &str, needs: &[PathBuf]) -> bool {
        if !ready(test, needs) {
            return false;
        }
        let bindable = if self == Self::V6 { netns::bind_any_ipv6() } else { Ok(()) };
        bindable.inspect_err(|why| skip(test, why)).is_ok()
    }
}

/// A `btdht serve` node at `ip:6881`.
pub(crate) fn serve(ip: &str, bootstrap: &[&str]) -> Running {
    serve_with(ip, bootstrap, &[])
}

/// The same with further arguments.
pub(crate) fn serve_with(ip: &str, bootstrap: &[&str], arguments: &[&str]) -> Running {
    serve_at(&format!("{ip}:6881"), bootstrap, arguments)
}

/// The same at an address of any family.
pub(crate) fn serve_at(address: &str, bootstrap: &[&str], arguments: &[&str]) -> Running {
    let mut command = Command::new(binary("btdht"));
    command.args(["serve", "--no-state", "--bind", address]).args(arguments);
    for router in bootstrap {
        command.args(["--bootstrap", router]);
    }
    let mut node = Running::start(&format!("btdht serve {address}"), &mut command);
    node.wait_for("the node listens", |line| line.starts_with("listening ").then_some(()));
    node
}

/// Runs `btdht` to its end; returns its lines and whether it exited with 0.
pub(crate) fn btdht(arguments: &[&str]) -> (Vec<String>, bool) {
    let mut run = Running::start("btdht", Command::new(binary("btdht")).args(arguments));
    let status = run.wait(Duration::from_secs(60));
    if !status.success() {
        eprintln!("btdht {arguments:?}: {status}\n{}", run.stderr());
    }
    (run.seen().to_vec(), status.success())
}

/// Starts `btfetch` with the given words.
pub(crate) fn btfetch(arguments: &[&str]) -> Running {
    Running::start("btfetch", Command::new(binary("btfetch")).args(arguments))
}

/// A DHT of libtorrent nodes 1, 2, ... of alternating series that know each other.
pub(crate) fn libtorrent_dht(net: Net, count: usize) -> Vec<Libtorrent> {
    let address = |n: usize| net.node(n as u8 + 1);
    let mut nodes: Vec<_> = (0..count)
        .map(|n| {
            let series = if n % 2 == 0 { Series::V20 } else { Series::V21 };
            Libtorrent::start(series, &address(n), Some(&[]))
        })
        .collect();
    // Each finds out its address, and takes another id, when the first of the others tells it.
    for (n, node) in nodes.iter_mut().enumerate() {
        eventually("a libtorrent node fills its table", || {
            for other in (0..count).filter(|&other| other != n) {
                node.ask(&json!({"op": "dht_add", "node": address(other)}));
            }
            let known = node.ask(&json!({"op": "dht_state"}))["nodes"].as_u64().expect("a number");
            (known as usize >= count.min(3) - 1).then_some(())
        });
    }
    nodes
}

/// A node of the crate `mainline` at `ip:6881` that has joined the DHT of `router`. It asks once and gives
/// up when that names nobody, as a router that has just started does, or comes late: then it is started
/// again. With `alone` there is nobody to join.
pub(crate) fn mainline_joins(ip: &str, router: &str, alone: bool) -> Running {
    eventually("mainline joins", || {
        let (node, joined) = mainline_tries(&["serve", ip, "6881", router], |line| match line {
            "bootstrapped true" => Some(true),
            "bootstrapped false" => Some(false),
            _ => None,
        })?;
        (joined || alone).then_some(node)
    })
}

/// How long `mainline` gets for one attempt, which takes it a second: one that hangs must not take the
/// time of all others.
const ATTEMPT: Duration = Duration::from_secs(20);

/// Starts `mainline` and waits for a line that `wanted` accepts. Where none comes in time, says what
/// came instead, and the next attempt is the caller's.
pub(crate) fn mainline_tries<T>(
    words: &[&str],
    wanted: impl FnMut(&str) -> Option<T>,
) -> Option<(Running, T)> {
    let mut client = mainline(words);
    match client.wait_within(ATTEMPT, wanted) {
        Ok(found) => Some((client, found)),
        Err(why) => {
            eprintln!("mainline {words:?}: {why}; it said {:?} {}", client.seen(), client.stderr());
            None
        }
    }
}

/// A folder with a generated file and the torrent of it, made by `btfetch create`.
pub(crate) struct Sample {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) torrent: PathBuf,
    pub(crate) infohash: String,
    pub(crate) sha256: [u8; 32],
}

impl Sample {
    /// `len` pseudo-random bytes named `sample.bin`.
    pub(crate) fn new(len: usize, seed: u64) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut bytes = vec![0; len];
        rand::rngs::Xoshiro256PlusPlus::seed_from_u64(seed).fill_bytes(&mut bytes);
        let data = folder.path().join("sample.bin");
        std::fs::write(&data, &bytes).expect("room for a sample");
        let torrent = folder.path().join("sample.torrent");
        let mut create = btfetch(&["create", data.to_str().unwrap(), "-o", torrent.to_str().unwrap()]);
        assert!(create.wait(Duration::from_secs(60)).success(), "btfetch create: {}", create.stderr());
        let mut info = btfetch(&["info", torrent.to_str().unwrap(), "--json"]);
        assert!(info.wait(Duration::from_secs(60)).success(), "btfetch info: {}", info.stderr());
        let said: serde_json::Value = serde_json::from_str(&info.seen()[0]).expect("one JSON object");
        let infohash = said["infohash_v1"].as_str().expect("a v1 torrent").to_owned();
        Self { folder, torrent, infohash, sha256: Sha256::digest(&bytes).into() }
    }

    /// The magnet link with nothing but the infohash.
    pub(crate) fn magnet(&self) -> String {
        format!("magnet:?xt=urn:btih:{}", self.infohash)
    }

    /// The torrent's path as text.
    pub(crate) fn torrent(&self) -> &str {
        self.torrent.to_str().expect("a temporary path is text")
    }

    /// The folder of the complete file as text.
    pub(crate) fn data(&self) -> &str {
        self.folder.path().to_str().expect("a temporary path is text")
    }

    /// Whether `folder` holds the same file.
    pub(crate) fn is_same(&self, folder: &Path) -> bool {
        let bytes = std::fs::read(folder.join("sample.bin")).expect("the downloaded file");
        let got: [u8; 32] = Sha256::digest(&bytes).into();
        got == self.sha256
    }

    /// Fails unless `folder` holds the same file.
    pub(crate) fn assert_same(&self, folder: &Path) {
        assert!(self.is_same(folder), "the downloaded file differs");
    }
}
