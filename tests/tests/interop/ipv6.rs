//! The DHT over IPv6 (BEP 32), both ways with libtorrent: the tests of [`crate::dht`], [`crate::items`] and
//! [`crate::swarms`] on addresses of that family, and nodes of both, which tell each other's.

use harness::process::{binary, eventually};
use harness::rivals::{Libtorrent, Series};
use harness::wire::{Asker, list, string};

use crate::dht::{announce_and_get_peers_on_libtorrent_nodes, libtorrent_uses_our_node};
use crate::items::{items_on_libtorrent_nodes, items_on_our_nodes};
use crate::swarms::{filters, samples};
use crate::world::{Net, btdht, serve_at};

const INFOHASH: &str = "1619ecc9373c3639f4ee3e261638f29b33a6cbd6";

#[test]
fn libtorrent_2_0_stores_and_finds_peers_in_our_node_over_ipv6() {
    let test = "libtorrent_2_0_stores_and_finds_peers_in_our_node_over_ipv6";
    libtorrent_uses_our_node(Net::V6, Series::V20, test);
}

#[test]
fn libtorrent_2_1_stores_and_finds_peers_in_our_node_over_ipv6() {
    let test = "libtorrent_2_1_stores_and_finds_peers_in_our_node_over_ipv6";
    libtorrent_uses_our_node(Net::V6, Series::V21, test);
}

#[test]
fn announce_and_get_peers_work_over_ipv6_on_libtorrent_nodes_alone() {
    let test = "announce_and_get_peers_work_over_ipv6_on_libtorrent_nodes_alone";
    announce_and_get_peers_on_libtorrent_nodes(Net::V6, test);
}

#[test]
fn libtorrent_2_0_keeps_items_in_our_nodes_over_ipv6() {
    items_on_our_nodes(Net::V6, Series::V20, "libtorrent_2_0_keeps_items_in_our_nodes_over_ipv6");
}

#[test]
fn libtorrent_2_1_keeps_items_in_our_nodes_over_ipv6() {
    items_on_our_nodes(Net::V6, Series::V21, "libtorrent_2_1_keeps_items_in_our_nodes_over_ipv6");
}

#[test]
fn items_live_over_ipv6_on_libtorrent_nodes_alone() {
    items_on_libtorrent_nodes(Net::V6, "items_live_over_ipv6_on_libtorrent_nodes_alone");
}

#[test]
fn filters_over_ipv6_are_the_same_as_those_of_libtorrent_2_0() {
    filters(Net::V6, "filters_over_ipv6_are_the_same_as_those_of_libtorrent_2_0", Series::V20);
}

#[test]
fn filters_over_ipv6_are_the_same_as_those_of_libtorrent_2_1() {
    filters(Net::V6, "filters_over_ipv6_are_the_same_as_those_of_libtorrent_2_1", Series::V21);
}

#[test]
fn samples_are_told_over_ipv6_to_libtorrent_2_0_and_by_it() {
    samples(Net::V6, "samples_are_told_over_ipv6_to_libtorrent_2_0_and_by_it", Series::V20);
}

#[test]
fn samples_are_told_over_ipv6_to_libtorrent_2_1_and_by_it() {
    samples(Net::V6, "samples_are_told_over_ipv6_to_libtorrent_2_1_and_by_it", Series::V21);
}

/// Whether `node`, asked over IPv4, names the node at `wanted` in its `nodes6`.
fn names(node: &str, wanted: u8) -> Option<()> {
    let mut asker = Asker::new(&Net::V4.ip(70, 0).to_string());
    let want = list(&[string("n4"), string("n6")]);
    let reply = asker.ask(node, "find_node", &[("target", string([0x55; 20])), ("want", want)])?;
    let (records, std::net::IpAddr::V6(wanted)) = (reply.bytes("nodes6")?, Net::V6.ip(wanted, 0)) else {
        unreachable!("an address of IPv6")
    };
    let named = records.chunks_exact(38).any(|record| record[20..36] == wanted.octets());
    named.then_some(())
}

/// Our node and a libtorrent session live in both families. libtorrent is told of ours in IPv4 alone, and
/// so is our one-shot node of libtorrent: what they know of IPv6 they have from `want` and `nodes6`.
fn both_families(series: Series, test: &str) {
    binary("btdht");
    if !Net::V6.ready(test, &[Libtorrent::python(series)]) {
        return;
    }
    let [ours, ours6] = [Net::V4, Net::V6].map(|net| net.node(1));
    let mut both = serve_at(&ours, &[&ours], &["--bind", &ours6]);
    both.wait_for("it listens there too", |line| line.contains(&ours6).then_some(()));
    let _six = serve_at(&Net::V6.node(5), &[&ours6], &[]);
    eventually("our node names the one of IPv6", || names(&ours, 5));

    let router = Some(&[&*ours][..]);
    let listen = format!("{},{}", Net::V4.node(2), Net::V6.node(2));
    let mut theirs = Libtorrent::start(series, &listen, router);
    let client = Net::V6.client(50);
    let announce =
        ["announce", INFOHASH, "--peer-port", "4321", "--bind", &client, "--bootstrap", &ours6, "--no-state"];
    // The second node is known at once, but takes another id when it has heard of its address (BEP 42).
    eventually("both of our nodes store it", || {
        let (stored, done) = btdht(&announce);
        (done && stored.len() >= 2).then_some(())
    });
    theirs.dht_finds(INFOHASH, "[2a85:32::1]:4321");
    eventually("libtorrent names a node of IPv6", || {
        names(&Net::V4.node(2), 1).or_else(|| names(&Net::V4.node(2), 5))
    });

    let (four, six, router) = (Net::V4.client(60), Net::V6.client(60), Net::V4.node(2));
    let (found, done) = btdht(&[
        "get-peers",
        INFOHASH,
        "--bind",
        &four,
        "--bind",
        &six,
        "--bootstrap",
        &router,
        "--no-state",
    ]);
    assert!(done && found == ["[2a85:32::1]:4321"], "{found:?}");
}

#[test]
fn libtorrent_2_0_and_we_tell_each_other_of_the_other_family() {
    both_families(Series::V20, "libtorrent_2_0_and_we_tell_each_other_of_the_other_family");
}

#[test]
fn libtorrent_2_1_and_we_tell_each_other_of_the_other_family() {
    both_families(Series::V21, "libtorrent_2_1_and_we_tell_each_other_of_the_other_family");
}
