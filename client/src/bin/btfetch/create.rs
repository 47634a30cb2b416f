//! `btfetch create`: a torrent of a file or folder. The same input gives the same bytes.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use btfetch::metainfo::Metainfo;
use btfetch::metainfo::create::{CreateError, Options, create};
use serde_json::json;

use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::text::{escape_bytes, escape_path, parse_rate, size};

/// Makes a .torrent of a file or folder
///
/// Example: btfetch create ./album -o album.torrent --tracker udp://tracker.example:6969/announce
///
/// The same files and options give the same bytes: no date is written unless asked for.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The file or folder
    path: PathBuf,

    /// Where to write it [default: <name>.torrent in the current folder]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Tracker; repeatable, each a tier of its own
    #[arg(long, value_name = "URL")]
    tracker: Vec<String>,

    /// Web seed (BEP 19); repeatable
    #[arg(long, value_name = "URL")]
    web_seed: Vec<String>,

    /// Bytes of a piece, a power of two such as 256K or 1M [default: by size]
    #[arg(long, value_name = "SIZE", value_parser = parse_piece_length)]
    piece_length: Option<u32>,

    /// Only its trackers may be asked for peers (BEP 27)
    #[arg(long)]
    private: bool,

    /// Name inside the torrent [default: that of the file or folder]
    #[arg(long)]
    name: Option<String>,

    /// A comment
    #[arg(long)]
    comment: Option<String>,

    /// Write the time of making, in seconds since 1970
    #[arg(long, value_name = "SECONDS")]
    date: Option<i64>,

    /// Replace an existing FILE
    #[arg(long)]
    force: bool,

    /// Version 2 alone (BEP 52; not yet)
    #[arg(long, conflicts_with = "hybrid")]
    v2: bool,

    /// Versions 1 and 2 (BEP 52; not yet)
    #[arg(long)]
    hybrid: bool,
}

/// Runs the verb.
pub(crate) fn run(args: &Args, output: Output) -> Result<(), Failure> {
    if args.v2 || args.hybrid {
        return Err(Failure::not_yet("making torrents of version 2"));
    }
    let options = Options {
        name: args.name.clone().map(String::into_bytes),
        piece_length: args.piece_length,
        trackers: args.tracker.iter().map(|tracker| vec![tracker.clone()]).collect(),
        web_seeds: args.web_seed.clone(),
        private: args.private,
        comment: args.comment.clone(),
        creation_date: args.date,
        ..Options::default()
    };
    let hashed = AtomicU64::new(0);
    let told = AtomicU64::new(0);
    let progress = |bytes| {
        let now = hashed.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if now >> 30 > told.fetch_max(now >> 30, Ordering::Relaxed) {
            output.say(format!("{} hashed", size(now)));
        }
    };
    let created = create(&args.path, &options, &progress).map_err(explain)?;
    for skipped in &created.skipped {
        output.say(format!("left out {}: not a regular file", escape_path(skipped)));
    }
    let torrent = created.metainfo;
    let path = args.output.clone().unwrap_or_else(|| torrent_name(&torrent));
    write_torrent(&torrent, &path, args.force)?;
    let magnet = magnet_of(&torrent);
    output.event(|| {
        json!({
            "event": "done", "path": escape_path(&path), "magnet": magnet,
            "infohash_v1": torrent.info.hash().v1.map(|id| id.to_string()),
        })
    })?;
    output.plain(escape_path(&path))?;
    output.plain(magnet)
}

/// Writes a torrent file; the file is whole or not there.
pub(crate) fn write_torrent(torrent: &Metainfo, path: &Path, replace: bool) -> Result<(), Failure> {
    let mut bytes = Vec::new();
    torrent.write(&mut bytes);
    write_whole(&bytes, path, replace)
}

/// Writes a file that anybody may read; it is whole or not there.
pub(crate) fn write_whole(bytes: &[u8], path: &Path, replace: bool) -> Result<(), Failure> {
    let shown = escape_path(path);
    let refused = |error: std::io::Error| Failure::new(Exit::Disk, format!("writing {shown}: {error}"));
    let folder =
        path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(refused)?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(refused)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        // A temporary file is private; what we write is made to be given away.
        let _ = file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644));
    }
    let kept = if replace { file.persist(path).map(drop) } else { file.persist_noclobber(path).map(drop) };
    kept.map_err(|error| match error.error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            Failure::failed(format!("{shown} exists")).hint("--force replaces it")
        }
        _ => refused(error.error),
    })
}

/// `<name>.torrent`; the name was checked to be one path component.
pub(crate) fn torrent_name(torrent: &Metainfo) -> PathBuf {
    use std::os::unix::ffi::OsStrExt as _;
    let mut name = std::ffi::OsString::from(std::ffi::OsStr::from_bytes(torrent.info.name()));
    name.push(".torrent");
    name.into()
}

/// The magnet link of a torrent.
pub(crate) fn magnet_of(torrent: &Metainfo) -> String {
    let mut magnet = krpc::magnet::Magnet::new(torrent.info.hash().swarm());
    magnet.name = Some(escape_bytes(torrent.info.name()));
    magnet.trackers = torrent.trackers.iter().flatten().cloned().collect();
    magnet.to_string()
}

fn explain(error: CreateError) -> Failure {
    let exit = match &error {
        CreateError::Io(..) | CreateError::Changed(_) => Exit::Disk,
        CreateError::NotYet => Exit::Failed,
        _ => Exit::Usage,
    };
    Failure::new(exit, crate::text::escape(&error.to_string()))
}

fn parse_piece_length(text: &str) -> Result<u32, String> {
    let len = parse_rate(text).map_err(|_| "expected a size such as 256K or 1M".to_owned())?;
    match u32::try_from(len) {
        Ok(len) if len.is_power_of_two() && (16 << 10..=256 << 20).contains(&len) => Ok(len),
        _ => Err("has to be a power of two from 16K to 256M".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn piece_lengths_are_powers_of_two_in_bounds() {
        assert_eq!(parse_piece_length("256K"), Ok(256 << 10));
        for wrong in ["8K", "300K", "512M", "x"] {
            assert!(parse_piece_length(wrong).is_err(), "{wrong}");
        }
    }
}
