//! Several links of one run that come to the same torrent or name the same key (BEP 46).

use btdht::item::SecretKey;
use btdht::mutable_torrent::value_of;
use harness::process::Running;
use serde_json::Value;

use crate::mutable::{Network, end, hex, seed, transfer};
use crate::world::{World, wait_event};

/// Two keys that stand for one torrent: it is fetched once, and both are followed.
#[test]
fn with_follow_a_version_that_another_link_downloads_is_left_to_that_one() {
    let network = Network::new(10);
    let world = World::new(60, 400_000);
    let (_seeder, infohash) = seed(&world, &network);
    let secrets = [10, 11].map(|n| SecretKey::from_seed(&[n; 32]));
    secrets.iter().for_each(|secret| network.update(secret, &value_of(&infohash.parse().unwrap())));
    let magnets = secrets.each_ref().map(|secret| format!("magnet:?xs=urn:btpk:{}", hex(secret)));
    // The one that is first seeds, and has the torrent however late the other one comes to it.
    let mut command = transfer(&world, &network, &[&magnets[0], &magnets[1], "--follow", "--seed"]);
    let mut leecher = Running::start("leecher", command.arg("-o").arg(world.leecher()));
    let (mut is_told, mut is_done) = (false, false);
    leecher.wait_for("the end of the one and a word about the other", |line| {
        let event: Value = serde_json::from_str(line).ok()?;
        is_told |= event["message"].as_str().is_some_and(|text| text.ends_with("is downloaded already"));
        is_done |= event["event"] == "done";
        (is_told && is_done).then_some(())
    });
    assert!(world.is_whole());
    // Either of them may have been the second one.
    for secret in &secrets {
        network.update(secret, b"5:hello");
        let told =
            |event: &Value| event["message"].as_str()?.contains("(number 2) is no torrent").then_some(());
        wait_event(&mut leecher, "warning", told);
    }
    end(leecher);
}
