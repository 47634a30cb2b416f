//! How a diagnosis is shown: a verdict in words and the figures behind it, or one object.

use std::io;

use btdht::BucketFill;
use btdht::diagnosis::{
    Facts, LookupFacts, RouterFacts, Severity, SocketFacts, StateFacts, Verdict, percent, span,
};
use serde_json::{Map, Value, json};

use crate::follow::outcome_word;
use crate::hops::millis;
use crate::output::Output;

/// Prints the verdict and the facts.
pub(super) fn say(facts: &Facts, verdict: &Verdict, out: &Output) -> io::Result<()> {
    out.say(|| object(facts, verdict), || words(facts, verdict))
}

fn words(facts: &Facts, verdict: &Verdict) -> String {
    let mut lines = Vec::new();
    for finding in &verdict.findings {
        lines.push(format!("{}{}", label(finding.severity), finding.text));
        if !finding.advice.is_empty() {
            lines.push(format!("    {}", finding.advice));
        }
    }
    lines.push(String::new());
    lines.extend(facts.sockets.iter().map(socket_line));
    let answered = facts.routers.iter().filter(|router| router.answered.is_some()).count();
    lines.push(format!("routers: {answered} of {} answered", facts.routers.len()));
    lines.extend(saved_line(&facts.state));
    let counters = &facts.counters;
    lines.push(format!(
        "queries: {} sent, {} answered, {} timed out; {} came in",
        counters.queries_out,
        facts.answers(),
        counters.timeouts,
        counters.queries_in()
    ));
    lines.extend(doubtful_line(facts));
    lines.extend(facts.lookups.iter().map(|lookup| {
        format!(
            "lookup of {}: {} after {} hops, {} queries and {:.0} ms; {} closest nodes",
            lookup.what,
            outcome(lookup),
            lookup.hops,
            lookup.queries,
            millis(lookup.elapsed),
            lookup.closest,
        )
    }));
    lines.join("\n")
}

/// Which part of the answers is not what it seems, if there are any.
fn doubtful_line(facts: &Facts) -> Option<String> {
    let (doubtful, counters) = (facts.doubtful_share()?, &facts.counters);
    Some(format!(
        "answers that are not what they seem: {} ({} spoofed: {}; {} under another id: {})",
        percent(Some(doubtful)),
        counters.replies_spoofed,
        percent(facts.spoofed_share()),
        counters.ids_mismatched,
        percent(facts.changing_ids_share()),
    ))
}

/// What an earlier run left, if anything.
fn saved_line(state: &StateFacts) -> Option<String> {
    let StateFacts::Readable { nodes, age, asked, answered, .. } = state else { return None };
    let written = age.map(|age| format!(", written {} ago", span(age))).unwrap_or_default();
    Some(format!("saved nodes: {nodes}{written}; {answered} of {asked} that were asked answered"))
}

fn socket_line(socket: &SocketFacts) -> String {
    let seen = match (socket.external, socket.votes.first()) {
        (Some(external), _) => format!(", seen as {external}"),
        (None, Some((ip, votes))) => format!(", {votes} networks see it as {ip}"),
        (None, None) => String::new(),
    };
    let SocketFacts { local, nodes, trusty, bad, candidates, .. } = socket;
    // The deep end is empty in every table: its last buckets say nothing.
    let fill: Vec<_> =
        socket.buckets.iter().take(12).map(|b| format!("{}/{}", b.nodes, b.capacity)).collect();
    let fill = if fill.is_empty() { String::new() } else { format!("; buckets {}", fill.join(" ")) };
    format!(
        "{local}: {nodes} nodes ({trusty} heard of lately, {bad} bad, {candidates} waiting), median {:.0} ms{seen}{fill}",
        millis(socket.median_rtt)
    )
}

fn label(severity: Severity) -> &'static str {
    match severity {
        Severity::Silence | Severity::Note => "",
        Severity::Problem => "problem: ",
        Severity::Warning => "warning: ",
    }
}

fn object(facts: &Facts, verdict: &Verdict) -> Value {
    let findings: Vec<_> = verdict
        .findings
        .iter()
        .map(|f| json!({"code": f.code, "severity": word(f.severity), "text": f.text, "advice": f.advice}))
        .collect();
    let counters: Map<_, _> =
        facts.counters.iter().map(|(name, count)| (name.to_owned(), count.into())).collect();
    json!({
        "event": "doctor",
        "healthy": verdict.is_healthy(),
        "verdict": verdict.findings.iter().map(|finding| finding.code).collect::<Vec<_>>(),
        "findings": findings,
        "ran_ms": millis(facts.ran),
        "allow_local": facts.allow_local,
        "bootstrapped_ms": facts.bootstrapped.map(millis),
        "sockets": facts.sockets.iter().map(socket).collect::<Vec<_>>(),
        "routers": facts.routers.iter().map(router).collect::<Vec<_>>(),
        "lookups": facts.lookups.iter().map(lookup).collect::<Vec<_>>(),
        "state": state(&facts.state),
        "clock": {"year": facts.clock.year, "drift_ms": millis(facts.clock.drift)},
        "queries_in": facts.counters.queries_in(),
        "changing_ids": facts.counters.ids_mismatched,
        "spoofed": facts.counters.replies_spoofed,
        "changing_ids_share": part(facts.changing_ids_share()),
        "spoofed_share": part(facts.spoofed_share()),
        "doubtful_share": part(facts.doubtful_share()),
        "counters": counters,
    })
}

/// A share from 0 to 1 with four places.
fn part(share: Option<f64>) -> Option<f64> {
    share.map(|share| (share * 1e4).round() / 1e4)
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Silence => "silence",
        Severity::Problem => "problem",
        Severity::Warning => "warning",
        Severity::Note => "note",
    }
}

fn socket(socket: &SocketFacts) -> Value {
    let votes: Vec<_> = socket.votes.iter().map(|(ip, votes)| json!({"ip": ip, "networks": votes})).collect();
    json!({
        "local": socket.local,
        "id": socket.id.to_string(),
        "nodes": socket.nodes,
        "trusty": socket.trusty,
        "questionable": socket.nodes.saturating_sub(socket.trusty + socket.bad),
        "bad": socket.bad,
        "candidates": socket.candidates,
        "insecure": socket.insecure,
        "reached_ms_ago": socket.reached.map(millis),
        "buckets": socket.buckets.iter().map(bucket).collect::<Vec<_>>(),
        "median_rtt_ms": millis(socket.median_rtt),
        "sent": socket.sent,
        "refused": socket.refused,
        "received": socket.received,
        "external": socket.external,
        "votes": votes,
    })
}

fn bucket(bucket: &BucketFill) -> Value {
    json!({
        "shared_bits": bucket.shared_bits, "capacity": bucket.capacity, "nodes": bucket.nodes,
        "trusty": bucket.trusty, "bad": bucket.bad,
    })
}

fn router(router: &RouterFacts) -> Value {
    json!({
        "name": router.name,
        "addresses": router.addresses,
        "answered": router.answered.map(|(addr, _)| addr),
        "ms": router.answered.map(|(_, rtt)| millis(rtt)),
    })
}

fn lookup(lookup: &LookupFacts) -> Value {
    json!({
        "what": lookup.what,
        "outcome": outcome(lookup),
        "queries": lookup.queries,
        "answered": lookup.answered,
        "hops": lookup.hops,
        "closest": lookup.closest,
        "ms": millis(lookup.elapsed),
    })
}

fn outcome(lookup: &LookupFacts) -> &'static str {
    lookup.outcome.map_or("timeout", outcome_word)
}

fn state(state: &StateFacts) -> Value {
    match state {
        StateFacts::Off => json!({"condition": "off"}),
        StateFacts::Missing => json!({"condition": "missing"}),
        StateFacts::Readable { nodes, in_use, age, asked, answered, silent } => json!({
            "condition": "readable", "nodes": nodes, "in_use": in_use, "age_ms": age.map(millis),
            "asked": asked, "answered": answered, "silent": silent,
        }),
        StateFacts::Damaged => json!({"condition": "damaged"}),
        StateFacts::Unreadable(why) => json!({"condition": "unreadable", "why": why}),
    }
}
