//! S28: bad lines. Thirty percent of the packets are lost, and each takes up to 200 ms longer than its path.

use super::*;
use crate::sim::{Links, Pair, Paths};

/// How many of the lookups by thirty nodes found their peer, and the 95th percentiles of the time to it and
/// to the end.
fn lookups(world: &mut World, infohashes: &[Id], first_node: usize) -> (usize, [Duration; 2]) {
    let (first, whole) = times(world, infohashes, first_node);
    (first.len(), [p95(first, infohashes.len()), p95(whole, infohashes.len())])
}

/// The times to the first peer, of those that found one, and to the end.
fn times(world: &mut World, infohashes: &[Id], first_node: usize) -> (Vec<Duration>, Vec<Duration>) {
    let (mut first, mut whole) = (Vec::new(), Vec::new());
    for (n, &infohash) in infohashes.iter().enumerate() {
        let found = world.get_peers(first_node + n % 30, infohash);
        first.extend(found.stats.first_peer);
        whole.push(found.stats.elapsed);
    }
    (first, whole)
}

/// The 95th percentile of the times of `count` lookups; those that have none took for ever.
fn p95(mut times: Vec<Duration>, count: usize) -> Duration {
    times.resize(count, Duration::MAX);
    times.sort();
    times[count * 95 / 100 - 1]
}

/// A hundred nodes that know each other, with the round trips of the lookup benchmarks (90 ms in the median,
/// log-normal), on lines that lose nothing and on which the packets of a pair all take the same time.
fn internet(seed: u64) -> World {
    let paths = Paths::new(Links { jitter_permille: 0, ..Links::default() }, seed);
    let host = |addr: SocketAddr| match addr.ip() {
        IpAddr::V4(ip) => ip.to_bits(),
        IpAddr::V6(_) => panic!("{addr}"),
    };
    let mut world = World::new(seed, Config::default());
    world.jitter = Duration::ZERO;
    world.path = Box::new(move |from, to| paths.one_way(Pair { from: host(from), to: host(to) }, 0));
    for _ in 0..100 {
        world.add_node(&[]);
    }
    world.join(1..100, 0);
    world.run(Duration::from_secs(60));
    world
}

#[test]
fn loss_and_jitter_leave_lookups_successful_and_within_three_times_their_time() {
    let mut world = World::grown(28, 100, Duration::from_secs(60));
    let infohashes: Vec<_> = (0..60).map(|_| world.random_id()).collect();
    for (n, &infohash) in infohashes.iter().enumerate() {
        assert_eq!(world.announce(1 + n % 30, infohash, 7777).stored.len(), 8);
    }
    world.jitter = Duration::from_millis(200);
    let (found, fair) = lookups(&mut world, &infohashes, 40);
    assert_eq!(found, 60);
    world.loss = 30;
    // By others: whoever looked before would start where it arrived.
    let (found, foul) = lookups(&mut world, &infohashes, 70);
    println!("p95 of first peer and end without loss {fair:?}, with {foul:?}; {found} of 60");
    assert!(found >= 57, "{found} of 60");
    assert!(foul[0] <= 3 * fair[0], "{foul:?}, without loss {fair:?}");
    assert!(foul[1] <= 3 * fair[1], "{foul:?}, without loss {fair:?}");
}

// Three worlds: the 95th percentile of sixty lookups is the third longest, which says little.
#[test]
fn loss_and_jitter_leave_lookups_of_an_internet_within_three_times_what_they_take_without_either() {
    let (mut found, mut fair, mut foul) = (0, Vec::new(), Vec::new());
    for seed in 1..=3 {
        let mut world = internet(seed);
        let infohashes: Vec<_> = (0..60).map(|_| world.random_id()).collect();
        for (n, &infohash) in infohashes.iter().enumerate() {
            assert!(world.announce(1 + n % 30, infohash, 7777).stored.len() >= 8);
        }
        let (first, whole) = times(&mut world, &infohashes, 40);
        assert_eq!(first.len(), 60);
        fair.extend(whole);
        world.jitter = Duration::from_millis(200);
        world.loss = 30;
        let (first, whole) = times(&mut world, &infohashes, 70);
        found += first.len();
        foul.extend(whole);
    }
    let (fair, foul) = (p95(fair, 180), p95(foul, 180));
    println!("p95 of the end without loss and jitter {fair:?}, with {foul:?}; {found} of 180");
    assert!(found * 100 >= 180 * 95, "{found} of 180");
    assert!(foul <= 3 * fair, "{foul:?}, without loss and jitter {fair:?}");
}
