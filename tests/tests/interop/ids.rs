//! Ids that belong to an address (BEP 42), checked by libtorrent, which refuses others where it is
//! told to (`dht_enforce_node_id`). BEP 42 prints test vectors for IPv4 alone.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use btdht::Rng;
use btdht::secure_id::{is_secure, secure_id};
use harness::process::{binary, eventually};
use harness::rivals::{Libtorrent, Series};
use harness::wire::Asker;
use krpc::Id;
use serde_json::json;

use crate::world::{Net, serve_at};

/// Addresses that are tried.
const ADDRESSES: u64 = 64;

/// Any address of the family's range.
fn somewhere(net: Net, rng: &mut Rng) -> IpAddr {
    let random = *rng.id().as_bytes();
    match net {
        Net::V4 => Ipv4Addr::new(85, random[0], random[1], random[2]).into(),
        Net::V6 => {
            let mut octets: [u8; 16] = random[..16].try_into().expect("20 bytes");
            octets[..2].copy_from_slice(&[0x2a, 0x85]);
            Ipv6Addr::from(octets).into()
        }
    }
}

fn flipped(id: Id, bit: usize) -> [u8; 20] {
    let mut bytes = *id.as_bytes();
    bytes[bit / 8] ^= 0x80 >> (bit % 8);
    bytes
}

/// libtorrent answers to our ids wherever they are asked from, and no more when one of the bits that
/// the address decides is another. Its own id is right for us.
fn ids(net: Net, series: Series, test: &str) {
    binary("btdht");
    if !net.ready(test, &[Libtorrent::python(series)]) {
        return;
    }
    let node = net.node(2);
    let mut session = Libtorrent::start(series, &node, Some(&[]));
    session.ask(&json!({"op": "dht_enforce_ids"}));
    let mut rng = Rng::from_seed(42);
    let mut lowest_bits = [false; 8];
    for n in 0..ADDRESSES {
        let ip = somewhere(net, &mut rng);
        let id = secure_id(ip, &mut rng);
        lowest_bits[usize::from(id.as_bytes()[19] & 7)] = true;
        let mut asker = Asker::new(&ip.to_string());
        let mut outcome = |id: [u8; 20]| {
            asker.id = id;
            asker.ask(&node, "ping", &[]).expect("an answer").outcome().replace(" p", "")
        };
        let [first, last, free] =
            [n as usize % 21, 157 + n as usize % 3, 21 + n as usize].map(|bit| flipped(id, bit));
        assert_eq!(outcome(*id.as_bytes()), "id", "{ip} {id}");
        assert_eq!(outcome(first), "error 203", "{ip} {id}: a bit that the address decides");
        assert_eq!(outcome(last), "error 203", "{ip} {id}: a bit that decides with it");
        assert_eq!(outcome(free), "id", "{ip} {id}: any other bit");
    }
    assert_eq!(lowest_bits, [true; 8]);

    // It takes an id of its own address when somebody has told it the address.
    let _ours = serve_at(&net.node(1), &[&net.node(1)], &[]);
    session.ask(&json!({"op": "dht_add", "node": net.node(1)}));
    let mut asker = Asker::new(&net.ip(3, 0).to_string());
    let theirs = eventually("libtorrent's id belongs to its address", || {
        let id = asker.ask(&node, "ping", &[])?.bytes("id").expect("an id");
        let id = Id::new(id.try_into().expect("20 bytes"));
        is_secure(&id, net.ip(2, 0)).then_some(id)
    });
    assert!(!is_secure(&theirs, net.ip(3, 0)), "{theirs}");
}

#[test]
fn libtorrent_2_0_takes_our_ids_of_ipv4_addresses_and_we_take_its() {
    ids(Net::V4, Series::V20, "libtorrent_2_0_takes_our_ids_of_ipv4_addresses_and_we_take_its");
}

#[test]
fn libtorrent_2_1_takes_our_ids_of_ipv4_addresses_and_we_take_its() {
    ids(Net::V4, Series::V21, "libtorrent_2_1_takes_our_ids_of_ipv4_addresses_and_we_take_its");
}

#[test]
fn libtorrent_2_0_takes_our_ids_of_ipv6_addresses_and_we_take_its() {
    ids(Net::V6, Series::V20, "libtorrent_2_0_takes_our_ids_of_ipv6_addresses_and_we_take_its");
}

#[test]
fn libtorrent_2_1_takes_our_ids_of_ipv6_addresses_and_we_take_its() {
    ids(Net::V6, Series::V21, "libtorrent_2_1_takes_our_ids_of_ipv6_addresses_and_we_take_its");
}
