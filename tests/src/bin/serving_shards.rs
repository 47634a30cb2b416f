//! What a second serving core adds, against the goal of 1.7 times the replies of one:
//!
//!     cargo build --release -p harness --bin serving_shards
//!     serving_shards [--repetitions 9] [--millis 300] [--check]      the latter fails where the goal is missed
//!     serving_shards count whole|deciding|satellite ROUNDS      one core, for counting instructions
//!
//! A machine of two cores cannot hold the load generator and two shards at full speed. So each shard is
//! stepped by a thread pinned to a core of its own, which asks it too: it sends a batch of queries of the mix
//! of the serving benchmark (10 % ping, 40 % find_node, 20 % get_peers that hit, 20 % that miss, 10 %
//! announce_peer) to the shard's socket on loopback, has the shard receive, answer and send, and takes
//! the replies. Only the shard's part is counted, as CPU time of the thread, and replies are compared in
//! equal CPU time. What shards share is the real thing: snapshot, stripes, budgets (kept for each source and
//! for all, but too large to be exhausted), tokens, and a bounded channel for what crosses.
//!
//! Rows: *one* is a node that was not split, *two* its deciding half and a satellite at the same time, and
//! *apart* two nodes at the same time that share nothing: what the machine's second core is worth by itself.
//! Repetitions interleave; the ratios are of the same repetition. *bare* is the same without sockets: the
//! cores alone, which is seven times less work for each query that two shards meet over.
#![allow(clippy::unwrap_used)]

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use btdht::shards::{Crossing, Satellite};
use btdht::{Class, Config, Node, Outbox, Time};
use harness::mmsg::{Socket, Speaks};
use harness::strangers::{BATCH, World};
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

const GOAL: f64 = 1.7;
/// Written beforehand for each shard.
const QUERIES: usize = 20_000;
/// Crossings that wait, as in the shell.
const CROSSINGS: usize = 2048;

/// How queries come to a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Through the kernel.
    Sockets,
    /// As function calls.
    Bare,
}

/// Queries and whom they come from.
type Queries = Vec<(SocketAddr, Vec<u8>)>;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let mut words = words.iter().map(String::as_str);
    let (mut repetitions, mut millis, mut check) = (9, 300, false);
    while let Some(word) = words.next() {
        let mut value = || words.next().expect("a value");
        match word {
            "--repetitions" => repetitions = value().parse().expect("a number"),
            "--millis" => millis = value().parse().expect("a number"),
            "--check" => check = true,
            "count" => return count(value(), value().parse().expect("a number of rounds")),
            _ => panic!(
                "serving_shards [--repetitions N] [--millis N] [--check] | count whole|deciding|satellite ROUNDS"
            ),
        }
    }
    let met = compare(repetitions, Duration::from_millis(millis));
    std::process::exit(i32::from(check && !met));
}

/// Prints all rows and the goal; whether it is met.
fn compare(repetitions: usize, span: Duration) -> bool {
    println!(
        "          replies per ms of CPU time, and ratio to one: median of {repetitions} (least to most)"
    );
    let whole = rows(repetitions, span, Way::Sockets);
    rows(repetitions, span, Way::Bare);
    let met = whole >= GOAL;
    println!("goal {GOAL:.2}: {}", if met { "met" } else { "MISSED" });
    met
}

/// Prints the rows of one way; the ratio of two shards to one.
fn rows(repetitions: usize, span: Duration, way: Way) -> f64 {
    let mut rows: [Vec<f64>; 3] = Default::default();
    for _ in 0..repetitions {
        for (row, run) in rows.iter_mut().zip([one, two, apart]) {
            row.push(run(span, way));
        }
    }
    let ratios = |row: &[f64]| {
        let mut ratios: Vec<f64> = row.iter().zip(&rows[0]).map(|(row, one)| row / one).collect();
        ratios.sort_by(f64::total_cmp);
        ratios
    };
    for (name, row) in ["one", "two", "apart"].iter().zip(&rows) {
        let ratios = ratios(row);
        let (least, most) = (ratios[0], ratios[ratios.len() - 1]);
        let (rate, ratio) = (median(row.clone()), median(ratios));
        println!("{way:?} {name:6} {rate:6.0}   {ratio:.2} ({least:.2} to {most:.2})");
    }
    median(ratios(&rows[1]))
}

/// A node that was not split: its replies per ms.
fn one(span: Duration, way: Way) -> f64 {
    let start = Barrier::new(1);
    let mut world = World::new(config(), 0);
    let (now, queries) = (world.now, queries(&mut world, |_| true));
    let mut deciding = Deciding { node: world.node, crossings: None };
    measure((0, way), span, (now, &start), &queries, |now, batch, out| deciding.answer(now, batch, out))
}

/// The deciding half and a satellite, each on its core: their replies per ms.
fn two(span: Duration, way: Way) -> f64 {
    let start = &Barrier::new(2);
    let mut world = World::new(config(), 1);
    // The kernel gives all datagrams of one port to one socket.
    let (now, even, odd) =
        (world.now, queries(&mut world, |n| n % 2 == 0), queries(&mut world, |n| n % 2 == 1));
    let (sender, receiver) = sync_channel(CROSSINGS);
    let mut serving =
        Serving { core: world.satellites.pop().unwrap(), crossed: Vec::new(), crossings: sender };
    let mut deciding = Deciding { node: world.node, crossings: Some(receiver) };
    thread::scope(|scope| {
        let serving = scope.spawn(move || {
            measure((1, way), span, (now, start), &odd, |now, batch, out| serving.answer(now, batch, out))
        });
        let gained =
            measure((0, way), span, (now, start), &even, |now, batch, out| deciding.answer(now, batch, out));
        gained + serving.join().unwrap()
    })
}

/// Two nodes that share nothing, each on its core: their replies per ms.
fn apart(span: Duration, way: Way) -> f64 {
    let start = Arc::new(Barrier::new(2));
    let nodes = [0, 1].map(|core| {
        let start = Arc::clone(&start);
        thread::spawn(move || {
            let mut world = World::new(config(), 0);
            let (now, queries) = (world.now, queries(&mut world, |_| true));
            let mut deciding = Deciding { node: world.node, crossings: None };
            measure((core, way), span, (now, &start), &queries, |now, batch, out| {
                deciding.answer(now, batch, out);
            })
        })
    });
    nodes.into_iter().map(|node| node.join().unwrap()).sum()
}

/// Runs one core alone over the mix.
fn count(which: &str, rounds: usize) {
    let begun = Instant::now();
    let mut world = World::new(config(), usize::from(which != "whole"));
    let (now, queries) = (world.now, queries(&mut world, |_| true));
    let (sender, receiver) = sync_channel(CROSSINGS);
    let mut deciding = Deciding { node: world.node, crossings: Some(receiver) };
    let mut serving =
        world.satellites.pop().map(|core| Serving { core, crossed: Vec::new(), crossings: sender });
    let mut out = Outbox::new();
    for batch in queries.chunks(BATCH).cycle().take(rounds / BATCH) {
        let now = now + begun.elapsed();
        match (&mut serving, which) {
            (Some(serving), "satellite") => serving.answer(now, batch, &mut out),
            _ => deciding.answer(now, batch, &mut out),
        }
        out.clear();
    }
}

/// Gives batches to `answer` until this thread has used `span` of CPU time for them, pinned to `core`:
/// replies per ms of it.
fn measure(
    (core, way): (usize, Way),
    span: Duration,
    (now, start): (Time, &Barrier),
    queries: &Queries,
    mut answer: impl FnMut(Time, &[(SocketAddr, Vec<u8>)], &mut Outbox),
) -> f64 {
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).expect("two cores");
    let mut wire = (way == Way::Sockets).then(Wire::new);
    let (mut out, clock) = (Outbox::new(), Instant::now());
    let mut batches = queries.chunks_exact(BATCH).cycle();
    let mut turn = || {
        let batch = batches.next().expect("an endless iterator");
        if let Some(wire) = &mut wire {
            wire.ask(batch);
        }
        let begun = cpu_time();
        if let Some(wire) = &mut wire {
            wire.receive();
        }
        answer(now + clock.elapsed(), batch, &mut out);
        if let Some(wire) = &mut wire {
            wire.reply(&out);
        }
        let used = cpu_time() - begun;
        let replies = out.transmits.iter().filter(|sent| sent.class == Class::Reply).count();
        out.clear();
        if let Some(wire) = &mut wire {
            wire.take(replies);
        }
        (replies, used)
    };
    // Once without counting, so that caches and tables are warm.
    for _ in 0..QUERIES / BATCH {
        turn();
    }
    start.wait();
    let (mut asked, mut replies, mut used) = (0, 0, Duration::ZERO);
    while used < span {
        let (answered, spent) = turn();
        (asked, replies, used) = (asked + BATCH, replies + answered, used + spent);
    }
    assert_eq!(replies, asked, "every query is answered");
    replies as f64 / used.as_secs_f64() / 1e3
}

/// A shard's socket and that of who asks it.
struct Wire {
    asker: Socket,
    shard: Socket,
}

impl Wire {
    fn new() -> Self {
        let bind = || Socket::bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0), Speaks::ForOne).unwrap();
        Self { asker: bind(), shard: bind() }
    }

    fn ask(&mut self, batch: &[(SocketAddr, Vec<u8>)]) {
        let to = self.shard.local_addr().unwrap();
        for (_, query) in batch {
            self.asker.send(Ipv4Addr::UNSPECIFIED, to, query).unwrap();
        }
        self.asker.flush().unwrap();
    }

    fn receive(&mut self) {
        let mut received = 0;
        while received < BATCH {
            received += self.shard.receive(true).unwrap();
        }
    }

    fn reply(&mut self, out: &Outbox) {
        let to = self.asker.local_addr().unwrap();
        for sent in out.transmits.iter().filter(|sent| sent.class == Class::Reply) {
            self.shard.send(Ipv4Addr::UNSPECIFIED, to, out.datagram(sent)).unwrap();
        }
        self.shard.flush().unwrap();
    }

    fn take(&mut self, replies: usize) {
        let mut received = 0;
        while received < replies {
            received += self.asker.receive(true).unwrap();
        }
    }
}

/// The deciding shard, or a whole node.
struct Deciding {
    node: Node,
    crossings: Option<Receiver<Crossing>>,
}

impl Deciding {
    fn answer(&mut self, now: Time, batch: &[(SocketAddr, Vec<u8>)], out: &mut Outbox) {
        for (from, bytes) in batch {
            self.node.handle_datagram(now, 0, *from, bytes, out);
        }
        for crossing in self.crossings.iter().flat_map(Receiver::try_iter).take(256) {
            self.node.handle_crossing(now, crossing, out);
        }
        if self.node.timeout() <= now {
            self.node.handle_timeout(now, out);
        }
    }
}

/// A serving shard.
struct Serving {
    core: Satellite,
    crossed: Vec<Crossing>,
    crossings: SyncSender<Crossing>,
}

impl Serving {
    fn answer(&mut self, now: Time, batch: &[(SocketAddr, Vec<u8>)], out: &mut Outbox) {
        for (from, bytes) in batch {
            self.core.handle_datagram(now, (0, *from), bytes, (out, &mut self.crossed));
        }
        for crossing in self.crossed.drain(..) {
            // Nobody takes them any more at the end.
            let _ = self.crossings.try_send(crossing);
        }
    }
}

/// Budgets that are kept as everywhere, but that this load does not exhaust.
fn config() -> Config {
    Config {
        replies_per_second_per_ip: 1_000_000,
        reply_burst_per_ip: 1_000_000,
        reply_bytes_per_second: 1_000_000_000_000,
        ..Config::default()
    }
}

/// The mix, of the sources that are wanted.
fn queries(world: &mut World, wanted: impl Fn(u32) -> bool) -> Queries {
    let mix = world.mix(3 * QUERIES).into_iter().filter(|(source, ..)| wanted(*source));
    mix.map(|(_, from, query)| (from, query)).take(QUERIES).collect()
}

fn cpu_time() -> Duration {
    let used = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(used.tv_sec as u64, used.tv_nsec as u32)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
