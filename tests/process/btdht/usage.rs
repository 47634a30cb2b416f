//! Wrong and right usage, and the verbs that open no network.

use std::process::Stdio;

use crate::harness::{Home, INFOHASH, Loopback, NOBODY, Running, run, silent_node};

#[test]
fn wrong_usage_is_exit_code_2_with_a_suggestion() {
    let home = Home::new();
    let finished = home.run(&["get-pears", "x"]).expect_code(2);
    assert!(finished.error().contains("did you mean `get-peers`?"), "{finished:#?}");
    // No verb is inferred from its beginning.
    home.run(&["serv"]).expect_code(2);
    for args in [
        &["get-peers", "nonsense"][..],
        &["get-peers", "magnet:?dn=nothing"],
        &["announce", "08ada5a7a6183aae1e09d831df6748d566095a10"],
        &["announce", "08ada5a7a6183aae1e09d831df6748d566095a10", "--peer-port", "0"],
        &["find-node", "08ada5"],
        &["ping", "--port", "65536", "127.0.0.1:1"],
        &["id", "--ip", "300.0.0.1"],
        &["serve", "--bind", "nowhere"],
        &["serve", "--ipv4-only", "--ipv6-only"],
        &["ping", "--timeout", "-1", "127.0.0.1:1"],
        &[],
    ] {
        let finished = home.run(args).expect_code(2);
        assert!(finished.stdout.is_empty() && !finished.stderr.is_empty(), "{args:?} {finished:#?}");
    }
    let finished = home.run(&["ping", "127.0.0.1", "--bootstrap", "127.0.0.1:1"]).expect_code(2);
    assert!(finished.error().contains("HOST:PORT"));
    let finished = home.run(&["serve", "--bootstrap", "127.0.0.1"]).expect_code(2);
    assert!(finished.error().contains("HOST:PORT"));
}

/// All verbs, as the program lists them.
fn verbs(home: &Home) -> Vec<String> {
    let help = home.run(&["--help"]).expect_code(0).stdout;
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let listed = listed.take_while(|line| line.starts_with("  "));
    // A line that is indented further goes on with the one before.
    let verbs =
        listed.filter(|line| !line.starts_with("   ")).map(|line| line.trim().split_once(' ').unwrap());
    verbs.map(|(verb, _)| verb.to_owned()).filter(|verb| verb != "help").collect()
}

#[test]
fn every_verb_has_help_with_an_example() {
    let home = Home::new();
    let verbs = verbs(&home);
    assert!(verbs.len() >= 18, "{verbs:?}");
    for verb in verbs {
        let help = home.run(&[&verb, "--help"]).expect_code(0).stdout;
        // Long lines are wrapped.
        let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
        let example =
            words.split_once(" Example").is_some_and(|(_, rest)| rest.contains(&format!("btdht {verb}")));
        assert!(example && help.contains("--json"), "{verb}: {help}");
    }
}

/// The verbs that scripts and packages depend on.
const VERBS: [&str; 19] = [
    "announce",
    "completions",
    "config",
    "crawl",
    "doctor",
    "find-node",
    "get",
    "get-peers",
    "id",
    "krpc",
    "man",
    "ping",
    "put",
    "replay",
    "sample",
    "scrape",
    "serve",
    "sim",
    "testnet",
];

/// Unlike `btfetch`, which has verbs and flags that come later, this program has all that were promised.
#[test]
fn every_verb_of_the_contract_is_there_and_none_says_not_yet() {
    let home = Home::new();
    let mut listed = verbs(&home);
    listed.sort_unstable();
    assert_eq!(listed, VERBS);
    for args in VERBS.map(|verb| vec![verb, "--help"]).into_iter().chain([vec!["--help"]]) {
        let help = home.run(&args).expect_code(0).stdout;
        let words = help.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
        assert!(!words.contains("not yet") && !words.contains("not there yet"), "{args:?}: {help}");
    }
}

#[test]
fn ids_are_fresh_and_belong_to_an_address_if_asked() {
    let home = Home::new();
    let id = |args: &[&str]| home.run(args).expect_code(0).stdout.trim_end().parse::<krpc::Id>().unwrap();
    assert_ne!(id(&["id"]), id(&["id"]));
    assert!(btdht::secure_id::is_secure(
        &id(&["id", "--ip", "124.31.75.21"]),
        "124.31.75.21".parse().unwrap()
    ));
    let six: std::net::IpAddr = "2001:db8:85a3:1234::1".parse().unwrap();
    assert!(btdht::secure_id::is_secure(&id(&["id", "--ip", &six.to_string()]), six));
    let json = home.run(&["--json", "id"]).expect_code(0).stdout;
    let object: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(object["id"].as_str().map(str::len), Some(40));
}

#[test]
fn config_prints_values_with_their_origin_and_loads_what_it_printed() {
    let home = Home::new();
    let mut command = home.command(&["config", "--port", "7000"]);
    let printed = Running::start(command.env("BTDHT_K", "20")).finish().expect_code(0).stdout;
    let origin = |key: &str| {
        let line = printed.lines().find(|line| line.starts_with(&format!("{key} = "))).unwrap();
        line.split_once('#').unwrap().1.trim().to_owned()
    };
    assert_eq!((&origin("port")[..], &origin("k")[..]), ("--port", "BTDHT_K"));
    assert_eq!(origin("store_memory"), "built-in");
    let file = home.path().join("printed.toml");
    std::fs::write(&file, &printed).unwrap();
    let again = home.run(&["config", "--config", file.to_str().unwrap()]).expect_code(0).stdout;
    let values = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.split('#').next().unwrap().trim().to_owned()).collect()
    };
    assert_eq!(values(&again), values(&printed));
}

#[test]
fn a_wrong_setting_is_exit_code_2_and_says_where_it_stands() {
    let home = Home::new();
    let folder = home.path().join(".config/btdht");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("bootstrap.toml"), "[limits]\nmax_valeus = 3\n").unwrap();
    let finished = home.run(&["config"]).expect_code(2);
    assert!(
        finished.error().contains("max_values") && finished.error().contains("bootstrap.toml"),
        "{finished:#?}"
    );
    std::fs::write(folder.join("bootstrap.toml"), "[limits]\nmax_values = \n").unwrap();
    home.run(&["config"]).expect_code(2).error();
    let finished = home.run(&["config", "--config", "/nonexistent/file"]).expect_code(2);
    assert!(finished.error().contains("/nonexistent/file"));
    // A settings file that happens to lie in the current folder is none of ours.
    std::fs::remove_file(folder.join("bootstrap.toml")).unwrap();
    std::fs::write(home.path().join("bootstrap.toml"), "nonsense").unwrap();
    Running::start(home.command(&["config"]).current_dir(home.path())).finish().expect_code(0);
}

#[test]
fn completions_and_the_manual_name_every_verb() {
    let home = Home::new();
    let verbs = verbs(&home);
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = home.run(&["completions", shell]).expect_code(0).stdout;
        for verb in &verbs {
            assert!(script.contains(verb), "{shell} {verb}");
        }
    }
    home.run(&["completions", "csh"]).expect_code(2);
    let page = home.run(&["man"]).expect_code(0).stdout;
    assert!(page.contains(".TH btdht"));
    for verb in &verbs {
        // A hyphen is escaped in a manual page.
        assert!(page.contains(&verb.replace('-', "\\-")), "{verb}");
        assert!(home.run(&["man", verb]).expect_code(0).stdout.contains(".TH "), "{verb}");
    }
    assert!(home.run(&["man", "get-peers"]).expect_code(0).stdout.contains("INFOHASH"));
    home.run(&["man", "nothing"]).expect_code(2);
}

#[test]
fn a_closed_pipe_is_a_quiet_end() {
    let home = Home::new();
    let world = Loopback::new(8);
    let router = world.router();
    run(&["announce", INFOHASH, "--peer-port", "7001"], &router).expect_code(0);
    let trace = home.path().join("trace");
    std::fs::write(&trace, run(&["find-node", INFOHASH, "--trace", "--json"], &router).stdout).unwrap();
    for args in [
        &["config"][..],
        &["config", "--json"],
        &["man"],
        &["id"],
        &["completions", "bash"],
        &["--help"],
        &["replay", trace.to_str().unwrap()],
        &["get-peers", INFOHASH],
        &["get-peers", INFOHASH, "--trace", "--json"],
        &["find-node", INFOHASH],
        &["sample", &router],
        &["doctor", "--json", "--timeout", "1"],
    ] {
        let local = ["--bind", "127.0.0.1", "--allow-local", "--bootstrap", &router];
        let mut child = home.command(&[args, &local].concat()).stdout(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "", "{args:?}");
        assert_eq!(output.status.code(), Some(0), "{args:?}");
    }
}

#[test]
fn a_signal_ends_a_verb_that_waits() {
    let silent = silent_node();
    let router = silent.local_addr().unwrap().to_string();
    let home = Home::new();
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let args = [
            "get-peers",
            INFOHASH,
            "--bind",
            "127.0.0.1",
            "--allow-local",
            "--bootstrap",
            &router,
            "--trace",
        ];
        let mut command = home.command(&[&args[..], &["--json"]].concat());
        let running = Running::start(&mut command);
        // It is under way, and watches for signals, once the first query is out.
        running.line(|line| line.contains("\"asked\""));
        running.signal(signal);
        let finished = running.finish().expect_code(code);
        assert_eq!(finished.stderr, "", "{finished:#?}");
    }
}

#[test]
fn every_verb_that_listens_says_that_a_port_is_taken() {
    let taken = silent_node();
    let port = taken.local_addr().unwrap().port().to_string();
    for verb in [
        &["serve"][..],
        &["get-peers", INFOHASH],
        &["announce", INFOHASH, "--peer-port", "7"],
        &["find-node", INFOHASH],
        &["ping", NOBODY],
        &["get", INFOHASH],
        &["put", "x"],
        &["scrape", INFOHASH],
        &["sample"],
        &["krpc", NOBODY, "{\"q\":\"ping\"}"],
        &["doctor"],
    ] {
        let finished = run(&[verb, &["--port", &port, "--no-state"]].concat(), NOBODY).expect_code(3);
        assert!(finished.error().contains(&format!("binding 127.0.0.1:{port}")), "{finished:#?}");
    }
}

#[test]
fn config_for_programs_has_every_key_with_its_origin() {
    let home = Home::new();
    let settings = home.run(&["config", "--json", "--bootstrap", NOBODY]).expect_code(0).objects();
    assert!(settings.len() > 60, "{settings:#?}");
    for setting in &settings {
        assert_eq!(setting["event"], "setting");
        assert!(setting["key"].is_string() && setting["value"].is_string(), "{setting}");
        let routers = setting["key"] == "router";
        assert_eq!(setting["origin"], if routers { "--bootstrap" } else { "built-in" }, "{setting}");
    }
    assert_eq!(settings.last().unwrap()["value"], NOBODY);
}

#[test]
fn a_mistyped_verb_or_flag_is_met_with_the_nearest_one() {
    let home = Home::new();
    for (word, meant) in [
        ("serv", "serve"),
        ("find_node", "find-node"),
        ("docter", "doctor"),
        ("repley", "replay"),
        ("pnig", "ping"),
    ] {
        let finished = home.run(&[word]).expect_code(2);
        assert!(finished.error().contains(&format!("did you mean `{meant}`?")), "{finished:#?}");
    }
    let finished = home.run(&["zzzzzzzz"]).expect_code(2);
    assert!(!finished.error().contains("did you mean"), "{finished:#?}");
    let finished = home.run(&["get-peers", INFOHASH, "--limt", "3"]).expect_code(2);
    assert!(finished.stderr.contains("--limit"), "{finished:#?}");
}
