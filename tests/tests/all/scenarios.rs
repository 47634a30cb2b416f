//! Every test that `harness::scenarios` names exists, none of the numbers is left out, and
//! `tests/SCENARIOS.md` says the same.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use harness::process::workspace;
use harness::scenarios::{NOT_YET, scenarios};

/// Names of functions that follow a line with `#[test]` or `#[tokio::test…]`.
fn tests_in(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                tests_in(&path, names);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let mut is_test = false;
            for line in text.lines().map(str::trim_start) {
                is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
                let function = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
                if let Some(name) = function.and_then(|rest| rest.split(['(', '<']).next()) {
                    if is_test {
                        names.insert(name.to_owned());
                    }
                    is_test = false;
                }
            }
        }
    }
}

#[test]
fn every_scenario_has_its_tests() {
    let mut names = BTreeSet::new();
    for folder in ["krpc", "dht", "client", "tests"] {
        tests_in(&workspace().join(folder), &mut names);
    }
    assert!(names.len() > 300, "{}", names.len());
    for (scenario, tests) in scenarios() {
        for test in tests {
            assert!(names.contains(*test), "{scenario}: there is no test {test}");
        }
    }
    let listed: BTreeSet<_> = scenarios().map(|(scenario, _)| scenario.to_owned()).collect();
    let not_yet: BTreeSet<_> = NOT_YET.iter().map(|(scenario, _)| scenario.to_string()).collect();
    assert!(listed.is_disjoint(&not_yet));
    let numbers = [("S", 61), ("D", 13), ("P", 15)];
    let all = numbers.iter().flat_map(|(letter, last)| (1..=*last).map(move |n| format!("{letter}{n}")));
    assert_eq!(listed.union(&not_yet).cloned().collect::<BTreeSet<_>>(), all.collect());
    assert_eq!(listed.len() + not_yet.len(), scenarios().count() + NOT_YET.len(), "one is listed twice");
}

/// The rows of the tables: number, what happens, what must hold, tests.
#[test]
fn the_table_for_readers_says_the_same() {
    let text = fs::read_to_string(workspace().join("tests/SCENARIOS.md")).unwrap();
    let rows = text
        .lines()
        .filter(|line| line.starts_with("| S") || line.starts_with("| D") || line.starts_with("| P"));
    let mut told = BTreeSet::new();
    for row in rows {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [scenario, what, holds, tests] = cells[..] else { panic!("not four cells: {row}") };
        assert!(!what.is_empty() && !holds.is_empty(), "{row}");
        assert!(told.insert(scenario), "{scenario} is told twice");
        match scenarios().find(|(listed, _)| *listed == scenario) {
            Some((_, listed)) => {
                let tests: Vec<_> = tests.split(", ").map(|name| name.trim_matches('`')).collect();
                assert_eq!(tests, listed, "{scenario}");
            }
            None => {
                let why = NOT_YET.iter().find(|(listed, _)| *listed == scenario).map(|(_, why)| why);
                assert_eq!(tests.strip_prefix("not yet: "), why.copied(), "{scenario}");
            }
        }
    }
    assert_eq!(told.len(), scenarios().count() + NOT_YET.len());
}
