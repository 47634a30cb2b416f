//! Orders between nodes on loopback.

use std::time::Duration;

use krpc::{Body, Message, Query, Response};
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::*;
use crate::item::{InvalidItem, SecretKey};
use crate::mutable_torrent::{infohash_in, value_of};
use crate::net::Options;
use crate::standing::Cause;

/// Far longer than anything here takes.
const GUARD: Duration = Duration::from_secs(60);
/// A pace at which a test sees several rounds.
const OFTEN: Duration = Duration::from_millis(20);

/// A node on loopback whose orders have a round every 20 ms.
fn node(router: Option<&Dht>) -> Dht {
    node_at(router.into_iter().flat_map(Dht::local_addrs))
}

fn node_at(routers: impl IntoIterator<Item = SocketAddr>) -> Dht {
    let mut options = Options::loopback(routers);
    options.config.announce_every = OFTEN;
    options.config.keep_every = OFTEN;
    options.config.follow_every = OFTEN;
    options.config.renew_retry_min = OFTEN;
    options.config.lookup_max_silence = OFTEN * 5;
    options.config.replies_per_second_per_ip = 0;
    Dht::bind(options).unwrap()
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(GUARD, future).await.expect("long before the guard")
}

#[tokio::test]
async fn an_announce_is_renewed_until_its_handle_is_dropped() {
    let first = node(None);
    let second = node(Some(&first));
    let mut told = within(first.subscribe(Topic::Announces)).await.unwrap();
    let infohash = Id::new([3; 20]);
    let announce = Announce { port: 7777, implied: false, seed: false };
    let mut announcing = within(second.announce(infohash, announce)).await.unwrap();
    let first_round = within(announcing.next()).await.unwrap();
    assert_eq!(first_round.cause, Cause::New);
    assert_eq!(first_round.result.stored[0].0, first.ids().next().unwrap());
    while within(announcing.next()).await.unwrap().number < 3 {}
    for _ in 0..3 {
        let event = within(told.next()).await.unwrap();
        assert!(matches!(event, Event::Announced { infohash: told, .. } if told == infohash));
    }
    drop(announcing);
    within(async {
        while second.stats().await.unwrap().running > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_announce_that_nobody_takes_is_tried_again() {
    let alone = node(None);
    let announce = Announce { port: 7777, implied: false, seed: false };
    let mut announcing = within(alone.announce(Id::new([3; 20]), announce)).await.unwrap();
    let round = within(announcing.next()).await.unwrap();
    assert_eq!((round.result.outcome, round.result.stored.len()), (Outcome::NoNodes, 0));
    assert_eq!(within(announcing.next()).await.unwrap().cause, Cause::Retry);
}

#[tokio::test]
async fn an_item_is_kept_until_a_newer_version_is_seen_which_is_not_overwritten() {
    let first = node(None);
    let (keeper, writer) = (node(Some(&first)), node(Some(&first)));
    let secret = SecretKey::from_seed(&[5; 32]);
    let old = MutableItem::sign(&secret, b"salt", 1, b"3:old").unwrap();
    let mut keeping = within(keeper.keep(Item::Mutable(old))).await.unwrap();
    while within(keeping.next()).await.unwrap().number < 3 {}
    let (seq, report) = within(writer.update(&secret, b"salt", b"3:new")).await.unwrap();
    assert_eq!((seq, report.is_conflict()), (2, false));
    let last = within(async {
        loop {
            let round = keeping.next().await.unwrap();
            if round.next.is_none() {
                return round;
            }
        }
    })
    .await;
    assert_eq!(last.result.newer.map(|item| (item.seq, item.value)), Some((2, b"3:new".to_vec())));
    assert!(within(keeping.next()).await.is_none(), "the order has ended");
    let found = within(writer.get_mutable(secret.public(), b"salt", None)).await.unwrap().unwrap();
    assert_eq!(found.value, b"3:new");
}

#[tokio::test]
async fn an_item_whose_number_has_another_value_somewhere_is_kept_and_told_of_it() {
    let secret = SecretKey::from_seed(&[5; 32]);
    let sign = |value: &[u8]| MutableItem::sign(&secret, b"salt", 1, value).unwrap();
    // Apart, so that neither learns of the other's.
    let [mine, others] = [(b"4:mine"), (b"4:them")].map(|value| (node(None), sign(value)));
    for (holder, item) in [&mine, &others] {
        let writer = node(Some(holder));
        assert_eq!(within(writer.put_mutable(item.clone(), None)).await.unwrap().stored.len(), 1);
    }
    let keeper = Dht::bind(Options::loopback(mine.0.local_addrs().chain(others.0.local_addrs()))).unwrap();
    let mut keeping = within(keeper.keep(Item::Mutable(mine.1))).await.unwrap();
    let round = within(keeping.next()).await.unwrap();
    assert!(!round.result.stored.is_empty() && round.next.is_some(), "{round:?}");
    assert_eq!(round.result.newer.map(|item| item.value), Some(others.1.value));
}

#[tokio::test]
async fn what_is_no_item_is_not_kept() {
    let alone = node(None);
    let mut forged = MutableItem::sign(&SecretKey::from_seed(&[5; 32]), b"", 1, b"3:abc").unwrap();
    forged.seq = 2;
    for (item, expected) in [
        (Item::Mutable(forged), InvalidItem::BadSignature),
        (Item::Immutable { value: b"4:abc".to_vec() }, InvalidItem::NotCanonical),
    ] {
        let refused = within(alone.keep(item)).await;
        assert!(matches!(refused, Err(Error::Item(error)) if error == expected), "{refused:?}");
    }
}

#[tokio::test]
async fn a_followed_key_gives_each_newer_version() {
    let first = node(None);
    let (reader, writer) = (node(Some(&first)), node(Some(&first)));
    let secret = SecretKey::from_seed(&[6; 32]);
    // Nothing is published yet: it is asked again until there is something.
    let mut versions = within(reader.follow(secret.public(), b"", None)).await.unwrap();
    for expected in 1..=3 {
        let infohash = Id::new([expected; 20]);
        within(writer.update(&secret, b"", &value_of(&infohash))).await.unwrap();
        let version = within(versions.next()).await.unwrap();
        assert_eq!((version.seq, infohash_in(&version.value)), (expected.into(), Some(infohash)));
    }
}

/// A node on loopback that answers every `get` with the version of the item that it is given just now,
/// whatever number it is told.
struct Stubborn {
    addr: SocketAddr,
    tells: watch::Sender<MutableItem>,
    task: JoinHandle<()>,
}

impl Stubborn {
    async fn new(item: MutableItem) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let addr = socket.local_addr().unwrap();
        let (tells, told) = watch::channel(item);
        let task = tokio::spawn(async move {
            let mut buffer = [0; 2048];
            while let Ok((len, from)) = socket.recv_from(&mut buffer).await {
                let reply = reply(&buffer[..len], &told.borrow());
                socket.send_to(&reply, from).await.unwrap();
            }
        });
        Self { addr, tells, task }
    }
}

impl Drop for Stubborn {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn reply(query: &[u8], item: &MutableItem) -> Vec<u8> {
    let query = Message::decode(query).unwrap();
    let mut response = Response::new(Id::new([9; 20]));
    if let Body::Query { query: Query::Get { .. }, .. } = query.body {
        response = Response {
            value: Some(&item.value),
            key: Some(&item.key),
            signature: Some(&item.signature),
            seq: Some(item.seq),
            token: Some(b"abcd"),
            ..response
        };
    }
    let mut bytes = Vec::new();
    Message { body: Body::Response(response), ..query }.encode(&mut bytes);
    bytes
}

fn version(seq: i64) -> MutableItem {
    MutableItem::sign(&SecretKey::from_seed(&[6; 32]), b"", seq, format!("i{seq}e").as_bytes()).unwrap()
}

/// Waits until so many further lookups of `node` have ended.
async fn lookups(node: &Dht, further: u64) {
    let done = async || node.stats().await.unwrap().counters.lookups_done;
    let before = done().await;
    within(async {
        while done().await < before + further {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// BEP 44: a node SHOULD not send a version that is not newer than the number it is told, and may.
#[tokio::test]
async fn whoever_follows_a_key_is_told_no_version_twice_and_no_older_one() {
    let stubborn = Stubborn::new(version(5)).await;
    let reader = node_at([stubborn.addr]);
    let mut versions = within(reader.follow_and_keep(version(5).key, b"", None)).await.unwrap();
    assert_eq!(within(versions.next()).await.unwrap().seq, 5);
    for told in [5, 3] {
        stubborn.tells.send_replace(version(told));
        lookups(&reader, 6).await;
        assert!(versions.unread().is_pending(), "{told}");
        let newer = within(reader.get_mutable(version(5).key, b"", Some(5))).await.unwrap();
        assert_eq!(newer, None, "{told}");
    }
    stubborn.tells.send_replace(version(6));
    assert_eq!(within(versions.next()).await.unwrap().seq, 6);
}

#[tokio::test]
async fn a_version_that_is_not_newer_ends_no_keep() {
    for told in [3, 5] {
        let stubborn = Stubborn::new(version(told)).await;
        let keeper = node_at([stubborn.addr]);
        let mut keeping = within(keeper.keep(Item::Mutable(version(5)))).await.unwrap();
        loop {
            let round = within(keeping.next()).await.unwrap();
            assert!(round.result.stored.len() == 1 && round.next.is_some(), "{told}: {round:?}");
            if round.number > 2 {
                break;
            }
        }
        stubborn.tells.send_replace(version(6));
        while within(keeping.next()).await.is_some_and(|round| round.next.is_some()) {}
    }
}

/// It is known by its number, from an earlier run perhaps.
#[tokio::test]
async fn the_version_that_is_known_already_is_kept_and_not_told() {
    let stubborn = Stubborn::new(version(4)).await;
    let (reader, store) = (node_at([stubborn.addr]), node_at([stubborn.addr]));
    within(reader.add_node(store.local_addrs().next().unwrap())).await.unwrap();
    let mut versions = within(reader.follow_and_keep(version(5).key, b"", Some(5))).await.unwrap();
    lookups(&reader, 6).await;
    assert_eq!(within(store.stats()).await.unwrap().counters.queries_put, 0, "an older one is not kept");
    stubborn.tells.send_replace(version(5));
    within(async {
        while store.stats().await.unwrap().counters.queries_put == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(versions.unread().is_pending());
    stubborn.tells.send_replace(version(6));
    assert_eq!(within(versions.next()).await.unwrap().seq, 6);
}

/// Ends in its first round, with this newer version or without one.
struct Ends(Option<MutableItem>);

impl Order for Ends {
    type Result = PutReport;

    async fn round(&mut self) -> Option<Step<PutReport>> {
        let result = PutReport { newer: self.0.clone(), ..PutReport::default() };
        Some(Step { result, end: End::Final })
    }
}

#[tokio::test]
async fn a_follower_takes_up_what_ended_its_keep() {
    let alone = node(None);
    for (newer, told) in [(Some(7), Some(7)), (Some(5), None), (None, None)] {
        let order =
            within(alone.order(Ends(newer.map(version)), alone.shared.paces.items, Some)).await.unwrap();
        let kept = Kept { item: version(5), order };
        let mut following = Following {
            node: alone.downgrade(),
            key: version(5).key,
            salt: Vec::new(),
            seq: Some(5),
            upkeep: Upkeep::Newest(Some(kept)),
        };
        // Nobody answers the follower itself.
        let round = within(following.round()).await.unwrap();
        assert_eq!((round.result, round.end == End::Success), (told.map(version), false), "{newer:?}");
        let Upkeep::Newest(Some(kept)) = &mut following.upkeep else { panic!("nothing is kept") };
        let newest = told.unwrap_or(5);
        assert_eq!((kept.item.seq, following.seq), (newest, Some(newest)), "{newer:?}");
        let round = within(kept.order.next()).await.unwrap();
        assert!(round.next.is_some(), "it is kept: {round:?}");
    }
}

/// BEP 46: the item outlives those that stored it and its publisher, as long as it is followed.
#[tokio::test]
async fn who_follows_a_key_puts_its_newest_version_again() {
    let router = node(None);
    let secret = SecretKey::from_seed(&[6; 32]);
    for keeps in [false, true] {
        let (reader, writer, store) = (node(Some(&router)), node(Some(&router)), node(Some(&router)));
        let salt: &[u8] = if keeps { b"kept" } else { b"read" };
        within(writer.update(&secret, salt, b"3:old")).await.unwrap();
        within(writer.update(&secret, salt, b"3:new")).await.unwrap();
        let mut versions = if keeps {
            within(reader.follow_and_keep(secret.public(), salt, None)).await.unwrap()
        } else {
            within(reader.follow(secret.public(), salt, None)).await.unwrap()
        };
        assert_eq!(within(versions.next()).await.unwrap().seq, 2);
        within(writer.shutdown()).await.unwrap();
        within(store.shutdown()).await.unwrap();
        // Who joins now is told the item by itself, if by anybody.
        let heir = node(Some(&router));
        let puts = within(async {
            loop {
                let (asked, told) = (reader.stats().await.unwrap(), heir.stats().await.unwrap());
                if told.counters.queries_put > 0 || !keeps && asked.counters.lookups_done > 50 {
                    return told.counters.queries_put;
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert_eq!(puts > 0, keeps);
    }
}

#[tokio::test]
async fn an_order_keeps_no_node_alive_and_ends_with_it() {
    let first = node(None);
    let second = node(Some(&first));
    let addr = second.local_addrs().next().unwrap();
    let announce = Announce { port: 7777, implied: false, seed: false };
    let mut announcing = within(second.announce(Id::new([3; 20]), announce)).await.unwrap();
    within(announcing.next()).await.unwrap();
    drop(second);
    while within(announcing.next()).await.is_some() {}
    within(async {
        while std::net::UdpSocket::bind(addr).is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
