//! Every test that `harness::scenarios` names exists, and none of the numbers is left out.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use harness::process::workspace;
use harness::scenarios::SCENARIOS;

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
    for (scenario, tests) in SCENARIOS {
        for test in *tests {
            assert!(names.contains(*test), "{scenario}: there is no test {test}");
        }
    }
    let listed: Vec<_> = SCENARIOS.iter().map(|(scenario, _)| scenario.to_string()).collect();
    let all: Vec<_> = (1..=28).map(|n| format!("S{n}")).chain((1..=13).map(|n| format!("D{n}"))).collect();
    assert_eq!(listed, all);
}
