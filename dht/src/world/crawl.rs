//! A crawl from a node among real nodes: what they store is found within few queries (BEP 51).

use super::*;
use crate::Question;
use crate::crawl::{Actions, Crawler, Event as Told, Region};

const MINUTE: Duration = Duration::from_secs(60);

/// Crawls from `host` until everybody known has been asked: what was told, and the crawl.
fn crawl(world: &mut World, host: usize, config: &Config) -> (Vec<Told>, Crawler) {
    let has = |is_v4| world.hosts[host].addrs.iter().any(|addr| addr.is_ipv4() == is_v4);
    let families = (has(true), has(false));
    let mut crawler =
        Crawler::new(world.now, config, Region::WHOLE, families, Seeds::from_u64(world.rng.next_u64()));
    crawler.set_own(world.node(host).stats(world.now).into_iter().map(|home| home.id).collect());
    let mut told = Vec::new();
    let mut asked = BTreeMap::new();
    world.hosts[host].events.clear();
    loop {
        let mut out = Actions::default();
        if crawler.timeout() <= world.now {
            crawler.handle_timeout(world.now, &mut out);
        }
        for (_, event) in std::mem::take(&mut world.hosts[host].events) {
            if let Event::Answered { lookup, answer, .. } = event
                && let Some(ticket) = asked.remove(&lookup)
            {
                let bytes = answer.as_ref().map(|(bytes, _)| &bytes[..]);
                crawler.handle_answer(world.now, ticket, bytes, &mut out);
            }
        }
        if out.wants_nodes {
            let table = world.node(host).table(world.now);
            let table: Vec<_> = table.iter().map(|node| (node.id, node.addr)).collect();
            crawler.handle_nodes(world.now, &table, &mut out);
        }
        for query in out.queries {
            let command = Command::Ask { to: query.to, question: query.question };
            asked.insert(world.command(host, command).unwrap(), query.ticket);
        }
        told.extend(out.events);
        if matches!(told.last(), Some(Told::RoundOver { .. })) || crawler.status().rounds > 0 {
            return (told, crawler);
        }
        let timeout = crawler.timeout().min(world.now + Duration::from_secs(10));
        if !world.step(timeout) {
            world.now = timeout;
        }
    }
}

fn found(told: &[Told]) -> BTreeSet<Id> {
    let infohashes = told.iter().filter_map(|event| match event {
        Told::Samples { infohashes, .. } => Some(infohashes),
        _ => None,
    });
    infohashes.flatten().copied().collect()
}

#[test]
fn a_crawl_finds_what_three_hundred_nodes_store() {
    let mut world = World::grown(61, 310, MINUTE / 2);
    let mut stored = BTreeSet::new();
    for n in 0..100 {
        let infohash = world.random_id();
        let announced = world.announce(1 + n * 3, infohash, 7000);
        assert!(!announced.stored.is_empty());
        stored.insert(infohash);
    }
    // A tenth of the nodes are gone, which the others still name.
    (200..231).for_each(|index| world.kill(index));
    let config = Config { crawl_rate: 200, ..Config::default() };
    let (told, crawler) = crawl(&mut world, 5, &config);
    let found = found(&told);
    assert!(found.is_subset(&stored));
    assert!(found.len() * 100 >= stored.len() * 99, "{} of {}", found.len(), stored.len());
    let counters = crawler.counters();
    assert!(counters.queries <= 320, "{counters:?}");
    assert!(crawler.status().resting >= 270, "{:?}", crawler.status());
    assert!(counters.silent >= 20, "{counters:?}");
    let size = crawler.status().size_v4.unwrap();
    assert!((size.nodes - 278.0).abs() < 4.0 * size.error, "{size:?}");
}

/// Both families in one crawl: nodes that store twenty infohashes and know eight of each family answer too.
#[test]
fn a_crawl_of_both_families_hears_from_nodes_that_have_more_to_tell_than_fits() {
    let mut world = World::new(63, Config::default());
    for n in 0..30 {
        world.add_node_at(&[World::v4(n), World::v6(n)], &[]);
    }
    world.join(1..30, 0);
    world.run(MINUTE);
    let mut stored = BTreeSet::new();
    for n in 0..60 {
        let infohash = world.random_id();
        assert!(!world.announce(1 + n % 29, infohash, 7000).stored.is_empty());
        stored.insert(infohash);
    }
    let full = (0..30).filter(|&host| world.node(host).store().infohashes() >= 20).count();
    assert!(full >= 10, "{full} of 30 have twenty infohashes");
    let config = Config { crawl_rate: 200, ..Config::default() };
    let (told, crawler) = crawl(&mut world, 5, &config);
    assert_eq!(found(&told), stored);
    assert_eq!(crawler.counters().silent, 0, "{:?}", crawler.counters());
    assert!(crawler.status().resting >= 55, "{:?}", crawler.status());
}

#[test]
fn a_node_is_asked_for_the_size_of_a_swarm_directly() {
    let mut world = World::grown(62, 20, MINUTE);
    let infohash = world.random_id();
    let stored = world.announce(1, infohash, 7000).stored;
    let question = Question::Scrape(infohash, Want::UNSPECIFIED);
    let lookup = world.command(2, Command::Ask { to: stored[0], question }).unwrap();
    world.run(Duration::from_secs(5));
    let answered = world.hosts[2].events.iter().find_map(|(_, event)| match event {
        Event::Answered { lookup: name, answer: Some((bytes, _)), .. } if *name == lookup => Some(bytes),
        _ => None,
    });
    let Body::Response(response) = Message::decode(answered.unwrap()).unwrap().body else { panic!() };
    let peers = response.bloom_peers.and_then(krpc::bloom::Bloom::from_slice).unwrap();
    assert_eq!(peers.estimate().round(), 1.0);
    assert!(response.nodes.is_some(), "they are whom to ask next");
}
