//! A crawl stepped by hand, among nodes that are functions of a list.

mod sizes;
mod street;
#[cfg(feature = "sim")]
mod world;

use std::collections::BTreeSet;

use krpc::{Response, Want};

use super::choose::SURVEYS;
use super::*;
use crate::Question;
use street::{Conduct, MINUTE, Neighbour, START, Street, addr, fast};

#[test]
fn a_round_asks_everybody_once_and_finds_what_they_store() {
    let mut street = Street::new(1, 1000, &fast());
    street.run(MINUTE);
    let all: BTreeSet<_> = street.nodes.iter().flat_map(|node| node.infohashes.clone()).collect();
    let found = street.found();
    assert!(found.is_subset(&all) && found.len() * 100 >= all.len() * 99, "{} of {}", found.len(), all.len());
    assert!(street.nodes.iter().all(|node| node.asked.len() <= 1));
    let counters = street.crawler.counters();
    assert_eq!(counters.queries, street.sent.len() as u64);
    assert!(counters.queries <= 1000, "{counters:?}");
    let status = street.crawler.status();
    assert_eq!((status.rounds, status.condition, status.fresh), (1, Condition::Resting, 0));
    assert_eq!(street.conditions(), [Condition::Walking, Condition::Resting]);
}

#[test]
fn nobody_is_asked_before_its_interval_is_over_and_everybody_after_it() {
    let config = Config { crawl_rest_min: Duration::from_secs(300), ..fast() };
    let mut street = Street::new(2, 200, &config);
    for (n, node) in street.nodes.iter_mut().enumerate() {
        node.interval = [0, 1000, 21_600, i64::MAX, -5][n % 5];
    }
    street.run(MINUTE * 60 * 7);
    for (n, node) in street.nodes.iter().enumerate() {
        // BEP 51: at most six hours; ours: five minutes at least.
        let interval = Duration::from_secs([300, 1000, 21_600, 21_600, 300][n % 5]);
        let gaps: Vec<_> = node.asked.windows(2).map(|pair| pair[1].since(pair[0])).collect();
        // The interval runs from the answer.
        assert!(gaps.iter().all(|&gap| gap >= interval + Duration::from_millis(100)), "{n}: {gaps:?}");
        let times = (MINUTE * 60 * 7).as_secs() / interval.as_secs();
        assert!(node.asked.len() as u64 >= times * 9 / 10, "{n}: {}", node.asked.len());
    }
    assert!(street.crawler.status().rounds > 50);
}

#[test]
fn those_who_do_not_answer_or_know_bep_51_are_left_alone() {
    let mut street = Street::new(3, 400, &fast());
    for (n, node) in street.nodes.iter_mut().enumerate() {
        node.conduct = [Conduct::Tells, Conduct::Old, Conduct::Older, Conduct::Silent][n % 4];
    }
    street.run(MINUTE * 59);
    let times = |street: &Street, conduct| {
        let asked = street.nodes.iter().filter(|node| node.conduct == conduct).map(|node| node.asked.len());
        (asked.clone().sum::<usize>(), asked.max().unwrap())
    };
    for conduct in [Conduct::Tells, Conduct::Old, Conduct::Older, Conduct::Silent] {
        let (all, most) = times(&street, conduct);
        assert!(all >= 95 && most == 1, "{conduct:?}: {all} {most}");
    }
    let (refused, silent) = (street.crawler.status().refused, street.crawler.status().silent);
    assert!(refused >= 195 && silent >= 95, "{refused} {silent}");
    street.run(MINUTE * 60 * 3);
    assert_eq!(times(&street, Conduct::Old).1, 1, "never again");
    assert_eq!(times(&street, Conduct::Older).1, 1, "never again");
    let (_, most) = times(&street, Conduct::Silent);
    assert!((2..=4).contains(&most), "once an hour: {most}");
}

/// Behind their addresses there may be other nodes by then.
#[test]
fn those_who_refused_are_asked_again_after_a_day() {
    let mut street = Street::new(20, 100, &fast());
    for (n, node) in street.nodes.iter_mut().enumerate() {
        node.conduct = [Conduct::Tells, Conduct::Old, Conduct::Older][n % 3];
    }
    let day = MINUTE * 60 * 24;
    street.run(day - MINUTE);
    let refusing = |street: &Street| -> Vec<Vec<Time>> {
        let refusing = street.nodes.iter().filter(|node| node.conduct != Conduct::Tells);
        refusing.map(|node| node.asked.clone()).collect()
    };
    assert!(refusing(&street).iter().all(|asked| asked.len() <= 1));
    assert_eq!(street.crawler.status().refused, refusing(&street).iter().flatten().count());
    street.run(MINUTE * 120);
    let asked = refusing(&street);
    assert!(asked.iter().all(|asked| asked.len() <= 2), "{asked:?}");
    assert!(asked.iter().filter(|asked| asked.len() == 2).count() >= 60, "{asked:?}");
    for asked in asked.iter().filter(|asked| asked.len() == 2) {
        assert!(asked[1].since(asked[0]) >= day, "{asked:?}");
    }
}

/// They name one another, and each of them is fresh again to a crawl that has forgotten it.
#[test]
fn those_of_a_crowded_network_who_refuse_are_asked_once_each() {
    for conduct in [Conduct::Old, Conduct::Older] {
        let mut street = Street::new(19, 40, &fast());
        for (n, node) in street.nodes.iter_mut().enumerate() {
            (node.addr, node.conduct) = (([81, 2, 3, n as u8], 6881).into(), conduct);
        }
        street.by_addr = street.nodes.iter().enumerate().map(|(index, node)| (node.addr, index)).collect();
        street.table = street.nodes.iter().map(|node| (node.id, node.addr)).collect();
        street.run(MINUTE * 10);
        assert!(street.nodes.iter().all(|node| node.asked.len() <= 1), "{conduct:?}");
        let status = street.crawler.status();
        assert_eq!((status.rounds, status.condition), (1, Condition::Resting), "{conduct:?}: {status:?}");
    }
}

#[test]
fn the_rate_is_kept_to_the_query() {
    for rate in [1, 7, 25] {
        let config = Config { crawl_rate: rate, crawl_burst: 3, ..Config::default() };
        let mut street = Street::new(4, 2000, &config);
        street.run(MINUTE);
        let times: Vec<_> = street.sent.iter().map(|(at, _)| *at).collect();
        for (from, first) in times.iter().enumerate() {
            for (to, last) in times.iter().enumerate().skip(from) {
                let most = 3 + last.since(*first).as_micros() as usize * rate as usize / 1_000_000;
                assert!(to - from < most, "{} from {first:?} to {last:?}", to - from + 1);
            }
        }
        assert!(times.len() >= 59 * rate as usize, "and used: {} at {rate}", times.len());
    }
}

#[test]
fn no_more_are_in_flight_than_may_be() {
    let config = Config { crawl_rate: 0, crawl_max_in_flight: 10, ..Config::default() };
    let mut street = Street::new(5, 500, &config);
    for node in street.nodes.iter_mut().skip(8).step_by(2) {
        node.conduct = Conduct::Silent;
    }
    for _ in 0..200 {
        street.run(Duration::from_secs(1));
        assert!(street.answers.len() <= 10);
    }
    assert!(street.sent.len() >= 460, "{}", street.sent.len());
}

#[test]
fn one_ip_is_asked_once_however_many_nodes_it_claims_to_have() {
    let mut street = Street::new(6, 300, &fast());
    let ports = |n: usize| SocketAddr::new(addr(9999).ip(), 1000 + n as u16);
    for n in 100..300 {
        street.nodes[n].addr = ports(n);
    }
    street.by_addr = street.nodes.iter().enumerate().map(|(index, node)| (node.addr, index)).collect();
    street.run(MINUTE * 10);
    let asked = street.sent.iter().filter(|(_, query)| query.to.ip() == addr(9999).ip()).count();
    assert_eq!(asked, 1);
}

#[test]
fn a_flood_of_made_up_nodes_is_bounded_in_memory_and_slows_down_by_itself() {
    let config = Config {
        crawl_rate: 200,
        crawl_frontier: 4096,
        crawl_asked: 5000,
        crawl_max_in_flight: 64,
        ..fast()
    };
    let mut crawler = Crawler::new(START, &config, Region::WHOLE, (true, true), Seeds::from_u64(7));
    let mut rng = Rng::from_seed(7);
    let mut out = Actions::default();
    crawler.handle_nodes(START, &[(rng.id(), addr(0))], &mut out);
    let (mut now, mut answered, mut told) = (START, 0, 0);
    for _ in 0..20_000 {
        let Some(query) = out.queries.pop() else {
            now = crawler.timeout().min(now + Duration::from_secs(4));
            crawler.handle_timeout(now, &mut out);
            continue;
        };
        // One in two answers.
        let answer = rng.chance(1, 2).then(|| made_up(&mut rng));
        // For the sake of surveys some are asked for nodes alone.
        let is_sample = matches!(query.question, crate::Question::Sample(..));
        answered += usize::from(answer.is_some() && is_sample);
        out.events.clear();
        crawler.handle_answer(now, query.ticket, answer.as_deref(), &mut out);
        for event in &out.events {
            if let Event::Samples { infohashes, .. } = event {
                assert!(infohashes.len() <= 40);
                told += infohashes.len();
            }
        }
        let status = crawler.status();
        assert!(status.fresh <= 4096 && status.in_flight <= 64, "{status:?}");
        assert!(status.resting + status.silent + status.refused + status.in_flight <= 5000, "{status:?}");
        assert!(crawler.surveys.len() <= SURVEYS);
    }
    assert!(answered > 1000 && told == answered * 40, "{answered} {told}");
    // Nobody rests who was pushed out: when all that are remembered rest, nobody else is asked.
    for _ in 0..200_000 {
        let status = crawler.status();
        let waits = out.queries.is_empty() && crawler.timeout() == status.next_due;
        if status.condition == Condition::Full && waits {
            break;
        }
        match out.queries.pop() {
            Some(query) => {
                let response =
                    Response { samples: Some(b""), interval: Some(21_600), ..Response::new(Id::ZERO) };
                let answer = datagram(response);
                crawler.handle_answer(now, query.ticket, Some(&answer), &mut out);
            }
            None => {
                now = crawler.timeout().min(now + Duration::from_secs(1));
                crawler.handle_timeout(now, &mut out);
            }
        }
        out.events.clear();
    }
    let status = crawler.status();
    assert_eq!((status.condition, status.resting), (Condition::Full, 5000));
    assert_eq!(crawler.timeout(), status.next_due);
}

/// An answer with as many nodes and infohashes as fit a datagram, all made up.
fn made_up(rng: &mut Rng) -> Vec<u8> {
    let mut records = |len: usize, count: usize| {
        let mut bytes = vec![0; len * count];
        rng.fill(&mut bytes);
        bytes
    };
    let (nodes, nodes6, samples) = (records(26, 30), records(38, 8), records(20, 40));
    datagram(Response {
        nodes: Some(&nodes),
        nodes6: Some(&nodes6),
        samples: Some(&samples),
        interval: Some(21_600),
        ..Response::new(Id::ZERO)
    })
}

fn datagram(response: Response<'_>) -> Vec<u8> {
    let mut datagram = Vec::new();
    let body = Body::Response(response);
    Message { tid: b"aa", version: None, ip: None, read_only: false, body }.encode(&mut datagram);
    datagram
}

#[test]
fn a_dead_line_costs_no_node_and_the_crawl_goes_on_when_it_is_back() {
    let mut street = Street::new(8, 3000, &Config { crawl_rate: 50, ..Config::default() });
    street.run(Duration::from_secs(20));
    let known = street.crawler.status().fresh;
    assert!(known > 500, "{known}");
    street.dead = true;
    let sent = street.sent.len();
    street.run(MINUTE * 10);
    assert_eq!(street.conditions().last(), Some(&Condition::Unanswered));
    let while_dead = street.sent.len() - sent;
    // 32 silences tell, four seconds late at 50 a second; from then on one a second.
    assert!((590..900).contains(&while_dead), "{while_dead}");
    let counters = *street.crawler.counters();
    let lost = counters.silent - counters.forgiven - counters.pings;
    assert!(lost <= 32, "blamed until it was noticed: {lost}");
    assert!(street.crawler.status().fresh + 32 + 50 >= known, "{} {known}", street.crawler.status().fresh);
    street.dead = false;
    street.run(MINUTE * 3);
    let status = street.crawler.status();
    assert!(!matches!(status.condition, Condition::Unanswered | Condition::Slowed), "{status:?}");
    assert!(status.rate == 50 && street.found().len() > 10_000, "{status:?}");
}

#[test]
fn a_crawl_goes_on_where_another_one_was_ended() {
    let mut first = Street::new(9, 1000, &Config { crawl_rate: 20, ..Config::default() });
    first.run(Duration::from_secs(25));
    let mut second = Street::new(9, 1000, &fast());
    second.now = first.now;
    second.table.clear();
    for record in first.kept() {
        second.crawler.restore(second.now, &record);
    }
    let (before, after) = (first.crawler.status(), second.crawler.status());
    // Who was being asked when it ended may be asked again.
    let pending = before.in_flight;
    assert!(before.resting > 400 && after.resting == before.resting, "{before:?} {after:?}");
    assert!((before.fresh..=before.fresh + pending).contains(&after.fresh), "{before:?} {after:?}");
    let mut out = Actions::default();
    second.crawler.handle_timeout(second.now, &mut out);
    let told = out.events.iter().filter(|event| matches!(event, Event::Node { .. })).count();
    assert_eq!(told, 0, "whoever keeps them has them as they are");
    second.take(out);
    second.run(MINUTE);
    let twice = |index: usize| !first.nodes[index].asked.is_empty() && !second.nodes[index].asked.is_empty();
    let asked_twice = (0..1000).filter(|&index| twice(index)).count();
    assert!(asked_twice <= pending, "{asked_twice} of {pending} that were in flight");
    let found: BTreeSet<_> = first.found().union(&second.found()).copied().collect();
    assert!(found.len() >= 4950, "{}", found.len());
}

#[test]
fn a_part_of_the_key_space_is_found_and_nothing_else_told() {
    let region: Region = "a".parse().unwrap();
    let mut street = Street::of_region(10, 1600, &fast(), region);
    let inside = |id: &Id| region.contains(id);
    let mut rng = Rng::from_seed(10);
    for node in &mut street.nodes {
        // Each stores what is near to it, and one from elsewhere.
        node.infohashes = (0..4).map(|_| Region::WHOLE.near(&node.id, 10, &mut rng)).collect();
        node.infohashes.push(rng.id());
    }
    street.table.retain(|(id, _)| !inside(id));
    street.run(MINUTE);
    let nearby = street.nodes.iter().filter(|node| inside(&node.id));
    let all: BTreeSet<_> = nearby.clone().flat_map(|node| node.infohashes.clone()).filter(&inside).collect();
    let found = street.found();
    assert!(found.iter().all(inside));
    assert!(found.len() * 100 >= all.len() * 99, "{} of {}", found.len(), all.len());
    let asked = street.nodes.iter().filter(|node| !node.asked.is_empty());
    assert!(asked.clone().all(|node| inside(&node.id)), "samples of nodes elsewhere are none of ours");
    assert!(nearby.count() - asked.count() <= 2);
    let counters = street.crawler.counters();
    assert!(counters.node_queries > 0 && counters.infohashes_ignored > 0, "{counters:?}");
}

#[test]
fn sizes_of_swarms_take_their_share_and_no_more() {
    let mut street = Street::new(12, 3000, &Config { crawl_rate: 100, ..Config::default() });
    street.run(Duration::from_secs(5));
    let (ids, node) = (street.nodes[0].infohashes.clone(), street.nodes[0].addr);
    for (n, infohash) in street.nodes[..1000].iter().flat_map(|node| &node.infohashes).enumerate() {
        street.crawler.scrape(street.now, *infohash, addr(n / 5));
    }
    street.crawler.scrape(street.now, ids[0], node);
    street.run(Duration::from_secs(10));
    let counters = *street.crawler.counters();
    assert!((200..=260).contains(&counters.scrape_queries), "a quarter of 1000: {counters:?}");
    assert_eq!(counters.scrapes_dropped, 5000 - Config::default().crawl_scrape_queue as u64);
    let sized = street.events.iter().filter(|(_, event)| matches!(event, Event::Sized { .. })).count() as u64;
    assert!(sized > 0 && sized == counters.scrapes && counters.scrapes * 5 >= counters.scrape_queries - 130);
}

#[test]
fn where_no_query_may_be_spent_on_them_no_size_is_waited_for() {
    let mut street = Street::new(21, 50, &Config { crawl_scrape_share: 0, ..fast() });
    street.run(Duration::from_secs(5));
    let node = &street.nodes[0];
    street.crawler.scrape(street.now, node.infohashes[0], node.addr);
    street.run(MINUTE);
    let (status, counters) = (street.crawler.status(), *street.crawler.counters());
    assert_eq!((status.scrapes, status.rounds, status.condition), (0, 1, Condition::Resting));
    assert_eq!((counters.scrapes_dropped, counters.scrape_queries), (1, 0));
}

#[test]
fn our_own_node_and_impossible_addresses_are_never_asked() {
    let mut crawler = Crawler::new(START, &fast(), Region::WHOLE, (true, false), Seeds::from_u64(13));
    let own = Id::new([7; 20]);
    let nodes = [
        (own, addr(1)),
        (Id::new([1; 20]), "10.0.0.1:6881".parse().unwrap()),
        (Id::new([2; 20]), "127.0.0.1:6881".parse().unwrap()),
        (Id::new([3; 20]), SocketAddr::new(addr(3).ip(), 0)),
        (Id::new([4; 20]), "[2001:db8::1]:6881".parse().unwrap()),
        (Id::new([5; 20]), "[::ffff:81.2.3.4]:6881".parse().unwrap()),
    ];
    let mut out = Actions::default();
    crawler.set_own(vec![own]);
    crawler.handle_nodes(START, &nodes, &mut out);
    let asked: Vec<_> = out.queries.iter().map(|query| query.to).collect();
    assert_eq!(asked, ["81.2.3.4:6881".parse().unwrap()]);
    assert_eq!(crawler.counters().nodes_unusable, 5);
}

#[test]
fn nonsense_is_a_refusal_and_unknown_tickets_are_ignored() {
    let mut street = Street::new(14, 1, &fast());
    let mut out = Actions::default();
    let table = street.table.clone();
    street.crawler.handle_nodes(START, &table, &mut out);
    let [query] = &out.queries[..] else { panic!("{out:?}") };
    let ticket = query.ticket;
    let mut out = Actions::default();
    street.crawler.handle_answer(START, ticket + 1, Some(b"de"), &mut out);
    assert_eq!(*street.crawler.counters(), Counters { queries: 1, ..*street.crawler.counters() });
    street.crawler.handle_answer(START, ticket, Some(b"d1:rle"), &mut out);
    street.crawler.handle_answer(START, ticket, Some(b"d1:rle"), &mut out);
    let counters = street.crawler.counters();
    assert_eq!((counters.answered, counters.refused, street.crawler.status().refused), (1, 1, 1));
}

#[test]
fn both_families_are_walked_and_measured_apart() {
    let mut street = Street::new(16, 900, &fast());
    let six = |n: usize| SocketAddr::from(([0x2001, 0xdb8, n as u16, 1, 0, 0, 0, 1], 6881));
    for (n, node) in street.nodes.iter_mut().enumerate().skip(600) {
        node.addr = six(n);
    }
    street.by_addr = street.nodes.iter().enumerate().map(|(index, node)| (node.addr, index)).collect();
    street.crawler = Crawler::new(START, &fast(), Region::WHOLE, (true, true), Seeds::from_u64(16));
    street.run(MINUTE);
    let asked = |nodes: &[Neighbour]| nodes.iter().filter(|node| !node.asked.is_empty()).count();
    let (four, six) = (asked(&street.nodes[..600]), asked(&street.nodes[600..]));
    assert!(four >= 590 && six >= 290, "{four} {six}");
    let wants = street.sent.iter().map(|(_, query)| &query.question);
    assert!(wants.clone().all(|question| matches!(question, Question::Sample(_, Want::BOTH))));
    let status = street.crawler.status();
    for (size, truth) in [(status.size_v4, 600.0), (status.size_v6, 300.0)] {
        let size = size.unwrap();
        assert!((size.nodes - truth).abs() < 4.0 * size.error, "{size:?} {truth}");
    }
}

/// Answers that are cut off, changed or made up cost a crawl nothing but the query.
#[test]
fn broken_answers_break_nothing() {
    let config = Config { crawl_rate: 0, crawl_asked: 500, crawl_frontier: 2048, ..Config::default() };
    let mut street = Street::new(17, 200, &config);
    let mut rng = Rng::from_seed(17);
    let mut out = Actions::default();
    let table = street.table.clone();
    street.crawler.handle_nodes(START, &table, &mut out);
    let mut now = START;
    for round in 0..5000 {
        let Some(query) = out.queries.pop() else {
            now = street.crawler.timeout().min(now + MINUTE * 60);
            street.crawler.handle_timeout(now, &mut out);
            if out.wants_nodes {
                let addr = addr(1000 + round);
                street.crawler.handle_nodes(now, &[(rng.id(), addr)], &mut out);
                out.wants_nodes = false;
            }
            continue;
        };
        let mut answer = street.answer(&query).unwrap_or_default();
        if !answer.is_empty() && rng.chance(2, 3) {
            for _ in 0..rng.below(8) {
                let at = rng.below(answer.len());
                answer[at] = rng.next_u32() as u8;
            }
            if rng.chance(1, 3) {
                answer.truncate(rng.below(answer.len()));
            }
        }
        street.crawler.handle_answer(now, query.ticket, Some(&answer), &mut out);
        for n in 0..3 {
            street.crawler.scrape(now, Id::new([n; 20]), query.to);
        }
        out.events.clear();
        let status = street.crawler.status();
        assert!(status.fresh <= 2048 && status.resting + status.silent + status.refused <= 500, "{status:?}");
    }
    let counters = street.crawler.counters();
    assert!(counters.refused > 50 && counters.samples > 50 && counters.scrapes > 10, "{counters:?}");
}
