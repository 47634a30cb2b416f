//! Fuzz targets as plain functions: libFuzzer drives them from `tests/fuzz`, and `cargo test` drives
//! them over their seeds and a fixed sequence of mutations (`fuzz_smoke`). A target panics when the
//! parser breaks a promise; refusing input is no such thing.

mod hosts;
mod input;
mod node;
mod split;
mod trace;
mod wire;

use std::path::{Component, Path};
use std::sync::Arc;

use btdht::item::{MutableItem, SecretKey};
use btdht::mutable_torrent::value_of;
use btfetch::bitfield::Bitfield;
use btfetch::engine::VersionFile;
use btfetch::metainfo::{Info, Metainfo};
use btfetch::piece::PieceIndex;
use btfetch::storage::{Resume, ResumeFile, Totals};
use krpc::bencode::{Limits, Reader, Value, from_bytes, scan, scan_prefix};
use krpc::magnet::Magnet;
use krpc::{Id, Message};

use crate::corpus;

pub use node::{node, shards};
pub use trace::trace;
pub use wire::{extension_handshake, http_tracker, metadata_message, peer_conn, udp_tracker};

/// A parser under test.
pub struct Target {
    /// The libFuzzer binary, and the folder under `tests/fuzz/regressions` whose files are replayed.
    pub name: &'static str,
    /// Takes any bytes.
    pub run: fn(&[u8]),
    /// Inputs to start from, valid ones mostly.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All targets; each has a binary of one line in `tests/fuzz/targets`.
pub const TARGETS: &[Target] = &[
    Target { name: "bencode_scan", run: bencode_scan, seeds: documents },
    Target { name: "value", run: value, seeds: documents },
    Target { name: "krpc_message", run: krpc_message, seeds: datagrams },
    Target { name: "magnet", run: magnet, seeds: magnets },
    Target { name: "metainfo", run: metainfo, seeds: torrents },
    Target { name: "resume", run: resume, seeds: resumes },
    Target { name: "version_file", run: version_file, seeds: version_files },
    Target { name: "peer_conn", run: peer_conn, seeds: wire::streams },
    Target { name: "extension_handshake", run: extension_handshake, seeds: wire::handshakes },
    Target { name: "metadata_message", run: metadata_message, seeds: wire::metadata_messages },
    Target { name: "http_tracker", run: http_tracker, seeds: wire::http_replies },
    Target { name: "node", run: node, seeds: node::sequences },
    Target { name: "shards", run: shards, seeds: node::sequences },
    Target { name: "udp_tracker", run: udp_tracker, seeds: wire::udp_replies },
    Target { name: "trace", run: trace, seeds: trace::traces },
];

/// What `scan` accepts is one document to every other reader too; what it refuses, to none.
pub fn bencode_scan(data: &[u8]) {
    let limits = Limits { tokens: 10_000, ..Limits::METAINFO };
    let scanned = scan(data, limits);
    let _ = scan(data, Limits::KRPC);
    match scan_prefix(data, limits) {
        Ok(len) => assert_eq!(scan(&data[..len], limits), Ok(())),
        Err(error) => assert_eq!(scanned, Err(error)),
    }
    if scanned.is_ok() {
        let parsed = from_bytes::<serde_bencode::value::Value>(data, limits);
        assert!(parsed.is_ok(), "serde_bencode refuses what scan accepts");
    }
}

/// A tree is built exactly from what `scan` accepts, and holds all of its bytes.
pub fn value(data: &[u8]) {
    let parsed = Value::parse(data, Limits::EXTENSION);
    assert_eq!(parsed.as_ref().err(), scan(data, Limits::EXTENSION).err().as_ref());
    let Ok(parsed) = parsed else { return };
    assert_eq!(parsed.raw(), data);
    let mut reader = Reader::new(data, Limits::EXTENSION);
    assert!(reader.skip().is_ok());
    assert_eq!(Value::parse_strict(data, Limits::EXTENSION).is_ok(), reader.is_canonical());
}

/// A message survives encoding; only well-formed datagrams are answerable.
pub fn krpc_message(data: &[u8]) {
    match Message::decode(data) {
        Ok(message) => {
            let mut out = Vec::new();
            message.encode(&mut out);
            // We write the `port` and the error's code that they left out, which may pass the limit.
            if out.len() <= Limits::KRPC.len {
                assert_eq!(Message::decode(&out), Ok(message));
            }
        }
        Err(failure) if failure.tid.is_some() => assert_eq!(scan(data, Limits::KRPC), Ok(())),
        Err(_) => {}
    }
}

/// A magnet survives printing, and stays within its caps.
pub fn magnet(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(magnet) = Magnet::parse(text) else { return };
    assert!(magnet.trackers.len() <= Magnet::MAX_TRACKERS && magnet.peers.len() <= Magnet::MAX_PEERS);
    let printed = magnet.to_string();
    // Escaping makes a link longer, at most threefold.
    if printed.len() <= Magnet::MAX_LEN {
        assert_eq!(Magnet::parse(&printed), Ok(magnet));
    }
}

/// What is accepted is within its limits, stays in its folder, and survives being written.
pub fn metainfo(data: &[u8]) {
    let _ = Info::parse(data);
    let Ok(metainfo) = Metainfo::parse(data) else { return };
    let info = &metainfo.info;
    assert!(
        data.windows(info.raw().len()).any(|window| window == &**info.raw()),
        "the hash is of other bytes"
    );
    assert_eq!(Info::parse(info.raw()).as_ref(), Ok(info));
    assert!((1..=1 << 21).contains(&info.pieces()) && info.total() <= 1 << 48);
    assert_eq!(info.is_v2_only(), info.piece_hash(PieceIndex(info.pieces() - 1)).is_none());
    assert_eq!(info.piece_hash(PieceIndex(info.pieces())), None);
    let mut end = 0;
    for file in info.files() {
        assert_eq!(file.extent.offset, end);
        end += file.len();
        assert!(file.path().components().all(|part| matches!(part, Component::Normal(_))));
    }
    assert_eq!(end, info.total());
    let mut written = Vec::new();
    metainfo.write(&mut written);
    // Without `piece layers`, which is not kept, a v2 torrent is not whole.
    if !info.is_v2_only() {
        let again =
            Metainfo::parse(&written).map(|again| Metainfo { nodes: metainfo.nodes.clone(), ..again });
        assert_eq!(again, Ok(metainfo));
    }
}

/// A resume file that is believed fits its torrent and was not damaged.
pub fn resume(data: &[u8]) {
    let info = sample_info();
    let Ok(resume) = Resume::parse(data, &info) else { return };
    assert_eq!(resume.have.len(), info.pieces());
    assert_eq!(resume.stamps.len(), info.files().len());
    // Nobody stumbles over a SHA-1 checksum by mutation: it says what we wrote.
    assert!(sample_resumes().contains(&resume), "{resume:?}");
}

/// Of the version of a mutable torrent that a folder knows nothing is believed but what was signed.
pub fn version_file(data: &[u8]) {
    let Ok(version) = sample_version_file(Path::new("")).parse(data) else { return };
    assert_eq!((version.seq, version.infohash), (7, Id::new([9; 20])));
}

fn torrents() -> Vec<Vec<u8>> {
    let hashes = "aaaaaaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbbbbb";
    let single = format!("d6:lengthi1500e4:name1:x12:piece lengthi1024e6:pieces40:{hashes}e");
    let multi = format!(
        "d5:filesld6:lengthi1000e4:pathl1:a1:beed4:attr1:p6:lengthi24e4:pathl4:.pad2:24eed4:attr1:x6:lengthi7e\
         4:pathl1:ceed4:attr1:l4:pathl1:de12:symlink pathl1:ceee4:name1:n12:piece lengthi1024e6:pieces40:{hashes}\
         7:privatei1ee"
    );
    let tree = format!("d1:xd0:d6:lengthi1500e11:pieces root32:{0}{0}eee", "r".repeat(16));
    let v2 = format!("d9:file tree{tree}12:meta versioni2e4:name1:x12:piece lengthi16384ee");
    let hybrid = format!(
        "d9:file tree{tree}6:lengthi1500e12:meta versioni2e4:name1:x12:piece lengthi16384e6:pieces20:{}e",
        &hashes[..20]
    );
    let outer = |info: &str| {
        format!(
            "d8:announce8:udp://a/13:announce-listll8:udp://b/8:udp://c/el8:udp://d/ee7:comment2:hi10:created by1:x\
             13:creation datei99e4:info{info}5:nodesll9:127.0.0.1i6881eee12:piece layersde8:url-listl9:http://w/ee"
        )
        .into_bytes()
    };
    let mut torrents: Vec<_> = [&single, &multi, &v2, &hybrid].map(|info| outer(info)).into();
    torrents.push(single.into_bytes());
    torrents
}

fn sample_info() -> Arc<Info> {
    Arc::new(Info::parse(torrents().last().unwrap()).unwrap())
}

/// What a run leaves that has looked at everything, and one that has not.
fn sample_resumes() -> [Resume; 2] {
    let totals = Totals { downloaded: 7, uploaded: 1 << 40 };
    let whole = Resume { have: Bitfield::full(2), unchecked: Bitfield::new(2), stamps: vec![None], totals };
    let begun = Resume { have: Bitfield::new(2), unchecked: Bitfield::full(2), ..whole.clone() };
    [whole, begun]
}

fn resumes() -> Vec<Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    let file = ResumeFile::new(dir.path(), sample_info());
    let bytes = |resume| {
        file.save(resume).unwrap();
        std::fs::read(file.path()).unwrap()
    };
    sample_resumes().iter().map(bytes).collect()
}

fn sample_version_file(dir: &Path) -> VersionFile {
    let key = data_encoding::HEXLOWER.encode(&SecretKey::from_seed(&[1; 32]).public());
    let magnet = Magnet::parse(&format!("magnet:?xs=urn:btpk:{key}")).unwrap();
    VersionFile::new(dir, &magnet).unwrap()
}

/// What the folder would hold, written by hand: only a session makes a version to save.
fn version_files() -> Vec<Vec<u8>> {
    let item =
        MutableItem::sign(&SecretKey::from_seed(&[1; 32]), b"", 7, &value_of(&Id::new([9; 20]))).unwrap();
    let value = [format!("5:value{}:", item.value.len()).as_bytes(), &item.value].concat();
    let file = [b"d3:seqi7e9:signature64:", &item.signature[..], &value, b"7:versioni1ee"].concat();
    assert!(sample_version_file(Path::new("")).parse(&file).is_ok());
    vec![file]
}

fn datagrams() -> Vec<Vec<u8>> {
    corpus::BEP_5.iter().map(|packet| packet.to_vec()).chain(corpus::extensions()).collect()
}

fn documents() -> Vec<Vec<u8>> {
    let extra: [&[u8]; 6] = [
        b"d1:md11:ut_metadatai3e6:ut_pexi1ee13:metadata_sizei31235e1:v4:teste",
        b"d8:msg_typei1e5:piecei0e10:total_sizei34256eexxxxxxxx",
        b"d1:bi1e1:ai2e1:ci3e1:aai4ee",
        b"llli-1eedeede3:abce",
        b"i-9223372036854775808e",
        b"d0:0:1:\xffle2:\xff\x00dee",
    ];
    let mut documents = datagrams();
    documents.extend(extra.iter().map(|document| document.to_vec()));
    documents
}

fn magnets() -> Vec<Vec<u8>> {
    let id = Id::new(*b"mnopqrstuvwxyz123456");
    let v2 = "caf1e1c30e81cb361b9ee167c4aa64228a7fa4fa9f6105232b28ad099f3a302e";
    vec![
        Magnet::new(id).to_string().into_bytes(),
        format!("magnet:?xt=urn:btih:{id}&xt=urn:btmh:1220{v2}&dn=a+b%20c&tr=http%3A%2F%2Fa%2F&tr=udp://b:1/&so=0,2,4-6")
            .into_bytes(),
        format!("magnet:?xt=urn:btih:{id}&x.pe=[2001:db8::1]:80&x.pe=host:81&amp;x.pe=1.2.3.4:5&so=9-10&so=1").into_bytes(),
        format!("magnet:?xs=urn:btpk:{v2}&s=6e6e").into_bytes(),
        b"magnet:?xt=urn:btih:NVXG64DROJZXI5LWO54HS6RRGIZTINJW".to_vec(),
    ]
}
