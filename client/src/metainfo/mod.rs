//! Torrent files: the info dictionary ([`Info`]), what surrounds it ([`Metainfo`]), where pieces lie
//! in files ([`Layout`]) and how a torrent is made ([`create`]). BEP 3, 5, 12, 17, 19, 27, 47, 52.
//!
//! A torrent is a stranger's document. Reading it streams over the bytes: no tree, no recursion, a
//! compact table of files. Limits: 64 MiB, 3,000,000 tokens, depth 100, 2^21 pieces of 1 KiB to
//! 256 MiB, 2^48 bytes, 200,000 files. Infohashes are taken over the raw bytes as they came.

pub mod create;
mod error;
mod fields;
mod files;
mod info;
mod layout;
mod v2;

use krpc::DecodeError;
use krpc::bencode::{Data, Kind, Limits, Reader, Value, Writer};

pub use error::{MetainfoError, NameError};
pub use files::{Attributes, MAX_FILES};
pub use info::{File, Info, InfoHash};
pub use layout::{Extent, Layout, Span, Spans};

/// Trackers kept of a torrent; further ones are dropped.
const MAX_TRACKERS: usize = 100;
/// Web seeds (of each kind) and DHT nodes kept of a torrent; further ones are dropped.
const MAX_SOURCES: usize = 100;
/// Bytes of a URL or host name; longer ones are dropped.
const MAX_URL: usize = 2048;
/// Bytes kept of a comment and the like; the rest is cut off.
const MAX_TEXT: usize = 4096;

/// A torrent file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metainfo {
    /// The info dictionary.
    pub info: Info,
    /// Tracker URLs by tier: those of `announce-list` (BEP 12), else `announce`. At most 100, each
    /// once.
    pub trackers: Vec<Vec<String>>,
    /// DHT nodes to begin with, host and port (BEP 5). At most 100.
    pub nodes: Vec<(String, u16)>,
    /// Web seeds of `url-list` (BEP 19). At most 100.
    pub web_seeds: Vec<String>,
    /// Web seeds of `httpseeds` (BEP 17). At most 100.
    pub http_seeds: Vec<String>,
    /// When it was made, in seconds since 1970.
    pub creation_date: Option<i64>,
    /// A comment: at most 4 KiB of any bytes.
    pub comment: Option<Vec<u8>>,
    /// The program that made it: at most 4 KiB of any bytes.
    pub created_by: Option<Vec<u8>>,
    /// The encoding that its names claim to have: at most 4 KiB of any bytes.
    pub encoding: Option<Vec<u8>>,
}

impl Metainfo {
    /// Reads a torrent file. What is wrong inside `info` is an error; what is wrong with the keys
    /// around it (a tracker that is a number, say) is passed over.
    pub fn parse(bytes: &[u8]) -> Result<Self, MetainfoError> {
        let mut reader = Reader::new(bytes, Limits::METAINFO);
        let mut info = None;
        let mut outer = Outer::default();
        let mut layers = None;
        reader.expect_dict()?;
        while let Some(key) = reader.key()? {
            match key {
                b"info" => info = Some(Info::read(&mut reader)?),
                b"piece layers" => layers = Some(reader.skip()?),
                _ => outer.read(key, &mut reader)?,
            }
        }
        reader.finish()?;
        let info = info.ok_or(MetainfoError::Missing("info"))?;
        match layers {
            Some(layers) if info.hash().v2.is_some() => {
                let files = info.files().filter(|file| !file.extent.pad);
                let files = files.filter_map(|file| Some((file.len(), file.root?)));
                v2::check_layers(layers, info.piece_length(), files)?;
            }
            // A hybrid can be used by its v1 part alone.
            None if info.is_v2_only() => return Err(MetainfoError::Missing("piece layers")),
            _ => {}
        }
        Ok(outer.finish(info))
    }

    /// A torrent file around `info` with nothing else, as after a magnet link.
    pub fn new(info: Info) -> Self {
        Outer::default().finish(info)
    }

    /// Appends the torrent file to `out`, the info dictionary byte for byte as it came. DHT nodes
    /// are not written: BEP 5 asks not to put routers there, and we know no others that last.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut writer = Writer::new(out);
        writer.dict();
        if let Some(first) = self.trackers.iter().flatten().next() {
            writer.key(b"announce").bytes(first.as_bytes());
        }
        if self.trackers.iter().flatten().nth(1).is_some() {
            writer.key(b"announce-list").list();
            for tier in self.trackers.iter().filter(|tier| !tier.is_empty()) {
                write_list(&mut writer, tier);
            }
            writer.end();
        }
        write_text(&mut writer, b"comment", &self.comment);
        write_text(&mut writer, b"created by", &self.created_by);
        if let Some(date) = self.creation_date {
            writer.key(b"creation date").int(date);
        }
        write_text(&mut writer, b"encoding", &self.encoding);
        if !self.http_seeds.is_empty() {
            write_list(writer.key(b"httpseeds"), &self.http_seeds);
        }
        writer.key(b"info").raw(self.info.raw());
        if !self.web_seeds.is_empty() {
            write_list(writer.key(b"url-list"), &self.web_seeds);
        }
        writer.end();
    }
}

fn write_list(writer: &mut Writer<'_>, items: &[String]) {
    writer.list();
    for item in items {
        writer.bytes(item.as_bytes());
    }
    writer.end();
}

fn write_text(writer: &mut Writer<'_>, key: &[u8], text: &Option<Vec<u8>>) {
    if let Some(text) = text {
        writer.key(key).bytes(text);
    }
}

/// The keys around `info`.
#[derive(Default)]
struct Outer {
    announce: Option<String>,
    tiers: Vec<Vec<String>>,
    nodes: Vec<(String, u16)>,
    web_seeds: Vec<String>,
    http_seeds: Vec<String>,
    creation_date: Option<i64>,
    comment: Option<Vec<u8>>,
    created_by: Option<Vec<u8>>,
    encoding: Option<Vec<u8>>,
}

impl Outer {
    fn read(&mut self, key: &[u8], reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        match key {
            b"announce" => self.announce = reader.bytes_or_skip()?.and_then(url),
            b"announce-list" => self.read_tiers(reader)?,
            b"nodes" => self.read_nodes(reader)?,
            b"url-list" => read_urls(reader, MAX_SOURCES, &[], &mut self.web_seeds)?,
            b"httpseeds" => read_urls(reader, MAX_SOURCES, &[], &mut self.http_seeds)?,
            b"creation date" => self.creation_date = reader.int_or_skip()?,
            b"comment" => self.comment = reader.bytes_or_skip()?.map(text),
            b"created by" => self.created_by = reader.bytes_or_skip()?.map(text),
            b"encoding" => self.encoding = reader.bytes_or_skip()?.map(text),
            _ => {
                reader.skip()?;
            }
        }
        Ok(())
    }

    fn read_tiers(&mut self, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        if reader.peek() != Some(Kind::List) {
            return reader.skip().map(|_| ());
        }
        let mut left = MAX_TRACKERS;
        reader.expect_list()?;
        while reader.item()? {
            // Some makers forget the inner list; then each string is a tier.
            let mut tier = Vec::new();
            read_urls(reader, left, &self.tiers, &mut tier)?;
            left -= tier.len();
            if !tier.is_empty() {
                self.tiers.push(tier);
            }
        }
        Ok(())
    }

    fn read_nodes(&mut self, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        if reader.peek() != Some(Kind::List) {
            return reader.skip().map(|_| ());
        }
        reader.expect_list()?;
        while reader.item()? {
            let raw = reader.skip()?;
            if self.nodes.len() < MAX_SOURCES {
                self.nodes.extend(node(raw));
            }
        }
        Ok(())
    }

    fn finish(self, info: Info) -> Metainfo {
        let Self { announce, tiers, nodes, web_seeds, http_seeds, .. } = self;
        let trackers = match announce {
            Some(announce) if tiers.is_empty() => vec![vec![announce]],
            // BEP 12: `announce` is ignored where there is a list.
            _ => tiers,
        };
        Metainfo {
            info,
            trackers,
            nodes,
            web_seeds,
            http_seeds,
            creation_date: self.creation_date,
            comment: self.comment,
            created_by: self.created_by,
            encoding: self.encoding,
        }
    }
}

/// Reads a string or a list of strings as URLs, those that are not `known`, each once, up to `cap`.
fn read_urls(
    reader: &mut Reader<'_>,
    cap: usize,
    known: &[Vec<String>],
    urls: &mut Vec<String>,
) -> Result<(), DecodeError> {
    let mut take = |bytes: Option<&[u8]>| {
        if urls.len() < cap
            && let Some(url) = bytes.and_then(url)
            && !urls.contains(&url)
            && !known.iter().any(|known| known.contains(&url))
        {
            urls.push(url);
        }
    };
    if reader.peek() != Some(Kind::List) {
        take(reader.bytes_or_skip()?);
        return Ok(());
    }
    reader.expect_list()?;
    while reader.item()? {
        take(reader.bytes_or_skip()?);
    }
    Ok(())
}

fn url(bytes: &[u8]) -> Option<String> {
    let url = std::str::from_utf8(bytes).ok()?.trim();
    (!url.is_empty() && url.len() <= MAX_URL).then(|| url.to_owned())
}

fn text(bytes: &[u8]) -> Vec<u8> {
    bytes.get(..MAX_TEXT).unwrap_or(bytes).to_vec()
}

/// A node of BEP 5: a list of host and port.
fn node(raw: &[u8]) -> Option<(String, u16)> {
    let limits = Limits { depth: 1, tokens: 3, len: MAX_URL };
    let value = Value::parse(raw, limits).ok()?;
    let Data::List(items) = value.data() else { return None };
    let [host, port] = &items[..] else { return None };
    let host = url(host.as_bytes()?)?;
    let port = u16::try_from(port.as_int()?).ok()?;
    (port != 0).then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::piece::PieceIndex;

    const SINGLE: &[u8] = b"d6:lengthi1500e4:name1:x12:piece lengthi1024e6:pieces40:\
        aaaaaaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbbbbbe";

    #[test]
    fn a_single_file_is_read() {
        let info = Info::parse(SINGLE).unwrap();
        assert_eq!((info.name(), info.pieces(), info.total()), (&b"x"[..], 2, 1500));
        assert!(info.is_single_file() && !info.is_private() && !info.is_v2_only());
        assert_eq!(info.piece_hash(PieceIndex(1)), Some(&[b'b'; 20]));
        assert_eq!(info.piece_hash(PieceIndex(2)), None);
        assert_eq!(info.file(0).unwrap().path().to_str(), Some("x"));
        assert_eq!(info.hash().v1.unwrap().to_string(), {
            use sha1::{Digest, Sha1};
            krpc::Id::new(Sha1::digest(SINGLE).into()).to_string()
        });
        let shape = info.shape();
        assert_eq!((shape.pieces, shape.last_piece_len, shape.metadata_size), (2, 476, SINGLE.len() as u32));
    }

    #[test]
    fn several_files_with_pads_and_attributes_are_read() {
        let raw = b"d5:filesld6:lengthi1000e4:pathl1:a1:beed4:attr1:p6:lengthi24e4:pathl4:.pad2:24eed\
            4:attr1:x6:lengthi7e4:pathl1:ceed4:attr1:l4:pathl1:de12:symlink pathl1:ceee4:name1:n\
            12:piece lengthi1024e6:pieces40:aaaaaaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbbbbb7:privatei1ee";
        let info = Info::parse(raw).unwrap();
        let paths: Vec<_> = info.files().map(|file| file.path().to_str().unwrap().to_owned()).collect();
        assert_eq!(paths, ["n/a/b", "n", "n/c", "n/d"]);
        let stored: Vec<_> = info.files().map(|file| file.is_stored()).collect();
        assert_eq!(stored, [true, false, true, false]);
        assert!(info.file(2).unwrap().attributes.is_executable() && info.is_private());
        assert_eq!(info.file(2).unwrap().piece_range(), 1..2);
        assert_eq!((info.layout().payload(), info.total()), (1007, 1031));
    }

    #[test]
    fn what_surrounds_info_is_read_and_written() {
        let mut torrent =
            b"d8:announce8:udp://a/13:announce-listll8:udp://b/8:udp://b/i7eel8:udp://c/eli1eee\
            7:comment2:hi13:creation datei99e4:info"
                .to_vec();
        torrent.extend_from_slice(SINGLE);
        torrent.extend_from_slice(b"5:nodesll9:127.0.0.1i6881eel1:bi0eel1:bei3ee8:url-list9:http://w/e");
        let metainfo = Metainfo::parse(&torrent).unwrap();
        assert_eq!(metainfo.trackers, [vec!["udp://b/".to_owned()], vec!["udp://c/".to_owned()]]);
        assert_eq!(metainfo.nodes, [("127.0.0.1".to_owned(), 6881)]);
        assert_eq!(metainfo.web_seeds, ["http://w/"]);
        assert_eq!((metainfo.creation_date, metainfo.comment.as_deref()), (Some(99), Some(&b"hi"[..])));
        let mut written = Vec::new();
        metainfo.write(&mut written);
        let again = Metainfo::parse(&written).unwrap();
        assert_eq!(again.info.raw(), metainfo.info.raw());
        assert_eq!(Metainfo { nodes: metainfo.nodes.clone(), ..again }, metainfo);
    }

    #[test]
    fn the_hash_is_taken_over_the_bytes_as_they_came() {
        // Unsorted keys and unknown ones: tolerated, and hashed as they stand.
        let raw = b"d4:name1:x6:lengthi1e12:piece lengthi1024e1:zi0e6:pieces20:aaaaaaaaaaaaaaaaaaaae";
        let torrent = [&b"d4:info"[..], raw, b"e"].concat();
        use sha1::{Digest, Sha1};
        let expected = krpc::Id::new(Sha1::digest(raw).into());
        assert_eq!(Metainfo::parse(&torrent).unwrap().info.hash().swarm(), expected);
    }
}
