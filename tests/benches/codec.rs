//! Nanoseconds for a KRPC message, read and written, beside serde_bencode with typed structs in the
//! same run: `cargo bench -p harness --bench codec`. PERFORMANCE.md has the budget of a query.
#![allow(clippy::unwrap_used)]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use krpc::bencode::{Limits, Strings, from_bytes, scan, to_bytes};
use krpc::compact::{self, Address, Contact, V4};
use krpc::{Body, Id, Message, Query, Response, Want};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

criterion_group!(benches, messages, metainfo);
criterion_main!(benches);

fn messages(criterion: &mut Criterion) {
    let id = Id::new(*b"abcdefghij0123456789");
    let mut nodes = Vec::new();
    let mut values = Vec::new();
    for index in 1..=50_u8 {
        let addr = V4::from_wire(&[index, 2, 3, 4, 0x1a, 0xe1]).unwrap();
        if index <= 8 {
            compact::put_node(&mut nodes, &Contact { id: Id::new([index; 20]), addr });
        }
        compact::put_value(&mut values, addr.to_socket());
    }
    let query = Query::GetPeers {
        infohash: Id::new([7; 20]),
        want: Want::UNSPECIFIED,
        scrape: false,
        no_seed: false,
    };
    let reply = Response { nodes: Some(&nodes), token: Some(b"aoeusnth"), ..Response::new(id) };
    let with_values = Response { values: Some(Strings::from_raw(&values).unwrap()), ..reply };
    for (name, body) in [
        ("get_peers", Body::Query { id, query }),
        ("8_nodes", Body::Response(reply)),
        ("8_nodes_50_values", Body::Response(with_values)),
    ] {
        let message = Message { tid: b"aaaa", version: Some(b"bd01"), ip: None, read_only: false, body };
        measure(criterion, name, &message);
    }
}

fn measure(criterion: &mut Criterion, name: &str, message: &Message<'_>) {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    let typed: Typed = from_bytes(&bytes, Limits::KRPC).unwrap();
    assert_eq!(to_bytes(&typed).unwrap(), bytes, "both write the same");

    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("decode", |bench| {
        bench.iter(|| black_box(Message::decode(black_box(&bytes)).unwrap().tid.len()));
    });
    group.bench_function("decode serde_bencode", |bench| {
        #[allow(clippy::disallowed_methods)] // the rival, without our scan in front of it
        bench.iter(|| black_box(serde_bencode::from_bytes::<Typed>(black_box(&bytes)).unwrap()));
    });
    let mut out = Vec::with_capacity(2048);
    group.bench_function("encode", |bench| {
        bench.iter(|| {
            out.clear();
            black_box(message).encode(&mut out);
            black_box(out.len())
        });
    });
    group.bench_function("encode serde_bencode", |bench| {
        bench.iter(|| black_box(serde_bencode::to_bytes(black_box(&typed)).unwrap()));
    });
    group.finish();
}

/// A torrent of 100,000 files at the reader's full length: how fast a large document is checked.
fn metainfo(criterion: &mut Criterion) {
    let mut bytes = b"d4:infod5:filesl".to_vec();
    for index in 0..100_000 {
        bytes.extend_from_slice(format!("d6:lengthi{index}e4:pathl3:dir9:{index:09}ee").as_bytes());
    }
    bytes.extend_from_slice(b"e4:name1:x6:pieces");
    bytes.extend_from_slice(b"4000000:");
    bytes.resize(bytes.len() + 4_000_000, b'p');
    bytes.extend_from_slice(b"ee");
    let mut group = criterion.benchmark_group("metainfo");
    group.throughput(Throughput::Bytes(bytes.len() as u64)).sample_size(20);
    group.bench_function("scan 100,000 files", |bench| {
        bench.iter(|| scan(black_box(&bytes), Limits::METAINFO).unwrap());
    });
    group.finish();
}

/// The same messages, as serde would have them.
#[derive(Serialize, Deserialize)]
struct Typed {
    t: ByteBuf,
    y: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    q: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    a: Option<Arguments>,
    #[serde(skip_serializing_if = "Option::is_none")]
    r: Option<Returned>,
    #[serde(skip_serializing_if = "Option::is_none")]
    v: Option<ByteBuf>,
}

#[derive(Serialize, Deserialize)]
struct Arguments {
    id: ByteBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    info_hash: Option<ByteBuf>,
}

#[derive(Serialize, Deserialize)]
struct Returned {
    id: ByteBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    nodes: Option<ByteBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<ByteBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    values: Option<Vec<ByteBuf>>,
}
