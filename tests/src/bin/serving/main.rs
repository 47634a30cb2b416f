//! Serving under load: what a DHT node costs per query, beside the floor and other nodes.
//!
//!     cargo build --release -p btdht -p harness
//!     tests/interop/install.sh                                  (libtorrent)
//!     serving compare [--repetitions 5] [--seconds 5] [--only NAME,...]
//!     serving kinds   [...]      the same per kind of query
//!     serving echo ADDR:PORT     the floor: recvmmsg/sendmmsg with replies of 288 bytes
//!
//! `compare` enters a network namespace in which 85/8 is local (root is needed). Every node runs alone,
//! pinned to core 0, the generator to core 1; repetitions interleave; medians are compared. The limits
//! of all nodes are lifted. Rows: replies a second with 128 queries outstanding, CPU of the node's
//! process per query (user and system, as the kernel counts), its ratio to the floor (min/median/max),
//! and at 5,000 queries a second CPU, median and 99th percentile of the round trip.
#![allow(clippy::unwrap_used)]

use std::ffi::OsStr;
use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use harness::load::{Kind, Load, Tally, Target, Tids};
use harness::mmsg::{Socket, Speaks};
use harness::process::{Running, workspace};
use harness::rivals::{Libtorrent, Series};

const NODE: &str = "85.255.0.1:6882";
const WINDOW: usize = 128;
const GENTLE: u32 = 5_000;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.first().map(String::as_str) {
        Some("echo") => echo(words[1].parse().expect("ADDR:PORT")),
        Some("compare") => compare(&Options::parse(&words[1..]), &[None]),
        Some("kinds") => compare(&Options::parse(&words[1..]), &Kind::ALL.map(Some)),
        _ => panic!(
            "serving compare|kinds [--repetitions N] [--seconds N] [--only NAME,...] | serving echo ADDR:PORT"
        ),
    }
}

/// The floor: nothing is read of a query, nothing is written into the reply.
fn echo(addr: SocketAddrV4) {
    let mut socket = Socket::bind(addr, Speaks::ForOne).expect("bindable");
    println!("listening {addr}");
    loop {
        for n in 0..socket.receive(true).expect("a readable socket") {
            socket.reflect(n, |packet| packet.set_len(288)).expect("a writable socket");
        }
        socket.flush().expect("a writable socket");
    }
}

struct Options {
    repetitions: usize,
    seconds: u64,
    only: Option<Vec<String>>,
}

impl Options {
    fn parse(words: &[String]) -> Self {
        let mut options = Self { repetitions: 5, seconds: 5, only: None };
        for pair in words.chunks(2) {
            let [key, value] = pair else { panic!("{pair:?} wants a value") };
            match key.as_str() {
                "--repetitions" => options.repetitions = value.parse().expect("a number"),
                "--seconds" => options.seconds = value.parse().expect("a number"),
                "--only" => options.only = Some(value.split(',').map(str::to_owned).collect()),
                _ => panic!("unknown option {key}"),
            }
        }
        options
    }
}

/// A program that serves, and how to ask it.
struct Row {
    name: &'static str,
    target: Target,
    tids: Tids,
    command: Command,
    closed: Vec<Vec<Measured>>,
    gentle: Vec<Measured>,
    fresh_kib: u64,
    loaded_kib: u64,
}

struct Measured {
    tally: Tally,
    cpu_micros: f64,
}

fn compare(options: &Options, kinds: &[Option<Kind>]) {
    harness::netns::enter().expect("root");
    let myself = std::process::id().to_string();
    let pinned = Command::new("taskset").args(["-a", "-c", "-p", "1", &myself]).output();
    assert!(
        pinned.is_ok_and(|output| output.status.success()),
        "taskset (util-linux) cannot pin the generator"
    );
    let folder = tempfile::tempdir().unwrap();
    let mut rows = rows(folder.path());
    rows.retain(|row| {
        options
            .only
            .as_ref()
            .is_none_or(|only| row.target == Target::Echo || only.iter().any(|name| name == row.name))
    });
    for repetition in 0..options.repetitions {
        for row in &mut rows {
            run(row, kinds, options);
            eprintln!("{} {}/{}", row.name, repetition + 1, options.repetitions);
        }
    }
    for (n, kind) in kinds.iter().enumerate() {
        println!("\n{}", kind.map_or("the mix".to_owned(), |kind| format!("{kind:?} only")));
        print_closed(&rows, n);
    }
    if kinds == [None] {
        print_gentle(&rows);
    }
}

fn rows(folder: &std::path::Path) -> Vec<Row> {
    let row = |name, target, tids, command| Row {
        name,
        target,
        tids,
        command,
        closed: Vec::new(),
        gentle: Vec::new(),
        fresh_kib: 0,
        loaded_kib: 0,
    };
    let mut echo = pinned(std::env::current_exe().unwrap());
    echo.args(["echo", NODE]);
    let mut rows = vec![row("floor", Target::Echo, Tids::Four, echo)];

    let btdht: PathBuf = std::env::current_exe().unwrap().with_file_name("btdht");
    if btdht.exists() {
        let config = folder.join("bootstrap.toml");
        std::fs::write(&config, "[limits]\nreplies_per_second_per_ip = 0\nreply_bytes_per_second = 0\n")
            .unwrap();
        let mut command = pinned(btdht);
        command.args([
            "serve",
            "--ipv4-only",
            "--no-state",
            "--port",
            "6882",
            "--bind",
            "85.255.0.1",
            "--config",
        ]);
        command.arg(config).args(["--bootstrap", &Load::router().to_string()]);
        rows.push(row("btdht", Target::Node, Tids::Any, command));
    }
    for (name, series) in [("libtorrent-2.1", Series::V21), ("libtorrent-2.0", Series::V20)] {
        let python = Libtorrent::python(series);
        if !python.exists() {
            eprintln!("SKIPPED {name}: {} is not installed (tests/interop/install.sh)", python.display());
            continue;
        }
        let mut command = pinned(python);
        command.arg(workspace().join("tests/bench/serving_libtorrent.py"));
        command.args([NODE, &Load::router().to_string()]);
        rows.push(row(name, Target::Node, Tids::Four, command));
    }
    rows
}

fn run(row: &mut Row, kinds: &[Option<Kind>], options: &Options) {
    let mut node = Running::start(row.name, &mut row.command);
    let listening =
        node.wait_within(Duration::from_secs(20), |line| line.contains("listening").then_some(()));
    listening.unwrap_or_else(|why| panic!("{}: {why}\n{}", row.name, node.stderr()));
    row.fresh_kib = resident_kib(node.pid());
    let mut load = Load::new(NODE.parse().unwrap(), row.target, row.tids).unwrap();
    if row.target == Target::Node {
        if !load.teach(Duration::from_secs(40)).unwrap() {
            eprintln!("{}: its routing table does not fill up", row.name);
        }
        let stored = load.announce_all().unwrap();
        if stored != 10_000 {
            eprintln!("{}: stored {stored} of 10000 announces", row.name);
        }
    }
    load.closed(WINDOW, Duration::from_secs(1)).unwrap();
    row.closed.resize_with(kinds.len(), Vec::new);
    for (kind, results) in kinds.iter().zip(&mut row.closed) {
        load.only(*kind);
        results.push(measure(&node, |span| load.closed(WINDOW, span).unwrap(), options));
    }
    if kinds == [None] {
        row.gentle.push(measure(&node, |span| load.open(GENTLE, span).unwrap(), options));
    }
    row.loaded_kib = resident_kib(node.pid());
}

fn measure(node: &Running, load: impl FnOnce(Duration) -> Tally, options: &Options) -> Measured {
    let before = cpu_ticks(node.pid());
    let tally = load(Duration::from_secs(options.seconds));
    let micros = (cpu_ticks(node.pid()) - before) as f64 * 10_000.0;
    let cpu_micros = micros / tally.replies.max(1) as f64;
    Measured { tally, cpu_micros }
}

fn print_closed(rows: &[Row], kind: usize) {
    println!(
        "{:16} {:>10} {:>8} {:>16} {:>8} {:>8} {:>7} {:>7} {:>7} {:>11}",
        "node", "replies/s", "CPU us", "x floor", "B/reply", "nodes", "lost", "wrong", "p99 us", "RSS MiB"
    );
    for row in rows {
        let results = &row.closed[kind];
        let ratios: Vec<f64> = results
            .iter()
            .zip(&rows[0].closed[kind])
            .map(|(own, floor)| own.cpu_micros / floor.cpu_micros)
            .collect();
        let sum = |of: fn(&Tally) -> u64| results.iter().map(|result| of(&result.tally)).sum::<u64>();
        println!(
            "{:16} {:>10.0} {:>8.2} {:>16} {:>8.0} {:>8.2} {:>7} {:>7} {:>7.0} {:>11}",
            row.name,
            median(results.iter().map(|result| result.tally.rate())),
            median(results.iter().map(|result| result.cpu_micros)),
            spread(&ratios),
            sum(|tally| tally.reply_bytes) as f64 / sum(|tally| tally.replies).max(1) as f64,
            sum(|tally| tally.nodes.0) as f64 / sum(|tally| tally.nodes.1).max(1) as f64,
            sum(|tally| tally.lost),
            sum(|tally| tally.wrong),
            median(results.iter().map(|result| f64::from(result.tally.clone().quantile(0.99)))),
            format!("{:.1}/{:.1}", row.fresh_kib as f64 / 1024.0, row.loaded_kib as f64 / 1024.0),
        );
        if let Some(why) = results.iter().find_map(|result| result.tally.first_wrong.as_ref()) {
            println!("{:16} first wrong reply: {why}", "");
        }
    }
}

fn print_gentle(rows: &[Row]) {
    println!("\nat {GENTLE} queries a second");
    println!(
        "{:16} {:>8} {:>16} {:>8} {:>16} {:>8} {:>7} {:>7}",
        "node", "CPU us", "x floor", "p50 us", "x floor", "p99 us", "lost", "wrong"
    );
    let quantile = |result: &Measured, q| f64::from(result.tally.clone().quantile(q));
    for row in rows {
        let pairs = || row.gentle.iter().zip(&rows[0].gentle);
        let cpu: Vec<f64> = pairs().map(|(own, floor)| own.cpu_micros / floor.cpu_micros).collect();
        let p50: Vec<f64> = pairs().map(|(own, floor)| quantile(own, 0.5) / quantile(floor, 0.5)).collect();
        println!(
            "{:16} {:>8.2} {:>16} {:>8.0} {:>16} {:>8.0} {:>7} {:>7}",
            row.name,
            median(row.gentle.iter().map(|result| result.cpu_micros)),
            spread(&cpu),
            median(row.gentle.iter().map(|result| quantile(result, 0.5))),
            spread(&p50),
            median(row.gentle.iter().map(|result| quantile(result, 0.99))),
            row.gentle.iter().map(|result| result.tally.lost).sum::<u64>(),
            row.gentle.iter().map(|result| result.tally.wrong).sum::<u64>(),
        );
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn spread(values: &[f64]) -> String {
    let min = values.iter().copied().fold(f64::INFINITY, f64::min);
    let max = values.iter().copied().fold(0.0, f64::max);
    format!("{min:.2}/{:.2}/{max:.2}", median(values.iter().copied()))
}

/// `program` on core 0, with all threads that it will ever have.
fn pinned(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", "0"]).arg(program);
    command
}

/// User and system time of all threads in clock ticks, of which Linux reports 100 a second.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a running process");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a running process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
    line.split_whitespace().next().unwrap().parse().unwrap_or(0)
}
