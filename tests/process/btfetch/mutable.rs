//! Mutable torrents (BEP 46): published with `btdht put`, named by a key, found through the DHT.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;

use btdht::item::SecretKey;
use btdht::mutable_torrent::value_of;
use btdht::testnet::Testnet;
use btfetch::engine::VersionFile;
use harness::process::{DEADLINE, Running, binary, eventually};
use krpc::Id;
use krpc::magnet::Magnet;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::world::{World, code, events, wait_event};

/// A DHT on loopback.
pub(crate) struct Network {
    net: Testnet,
    /// Behind the network, which ends in it.
    runtime: Runtime,
}

impl Network {
    pub(crate) fn new(count: usize) -> Self {
        let runtime = Runtime::new().unwrap();
        let net = runtime.block_on(Testnet::new(count)).unwrap();
        Self { net, runtime }
    }

    fn router(&self) -> String {
        self.net.bootstrap().next().unwrap().to_string()
    }

    /// Publishes the next value under a key without a salt.
    pub(crate) fn update(&self, secret: &SecretKey, value: &[u8]) {
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
pub(crate) fn hex(secret: &SecretKey) -> String {
    secret.public().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A transfer that has nothing but the DHT to find peers.
pub(crate) fn transfer(world: &World, network: &Network, words: &[&str]) -> Command {
    transfer_at(world, &network.router(), words)
}

fn transfer_at(world: &World, router: &str, words: &[&str]) -> Command {
    let mut command = world.command();
    command.args(words).args(["--json", "--no-state", "--allow-local", "--bind", "127.0.0.1"]);
    command.args(["--bootstrap", router]);
    if !words.contains(&"--port") {
        command.args(["--port", "0"]);
    }
    // What is asked every hour is asked every fifth of a second.
    command.env("BTFETCH_FOLLOW_EVERY", "200 ms").env("BTFETCH_RENEW_RETRY_MIN", "200 ms");
    command
}

/// A seeder of the world's torrent that was found through the DHT, and the infohash.
pub(crate) fn seed(world: &World, network: &Network) -> (Running, String) {
    let (seeder, infohash, _) = seed_at(world, network);
    (seeder, infohash)
}

/// The same, and where it is.
fn seed_at(world: &World, network: &Network) -> (Running, String, SocketAddr) {
    let info = world.run(world.command().args(["info", "--json"]).arg(world.torrent()));
    let infohash = events(&info)[0]["infohash_v1"].as_str().unwrap().to_owned();
    let mut command = transfer(world, network, &["seed"]);
    command.arg(world.torrent()).arg("-o").arg(world.seeder());
    let mut seeder = Running::start("seeder", &mut command);
    let addr = wait_event(&mut seeder, "listening", |event| event["addr"].as_str()?.parse().ok());
    network.wait_for_peer(infohash.parse().unwrap(), addr);
    (seeder, infohash, addr)
}

/// Gives the world's file another name, before it is seeded.
pub(crate) fn rename(world: &World, name: &str) {
    let file = world.seeder().join(name);
    fs::rename(world.seeder().join(crate::world::NAME), &file).unwrap();
    fs::remove_file(world.torrent()).unwrap();
    let made = world.run(world.command().arg("create").arg(file).arg("-o").arg(world.torrent()));
    assert!(made.status.success(), "{made:?}");
}

/// Waits until `new` is done. Until then no event tells of `old`, and the file is what `expected` says.
fn wait_without_the_old_one(
    leecher: &mut Running,
    (old, new): (&str, &str),
    (file, expected): (&Path, Option<&[u8]>),
) {
    leecher.wait_for("the end of the newer version", |line| {
        let event: Value = serde_json::from_str(line).ok()?;
        assert_ne!(event["infohash"], old, "{event}");
        if let Some(expected) = expected {
            assert!(fs::read(file).unwrap() == expected, "the file is another one at {event}");
        }
        (event["event"] == "done" && event["infohash"] == new).then_some(())
    });
}

/// Ends a run that follows.
pub(crate) fn end(mut leecher: Running) {
    leecher.signal("TERM");
    assert_eq!(code(leecher.wait(DEADLINE)), 143);
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
    end(leecher);
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
    end(leecher);
}

#[test]
fn with_follow_a_torrent_named_beside_the_key_is_there_before_anything_is_published() {
    let network = Network::new(10);
    let (first, second) = (World::new(52, 400_000), World::new(53, 500_000));
    let (_old, old, old_peer) = seed_at(&first, &network);
    let secret = SecretKey::from_seed(&[6; 32]);
    let magnet = format!("magnet:?xt=urn:btih:{old}&xs=urn:btpk:{}", hex(&secret));
    let mut command = transfer(&first, &network, &[&magnet, "--follow"]);
    let mut leecher = Running::start("leecher", command.arg("-o").arg(first.leecher()));
    wait_event(&mut leecher, "done", |event| (event["infohash"] == old.as_str()).then_some(()));
    assert!(first.is_whole());

    // The first version is what is there already, and does not begin anew.
    network.update(&secret, &value_of(&old.parse().unwrap()));
    wait_event(&mut leecher, "version", |event| (event["seq"] == 1).then_some(()));
    let (_new, new, new_peer) = seed_at(&second, &network);
    network.update(&secret, &value_of(&new.parse().unwrap()));
    leecher.wait_for("the second version", |line| {
        let event: Value = serde_json::from_str(line).ok()?;
        assert_ne!(event["event"], "metadata", "{event}");
        (event["event"] == "version" && event["seq"] == 2).then_some(())
    });
    wait_event(&mut leecher, "done", |event| (event["infohash"] == new.as_str()).then_some(()));
    let file = first.leecher().join(crate::world::NAME);
    let expected = fs::read(second.seeder().join(crate::world::NAME)).unwrap();
    assert_eq!(fs::read(&file).unwrap(), expected);
    end(leecher);

    // A later run begins with the newer one, whether the key can be asked for or not.
    let silence = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (old_peer, new_peer) = (old_peer.to_string(), new_peer.to_string());
    for router in [network.router(), silence.local_addr().unwrap().to_string()] {
        let words = [&magnet[..], "--follow", "--peer", &old_peer, "--peer", &new_peer];
        let mut command = transfer_at(&first, &router, &words);
        let mut leecher = Running::start("leecher", command.arg("-o").arg(first.leecher()));
        wait_without_the_old_one(&mut leecher, (&old, &new), (&file, Some(&expected)));
        let passed_over = format!("the link names {old}, which is not fetched");
        let is_told = |line: &String| line.contains(r#""event":"warning""#) && line.contains(&passed_over);
        assert!(leecher.seen().iter().any(is_told), "{:?}", leecher.seen());
        assert_eq!(fs::read(&file).unwrap(), expected);
        end(leecher);
    }
}

/// And a file of an earlier run that is not believed is told and is none.
#[test]
fn with_follow_the_key_has_a_head_start_over_the_torrent_named_beside_it() {
    let network = Network::new(10);
    let (first, second) = (World::new(54, 400_000), World::new(55, 500_000));
    let ((_old, old), (_new, new)) = (seed(&first, &network), seed(&second, &network));
    let secret = SecretKey::from_seed(&[7; 32]);
    let magnet = format!("magnet:?xt=urn:btih:{old}&xs=urn:btpk:{}", hex(&secret));
    let kept = VersionFile::new(&first.leecher(), &Magnet::parse(&magnet).unwrap()).unwrap();
    fs::write(kept.path(), b"garbage").unwrap();
    let mut command = transfer(&first, &network, &[&magnet, "--follow"]);
    let mut leecher = Running::start("leecher", command.arg("-o").arg(first.leecher()));
    wait_event(&mut leecher, "warning", |event| event["message"].as_str()?.contains("version").then_some(()));
    // Fast enough: on loopback, against a head start of 15 seconds.
    network.update(&secret, &value_of(&new.parse().unwrap()));
    let file = first.leecher().join(crate::world::NAME);
    wait_without_the_old_one(&mut leecher, (&old, &new), (&file, None));
    assert_eq!(kept.load().unwrap().unwrap().infohash.to_string(), new);
    end(leecher);
}

#[test]
fn with_follow_a_version_without_a_file_that_was_selected_is_told_and_waited_out() {
    let network = Network::new(10);
    let (first, second) = (World::new(56, 400_000), World::new(57, 500_000));
    rename(&second, "new.bin");
    let ((_old, old), (_new, new)) = (seed(&first, &network), seed(&second, &network));
    let secret = SecretKey::from_seed(&[8; 32]);
    network.update(&secret, &value_of(&old.parse().unwrap()));
    let magnet = format!("magnet:?xs=urn:btpk:{}", hex(&secret));
    let mut command = transfer(&first, &network, &[&magnet, "--follow", "--select", "new*"]);
    let mut leecher = Running::start("leecher", command.arg("-o").arg(first.leecher()));
    let told = |event: &Value| event["message"].as_str()?.contains("no file").then_some(());
    wait_event(&mut leecher, "warning", told);
    network.update(&secret, &value_of(&new.parse().unwrap()));
    wait_event(&mut leecher, "done", |event| (event["infohash"] == new.as_str()).then_some(()));
    let fetched = fs::read(first.leecher().join("new.bin")).unwrap();
    assert_eq!(fetched, fs::read(second.seeder().join("new.bin")).unwrap());
    end(leecher);
}

/// Whether a peer takes a connection for a torrent.
fn greets(port: &str, infohash: &str) -> bool {
    let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let infohash: Id = infohash.parse().unwrap();
    let greeting = [b"\x13BitTorrent protocol", &[0; 8][..], infohash.as_bytes(), &[b'x'; 20]].concat();
    stream.write_all(&greeting).unwrap();
    stream.read_exact(&mut [0; 68]).is_ok()
}

#[test]
fn with_follow_a_version_that_is_complete_is_seeded_as_long_as_wanted_and_no_longer() {
    let network = Network::new(10);
    let world = World::new(58, 100_000);
    let (_seeder, infohash) = seed(&world, &network);
    let magnet = publish(&world, &network, &infohash);
    for (number, (words, seeds)) in
        [(&[][..], false), (&["--seed-time", "0"], false), (&["--seed"], true)].into_iter().enumerate()
    {
        // Its port has to be known.
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
        let words = [&[&magnet[..], "--follow", "--port", &free], words].concat();
        let mut command = transfer(&world, &network, &words);
        let out = world.path(&format!("out {number}"));
        let mut leecher = Running::start("leecher", command.arg("-o").arg(&out));
        wait_event(&mut leecher, "done", |_| Some(()));
        if !seeds {
            wait_event(&mut leecher, "waiting", |_| Some(()));
        }
        assert_eq!(greets(&free, &infohash), seeds, "{words:?}");
        end(leecher);
    }
}

#[test]
fn with_follow_and_a_timeout_what_is_no_torrent_is_not_waited_out_for_ever() {
    let network = Network::new(6);
    let world = World::new(59, 1000);
    let secret = SecretKey::from_seed(&[9; 32]);
    network.update(&secret, b"5:hello");
    let magnet = format!("magnet:?xs=urn:btpk:{}", hex(&secret));
    let mut command = transfer(&world, &network, &[&magnet, "--follow", "--timeout", "2"]);
    let mut leecher = Running::start("leecher", command.arg("-o").arg(world.leecher()));
    assert_eq!(code(leecher.wait(DEADLINE)), 4);
    assert!(leecher.stderr().contains("no torrent was found under the key"), "{}", leecher.stderr());
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
