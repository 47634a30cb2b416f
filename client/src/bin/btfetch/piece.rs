//! `btfetch piece`: one piece from one peer.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use btdht::settings::Flags;
use btfetch::engine::http::resolve;
use btfetch::engine::{AddOptions, PieceDownloader, Source};
use btfetch::metainfo::Info;
use btfetch::one_piece::{End, PieceError, PieceEvent, Wanted};
use btfetch::peer::CloseReason;
use btfetch::piece::PieceIndex;
use data_encoding::HEXLOWER;
use krpc::Id;
use krpc::magnet::Magnet;
use serde_json::json;

use crate::create::write_whole;
use crate::failure::{Exit, Failure};
use crate::fetch::host_port;
use crate::output::{Output, write_raw};
use crate::run::{self, Running, Wants};
use crate::signals::Signals;
use crate::sources::read_torrent;
use crate::text::{escape, escape_bytes, escape_path};
use crate::watch::{Until, Watch};

/// How long the peer may give nothing, if the user does not say.
const PATIENCE: Duration = Duration::from_secs(60);

/// Fetches one piece from one peer, verifies it, and writes it to a file or to stdout
///
/// Example: btfetch piece 192.168.1.5:6881 6162636465666768696a30313233343536373839 7 -o piece-7.bin
///
/// Exit code 1 when its bytes are wrong, 4 when the peer cannot be reached, does not have the piece or
/// gives nothing for --timeout (60 seconds if not given), or not the whole metadata within it.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The peer
    #[arg(value_name = "HOST:PORT")]
    peer: String,

    /// The torrent
    #[arg(value_name = "INFOHASH")]
    infohash: String,

    /// The piece, counted from 0
    #[arg(value_name = "INDEX")]
    index: u32,

    /// The .torrent file; without it the peer is asked for what is in it
    #[arg(long, value_name = "FILE")]
    torrent: Option<PathBuf>,

    /// Where the piece goes; stdout if not given, which --json needs for itself
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Replace an existing FILE
    #[arg(long)]
    force: bool,
}

/// Runs the verb.
pub(crate) fn run(flags: &Flags, args: Args, output: Output) -> Result<(), Failure> {
    if output.json && args.output.is_none() {
        return Err(
            Failure::usage("--json writes to stdout, and so does the piece").hint("name a file with -o")
        );
    }
    let peer = host_port(&args.peer)
        .ok_or_else(|| Failure::usage(format!("`{}`: expected HOST:PORT", escape(&args.peer))))?;
    let infohash: Id = args.infohash.parse().map_err(|_| {
        let shown = escape(&args.infohash);
        Failure::usage(format!("`{shown}` is not an infohash: expected 40 hexadecimal or 32 base32 digits"))
    })?;
    let known = args.torrent.as_deref().map(read_torrent).transpose()?.map(|torrent| torrent.info);
    if let Some(info) = &known {
        if info.hash().v1 != Some(infohash) {
            return Err(Failure::usage("the .torrent is not that of the infohash"));
        }
        wanted(info, args.index)?;
    }
    // Before the piece is fetched, which would be in vain.
    if let Some(path) = args.output.as_deref().filter(|path| !args.force && path.exists()) {
        return Err(Failure::failed(format!("{} exists", escape_path(path))).hint("--force replaces it"));
    }
    let settings = run::settings(flags)?;
    let patience = flags.timeout.unwrap_or(PATIENCE);
    run::block_on(async {
        let mut signals = Signals::new()?;
        let running = run::start(&settings, Wants { dht: false, down: 0, up: 0 })?;
        let piece = Box::pin(async {
            let peers = resolve(peer.0, peer.1, true).await;
            let peers = peers
                .map_err(|error| Failure::new(Exit::Nothing, format!("{}: {error}", escape(&args.peer))))?;
            let info = match known {
                Some(info) => info,
                None => metadata(&running, infohash, &peers, patience, output).await?,
            };
            let bytes = fetch(&running, infohash, &info, &args, &peers, patience, output).await?;
            write(&bytes, &args, output)
        });
        let result = tokio::select! {
            result = piece => result,
            exit = signals.next() => Err(Failure::quiet(exit)),
        };
        tokio::select! {
            () = running.shutdown() => result,
            exit = signals.next() => Err(Failure::quiet(exit)),
        }
    })
}

/// The piece of this index.
fn wanted(info: &Info, index: u32) -> Result<Wanted, Failure> {
    if info.is_v2_only() {
        return Err(Failure::not_yet("download of a torrent of version 2 alone"));
    }
    Wanted::of(info, PieceIndex(index)).ok_or_else(|| {
        Failure::usage(format!(
            "there is no piece {index}: the torrent has {}, counted from 0",
            info.pieces()
        ))
    })
}

/// What the torrent is, from that peer (BEP 9).
async fn metadata(
    running: &Running,
    infohash: Id,
    peers: &[SocketAddr],
    patience: Duration,
    output: Output,
) -> Result<Info, Failure> {
    let options = AddOptions { peers: peers.to_vec(), metadata_only: true, ..AddOptions::default() };
    let added = running.session.add(Source::Magnet(Box::new(Magnet::new(infohash))), options);
    let (torrent, events) = added.map_err(|error| Failure::failed(error.to_string()))?;
    let mut watch = Watch::new(torrent.clone(), events, PathBuf::new(), output);
    let distinct: BTreeSet<_> = peers.iter().collect();
    watch.wait(Until::MetadataOf(distinct.len()), Some(patience)).await?;
    let info = Info::clone(watch.info().expect("it was waited for"));
    torrent.close().await;
    Ok(info)
}

/// The piece from the first address of the peer that can be connected to.
async fn fetch(
    running: &Running,
    infohash: Id,
    info: &Info,
    args: &Args,
    peers: &[SocketAddr],
    patience: Duration,
    output: Output,
) -> Result<Vec<u8>, Failure> {
    let wanted = wanted(info, args.index)?;
    let mut last = Failure::new(Exit::Nothing, format!("{}: no address", escape(&args.peer)));
    for &addr in peers {
        let download = PieceDownloader::new(addr, infohash, wanted).shape(info.shape()).patience(patience);
        let spawned = download.spawn(&running.session);
        let (_, mut events) = spawned.map_err(|error| Failure::failed(error.to_string()))?;
        loop {
            match events.next().await {
                Some(PieceEvent::Complete { bytes, .. }) => return Ok(bytes),
                Some(PieceEvent::Failed(_, error)) => return Err(failed(addr, args.index, error)),
                Some(PieceEvent::Ended(end)) => {
                    last = ended(addr, &end);
                    if !matches!(end, End::Unreachable(_)) {
                        return Err(last);
                    }
                    break;
                }
                Some(event) => show(addr, &event, wanted, output)?,
                None => return Err(Failure::failed(format!("{addr}: the download has ended"))),
            }
        }
    }
    Err(last)
}

fn show(addr: SocketAddr, event: &PieceEvent, wanted: Wanted, output: Output) -> Result<(), Failure> {
    let addr = addr.to_string();
    match event {
        PieceEvent::Connected(id) => {
            output.say(format!("connected to {addr} ({})", escape_bytes(&id[..8])));
            output.event(|| json!({"event": "connected", "addr": addr, "peer_id": HEXLOWER.encode(id)}))
        }
        PieceEvent::Choked => output.event(|| json!({"event": "choked", "addr": addr})),
        PieceEvent::Unchoked => output.event(|| json!({"event": "unchoked", "addr": addr})),
        PieceEvent::Block { block, done } => output.event(|| {
            json!({"event": "block", "begin": block.begin, "length": block.len, "done": done, "size": wanted.size})
        }),
        PieceEvent::Complete { .. } | PieceEvent::Failed(..) | PieceEvent::Ended(_) => Ok(()),
    }
}

fn failed(addr: SocketAddr, index: u32, error: PieceError) -> Failure {
    let exit = if error == PieceError::WrongHash { Exit::Failed } else { Exit::Nothing };
    Failure::new(exit, format!("piece {index} of {addr}: {error}"))
}

fn ended(addr: SocketAddr, end: &End) -> Failure {
    let exit = match end {
        End::Unreachable(_)
        | End::Closed(
            CloseReason::HandshakeTimeout | CloseReason::BadHandshake | CloseReason::Disconnected,
        ) => Exit::Nothing,
        _ => Exit::Failed,
    };
    Failure::new(exit, format!("{addr}: {end}"))
}

fn write(bytes: &[u8], args: &Args, output: Output) -> Result<(), Failure> {
    let Some(path) = &args.output else { return write_raw(&[bytes]) };
    write_whole(bytes, path, args.force)?;
    output.event(|| {
        json!({
            "event": "done", "index": args.index, "size": bytes.len(), "verified": true,
            "path": escape_path(path),
        })
    })?;
    output.plain(escape_path(path))
}
