//! Lookups from several addresses of one family (BEP 45): who asks, how often, and who announces.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::rc::Rc;

use krpc::ErrorBody;
use krpc::compact::{self, Address, Contact, V4, V6};

use super::*;
use crate::item::Item;

/// A query of a lookup that came.
#[derive(Clone, Copy, Debug)]
struct Asked {
    target: Id,
    to: SocketAddr,
    /// Which of our addresses.
    from: SocketAddr,
}

/// Where nobody lives who speaks our protocol.
const VICTIM: ([u8; 4], u16) = ([203, 0, 113, 7], 6881);

type Log = Rc<RefCell<Vec<Asked>>>;

/// A network of sixty nodes that all know each other, name the eight nearest, write down who asks and
/// are deaf to some, and a node with so many homes among them that has met all of it.
struct Street {
    world: World,
    node: usize,
    log: Log,
    deaf_to: Rc<RefCell<BTreeSet<SocketAddr>>>,
    /// Nodes that do not ignore but refuse whom others are deaf to.
    refusing: Rc<RefCell<BTreeSet<SocketAddr>>>,
    nodes: Rc<RefCell<Vec<(Id, SocketAddr)>>>,
}

impl Street {
    fn new(seed: u64, homes: usize) -> Self {
        let addrs: Vec<_> = (100..100 + homes).map(World::v4).collect();
        let street = Self::of(World::new(seed, Config::default()), &addrs);
        let homes = street.world.node(street.node).stats(street.world.now);
        assert!(homes.iter().all(|home| home.nodes >= 20));
        street
    }

    /// One with a node at `addrs` in `world`, and nodes of IPv6 too if it has such addresses.
    fn of(world: World, addrs: &[SocketAddr]) -> Self {
        let (log, deaf_to, refusing) = Default::default();
        let nodes = Rc::<RefCell<Vec<(Id, SocketAddr)>>>::default();
        let mut street = Self { world, node: 0, log, deaf_to, refusing, nodes };
        let is_v6 = addrs.iter().any(SocketAddr::is_ipv6);
        let all: Vec<_> = (0..60).map(World::v4).chain((0..60).filter(|_| is_v6).map(World::v6)).collect();
        for addr in all {
            let id = street.add(addr);
            street.nodes.borrow_mut().push((id, addr));
        }
        let saved = street.nodes.borrow().clone();
        street.node = street.world.add_node_at(addrs, &saved);
        street.world.run(Duration::from_secs(60));
        street.log.borrow_mut().clear();
        let homes = street.world.node(street.node).stats(street.world.now);
        assert!(homes.iter().all(|home| home.nodes > 0));
        street
    }

    /// Adds somebody who knows everybody and whom nobody knows. Its id.
    fn add(&mut self, addr: SocketAddr) -> Id {
        let id = self.world.random_id();
        let (log, deaf_to) = (Rc::clone(&self.log), Rc::clone(&self.deaf_to));
        let (refusing, nodes) = (Rc::clone(&self.refusing), Rc::clone(&self.nodes));
        self.world.add_actor_at(
            addr,
            Box::new(move |_, from, message| {
                let Body::Query { query, .. } = &message.body else { return Vec::new() };
                if let Some(target) = target_in(query) {
                    log.borrow_mut().push(Asked { target, to: addr, from });
                }
                if deaf_to.borrow().contains(&from) {
                    let refuses = refusing.borrow().contains(&addr);
                    return if refuses { vec![(from, refusal(message.tid))] } else { Vec::new() };
                }
                let issued = from.to_string().into_bytes();
                if let Query::AnnouncePeer { token, .. } | Query::Put { token, .. } = query {
                    assert_eq!(*token, &issued[..], "BEP 45: the token of another address");
                }
                let (v4, v6) = (near::<V4>(&nodes.borrow(), query), near::<V6>(&nodes.borrow(), query));
                let (v4, v6) = (Some(&v4[..]), Some(&v6[..]).filter(|v6| !v6.is_empty()));
                let response = Response { nodes: v4, nodes6: v6, token: Some(&issued), ..Response::new(id) };
                vec![(from, reply(message.tid, response))]
            }),
        );
        id
    }

    /// Runs a lookup; how it ended, and what came because of it.
    fn look_up(&mut self, command: Command) -> (Found, Vec<Asked>) {
        self.world.run(Duration::from_secs(20));
        let target = command.target().unwrap();
        self.log.borrow_mut().clear();
        let found = self.world.look_up(self.node, command);
        (found, self.asked(target))
    }

    /// What came because of `target`.
    fn asked(&self, target: Id) -> Vec<Asked> {
        self.log.borrow().iter().copied().filter(|asked| asked.target == target).collect()
    }

    /// Has everybody name a victim, who never answers, under ids of their own, nearest to the infohash that is
    /// returned. Its host.
    fn name_a_victim(&mut self) -> (Id, usize) {
        let (infohash, log) = (self.world.random_id(), Rc::clone(&self.log));
        for n in 1..=6 {
            let mut id = *infohash.as_bytes();
            id[19] ^= n;
            self.nodes.borrow_mut().push((Id::new(id), VICTIM.into()));
        }
        let note = move |_, from, message: &Message<'_>| {
            if let Body::Query { query, .. } = &message.body
                && let Some(target) = target_in(query)
            {
                log.borrow_mut().push(Asked { target, to: VICTIM.into(), from });
            }
            Vec::new()
        };
        (infohash, self.world.add_actor_at(VICTIM.into(), Box::new(note)))
    }

    fn announce(infohash: Id) -> Command {
        let announce = Some(Announce { port: 4444, implied: false, seed: false });
        Command::GetPeers { infohash, announce, trace: false }
    }

    fn find_node(&mut self) -> Command {
        Command::FindNode { target: self.world.random_id(), trace: false }
    }
}

/// What a query of a lookup or an announce is about.
fn target_in(query: &Query<'_>) -> Option<Id> {
    match *query {
        Query::FindNode { target, .. } | Query::Get { target, .. } => Some(target),
        Query::GetPeers { infohash, .. } | Query::AnnouncePeer { infohash, .. } => Some(infohash),
        _ => None,
    }
}

fn refusal(tid: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let body = Body::Error(ErrorBody { code: 201, text: b"no" });
    Message { tid, version: None, ip: None, read_only: false, body }.encode(&mut bytes);
    bytes
}

/// The eight nodes of a family nearest to what is looked for.
fn near<A: Address>(nodes: &[(Id, SocketAddr)], query: &Query<'_>) -> Vec<u8> {
    let Some(target) = target_in(query) else { return Vec::new() };
    let of_family = |&(id, addr): &(Id, SocketAddr)| Some(Contact { id, addr: A::from_socket(addr)? });
    let mut nodes: Vec<Contact<A>> = nodes.iter().filter_map(of_family).collect();
    nodes.sort_by_key(|node| node.id.distance(&target));
    let mut bytes = Vec::new();
    for node in nodes.iter().take(8) {
        compact::put_node(&mut bytes, node);
    }
    bytes
}

fn askers(log: &[Asked]) -> BTreeSet<SocketAddr> {
    log.iter().map(|asked| asked.from).collect()
}

#[test]
fn one_home_of_a_family_searches_and_each_has_its_turn() {
    for homes in [1, 2, 4, 8] {
        let mut street = Street::new(10 + homes as u64, homes);
        let mut searchers = BTreeSet::new();
        let value = b"12:Hello World!".to_vec();
        for _ in 0..homes * 4 {
            let infohash = street.world.random_id();
            for command in [
                Command::Scrape { infohash, trace: false },
                Command::GetPeers { infohash, announce: None, trace: false },
                street.find_node(),
                Command::Put {
                    item: Item::Immutable { value: value.clone() }.into(),
                    cas: None,
                    trace: false,
                },
            ] {
                let (found, log) = street.look_up(command);
                assert_eq!(found.outcome, Outcome::Converged);
                assert_eq!(askers(&log).len(), 1, "{homes} homes");
                assert!(found.stored.len() <= 8 && found.closest.len() == 8, "{found:?}");
                searchers.extend(askers(&log));
            }
        }
        assert_eq!(searchers.len(), homes);
    }
}

#[test]
fn all_homes_announce_one_after_the_other_within_the_limits_of_one_lookup() {
    for homes in [1, 4, 8] {
        let mut street = Street::new(20 + homes as u64, homes);
        let infohash = street.world.random_id();
        for round in 0..3 {
            let (found, log) = street.look_up(Street::announce(infohash));
            assert_eq!(found.outcome, Outcome::Converged, "{homes} homes");
            assert_eq!(found.stored.len(), 8 * homes, "eight for each address");
            assert_eq!(askers(&log).len(), homes);
            let (first, more) = (76, 16 * (homes as u32 - 1));
            assert!(found.stats.queries <= first + more, "{homes} homes: {:?}", found.stats);
            // A node hears of the next home when it is done with the one before.
            let mut heard = BTreeMap::<SocketAddr, Vec<SocketAddr>>::new();
            for Asked { to, from, .. } in log {
                let heard = heard.entry(to).or_default();
                if heard.last() != Some(&from) {
                    heard.push(from);
                }
            }
            for heard in heard.into_values() {
                assert_eq!(
                    heard.iter().collect::<BTreeSet<_>>().len(),
                    heard.len(),
                    "round {round}: {heard:?}"
                );
            }
        }
    }
}

/// More addresses than one lookup can announce: no limit is broken, and the others have their turn.
#[test]
fn forty_homes_announce_in_several_rounds() {
    let mut street = Street::new(30, 40);
    let infohash = street.world.random_id();
    let mut announced = BTreeSet::new();
    for _ in 0..12 {
        let (found, log) = street.look_up(Street::announce(infohash));
        assert_eq!(found.outcome, Outcome::Converged);
        assert!(found.stats.queries <= 300 && found.stored.len() >= 80, "{:?}", found.stats);
        announced.extend(askers(&log));
        // Others' lookups are between.
        let other = street.find_node();
        street.look_up(other);
    }
    assert_eq!(announced.len(), 40);
}

/// D7, S24: everybody names a victim under ids of its own, nearest to what is looked for.
#[test]
fn a_victim_is_asked_three_times_at_most_whatever_the_number_of_homes() {
    for homes in [1, 4, 8] {
        let mut street = Street::new(40 + homes as u64, homes);
        let (infohash, victim) = street.name_a_victim();
        let (found, _) = street.look_up(Street::announce(infohash));
        assert_eq!(found.stored.len(), 8 * homes, "{:?}", found.outcome);
        let asked = street.world.hosts[victim].received;
        assert!((1..=3).contains(&asked), "{homes} homes: {asked}");
    }
}

/// The same where the first home has asked the victim in vain, and then has no network any more.
#[test]
fn a_victim_is_asked_three_times_at_most_also_when_another_home_takes_over() {
    let mut took_over = 0;
    for (seed, millis) in (45..49).flat_map(|seed| [(seed, 200), (seed, 300), (seed, 400)]) {
        let mut street = Street::new(seed, 2);
        let first = street.world.hosts[street.node].addrs[0];
        let (infohash, _) = street.name_a_victim();
        street.world.command(street.node, Street::announce(infohash)).unwrap();
        street.world.run(Duration::from_millis(millis));
        street.deaf_to.borrow_mut().insert(first);
        let victim_by = |street: &Street| {
            let asked = street.asked(infohash).into_iter();
            askers(&asked.filter(|asked| asked.to == VICTIM.into()).collect::<Vec<_>>()).len()
        };
        let began = victim_by(&street);
        // Answers on their way would say that the network is back.
        for _ in 0..50 {
            street.world.tell(street.node, NetworkChange::Lost);
            street.world.run(Duration::from_millis(10));
        }
        street.world.run(Duration::from_secs(40));
        let log = street.asked(infohash);
        let asked = log.iter().filter(|asked| asked.to == VICTIM.into()).count();
        assert!((1..=3).contains(&asked), "seed {seed}, after {millis} ms: {asked}");
        took_over += usize::from(log[0].from == first && askers(&log).len() == 2 && began > 0);
    }
    assert!(took_over >= 2, "nobody took over after the victim was asked: {took_over}");
}

/// Nobody hears some of our addresses any more: another one does what theirs would have.
#[test]
fn another_home_takes_over_where_the_network_of_one_has_failed() {
    let mut replaced = 0;
    for (homes, deaf) in [(2, 1), (4, 2), (8, 1), (8, 2)] {
        let mut street = Street::new(50 + (homes * 10 + deaf) as u64, homes);
        let gone: Vec<_> = street.world.hosts[street.node].addrs[..deaf].to_vec();
        street.deaf_to.borrow_mut().extend(gone.iter().copied());
        for _ in 0..homes * 2 {
            let infohash = street.world.random_id();
            let (found, log) = street.look_up(Street::announce(infohash));
            assert_eq!(found.outcome, Outcome::Converged, "{homes} homes, {deaf} deaf");
            assert_eq!(found.stored.len(), 8 * (homes - deaf), "{homes} homes, {deaf} deaf");
            assert!(found.stats.elapsed < Duration::from_secs(12), "{:?}", found.stats);
            replaced += usize::from(gone.contains(&log[0].from));
        }
    }
    assert!(replaced >= 1, "no lookup began at a deaf home");
}

/// The time to search is over while a home holds back, refused by some and without an answer of others: the
/// virtual network fails a node that wants to wake up again at once.
#[test]
fn the_time_is_over_also_for_a_home_that_holds_back() {
    for tenths in (2..=24).step_by(2) {
        let config = Config::default();
        let lookup_max_time = config.query_timeout + Duration::from_millis(100 * tenths);
        let world = World::new(60 + tenths, Config { lookup_max_time, ..config });
        let mut street = Street::of(world, &[World::v4(100), World::v4(101), World::v4(102)]);
        street.deaf_to.borrow_mut().extend([World::v4(101), World::v4(102)]);
        let refusing = street.nodes.borrow().iter().step_by(2).map(|&(_, addr)| addr).collect();
        *street.refusing.borrow_mut() = refusing;
        for _ in 0..4 {
            let infohash = street.world.random_id();
            let (found, _) = street.look_up(Street::announce(infohash));
            assert!(found.stats.elapsed <= lookup_max_time, "{:?}", found.stats);
        }
    }
}

/// Followers of both families draw on the same queries: whoever begins gets round.
#[test]
fn whoever_follows_announces_to_all_closest_nodes_in_either_family() {
    for (homes, lookup_max_queries) in [(20, 300), (6, 130), (6, 160), (6, 196)] {
        let (v4, v6) = ((100..100 + homes).map(World::v4), (100..100 + homes).map(World::v6));
        let config = Config { lookup_max_queries, ..Config::default() };
        let mut street = Street::of(World::new(90, config), &v4.chain(v6).collect::<Vec<_>>());
        for _ in 0..8 {
            let infohash = street.world.random_id();
            let (found, log) = street.look_up(Street::announce(infohash));
            assert_eq!(found.outcome, Outcome::Converged);
            assert!(found.stats.queries <= lookup_max_queries, "{:?}", found.stats);
            assert_eq!(found.stored.len(), 8 * askers(&log).len(), "{:?}", found.stats);
        }
    }
}

/// All homes go by one soft deadline, which the answers of the others have made short. Who is slow waits until
/// its own are there, in each place of the row.
#[test]
fn a_home_slower_than_the_others_announces_as_well() {
    let mut street = Street::new(92, 6);
    let slow = World::v4(103);
    street.world.path = Box::new(move |a, b| if a == slow || b == slow { 150_000 } else { even_path(a, b) });
    for round in 0..12 {
        let infohash = street.world.random_id();
        let (found, log) = street.look_up(Street::announce(infohash));
        assert_eq!(found.outcome, Outcome::Converged, "round {round}");
        assert_eq!(found.stored.len(), 8 * 6, "round {round}: {:?}", found.stats);
        assert_eq!(askers(&log).len(), 6);
    }
}

/// Whoever follows on a dead line is waited for as long as an answer can take, until the line counts as lost.
#[test]
fn a_dead_home_holds_up_the_others_no_longer_than_an_answer_may_take() {
    let mut street = Street::new(93, 3);
    street.deaf_to.borrow_mut().insert(World::v4(101));
    let mut longest = Duration::ZERO;
    for _ in 0..6 {
        let infohash = street.world.random_id();
        let (found, _) = street.look_up(Street::announce(infohash));
        assert_eq!((found.outcome, found.stored.len()), (Outcome::Converged, 8 * 2));
        longest = longest.max(found.stats.elapsed);
    }
    let query_timeout = street.world.config.query_timeout;
    assert!((query_timeout..query_timeout + Duration::from_secs(3)).contains(&longest), "{longest:?}");
}

/// A first wave that takes longer than is usual looks like a dead line, until its answers come: if the home that
/// took over is the dead one, the first goes on.
#[test]
fn a_slow_home_that_was_taken_for_dead_goes_on_where_the_other_one_is() {
    let (slow, dead) = (World::v4(201), World::v4(202));
    let mut resumed = 0;
    for (seed, homes) in (0..4).flat_map(|seed| [(seed, [slow, dead]), (seed, [dead, slow])]) {
        let mut street = Street::new(300 + seed, 1);
        street.deaf_to.borrow_mut().insert(dead);
        street.world.path =
            Box::new(move |a, b| if a == slow || b == slow { 200_000 } else { even_path(a, b) });
        let saved = street.nodes.borrow()[..30].to_vec();
        street.node = street.world.add_node_at(&homes, &saved);
        let infohash = street.world.random_id();
        let found = street.world.look_up(street.node, Street::announce(infohash));
        let log = street.asked(infohash);
        let by_dead = log.iter().filter(|asked| asked.from == dead).count();
        assert_eq!(found.outcome, Outcome::Converged);
        assert_eq!((found.stored.len(), found.closest.len()), (8, 8), "{:?}", found.stats);
        assert!(by_dead <= 24, "{by_dead} queries on a dead line");
        resumed += usize::from(log[0].from == slow && by_dead > 0);
    }
    assert!(resumed >= 1, "no lookup began at the slow home");
}

/// A home that never meets anybody, as that of a tunnel without a route, is no reason to ask routers.
#[test]
fn routers_are_not_asked_because_of_a_home_that_does_not_search() {
    let mut street = Street::new(91, 1);
    let router = World::v4(200);
    street.add(router);
    let homes = [World::v4(201), World::v4(202)];
    street.deaf_to.borrow_mut().insert(homes[1]);
    street.node = street.world.add_node_at(&homes, &[]);
    street.world.command(street.node, Command::Routers(vec![router]));
    street.world.run(Duration::from_secs(60));
    let known: Vec<_> = street.world.node(street.node).stats(street.world.now);
    assert!(known[0].nodes >= 20 && known[1].nodes == 0, "{known:?}");
    for _ in 0..8 {
        let infohash = street.world.random_id();
        let (found, log) = street.look_up(Street::announce(infohash));
        assert_eq!(found.outcome, Outcome::Converged);
        assert!(log.iter().all(|asked| asked.to != router), "{:?}", found.stats);
    }
}
