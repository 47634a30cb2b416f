//! Several links of one run that come to the same torrent or name the same key (BEP 46).

use std::collections::BTreeSet;

use btdht::item::SecretKey;
use btdht::mutable_torrent::value_of;
use harness::process::{DEADLINE, Running};
use serde_json::Value;

use crate::mutable::{Network, end, hex, rename, seed, transfer};
use crate::world::{NAME, World, code, events, sha256, wait_event};

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
    let (mut is_told, mut is_waiting, mut is_done) = (false, false, false);
    leecher.wait_for("the end of the one and a word about the other", |line| {
        let event: Value = serde_json::from_str(line).ok()?;
        is_told |= event["message"].as_str().is_some_and(|text| text.ends_with("is downloaded already"));
        is_waiting |= event["event"] == "waiting" && event["infohash"] == infohash.as_str();
        is_done |= event["event"] == "done";
        (is_told && is_waiting && is_done).then_some(())
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

/// That a link is left to another one is no end of the run, however long the other one has its torrent.
#[test]
fn with_follow_and_a_timeout_what_is_left_to_another_link_is_waited_out() {
    let network = Network::new(10);
    let world = World::new(65, 100_000);
    let (_seeder, infohash) = seed(&world, &network);
    let secrets = [14, 15].map(|n| SecretKey::from_seed(&[n; 32]));
    secrets.iter().for_each(|secret| network.update(secret, &value_of(&infohash.parse().unwrap())));
    let magnets = secrets.each_ref().map(|secret| format!("magnet:?xs=urn:btpk:{}", hex(secret)));
    let words = [&magnets[0][..], &magnets[1], "--follow", "--seed", "--timeout", "10"];
    let mut command = transfer(&world, &network, &words);
    let mut leecher = Running::start("leecher", command.arg("-o").arg(world.leecher()));
    let told = |event: &Value| event["message"].as_str()?.ends_with("is downloaded already").then_some(());
    wait_event(&mut leecher, "warning", told);
    // One in a second at most: the time is up, and more than that.
    for _ in 0..13 {
        wait_event(&mut leecher, "progress", |_| Some(()));
    }
    assert!(world.is_whole());
    end(leecher);
}

#[test]
fn with_follow_a_version_that_another_link_leaves_unfinished_is_fetched_after_all() {
    let network = Network::new(10);
    let (first, second) = (World::new(63, 400_000), World::new(64, 500_000));
    rename(&second, "new.bin");
    let ((old_seeder, old), (_new, new)) = (seed(&first, &network), seed(&second, &network));
    // It can be found and connected to, and gives nothing.
    old_seeder.signal("STOP");
    let secrets = [16, 17].map(|n| SecretKey::from_seed(&[n; 32]));
    let magnets = secrets.each_ref().map(|secret| format!("magnet:?xs=urn:btpk:{}", hex(secret)));
    network.update(&secrets[0], &value_of(&old.parse().unwrap()));
    let mut command = transfer(&first, &network, &[&magnets[0], &magnets[1], "--follow"]);
    let mut leecher = Running::start("leecher", command.arg("-o").arg(first.leecher()));
    wait_event(&mut leecher, "progress", |event| (event["infohash"] == old.as_str()).then_some(()));
    network.update(&secrets[1], &value_of(&old.parse().unwrap()));
    let told =
        |what: &'static str| move |event: &Value| event["message"].as_str()?.contains(what).then_some(());
    wait_event(&mut leecher, "warning", told("is downloaded already"));

    network.update(&secrets[0], &value_of(&new.parse().unwrap()));
    wait_event(&mut leecher, "warning", told("was left unfinished"));
    old_seeder.signal("CONT");
    let mut done = BTreeSet::new();
    leecher.wait_for("the end of both", |line| {
        let event: Value = serde_json::from_str(line).ok()?;
        if event["event"] == "done" {
            done.insert(event["infohash"].as_str()?.to_owned());
        }
        (done.len() == 2).then_some(())
    });
    assert!(first.is_whole() && done.contains(&old) && done.contains(&new), "{done:?}");
    assert_eq!(sha256(&first.leecher().join("new.bin")), Some(second.sha256));
    end(leecher);
}

/// Two that follow one key would write two of its versions into the same files at a time.
#[test]
fn with_follow_a_key_that_is_named_more_than_once_is_followed_once() {
    let network = Network::new(10);
    let (first, second) = (World::new(61, 400_000), World::new(62, 500_000));
    let ((_old, old), (_new, new)) = (seed(&first, &network), seed(&second, &network));
    let secret = SecretKey::from_seed(&[12; 32]);
    network.update(&secret, &value_of(&old.parse().unwrap()));
    let magnet = format!("magnet:?xs=urn:btpk:{}", hex(&secret));
    let again = format!("magnet:?dn=x&xs=urn:btpk:{}", hex(&secret).to_uppercase());
    // Nothing is published there, but it is followed.
    let other_salt = format!("{magnet}&s=73");
    let mut command = transfer(&first, &network, &[&magnet, &again, &other_salt, "--follow"]);
    let mut leecher = Running::start("leecher", command.arg("-o").arg(first.leecher()));
    wait_event(&mut leecher, "done", |event| (event["infohash"] == old.as_str()).then_some(()));
    network.update(&secret, &value_of(&new.parse().unwrap()));
    wait_event(&mut leecher, "done", |event| (event["infohash"] == new.as_str()).then_some(()));
    leecher.signal("TERM");
    assert_eq!(code(leecher.wait(DEADLINE)), 143);
    assert_eq!(sha256(&first.leecher().join(NAME)), Some(second.sha256));

    let seen: Vec<Value> = leecher.seen().iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let versions: Vec<_> = seen.iter().filter(|event| event["event"] == "version").collect();
    assert_eq!(versions.iter().map(|event| &event["seq"]).collect::<Vec<_>>(), [1, 2]);
    let twice = format!("{} is named more than once and followed once", hex(&secret));
    let told: Vec<_> = seen.iter().filter(|event| event["event"] == "warning").collect();
    assert_eq!(told.iter().map(|event| &event["message"]).collect::<Vec<_>>(), [&twice]);
}

#[test]
fn sources_that_come_to_one_torrent_are_fetched_once() {
    let network = Network::new(10);
    let world = World::new(66, 400_000);
    let (_seeder, infohash) = seed(&world, &network);
    let secrets = [18, 19].map(|n| SecretKey::from_seed(&[n; 32]));
    secrets.iter().for_each(|secret| network.update(secret, &value_of(&infohash.parse().unwrap())));
    let keys = secrets.each_ref().map(hex);
    let magnets = keys.each_ref().map(|key| format!("magnet:?xs=urn:btpk:{key}"));
    for (number, (sources, twice)) in [
        ([&magnets[0], &magnets[1]], &infohash),
        ([&magnets[0], &magnets[0]], &keys[0]),
        ([&infohash, &magnets[0]], &infohash),
        ([&magnets[0], &infohash], &infohash),
    ]
    .into_iter()
    .enumerate()
    {
        let out = world.path(&format!("out {number}"));
        let mut command = transfer(&world, &network, &[sources[0], sources[1]]);
        let fetched = world.run(command.arg("-o").arg(&out));
        assert_eq!(code(fetched.status), 0, "{sources:?}: {}", String::from_utf8_lossy(&fetched.stderr));
        assert_eq!(sha256(&out.join(NAME)), Some(world.sha256));
        let events = events(&fetched);
        assert_eq!(events.iter().filter(|event| event["event"] == "done").count(), 1, "{sources:?}");
        let told: Vec<_> = events.iter().filter(|event| event["event"] == "warning").collect();
        let expected = format!("{twice} is named more than once and fetched once");
        assert_eq!(told.iter().map(|event| &event["message"]).collect::<Vec<_>>(), [&expected]);
    }
}
