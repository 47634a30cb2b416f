use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::bencode::{Limits, Reader, Strings};

/// A message with its strings owned, to be generated.
#[derive(Clone, Debug)]
struct Owned {
    tid: Vec<u8>,
    version: Option<Vec<u8>>,
    ip: Option<Vec<u8>>,
    read_only: bool,
    choice: u8,
    id: Id,
    target: Id,
    want: Want,
    flags: (bool, bool),
    number: i64,
    bytes: Vec<u8>,
    optional: [Option<Vec<u8>>; 8],
    numbers: [Option<i64>; 3],
    values: Option<Vec<u8>>,
    /// A bencoded value of any type.
    value: Vec<u8>,
    key: [u8; 32],
    signature: [u8; 64],
}

impl Owned {
    fn message(&self) -> Message<'_> {
        let body = match self.choice {
            0 => Body::Error(ErrorBody { code: self.number, text: &self.bytes }),
            1 | 2 => Body::Response(self.response()),
            _ => Body::Query { id: self.id, query: self.query() },
        };
        let (version, ip) = (self.version.as_deref(), self.ip.as_deref());
        Message { tid: &self.tid, version, ip, read_only: self.read_only, body }
    }

    fn response(&self) -> Response<'_> {
        let [nodes, nodes6, token, bloom_seeds, bloom_peers, samples, key, signature] =
            self.optional.each_ref().map(Option::as_deref);
        let [interval, num, seq] = self.numbers;
        let values = self.values.as_deref().map(|raw| Strings::from_raw(raw).unwrap());
        Response {
            id: self.id,
            nodes,
            nodes6,
            token,
            values,
            bloom_seeds,
            bloom_peers,
            interval,
            num,
            samples,
            value: self.flags.0.then_some(&self.value),
            key,
            signature,
            seq,
        }
    }

    fn query(&self) -> Query<'_> {
        let Self { target, want, flags, number, .. } = *self;
        match self.choice {
            3 => Query::Ping,
            4 => Query::FindNode { target, want },
            5 => Query::GetPeers { infohash: target, want, scrape: flags.0, no_seed: flags.1 },
            6 => Query::AnnouncePeer {
                infohash: target,
                port: number,
                implied_port: flags.0,
                token: &self.bytes,
                seed: flags.1,
            },
            7 => Query::SampleInfohashes { target, want },
            8 => Query::Get { target, seq: self.numbers[0], want },
            9 => Query::Put { token: &self.bytes, value: &self.value, signed: None },
            10 => {
                let salt = self.optional[0].as_deref().unwrap_or_default();
                let (key, signature, cas) = (&self.key, &self.signature, self.numbers[1]);
                let signed = Some(Signed { key, signature, seq: number, salt, cas });
                Query::Put { token: &self.bytes, value: &self.value, signed }
            }
            _ => Query::Other { method: b"unheard_of", target: flags.0.then_some(target), want },
        }
    }
}

fn messages() -> impl Strategy<Value = Owned> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..60);
    let id = || any::<[u8; 20]>().prop_map(Id::new);
    let envelope = (
        prop::collection::vec(any::<u8>(), 1..20),
        option::of(bytes()),
        option::of(bytes()),
        any::<bool>(),
        0..12_u8,
    );
    let want = any::<(bool, bool)>().prop_map(|(n4, n6)| Want { n4, n6 });
    let values = prop::collection::vec(bytes(), 0..8).prop_map(|values| {
        let mut raw = Vec::new();
        for value in &values {
            Writer::new(&mut raw).bytes(value);
        }
        raw
    });
    let optional = prop::array::uniform8(option::of(bytes()));
    let arguments = (id(), id(), want, any::<(bool, bool)>(), any::<i64>(), bytes());
    let returned = (optional, prop::array::uniform3(option::of(any::<i64>())), option::of(values));
    let value = prop_oneof![
        any::<i64>().prop_map(|number| format!("i{number}e").into_bytes()),
        bytes().prop_map(|bytes| crate::bencode::to_bytes(&serde_bytes::ByteBuf::from(bytes)).unwrap()),
        Just(b"d1:ale1:bd1:ci1eee".to_vec()),
    ];
    let item = (value, prop::array::uniform32(any::<u8>()), prop::array::uniform32(any::<u8>()));
    (envelope, arguments, returned, item).prop_map(|(envelope, arguments, returned, item)| {
        let (tid, version, ip, read_only, choice) = envelope;
        let (id, target, want, flags, number, bytes) = arguments;
        let (optional, numbers, values) = returned;
        Owned {
            tid,
            version,
            ip,
            read_only,
            choice,
            id,
            target,
            want,
            flags,
            number,
            bytes,
            optional,
            numbers,
            values,
            value: item.0,
            key: item.1,
            signature: [item.1, item.2].concat().try_into().unwrap(),
        }
    })
}

proptest! {
    #[test]
    fn every_message_survives_a_round_trip(owned in messages()) {
        let message = owned.message();
        let mut out = Vec::new();
        message.encode(&mut out);
        prop_assert_eq!(Message::decode(&out), Ok(message));
    }

    /// Strict reading finds nothing to complain about, and serde_bencode writes the same bytes.
    #[test]
    fn what_we_send_is_canonical(owned in messages()) {
        let mut out = Vec::new();
        owned.message().encode(&mut out);
        Reader::strict(&out, Limits::KRPC).skip().unwrap();
        let theirs: serde_bencode::value::Value = crate::bencode::from_bytes(&out, Limits::KRPC).unwrap();
        prop_assert_eq!(crate::bencode::to_bytes(&theirs).unwrap(), out);
    }

    #[test]
    fn a_message_with_one_byte_changed_never_panics(owned in messages(), at in any::<usize>(), byte: u8) {
        let mut out = Vec::new();
        owned.message().encode(&mut out);
        let at = at % out.len();
        out[at] = byte;
        if let Ok(message) = Message::decode(&out) {
            let mut again = Vec::new();
            message.encode(&mut again);
            prop_assert_eq!(Message::decode(&again), Ok(message));
        }
    }
}

#[test]
fn encoding_appends() {
    let mut out = b"before".to_vec();
    Message {
        tid: b"aa",
        version: None,
        ip: None,
        read_only: false,
        body: Body::Response(Response::new(Id::new(*b"mnopqrstuvwxyz123456"))),
    }
    .encode(&mut out);
    assert_eq!(out, b"befored1:rd2:id20:mnopqrstuvwxyz123456e1:t2:aa1:y1:re");
}
