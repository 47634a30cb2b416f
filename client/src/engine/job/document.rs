//! The file `job`: bencoded, with a version and a checksum.

use krpc::bencode::{self, Limits, Writer};
use krpc::magnet::Magnet;
use serde::Deserialize;
use serde_bytes::ByteBuf;

use super::Choices;
use crate::engine::options::{Source, State};
use crate::metainfo::Metainfo;
use crate::storage::checksum;

/// What a file has that says nothing of preallocation.
const PLAIN: i64 = 1;
/// What a file has that does.
const VERSION: i64 = 2;
/// Most connections that a file may ask for.
pub(super) const MAX_PEERS: i64 = 100_000;

/// The file as it is read; exactly one of `magnet` and `torrent` is not empty.
#[derive(Deserialize)]
struct Document {
    version: i64,
    magnet: ByteBuf,
    torrent: ByteBuf,
    state: i64,
    max_peers: i64,
    priorities: ByteBuf,
    /// Absent in a plain one.
    preallocation: Option<ByteBuf>,
    checksum: ByteBuf,
}

/// Reads a file of any known version.
pub(super) fn decode(bytes: &[u8]) -> Result<(Source, Choices), String> {
    let document: Document = bencode::from_bytes(bytes, Limits::RESUME).map_err(|error| error.to_string())?;
    let numbers = [document.version, document.state, document.max_peers];
    let strings = [&document.magnet, &document.torrent, &document.priorities].map(|bytes| &bytes[..]);
    let [magnet, torrent, priorities] = strings;
    let sum = match document.version {
        PLAIN => checksum(numbers, strings),
        VERSION => {
            let chosen =
                document.preallocation.as_ref().ok_or("it does not say how files take their space")?;
            checksum(numbers, [magnet, torrent, priorities, chosen])
        }
        other => return Err(format!("version {other} is not known")),
    };
    if document.checksum[..] != sum {
        return Err("the checksum does not match".into());
    }
    let chosen =
        document.preallocation.as_deref().filter(|name| document.version != PLAIN && !name.is_empty());
    let preallocation = match chosen {
        Some(name) => Some(std::str::from_utf8(name).map_err(|error| error.to_string())?.parse()?),
        None => None,
    };
    let source = match document.torrent.is_empty() {
        true => {
            let text = std::str::from_utf8(&document.magnet).map_err(|error| error.to_string())?;
            Source::Magnet(Box::new(Magnet::parse(text).map_err(|error| error.to_string())?))
        }
        false => {
            let torrent = Metainfo::parse(&document.torrent).map_err(|error| error.to_string())?;
            Source::Metainfo(Box::new(torrent))
        }
    };
    let state = match document.state {
        0 => State::Started,
        1 => State::Paused,
        2 => State::Stopped,
        other => return Err(format!("state {other} is not known")),
    };
    let max_peers = match document.max_peers {
        -1 => None,
        most @ 0..=MAX_PEERS => Some(most as usize),
        _ => return Err("the number of connections is out of range".into()),
    };
    let (pairs, rest) = document.priorities.as_chunks::<2>();
    if !rest.is_empty() {
        return Err("the priorities do not fit".into());
    }
    let priorities = pairs.iter().map(|&pair| u16::from_be_bytes(pair)).collect();
    Ok((source, Choices { state, max_peers, priorities, preallocation }))
}

/// Writes the oldest version that can say what there is, so that older programs read it.
pub(super) fn encode(source: &Source, choices: &Choices) -> Vec<u8> {
    let (mut magnet, mut torrent) = (Vec::new(), Vec::new());
    match source {
        Source::Magnet(link) => magnet = link.to_string().into_bytes(),
        Source::Metainfo(metainfo) => metainfo.write(&mut torrent),
    }
    let priorities: Vec<u8> = choices.priorities.iter().flat_map(|priority| priority.to_be_bytes()).collect();
    let state = match choices.state {
        State::Started => 0,
        State::Paused => 1,
        State::Stopped => 2,
    };
    let max_peers = choices.max_peers.map_or(-1, |most| (most as i64).min(MAX_PEERS));
    let preallocation = choices.preallocation.map(|chosen| chosen.to_string().into_bytes());
    let (version, sum) = match &preallocation {
        None => (PLAIN, checksum([PLAIN, state, max_peers], [&magnet, &torrent, &priorities])),
        Some(chosen) => {
            (VERSION, checksum([VERSION, state, max_peers], [&magnet, &torrent, &priorities, chosen]))
        }
    };
    let mut out = Vec::with_capacity(magnet.len() + torrent.len() + priorities.len() + 256);
    let mut writer = Writer::new(&mut out);
    writer.dict().key(b"checksum").bytes(&sum).key(b"magnet").bytes(&magnet);
    writer.key(b"max_peers").int(max_peers);
    if let Some(chosen) = &preallocation {
        writer.key(b"preallocation").bytes(chosen);
    }
    writer.key(b"priorities").bytes(&priorities);
    writer.key(b"state").int(state).key(b"torrent").bytes(&torrent).key(b"version").int(version).end();
    out
}
