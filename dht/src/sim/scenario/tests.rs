//! Every scenario at a size that a test can bear, and bounds on what it finds. Figures follow from the
//! seed; bounds leave room for changes that move the random numbers. Where a bound names what was measured,
//! that is the worst of three seeds (two of `poison`) at the size that the test has.

use std::ops::ControlFlow;
use std::time::Duration;

use super::*;

/// Nodes of each network.
const NODES: usize = 1000;

fn run(name: &str, nodes: usize, minutes: u64, lookups: usize) -> Report {
    let scenario = Scenario::named(name).unwrap();
    let params = Params { nodes, minutes, lookups: Some(lookups), ..scenario.params() };
    let report = scenario.run(&params, &mut Unwatched).unwrap();
    for row in &report.rows {
        assert_eq!(row.len(), report.columns.len());
    }
    print(name, &report);
    assert!(report.totals.events > 0 && report.totals.datagrams > 0);
    assert!(report.charts.iter().any(|chart| chart.curves.iter().any(|curve| curve.points.len() > 1)));
    report
}

/// The figures, for who runs a test with `--nocapture`.
fn print(name: &str, report: &Report) {
    println!("{name}: {}", report.columns.join(" "));
    let text = |row: &Vec<Cell>| row.iter().map(Cell::to_string).collect::<Vec<_>>().join(" ");
    report.rows.iter().for_each(|row| println!("{name}: {}", text(row)));
    report.findings.iter().for_each(|(finding, cell)| println!("{name}: {finding} {cell}"));
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

/// Churn, forged senders, Sybils, moves, NATs, partitions: whatever crosses from thread to thread.
#[test]
fn every_scenario_finds_the_same_on_one_thread_and_on_two_and_draws_it() {
    for scenario in ALL {
        let of = |threads| {
            let params = Params { nodes: 64, seed: 7, threads, minutes: 1, lookups: Some(4) };
            scenario.run(&params, &mut Unwatched).unwrap()
        };
        let one = of(1);
        assert_eq!(one, of(2), "{}", scenario.name);
        for chart in &one.charts {
            let points = chart.curves.iter().map(|curve| curve.points.len()).max();
            assert!(points > Some(0), "{}: {}", scenario.name, chart.title);
        }
    }
}

#[test]
fn latencies_hops_attacks_and_the_fill_of_buckets_are_drawn() {
    for (scenario, x) in [
        ("lookup", "ms"),
        ("lookup", "hops"),
        ("join", "bits shared with the own id"),
        ("sybil", "ids of the attacker"),
        ("eclipse", "ids of the attacker"),
        ("poison", "liars, % of the nodes"),
    ] {
        let scenario = Scenario::named(scenario).unwrap();
        let params = Params { nodes: 64, minutes: 1, lookups: Some(4), ..scenario.params() };
        let report = scenario.run(&params, &mut Unwatched).unwrap();
        let mut charts = report.charts.iter().filter(|chart| chart.x == x);
        let several = |chart: &Chart| chart.curves.iter().any(|curve| curve.points.len() > 1);
        assert!(charts.any(several), "{} over {x}", scenario.name);
    }
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
    let report = run("lookup", NODES, 1, 100);
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
    let report = run("dead", NODES, 18, 100);
    for dead in ["0", "10", "30", "50"] {
        for minutes in ["0", "18"] {
            let of = |column| number(&report, &[dead, minutes], column);
            // PERFORMANCE.md "Lookups": 95 % of the true closest, of 800 that are looked for 2 % less.
            assert!(of("found") >= 0.98 && of("closest_reached") >= 0.93, "{report:?}");
        }
        let share = dead.parse::<f64>().unwrap() / 100.0;
        let at_once = number(&report, &[dead, "0"], "dead_in_tables");
        let later = number(&report, &[dead, "18"], "dead_in_tables");
        assert!((at_once - share).abs() < 0.05, "as many in tables as there are: {report:?}");
        assert!(later <= 0.02 + share / 10.0, "{report:?}");
    }
}

#[test]
fn fresh_nodes_bootstrap_within_seconds_and_fill_their_tables() {
    let report = run("join", NODES, 1, 1);
    let finding = |name| report.finding(name).unwrap();
    assert_eq!(finding("bootstrapped"), finding("joined"));
    // PERFORMANCE.md "Lookups": a cold lookup, which a bootstrap is, is done within 1.4 s at p90; 3 % loss may
    // cost the router's first answer, which is repeated after a second.
    assert!(finding("bootstrapped_p90_ms") <= 2400.0, "{report:?}");
    // A full bucket takes nobody, and all live who are named: what is missing are losses (3 %).
    assert!(finding("table_fill") >= 0.97, "{report:?}");
    // After a second the neighbourhood is known (k) and some of whom the way there led over (k).
    assert!(number(&report, &["1"], "nodes_p50") >= 16.0, "{report:?}");
    // Each node of the full table was met by one query or ping, and a wide bucket is filled by lookups of
    // which most answers name nodes that are known: six for each place.
    let queries = number(&report, &["60"], "queries_p50");
    assert!(queries <= 6.0 * finding("nodes_of_a_full_table"), "{report:?}");
    assert!(report.totals.span >= Duration::from_secs(60));
}

#[test]
fn key_is_found_among_few_sybils_and_bound_ids_need_many_more_than_free_ones() {
    let report = run("sybil", NODES, 1, 60);
    let found = |ids, count| number(&report, &[ids, count], "found");
    // Of 58 lookups that count. Without sybils all find it: one that did not would be below this.
    assert!(found("free", "0") >= 0.99, "{report:?}");
    // Measured 0.983, one lookup that failed; five may.
    assert!(found("free", "16") >= 0.9, "{report:?}");
    // Measured 1 of both, and 0.88 among 256 sybils. Two may fail among 16, and among 64 twice as many as
    // among 256.
    assert!(found("BEP 42", "16") >= 0.95 && found("BEP 42", "64") >= 0.76, "{report:?}");
    // What an attack is for: a curve that did not fall would measure nothing. Measured 0.1.
    assert!(found("free", "256") <= 0.3, "{report:?}");
    // Measured 0.84 more. BEP 42 gives eight ids to an address, so that to be as near as free ids with 64 bits
    // takes many more of them; half of the distance shows that.
    assert!(found("BEP 42", "64") >= found("free", "64") + 0.42, "{report:?}");
    // More attackers never do less, and free ones do more than bound ones. A share of 58 lookups differs from one
    // run to the next by 0.066 at most, for one deviation, and two of them by 0.093: here by twice that.
    for ids in ["free", "BEP 42"] {
        let curve = ["0", "16", "64", "256", "1024", "4096"].map(|count| found(ids, count));
        assert!(curve.windows(2).all(|pair| pair[1] <= pair[0] + 0.19), "{ids} {curve:?}");
    }
    for count in ["256", "1024", "4096"] {
        assert!(found("free", count) <= found("BEP 42", count) + 0.19, "{count}: {report:?}");
    }
}

#[test]
fn renewed_announces_survive_coming_and_going_and_others_expire_after_45_minutes() {
    announces_survive(60);
}

#[test]
#[ignore = "24 virtual hours among 1,000 nodes take minutes; the 60 minutes of the same test run always"]
fn renewed_announces_survive_coming_and_going_for_a_day() {
    announces_survive(24 * 60);
}

fn announces_survive(minutes: u64) {
    let report = run("announce", NODES, minutes, 1);
    assert!(number(&report, &["0"], "once_found") >= 0.9, "{report:?}");
    assert!(number(&report, &[&minutes.to_string()], "renewed_found") >= 0.95, "{report:?}");
    assert_eq!(number(&report, &["60"], "once_found"), 0.0, "{report:?}");
    // A third of the nodes is away and sessions last two hours: of eight that store, the chance that all are
    // gone after a quarter of an hour is (1 - 2^-1/8)^8, one in 10^8. What is lost is lost to lookups: `tests/SCENARIOS.md`
    // S28 wants 95 % of them to succeed under ten times this loss.
    assert!(report.finding("renewed_found_at_least").unwrap() >= 0.95, "{report:?}");
}

#[test]
fn lookups_succeed_while_nodes_come_and_go() {
    comings_and_goings(12);
}

#[test]
#[ignore = "150 virtual minutes, longer than either session and ten times what makes a node questionable"]
fn lookups_succeed_while_nodes_come_and_go_for_hours() {
    comings_and_goings(150);
}

fn comings_and_goings(minutes: u64) {
    let report = run("churn", NODES, minutes, 100);
    for session in ["0", "120", "30"] {
        let of = |column| number(&report, &[session], column);
        assert!(of("found") >= 0.98 && of("closest_reached") >= 0.93, "{report:?}");
        // Measured 0.16 without churn to 0.68 with the worst; three times that would be another upkeep.
        assert!((0.1..=2.0).contains(&of("datagrams_a_node_second")), "{report:?}");
        // Measured 103, at 150 bytes a datagram; three times that as well.
        assert!(of("bytes_a_node_second") <= 310.0, "{report:?}");
    }
    assert!(number(&report, &["0"], "away_in_tables") == 0.0, "{report:?}");
    // Measured 0.127. A third of all is away at any time: tables that forgot nobody would come near it.
    assert!(number(&report, &["30"], "away_in_tables") <= 0.2, "{report:?}");
}

#[test]
fn halves_of_a_parted_network_work_alone_and_find_each_other_again() {
    let report = run("partition", NODES, 20, 100);
    assert!(number(&report, &["before"], "found") >= 0.95, "{report:?}");
    let rows = |when: &str| report.rows.iter().filter(|row| row[0] == when.into()).collect::<Vec<_>>();
    let column = |name: &str| report.columns.iter().position(|column| *column == name).unwrap();
    let last = |when: &str, name: &str| rows(when).last().unwrap()[column(name)].number().unwrap();
    assert_eq!((rows("apart").len(), rows("healed").len()), (2, 3));
    // Half of the nodes that store what was announced before are on the other side.
    assert!(last("apart", "found") >= 0.9, "{report:?}");
    assert!(last("healed", "found") >= 0.95, "{report:?}");
    // Tables forget who does not answer: five minutes after all of them have become questionable hardly one
    // of the others is left.
    let at = |n: usize, name: &str| rows("healed")[n][column(name)].number().unwrap();
    assert!(last("before", "other_half_in_tables") >= 0.45, "{report:?}");
    assert!(at(0, "other_half_in_tables") <= 0.05, "{report:?}");
    // Within five minutes after the heal (a missing node is asked every two) everybody knows his neighbourhood
    // again: lookups reach who is closest as they did before, and either half finds what the other announced.
    assert!(at(1, "closest_reached") >= last("before", "closest_reached") - 0.03, "{report:?}");
    assert!(at(1, "other_half_finds") >= 0.97 && at(2, "other_half_finds") >= 0.97, "{report:?}");
    // Full buckets of nodes that answer stay as they are (BEP 5). Room is where half a network had none: for
    // four in the bucket that was its last and for four that are nearer, of the 64 of a table.
    assert!(at(1, "other_half_in_tables") >= 0.75 * 8.0 / 64.0, "{report:?}");
}

/// Longer than peers are kept, which is 45 minutes.
#[test]
fn halves_that_were_apart_for_an_hour_find_what_was_announced_before_and_meanwhile() {
    let report = run("partition", 100, 60, 25);
    let column = |name: &str| report.columns.iter().position(|column| *column == name).unwrap();
    assert_eq!(report.rows.len(), 6);
    for row in &report.rows {
        assert!(row[column("found")].number().unwrap() >= 0.9, "{report:?}");
    }
    // At once after the heal tables have forgotten the other half.
    for row in &report.rows[4..] {
        assert!(row[column("other_half_finds")].number().unwrap() >= 0.9, "{report:?}");
    }
}

#[test]
fn a_key_that_is_renewed_is_found_after_an_attack_of_an_hour() {
    let report = run("sybil", 32, 60, 8);
    for ids in ["free", "BEP 42"] {
        assert!(number(&report, &[ids, "0"], "found") >= 0.99, "{report:?}");
    }
}

#[test]
fn node_is_not_eclipsed_by_ids_that_keep_knocking() {
    knocking(2);
}

#[test]
#[ignore = "half a virtual hour of each attack"]
fn node_is_not_eclipsed_by_ids_that_keep_knocking_for_half_an_hour() {
    knocking(30);
}

fn knocking(minutes: u64) {
    let report = run("eclipse", NODES, minutes, 20);
    for victim in ["just installed", "long there"] {
        // Measured 0.046 and 0.161. If all of them had a place and nobody had left for it they would be 16 of 285
        // and 64 of 310: more than that, and honest nodes were driven out.
        for (attackers, most) in [("16", 0.057), ("64", 0.207)] {
            let of = |column| number(&report, &[victim, attackers], column);
            // Of 20 lookups one may fail; none did.
            assert!(of("found") >= 0.95, "{report:?}");
            assert!(of("attackers_in_table") <= most, "{report:?}");
        }
    }
    // Then the table is full, and four times as many get no more of it. Who has long been there has given away
    // what was free: a fifth, where others do not live. Measured 0.208 and 0.211 there; 0.312 and 0.396 of one that
    // met attackers before it had met others. A quarter more is allowed.
    for (victim, most) in [("just installed", [0.39, 0.5]), ("long there", [0.26, 0.26])] {
        let curve = ["16", "64", "256", "1024"].map(|attackers| {
            let of = |column| number(&report, &[victim, attackers], column);
            assert!(of("found") >= 0.95, "{report:?}");
            of("attackers_in_table")
        });
        assert!(curve.windows(2).all(|pair| pair[1] >= pair[0] - 0.02), "{victim} {curve:?}");
        assert!(curve[2] <= most[0] && curve[3] <= most[1], "{victim} {curve:?}");
    }
}

#[test]
fn wanted_lookups_are_made_however_many() {
    let report = run("eclipse", 32, 1, 110);
    assert_eq!(number(&report, &["just installed", "16"], "lookups"), 110.0, "{report:?}");
    let of = |lookups| Params { nodes: 10_000, lookups, ..sybil::SCENARIO.params() }.few_lookups(200);
    assert_eq!([of(None), of(Some(7)), of(Some(5000))], [200, 7, 5000]);
}

#[test]
fn made_up_nodes_get_no_place_in_any_table() {
    made_up(2);
}

#[test]
#[ignore = "ten virtual minutes of each share of liars"]
fn made_up_nodes_get_no_place_in_any_table_for_ten_minutes() {
    made_up(10);
}

fn made_up(minutes: u64) {
    let report = run("poison", NODES, minutes, 100);
    for liars in ["0", "1.000", "5.000", "20.0"] {
        let of = |column| number(&report, &[liars], column);
        assert_eq!(of("made_up_in_tables"), 0.0, "{report:?}");
        // All of 100 found it; S28 wants 95 % under loss, and a liar's answer is as good as lost.
        assert!(of("found") >= 0.95, "{report:?}");
        // Measured 0.35 without liars and 0.63 with a fifth of them. The budget of pings is 5: four of newcomers
        // and one of questionable nodes a second; liars must not come near to spending it.
        assert!(of("pings_a_node_second") <= 1.25, "{report:?}");
    }
    // Measured 0.66: most of a flood falls into full buckets and is not pinged at all.
    let flooded = |column| number(&report, &["20.0", "50"], column);
    assert_eq!(flooded("made_up_in_tables"), 0.0, "{report:?}");
    assert!(flooded("found") >= 0.95, "{report:?}");
    assert!((0.4..=2.0).contains(&flooded("pings_a_node_second")), "{report:?}");
}

#[test]
fn read_only_nodes_are_in_no_table_and_find_what_others_find() {
    let report = run("readonly", NODES, 2, 100);
    for percent in ["0", "25", "50", "75"] {
        let of = |column| number(&report, &[percent], column);
        assert_eq!((of("read_only_in_tables"), of("nodes")), (0.0, NODES as f64), "{report:?}");
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
    assert_eq!(report.finding("lookups_at_a_time"), Some(20.0), "{report:?}");
    let params = Params { nodes: 200, seed: 1, threads: 2, minutes: 2, lookups: Some(20) };
    assert_eq!(scale::SCENARIO.run(&params, &mut Unwatched).unwrap(), report);
}

#[test]
fn nodes_that_move_keep_their_tables_and_are_known_again() {
    let report = run("address", NODES, 3, 1);
    let finding = |name| report.finding(name).unwrap();
    assert_eq!(finding("fifty_heard_again"), finding("moved"), "{report:?}");
    assert!(finding("fifty_heard_again_p90_ms") <= 120_000.0, "S18: {report:?}");
    assert!(number(&report, &["180"], "kept") >= 0.9, "{report:?}");
    assert!(number(&report, &["180"], "new_id") >= 0.9, "{report:?}");
    assert!(number(&report, &["180"], "known_by_p50") >= 8.0, "{report:?}");
}

#[test]
fn unreachable_nodes_behind_nats_leave_all_tables_and_find_and_announce_all_the_same() {
    // Up to their next probe, 35 minutes after they came. At 30 one of 35,000 entries may still be such a node.
    let report = run("nat", NODES, 33, 100);
    for line in ["open", "full cone", "address restricted", "port restricted", "symmetric"] {
        let of = |column| number(&report, &[line], column);
        // As in the network without NATs: who asks is answered.
        assert!(of("found") >= 0.98 && of("announce_found") >= 0.98, "{report:?}");
        // 95 % of the true closest (PERFORMANCE.md "Lookups"), less three deviations of 160 that are looked for.
        assert!(of("closest_reached") >= 0.9 && of("stored") >= 7.0, "{report:?}");
        // Whom nobody reaches says so; a full cone that talks is as good as an open line, though one in twenty
        // may have had no stranger ask for ten minutes.
        let is_open = line == "open" || line == "full cone";
        assert!(if is_open { of("read_only") <= 0.05 } else { of("read_only") >= 0.95 }, "{report:?}");
    }
    // A seventh of those who answer, though they came last, when most buckets were full.
    assert!(number(&report, &["full cone"], "of_tables") >= 0.02, "{report:?}");
    assert_eq!(report.finding("unreachable_in_tables"), Some(0.0), "{report:?}");
}

#[test]
fn nodes_of_both_families_fill_both_tables_and_find_peers_of_both() {
    let report = run("ipv6", NODES, 2, 100);
    let finding = |name| report.finding(name).unwrap();
    assert_eq!(finding("of_wrong_family_in_tables"), 0.0, "{report:?}");
    // All came at once and knew one node. The least after two minutes is a table of BEP 5: k nodes in each of
    // five buckets (of 250 nodes) and k nearer ones; the wide buckets fill as lookups pass.
    assert!(finding("v6_table_p10") >= 6.0 * 8.0, "{report:?}");
    for lookers in ["IPv4", "IPv4 and IPv6"] {
        assert!(number(&report, &[lookers], "found") >= 0.98, "{report:?}");
    }
    assert!(number(&report, &["IPv4 and IPv6"], "found_v6") >= 0.98, "{report:?}");
    assert_eq!(number(&report, &["IPv4"], "found_v6"), 0.0, "{report:?}");
}
