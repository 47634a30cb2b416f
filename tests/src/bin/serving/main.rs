//! Serving under load: what a DHT node costs per query, beside the floor and other nodes.
//!
//!     cargo build --release -p btdht -p harness
//!     tests/interop/install.sh                                  (libtorrent, mainline, rqbit)
//!     serving compare [--repetitions 5] [--seconds 5] [--only NAME,...] [--check]
//!     serving kinds   [...]      the same per kind of query
//!     serving memory  [--infohashes 100000] [--only NAME,...]   bytes per stored peer
//!     serving soak    [--replies 10000000] [--only NAME,...]    counts what is lost or wrong
//!     serving echo ADDR:PORT     the floor: recvmmsg/sendmmsg with replies of 288 bytes
//!
//! `compare` enters a network namespace in which 85/8 is local (root is needed). Each node runs beside the
//! floor and nothing else, both pinned to core 0, the generator to core 1. Repetitions interleave, and in each
//! the floor and the node are asked in eight turns: what the machine does within seconds it does to both. The
//! node is divided by the floor; medians are compared. The limits of all nodes are lifted. Rows: replies a
//! second with 128 queries outstanding, CPU of the node's process per query (user and system, as the scheduler
//! counts), its ratio to the floor (min/median/max), memory, and at 5,000 queries a second and at half of its
//! own replies a second CPU, median and 99th percentile of the round trip, and the part of a core that it took
//! in the floor's turns; there the floor has half of its own. Behind them stand the goals of our own node and
//! whether it meets them; with `--check` a goal that is missed is a failure, and so is a program that is not
//! there, ours or one that `--only` does not leave out: what was not measured is not met. A node whose table
//! did not fill, or that did not store all that was announced, has a mark in its row: it answered less than the
//! others; our own one fails.
#![allow(clippy::unwrap_used)]

mod goals;
mod pair;
mod programs;
mod report;

use std::collections::BTreeSet;
use std::net::SocketAddrV4;
use std::process::Command;
use std::time::Duration;

use harness::load::{Kind, Load, Tally, Target, Tids};
use harness::mmsg::{Socket, Speaks};
use harness::process::Running;

use self::pair::{Pair, Rates};
use self::programs::Missing;

const NODE: &str = "85.255.0.1:6882";
const FLOOR: &str = "85.255.0.2:6882";
const WINDOW: usize = 128;
const GENTLE: u32 = 5_000;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.first().map(String::as_str) {
        Some("echo") => echo(words[1].parse().expect("ADDR:PORT")),
        Some("compare") => compare(&Options::parse(&words[1..]), &[None]),
        Some("kinds") => compare(&Options::parse(&words[1..]), &Kind::ALL.map(Some)),
        Some("memory") => memory(&Options::parse(&words[1..])),
        Some("soak") => soak(&Options::parse(&words[1..])),
        _ => panic!(
            "serving compare|kinds [--repetitions N] [--seconds N] [--only NAME,...] [--check] | \
             serving memory [--infohashes N] [--only NAME,...] | serving soak [--replies N] [--only NAME,...] | serving echo ADDR:PORT"
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
    replies: u64,
    infohashes: u32,
    only: Option<Vec<String>>,
    /// Whether goals that are missed are a failure.
    check: bool,
}

impl Options {
    fn parse(words: &[String]) -> Self {
        let (repetitions, seconds, replies, infohashes) = (5, 5, 10_000_000, 100_000);
        let mut options = Self { repetitions, seconds, replies, infohashes, only: None, check: false };
        let mut words = words.iter();
        while let Some(key) = words.next() {
            let mut value = || words.next().unwrap_or_else(|| panic!("{key} wants a value"));
            match key.as_str() {
                "--repetitions" => options.repetitions = value().parse().expect("a number"),
                "--seconds" => options.seconds = value().parse().expect("a number"),
                "--replies" => options.replies = value().parse().expect("a number"),
                "--infohashes" => options.infohashes = value().parse().expect("a number"),
                "--only" => options.only = Some(value().split(',').map(str::to_owned).collect()),
                "--check" => options.check = true,
                _ => panic!("unknown option {key}"),
            }
        }
        options
    }

    fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only.iter().any(|wanted| wanted == name))
    }
}

/// A program that serves, how to ask it, and how it did.
struct Row {
    name: &'static str,
    target: Target,
    tids: Tids,
    command: Command,
    /// Of each kind, of each repetition.
    closed: Vec<Vec<Measured>>,
    gentle: Vec<Measured>,
    /// At half of what it did just before.
    half: Vec<Measured>,
    memory: Memory,
    /// What it did not take in before it was measured.
    flaws: BTreeSet<String>,
}

struct Measured {
    tally: Tally,
    cpu_micros: f64,
    /// CPU that it took while the floor was asked, of a core.
    aside_percent: f64,
    /// The floor in turns with it.
    floor: Floor,
}

/// What the floor cost.
#[derive(Clone, Copy)]
struct Floor {
    cpu_micros: f64,
    rate: f64,
    p50_micros: f64,
}

/// Resident KiB of a node in its last repetition.
#[derive(Clone, Copy, Default)]
struct Memory {
    fresh: u64,
    loaded: u64,
    /// Before and behind the announces, and how many were stored.
    storing: (u64, u64, usize),
}

/// The floor, the nodes that are wanted, and those that are wanted and are not there.
fn prepare(options: &Options) -> (Row, Vec<Row>, Vec<Missing>) {
    harness::netns::enter().expect("root");
    let myself = std::process::id().to_string();
    let pinned = Command::new("taskset").args(["-a", "-c", "-p", "1", &myself]).output();
    assert!(
        pinned.is_ok_and(|output| output.status.success()),
        "taskset (util-linux) cannot pin the generator"
    );
    let (mut nodes, mut missing) = programs::nodes();
    nodes.retain(|row| options.wants(row.name));
    missing.retain(|missing| options.wants(missing.name));
    missing.iter().for_each(|Missing { name, why }| eprintln!("SKIPPED {name}: {why}"));
    (programs::floor(), nodes, missing)
}

fn compare(options: &Options, kinds: &[Option<Kind>]) {
    let (mut floor, mut nodes, missing) = prepare(options);
    let unchecked = goals::unchecked(&nodes, &missing);
    if options.check && !unchecked.is_empty() {
        // Said before the minutes that measuring takes.
        unchecked.iter().for_each(|why| eprintln!("NOT CHECKED: {why}"));
        std::process::exit(1);
    }
    for repetition in 0..options.repetitions {
        for row in &mut nodes {
            run(row, &mut floor, kinds, options);
            eprintln!("{} {}/{}", row.name, repetition + 1, options.repetitions);
        }
    }
    for (n, kind) in kinds.iter().enumerate() {
        println!("\n{}", kind.map_or("the mix".to_owned(), |kind| format!("{kind:?} only")));
        report::print_closed(&floor, &nodes, n);
    }
    if kinds == [None] {
        report::print_open(&format!("{GENTLE} queries a second"), &floor, &nodes, |row| &row.gentle);
        report::print_open("half of its own replies a second", &floor, &nodes, |row| &row.half);
    }
    let goals = goals::of(&nodes, kinds);
    goals::print(&goals);
    let fails = options.check && !goals.iter().all(goals::Goal::is_met);
    std::process::exit(i32::from(fails || is_flawed(&nodes)));
}

/// Whether our own node did not take in what it was given.
fn is_flawed(nodes: &[Row]) -> bool {
    nodes.iter().any(|row| row.name == programs::OURS && !row.flaws.is_empty())
}

/// Measures a program once, and the floor with it.
fn run(row: &mut Row, floor: &mut Row, kinds: &[Option<Kind>], options: &Options) {
    let mut echo = Running::start(floor.name, &mut floor.command);
    await_listening(&mut echo, floor.name);
    floor.memory.fresh = resident_kib(echo.pid());
    let (node, load) = start(row);
    let mut pair = Pair { echo, node, load };
    let echo_at = FLOOR.parse().expect("an address");
    pair.load.visiting(echo_at, |load| load.closed(WINDOW, Duration::from_secs(1))).expect("a network");
    for results in [&mut row.closed, &mut floor.closed] {
        results.resize_with(kinds.len(), Vec::new);
    }
    let mut half = Rates { floor: 1, node: 1 };
    for (n, kind) in kinds.iter().enumerate() {
        pair.load.only(*kind);
        let (of_floor, of_node) = pair.measure(options, |load, _, span| load.closed(WINDOW, span));
        let half_of = |measured: &Measured| (measured.tally.rate() as u32 / 2).max(1);
        half = Rates { floor: half_of(&of_floor), node: half_of(&of_node) };
        floor.closed[n].push(of_floor);
        row.closed[n].push(of_node);
    }
    if kinds == [None] {
        let gentle = Rates { floor: GENTLE, node: GENTLE };
        let (of_floor, of_node) = pair.measure(options, |load, who, span| load.open(gentle.of(who), span));
        floor.gentle.push(of_floor);
        row.gentle.push(of_node);
        let (of_floor, of_node) = pair.measure(options, |load, who, span| load.open(half.of(who), span));
        floor.half.push(of_floor);
        row.half.push(of_node);
    }
    floor.memory.loaded = resident_kib(pair.echo.pid());
    row.memory.loaded = resident_kib(pair.node.pid());
}

/// Starts a program and gives it nodes and peers.
fn start(row: &mut Row) -> (Running, Load) {
    let mut node = Running::start(row.name, &mut row.command);
    await_listening(&mut node, row.name);
    row.memory.fresh = resident_kib(node.pid());
    let mut load = Load::new(NODE.parse().unwrap(), row.target, row.tids).unwrap();
    if row.name == programs::OURS {
        load.demand_near();
    }
    if row.target == Target::Node {
        if !load.teach(Duration::from_secs(40)).unwrap() {
            row.flaws.insert("its routing table does not fill up".to_owned());
        }
        let before = resident_kib(node.pid());
        let stored = load.announce_all(Duration::from_secs(60)).unwrap();
        if stored != 10_000 {
            row.flaws.insert(format!("stored {stored} of 10000 announces"));
        }
        row.memory.storing = (before, resident_kib(node.pid()), stored);
    }
    load.closed(WINDOW, Duration::from_secs(1)).unwrap();
    (node, load)
}

fn await_listening(node: &mut Running, name: &str) {
    let listening =
        node.wait_within(Duration::from_secs(20), |line| line.contains("listening").then_some(()));
    listening.unwrap_or_else(|why| panic!("{name}: {why}\n{}", node.stderr()));
}

/// Announces ten peers of each of many infohashes to each node, and tells what of its resident memory they took.
fn memory(options: &Options) {
    let (_, mut nodes, _) = prepare(options);
    println!(
        "| node | peers stored | RSS before, MiB | behind, MiB | bytes per stored peer |\n|---|---|---|---|---|"
    );
    for row in &mut nodes {
        let mut node = Running::start(row.name, &mut row.command);
        await_listening(&mut node, row.name);
        let node_at = NODE.parse().unwrap();
        let mut load = Load::of_infohashes(node_at, row.target, row.tids, options.infohashes).unwrap();
        load.teach(Duration::from_secs(40)).unwrap();
        let before = resident_kib(node.pid());
        let stored = load.announce_all(Duration::from_secs(300)).unwrap();
        let behind = resident_kib(node.pid());
        let each = (behind.saturating_sub(before) * 1024) as f64 / stored.max(1) as f64;
        let mib = |kib: u64| kib as f64 / 1024.0;
        println!("| {} | {stored} | {:.1} | {:.1} | {each:.1} |", row.name, mib(before), mib(behind));
    }
    std::process::exit(i32::from(nodes.is_empty()));
}

/// Asks until so many replies have come, with transaction ids of 1 to 32 bytes where the node takes
/// them; the exit code says whether one was lost or wrong.
fn soak(options: &Options) {
    let (_, mut nodes, _) = prepare(options);
    nodes.retain(|row| options.only.is_some() || row.name == programs::OURS);
    let mut faults = 0;
    for row in &mut nodes {
        let (node, mut load) = start(row);
        let (mut replies, mut lost, mut wrong, mut seconds) = (0, 0, 0, 0.0);
        while replies < options.replies {
            let tally = load.closed(WINDOW, Duration::from_secs(10)).unwrap();
            assert!(tally.replies > 0, "{} has fallen silent after {replies} replies", row.name);
            (replies, lost, wrong) = (replies + tally.replies, lost + tally.lost, wrong + tally.wrong);
            seconds += tally.seconds;
            if let Some(why) = tally.first_wrong {
                println!("{}: wrong: {why}", row.name);
            }
        }
        let resident = resident_kib(node.pid()) as f64 / 1024.0;
        println!(
            "{}: {replies} replies in {seconds:.0} s, {lost} lost, {wrong} wrong, {resident:.1} MiB resident",
            row.name
        );
        faults += lost + wrong;
    }
    for row in &nodes {
        report::print_flaws(row);
    }
    std::process::exit(i32::from(faults > 0 || nodes.is_empty() || is_flawed(&nodes)));
}

/// What the threads of a process have run so far, as the scheduler counts it: the 10 ms of `/proc/PID/stat`
/// are too coarse for 5,000 queries a second. None of the nodes ends a thread while it is measured.
fn cpu_nanos(pid: u32) -> u64 {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("a running process");
    let ran =
        threads.flatten().filter_map(|thread| std::fs::read_to_string(thread.path().join("schedstat")).ok());
    ran.filter_map(|stat| stat.split_whitespace().next()?.parse::<u64>().ok()).sum()
}

fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a running process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
    line.split_whitespace().next().unwrap().parse().unwrap_or(0)
}
