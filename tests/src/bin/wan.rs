//! Emulates a wide-area network between hosts, each a network namespace:
//!
//!     wan HOSTS RATE_MBIT RTT_MS QUEUE_KIB LOSS_PER_MILLION SEED CONGESTION_CONTROL
//!
//! Prints `host NUMBER ADDRESS NAMESPACE` for each, then `ready`; programs go in by `nsenter --net=NAMESPACE`.
//! At the end of standard input it prints what each host's lines have seen, one JSON object each, and ends.
#![allow(clippy::unwrap_used)]

use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use harness::wan::host::{self, Host, MTU};
use harness::wan::links::{Count, Links, Quality};
use rustix::process::setpriority_process;
use serde_json::{Value, json};

/// Packets that are taken from one host before the others have their turn.
const BATCH: usize = 32;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let [hosts, rate, rtt, queue, loss, seed, congestion] = words.as_slice() else {
        panic!("wan HOSTS RATE_MBIT RTT_MS QUEUE_KIB LOSS_PER_MILLION SEED CONGESTION_CONTROL");
    };
    let quality = Quality {
        rate: number(rate) * 1_000_000,
        delay: Duration::from_millis(number(rtt)) / 2,
        queue: number(queue) as usize * 1024,
        loss: number(loss) as u32,
    };
    let hosts: Vec<Host> =
        (0..number(hosts)).map(|number| Host::new(number as u8, congestion).unwrap()).collect();
    // What is measured must not take the emulator's turns; where this is not allowed it does without.
    let _ = setpriority_process(None, -19);
    for (number, host) in hosts.iter().enumerate() {
        println!("host {number} {} {}", host.addr, host.path());
    }
    println!("ready");
    let mut links = Links::new(hosts.len(), quality, number(seed));
    run(&hosts, &mut links);
    for at in 0..hosts.len() {
        let (up, down) = links.counts(at);
        println!("{}", json!({"host": at, "up": told(up), "down": told(down), "lost": links.lost()}));
    }
}

fn number(text: &str) -> u64 {
    text.parse().expect("a number")
}

fn told(count: Count) -> Value {
    json!({"bytes": count.bytes, "packets": count.packets, "dropped": count.dropped, "waited": count.waited})
}

/// Moves packets until standard input ends.
fn run(hosts: &[Host], links: &mut Links) {
    let start = Instant::now();
    let mut buffer = [0; MTU];
    let stdin = io::stdin();
    rustix::io::ioctl_fionbio(&stdin, true).expect("a pipe");
    loop {
        let mut sent = false;
        for (from, host) in hosts.iter().enumerate() {
            for _ in 0..BATCH {
                let Some(packet) = host.receive(&mut buffer) else { break };
                sent = true;
                if let Some(to) = host::destination(packet) {
                    links.sent(start.elapsed(), from, to, packet);
                }
            }
        }
        links.arrived(start.elapsed(), |to, packet| hosts[to].deliver(packet));
        if sent {
            continue;
        }
        if stdin.lock().read(&mut [0; 64]).is_ok_and(|len| len == 0) {
            return;
        }
        host::wait(hosts, stdin.as_raw_fd(), links.timeout().map(|at| at.saturating_sub(start.elapsed())));
    }
}
