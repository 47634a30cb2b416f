//! One table of queries, each written by hand, sent to our node and to others. Ours has to answer as the
//! BEPs say; where the others differ is printed and is no failure: it says what our node has to live
//! with.

use btdht::item::{immutable_target, mutable_target, signed_bytes};
use ed25519_dalek::{Signer as _, SigningKey};
use harness::process::binary;
use harness::rivals::{Libtorrent, Series, mainline, mainline_program, ready};
use harness::wire::{Argument, Asker, dict, int, list, string};
use krpc::Id;
use serde_json::json;

use crate::world::serve_with;

const SILENCE: &str = "silence";
const MALFORMED: &str = "error 203";

/// A query or a few of them, what our node has to make of the last one, and how to send it.
type Case = (&'static str, &'static str, fn(&mut Meeting<'_>) -> String);

/// An asker with an address, a key and targets that no other case has, and the node that it asks.
struct Meeting<'a> {
    asker: Asker,
    node: &'a str,
    secret: SigningKey,
    target: Id,
}

impl Meeting<'_> {
    fn ask(&mut self, method: &str, arguments: &[Argument<'_>]) -> String {
        let reply = self.asker.ask(self.node, method, arguments);
        reply.map_or_else(|| SILENCE.to_owned(), |reply| reply.outcome())
    }

    /// Sends the arguments of a query as they stand, in a message with these further keys.
    fn send(&mut self, method: &str, arguments: &[Argument<'_>], tid: &[u8]) -> String {
        let query =
            dict(&[("a", dict(arguments)), ("q", string(method)), ("t", string(tid)), ("y", string("q"))]);
        let reply = self.asker.send(self.node, &query, tid);
        reply.map_or_else(|| SILENCE.to_owned(), |reply| reply.outcome())
    }

    fn token(&mut self, method: &str, key: &str, target: Id) -> Vec<u8> {
        let reply = self.asker.ask(self.node, method, &[(key, string(target.as_bytes()))]);
        string(reply.and_then(|reply| reply.bytes("token")).unwrap_or_default())
    }

    fn announce(&mut self, arguments: &[Argument<'static>]) -> String {
        let target = self.target;
        let token = self.token("get_peers", "info_hash", target);
        let mut all = vec![("info_hash", string(target.as_bytes())), ("token", token)];
        all.extend_from_slice(arguments);
        self.ask("announce_peer", &all)
    }

    /// Puts with the token of `target`.
    fn put(&mut self, target: Id, arguments: &[Argument<'_>]) -> String {
        let token = self.token("get", "target", target);
        let mut all = arguments.to_vec();
        all.push(("token", token));
        // The crate `mainline` takes none without.
        all.push(("target", string(target.as_bytes())));
        self.ask("put", &all)
    }

    fn put_value(&mut self, value: &[u8]) -> String {
        self.put(immutable_target(value), &[("v", value.to_vec())])
    }

    /// A version under this meeting's key, salt `s`.
    fn version(&self, seq: i64, value: &[u8]) -> Vec<Argument<'static>> {
        self.salted(b"s", seq, value)
    }

    fn salted(&self, salt: &[u8], seq: i64, value: &[u8]) -> Vec<Argument<'static>> {
        let bytes = signed_bytes(salt, seq, value);
        vec![
            ("k", string(self.secret.verifying_key().to_bytes())),
            ("salt", string(salt)),
            ("seq", int(seq)),
            ("sig", string(self.secret.sign(&bytes).to_bytes())),
            ("v", value.to_vec()),
        ]
    }

    fn put_version(&mut self, seq: i64, value: &[u8], further: &[Argument<'static>]) -> String {
        let mut arguments = self.version(seq, value);
        arguments.extend_from_slice(further);
        self.put(self.slot(), &arguments)
    }

    fn slot(&self) -> Id {
        mutable_target(&self.secret.verifying_key().to_bytes(), b"s")
    }

    fn get(&mut self, target: Id, further: &[Argument<'static>]) -> String {
        let mut arguments = vec![("target", string(target.as_bytes()))];
        arguments.extend_from_slice(further);
        self.ask("get", &arguments)
    }

    /// Whether a value that is put comes back the same.
    fn round_trip(&mut self, value: &[u8]) -> String {
        let target = immutable_target(value);
        let put = self.put_value(value);
        let arguments = [("target", string(target.as_bytes())), ("want", list(&[string("n4")]))];
        let got = self.asker.ask(self.node, "get", &arguments).and_then(|reply| reply.answer("v"));
        format!("{put}; {}", if got.as_deref() == Some(value) { "same" } else { "not told" })
    }
}

/// A string that takes `len` bytes as bencode.
fn value_of(len: usize) -> Vec<u8> {
    string(vec![b'x'; len - 4])
}

/// The arguments of `version` with `key` replaced, or removed.
fn changed(
    mut version: Vec<Argument<'static>>,
    key: &'static str,
    value: Option<Vec<u8>>,
) -> Vec<Argument<'static>> {
    version.retain(|(name, _)| *name != key);
    version.extend(value.map(|value| (key, value)));
    version
}

const ENVELOPE: [Case; 9] = [
    ("a ping", "id", |m| m.ask("ping", &[])),
    ("a ping without id", MALFORMED, |m| m.send("ping", &[], b"aa")),
    ("an id of 19 bytes", MALFORMED, |m| m.ask("ping", &[("id", string([7; 19]))])),
    ("a transaction id of one byte", "id", |m| m.send("ping", &[("id", string(m.asker.id))], b"a")),
    ("a transaction id of 20 bytes", "id", |m| m.send("ping", &[("id", string(m.asker.id))], &[9; 20])),
    ("an unknown method", "error 204", |m| m.ask("unheard_of", &[])),
    ("an unknown method with target", "id nodes", |m| m.ask("unheard_of", &[("target", string([9; 20]))])),
    ("an unknown method with info_hash", "id nodes", |m| {
        m.ask("unheard_of", &[("info_hash", string([9; 20]))])
    }),
    ("keys out of order", "id", |m| {
        let query = dict(&[
            ("y", string("q")),
            ("t", string("zz")),
            ("q", string("ping")),
            ("a", dict(&[("id", string(m.asker.id))])),
        ]);
        let reply = m.asker.send(m.node, &query, b"zz");
        reply.map_or_else(|| SILENCE.to_owned(), |reply| reply.outcome())
    }),
];

const NODES_AND_PEERS: [Case; 18] = [
    ("find_node", "id nodes", |m| m.ask("find_node", &[("target", string([9; 20]))])),
    ("find_node without target", MALFORMED, |m| m.ask("find_node", &[])),
    ("find_node, a target of 21 bytes", MALFORMED, |m| m.ask("find_node", &[("target", string([9; 21]))])),
    ("find_node that wants n4 and n6 of a node without IPv6", "id nodes", |m| {
        let want = list(&[string("n4"), string("n6")]);
        m.ask("find_node", &[("target", string([9; 20])), ("want", want)])
    }),
    ("find_node whose want is no list", "id nodes", |m| {
        m.ask("find_node", &[("target", string([9; 20])), ("want", string("n4"))])
    }),
    ("get_peers of an unknown infohash", "id nodes token", |m| {
        m.ask("get_peers", &[("info_hash", string(m.target.as_bytes()))])
    }),
    ("get_peers without info_hash", MALFORMED, |m| m.ask("get_peers", &[])),
    ("get_peers of a known infohash", "id nodes token values", |m| {
        m.announce(&[("port", int(7000))]);
        m.ask("get_peers", &[("info_hash", string(m.target.as_bytes()))])
    }),
    ("scrape of an unknown infohash", "id nodes token", |m| {
        m.ask("get_peers", &[("info_hash", string(m.target.as_bytes())), ("scrape", int(1))])
    }),
    ("scrape of a known infohash", "BFpe BFsd id nodes token values", |m| {
        m.announce(&[("port", int(7000))]);
        m.ask("get_peers", &[("info_hash", string(m.target.as_bytes())), ("scrape", int(1))])
    }),
    ("noseed where there is only a seed", "id nodes token", |m| {
        m.announce(&[("port", int(7000)), ("seed", int(1))]);
        m.ask("get_peers", &[("info_hash", string(m.target.as_bytes())), ("noseed", int(1))])
    }),
    ("an announce", "id", |m| m.announce(&[("port", int(7000))])),
    ("an announce without port, which is implied", "id", |m| m.announce(&[("implied_port", int(1))])),
    ("an announce without port", MALFORMED, |m| m.announce(&[])),
    ("an announce of port 0", MALFORMED, |m| m.announce(&[("port", int(0))])),
    ("an announce of port 65616", MALFORMED, |m| m.announce(&[("port", int(65_616))])),
    ("an announce with a made-up token", MALFORMED, |m| {
        let infohash = string(m.target.as_bytes());
        m.ask("announce_peer", &[("info_hash", infohash), ("port", int(7000)), ("token", string("12345678"))])
    }),
    ("an announce with the token of another address", MALFORMED, |m| {
        let infohash = string(m.target.as_bytes());
        let mut other = Asker::new("85.230.0.1");
        let reply = other.ask(m.node, "get_peers", &[("info_hash", infohash.clone())]);
        let token = string(reply.and_then(|reply| reply.bytes("token")).unwrap_or_default());
        m.ask("announce_peer", &[("info_hash", infohash), ("port", int(7000)), ("token", token)])
    }),
];

const IMMUTABLE: [Case; 13] = [
    ("get of an unknown target", "id nodes token", |m| m.get(m.target, &[])),
    ("get without target", MALFORMED, |m| m.ask("get", &[])),
    ("put and get", "id; same", |m| m.round_trip(&string("hello"))),
    ("put and get of all kinds of values", "id; same", |m| m.round_trip(b"d1:ali-1e0:lee1:bdee")),
    ("put and get of 1,000 bytes", "id; same", |m| m.round_trip(&value_of(1000))),
    ("put of 1,001 bytes", "error 205", |m| m.put_value(&value_of(1001))),
    ("put of unsorted keys", MALFORMED, |m| m.put_value(b"d1:bi1e1:ai2ee")),
    // What is no bencode at all gets no answer from us (D2).
    ("put of a key twice", SILENCE, |m| m.put_value(b"d1:ai1e1:ai2ee")),
    ("put of a number with a leading zero", SILENCE, |m| m.put_value(b"i01e")),
    ("put without value", MALFORMED, |m| m.put(m.target, &[])),
    ("put with the token of another target", MALFORMED, |m| m.put(m.target, &[("v", string("hello"))])),
    ("put with a made-up token", MALFORMED, |m| {
        let target = string(immutable_target(b"5:hello").as_bytes());
        m.ask("put", &[("target", target), ("token", string("12345678")), ("v", string("hello"))])
    }),
    ("get of an immutable item with seq", "id nodes token v", |m| {
        let value = string(m.target.as_bytes());
        m.put_value(&value);
        m.get(immutable_target(&value), &[("seq", int(1))])
    }),
];

const MUTABLE: [Case; 24] = [
    ("a first version", "id", |m| m.put_version(1, b"1:a", &[])),
    ("a version without salt", "id", |m| {
        let version = changed(m.salted(b"", 1, b"1:a"), "salt", None);
        m.put(mutable_target(&m.secret.verifying_key().to_bytes(), b""), &version)
    }),
    ("a version with an empty salt", "id", |m| {
        let version = m.salted(b"", 1, b"1:a");
        m.put(mutable_target(&m.secret.verifying_key().to_bytes(), b""), &version)
    }),
    ("get of a version", "id k nodes seq sig token v", |m| {
        m.put_version(4, b"1:a", &[]);
        m.get(m.slot(), &[])
    }),
    ("get of a version newer than 3 where 4 is", "id k nodes seq sig token v", |m| {
        m.put_version(4, b"1:a", &[]);
        m.get(m.slot(), &[("seq", int(3))])
    }),
    ("get of a version newer than 4 where 4 is", "id nodes seq token", |m| {
        m.put_version(4, b"1:a", &[]);
        m.get(m.slot(), &[("seq", int(4))])
    }),
    ("a newer version", "id", |m| {
        m.put_version(4, b"1:a", &[]);
        m.put_version(5, b"1:b", &[])
    }),
    ("an older version", "error 302", |m| {
        m.put_version(4, b"1:a", &[]);
        m.put_version(3, b"1:b", &[])
    }),
    ("the same version again", "id", |m| {
        m.put_version(4, b"1:a", &[]);
        m.put_version(4, b"1:a", &[])
    }),
    ("another value with the same number", "error 302", |m| {
        m.put_version(4, b"1:a", &[]);
        m.put_version(4, b"1:b", &[])
    }),
    ("cas of what is stored", "id", |m| {
        m.put_version(4, b"1:a", &[]);
        m.put_version(5, b"1:b", &[("cas", int(4))])
    }),
    ("cas of something else", "error 301", |m| {
        m.put_version(4, b"1:a", &[]);
        m.put_version(5, b"1:b", &[("cas", int(3))])
    }),
    ("cas where nothing is stored", "id", |m| m.put_version(5, b"1:b", &[("cas", int(3))])),
    ("the largest number", "id", |m| m.put_version(i64::MAX, b"1:a", &[])),
    ("a negative number", MALFORMED, |m| m.put_version(-1, b"1:a", &[])),
    ("a number that is a string", MALFORMED, |m| {
        let version = changed(m.version(1, b"1:a"), "seq", Some(string("1")));
        m.put(m.slot(), &version)
    }),
    ("no number", MALFORMED, |m| {
        let version = changed(m.version(1, b"1:a"), "seq", None);
        m.put(m.slot(), &version)
    }),
    ("no signature", MALFORMED, |m| {
        let version = changed(m.version(1, b"1:a"), "sig", None);
        m.put(m.slot(), &version)
    }),
    ("a signature of 63 bytes", MALFORMED, |m| {
        let version = changed(m.version(1, b"1:a"), "sig", Some(string([1; 63])));
        m.put(m.slot(), &version)
    }),
    ("a key of 31 bytes", MALFORMED, |m| {
        let version = changed(m.version(1, b"1:a"), "k", Some(string([1; 31])));
        m.put(m.slot(), &version)
    }),
    ("the signature of another number", "error 206", |m| {
        let version = changed(m.version(1, b"1:a"), "seq", Some(int(2)));
        m.put(m.slot(), &version)
    }),
    ("a salt of 64 bytes", "id", |m| {
        let version = m.salted(&[b's'; 64], 1, b"1:a");
        m.put(mutable_target(&m.secret.verifying_key().to_bytes(), &[b's'; 64]), &version)
    }),
    ("a salt of 65 bytes", "error 207", |m| {
        let version = m.salted(&[b's'; 65], 1, b"1:a");
        m.put(mutable_target(&m.secret.verifying_key().to_bytes(), &[b's'; 65]), &version)
    }),
    ("a version of 1,001 bytes", "error 205", |m| m.put_version(1, &value_of(1001), &[])),
];

const SAMPLES: [Case; 2] = [
    ("sample_infohashes", "id interval nodes num samples", |m| {
        m.ask("sample_infohashes", &[("target", string([9; 20]))])
    }),
    ("sample_infohashes without target", MALFORMED, |m| m.ask("sample_infohashes", &[])),
];

/// Runs the whole table against `node`, from addresses below 85.`net`.
fn outcomes(node: &str, net: u8) -> Vec<String> {
    let tables: [&[Case]; 5] = [&ENVELOPE, &NODES_AND_PEERS, &IMMUTABLE, &MUTABLE, &SAMPLES];
    let cases = tables.into_iter().flatten();
    let meet = |(n, (_, _, run)): (u8, &Case)| {
        let asker = Asker::new(&format!("85.{net}.{n}.1"));
        let secret = SigningKey::from_bytes(&[n; 32]);
        run(&mut Meeting { asker, node, secret, target: Id::new([n; 20]) })
    };
    (1..).zip(cases).map(meet).collect()
}

#[test]
fn every_query_is_answered_as_the_beps_say_and_others_are_compared() {
    let test = "every_query_is_answered_as_the_beps_say_and_others_are_compared";
    binary("btdht");
    let needs = [Libtorrent::python(Series::V20), Libtorrent::python(Series::V21), mainline_program()];
    if !ready(test, &needs) {
        return;
    }
    let addresses = ["85.1.0.1:6881", "85.2.0.1:6881", "85.3.0.1:6881", "85.4.0.1:6881"];
    let names = ["ours", "libtorrent 2.0", "libtorrent 2.1", "mainline"];
    // Askers end each exchange with a ping, whose answer may overtake those of another shard.
    let _ours = serve_with("85.1.0.1", &["85.1.0.1:6881"], &["--shards", "1"]);
    let mut older = Libtorrent::start(Series::V20, addresses[1], Some(&[]));
    let mut newer = Libtorrent::start(Series::V21, addresses[2], Some(&[]));
    for rival in [&mut older, &mut newer] {
        rival.ask(&json!({"op": "dht_add", "node": addresses[0]}));
    }
    let mut crated = mainline(&["serve", "85.4.0.1", "6881", addresses[0]]);
    crated.wait_for("mainline listens", |line| line.starts_with("listening ").then_some(()));

    let told: Vec<Vec<String>> = std::thread::scope(|scope| {
        let runs: Vec<_> =
            addresses.iter().zip(200..).map(|(node, net)| scope.spawn(move || outcomes(node, net))).collect();
        runs.into_iter().map(|run| run.join().expect("every node answers pings")).collect()
    });
    let mut wrong = Vec::new();
    let tables: [&[Case]; 5] = [&ENVELOPE, &NODES_AND_PEERS, &IMMUTABLE, &MUTABLE, &SAMPLES];
    for (n, (what, wanted, _)) in tables.into_iter().flatten().enumerate() {
        if told[0][n] != *wanted {
            wrong.push(format!("{what}: `{}` instead of `{wanted}`", told[0][n]));
        }
        for (name, rival) in names.iter().zip(&told).skip(1) {
            // libtorrent tells ports too, as `p`, which no BEP knows.
            let words: Vec<&str> = rival[n].split(' ').filter(|word| *word != "p").collect();
            if words.join(" ").replace(" p;", ";") != *wanted {
                println!("{what}: `{wanted}`, but {name}: `{}`", rival[n]);
            }
        }
    }
    assert!(wrong.is_empty(), "our node answers\n{}", wrong.join("\n"));
}
