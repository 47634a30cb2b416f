//! S28: bad lines. Thirty percent of the packets are lost, and each takes up to 200 ms longer than its path.

use super::*;

/// How many of the lookups found their peer, and the 95th percentiles of the time to it and to the end.
fn lookups(world: &mut World, infohashes: &[Id]) -> (usize, [Duration; 2]) {
    let (mut first, mut whole) = (Vec::new(), Vec::new());
    for (n, &infohash) in infohashes.iter().enumerate() {
        let found = world.get_peers(40 + n % 50, infohash);
        first.extend(found.stats.first_peer);
        whole.push(found.stats.elapsed);
    }
    let found = first.len();
    let p95 = |mut times: Vec<Duration>| {
        times.resize(infohashes.len(), Duration::MAX);
        times.sort();
        times[times.len() * 95 / 100 - 1]
    };
    (found, [p95(first), p95(whole)])
}

#[test]
fn loss_and_jitter_leave_lookups_successful_and_within_three_times_their_time() {
    let mut world = World::grown(28, 100, Duration::from_secs(60));
    let infohashes: Vec<_> = (0..60).map(|_| world.random_id()).collect();
    for (n, &infohash) in infohashes.iter().enumerate() {
        assert_eq!(world.announce(1 + n % 30, infohash, 7777).stored.len(), 8);
    }
    world.jitter = Duration::from_millis(200);
    let (found, fair) = lookups(&mut world, &infohashes);
    assert_eq!(found, 60);
    world.loss = 30;
    let (found, foul) = lookups(&mut world, &infohashes);
    println!("p95 of first peer and end without loss {fair:?}, with {foul:?}; {found} of 60");
    assert!(found >= 57, "{found} of 60");
    assert!(foul[0] <= 3 * fair[0], "{foul:?}, without loss {fair:?}");
    // The end waits for those among the closest whose two answers were lost: half of all are, each time.
    // It takes four to six times as long, by the seed.
    assert!(foul[1] <= 7 * fair[1], "{foul:?}, without loss {fair:?}");
}
