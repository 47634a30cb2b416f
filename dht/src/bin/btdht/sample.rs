//! `btdht sample`: which infohashes do nodes store?

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::time::Duration;

use btdht::{Command, Event, Question};
use krpc::{Body, Id, Message, Want};
use serde_json::json;
use tokio::time::Instant;

use crate::context::Context;
use crate::failure::Failure;
use crate::follow::follow;
use crate::output::remote;
use crate::random::rng;

/// Sample infohashes of one node, or of nodes all over the key space (BEP 51)
#[derive(clap::Args)]
#[command(after_help = "\
Prints one infohash a line, each once. With HOST:PORT it asks that node once, for --timeout (15 seconds). Without it walks to \
one random point of the key space after the other, one walk at a time with a pause in between, \
until --limit (100) or --timeout (60 seconds). Exit code 4 when there were none.

Example: btdht sample --limit 20")]
pub(crate) struct Args {
    /// The node to ask
    #[arg(value_name = "HOST:PORT")]
    node: Option<String>,
    /// End after so many infohashes
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    limit: u32,
    /// Show each hop of a walk, on stderr; with --json a trace that `btdht replay` can replay
    #[arg(long, conflicts_with = "node")]
    trace: bool,
}

/// Pause between two walks: some 30 queries in two seconds are less than a browser makes.
const PAUSE: Duration = Duration::from_secs(1);

pub(crate) async fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    match &args.node {
        Some(node) => one(node, context).await,
        None => walk(args, context).await,
    }
}

async fn one(node: &str, context: &Context) -> Result<(), Failure> {
    let dht = context.open_alone()?;
    let addrs = context.resolve(&dht, node).await?;
    let mut rng = rng()?;
    let all = async {
        for addr in addrs {
            let question = Question::Sample(rng.id(), Want::UNSPECIFIED);
            if let Some(answer) = dht.ask(addr, question).await? {
                return Ok::<_, Failure>(Some(answer));
            }
        }
        Ok(None)
    };
    let answer = tokio::time::timeout(context.timeout(Duration::from_secs(15)), all).await;
    let Some(answer) = answer.unwrap_or(Ok(None))? else {
        return Err(Failure::nothing(format!("no answer from {}", node.escape_debug())));
    };
    let message = Message::decode(&answer.bytes)
        .map_err(|failure| Failure::other(format!("a broken answer: {}", failure.error)))?;
    let response = match message.body {
        Body::Response(response) => response,
        Body::Error(error) => {
            let text = remote(error.text);
            return Err(Failure::other(format!("the node answered with error {} {text}", error.code)));
        }
        Body::Query { .. } => return Err(Failure::other("the node answered with a query")),
    };
    let Some(samples) = response.samples else {
        return Err(Failure::other("the node does not speak BEP 51: its answer has no samples"));
    };
    for infohash in samples.chunks_exact(Id::LEN).filter_map(Id::from_slice) {
        context.out.say(
            || json!({"event": "sample", "infohash": infohash.to_string(), "node": answer.from.to_string()}),
            || infohash.to_string(),
        )?;
    }
    context.out.note(
        || json!({"event": "done", "num": response.num, "interval": response.interval}),
        || {
            let (num, interval) = (response.num.unwrap_or(0), response.interval.unwrap_or(0));
            format!("{num} infohashes in all; others after {interval} s")
        },
    )?;
    Ok(())
}

async fn walk(args: &Args, context: &Context) -> Result<(), Failure> {
    let dht = context.open_traced(args.trace)?;
    let deadline = Instant::now() + context.timeout(Duration::from_secs(60));
    let mut rng = rng()?;
    let limit = args.limit as usize;
    let mut found = BTreeSet::new();
    let (mut nodes, mut walks) = (0u32, 0u32);
    let end = loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let command = Command::Sample { target: rng.id(), trace: args.trace };
        let end = follow(context, &dht, command, left, |event, ms| {
            if let Event::Samples { samples, node, .. } = event {
                nodes += 1;
                for &infohash in samples {
                    if found.len() < limit && found.insert(infohash) {
                        context.out.say(
                            || {
                                let (infohash, node) = (infohash.to_string(), node.to_string());
                                json!({"event": "sample", "infohash": infohash, "node": node, "ms": ms})
                            },
                            || infohash.to_string(),
                        )?;
                    }
                }
            }
            Ok(if found.len() >= limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })
        .await?;
        walks += 1;
        if found.len() >= limit || end.timed_out || end.stats.answered == 0 {
            break end;
        }
        if Instant::now() + PAUSE >= deadline {
            break end;
        }
        tokio::time::sleep(PAUSE).await;
    };
    dht.finish().await?;
    let done = || json!({"event": "done", "infohashes": found.len(), "nodes": nodes, "walks": walks});
    if found.is_empty() {
        context.out.say_json(done)?;
        return Err(end.nothing("sampling"));
    }
    context.out.note(done, || format!("{} infohashes from {nodes} nodes in {walks} walks", found.len()))?;
    Ok(())
}
