//! `crawl`: what nodes store is found, kept and exported, whatever happens to the process.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use btdht::Announce;
use btdht::net::{Bind, Dht, Options};
use krpc::Id;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::harness::{Finished, Home, Loopback, NOBODY, Running, fake_node, reply, silent_node};

/// A home, and the database of a crawl in it.
fn home() -> (Home, PathBuf) {
    let home = Home::new();
    let db = home.path().join("crawl.redb");
    (home, db)
}

/// The arguments of a crawl on loopback that starts from `router`, at its address.
fn args<'a>(router: &'a str, db: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let common = [
        "crawl",
        "--bind",
        router.rsplit_once(':').unwrap().0,
        "--allow-local",
        "--bootstrap",
        router,
        "--db",
        db.to_str().unwrap(),
    ];
    [&common, more].concat()
}

fn infohashes(count: u8) -> BTreeSet<String> {
    // Evenly over the key space.
    (0..count).map(|n| Id::new([(u16::from(n) * 256 / u16::from(count)) as u8; 20]).to_string()).collect()
}

/// A DHT that stores `count` infohashes, of a seed each.
fn world(nodes: usize, count: u8) -> (Loopback, BTreeSet<String>) {
    let (world, all) = (Loopback::alone(nodes), infohashes(count));
    let announce = Announce { port: 7001, implied: false, seed: true };
    let router: SocketAddr = world.router().parse().unwrap();
    let bind = Bind { addr: (router.ip(), 0).into(), required: true };
    let options = Options { binds: vec![bind], ..Options::loopback([router]) };
    Runtime::new().unwrap().block_on(async {
        let dht = Dht::bind(options).unwrap();
        dht.bootstrapped().await.unwrap();
        for infohash in &all {
            let lookup = dht.get_peers(infohash.parse().unwrap(), Some(announce), false).await.unwrap();
            lookup.finish().await.unwrap();
        }
        dht.shutdown().await.unwrap();
    });
    (world, all)
}

fn of_kind<'a>(objects: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    objects.iter().filter(move |object| object["event"] == kind)
}

fn names<'a>(objects: impl Iterator<Item = &'a Value>) -> Vec<String> {
    objects.map(|object| object["infohash"].as_str().unwrap().to_owned()).collect()
}

#[track_caller]
fn exported(home: &Home, db: &Path, more: &[&str]) -> Finished {
    home.run(&[&["crawl", "export", "--db", db.to_str().unwrap()], more].concat()).expect_code(0)
}

#[test]
fn what_was_announced_is_found_with_its_size_and_exported() {
    let (world, all) = world(20, 16);
    let (home, db) = home();
    let router = world.router();
    let more = ["--rounds", "1", "--rate", "200", "--scrape", "--json"];
    let objects = home.run(&args(&router, &db, &more)).expect_code(0).objects();
    let found = names(of_kind(&objects, "infohash"));
    assert_eq!((found.len(), found.into_iter().collect::<BTreeSet<_>>()), (16, all.clone()), "each once");
    let sized: BTreeSet<_> = names(of_kind(&objects, "size")).into_iter().collect();
    assert_eq!(sized, all);
    let done = objects.last().unwrap();
    assert_eq!(
        (&done["event"], &done["infohashes_new"], &done["rounds"]),
        (&"done".into(), &16.into(), &1.into())
    );
    // Everybody, their router, and whoever announced and is gone.
    assert!(done["counters"]["sample_queries"].as_u64().unwrap() <= 22, "{done}");

    let objects = exported(&home, &db, &[]).objects();
    let lines = names(objects.iter());
    assert_eq!(lines, all.iter().cloned().collect::<Vec<_>>(), "in their order");
    for object in &objects {
        assert_eq!((&object["seeds"], &object["downloaders"]), (&1.into(), &0.into()), "{object}");
        let nodes = object["nodes"].as_u64().unwrap();
        let times = object["times_seen"].as_u64().unwrap();
        // Each node told it once; that two of them share a bit of the count is rare.
        assert!(times >= 5 && (times - 3..=times).contains(&nodes), "{object}");
        assert!(object["first_seen"].as_u64() <= object["last_seen"].as_u64(), "{object}");
    }
    let csv = home.path().join("all.csv");
    let plain = exported(&home, &db, &["--format", "csv"]).stdout;
    exported(&home, &db, &["--format", "csv", "-o", csv.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(&csv).unwrap(), plain, "the same for the same database");
    let mut rows = plain.lines();
    assert_eq!(
        rows.next(),
        Some("infohash,first_seen,last_seen,times_seen,nodes,seeds,downloaders,sized_at")
    );
    let columns: Vec<Vec<_>> = rows.map(|row| row.split(',').map(str::to_owned).collect()).collect();
    assert!(columns.iter().all(|row| row.len() == 8 && row[5] == "1"), "{columns:?}");
    assert_eq!(columns.into_iter().map(|row| row[0].clone()).collect::<BTreeSet<_>>(), all);

    let status =
        home.run(&["crawl", "status", "--json", "--db", db.to_str().unwrap()]).expect_code(0).objects();
    assert_eq!((&status[0]["infohashes"], &status[0]["sized"]), (&16.into(), &16.into()), "{status:?}");
    let plain = home.run(&["crawl", "status", "--db", db.to_str().unwrap()]).expect_code(0).stdout;
    assert!(plain.starts_with("16 infohashes, 16 of known size"), "{plain}");

    // Everybody rests: there is nothing to do, and nothing is new.
    let more = ["--rounds", "1", "--json"];
    let objects = home.run(&args(&router, &db, &more)).expect_code(0).objects();
    let done = objects.last().unwrap();
    assert_eq!(done["infohashes_total"], 16, "{done}");
    assert_eq!(
        (of_kind(&objects, "infohash").count(), &done["counters"]["queries"]),
        (0, &0.into()),
        "{done}"
    );
}

#[test]
fn a_kill_loses_nothing_that_was_told_and_the_next_run_goes_on() {
    let (world, all) = world(30, 60);
    let (home, db) = home();
    let router = world.router();
    let running = Running::start(&mut home.command(&args(&router, &db, &["--rate", "5", "--json"])));
    let first = running.line(|line| line.contains("\"event\":\"infohash\""));
    // Another process has to wait.
    let finished = home.run(&args(&router, &db, &["--rounds", "1"])).expect_code(6);
    assert!(finished.error().contains("in use"), "{finished:#?}");
    home.run(&["crawl", "export", "--db", db.to_str().unwrap()]).expect_code(6);
    running.signal("-KILL");
    let killed = running.finish();
    assert_eq!(killed.status.code(), None, "{killed:#?}");
    let told = [&first].into_iter().map(String::as_str).chain(killed.stdout.lines());
    let told: Vec<Value> = told.map(|line| serde_json::from_str(line).unwrap()).collect();

    let stored: BTreeSet<_> = names(exported(&home, &db, &[]).objects().iter()).into_iter().collect();
    let told: BTreeSet<_> = names(of_kind(&told, "infohash")).into_iter().collect();
    assert!(!told.is_empty() && told.is_subset(&stored) && stored.is_subset(&all), "{told:?} {stored:?}");
    let status =
        home.run(&["crawl", "status", "--json", "--db", db.to_str().unwrap()]).expect_code(0).objects();
    let resting = status[0]["resting"].as_u64().unwrap();
    assert!(resting > 0, "{status:?}");

    let more = ["--rounds", "1", "--rate", "200", "--json"];
    let objects = home.run(&args(&router, &db, &more)).expect_code(0).objects();
    let done = objects.last().unwrap();
    let number = |value: &Value| value.as_u64().unwrap();
    let asked = number(&done["counters"]["sample_queries"]);
    // Had one of those that rested been asked again, there would be fewer.
    let left_alone = number(&done["resting"]) + number(&done["silent"]) + number(&done["refused"]) - asked;
    assert_eq!(left_alone, resting, "{done}");
    assert_eq!(names(exported(&home, &db, &[]).objects().iter()), all.into_iter().collect::<Vec<_>>());
}

/// Where all rest nobody was asked, so that nobody's silence says anything.
#[test]
fn a_run_in_which_all_rest_waits_and_blames_nobody() {
    let (world, _) = world(8, 5);
    let (home, db) = home();
    home.run(&args(&world.router(), &db, &["--rounds", "1", "--rate", "100"])).expect_code(0);
    let more = ["--timeout", "1", "--duration", "3", "--json"];
    let finished = home.run(&args(NOBODY, &db, &more)).expect_code(0);
    let done = finished.objects().pop().unwrap();
    assert_eq!((&done["event"], &done["counters"]["queries"]), (&"done".into(), &0.into()), "{done}");
    assert!(done["resting"].as_u64().unwrap() > 0 && !finished.stderr.contains("UDP"), "{finished:#?}");
}

#[test]
fn a_closed_pipe_costs_a_crawl_nothing_that_it_has_found() {
    let (world, _) = world(8, 5);
    let (home, db) = home();
    let mut child = home.command(&args(&world.router(), &db, &["--json"])).spawn().unwrap();
    // The first line tells that it walks: it knows the nodes that it begins with.
    drop(child.stdout.take());
    let mut stderr = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut stderr).unwrap();
    assert_eq!((child.wait().unwrap().code(), stderr.as_str()), (Some(0), ""));
    let status =
        home.run(&["crawl", "status", "--json", "--db", db.to_str().unwrap()]).expect_code(0).objects();
    let number = |key: &str| status[0][key].as_u64().unwrap();
    assert!(number("fresh") + number("resting") > 0, "{status:?}");
}

#[test]
fn a_full_database_is_told_once_and_the_crawl_goes_on() {
    let (world, all) = world(10, 12);
    let (home, db) = home();
    let more = ["--rounds", "1", "--rate", "100", "--max-infohashes", "3", "--json"];
    let finished = home.run(&args(&world.router(), &db, &more)).expect_code(0);
    let objects = finished.objects();
    let full: Vec<_> = of_kind(&objects, "full").map(|object| &object["max_infohashes"]).collect();
    assert_eq!(full, [&Value::from(3)], "{finished:#?}");
    assert!(finished.stderr.contains("the database is full"), "{finished:#?}");
    let done = objects.last().unwrap();
    assert_eq!((&done["infohashes_new"], &done["infohashes_total"]), (&3.into(), &3.into()), "{done}");
    let stored: BTreeSet<_> = names(exported(&home, &db, &[]).objects().iter()).into_iter().collect();
    assert!(stored.len() == 3 && stored.is_subset(&all), "{stored:?}");
}

#[test]
fn the_size_of_the_dht_is_told_and_kept() {
    let (world, _) = world(40, 2);
    let (home, db) = home();
    // Slow enough that answers come before the next query.
    let more = ["--rounds", "1", "--rate", "40", "--json"];
    let objects = home.run(&args(&world.router(), &db, &more)).expect_code(0).objects();
    let status =
        home.run(&["crawl", "status", "--json", "--db", db.to_str().unwrap()]).expect_code(0).objects();
    let (told, kept) = (&objects.last().unwrap()["dht_size"], &status[0]["dht_size"]);
    assert!(told["ipv6"].is_null() && kept["ipv6"].is_null(), "{told} {kept}");
    for size in [&told["ipv4"], &kept["ipv4"]] {
        let number = |key: &str| size[key].as_f64().unwrap_or_else(|| panic!("{key}: {told} {kept}"));
        assert!(number("points") >= 1.0 && number("error") >= 1.0, "{size}");
        assert!(number("low") < number("nodes") && number("nodes") < number("high"), "{size}");
    }
    assert!(kept["ipv4"]["at"].as_u64().unwrap() > 1_700_000_000, "{kept}");
    let plain = home.run(&["crawl", "status", "--db", db.to_str().unwrap()]).expect_code(0).stdout;
    assert!(plain.contains("IPv4 DHT: ") && !plain.contains("IPv6 DHT"), "{plain}");
}

#[test]
fn a_signal_saves_and_ends_with_its_code() {
    let (world, all) = world(10, 10);
    let (home, db) = home();
    let router = world.router();
    let running = Running::start(&mut home.command(&args(&router, &db, &["--rate", "100", "--json"])));
    running.line(|line| line.contains("\"event\":\"condition\"") && line.contains("resting"));
    running.signal("-INT");
    let finished = running.finish().expect_code(130);
    assert_eq!(finished.objects().last().unwrap()["event"], "done");
    assert_eq!(exported(&home, &db, &[]).stdout.lines().count(), all.len());
}

#[test]
fn limits_end_a_crawl_and_a_part_of_the_key_space_is_all_that_is_told() {
    let (world, all) = world(20, 40);
    let (home, db) = home();
    let router = world.router();
    let objects = home.run(&args(&router, &db, &["--limit", "3", "--json"])).expect_code(0).objects();
    assert!(of_kind(&objects, "infohash").count() >= 3);
    let part = home.path().join("part.redb");
    // A part in which a node lives: it is the closest to all that belongs there, and stores it.
    let digit = &world.nodes().next().unwrap().0.to_string()[..1];
    let more = ["--target", digit, "--rounds", "1", "--rate", "200", "--json"];
    let objects = home.run(&args(&router, &part, &more)).expect_code(0).objects();
    let found: BTreeSet<_> = names(of_kind(&objects, "infohash")).into_iter().collect();
    let wanted: BTreeSet<_> = all.iter().filter(|infohash| infohash.starts_with(digit)).cloned().collect();
    assert!(wanted.len() >= 2 && found == wanted, "{digit}: {found:?}");
    let fourth = home.path().join("fourth.redb");
    let finished = home.run(&args(&router, &fourth, &["--duration", "0.5"])).expect_code(0);
    assert!(finished.stdout.contains("new infohashes"), "{finished:#?}");
    // Longer than any clock goes.
    let more = ["--duration", "1e19", "--timeout", "1e19", "--limit", "1"];
    home.run(&args(&router, &home.path().join("fifth.redb"), &more)).expect_code(0);
}

#[test]
fn files_that_are_no_crawl_are_refused_and_left_as_they_are() {
    let (home, db) = home();
    for garbage in [&b"not a database at all, but somebody's letter\n"[..], b"redb", b"x"] {
        fs::write(&db, garbage).unwrap();
        for finished in [
            home.run(&args(NOBODY, &db, &["--duration", "1"])),
            home.run(&["crawl", "export", "--db", db.to_str().unwrap()]),
            home.run(&["crawl", "status", "--db", db.to_str().unwrap()]),
        ] {
            let finished = finished.expect_code(2);
            assert!(finished.error().contains("not the database of a crawl"), "{finished:#?}");
        }
        assert_eq!(fs::read(&db).unwrap(), garbage);
    }
    // One that was cut off is damaged, and no file below a file can be made.
    let (world, _) = world(8, 5);
    let good = home.path().join("good.redb");
    home.run(&args(&world.router(), &good, &["--rounds", "1", "--rate", "100"])).expect_code(0);
    let whole = fs::read(&good).unwrap();
    let mut scrambled = whole.clone();
    for byte in scrambled.iter_mut().skip(4096).step_by(97) {
        *byte ^= 0x55;
    }
    for damaged in [&whole[..whole.len() / 2], &whole[..100], &scrambled] {
        fs::write(&db, damaged).unwrap();
        let finished = home.run(&args(NOBODY, &db, &["--duration", "1"])).expect_code(5);
        assert!(finished.stderr.contains("damaged"), "{finished:#?}");
    }
    let below = good.join("x.redb");
    home.run(&args(NOBODY, &below, &["--duration", "1"])).expect_code(5).error();
}

#[test]
fn wrong_usage_and_silence_have_their_codes() {
    let (home, db) = home();
    for more in [
        &["--target", "xyz"][..],
        &["--rate", "0"],
        &["--duration", "0"],
        &["--limit", "0"],
        &["--max-in-flight", "5000"],
        &["--rounds", "1", "status"],
        &["nonsense"],
    ] {
        home.run(&args(NOBODY, &db, more)).expect_code(2);
    }
    // It would wait for sizes that nobody may ask for.
    let mut command = home.command(&args(NOBODY, &db, &["--scrape", "--rounds", "1"]));
    let output = command.env("BTDHT_CRAWL_SCRAPE_SHARE", "0").output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && told.contains("crawl_scrape_share is 0"), "{told}");
    home.run(&["crawl", "export", "--format", "xml"]).expect_code(2);
    home.run(&["crawl", "--no-state"]).expect_code(2).error();
    let finished = home.run(&["crawl", "export", "--db", db.to_str().unwrap()]).expect_code(4);
    assert!(finished.error().contains("nothing has been recorded"), "{finished:#?}");
    assert!(!db.exists(), "asking makes no database");
    let silent = silent_node();
    let router = silent.local_addr().unwrap().to_string();
    let finished = home.run(&args(&router, &db, &["--timeout", "1"])).expect_code(4);
    assert!(finished.stderr.contains("nobody answered"), "{finished:#?}");
}

/// A node that refuses the question, and one that does not know it and answers something else, are each
/// asked once.
#[test]
fn nodes_without_bep_51_are_asked_once() {
    let (home, db) = home();
    let old = fake_node(|query| Some(reply(query, b"", b"LT\x01\x00"))).to_string();
    let finished = home.run(&args(&old, &db, &["--duration", "8", "--rate", "100", "--json"]));
    let objects = finished.objects();
    let done = objects.last().unwrap();
    assert_eq!(done["event"], "done");
    assert!(done["counters"]["sample_queries"].as_u64().unwrap() <= 1, "{done}");
}

#[test]
fn a_closed_pipe_ends_an_export_quietly() {
    let (world, _) = world(8, 5);
    let (home, db) = home();
    home.run(&args(&world.router(), &db, &["--rounds", "1", "--rate", "100"])).expect_code(0);
    let mut child = home.command(&["crawl", "export", "--db", db.to_str().unwrap()]).spawn().unwrap();
    drop(child.stdout.take());
    let mut stderr = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut stderr).unwrap();
    assert_eq!((child.wait().unwrap().code(), stderr.as_str()), (Some(0), ""));
}

#[test]
fn a_disk_that_refuses_is_exit_code_5() {
    let (world, _) = world(8, 5);
    let (home, db) = home();
    home.run(&args(&world.router(), &db, &["--rounds", "1", "--rate", "100"])).expect_code(0);
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = home.command(&["crawl", "export", "--db", db.to_str().unwrap()]);
    let output = command.stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    let nowhere = home.path().join("missing/all.csv");
    let export = ["crawl", "export", "--db", db.to_str().unwrap(), "-o", nowhere.to_str().unwrap()];
    home.run(&export).expect_code(5).error();
}

/// Neither by its own name nor by another one, nor as what a shell appends to.
#[test]
fn an_export_over_its_own_database_is_refused() {
    let (world, _) = world(8, 5);
    let (home, db) = home();
    home.run(&args(&world.router(), &db, &["--rounds", "1", "--rate", "100"])).expect_code(0);
    let plain = exported(&home, &db, &[]).stdout;
    let at = |name: &str| home.path().join(name);
    fs::hard_link(&db, at("hard")).unwrap();
    std::os::unix::fs::symlink("crawl.redb", at("soft")).unwrap();
    let around = home.path().join(".").join("crawl.redb");
    for output in [db.clone(), around, at("hard"), at("soft")] {
        let output = output.to_str().unwrap();
        for format in ["jsonl", "csv"] {
            let export = ["crawl", "export", "--db", db.to_str().unwrap(), "--format", format, "-o", output];
            let finished = home.run(&export).expect_code(2);
            assert!(finished.error().contains("the database that is exported"), "{finished:#?}");
        }
    }
    let appended = fs::File::options().append(true).open(&db).unwrap();
    let export = ["crawl", "export", "--db", db.to_str().unwrap()];
    assert_eq!(home.command(&export).stdout(appended).output().unwrap().status.code(), Some(2));
    assert_eq!(exported(&home, &db, &[]).stdout, plain, "it is as it was");
}

/// A link stays a link, somebody's file stays theirs, and what is no file is written to as it is.
#[test]
fn an_export_replaces_a_file_and_nothing_else() {
    let (world, _) = world(8, 5);
    let (home, db) = home();
    home.run(&args(&world.router(), &db, &["--rounds", "1", "--rate", "100"])).expect_code(0);
    let plain = exported(&home, &db, &[]).stdout;
    assert!(!plain.is_empty());
    let at = |name: &str| home.path().join(name);
    fs::write(at("letter.new"), "dear").unwrap();
    fs::write(at("letter"), "old").unwrap();
    std::os::unix::fs::symlink("letter", at("link")).unwrap();
    exported(&home, &db, &["-o", at("link").to_str().unwrap()]);
    assert!(at("link").is_symlink());
    assert_eq!(fs::read_to_string(at("letter")).unwrap(), plain);
    assert_eq!(fs::read_to_string(at("letter.new")).unwrap(), "dear");
    assert_eq!(exported(&home, &db, &["-o", "/dev/stdout"]).stdout, plain);

    let pipe = at("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let reader = std::thread::spawn({
        let pipe = pipe.clone();
        move || fs::read_to_string(pipe).unwrap()
    });
    exported(&home, &db, &["-o", pipe.to_str().unwrap()]);
    assert_eq!(reader.join().unwrap(), plain);

    // What a shell appends to is neither replaced nor written over.
    let log = at("log");
    fs::write(&log, "before\n").unwrap();
    let appended = fs::File::options().append(true).open(&log).unwrap();
    let export = ["crawl", "export", "--db", db.to_str().unwrap(), "-o", "/dev/stdout"];
    assert!(home.command(&export).stdout(appended).status().unwrap().success());
    assert_eq!(fs::read_to_string(&log).unwrap(), format!("before\n{plain}"));
}
