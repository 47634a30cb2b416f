//! S61: what we build on has a licence that we know, comes from one registry, and is there once.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use harness::process::workspace;
use serde_json::Value;

/// Licences of which one is enough, or each where all of them hold.
const KNOWN: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Packages that are built in two versions, until what needs the older one is ahead of it.
const TWICE: &[(&str, &str)] = &[
    ("getrandom", "ring takes 0.2, rand 0.4"),
    ("syn", "the macros of tracing and curve25519-dalek take 2, of clap 3"),
];

/// Whether an expression of SPDX identifiers can be met with known licences. `/` is how `OR` was written
/// before.
fn acceptable(expression: &str) -> bool {
    let all = expression.replace(['(', ')'], "").replace('/', " OR ");
    // AND is taken to bind less than OR, as in all expressions so far; otherwise too much is asked.
    all.split(" AND ").all(|part| part.split(" OR ").any(|licence| KNOWN.contains(&licence.trim())))
}

#[test]
fn licences_are_read_as_they_are_written() {
    for good in ["MIT", "LGPL-2.1-or-later OR MIT", "MIT/Apache-2.0", "(MIT OR GPL-3.0) AND Unicode-3.0"] {
        assert!(acceptable(good), "{good}");
    }
    for bad in ["GPL-3.0", "MIT AND GPL-3.0", "", "(MIT OR ISC) AND AGPL-3.0", "MITX"] {
        assert!(!acceptable(bad), "{bad}");
    }
}

#[test]
fn dependencies_come_from_one_registry_under_known_licences() {
    let compiler = output(Command::new("rustc").arg("-vV"));
    let host = compiler.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What other platforms need is not fetched for this one.
    cargo.args(["metadata", "--format-version", "1", "--locked", "--filter-platform", host]);
    let told: Value = serde_json::from_str(&output(cargo.current_dir(workspace()))).unwrap();
    let packages = told["packages"].as_array().unwrap();
    assert!(packages.len() > 100, "{}", packages.len());
    let registry = packages.iter().find_map(|package| package["source"].as_str()).unwrap();
    assert!(registry.starts_with("registry+https://"), "{registry}");
    for package in packages {
        let name = format!("{} {}", package["name"], package["version"]);
        let source = package["source"].as_str();
        let ours = source.is_none() && package["name"].as_str().is_some_and(is_ours);
        assert!(ours || source == Some(registry), "{name} comes from {source:?}");
        let licence = package["license"].as_str().unwrap_or_default();
        assert!(ours || acceptable(licence), "{name} is under `{licence}`");
    }
}

#[test]
fn no_dependency_is_there_twice_but_for_known_ones() {
    let mut tree = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    tree.args(["tree", "--workspace", "--locked", "--edges", "normal,build", "--prefix", "none"]);
    // What other platforms need on top of it is theirs.
    tree.args(["--no-dedupe", "--format", "{p}", "--target", "x86_64-unknown-linux-gnu"]);
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in output(tree.current_dir(workspace())).lines() {
        let mut words = line.split(' ').map(str::to_owned);
        if let (Some(name), Some(version)) = (words.next(), words.next()) {
            versions.entry(name).or_default().insert(version);
        }
    }
    assert!(versions.len() > 100, "{}", versions.len());
    let twice: Vec<_> = versions.iter().filter(|(_, versions)| versions.len() > 1).collect();
    let names: Vec<_> = twice.iter().map(|(name, _)| name.as_str()).collect();
    // One that is no longer there twice leaves the list.
    let known: Vec<_> = TWICE.iter().map(|&(name, _)| name).collect();
    assert_eq!(names, known, "{twice:?}");
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn is_ours(name: &str) -> bool {
    ["krpc", "btdht", "btfetch", "harness"].contains(&name)
}
