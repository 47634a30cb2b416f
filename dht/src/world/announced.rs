//! What a node tells its owner of the announces of others.

use std::net::SocketAddr;

use super::*;
use crate::NetworkChange;

#[test]
fn stored_announces_are_told_only_to_who_wants_to_know() {
    let mut world = World::new(1, Config { infohashes_per_ip: 1, ..Config::default() });
    world.add_node(&[]);
    let stranger: SocketAddr = "85.6.7.8:6881".parse().unwrap();
    let announce = |world: &mut World, infohash: Id, port: i64| {
        let asked = query(Id::new([1; 20]), get_peers(infohash));
        let sent = world.inject(0, stranger, &asked);
        let token = sent.iter().find_map(|bytes| match Message::decode(bytes).unwrap().body {
            Body::Response(response) => response.token.map(<[u8]>::to_vec),
            _ => None,
        });
        let token = token.unwrap_or_default();
        let announce = Query::AnnouncePeer { infohash, port, implied_port: false, token: &token, seed: true };
        world.inject(0, stranger, &query(Id::new([1; 20]), announce));
    };
    let told = |world: &World| {
        let told = world.hosts[0].events.iter().filter_map(|(_, event)| match event {
            Event::Announced { infohash, peer, seed } => Some((*infohash, *peer, *seed)),
            _ => None,
        });
        told.collect::<Vec<_>>()
    };
    let infohash = Id::new([7; 20]);
    announce(&mut world, infohash, 1000);
    assert_eq!(told(&world), []);
    world.command(0, Command::TellAnnounces(true));
    announce(&mut world, infohash, 1001);
    announce(&mut world, infohash, 1001);
    let peer: SocketAddr = "85.6.7.8:1001".parse().unwrap();
    assert_eq!(told(&world), [(infohash, peer, true); 2]);
    // One infohash is all that this source may announce.
    announce(&mut world, Id::new([8; 20]), 1001);
    // A bad token stores nothing.
    let forged =
        Query::AnnouncePeer { infohash, port: 1, implied_port: false, token: b"forged!!", seed: false };
    world.inject(0, stranger, &query(Id::new([1; 20]), forged));
    assert_eq!(told(&world).len(), 2);
}

/// What was announced before a change of the network has to be announced again (S17, S21).
#[test]
fn a_change_of_the_network_is_told() {
    let mut world = World::new(2, Config::default());
    world.add_node(&[]);
    let moves = |world: &World| {
        let told = world.hosts[0].events.iter().filter(|(_, event)| event.is_move());
        told.filter(|(_, event)| matches!(event, Event::NetworkChanged { home: 0 })).count()
    };
    world.tell(0, NetworkChange::Lost);
    assert_eq!(moves(&world), 0, "there is nobody to announce to");
    world.tell(0, NetworkChange::Changed);
    assert_eq!(moves(&world), 1);
}
