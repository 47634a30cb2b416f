//! Follows a lookup to its end, or to the moment when the user has had enough, and says how it went.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::time::Duration;

use btdht::net::{Dht, Lookup};
use btdht::{Command, Event, Hop, HopStep, LookupStats, Outcome, Time};
use krpc::Id;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use crate::context::Context;
use crate::failure::Failure;

/// A lookup that was told to end has this long to tell its last event.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How a lookup went.
#[derive(Debug, Default)]
pub(crate) struct End {
    /// `None` when the time ran out before the node said so.
    pub(crate) outcome: Option<Outcome>,
    pub(crate) timed_out: bool,
    pub(crate) stats: LookupStats,
    /// The closest nodes that answered.
    pub(crate) closest: Vec<(Id, SocketAddr)>,
}

/// Runs `command`, hands each event to `on_event` with the milliseconds since the start, and ends
/// when the lookup does, when `on_event` breaks, or after `timeout`.
pub(crate) async fn follow(
    context: &Context,
    dht: &Dht,
    command: Command,
    timeout: Duration,
    mut on_event: impl FnMut(&Event, u64) -> Result<ControlFlow<()>, Failure>,
) -> Result<End, Failure> {
    let started = Instant::now();
    let deadline = started + timeout;
    let mut end = End::default();
    if timeout_at(deadline, dht.ready()).await.is_err() {
        end.timed_out = true;
        return Ok(end);
    }
    let target = command.target().unwrap_or(Id::ZERO);
    let mut lookup = dht.start(command).await?;
    let mut until = deadline;
    let mut first_hop = None;
    loop {
        let event = match timeout_at(until, lookup.next()).await {
            Ok(Some(event)) => event,
            Ok(None) => return Ok(end),
            Err(_) if end.timed_out => return Ok(end),
            Err(_) => {
                end.timed_out = true;
                stop(&lookup, &mut until);
                continue;
            }
        };
        let millis = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        match &event {
            Event::Hop { hop, .. } => {
                let start = *first_hop.get_or_insert(hop.at);
                context.out.note(|| hop_json(hop, start, &target), || hop_line(hop, start, &target))?;
            }
            Event::Done { outcome, stats, closest, .. } => {
                (end.outcome, end.stats, end.closest) = (Some(*outcome), *stats, closest.clone());
            }
            _ => {}
        }
        if on_event(&event, millis)?.is_break() {
            stop(&lookup, &mut until);
        }
    }
}

/// Tells the lookup to end.
fn stop(lookup: &Lookup, until: &mut Instant) {
    lookup.cancel();
    *until = Instant::now() + LAST_WORDS;
}

impl End {
    /// The last line for machines.
    pub(crate) fn json(&self) -> Value {
        json!({
            "event": "done",
            "outcome": self.word(),
            "queries": self.stats.queries,
            "answered": self.stats.answered,
            "hops": self.stats.hops,
            "peers": self.stats.peers,
            "ms": millis(self.stats.elapsed),
            "first_peer_ms": self.stats.first_peer.map(millis),
        })
    }

    /// What to say when nothing came of it.
    pub(crate) fn nothing(&self, what: &str) -> Failure {
        let failure = |why: String| Failure::nothing(format!("{what}: {why}"));
        match self.outcome {
            Some(Outcome::NoAnswer) => failure(format!("no answer to any of {} queries", self.stats.queries))
                .hint("is UDP blocked here? --bootstrap HOST:PORT asks another router"),
            Some(Outcome::NoNodes) => {
                failure("no node to ask".into()).hint("--bootstrap HOST:PORT names a router")
            }
            None if self.stats.queries == 0 => {
                failure("no answer before the timeout: no router could be resolved or asked".into())
                    .hint("does this machine have a network and a name server?")
            }
            _ if self.timed_out => {
                failure("nothing before the timeout".into()).hint("--timeout SECONDS waits longer")
            }
            _ => failure(format!(
                "none found; {} of {} nodes answered",
                self.stats.answered, self.stats.queries
            )),
        }
    }

    fn word(&self) -> &'static str {
        match self.outcome {
            Some(Outcome::Converged) => "converged",
            Some(Outcome::NoAnswer) => "no_answer",
            Some(Outcome::NoNodes) => "no_nodes",
            Some(Outcome::OutOfBudget) => "out_of_budget",
            Some(Outcome::Cancelled) if !self.timed_out => "enough",
            Some(Outcome::Cancelled) | None => "timeout",
        }
    }
}

pub(crate) fn millis(span: Duration) -> f64 {
    (span.as_secs_f64() * 1e6).round() / 1e3
}

fn hop_json(hop: &Hop, start: Time, target: &Id) -> Value {
    let mut object = json!({
        "event": "hop",
        "at_ms": millis(hop.at.since(start)),
        "addr": hop.node.to_string(),
        "id": hop.id.map(|id| id.to_string()),
        "distance": hop.id.map(|id| id.distance(target).to_string()),
        "depth": hop.depth,
    });
    let step = match &hop.step {
        HopStep::Asked => json!({"step": "asked"}),
        HopStep::Answered { rtt, nodes, peers } => {
            json!({"step": "answered", "ms": millis(*rtt), "nodes": nodes, "peers": peers})
        }
        HopStep::Slow => json!({"step": "slow"}),
        HopStep::Silent => json!({"step": "silent"}),
        HopStep::Refused { code } => json!({"step": "refused", "code": code}),
    };
    if let (Some(object), Value::Object(step)) = (object.as_object_mut(), step) {
        object.extend(step);
    }
    object
}

fn hop_line(hop: &Hop, start: Time, target: &Id) -> String {
    let step = match &hop.step {
        HopStep::Asked => "asked".to_owned(),
        HopStep::Answered { rtt, nodes, peers } => {
            format!("answered in {:.1} ms, {nodes} new nodes, {peers} peers", millis(*rtt))
        }
        HopStep::Slow => "slow".to_owned(),
        HopStep::Silent => "silent".to_owned(),
        HopStep::Refused { code } => format!("refused, error {code}"),
    };
    // The distance as the exponent of its highest bit: 160 is the other end of the key space.
    let distance =
        hop.id.map_or_else(|| "?".to_owned(), |id| format!("2^{}", Id::BITS - id.prefix_len(target)));
    format!("{:9.1} ms  hop {}  {distance:>5}  {}  {step}", millis(hop.at.since(start)), hop.depth, hop.node)
}
