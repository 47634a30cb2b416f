//! `btfetch info`: what a torrent or magnet holds. Opens no network connection.

use btfetch::metainfo::{File, Info, Metainfo};
use data_encoding::HEXLOWER;
use krpc::magnet::Magnet;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::output::Output;
use crate::sources::{Named, read_torrent};
use crate::text::{escape, escape_bytes, escape_path, size};

/// Shows what a .torrent or magnet holds; opens no network connection
///
/// Examples: btfetch info file.torrent; btfetch info --json 'magnet:?xt=urn:btih:...'
///
/// Exit code 2 and the reason when it is invalid.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A .torrent file, a magnet link or an infohash
    #[arg(value_name = "TORRENT or MAGNET")]
    source: String,
}

/// Runs the verb.
pub(crate) fn run(args: &Args, output: Output) -> Result<(), Failure> {
    match Named::parse(&args.source)? {
        Named::File(path) => show_torrent(&read_torrent(&path)?, output),
        Named::Magnet(magnet) => show_magnet(&magnet, output),
        Named::Url(_) => {
            Err(Failure::usage("`info` opens no network connection").hint("download the .torrent first"))
        }
    }
}

fn show_torrent(torrent: &Metainfo, output: Output) -> Result<(), Failure> {
    output.event(|| describe(torrent))?;
    let info = &torrent.info;
    output.plain(format!("name           {}", escape_bytes(info.name())))?;
    show_hashes(info.hash().v1.as_ref().map(|id| id.as_bytes().as_slice()), info.hash().v2.as_ref(), output)?;
    output.plain(format!("length         {} ({})", info.total(), size(info.total())))?;
    output.plain(format!("pieces         {} of {}", info.pieces(), size(u64::from(info.piece_length()))))?;
    output.plain(format!("private        {}", if info.is_private() { "yes" } else { "no" }))?;
    for (tier, trackers) in torrent.trackers.iter().enumerate() {
        for tracker in trackers {
            output.plain(format!("tracker {tier:<6} {}", escape(tracker)))?;
        }
    }
    for seed in torrent.web_seeds.iter().chain(&torrent.http_seeds) {
        output.plain(format!("web seed       {}", escape(seed)))?;
    }
    for (host, port) in &torrent.nodes {
        output.plain(format!("node           {}:{port}", escape(host)))?;
    }
    if let Some(comment) = &torrent.comment {
        output.plain(format!("comment        {}", escape_bytes(comment)))?;
    }
    if let Some(program) = &torrent.created_by {
        output.plain(format!("created by     {}", escape_bytes(program)))?;
    }
    if let Some(date) = torrent.creation_date {
        output.plain(format!("created        {date} (seconds since 1970)"))?;
    }
    list_files(info, output)
}

/// Lists the files with where they lie: the plain form of `info` and of `--list`.
pub(crate) fn list_files(info: &Info, output: Output) -> Result<(), Failure> {
    for file in info.files().filter(|file| !file.extent.pad) {
        let range = file.piece_range();
        let pieces = if range.is_empty() { "-".into() } else { format!("{}-{}", range.start, range.end - 1) };
        let at = file.extent.offset;
        let line = format!(
            "file {:<9} {}  {} bytes at {at}, pieces {pieces}",
            file.index,
            escape_path(&file.path()),
            file.len()
        );
        output.plain(line)?;
    }
    Ok(())
}

/// The JSON form of a torrent.
pub(crate) fn describe(torrent: &Metainfo) -> Value {
    let info = &torrent.info;
    json!({
        "name": escape_bytes(info.name()),
        "infohash_v1": info.hash().v1.map(|id| id.to_string()),
        "infohash_v2": info.hash().v2.map(|hash| HEXLOWER.encode(&hash)),
        "length": info.total(),
        "piece_length": info.piece_length(),
        "pieces": info.pieces(),
        "private": info.is_private(),
        "trackers": torrent.trackers,
        "web_seeds": torrent.web_seeds.iter().chain(&torrent.http_seeds).collect::<Vec<_>>(),
        "nodes": torrent.nodes.iter().map(|(host, port)| format!("{host}:{port}")).collect::<Vec<_>>(),
        "comment": torrent.comment.as_deref().map(escape_bytes),
        "created_by": torrent.created_by.as_deref().map(escape_bytes),
        "creation_date": torrent.creation_date,
        "files": info.files().filter(|file| !file.extent.pad).map(describe_file).collect::<Vec<_>>(),
    })
}

fn describe_file(file: File<'_>) -> Value {
    let range = file.piece_range();
    let last = range.end.checked_sub(1).filter(|last| *last >= range.start);
    json!({
        "path": escape_path(&file.path()),
        "length": file.len(),
        "offset_start": file.extent.offset,
        "piece_index_range": last.map(|last| [range.start, last]),
    })
}

fn show_magnet(magnet: &Magnet, output: Output) -> Result<(), Failure> {
    let peers = || magnet.peers.iter().map(|peer| format!("{}:{}", peer.host, peer.port));
    output.event(|| {
        json!({
            "name": magnet.name.as_deref().map(escape),
            "infohash_v1": magnet.infohash_v1.map(|id| id.to_string()),
            "infohash_v2": magnet.infohash_v2.map(|hash| HEXLOWER.encode(&hash)),
            "public_key": magnet.mutable.as_ref().map(|key| HEXLOWER.encode(&key.public_key)),
            "salt": magnet.mutable.as_ref().map(|key| HEXLOWER.encode(&key.salt)),
            "trackers": magnet.trackers,
            "peers": peers().collect::<Vec<_>>(),
        })
    })?;
    if let Some(name) = &magnet.name {
        output.plain(format!("name           {}", escape(name)))?;
    }
    let v1 = magnet.infohash_v1.as_ref().map(|id| id.as_bytes().as_slice());
    show_hashes(v1, magnet.infohash_v2.as_ref(), output)?;
    if let Some(key) = &magnet.mutable {
        output.plain(format!("public key     {}", HEXLOWER.encode(&key.public_key)))?;
        if !key.salt.is_empty() {
            output.plain(format!("salt           hex:{}", HEXLOWER.encode(&key.salt)))?;
        }
    }
    for tracker in &magnet.trackers {
        output.plain(format!("tracker        {}", escape(tracker)))?;
    }
    for peer in peers() {
        output.plain(format!("peer           {}", escape(&peer)))?;
    }
    Ok(())
}

fn show_hashes(v1: Option<&[u8]>, v2: Option<&[u8; 32]>, output: Output) -> Result<(), Failure> {
    for (version, hash) in [("v1", v1), ("v2", v2.map(<[u8; 32]>::as_slice))] {
        if let Some(hash) = hash {
            output.plain(format!("infohash {version}    {}", HEXLOWER.encode(hash)))?;
        }
    }
    Ok(())
}
