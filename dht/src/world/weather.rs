//! S28: bad lines. Thirty percent of the packets are lost, and each takes up to 200 ms longer than its path.

use super::*;

/// How many of the lookups by thirty nodes found their peer, and the 95th percentiles of the time to it and
/// to the end.
fn lookups(world: &mut World, infohashes: &[Id], first_node: usize) -> (usize, [Duration; 2]) {
    let (mut first, mut whole) = (Vec::new(), Vec::new());
    for (n, &infohash) in infohashes.iter().enumerate() {
        let found = world.get_peers(first_node + n % 30, infohash);
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
