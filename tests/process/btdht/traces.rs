//! What `--trace` shows, and what `btdht replay` makes of it.

use crate::harness::{Finished, Home, INFOHASH, Loopback, NOBODY, run, silent_node};

/// Replays `trace` in a home of its own.
fn replay(trace: &str, more: &[&str]) -> Finished {
    let home = Home::new();
    let file = home.path().join("trace.jsonl");
    std::fs::write(&file, trace).unwrap();
    home.run(&[&["replay", file.to_str().unwrap()], more].concat())
}

#[test]
fn a_hop_tells_who_was_asked_when_how_far_and_what_came_back() {
    let world = Loopback::new(12);
    let finished = run(&["find-node", INFOHASH, "--trace", "--json"], &world.router()).expect_code(0);
    let events = finished.objects();
    let hops: Vec<_> = events.iter().filter(|event| event["event"] == "hop").collect();
    let answered: Vec<_> = hops.iter().filter(|hop| hop["step"] == "answered").collect();
    assert!(answered.len() >= 8, "{hops:#?}");
    for hop in answered {
        assert!(hop["at_ms"].is_number() && hop["ms"].is_number() && hop["depth"].is_u64(), "{hop}");
        assert!(hop["nodes"].is_u64() && hop["peers"].is_u64() && hop["token"].is_boolean(), "{hop}");
        let id: krpc::Id = hop["id"].as_str().unwrap().parse().unwrap();
        let distance = id.distance(&INFOHASH.parse().unwrap());
        assert_eq!(hop["distance"], distance.to_string());
        assert_eq!(hop["log2"], distance.bit_len());
        assert!(world.nodes().any(|(of, addr)| of == id && hop["addr"] == addr.to_string()), "{hop}");
    }
    assert!(hops.iter().any(|hop| hop["depth"].as_u64() > Some(0)), "{hops:#?}");
    assert_eq!(events.last().unwrap()["event"], "done");
}

#[test]
fn a_silent_node_is_slow_and_then_silent_in_a_trace() {
    let silent = silent_node();
    let router = silent.local_addr().unwrap().to_string();
    let finished = run(&["get-peers", INFOHASH, "--trace"], &router).expect_code(4);
    for step in ["  asked", "  slow", "  silent"] {
        assert!(finished.stderr.lines().any(|line| line.contains(&router) && line.ends_with(step)), "{step}");
    }
}

#[test]
fn a_recorded_get_peers_is_replayed_to_the_same_datagrams() {
    let world = Loopback::new(12);
    let router = world.router();
    run(&["announce", INFOHASH, "--peer-port", "7001"], &router).expect_code(0);
    let recorded = run(&["get-peers", INFOHASH, "--trace", "--json"], &router).expect_code(0);
    let objects = recorded.objects();
    let count = |name: &str| objects.iter().filter(|object| object["event"] == name).count();
    assert_eq!((count("trace"), count("trace_end"), count("peer")), (1, 1, 1));
    assert!(count("input") > 16 && count("hop") > 16);
    let first = objects.iter().find(|object| object["event"] == "trace").unwrap();
    assert_eq!((&first["version"], &first["homes"][0]["saved"]), (&1.into(), &serde_json::json!([])));
    assert_eq!(first["config"]["node.allow_local"], "true");

    let again = replay(&recorded.stdout, &["--json"]).expect_code(0).objects();
    let hops = |objects: &[serde_json::Value]| -> Vec<serde_json::Value> {
        objects.iter().filter(|object| object["event"] == "hop").cloned().collect()
    };
    assert_eq!(hops(&again), hops(&objects), "the same hops at the same times");
    let last = again.last().unwrap();
    assert_eq!((&last["inputs"], &last["different"]), (&count("input").into(), &0.into()));
    assert_eq!(last["complete"], true);
    let plain = replay(&recorded.stdout, &[]).expect_code(0).stdout;
    assert!(plain.contains("  answered  ") && plain.lines().next().unwrap().contains("distance"), "{plain}");
    assert!(plain.lines().last().unwrap().starts_with("replayed "), "{plain}");
}

#[test]
fn every_traced_verb_can_be_replayed() {
    let world = Loopback::new(10);
    let router = world.router();
    let target = run(&["put", "Hello World!"], &router).expect_code(0).stdout;
    run(&["announce", INFOHASH, "--peer-port", "7001", "--seed", "--trace", "--json"], &router)
        .expect_code(0)
        .replays();
    for verb in [
        &["find-node", INFOHASH][..],
        &["get", target.trim_end()],
        &["get-peers", INFOHASH, "--announce", "7002"],
        &["get-peers", INFOHASH, "--limit", "1"],
        &["scrape", INFOHASH],
        &["sample", "--limit", "1"],
    ] {
        run(&[verb, &["--trace", "--json"]].concat(), &router).expect_code(0).replays();
    }
    // A lookup that finds nothing is what one wants to look at most.
    run(&["get-peers", INFOHASH, "--trace", "--json", "--timeout", "1"], NOBODY).expect_code(4).replays();
}

#[test]
fn a_trace_that_was_tampered_with_is_reported() {
    let world = Loopback::new(8);
    let recorded = run(&["find-node", INFOHASH, "--trace", "--json"], &world.router()).expect_code(0).stdout;
    let lines: Vec<_> = recorded.lines().collect();
    let rest = |from: usize| lines[from..].join("\n");
    let number = |wanted: &dyn Fn(&str) -> bool| lines.iter().position(|line| wanted(line)).unwrap();

    // Another byte in an answer that came: its transaction id is another's then.
    let at = number(&|line| line.contains("\"input\":\"datagram\"") && line.contains("\"told\""));
    let altered = lines[at].replacen("313a74", "313a75", 1);
    assert_ne!(altered, lines[at]);
    let tampered = format!("{}\n{altered}\n{}", lines[..at].join("\n"), rest(at + 1));
    let finished = replay(&tampered, &[]).expect_code(1);
    assert!(finished.error().contains("came to something else than recorded"), "{finished:#?}");
    assert!(finished.error().contains(&format!("the first in line {}", at + 1)), "{finished:#?}");
    assert!(finished.stdout.contains(&format!("line {}: ", at + 1)), "{finished:#?}");
    let objects = replay(&tampered, &["--json"]).expect_code(1).objects();
    assert!(objects.iter().any(|object| object["event"] == "difference" && object["line"] == at + 1));

    // A datagram that was never sent.
    let at = number(&|line| line.contains("\"sent\":[["));
    let altered = lines[at].replacen("\"sent\":[[\"127.0.0.1:", "\"sent\":[[\"127.0.0.2:", 1);
    let tampered = format!("{}\n{altered}\n{}", lines[..at].join("\n"), rest(at + 1));
    let finished = replay(&tampered, &[]).expect_code(1);
    assert!(finished.stdout.contains("recorded: to 127.0.0.2:"), "{finished:#?}");

    // Another seed.
    let at = number(&|line| line.contains("\"event\":\"trace\""));
    let seed = lines[at].split_once("\"seed\":\"").unwrap().1;
    let altered = lines[at].replace(&seed[..64], &"ab".repeat(32));
    replay(&format!("{altered}\n{}", rest(at + 1)), &[]).expect_code(1);

    // Cut off: what is there is right, and it is said that there was more.
    let cut = replay(&lines[..lines.len() / 2].join("\n"), &[]).expect_code(0);
    assert!(cut.stdout.contains("breaks off"), "{cut:#?}");
}

#[test]
fn what_is_no_trace_is_wrong_usage_and_the_line_is_named() {
    let home = Home::new();
    let missing = home.run(&["replay", "/nonexistent/trace"]).expect_code(2);
    assert!(missing.error().contains("/nonexistent/trace"), "{missing:#?}");
    for (trace, says) in [
        ("", "no trace"),
        ("{\"event\":\"peer\"}\nnonsense\n", "line 2: no JSON object"),
        ("{\"event\":\"input\",\"input\":\"timeout\",\"at\":1,\"sent\":[]}", "line 1: an input before"),
        ("\x1b[2J", "line 1"),
    ] {
        let finished = replay(trace, &[]).expect_code(2);
        assert!(finished.error().contains(says), "{finished:#?}");
        assert!(finished.error().chars().all(|c| !c.is_control()), "{finished:#?}");
    }
}

impl Finished {
    /// Checks that its output, replayed, comes to the same.
    #[track_caller]
    fn replays(self) {
        let replayed = replay(&self.stdout, &[]);
        assert_eq!(replayed.status.code(), Some(0), "{replayed:#?}\n{}", self.stdout);
        assert!(!replayed.stdout.contains("breaks off"), "{replayed:#?}");
    }
}
