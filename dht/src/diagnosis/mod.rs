//! Why am I not finding peers? A pure function from what a node knows ([`Facts`]) to a verdict in words.
//!
//! Every rule is a function of the facts that says at most one [`Finding`], with what to do about it. The
//! numbers in the rules are rough on purpose: on the open network 40 % of the nodes that one hears of
//! are gone, 3 % of datagrams get lost, and a node that was just started knows a hundred others.

mod facts;
#[cfg(test)]
mod tests;
mod verdict;
mod words;

use std::time::Duration;

pub use facts::{ClockFacts, Facts, LookupFacts, RouterFacts, SocketFacts, StateFacts};
pub use verdict::{Finding, Severity, Verdict};
use words::some;
pub use words::{percent, span};

use crate::Outcome;

/// Judges `facts`.
pub fn diagnose(facts: &Facts) -> Verdict {
    let mut findings: Vec<Finding> = RULES.iter().filter_map(|rule| rule(facts)).collect();
    findings.sort_by_key(|finding| finding.severity);
    if findings.first().is_none_or(|worst| worst.severity >= Severity::Warning) {
        findings.insert(0, healthy(facts));
    }
    Verdict { findings }
}

type Rule = fn(&Facts) -> Option<Finding>;

/// All rules; findings of the same severity keep this order.
const RULES: &[Rule] = &[
    silence,
    bound_to_loopback,
    not_bootstrapped,
    few_nodes,
    failed_lookup,
    lossy,
    state,
    silent_family,
    silent_routers,
    unresolved_routers,
    slow,
    stale,
    saved_nodes_dead,
    forged,
    spoofed,
    changing_ids,
    disputed_address,
    clock,
    unreachable,
    behind_nat,
    insecure_ids,
    state_in_use,
];

fn finding(code: &'static str, severity: Severity, text: String, advice: &'static str) -> Option<Finding> {
    Some(Finding { code, severity, text, advice })
}

fn healthy(facts: &Facts) -> Finding {
    let counters = &facts.counters;
    let text = format!(
        "The DHT works here: {} nodes known, {} of {} queries answered{}.",
        facts.nodes(),
        facts.answers(),
        counters.queries_out,
        facts
            .bootstrapped
            .map(|at| format!(", bootstrapped in {:.1} s", at.as_secs_f64()))
            .unwrap_or_default(),
    );
    Finding { code: "healthy", severity: Severity::Note, text, advice: "" }
}

/// Nobody answered: everything else follows from why.
fn silence(facts: &Facts) -> Option<Finding> {
    if facts.answers() > 0 {
        return None;
    }
    let (routers, saved) = (facts.routers.len(), facts.saved_nodes());
    let addresses: usize = facts.routers.iter().map(|router| router.addresses.len()).sum();
    let total = |count: fn(&SocketFacts) -> u64| facts.sockets.iter().map(count).sum::<u64>();
    let (received, refused) = (total(|socket| socket.received), total(|socket| socket.refused));
    if routers == 0 && saved == 0 {
        return finding(
            "nobody_to_ask",
            Severity::Silence,
            "There is nobody to ask: no router is set and no nodes were saved.".into(),
            "Name a router with --bootstrap HOST:PORT, or in bootstrap.toml.",
        );
    }
    if addresses == 0 && saved == 0 {
        return finding(
            "no_names",
            Severity::Silence,
            format!(
                "None of {} could be resolved to an address of our families.",
                some(routers, "router name", "router names")
            ),
            "Is there a network at all, and a name server (/etc/resolv.conf)? --bootstrap takes an IP address too.",
        );
    }
    if refused > 0 && total(|socket| socket.sent) == 0 {
        return finding(
            "sending_refused",
            Severity::Silence,
            format!("The system refused to send any of {refused} datagrams."),
            "Is there a route to the internet? Does a firewall of this machine forbid outgoing UDP?",
        );
    }
    if received > 0 {
        return finding(
            "no_sound_answer",
            Severity::Silence,
            format!("{received} datagrams came in, but none of them answers a query of ours."),
            "Something between here and the network alters or answers UDP: a captive portal, a proxy, a broken NAT.",
        );
    }
    finding(
        "udp_blocked",
        Severity::Silence,
        format!(
            "UDP seems blocked: {}{} were asked, and nothing came back.",
            some(addresses, "address of a router", "addresses of routers"),
            if saved > 0 {
                format!(" and {}", some(saved, "saved node", "saved nodes"))
            } else {
                String::new()
            }
        ),
        "Check that the firewalls of this machine and of its network let UDP out, and answers in; try another network, or another router with --bootstrap HOST:PORT.",
    )
}

fn bound_to_loopback(facts: &Facts) -> Option<Finding> {
    let inward = !facts.sockets.is_empty() && facts.sockets.iter().all(|s| s.local.ip().is_loopback());
    if facts.allow_local || !inward {
        return None;
    }
    finding(
        "bound_to_loopback",
        Severity::Problem,
        "Every socket is bound to the loopback interface, from which nobody else can be reached.".into(),
        "Leave out --bind, or name an address of a network interface. For a DHT on this machine add --allow-local.",
    )
}

fn not_bootstrapped(facts: &Facts) -> Option<Finding> {
    if facts.bootstrapped.is_some() || facts.answers() == 0 {
        return None;
    }
    finding(
        "not_bootstrapped",
        Severity::Problem,
        format!("Some nodes answer, but after {} s our neighbourhood is still unknown.", facts.ran.as_secs()),
        "Try again with a longer --timeout; if that does not help, with other routers (--bootstrap HOST:PORT).",
    )
}

fn few_nodes(facts: &Facts) -> Option<Finding> {
    let nodes = facts.nodes();
    if nodes >= facts.k || facts.answers() == 0 {
        return None;
    }
    finding(
        "few_nodes",
        Severity::Problem,
        format!("No more than {} known; a lookup needs {}.", some(nodes, "node is", "nodes are"), facts.k),
        "Wait, or name a router of a larger network with --bootstrap HOST:PORT. In a private DHT of few nodes this is all there is.",
    )
}

fn failed_lookup(facts: &Facts) -> Option<Finding> {
    if facts.answers() == 0 {
        return None;
    }
    let ended =
        |lookup: &LookupFacts| matches!(lookup.outcome, Some(Outcome::Converged | Outcome::OutOfBudget));
    let failed = |lookup: &&LookupFacts| !ended(lookup) || lookup.closest == 0;
    let lookup = facts.lookups.iter().find(failed)?;
    finding(
        "lookup_failed",
        Severity::Problem,
        format!(
            "A lookup of {} came to no end: {} of {} queries answered in {:.1} s.",
            lookup.what,
            lookup.answered,
            lookup.queries,
            lookup.elapsed.as_secs_f64()
        ),
        "`btdht find-node --trace` shows where lookups get stuck.",
    )
}

fn lossy(facts: &Facts) -> Option<Finding> {
    // That saved nodes have gone says nothing about the line.
    let timeouts = facts.counters.timeouts.saturating_sub(facts.saved_silent() as u64);
    let (answers, ended) = (facts.answers(), facts.answers() + timeouts);
    if answers == 0 || ended < 40 || answers * 4 >= ended {
        return None;
    }
    finding(
        "lossy",
        Severity::Problem,
        format!("Only {answers} of {ended} queries were answered; half to two thirds are usual."),
        "Is the line overloaded, or the NAT's table of connections full? A router at home often gives up under many connections.",
    )
}

fn silent_family(facts: &Facts) -> Option<Finding> {
    let of = |ipv6: bool| facts.sockets.iter().filter(move |socket| socket.local.is_ipv6() == ipv6);
    let silent = |ipv6: bool| {
        let asked = facts.routers.iter().flat_map(|router| &router.addresses);
        of(ipv6).count() > 0
            && of(ipv6).all(|socket| socket.received == 0)
            && asked.filter(|addr| addr.is_ipv6() == ipv6).count() > 0
    };
    match (silent(false), silent(true)) {
        (true, false) if facts.answers() > 0 => finding(
            "ipv4_silent",
            Severity::Problem,
            "IPv6 works, but nobody answers over IPv4, where most nodes are.".into(),
            "Does this machine have a way out over IPv4? --ipv6-only says that it is meant to have none.",
        ),
        (false, true) if facts.answers() > 0 => finding(
            "ipv6_silent",
            Severity::Warning,
            "IPv4 works, but nobody answers over IPv6.".into(),
            "Nothing is lost but the nodes that have IPv6 only; --ipv4-only saves the attempts.",
        ),
        _ => None,
    }
}

fn silent_routers(facts: &Facts) -> Option<Finding> {
    let asked = facts.routers.iter().filter(|router| !router.addresses.is_empty()).count();
    let silent = facts.routers.iter().all(|router| router.answered.is_none());
    if asked == 0 || !silent || facts.answers() == 0 {
        return None;
    }
    finding(
        "routers_silent",
        Severity::Warning,
        format!(
            "None of {asked} routers answers; only saved nodes do. The next start without them would fail."
        ),
        "Name another router in bootstrap.toml.",
    )
}

fn unresolved_routers(facts: &Facts) -> Option<Finding> {
    let unknown: Vec<_> = facts.routers.iter().filter(|router| router.addresses.is_empty()).collect();
    if facts.answers() == 0 || unknown.len() * 2 <= facts.routers.len() {
        return None;
    }
    finding(
        "names_fail",
        Severity::Warning,
        format!("{} of {} router names could not be resolved.", unknown.len(), facts.routers.len()),
        "Does the name server work, and is its filter too eager?",
    )
}

fn slow(facts: &Facts) -> Option<Finding> {
    let slowest = facts.sockets.iter().filter(|socket| socket.nodes > 0).max_by_key(|s| s.median_rtt)?;
    if slowest.median_rtt < Duration::from_secs(1) {
        return None;
    }
    finding(
        "slow",
        Severity::Warning,
        format!("Half of the nodes take more than {} ms to answer.", slowest.median_rtt.as_millis()),
        "Is the line busy, above all its upload? A limit on uploads somewhat below the line's rate helps.",
    )
}

fn stale(facts: &Facts) -> Option<Finding> {
    let trusty: usize = facts.sockets.iter().map(|socket| socket.trusty).sum();
    let nodes = facts.nodes();
    if nodes < 16 || trusty * 2 >= nodes {
        return None;
    }
    finding(
        "stale",
        Severity::Warning,
        format!("Only {trusty} of {nodes} nodes in the table have been heard of lately."),
        "The line may have been away; the table mends itself within minutes.",
    )
}

/// Of nodes that were good when they were saved half are gone after a day or two. Fewer than eight are too few
/// to speak of.
fn saved_nodes_dead(facts: &Facts) -> Option<Finding> {
    let StateFacts::Readable { age, asked, answered, .. } = facts.state else { return None };
    if asked < 8 || answered * 3 >= asked || facts.answers() == 0 {
        return None;
    }
    let written = age.map(|age| format!(", which were written {} ago,", span(age))).unwrap_or_default();
    let text = format!("Only {answered} of {asked} saved nodes that were asked{written} still answer.");
    let advice = if age.is_some_and(|age| age < Duration::from_secs(3600)) {
        "So many do not go so soon: has this machine come to another network, or does something keep us from them?"
    } else {
        "They are too old to start from without a router. `btdht serve` saves new ones while it runs."
    };
    finding("saved_nodes_dead", Severity::Warning, text, advice)
}

fn forged(facts: &Facts) -> Option<Finding> {
    let (unasked, all) = (facts.counters.dropped_unsolicited, facts.counters.datagrams_in);
    if unasked < 20 || unasked * 10 < all {
        return None;
    }
    finding(
        "forged_answers",
        Severity::Warning,
        format!(
            "{unasked} of {all} datagrams are answers to nothing that we asked, or from somebody else than we asked."
        ),
        "Somebody may be forging answers, or a NAT mixes up addresses. They are dropped.",
    )
}

fn spoofed(facts: &Facts) -> Option<Finding> {
    let (spoofed, answers) = (facts.counters.replies_spoofed, facts.answers());
    // Nodes with several addresses sometimes answer from another one; those are few.
    if spoofed < 5 || spoofed * 20 < answers {
        return None;
    }
    finding(
        "spoofed_answers",
        Severity::Warning,
        format!(
            "{spoofed} answers to queries of ours ({}) came from another address than was asked.",
            percent(facts.spoofed_share())
        ),
        "Somebody may be guessing our queries or listening to them. Such answers are dropped.",
    )
}

fn changing_ids(facts: &Facts) -> Option<Finding> {
    let (changed, answers) = (facts.counters.ids_mismatched, facts.answers());
    if changed < 5 || changed * 10 < answers {
        return None;
    }
    finding(
        "changing_ids",
        Severity::Warning,
        format!(
            "{changed} nodes answered under another id than they had ({}), against {answers} answers.",
            percent(facts.changing_ids_share())
        ),
        "Somebody may be trying to surround us with false nodes. They are thrown out of the table.",
    )
}

fn disputed_address(facts: &Facts) -> Option<Finding> {
    // A few voices are too few to speak of; nine networks would have to agree (BEP 42, D10).
    let many = |socket: &SocketFacts| socket.votes.iter().map(|(_, networks)| networks).sum::<usize>() >= 9;
    let torn = |socket: &&SocketFacts| socket.external.is_none() && socket.votes.len() > 1 && many(socket);
    let disputed = facts.sockets.iter().find(torn)?;
    let names: Vec<_> = disputed.votes.iter().take(3).map(|(ip, times)| format!("{ip} ({times})")).collect();
    finding(
        "address_disputed",
        Severity::Warning,
        format!("Other nodes do not agree on our address: {}.", names.join(", ")),
        "A provider's NAT with several addresses, or liars. Our node id stays what it is until they agree.",
    )
}

fn clock(facts: &Facts) -> Option<Finding> {
    const PLAUSIBLE: std::ops::RangeInclusive<i64> = 2025..=2100;
    let ClockFacts { year, drift } = facts.clock;
    if !PLAUSIBLE.contains(&year) {
        return finding(
            "clock_wrong",
            Severity::Warning,
            format!("The clock says that this is the year {year}."),
            "Set it: the DHT does without, but trackers over HTTPS fail, and ages of saved peers are wrong.",
        );
    }
    if drift < Duration::from_secs(2) {
        return None;
    }
    finding(
        "clock_jumped",
        Severity::Warning,
        format!("The clock jumped by {:.1} s while we ran.", drift.as_secs_f64()),
        "Once is nothing; if it goes on, see what sets the clock.",
    )
}

fn unreachable(facts: &Facts) -> Option<Finding> {
    // Where everybody lives on one machine, everybody has been asked.
    let reached = facts.allow_local || facts.sockets.iter().any(|socket| socket.reached.is_some());
    let asked = facts.counters.queries_in() > 0;
    if facts.answers() == 0 || asked && reached {
        return None;
    }
    let whom = if asked { "that we had not asked before" } else { "at all" };
    finding(
        "unreachable",
        Severity::Warning,
        format!(
            "In {} s no node {whom} asked us anything, as behind a NAT or firewall that lets nobody in.",
            facts.ran.as_secs()
        ),
        "Peers can be found all the same. A longer --timeout makes it certain; then forward the UDP port of `btdht serve` to this machine.",
    )
}

fn behind_nat(facts: &Facts) -> Option<Finding> {
    let (socket, external) = facts.sockets.iter().find_map(|socket| {
        let external = socket.external.filter(|seen| ![0, socket.local.port()].contains(&seen.port()));
        external.map(|external| (socket, external))
    })?;
    finding(
        "behind_nat",
        Severity::Note,
        format!("A NAT is in between: others see {} as {external}.", socket.local),
        "",
    )
}

fn insecure_ids(facts: &Facts) -> Option<Finding> {
    let insecure: usize = facts.sockets.iter().map(|socket| socket.insecure).sum();
    let nodes = facts.nodes();
    if facts.allow_local || nodes < 16 || insecure * 2 < nodes {
        return None;
    }
    finding(
        "insecure_ids",
        Severity::Note,
        format!("{insecure} of {nodes} nodes have an id that does not belong to their address (BEP 42)."),
        "",
    )
}

fn state(facts: &Facts) -> Option<Finding> {
    match &facts.state {
        StateFacts::Unreadable(why) => finding(
            "state_unreadable",
            Severity::Problem,
            format!("The saved nodes cannot be read: {why}."),
            "Mend the permissions of the state folder; --state DIR takes another one, --no-state none.",
        ),
        StateFacts::Damaged => finding(
            "state_damaged",
            Severity::Warning,
            "The saved nodes are damaged and were ignored.".into(),
            "The next `btdht serve` writes them anew. If it happens again, look at the disk.",
        ),
        StateFacts::Off | StateFacts::Missing | StateFacts::Readable { .. } => None,
    }
}

fn state_in_use(facts: &Facts) -> Option<Finding> {
    let StateFacts::Readable { in_use: true, nodes, .. } = facts.state else { return None };
    let text = format!("Another process runs on the state folder, which holds {nodes} nodes.");
    finding("state_in_use", Severity::Note, text, "")
}
