//! Nodes on loopback sockets, through their handles.

use std::net::UdpSocket as StdSocket;

use krpc::{Body, Message};

use super::*;
use crate::net::{Bind, Saved};
use crate::{Config, Outcome};

const GUARD: Duration = Duration::from_secs(30);

fn options(bootstrap: &[SocketAddr]) -> Options {
    Options {
        binds: vec![Bind { addr: "127.0.0.1:0".parse().unwrap(), required: true }],
        config: Config { allow_local: true, ..Config::default() },
        bootstrap: bootstrap.iter().map(ToString::to_string).collect(),
        state: State::Nothing,
    }
}

fn start(bootstrap: &[SocketAddr]) -> (Dht, SocketAddr) {
    let dht = Dht::bind(options(bootstrap)).unwrap();
    let local = dht.local_addrs().next().unwrap();
    (dht, local)
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(GUARD, future).await.expect("long before the guard")
}

/// Waits until nobody holds `addr` any more, which is when a node's task has ended.
async fn freed(addr: SocketAddr) {
    within(async {
        while StdSocket::bind(addr).is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_node_answers_a_ping_of_another() {
    let ((a, _), (b, addr_b)) = (start(&[]), start(&[]));
    let answer = within(a.ping(addr_b)).await.unwrap().expect("an answer");
    assert_eq!(answer.from, addr_b);
    let message = Message::decode(&answer.bytes).unwrap();
    let Body::Response(response) = message.body else { panic!("{message:?}") };
    assert_eq!(Some(response.id), b.ids().next());
    let stats = within(b.stats()).await.unwrap();
    assert!(stats.sockets[0].counters.udp.received >= 1);
    assert_eq!(stats.sockets[0].home.local, addr_b);
}

#[tokio::test]
async fn datagrams_of_other_protocols_are_counted_and_dropped() {
    let (dht, addr) = start(&[]);
    let stranger = StdSocket::bind("127.0.0.1:0").unwrap();
    for datagram in [&b"\x41\x02utp"[..], b"\0\0\0\0tracker", b""] {
        stranger.send_to(datagram, addr).unwrap();
    }
    within(async {
        while dht.stats().await.unwrap().sockets[0].counters.foreign < 3 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let (other, _) = start(&[]);
    assert!(within(other.ping(addr)).await.unwrap().is_some(), "the node goes on");
}

#[tokio::test]
async fn nodes_bootstrap_from_one_another_and_announce() {
    let (_a, addr_a) = start(&[]);
    let (b, addr_b) = start(&[addr_a]);
    within(b.bootstrapped()).await.unwrap();
    let (c, _) = start(&[addr_b]);
    let infohash = Id::new([7; 20]);
    let announce = Announce { port: 7777, implied: false, seed: false };
    let mut lookup = within(c.get_peers(infohash, Some(announce), false)).await.unwrap();
    let (mut stored, mut done) = (0, false);
    while let Some(event) = within(lookup.next()).await {
        stored += usize::from(matches!(event, Event::Stored { .. }));
        done |= matches!(event, Event::Done { .. });
    }
    assert!(stored >= 1 && done);
    let (d, _) = start(&[addr_b]);
    let mut lookup = within(d.get_peers(infohash, None, false)).await.unwrap();
    let mut peers = Vec::new();
    while let Some(event) = within(lookup.next()).await {
        if let Event::Peer { addr, .. } = event {
            peers.push(addr);
        }
    }
    assert_eq!(peers, ["127.0.0.1:7777".parse().unwrap()]);
}

#[tokio::test]
async fn the_table_can_be_looked_at_and_a_node_taken_out() {
    let (_a, addr_a) = start(&[]);
    let (b, addr_b) = start(&[addr_a]);
    within(b.bootstrapped()).await.unwrap();
    let (c, _) = start(&[addr_a, addr_b]);
    let mut events = within(c.subscribe(Topic::Node)).await.unwrap();
    within(c.bootstrapped()).await.unwrap();
    let event = within(events.next()).await;
    assert!(matches!(event, Some(Event::Bootstrapped { .. } | Event::ExternalAddress { .. })), "{event:?}");

    let (d, _) = start(&[addr_a]);
    within(d.add_node(addr_b)).await.unwrap();
    let known = within(async {
        loop {
            let known = d.table().await.unwrap();
            if let Some(node) = known.into_iter().find(|node| node.addr == addr_b) {
                return node;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    let own = d.ids().next().unwrap();
    assert_eq!(known.bucket, own.distance(&known.id).bit_len());
    let nearest = within(d.closest(known.id, 1)).await.unwrap();
    assert_eq!(nearest, [(known.id, addr_b)]);
    let removed = within(d.stats()).await.unwrap().counters.nodes_removed;
    within(d.remove_node(addr_b)).await.unwrap();
    // It may be back already, with an answer that was on its way.
    assert_eq!(within(d.stats()).await.unwrap().counters.nodes_removed, removed + 1);
}

#[tokio::test]
async fn dropping_a_lookup_cancels_it() {
    let silent = StdSocket::bind("127.0.0.1:0").unwrap();
    let (dht, _) = start(&[silent.local_addr().unwrap()]);
    let lookup = within(dht.find_node(Id::new([1; 20]), false)).await.unwrap();
    assert_eq!(within(dht.stats()).await.unwrap().running, 1);
    drop(lookup);
    assert_eq!(within(dht.stats()).await.unwrap().running, 0);
    let mut lookup = within(dht.find_node(Id::new([1; 20]), false)).await.unwrap();
    lookup.cancel();
    let last = within(lookup.next()).await;
    assert!(matches!(last, Some(Event::Done { outcome: Outcome::Cancelled, .. })), "{last:?}");
    assert!(within(lookup.next()).await.is_none());
}

#[tokio::test]
async fn dropping_the_last_handle_saves_and_frees_the_port() {
    let folder = tempfile::tempdir().unwrap();
    let keep = |binds| Options { state: State::Keep(folder.path().into()), binds, ..options(&[]) };
    let dht = Dht::bind(keep(options(&[]).binds)).unwrap();
    let (addr, id) = (dht.local_addrs().next().unwrap(), dht.ids().next().unwrap());
    let again = Dht::bind(keep(options(&[]).binds));
    assert!(matches!(again, Err(Error::StateInUse { .. })));
    let clone = dht.clone();
    drop(dht);
    within(clone.stats()).await.expect("a clone keeps it running");
    let lookup = within(clone.find_node(id, false)).await.unwrap();
    drop(clone);
    freed(addr).await;
    drop(lookup);
    assert_eq!(Saved::read(folder.path()).home(false, 0).map(|home| home.id), Some(id));
    let back = Dht::bind(keep(vec![Bind { addr, required: true }])).unwrap();
    assert_eq!(back.ids().next(), Some(id));
    let reader = Dht::bind(Options { state: State::Read(folder.path().into()), ..options(&[]) }).unwrap();
    assert_ne!(reader.ids().next(), Some(id), "two processes under one id would harm each other");
}

#[tokio::test]
async fn a_stopped_node_says_so() {
    let (dht, addr) = start(&[]);
    let clone = dht.clone();
    within(dht.shutdown()).await.unwrap();
    freed(addr).await;
    assert!(matches!(within(clone.ping(addr)).await, Err(Error::Stopped)));
    assert!(matches!(within(clone.bootstrapped()).await, Err(Error::Stopped)));
    assert!(matches!(within(clone.shutdown()).await, Err(Error::Stopped)));
}
