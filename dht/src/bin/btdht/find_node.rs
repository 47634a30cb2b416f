//! `btdht find-node`: the nodes closest to a point of the key space.

use std::ops::ControlFlow;
use std::time::Duration;

use btdht::Command;
use krpc::Id;
use serde_json::json;

use crate::context::{self, Context};
use crate::failure::Failure;
use crate::follow::follow;

/// Find the closest nodes to an id
#[derive(clap::Args)]
#[command(after_help = "\
Prints `id ip:port` a line, nearest first. Exit code 4 when nobody answered.

Example: btdht find-node 08ada5a7a6183aae1e09d831df6748d566095a10 --trace")]
pub(crate) struct Args {
    /// 40 hexadecimal or 32 base32 digits
    #[arg(value_name = "ID", value_parser = context::id)]
    id: Id,
    /// Show each hop, on stderr; with --json a trace that `btdht replay` can replay
    #[arg(long)]
    trace: bool,
}

pub(crate) async fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let dht = context.open_traced(args.trace)?;
    let command = Command::FindNode { target: args.id, trace: args.trace };
    let timeout = context.timeout(Duration::from_secs(30));
    let end = follow(context, &dht, command, timeout, |_, _| Ok(ControlFlow::Continue(()))).await?;
    dht.finish().await?;
    for (id, addr) in &end.closest {
        context.out.say(
            || {
                let distance = id.distance(&args.id).to_string();
                json!({"event": "node", "id": id.to_string(), "addr": addr.to_string(), "distance": distance})
            },
            || format!("{id} {addr}"),
        )?;
    }
    context.out.say_json(|| end.json())?;
    if end.closest.is_empty() { Err(end.nothing("finding nodes")) } else { Ok(()) }
}
