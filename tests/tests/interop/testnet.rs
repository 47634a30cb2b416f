//! A testnet with a seeder, as an integrator uses it: the command that it prints fetches the data.

use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use harness::process::{Running, binary};
use harness::rivals::ready;

use crate::world::{Sample, btfetch};

fn testnet(args: &[&str]) -> Running {
    let mut command = Command::new(binary("btdht"));
    command.args(["testnet", "--nodes", "12", "--swarm", "0", "--no-state"]).args(args);
    Running::start("btdht testnet", &mut command)
}

#[test]
fn a_testnet_with_a_seeder_prints_the_command_that_fetches_its_data() {
    binary("btfetch");
    if !ready("a_testnet_with_a_seeder_prints_the_command_that_fetches_its_data", &[]) {
        return;
    }
    let sample = Sample::new(3 << 20, 5);
    let mut net = testnet(&["--seeder", sample.torrent(), "--seeder-dir", sample.data()]);
    let seeder: String = net.wait_for("the announce of the seeder", |line| {
        Some(line.strip_prefix("announced ")?.split_once(' ')?.1.to_owned())
    });
    let command = net.wait_for("the command", |line| line.strip_prefix("btfetch ").map(str::to_owned));
    let folder = tempfile::tempdir().unwrap();
    let mut args: Vec<&str> = command.split(' ').collect();
    args.extend(["-o", folder.path().to_str().unwrap()]);
    let mut fetch = btfetch(&args);
    let status = fetch.wait(Duration::from_secs(90));
    assert!(status.success(), "btfetch {command}: {status}\n{}", fetch.stderr());
    sample.assert_same(folder.path());

    TcpListener::bind(&seeder).expect_err("the seeder lives as long as the testnet");
    net.signal("TERM");
    assert_eq!(net.wait(Duration::from_secs(30)).code(), Some(143), "{}", net.stderr());
    TcpListener::bind(&seeder).expect("and no longer");
}

#[test]
fn a_testnet_ends_with_its_seeder_which_says_why() {
    binary("btfetch");
    if !ready("a_testnet_ends_with_its_seeder_which_says_why", &[]) {
        return;
    }
    let sample = Sample::new(1 << 20, 6);
    let empty = tempfile::tempdir().unwrap();
    let mut net = testnet(&["--seeder", sample.torrent(), "--seeder-dir", empty.path().to_str().unwrap()]);
    assert_eq!(net.wait(Duration::from_secs(30)).code(), Some(1), "{}", net.stderr());
    let said = net.stderr();
    assert!(said.contains("btfetch: ") && said.contains("btdht: the seeder ended: "), "{said}");
}
