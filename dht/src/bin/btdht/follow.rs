//! Follows a lookup to its end, or to the moment when the user has had enough, and says how it went.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::time::Duration;

use btdht::net::{Dht, Lookup};
use btdht::{Command, Event, LookupStats, Outcome};
use krpc::Id;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use crate::context::Context;
use crate::failure::Failure;
use crate::hops::{HEADING, Hops, millis};

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
    let mut hops = None;
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
                if hops.is_none() {
                    context.out.note_plain(|| HEADING.into())?;
                }
                let hops = *hops.get_or_insert_with(|| Hops::new(target, hop.at));
                context.out.note(|| hops.json(hop), || hops.line(hop))?;
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
            Some(Outcome::Cancelled) if self.timed_out => "timeout",
            outcome => outcome.map_or("timeout", outcome_word),
        }
    }
}

/// How machines are told that a lookup ended.
pub(crate) fn outcome_word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Converged => "converged",
        Outcome::NoAnswer => "no_answer",
        Outcome::NoNodes => "no_nodes",
        Outcome::OutOfBudget => "out_of_budget",
        Outcome::Cancelled => "enough",
    }
}
