//! `btdht testnet`: a DHT of many nodes on loopback, in one process.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use btdht::net::{AnnounceReport, Error, Round, StandingOrder};
use btdht::testnet::{Options, Testnet};
use btdht::{Announce, Rng, Seeds};
use krpc::Id;
use serde_json::json;

use crate::context::{self, Context};
use crate::failure::Failure;
use crate::seeder::Seeder;
use crate::signals::Stop;

/// Longest latency, in milliseconds: queries are given up after four seconds.
const MAX_LATENCY: u32 = 2000;
/// Descriptors beside those of the nodes' sockets.
const OTHER_FILES: u64 = 64;

/// Run a DHT of many nodes on loopback, until a signal
#[derive(clap::Args)]
#[command(after_help = "\
All nodes are real, each behind a UDP socket of its own, and know one another from the start. Prints \
`bootstrap ADDR:PORT`, then `announced INFOHASH PEER` for each peer that some node stored, then a command \
to try. --port is that of the first node, --ipv6-only moves all to ::1. Limits that hold for one source \
are lifted.

To download over it, give other programs its address, and leave the state of your own node out of it:
  btfetch MAGNET -o DIR --bootstrap ADDR:PORT --allow-local --no-state
--seeder has something to download there, by the `btfetch` that stands beside this program; --announce \
names another seeder. `btfetch demo` does all of that by itself, in one process.

Examples:
  btdht testnet --nodes 500 --latency 20..80 --loss 2
  btdht testnet --seeder album.torrent --seeder-dir ~/Music")]
pub(crate) struct Args {
    /// How many nodes
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(2..=20_000))]
    nodes: u32,

    /// Time that a datagram takes, one way; of a range each pair of nodes has its own part
    #[arg(long, value_name = "MS[..MS]", default_value = "0", value_parser = latency)]
    latency: Latency,

    /// Datagrams that are lost, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=100))]
    loss: u32,

    /// So many of the nodes announce themselves as peers of an infohash, which is printed; nobody speaks
    /// BitTorrent there
    #[arg(long, value_name = "N", default_value_t = 2)]
    swarm: u32,

    /// Announce a peer at this port of the loopback address, for instance that of `btfetch seed`;
    /// repeatable
    #[arg(long, value_name = "INFOHASH:PORT", value_parser = announcement)]
    announce: Vec<Announcement>,

    /// Seed this torrent, and announce its seeder
    #[arg(long, value_name = "FILE.torrent")]
    seeder: Option<PathBuf>,

    /// The folder that holds the data of --seeder; without it the folder of the torrent
    #[arg(long, value_name = "DIR", requires = "seeder")]
    seeder_dir: Option<PathBuf>,

    /// Ids, routing tables, latencies and losses follow from it
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// Bounds of a latency.
#[derive(Clone, Debug)]
struct Latency(RangeInclusive<Duration>);

/// A peer to announce.
#[derive(Clone, Copy, Debug)]
struct Announcement {
    infohash: Id,
    port: u16,
}

impl Announcement {
    fn announce(self) -> (Id, Announce) {
        (self.infohash, Announce { port: self.port, implied: false, seed: true })
    }
}

pub(crate) async fn run(args: &Args, context: &Context, stop: &mut Stop) -> Result<(), Failure> {
    let mut seeder = None;
    let serve = serve(args, context, &mut seeder);
    let limit = async {
        match context.flags.timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    };
    let result = tokio::select! {
        biased;
        signal = stop.requested() => Err(Failure::signal(signal)),
        () = limit => Ok(()),
        result = serve => result,
    };
    if let Some(seeder) = seeder {
        seeder.stop().await;
    }
    result
}

/// Returns when the seeder ends, or with the first failure.
async fn serve(args: &Args, context: &Context, seeder: &mut Option<Seeder>) -> Result<(), Failure> {
    let net = start(args, context).await?;
    if let Some(torrent) = &args.seeder {
        let ip = router(&net)?.ip();
        *seeder = Some(Seeder::start(torrent, args.seeder_dir.as_deref(), ip)?);
    }
    let infohash = swarm(args.seed);
    let themselves = Announce { port: 0, implied: true, seed: true };
    let members = (0..args.swarm.min(args.nodes)).map(|_| (infohash, themselves));
    let others = args.announce.iter().map(|announcement| announcement.announce());
    let mut standing = announce(context, &net, members.chain(others)).await?;
    let seeding = match seeder {
        Some(seeder) => {
            let (infohash, local) = seeder.ready().await?;
            Some(Announcement { infohash, port: local.port() })
        }
        None => None,
    };
    let announces = seeding.iter().map(|announcement| announcement.announce());
    standing.extend(announce(context, &net, announces).await?);
    show_command(args, context, (&net, seeding))?;
    match seeder {
        Some(seeder) => Err(seeder.ended().await),
        None => std::future::pending().await,
    }
}

async fn start(args: &Args, context: &Context) -> Result<Testnet, Failure> {
    if !context.flags.bind.is_empty() {
        return Err(Failure::usage("a testnet lives on loopback and takes no --bind")
            .hint("--port N is that of its first node, --ipv6-only moves it to ::1"));
    }
    allow_files(u64::from(args.nodes) + OTHER_FILES);
    let options = Options {
        nodes: args.nodes as usize,
        seed: args.seed,
        latency: args.latency.0.clone(),
        loss: args.loss,
        ipv4: Ipv4Addr::LOCALHOST,
        ipv6: context.flags.ipv6_only,
        port: context.flags.port.unwrap_or(0),
        config: Options::config_of_one_machine(context.settings.config.clone()),
    };
    let net = Testnet::start(options).await.map_err(explained)?;
    let addr = router(&net)?;
    context.out.say(
        || json!({"event": "bootstrap", "addr": addr.to_string(), "nodes": args.nodes, "seed": args.seed}),
        || format!("bootstrap {addr}"),
    )?;
    Ok(net)
}

/// Announces all of them and goes on doing so until what is returned is dropped.
async fn announce(
    context: &Context,
    net: &Testnet,
    announces: impl Iterator<Item = (Id, Announce)>,
) -> Result<Vec<StandingOrder<Round<AnnounceReport>>>, Failure> {
    let mut standing = Vec::new();
    for ((infohash, announce), node) in announces.zip(net.nodes().iter().rev().cycle()) {
        let mut announcing = node.announce(infohash, announce).await?;
        let round = announcing.next().await.ok_or(Error::Stopped)?;
        if round.result.stored.is_empty() {
            tracing::warn!(%infohash, "no node has stored an announce yet; trying on");
        } else {
            let mut peer = node.local_addrs().next().ok_or(Error::Stopped)?;
            if !announce.implied {
                peer.set_port(announce.port);
            }
            context.out.say(
                || json!({"event": "announced", "infohash": infohash.to_string(), "peer": peer.to_string()}),
                || format!("announced {infohash} {peer}"),
            )?;
        }
        standing.push(announcing);
    }
    Ok(standing)
}

/// Shows how to find what was announced, or how to announce something. The state is left out of it, whose
/// nodes live on the internet.
fn show_command(
    args: &Args,
    context: &Context,
    (net, seeding): (&Testnet, Option<Announcement>),
) -> Result<(), Failure> {
    let addr = router(net)?;
    let announced = args.announce.first().map(|announcement| announcement.infohash);
    let announced = announced.or_else(|| (args.swarm > 0).then(|| swarm(args.seed)));
    let verb = match (seeding, announced) {
        // Not where the seeder has its data.
        (Some(Announcement { infohash, .. }), _) => format!("btfetch {infohash} -o from-testnet"),
        (None, Some(infohash)) => format!("btdht get-peers {infohash}"),
        (None, None) => format!("btdht announce {} --peer-port 6881", swarm(args.seed)),
    };
    // Brackets mean something to a shell.
    let addr = if addr.is_ipv6() { format!("'{addr}'") } else { addr.to_string() };
    let command = format!("{verb} --bootstrap {addr} --allow-local --no-state");
    Ok(context.out.say(|| json!({"event": "ready", "command": command}), || command.clone())?)
}

fn router(net: &Testnet) -> Result<SocketAddr, Failure> {
    Ok(net.bootstrap().next().ok_or(Error::Stopped)?)
}

/// The infohash of the nodes' own swarm.
fn swarm(seed: u64) -> Id {
    Rng::new(Seeds::from_u64(seed).derive("swarm")).id()
}

/// Raises the limit of open files as far as this process may, if it is too low.
fn allow_files(wanted: u64) {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit, setrlimit};

        let mut limit = getrlimit(Resource::Nofile);
        if limit.current.is_some_and(|current| current < wanted) {
            limit.current = Some(limit.maximum.map_or(wanted, |most| most.min(wanted)));
            // Whether it is enough shows when the sockets are bound.
            let _ = setrlimit(Resource::Nofile, limit);
        }
    }
    #[cfg(not(unix))]
    let _ = wanted;
}

fn explained(error: Error) -> Failure {
    let is_limit = matches!(&error, Error::Bind { source, .. } if is_out_of_files(source));
    let failure = Failure::from(error);
    if is_limit { failure.hint("each node takes a file descriptor: see `ulimit -n`") } else { failure }
}

fn is_out_of_files(error: &std::io::Error) -> bool {
    #[cfg(unix)]
    return error.raw_os_error() == Some(libc::EMFILE);
    #[cfg(not(unix))]
    return {
        let _ = error;
        false
    };
}

fn latency(text: &str) -> Result<Latency, String> {
    let bound = |text: &str| {
        let ms = text.parse().ok().filter(|ms| *ms <= MAX_LATENCY);
        ms.ok_or_else(|| format!("expected MS or MS..MS, each at most {MAX_LATENCY}"))
    };
    let (least, most) = text.split_once("..").unwrap_or((text, text));
    let (least, most) = (bound(least)?, bound(most)?);
    if least > most {
        return Err("the first bound is the lower one".into());
    }
    let ms = |ms: u32| Duration::from_millis(ms.into());
    Ok(Latency(ms(least)..=ms(most)))
}

fn announcement(text: &str) -> Result<Announcement, String> {
    let (infohash, port) = text.rsplit_once(':').ok_or("expected INFOHASH:PORT")?;
    let port = port.parse().ok().filter(|port| *port != 0);
    let port = port.ok_or("expected a port from 1 to 65535 behind the infohash")?;
    Ok(Announcement { infohash: context::infohash(infohash)?, port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_is_one_number_or_two_in_order() {
        let ms = Duration::from_millis;
        assert_eq!(latency("0").unwrap().0, ms(0)..=ms(0));
        assert_eq!(latency("20..80").unwrap().0, ms(20)..=ms(80));
        for bad in ["", "-1", "80..20", "1...2", "2001", "20..", "1.5", "20ms"] {
            assert!(latency(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_announcement_is_an_infohash_or_a_magnet_and_a_port() {
        let hex = "08ada5a7a6183aae1e09d831df6748d566095a10";
        for text in [format!("{hex}:6881"), format!("magnet:?xt=urn:btih:{hex}:6881")] {
            let Announcement { infohash, port } = announcement(&text).unwrap();
            assert_eq!((infohash.to_string().as_str(), port), (hex, 6881));
        }
        for bad in [hex, "6881", &format!("{hex}:0"), &format!("{hex}:65536"), "ab:1"] {
            assert!(announcement(bad).is_err(), "{bad}");
        }
    }
}
