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
        shards: 1,
        lingers: false,
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
    assert_eq!(Saved::read(folder.path()).homes.first().map(|home| home.id), Some(id));
    let back = Dht::bind(keep(vec![Bind { addr, required: true }])).unwrap();
    assert_eq!(back.ids().next(), Some(id));
    let reader = Dht::bind(Options { state: State::Read(folder.path().into()), ..options(&[]) }).unwrap();
    assert_ne!(reader.ids().next(), Some(id), "two processes under one id would harm each other");
}

/// A run of a node at these addresses that keeps its state in `folder`; its ids.
#[cfg(target_os = "linux")]
async fn run_at(folder: &std::path::Path, addrs: &[SocketAddr]) -> Vec<Id> {
    let binds = addrs.iter().map(|&addr| Bind { addr, required: true }).collect();
    let dht = Dht::bind(Options { state: State::Keep(folder.into()), binds, ..options(&[]) }).unwrap();
    let (ids, locals) = (dht.ids().collect(), dht.local_addrs().collect::<Vec<_>>());
    within(dht.shutdown()).await.unwrap();
    for addr in locals {
        freed(addr).await;
    }
    ids
}

/// More addresses of loopback than one answer on Linux alone.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn each_address_keeps_its_id_through_runs_without_it_and_in_another_order() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b, c]: [SocketAddr; 3] =
        ["127.0.0.1:0", "127.0.0.2:0", "[::1]:0"].map(|addr| addr.parse().unwrap());
    if StdSocket::bind(c).is_err() {
        return crate::net::udp::skip_without_ipv6();
    }
    let ids = run_at(folder.path(), &[a, b, c]).await;
    assert_eq!(run_at(folder.path(), &[a]).await, [ids[0]], "without IPv6, and without an address");
    assert_eq!(run_at(folder.path(), &[c, b]).await, [ids[2], ids[1]]);
    assert_eq!(run_at(folder.path(), &[b, c, a]).await, [ids[1], ids[2], ids[0]]);
    let saved = Saved::read(folder.path());
    assert_eq!(saved.homes.iter().map(|home| home.id).collect::<Vec<_>>(), [ids[1], ids[2], ids[0]]);
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

/// Much comes from one stranger, without a pause; whoever shares the thread with the node gets a word in.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_node_that_lingers_hears_its_owner_among_many_queries() {
    const MOST: u64 = 200_000;
    let mut options = Options { lingers: true, ..options(&[]) };
    options.config.replies_per_second_per_ip = 0;
    let dht = Dht::bind(options).unwrap();
    let addr = dht.local_addrs().next().unwrap();
    let (over, is_over) = std::sync::mpsc::channel::<()>();
    let asked = std::thread::spawn(move || {
        let stranger = StdSocket::bind("127.0.0.1:0").unwrap();
        stranger.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let mut buffer = [0; 2048];
        let ask = || {
            stranger.send_to(b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe", addr).unwrap();
            // It may be the ping of a newcomer, or nothing in the end; the next question comes anyway.
            let _ = stranger.recv(&mut buffer);
        };
        let is_open = |_: &()| is_over.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty);
        std::iter::repeat_with(ask).take(MOST as usize).take_while(is_open).count() as u64
    });
    let stats = within(async {
        loop {
            let stats = dht.stats().await.unwrap();
            if stats.sockets[0].counters.udp.lingered >= 100 {
                return stats;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    within(dht.shutdown()).await.unwrap();
    drop(over);
    let asked = asked.join().unwrap();
    // It would be all of them if nobody else had had a turn before the stranger was done.
    assert!(asked < MOST, "{asked} {stats:?}");
}

/// A node with so many shards.
fn split(shards: usize) -> (Dht, SocketAddr) {
    let dht = Dht::bind(Options { shards, ..options(&[]) }).unwrap();
    let local = dht.local_addrs().next().unwrap();
    (dht, local)
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn shards_answer_as_one_node_and_end_with_it() {
    let (dht, addr) = split(3);
    // The system spreads so many sources over all three.
    let strangers: Vec<_> = (0..64).map(|_| StdSocket::bind("127.0.0.1:0").unwrap()).collect();
    for stranger in &strangers {
        stranger.set_read_timeout(Some(GUARD)).unwrap();
        stranger.send_to(b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe", addr).unwrap();
    }
    let id = dht.ids().next().unwrap();
    let answered = tokio::task::spawn_blocking(move || {
        let mut buffer = [0; 2048];
        strangers.iter().all(|stranger| {
            let mut received = || stranger.recv(&mut buffer).map(|len| buffer[..len].to_vec());
            // A receive is broken off when the machine was frozen. The ping of a newcomer may come first.
            std::iter::repeat_with(|| match received() {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => received(),
                result => result,
            })
            .any(|bytes| {
                let bytes = bytes.expect("a reply");
                matches!(Message::decode(&bytes).unwrap().body, Body::Response(response) if response.id == id)
            })
        })
    });
    assert!(within(answered).await.unwrap());
    let stats = within(async {
        loop {
            let stats = dht.stats().await.unwrap();
            if stats.counters.replies_out == 64 {
                return stats;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    let each: Vec<u64> = stats.shards.iter().map(|shard| shard.queries_ping).collect();
    assert_eq!((each.len(), each.iter().sum::<u64>()), (3, 64));
    assert!(each.iter().all(|&count| count > 0), "{each:?}");
    assert!(stats.sockets[0].counters.udp.received >= 64);

    within(dht.shutdown()).await.unwrap();
    freed(addr).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn nodes_with_shards_find_what_was_announced_and_keep_it() {
    let folder = tempfile::tempdir().unwrap();
    let keep = |binds| Options { shards: 2, state: State::Keep(folder.path().into()), binds, ..options(&[]) };
    let first = Dht::bind(keep(options(&[]).binds)).unwrap();
    let addr = first.local_addrs().next().unwrap();
    let taken = Dht::bind(Options { binds: vec![Bind { addr, required: true }], ..options(&[]) });
    assert!(matches!(taken, Err(Error::Bind { .. })), "shards share their port with nobody else");
    let (second, _) = {
        let dht = Dht::bind(Options { shards: 2, ..options(&[addr]) }).unwrap();
        (dht.clone(), dht)
    };
    let infohash = Id::new([7; 20]);
    let announce = Announce { port: 7777, implied: false, seed: false };
    let found = within(second.get_peers(infohash, Some(announce), false)).await.unwrap();
    within(found.finish()).await;
    // Lookups of many nodes, each from another port, so that they ask both shards.
    for _ in 0..8 {
        let (asker, _) = start(&[addr]);
        let mut lookup = within(asker.get_peers(infohash, None, false)).await.unwrap();
        let mut peers = Vec::new();
        while let Some(event) = within(lookup.next()).await {
            if let Event::Peer { addr, .. } = event {
                peers.push(addr);
            }
        }
        assert_eq!(peers, ["127.0.0.1:7777".parse().unwrap()]);
    }
    within(first.shutdown()).await.unwrap();
    freed(addr).await;
    let again = Dht::bind(keep(vec![Bind { addr, required: true }])).unwrap();
    assert_eq!(within(again.stats()).await.unwrap().state.loaded.peers, 1);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn dropping_the_last_handle_ends_every_shard() {
    let (dht, addr) = split(4);
    drop(dht);
    freed(addr).await;
}

#[tokio::test]
async fn nothing_follows_the_last_sequence_number() {
    use crate::item::{InvalidItem, MutableItem, SecretKey};

    let ((first, addr), secret) = (start(&[]), SecretKey::from_seed(&[3; 32]));
    let (second, _) = start(&[addr]);
    let over = async |expected| match within(second.update_over(&secret, b"", b"4:next", expected)).await {
        Err(Error::Item(why)) => Err(why),
        other => Ok(other.unwrap()),
    };
    // Nobody is asked for it.
    assert_eq!(over(i64::MAX).await, Err(InvalidItem::LastSequence));
    assert_eq!(over(i64::MAX - 1).await.unwrap().0, i64::MAX, "the last one can be written");
    let last = MutableItem::sign(&secret, b"", i64::MAX, b"4:next").unwrap();
    assert_eq!(within(second.get_mutable(secret.public(), b"", None)).await.unwrap(), Some(last));
    let updated = within(second.update(&secret, b"", b"5:other")).await;
    assert!(matches!(updated, Err(Error::Item(InvalidItem::LastSequence))), "{updated:?}");
    drop(first);
}
