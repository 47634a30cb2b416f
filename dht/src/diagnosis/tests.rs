//! Facts and the verdicts that follow from them.

use std::net::SocketAddr;

use krpc::Id;

use super::*;
use crate::Counters;

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

type Change = fn(&mut Facts);

/// A table that was saved a day ago, of which as many live as is usual.
fn saved(nodes: usize, in_use: bool) -> StateFacts {
    let answered = nodes / 2;
    StateFacts::Readable { nodes, in_use, age: Some(DAY), asked: nodes, answered, silent: nodes - answered }
}

const DAY: Duration = Duration::from_secs(86_400);

/// A node on a usual line, twenty seconds after its start.
fn well() -> Facts {
    let socket = |local: &str, nodes| SocketFacts {
        local: addr(local),
        id: Id::new([1; 20]),
        nodes,
        trusty: nodes,
        bad: 0,
        buckets: Vec::new(),
        candidates: 3,
        median_rtt: Duration::from_millis(90),
        sent: 150,
        refused: 0,
        received: 200,
        external: Some(addr("81.2.3.4:6881")),
        votes: vec![("81.2.3.4".parse().unwrap(), 9)],
        reached: Some(Duration::from_secs(3)),
        insecure: nodes / 4,
    };
    let router = |n: u8| RouterFacts {
        name: format!("router{n}.example:6881"),
        addresses: vec![SocketAddr::from(([81, 2, 3, n], 6881)), addr("[2001:db8::1]:6881")],
        answered: Some((SocketAddr::from(([81, 2, 3, n], 6881)), Duration::from_millis(50))),
    };
    let lookup = |what| LookupFacts {
        what,
        outcome: Some(Outcome::Converged),
        queries: 60,
        answered: 40,
        hops: 4,
        closest: 8,
        elapsed: Duration::from_millis(900),
    };
    Facts {
        ran: Duration::from_secs(20),
        k: 8,
        allow_local: false,
        sockets: vec![socket("0.0.0.0:6881", 120), socket("[::]:6881", 40)],
        routers: (1..=6).map(router).collect(),
        bootstrapped: Some(Duration::from_millis(1500)),
        counters: Counters {
            datagrams_in: 250,
            queries_out: 300,
            replies_in: 180,
            timeouts: 110,
            queries_ping: 3,
            queries_find_node: 2,
            ..Counters::default()
        },
        lookups: vec![lookup("our own id"), lookup("a random id")],
        state: saved(50, false),
        clock: ClockFacts { year: 2026, drift: Duration::from_millis(1) },
    }
}

/// Nobody has answered.
fn silent() -> Facts {
    let mut facts = well();
    facts.counters = Counters { queries_out: 40, timeouts: 40, queries_ping: 0, ..Counters::default() };
    facts.routers.iter_mut().for_each(|router| router.answered = None);
    for socket in &mut facts.sockets {
        (socket.nodes, socket.trusty, socket.received, socket.insecure) = (0, 0, 0, 0);
        (socket.external, socket.median_rtt) = (None, Duration::ZERO);
        socket.votes.clear();
    }
    facts.bootstrapped = None;
    facts.state = StateFacts::Missing;
    for lookup in &mut facts.lookups {
        (lookup.outcome, lookup.answered, lookup.closest) = (Some(Outcome::NoAnswer), 0, 0);
    }
    facts
}

fn codes(facts: &Facts) -> Vec<&'static str> {
    diagnose(facts).findings.iter().map(|finding| finding.code).collect()
}

#[track_caller]
fn expect(base: fn() -> Facts, change: impl FnOnce(&mut Facts), expected: &[&str]) {
    let mut facts = base();
    change(&mut facts);
    assert_eq!(codes(&facts), expected, "{facts:#?}");
}

#[test]
fn a_usual_node_is_healthy() {
    let verdict = diagnose(&well());
    assert!(verdict.is_healthy());
    assert_eq!(verdict.findings.len(), 1, "{verdict:?}");
    assert!(verdict.findings[0].text.contains("160 nodes known, 180 of 300 queries answered"));
}

#[test]
fn silence_has_one_reason_and_hides_what_follows_from_it() {
    expect(silent, |_| {}, &["udp_blocked"]);
    expect(silent, |facts| facts.routers.clear(), &["nobody_to_ask"]);
    expect(
        silent,
        |facts| facts.routers.iter_mut().for_each(|router| router.addresses.clear()),
        &["no_names"],
    );
    let refused = |facts: &mut Facts| facts.sockets.iter_mut().for_each(|s| (s.sent, s.refused) = (0, 40));
    expect(silent, refused, &["sending_refused"]);
    // A family without a route says nothing about the other.
    expect(silent, |facts| (facts.sockets[1].sent, facts.sockets[1].refused) = (0, 40), &["udp_blocked"]);
    expect(silent, |facts| facts.sockets[0].received = 3, &["no_sound_answer"]);
    // Saved nodes are somebody to ask, whether routers are known or not.
    let with_saved = |facts: &mut Facts| facts.state = saved(50, false);
    let without = |facts: &mut Facts| {
        with_saved(facts);
        facts.routers.clear();
    };
    expect(silent, without, &["udp_blocked"]);
    let mut facts = silent();
    with_saved(&mut facts);
    let verdict = diagnose(&facts);
    assert_eq!(verdict.severity(), Severity::Silence);
    let text = &verdict.findings[0].text;
    assert!(text.contains("12 addresses of routers and 50 saved nodes were asked"), "{text}");
}

#[test]
fn problems_come_first_and_are_not_healthy() {
    expect(well, |facts| facts.bootstrapped = None, &["not_bootstrapped"]);
    let few = |facts: &mut Facts| {
        facts.sockets.truncate(1);
        (facts.sockets[0].nodes, facts.sockets[0].insecure) = (5, 0);
    };
    expect(well, few, &["few_nodes"]);
    expect(well, |facts| facts.lookups[1].outcome = None, &["lookup_failed"]);
    expect(well, |facts| facts.lookups[0].closest = 0, &["lookup_failed"]);
    expect(well, |facts| (facts.counters.replies_in, facts.counters.timeouts) = (20, 200), &["lossy"]);
    expect(well, |facts| facts.state = StateFacts::Unreadable("denied".into()), &["state_unreadable"]);
    let v4_silent = |facts: &mut Facts| {
        (facts.sockets[0].received, facts.sockets[0].nodes, facts.sockets[0].insecure) = (0, 0, 0);
    };
    expect(well, v4_silent, &["ipv4_silent"]);
    let loopback = |facts: &mut Facts| {
        facts.sockets.truncate(1);
        facts.sockets[0].local = addr("127.0.0.1:6881");
    };
    expect(well, loopback, &["bound_to_loopback"]);
    let allowed = |facts: &mut Facts| {
        loopback(facts);
        facts.allow_local = true;
    };
    expect(well, allowed, &["healthy"]);
    let two = |facts: &mut Facts| {
        facts.counters.queries_ping = 0;
        facts.counters.queries_find_node = 0;
        facts.bootstrapped = None;
    };
    expect(well, two, &["not_bootstrapped", "unreachable"]);
    let mut facts = well();
    two(&mut facts);
    let verdict = diagnose(&facts);
    assert!(!verdict.is_healthy() && verdict.severity() == Severity::Problem);
    assert!(verdict.findings.iter().all(|finding| !finding.advice.is_empty()), "{verdict:?}");
}

#[test]
fn warnings_leave_it_healthy() {
    let table: &[(Change, &str)] = &[
        (|facts| facts.sockets[1].received = 0, "ipv6_silent"),
        (|facts| facts.routers.iter_mut().for_each(|router| router.answered = None), "routers_silent"),
        (|facts| facts.routers[..4].iter_mut().for_each(|r| r.addresses.clear()), "names_fail"),
        (|facts| facts.sockets[0].median_rtt = Duration::from_millis(1500), "slow"),
        (|facts| (facts.sockets[0].trusty, facts.sockets[1].trusty) = (40, 10), "stale"),
        (|facts| facts.state = dead(Some(12 * DAY)), "saved_nodes_dead"),
        (|facts| facts.counters.dropped_unsolicited = 60, "forged_answers"),
        (|facts| facts.counters.replies_spoofed = 12, "spoofed_answers"),
        (|facts| facts.counters.ids_mismatched = 30, "changing_ids"),
        (|facts| facts.sockets[0].external = Some(addr("81.2.3.4:41000")), "behind_nat"),
        (|facts| facts.clock.year = 1970, "clock_wrong"),
        (|facts| facts.clock.drift = Duration::from_secs(86_400), "clock_jumped"),
        (|facts| (facts.counters.queries_ping, facts.counters.queries_find_node) = (0, 0), "unreachable"),
        (|facts| facts.sockets.iter_mut().for_each(|socket| socket.reached = None), "unreachable"),
        (|facts| facts.state = StateFacts::Damaged, "state_damaged"),
        (|facts| facts.state = saved(9, true), "state_in_use"),
        (|facts| facts.sockets[0].insecure = 100, "insecure_ids"),
        (
            |facts| {
                facts.sockets[0].external = None;
                facts.sockets[0].votes.push(("81.2.3.5".parse().unwrap(), 7));
            },
            "address_disputed",
        ),
    ];
    for (change, code) in table {
        let mut facts = well();
        change(&mut facts);
        let verdict = diagnose(&facts);
        assert!(verdict.is_healthy(), "{code}: {verdict:?}");
        assert_eq!(codes(&facts), ["healthy", code]);
    }
}

#[test]
fn a_little_of_everything_is_usual() {
    let usual = |facts: &mut Facts| {
        facts.counters.dropped_unsolicited = 15;
        facts.counters.replies_spoofed = 4;
        // An address that an earlier run knew has no port.
        facts.sockets[0].external = Some(addr("81.2.3.4:0"));
        facts.sockets[1].external = None;
        facts.sockets[1].votes.push((addr("81.2.3.5:1").ip(), 1));
        facts.sockets[1].votes[0].1 = 5;
        facts.counters.ids_mismatched = 4;
        facts.clock.drift = Duration::from_millis(800);
        facts.routers[..3].iter_mut().for_each(|router| router.addresses.clear());
        facts.state = StateFacts::Off;
    };
    expect(well, usual, &["healthy"]);
}

fn dead(age: Option<Duration>) -> StateFacts {
    StateFacts::Readable { nodes: 300, in_use: false, age, asked: 64, answered: 3, silent: 61 }
}

#[test]
fn a_saved_table_is_judged_by_how_many_of_it_answer_and_by_its_age() {
    let judged = |state| {
        let mut facts = well();
        facts.state = state;
        let found = diagnose(&facts).findings;
        found.into_iter().find(|finding| finding.code == "saved_nodes_dead")
    };
    let old = judged(dead(Some(12 * DAY + DAY / 2))).unwrap();
    assert_eq!(
        old.text,
        "Only 3 of 64 saved nodes that were asked, which were written 12 days ago, still answer."
    );
    assert!(old.advice.contains("btdht serve"), "{old:?}");
    let fresh = judged(dead(Some(Duration::from_secs(120)))).unwrap();
    assert!(
        fresh.text.contains("written 2 minutes ago") && fresh.advice.contains("another network"),
        "{fresh:?}"
    );
    assert_eq!(judged(dead(None)).unwrap().text, "Only 3 of 64 saved nodes that were asked still answer.");
    let alive = |asked, answered| StateFacts::Readable {
        nodes: 300,
        in_use: false,
        age: Some(DAY),
        asked,
        answered,
        silent: asked - answered,
    };
    assert_eq!((judged(alive(64, 22)), judged(alive(7, 0)), judged(alive(0, 0))), (None, None, None));
    // Where nobody answers it is not for their age.
    expect(silent, |facts| facts.state = dead(Some(12 * DAY)), &["udp_blocked"]);
    // And the line is not to blame for them.
    let few = |facts: &mut Facts| {
        facts.state = dead(Some(12 * DAY));
        (facts.counters.replies_in, facts.counters.timeouts) = (40, 130);
    };
    expect(well, few, &["healthy", "saved_nodes_dead"]);
    // But saved nodes that are somebody else now, or were not waited for, are no excuse for it.
    let lossy = |facts: &mut Facts| {
        few(facts);
        let age = Some(12 * DAY);
        facts.state =
            StateFacts::Readable { nodes: 300, in_use: false, age, asked: 64, answered: 0, silent: 0 };
    };
    expect(well, lossy, &["lossy", "saved_nodes_dead"]);
}

#[test]
fn spoofed_and_changing_answers_are_told_as_shares() {
    let mut facts = well();
    facts.counters.replies_spoofed = 20;
    facts.counters.ids_mismatched = 60;
    assert_eq!(
        (facts.spoofed_share(), facts.changing_ids_share(), facts.doubtful_share()),
        (Some(0.1), Some(0.25), Some(80.0 / 260.0))
    );
    let texts: Vec<_> = diagnose(&facts).findings.into_iter().map(|finding| finding.text).collect();
    assert!(texts.iter().any(|text| text.starts_with("20 answers to queries of ours (10.0 %)")), "{texts:?}");
    assert!(texts.iter().any(|text| text.contains("than they had (25.0 %)")), "{texts:?}");
    assert_eq!(silent().doubtful_share(), None);
    assert_eq!(percent(None), "none");
}

#[test]
fn spans_are_told_in_their_largest_unit() {
    let told = |seconds| span(Duration::from_secs(seconds));
    assert_eq!([0, 1, 59, 60, 7199].map(told), ["0 seconds", "1 second", "59 seconds", "1 minute", "1 hour"]);
    assert_eq!([86_399, 86_400, 3 * 86_400].map(told), ["23 hours", "1 day", "3 days"]);
}
