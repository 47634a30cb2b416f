//! Interop points 1 and 2: a magnet link with nothing but the infohash, over a mixed DHT, against
//! libtorrent in both directions.

use std::time::Duration;

use harness::process::{binary, eventually};
use harness::rivals::{Libtorrent, Series, ready};
use serde_json::json;

use crate::world::{Net, Sample, btfetch, libtorrent_dht, serve};

#[test]
fn a_magnet_is_fetched_from_a_libtorrent_seed_over_a_mixed_dht() {
    binary("btfetch");
    let needs = [Libtorrent::python(Series::V20), Libtorrent::python(Series::V21)];
    if !ready("a_magnet_is_fetched_from_a_libtorrent_seed_over_a_mixed_dht", &needs) {
        return;
    }
    let mut rivals = libtorrent_dht(Net::V4, 4);
    let _ours: Vec<_> =
        (0..4).map(|n| serve(&format!("85.{}.0.1", 20 + n), &["85.1.0.1:6881", "85.20.0.1:6881"])).collect();
    for (seeder, seed) in [(0, 1), (1, 2)] {
        let sample = Sample::new(24 << 20, seed);
        rivals[seeder].add(sample.torrent(), sample.folder.path(), &[], true);
        let folder = tempfile::tempdir().unwrap();
        let mut fetch = btfetch(&[
            &sample.magnet(),
            "-o",
            folder.path().to_str().unwrap(),
            "--bind",
            "85.70.0.1",
            "--bootstrap",
            "85.20.0.1:6881",
            "--no-state",
        ]);
        let status = fetch.wait(Duration::from_secs(90));
        assert!(status.success(), "btfetch: {status}\n{}", fetch.stderr());
        sample.assert_same(folder.path());
    }
}

fn libtorrent_fetches_from_us(series: Series, test: &str) {
    binary("btfetch");
    if !ready(test, &[Libtorrent::python(series)]) {
        return;
    }
    let _nodes: Vec<_> = (1..=4).map(|n| serve(&format!("85.{n}.0.1"), &["85.1.0.1:6881"])).collect();
    let sample = Sample::new(24 << 20, 3);
    let mut seed = btfetch(&[
        "seed",
        sample.torrent(),
        "-o",
        sample.data(),
        "--bind",
        "85.70.0.1:7000",
        "--bootstrap",
        "85.1.0.1:6881",
        "--no-state",
        "--json",
    ]);
    seed.wait_for("the seeder is ready", |line| line.contains("\"done\"").then_some(()));
    let mut rival = Libtorrent::start(series, "85.30.0.1:6881", Some(&[]));
    rival.ask(&json!({"op": "dht_add", "node": "85.2.0.1:6881"}));
    eventually("our nodes are in libtorrent's table", || {
        (rival.ask(&json!({"op": "dht_state"}))["nodes"].as_u64()? > 0).then_some(())
    });
    let folder = tempfile::tempdir().unwrap();
    rival.add(&sample.magnet(), folder.path(), &[], false);
    rival.wait_finished();
    // It says so when the pieces have been hashed; its threads write them a little later.
    eventually("libtorrent's file is written", || sample.is_same(folder.path()).then_some(()));
}

#[test]
fn libtorrent_2_0_fetches_a_magnet_from_us() {
    libtorrent_fetches_from_us(Series::V20, "libtorrent_2_0_fetches_a_magnet_from_us");
}

#[test]
fn libtorrent_2_1_fetches_a_magnet_from_us() {
    libtorrent_fetches_from_us(Series::V21, "libtorrent_2_1_fetches_a_magnet_from_us");
}
