//! Who is known, who is asked next, and what is forgotten.

use std::time::Duration;

use super::slices::SLICES;
use super::*;

const NOW: Time = Time::from_secs(1000);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn frontier(config: Config) -> Frontier {
    Frontier::new(Region::WHOLE, &config, Rng::from_seed(1))
}

impl Frontier {
    fn state(&self, addr: SocketAddr) -> State {
        let index = self.find(self.source(addr)).unwrap();
        self.entries[index as usize].state
    }
}

/// Each in a network of its own.
fn addr(n: usize) -> SocketAddr {
    ([80 + (n >> 16) as u8, (n >> 8) as u8, n as u8, 9], 6881).into()
}

/// An id in the slice of that number.
fn id_in(slice: usize, rng: &mut Rng) -> Id {
    let mut bytes = *rng.id().as_bytes();
    bytes[0] = (slice >> 2) as u8;
    bytes[1] = bytes[1] & 0x3f | (slice << 6) as u8;
    Id::new(bytes)
}

#[test]
fn an_ip_has_one_node_whatever_it_calls_itself() {
    let mut frontier = frontier(Config::default());
    let mut rng = Rng::from_seed(2);
    assert!(frontier.offer(NOW, rng.id(), addr(1)));
    assert!(!frontier.offer(NOW, rng.id(), addr(1)));
    assert!(!frontier.offer(NOW, rng.id(), SocketAddr::new(addr(1).ip(), 7)));
    assert!(frontier.offer(NOW, rng.id(), addr(2)));
    for (text, new) in [("[2001:db8::1]:1", true), ("[2001:db8::2]:1", false), ("[2001:db8:0:1::1]:1", true)]
    {
        assert_eq!(frontier.offer(NOW, rng.id(), text.parse().unwrap()), new, "{text}");
    }
    assert_eq!((frontier.len(), frontier.fresh()), (4, 4));
    // On one machine every port is a node of its own, if local addresses are wanted at all.
    let mut local = self::frontier(Config { allow_local: true, ..Config::default() });
    let port = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    assert!(local.offer(NOW, rng.id(), port(1)) && local.offer(NOW, rng.id(), port(2)));
}

#[test]
fn neighbours_in_time_are_far_apart_and_every_slice_has_its_turn() {
    let mut frontier = frontier(Config::default());
    let mut rng = Rng::from_seed(3);
    for n in 0..4 * SLICES {
        frontier.offer(NOW, id_in(n % SLICES, &mut rng), addr(n));
    }
    let mut turns = vec![0; SLICES];
    let mut last = None;
    for _ in 0..2 * SLICES {
        let chosen = frontier.next().unwrap();
        let slice = Region::WHOLE.slice(&chosen.id, SLICES.ilog2());
        if let Some(last) = last {
            assert!(slice.abs_diff(last) > SLICES / 8, "{slice} after {last}");
        }
        last = Some(slice);
        turns[slice] += 1;
    }
    assert!(turns.iter().all(|&turns| turns == 2), "{turns:?}");
}

#[test]
fn a_flood_of_nodes_is_bounded_and_pushes_nobody_out_elsewhere() {
    let config = Config { crawl_frontier: 4 * 2 * SLICES, ..Config::default() };
    let mut frontier = frontier(config);
    let mut rng = Rng::from_seed(4);
    for n in 0..2 * SLICES {
        assert!(frontier.offer(NOW, id_in(n % SLICES, &mut rng), addr(n)));
    }
    let flooded = 77;
    for n in 0..20_000 {
        frontier.offer(NOW, id_in(flooded, &mut rng), addr(100_000 + n));
    }
    assert_eq!(frontier.fresh(), 2 * SLICES + 2);
    assert_eq!(frontier.len(), frontier.fresh());
    assert!(frontier.entries.len() <= 2 * SLICES + 4, "places are used again: {}", frontier.entries.len());
    for (number, slice) in frontier.slices.iter().enumerate().take(SLICES) {
        assert_eq!(slice.nodes.len(), if number == flooded { 4 } else { 2 });
    }
    // Whoever keeps what happens to nodes has the same ones.
    let mut kept = std::collections::BTreeMap::new();
    for (source, record) in frontier.changes().collect::<Vec<_>>() {
        match record {
            Some(record) => drop(kept.insert(source, record)),
            None => drop(kept.remove(&source)),
        }
    }
    assert_eq!(kept.len(), frontier.len());
}

/// Each of those offered is as likely to stay as any other.
#[test]
fn what_stays_of_too_many_is_an_even_choice() {
    let mut early = 0;
    for seed in 0..200 {
        let config = Config { crawl_frontier: 4 * 2 * SLICES, ..Config::default() };
        let mut frontier = Frontier::new(Region::WHOLE, &config, Rng::from_seed(seed));
        let mut rng = Rng::from_seed(1000 + seed);
        for n in 0..100 {
            frontier.offer(NOW, id_in(5, &mut rng), addr(n));
        }
        let kept = &frontier.slices.iter().nth(5).unwrap().nodes;
        assert_eq!(kept.len(), 4);
        early += kept.iter().filter(|at| frontier.entries[at.index as usize].addr < addr(50)).count();
    }
    // Half of 800, give or take three standard deviations.
    assert!((358..=442).contains(&early), "{early}");
}

#[test]
fn nobody_is_asked_again_within_its_interval_and_silent_ones_are_forgotten() {
    let mut frontier = frontier(Config::default());
    let mut rng = Rng::from_seed(5);
    let ids = [rng.id(), rng.id(), rng.id()];
    for (n, id) in ids.iter().enumerate() {
        frontier.offer(NOW, *id, addr(n));
    }
    let until = NOW + Duration::from_secs(600);
    let standings = [Standing::Resting(until), Standing::Silent(until), Standing::Refused(until + DAY)];
    for standing in standings {
        let chosen = frontier.next().unwrap();
        frontier.settle(NOW, chosen.index, Some(chosen.id), standing);
    }
    assert_eq!((frontier.resting(), frontier.silent(), frontier.refused()), (1, 1, 1));
    let before = until - Duration::from_micros(1);
    frontier.wake(before);
    for (n, id) in ids.iter().enumerate() {
        assert!(!frontier.offer(before, *id, addr(n)), "{n}");
    }
    assert_eq!((frontier.next(), frontier.next_due()), (None, until));
    frontier.wake(until);
    assert_eq!((frontier.fresh(), frontier.resting(), frontier.silent(), frontier.refused()), (1, 0, 0, 1));
    frontier.next().unwrap();
    let again: Vec<_> = (0..3).filter(|&n| frontier.offer(until, ids[n], addr(n))).collect();
    assert_eq!(again.len(), 1, "the silent one is as good as new");
}

#[test]
fn room_is_made_by_forgetting_the_silent_and_never_those_who_rest() {
    let config = Config { crawl_asked: 3, ..Config::default() };
    let mut frontier = frontier(config);
    let mut rng = Rng::from_seed(6);
    for n in 0..10 {
        frontier.offer(NOW, rng.id(), addr(n));
    }
    let late = NOW + Duration::from_secs(600);
    for standing in [Standing::Silent(late), Standing::Refused(late), Standing::Resting(late)] {
        let chosen = frontier.next().unwrap();
        frontier.settle(NOW, chosen.index, None, standing);
    }
    for _ in 0..2 {
        let chosen = frontier.next().unwrap();
        frontier.settle(NOW, chosen.index, None, Standing::Resting(late));
    }
    assert_eq!((frontier.resting(), frontier.silent(), frontier.refused()), (3, 0, 0));
    assert_eq!((frontier.next(), frontier.fresh()), (None, 5));
    assert!(frontier.claim(NOW, rng.id(), addr(77)).is_none());
    frontier.wake(late);
    assert!(frontier.next().is_some());
}

#[test]
fn outside_of_the_region_the_nearest_are_asked_when_there_is_nobody_inside() {
    let region: Region = "ff".parse().unwrap();
    let mut frontier = Frontier::new(region, &Config::default(), Rng::from_seed(7));
    let id = |first: u8| Id::new([first; 20]);
    for (n, first) in [0x00, 0xf0, 0xfe, 0x80, 0xff].into_iter().enumerate() {
        frontier.offer(NOW, id(first), addr(n));
    }
    let order: Vec<_> = std::iter::from_fn(|| frontier.next()).collect();
    let firsts: Vec<_> = order.iter().map(|chosen| chosen.id.as_bytes()[0]).collect();
    assert_eq!(firsts, [0xff, 0xfe, 0xf0, 0x80, 0x00]);
    assert_eq!(order.iter().filter(|chosen| chosen.is_inside).count(), 1);
}

#[test]
fn what_was_kept_is_taken_back() {
    let mut frontier = frontier(Config::default());
    let mut rng = Rng::from_seed(8);
    let late = NOW + Duration::from_secs(600);
    let standings = [
        Standing::Fresh,
        Standing::Resting(late),
        Standing::Silent(late),
        Standing::Silent(NOW),
        Standing::Refused(late),
        Standing::Refused(NOW),
    ];
    for (n, standing) in standings.into_iter().enumerate() {
        let record = NodeRecord { id: rng.id(), addr: addr(n), standing };
        frontier.restore(NOW, &record);
        frontier.restore(NOW, &record);
    }
    assert_eq!((frontier.fresh(), frontier.resting(), frontier.silent(), frontier.refused()), (1, 1, 1, 1));
    assert_eq!(frontier.next_due(), late);
}

/// A crawl of a part of the key space on what one of the whole has kept.
#[test]
fn who_lives_outside_of_the_region_is_kept_though_there_is_no_place_for_all() {
    let region: Region = "ff".parse().unwrap();
    let mut frontier = Frontier::new(region, &Config::default(), Rng::from_seed(19));
    let mut rng = Rng::from_seed(20);
    let late = NOW + Duration::from_secs(600);
    let mut outside = |n: usize| {
        let mut bytes = *rng.id().as_bytes();
        bytes[0] &= 0x7f;
        let standing = if n.is_multiple_of(2) { Standing::Fresh } else { Standing::Resting(late) };
        NodeRecord { id: Id::new(bytes), addr: addr(n), standing }
    };
    let records: Vec<_> = (0..2000).map(&mut outside).collect();
    records.iter().for_each(|record| frontier.restore(NOW, record));
    assert_eq!((frontier.fresh(), frontier.resting()), (64, 1000), "few are known");
    assert_eq!(frontier.changes().count(), 0);
    // Nor when they are named or their rest is over.
    for record in &records {
        frontier.offer(NOW, record.id, record.addr);
    }
    frontier.wake(late);
    let gone = |frontier: &mut Frontier| frontier.changes().filter(|(_, record)| record.is_none()).count();
    let lost = gone(&mut frontier);
    assert!(frontier.fresh() == 64 && lost < 150, "{lost}: those alone who had a place again");
    // Of strangers who come and go only those are kept who are known.
    let known = frontier.len();
    let strangers: BTreeSet<_> = (5000..9000).map(|n| source_key(addr(n), false)).collect();
    let (mut told, mut taken) = (BTreeSet::new(), 0);
    for n in 5000..9000 {
        let NodeRecord { id, addr, .. } = outside(n);
        taken += usize::from(frontier.offer(late, id, addr));
    }
    for (source, record) in frontier.changes() {
        match record {
            Some(_) => drop(told.insert(source)),
            None if strangers.contains(&source) => assert!(told.remove(&source)),
            None => {}
        }
    }
    assert!(taken > 20 && told.len() <= 64, "{taken} {}", told.len());
    assert_eq!(frontier.len(), known);
}

#[test]
fn the_nearest_fresh_nodes_of_a_family_are_found() {
    let mut frontier = frontier(Config::default());
    let mut rng = Rng::from_seed(9);
    for n in 0..500 {
        frontier.offer(NOW, rng.id(), addr(n));
    }
    frontier.offer(NOW, rng.id(), "[2001:db8::1]:1".parse().unwrap());
    let target = rng.id();
    let near = frontier.near(&target, false, 8);
    assert!(near.len() == 8 && near.iter().all(|(_, addr)| addr.is_ipv4()));
    let farthest = near.iter().map(|(id, _)| id.distance(&target)).max().unwrap();
    assert!(farthest.leading_zeros() >= 4, "{farthest}");
    assert_eq!(frontier.near(&target, true, 8).len(), 1);
}

#[test]
fn the_nearest_of_all_who_live_are_found_whatever_has_become_of_them() {
    let mut frontier = frontier(Config::default());
    let mut rng = Rng::from_seed(10);
    for n in 0..3000 {
        frontier.offer(NOW, rng.id(), addr(n));
    }
    let mut lives = std::collections::BTreeMap::new();
    while let Some(Chosen { index, id, .. }) = frontier.next() {
        let standing = match lives.len() % 3 {
            0 => Standing::Resting(NOW + Duration::from_secs(10)),
            1 => Standing::Refused(NOW + DAY),
            _ => Standing::Silent(NOW + Duration::from_secs(1000)),
        };
        lives.insert(id, !matches!(standing, Standing::Silent(_)));
        frontier.settle(NOW, index, Some(id), standing);
    }
    let check = |frontier: &Frontier, rng: &mut Rng| {
        for _ in 0..50 {
            let target = rng.id();
            let mut truth: Vec<Id> = lives.iter().filter(|(_, lives)| **lives).map(|(id, _)| *id).collect();
            truth.sort_by_key(|id| id.distance(&target));
            let found = frontier.nearest(NOW, &target, false, 8);
            assert!(found.iter().all(|&(id, addr, known)| known == frontier.known(NOW, id, addr)));
            let found: Vec<Id> = found.into_iter().map(|(id, ..)| id).collect();
            assert_eq!(found, truth[..8]);
        }
    };
    check(&frontier, &mut rng);
    // Those who rested may be asked again, and are still there.
    frontier.wake(NOW + Duration::from_secs(20));
    assert_eq!((frontier.fresh(), frontier.resting()), (1000, 0));
    check(&frontier, &mut rng);
    assert!(frontier.nearest(NOW, &Id::ZERO, true, 8).is_empty());
}

/// Whoever has a /24 has 256 addresses and names them with whatever ids it likes, wherever in the key space.
#[test]
fn one_network_has_no_more_than_its_share_of_the_frontier() {
    let config = Config { crawl_nodes_per_subnet: 5, ..Config::default() };
    let mut frontier = frontier(config);
    let mut rng = Rng::from_seed(11);
    let host = |n: u8| SocketAddr::from(([81, 2, 3, n], 6881));
    let flood = |frontier: &mut Frontier, now: Time, rng: &mut Rng| {
        (0..1000u32).filter(|n| frontier.offer(now, rng.id(), host(*n as u8))).count()
    };
    assert_eq!(flood(&mut frontier, NOW, &mut rng), 5);
    assert!(frontier.claim(NOW, rng.id(), host(200)).is_none(), "a survey takes nobody more, either");
    let kept = NodeRecord { id: rng.id(), addr: host(201), standing: Standing::Refused(NOW + DAY) };
    frontier.restore(NOW, &kept);
    assert_eq!(frontier.len(), 5);
    let is_gone = |frontier: &mut Frontier, addr| {
        let source = frontier.source(addr);
        frontier.changes().last() == Some((source, None))
    };
    assert!(is_gone(&mut frontier, kept.addr), "nobody keeps it either");
    assert!(frontier.offer(NOW, rng.id(), ([81, 2, 4, 1], 6881).into()), "the next network is another");

    // The silent give up their places and are not asked again for a while: what does not live is worth 256
    // queries at most, however often it is named.
    let until = NOW + Duration::from_secs(3600);
    let mut asked = 0;
    while let Some(Chosen { index, id, .. }) = frontier.next() {
        frontier.settle(NOW, index, Some(id), Standing::Silent(until));
        asked += 1;
        flood(&mut frontier, NOW, &mut rng);
        assert!(frontier.fresh() <= 6);
    }
    assert_eq!((asked, frontier.silent(), frontier.subnets.len()), (257, 257, 0));
    // Those who live keep them.
    assert_eq!(flood(&mut frontier, until, &mut rng), 5);
    while let Some(Chosen { index, id, .. }) = frontier.next() {
        frontier.settle(until, index, Some(id), Standing::Resting(until + Duration::from_secs(60)));
    }
    assert_eq!((flood(&mut frontier, until, &mut rng), frontier.resting()), (0, 5));
    frontier.wake(until + Duration::from_secs(60));
    assert_eq!((frontier.fresh(), frontier.subnets.len()), (5, 1));
    // A /64 is one source and has one node, whatever the cap.
    let six = |n: u16| SocketAddr::from(([0x2001, 0xdb8, 0, 7, 0, 0, 0, n], 6881));
    assert_eq!((0..100).filter(|&n| frontier.offer(until, rng.id(), six(n))).count(), 1);
}

#[test]
fn who_rests_is_remembered_however_many_its_network_has() {
    let config = Config { crawl_nodes_per_subnet: 2, crawl_asked: 4, ..Config::default() };
    let mut frontier = frontier(config);
    let mut rng = Rng::from_seed(16);
    let host = |n: u8| SocketAddr::from(([81, 2, 3, n], 6881));
    let until = NOW + Duration::from_secs(60);
    let kept = |n: u8, standing, rng: &mut Rng| NodeRecord { id: rng.id(), addr: host(n), standing };
    // First those who take the seats and the memory.
    for (n, standing) in
        [(0, Standing::Fresh), (1, Standing::Refused(NOW + DAY)), (2, Standing::Silent(until))]
    {
        frontier.restore(NOW, &kept(n, standing, &mut rng));
    }
    for n in 3..7 {
        frontier.restore(NOW, &kept(n, Standing::Resting(until), &mut rng));
        assert!(!frontier.offer(NOW, rng.id(), host(n)), "it is known");
    }
    assert_eq!((frontier.resting(), frontier.silent(), frontier.refused(), frontier.fresh()), (4, 0, 0, 1));
    // Everybody counts, and nobody else comes before enough of them have gone.
    assert!(!frontier.offer(NOW, rng.id(), host(9)));
    // Whoever is not taken is not kept either, or would be read again for ever.
    frontier.changes().for_each(drop);
    for (n, standing) in [
        (10, Standing::Resting(until)),
        (11, Standing::Silent(until)),
        (12, Standing::Silent(NOW)),
        (13, Standing::Refused(NOW + DAY)),
        (14, Standing::Fresh),
    ] {
        frontier.restore(NOW, &kept(n, standing, &mut rng));
        let source = frontier.source(host(n));
        assert_eq!(frontier.changes().collect::<Vec<_>>(), [(source, None)], "{standing:?}");
    }
}

/// Those who refused are no use to a crawl for as long as it runs.
#[test]
fn who_refused_gives_up_its_seat_when_somebody_else_wants_it() {
    let config = Config { crawl_nodes_per_subnet: 3, ..Config::default() };
    let mut frontier = frontier(config);
    let mut rng = Rng::from_seed(15);
    let host = |n: u8| SocketAddr::from(([81, 2, 3, n], 6881));
    let until = NOW + Duration::from_secs(60);
    for n in 0..3 {
        assert!(frontier.offer(NOW, rng.id(), host(n)));
    }
    for standing in [Standing::Refused(NOW + DAY), Standing::Refused(NOW + DAY), Standing::Resting(until)] {
        let chosen = frontier.next().unwrap();
        frontier.settle(NOW, chosen.index, Some(chosen.id), standing);
    }
    assert!(frontier.offer(NOW, rng.id(), host(10)));
    assert_eq!((frontier.refused(), frontier.len()), (2, 4));
    assert!(frontier.claim(NOW, rng.id(), host(11)).is_some());
    assert_eq!((frontier.refused(), frontier.resting(), frontier.len()), (2, 1, 5));
    assert!(!frontier.offer(NOW, rng.id(), host(12)), "nobody else can go");
    // Whoever lost its seat is remembered.
    for n in 0..3 {
        assert!(!frontier.offer(NOW, rng.id(), host(n)) && frontier.claim(NOW, rng.id(), host(n)).is_none());
    }
    // Of more than may be there, those who refused go only where that makes room.
    for n in 20..23 {
        let standing = Standing::Resting(until);
        frontier.restore(NOW, &NodeRecord { id: rng.id(), addr: host(n), standing });
    }
    let chosen = frontier.next().unwrap();
    frontier.settle(NOW, chosen.index, Some(chosen.id), Standing::Refused(NOW + DAY));
    assert!(!frontier.offer(NOW, rng.id(), host(13)));
    assert_eq!((frontier.refused(), frontier.resting(), frontier.len()), (3, 4, 8));
}

#[test]
fn those_who_refused_are_remembered_without_a_seat_as_long_as_there_is_memory() {
    let config = Config { crawl_nodes_per_subnet: 4, crawl_asked: 100, ..Config::default() };
    let mut frontier = frontier(config.clone());
    let mut rng = Rng::from_seed(17);
    let host = |n: usize| SocketAddr::from(([81, 2, 3, n as u8], 6881));
    let refuse_all = |frontier: &mut Frontier, rng: &mut Rng| {
        let mut asked = Vec::new();
        for n in 0..100 {
            frontier.offer(NOW, rng.id(), host(n));
            while let Some(Chosen { index, id, addr, .. }) = frontier.next() {
                frontier.settle(NOW, index, Some(id), Standing::Refused(NOW + DAY));
                asked.push(addr);
            }
        }
        asked.len()
    };
    assert_eq!((refuse_all(&mut frontier, &mut rng), refuse_all(&mut frontier, &mut rng)), (100, 0));
    assert_eq!((frontier.refused(), frontier.len(), frontier.subnets.len()), (100, 100, 1));
    // A later run knows them too,
    let mut kept: Vec<_> = frontier.changes().filter_map(|(_, record)| record).collect();
    kept.retain(|record| record.standing == Standing::Refused(NOW + DAY));
    let mut later = Frontier::new(Region::WHOLE, &config, Rng::from_seed(18));
    kept.iter().for_each(|record| later.restore(NOW, record));
    assert_eq!((later.refused(), refuse_all(&mut later, &mut rng)), (100, 0));
    // and they go when others need the memory, without a trace.
    for n in 0..100 {
        assert!(frontier.claim(NOW, rng.id(), addr(n)).is_some(), "{n}");
    }
    assert_eq!((frontier.refused(), frontier.len(), frontier.subnets.len()), (0, 100, 100));
}

#[test]
fn who_was_silent_long_ago_is_asked_as_whoever_it_is_now() {
    let mut frontier = frontier(Config::default());
    let mut rng = Rng::from_seed(12);
    let (old, new) = (rng.id(), rng.id());
    frontier.offer(NOW, old, addr(1));
    let chosen = frontier.next().unwrap();
    frontier.settle(NOW, chosen.index, None, Standing::Silent(NOW + Duration::from_secs(10)));
    let moved = SocketAddr::new(addr(1).ip(), 7);
    assert!(frontier.claim(NOW, new, moved).is_none());
    let chosen = frontier.claim(NOW + Duration::from_secs(10), new, moved).unwrap();
    assert_eq!((chosen.id, chosen.addr, frontier.silent(), frontier.len()), (new, moved, 0, 1));
}

#[test]
fn the_nearest_of_a_region_of_many_bits_are_found_on_either_side_of_its_border() {
    let region: Region = "abcde".parse().unwrap();
    let mut frontier = Frontier::new(region, &Config::default(), Rng::from_seed(13));
    let mut rng = Rng::from_seed(14);
    let mut ids = Vec::new();
    for n in 0..400 {
        let id = if n % 2 == 0 {
            region.random(&mut rng)
        } else {
            Region::WHOLE.near(&ids[n / 3], 20 - n as u32 % 8, &mut rng)
        };
        ids.push(id);
        assert!(frontier.offer(NOW, id, addr(n)));
    }
    for count in [1, 8, 24, 300] {
        let target = region.random(&mut rng);
        ids.sort_by_key(|id| id.distance(&target));
        let found: Vec<Id> =
            frontier.nearest(NOW, &target, false, count).into_iter().map(|(id, ..)| id).collect();
        assert_eq!(found, ids[..count]);
    }
}

#[test]
fn who_answered_counts_for_a_moment_and_is_to_be_asked_then() {
    let mut rng = Rng::from_seed(21);
    let (until, later) = (NOW + DAY, NOW + TRUSTED);
    for standing in [Standing::Resting(until), Standing::Refused(until)] {
        let mut frontier = frontier(Config::default());
        let (old, new) = (rng.id(), rng.id());
        frontier.offer(NOW, old, addr(1));
        let chosen = frontier.next().unwrap();
        frontier.settle(NOW, chosen.index, Some(old), standing);
        let source = frontier.source(addr(1));
        assert_eq!(frontier.known(later - Duration::from_micros(1), old, addr(1)), Known::Alive);
        assert_eq!(frontier.known(later, old, addr(1)), Known::Stale);
        assert!(frontier.claim(later, old, addr(1)).is_none(), "not for samples");
        assert_eq!(frontier.nearest(later, &old, false, 8), [(old, addr(1), Known::Stale)]);
        // It lives,
        frontier.asked_anew(later, source, Some(old), Standing::Resting(later));
        assert_eq!(frontier.known(later, old, addr(1)), Known::Alive);
        // or somebody else does,
        frontier.changes().for_each(drop);
        frontier.asked_anew(later, source, Some(new), Standing::Resting(later));
        assert_eq!(frontier.known(later, old, addr(1)), Known::Otherwise);
        assert_eq!(frontier.nearest(later, &old, false, 8), [(new, addr(1), Known::Alive)]);
        let record = NodeRecord { id: new, addr: addr(1), standing };
        assert_eq!(frontier.changes().collect::<Vec<_>>(), [(source, Some(record))], "and stands as before");
        // a refusal to say says nothing,
        frontier.asked_anew(later, source, None, Standing::Refused(later));
        assert_eq!(frontier.known(later, new, addr(1)), Known::Alive);
        // silence tells that it is to be asked once more,
        let hour = later + Duration::from_secs(3600);
        let at = if let Standing::Resting(at) = standing { at.max(hour) } else { hour };
        for answer in [Some(new), None] {
            frontier.asked_anew(later, source, None, Standing::Silent(hour));
            assert_eq!(frontier.known(later, new, addr(1)), Known::Stale);
            assert_eq!((frontier.silent(), frontier.resting() + frontier.refused()), (0, 1));
            frontier.asked_anew(later, source, answer, Standing::Silent(hour));
        }
        // and a second one that it has gone, though that does not end the rest that was wished for.
        assert_eq!(frontier.known(later, new, addr(1)), Known::Gone);
        assert_eq!(frontier.known(at, new, addr(1)), Known::Unknown);
        assert_eq!((frontier.silent(), frontier.resting(), frontier.refused()), (1, 0, 0));
        assert!(frontier.nearest(later, &old, false, 8).is_empty());
        assert_eq!(frontier.offer(hour, new, addr(1)), standing == Standing::Refused(until));
        // Nothing is kept of strangers.
        frontier.asked_anew(later, frontier.source(addr(2)), Some(old), Standing::Resting(later));
        assert_eq!(frontier.len(), 1);
    }
}

#[test]
fn a_refusal_ends_and_so_does_one_that_was_kept() {
    let config = Config { crawl_nodes_per_subnet: 2, ..Config::default() };
    let mut frontier = frontier(config);
    let mut rng = Rng::from_seed(22);
    let host = |n: u8| SocketAddr::from(([81, 2, 3, n], 6881));
    let standing = Standing::Refused(NOW + DAY);
    for n in 0..2 {
        frontier.restore(NOW, &NodeRecord { id: rng.id(), addr: host(n), standing });
    }
    // One of them loses its seat.
    assert!(frontier.offer(NOW, rng.id(), host(10)));
    // Silence does not cost a seat that one has not.
    let unseated = (0..2).find(|&n| frontier.state(host(n)) == State::Unseated).unwrap();
    let source = frontier.source(host(unseated));
    frontier.asked_anew(NOW, source, None, Standing::Silent(NOW + DAY));
    assert_eq!((frontier.refused(), frontier.silent()), (2, 0), "once may be a lost packet");
    frontier.asked_anew(NOW, source, None, Standing::Silent(NOW + DAY));
    assert_eq!((frontier.refused(), frontier.silent()), (1, 1));
    assert!(frontier.offer(NOW, rng.id(), host(11)) && !frontier.offer(NOW, rng.id(), host(12)));
    frontier.wake(NOW + DAY - Duration::from_micros(1));
    assert_eq!((frontier.refused(), frontier.len()), (1, 4));
    frontier.wake(NOW + DAY);
    assert_eq!((frontier.refused(), frontier.silent(), frontier.len()), (0, 0, 2));
    assert!(!frontier.offer(NOW + DAY, rng.id(), host(unseated)), "two have the seats");
    frontier.restore(NOW, &NodeRecord { id: rng.id(), addr: addr(5), standing: Standing::Refused(NOW) });
    assert_eq!(frontier.len(), 2);
    let forgotten = (frontier.source(addr(5)), None);
    assert_eq!(frontier.changes().last(), Some(forgotten), "nor kept");
}

#[test]
fn who_was_silent_in_its_turn_is_asked_once_more_for_nodes_and_left_alone_all_the_same() {
    let mut rng = Rng::from_seed(23);
    let (old, new, until) = (rng.id(), rng.id(), NOW + Duration::from_secs(3600));
    let mut frontier = frontier(Config::default());
    frontier.offer(NOW, old, addr(1));
    let chosen = frontier.next().unwrap();
    frontier.settle(NOW, chosen.index, None, Standing::Silent(until));
    let source = frontier.source(addr(1));
    assert_eq!(frontier.known(NOW, old, addr(1)), Known::Stale);
    // It lives, under another id perhaps, and still has its rest.
    frontier.asked_anew(NOW, source, Some(new), Standing::Resting(NOW));
    assert_eq!(frontier.known(NOW, new, addr(1)), Known::Alive);
    assert_eq!(frontier.known(NOW, old, addr(1)), Known::Otherwise);
    assert_eq!(frontier.known(NOW + TRUSTED, new, addr(1)), Known::Stale);
    assert!(!frontier.offer(NOW, new, addr(1)) && frontier.claim(NOW, new, addr(1)).is_none());
    for known in [Known::Stale, Known::Gone] {
        frontier.asked_anew(NOW, source, None, Standing::Silent(until));
        assert_eq!(frontier.known(NOW, new, addr(1)), known);
    }
    frontier.wake(until);
    assert_eq!(frontier.len(), 0);
    assert!(frontier.offer(until, new, addr(1)));
}

#[test]
fn silence_in_ones_turn_ends_all_trust_and_counts_with_those_before() {
    let mut rng = Rng::from_seed(24);
    let (id, hour) = (rng.id(), Duration::from_secs(3600));
    let mut frontier = frontier(Config::default());
    frontier.offer(NOW, id, addr(1));
    let chosen = frontier.next().unwrap();
    frontier.settle(NOW, chosen.index, Some(id), Standing::Resting(NOW + hour));
    let source = frontier.source(addr(1));
    // It answers a survey just before its rest ends, and nobody in its turn.
    let (before, turn) = (NOW + hour - Duration::from_secs(10), NOW + hour);
    frontier.asked_anew(before, source, Some(id), Standing::Resting(before));
    frontier.wake(turn);
    let chosen = frontier.next().unwrap();
    frontier.settle(turn, chosen.index, None, Standing::Silent(turn + hour));
    assert_eq!(frontier.known(turn, id, addr(1)), Known::Stale);
    frontier.asked_anew(turn, source, None, Standing::Silent(turn + hour));
    assert_eq!(frontier.known(turn, id, addr(1)), Known::Gone);
}
