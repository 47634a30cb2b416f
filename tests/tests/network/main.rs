//! A node whose network goes, comes back and changes, on real interfaces: two network namespaces of
//! their own, joined by a virtual cable. In one is a small internet of 80 nodes, in the other the node
//! that is tested; over IPv4 and over IPv6. Needs root; says so where it is missing.
//!
//! Outcomes are asserted, with guards far beyond what is expected, never how long they take.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod beyond;
mod cable;
mod several;

use std::collections::BTreeSet;
use std::fs::{DirEntry, read_dir, read_to_string};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use btdht::net::{Bind, Dht, Options, SocketStats, State};
use btdht::secure_id::is_secure;
use btdht::{Config, KnownNode, Standing};
use harness::process::{Running, binary, eventually};
use harness::uninterrupted::uninterrupted;
use harness::wire::{Asker, dict, list, string};
use krpc::Id;

use cable::{Cable, Net};

/// S18: so many good nodes again, within so long.
const ENOUGH: usize = 50;
const SOON: Duration = Duration::from_secs(120);

/// A node of the library at `bind`, which asks these routers.
fn node(addr: SocketAddr, routers: &[&str], config: Config) -> Dht {
    let bind = Bind { addr, required: true };
    let bootstrap = routers.iter().map(|&router| router.to_owned()).collect();
    let options = Options { binds: vec![bind], bootstrap, config, ..Options::default() };
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
        Err(_) => panic!("{what} did not happen: {last:?} {:?}", node.stats().await.unwrap().counters),
    }
}

/// Waits until so many different nodes are good that were heard of after `since`.
async fn recovered(node: &Dht, since: Instant, what: &str) {
    let mut heard = BTreeSet::new();
    let again = async {
        until(node, what, |stats| stats.home.online).await;
        while heard.len() < ENOUGH {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let table = node.table().await.unwrap();
            let fresh = table.iter().filter(|known| known.age < since.elapsed());
            heard =
                fresh.filter(|known| known.standing == Standing::Trusty).map(|known| known.addr).collect();
        }
    };
    let ended = tokio::time::timeout(SOON, again).await;
    let known = node.table().await.unwrap().len();
    assert!(ended.is_ok(), "{what}: only {} of {known} have been heard of", heard.len());
}

/// Waits until the first socket of `node`, at port 6881, answers under an id that belongs to its address
/// `ip`, on which others agree (BEP 42).
async fn has_id_of(node: &Dht, ip: String) {
    let addr: IpAddr = ip.parse().unwrap();
    let home = until(node, "an id of the address", |stats| {
        stats.home.external.is_some_and(|external| external.ip() == addr) && is_secure(&stats.home.id, addr)
    });
    let id = home.await.home.id;
    let ask = move || Asker::new(&ip).ask(&SocketAddr::new(addr, 6881).to_string(), "ping", &[]);
    let reply = tokio::task::spawn_blocking(ask).await.unwrap();
    assert_eq!(reply.expect("an answer").bytes("id").unwrap(), id.as_bytes(), "strangers are told it");
}

/// Checks that `node` has forgotten none of these nodes but those that have another id now: nodes of the
/// small internet take one of their address one after the other (BEP 42).
async fn has_kept(node: &Dht, cable: &Cable, known: &[KnownNode]) {
    let kept: BTreeSet<_> = node.table().await.unwrap().iter().map(|n| (n.id, n.addr)).collect();
    let (unchanged, all) = (cable.unchanged(known).await, known.len());
    assert!(unchanged.len() * 2 > all, "{} of {all} have their id still", unchanged.len());
    let lost: Vec<_> = unchanged.iter().filter(|node| !kept.contains(*node)).collect();
    let counters = node.stats().await.unwrap().counters;
    assert!(lost.is_empty(), "{lost:?} of {all} nodes were forgotten: {counters:?}");
}

// S18
#[test]
fn a_node_knows_fifty_nodes_again_after_its_interface_was_down_and_its_address_changed() {
    network_that_comes_and_goes(Net::V4, 2);
}

// S18
#[test]
fn a_node_of_ipv6_knows_fifty_nodes_again_after_its_interface_was_down_and_its_address_changed() {
    network_that_comes_and_goes(Net::V6, 1);
}

#[test]
#[ignore = "the interface goes down 20 times: minutes"]
fn a_node_knows_fifty_nodes_again_each_time_its_interface_was_down_of_twenty() {
    network_that_comes_and_goes(Net::V4, 20);
}

fn network_that_comes_and_goes(net: Net, rounds: usize) {
    let Some(cable) = Cable::lay(net, "S18") else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        // It believes others as soon as they say that its address is another one.
        let config = Config { address_change_pause: Duration::from_millis(1), ..Config::default() };
        let roaming = node(net.anywhere(6881), &[&net.router()], config);
        let fixed = node(net.at(2, 6882), &[&net.router()], Config::default());
        let started = Instant::now();
        recovered(&roaming, started, "the first bootstrap").await;
        recovered(&fixed, started, "the first bootstrap of the other one").await;
        let before_all = [roaming.table().await.unwrap(), fixed.table().await.unwrap()];

        for round in 0..rounds {
            cable.unplug();
            until(&roaming, "noticing that the network is gone", |stats| !stats.home.online).await;
            let before = Instant::now();
            cable.plug(&net.host(2));
            recovered(&roaming, before, &format!("the return of round {round}")).await;
        }
        exchange_of_the_interface(&cable, &roaming, &fixed, &net.host(2)).await;
        change_of_address(&cable, &roaming, &fixed, [&net.host(2), &net.host(3)]).await;
        has_kept(&roaming, &cable, &before_all[0]).await;

        let (before, bound) = (Instant::now(), rebinds(&fixed).await);
        cable.readdress(&net.host(3), &net.host(2));
        recovered(&fixed, before, "the return of the address").await;
        until(&fixed, "binding the socket anew", |stats| stats.counters.rebinds > bound).await;
        let before = Instant::now();
        recovered(&fixed, before, "the socket that was bound anew").await;
        assert_eq!(fixed.local_addrs().next(), Some(net.at(2, 6882)));
        has_kept(&fixed, &cable, &before_all[1]).await;
    });
}

/// The interface itself vanishes, and another one appears with its name and address.
async fn exchange_of_the_interface(cable: &Cable, roaming: &Dht, fixed: &Dht, address: &str) {
    let (interface, bound) = (cable.index(), rebinds(fixed).await);
    cable.remove();
    for node in [roaming, fixed] {
        until(node, "noticing that the interface is gone", |stats| !stats.home.online).await;
    }
    let before = Instant::now();
    cable.insert(address);
    assert_ne!(cable.index(), interface, "it is another one");
    recovered(roaming, before, "another interface").await;
    recovered(fixed, before, "the address at another interface").await;
    until(fixed, "binding the socket anew", |stats| stats.counters.rebinds > bound).await;
    has_id_of(roaming, address.to_owned()).await;
}

/// The address of the interface is another one: the socket at all addresses goes along, the other's is
/// gone until it comes back.
async fn change_of_address(cable: &Cable, roaming: &Dht, fixed: &Dht, [old, new]: [&str; 2]) {
    let before = Instant::now();
    let changes = roaming.stats().await.unwrap().counters.network_changes;
    cable.readdress(old, new);
    until(fixed, "noticing that the address is gone", |stats| !stats.home.online).await;
    recovered(roaming, before, "the change of address").await;
    has_id_of(roaming, new.to_owned()).await;
    // The addresses of the machine are read every few seconds.
    let changed = async {
        while roaming.stats().await.unwrap().counters.network_changes <= changes {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    assert!(tokio::time::timeout(SOON, changed).await.is_ok(), "the change was not noticed");
}

/// How often the first socket of `node` was bound anew.
async fn rebinds(node: &Dht) -> u64 {
    node.stats().await.unwrap().sockets[0].counters.rebinds
}

// S17
#[test]
fn the_program_waits_for_a_network_and_bootstraps_when_there_is_one() {
    first_network(Net::V4);
}

// S17
#[test]
fn the_program_waits_for_a_network_of_ipv6_and_bootstraps_when_there_is_one() {
    first_network(Net::V6);
}

fn first_network(net: Net) {
    let program = binary("btdht");
    let Some(cable) = Cable::lay(net, "S17") else { return };
    cable.unplug();
    // A name that cannot be resolved without a network, and a router that cannot be reached.
    let routers = ["router.invalid:6881", &net.router()];
    // A node that is looked into waits beside the program, while this thread waits for that.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let waiting = runtime.block_on(async { node(net.anywhere(6999), &routers, Config::default()) });
    let mut command = Command::new(program);
    command.args(["serve", "--no-state", "--bootstrap", routers[0], "--bootstrap", routers[1]]);
    // One address asks it for much at the end.
    command.env("BTDHT_REPLIES_PER_SECOND_PER_IP", "0");
    let started = Instant::now();
    let mut serve = Running::start("btdht serve", &mut command);
    let port = serve.wait_for("the node listens", |line| {
        let addr: SocketAddr =
            line.strip_prefix("listening ")?.split(' ').next()?.parse().expect("its address");
        (addr.ip() == net.anywhere(0).ip()).then(|| addr.port())
    });
    // It says so after a few attempts that failed.
    let complaints = |serve: &Running| serve.stderr().matches("no router has answered").count() as u64;
    eventually("it complains", || (complaints(&serve) > 0).then_some(()));
    let bootstrapped = |line: &str| line.starts_with("bootstrapped ").then_some(());
    assert_eq!(serve.wait_within(Duration::ZERO, bootstrapped), Err("timed out"), "nobody can be reached");

    // One clock for everything from here on.
    let returned = Instant::now();
    cable.plug(&net.host(2));
    runtime.block_on(recovered(&waiting, returned, "the first network of its life"));
    let left = || SOON.saturating_sub(returned.elapsed());
    assert_eq!(serve.wait_within(left(), bootstrapped), Ok(()), "the bootstrap: {}", serve.stderr());
    let minutes = started.elapsed().as_secs() / 60;
    assert!(complaints(&serve) <= 1 + minutes, "one line a minute: {}", serve.stderr());
    // The others have found one another long since: it learns of them by what it asks.
    let node = net.at(2, port);
    let mut asker = Asker::new(&net.host(2));
    // It names whom it has heard of, and nobody was there to be heard before.
    eventually("it knows 50 nodes", || {
        assert!(!left().is_zero(), "it does not know 50 nodes in time");
        (named(&mut asker, node).len() >= ENOUGH).then_some(())
    });
}

/// Addresses that the node at `addr` names, of its family, asked for 16 places of the key space.
fn named(asker: &mut Asker, addr: SocketAddr) -> BTreeSet<Vec<u8>> {
    let (want, nodes, len) = if addr.is_ipv4() { ("n4", "nodes", 26) } else { ("n6", "nodes6", 38) };
    let mut records = BTreeSet::new();
    for n in 0..16 {
        let arguments = [("target", string([n << 4; 20])), ("want", list(&[string(want)]))];
        let reply = asker.ask(&addr.to_string(), "find_node", &arguments).expect("an answer");
        let told = reply.bytes(nodes).unwrap();
        records.extend(told.chunks_exact(len).map(|record| record[20..].to_vec()));
    }
    records
}

/// Stops a program, and waits until none of its threads runs: the kernel stops them one by one.
fn stop(program: &Running) {
    program.signal("STOP");
    let threads = format!("/proc/{}/task", program.pid());
    let is_stopped = |thread: std::io::Result<DirEntry>| {
        // One that ends meanwhile is looked at no more the next time.
        let Ok(stat) = thread.and_then(|thread| read_to_string(thread.path().join("stat"))) else {
            return false;
        };
        // The name stands in parentheses and may hold anything.
        stat.rsplit_once(") ").unwrap().1.starts_with('T')
    };
    eventually("all threads stand still", || read_dir(&threads).unwrap().all(is_stopped).then_some(()));
}

// S21, as far as a process shows it: CLOCK_BOOTTIME cannot be moved here, so that the clock jumps by no
// more than the time for which it was stopped. The tests of the core let it jump by days.
#[test]
fn a_program_that_was_stopped_for_a_while_has_its_table_answers_and_asks() {
    let net = Net::V4;
    let (host, addr) = (net.host(2), net.at(2, 6881));
    let program = binary("btdht");
    let Some(cable) = Cable::lay(net, "S21") else { return };
    let mut command = Command::new(program);
    command.args(["serve", "--no-state", "--shards", "1"]);
    command.args(["--bind", &addr.to_string(), "--bootstrap", &net.router()]);
    // One address asks it for much here.
    command.env("BTDHT_REPLIES_PER_SECOND_PER_IP", "0");
    let mut serve = Running::start("btdht serve", &mut command);
    serve.wait_for("the bootstrap", |line| line.starts_with("bootstrapped ").then_some(()));
    let before = eventually("the node knows many others", || {
        let named = named(&mut Asker::new(&host), addr);
        (named.len() >= ENOUGH).then_some(named)
    });

    stop(&serve);
    let newcomer = Asker::new(&host);
    let socket = UdpSocket::bind((&*host, 0)).unwrap();
    // Longer than `Config::asleep_after` beyond what is due next, which may be some seconds away.
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let arguments = dict(&[("id", string(newcomer.id))]);
    let ping = dict(&[("a", arguments), ("q", string("ping")), ("t", string("late")), ("y", string("q"))]);
    socket.send_to(&ping, addr).unwrap();
    assert!(
        uninterrupted(|| socket.recv(&mut [0; 2048])).is_err(),
        "a program that is stopped answers nothing"
    );
    let woken = Instant::now();
    serve.signal("CONT");

    // What has waited for it is answered, and who asked is asked back: a newcomer.
    let mut heard = [false; 2];
    let mut id = Id::ZERO;
    while heard != [true; 2] {
        let mut buffer = [0; 2048];
        let len = uninterrupted(|| socket.recv(&mut buffer)).expect("an answer and a question");
        heard[usize::from(buffer[..len].ends_with(b"1:y1:qe"))] = true;
        // Both have it. Who knows the node under the id that it began with does not take it for the same.
        let at = buffer.windows(7).position(|window| window == b"2:id20:").expect("an id") + 7;
        id = Id::new(std::array::from_fn(|n| buffer[at + n]));
    }
    let after = named(&mut Asker::new(&host), addr);
    let kept = before.intersection(&after).count();
    assert!(kept * 10 >= before.len() * 9, "{kept} of {} are left", before.len());

    // It has noticed that it slept, and looks for its nodes again.
    serve.wait_for("the change of network", |line| line.starts_with("network changed").then_some(()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut counts = (0, 0);
    let again = async {
        while counts.0 < 20 || counts.1 < counts.0 {
            tokio::time::sleep(Duration::from_millis(200)).await;
            counts = cable.known_and_heard_of((id, addr), woken).await;
        }
    };
    let ended = runtime.block_on(async { tokio::time::timeout(SOON, again).await });
    assert!(ended.is_ok(), "{counts:?}: not all that know it have heard of it since it woke");
    let named = named(&mut Asker::new(&host), addr);
    assert!(named.len() >= ENOUGH, "it names {}", named.len());
}
