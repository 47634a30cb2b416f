//! Experiments in a virtual network: what `sim` prints and draws, and how it ends.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::harness::{Home, Running};

/// A small one.
const SMALL: [&str; 8] = ["sim", "lookup", "--nodes", "60", "--lookups", "10", "--seed", "7"];

/// The objects of one kind.
fn of<'a>(objects: &'a [Value], event: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["event"] == event).collect()
}

#[test]
fn list_names_experiments_that_exist_and_another_name_is_wrong_usage() {
    let home = Home::new();
    let plain = home.run(&["sim", "--list"]).expect_code(0).stdout;
    let names: Vec<&str> = plain.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let wanted = [
        "lookup",
        "join",
        "churn",
        "dead",
        "partition",
        "sybil",
        "eclipse",
        "poison",
        "scale",
        "announce",
        "readonly",
        "address",
        "nat",
        "ipv6",
    ];
    assert_eq!(names.iter().copied().collect::<BTreeSet<_>>(), BTreeSet::from(wanted));
    let json = home.run(&["sim", "--list", "--json"]).expect_code(0).objects();
    assert!(json.iter().zip(&names).all(|(object, name)| object["name"] == *name), "{json:?}");
    let finished = home.run(&["sim", "lokup"]).expect_code(2);
    assert!(finished.error().contains("did you mean `lookup`?"), "{finished:#?}");
    for wrong in [&["sim"][..], &["sim", "lookup", "--nodes", "3"], &["sim", "lookup", "--threads", "0"]] {
        assert!(home.run(wrong).expect_code(2).stdout.is_empty());
    }
}

#[test]
fn equal_runs_print_the_same_whatever_the_threads_and_say_what_they_cost_apart() {
    let home = Home::new();
    let run =
        |threads: &str| home.run(&[&SMALL[..], &["--threads", threads, "--json"]].concat()).expect_code(0);
    let (mut one, mut two) = (run("1").objects(), run("2").objects());
    assert_eq!((of(&one, "begin").len(), of(&one, "row").len()), (1, 2));
    assert!(of(&one, "curve").iter().any(|curve| !curve["points"].as_array().unwrap().is_empty()));
    for row in of(&one, "row") {
        assert_eq!(row["lookups"], 10, "{row}");
        assert!(row["found"].as_f64().unwrap() > 0.8, "{row}");
    }
    for objects in [&mut one, &mut two] {
        let done = objects.last_mut().unwrap();
        assert_eq!(
            (&done["event"], &done["scenario"], &done["seed"]),
            (&"done".into(), &"lookup".into(), &7.into())
        );
        let cost = done.as_object_mut().unwrap().remove("cost").unwrap();
        assert!(cost["seconds"].as_f64().unwrap() > 0.0 && cost["events_per_second"].as_f64().unwrap() > 0.0);
        #[cfg(target_os = "linux")]
        {
            let [peak, rss, grown] = ["peak_rss_bytes", "rss_bytes", "grown_rss_bytes"]
                .map(|name| cost[name].as_u64().unwrap_or_else(|| panic!("{cost}")));
            assert!(grown > 1 << 20 && rss > 1 << 20 && peak >= rss.max(grown), "{cost}");
        }
        let [running, growing, seconds] =
            ["running_seconds", "growing_seconds", "seconds"].map(|name| cost[name].as_f64().unwrap());
        assert!(running > 0.0 && growing > 0.0 && running + growing <= seconds, "{cost}");
    }
    assert_eq!(one, two);
    assert_eq!(one.last().unwrap()["digest"].as_str().unwrap().len(), 16);
}

#[test]
fn plain_output_is_a_table_and_the_plot_a_file() {
    let home = Home::new();
    let file = home.path().join("lookup.svg");
    let finished = home.run(&[&SMALL[..], &["--plot", file.to_str().unwrap()]].concat()).expect_code(0);
    let lines: Vec<&str> = finished.stdout.lines().collect();
    assert!(lines[0].starts_with("lookup: 60 nodes, seed 7"), "{finished:#?}");
    let heading = lines.iter().position(|line| line.contains("first_peer_p50_ms")).unwrap();
    assert!(lines[heading + 1].contains("just started") && lines[heading + 2].contains("long there"));
    assert_eq!(lines[heading].len(), lines[heading + 1].len());
    assert!(finished.error().contains("events") && finished.error().contains("virtual seconds"));
    let svg = std::fs::read_to_string(&file).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("time to the first peer") && svg.contains("<polyline"));

    let nowhere = home.path().join("no/such/folder.svg");
    let finished = home.run(&[&SMALL[..], &["--plot", nowhere.to_str().unwrap()]].concat()).expect_code(5);
    assert!(finished.error().contains("folder.svg"), "{finished:#?}");
}

#[test]
fn signal_ends_a_long_experiment_cleanly() {
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let home = Home::new();
        let args = ["sim", "lookup", "--nodes", "500", "--minutes", "900000", "--json"];
        let running = Running::start(&mut home.command(&args));
        running.line(|line| line.contains("\"begin\""));
        running.signal(signal);
        let finished = running.finish().expect_code(code);
        assert_eq!((finished.stdout.as_str(), finished.stderr.as_str()), ("", ""));
    }
}
