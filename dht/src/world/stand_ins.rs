//! Lookups from several addresses of one family (BEP 45), some of which are dead or slow: who goes on in their
//! place, and who is waited for.

use super::street::{Street, VICTIM, askers};
use super::*;

/// D7, S24: the first home has asked a victim that everybody names in vain, and then has no network any more.
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

/// Answers to a home that was taken for dead name what is nearest to where it began, while another one has
/// arrived meanwhile.
#[test]
fn closest_nodes_are_as_many_as_of_one_home_when_two_were_heard() {
    let (slow, quick) = (World::v4(201), World::v4(202));
    let mut both = 0;
    for (seed, slow_is_first) in (0..2).flat_map(|seed| [(seed, true), (seed, false)]) {
        let mut street = Street::new(500 + seed, 1);
        street.world.path =
            Box::new(move |a, b| if a == slow || b == slow { 150_000 } else { even_path(a, b) });
        let target = street.world.random_id();
        let mut nodes = street.nodes.borrow().clone();
        nodes.sort_by_key(|(id, _)| id.distance(&target));
        let home = |local: SocketAddr, saved: &[(Id, SocketAddr)]| {
            let id = secure_id(local.ip(), &mut Rng::from_seed(seed));
            Home { id, local, external: None, saved: saved.to_vec() }
        };
        let mut homes = vec![home(slow, &nodes[50..]), home(quick, &nodes[..10])];
        if !slow_is_first {
            homes.reverse();
        }
        street.node = street.world.add_node_with(homes);
        let found = street.world.look_up(street.node, Command::FindNode { target, trace: false });
        let log = street.asked(target);
        assert_eq!(found.outcome, Outcome::Converged);
        assert_eq!(found.closest, nodes[..8], "seed {seed}: {:?}", found.stats);
        let is_slow_heard = found.stats.elapsed > Duration::from_millis(320);
        both += usize::from(log[0].from == slow && askers(&log).len() == 2 && is_slow_heard);
    }
    assert!(both >= 1, "no lookup began at the slow home, was taken over and heard from both");
}

/// Nobody knows a node of the other family, which has two homes: there is nothing to wait for.
#[test]
fn a_family_without_nodes_holds_up_nobody_whatever_the_number_of_its_homes() {
    for homes in 1..=3 {
        let mut street = Street::new(70, 1);
        let mut addrs = vec![World::v4(200)];
        addrs.extend((0..homes).map(World::v6));
        let saved = street.nodes.borrow()[..30].to_vec();
        street.node = street.world.add_node_at(&addrs, &saved);
        street.world.run(Duration::from_secs(20));
        let infohash = street.world.random_id();
        let (found, _) = street.look_up(Street::announce(infohash));
        assert_eq!((found.outcome, found.stored.len()), (Outcome::Converged, 8), "{homes} homes of IPv6");
        assert!(found.stats.elapsed < Duration::from_secs(6), "{homes} homes of IPv6: {:?}", found.stats);
    }
}

/// The first home was heard and then has no network any more, and nobody hears the one that takes over: there is
/// nothing to wait for.
#[test]
fn a_lookup_does_not_wait_for_a_lost_home_when_the_other_one_is_deaf() {
    let mut ended = 0;
    for (seed, millis) in (45..49).flat_map(|seed| [(seed, 50), (seed, 100), (seed, 150)]) {
        let mut street = Street::new(seed, 2);
        let [first, second] = street.world.hosts[street.node].addrs[..] else { panic!() };
        street.deaf_to.borrow_mut().insert(second);
        let infohash = street.world.random_id();
        let name = street.world.command(street.node, Street::announce(infohash)).unwrap();
        street.world.run(Duration::from_millis(millis));
        street.deaf_to.borrow_mut().insert(first);
        for _ in 0..50 {
            street.world.tell(street.node, NetworkChange::Lost);
            street.world.run(Duration::from_millis(10));
        }
        street.world.run(Duration::from_secs(40));
        let done = street.world.hosts[street.node].events.iter().find_map(|(_, event)| match event {
            Event::Done { lookup, outcome, stats, .. } if *lookup == name => Some((*outcome, *stats)),
            _ => None,
        });
        let ((outcome, stats), log) = (done.unwrap(), street.asked(infohash));
        if log[0].from == first && askers(&log).len() == 2 && stats.answered > 0 {
            assert!(stats.elapsed < Duration::from_secs(6), "seed {seed}, after {millis} ms: {stats:?}");
            assert_eq!(
                outcome,
                Outcome::OutOfBudget,
                "seed {seed}, after {millis} ms: the way was cut short"
            );
            ended += 1;
        }
    }
    assert!(ended >= 2, "nobody took over from a home that was heard: {ended}");
}

/// All nodes are behind one address, which nobody may ask more often before it answers: whoever takes over has
/// nobody to ask, while the first answer is under way.
#[test]
fn an_answer_under_way_counts_when_no_home_may_ask_any_more() {
    let wary = Config { lookup_queries_per_silent_ip: 1, ..Config::default() };
    for (config, homes, millis) in [(wary, 2, 300), (Config::default(), 4, 900), (Config::default(), 6, 900)]
    {
        let mut world = World::new(95, config);
        world.path = Box::new(move |_, _| millis * 500);
        let mut saved = Vec::new();
        for port in 7001..7005 {
            let (id, addr) = (world.random_id(), ([81, 2, 3, 4], port).into());
            let conduct = move |_, from, query: &Message<'_>| {
                let response = Response { token: Some(b"token"), ..Response::new(id) };
                vec![(from, reply(query.tid, response))]
            };
            world.add_actor_at(addr, Box::new(conduct));
            saved.push((id, addr));
        }
        let addrs: Vec<_> = (100..100 + homes).map(World::v4).collect();
        let node = world.add_node_at(&addrs, &saved);
        let infohash = world.random_id();
        let found = world.look_up(node, Street::announce(infohash));
        assert_eq!(found.outcome, Outcome::Converged, "{homes} homes: {:?}", found.stats);
        assert!(!found.stored.is_empty() && found.stats.answered > 0, "{homes} homes: {:?}", found.stats);
        assert!(found.stats.elapsed < Duration::from_secs(12), "{homes} homes: {:?}", found.stats);
    }
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

/// Of two homes that have met nobody, the one that knows where to begin.
#[test]
fn lookups_begin_at_a_home_with_saved_nodes_where_the_only_other_one_that_works_has_none() {
    let mut street = Street::new(93, 1);
    let locals = [World::v4(201), World::v4(202), World::v4(203)];
    street.deaf_to.borrow_mut().extend(&locals[1..]);
    let saved = [street.nodes.borrow().clone(), street.nodes.borrow()[..30].to_vec(), Vec::new()];
    let mut homes = Vec::new();
    for (local, saved) in locals.into_iter().zip(saved) {
        let id = secure_id(local.ip(), &mut street.world.rng);
        homes.push(crate::Home { id, local, external: None, saved });
    }
    street.node = street.world.add_node_with(homes);
    street.world.run(Duration::from_secs(120));
    let known: Vec<_> = street.world.node(street.node).stats(street.world.now);
    assert!(known[0].nodes >= 40 && known[1].nodes + known[2].nodes == 0, "{known:?}");
    street.deaf_to.borrow_mut().clear();
    street.deaf_to.borrow_mut().insert(locals[0]);
    street.world.tell(street.node, NetworkChange::Lost);
    for _ in 0..8 {
        let command = street.find_node();
        street.world.command(street.node, command);
    }
    let began = street.world.now;
    street.world.run(Duration::from_secs(40));
    let done = street.world.hosts[street.node].events.iter().filter(|(at, _)| *at >= began);
    let outcomes: Vec<_> = done
        .filter_map(|(_, event)| if let Event::Done { outcome, .. } = event { Some(*outcome) } else { None })
        .collect();
    assert_eq!(outcomes, [Outcome::Converged; 8]);
}

/// A home that never meets anybody, but was given nodes to begin with, is no place to begin a lookup at.
#[test]
fn lookups_do_not_begin_at_a_home_that_has_nothing_but_the_nodes_that_it_was_given() {
    let mut street = Street::new(92, 1);
    let homes = [World::v4(201), World::v4(202)];
    street.deaf_to.borrow_mut().insert(homes[1]);
    let saved = street.nodes.borrow().clone();
    street.node = street.world.add_node_at(&homes, &saved);
    street.world.run(Duration::from_secs(120));
    let known: Vec<_> = street.world.node(street.node).stats(street.world.now);
    assert!(known[0].nodes >= 40 && known[1].nodes == 0, "{known:?}");
    for _ in 0..8 {
        let command = street.find_node();
        let (found, log) = street.look_up(command);
        assert_eq!(found.outcome, Outcome::Converged);
        assert!(log.iter().all(|asked| asked.from == homes[0]), "{log:?}");
    }
}
