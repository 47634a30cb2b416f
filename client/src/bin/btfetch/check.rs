//! `btfetch check`: verifies all or some pieces of a torrent on disk. Reads only.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use btfetch::buffer::Buffer;
use btfetch::hash::{Lanes, Pieces as Group, Source};
use btfetch::metainfo::Info;
use btfetch::piece::PieceIndex;
use btfetch::storage::{DiskErrorKind, FileStorage, Storage as _};
use rustix::fs::Advice;
use serde_json::json;

use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::sources::read_torrent;
use crate::text::escape_path;

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
        return Err(Failure::not_yet("checking torrents of version 2 alone"));
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

/// The files of a torrent; those that are not there are `None`, and what a part file holds of them is
/// read through the storage.
struct Files(Vec<Option<File>>, Option<FileStorage>);

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
        let absent =
            info.files().any(|file| file.is_stored() && !file.is_empty() && files[file.index].is_none());
        let open = || FileStorage::new(Arc::new(info.clone()), folder, NonZeroUsize::MIN).ok();
        let parts = if absent { open() } else { None };
        Ok(Self(files, parts))
    }
}

/// Pieces where the files are.
struct Stored<'a> {
    info: &'a Info,
    files: &'a Files,
}

impl Source<PieceIndex> for Stored<'_> {
    type Error = (PieceIndex, io::Error);

    fn ahead(&self, piece: PieceIndex, begin: u32, len: u32) {
        for span in self.info.layout().spans(piece, begin, len).filter(|span| !span.pad) {
            if let Some(Some(file)) = self.files.0.get(span.file) {
                let len = std::num::NonZeroU64::new(u64::from(span.len));
                // Advice alone: without it reading takes longer.
                let _ = rustix::fs::fadvise(file, span.offset, len, Advice::WillNeed);
            }
        }
    }

    fn read(&self, piece: PieceIndex, begin: u32, to: &mut [u8]) -> Result<bool, Self::Error> {
        let mut rest = to;
        for span in self.info.layout().spans(piece, begin, rest.len() as u32) {
            let (part, behind) = rest.split_at_mut(span.len as usize);
            match self.files.0.get(span.file).and_then(Option::as_ref) {
                _ if span.pad => part.fill(0),
                None => match self.files.1.as_ref().map(|all| all.read(span.file, span.offset, part)) {
                    Some(Ok(())) => {}
                    Some(Err(error)) if error.kind != DiskErrorKind::Missing => {
                        return Err((piece, io::Error::other(error)));
                    }
                    Some(Err(_)) | None => return Ok(false),
                },
                Some(file) => match file.read_exact_at(part, span.offset) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
                    Err(error) => return Err((piece, error)),
                },
            }
            rest = behind;
        }
        Ok(true)
    }
}

/// Hashes over all cores, in all lanes of each; tells of each piece as it is done and returns the bad
/// ones.
fn verify(info: &Info, files: &Files, wanted: &[u32], output: Output) -> Result<Vec<u32>, Failure> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
    let lanes = Lanes::best();
    let shares = Mutex::new(wanted.chunks(lanes.share(wanted.len(), threads)));
    let next = || shares.lock().unwrap_or_else(PoisonError::into_inner).next();
    let (results, checked) = mpsc::sync_channel(1024);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let results = results.clone();
            scope.spawn(move || {
                let (stored, mut buffer) = (Stored { info, files }, Buffer::default());
                while let Some(share) = next() {
                    match hash(&stored, lanes, share, &mut buffer) {
                        Ok(right) if right.iter().all(|result| results.send(Ok(*result)).is_ok()) => {}
                        Ok(_) => return,
                        Err(error) => return results.send(Err(error)).unwrap_or(()),
                    }
                }
            });
        }
        drop(results);
        let mut bad = Vec::new();
        for result in checked {
            let failed = |(piece, error): (PieceIndex, io::Error)| {
                Failure::new(Exit::Disk, format!("reading piece {}: {error}", piece.0))
            };
            let (piece, right) = result.map_err(failed)?;
            if !right {
                bad.push(piece);
            }
            output.event(|| json!({"event": "piece", "index": piece, "ok": right}))?;
        }
        Ok(bad)
    })
}

/// Which of the pieces are there with the right hash.
fn hash(
    stored: &Stored<'_>,
    lanes: Lanes,
    pieces: &[u32],
    buffer: &mut Buffer,
) -> Result<Vec<(u32, bool)>, (PieceIndex, io::Error)> {
    let info = stored.info;
    let pieces = pieces.iter().copied().map(PieceIndex);
    let mut group = Group::new(lanes, pieces.map(|piece| (piece, info.layout().piece_len(piece))));
    while group.step(stored, buffer)? {}
    let right =
        |digest: Option<[u8; 20]>, piece| digest.is_some() && info.piece_hash(piece) == digest.as_ref();
    Ok(group.digests().map(|(piece, digest)| (piece.0, right(digest, piece))).collect())
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
