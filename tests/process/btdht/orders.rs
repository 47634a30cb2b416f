//! Verbs that go on until they are stopped: `announce --keep`, `put --keep`, `get --follow`.

use serde_json::Value;

use crate::harness::{Home, INFOHASH, Loopback, Running, run};

/// A verb in a network of its own pace: rounds that are hours apart come every fifth of a second.
fn start(home: &Home, args: &[&str], router: &str) -> Running {
    let flags = ["--json", "--bind", "127.0.0.1", "--allow-local", "--bootstrap", router];
    let mut command = home.command(&[args, &flags].concat());
    for name in ["ANNOUNCE_EVERY", "KEEP_EVERY", "FOLLOW_EVERY", "RENEW_RETRY_MIN"] {
        command.env(format!("BTDHT_{name}"), "200 ms");
    }
    Running::start(&mut command)
}

/// The next event of that name that `wanted` accepts.
#[track_caller]
fn event(running: &Running, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let read = |line: &str| serde_json::from_str::<Value>(line).unwrap();
    let line = running.line(|line| {
        let event = read(line);
        event["event"] == name && wanted(&event)
    });
    read(&line)
}

#[test]
fn announce_keep_goes_on_until_a_signal() {
    let world = Loopback::new(10);
    let home = Home::new();
    let args = ["announce", INFOHASH, "--peer-port", "7777", "--keep"];
    let running = start(&home, &args, &world.router());
    let first = event(&running, "round", |round| round["stored"].as_u64() > Some(0));
    assert!(first["next_s"].is_u64(), "{first}");
    event(&running, "round", |round| round["number"].as_u64() > Some(2) && round["cause"] == "due");
    let found = run(&["get-peers", INFOHASH], &world.router()).expect_code(0);
    assert_eq!(found.stdout, "127.0.0.1:7777\n");
    running.signal("-TERM");
    running.finish().expect_code(143);
}

#[test]
fn put_keep_stores_again_and_gives_way_to_a_newer_version() {
    let world = Loopback::new(10);
    let (home, key) = (Home::new(), Home::new());
    let file = key.path().join("key");
    let file = file.to_str().unwrap();
    let keeper = start(&home, &["put", "old", "--new-key", file, "--keep"], &world.router());
    let put = event(&keeper, "put", |_| true);
    assert_eq!(put["seq"], 1);
    event(&keeper, "round", |round| round["number"] == 2 && round["stored"].as_u64() > Some(0));
    run(&["put", "new", "--key", file], &world.router()).expect_code(0);
    let ended = keeper.finish().expect_code(1);
    assert!(ended.error().contains("version 2 is in the DHT now; it is not overwritten"), "{ended:#?}");
    let found = run(&["get", "--key", put["key"].as_str().unwrap()], &world.router()).expect_code(0);
    assert_eq!(found.stdout, "new\n");
}

#[test]
fn put_keep_of_an_immutable_value_ends_with_a_signal() {
    let world = Loopback::new(10);
    let home = Home::new();
    let keeper = start(&home, &["put", "Hello World!", "--keep"], &world.router());
    let put = event(&keeper, "put", |_| true);
    assert_eq!(put["target"], "e5f96f6f38320f0f33959cb4d3d656452117aadb");
    event(&keeper, "round", |round| round["number"] == 3 && round["stored"].as_u64() > Some(0));
    keeper.signal("-INT");
    keeper.finish().expect_code(130);
}

/// BEP 46.
#[test]
fn get_follow_prints_each_newer_version_of_a_mutable_torrent() {
    let world = Loopback::new(10);
    let (home, key) = (Home::new(), Home::new());
    let file = key.path().join("key");
    let file = file.to_str().unwrap();
    let publish = |infohash: &str, flag: &str| {
        let words = ["put", "--infohash", infohash, flag, file, "--salt", "news", "--json"];
        run(&words, &world.router()).expect_code(0).objects().remove(0)
    };
    let put = publish(INFOHASH, "--new-key");
    assert!(put["magnet"].as_str().unwrap().starts_with("magnet:?xs=urn:btpk:"), "{put}");
    let public = put["key"].as_str().unwrap();
    let follower = start(&home, &["get", "--key", public, "--salt", "news", "--follow"], &world.router());
    let first = event(&follower, "item", |_| true);
    assert_eq!((&first["infohash"], &first["seq"]), (&INFOHASH.into(), &1.into()));
    let newer = "ffada5a7a6183aae1e09d831df6748d566095a10";
    publish(newer, "--key");
    let second = event(&follower, "item", |_| true);
    assert_eq!((&second["infohash"], &second["seq"]), (&newer.into(), &2.into()));
    follower.signal("-TERM");
    follower.finish().expect_code(143);
}

#[test]
fn get_follow_of_what_nobody_published_ends_with_its_timeout() {
    let world = Loopback::new(10);
    let args = ["get", "--key", &"ab".repeat(32), "--follow", "--timeout", "0.5"];
    let ended = run(&args, &world.router()).expect_code(4);
    assert!(ended.error().contains("nothing before the timeout"), "{ended:#?}");
}

/// BEP 42: the port is known too, since nobody translates it here.
#[test]
fn serve_tells_the_address_that_others_agree_on_and_the_id_that_belongs_to_it() {
    let world = Loopback::new(16);
    let home = Home::new();
    let (node, addr) = home.serve(&world.router(), &[]);
    let line = node.line(|line| line.starts_with("address "));
    let id = line.strip_prefix(&format!("address {addr} id ")).unwrap_or_else(|| panic!("{line}"));
    assert!(id.parse::<krpc::Id>().is_ok(), "{line}");
}
