//! `btfetch check`: verifies all or some pieces of a torrent on disk. Reads only.

use std::fs::File;
use std::io;
use std::ops::RangeInclusive;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use btfetch::metainfo::Info;
use btfetch::piece::PieceIndex;
use serde_json::json;
use sha1::{Digest as _, Sha1};

use crate::failure::{Exit, Failure};
use crate::not_yet;
use crate::output::Output;
use crate::sources::read_torrent;
use crate::text::escape_path;

/// Bytes read at a time.
const CHUNK: usize = 256 << 10;
/// Hashing threads, at most.
const MAX_THREADS: usize = 8;
/// Ranges in one list.
const MAX_RANGES: usize = 1000;

/// Verifies all or some pieces on disk and lists the bad ones; exit 0 only if all are right
///
/// Example: btfetch check album.torrent -o ~/Music 1-5,34-56
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The .torrent file
    #[arg(value_name = "TORRENT")]
    torrent: PathBuf,

    /// The folder that holds the data
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    output: PathBuf,

    /// Pieces to check: 1-5,34-56 [default: all]
    #[arg(value_name = "PIECES", value_parser = Pieces::parse)]
    pieces: Option<Pieces>,
}

/// A list of piece ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pieces(Vec<RangeInclusive<u32>>);

impl Pieces {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let range = |part: &str| -> Option<RangeInclusive<u32>> {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let range = first.trim().parse().ok()?..=last.trim().parse().ok()?;
            (!range.is_empty()).then_some(range)
        };
        let ranges: Option<Vec<_>> = text.split(',').take(MAX_RANGES + 1).map(range).collect();
        match ranges {
            Some(ranges) if ranges.len() <= MAX_RANGES => Ok(Self(ranges)),
            _ => Err("expected a list such as 1-5,34-56".into()),
        }
    }

    /// The pieces of a torrent of `count` that are meant, ascending, each once.
    fn of(&self, count: u32) -> Result<Vec<u32>, Failure> {
        if let Some(range) = self.0.iter().find(|range| *range.end() >= count) {
            let message =
                format!("there is no piece {}: the torrent has {count}, counted from 0", range.end());
            return Err(Failure::usage(message));
        }
        let mut meant = vec![false; count as usize];
        for range in &self.0 {
            meant[*range.start() as usize..=*range.end() as usize].fill(true);
        }
        Ok((0..count).zip(meant).filter_map(|(piece, meant)| meant.then_some(piece)).collect())
    }
}

/// Runs the verb.
pub(crate) fn run(args: &Args, output: Output) -> Result<(), Failure> {
    let torrent = read_torrent(&args.torrent)?;
    let info = &torrent.info;
    if info.is_v2_only() {
        return Err(not_yet("checking torrents of version 2 alone"));
    }
    let wanted = match &args.pieces {
        Some(pieces) => pieces.of(info.pieces())?,
        None => (0..info.pieces()).collect(),
    };
    let files = Files::open(info, &args.output)?;
    let mut bad = verify(info, &files, &wanted, output)?;
    bad.sort_unstable();
    output.event(|| json!({"event": "done", "checked": wanted.len(), "bad": bad.len()}))?;
    if bad.is_empty() {
        return output.plain(format!("{} pieces are right", wanted.len()));
    }
    for piece in &bad {
        output.plain(format!("bad {piece}"))?;
    }
    Err(Failure::failed(format!("{} of {} pieces are missing or wrong", bad.len(), wanted.len())))
}

/// The files of a torrent; those that are not there are `None`.
struct Files(Vec<Option<File>>);

impl Files {
    fn open(info: &Info, folder: &Path) -> Result<Self, Failure> {
        let mut files = Vec::new();
        for file in info.files() {
            let path = folder.join(file.path());
            files.push(match File::open(&path) {
                _ if !file.is_stored() || file.is_empty() => None,
                Ok(file) => Some(file),
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
                {
                    None
                }
                Err(error) => {
                    return Err(Failure::new(Exit::Disk, format!("opening {}: {error}", escape_path(&path))));
                }
            });
        }
        Ok(Self(files))
    }

    /// Whether the piece on disk has the right hash.
    fn is_right(&self, info: &Info, piece: PieceIndex, chunk: &mut [u8]) -> io::Result<bool> {
        let mut hash = Sha1::new();
        let mut at = 0;
        let len = info.layout().piece_len(piece);
        while at < len {
            let step = (len - at).min(chunk.len() as u32);
            for span in info.layout().spans(piece, at, step) {
                let part = &mut chunk[..span.len as usize];
                match self.0.get(span.file).and_then(Option::as_ref) {
                    _ if span.pad => part.fill(0),
                    None => return Ok(false),
                    Some(file) => match file.read_exact_at(part, span.offset) {
                        Ok(()) => {}
                        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
                        Err(error) => return Err(error),
                    },
                }
                hash.update(part);
            }
            at += step;
        }
        let digest: [u8; 20] = hash.finalize().into();
        Ok(info.piece_hash(piece) == Some(&digest))
    }
}

/// Hashes over all cores; tells of each piece as it is done and returns the bad ones.
fn verify(info: &Info, files: &Files, wanted: &[u32], output: Output) -> Result<Vec<u32>, Failure> {
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
    let (results, checked) = mpsc::sync_channel(1024);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (results, next) = (results.clone(), &next);
            scope.spawn(move || {
                let mut chunk = vec![0; CHUNK];
                while let Some(&piece) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let right = files.is_right(info, PieceIndex(piece), &mut chunk);
                    if results.send((piece, right)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(results);
        let mut bad = Vec::new();
        for (piece, right) in checked {
            let right =
                right.map_err(|error| Failure::new(Exit::Disk, format!("reading piece {piece}: {error}")))?;
            if !right {
                bad.push(piece);
            }
            output.event(|| json!({"event": "piece", "index": piece, "ok": right}))?;
        }
        Ok(bad)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_bounded_by_the_torrent() {
        let pieces = Pieces::parse("3,0-1,1").unwrap();
        assert_eq!(pieces.of(4).unwrap(), [0, 1, 3]);
        assert_eq!(pieces.of(3).unwrap_err().exit, Exit::Usage);
        assert!(Pieces::parse("0-4294967295").unwrap().of(10).is_err());
        for wrong in ["", "a", "5-3", "1,,2", "-1", "4294967296"] {
            assert!(Pieces::parse(wrong).is_err(), "{wrong}");
        }
    }
}
