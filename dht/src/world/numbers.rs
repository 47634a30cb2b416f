//! The house limits of `tests/SCENARIOS.md` as this node has them: D2 to D12 in its settings, D7 and D9 in what a
//! lookup takes from strangers.

use std::net::Ipv4Addr;

use krpc::bencode::Strings;
use krpc::compact::{Address as _, Contact, V4, put_node, put_value};

use super::*;
use crate::HopStep;

#[test]
fn house_limits_are_the_defaults() {
    let config = Config::default();
    // D2
    assert_eq!((config.max_tid, config.max_datagram, config.max_amplification), (32, 1024, 12));
    assert_eq!((config.max_error_amplification, config.reply_bytes_per_second), (2, 8_000_000));
    // D3
    assert_eq!((config.replies_per_second_per_ip, config.reply_burst_per_ip), (25, 50));
    // D4
    assert_eq!((config.token_rotation.as_secs(), config.failed_tokens_per_minute), (300, 10));
    // D5
    assert_eq!((config.store_memory, config.peers_per_infohash, config.ports_per_ip), (64 << 20, 2000, 8));
    assert_eq!((config.infohashes_per_ip, config.peer_expiry.as_secs()), (500, 45 * 60));
    // D6
    assert_eq!(config.nodes_per_subnet_per_bucket, 2);
    // D7
    assert_eq!((config.lookup_max_in_flight, config.lookup_candidates), (32, 200));
    assert_eq!((config.lookup_max_queries, config.lookup_max_time.as_secs()), (300, 30));
    assert_eq!((config.lookup_nodes_per_reply, config.lookup_queries_per_silent_ip), (8, 3));
    // D9
    assert_eq!(
        (config.lookup_ports_per_ip, config.lookup_values_per_reply, config.lookup_max_peers),
        (8, 200, 2000)
    );
    // D10
    assert_eq!((config.address_votes, config.address_agreement), (16, 9));
    assert_eq!(config.address_change_pause.as_secs(), 600);
    // D11
    assert_eq!((config.max_items, config.signature_checks_per_second), (1000, 200));
    // D12
    assert_eq!((config.max_samples, config.sample_interval.as_secs()), (20, 21_600));
}

/// A world with a node that knows `count` actors, of which each answers with `nodes` that are nowhere and
/// `peers` of its own.
fn talkative(config: Config, count: usize, nodes: u32, peers: u32) -> (World, usize) {
    let mut world = World::new(7, config);
    let mut saved = Vec::new();
    for n in 0..count as u32 {
        let id = world.random_id();
        let mut records = Vec::new();
        for k in 0..nodes {
            // Each in a network of its own.
            let at = Ipv4Addr::from(0x3c00_0000 + (n * nodes + k) * 256 + 1);
            let addr = V4::from_socket((at, 6881).into()).unwrap();
            put_node(&mut records, &Contact { id: world.random_id(), addr });
        }
        let mut values = Vec::new();
        for k in 0..peers {
            put_value(&mut values, (Ipv4Addr::from(0x4600_0000 + n * peers + k), 6881).into());
        }
        let actor = world.add_actor(Box::new(move |_, from, message| {
            let values = Strings::from_raw(&values).ok();
            let response = Response { nodes: Some(&records), values, ..Response::new(id) };
            vec![(from, reply(message.tid, response))]
        }));
        saved.push((id, world.addr(actor)));
    }
    let node = world.add_node(&saved);
    (world, node)
}

#[test]
fn lookup_keeps_to_the_numbers_of_the_house() {
    // 8 of the 70 nodes of a reply: those and the one who named them are all that is asked.
    let (mut world, node) = talkative(Config::default(), 1, 70, 0);
    let target = world.random_id();
    world.find_node(node, target);
    let asked: BTreeSet<_> = world.hosts[node]
        .events
        .iter()
        .filter_map(|(_, event)| match event {
            Event::Hop { hop, .. } => Some(hop.node),
            _ => None,
        })
        .collect();
    assert_eq!(asked.len(), 9, "{asked:?}");
    // 200 of the 240 peers of a reply.
    let (mut world, node) = talkative(Config::default(), 1, 0, 240);
    assert_eq!(world.get_peers(node, target).peers.len(), 200);
    // 2,000 of 3,000 peers.
    let (mut world, node) = talkative(Config::default(), 15, 0, 200);
    assert_eq!(world.get_peers(node, target).peers.len(), 2000);
    // 200 nodes that were not asked and 300 that were, of which as many as the limit says are waited for,
    // whoever names how many.
    let (mut world, node) = talkative(Config { lookup_max_in_flight: 6, ..Config::default() }, 120, 8, 0);
    let name = world.command(node, Command::FindNode { target, trace: true }).unwrap();
    let limit = world.now + Duration::from_secs(30);
    let is_done = |event: &(Time, Event)| matches!(event.1, Event::Done { lookup, .. } if lookup == name);
    let mut candidates = 0;
    while !world.hosts[node].events.iter().any(is_done) {
        assert!(world.step(limit), "it did not end");
        candidates = candidates.max(world.node(node).load().candidates);
    }
    assert!((200..=500).contains(&candidates), "{candidates} candidates");
    let (mut waited_for, mut most) = (BTreeSet::new(), 0);
    for (_, event) in &world.hosts[node].events {
        if let Event::Hop { hop, .. } = event {
            match hop.step {
                HopStep::Asked => waited_for.insert(hop.node),
                _ => waited_for.remove(&hop.node),
            };
            most = most.max(waited_for.len());
        }
    }
    assert_eq!(most, 6, "in flight");
}
