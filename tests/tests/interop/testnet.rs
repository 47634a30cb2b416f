//! A testnet with a seeder, as an integrator uses it: the command that it prints fetches the data.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use harness::process::{DEADLINE, Running, binary, eventually};
use harness::rivals::ready;

use crate::world::{Sample, btfetch};

/// Like a shell, in a process group of its own.
fn testnet(args: &[&str]) -> Running {
    let mut command = Command::new(binary("btdht"));
    command.args(["testnet", "--nodes", "12", "--swarm", "0", "--no-state"]).args(args).process_group(0);
    Running::start("btdht testnet", &mut command)
}

/// The data of `sample` in a torrent made with further words.
fn torrent(sample: &Sample, words: &[&str]) -> String {
    let torrent = format!("{}/other.torrent", sample.data());
    let data = format!("{}/sample.bin", sample.data());
    let mut create = btfetch(&[&["create", &data, "-o", &torrent], words].concat());
    assert!(create.wait(DEADLINE).success(), "btfetch create: {}", create.stderr());
    torrent
}

/// Waits for the announce of the seeder: where it listens.
fn seeder(net: &mut Running) -> String {
    net.wait_for("the announce of the seeder", |line| {
        Some(line.strip_prefix("announced ")?.split_once(' ')?.1.to_owned())
    })
}

/// Waits until nobody listens at the address.
fn gone(addr: &str) {
    eventually("the seeder is gone", || TcpListener::bind(addr).ok());
}

/// Whether this kernel knows the addresses of the words.
fn is_possible(words: &[&str]) -> bool {
    words.is_empty() || TcpListener::bind("[::1]:0").is_ok()
}

#[test]
fn a_testnet_with_a_seeder_prints_the_command_that_fetches_its_data() {
    let programs = binary("btfetch").parent().unwrap().to_owned();
    if !ready("a_testnet_with_a_seeder_prints_the_command_that_fetches_its_data", &[]) {
        return;
    }
    let tracker = TcpListener::bind("127.0.0.1:0").unwrap();
    tracker.set_nonblocking(true).unwrap();
    let url = format!("http://{}/announce", tracker.local_addr().unwrap());
    for words in [&[][..], &["--ipv6-only"]].into_iter().filter(|words| is_possible(words)) {
        let sample = Sample::new(3 << 20, 5);
        let torrent = torrent(&sample, &["--tracker", &url]);
        let mut net = testnet(&[&["--seeder", &*torrent], words].concat());
        let seeder = seeder(&mut net);
        let line = net.wait_for("the command", |line| line.starts_with("btfetch ").then(|| line.to_owned()));
        // Somebody pastes it where he is, which is also where the data lies.
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", &line]).current_dir(sample.data()).env("PATH", &programs);
        let mut fetch = Running::start("the shell", &mut shell);
        let status = fetch.wait(DEADLINE);
        assert!(status.success(), "{line}: {status}\n{}", fetch.stderr());
        sample.assert_same(&sample.folder.path().join("from-testnet"));
        let asked = tracker.accept().expect_err("a testnet announces nothing outside of it");
        assert_eq!(asked.kind(), ErrorKind::WouldBlock);

        TcpListener::bind(&seeder).expect_err("the seeder lives as long as the testnet");
        // As a terminal does: to the whole group.
        let group = format!("-{}", net.pid());
        assert!(Command::new("kill").args(["-INT", "--", &group]).status().unwrap().success());
        assert_eq!(net.wait(DEADLINE).code(), Some(130), "{}", net.stderr());
        assert!(!net.stderr().contains("seeder"), "{}", net.stderr());
        TcpListener::bind(&seeder).expect("and no longer");
    }
}

#[test]
fn a_testnet_ends_with_its_seeder_which_says_why() {
    binary("btfetch");
    if !ready("a_testnet_ends_with_its_seeder_which_says_why", &[]) {
        return;
    }
    let sample = Sample::new(1 << 20, 6);
    let empty = tempfile::tempdir().unwrap();
    let private = torrent(&sample, &["--private"]);
    for (words, code, expected) in [
        (["--seeder", sample.torrent(), "--seeder-dir", empty.path().to_str().unwrap()], 1, "seeder ended: "),
        (["--seeder", "/nowhere.torrent", "--seeder-dir", sample.data()], 2, "seeder ended: "),
        (["--seeder", &private, "--seeder-dir", sample.data()], 2, "is private"),
    ] {
        let mut net = testnet(&words);
        let status = net.wait(DEADLINE);
        let said = net.stderr();
        assert!(status.code() == Some(code) && said.contains(expected), "{words:?}: {status}\n{said}");
    }

    let mut net = testnet(&["--seeder", sample.torrent()]);
    seeder(&mut net);
    let tasks = std::fs::read_dir(format!("/proc/{}/task", net.pid())).unwrap();
    let children = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("children")).unwrap());
    let child: String = children.collect();
    assert!(Command::new("kill").args(["-KILL", child.trim()]).status().unwrap().success());
    assert_eq!(net.wait(DEADLINE).code(), Some(1), "{}", net.stderr());
    assert!(net.stderr().contains("the seeder ended: signal: 9"), "{}", net.stderr());

    let mut net = testnet(&["--seeder", sample.torrent()]);
    let seeder = seeder(&mut net);
    net.signal("KILL");
    gone(&seeder);
}
