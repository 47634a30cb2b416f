//! A node whose network goes, comes back and changes, on real interfaces: two network namespaces of
//! their own, joined by a virtual cable. In one is a small internet of 80 nodes, in the other the node
//! that is tested. Needs root; says so where it is missing.
//!
//! Outcomes are asserted, with guards far beyond what is expected, never how long they take.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod cable;

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use btdht::net::{Bind, Dht, Options, SocketStats, State};
use harness::process::{Running, binary};

use cable::{Cable, ROUTER};

/// RELIABILITY.md S18: so many good nodes again, within so long.
const ENOUGH: u64 = 50;
const SOON: Duration = Duration::from_secs(120);

/// A node of the library at `bind`.
fn node(bind: &str) -> Dht {
    let bind = Bind { addr: bind.parse().unwrap(), required: true };
    let options = Options { binds: vec![bind], bootstrap: vec![ROUTER.into()], ..Options::default() };
    assert_eq!(options.state, State::Nothing);
    Dht::bind(options).unwrap()
}

/// Waits until the first socket of `node` is as wanted.
async fn until(node: &Dht, what: &str, wanted: impl Fn(&SocketStats) -> bool) -> SocketStats {
    let mut last = None;
    let reached = async {
        loop {
            let stats = node.stats().await.unwrap().sockets.remove(0);
            if wanted(&stats) {
                return stats;
            }
            last = Some(stats);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    match tokio::time::timeout(SOON, reached).await {
        Ok(stats) => stats,
        Err(_) => panic!("{what} did not happen: {last:?}"),
    }
}

/// Answers that a node got so far.
async fn replies(node: &Dht) -> u64 {
    node.stats().await.unwrap().counters.replies_in
}

/// Waits until so many nodes have answered since there were `before` replies, and are good.
async fn recovered(node: &Dht, before: u64, what: &str) {
    until(node, what, |stats| stats.home.online && stats.home.trusty as u64 >= ENOUGH).await;
    let answered = async {
        while replies(node).await < before + ENOUGH {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    assert!(tokio::time::timeout(SOON, answered).await.is_ok(), "{what}: too few have answered");
}

// S18
#[test]
fn a_node_knows_fifty_nodes_again_after_its_interface_was_down_and_its_address_changed() {
    let Some(cable) = Cable::lay("S18") else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let roaming = node("0.0.0.0:6881");
        let fixed = node("84.0.0.2:6882");
        recovered(&roaming, 0, "the first bootstrap").await;
        recovered(&fixed, 0, "the first bootstrap of the other one").await;
        let removed = roaming.stats().await.unwrap().counters.nodes_removed;

        for round in 0..2 {
            cable.unplug();
            until(&roaming, "noticing that the network is gone", |stats| !stats.home.online).await;
            let before = replies(&roaming).await;
            cable.plug("84.0.0.2");
            recovered(&roaming, before, &format!("the return of round {round}")).await;
        }

        // Another address: one socket goes along, the other's is gone until it comes back.
        let before = replies(&roaming).await;
        let losses = roaming.stats().await.unwrap().counters.network_changes;
        cable.readdress("84.0.0.2", "84.0.0.3");
        until(&fixed, "noticing that the address is gone", |stats| !stats.home.online).await;
        recovered(&roaming, before, "the change of address").await;
        let counters = roaming.stats().await.unwrap().counters;
        assert!(counters.network_changes > losses, "{counters:?}");
        assert_eq!(counters.nodes_removed, removed, "the table was kept: {counters:?}");

        let before = replies(&fixed).await;
        cable.readdress("84.0.0.3", "84.0.0.2");
        recovered(&fixed, before, "the return of the address").await;
        until(&fixed, "binding the socket anew", |stats| stats.counters.rebinds >= 1).await;
        let before = replies(&fixed).await;
        recovered(&fixed, before, "the socket that was bound anew").await;
        assert_eq!(fixed.local_addrs().next(), Some(SocketAddr::from(([84, 0, 0, 2], 6882))));
    });
}

// S17
#[test]
fn the_program_waits_for_a_network_and_bootstraps_when_there_is_one() {
    let program = binary("btdht");
    let Some(cable) = Cable::lay("S17") else { return };
    cable.unplug();
    let mut command = Command::new(program);
    // A name that cannot be resolved without a network, and a router that cannot be reached.
    command.args(["serve", "--no-state", "--bootstrap", "router.invalid:6881", "--bootstrap", ROUTER]);
    let mut serve = Running::start("btdht serve", &mut command);
    serve.wait_for("the node listens", |line| line.starts_with("listening 0.0.0.0:").then_some(()));
    // Long enough for a few attempts that fail, and for one complaint.
    let early =
        serve.wait_within(Duration::from_secs(15), |line| line.starts_with("bootstrapped ").then_some(()));
    assert_eq!(early, Err("timed out"), "nobody can be reached");
    let complaints = serve.stderr().matches("no router has answered").count();
    assert_eq!(complaints, 1, "one line a minute: {}", serve.stderr());
    cable.plug("84.0.0.2");
    // Somebody has answered. Whom else it knows by then is a matter of luck.
    serve.wait_for("the bootstrap", |line| line.starts_with("bootstrapped ").then_some(()));
}
