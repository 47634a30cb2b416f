//! The programs together, each in a process of its own: a network, a seeder that announces itself there, and a
//! download that has nothing but a magnet link.

use std::process::Command;

use harness::process::{Running, binary, eventually};

use crate::world::{World, code, events, wait_event};

/// A command's flags for a machine of its own.
const HERE: [&str; 4] = ["--json", "--no-state", "--allow-local", "--bind"];

/// `btdht` with a home of its own.
fn btdht(world: &World, words: &[&str]) -> Command {
    let mut command = Command::new(binary("btdht"));
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("HOME", world.path("home")).current_dir(world.path("home")).args(words);
    command
}

#[test]
fn a_magnet_link_is_fetched_from_a_seeder_that_a_testnet_knows() {
    let world = World::new(77, 3_000_000);
    let mut net = Running::start("testnet", &mut btdht(&world, &["testnet", "--nodes", "20", "--json"]));
    let router: String = wait_event(&mut net, "bootstrap", |event| event["addr"].as_str().map(str::to_owned));
    wait_event(&mut net, "ready", |_| Some(()));
    let transfer = |words: &[&str]| {
        let mut command = world.command();
        command.args(words).args(HERE).args(["127.0.0.1", "--port", "0", "--bootstrap", &router]);
        command
    };
    let info = world.run(world.command().args(["info", "--json"]).arg(world.torrent()));
    let infohash = events(&info)[0]["infohash_v1"].as_str().unwrap().to_owned();

    let mut seeder = transfer(&["seed"]);
    let mut seeder = Running::start("seeder", seeder.arg(world.torrent()).arg("-o").arg(world.seeder()));
    let addr: String =
        wait_event(&mut seeder, "listening", |event| event["addr"].as_str().map(str::to_owned));
    eventually("the announce of the seeder", || {
        let words = ["get-peers", &infohash, "--bootstrap", &router];
        let found = world.run(btdht(&world, &words).args(HERE).arg("127.0.0.1"));
        events(&found).iter().any(|event| event["addr"] == *addr).then_some(())
    });

    let magnet = format!("magnet:?xt=urn:btih:{infohash}");
    let fetched = world.run(transfer(&[&magnet]).arg("-o").arg(world.leecher()));
    assert_eq!(code(fetched.status), 0, "{}", String::from_utf8_lossy(&fetched.stderr));
    assert!(world.is_whole());
    // Each ends as it should.
    for mut running in [seeder, net] {
        running.signal("TERM");
        assert_eq!(code(running.wait(harness::process::DEADLINE)), 143, "{}", running.stderr());
    }
}
