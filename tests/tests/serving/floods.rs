//! A real `btdht serve` under floods and for long (S5, S6, S22), in a network of internet-like
//! addresses, so that its limits per source are in force. What is counted is asserted: replies, memory,
//! descriptors. The whole forms, ignored for their length or for what they ask of the machine, run the
//! same functions.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::Command;
use std::time::{Duration, Instant};

use btdht::Rng;
use harness::load::{Load, Target, Tids};
use harness::mmsg::{Socket, Speaks};
use harness::process::{Running, binary};
use krpc::{Body, Id, Message, Query, Want};

use crate::memory_kib;

const NODE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(85, 255, 0, 1), 6882);
const HONEST: Ipv4Addr = Ipv4Addr::new(85, 200, 0, 1);
const GREEDY: Ipv4Addr = Ipv4Addr::new(85, 201, 0, 1);

/// A node in a network of its own; `None`, said aloud, where there can be none.
fn serve(test: &str, router: SocketAddrV4) -> Option<Running> {
    let program = binary("btdht");
    if !harness::rivals::ready(test, &[]) {
        return None;
    }
    let mut command = Command::new(program);
    command.args(["serve", "--ipv4-only", "--no-state", "--bind", "85.255.0.1", "--port", "6882"]);
    command.args(["--bootstrap", &router.to_string()]);
    let mut node = Running::start("btdht serve", &mut command);
    node.wait_for("the node listens", |line| line.starts_with("listening ").then_some(()));
    Some(node)
}

/// A query with a number in its transaction id.
fn encode(n: u32, query: Query<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let body = Body::Query { id: Id::new([7; 20]), query };
    Message { tid: &n.to_be_bytes(), version: None, ip: None, read_only: true, body }.encode(&mut bytes);
    bytes
}

/// Somebody who asks the node at a pace and counts what comes back.
struct Asker {
    socket: Socket,
    started: Instant,
    pause: Duration,
    asked: u32,
    sent_at: Vec<Instant>,
    /// Round trips in the order of the answers.
    answered: Vec<Duration>,
}

impl Asker {
    fn new(local: Ipv4Addr, per_second: u32) -> Self {
        let socket = Socket::bind(SocketAddrV4::new(local, 6881), Speaks::ForOne).unwrap();
        let pause = Duration::from_secs(1) / per_second;
        let started = Instant::now();
        Self { socket, started, pause, asked: 0, sent_at: Vec::new(), answered: Vec::new() }
    }

    /// Asks what is due by now, `most` at once, and takes what has come.
    fn turn(&mut self, query: Query<'_>, most: u32) {
        let due = (self.started.elapsed().as_nanos() / self.pause.as_nanos()) as u32;
        for _ in 0..due.saturating_sub(self.asked).min(most) {
            let bytes = encode(self.asked, query);
            self.socket.send(Ipv4Addr::UNSPECIFIED, NODE, &bytes).unwrap();
            self.sent_at.push(Instant::now());
            self.asked += 1;
        }
        self.socket.flush().unwrap();
        self.receive();
    }

    fn receive(&mut self) {
        let now = Instant::now();
        for n in 0..self.socket.receive(false).unwrap() {
            let Ok(message) = Message::decode(self.socket.received(n).bytes()) else { continue };
            if let Body::Response(_) = message.body {
                let number = u32::from_be_bytes(message.tid.try_into().expect("our own")) as usize;
                self.answered.push(now - self.sent_at[number]);
            }
        }
    }

    /// Waits until everything that was asked is answered, for a few seconds at most.
    fn finish(&mut self) {
        let end = Instant::now() + Duration::from_secs(5);
        while self.answered.len() < self.asked as usize && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
            self.receive();
        }
    }

    fn quantile(&mut self, q: f64) -> Duration {
        self.answered.sort();
        self.answered[((self.answered.len() - 1) as f64 * q) as usize]
    }
}

/// S5: random bytes from 1,000 sources at `per_second`; 95 % of the honest pings are answered.
fn garbage(test: &str, per_second: u32, span: Duration) {
    let Some(node) = serve(test, SocketAddrV4::new(Ipv4Addr::new(85, 9, 9, 9), 1)) else { return };
    let mut flood = Socket::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 7000), Speaks::ForAll).unwrap();
    let mut honest = Asker::new(HONEST, 20);
    let mut rng = Rng::from_seed(5);
    let mut bytes = vec![0; 600];
    let (started, mut sent) = (Instant::now(), 0u32);
    while started.elapsed() < span {
        let due = (started.elapsed().as_micros() as u64 * u64::from(per_second) / 1_000_000) as u32;
        for _ in 0..due.saturating_sub(sent).min(640) {
            let len = 16 + rng.below(500);
            rng.fill(&mut bytes[..len]);
            // A half of it has to be read to be told from a message.
            if sent % 2 == 0 {
                (bytes[0], bytes[len - 1]) = (b'd', b'e');
            }
            let source = Ipv4Addr::new(85, (sent % 1000 / 250) as u8, (sent % 250) as u8, 1);
            flood.send(source, NODE, &bytes[..len]).unwrap();
            sent += 1;
        }
        flood.flush().unwrap();
        honest.turn(Query::Ping, 2);
        std::thread::sleep(Duration::from_micros(500));
    }
    honest.finish();
    let (asked, answered) = (honest.asked as usize, honest.answered.len());
    let rate = f64::from(sent) / span.as_secs_f64();
    println!("{rate:.0} datagrams/s of garbage: {answered} of {asked} pings, {} KiB", memory_kib(node.pid()));
    assert!(answered * 100 >= asked * 95, "{answered} of {asked} pings answered");
    assert!(memory_kib(node.pid()) <= 100 << 10);
    // The garbage got nothing back.
    let mut back = 0;
    while let n @ 1.. = flood.receive(false).unwrap() {
        back += (0..n).filter(|&n| flood.received(n).remote == NODE).count();
    }
    assert_eq!(back, 0, "answers to garbage");
}

#[test]
fn garbage_from_a_thousand_sources_does_not_drown_honest_pings() {
    garbage("S5", 10_000, Duration::from_secs(3));
}

#[test]
#[ignore = "S5 whole: 100,000 datagrams a second ask for a release build and two idle cores"]
fn a_hundred_thousand_datagrams_of_garbage_a_second_do_not_drown_honest_pings() {
    garbage("S5 whole", 100_000, Duration::from_secs(10));
}

/// S6: one source asks `per_second` times; it gets its 25 a second, another gets all of its answers. The
/// other one's round trips.
fn greed(test: &str, per_second: u32, span: Duration) -> Option<Duration> {
    let node = serve(test, SocketAddrV4::new(Ipv4Addr::new(85, 9, 9, 9), 1))?;
    let (mut greedy, mut honest) = (Asker::new(GREEDY, per_second), Asker::new(HONEST, 20));
    let infohash = Id::new([9; 20]);
    let ask = Query::GetPeers { infohash, want: Want::UNSPECIFIED, scrape: false, no_seed: false };
    while greedy.started.elapsed() < span {
        greedy.turn(ask, 320);
        honest.turn(ask, 2);
        std::thread::sleep(Duration::from_micros(500));
    }
    honest.finish();
    greedy.receive();
    let seconds = greedy.started.elapsed().as_secs_f64();
    let (asked, got, most) = (greedy.asked, greedy.answered.len(), 50.0 + 25.0 * seconds + 1.0);
    let (wanted, answered) = (honest.asked as usize, honest.answered.len());
    let p99 = honest.quantile(0.99);
    println!("{got} of {asked} in {seconds:.1} s; the other {answered} of {wanted}, p99 {p99:?}");
    assert!(asked > 5000 && got as f64 <= most, "{got} replies to {asked} in {seconds} s");
    assert!(got >= 50, "{got}: even the greedy have their burst");
    assert!(answered * 100 >= wanted * 95, "{answered} of {wanted}");
    assert!(memory_kib(node.pid()) <= 100 << 10);
    Some(p99)
}

#[test]
fn one_greedy_source_gets_its_share_and_costs_others_nothing() {
    greed("S6", 10_000, Duration::from_secs(3));
}

#[test]
#[ignore = "S6 whole: its 20 ms ask for a release build and two idle cores"]
fn one_greedy_source_delays_others_by_no_more_than_20_ms() {
    let p99 = greed("S6 whole", 10_000, Duration::from_secs(10));
    assert!(p99.is_none_or(|p99| p99 <= Duration::from_millis(20)), "{p99:?}");
}

/// S22: 500 queries a second of all kinds. After `warm_up` the memory grows by no more than a MiB an hour
/// (a MiB in a run of less), and no descriptor is lost.
fn soak(test: &str, warm_up: Duration, span: Duration) {
    let Some(node) = serve(test, Load::router()) else { return };
    let mut load = Load::new(NODE, Target::Node, Tids::Any).unwrap();
    assert_eq!(load.announce_all(Duration::from_secs(60)).unwrap(), 10_000);
    load.open(500, warm_up).unwrap();
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", node.pid())).unwrap().count();
    let (memory, open) = (memory_kib(node.pid()), descriptors());
    let tally = load.open(500, span).unwrap();
    let (replies, lost) = (tally.replies, tally.lost);
    let grown = memory_kib(node.pid()).saturating_sub(memory);
    let hours = (span.as_secs_f64() / 3600.0).max(1.0);
    println!("{replies} replies, {lost} lost, {memory} KiB and {grown} more");
    assert!(grown as f64 <= 1024.0 * hours, "{grown} KiB more in {span:?}");
    assert_eq!(descriptors(), open);
    assert_eq!(tally.wrong, 0, "{:?}", tally.first_wrong);
    assert!(replies + lost >= 450 * span.as_secs() && lost * 20 <= replies, "{replies} replies, {lost} lost");
}

#[test]
fn memory_and_descriptors_stay_as_they_are_under_500_queries_a_second() {
    soak("S22", Duration::from_secs(10), Duration::from_secs(15));
}

#[test]
#[ignore = "S22 whole: 24 hours"]
fn memory_and_descriptors_stay_as_they_are_for_a_day() {
    soak("S22 whole", Duration::from_secs(3600), Duration::from_secs(23 * 3600));
}
