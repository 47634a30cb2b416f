//! Mutable torrents (BEP 46): published with `btdht put`, named by a key, found through the DHT.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use btdht::item::SecretKey;
use btdht::mutable_torrent::value_of;
use btdht::testnet::Testnet;
use harness::process::{Running, binary, eventually};
use krpc::Id;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::world::{World, code, events, wait_event};

/// A DHT on loopback.
struct Network {
    net: Testnet,
    /// Behind the network, which ends in it.
    runtime: Runtime,
}

impl Network {
    fn new(count: usize) -> Self {
        let runtime = Runtime::new().unwrap();
        let net = runtime.block_on(Testnet::new(count)).unwrap();
        Self { net, runtime }
    }

    fn router(&self) -> String {
        self.net.bootstrap().next().unwrap().to_string()
    }

    /// Publishes the next value under a key without a salt.
    fn update(&self, secret: &SecretKey, value: &[u8]) {
        self.runtime.block_on(self.net.nodes()[3].update(secret, b"", value)).unwrap();
    }

    /// Waits until `peer` can be found.
    fn wait_for_peer(&self, infohash: Id, peer: SocketAddr) {
        eventually("an announce of the seeder", || {
            self.runtime.block_on(async {
                let mut peers = self.net.nodes()[2].get_peers(infohash, None, false).await.unwrap().peers();
                while let Some(found) = peers.next().await {
                    if found == peer {
                        return Some(());
                    }
                }
                None
            })
        });
    }
}

/// A key as magnet links name it.
fn hex(secret: &SecretKey) -> String {
    secret.public().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A transfer that has nothing but the DHT to find peers.
fn transfer(world: &World, network: &Network, words: &[&str]) -> Command {
    let mut command = world.command();
    command.args(words).args(["--json", "--no-state", "--allow-local", "--port", "0", "--bind", "127.0.0.1"]);
    command.args(["--bootstrap", &network.router()]);
    // What is asked every hour is asked every fifth of a second.
    command.env("BTFETCH_FOLLOW_EVERY", "200 ms").env("BTFETCH_RENEW_RETRY_MIN", "200 ms");
    command
}

/// A seeder of the world's torrent that was found through the DHT, and the infohash.
fn seed(world: &World, network: &Network) -> (Running, String) {
    let info = world.run(world.command().args(["info", "--json"]).arg(world.torrent()));
    let infohash = events(&info)[0]["infohash_v1"].as_str().unwrap().to_owned();
    let mut command = transfer(world, network, &["seed"]);
    command.arg(world.torrent()).arg("-o").arg(world.seeder());
    let mut seeder = Running::start("seeder", &mut command);
    let addr = wait_event(&mut seeder, "listening", |event| event["addr"].as_str()?.parse().ok());
    network.wait_for_peer(infohash.parse().unwrap(), addr);
    (seeder, infohash)
}

/// Publishes `infohash` under the key in `key`, which is made if it is not there; the magnet link.
fn publish(world: &World, network: &Network, infohash: &str) -> String {
    let key = world.path("key");
    let mut command = Command::new(binary("btdht"));
    command.args(["put", "--json", "--infohash", infohash, "--salt", "s"]);
    command.arg(if key.exists() { "--key" } else { "--new-key" }).arg(&key);
    command.args(["--bind", "127.0.0.1", "--allow-local", "--no-state", "--bootstrap", &network.router()]);
    command.env("HOME", world.path("home"));
    let put = world.run(&mut command);
    assert_eq!(code(put.status), 0, "{put:?}");
    let put = &events(&put)[0];
    assert!(put["stored"].as_u64() > Some(3), "{put}");
    put["magnet"].as_str().unwrap().to_owned()
}

#[test]
fn what_a_key_stands_for_is_found_verified_and_downloaded() {
    let network = Network::new(10);
    let world = World::new(46, 1_500_000);
    let (_seeder, infohash) = seed(&world, &network);
    let magnet = publish(&world, &network, &infohash);
    assert!(magnet.starts_with("magnet:?xs=urn:btpk:") && magnet.ends_with("&s=73"), "{magnet}");

    let out = world.leecher();
    let fetched = world.run(transfer(&world, &network, &[&magnet]).arg("-o").arg(&out));
    assert_eq!(code(fetched.status), 0, "{}", String::from_utf8_lossy(&fetched.stderr));
    assert!(world.is_whole());
    let version = events(&fetched).into_iter().find(|event| event["event"] == "version").unwrap();
    assert_eq!((&version["seq"], &version["infohash"]), (&1.into(), &infohash.as_str().into()));
}

#[test]
fn with_follow_a_newer_version_takes_the_place_of_the_one_before() {
    let network = Network::new(10);
    let (first, second) = (World::new(47, 400_000), World::new(48, 500_000));
    let (_old, old) = seed(&first, &network);
    let magnet = publish(&first, &network, &old);
    let mut command = transfer(&first, &network, &[&magnet, "--follow"]);
    let mut leecher = Running::start("leecher", command.arg("-o").arg(first.leecher()));
    let done = |infohash: &str| {
        let infohash = infohash.to_owned();
        move |event: &Value| (event["infohash"] == infohash.as_str()).then_some(())
    };
    wait_event(&mut leecher, "done", done(&old));
    assert!(first.is_whole());

    // The same file name, other content.
    let (_new, new) = seed(&second, &network);
    publish(&first, &network, &new);
    wait_event(&mut leecher, "version", |event| (event["seq"] == 2).then_some(()));
    wait_event(&mut leecher, "done", done(&new));
    let fetched = fs::read(first.leecher().join(crate::world::NAME)).unwrap();
    assert_eq!(fetched, fs::read(second.seeder().join(crate::world::NAME)).unwrap());
    leecher.signal("TERM");
    assert_eq!(code(leecher.wait(harness::process::DEADLINE)), 143);
}

/// Whoever follows waits for a torrent, whether there was one before or not.
#[test]
fn with_follow_what_is_no_torrent_is_told_and_waited_out_from_the_first_on() {
    let network = Network::new(10);
    let world = World::new(51, 400_000);
    let (_seeder, infohash) = seed(&world, &network);
    let secret = SecretKey::from_seed(&[5; 32]);
    network.update(&secret, b"5:hello");
    let magnet = format!("magnet:?xs=urn:btpk:{}", hex(&secret));
    let mut command = transfer(&world, &network, &[&magnet, "--follow"]);
    let mut leecher = Running::start("leecher", command.arg("-o").arg(world.leecher()));
    let told = |event: &Value| event["message"].as_str()?.contains("(number 1) is no torrent").then_some(());
    wait_event(&mut leecher, "warning", told);
    network.update(&secret, &value_of(&infohash.parse().unwrap()));
    wait_event(&mut leecher, "version", |event| (event["seq"] == 2).then_some(()));
    wait_event(&mut leecher, "done", |_| Some(()));
    assert!(world.is_whole());
    leecher.signal("TERM");
    assert_eq!(code(leecher.wait(harness::process::DEADLINE)), 143);
}

#[test]
fn with_follow_a_torrent_named_beside_the_key_is_there_before_anything_is_published() {
    let network = Network::new(10);
    let (first, second) = (World::new(52, 400_000), World::new(53, 500_000));
    let (_old, old) = seed(&first, &network);
    let secret = SecretKey::from_seed(&[6; 32]);
    let magnet = format!("magnet:?xt=urn:btih:{old}&xs=urn:btpk:{}", hex(&secret));
    let mut command = transfer(&first, &network, &[&magnet, "--follow"]);
    let mut leecher = Running::start("leecher", command.arg("-o").arg(first.leecher()));
    wait_event(&mut leecher, "done", |event| (event["infohash"] == old.as_str()).then_some(()));
    assert!(first.is_whole());

    // The first version is what is there already, and does not begin anew.
    network.update(&secret, &value_of(&old.parse().unwrap()));
    wait_event(&mut leecher, "version", |event| (event["seq"] == 1).then_some(()));
    let (_new, new) = seed(&second, &network);
    network.update(&secret, &value_of(&new.parse().unwrap()));
    leecher.wait_for("the second version", |line| {
        let event: Value = serde_json::from_str(line).ok()?;
        assert_ne!(event["event"], "metadata", "{event}");
        (event["event"] == "version" && event["seq"] == 2).then_some(())
    });
    wait_event(&mut leecher, "done", |event| (event["infohash"] == new.as_str()).then_some(()));
    let fetched = fs::read(first.leecher().join(crate::world::NAME)).unwrap();
    assert_eq!(fetched, fs::read(second.seeder().join(crate::world::NAME)).unwrap());
    leecher.signal("TERM");
    assert_eq!(code(leecher.wait(harness::process::DEADLINE)), 143);
}

#[test]
fn what_nobody_published_is_exit_code_4_and_what_is_no_torrent_exit_code_1() {
    let network = Network::new(6);
    let world = World::new(49, 1000);
    let nobody = format!("magnet:?xs=urn:btpk:{}", "ab".repeat(32));
    let fetched =
        world.run(transfer(&world, &network, &[&nobody, "--timeout", "0.5"]).arg("-o").arg(world.leecher()));
    assert_eq!(code(fetched.status), 4, "{fetched:?}");
    assert!(String::from_utf8_lossy(&fetched.stderr).contains("nothing is published under the key"));

    let secret = SecretKey::from_seed(&[4; 32]);
    network.update(&secret, b"5:hello");
    let magnet = format!("magnet:?xs=urn:btpk:{}", hex(&secret));
    let fetched = world.run(transfer(&world, &network, &[&magnet]).arg("-o").arg(world.leecher()));
    assert_eq!(code(fetched.status), 1, "{fetched:?}");
    assert!(String::from_utf8_lossy(&fetched.stderr).contains("(number 1) is no torrent"), "{fetched:?}");
}

#[test]
fn a_key_is_shown_by_info_and_needs_the_dht() {
    let world = World::new(50, 1000);
    let key = "ab".repeat(32);
    let magnet = format!("magnet:?xs=urn:btpk:{key}&s=73");
    let shown = world.run(world.command().args(["info", &magnet]));
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(
        text.contains(&format!("public key     {key}\n")) && text.contains("salt           hex:73\n"),
        "{text}"
    );
    let shown = world.run(world.command().args(["info", "--json", &magnet]));
    assert_eq!(events(&shown)[0]["public_key"], key.as_str());
    assert_eq!(events(&shown)[0]["salt"], "73");

    for (words, told) in [
        (&[&magnet[..], "--no-dht"][..], "through the DHT"),
        (&[&"11".repeat(20)[..], "--follow"], "magnet links that name a key"),
    ] {
        let refused = world.run(world.command().args(words));
        assert_eq!(code(refused.status), 2, "{refused:?}");
        assert!(String::from_utf8_lossy(&refused.stderr).contains(told), "{refused:?}");
    }
}
