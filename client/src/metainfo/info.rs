//! The info dictionary (BEP 3, 27, 47, 52) and the names of a torrent that follow from its bytes.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use krpc::Id;
use krpc::bencode::{Kind, Limits, Reader};
use sha1::{Digest, Sha1};
use sha2::Sha256;

use super::error::MetainfoError;
use super::fields::{MAX_TOTAL, field, length};
use super::files::{Attributes, FileTable, check_component, join};
use super::layout::{Extent, Layout};
use super::v2::Tree;
use crate::peer::TorrentShape;
use crate::piece::PieceIndex;

/// Shortest piece.
const MIN_PIECE_LEN: i64 = 1 << 10;
/// Shortest piece of a v2 torrent (BEP 52).
const MIN_PIECE_LEN_V2: i64 = 1 << 14;
/// Longest piece.
const MAX_PIECE_LEN: i64 = 256 << 20;
/// Most pieces.
const MAX_PIECES: u64 = 1 << 21;

/// The names of a torrent: hashes over the raw bytes of its info dictionary.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct InfoHash {
    /// SHA-1 (BEP 3), if the torrent has a v1 part.
    pub v1: Option<Id>,
    /// SHA-256 (BEP 52), if the torrent has a v2 part.
    pub v2: Option<[u8; 32]>,
}

impl InfoHash {
    /// What names the swarm to peers, trackers and the DHT: the v1 hash, else the v2 hash cut to 20
    /// bytes (BEP 52, "infohash").
    pub fn swarm(&self) -> Id {
        let cut = || Id::from_slice(self.v2.as_ref()?.first_chunk::<20>()?);
        self.v1.or_else(cut).unwrap_or(Id::ZERO)
    }
}

impl fmt::Debug for InfoHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InfoHash({})", self.swarm())
    }
}

/// A checked info dictionary: every path may be written below a folder, every number is within its
/// limits, and each piece has a hash.
///
/// Costs its raw bytes, 40 bytes a file and the bytes of the paths; the piece hashes stay in the
/// raw bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Info {
    raw: Arc<[u8]>,
    hash: InfoHash,
    name: Vec<u8>,
    private: bool,
    /// Where the SHA-1 hashes lie in `raw`; empty without a v1 part.
    pieces: Range<usize>,
    table: FileTable,
    layout: Layout,
    /// Roots of the files' hash trees; empty without a v2 part.
    roots: Vec<[u8; 32]>,
}

/// One file of an [`Info`].
#[derive(Clone, Copy, Debug)]
pub struct File<'a> {
    /// Its index.
    pub index: usize,
    /// Where its bytes lie.
    pub extent: Extent,
    /// Pad, symbolic link, executable, hidden (BEP 47).
    pub attributes: Attributes,
    /// Root of its hash tree, if the torrent has a v2 part.
    pub root: Option<&'a [u8; 32]>,
    info: &'a Info,
}

impl Info {
    /// Reads an info dictionary, for instance one that peers sent (BEP 9). Whether it is the right
    /// one is for the caller to see by its [`Info::hash`].
    pub fn parse(raw: &[u8]) -> Result<Self, MetainfoError> {
        Self::of(raw.into())
    }

    /// The same of bytes that it keeps without a copy.
    pub(crate) fn of(raw: Arc<[u8]>) -> Result<Self, MetainfoError> {
        let mut reader = Reader::new(&raw, Limits::METAINFO);
        let draft = Draft::read_whole(&mut reader)?;
        reader.finish()?;
        draft.finish(Arc::clone(&raw))
    }

    /// Reads the info dictionary that must come next. One pass, no tree.
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, MetainfoError> {
        let start = reader.position();
        let draft = Draft::read_whole(reader)?;
        draft.finish(reader.since(start).into())
    }

    /// The dictionary's bytes as they came.
    pub fn raw(&self) -> &Arc<[u8]> {
        &self.raw
    }

    /// The torrent's names.
    pub fn hash(&self) -> InfoHash {
        self.hash
    }

    /// Name of the file or of the folder around the files; any bytes that a file name may have.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// Whether only its trackers may be asked for peers (BEP 27).
    pub fn is_private(&self) -> bool {
        self.private
    }

    /// Whether it has no v1 part. Downloads of such are not possible yet.
    pub fn is_v2_only(&self) -> bool {
        self.hash.v1.is_none()
    }

    /// Whether it has a v1 and a v2 part.
    pub fn is_hybrid(&self) -> bool {
        self.hash.v1.is_some() && self.hash.v2.is_some()
    }

    /// Whether it is one file, not a folder.
    pub fn is_single_file(&self) -> bool {
        self.table.len() == 1 && self.table.path(0).is_empty()
    }

    /// Where pieces lie in files.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// What connections must know to check indices.
    pub fn shape(&self) -> TorrentShape {
        self.layout.shape(self.raw.len() as u32)
    }

    /// Number of pieces.
    pub fn pieces(&self) -> u32 {
        self.layout.pieces()
    }

    /// Bytes of every piece but the last.
    pub fn piece_length(&self) -> u32 {
        self.layout.nominal_piece_len()
    }

    /// Bytes of all files, pads included: what `left` counts.
    pub fn total(&self) -> u64 {
        self.layout.total()
    }

    /// The SHA-1 of a piece; `None` for a piece that there is not, or without a v1 part.
    pub fn piece_hash(&self, piece: PieceIndex) -> Option<&[u8; 20]> {
        self.piece_hashes().as_chunks().0.get(piece.0 as usize)
    }

    /// The SHA-1 hashes of all pieces, 20 bytes each.
    pub fn piece_hashes(&self) -> &[u8] {
        self.raw.get(self.pieces.clone()).unwrap_or_default()
    }

    /// A file by its index.
    pub fn file(&self, index: usize) -> Option<File<'_>> {
        let extent = *self.layout.files().get(index)?;
        let attributes = self.table.attributes(index);
        Some(File { index, extent, attributes, root: self.roots.get(index), info: self })
    }

    /// All files in order, pad files included.
    pub fn files(&self) -> impl ExactSizeIterator<Item = File<'_>> {
        (0..self.table.len()).map(|index| self.file(index).expect("as many extents as names"))
    }
}

impl fmt::Debug for Info {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Info")
            .field("hash", &self.hash)
            .field("name", &self.name.escape_ascii().to_string())
            .field("files", &self.table.len())
            .field("pieces", &self.pieces())
            .finish_non_exhaustive()
    }
}

impl<'a> File<'a> {
    /// Its path below the download folder, the torrent's name included; the bytes as they came.
    /// The torrent's name alone for a pad file.
    pub fn path(&self) -> PathBuf {
        join(&self.info.name, self.info.table.path(self.index))
    }

    /// The components of [`File::path`] behind the torrent's name.
    pub fn components(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let path = self.info.table.path(self.index);
        path.split(|&byte| byte == 0).filter(|component| !component.is_empty())
    }

    /// Bytes.
    pub fn len(&self) -> u64 {
        self.extent.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.extent.len == 0
    }

    /// Whether it is made on disk: neither a pad file nor a symbolic link.
    pub fn is_stored(&self) -> bool {
        !self.extent.pad && !self.attributes.is_symlink()
    }

    /// The pieces that hold its bytes.
    pub fn piece_range(&self) -> Range<u32> {
        self.info.layout.piece_range(self.index)
    }
}

/// What was read of an info dictionary so far. Keys may come in any order.
#[derive(Default)]
struct Draft<'a> {
    name: Option<&'a [u8]>,
    name_utf8: Option<&'a [u8]>,
    piece_length: Option<i64>,
    pieces: Option<Range<usize>>,
    length: Option<u64>,
    attributes: Attributes,
    files: Option<Files>,
    tree: Option<&'a [u8]>,
    version: Option<i64>,
    private: bool,
}

/// A `files` list.
#[derive(Default)]
struct Files {
    table: FileTable,
    lengths: Vec<u64>,
}

impl<'a> Draft<'a> {
    /// Reads the dictionary that must come next.
    fn read_whole(reader: &mut Reader<'a>) -> Result<Self, MetainfoError> {
        let (start, mut draft) = (reader.position(), Self::default());
        reader.expect_dict().map_err(|error| MetainfoError::Field("info", error))?;
        while let Some(key) = reader.key()? {
            draft.read(key, reader, start)?;
        }
        Ok(draft)
    }

    fn read(&mut self, key: &[u8], reader: &mut Reader<'a>, start: usize) -> Result<(), MetainfoError> {
        match key {
            b"name" => self.name = Some(field("name", reader.bytes())?),
            // Of the time before names were UTF-8; where it is there it is the better one.
            b"name.utf-8" => self.name_utf8 = reader.bytes_or_skip()?,
            b"piece length" => self.piece_length = Some(field("piece length", reader.int())?),
            b"pieces" => {
                let len = field("pieces", reader.bytes())?.len();
                let end = reader.position() - start;
                self.pieces = Some(end - len..end);
            }
            b"length" => self.length = Some(length(reader)?),
            b"attr" => self.attributes = Attributes::parse(reader.bytes_or_skip()?.unwrap_or_default()),
            b"files" => self.files = Some(Files::read(reader)?),
            b"file tree" if reader.peek() == Some(Kind::Dict) => self.tree = Some(reader.skip()?),
            b"file tree" => return Err(MetainfoError::FileTree("no dictionary")),
            b"meta version" => self.version = Some(field("meta version", reader.int())?),
            b"private" => self.private = reader.int_or_skip()?.is_some_and(|private| private != 0),
            _ => {
                reader.skip()?;
            }
        }
        Ok(())
    }

    fn finish(self, raw: Arc<[u8]>) -> Result<Info, MetainfoError> {
        // BEP 52: the version comes before all other checks.
        if let Some(version) = self.version.filter(|&version| version != 2) {
            return Err(MetainfoError::Version(version));
        }
        let name = self.name_utf8.filter(|name| !name.is_empty()).or(self.name);
        let name = name.ok_or(MetainfoError::Missing("name"))?;
        check_component(name)?;
        let is_v2 = self.version.is_some();
        let piece_len = self.piece_length.ok_or(MetainfoError::Missing("piece length"))?;
        let piece_len = check_piece_length(piece_len, is_v2)?;
        let tree = match self.tree {
            Some(tree) if is_v2 => Some(Tree::parse(tree)?),
            None if is_v2 => return Err(MetainfoError::Missing("file tree")),
            _ => None,
        };
        let has_v1 = self.pieces.is_some() || !is_v2;
        let (files, roots) = match (has_v1, tree) {
            (true, tree) => {
                let files = Files::v1(self.length, self.attributes, self.files)?;
                (files, tree)
            }
            (false, Some(tree)) => {
                let (files, tree) = Files::v2(tree, name, piece_len)?;
                (files, Some(tree))
            }
            (false, None) => return Err(MetainfoError::Missing("pieces")),
        };
        files.table.check(name)?;
        let pads = (0..files.table.len()).map(|file| files.table.attributes(file).is_pad());
        let layout = Layout::new(piece_len, files.lengths.iter().copied().zip(pads));
        let pieces = check_pieces(&layout, has_v1.then_some(self.pieces))?;
        let roots = match roots {
            Some(tree) if has_v1 => hybrid_roots(name, &files, &layout, &tree)?,
            Some(tree) => tree.roots,
            None => Vec::new(),
        };
        let hash = InfoHash {
            v1: has_v1.then(|| Id::new(Sha1::digest(&raw).into())),
            v2: is_v2.then(|| Sha256::digest(&raw).into()),
        };
        let (name, private) = (name.to_vec(), self.private);
        Ok(Info { raw, hash, name, private, pieces, table: files.table, layout, roots })
    }
}

impl Files {
    fn read(reader: &mut Reader<'_>) -> Result<Self, MetainfoError> {
        let mut files = Self::default();
        let mut total = 0_u64;
        field("files", reader.expect_list())?;
        while reader.item()? {
            let len = files.read_file(reader)?;
            total = total.saturating_add(len);
            if total > MAX_TOTAL {
                return Err(MetainfoError::TooLarge);
            }
        }
        Ok(files)
    }

    fn read_file(&mut self, reader: &mut Reader<'_>) -> Result<u64, MetainfoError> {
        let (mut len, mut path, mut path_utf8) = (None, None, None);
        let mut attributes = Attributes::default();
        field("files", reader.expect_dict())?;
        while let Some(key) = reader.key()? {
            match key {
                b"length" => len = Some(length(reader)?),
                b"path" => path = Some(reader.skip()?),
                b"path.utf-8" => path_utf8 = Some(reader.skip()?).filter(|path| path.starts_with(b"l")),
                b"attr" => attributes = Attributes::parse(reader.bytes_or_skip()?.unwrap_or_default()),
                _ => {
                    reader.skip()?;
                }
            }
        }
        // BEP 47: the length of a symbolic link is 0 and may be absent.
        let len = match len {
            Some(len) if len > 0 && attributes.is_symlink() => {
                return Err(MetainfoError::Length(len as i64));
            }
            Some(len) => len,
            None if attributes.is_symlink() => 0,
            None => return Err(MetainfoError::Missing("length")),
        };
        self.table.push_list(path_utf8.or(path), attributes)?;
        self.lengths.push(len);
        Ok(len)
    }

    /// The files of a torrent with a v1 part.
    fn v1(length: Option<u64>, attributes: Attributes, files: Option<Self>) -> Result<Self, MetainfoError> {
        match (length, files) {
            (Some(len), None) => {
                let mut table = FileTable::default();
                table.push(b"", attributes.of_only_file())?;
                Ok(Self { table, lengths: vec![len] })
            }
            (None, Some(files)) => Ok(files),
            _ => Err(MetainfoError::LengthXorFiles),
        }
    }

    /// The files of a torrent without a v1 part: those of the tree, with a pad before each that
    /// would not begin with a piece.
    fn v2(tree: Tree, name: &[u8], piece_len: u32) -> Result<(Self, Tree), MetainfoError> {
        let mut files = Self::default();
        let mut roots = Vec::with_capacity(tree.roots.len());
        let single = tree.table.len() == 1 && tree.table.path(0) == name;
        let mut offset = 0_u64;
        for (file, (&len, &root)) in tree.lengths.iter().zip(&tree.roots).enumerate() {
            let gap = offset.next_multiple_of(u64::from(piece_len)) - offset;
            if gap > 0 && len > 0 {
                files.table.push(b"", Attributes::PAD)?;
                files.lengths.push(gap);
                roots.push([0; 32]);
                offset += gap;
            }
            let path = if single { b"" } else { tree.table.path(file) };
            files.table.push(path, tree.table.attributes(file))?;
            files.lengths.push(len);
            roots.push(root);
            offset += len;
        }
        if offset > MAX_TOTAL {
            return Err(MetainfoError::TooLarge);
        }
        Ok((files, Tree { roots, ..tree }))
    }
}

fn check_piece_length(len: i64, is_v2: bool) -> Result<u32, MetainfoError> {
    let fits = match is_v2 {
        true => len >= MIN_PIECE_LEN_V2 && (len as u64).is_power_of_two(),
        false => len >= MIN_PIECE_LEN,
    };
    if !fits || len > MAX_PIECE_LEN {
        return Err(MetainfoError::PieceLength(len));
    }
    Ok(len as u32)
}

/// Checks the number of pieces, and of hashes if there is a v1 part.
fn check_pieces(
    layout: &Layout,
    hashes: Option<Option<Range<usize>>>,
) -> Result<Range<usize>, MetainfoError> {
    if layout.total() == 0 {
        return Err(MetainfoError::Empty);
    }
    let expected = layout.total().div_ceil(u64::from(layout.nominal_piece_len()));
    if expected > MAX_PIECES {
        return Err(MetainfoError::TooManyPieces(expected));
    }
    let Some(hashes) = hashes else { return Ok(0..0) };
    let hashes = hashes.ok_or(MetainfoError::Missing("pieces"))?;
    if hashes.len() % 20 != 0 {
        return Err(MetainfoError::PiecesRagged(hashes.len()));
    }
    let found = hashes.len() as u64 / 20;
    if found != expected {
        return Err(MetainfoError::PieceCount { expected, found });
    }
    Ok(hashes)
}

/// Checks that both parts of a hybrid describe the same files, each beginning with a piece (BEP 52,
/// "Upgrade Path"); returns the roots by v1 file index.
fn hybrid_roots(
    name: &[u8],
    files: &Files,
    layout: &Layout,
    tree: &Tree,
) -> Result<Vec<[u8; 32]>, MetainfoError> {
    let mut roots = vec![[0; 32]; files.table.len()];
    let mut next = 0;
    for (file, extent) in layout.files().iter().enumerate().filter(|(_, extent)| !extent.pad) {
        let path = match files.table.path(file) {
            b"" => name,
            path => path,
        };
        let same = tree.lengths.get(next) == Some(&extent.len) && tree.table.path(next) == path;
        let aligned = extent.len == 0 || extent.offset % u64::from(layout.nominal_piece_len()) == 0;
        if !same || !aligned {
            return Err(MetainfoError::HybridMismatch);
        }
        roots[file] = tree.roots.get(next).copied().unwrap_or_default();
        next += 1;
    }
    match next == tree.table.len() {
        true => Ok(roots),
        false => Err(MetainfoError::HybridMismatch),
    }
}
