//! `btdht announce`: tell the DHT that a peer has this torrent.

use std::ops::ControlFlow;
use std::time::Duration;

use btdht::net::Dht;
use btdht::{Announce, Command, Event};
use krpc::Id;
use serde_json::json;

use crate::context::{self, Context};
use crate::failure::Failure;
use crate::follow::follow;
use crate::keep::keep_announcing;

/// Announce a peer of a torrent
#[derive(clap::Args)]
#[command(after_help = "\
Prints `id ip:port` of each node that stored the announce. Exit code 4 when none did. Nodes forget \
peers after half an hour; --keep announces again every 15 minutes, soon after a failure and at once \
when the network changes, until it is stopped.

Examples: btdht announce 08ada5a7a6183aae1e09d831df6748d566095a10 --peer-port 6881
          btdht announce 08ada5a7a6183aae1e09d831df6748d566095a10 --peer-port 6881 --seed --keep")]
pub(crate) struct Args {
    /// 40 hexadecimal or 32 base32 digits, or a magnet link
    #[arg(value_name = "INFOHASH", value_parser = context::infohash)]
    infohash: Id,
    /// Port at which the peer listens
    #[arg(long, value_name = "N", required_unless_present = "implied_port", value_parser = clap::value_parser!(u16).range(1..))]
    peer_port: Option<u16>,
    /// Let nodes take the port that our datagrams come from
    #[arg(long, conflicts_with = "peer_port")]
    implied_port: bool,
    /// The peer has the whole torrent (BEP 33)
    #[arg(long)]
    seed: bool,
    /// Go on announcing until stopped
    #[arg(long, conflicts_with = "trace")]
    keep: bool,
    /// Show each hop, on stderr; with --json a trace that `btdht replay` can replay
    #[arg(long)]
    trace: bool,
}

impl Args {
    fn announce(&self, dht: &Dht) -> Announce {
        // A node ignores the port when it is implied, but BEP 5 wants one in the query.
        let source = dht.local_addrs().next().map_or(0, |local| local.port());
        Announce { port: self.peer_port.unwrap_or(source), implied: self.implied_port, seed: self.seed }
    }
}

pub(crate) async fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    if args.keep {
        let dht = context.open_to_stay()?;
        return keep_announcing(context, &dht, args.infohash, args.announce(&dht)).await;
    }
    let dht = context.open_traced(args.trace)?;
    let announce = args.announce(&dht);
    let command = Command::GetPeers { infohash: args.infohash, announce: Some(announce), trace: args.trace };
    let timeout = context.timeout(Duration::from_secs(30));
    let mut stored = 0;
    let end = follow(context, &dht, command, timeout, |event, ms| {
        if let Event::Stored { id, node, .. } = event {
            stored += 1;
            context.out.say(
                || json!({"event": "stored", "id": id.to_string(), "addr": node.to_string(), "ms": ms}),
                || format!("{id} {node}"),
            )?;
        }
        Ok(ControlFlow::Continue(()))
    })
    .await?;
    dht.finish().await?;
    context.out.say_json(|| end.json())?;
    if stored == 0 { Err(end.nothing("announcing")) } else { Ok(()) }
}
