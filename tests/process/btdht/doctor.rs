//! `btdht doctor`: verdicts, their words and their exit codes.

use serde_json::Value;

use crate::harness::{Finished, Home, Loopback, NOBODY, run, silent_node};

fn verdict(finished: &Finished) -> Vec<String> {
    let objects = finished.objects();
    assert_eq!(objects.len(), 1, "one object with everything: {finished:#?}");
    assert_eq!(objects[0]["event"], "doctor");
    objects[0]["verdict"].as_array().unwrap().iter().map(|code| code.as_str().unwrap().to_owned()).collect()
}

#[test]
fn in_a_dht_that_works_the_verdict_is_healthy() {
    let world = Loopback::new(16);
    let finished = run(&["doctor", "--json", "--timeout", "20"], &world.router()).expect_code(0);
    assert_eq!(verdict(&finished)[0], "healthy", "{finished:#?}");
    let facts = &finished.objects()[0];
    assert_eq!(facts["healthy"], true);
    assert!(facts["bootstrapped_ms"].is_number(), "{facts}");
    let router = Value::from(world.router());
    assert_eq!((&facts["routers"][0]["name"], &facts["routers"][0]["answered"]), (&router, &router));
    let socket = &facts["sockets"][0];
    let nodes = socket["nodes"].as_u64().unwrap();
    assert!(nodes >= 8, "{facts}");
    let buckets = socket["buckets"].as_array().unwrap();
    assert_eq!(buckets.iter().map(|bucket| bucket["nodes"].as_u64().unwrap()).sum::<u64>(), nodes);
    assert_eq!(buckets[0]["capacity"], 128);
    for lookup in facts["lookups"].as_array().unwrap() {
        assert_eq!((&lookup["outcome"], &lookup["closest"]), (&"converged".into(), &8.into()), "{facts}");
    }
    assert!(facts["queries_in"].as_u64().unwrap() > 0, "its node answers queries: {facts}");
    assert!(facts["clock"]["year"].as_i64().unwrap() >= 2025, "{facts}");
    for share in ["spoofed_share", "changing_ids_share", "doubtful_share"] {
        assert_eq!(facts[share], 0.0, "{facts}");
    }

    let plain = run(&["doctor", "--timeout", "20"], &world.router()).expect_code(0);
    assert!(plain.stdout.starts_with("The DHT works here: "), "{plain:#?}");
    assert!(plain.stdout.contains("routers: 1 of 1 answered"), "{plain:#?}");
    let doubtful = "answers that are not what they seem: 0.0 % (0 spoofed: 0.0 %; 0 under another id: 0.0 %)";
    assert!(plain.stdout.contains(doubtful), "{plain:#?}");
    assert!(plain.stderr.contains("listening on 127.0.0.1:"), "progress: {plain:#?}");
}

#[test]
fn a_dead_bootstrap_is_exit_code_4_with_the_reason_and_what_to_do() {
    let silent = silent_node();
    let router = silent.local_addr().unwrap().to_string();
    let finished = run(&["doctor"], &router).expect_code(4);
    assert!(finished.stdout.starts_with("UDP seems blocked: 1 address of a router"), "{finished:#?}");
    assert!(finished.stdout.lines().nth(1).unwrap().contains("firewall"), "{finished:#?}");
    assert!(finished.stderr.lines().last().unwrap().contains("nobody answered"), "{finished:#?}");
    let finished = run(&["doctor", "--json"], &router).expect_code(4);
    assert_eq!(verdict(&finished), ["udp_blocked"]);
    assert_eq!(finished.objects()[0]["findings"][0]["severity"], "silence");
    assert!(finished.error().contains("nobody answered"), "{finished:#?}");
}

#[test]
fn names_that_do_not_resolve_are_told_from_a_line_that_is_dead() {
    let finished = run(&["doctor", "--json"], "router.invalid:6881").expect_code(4);
    assert_eq!(verdict(&finished), ["no_names"]);
}

#[test]
fn a_network_of_one_node_is_a_problem_and_exit_code_1() {
    let home = Home::new();
    let (_node, addr) = home.serve(NOBODY, &[]);
    let finished = run(&["doctor", "--json", "--timeout", "5"], &addr.to_string()).expect_code(1);
    assert!(verdict(&finished).contains(&"few_nodes".to_owned()), "{finished:#?}");
}

#[test]
fn saved_nodes_are_looked_at_and_left_alone() {
    let world = Loopback::new(12);
    let home = Home::new();
    let state = home.path().join("state");
    let folder = state.to_str().unwrap().to_owned();
    let doctor = |home: &Home| {
        let router = world.router();
        let args = ["doctor", "--json", "--timeout", "20", "--bind", "127.0.0.1", "--allow-local"];
        home.run(&[&args[..], &["--state", &folder, "--bootstrap", &router]].concat()).expect_code(0)
    };
    assert_eq!(doctor(&home).objects()[0]["state"]["condition"], "missing");
    assert!(!state.exists(), "nothing is written");
    let (node, _) = home.serve(&world.router(), &["--state", &folder]);
    node.line(|line| line.starts_with("bootstrapped "));
    node.signal("-TERM");
    node.finish().expect_code(143);
    let file = state.join("node.bencode");
    let before = std::fs::read(&file).unwrap();
    let facts = &doctor(&home).objects()[0]["state"];
    assert_eq!((&facts["condition"], &facts["in_use"]), (&"readable".into(), &false.into()));
    assert!(facts["nodes"].as_u64().unwrap() > 0, "{facts}");
    // They all live; how long ago they were saved is known.
    assert!(facts["asked"].as_u64().unwrap() > 0 && facts["asked"] == facts["answered"], "{facts}");
    assert!(facts["age_ms"].as_f64().unwrap() >= 0.0, "{facts}");
    assert_eq!(std::fs::read(&file).unwrap(), before);
    let (_node, _) = home.serve(&world.router(), &["--state", &folder]);
    assert!(verdict(&doctor(&home)).contains(&"state_in_use".to_owned()));
    std::fs::write(&file, "garbage").unwrap();
    assert!(verdict(&doctor(&home)).contains(&"state_damaged".to_owned()));
}
