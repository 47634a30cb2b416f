//! Tests of [`Search`] by itself.

use super::super::weights::LURED;
use super::*;

impl Search {
    /// What to do now, by a walk from the beginning.
    fn step(&self, config: &Config) -> Step {
        self.go_on(&mut self.walk(), config)
    }
}

fn at(distance: u8) -> Option<Id> {
    let mut bytes = [0; 20];
    bytes[1] = distance;
    Some(Id::new(bytes))
}

fn addr(n: u8) -> SocketAddr {
    ([81, 2, n, 1], 6881).into()
}

/// A search with candidates at the given distances, each in its own network.
fn search(distances: &[u8], config: &Config) -> Search {
    let mut search = Search::new(Id::ZERO, config);
    for &distance in distances {
        assert!(search.offer(at(distance), addr(distance), 0, config));
    }
    search
}

fn ask(search: &mut Search, config: &Config) -> Option<u32> {
    let Step::Ask(index) = search.step(config) else {
        return None;
    };
    let serial = search.candidate(index).serial;
    search.asked(index);
    Some(serial)
}

fn answer(search: &mut Search, serial: u32, config: &Config) {
    let id = search.by_serial(serial).unwrap().id.unwrap();
    search.answered(serial, id, (Some(b"token"), None), config);
}

#[test]
fn nearest_are_asked_first() {
    let config = Config { lookup_start_width: 2, ..Config::default() };
    let mut search = search(&[9, 3, 7, 1, 5, 11], &config);
    let first = [ask(&mut search, &config), ask(&mut search, &config)].map(Option::unwrap);
    let ids: Vec<_> = first.iter().map(|&serial| search.by_serial(serial).unwrap().id).collect();
    assert_eq!(ids, [at(1), at(3)]);
    assert_eq!(search.step(&config), Step::Wait);
}

/// How many queries the answers of those asked first allow, one after the other, in a search of nodes that
/// were named at `depth`.
fn allowed_by_answers(depth: u16, order: [usize; 2]) -> [usize; 2] {
    let config = Config { lookup_start_width: 2, ..Config::default() };
    let mut search = Search::new(Id::ZERO, &config);
    for distance in 1..=12 {
        assert!(search.offer(at(distance), addr(distance), depth, &config));
    }
    let first = [ask(&mut search, &config), ask(&mut search, &config)].map(Option::unwrap);
    order.map(|of| {
        answer(&mut search, first[of], &config);
        (0..9).filter(|_| ask(&mut search, &config).is_some()).count()
    })
}

#[test]
fn an_answer_allows_three_more_and_one_from_behind_the_nearest_two() {
    assert_eq!(allowed_by_answers(1, [0, 1]), [3, 2]);
    assert_eq!(allowed_by_answers(1, [1, 0]), [3, 3]);
}

#[test]
fn of_those_that_a_search_starts_with_the_nearest_allows_most() {
    assert_eq!(allowed_by_answers(0, [0, 1]), [4, 1]);
    assert_eq!(allowed_by_answers(0, [1, 0]), [4, 4]);
}

#[test]
fn of_two_with_one_id_the_one_at_its_address_comes_first() {
    let config = Config::default();
    let home: SocketAddr = ([81, 2, 9, 1], 6881).into();
    let id = Some(crate::secure_id::secure_id(home.ip(), &mut crate::Rng::from_seed(1)));
    for order in [[home, addr(1), addr(2)], [addr(1), home, addr(2)], [addr(1), addr(2), home]] {
        let mut search = Search::new(Id::ZERO, &config);
        for addr in order {
            assert!(search.offer(id, addr, 0, &config));
        }
        let asked = [(); 3].map(|()| ask(&mut search, &config).unwrap());
        let asked = asked.map(|serial| search.by_serial(serial).unwrap().addr);
        assert_eq!(asked, [home, addr(1), addr(2)]);
    }
}

#[test]
fn search_converges_when_the_k_closest_have_answered() {
    let config = Config { k: 2, lookup_start_width: 3, lookup_min_queries: 0, ..Config::default() };
    let mut search = search(&[1, 2, 3, 4], &config);
    let serials: Vec<_> = (0..3).map(|_| ask(&mut search, &config).unwrap()).collect();
    answer(&mut search, serials[2], &config);
    answer(&mut search, serials[1], &config);
    assert_eq!(search.step(&config), Step::Wait);
    answer(&mut search, serials[0], &config);
    assert_eq!(search.step(&config), Step::Converged);
    let closest: Vec<_> = search.closest(2).map(|c| c.id).collect();
    assert_eq!(closest, [at(1), at(2)]);
}

#[test]
fn silent_node_near_the_target_is_asked_twice_and_then_left_behind() {
    let config = Config { k: 1, lookup_start_width: 1, ..Config::default() };
    let mut search = search(&[1, 2], &config);
    let near = ask(&mut search, &config).unwrap();
    assert_eq!(search.step(&config), Step::Wait);
    search.slow(near, &config).unwrap();
    assert_eq!(ask(&mut search, &config), Some(near));
    search.slow(near, &config).unwrap();
    let far = ask(&mut search, &config).unwrap();
    assert_ne!(far, near);
    answer(&mut search, far, &config);
    assert_eq!(search.step(&config), Step::Converged);
    // Its late answer still counts.
    answer(&mut search, near, &config);
    assert_eq!(search.closest(1).next().unwrap().id, at(1));
}

#[test]
fn when_nobody_has_answered_late_answers_are_waited_for() {
    let config = Config::default();
    let mut search = search(&[1], &config);
    for _ in 0..2 {
        let serial = ask(&mut search, &config).unwrap();
        search.slow(serial, &config).unwrap();
    }
    assert_eq!(search.step(&config), Step::Wait);
    assert!(search.silent(0).is_none());
    assert!(search.silent(0).is_some());
    assert_eq!(search.step(&config), Step::Converged);
    assert_eq!(search.answered, 0);
}

#[test]
fn closest_set_holds_one_node_of_a_network() {
    let config = Config { k: 2, ..Config::default() };
    let mut search = Search::new(Id::ZERO, &config);
    for n in 1..=16 {
        search.offer(at(n), ([81, 2, 3, n], 6881).into(), 0, &config);
    }
    search.offer(at(200), ([91, 2, 3, 1], 6881).into(), 0, &config);
    let first = ask(&mut search, &config).unwrap();
    let second = ask(&mut search, &config).unwrap();
    assert_eq!(ask(&mut search, &config), None);
    answer(&mut search, first, &config);
    answer(&mut search, second, &config);
    assert_eq!(search.step(&config), Step::Converged);
    let closest: Vec<_> = search.closest(2).map(|c| c.id).collect();
    assert_eq!(closest, [at(1), at(200)]);
}

#[test]
fn of_an_ipv6_network_of_64_bits_one_node_is_in_the_closest_set() {
    let config = Config { k: 2, ..Config::default() };
    let mut search = Search::new(Id::ZERO, &config);
    let node = |network: u16, host: u16| ([0x2001, 0x41d0, 1, network, 0, 0, 0, host], 6881).into();
    for n in 1..=16 {
        search.offer(at(n), node(7, u16::from(n)), 0, &config);
    }
    search.offer(at(200), node(8, 1), 0, &config);
    let first = ask(&mut search, &config).unwrap();
    let second = ask(&mut search, &config).unwrap();
    assert_eq!(ask(&mut search, &config), None);
    answer(&mut search, first, &config);
    answer(&mut search, second, &config);
    assert_eq!(search.step(&config), Step::Converged);
    let closest: Vec<_> = search.closest(2).map(|c| c.id).collect();
    assert_eq!(closest, [at(1), at(200)]);
}

#[test]
fn silent_ip_gets_three_queries_whatever_its_ports_and_ids() {
    let config = Config::default();
    let mut search = Search::new(Id::ZERO, &config);
    for n in 1..=50 {
        search.offer(at(n), ([81, 2, 3, 4], 1000 + u16::from(n)).into(), 0, &config);
    }
    let mut asked = 0;
    while let Some(serial) = ask(&mut search, &config) {
        asked += 1;
        search.slow(serial, &config);
    }
    assert_eq!(asked, 3);
}

#[test]
fn candidates_are_capped_and_the_farthest_go() {
    let config = Config { lookup_candidates: 3, ..Config::default() };
    let mut search = search(&[5, 4, 3], &config);
    assert!(search.offer(at(1), addr(1), 0, &config));
    assert!(!search.offer(at(9), addr(9), 0, &config));
    assert!(!search.offer(at(1), addr(1), 0, &config));
    let kept: Vec<_> = search.candidates.iter().map(|c| c.id).collect();
    assert_eq!(kept, [at(1), at(3), at(4)]);
}

#[test]
fn router_finds_its_place_when_it_answers() {
    let config = Config::default();
    let mut search = search(&[1, 9], &config);
    search.offer(None, addr(77), 0, &config);
    let serials: Vec<_> = (0..3).map(|_| ask(&mut search, &config).unwrap()).collect();
    search.answered(serials[0], at(5).unwrap(), (None, None), &config);
    answer(&mut search, serials[1], &config);
    answer(&mut search, serials[2], &config);
    let closest: Vec<_> = search.closest(8).map(|c| c.id).collect();
    assert_eq!(closest, [at(1), at(5), at(9)]);
}

#[test]
fn reserve_is_asked_when_there_is_nobody_else() {
    let config = Config { lookup_start_width: 2, ..Config::default() };
    let mut search = search(&[9], &config);
    search.offer_reserve(at(1).unwrap(), addr(1), &config);
    search.offer_reserve(at(2).unwrap(), addr(2), &config);
    let first = ask(&mut search, &config).unwrap();
    assert_eq!(search.by_serial(first).unwrap().id, at(9));
    // One that an answer names is no reserve any more.
    assert!(!search.offer(at(2), addr(2), 1, &config));
    let second = ask(&mut search, &config).unwrap();
    assert_eq!(search.by_serial(second).unwrap().id, at(2));
    answer(&mut search, first, &config);
    let third = ask(&mut search, &config).unwrap();
    assert_eq!(search.by_serial(third).unwrap().id, at(1));
}

#[test]
fn ring_around_the_target_is_not_the_only_one_that_is_heard() {
    let config = Config { k: 2, lookup_min_queries: 5, ..Config::default() };
    let mut search = search(&[1, 2, 3, 4, 5, 6, 7, 8], &config);
    let mut heard = 0;
    while let Some(serial) = ask(&mut search, &config) {
        answer(&mut search, serial, &config);
        heard += 1;
    }
    assert_eq!((heard, search.step(&config)), (5, Step::Converged));
}

#[test]
fn silent_node_with_many_others_nearer_is_not_asked_again() {
    let config = Config { k: 1, lookup_start_width: 20, ..Config::default() };
    let mut search = search(&[1, 2, 3, 4, 5, 6], &config);
    let serials: Vec<_> = std::iter::from_fn(|| ask(&mut search, &config)).collect();
    let far = *serials.last().unwrap();
    assert_eq!(search.by_serial(far).unwrap().id, at(6));
    answer(&mut search, serials[4], &config);
    search.slow(far, &config).unwrap();
    search.slow(serials[0], &config).unwrap();
    assert_eq!(ask(&mut search, &config), Some(serials[0]));
    assert_eq!(ask(&mut search, &config), None);
}

#[test]
fn nodes_that_can_never_be_asked_do_not_keep_the_reserve_away() {
    let config = Config::default();
    let mut search = search(&[1], &config);
    // Another node of the network of the one that answers.
    search.offer(at(2), ([81, 2, 1, 9], 6881).into(), 0, &config);
    search.offer_reserve(at(9).unwrap(), addr(9), &config);
    let first = ask(&mut search, &config).unwrap();
    answer(&mut search, first, &config);
    let reserve = ask(&mut search, &config).unwrap();
    assert_eq!(search.by_serial(reserve).unwrap().id, at(9));
}

#[test]
fn search_in_which_everybody_refuses_is_over() {
    let config = Config::default();
    let mut search = search(&[1, 2], &config);
    let serials = [(); 2].map(|()| ask(&mut search, &config).unwrap());
    search.slow(serials[0], &config);
    let (credit, in_flight) = (search.credit, search.in_flight);
    assert!(serials.iter().all(|&serial| search.refused(serial).is_some()));
    // The slow one had given its query back already.
    assert_eq!((search.credit, search.in_flight), (credit + 1, in_flight - 1));
    assert_eq!(search.step(&config), Step::Converged);
}

#[test]
fn routers_are_asked_before_all_others_and_never_dropped() {
    let config = Config { lookup_candidates: 2, ..Config::default() };
    let mut search = search(&[1, 2], &config);
    assert!(search.offer(None, addr(50), 0, &config));
    assert!(search.offer(None, addr(51), 0, &config));
    let mut asked = Vec::new();
    while let Some(serial) = ask(&mut search, &config) {
        asked.push(search.by_serial(serial).unwrap().addr);
    }
    assert_eq!(asked, [addr(50), addr(51)]);
}

#[test]
fn walk_that_goes_on_asks_the_same_as_one_from_the_beginning() {
    let mut rng = crate::Rng::from_seed(7);
    for round in 0..2000 {
        let config = Config {
            lookup_start_width: 1 + round % 12,
            lookup_min_queries: 4 + round % 9,
            k: 1 + round % 8,
            ..Config::default()
        };
        let mut search = Search::new(Id::ZERO, &config);
        let mut serials = Vec::new();
        for _ in 0..6 {
            // Several of a network, some of them in reserve, and now and then a router.
            for _ in 0..rng.below(12) {
                let addr = ([81, 2, rng.below(12) as u8, rng.below(3) as u8], 6881).into();
                match rng.below(10) {
                    0 => _ = search.offer(None, addr, 0, &config),
                    1 | 2 => search.offer_reserve(rng.id(), addr, &config),
                    _ => _ = search.offer(Some(rng.id()), addr, 1, &config),
                }
            }
            let mut walk = search.walk();
            loop {
                let step = search.go_on(&mut walk, &config);
                assert_eq!(step, search.step(&config));
                let Step::Ask(index) = step else { break };
                serials.push(search.candidate(index).serial);
                search.asked(index);
            }
            for _ in 0..rng.below(serials.len() + 1) {
                let serial = serials[rng.below(serials.len())];
                match rng.below(4) {
                    0 => _ = search.slow(serial, &config),
                    1 => _ = search.silent(serial),
                    _ => _ = search.answered(serial, rng.id(), (None, None), &config),
                }
            }
        }
        assert!(!serials.is_empty() || search.is_empty());
    }
}

/// Two homes, of which the second took over from the first for a while.
#[test]
fn search_that_goes_on_after_another_home_counts_its_queries_and_asks_whom_it_heard_of() {
    let config = Config { lookup_start_width: 2, lookup_min_queries: 0, ..Config::default() };
    let mut first = search(&[1, 2, 3], &config);
    let asked = [(); 2].map(|()| ask(&mut first, &config).unwrap());
    for serial in asked {
        first.slow(serial, &config).unwrap();
    }
    let mut second = search(&[], &config).replacing(&first, &config);
    first.phase = Phase::Waiting;
    assert!(second.offer(at(4), addr(4), 1, &config));
    // The answers come to the first one after all, and name nodes to who searches.
    answer(&mut first, asked[0], &config);
    for _ in 0..4 {
        let serial = ask(&mut second, &config).unwrap();
        second.slow(serial, &config).unwrap();
    }
    first.resume(&second, &config);
    assert_eq!(first.phase, Phase::Approaching);
    let tries = |distance| {
        let found = |place: &&Place| first.candidates.of(place).id == at(distance);
        let place = first.candidates.places().iter().find(found).unwrap();
        (place.has_answered(), place.tries)
    };
    let (is_heard, tries): (Vec<_>, Vec<_>) = (1..=4).map(tries).unzip();
    assert_eq!(is_heard, [true, false, false, false]);
    let sent_by_second: Vec<_> = second.candidates.places().iter().map(|place| place.tries).collect();
    assert_eq!(tries[1..], sent_by_second[1..]);
    // An answer to what was asked before counts still, and all the others have their turn.
    answer(&mut first, asked[1], &config);
    assert_eq!([(); 2].map(|()| ask(&mut first, &config).is_some()), [true; 2]);
    assert_eq!(first.step(&config), Step::Wait);
}

/// Nobody becomes known without bounds by being named to two homes.
#[test]
fn candidates_of_two_homes_are_capped_as_those_of_one() {
    let config = Config { lookup_candidates: 4, ..Config::default() };
    let (mut first, second) = (search(&[1, 3, 5, 7], &config), search(&[2, 3, 4, 8], &config));
    first.resume(&second, &config);
    let ids: Vec<_> = first.candidates().map(|candidate| candidate.id).collect();
    assert_eq!(ids, [at(1), at(2), at(3), at(4)]);
}

/// Asks whoever has the turn, who answers and names a node at the distance `named`. Whom it was, by distance.
fn hop(search: &mut Search, named: u8, config: &Config) -> u8 {
    let Step::Ask(nearest) = search.step(config) else { panic!("nobody to ask") };
    let index = search.whom_instead(nearest, config);
    let (serial, id) = (search.candidate(index).serial, search.candidate(index).id.unwrap());
    search.asked(index);
    let facts = search.answered(serial, id, (None, None), config).unwrap();
    search.offer_named(at(named).unwrap(), addr(named), &facts, config);
    id.as_bytes()[1]
}

#[test]
fn when_a_line_has_more_queries_than_lookups_need_every_second_one_goes_to_the_line_that_had_fewest() {
    let config = Config { lookup_min_queries: 2 * LURED, ..Config::default() };
    let mut search = search(&[250, 251, 252], &config);
    for n in 0..LURED as u8 {
        assert_eq!(hop(&mut search, 249 - n, &config), 250 - n);
    }
    let lured_on = [(130, 129), (129, 128), (128, 127), (127, 126)];
    let others = [(251, 253), (252, 255), (253, 254), (255, 5)];
    for ((nearest, next), (other, its)) in lured_on.into_iter().zip(others) {
        assert_eq!([hop(&mut search, next, &config), hop(&mut search, its, &config)], [nearest, other]);
    }
}

#[test]
fn who_is_asked_instead_may_be_of_the_reserve_and_is_of_no_network_that_was_heard() {
    let config = Config { lookup_min_queries: 2 * LURED, ..Config::default() };
    let mut search = search(&[250, 251], &config);
    search.offer_reserve(at(255).unwrap(), addr(255), &config);
    // A network of which one answers.
    let beside = |n| ([81, 2, 250, n], 6881).into();
    search.offer(at(252), beside(9), 0, &config);
    for n in 0..=LURED as u8 {
        assert_eq!(hop(&mut search, 249 - n, &config), 250 - n);
    }
    let mut others = Vec::new();
    for (named, next) in [(253, 120), (254, 119), (253, 118), (253, 117)] {
        others.push(hop(&mut search, named, &config));
        hop(&mut search, next, &config);
    }
    assert_eq!(others, [251, 253, 254, 255]);
}

#[test]
fn who_waited_for_a_silent_neighbour_is_asked_on_the_same_walk_once_that_one_is_asked_again() {
    let config = Config { k: 2, lookup_min_queries: 0, lookup_nodes_per_subnet: 1, ..Config::default() };
    let mut search = Search::new(Id::ZERO, &config);
    for (distance, ip) in [(5, [81, 2, 1, 1]), (6, [81, 2, 6, 1]), (7, [81, 2, 7, 1])] {
        assert!(search.offer(at(distance), (ip, 6881).into(), 0, &config));
    }
    let asked = [(); 3].map(|()| ask(&mut search, &config).unwrap());
    search.slow(asked[0], &config).unwrap();
    asked[1..].iter().for_each(|&serial| answer(&mut search, serial, &config));
    assert!(search.offer(at(3), ([81, 2, 1, 2], 6881).into(), 0, &config));
    let mut walk = search.walk();
    for expected in [at(5), at(3)] {
        let Step::Ask(index) = search.go_on(&mut walk, &config) else { panic!("nobody is asked") };
        assert_eq!(search.candidate(index).id, expected);
        search.asked(index);
    }
    assert_eq!(search.go_on(&mut walk, &config), Step::Wait);
}

#[test]
fn who_is_named_in_two_lines_belongs_to_the_one_that_had_fewer_queries_when_a_search_may_be_lured() {
    let config = Config { lookup_min_queries: 2 * LURED, ..Config::default() };
    let mut search = search(&[250, 251], &config);
    let facts = |search: &Search, distance| {
        let found = |place: &Place| search.candidates.of(place).id == at(distance);
        search.facts(search.candidates.places().iter().position(found).unwrap())
    };
    let begin = search.facts(0);
    for n in 0..LURED as u8 {
        assert_eq!(hop(&mut search, 249 - n, &config), 250 - n);
    }
    // The endless line names an honest node first, far behind its own.
    assert!(search.offer_named(at(252).unwrap(), ([82, 1, 1, 1], 1).into(), &begin, &config));
    assert_eq!(facts(&search, 252).line, begin.line);
    let other = facts(&search, 251);
    assert!(!search.offer_named(at(252).unwrap(), ([82, 1, 1, 1], 1).into(), &other, &config));
    assert_eq!(facts(&search, 252).line, other.line);
    assert!(!search.offer_named(at(252).unwrap(), ([82, 1, 1, 1], 1).into(), &begin, &config));
    assert_eq!(facts(&search, 252).line, other.line, "nor does it take it back");
}

#[test]
fn of_too_many_candidates_the_farthest_of_a_long_line_goes() {
    let config = Config { lookup_candidates: 10, ..Config::default() };
    let mut search = search(&[100, 200], &config);
    let serial = ask(&mut search, &config).unwrap();
    let facts = search.answered(serial, at(100).unwrap(), (None, None), &config).unwrap();
    for distance in (10..30).rev() {
        assert!(search.offer_named(at(distance).unwrap(), addr(distance), &facts, &config));
    }
    assert!(!search.offer_named(at(50).unwrap(), addr(50), &facts, &config));
    let fresh =
        |search: &Search| search.candidates.iter().map(|c| c.id.unwrap().as_bytes()[1]).collect::<Vec<_>>();
    assert_eq!(fresh(&search), [10, 11, 12, 13, 14, 15, 16, 17, 18, 100, 200]);
    // Where no line is long any more, the farthest of all goes.
    assert!(search.offer(at(1), addr(1), 0, &config) && search.offer(at(2), addr(2), 0, &config));
    assert_eq!(fresh(&search), [1, 2, 10, 11, 12, 13, 14, 15, 16, 17, 100]);
}
