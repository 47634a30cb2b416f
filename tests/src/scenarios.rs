//! The scenarios S1 to S61 and the threats D1 to D13 (to a node) and P1 to P15 (to a downloader), each with
//! the tests that hold it to its numbers. What happens in each, and the numbers, stand in
//! `tests/SCENARIOS.md`; a test of this crate checks that both agree, and that every test exists.

mod downloader;
mod node;

/// A scenario or threat, and the names of its tests. Whole forms are ignored for their length:
/// `cargo test -- --ignored NAME` runs them.
pub type Entry = (&'static str, &'static [&'static str]);

/// All that have tests.
pub fn scenarios() -> impl Iterator<Item = Entry> {
    node::NODE.iter().chain(downloader::DOWNLOADER).copied()
}

/// Scenarios and threats that have no test, and why.
pub const NOT_YET: &[(&str, &str)] = &[
    ("S54", "there is no HTTP service and no dashboard"),
    ("S55", "there is no HTTP service and no dashboard"),
    ("S57", "there is no HTTP service and no dashboard"),
    ("P13", "there is no uTP"),
    ("P14", "there is no encryption (MSE)"),
];
