//! A node whose network goes, comes back and changes, on real interfaces: two network namespaces of
//! their own, joined by a virtual cable. In one is a small internet of 80 nodes, in the other the node
//! that is tested. Needs root; says so where it is missing.
//!
//! Outcomes are asserted, with guards far beyond what is expected, never how long they take.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod cable;
mod several;

use std::collections::BTreeSet;
use std::fs::{DirEntry, read_dir, read_to_string};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use btdht::net::{Bind, Dht, Options, SocketStats, State};
use btdht::secure_id::is_secure;
use btdht::{Config, Standing};
use harness::process::{Running, binary, eventually};
use harness::wire::{Asker, dict, list, string};

use cable::{Cable, ROUTER};

/// S18: so many good nodes again, within so long.
const ENOUGH: usize = 50;
const SOON: Duration = Duration::from_secs(120);

/// A node of the library at `bind`, which asks these routers.
fn node(bind: &str, routers: &[&str], config: Config) -> Dht {
    let bind = Bind { addr: bind.parse().unwrap(), required: true };
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
async fn has_id_of(node: &Dht, ip: &str) {
    let addr: IpAddr = ip.parse().unwrap();
    let home = until(node, "an id of the address", |stats| {
        stats.home.external.is_some_and(|external| external.ip() == addr) && is_secure(&stats.home.id, addr)
    });
    let id = home.await.home.id;
    let (from, to) = (ip.to_owned(), format!("{ip}:6881"));
    let ask = move || Asker::new(&from).ask(&to, "ping", &[]);
    let reply = tokio::task::spawn_blocking(ask).await.unwrap();
    assert_eq!(reply.expect("an answer").bytes("id").unwrap(), id.as_bytes(), "strangers are told it");
}

// S18
#[test]
fn a_node_knows_fifty_nodes_again_after_its_interface_was_down_and_its_address_changed() {
    network_that_comes_and_goes(2);
}

#[test]
#[ignore = "the interface goes down 20 times: minutes"]
fn a_node_knows_fifty_nodes_again_each_time_its_interface_was_down_of_twenty() {
    network_that_comes_and_goes(20);
}

fn network_that_comes_and_goes(rounds: usize) {
    let Some(cable) = Cable::lay("S18") else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        // It believes others as soon as they say that its address is another one.
        let config = Config { address_change_pause: Duration::from_millis(1), ..Config::default() };
        let roaming = node("0.0.0.0:6881", &[ROUTER], config);
        let fixed = node("84.0.0.2:6882", &[ROUTER], Config::default());
        let started = Instant::now();
        recovered(&roaming, started, "the first bootstrap").await;
        recovered(&fixed, started, "the first bootstrap of the other one").await;
        let before_all = roaming.table().await.unwrap();

        for round in 0..rounds {
            cable.unplug();
            until(&roaming, "noticing that the network is gone", |stats| !stats.home.online).await;
            let before = Instant::now();
            cable.plug("84.0.0.2");
            recovered(&roaming, before, &format!("the return of round {round}")).await;
        }

        // Another address: one socket goes along, the other's is gone until it comes back.
        let before = Instant::now();
        let changes = roaming.stats().await.unwrap().counters.network_changes;
        cable.readdress("84.0.0.2", "84.0.0.3");
        until(&fixed, "noticing that the address is gone", |stats| !stats.home.online).await;
        recovered(&roaming, before, "the change of address").await;
        has_id_of(&roaming, "84.0.0.3").await;
        // The addresses of the machine are read every few seconds.
        let changed = async {
            while roaming.stats().await.unwrap().counters.network_changes <= changes {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        assert!(tokio::time::timeout(SOON, changed).await.is_ok(), "the change was not noticed");
        let counters = roaming.stats().await.unwrap().counters;
        // Nodes of the small internet take an id of their address one after the other (BEP 42); nobody else
        // may be forgotten.
        let kept: BTreeSet<_> = roaming.table().await.unwrap().iter().map(|n| (n.id, n.addr)).collect();
        let (unchanged, all) = (cable.unchanged(&before_all).await, before_all.len());
        assert!(unchanged.len() * 2 > all, "{} of {all} have their id still", unchanged.len());
        let lost: Vec<_> = unchanged.iter().filter(|node| !kept.contains(*node)).collect();
        assert!(lost.is_empty(), "{lost:?} of {all} nodes were forgotten: {counters:?}");

        let before = Instant::now();
        cable.readdress("84.0.0.3", "84.0.0.2");
        recovered(&fixed, before, "the return of the address").await;
        until(&fixed, "binding the socket anew", |stats| stats.counters.rebinds >= 1).await;
        let before = Instant::now();
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
    // A name that cannot be resolved without a network, and a router that cannot be reached.
    let routers = ["router.invalid:6881", ROUTER];
    // A node that is looked into waits beside the program, while this thread waits for that.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let waiting = runtime.block_on(async { node("0.0.0.0:6999", &routers, Config::default()) });
    let mut command = Command::new(program);
    command.args(["serve", "--no-state", "--bootstrap", routers[0], "--bootstrap", routers[1]]);
    // One address asks it for much at the end.
    command.env("BTDHT_REPLIES_PER_SECOND_PER_IP", "0");
    let started = Instant::now();
    let mut serve = Running::start("btdht serve", &mut command);
    let port: u16 = serve.wait_for("the node listens", |line| {
        let port = line.strip_prefix("listening 0.0.0.0:")?.split(' ').next()?;
        Some(port.parse().expect("a port"))
    });
    // It says so after a few attempts that failed.
    let complaints = |serve: &Running| serve.stderr().matches("no router has answered").count() as u64;
    eventually("it complains", || (complaints(&serve) > 0).then_some(()));
    let bootstrapped = |line: &str| line.starts_with("bootstrapped ").then_some(());
    assert_eq!(serve.wait_within(Duration::ZERO, bootstrapped), Err("timed out"), "nobody can be reached");

    // One clock for everything from here on.
    let returned = Instant::now();
    cable.plug("84.0.0.2");
    runtime.block_on(recovered(&waiting, returned, "the first network of its life"));
    let left = || SOON.saturating_sub(returned.elapsed());
    assert_eq!(serve.wait_within(left(), bootstrapped), Ok(()), "the bootstrap: {}", serve.stderr());
    let minutes = started.elapsed().as_secs() / 60;
    assert!(complaints(&serve) <= 1 + minutes, "one line a minute: {}", serve.stderr());
    // The others have found one another long since: it learns of them by what it asks.
    let node = format!("84.0.0.2:{port}");
    let mut asker = Asker::new("84.0.0.2");
    // It names whom it has heard of, and nobody was there to be heard before.
    eventually("it knows 50 nodes", || {
        assert!(!left().is_zero(), "it does not know 50 nodes in time");
        (named(&mut asker, &node).len() >= ENOUGH).then_some(())
    });
}

/// Addresses that the node at `addr` names, asked for 16 places of the key space.
fn named(asker: &mut Asker, addr: &str) -> BTreeSet<Vec<u8>> {
    let mut records = BTreeSet::new();
    for n in 0..16 {
        let arguments = [("target", string([n << 4; 20])), ("want", list(&[string("n4")]))];
        let reply = asker.ask(addr, "find_node", &arguments).expect("an answer");
        records.extend(reply.bytes("nodes").unwrap().chunks_exact(26).map(|record| record[20..].to_vec()));
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
    const ADDR: &str = "84.0.0.2:6881";
    let program = binary("btdht");
    let Some(cable) = Cable::lay("S21") else { return };
    let mut command = Command::new(program);
    command.args(["serve", "--no-state", "--shards", "1", "--bind", ADDR, "--bootstrap", ROUTER]);
    // One address asks it for much here.
    command.env("BTDHT_REPLIES_PER_SECOND_PER_IP", "0");
    let mut serve = Running::start("btdht serve", &mut command);
    serve.wait_for("the bootstrap", |line| line.starts_with("bootstrapped ").then_some(()));
    let before = eventually("the node knows many others", || {
        let named = named(&mut Asker::new("84.0.0.2"), ADDR);
        (named.len() >= ENOUGH).then_some(named)
    });

    stop(&serve);
    let newcomer = Asker::new("84.0.0.2");
    let socket = UdpSocket::bind("84.0.0.2:0").unwrap();
    // Longer than `Config::asleep_after` beyond what is due next, which may be some seconds away.
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let arguments = dict(&[("id", string(newcomer.id))]);
    let ping = dict(&[("a", arguments), ("q", string("ping")), ("t", string("late")), ("y", string("q"))]);
    socket.send_to(&ping, ADDR).unwrap();
    assert!(socket.recv(&mut [0; 2048]).is_err(), "a program that is stopped answers nothing");
    let woken = Instant::now();
    serve.signal("CONT");

    // What has waited for it is answered, and who asked is asked back: a newcomer.
    let mut heard = [false; 2];
    while heard != [true; 2] {
        let mut buffer = [0; 2048];
        let len = socket.recv(&mut buffer).expect("an answer and a question");
        heard[usize::from(buffer[..len].ends_with(b"1:y1:qe"))] = true;
    }
    let after = named(&mut Asker::new("84.0.0.2"), ADDR);
    let kept = before.intersection(&after).count();
    assert!(kept * 10 >= before.len() * 9, "{kept} of {} are left", before.len());

    // It has noticed that it slept, and looks for its nodes again.
    serve.wait_for("the change of network", |line| line.starts_with("network changed").then_some(()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut counts = (0, 0);
    let again = async {
        while counts.0 < 20 || counts.1 < counts.0 {
            tokio::time::sleep(Duration::from_millis(200)).await;
            counts = cable.known_and_heard_of(ADDR.parse().unwrap(), woken).await;
        }
    };
    let ended = runtime.block_on(async { tokio::time::timeout(SOON, again).await });
    assert!(ended.is_ok(), "{counts:?}: not all that know it have heard of it since it woke");
    let named = named(&mut Asker::new("84.0.0.2"), ADDR);
    assert!(named.len() >= ENOUGH, "it names {}", named.len());
}
