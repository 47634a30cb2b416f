//! Interop point 4: the DHT, both ways, with libtorrent and the crate `mainline`.

use std::net::SocketAddr;
use std::time::Duration;

use harness::process::{binary, eventually};
use harness::rivals::{Libtorrent, Series, mainline_program, ready};
use serde_json::json;

use crate::world::{Net, btdht, libtorrent_dht, mainline_joins, mainline_tries, serve, serve_at};

const INFOHASH: &str = "1619ecc9373c3639f4ee3e261638f29b33a6cbd6";

pub(crate) fn libtorrent_uses_our_node(net: Net, series: Series, test: &str) {
    binary("btdht");
    if !net.ready(test, &[Libtorrent::python(series)]) {
        return;
    }
    let node = net.node(1);
    let _node = serve_at(&node, &[&node], &[]);
    let mut announcer = Libtorrent::start(series, &net.node(2), Some(&[]));
    announcer.ask(&json!({"op": "dht_add", "node": node}));
    eventually("our node is in libtorrent's table", || {
        (announcer.ask(&json!({"op": "dht_state"}))["nodes"].as_u64()? > 0).then_some(())
    });
    announcer.ask(&json!({"op": "dht_announce", "infohash": INFOHASH, "port": 4444}));

    // The only other node of this DHT is ours, so what it tells was stored by it.
    let question = json!({"q": "get_peers", "a": {"info_hash": format!("hex:{INFOHASH}")}}).to_string();
    eventually("our node stores the announce", || {
        let (lines, _) = btdht(&["krpc", &node, &question, "--bind", &net.client(3)]);
        // The second host's port 4444 as a compact peer.
        let peer = match net {
            Net::V4 => "hex:55020001115c",
            Net::V6 => "hex:2a850002000000000000000000000001115c",
        };
        lines.iter().any(|line| line.contains(peer)).then_some(())
    });

    let mut finder = Libtorrent::start(series, &net.node(4), Some(&[]));
    finder.ask(&json!({"op": "dht_add", "node": node}));
    finder.dht_finds(INFOHASH, &SocketAddr::new(net.ip(2, 0), 4444).to_string());
}

#[test]
fn libtorrent_2_0_stores_and_finds_peers_in_our_node() {
    libtorrent_uses_our_node(Net::V4, Series::V20, "libtorrent_2_0_stores_and_finds_peers_in_our_node");
}

#[test]
fn libtorrent_2_1_stores_and_finds_peers_in_our_node() {
    libtorrent_uses_our_node(Net::V4, Series::V21, "libtorrent_2_1_stores_and_finds_peers_in_our_node");
}

/// Peers that we announce to libtorrent's nodes are found there by us and by them.
pub(crate) fn announce_and_get_peers_on_libtorrent_nodes(net: Net, test: &str) {
    binary("btdht");
    let needs = [Libtorrent::python(Series::V20), Libtorrent::python(Series::V21)];
    if !net.ready(test, &needs) {
        return;
    }
    let mut nodes = libtorrent_dht(net, 8);
    // A libtorrent node names only nodes that it has pinged since it met them; until the first of them
    // has, the announce reaches few.
    eventually("several libtorrent nodes store the announce", || {
        let (stored, done) = btdht(&[
            "announce",
            INFOHASH,
            "--peer-port",
            "4321",
            "--bind",
            &net.client(50),
            "--bootstrap",
            &net.node(1),
            "--no-state",
        ]);
        (done && stored.len() >= 4).then_some(())
    });
    let (client, router) = (net.client(60), net.node(2));
    let asked = |verb: &str| {
        let (lines, done) = btdht(&[verb, INFOHASH, "--bind", &client, "--bootstrap", &router, "--no-state"]);
        assert!(done, "{verb} ended badly: {lines:?}");
        lines
    };
    let announced = SocketAddr::new(net.ip(50, 0), 4321).to_string();
    assert_eq!(asked("get-peers"), [&*announced]);
    nodes[5].dht_finds(INFOHASH, &announced);
    let known: Vec<_> = (1..=8).map(|n| net.node(n)).collect();
    let is_known = |line: &String| line.split_once(' ').is_some_and(|(_, addr)| known.contains(&addr.into()));
    let closest = eventually("several libtorrent nodes are named", || {
        Some(asked("find-node")).filter(|closest| closest.len() >= 4)
    });
    assert!(closest.iter().all(is_known), "{closest:?}");
}

#[test]
fn announce_and_get_peers_work_on_a_dht_of_libtorrent_nodes_alone() {
    let test = "announce_and_get_peers_work_on_a_dht_of_libtorrent_nodes_alone";
    announce_and_get_peers_on_libtorrent_nodes(Net::V4, test);
}

#[test]
fn a_mainline_node_joins_announces_and_finds_peers() {
    binary("btdht");
    if !ready("a_mainline_node_joins_announces_and_finds_peers", &[mainline_program()]) {
        return;
    }
    let _nodes: Vec<_> =
        (1..=5).map(|n| serve(&format!("85.{n}.0.1"), &["85.1.0.1:6881", "85.2.0.1:6881"])).collect();
    let _server = mainline_joins("85.20.0.1", "85.1.0.1:6881", false);

    eventually("mainline announces", || {
        let words = ["announce", "85.21.0.1", INFOHASH, "5555", "85.1.0.1:6881"];
        mainline_tries(&words, |line| (line == "stored").then_some(()))
    });
    let (found, done) =
        btdht(&["get-peers", INFOHASH, "--bind", "85.30.0.1", "--bootstrap", "85.20.0.1:6881", "--no-state"]);
    assert!(done && found == ["85.21.0.1:5555"], "{found:?}");

    let other = "2c6b6858d61da9543d4231a71db4b1c9264b0685";
    // The nodes have just started. What a router alone has, since it knows nobody yet, nobody finds: those that
    // know it as a router do not name it.
    let stored = eventually("our announce is stored by others than the router", || {
        let words = ["announce", other, "--peer-port", "6666", "--bind", "85.31.0.1"];
        let (stored, done) = btdht(&[&words[..], &["--bootstrap", "85.2.0.1:6881", "--no-state"]].concat());
        (done && stored.len() > 1).then_some(stored)
    });
    eventually(&format!("mainline finds our peer, stored by {stored:?}"), || {
        let words = ["get-peers", "85.22.0.1", other, "85.20.0.1:6881"];
        let (mut finder, ()) = mainline_tries(&words, |line| (line == "85.31.0.1:6666").then_some(()))?;
        finder.wait(Duration::from_secs(60)).success().then_some(())
    });
}
