//! A host with several addresses of a family (BEP 45): whichever is asked answers.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use harness::process::{Running, binary, eventually};
use harness::rivals::ready;
use harness::uninterrupted::uninterrupted;
use harness::wire::{dict, int, string};

use crate::beyond::{Beyond, assign, ip, withdraw};

/// The addresses of the host, and those that it gets later.
const FIRST: [&str; 2] = ["84.0.0.2", "2001:db8:84::2"];
const SECOND: [&str; 2] = ["84.0.0.9", "2001:db8:84::9"];
/// An address of another network and thus farther from the asker than the others: never the system's choice.
const THIRD: [&str; 2] = ["86.0.0.9", "2001:db8:86::9"];
/// Where the asker lives.
const ASKER: [&str; 2] = ["84.0.0.1", "2001:db8:84::1"];

/// A host at the other end of a cable to the namespace of the calling thread.
struct Opposite(Beyond);

impl Opposite {
    /// `None`, said aloud, where there can be no namespaces.
    fn new(test: &str) -> Option<Self> {
        if !ready(test, &[]) {
            return None;
        }
        let there = Beyond::new();
        there.lay_cable();
        FIRST.iter().for_each(|address| assign(address, "near"));
        ip("link set near up");
        there.run(|| {
            ASKER.iter().for_each(|address| assign(address, "far"));
            ip("link set far up");
            ip("route add 86.0.0.0/24 via 84.0.0.2");
            ip("-6 route add 2001:db8:86::/64 via 2001:db8:84::2");
        });
        Some(Self(there))
    }

    /// From where a fresh socket is answered that asks `node`; `None` if it is not for so long.
    fn answer(&self, node: SocketAddr, method: &'static str, patience: Duration) -> Option<SocketAddr> {
        self.0.run(move || {
            let socket = UdpSocket::bind((ASKER[usize::from(node.is_ipv6())], 0)).unwrap();
            socket.set_read_timeout(Some(patience)).unwrap();
            let arguments = dict(&[("id", string([0x45; 20])), ("target", string([0x54; 20]))]);
            let query = dict(&[
                ("a", arguments),
                ("q", string(method)),
                ("ro", int(1)),
                ("t", string("bep45")),
                ("y", string("q")),
            ]);
            socket.send_to(&query, node).unwrap();
            let mut reply = [0; 2048];
            let (len, from) = uninterrupted(|| socket.recv_from(&mut reply)).ok()?;
            assert!(reply[..len].ends_with(b"1:y1:re"), "{}", reply[..len].escape_ascii());
            Some(from)
        })
    }
}

/// `btdht serve` at all addresses.
struct Serve {
    _process: Running,
    ports: [u16; 2],
}

impl Serve {
    fn start(program: &Path, shards: &str) -> Self {
        let mut command = Command::new(program);
        // A router in nobody's network: it is to serve.
        command.args(["serve", "--no-state", "--bootstrap", "192.0.2.1:6881", "--shards", shards]);
        // One address asks it for much.
        command.env("BTDHT_REPLIES_PER_SECOND_PER_IP", "0");
        let mut process = Running::start("btdht serve", &mut command);
        let ports = ["listening 0.0.0.0:", "listening [::]:"].map(|start| {
            process.wait_for("the node listens", |line| {
                let port = line.strip_prefix(start)?.split(' ').next()?;
                Some(port.parse().expect("a port"))
            })
        });
        Self { _process: process, ports }
    }

    fn at(&self, address: &str) -> SocketAddr {
        let ip: IpAddr = address.parse().unwrap();
        SocketAddr::new(ip, self.ports[usize::from(ip.is_ipv6())])
    }
}

#[test]
fn each_of_several_addresses_answers_what_it_is_asked() {
    let program = binary("btdht");
    let Some(opposite) = Opposite::new("BEP 45") else { return };
    SECOND.iter().chain(&THIRD).for_each(|address| assign(address, "near"));
    for shards in ["1", "2"] {
        let serve = Serve::start(&program, shards);
        for address in FIRST.iter().chain(&SECOND).chain(&THIRD) {
            let node = serve.at(address);
            // Of several askers each shard has some. What is about items only one shard can tell.
            for method in ["find_node", "get"].repeat(8) {
                let from = opposite.answer(node, method, Duration::from_secs(20));
                assert_eq!(from, Some(node), "{method}, {shards} shards");
            }
        }
    }
}

#[test]
fn an_address_that_comes_later_answers_too_and_the_first_one_when_it_is_alone_again() {
    let program = binary("btdht");
    let Some(opposite) = Opposite::new("BEP 45, addresses that come and go") else { return };
    let serve = Serve::start(&program, "2");
    // The addresses of the machine are read every few seconds.
    let answers = |address: &&str| {
        let node = serve.at(address);
        let answered = || opposite.answer(node, "ping", Duration::from_millis(500)) == Some(node);
        eventually("an answer from where was asked", || answered().then_some(()));
    };
    FIRST.iter().for_each(answers);
    SECOND.iter().chain(&THIRD).for_each(|address| assign(address, "near"));
    THIRD.iter().chain(&SECOND).chain(&FIRST).for_each(answers);
    SECOND.iter().chain(&THIRD).for_each(|address| withdraw(address, "near"));
    FIRST.iter().for_each(answers);
}
