//! One torrent: the flags of a download, and how it goes to the end that is wanted.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use btfetch::engine::http::resolve;
use btfetch::engine::{AddError, AddOptions, Preallocation, Select, Source, Torrent};
use btfetch::metainfo::{Info, Metainfo};
use btfetch::swarm::{Limits, SeedChoking};
use serde_json::json;

use crate::create::{torrent_name, write_torrent};
use crate::failure::{Exit, Failure};
use crate::info::{describe, list_files};
use crate::output::Output;
use crate::run::{Running, Wants};
use crate::select::{Choice, Priority, Selection};
use crate::text::{escape, escape_path, parse_rate};
use crate::watch::{SeedLimits, Until, Watch};

/// Flags of a download.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {
    /// Magnet links, .torrent files, http(s) URLs of .torrent files, or infohashes
    #[arg(value_name = "SOURCE")]
    pub(crate) sources: Vec<String>,

    /// Folder to download into
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub(crate) output: PathBuf,

    #[command(flatten)]
    pub(crate) transfer: Transfer,

    /// Show the files of the torrent and end
    #[arg(long)]
    list: bool,

    /// Write <name>.torrent into the folder and end
    #[arg(long)]
    metadata_only: bool,

    /// Fetch only these files: indices such as 0,2-4 (see --list) or a glob such as '*.flac'. What their
    /// first and last pieces hold of other files is kept in a hidden file, until those are wanted too
    #[arg(long, value_name = "LIST", value_parser = Selection::parse)]
    select: Option<Selection>,

    /// Weight of files: 0 skips them, 6 is fetched twice as often as 3, and 1 is what all others have;
    /// a list as of --select or a glob. Repeatable, the last one that fits holds
    #[arg(long, value_name = "GLOB=N", value_parser = Priority::parse)]
    prio: Vec<Priority>,

    /// Go on until a signal and download each newer version of a torrent that is named by a key
    /// (xs=urn:btpk, BEP 46); the DHT is asked every hour. A version that is complete is seeded as long
    /// as --seed, --seed-ratio or --seed-time say and the next one is not there. --timeout holds until a
    /// version is complete, and not while the next one is waited for. Of links that come to the same
    /// torrent one downloads it, and a key that is named more than once is followed once
    #[arg(long, conflicts_with_all = ["list", "metadata_only"])]
    pub(crate) follow: bool,

    /// Fetch pieces in order
    #[arg(long)]
    sequential: bool,

    /// How files take their space: `none` lets them grow, `sparse` gives them their length but no space,
    /// `full` takes all of it before anything is downloaded and ends with exit 5 where there is too little
    #[arg(long, value_name = "HOW", default_value = "sparse")]
    preallocate: Space,

    /// Go on seeding when complete, until a signal
    #[arg(long)]
    seed: bool,

    /// Go on seeding until this many times the size was sent
    #[arg(long, value_name = "R")]
    seed_ratio: Option<f64>,

    /// Go on seeding for so many minutes
    #[arg(long, value_name = "MIN")]
    seed_time: Option<f64>,
}

/// What `--preallocate` takes.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Space {
    /// Files grow as they are written.
    None,
    /// They have their length when they are made, and take space as they are written.
    Sparse,
    /// The space of all wanted files is taken at the beginning.
    Full,
}

impl From<Space> for Preallocation {
    fn from(space: Space) -> Self {
        match space {
            Space::None => Self::None,
            Space::Sparse => Self::Sparse,
            Space::Full => Self::Full,
        }
    }
}

/// Flags of everything that transfers.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Transfer {
    /// A peer to connect to; repeatable
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) peer: Vec<String>,

    /// A further tracker; repeatable
    #[arg(long, value_name = "URL")]
    pub(crate) tracker: Vec<String>,

    /// Ask none of the trackers that a magnet or .torrent names, only those of --tracker
    #[arg(long)]
    pub(crate) no_trackers: bool,

    /// Do not use the DHT
    #[arg(long)]
    pub(crate) no_dht: bool,

    /// Do not exchange peers with peers (it is not done yet)
    #[arg(long)]
    pub(crate) no_pex: bool,

    /// Do not look for peers on the local network (it is not done yet)
    #[arg(long)]
    pub(crate) no_lsd: bool,

    /// Do not use uTP (it is not used yet)
    #[arg(long)]
    pub(crate) no_utp: bool,

    /// Do not use TCP (not yet: there is nothing else)
    #[arg(long)]
    pub(crate) no_tcp: bool,

    /// Obfuscated connections; `require` is not there yet, the others mean none
    #[arg(long, value_name = "HOW", default_value = "prefer")]
    pub(crate) encryption: Encryption,

    /// Most bytes per second received: 5M, 200k
    #[arg(long, value_name = "RATE", value_parser = parse_rate, default_value = "0", hide_default_value = true)]
    pub(crate) down: u64,

    /// Most bytes per second sent
    #[arg(long, value_name = "RATE", value_parser = parse_rate, default_value = "0", hide_default_value = true)]
    pub(crate) up: u64,

    /// Most connections per torrent
    #[arg(long, value_name = "N")]
    pub(crate) max_peers: Option<usize>,

    /// Whom to serve once complete
    #[arg(long, value_name = "RULE", default_value = "round-robin")]
    pub(crate) seed_choking: Serves,

    /// Files that each torrent keeps open: what descriptors are enough for.
    #[arg(skip)]
    pub(crate) max_open_files: Option<NonZeroUsize>,
}

/// What `--seed-choking` takes.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Serves {
    /// Everybody in turns.
    RoundRobin,
    /// Those that take it fastest, and one by luck.
    FastestUpload,
    /// Those that have few pieces and those that have nearly all, and one by luck.
    AntiLeech,
}

impl From<Serves> for SeedChoking {
    fn from(serves: Serves) -> Self {
        match serves {
            Serves::RoundRobin => Self::RoundRobin,
            Serves::FastestUpload => Self::FastestUpload,
            Serves::AntiLeech => Self::AntiLeech,
        }
    }
}

/// What `--encryption` takes.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encryption {
    /// Where the peer can.
    Prefer,
    /// Always.
    Require,
    /// Never.
    Off,
}

impl Transfer {
    /// The rules of a swarm.
    pub(crate) fn limits(&self) -> Limits {
        Limits { seed_choking: self.seed_choking.into(), ..Limits::default() }
    }

    /// Refuses what cannot be had yet rather than doing something else.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.no_tcp {
            return Err(Failure::not_yet("transfer without TCP"));
        }
        if self.encryption == Encryption::Require {
            return Err(Failure::not_yet("obfuscation of connections"));
        }
        Ok(())
    }

    /// What these flags want of the network.
    pub(crate) fn wants(&self) -> Wants {
        Wants { dht: !self.no_dht, down: self.down, up: self.up }
    }

    /// Resolves the peers that the user named. Those that do not resolve are told and left out.
    pub(crate) async fn peers(&self) -> Result<Vec<SocketAddr>, Failure> {
        let mut peers = Vec::new();
        for peer in &self.peer {
            let (host, port) = host_port(peer)
                .ok_or_else(|| Failure::usage(format!("--peer `{}`: expected HOST:PORT", escape(peer))))?;
            match resolve(host, port, true).await {
                Ok(addrs) => peers.extend(addrs),
                Err(error) => tracing::warn!("--peer {}: {error}", escape(peer)),
            }
        }
        Ok(peers)
    }
}

/// The parts of `HOST:PORT`.
pub(crate) fn host_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok()?;
    (!host.is_empty() && port != 0).then_some((host, port))
}

impl From<AddError> for Failure {
    fn from(error: AddError) -> Self {
        Self::failed(error.to_string())
    }
}

/// What all downloads of a run have in common.
#[derive(Clone, Copy)]
pub(crate) struct Fetch<'a> {
    pub(crate) running: &'a Running,
    /// Asked for every torrent.
    pub(crate) peers: &'a [SocketAddr],
    pub(crate) args: &'a Args,
    pub(crate) timeout: Option<Duration>,
    pub(crate) output: Output,
}

impl<'a> Fetch<'a> {
    /// Adds a torrent: its handle, and what follows it to the end that is wanted.
    pub(crate) async fn add(
        self,
        source: Source,
    ) -> Result<(Torrent, impl Future<Output = Result<(), Failure>> + use<'a>), AddError> {
        let Self { running, peers, args, timeout, output } = self;
        let trackers = trackers_of(&source, &args.transfer.tracker);
        let options = AddOptions {
            output: args.output.clone(),
            peers: peers.to_vec(),
            trackers: args.transfer.tracker.clone(),
            no_source_trackers: args.transfer.no_trackers,
            max_peers: args.transfer.max_peers,
            max_open_files: args.transfer.max_open_files,
            select: args.choice(),
            sequential: args.sequential,
            preallocation: Some(args.preallocate.into()),
            limits: args.transfer.limits(),
            metadata_only: args.wants_metadata_only(),
            ..AddOptions::default()
        };
        let (torrent, events) = running.session.add_saved(source, options).await?;
        let watch = Watch::new(torrent.clone(), events, args.output.clone(), output);
        Ok((torrent, fetch_one(watch, trackers, args, timeout, output)))
    }
}

async fn fetch_one(
    mut watch: Watch,
    trackers: Vec<Vec<String>>,
    args: &Args,
    timeout: Option<Duration>,
    output: Output,
) -> Result<(), Failure> {
    if args.wants_metadata_only() {
        watch.wait(Until::Metadata, timeout).await?;
        let info = watch.info().expect("it was waited for");
        let torrent = Metainfo { trackers, ..Metainfo::new(Info::clone(info)) };
        return show_metadata(&torrent, args, output);
    }
    watch.wait(Until::Complete, timeout).await?;
    watch.done().await?;
    match args.seed_limits() {
        Some(limits) => watch.seed(limits).await,
        None => Ok(()),
    }
}

impl Args {
    fn choice(&self) -> Select {
        if self.select.is_none() && self.prio.is_empty() {
            return Select::All;
        }
        Select::Matching(Box::new(Choice { select: self.select.clone(), prio: self.prio.clone() }))
    }

    pub(crate) fn wants_metadata_only(&self) -> bool {
        self.list || self.metadata_only
    }

    /// When to stop seeding; `None` when it is not wanted at all.
    fn seed_limits(&self) -> Option<SeedLimits> {
        let time = self
            .seed_time
            .map(|minutes| Duration::try_from_secs_f64(minutes * 60.0).unwrap_or(Duration::MAX));
        let wanted = self.seed || self.seed_ratio.is_some() || time.is_some();
        wanted.then_some(SeedLimits { ratio: self.seed_ratio, time })
    }
}

/// Ends a run of `--list` or `--metadata-only`.
pub(crate) fn show_metadata(torrent: &Metainfo, args: &Args, output: Output) -> Result<(), Failure> {
    if args.list {
        output.event(|| describe(torrent))?;
        return list_files(&torrent.info, output);
    }
    std::fs::create_dir_all(&args.output).map_err(|error| {
        Failure::new(Exit::Disk, format!("making {}: {error}", escape_path(&args.output)))
    })?;
    let path = args.output.join(torrent_name(torrent));
    write_torrent(torrent, &path, true)?;
    output.event(|| json!({"event": "done", "path": escape_path(&path)}))?;
    output.plain(escape_path(&path))
}

/// The trackers that a `.torrent` made of a magnet should name.
fn trackers_of(source: &Source, more: &[String]) -> Vec<Vec<String>> {
    source.trackers().into_iter().chain(more.iter().map(|tracker| vec![tracker.clone()])).collect()
}
