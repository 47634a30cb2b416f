//! What a crawl says of the size of the DHT, when it has seen but a part of it too.

use super::street::{Conduct, MINUTE, Street};
use super::*;

#[test]
fn the_size_of_the_network_is_estimated_on_the_way() {
    let mut street = Street::new(11, 3000, &Config { crawl_rate: 100, ..Config::default() });
    street.run(Duration::from_secs(20));
    let size = street.crawler.status().size_v4.unwrap();
    let (low, high) = size.bounds();
    assert!(size.points >= 20 && (low..high).contains(&3000.0), "{size:?}");
    assert!(size.error / size.nodes < 0.1, "{size:?}");
    assert_eq!(street.crawler.status().size_v6, None);
    let counters = street.crawler.counters();
    let share = counters.survey_queries * 100 / counters.queries;
    assert!((15..=26).contains(&share), "{share} %");
}

/// How often the truth was within the bounds, and the mean of the estimates as a share of it.
fn judged(estimates: &[size::SizeEstimate], truth: f64) -> (usize, f64) {
    let within = estimates.iter().filter(|size| {
        let (low, high) = size.bounds();
        (low..=high).contains(&truth)
    });
    let mean = estimates.iter().map(|size| size.nodes).sum::<f64>() / estimates.len() as f64 / truth;
    (within.count(), mean)
}

/// Nodes know but few of each other: those that a node far from a point names are not the nearest to it.
#[test]
fn the_size_is_right_at_every_time_of_a_round() {
    let (count, runs) = (600, 20);
    let config = Config { crawl_rate: 100, ..Config::default() };
    let mut at = [const { Vec::new() }; 3];
    for seed in 0..runs {
        let mut street = Street::of_tables(seed, count, &config);
        for (estimates, seconds) in at.iter_mut().zip([2, 2, 60]) {
            street.run(Duration::from_secs(seconds));
            estimates.extend(street.crawler.status().size_v4);
        }
        assert_eq!(street.crawler.status().rounds, 1);
    }
    for (when, estimates) in at.iter().enumerate() {
        let (within, mean) = judged(estimates, count as f64);
        println!("{when}: {within} of {}, {mean}, {:?}", estimates.len(), estimates.last());
        // Beside bounds of 95 % lie more than three of twenty in one of sixty such tests.
        assert!(estimates.len() == runs as usize && within >= 17, "{when}: {within} {estimates:?}");
        assert!((mean - 1.0).abs() < 0.05, "{when}: {mean} {estimates:?}");
    }
}

/// Each lost packet would make the DHT smaller by a node: a silent one is asked once more.
#[test]
fn lost_packets_make_the_network_no_smaller() {
    let (count, runs) = (600, 20);
    let mut estimates = Vec::new();
    for seed in 0..runs {
        let mut street =
            Street::of_tables(400 + seed, count, &Config { crawl_rate: 100, ..Config::default() });
        street.loss = 10;
        // A round, and surveys of those who rest.
        street.run(MINUTE * 30);
        estimates.extend(street.crawler.status().size_v4);
    }
    let (within, mean) = judged(&estimates, count as f64);
    println!("{within} of {}, {mean}, {:?}", estimates.len(), estimates.last());
    assert!(estimates.len() == runs as usize && within >= 17, "{within} {estimates:?}");
    assert!((mean - 1.0).abs() < 0.05, "{mean} {estimates:?}");
}

#[test]
fn the_size_is_right_in_a_round_that_another_crawl_began() {
    let (count, runs) = (200, 20);
    let mut estimates = Vec::new();
    for seed in 0..runs {
        let mut first = Street::of_tables(seed, count, &Config { crawl_rate: 40, ..Config::default() });
        first.run(Duration::from_secs(3));
        let mut second = Street::of_tables(seed, count, &Config { crawl_rate: 40, ..Config::default() });
        second.now = first.now;
        second.table.clear();
        for record in first.kept() {
            second.crawler.restore(second.now, &record);
        }
        assert!(second.crawler.status().resting >= count / 2, "{:?}", second.crawler.status());
        second.run(MINUTE);
        estimates.extend(second.crawler.status().size_v4);
    }
    let (within, mean) = judged(&estimates, count as f64);
    println!("{within} of {}, {mean}, {:?}", estimates.len(), estimates.last());
    assert!(estimates.len() >= 18 && within >= estimates.len() - 2, "{within} {estimates:?}");
    assert!((mean - 1.0).abs() < 0.1, "{mean} {estimates:?}");
}

/// What can be remembered says nothing about how many there are.
#[test]
fn a_crawl_with_less_room_than_there_are_nodes_tells_no_wrong_size() {
    let (count, runs) = (600, 20);
    let config = Config { crawl_rate: 100, crawl_asked: 200, ..Config::default() };
    let (mut estimates, mut told) = (Vec::new(), 0);
    for seed in 0..runs {
        let mut street = Street::of_tables(seed, count, &config);
        // When intervals end there is room for a while.
        for minutes in [1, 120] {
            street.run(MINUTE * minutes);
            let status = street.crawler.status();
            assert_eq!((status.condition, status.resting), (Condition::Full, 200), "{status:?}");
            estimates.extend(status.size_v4);
        }
        let (asked, surveys) = (street.sent.len(), street.crawler.counters().surveys_failed);
        street.run(MINUTE);
        told += usize::from(street.crawler.status().size_v4.is_some());
        assert_eq!(
            (street.sent.len(), street.crawler.counters().surveys_failed),
            (asked, surveys),
            "none begins"
        );
    }
    let (within, mean) = judged(&estimates, count as f64);
    println!("{within} of {}, {mean}, {told}, {:?}", estimates.len(), estimates.last());
    assert!(within + 4 >= estimates.len(), "{within} {estimates:?}");
    assert!((mean - 1.0).abs() < 0.15, "{mean} {estimates:?}");
}

/// A network has so many seats in what is remembered; the others there count all the same.
#[test]
fn nodes_that_share_a_network_with_many_count_and_are_asked_for_no_samples() {
    let (networks, hosts, seats, runs) = (10, 60, 20, 20);
    let config = Config { crawl_rate: 100, crawl_nodes_per_subnet: seats, ..Config::default() };
    let mut estimates = Vec::new();
    for seed in 0..runs {
        let mut street = Street::of_tables(seed, networks * hosts, &config);
        for (n, node) in street.nodes.iter_mut().enumerate() {
            node.addr = ([81, 2, (n % networks) as u8, (n / networks) as u8], 6881).into();
        }
        street.by_addr = street.nodes.iter().enumerate().map(|(index, node)| (node.addr, index)).collect();
        street.table = street.nodes.iter().take(8).map(|node| (node.id, node.addr)).collect();
        street.run(MINUTE);
        let asked = street.nodes.iter().filter(|node| !node.asked.is_empty()).count();
        assert_eq!(asked, networks * seats);
        assert!(street.nodes.iter().all(|node| node.asked.len() <= 1));
        estimates.extend(street.crawler.status().size_v4);
    }
    let (within, mean) = judged(&estimates, (networks * hosts) as f64);
    println!("{within} of {}, {mean}, {:?}", estimates.len(), estimates.last());
    assert!(estimates.len() == runs as usize && within >= 17, "{within} {estimates:?}");
    assert!((mean - 1.0).abs() < 0.1, "{mean} {estimates:?}");
}

/// Those who are forgiven because the line was dead are not gone.
#[test]
fn no_survey_outlives_a_dead_line() {
    let mut street = Street::of_tables(18, 600, &Config { crawl_rate: 50, ..Config::default() });
    street.run(Duration::from_secs(3));
    assert!(!street.crawler.surveys.is_empty());
    let before = *street.crawler.counters();
    street.dead = true;
    street.run(MINUTE);
    assert_eq!(street.crawler.status().condition, Condition::Unanswered);
    let counters = *street.crawler.counters();
    assert!(counters.forgiven > 0 && street.crawler.surveys.is_empty(), "{counters:?}");
    assert!(counters.surveys_failed > before.surveys_failed, "{counters:?}");
    street.dead = false;
    street.run(MINUTE);
    let size = street.crawler.status().size_v4.unwrap();
    let (low, high) = size.bounds();
    assert!((low..=high).contains(&600.0), "{size:?}");
}

/// A street in which a third does not know BEP 51, and every other one wants to be left alone for six hours.
fn patient(seed: u64) -> Street {
    let mut street = Street::of_tables(seed, PATIENT, &Config { crawl_rate: 100, ..Config::default() });
    for (n, node) in street.nodes.iter_mut().enumerate() {
        node.conduct = if n % 3 == 0 { Conduct::Old } else { Conduct::Tells };
        node.interval = [2400, 21_600][n % 2];
    }
    street
}

const PATIENT: usize = 900;

/// Half of those of each kind go, whatever is remembered of them.
fn halve(street: &mut Street) {
    let halves = street.nodes.chunks_mut(6).step_by(2).flatten();
    halves.for_each(|node| node.conduct = Conduct::Silent);
}

/// A round with so few who may be asked has room for few points, and once for none.
#[track_caller]
fn assert_halved(estimates: &[size::SizeEstimate], runs: u64) {
    let (within, mean) = judged(estimates, (PATIENT / 2) as f64);
    println!("{within} of {}, {mean}, {:?}", estimates.len(), estimates.last());
    assert!(estimates.len() + 2 >= runs as usize && within + 3 >= estimates.len(), "{within} {estimates:?}");
    assert!((mean - 1.0).abs() < 0.15, "{mean} {estimates:?}");
}

/// Those who rest or refused are remembered for hours, and are gone all the same.
#[test]
fn the_size_follows_when_half_of_the_nodes_die_between_two_rounds() {
    let runs = 20;
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for seed in 0..runs {
        let mut street = patient(100 + seed);
        street.run(MINUTE * 39);
        assert_eq!(street.crawler.status().rounds, 1);
        before.extend(street.crawler.status().size_v4);
        halve(&mut street);
        let asked = street.sent.len();
        street.run(MINUTE * 5);
        let status = street.crawler.status();
        assert_eq!(status.rounds, 2);
        after.extend(status.size_v4);
        // Nobody who answers is asked more often for that than once beside his turn,
        let mut times = BTreeMap::new();
        for (_, query) in &street.sent[asked..] {
            let lives = street.nodes[street.by_addr[&query.to]].conduct != Conduct::Silent;
            if lives && !matches!(query.question, crate::Question::Ping) {
                *times.entry(query.to).or_insert(0) += 1;
            }
        }
        assert!(!times.is_empty() && times.values().all(|&times| times <= 2), "{times:?}");
        // and all within the rate: 100 and a burst of five.
        let second = Duration::from_secs(1);
        let mut seconds = street.sent[asked..].windows(106);
        assert!(seconds.all(|sent| sent[105].0.since(sent[0].0) >= second));
    }
    let (within, mean) = judged(&before, PATIENT as f64);
    assert!(within >= 17 && (mean - 1.0).abs() < 0.1, "{within} {mean} {before:?}");
    assert_halved(&after, runs);
}

#[test]
fn the_size_follows_when_half_of_the_nodes_die_between_two_runs() {
    let runs = 20;
    let mut estimates = Vec::new();
    for seed in 0..runs {
        let mut first = patient(200 + seed);
        first.run(MINUTE);
        let mut second = patient(200 + seed);
        second.now = first.now + MINUTE * 45;
        second.table.clear();
        for record in first.kept() {
            second.crawler.restore(second.now, &record);
        }
        let status = second.crawler.status();
        assert!(status.resting >= PATIENT / 4 && status.refused >= PATIENT / 4, "{status:?}");
        halve(&mut second);
        second.run(MINUTE * 2);
        estimates.extend(second.crawler.status().size_v4);
    }
    assert_halved(&estimates, runs);
}

/// Of a sixteenth the whole is guessed by as many as happen to live there.
#[test]
fn the_size_that_a_crawl_of_a_part_tells_has_the_error_of_what_it_saw() {
    let (count, runs) = (800, 20);
    let region: Region = "a".parse().unwrap();
    let (mut estimates, mut seen) = (Vec::new(), Vec::new());
    for seed in 0..runs {
        let config = Config { crawl_rate: 100, ..Config::default() };
        let mut street = Street::of_region(300 + seed, count, &config, region);
        street.run(MINUTE);
        estimates.extend(street.crawler.status().size_v4);
        seen.push(street.nodes.iter().filter(|node| region.contains(&node.id)).count());
    }
    let (within, mean) = judged(&estimates, count as f64);
    println!("{within} of {}, {mean}, {:?}, {seen:?}", estimates.len(), estimates.last());
    assert!(estimates.len() == runs as usize && within >= 17, "{within} {estimates:?}");
    assert!((mean - 1.0).abs() < 0.15, "{mean} {estimates:?}");
    assert!(estimates.iter().all(|size| size.bits == 4 && size.relative_error() > 0.1), "{estimates:?}");
}
