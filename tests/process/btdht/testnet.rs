//! `btdht testnet`: a network in one process, and what other processes do with it.

use std::net::{SocketAddr, UdpSocket};
#[cfg(target_os = "linux")]
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Home, INFOHASH, Running, run};

/// A running network, with what it printed.
struct Net {
    running: Running,
    bootstrap: SocketAddr,
    /// Infohash and peer of each announce.
    announced: Vec<(String, SocketAddr)>,
    /// The command to try, without the name of the program.
    command: Vec<String>,
}

impl Net {
    fn start(home: &Home, args: &[&str]) -> Self {
        let running = Running::start(&mut home.command(&[&["testnet", "--json"], args].concat()));
        let (mut bootstrap, mut announced) = (None, Vec::new());
        loop {
            let event: Value = serde_json::from_str(&running.line(|_| true)).unwrap();
            let text = |key: &str| event[key].as_str().unwrap_or_else(|| panic!("{key} of {event}"));
            match text("event") {
                "bootstrap" => bootstrap = Some(text("addr").parse().unwrap()),
                "announced" => announced.push((text("infohash").to_owned(), text("peer").parse().unwrap())),
                "ready" => {
                    let mut words = text("command").split(' ').map(str::to_owned);
                    assert_eq!(words.next().as_deref(), Some("btdht"));
                    let (bootstrap, command) = (bootstrap.expect("said first"), words.collect());
                    return Self { running, bootstrap, announced, command };
                }
                _ => panic!("{event}"),
            }
        }
    }
}

#[test]
fn other_processes_announce_and_look_up_through_a_testnet_until_a_signal() {
    let home = Home::new();
    let net = Net::start(&home, &["--nodes", "20"]);
    let router = net.bootstrap.to_string();

    // What it proposes finds what it announced, and needs nothing else.
    let proposed: Vec<_> = net.command.iter().map(String::as_str).collect();
    let found = home.run(&proposed).expect_code(0);
    let mut peers: Vec<SocketAddr> = found.stdout.lines().map(|line| line.parse().unwrap()).collect();
    let mut expected: Vec<_> = net.announced.iter().map(|(_, peer)| *peer).collect();
    peers.sort();
    expected.sort();
    assert_eq!((peers, expected.len()), (expected, 2));

    let stored = run(&["announce", INFOHASH, "--peer-port", "7001"], &router).expect_code(0);
    assert_eq!(stored.stdout.lines().count(), 8, "{stored:#?}");
    let found = run(&["get-peers", INFOHASH], &router).expect_code(0);
    assert_eq!(found.stdout, "127.0.0.1:7001\n");

    net.running.signal("-INT");
    let finished = net.running.finish().expect_code(130);
    assert_eq!((finished.stdout.as_str(), finished.stderr.as_str()), ("", ""));
}

#[test]
fn latency_and_loss_leave_a_testnet_usable_and_a_termination_ends_it() {
    let home = Home::new();
    let own = format!("{INFOHASH}:7002");
    let args = ["--nodes", "30", "--latency", "2..6", "--loss", "5", "--swarm", "0", "--announce", &own];
    let net = Net::start(&home, &args);
    assert_eq!(net.announced, [(INFOHASH.to_owned(), ([127, 0, 0, 1], 7002).into())]);
    let proposed: Vec<_> = net.command.iter().map(String::as_str).collect();
    assert_eq!(home.run(&proposed).expect_code(0).stdout, "127.0.0.1:7002\n");
    net.running.signal("-TERM");
    net.running.finish().expect_code(143);
}

#[test]
fn an_announce_that_nobody_stored_is_not_told_but_warned_of() {
    let home = Home::new();
    let net = Net::start(&home, &["--nodes", "2", "--loss", "100", "--swarm", "1"]);
    assert_eq!(net.announced, []);
    net.running.signal("-INT");
    let finished = net.running.finish().expect_code(130);
    assert!(finished.stderr.contains("no node has stored an announce yet"), "{finished:#?}");
}

#[test]
fn the_first_node_takes_the_port_that_was_asked_for() {
    let home = Home::new();
    let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let port = free.port().to_string();
    let running = Running::start(&mut home.command(&["testnet", "--nodes", "2", "--port", &port]));
    let line = running.line(|line| line.starts_with("bootstrap "));
    assert_eq!(line, format!("bootstrap {free}"));
    let refused = home.run(&["testnet", "--nodes", "2", "--port", &port]).expect_code(3);
    assert!(refused.error().contains(&free.to_string()), "{refused:#?}");
    // With two nodes the other one stores it.
    let command = running.line(|line| line.starts_with("btdht get-peers "));
    let words: Vec<_> = command.split(' ').skip(1).collect();
    assert!(!home.run(&words).expect_code(0).stdout.is_empty());
}

#[test]
fn wrong_usage_is_refused() {
    let home = Home::new();
    for args in [
        &["--nodes", "1"][..],
        &["--latency", "80..20"],
        &["--loss", "101"],
        &["--announce", INFOHASH],
        &["--bind", "127.0.0.1"],
    ] {
        home.run(&[&["testnet"], args].concat()).expect_code(2);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn five_hundred_nodes_stay_far_below_a_gibibyte() {
    let home = Home::new();
    let net = Net::start(&home, &["--nodes", "500"]);
    let proposed: Vec<_> = net.command.iter().map(String::as_str).collect();
    assert_eq!(home.run(&proposed).expect_code(0).stdout.lines().count(), 2);
    let rss = resident_kib(net.running.pid());
    println!("500 nodes: {} MiB", rss >> 10);
    assert!(rss < 256 << 10, "{rss} KiB");
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "takes two minutes, and what it measures depends on what else the machine does"]
fn five_hundred_idle_nodes_take_less_than_half_a_core() {
    let home = Home::new();
    let net = Net::start(&home, &["--nodes", "500"]);
    std::thread::sleep(Duration::from_secs(60));
    let before = net.running.cpu_ticks();
    std::thread::sleep(Duration::from_secs(60));
    let ticks = net.running.cpu_ticks() - before;
    // A tick is 10 ms to all programs, whatever the kernel's is.
    println!(
        "500 idle nodes: {:.1} % of a core, {} MiB",
        ticks as f64 / 60.0,
        resident_kib(net.running.pid()) >> 10
    );
    assert!(ticks < 3000, "{ticks} ticks in a minute");
}

/// Memory of a process that lies in RAM.
#[cfg(target_os = "linux")]
fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
