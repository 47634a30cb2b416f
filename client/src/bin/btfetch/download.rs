//! What `btfetch` does without a verb: all that was named is fetched side by side.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::pin::Pin;
use std::time::Duration;

use btdht::settings::Flags;
use btfetch::engine::Source;
use btfetch::engine::http::{HttpError, Trust};
use btfetch::metainfo::Metainfo;
use data_encoding::HEXLOWER;
use futures_util::TryStreamExt as _;
use futures_util::stream::FuturesUnordered;
use krpc::Id;
use krpc::magnet::Magnet;
use serde_json::json;

use crate::claims::Claims;
use crate::descriptors;
use crate::failure::{Exit, Failure};
use crate::fetch::{Args, Fetch, show_metadata};
use crate::follow::{follow, goes_by_key, newest};
use crate::output::Output;
use crate::run::{self, Running};
use crate::signals::Signals;
use crate::sources::{MAX_TORRENT, Named, parse_torrent, read_torrent};
use crate::text::escape;

/// Sources of one run.
const MAX_SOURCES: usize = 1000;

/// Runs the download.
pub(crate) fn run(flags: &Flags, mut args: Args, output: Output) -> Result<(), Failure> {
    if args.sources.is_empty() {
        return Err(Failure::usage("no source given").hint("see btfetch --help"));
    }
    if args.sources.len() > MAX_SOURCES {
        return Err(Failure::usage(format!("more than {MAX_SOURCES} sources")));
    }
    let named = args.sources.iter().map(|source| Named::parse(source)).collect::<Result<Vec<_>, _>>()?;
    args.transfer.check()?;
    // Files are read and checked before anything is opened.
    let mut torrents = Vec::new();
    for source in named {
        torrents.push(match source {
            Named::Magnet(magnet) if goes_by_key(&magnet, &args) => Wanted::Key(magnet),
            Named::Magnet(magnet) => Wanted::Source(Box::new(Source::Magnet(magnet))),
            Named::File(path) => Wanted::Source(Box::new(Source::Metainfo(Box::new(read_torrent(&path)?)))),
            Named::Url(url) => Wanted::Url(url),
        });
    }
    let by_key = torrents.iter().filter(|wanted| matches!(wanted, Wanted::Key(_))).count();
    if by_key > 0 && args.transfer.no_dht {
        let message = "what a key (xs=urn:btpk) stands for is found through the DHT";
        return Err(Failure::usage(message).hint("leave --no-dht out"));
    }
    if args.follow && by_key < torrents.len() {
        return Err(Failure::usage("--follow is for magnet links that name a key (xs=urn:btpk)"));
    }
    let settings = run::settings(flags)?;
    run::block_on(async {
        let shares = descriptors::shares(args.transfer.max_peers, torrents.len());
        (args.transfer.max_peers, args.transfer.max_open_files) = (shares.0, Some(shares.1));
        let mut signals = Signals::new()?;
        let running = run::start(&settings, args.transfer.wants())?;
        let fetch = Box::pin(fetch_all(&running, torrents, &args, flags.timeout, output));
        let result = tokio::select! {
            result = fetch => result,
            exit = signals.next() => Err(Failure::quiet(exit)),
        };
        run::end(result, running.shutdown(), signals.next()).await
    })
}

/// A download on its way.
type Download<'a> = Pin<Box<dyn Future<Output = Result<(), Failure>> + 'a>>;

/// A source whose `.torrent` or infohash may have to be fetched first.
enum Wanted {
    Source(Box<Source>),
    Key(Box<Magnet>),
    Url(String),
}

/// Runs all downloads side by side. The first failure ends the run; what the others have is saved on
/// the way out.
async fn fetch_all(
    running: &Running,
    wanted: Vec<Wanted>,
    args: &Args,
    timeout: Option<Duration>,
    output: Output,
) -> Result<(), Failure> {
    let peers = args.transfer.peers().await?;
    let run = Fetch { running, peers: &peers, args, timeout, output };
    let (met, claims) = (Met::new(args, output), Claims::default());
    let mut downloads: Vec<Download<'_>> = Vec::new();
    for wanted in wanted {
        let source = match wanted {
            Wanted::Source(source) => *source,
            Wanted::Key(magnet) => {
                if met.is_new_key(&magnet)? {
                    downloads.push(Box::pin(fetch_key(run, *magnet, &met, &claims)));
                }
                continue;
            }
            Wanted::Url(url) => Source::Metainfo(Box::new(fetch_torrent(running, &url).await?)),
        };
        if let Some(infohash) = infohash(&source)
            && !met.is_new_torrent(infohash)?
        {
            continue;
        }
        if let (Source::Metainfo(torrent), true) = (&source, args.wants_metadata_only()) {
            show_metadata(torrent, args, output)?;
            continue;
        }
        let (_, download) = run.add(source).await?;
        downloads.push(Box::pin(download));
    }
    // Not `try_join_all`, which tells a failure of more than 30 only after all before it have ended.
    downloads.into_iter().collect::<FuturesUnordered<_>>().try_collect().await
}

/// Downloads what a key stands for: now, or now and later.
async fn fetch_key(run: Fetch<'_>, magnet: Magnet, met: &Met, claims: &Claims) -> Result<(), Failure> {
    if run.args.follow {
        return follow(run, claims, magnet).await;
    }
    let (version, _put_again) = newest(run, &magnet).await?;
    if !met.is_new_torrent(version.infohash)? {
        return Ok(());
    }
    let (_, download) = run.add(Source::Magnet(Box::new(version.magnet))).await?;
    download.await
}

/// What the sources of a run were or came to so far. What comes again is told, and is fetched once.
struct Met {
    torrents: RefCell<BTreeSet<Id>>,
    /// Public keys and salts.
    keys: RefCell<BTreeSet<([u8; 32], Vec<u8>)>>,
    /// What is done once.
    done: &'static str,
    output: Output,
}

impl Met {
    fn new(args: &Args, output: Output) -> Self {
        let done = if args.follow { "followed" } else { "fetched" };
        Self { torrents: RefCell::default(), keys: RefCell::default(), done, output }
    }

    fn is_new_torrent(&self, infohash: Id) -> Result<bool, Failure> {
        let new = self.torrents.borrow_mut().insert(infohash);
        self.tell(new, || infohash.to_string())
    }

    /// Two that follow one key would write two of its versions into the same files at a time.
    fn is_new_key(&self, magnet: &Magnet) -> Result<bool, Failure> {
        let Some(key) = &magnet.mutable else { return Ok(true) };
        let new = self.keys.borrow_mut().insert((key.public_key, key.salt.clone()));
        self.tell(new, || HEXLOWER.encode(&key.public_key))
    }

    fn tell(&self, new: bool, what: impl FnOnce() -> String) -> Result<bool, Failure> {
        if !new {
            let message = format!("{} is named more than once and {} once", what(), self.done);
            self.output.event(|| json!({"event": "warning", "message": message}))?;
            self.output.say(message);
        }
        Ok(new)
    }
}

fn infohash(source: &Source) -> Option<Id> {
    match source {
        Source::Magnet(magnet) => magnet.infohash_v1,
        Source::Metainfo(torrent) => torrent.info.hash().v1,
    }
}

async fn fetch_torrent(running: &Running, url: &str) -> Result<Metainfo, Failure> {
    let bytes = running.session.http().get(url, Trust::User, MAX_TORRENT).await.map_err(|error| {
        let exit = if matches!(error, HttpError::Timeout) { Exit::Nothing } else { Exit::Failed };
        Failure::new(exit, format!("fetching {}: {}", escape(url), escape(&error.to_string())))
    })?;
    parse_torrent(&bytes, url)
}
