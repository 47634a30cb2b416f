//! Interop point 3: aria2 and transmission, downloading from us and seeding to us.

use std::path::{Path, PathBuf};
use std::time::Duration;

use harness::process::{Running, binary, eventually};
use harness::rivals::{Transmission, aria2, ready};

use crate::world::{Sample, btdht, btfetch, serve};

fn aria2_program() -> PathBuf {
    "/usr/bin/aria2c".into()
}

fn seed(sample: &Sample, bind: &str) -> Running {
    let mut seed = btfetch(&[
        "seed",
        sample.torrent(),
        "-o",
        sample.data(),
        "--bind",
        bind,
        "--bootstrap",
        "85.1.0.1:6881",
        "--no-state",
        "--json",
    ]);
    seed.wait_for("the seeder is ready", |line| line.contains("\"done\"").then_some(()));
    seed
}

fn fetch_from(sample: &Sample, peer: &str, folder: &Path) {
    let mut fetch = btfetch(&[
        sample.torrent(),
        "-o",
        folder.to_str().unwrap(),
        "--bind",
        "85.70.0.1",
        "--peer",
        peer,
        "--no-dht",
        "--no-state",
    ]);
    let status = fetch.wait(Duration::from_secs(90));
    assert!(status.success(), "btfetch: {status}\n{}", fetch.stderr());
    sample.assert_same(folder);
}

#[test]
fn aria2_fetches_a_magnet_from_us_over_the_dht() {
    binary("btfetch");
    if !ready("aria2_fetches_a_magnet_from_us_over_the_dht", &[aria2_program()]) {
        return;
    }
    let _nodes: Vec<_> = (1..=4).map(|n| serve(&format!("85.{n}.0.1"), &["85.1.0.1:6881"])).collect();
    let sample = Sample::new(8 << 20, 4);
    let _seed = seed(&sample, "85.60.0.1:7000");
    let folder = tempfile::tempdir().unwrap();
    let dht_file = folder.path().join("dht.dat");
    let mut download = aria2(
        "aria2 downloads",
        &[
            &sample.magnet(),
            "--enable-dht=true",
            "--dht-entry-point=85.1.0.1:6881",
            "--dht-listen-port=6881",
            &format!("--dht-file-path={}", dht_file.display()),
            "--interface=85.40.0.1",
            "--listen-port=6890",
            "--seed-time=0",
            "-d",
            folder.path().to_str().unwrap(),
        ],
    );
    let status = download.wait(Duration::from_secs(110));
    assert!(status.success(), "aria2: {status}\n{}\n{}", download.seen().join("\n"), download.stderr());
    sample.assert_same(folder.path());
}

/// `btdht get-peers` until it finds `peer` on the DHT of 85.2.0.1.
fn announced(sample: &Sample, peer: &str) {
    eventually(&format!("{peer} is announced to our nodes"), || {
        let (found, _) = btdht(&[
            "get-peers",
            &sample.infohash,
            "--bind",
            "85.71.0.1",
            "--bootstrap",
            "85.2.0.1:6881",
            "--no-state",
        ]);
        found.iter().any(|line| line == peer).then_some(())
    });
}

#[test]
fn aria2_announces_to_our_nodes() {
    binary("btfetch");
    if !ready("aria2_announces_to_our_nodes", &[aria2_program()]) {
        return;
    }
    let _nodes: Vec<_> = (1..=4).map(|n| serve(&format!("85.{n}.0.1"), &["85.1.0.1:6881"])).collect();
    let sample = Sample::new(1 << 20, 8);
    let dht_file = sample.folder.path().join("dht.dat");
    let _seeder = aria2(
        "aria2 announces",
        &[
            sample.torrent(),
            "--enable-dht=true",
            "--dht-entry-point=85.1.0.1:6881",
            "--dht-listen-port=6881",
            &format!("--dht-file-path={}", dht_file.display()),
            "--interface=85.40.0.1",
            "--listen-port=6890",
            "--seed-ratio=0.0",
            "--check-integrity=true",
            "-d",
            sample.data(),
        ],
    );
    announced(&sample, "85.40.0.1:6890");
}

#[test]
fn aria2_seeds_to_us() {
    binary("btfetch");
    if !ready("aria2_seeds_to_us", &[aria2_program()]) {
        return;
    }
    let sample = Sample::new(8 << 20, 5);
    let mut seeder = aria2(
        "aria2 seeds",
        &[
            sample.torrent(),
            "--enable-dht=false",
            "--interface=85.40.0.1",
            "--listen-port=6890",
            "--seed-ratio=0.0",
            "--check-integrity=true",
            "-d",
            sample.data(),
        ],
    );
    let listening =
        seeder.wait_within(Duration::from_secs(20), |line| line.contains("listening").then_some(()));
    assert!(listening.is_ok(), "aria2 does not listen: {}", seeder.seen().join("\n"));
    let folder = tempfile::tempdir().unwrap();
    fetch_from(&sample, "85.40.0.1:6890", folder.path());
}

#[test]
fn transmission_fetches_a_magnet_from_us_over_the_dht() {
    binary("btfetch");
    let needs = [Transmission::program(), "/usr/bin/transmission-remote".into()];
    if !ready("transmission_fetches_a_magnet_from_us_over_the_dht", &needs) {
        return;
    }
    // Its DHT calls itself broken below nine nodes.
    let _nodes: Vec<_> = (1..=12).map(|n| serve(&format!("85.{n}.0.1"), &["85.1.0.1:6881"])).collect();
    let sample = Sample::new(8 << 20, 6);
    let _seed = seed(&sample, "85.60.0.1:7000");
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(home.path().join("config")).unwrap();
    let routers: String = (1..=12).map(|n| format!("85.{n}.0.1 6881\n")).collect();
    std::fs::write(home.path().join("config/dht.bootstrap"), routers).unwrap();
    let rival = Transmission::start("85.50.0.1", 51413, home.path());
    rival.remote(&["--add", &sample.magnet()]).expect("transmission takes the magnet");
    rival.wait_finished();
    sample.assert_same(&home.path().join("downloads"));
}

#[test]
fn transmission_seeds_to_us() {
    binary("btfetch");
    let needs = [Transmission::program(), "/usr/bin/transmission-remote".into()];
    if !ready("transmission_seeds_to_us", &needs) {
        return;
    }
    let sample = Sample::new(8 << 20, 7);
    let home = tempfile::tempdir().unwrap();
    let downloads = home.path().join("downloads");
    std::fs::create_dir_all(&downloads).unwrap();
    std::fs::copy(sample.folder.path().join("sample.bin"), downloads.join("sample.bin")).unwrap();
    let rival = Transmission::start("85.50.0.1", 51413, home.path());
    rival.remote(&["--add", sample.torrent()]).expect("transmission takes the torrent");
    rival.wait_finished();
    let folder = tempfile::tempdir().unwrap();
    fetch_from(&sample, "85.50.0.1:51413", folder.path());
}
