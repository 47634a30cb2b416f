//! Networks on real sockets: what is asserted are outcomes and counts, never how long anything took.

use std::net::UdpSocket as StdSocket;
use std::time::Duration;

use krpc::Id;

use super::*;
use crate::{Announce, Event, Outcome};

/// No test takes anywhere near as long; what does is stuck.
const GUARD: Duration = Duration::from_secs(60);
const ANNOUNCE: Announce = Announce { port: 7777, implied: false, seed: false };

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(GUARD, future).await.expect("long before the guard")
}

#[tokio::test]
async fn every_node_knows_its_neighbourhood_from_the_start() {
    let net = within(Testnet::new(60)).await.unwrap();
    let ids: Vec<_> = net.nodes().iter().map(|node| node.ids().next().unwrap()).collect();
    for (node, own) in net.nodes().iter().zip(&ids) {
        assert!(within(node.bootstrapped()).await.unwrap() >= 40, "a table of 60 has few left out");
        let mut others: Vec<_> = ids.iter().filter(|id| *id != own).copied().collect();
        others.sort_by_key(|id| own.distance(id));
        let closest: Vec<_> = within(node.closest(*own, 8)).await.unwrap();
        assert_eq!(closest.iter().map(|(id, _)| *id).collect::<Vec<_>>(), others[..8]);
        assert!(within(node.table()).await.unwrap().iter().all(|known| known.secure));
    }
}

#[tokio::test]
async fn the_seed_decides_who_is_there_and_who_knows_whom() {
    let tables = async |seed| {
        let net = within(Testnet::start(Options { nodes: 40, seed, ..Options::default() })).await.unwrap();
        let mut known = Vec::new();
        for node in net.nodes() {
            let ids: Vec<_> = within(node.table()).await.unwrap().iter().map(|known| known.id).collect();
            known.push((node.ids().next().unwrap(), ids));
        }
        known
    };
    let first = tables(1).await;
    assert_eq!(first, tables(1).await);
    assert_ne!(first, tables(2).await);
}

#[tokio::test]
async fn lookups_work_at_once_and_a_guest_joins() {
    let net = within(Testnet::new(50)).await.unwrap();
    let infohash = Id::new([7; 20]);
    let done = within(async {
        net.nodes()[3].get_peers(infohash, Some(ANNOUNCE), false).await.unwrap().finish().await
    });
    assert!(done.await.is_some());
    let guest = Dht::bind(net.guest()).unwrap();
    let mut peers = within(guest.get_peers(infohash, None, false)).await.unwrap().peers();
    assert_eq!(within(peers.next()).await, Some(([127, 0, 0, 1], 7777).into()));
}

#[tokio::test]
async fn many_lookups_in_a_row_are_no_flood() {
    let net = within(Testnet::new(12)).await.unwrap();
    let asking = &net.nodes()[2];
    for n in 0..100 {
        let lookup = within(asking.find_node(Id::new([n; 20]), false)).await.unwrap();
        let (outcome, stats) = within(lookup.finish()).await.unwrap();
        assert!(outcome == Outcome::Converged && stats.answered >= 8, "lookup {n}: {outcome:?} {stats:?}");
    }
    for node in net.nodes() {
        assert_eq!(within(node.stats()).await.unwrap().counters.dropped_rate_limit, 0);
    }
}

#[tokio::test]
async fn a_stopped_node_is_gone_and_the_rest_goes_on() {
    let mut net = within(Testnet::new(30)).await.unwrap();
    let first = net.bootstrap().next().unwrap();
    let stopped = net.nodes()[0].clone();
    within(net.stop(0)).await;
    StdSocket::bind(first).expect("its port is free");
    assert!(matches!(within(stopped.stats()).await, Err(Error::Stopped)));
    assert!(net.running().count() == 29 && net.nodes().len() == 30);
    assert_eq!(net.bootstrap().next(), net.nodes()[1].local_addrs().next());
    within(net.stop(0)).await;
    let answer = within(net.nodes()[5].ping(net.bootstrap().next().unwrap())).await.unwrap();
    assert!(answer.is_some());
}

#[tokio::test]
async fn dropping_the_network_ends_nodes_whose_handles_live_on() {
    let net = within(Testnet::new(3)).await.unwrap();
    let node = net.nodes()[1].clone();
    let addr = node.local_addrs().next().unwrap();
    drop(net);
    within(async {
        while StdSocket::bind(addr).is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(matches!(within(node.stats()).await, Err(Error::Stopped)));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_network_and_its_guests_live_where_they_are_told_to() {
    let ip = std::net::Ipv4Addr::new(127, 0, 3, 7);
    let net = within(Testnet::start(Options { nodes: 3, ipv4: ip, ..Options::default() })).await.unwrap();
    let guest = Dht::bind(net.guest()).unwrap();
    within(guest.bootstrapped()).await.unwrap();
    for addr in net.nodes().iter().chain([&guest]).flat_map(Dht::local_addrs) {
        assert_eq!(addr.ip(), ip);
        assert!(within(net.nodes()[0].ping(addr)).await.unwrap().is_some(), "{addr}");
    }
}

#[tokio::test]
async fn loss_is_met_and_lookups_survive_it() {
    let ms = Duration::from_millis;
    let options = Options { nodes: 40, seed: 3, latency: ms(1)..=ms(3), loss: 10, ..Options::default() };
    let net = within(Testnet::start(options)).await.unwrap();
    for n in 0..5 {
        let infohash = Id::new([n; 20]);
        let announce = net.nodes()[1].get_peers(infohash, Some(ANNOUNCE), false);
        within(async { announce.await.unwrap().finish().await }).await;
        let mut peers = within(net.nodes()[20].get_peers(infohash, None, false)).await.unwrap().peers();
        assert_eq!(within(peers.next()).await, Some(([127, 0, 0, 1], 7777).into()));
    }
    let (mut sent, mut lost) = (0, 0);
    for node in net.nodes() {
        let stats = within(node.stats()).await.unwrap();
        sent += stats.counters.datagrams_out;
        lost += stats.sockets[0].counters.lost_on_purpose;
    }
    // Five lookups of 40 queries each, twice, and as many answers.
    assert!(sent >= 500 && (sent / 20..sent / 6).contains(&lost), "{lost} of {sent}");
}

#[tokio::test]
async fn answers_take_as_long_as_the_lines_say() {
    let ms = Duration::from_millis;
    let options = Options { nodes: 5, latency: ms(20)..=ms(20), ..Options::default() };
    let net = within(Testnet::start(options)).await.unwrap();
    let to = net.nodes()[1].local_addrs().next().unwrap();
    let own = within(net.nodes()[0].ping(to)).await.unwrap().expect("an answer");
    let guest = Dht::bind(net.guest()).unwrap();
    let strange = within(guest.ping(to)).await.unwrap().expect("an answer");
    // Not less; how much more is up to the machine.
    assert!(own.rtt >= ms(40) && strange.rtt >= ms(40), "{:?} {:?}", own.rtt, strange.rtt);
}

#[tokio::test]
async fn a_network_lives_at_the_loopback_address_of_ipv6_too() {
    let options = Options { nodes: 12, ipv6: true, ..Options::default() };
    let net = match within(Testnet::start(options)).await {
        Ok(net) => net,
        Err(Error::Bind { source, .. }) if net::udp::is_family_missing(&source) => {
            return net::udp::skip_without_ipv6();
        }
        Err(error) => panic!("{error}"),
    };
    let guest = Dht::bind(net.guest()).unwrap();
    let mut lookup = within(guest.find_node(Id::new([1; 20]), false)).await.unwrap();
    let mut closest = Vec::new();
    while let Some(event) = within(lookup.next()).await {
        if let Event::Done { closest: nearest, .. } = event {
            closest = nearest;
        }
    }
    assert!(closest.len() >= 8 && closest.iter().all(|(_, addr)| addr.is_ipv6()), "{closest:?}");
}

#[tokio::test]
async fn a_busy_port_is_said() {
    let taken = StdSocket::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let options = Options { nodes: 2, port, ..Options::default() };
    let error = within(Testnet::start(options)).await.unwrap_err();
    assert!(matches!(error, Error::Bind { addr, .. } if addr.port() == port), "{error}");
}
