//! `btdht scrape`: how many peers does this torrent have?

use std::ops::ControlFlow;
use std::time::Duration;

use btdht::{Command, Event, SwarmEstimate};
use krpc::Id;
use serde_json::json;

use crate::context::{self, Context};
use crate::failure::Failure;
use crate::follow::follow;

/// Estimate the seeds and downloaders of a torrent (BEP 33)
#[derive(clap::Args)]
#[command(after_help = "\
Merges what the nodes closest to the infohash have stored; each address counts once. Few percent \
off up to about 6,000 addresses. Exit code 4 when no node told anything.

Example: btdht scrape 08ada5a7a6183aae1e09d831df6748d566095a10")]
pub(crate) struct Args {
    /// 40 hexadecimal or 32 base32 digits, or a magnet link
    #[arg(value_name = "INFOHASH or MAGNET", value_parser = context::infohash)]
    infohash: Id,
    /// Show each hop, on stderr; with --json a trace that `btdht replay` can replay
    #[arg(long)]
    trace: bool,
}

pub(crate) async fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let dht = context.open_traced(args.trace)?;
    let command = Command::Scrape { infohash: args.infohash, trace: args.trace };
    let timeout = context.timeout(Duration::from_secs(30));
    let mut estimate = SwarmEstimate::default();
    let end = follow(context, &dht, command, timeout, |event, _| {
        if let Event::Scraped { estimate: merged, .. } = event {
            estimate = *merged;
        }
        Ok(ControlFlow::Continue(()))
    })
    .await?;
    dht.finish().await?;
    if estimate.nodes == 0 {
        context.out.say_json(|| end.json())?;
        return Err(end.nothing("scraping"));
    }
    let SwarmEstimate { seeds, downloaders, nodes, ignored } = estimate;
    context.out.say(
        || {
            json!({
                "event": "scrape", "infohash": args.infohash.to_string(), "seeds": seeds,
                "downloaders": downloaders, "nodes": nodes, "ignored": ignored,
            })
        },
        || format!("{seeds} seeds, {downloaders} downloaders, from {nodes} nodes"),
    )?;
    context.out.say_json(|| end.json())?;
    Ok(())
}
