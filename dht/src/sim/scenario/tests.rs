//! Every scenario at a size that a test can bear, and bounds on what it finds. Figures follow from the
//! seed; bounds leave room for changes that move the random numbers.

use std::ops::ControlFlow;
use std::time::Duration;

use super::*;

fn run(name: &str, nodes: usize, minutes: u64, lookups: usize) -> Report {
    let scenario = Scenario::named(name).unwrap();
    let params = Params { nodes, minutes, lookups: Some(lookups), ..scenario.params() };
    let report = scenario.run(&params, &mut Unwatched).unwrap();
    for row in &report.rows {
        assert_eq!(row.len(), report.columns.len());
    }
    assert!(report.totals.events > 0 && report.totals.datagrams > 0);
    assert!(report.charts.iter().any(|chart| chart.curves.iter().any(|curve| curve.points.len() > 1)));
    report
}

/// The number in a column of the row that begins with these cells.
#[track_caller]
fn number(report: &Report, first: &[&str], column: &str) -> f64 {
    report.number(first, column).unwrap_or_else(|| panic!("{first:?} {column}: {report:?}"))
}

#[test]
fn names_are_found_and_differ() {
    for scenario in ALL {
        assert_eq!(Scenario::named(scenario.name).unwrap().about, scenario.about);
        assert!(scenario.nodes >= Params::MIN_NODES && scenario.minutes > 0);
    }
    assert_eq!(ALL.iter().map(|s| s.name).collect::<std::collections::BTreeSet<_>>().len(), ALL.len());
    assert!(Scenario::named("nonsense").is_none());
}

#[test]
fn equal_seeds_find_the_same_on_any_number_of_threads_and_others_do_not() {
    let of = |seed, threads| {
        let params = Params { nodes: 150, seed, threads, minutes: 1, lookups: Some(20) };
        lookup::SCENARIO.run(&params, &mut Unwatched).unwrap()
    };
    let one = of(1, 1);
    assert_eq!(one, of(1, 2));
    assert_ne!(one.totals.digest, of(2, 1).totals.digest);
}

#[test]
fn watcher_sees_progress_and_can_stop_at_any_stage() {
    struct Impatient {
        left: usize,
        stages: Vec<String>,
    }
    impl Watcher for Impatient {
        fn progress(&mut self, stage: &str, done: f64) -> ControlFlow<()> {
            assert!((0.0..=1.0).contains(&done), "{stage} {done}");
            if self.stages.last().is_none_or(|last| last != stage) {
                self.stages.push(stage.to_owned());
            }
            self.left -= 1;
            if self.left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
    }
    let params = Params { nodes: 64, lookups: Some(4), ..lookup::SCENARIO.params() };
    for left in [1, 2, 60] {
        let mut watcher = Impatient { left, stages: Vec::new() };
        assert_eq!(lookup::SCENARIO.run(&params, &mut watcher), Err(Stopped));
        assert_eq!(watcher.left, 0);
    }
    let mut watcher = Impatient { left: usize::MAX, stages: Vec::new() };
    lookup::SCENARIO.run(&params, &mut watcher).unwrap();
    assert_eq!(watcher.stages, ["growing", "settling", "cold lookups", "warm lookups"]);
}

#[test]
fn lookups_find_peers_and_the_closest_in_a_network_of_which_two_fifths_are_dead() {
    let report = run("lookup", 600, 1, 40);
    for (kind, first_peer, queries) in [("just started", 350.0, 75.0), ("long there", 300.0, 75.0)] {
        let of = |column| number(&report, &[kind], column);
        assert!(of("found") >= 0.98, "{report:?}");
        assert!(of("closest_reached") >= 0.93, "{report:?}");
        assert!(of("first_peer_p50_ms") <= first_peer && of("done_p50_ms") <= 1000.0, "{report:?}");
        assert!((30.0..=queries).contains(&of("queries")), "{report:?}");
        assert!((1.5..=6.0).contains(&of("hops")), "{report:?}");
    }
}

#[test]
fn lookups_survive_the_death_of_half_of_the_nodes_and_tables_forget_them() {
    let report = run("dead", 120, 20, 20);
    for dead in ["0", "10", "30", "50"] {
        for minutes in ["0", "20"] {
            let of = |column| number(&report, &[dead, minutes], column);
            assert!(of("found") >= 0.95 && of("closest_reached") >= 0.85, "{report:?}");
        }
        let share = dead.parse::<f64>().unwrap() / 100.0;
        let at_once = number(&report, &[dead, "0"], "dead_in_tables");
        let later = number(&report, &[dead, "20"], "dead_in_tables");
        assert!((at_once - share).abs() < 0.05, "as many in tables as there are: {report:?}");
        assert!(later <= 0.02 + share / 10.0, "{report:?}");
    }
}

#[test]
fn fresh_nodes_bootstrap_within_seconds_and_fill_their_tables() {
    let report = run("join", 300, 1, 1);
    let finding = |name| report.finding(name).unwrap();
    assert_eq!(finding("bootstrapped"), finding("joined"));
    assert!(finding("bootstrapped_p90_ms") <= 3000.0, "{report:?}");
    assert!(finding("table_fill") >= 0.7, "{report:?}");
    assert!(number(&report, &["1"], "nodes_p50") >= 16.0, "{report:?}");
    assert!(number(&report, &["60"], "queries_p50") <= 2500.0, "{report:?}");
    assert!(report.totals.span >= Duration::from_secs(60));
}

#[test]
fn key_is_found_among_few_sybils_and_bound_ids_need_many_more_than_free_ones() {
    let report = run("sybil", 250, 1, 30);
    let found = |ids, count| number(&report, &[ids, count], "found");
    assert!(found("free", "0") >= 0.99 && found("free", "16") >= 0.9, "{report:?}");
    assert!(found("BEP 42", "16") >= 0.95 && found("BEP 42", "64") >= 0.7, "{report:?}");
    // What an attack is for: a curve that did not fall would measure nothing.
    assert!(found("free", "256") <= 0.3, "{report:?}");
    assert!(found("BEP 42", "64") >= found("free", "64") + 0.3, "{report:?}");
}

#[test]
fn renewed_announces_survive_coming_and_going_and_others_expire_after_45_minutes() {
    let report = run("announce", 120, 75, 1);
    assert!(number(&report, &["0"], "once_found") >= 0.9, "{report:?}");
    assert!(number(&report, &["75"], "renewed_found") >= 0.9, "{report:?}");
    assert_eq!(number(&report, &["60"], "once_found"), 0.0, "{report:?}");
    assert!(report.finding("renewed_found_at_least").unwrap() >= 0.8, "{report:?}");
}

#[test]
fn lookups_succeed_while_nodes_come_and_go() {
    let report = run("churn", 100, 20, 20);
    for session in ["0", "120", "30"] {
        let of = |column| number(&report, &[session], column);
        assert!(of("found") >= 0.9 && of("closest_reached") >= 0.75, "{report:?}");
        assert!((0.1..=20.0).contains(&of("datagrams_a_node_second")), "{report:?}");
        assert!(of("bytes_a_node_second") <= 3000.0, "{report:?}");
    }
    assert!(number(&report, &["0"], "away_in_tables") == 0.0, "{report:?}");
    assert!(number(&report, &["30"], "away_in_tables") <= 0.3, "{report:?}");
}

#[test]
fn halves_of_a_parted_network_work_alone_and_find_each_other_again() {
    let report = run("partition", 150, 12, 20);
    assert!(number(&report, &["before"], "found") >= 0.95, "{report:?}");
    let rows = |when: &str| report.rows.iter().filter(|row| row[0] == when.into()).collect::<Vec<_>>();
    let column = |name: &str| report.columns.iter().position(|column| *column == name).unwrap();
    let last = |when: &str, name: &str| rows(when).last().unwrap()[column(name)].number().unwrap();
    assert_eq!((rows("apart").len(), rows("healed").len()), (2, 3));
    // Half of the nodes that store what was announced before are on the other side.
    assert!(last("apart", "found") >= 0.9, "{report:?}");
    assert!(last("healed", "found") >= 0.95, "{report:?}");
    // Tables forget who does not answer, and learn again whom they hear of.
    let strangers = |when| last(when, "other_half_in_tables");
    assert!(strangers("before") >= 0.4 && strangers("apart") <= 0.35, "{report:?}");
    assert!(last("healed", "closest_reached") >= 0.6, "{report:?}");
    assert!(report.finding("announced_apart_found_by_the_other_half").unwrap() >= 0.2, "{report:?}");
}

#[test]
fn node_is_not_eclipsed_by_ids_that_keep_knocking() {
    let report = run("eclipse", 120, 10, 20);
    for victim in ["just installed", "long there"] {
        for attackers in ["16", "64"] {
            let of = |column| number(&report, &[victim, attackers], column);
            assert!(of("found") >= 0.95, "{report:?}");
            assert!(of("attackers_in_table") <= 0.5, "{report:?}");
        }
    }
}

#[test]
fn made_up_nodes_get_no_place_in_any_table() {
    let report = run("poison", 100, 4, 20);
    for liars in ["0", "1.000", "5.000", "20.0"] {
        let of = |column| number(&report, &[liars], column);
        assert_eq!(of("made_up_in_tables"), 0.0, "{report:?}");
        assert!(of("found") >= 0.9, "{report:?}");
        assert!(of("pings_a_node_second") <= 5.0, "{report:?}");
    }
}

#[test]
fn read_only_nodes_are_in_no_table_and_find_what_others_find() {
    let report = run("readonly", 100, 2, 20);
    for percent in ["0", "25", "50", "75"] {
        let of = |column| number(&report, &[percent], column);
        assert_eq!((of("read_only_in_tables"), of("nodes")), (0.0, 100.0), "{report:?}");
        assert!(of("found") >= 0.95 && of("closest_reached") >= 0.9, "{report:?}");
        assert!((0.01..=3.0).contains(&of("queries_a_server_second")), "{report:?}");
    }
}

#[test]
fn so_many_lookups_are_always_under_way_whatever_the_threads() {
    let report = run("scale", 200, 2, 20);
    for minute in ["1", "2"] {
        let of = |column| number(&report, &[minute], column);
        // By Little's law: what is under way is what ends in a second, times how long it takes.
        let at_a_time = of("lookups") / 60.0 * of("done_p50_ms") / 1000.0;
        assert!((10.0..=30.0).contains(&at_a_time), "{report:?}");
        assert!(of("queries") >= 8.0 && of("events") > 2.0 * of("queries") * of("lookups"), "{report:?}");
    }
    assert!(report.finding("entries_in_a_table").unwrap() >= 30.0, "{report:?}");
    let params = Params { nodes: 200, seed: 1, threads: 2, minutes: 2, lookups: Some(20) };
    assert_eq!(scale::SCENARIO.run(&params, &mut Unwatched).unwrap(), report);
}

#[test]
fn nodes_that_move_keep_their_tables_and_are_known_again() {
    let report = run("address", 200, 3, 1);
    let finding = |name| report.finding(name).unwrap();
    assert_eq!(finding("fifty_heard_again"), finding("moved"), "{report:?}");
    assert!(finding("fifty_heard_again_p90_ms") <= 120_000.0, "RELIABILITY.md S18: {report:?}");
    assert!(number(&report, &["180"], "kept") >= 0.9, "{report:?}");
    assert!(number(&report, &["180"], "new_id") >= 0.9, "{report:?}");
    assert!(number(&report, &["180"], "known_by_p50") >= 8.0, "{report:?}");
}
