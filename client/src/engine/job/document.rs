//! The file `job`: bencoded, with a version and a checksum.

use krpc::bencode::{self, Limits, Writer};
use krpc::magnet::Magnet;
use serde::Deserialize;
use serde_bytes::ByteBuf;

use super::Choices;
use crate::engine::options::{Rates, Source, State};
use crate::metainfo::Metainfo;
use crate::storage::checksum;

/// What a file has that says nothing of preallocation.
const PLAIN: i64 = 1;
/// What a file has that does.
const SPACE: i64 = 2;
/// What a file has that says something of rates too.
const RATES: i64 = 3;
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
    /// The four of [`Rates`], eight bytes each; absent before they were kept.
    rates: Option<ByteBuf>,
    checksum: ByteBuf,
}

const INCOMPLETE: &str = "it does not say all that its version does";

/// Reads a file of any known version.
pub(super) fn decode(bytes: &[u8]) -> Result<(Source, Choices), String> {
    let document: Document = bencode::from_bytes(bytes, Limits::RESUME).map_err(|error| error.to_string())?;
    let numbers = [document.version, document.state, document.max_peers];
    let strings = [&document.magnet, &document.torrent, &document.priorities].map(|bytes| &bytes[..]);
    let [magnet, torrent, priorities] = strings;
    let (space, rates) = (document.preallocation.as_deref(), document.rates.as_deref());
    let (space, rates) = match document.version {
        PLAIN => (None, None),
        SPACE => (Some(space.ok_or(INCOMPLETE)?), None),
        RATES => (Some(space.ok_or(INCOMPLETE)?), Some(rates.ok_or(INCOMPLETE)?)),
        other => return Err(format!("version {other} is not known")),
    };
    let sum = match (space, rates) {
        (Some(space), Some(rates)) => checksum(numbers, [magnet, torrent, priorities, space, rates]),
        (Some(space), None) => checksum(numbers, [magnet, torrent, priorities, space]),
        (None, _) => checksum(numbers, strings),
    };
    if document.checksum[..] != sum {
        return Err("the checksum does not match".into());
    }
    let preallocation = match space.filter(|name| !name.is_empty()) {
        Some(name) => Some(std::str::from_utf8(name).map_err(|error| error.to_string())?.parse()?),
        None => None,
    };
    let rates = match rates {
        Some(bytes) => read_rates(bytes).ok_or("the rates do not fit")?,
        None => Rates::default(),
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
    Ok((source, Choices { state, max_peers, priorities, preallocation, rates }))
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
    let space = choices.preallocation.map(|chosen| chosen.to_string().into_bytes());
    let rates = (choices.rates != Rates::default()).then(|| write_rates(choices.rates));
    let (version, space) = match (&space, &rates) {
        (None, None) => (PLAIN, None),
        (Some(space), None) => (SPACE, Some(&space[..])),
        (space, Some(_)) => (RATES, Some(space.as_deref().unwrap_or_default())),
    };
    let numbers = [version, state, max_peers];
    let sum = match (space, &rates) {
        (None, _) => checksum(numbers, [&magnet, &torrent, &priorities]),
        (Some(space), None) => checksum(numbers, [&magnet, &torrent, &priorities, space]),
        (Some(space), Some(rates)) => checksum(numbers, [&magnet, &torrent, &priorities, space, rates]),
    };
    let mut out = Vec::with_capacity(magnet.len() + torrent.len() + priorities.len() + 256);
    let mut writer = Writer::new(&mut out);
    writer.dict().key(b"checksum").bytes(&sum).key(b"magnet").bytes(&magnet);
    writer.key(b"max_peers").int(max_peers);
    if let Some(space) = space {
        writer.key(b"preallocation").bytes(space);
    }
    writer.key(b"priorities").bytes(&priorities);
    if let Some(rates) = &rates {
        writer.key(b"rates").bytes(rates);
    }
    writer.key(b"state").int(state).key(b"torrent").bytes(&torrent).key(b"version").int(version).end();
    out
}

fn write_rates(Rates { down, up, peer_down, peer_up }: Rates) -> Vec<u8> {
    [down, up, peer_down, peer_up].iter().flat_map(|rate| rate.to_be_bytes()).collect()
}

fn read_rates(bytes: &[u8]) -> Option<Rates> {
    let ([down, up, peer_down, peer_up], []) = bytes.as_chunks::<8>() else { return None };
    let [down, up, peer_down, peer_up] = [down, up, peer_down, peer_up].map(|rate| u64::from_be_bytes(*rate));
    Some(Rates { down, up, peer_down, peer_up })
}
