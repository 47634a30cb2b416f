//! `btdht ping`: is there a node, and which?

use std::time::Duration;

use krpc::{Body, Message};
use serde_json::json;

use crate::context::Context;
use crate::failure::Failure;
use crate::hops::millis;
use crate::output::remote;

/// Ask a node for its id
#[derive(clap::Args)]
#[command(after_help = "\
Prints the id, the round-trip time and the client version of the node. Exit code 4 without answer.

Example: btdht ping dht.transmissionbt.com:6881")]
pub(crate) struct Args {
    /// The node
    #[arg(value_name = "HOST:PORT")]
    node: String,
}

pub(crate) async fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let dht = context.open_alone()?;
    let addrs = context.resolve(&dht, &args.node).await?;
    let all = async {
        for &addr in &addrs {
            if let Some(answer) = dht.ping(addr).await? {
                return Ok::<_, Failure>(Some(answer));
            }
        }
        Ok(None)
    };
    let answer = tokio::time::timeout(context.timeout(Duration::from_secs(15)), all).await;
    let Some(answer) = answer.unwrap_or(Ok(None))? else {
        return Err(Failure::nothing(format!("no answer from {}", args.node.escape_debug())));
    };
    let message = Message::decode(&answer.bytes)
        .map_err(|failure| Failure::other(format!("a broken answer: {}", failure.error)))?;
    match message.body {
        Body::Response(response) => {
            let (id, ms) = (response.id, millis(answer.rtt));
            let version = message.version.map(remote);
            context.out.say(
                || json!({"event": "pong", "addr": answer.from.to_string(), "id": id.to_string(), "ms": ms, "version": version}),
                || format!("{id} {} {ms:.1} ms version {}", answer.from, version.as_deref().unwrap_or("unknown")),
            )?;
            Ok(())
        }
        Body::Error(error) => {
            Err(Failure::other(format!("the node answered with error {} {}", error.code, remote(error.text))))
        }
        Body::Query { .. } => Err(Failure::other("the node answered with a query")),
    }
}
