//! What the machine does to a download: few descriptors, a stop in the middle, a crowd that only
//! connects (S42, S43, S51).

use std::fs;
use std::io::Read as _;
use std::net::{SocketAddrV4, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use harness::faults::{limit_descriptors, raise_descriptors};
use harness::hostile::{Honest, Peer, Torrent};
use harness::process::Running;
use harness::uninterrupted::uninterrupted;
use tempfile::TempDir;

use crate::hostile::command;
use crate::world::{World, code, sha256, wait_event};

const PATIENCE: Duration = Duration::from_secs(60);

/// S43.
#[test]
fn few_descriptors_mean_fewer_peers_and_one_warning() {
    let torrent = Arc::new(Torrent::new(4 << 20, 64 << 10, 0, 43));
    let slow = Honest { rate: 32 << 10, ..Honest::default() };
    let peers: Vec<_> = (0..100).map(|_| Peer::honest(&torrent, slow)).collect();
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("it.torrent");
    fs::write(&file, torrent.file()).unwrap();
    let mut command = command(folder.path());
    command.arg(file);
    for peer in &peers {
        command.args(["--peer", &peer.addr.to_string()]);
    }
    limit_descriptors(&mut command, 64);
    let mut running = Running::start("btfetch with 64 descriptors", &mut command);
    let ended = running.wait(PATIENCE);
    assert_eq!(code(ended), 0, "{}", running.stderr());
    assert_eq!(sha256(&folder.path().join(&torrent.name)), Some(torrent.sha256()));
    let warnings = running.stderr().lines().filter(|line| line.contains("WARN")).count();
    let told = running.seen().iter().filter(|line| line.contains(r#""event":"warning""#)).count();
    assert_eq!(warnings + told, 1, "{}\n{}", running.seen().join("\n"), running.stderr());
    let connected = peers.iter().filter(|peer| peer.seen.handshakes.total() > 0).count();
    assert!((8..64).contains(&connected), "{connected} peers");
}

/// S51: stops a download in the middle for so long, and lets it go on.
fn goes_on_after_a_stop(stop: Duration) {
    let world = World::new(51, 16 << 20);
    let (_seeder, addr) = world.start_seeder(&["--up", "3M"]);
    let mut leecher = Running::start("leecher", &mut world.download(addr));
    wait_event(&mut leecher, "piece", |_| Some(()));
    leecher.signal("STOP");
    thread::sleep(stop);
    // What it said before it was stopped.
    while leecher.wait_within(Duration::from_millis(100), |_| Some(())).is_ok() {}
    leecher.signal("CONT");
    let piece = |line: &str| line.contains(r#""event":"piece""#).then_some(());
    leecher.wait_within(Duration::from_secs(30), piece).expect("it goes on within 30 s");
    assert_eq!(code(leecher.wait(PATIENCE)), 0, "{}", leecher.stderr());
    assert!(world.is_whole());
}

#[test]
fn a_stopped_download_goes_on() {
    goes_on_after_a_stop(Duration::from_secs(3));
}

#[test]
#[ignore = "S51 in full: it is stopped for five minutes"]
fn a_download_that_was_stopped_for_five_minutes_goes_on() {
    goes_on_after_a_stop(Duration::from_secs(300));
}

/// Silent connections in the tests of S42, and how many descriptors a seeder may have open that gets them: a
/// thousand and 1024, or less where this process may not have twice as many open itself.
fn crowd() -> (usize, u64) {
    let allowed = raise_descriptors();
    let silent = 1000.min(allowed / 2);
    if silent < 1000 {
        eprintln!(
            "only {silent} silent connections instead of 1000: no more than {allowed} descriptors here"
        );
    }
    (silent as usize, silent + 24)
}

/// A seeder with few descriptors and a limited rate.
fn start_small_seeder(world: &World, descriptors: u64) -> (Running, SocketAddrV4) {
    let mut command = world.transfer(&["seed", "--up", "4M"]);
    limit_descriptors(command.arg(world.torrent()).arg("-o").arg(world.seeder()), descriptors);
    let mut seeder = Running::start("seeder", &mut command);
    let addr = wait_event(&mut seeder, "listening", |event| event["addr"].as_str()?.parse().ok());
    wait_event(&mut seeder, "done", |_| Some(()));
    (seeder, addr)
}

/// Milliseconds of a download, with `silent` connections to the seeder that are made as it begins. They
/// are closed, and the seeder keeps some of its descriptors to spare.
fn download_beside(silent: usize, descriptors: u64) -> u64 {
    let world = World::new(42, 16 << 20);
    let (seeder, addr) = start_small_seeder(&world, descriptors);
    let mut leecher = Running::start("leecher", &mut world.download(addr));
    wait_event(&mut leecher, "piece", |_| Some(()));
    let connections: Vec<_> = (0..silent).map(|_| TcpStream::connect(addr).unwrap()).collect();
    let mut most = 0;
    let took = leecher.wait_for("the end of the download", |line| {
        most = most.max(fs::read_dir(format!("/proc/{}/fd", seeder.pid())).unwrap().count() as u64);
        let event: serde_json::Value = serde_json::from_str(line).ok()?;
        if event["event"] == "done" { event["ms"].as_u64() } else { None }
    });
    assert_eq!(code(leecher.wait(PATIENCE)), 0, "{}", leecher.stderr());
    assert!(world.is_whole());
    println!("{silent} silent connections: {took} ms, {most} descriptors");
    assert!(most <= descriptors - 64, "{most} descriptors");
    for mut connection in connections {
        connection.set_read_timeout(Some(PATIENCE)).unwrap();
        let closed = match uninterrupted(|| connection.read(&mut [0; 1])) {
            Ok(read) => read == 0,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        };
        assert!(closed, "a silent connection is still open");
    }
    // There is a place for others again.
    fs::remove_dir_all(world.leecher()).unwrap();
    assert_eq!(code(world.run(&mut world.download(addr)).status), 0);
    took
}

#[test]
fn a_thousand_silent_connections_are_closed_and_a_download_goes_on() {
    let (silent, descriptors) = crowd();
    download_beside(silent, descriptors);
}

#[test]
#[ignore = "S42 in full: compares times, which needs a machine to itself"]
fn a_thousand_silent_connections_cost_a_download_a_fifth_of_its_rate_at_most() {
    let (silent, descriptors) = crowd();
    let alone = download_beside(0, descriptors);
    let beside = download_beside(silent, descriptors);
    assert!(beside * 4 <= alone * 5, "{beside} ms instead of {alone}");
}
