//! `btdht get-peers`: who has this torrent?

use std::ops::ControlFlow;
use std::time::Duration;

use btdht::{Announce, Command, Event};
use krpc::Id;
use serde_json::json;

use crate::context::{self, Context};
use crate::failure::Failure;
use crate::follow::follow;

/// Find peers of a torrent
#[derive(clap::Args)]
#[command(after_help = "\
Prints one ip:port a line, each once, as they are found. Ends when the lookup has converged or \
after --timeout (30 seconds). Exit code 4 when there are none.

Example: btdht get-peers 08ada5a7a6183aae1e09d831df6748d566095a10 --limit 10")]
pub(crate) struct Args {
    /// 40 hexadecimal or 32 base32 digits, or a magnet link
    #[arg(value_name = "INFOHASH or MAGNET", value_parser = context::infohash)]
    infohash: Id,
    /// Announce a peer at this port too
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    announce: Option<u16>,
    /// End after so many peers
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Show each hop, on stderr; with --json a trace that `btdht replay` can replay
    #[arg(long)]
    trace: bool,
}

pub(crate) async fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let dht = context.open_traced(args.trace)?;
    let announce = args.announce.map(|port| Announce { port, implied: false, seed: false });
    let command = Command::GetPeers { infohash: args.infohash, announce, trace: args.trace };
    let timeout = context.timeout(Duration::from_secs(30));
    let (mut found, mut stored) = (0, 0);
    let end = follow(context, &dht, command, timeout, |event, ms| {
        match event {
            // Peers that come after the limit are not wanted any more.
            Event::Peer { addr, node, .. } if args.limit.is_none_or(|limit| found < limit) => {
                found += 1;
                context.out.say(
                    || json!({"event": "peer", "addr": addr.to_string(), "node": node.to_string(), "ms": ms}),
                    || addr.to_string(),
                )?;
            }
            Event::Stored { id, node, .. } => {
                stored += 1;
                context.out.note(
                    || json!({"event": "stored", "id": id.to_string(), "addr": node.to_string(), "ms": ms}),
                    || format!("announced to {id} {node}"),
                )?;
            }
            _ => {}
        }
        // An announce is wanted whole: it follows the lookup.
        let enough = args.announce.is_none() && args.limit.is_some_and(|limit| found >= limit);
        Ok(if enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })
    .await?;
    dht.finish().await?;
    context.out.say_json(|| end.json())?;
    if found == 0 && stored == 0 { Err(end.nothing("finding peers")) } else { Ok(()) }
}
