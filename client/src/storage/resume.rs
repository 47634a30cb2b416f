//! [`ResumeFile`]: what is known of a download between two runs — a hidden file
//! `.<infohash>.btfetch` in the download folder, so that the same command finds it and so that it
//! goes where the data goes.
//!
//! It claims only pieces whose data was synced before, holds the size and time of each file so that
//! a change is noticed, and ends in a checksum: a damaged one is as good as none. It also holds the
//! info dictionary, so that a magnet link resumes without peers.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use krpc::bencode::{Limits, Reader, Writer};
use krpc::{DecodeError, Id};
use sha1::{Digest, Sha1};

use super::{DiskError, Stamp, Totals};
use crate::bitfield::Bitfield;
use crate::metainfo::Info;

/// Of the document where every piece was looked at; others than these two are not read.
const VERSION: i64 = 1;
/// Of one that also names pieces that were not: whoever does not know of that would take them for absent.
const VERSION_UNCHECKED: i64 = 2;
/// Bytes of a stamp in the document: length and time, big-endian.
const STAMP_LEN: usize = 16;
/// Length of a file that is absent.
const ABSENT: u64 = u64::MAX;

/// Reads and writes the resume file of one torrent in one folder.
#[derive(Clone, Debug)]
pub struct ResumeFile {
    dir: PathBuf,
    info: Arc<Info>,
}

/// What a resume file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resume {
    /// Pieces that were synced.
    pub have: Bitfield,
    /// Pieces that may be there beside them: the run ended before it had looked.
    pub unchecked: Bitfield,
    /// The files as they were then; `None` was absent.
    pub stamps: Vec<Option<Stamp>>,
    /// Counters.
    pub totals: Totals,
}

/// What a resume file says, in short: whether another one would say the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Saved {
    /// SHA-1 over all that is said of the data.
    data: [u8; 20],
    totals: Totals,
}

impl Saved {
    pub(super) fn of(resume: &Resume) -> Self {
        let (mut have, mut unchecked) = (Vec::new(), Vec::new());
        resume.have.put_wire(&mut have);
        resume.unchecked.put_wire(&mut unchecked);
        let data = checksum([0; 3], [&have, &unchecked, &encode_stamps(&resume.stamps)]);
        Self { data, totals: resume.totals }
    }

    /// Whether nothing but counters differs.
    pub(super) fn is_of_the_same_data(&self, other: &Self) -> bool {
        self.data == other.data
    }
}

impl Resume {
    /// Reads the bytes of a resume file of `info`. An error says why they are not believed.
    pub fn parse(bytes: &[u8], info: &Info) -> Result<Self, String> {
        Document::parse(bytes)?.resume(info)
    }
}

impl ResumeFile {
    /// The resume file of `info` in `dir`; touches nothing.
    pub fn new(dir: &Path, info: Arc<Info>) -> Self {
        Self { dir: dir.to_owned(), info }
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        path(&self.dir, self.info.hash().swarm())
    }

    /// Reads it; `None` if there is none. An error says why it is not believed.
    pub fn load(&self) -> Result<Option<Resume>, String> {
        match read(&self.path()) {
            Ok(Some(bytes)) => Resume::parse(&bytes, &self.info).map(Some),
            Ok(None) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Replaces it: whatever happens meanwhile, either the old or the new one is found. The caller
    /// has synced what `resume` claims.
    pub fn save(&self, resume: &Resume) -> Result<(), DiskError> {
        let path = self.path();
        let (head, tail) = encode(&self.info, resume);
        replace_by_parts(&path, &[&head, self.info.raw(), &tail])
            .map_err(|error| DiskError::new("saving", &path, &error))
    }

    /// Reads the info dictionary of `infohash` out of its resume file in `dir`, if there is one that
    /// is right.
    pub fn load_info(dir: &Path, infohash: Id) -> Option<Info> {
        let bytes = read(&path(dir, infohash)).ok()??;
        let info = Info::parse(Document::parse(&bytes).ok()?.info).ok()?;
        (info.hash().swarm() == infohash).then_some(info)
    }
}

fn path(dir: &Path, infohash: Id) -> PathBuf {
    dir.join(format!(".{infohash}.btfetch"))
}

/// Replaces a file: whatever happens meanwhile, either the old or the new one is found.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_by_parts(path, &[bytes])
}

/// The same by what stands one behind the other.
fn replace_by_parts(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    // Left by a killed run, or put there by somebody else: not to be followed.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).open(&temporary)?;
    let written = parts.iter().try_for_each(|part| file.write_all(part)).and_then(|()| file.sync_all());
    if let Err(error) = written.and_then(|()| fs::rename(&temporary, path)) {
        // A full disk should not stay fuller for it.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

/// Reads a regular file of ours, no longer than a resume file may be; `None` if there is none.
pub(crate) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let len = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() => metadata.len(),
        Ok(_) => return Err(io::Error::other("it is no regular file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    // One byte more than allowed, so that the decoder sees that it is too much.
    let most = Limits::RESUME.len as u64 + 1;
    let mut bytes = Vec::with_capacity(len.min(most) as usize + 1);
    File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// The file's contents, not copied: the dictionary may be most of the memory that a download takes. Written by
/// [`encode`].
#[derive(Debug, Default)]
struct Document<'a> {
    version: i64,
    infohash: &'a [u8],
    have: &'a [u8],
    /// From version 2 on.
    unchecked: Option<&'a [u8]>,
    files: &'a [u8],
    downloaded: i64,
    uploaded: i64,
    info: &'a [u8],
    /// SHA-1 over all of the above.
    checksum: &'a [u8],
}

impl<'a> Document<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, String> {
        let document = Self::read(bytes).map_err(|error| error.to_string())?;
        if ![VERSION, VERSION_UNCHECKED].contains(&document.version) {
            return Err(format!("version {} is not known", document.version));
        }
        if (document.version == VERSION_UNCHECKED) != document.unchecked.is_some() {
            return Err(format!("version {} has other keys", document.version));
        }
        let numbers = [document.version, document.downloaded, document.uploaded];
        let strings = [document.infohash, document.have, document.files, document.info];
        let sum = match document.unchecked {
            Some(unchecked) => checksum_with(numbers, strings, unchecked),
            None => checksum(numbers, strings),
        };
        if document.checksum != sum {
            return Err("the checksum does not match".into());
        }
        Ok(document)
    }

    /// A key that is absent counts as 0 or empty; the checksum is over that, too.
    fn read(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let (mut document, mut reader) = (Self::default(), Reader::new(bytes, Limits::RESUME));
        reader.expect_dict()?;
        while let Some(key) = reader.key()? {
            match key {
                b"checksum" => document.checksum = reader.bytes()?,
                b"downloaded" => document.downloaded = reader.int()?,
                b"files" => document.files = reader.bytes()?,
                b"have" => document.have = reader.bytes()?,
                b"info" => document.info = reader.bytes()?,
                b"infohash" => document.infohash = reader.bytes()?,
                b"unchecked" => document.unchecked = Some(reader.bytes()?),
                b"uploaded" => document.uploaded = reader.int()?,
                b"version" => document.version = reader.int()?,
                _ => drop(reader.skip()?),
            }
        }
        reader.finish().map(|()| document)
    }

    fn resume(&self, info: &Info) -> Result<Resume, String> {
        if self.infohash != info.hash().swarm().as_bytes() {
            return Err("it belongs to another torrent".into());
        }
        let pieces =
            |bytes: &[u8]| Bitfield::from_wire(bytes, info.pieces()).ok_or("the piece set does not fit");
        let have = pieces(self.have)?;
        let unchecked = self.unchecked.map(pieces).transpose()?;
        let unchecked = unchecked.unwrap_or_else(|| Bitfield::new(info.pieces()));
        let (stamps, rest) = self.files.as_chunks::<STAMP_LEN>();
        if stamps.len() != info.layout().files().len() || !rest.is_empty() {
            return Err("the file list does not fit".into());
        }
        let stamps = stamps.iter().map(|bytes| {
            let (len, mtime) = bytes.split_at(8);
            let len = u64::from_be_bytes(len.try_into().expect("half of 16 bytes"));
            let mtime = i64::from_be_bytes(mtime.try_into().expect("half of 16 bytes"));
            (len != ABSENT).then_some(Stamp { len, mtime })
        });
        let count = |number| u64::try_from(number).unwrap_or(0);
        let totals = Totals { downloaded: count(self.downloaded), uploaded: count(self.uploaded) };
        Ok(Resume { have, unchecked, stamps: stamps.collect(), totals })
    }
}

/// What stands in front of the dictionary's bytes and what behind, so that they need not be copied.
fn encode(info: &Info, resume: &Resume) -> (Vec<u8>, Vec<u8>) {
    let mut have = Vec::new();
    resume.have.put_wire(&mut have);
    let mut unchecked = Vec::new();
    resume.unchecked.put_wire(&mut unchecked);
    let files = encode_stamps(&resume.stamps);
    let count = |bytes| i64::try_from(bytes).unwrap_or(i64::MAX);
    let (downloaded, uploaded) = (count(resume.totals.downloaded), count(resume.totals.uploaded));
    let infohash = info.hash().swarm();
    let strings = [&infohash.as_bytes()[..], &have, &files, info.raw()];
    let (version, checksum) = match resume.unchecked.is_empty() {
        true => (VERSION, checksum([VERSION, downloaded, uploaded], strings)),
        false => {
            let numbers = [VERSION_UNCHECKED, downloaded, uploaded];
            (VERSION_UNCHECKED, checksum_with(numbers, strings, &unchecked))
        }
    };
    let (mut head, mut tail) = (Vec::new(), Vec::new());
    let mut writer = Writer::new(&mut head);
    writer.dict().key(b"checksum").bytes(&checksum).key(b"downloaded").int(downloaded);
    writer.key(b"files").bytes(&files).key(b"have").bytes(&have);
    writer.key(b"info").raw(format!("{}:", info.raw().len()).as_bytes());
    let mut writer = Writer::new(&mut tail);
    // Keys of the dictionary that was begun above.
    writer.bytes(b"infohash").bytes(infohash.as_bytes());
    if version == VERSION_UNCHECKED {
        writer.bytes(b"unchecked").bytes(&unchecked);
    }
    writer.bytes(b"uploaded").int(uploaded).bytes(b"version").int(version).raw(b"e");
    (head, tail)
}

fn encode_stamps(stamps: &[Option<Stamp>]) -> Vec<u8> {
    let mut files = Vec::with_capacity(stamps.len() * STAMP_LEN);
    for stamp in stamps {
        let Stamp { len, mtime } = stamp.unwrap_or(Stamp { len: ABSENT, mtime: 0 });
        files.extend_from_slice(&len.to_be_bytes());
        files.extend_from_slice(&mtime.to_be_bytes());
    }
    files
}

/// The same over one string more.
fn checksum_with(numbers: [i64; 3], [one, two, three, four]: [&[u8]; 4], five: &[u8]) -> [u8; 20] {
    checksum(numbers, [one, two, three, four, five])
}

/// SHA-1 over these numbers and strings, each string with its length in front.
pub(crate) fn checksum<const N: usize>(numbers: [i64; 3], strings: [&[u8]; N]) -> [u8; 20] {
    let mut sum = Sha1::new();
    numbers.iter().for_each(|number| sum.update(number.to_be_bytes()));
    for bytes in strings {
        sum.update((bytes.len() as u64).to_be_bytes());
        sum.update(bytes);
    }
    sum.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info() -> Arc<Info> {
        let raw = b"d6:lengthi1500e4:name1:x12:piece lengthi1024e6:pieces40:\
            aaaaaaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbbbbbe";
        Arc::new(Info::parse(raw).unwrap())
    }

    fn sample() -> Resume {
        let mut have = Bitfield::new(2);
        have.insert(1);
        let stamps = vec![Some(Stamp { len: 1500, mtime: -7 })];
        let totals = Totals { downloaded: 5, uploaded: u64::MAX };
        Resume { have, unchecked: Bitfield::new(2), stamps, totals }
    }

    /// One that was saved before all was looked at.
    fn unfinished() -> Resume {
        let mut unchecked = Bitfield::new(2);
        unchecked.insert(0);
        Resume { unchecked, ..sample() }
    }

    fn whole(resume: &Resume) -> Vec<u8> {
        let (head, tail) = encode(&info(), resume);
        [&head[..], &info().raw()[..], &tail[..]].concat()
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let file = ResumeFile::new(dir.path(), info());
        assert_eq!(file.load(), Ok(None));
        fs::write(file.path().with_extension("btfetch.new"), b"left by a killed run").unwrap();
        for resume in [unfinished(), sample()] {
            file.save(&resume).unwrap();
            let mut expected = resume;
            expected.totals.uploaded = i64::MAX as u64;
            assert_eq!(file.load(), Ok(Some(expected)));
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let hash = info().hash().swarm();
        assert_eq!(ResumeFile::load_info(dir.path(), hash).as_ref(), Some(&*info()));
        assert_eq!(ResumeFile::load_info(dir.path(), Id::ZERO), None);
    }

    #[test]
    fn a_flipped_bit_anywhere_is_noticed() {
        for bytes in [sample(), unfinished()].map(|resume| whole(&resume)) {
            assert!(krpc::bencode::Reader::strict(&bytes, Limits::RESUME).skip().is_ok(), "canonical");
            assert!(Resume::parse(&bytes, &info()).is_ok());
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(Resume::parse(&flipped, &info()).is_err(), "bit {bit}");
            }
            for len in 0..bytes.len() {
                assert!(Resume::parse(&bytes[..len], &info()).is_err());
            }
        }
    }

    #[test]
    fn who_knows_the_first_version_alone_does_not_read_what_was_not_looked_at() {
        let version = |resume| {
            let bytes = whole(&resume);
            let document = Document::read(&bytes).unwrap();
            (document.version, document.unchecked.is_some())
        };
        assert_eq!((version(sample()), version(unfinished())), ((1, false), (2, true)));
    }

    #[test]
    fn garbage_and_strange_files_are_errors_not_panics() {
        let dir = tempfile::tempdir().unwrap();
        let file = ResumeFile::new(dir.path(), info());
        fs::write(file.path(), [b'l'; 100_000]).unwrap();
        assert!(file.load().is_err());
        fs::remove_file(file.path()).unwrap();
        fs::create_dir(file.path()).unwrap();
        assert!(file.load().unwrap_err().contains("no regular file"));
        assert!(file.save(&sample()).is_err());
    }
}
