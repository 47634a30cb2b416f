//! Items of BEP 44, both ways: libtorrent and the crate `mainline` put and we get, we put and they get,
//! on our nodes and on theirs, with their signatures and ours.

use std::time::Duration;

use harness::process::{binary, eventually};
use harness::rivals::{Libtorrent, Series, mainline_program, ready};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha512};

use crate::world::{Net, btdht, libtorrent_dht, mainline_joins, mainline_tries, serve, serve_at};

/// A dictionary with all of bencode's kinds in it, in canonical form, and its hash.
const TREE: &str = "d4:listli-7e3:\x01\x02\x7fe4:name5:abcdee";
const SALT: &str = "a salt";

/// A key file and what libtorrent and `mainline` need of it.
struct Key {
    folder: tempfile::TempDir,
    /// 64 hexadecimal digits.
    public: String,
}

impl Key {
    /// Made by our own `btdht put`, whose first version is stored by nobody: it knows no node.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut this = Self { folder, public: String::new() };
        let path = this.path();
        let (lines, stored) = btdht(&[
            "put",
            "nobody sees this",
            "--new-key",
            &path,
            "--bind",
            "85.99.0.1",
            "--bootstrap",
            "85.98.0.1:6881",
            "--timeout",
            "1",
            "--no-state",
        ]);
        assert!(!stored, "{lines:?}");
        let secret = btdht::item::SecretKey::from_seed(&this.seed());
        this.public = hex(secret.public());
        this
    }

    fn path(&self) -> String {
        self.folder.path().join("key").to_str().unwrap().to_owned()
    }

    fn seed(&self) -> [u8; 32] {
        let text = std::fs::read_to_string(self.path()).unwrap();
        data_encoding::HEXLOWER.decode(text.trim().as_bytes()).unwrap().try_into().unwrap()
    }

    /// The 64 bytes that libtorrent signs with: the hash of the seed with the bits of Ed25519 set.
    fn expanded(&self) -> String {
        let mut bytes: [u8; 64] = Sha512::digest(self.seed()).into();
        bytes[0] &= 248;
        bytes[31] = bytes[31] & 63 | 64;
        hex(bytes)
    }
}

fn hex(bytes: impl AsRef<[u8]>) -> String {
    data_encoding::HEXLOWER.encode(bytes.as_ref())
}

/// A verb of `btdht` that asks the DHT of node 1, from an address of its own; its first line and
/// whether it exited with 0.
fn ours(net: Net, words: &[&str]) -> (Value, bool) {
    let (client, router) = (net.client(90), net.node(1));
    let mut all = words.to_vec();
    all.extend(["--bind", &client, "--bootstrap", &router, "--no-state", "--json"]);
    let (lines, done) = btdht(&all);
    let first = lines.first().map_or(Value::Null, |line| serde_json::from_str(line).expect("JSON"));
    (first, done)
}

/// `btdht get` until it finds what `wanted` accepts.
fn ours_gets<T>(net: Net, what: &str, words: &[&str], wanted: impl Fn(&Value) -> Option<T>) -> T {
    let words = [&["get"], words].concat();
    eventually(what, || {
        let (item, done) = ours(net, &words);
        wanted(&item).filter(|_| done)
    })
}

/// `btdht put`, which has to be stored.
fn ours_puts(net: Net, words: &[&str]) -> Value {
    let words = [&["put"], words].concat();
    eventually("somebody stores our item", || {
        let (put, done) = ours(net, &words);
        (done && put["stored"].as_u64()? > 0).then_some(put)
    })
}

/// libtorrent asks for an item until an answer comes that `wanted` accepts. It tells of every version
/// whose signature it has verified; the last word on which is the newest takes it 15 seconds where it
/// waits for a node that is gone. One of our one-shot nodes is: libtorrent takes whoever puts into its
/// table, `ro` (BEP 43) or not.
fn theirs_gets(node: &mut Libtorrent, question: &Value, wanted: impl Fn(&Value) -> bool) -> Value {
    let event = if question["op"] == "dht_get_immutable" { "immutable" } else { "mutable" };
    eventually(&format!("libtorrent gets {question}"), || {
        node.ask(question);
        let found =
            node.wait_within(Duration::from_secs(2), event, |said| wanted(said).then(|| said.clone()));
        found.ok()
    })
}

fn theirs_gets_immutable(node: &mut Libtorrent, target: &str, value: &[u8]) {
    let question = json!({"op": "dht_get_immutable", "target": target});
    theirs_gets(node, &question, |said| said["target"] == target && said["value"] == hex(value));
}

/// The version that libtorrent finds, which is that of the number `seq`.
fn theirs_gets_mutable(node: &mut Libtorrent, (key, salt): (&Key, &str), seq: i64) -> Value {
    let question = json!({"op": "dht_get_mutable", "public": key.public, "salt": hex(salt)});
    theirs_gets(node, &question, |said| said["seq"] == seq)
}

fn theirs_puts_mutable(node: &mut Libtorrent, (key, salt): (&Key, &str), value: &str, seq: i64) {
    node.ask(&json!({
        "op": "dht_put_mutable", "secret": key.expanded(), "public": key.public,
        "value": hex(value), "salt": hex(salt),
    }));
    node.wait_for("put", |said| (said["seq"] == seq && said["stored"].as_u64()? > 0).then_some(()));
}

/// Immutable items of every kind, put by each and got by the other.
fn immutable_items_both_ways(net: Net, node: &mut Libtorrent, structured: bool) {
    let text = format!("{}{}", "x".repeat(995), '\u{7f}');
    for value in [TREE.to_owned(), "4:text".to_owned(), format!("996:{text}"), "le".to_owned()] {
        node.ask(&json!({"op": "dht_put_immutable", "value": hex(&value)}));
        let target = node.wait_for("put", |said| {
            (said["stored"].as_u64()? > 0).then(|| said["target"].as_str().unwrap().to_owned())
        });
        assert_eq!(target, btdht::item::immutable_target(value.as_bytes()).to_string());
        ours_gets(net, &format!("libtorrent's {} bytes", value.len()), &[&target], |item| {
            (item["bencode"] == format!("hex:{}", hex(&value))).then_some(())
        });
    }
    let put = ours_puts(net, &["from us"]);
    theirs_gets_immutable(node, put["target"].as_str().unwrap(), b"7:from us");
    let put = ours_puts(net, &[&text]);
    theirs_gets_immutable(node, put["target"].as_str().unwrap(), format!("996:{text}").as_bytes());
    if structured {
        let other = TREE.replace("abcde", "fghij");
        let put = ours_puts(net, &["--bencode", &other]);
        theirs_gets_immutable(node, put["target"].as_str().unwrap(), other.as_bytes());
    }
}

/// One key and salt, written in turn by both: each reads the other's version and makes the next one.
fn mutable_items_both_ways(net: Net, node: &mut Libtorrent) {
    let key = Key::new();
    let path = key.path();
    let get = ["--key", &key.public, "--salt", SALT];
    theirs_puts_mutable(node, (&key, SALT), "one", 1);
    ours_gets(net, "libtorrent's version 1", &get, |item| {
        (item["seq"] == 1 && item["value"] == "one" && item["key"] == key.public).then_some(())
    });
    let put = ours_puts(net, &["two", "--key", &path, "--salt", SALT]);
    assert_eq!((&put["seq"], &put["refused"]), (&json!(2), &json!([])), "{put}");
    let theirs = theirs_gets_mutable(node, (&key, SALT), 2);
    let signed = btdht::item::MutableItem::sign(
        &btdht::item::SecretKey::from_seed(&key.seed()),
        SALT.as_bytes(),
        2,
        b"3:two",
    );
    assert_eq!(theirs["value"], hex("3:two"));
    assert_eq!(
        (&theirs["signature"], &theirs["salt"]),
        (&json!(hex(signed.unwrap().signature)), &json!(hex(SALT)))
    );
    theirs_puts_mutable(node, (&key, SALT), "three", 3);
    ours_gets(net, "libtorrent's version 3", &get, |item| {
        (item["seq"] == 3 && item["value"] == "three").then_some(())
    });

    // libtorrent may have missed one of them, which would take the old version.
    let put = ours_puts(net, &["three", "--key", &path, "--salt", SALT, "--seq", "3"]);
    assert_eq!(put["refused"], json!([]), "{put}");
    // Nobody goes back: an old number is refused and what is stored stays.
    let (put, done) = ours(net, &["put", "old", "--key", &path, "--salt", SALT, "--seq", "2"]);
    assert!(!done && put["stored"] == 0, "{put}");
    assert!(put["newer"] == 3 || put["refused"][0]["code"] == 302, "{put}");
    // Nor does a writer who was too slow overwrite what he has not seen.
    let (put, done) = ours(net, &["put", "slow", "--key", &path, "--salt", SALT, "--seq", "4", "--cas", "2"]);
    assert!(!done && put["stored"] == 0, "{put}");
    theirs_gets_mutable(node, (&key, SALT), 3);
    // libtorrent's form of a secret key is a key file too.
    let expanded = key.folder.path().join("expanded");
    std::fs::write(&expanded, key.expanded()).unwrap();
    let expanded = expanded.to_str().unwrap();
    let put = ours_puts(net, &["four", "--key", expanded, "--salt", SALT, "--seq", "4", "--cas", "3"]);
    assert_eq!(put["key"], key.public);
    assert_eq!(theirs_gets_mutable(node, (&key, SALT), 4)["value"], hex("4:four"));
}

/// A version of 1,000 bytes under a salt of 64, the most that there may be, by each in turn.
fn largest_mutable_items_both_ways(net: Net, node: &mut Libtorrent) {
    let (key, salt) = (Key::new(), "s".repeat(64));
    let (theirs, ours) = ("t".repeat(996), "o".repeat(996));
    theirs_puts_mutable(node, (&key, &salt), &theirs, 1);
    ours_gets(net, "libtorrent's 1,000 bytes", &["--key", &key.public, "--salt", &salt], |item| {
        (item["seq"] == 1 && item["value"] == theirs && item["key"] == key.public).then_some(())
    });
    let put = ours_puts(net, &[&ours, "--key", &key.path(), "--salt", &salt]);
    assert_eq!((&put["seq"], &put["refused"]), (&json!(2), &json!([])), "{put}");
    let got = theirs_gets_mutable(node, (&key, &salt), 2);
    assert_eq!(got["value"], hex(format!("996:{ours}")));
}

pub(crate) fn items_on_our_nodes(net: Net, series: Series, test: &str) {
    binary("btdht");
    if !net.ready(test, &[Libtorrent::python(series)]) {
        return;
    }
    let router = net.node(1);
    let _nodes: Vec<_> = (1..=3).map(|n| serve_at(&net.node(n), &[&router], &[])).collect();
    let mut client = Libtorrent::start(series, &net.node(20), Some(&[]));
    client.ask(&json!({"op": "dht_add", "node": router}));
    eventually("our nodes are in libtorrent's table", || {
        (client.ask(&json!({"op": "dht_state"}))["nodes"].as_u64()? > 0).then_some(())
    });
    immutable_items_both_ways(net, &mut client, series != Series::V20);
    mutable_items_both_ways(net, &mut client);
    largest_mutable_items_both_ways(net, &mut client);
}

#[test]
fn libtorrent_2_0_keeps_items_in_our_nodes() {
    items_on_our_nodes(Net::V4, Series::V20, "libtorrent_2_0_keeps_items_in_our_nodes");
}

#[test]
fn libtorrent_2_1_keeps_items_in_our_nodes() {
    items_on_our_nodes(Net::V4, Series::V21, "libtorrent_2_1_keeps_items_in_our_nodes");
}

pub(crate) fn items_on_libtorrent_nodes(net: Net, test: &str) {
    binary("btdht");
    let needs = [Libtorrent::python(Series::V20), Libtorrent::python(Series::V21)];
    if !net.ready(test, &needs) {
        return;
    }
    let mut nodes = libtorrent_dht(net, 4);
    immutable_items_both_ways(net, &mut nodes[3], true);
    mutable_items_both_ways(net, &mut nodes[2]);
    largest_mutable_items_both_ways(net, &mut nodes[3]);
}

#[test]
fn items_live_on_a_dht_of_libtorrent_nodes_alone() {
    items_on_libtorrent_nodes(Net::V4, "items_live_on_a_dht_of_libtorrent_nodes_alone");
}

/// `mainline` as a client, from an address of its own, on the DHT of 85.1.0.1; its one line. It asks each
/// node once and fails when that is lost: then it is asked again.
fn theirs(words: &[&str]) -> String {
    let mut words = words.to_vec();
    words.insert(1, "85.80.0.1");
    words.push("85.1.0.1:6881");
    eventually(&format!("mainline {words:?}"), || {
        let (mut client, said) = mainline_tries(&words, |line| Some(line.to_owned()))?;
        client.wait(Duration::from_secs(60)).success().then_some(said)
    })
}

/// What `mainline` puts we get and the other way round, by whichever nodes stand at 85.1.0.1.
fn items_both_ways_with_mainline() {
    let long = "y".repeat(996);
    for text in ["from mainline", &long] {
        let target = theirs(&["put", text]);
        ours_gets(Net::V4, "mainline's item", &[&target], |item| (item["value"] == text).then_some(()));
    }
    for text in ["from us", &"z".repeat(996)] {
        let put = ours_puts(Net::V4, &[text]);
        assert_eq!(theirs(&["get", put["target"].as_str().unwrap()]), *text);
    }
    let key = Key::new();
    let (path, seed) = (key.path(), hex(key.seed()));
    theirs(&["put-signed", &seed, SALT, "1", "one"]);
    let put = ours_puts(Net::V4, &["two", "--key", &path, "--salt", SALT]);
    assert_eq!(put["seq"], 2, "we read version 1 first");
    assert_eq!(theirs(&["get-signed", &key.public, SALT]), "2 two");
    theirs(&["put-signed", &seed, SALT, "7", "seven"]);
    ours_gets(Net::V4, "mainline's version 7", &["--key", &key.public, "--salt", SALT], |item| {
        (item["seq"] == 7 && item["value"] == "seven").then_some(())
    });
    let (put, done) = ours(Net::V4, &["put", "old", "--key", &path, "--salt", SALT, "--seq", "6"]);
    // A node that mainline's put did not reach in time may take it; whoever holds version 7 does not.
    let refused = put["refused"].as_array().unwrap();
    assert!(!done && put["newer"] == 7 && !refused.is_empty(), "{put}");
    assert!(refused.iter().all(|node| node["code"] == 302), "{put}");
}

#[test]
fn mainline_keeps_items_in_our_nodes() {
    binary("btdht");
    if !ready("mainline_keeps_items_in_our_nodes", &[mainline_program()]) {
        return;
    }
    let _nodes: Vec<_> = (1..=3).map(|n| serve(&format!("85.{n}.0.1"), &["85.1.0.1:6881"])).collect();
    items_both_ways_with_mainline();
}

/// Its nodes take no put without a `target`, which BEP 44 does not know.
#[test]
fn items_live_on_a_dht_of_mainline_nodes_alone() {
    binary("btdht");
    if !ready("items_live_on_a_dht_of_mainline_nodes_alone", &[mainline_program()]) {
        return;
    }
    let _nodes: Vec<_> =
        (1..=4).map(|n| mainline_joins(&format!("85.{n}.0.1"), "85.1.0.1:6881", n == 1)).collect();
    items_both_ways_with_mainline();
}
