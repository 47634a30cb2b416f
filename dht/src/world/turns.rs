//! Lookups from several addresses of one family (BEP 45): who asks, how often, and who announces.

use super::street::{Asked, Street, askers};
use super::*;
use crate::item::Item;

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

/// Who is slow waits until its own answers are there, in each place of the row, and asks nobody again before.
#[test]
fn a_home_slower_than_the_others_announces_as_well() {
    let mut street = Street::new(92, 6);
    let slow = World::v4(103);
    street.world.path = Box::new(move |a, b| if a == slow || b == slow { 150_000 } else { even_path(a, b) });
    // Its answers take longer than they did so far, until it has seen enough of them.
    for _ in 0..12 {
        let infohash = street.world.random_id();
        let (found, _) = street.look_up(Street::announce(infohash));
        assert_eq!((found.outcome, found.stored.len()), (Outcome::Converged, 8 * 6), "{:?}", found.stats);
    }
    // Nobody comes after the usual time by chance.
    street.world.jitter = Duration::ZERO;
    for round in 0..12 {
        let infohash = street.world.random_id();
        let (found, log) = street.look_up(Street::announce(infohash));
        assert_eq!(found.outcome, Outcome::Converged, "round {round}");
        assert_eq!(found.stored.len(), 8 * 6, "round {round}: {:?}", found.stats);
        assert_eq!(askers(&log).len(), 6);
        let mut by_slow = BTreeMap::<SocketAddr, usize>::new();
        for asked in log.iter().filter(|asked| asked.from == slow && log[0].from != slow) {
            *by_slow.entry(asked.to).or_default() += 1;
        }
        let is_once = by_slow.values().all(|&queries| queries == 2);
        assert!(is_once, "round {round}, one get_peers and one announce each: {by_slow:?}");
    }
}

/// What is left for announces is not spent on asking nodes again that were silent at first.
#[test]
fn whoever_follows_leaves_queries_for_its_announces() {
    let mut followed = BTreeSet::new();
    for lookup_max_queries in (68..=120).step_by(4) {
        let config = Config { lookup_max_queries, ..Config::default() };
        let homes = [World::v4(100), World::v4(101), World::v4(102)];
        let mut street = Street::of(World::new(94, config), &homes);
        street.is_forgetful.set(true);
        for _ in 0..3 {
            let infohash = street.world.random_id();
            let (found, log) = street.look_up(Street::announce(infohash));
            assert!(found.stats.queries <= lookup_max_queries, "{lookup_max_queries}: {:?}", found.stats);
            // Each asks eight nodes, seven of them twice, and one or two more.
            if lookup_max_queries >= 104 {
                assert_eq!(found.stored.len(), 8 * 3, "{lookup_max_queries}: {:?}", found.stats);
            }
            followed.insert(askers(&log).len() - 1);
        }
    }
    assert_eq!(followed, BTreeSet::from([1, 2]));
}

/// The addresses of one family that announce leave the other one enough to arrive.
#[test]
fn whoever_follows_leaves_queries_for_the_search_of_a_slower_family() {
    let (v4, tunnel) = ((100..114).map(World::v4), World::v6(100));
    let mut street = Street::of(World::new(95, Config::default()), &v4.chain([tunnel]).collect::<Vec<_>>());
    street.world.path = Box::new(move |a, b| if a == tunnel || b == tunnel { 300_000 } else { 10_000 });
    for _ in 0..12 {
        let infohash = street.world.random_id();
        let (found, log) = street.look_up(Street::announce(infohash));
        assert_eq!(found.outcome, Outcome::Converged, "{:?}", found.stats);
        let mut nearest: Vec<_> =
            street.nodes.borrow().iter().copied().filter(|(_, a)| a.is_ipv6()).collect();
        nearest.sort_by_key(|(id, _)| id.distance(&infohash));
        let stored: BTreeSet<_> = found.stored.iter().filter(|addr| addr.is_ipv6()).copied().collect();
        assert_eq!(stored, nearest[..8].iter().map(|(_, addr)| *addr).collect(), "{:?}", found.stats);
        assert!(askers(&log).len() >= 8, "{:?}", askers(&log));
    }
}
