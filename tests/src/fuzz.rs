//! Fuzz targets as plain functions: libFuzzer drives them from `tests/fuzz`, and `cargo test` drives
//! them over their seeds and a fixed sequence of mutations (`fuzz_smoke`). A target panics when the
//! parser breaks a promise; refusing input is no such thing.

use krpc::bencode::{Limits, Reader, Value, from_bytes, scan, scan_prefix};
use krpc::magnet::Magnet;
use krpc::{Id, Message};

use crate::corpus;

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

fn datagrams() -> Vec<Vec<u8>> {
    corpus::BEP_5.iter().map(|packet| packet.to_vec()).collect()
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
