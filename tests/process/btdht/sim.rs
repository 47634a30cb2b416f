//! Experiments in a virtual network: what `sim` prints and draws, and how it ends.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::harness::{Home, Running};

/// A small one.
const SMALL: [&str; 8] = ["sim", "lookup", "--nodes", "60", "--lookups", "10", "--seed", "7"];

/// All of them, and whether they take a number of lookups.
const ALL: [(&str, bool); 14] = [
    ("lookup", true),
    ("join", false),
    ("churn", true),
    ("dead", true),
    ("partition", true),
    ("sybil", true),
    ("eclipse", true),
    ("poison", true),
    ("scale", true),
    ("announce", false),
    ("readonly", true),
    ("address", false),
    ("nat", true),
    ("ipv6", true),
];

/// The objects of one kind.
fn of<'a>(objects: &'a [Value], event: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["event"] == event).collect()
}

#[test]
fn list_names_experiments_that_exist_and_another_name_is_wrong_usage() {
    let home = Home::new();
    let plain = home.run(&["sim", "--list"]).expect_code(0).stdout;
    let names: Vec<&str> = plain.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let wanted = ALL.map(|(name, _)| name);
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

/// The smallest network and a minute: what comes out, not what it says.
#[test]
fn every_experiment_prints_objects_and_draws_its_charts() {
    let home = Home::new();
    for (name, takes_lookups) in ALL {
        let file = home.path().join(format!("{name}.svg"));
        let few = if takes_lookups { &["--lookups", "4"][..] } else { &[] };
        // With fewer an attacker has no room for a third point on its axis.
        let nodes = if name == "eclipse" { "250" } else { "50" };
        let args = ["sim", name, "--nodes", nodes, "--minutes", "1", "--seed", "7", "--json", "--plot"];
        let finished = home.run(&[&args[..], &[file.to_str().unwrap()], few].concat()).expect_code(0);
        let objects = finished.objects();
        assert_eq!(objects[0]["event"], "begin", "{finished:#?}");
        let done = objects.last().unwrap();
        assert_eq!((&done["event"], &done["scenario"]), (&"done".into(), &name.into()), "{finished:#?}");
        assert!(!of(&objects, "row").is_empty(), "{finished:#?}");
        let curves = of(&objects, "curve");
        let charts: BTreeSet<&str> = curves.iter().map(|curve| curve["chart"].as_str().unwrap()).collect();
        let svg = std::fs::read_to_string(&file).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{name}");
        let texts = texts(&svg);
        assert!(!charts.is_empty());
        for chart in charts {
            let title = format!("{name}: {chart}").replace('\'', "&apos;");
            assert_eq!(texts.iter().filter(|(_, text)| *text == title).count(), 1, "{title}: {texts:?}");
        }
        // One line for each curve; a curve that has nothing to show has none.
        assert!(svg.matches("<polyline").count() >= curves.len() / 2, "{name}");
        match name {
            "sybil" | "eclipse" => assert_ticks_of_a_log_axis(&curves, &texts),
            "join" => assert!(texts.iter().any(|(_, text)| text.contains("bucket fill")), "{texts:?}"),
            // What was before the halves parted.
            "partition" => {
                let first = |curve: &&Value| curve["points"][0][0].as_f64().is_some_and(|x| x < 0.0);
                assert!(curves.iter().any(first));
                // The labels of the other axis are the leftmost; it is drawn before the zero of this one.
                let zeros: Vec<f64> =
                    texts.iter().filter(|(_, text)| *text == "0.0").map(|(x, _)| *x).collect();
                assert!(zeros.len() == 2 && (zeros[0] - zeros[1]).abs() > 20.0, "{texts:?}");
            }
            _ => {}
        }
    }
}

/// The texts of a picture, and how far to the right each is.
fn texts(svg: &str) -> Vec<(f64, &str)> {
    let texts = svg.split("<text ").skip(1).map(|text| {
        let (attributes, rest) = text.split_once('>').unwrap();
        let x = attributes.split('"').nth(1).unwrap();
        (x.parse().unwrap(), rest.split_once('<').unwrap().0.trim())
    });
    texts.collect()
}

/// Numbers of ids that grow by a factor have ticks at equal distances.
#[track_caller]
fn assert_ticks_of_a_log_axis(curves: &[&Value], texts: &[(f64, &str)]) {
    let points = curves[0]["points"].as_array().unwrap();
    let ids: Vec<f64> = points.iter().map(|point| point[0].as_f64().unwrap()).collect();
    let at = |ids: &f64| texts.iter().find(|(_, text)| *text == ids.to_string()).map(|(x, _)| *x);
    let ticks: Vec<f64> =
        ids.iter().map(|ids| at(ids).unwrap_or_else(|| panic!("{ids}: {texts:?}"))).collect();
    assert!(ids.len() >= 3 && ids.windows(2).all(|pair| pair[1] == ids[1] / ids[0] * pair[0]), "{ids:?}");
    let step = ticks[1] - ticks[0];
    assert!(ticks.windows(2).all(|pair| (pair[1] - pair[0] - step).abs() <= 2.0), "{ticks:?}");
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
