//! `put` and `get`: items of BEP 44 and published torrents (BEP 46).

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt as _;

use krpc::{Body, Id, Message, Query, Response};

use crate::harness::{Finished, Home, INFOHASH, Loopback, NOBODY, run, silent_node};

/// The test vectors of BEP 44.
mod vectors {
    pub(super) const SECRET: &str = "e06d3183d14159228433ed599221b80bd0a5ce8352e4bdf0262f76786ef1c74d\
        b7e7a9fea2c0eb269d61e3b38e450a22e754941ac78479d6c54e1faf6037881d";
    pub(super) const PUBLIC: &str = "77ff84905a91936367c01360803104f92432fcd904a43511876df5cdf3e7e548";
    pub(super) const IMMUTABLE: &str = "e5f96f6f38320f0f33959cb4d3d656452117aadb";
    pub(super) const MUTABLE: &str = "4a533d47ec9c7d95b1ad75f576cffc641853b750";
    pub(super) const SALTED: &str = "411eba73b6f087ca51a3795d9c8c938d365e32c1";
    pub(super) const SIGNATURE: &str = "305ac8aeb6c9c151fa120f120ea2cfb923564e11552d06a5d856091e5e853cff\
        1260d3f39e4999684aa92eb73ffd136e6f4f3ecbfda0ce53a1608ecd7ae21f01";
    pub(super) const SALTED_SIGNATURE: &str = "6834284b6b24c3204eb2fea824d82f88883a3d95e8b4a21b8c0ded553d17d17d\
        df9a8a7104b1258f30bed3787e6cb896fca78c58f8e03b5f18f14951a87d9a08";
}

/// A key file in a home of its own.
fn key_file(home: &Home, digits: &str) -> String {
    let file = home.path().join("key");
    fs::write(&file, digits).unwrap();
    file.to_str().unwrap().to_owned()
}

fn item(finished: &Finished) -> serde_json::Value {
    let objects = finished.objects();
    assert_eq!(objects.last().unwrap()["event"], "done", "{finished:#?}");
    objects.into_iter().find(|object| object["event"] == "item").unwrap()
}

#[test]
fn an_immutable_item_is_found_under_its_hash() {
    let world = Loopback::new(10);
    let router = world.router();
    let put = run(&["put", "Hello World!"], &router).expect_code(0);
    assert_eq!(put.stdout, format!("{}\n", vectors::IMMUTABLE));
    let got = run(&["get", vectors::IMMUTABLE], &router).expect_code(0);
    assert_eq!((&got.stdout[..], &got.stderr[..]), ("Hello World!\n", ""));
    let got = run(&["get", vectors::IMMUTABLE, "--json"], &router).expect_code(0);
    let got = item(&got);
    assert_eq!((&got["target"], &got["value"]), (&vectors::IMMUTABLE.into(), &"Hello World!".into()));
    assert_eq!(got["bencode"], "hex:31323a48656c6c6f20576f726c6421");

    let home = Home::new();
    let file = home.path().join("value");
    fs::write(&file, b"\x1b[2J\xff").unwrap();
    let put = run(&["put", &format!("@{}", file.display()), "--json"], &router).expect_code(0);
    let report = &put.objects()[0];
    assert!(report["stored"].as_u64() > Some(0) && report["seq"].is_null(), "{report}");
    let got = run(&["get", report["target"].as_str().unwrap()], &router).expect_code(0);
    assert_eq!(got.stdout, "5:\\x1b[2J\\xff\n", "a stranger's bytes cannot steer the terminal");
    let put = run(&["put", "--bencode", "d1:ai1ee"], &router).expect_code(0);
    assert_eq!(run(&["get", put.stdout.trim_end()], &router).expect_code(0).stdout, "d1:ai1ee\n");
}

#[test]
fn an_item_that_nobody_has_is_exit_code_4() {
    let world = Loopback::new(8);
    let finished = run(&["get", INFOHASH], &world.router()).expect_code(4);
    assert!(finished.error().contains("none found") && finished.stdout.is_empty(), "{finished:#?}");
    let finished = run(&["get", "--key", vectors::PUBLIC], &world.router()).expect_code(4);
    assert!(finished.error().contains("none found"), "{finished:#?}");
    let silent = silent_node();
    let router = silent.local_addr().unwrap().to_string();
    let finished = run(&["get", INFOHASH], &router).expect_code(4);
    assert!(finished.error().contains("no answer"), "{finished:#?}");
    run(&["put", "Hello World!"], &router).expect_code(4).error();
}

/// A node that takes an item and then says no more, so that the look at what nodes have takes longer than there is.
#[test]
fn what_was_stored_before_the_timeout_is_told() {
    let home = Home::new();
    let key = key_file(&home, vectors::SECRET);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let router = socket.local_addr().unwrap().to_string();
    let acting = std::thread::spawn(move || {
        let (mut buffer, mut has_taken) = ([0; 2048], false);
        while !has_taken {
            let (len, from) = socket.recv_from(&mut buffer).unwrap();
            let message = Message::decode(&buffer[..len]).unwrap();
            let Body::Query { query, .. } = &message.body else { continue };
            has_taken = matches!(query, Query::Put { .. });
            let body = Body::Response(Response { token: Some(b"abcd"), ..Response::new(Id::new([9; 20])) });
            let mut bytes = Vec::new();
            Message { body, ..message }.encode(&mut bytes);
            socket.send_to(&bytes, from).unwrap();
        }
        socket
    });
    // It is not given up as silent before the timeout, which is long enough to start and to be told.
    let config = home.path().join("patient.toml");
    let spans = ["query_timeout = 120", "lookup_max_silence = 120", "lookup_max_time = 600"];
    fs::write(&config, format!("[limits]\n{}\n", spans.join("\n"))).unwrap();
    let config = config.to_str().unwrap();
    let words = ["put", "Hello World!", "--key", &key, "--seq", "1", "--json", "--timeout", "10"];
    let finished = run(&[&words[..], &["--config", config]].concat(), &router).expect_code(0);
    let report = &finished.objects()[0];
    assert_eq!((&report["stored"], &report["complete"]), (&1.into(), &false.into()), "{finished:#?}");
    assert_eq!(report["target"], vectors::MUTABLE);
    assert!(finished.stderr.contains("the timeout came before"), "{finished:#?}");
    acting.join().unwrap();
}

#[test]
fn a_signed_item_is_the_one_of_bep_44() {
    let world = Loopback::new(10);
    let router = world.router();
    let home = Home::new();
    let key = key_file(&home, vectors::SECRET);
    for (salt, target, signature) in [
        (&[][..], vectors::MUTABLE, vectors::SIGNATURE),
        (&["--salt", "foobar"], vectors::SALTED, vectors::SALTED_SIGNATURE),
    ] {
        let put = run(&[&["put", "Hello World!", "--key", &key, "--seq", "1"], salt].concat(), &router);
        let put = put.expect_code(0).stdout;
        assert_eq!(put, format!("{} {target}\n", vectors::PUBLIC));
        let got = run(&[&["get", "--key", vectors::PUBLIC, "--json"], salt].concat(), &router).expect_code(0);
        let got = item(&got);
        assert_eq!((&got["target"], &got["value"]), (&target.into(), &"Hello World!".into()));
        assert_eq!((&got["seq"], &got["signature"]), (&1.into(), &signature.into()));
    }
    // Whoever has version 1 asks for what is newer.
    run(&["get", "--key", vectors::PUBLIC, "--seq", "1"], &router).expect_code(4);
    assert_eq!(
        run(&["get", "--key", vectors::PUBLIC, "--seq", "0"], &router).expect_code(0).stdout,
        "Hello World!\n"
    );
}

#[test]
fn a_new_key_is_private_and_never_overwritten_and_the_next_version_gets_the_next_number() {
    let world = Loopback::new(10);
    let router = world.router();
    let home = Home::new();
    let path = home.path().join("new.key");
    let file = path.to_str().unwrap();
    let put = run(&["put", "one", "--new-key", file], &router).expect_code(0).stdout;
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let secret = fs::read_to_string(&path).unwrap();
    assert!(!put.contains(secret.trim_end()), "the secret is not printed");
    let (public, _) = put.split_once(' ').unwrap();

    let again = run(&["put", "two", "--new-key", file], &router).expect_code(2);
    assert!(again.error().contains("not overwritten"), "{again:#?}");
    assert_eq!(fs::read_to_string(&path).unwrap(), secret);

    let put = run(&["put", "two", "--key", file, "--json"], &router).expect_code(0).objects();
    assert_eq!((&put[0]["seq"], &put[0]["key"]), (&2.into(), &public.into()));
    let got = item(&run(&["get", "--key", public, "--json"], &router).expect_code(0));
    assert_eq!((&got["seq"], &got["value"]), (&2.into(), &"two".into()));
}

#[test]
fn another_writer_is_exit_code_1_and_nothing_is_overwritten() {
    let world = Loopback::new(10);
    let router = world.router();
    let home = Home::new();
    let key = key_file(&home, vectors::SECRET);
    let put =
        |value: &str, more: &[&str]| run(&[&["put", value, "--key", &key, "--json"], more].concat(), &router);
    put("five", &["--seq", "5"]).expect_code(0);
    for (more, code) in
        [(&["--seq", "4"][..], 302), (&["--seq", "5"], 302), (&["--seq", "6", "--cas", "3"], 301)]
    {
        let finished = put("other", more).expect_code(1);
        assert!(finished.error().contains("another writer"), "{finished:#?}");
        let report = &finished.objects()[0];
        let refused = report["refused"].as_array().unwrap();
        assert!(!refused.is_empty() && refused.iter().all(|node| node["code"] == code), "{code}: {report}");
    }
    let got = item(&run(&["get", "--key", vectors::PUBLIC, "--json"], &router).expect_code(0));
    assert_eq!((&got["seq"], &got["value"]), (&5.into(), &"five".into()));
    put("six", &["--seq", "6", "--cas", "5"]).expect_code(0);
    let got = run(&["get", "--key", vectors::PUBLIC], &router).expect_code(0).stdout;
    assert_eq!(got, "six\n");
}

#[test]
fn cas_alone_stores_the_version_after_the_expected_one_and_nothing_over_any_other() {
    let world = Loopback::new(10);
    let router = world.router();
    let home = Home::new();
    let key = key_file(&home, vectors::SECRET);
    let put = |value: &str, cas: &str| run(&["put", value, "--key", &key, "--cas", cas, "--json"], &router);
    // Nobody has a version: it may be forgotten.
    let first = put("four", "3").expect_code(0).objects();
    assert_eq!((&first[0]["seq"], &first[0]["newer"]), (&4.into(), &serde_json::Value::Null));
    for other in ["3", "5", "9"] {
        let finished = put("other", other).expect_code(1);
        assert!(finished.error().contains("another writer"), "{finished:#?}");
        let report = &finished.objects()[0];
        assert_eq!((&report["stored"], &report["newer"]), (&0.into(), &4.into()), "{report}");
    }
    assert_eq!(put("five", "4").expect_code(0).objects()[0]["seq"], 5);
    let got = item(&run(&["get", "--key", vectors::PUBLIC, "--json"], &router).expect_code(0));
    assert_eq!((&got["seq"], &got["value"]), (&5.into(), &"five".into()));
}

#[test]
fn a_torrent_is_published_under_a_key() {
    let world = Loopback::new(10);
    let router = world.router();
    let home = Home::new();
    let key = key_file(&home, vectors::SECRET);
    let magnet = run(&["put", "--infohash", INFOHASH, "--key", &key], &router).expect_code(0).stdout;
    assert!(magnet.contains(&format!("xs=urn:btpk:{}", vectors::PUBLIC)), "{magnet}");
    let get = |what: &[&str]| {
        let mut got = item(&run(&[&["get"], what, &["--json"]].concat(), &router).expect_code(0));
        // Whoever answers first.
        assert!(got.as_object_mut().unwrap().remove("node").is_some());
        got
    };
    let got = get(&["--key", vectors::PUBLIC]);
    assert!(got["bencode"].as_str().unwrap().contains(INFOHASH), "{got}");
    assert_eq!(get(&[magnet.trim_end()]), got);
}

#[test]
fn what_cannot_be_an_item_is_wrong_usage() {
    let home = Home::new();
    let key = key_file(&home, vectors::SECRET);
    let short = home.path().join("short");
    fs::write(&short, "abcd").unwrap();
    let long = "x".repeat(1000);
    let salt = "x".repeat(65);
    for args in [
        &["put"][..],
        &["put", &long],
        &["put", "--bencode", "d1:b0:1:a0:e"],
        &["put", "@/nonexistent/file"],
        &["put", "x", "--salt", "s"],
        &["put", "x", "--seq", "1"],
        &["put", "x", "--cas", "1"],
        &["put", "x", "--key", &key, "--cas", "-1"],
        &["put", "x", "--key", &key, "--seq", "-1"],
        &["put", "x", "--key", &key, "--salt", &salt],
        &["put", "x", "--key", "/nonexistent/key"],
        &["put", "x", "--key", short.to_str().unwrap()],
        &["put", "x", "--key", &key, "--new-key", "other"],
        &["get"],
        &["get", "123"],
        &["get", "--key", "77ff"],
        &["get", vectors::IMMUTABLE, "--salt", "s"],
        &["get", vectors::IMMUTABLE, "--seq", "1"],
        &["get", vectors::IMMUTABLE, "--key", vectors::PUBLIC],
    ] {
        let finished = run(args, NOBODY).expect_code(2);
        assert!(finished.stdout.is_empty() && !finished.stderr.is_empty(), "{args:?} {finished:#?}");
    }
}

#[test]
fn a_key_that_the_disk_refuses_is_exit_code_5_before_anybody_is_asked() {
    let home = Home::new();
    let file = home.path().join("no-such-folder/key");
    let finished = run(&["put", "x", "--new-key", file.to_str().unwrap()], NOBODY).expect_code(5);
    assert!(finished.error().contains("no-such-folder/key"), "{finished:#?}");
}
