//! `btdht serve`: a node that runs until a signal.

use std::io;
use std::time::Duration;

use btdht::Event;
use btdht::net::{Dht, Error, Options, State, Topic};
use btdht::settings::Shards;
use serde_json::json;

use crate::context::Context;
use crate::failure::Failure;
use crate::signals::Stop;

/// Ports that are tried, in order, when the user named none.
const PORTS: std::ops::RangeInclusive<u16> = 6881..=6889;
/// Saving at the end takes no longer; what a hung disk has not taken by then is lost: what others stored
/// rather than the table, which goes first.
const GOODBYE: Duration = Duration::from_millis(2500);

/// Run a node until a signal
#[derive(clap::Args)]
#[command(after_help = "\
Prints `listening ADDR:PORT id <hex>` for each socket, and `bootstrapped N nodes` later; then \
`address ADDR:PORT id <hex>` when other nodes agree on our address, with the id that belongs to it \
(BEP 42), and `network changed` when a network interface did. Keeps \
its id and its nodes in the state folder.

Example: btdht serve --port 6881")]
pub(crate) struct Args {
    /// Threads that answer, each with sockets of its own; 1 is one for everything, and replies in the
    /// order of the queries. [default: the key `shards` of the settings, or as many as there are cores]
    #[arg(long, value_name = "N")]
    shards: Option<Shards>,
}

pub(crate) async fn run(args: &Args, context: &Context, stop: &mut Stop) -> Result<(), Failure> {
    let shards = args.shards.unwrap_or(context.settings.listen.shards);
    let dht = listen(context, shards.count(std::thread::available_parallelism().map_or(1, usize::from)))?;
    let mut events = dht.subscribe(Topic::Node).await?;
    for (addr, id) in dht.local_addrs().zip(dht.ids()) {
        context.out.say(
            || json!({"event": "listening", "addr": addr.to_string(), "id": id.to_string()}),
            || format!("listening {addr} id {id}"),
        )?;
    }
    let announce = async {
        let nodes = dht.bootstrapped().await?;
        context.out.say(
            || json!({"event": "bootstrapped", "nodes": nodes}),
            || format!("bootstrapped {nodes} nodes"),
        )?;
        std::future::pending::<Result<(), Failure>>().await
    };
    let tell = async {
        while let Some(event) = events.next().await {
            show(context, &event)?;
        }
        Err::<(), Failure>(Error::Stopped.into())
    };
    let limit = async {
        match context.flags.timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    };
    let ended = tokio::select! {
        result = announce => result,
        result = tell => result,
        () = limit => Ok(()),
        signal = stop.requested() => Err(Failure::signal(signal)),
    };
    match tokio::time::timeout(GOODBYE, dht.shutdown()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "state was not saved"),
        Err(_) => tracing::warn!("the disk is too slow: not everything was saved"),
    }
    ended
}

/// Says what has happened to the node.
fn show(context: &Context, event: &Event) -> Result<(), Failure> {
    match event {
        Event::ExternalAddress { addr, id, .. } => context.out.say(
            || json!({"event": "address", "addr": addr.to_string(), "id": id.to_string()}),
            || format!("address {addr} id {id}"),
        )?,
        Event::NetworkChanged { home } => context
            .out
            .say(|| json!({"event": "network_changed", "socket": home}), || "network changed".to_owned())?,
        _ => {}
    }
    Ok(())
}

/// Binds the port that was asked for, or the first free one of the usual ones.
fn listen(context: &Context, shards: usize) -> Result<Dht, Failure> {
    let state = || context.settings.folders.state.clone().map_or(State::Nothing, State::Keep);
    let options = |port| Options { shards, lingers: true, ..context.options(port, state()) };
    if let Some(port) = context.settings.listen.port {
        return Ok(Dht::bind(options(port))?);
    }
    let mut ports = PORTS;
    loop {
        let port = ports.next().unwrap_or(*PORTS.end());
        match Dht::bind(options(port)) {
            Err(Error::Bind { source, addr })
                if source.kind() == io::ErrorKind::AddrInUse && addr.port() == port && !ports.is_empty() => {}
            other => return Ok(other?),
        }
    }
}
