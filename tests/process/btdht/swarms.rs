//! `scrape` and `sample`: what nodes tell of swarms (BEP 33) and of what they store (BEP 51).

use std::collections::BTreeSet;

use crate::harness::{Home, INFOHASH, Loopback, NOBODY, fake_node, reply, run, silent_node};

#[test]
fn a_scrape_counts_seeds_and_downloaders() {
    let world = Loopback::new(10);
    let router = world.router();
    run(&["announce", INFOHASH, "--peer-port", "7001", "--seed"], &router).expect_code(0);
    let plain = run(&["scrape", INFOHASH], &router).expect_code(0).stdout;
    assert!(plain.starts_with("1 seeds, 0 downloaders, from "), "{plain}");
    let objects = run(&["scrape", INFOHASH, "--json"], &router).expect_code(0).objects();
    let [scrape, done] = &objects[..] else { panic!("{objects:#?}") };
    assert_eq!((&scrape["event"], &scrape["infohash"]), (&"scrape".into(), &INFOHASH.into()));
    assert_eq!(
        (&scrape["seeds"], &scrape["downloaders"], &scrape["ignored"]),
        (&1.into(), &0.into(), &0.into())
    );
    assert!(scrape["nodes"].as_u64().unwrap() >= 8 && done["event"] == "done", "{objects:#?}");

    let other = "0000000000000000000000000000000000000001";
    let magnet = format!("magnet:?xt=urn:btih:{other}");
    run(&["announce", other, "--peer-port", "7001"], &router).expect_code(0);
    let plain = run(&["scrape", &magnet], &router).expect_code(0).stdout;
    assert!(plain.starts_with("0 seeds, 1 downloaders, from "), "{plain}");
}

#[test]
fn nobody_to_scrape_or_sample_is_exit_code_4() {
    let silent = silent_node();
    let router = silent.local_addr().unwrap().to_string();
    for args in [
        &["scrape", INFOHASH][..],
        &["sample"],
        &["sample", &router],
        &["sample", &router, "--timeout", "0.2"],
    ] {
        let finished = run(args, &router).expect_code(4);
        assert!(finished.error().contains("no answer"), "{finished:#?}");
    }
    let world = Loopback::new(8);
    let finished = run(&["sample", "--timeout", "2"], &world.router()).expect_code(4);
    assert!(finished.stdout.is_empty(), "nothing is stored there: {finished:#?}");
    run(&["scrape", "nonsense"], NOBODY).expect_code(2);
    run(&["sample", "127.0.0.1"], NOBODY).expect_code(2);
}

#[test]
fn samples_are_what_was_announced_each_once() {
    // So few that each of them, the one that is asked alone too, is among the eight that store.
    let world = Loopback::new(8);
    let router = world.router();
    let announced: BTreeSet<String> = (1..=5u128).map(|n| format!("{:040x}", n << 80)).collect();
    for infohash in &announced {
        run(&["announce", infohash, "--peer-port", "7001"], &router).expect_code(0);
    }
    let walked = run(&["sample", "--limit", "5"], &router).expect_code(0);
    let lines: Vec<_> = walked.stdout.lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 5);
    assert_eq!(lines.into_iter().collect::<BTreeSet<_>>(), announced);
    let objects = run(&["sample", &router, "--json"], NOBODY).expect_code(0).objects();
    let (done, samples) = objects.split_last().unwrap();
    assert!(!samples.is_empty() && done["num"].as_u64() == Some(samples.len() as u64), "{objects:#?}");
    for sample in samples {
        assert!(announced.contains(sample["infohash"].as_str().unwrap()), "{sample}");
        assert_eq!(sample["node"], router);
    }
}

#[test]
fn a_node_that_does_not_know_samples_is_told_from_one_that_is_silent() {
    let home = Home::new();
    let old = fake_node(|query| Some(reply(query, b"", b"LT\x01\x00"))).to_string();
    let args = ["sample", &old, "--bind", "127.0.0.1", "--allow-local", "--bootstrap", NOBODY];
    let finished = home.run(&args).expect_code(1);
    assert!(finished.error().contains("BEP 51"), "{finished:#?}");
}
