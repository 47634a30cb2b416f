//! Makes torrents (v1) from files: walks a folder in a fixed order, chooses a piece length and
//! hashes over all cores. The same files and options give the same bytes on every machine.
//!
//! This is the shell of the metainfo part: it reads files and blocks while it does.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use krpc::bencode::Writer;
use sha1::{Digest, Sha1};

use super::{Info, Layout, MAX_FILES, Metainfo, MetainfoError};
use crate::buffer::Buffer;
use crate::piece::PieceIndex;

/// Piece counts above this make the chosen piece length double.
const WANTED_PIECES: u64 = 1500;
/// Bounds of the chosen piece length.
const CHOSEN_PIECE_LEN: std::ops::RangeInclusive<u32> = 16 << 10..=16 << 20;
/// Bytes read at a time while hashing.
const READ_LEN: usize = 256 << 10;

/// What to put into a torrent. Nothing is added that is not asked for, no date either.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// v1 unless said otherwise.
    pub version: Version,
    /// Name of the torrent; the path's last component by default.
    pub name: Option<Vec<u8>>,
    /// Bytes of a piece; chosen by size by default (about 1,500 pieces, 16 KiB to 16 MiB).
    pub piece_length: Option<u32>,
    /// Tracker URLs by tier.
    pub trackers: Vec<Vec<String>>,
    /// Web seeds (BEP 19).
    pub web_seeds: Vec<String>,
    /// Only its trackers may be asked for peers (BEP 27).
    pub private: bool,
    /// A comment.
    pub comment: Option<String>,
    /// The program that makes it.
    pub created_by: Option<String>,
    /// Seconds since 1970.
    pub creation_date: Option<i64>,
    /// Hashing threads; as many as there are cores by default.
    pub threads: Option<NonZeroUsize>,
}

/// Kinds of torrents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// BEP 3.
    #[default]
    V1,
    /// BEP 52; not yet.
    V2,
    /// Both; not yet.
    Hybrid,
}

/// A new torrent.
#[derive(Debug)]
pub struct Created {
    /// The torrent.
    pub metainfo: Metainfo,
    /// What was left out: symbolic links and what is neither file nor folder.
    pub skipped: Vec<PathBuf>,
}

/// Why a torrent could not be made.
#[derive(Debug)]
pub enum CreateError {
    /// v2 and hybrid torrents cannot be made yet.
    NotYet,
    /// A file or folder could not be read.
    Io(PathBuf, io::Error),
    /// A file got shorter while it was read.
    Changed(PathBuf),
    /// What is there cannot be a torrent: no bytes, too many files, names that others refuse.
    Torrent(MetainfoError),
}

impl fmt::Display for CreateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotYet => f.write_str("v2 and hybrid torrents cannot be made yet, only v1"),
            Self::Io(path, error) => write!(f, "reading {}: {error}", path.display()),
            Self::Changed(path) => write!(f, "{} changed while it was read", path.display()),
            Self::Torrent(error) => write!(f, "the result would be no valid torrent: {error}"),
        }
    }
}

impl std::error::Error for CreateError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(_, error) => Some(error),
            Self::Torrent(error) => Some(error),
            _ => None,
        }
    }
}

/// Makes a torrent of a file or of all files below a folder, sorted by path. `progress` is told of
/// hashed bytes, from several threads.
pub fn create(
    path: &Path,
    options: &Options,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Created, CreateError> {
    if options.version != Version::V1 {
        return Err(CreateError::NotYet);
    }
    let mut skipped = Vec::new();
    let is_folder = fs::metadata(path).map_err(|error| CreateError::Io(path.to_owned(), error))?.is_dir();
    let sources = match is_folder {
        true => walk(path, &mut skipped)?,
        false => vec![Source::new(path.to_owned(), Vec::new())?],
    };
    let name = match &options.name {
        Some(name) => name.clone(),
        None => default_name(path)?,
    };
    let total = sources.iter().map(|source| source.len).sum::<u64>();
    let piece_len = options.piece_length.unwrap_or_else(|| choose_piece_length(total));
    // Before hours of hashing: are the names and numbers fine?
    let hash_count = total.div_ceil(u64::from(piece_len.max(1)));
    if hash_count > 1 << 21 {
        return Err(CreateError::Torrent(MetainfoError::TooManyPieces(hash_count)));
    }
    let write = |hashes: &[u8]| {
        let mut raw = Vec::new();
        let files = is_folder.then_some(&sources[..]);
        write_info(&mut raw, &name, files, total, piece_len, hashes, options);
        Info::parse(&raw).map_err(CreateError::Torrent)
    };
    write(&vec![0; hash_count as usize * 20])?;
    let layout = Layout::new(piece_len, sources.iter().map(|source| (source.len, false)));
    let hashes = hash(&layout, &sources, options.threads, progress)?;
    let metainfo = Metainfo {
        trackers: options.trackers.clone(),
        web_seeds: options.web_seeds.clone(),
        creation_date: options.creation_date,
        comment: options.comment.clone().map(String::into_bytes),
        created_by: options.created_by.clone().map(String::into_bytes),
        ..Metainfo::new(write(&hashes)?)
    };
    Ok(Created { metainfo, skipped })
}

/// The smallest power of two that gives no more than about 1,500 pieces, from 16 KiB to 16 MiB.
pub fn choose_piece_length(total: u64) -> u32 {
    let mut len = *CHOSEN_PIECE_LEN.start();
    while len < *CHOSEN_PIECE_LEN.end() && total.div_ceil(u64::from(len)) > WANTED_PIECES {
        len *= 2;
    }
    len
}

/// A file to be hashed.
struct Source {
    path: PathBuf,
    /// Components below the torrent's name.
    components: Vec<Vec<u8>>,
    len: u64,
    executable: bool,
}

impl Source {
    fn new(path: PathBuf, components: Vec<Vec<u8>>) -> Result<Self, CreateError> {
        match fs::metadata(&path) {
            Ok(metadata) => {
                let executable = metadata.permissions().mode() & 0o100 != 0;
                Ok(Self { path, components, len: metadata.len(), executable })
            }
            Err(error) => Err(CreateError::Io(path, error)),
        }
    }
}

/// All regular files below `root`, sorted by their components.
fn walk(root: &Path, skipped: &mut Vec<PathBuf>) -> Result<Vec<Source>, CreateError> {
    let mut sources = Vec::new();
    let mut folders = vec![(root.to_owned(), Vec::new())];
    while let Some((folder, components)) = folders.pop() {
        let failed = |error| CreateError::Io(folder.clone(), error);
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let kind = entry.file_type().map_err(failed)?;
            let mut below: Vec<Vec<u8>> = components.clone();
            below.push(entry.file_name().as_bytes().to_vec());
            if kind.is_dir() {
                folders.push((entry.path(), below));
            } else if kind.is_file() {
                sources.push(Source::new(entry.path(), below)?);
            } else {
                skipped.push(entry.path());
            }
            if sources.len() > MAX_FILES {
                return Err(CreateError::Torrent(MetainfoError::TooManyFiles));
            }
        }
    }
    sources.sort_unstable_by(|a, b| a.components.cmp(&b.components));
    skipped.sort_unstable();
    Ok(sources)
}

fn default_name(path: &Path) -> Result<Vec<u8>, CreateError> {
    if let Some(name) = path.file_name() {
        return Ok(name.as_bytes().to_vec());
    }
    // `.`, `..` and the like: ask the system what the folder is called.
    let real = path.canonicalize().map_err(|error| CreateError::Io(path.to_owned(), error))?;
    Ok(real.file_name().map(OsStr::as_bytes).unwrap_or_default().to_vec())
}

fn write_info(
    raw: &mut Vec<u8>,
    name: &[u8],
    files: Option<&[Source]>,
    total: u64,
    piece_len: u32,
    hashes: &[u8],
    options: &Options,
) {
    let mut writer = Writer::new(raw);
    writer.dict();
    match files {
        Some(files) => {
            writer.key(b"files").list();
            for file in files {
                writer.dict();
                if file.executable {
                    writer.key(b"attr").bytes(b"x");
                }
                writer.key(b"length").int(file.len as i64).key(b"path").list();
                for component in &file.components {
                    writer.bytes(component);
                }
                writer.end().end();
            }
            writer.end();
        }
        None => {
            writer.key(b"length").int(total as i64);
        }
    }
    writer.key(b"name").bytes(name).key(b"piece length").int(i64::from(piece_len));
    writer.key(b"pieces").bytes(hashes);
    if options.private {
        writer.key(b"private").int(1);
    }
    writer.end();
}

/// The SHA-1 hashes of all pieces. Each thread takes the next piece that nobody has taken.
fn hash(
    layout: &Layout,
    sources: &[Source],
    threads: Option<NonZeroUsize>,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Vec<u8>, CreateError> {
    let threads =
        threads.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from);
    let next = AtomicU32::new(0);
    let hashes = Mutex::new(vec![0; layout.pieces() as usize * 20]);
    let work = || {
        let mut hasher = PieceHasher { layout, sources, open: None, buffer: Buffer::zeroed(READ_LEN) };
        loop {
            let piece = next.fetch_add(1, Ordering::Relaxed);
            if piece >= layout.pieces() {
                return Ok(());
            }
            let digest = match hasher.hash(PieceIndex(piece)) {
                Ok(digest) => digest,
                Err(error) => {
                    next.store(layout.pieces(), Ordering::Relaxed);
                    return Err(error);
                }
            };
            let at = piece as usize * 20;
            let mut hashes = hashes.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            hashes[at..at + 20].copy_from_slice(&digest);
            drop(hashes);
            progress(u64::from(layout.piece_len(PieceIndex(piece))));
        }
    };
    let results: Vec<Result<(), CreateError>> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        running.into_iter().map(|thread| thread.join().expect("a hashing thread does not panic")).collect()
    });
    results.into_iter().collect::<Result<(), _>>()?;
    Ok(hashes.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
}

/// One thread's view: the file that it read last stays open.
struct PieceHasher<'a> {
    layout: &'a Layout,
    sources: &'a [Source],
    open: Option<(usize, fs::File)>,
    buffer: Buffer,
}

impl PieceHasher<'_> {
    fn hash(&mut self, piece: PieceIndex) -> Result<[u8; 20], CreateError> {
        let mut digest = Sha1::new();
        for span in self.layout.spans(piece, 0, self.layout.piece_len(piece)) {
            let path = &self.sources[span.file].path;
            let failed = |error: io::Error| match error.kind() {
                io::ErrorKind::UnexpectedEof => CreateError::Changed(path.clone()),
                _ => CreateError::Io(path.clone(), error),
            };
            let file = match &mut self.open {
                Some((open, file)) if *open == span.file => file,
                open => &mut open.insert((span.file, fs::File::open(path).map_err(failed)?)).1,
            };
            let (mut at, end) = (span.offset, span.offset + u64::from(span.len));
            while at < end {
                let len = (end - at).min(READ_LEN as u64) as usize;
                let chunk = &mut self.buffer[..len];
                file.read_exact_at(chunk, at).map_err(failed)?;
                digest.update(&*chunk);
                at += len as u64;
            }
        }
        Ok(digest.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("b/c")).unwrap();
        fs::write(root.join("b/c/z"), vec![7; 40_000]).unwrap();
        fs::write(root.join("b/a"), b"hello").unwrap();
        fs::write(root.join("b.txt"), b"").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", root.join("link")).unwrap();
        dir
    }

    #[test]
    fn a_folder_becomes_a_torrent_in_a_fixed_order() {
        let dir = folder();
        let hashed = Mutex::new(0);
        let options = Options { private: true, piece_length: Some(16384), ..Options::default() };
        let root = dir.path().join("root");
        let created = create(&root, &options, &|bytes| *hashed.lock().unwrap() += bytes).unwrap();
        let info = &created.metainfo.info;
        let paths: Vec<_> = info.files().map(|file| file.path()).collect();
        assert_eq!(paths, ["root/b/a", "root/b/c/z", "root/b.txt"].map(PathBuf::from));
        assert_eq!(created.skipped, [root.join("link")]);
        assert_eq!((info.total(), info.is_private(), *hashed.lock().unwrap()), (40_005, true, 40_005));
        let mut bytes = b"hello".to_vec();
        bytes.extend_from_slice(&[7; 40_000]);
        for (piece, chunk) in bytes.chunks(16384).enumerate() {
            let expected: [u8; 20] = Sha1::digest(chunk).into();
            assert_eq!(info.piece_hash(PieceIndex(piece as u32)), Some(&expected));
        }
        let one_thread = Options { threads: NonZeroUsize::new(1), ..options };
        let again = create(&root, &one_thread, &|_| ()).unwrap();
        let (mut first, mut second) = (Vec::new(), Vec::new());
        created.metainfo.write(&mut first);
        again.metainfo.write(&mut second);
        assert_eq!(first, second);
        assert_eq!(Metainfo::parse(&first).unwrap(), created.metainfo);
    }

    #[test]
    fn a_single_file_is_named_after_itself_or_as_asked() {
        let dir = folder();
        let path = dir.path().join("root/b/a");
        let options = Options { trackers: vec![vec!["udp://t/".into()]], ..Options::default() };
        let created = create(&path, &options, &|_| ()).unwrap();
        assert_eq!(created.metainfo.info.name(), b"a");
        assert!(created.metainfo.info.is_single_file());
        assert_eq!(created.metainfo.trackers, [["udp://t/"]]);
        let named = Options { name: Some(b"other".to_vec()), ..Options::default() };
        assert_eq!(create(&path, &named, &|_| ()).unwrap().metainfo.info.name(), b"other");
    }

    #[test]
    fn what_cannot_be_a_torrent_is_an_error() {
        let dir = folder();
        let path = dir.path().join("root");
        let error = |path: &Path, options: &Options| create(path, options, &|_| ()).unwrap_err().to_string();
        let version = Options { version: Version::Hybrid, ..Options::default() };
        assert!(error(&path, &version).contains("yet"));
        assert!(error(&path.join("none"), &Options::default()).contains("No such file"));
        assert!(error(&path.join("b.txt"), &Options::default()).contains("no bytes"));
        let short = Options { piece_length: Some(5), ..Options::default() };
        assert!(error(&path, &short).contains("piece length 5"));
        let named = Options { name: Some(b"..".to_vec()), ..Options::default() };
        assert!(error(&path, &named).contains("folder"));
    }

    #[test]
    fn the_piece_length_grows_with_the_size() {
        assert_eq!(choose_piece_length(0), 16 << 10);
        assert_eq!(choose_piece_length(1500 * (16 << 10)), 16 << 10);
        assert_eq!(choose_piece_length(1500 * (16 << 10) + 1), 32 << 10);
        assert_eq!(choose_piece_length(1 << 30), 1 << 20);
        assert_eq!(choose_piece_length(1 << 45), 16 << 20);
    }
}
