//! The simulator, twice. First its engine with hosts that do next to nothing: each asks a random one once a
//! second, with 100 bytes, and is answered with 300. Then a fleet of shipping nodes in a minute of upkeep.
//!
//!     cargo run --release -p harness --bin sim
//!     cargo run --release -p harness --bin sim -- --hosts 1000000 --seconds 10 --nodes 100000
//!     cargo run --release -p harness --bin sim -- --check
//!
//! Seconds are noisy, so that `--check` holds what can be counted, in smaller worlds: bytes a host,
//! events, allocations an event, and that every number of threads gives the same digest. Instructions an
//! event of the engine:
//!
//! ```text
//! valgrind --tool=callgrind --toggle-collect='*World*run*' target/release/sim --threads 1 --hosts 10000
//! ```
#![allow(clippy::unwrap_used)]
// A counting allocator cannot be written without.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use btdht::sim::fleet::{Fleet, Plan};
use btdht::sim::scenario::Unwatched;
use btdht::sim::{Digest, Host, Links, World};
use btdht::{Class, Outbox, Rng, Time};

/// Bytes of a question, and of the answer to it.
const QUESTION: usize = 100;
const ANSWER: usize = 300;
const PERIOD: Duration = Duration::from_secs(1);

struct Asker {
    rng: Rng,
    everybody: Arc<Vec<SocketAddr>>,
    next: Time,
}

impl Host for Asker {
    fn datagram(&mut self, _: Time, socket: u8, from: SocketAddr, bytes: &[u8], out: &mut Outbox) {
        if bytes.len() == QUESTION {
            out.send(socket, from, Class::Reply, |write| write.resize(write.len() + ANSWER, bytes[0]));
        }
    }

    fn timeout(&mut self, now: Time, out: &mut Outbox) {
        let to = self.everybody[self.rng.below(self.everybody.len())];
        let byte = self.rng.next_u32() as u8;
        out.send(0, to, Class::Query, |write| write.resize(write.len() + QUESTION, byte));
        self.next = now + PERIOD;
    }

    fn next(&self) -> Time {
        self.next
    }

    fn forged(&self, _: u8) -> Option<SocketAddr> {
        None
    }
}

/// What a run came to.
struct Measured {
    digest: Digest,
    /// Events a second of the wall clock.
    speed: f64,
    /// Virtual seconds a second of the wall clock.
    pace: f64,
    allocations: u64,
    events: u64,
    /// Of the engine, or of all that a fleet takes; with everything under way.
    bytes_per_host: f64,
    under_way: usize,
}

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let number = |flag: &str, default: u64| {
        let at = words.iter().position(|word| word == flag);
        at.map_or(default, |at| words[at + 1].parse().unwrap())
    };
    let checks = words.iter().any(|word| word == "--check");
    let hosts = number("--hosts", if checks { 20_000 } else { 100_000 }) as usize;
    let nodes = number("--nodes", if checks { 2000 } else { 10_000 }) as usize;
    let seconds = number("--seconds", if checks { 5 } else { 10 });
    let threads = match number("--threads", 0) as usize {
        0 => vec![1, 2],
        threads => vec![threads],
    };
    println!(
        "{:>7} {:>9} {:>9} {:>13} {:>10} {:>11} {:>10} {:>9}",
        "threads", "hosts", "events", "events/s", "virtual/s", "allocations", "B a host", "under way"
    );
    let engine: Vec<_> =
        threads.iter().map(|&threads| show(threads, hosts, run(hosts, seconds, threads))).collect();
    let fleet: Vec<_> = threads.iter().map(|&threads| show(threads, nodes, upkeep(nodes, threads))).collect();
    if checks {
        check(&engine, 0.001, 100.0);
        // Of 2,000 nodes, with 67 others in a table.
        check(&fleet, MOST_ALLOCATIONS, MOST_BYTES);
        let rate = fleet[0].events as f64 / nodes as f64 / MINUTE.as_secs_f64();
        assert!(EVENTS.contains(&rate), "{rate} events a node and second");
        println!("one digest each, no more events, bytes and allocations than there should be");
    }
}

/// Events of a node in a second of its fleet's first minute, in which a fifteenth of its table comes to be
/// pinged. A fleet that does not start in the middle of its upkeep has twice as many.
const EVENTS: std::ops::Range<f64> = 0.4..0.65;
/// Allocations an event: those of lookups and of what a query in flight takes.
const MOST_ALLOCATIONS: f64 = 1.45;
/// Bytes of a node of 2,000, all told.
const MOST_BYTES: f64 = 4600.0;
const MINUTE: Duration = Duration::from_secs(60);

fn show(threads: usize, hosts: usize, measured: Measured) -> Measured {
    println!(
        "{threads:>7} {hosts:>9} {:>9} {:>13.0} {:>10.2} {:>11} {:>10.1} {:>9}",
        measured.events,
        measured.speed,
        measured.pace,
        measured.allocations,
        measured.bytes_per_host,
        measured.under_way
    );
    measured
}

/// The same on every number of threads, and no more than so many allocations an event and bytes a host.
fn check(all: &[Measured], allocations: f64, bytes: f64) {
    for measured in all {
        assert_eq!(measured.digest, all[0].digest, "digests differ");
        assert_eq!(measured.events, all[0].events, "events differ");
        // Tables still grow a little when the most that is under way is exceeded.
        let share = measured.allocations as f64 / measured.events as f64;
        assert!(share < allocations, "{share} allocations an event");
        assert!(measured.bytes_per_host < bytes, "{} bytes a host", measured.bytes_per_host);
    }
}

/// A minute of upkeep in a fleet of shipping nodes.
fn upkeep(nodes: usize, threads: usize) -> Measured {
    let held = HELD.load(Ordering::Relaxed);
    let mut fleet = Fleet::grow(Plan::new(nodes, 1, threads), Vec::new(), &mut Unwatched).unwrap();
    let (before, allocated) = (fleet.world.stats().events(), ALLOCATIONS.load(Ordering::Relaxed));
    let start = Instant::now();
    fleet.run(MINUTE, "running", &mut Unwatched).unwrap();
    let elapsed = start.elapsed().as_secs_f64();
    let events = fleet.world.stats().events() - before;
    Measured {
        digest: fleet.world.digest(),
        speed: events as f64 / elapsed,
        pace: MINUTE.as_secs_f64() / elapsed,
        allocations: ALLOCATIONS.load(Ordering::Relaxed) - allocated,
        events,
        bytes_per_host: (HELD.load(Ordering::Relaxed) - held) as f64 / nodes as f64,
        under_way: fleet.world.under_way(),
    }
}

fn run(hosts: usize, seconds: u64, threads: usize) -> Measured {
    let mut world = World::new(1, Links::default(), threads);
    world.reserve(hosts);
    let everybody = Arc::new((0..hosts).map(|n| world.addr(n)).collect::<Vec<_>>());
    for n in 0..hosts {
        let mut rng = Rng::from_seed(n as u64);
        let next = world.now() + Duration::from_micros(rng.below(PERIOD.as_micros() as usize) as u64);
        world.add(Asker { rng, everybody: Arc::clone(&everybody), next }, 0);
    }
    // Two seconds to fill the arenas.
    world.run(world.now() + 2 * PERIOD, |_, _| ());
    let (before, allocated) = (world.stats().events(), ALLOCATIONS.load(Ordering::Relaxed));
    let start = Instant::now();
    world.run(world.now() + Duration::from_secs(seconds), |_, _| ());
    let elapsed = start.elapsed().as_secs_f64();
    let events = world.stats().events() - before;
    Measured {
        digest: world.digest(),
        speed: events as f64 / elapsed,
        pace: seconds as f64 / elapsed,
        allocations: ALLOCATIONS.load(Ordering::Relaxed) - allocated,
        events,
        bytes_per_host: world.memory() as f64 / hosts as f64,
        under_way: world.under_way(),
    }
}

/// The system's allocator, how often it was asked for memory and what is held of it, by all threads.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static HELD: AtomicI64 = AtomicI64::new(0);

/// Books a block as what glibc spends on it; see `harness::heap`.
fn book(size: usize, sign: i64) {
    HELD.fetch_add(sign * (size + 8).next_multiple_of(16).max(32) as i64, Ordering::Relaxed);
}

// SAFETY: every call goes to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        book(layout.size(), 1);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        book(layout.size(), -1);
        // SAFETY: `at` came from `alloc` or `realloc` above with this layout.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        book(layout.size(), -1);
        book(size, 1);
        // SAFETY: as for `dealloc`; the caller keeps the contract of `realloc` about `size`.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;
