//! What nodes tell of their swarms, both ways with libtorrent: filters (BEP 33), samples (BEP 51); and how
//! nodes treat each other: the address that is echoed (BEP 42), nodes that answer nothing (BEP 43).

use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, Ordering};

use harness::process::{binary, eventually};
use harness::rivals::{Libtorrent, Series, ready};
use harness::wire::{Asker, Reply, int, list, string};
use krpc::bloom::Bloom;
use serde_json::json;

use crate::world::{Net, btdht, serve, serve_at};

const OURS: &str = "85.1.0.1:6881";
const THEIRS: &str = "85.2.0.1:6881";
const INFOHASH: &str = "1619ecc9373c3639f4ee3e261638f29b33a6cbd6";

fn infohash() -> Vec<u8> {
    string(data_encoding::HEXLOWER.decode(INFOHASH.as_bytes()).unwrap())
}

/// Asks `node` for a token and announces from `ip`; a seed or not.
fn announce(node: &str, ip: IpAddr, seed: bool) {
    let mut asker = Asker::new(&ip.to_string());
    let token = asker.ask(node, "get_peers", &[("info_hash", infohash())]).expect("an answer");
    let token = string(token.bytes("token").expect("a token"));
    let mut arguments = vec![("info_hash", infohash()), ("port", int(7000)), ("token", token)];
    if seed {
        arguments.push(("seed", int(1)));
    }
    let stored = asker.ask(node, "announce_peer", &arguments).expect("an answer");
    assert!(stored.answer("id").is_some(), "{node}: {stored}");
}

/// A socket at an address that nobody has asked from: nodes limit what they tell each.
fn stranger(net: Net) -> Asker {
    static MET: AtomicU8 = AtomicU8::new(0);
    let n = MET.fetch_add(1, Ordering::Relaxed);
    Asker::new(&net.ip(230 + n % 8, n).to_string())
}

fn scrape(net: Net, node: &str) -> Reply {
    let arguments = [("info_hash", infohash()), ("scrape", int(1))];
    stranger(net).ask(node, "get_peers", &arguments).expect("an answer")
}

fn filter(ips: &[IpAddr]) -> Bloom {
    let mut bloom = Bloom::new();
    ips.iter().for_each(|&ip| bloom.insert(ip));
    bloom
}

/// One of our nodes and one libtorrent session that have met.
fn pair(net: Net, series: Series) -> (harness::process::Running, Libtorrent) {
    let ours = serve_at(&net.node(1), &[&net.node(1)], &[]);
    let mut theirs = Libtorrent::start(series, &net.node(2), Some(&[]));
    theirs.ask(&json!({"op": "dht_add", "node": net.node(1)}));
    eventually("our node is in libtorrent's table", || {
        (theirs.ask(&json!({"op": "dht_state"}))["nodes"].as_u64()? > 0).then_some(())
    });
    (ours, theirs)
}

/// The filters of both are those of BEP 33, bit by bit, and `btdht scrape` counts what is in theirs.
/// libtorrent's Python asks for no filters, so that what it would get is asked by hand.
pub(crate) fn filters(net: Net, test: &str, series: Series) {
    binary("btdht");
    if !net.ready(test, &[Libtorrent::python(series)]) {
        return;
    }
    let (_ours, _theirs) = pair(net, series);
    let (first, client) = (net.node(2), net.client(90));
    // Over IPv6 libtorrent's table fills with those who announced, and it names eight of them.
    let second = if net == Net::V6 { net.node(1) } else { first.clone() };
    let routers = ["--bootstrap", &*first, "--bootstrap", &*second];
    let seeds: Vec<IpAddr> = (0..40).map(|n| net.ip(100, n)).collect();
    let others: Vec<IpAddr> = (0..70).map(|n| net.ip(101, n)).collect();
    for node in &[net.node(1), net.node(2)] {
        assert!(scrape(net, node).bytes("BFsd").is_none(), "{node} knows nothing yet");
        seeds.iter().for_each(|&ip| announce(node, ip, true));
        others.iter().for_each(|&ip| announce(node, ip, false));
        let reply = scrape(net, node);
        let (expected_seeds, expected_others) = (filter(&seeds), filter(&others));
        assert!(reply.bytes("BFsd").as_deref() == Some(expected_seeds.as_bytes()), "{node}: {reply}");
        assert!(reply.bytes("BFpe").as_deref() == Some(expected_others.as_bytes()), "{node}: {reply}");
    }
    // The same addresses are in the filters of both nodes and count once. libtorrent names ours as soon as
    // it has been answered by it.
    let said = eventually("both nodes are found", || {
        let (lines, done) =
            btdht(&[&["scrape", INFOHASH, "--bind", &client, "--no-state", "--json"], &routers[..]].concat());
        let said: serde_json::Value = serde_json::from_str(lines.first()?).ok()?;
        (done && said["nodes"] == 2).then_some(said)
    });
    let near = |count: &serde_json::Value, exact: f64| (count.as_f64().unwrap() - exact).abs() < exact / 10.0;
    assert!(near(&said["seeds"], 40.0) && near(&said["downloaders"], 70.0), "{said}");
}

#[test]
fn filters_are_the_same_as_those_of_libtorrent_2_0() {
    filters(Net::V4, "filters_are_the_same_as_those_of_libtorrent_2_0", Series::V20);
}

#[test]
fn filters_are_the_same_as_those_of_libtorrent_2_1() {
    filters(Net::V4, "filters_are_the_same_as_those_of_libtorrent_2_1", Series::V21);
}

/// Each samples the other; libtorrent announces as a seed, which our node keeps and tells as such.
pub(crate) fn samples(net: Net, test: &str, series: Series) {
    binary("btdht");
    if !net.ready(test, &[Libtorrent::python(series)]) {
        return;
    }
    let (_ours, mut theirs) = pair(net, series);
    let node = net.node(1);
    announce(&net.node(2), net.ip(100, 0), false);
    let (lines, done) = btdht(&["sample", &net.node(2), "--bind", &net.client(90)]);
    assert!(done && lines == [INFOHASH], "{lines:?}");

    let other = "2c6b6858d61da9543d4231a71db4b1c9264b0685";
    theirs.ask(&json!({"op": "dht_announce", "infohash": other, "port": 4444, "seed": true}));
    let question =
        json!({"q": "get_peers", "a": {"info_hash": format!("hex:{other}"), "scrape": 1}}).to_string();
    let theirs_only = data_encoding::HEXLOWER.encode(filter(&[net.ip(2, 0)]).as_bytes());
    eventually("our node stores libtorrent's announce as a seed's", || {
        let (lines, _) = btdht(&["krpc", &node, &question, "--bind", &net.client(3)]);
        let said: serde_json::Value = serde_json::from_str(lines.first()?).ok()?;
        (said["r"]["BFsd"] == format!("hex:{theirs_only}")).then_some(())
    });
    theirs.ask(&json!({"op": "dht_sample", "node": node, "target": other}));
    let said = theirs.wait_for("samples", |said| Some(said.clone()));
    assert_eq!((&said["num"], &said["samples"]), (&json!(1), &json!([other])), "{said}");
}

#[test]
fn samples_are_told_to_libtorrent_2_0_and_by_it() {
    samples(Net::V4, "samples_are_told_to_libtorrent_2_0_and_by_it", Series::V20);
}

#[test]
fn samples_are_told_to_libtorrent_2_1_and_by_it() {
    samples(Net::V4, "samples_are_told_to_libtorrent_2_1_and_by_it", Series::V21);
}

/// The ids of all nodes that `node` names.
fn named(node: &str) -> Vec<String> {
    let arguments = [("target", string([0x55; 20])), ("want", list(&[string("n4")]))];
    let reply = stranger(Net::V4).ask(node, "find_node", &arguments).expect("an answer");
    let records = reply.bytes("nodes").expect("nodes");
    records
        .chunks_exact(26)
        .map(|record| format!("{}.{}.{}.{}", record[20], record[21], record[22], record[23]))
        .collect()
}

/// BEP 42: each says which address it sees, to hand-written queries and to each other. BEP 43: who
/// answers nothing is named by nobody.
fn addresses(test: &str, series: Series) {
    binary("btdht");
    if !ready(test, &[Libtorrent::python(series)]) {
        return;
    }
    let (_ours, mut theirs) = pair(Net::V4, series);
    let believed = eventually("libtorrent believes what our node says", || {
        theirs.ask(&json!({"op": "dht_state"}));
        theirs.last("external")
    });
    assert_eq!(believed["ip"], "85.2.0.1");
    for node in [OURS, THEIRS] {
        let mut asker = Asker::new("85.33.44.55");
        let reply = asker.ask(node, "ping", &[]).expect("an answer");
        let port = asker.addr().port().to_be_bytes();
        let compact = [85, 33, 44, 55, port[0], port[1]];
        assert_eq!(reply.field("ip"), Some(string(compact)), "{node}: {reply}");
    }

    // Met one after the other: both ask our node the same, and only one answers.
    let mut silent = Libtorrent::start_read_only(series, "85.3.0.1:6881");
    silent.ask(&json!({"op": "dht_add", "node": OURS}));
    eventually("our node is in the silent one's table", || {
        (silent.ask(&json!({"op": "dht_state"}))["nodes"].as_u64()? > 0).then_some(())
    });
    silent.ask(&json!({"op": "dht_announce", "infohash": INFOHASH, "port": 4444}));
    eventually("our node has heard the silent one", || {
        let arguments = [("info_hash", infohash())];
        let reply = stranger(Net::V4).ask(OURS, "get_peers", &arguments).expect("an answer");
        reply.answer("values").map(|_| ())
    });
    let mut loud = Libtorrent::start(series, "85.4.0.1:6881", Some(&[]));
    loud.ask(&json!({"op": "dht_add", "node": OURS}));
    eventually("our node names the one that answers", || {
        named(OURS).contains(&"85.4.0.1".to_owned()).then_some(())
    });
    assert!(!named(OURS).contains(&"85.3.0.1".to_owned()), "{:?}", named(OURS));

    // libtorrent takes a minute to meet who has asked it; once is enough.
    if series != Series::V21 {
        return;
    }
    // The other way round: a one-shot node of ours asks theirs and is named by it no more than before,
    // where one that serves is.
    let (_, done) =
        btdht(&["find-node", INFOHASH, "--bind", "85.91.0.1", "--bootstrap", THEIRS, "--no-state"]);
    assert!(done);
    let _serving = serve("85.5.0.1", &[THEIRS]);
    eventually("libtorrent names our node that serves", || {
        named(THEIRS).contains(&"85.5.0.1".to_owned()).then_some(())
    });
    assert!(!named(THEIRS).contains(&"85.91.0.1".to_owned()), "{:?}", named(THEIRS));
}

#[test]
fn addresses_and_silent_nodes_are_told_as_libtorrent_2_0_does() {
    addresses("addresses_and_silent_nodes_are_told_as_libtorrent_2_0_does", Series::V20);
}

#[test]
fn addresses_and_silent_nodes_are_told_as_libtorrent_2_1_does() {
    addresses("addresses_and_silent_nodes_are_told_as_libtorrent_2_1_does", Series::V21);
}
