//! `btfetch seed`: checks the data of a torrent and gives it to others.

use std::path::PathBuf;
use std::time::Duration;

use btdht::settings::Flags;
use btfetch::engine::{AddOptions, Share, Source};
use btfetch::swarm::Limits;
use serde_json::json;

use crate::descriptors;
use crate::failure::{Exit, Failure};
use crate::fetch::Transfer;
use crate::output::Output;
use crate::run::{self, Running};
use crate::signals::Signals;
use crate::sources::read_torrent;
use crate::watch::{SeedLimits, Until, Watch};

/// Checks the data of a torrent and seeds it, until a signal or a limit
///
/// Example: btfetch seed album.torrent -o ~/Music
///
/// The data is left as it is. Beside it a hidden file says what was found, where that can be written, so
/// that the next run need not look again. When pieces are missing or wrong it says so and ends; `btfetch TORRENT -o DIR`
/// fetches them.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The .torrent file
    #[arg(value_name = "TORRENT")]
    torrent: PathBuf,

    /// The folder that holds the data
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    output: PathBuf,

    #[command(flatten)]
    transfer: Transfer,

    /// Give each piece away as few times as possible and let others pass it on (BEP 16): for the first
    /// seed of a torrent
    #[arg(long)]
    super_seed: bool,

    /// Seed until this many times the size was sent
    #[arg(long, value_name = "R")]
    seed_ratio: Option<f64>,

    /// Seed for so many minutes
    #[arg(long, value_name = "MIN")]
    seed_time: Option<f64>,
}

/// Runs the verb.
pub(crate) fn run(flags: &Flags, mut args: Args, output: Output) -> Result<(), Failure> {
    args.transfer.check()?;
    let torrent = read_torrent(&args.torrent)?;
    let settings = run::settings(flags)?;
    run::block_on(async {
        let shares = descriptors::shares(args.transfer.max_peers, 1);
        (args.transfer.max_peers, args.transfer.max_open_files) = (shares.0, Some(shares.1));
        let mut signals = Signals::new()?;
        let running = run::start(&settings, args.transfer.wants())?;
        for addr in running.session.local_addrs() {
            output.event(|| json!({"event": "listening", "addr": addr.to_string()}))?;
            output.plain(format!("listening {addr}"))?;
        }
        let seed =
            Box::pin(seed(&running, Source::Metainfo(Box::new(torrent)), &args, flags.timeout, output));
        let result = tokio::select! {
            result = seed => result,
            exit = signals.next() => Err(Failure::quiet(exit)),
        };
        run::end(result, running.shutdown(), signals.next()).await
    })
}

async fn seed(
    running: &Running,
    source: Source,
    args: &Args,
    timeout: Option<Duration>,
    output: Output,
) -> Result<(), Failure> {
    let options = AddOptions {
        output: args.output.clone(),
        peers: args.transfer.peers().await?,
        trackers: args.transfer.tracker.clone(),
        no_source_trackers: args.transfer.no_trackers,
        max_peers: args.transfer.max_peers,
        max_open_files: args.transfer.max_open_files,
        share: Share::SeedOnly,
        limits: Limits { super_seed: args.super_seed, ..args.transfer.limits() },
        ..AddOptions::default()
    };
    let added = running.session.add(source, options);
    let (torrent, events) = added.map_err(|error| Failure::new(Exit::Failed, error.to_string()))?;
    let mut watch = Watch::new(torrent, events, args.output.clone(), output);
    watch.wait(Until::Complete, timeout).await?;
    watch.done().await?;
    let time = args.seed_time.and_then(|minutes| Duration::try_from_secs_f64(minutes * 60.0).ok());
    watch.seed(SeedLimits { ratio: args.seed_ratio, time }).await
}
