use super::*;

struct World {
    fetch: Fetch,
    raw: Vec<u8>,
    limits: Limits,
    now: Time,
    /// Requests that are not answered yet.
    asked: Vec<(Slot, u32)>,
}

fn slot(index: u32) -> Slot {
    Slot { index, generation: 0 }
}

fn addr(index: u32) -> SocketAddr {
    SocketAddr::from(([9, 9, 9, index as u8], 1))
}

impl World {
    fn new(len: usize) -> Self {
        let raw: Vec<u8> = (0..len).map(|at| (at * 7 % 251) as u8).collect();
        let fetch = Fetch::new(Id::new(Sha1::digest(&raw).into()), Time::ZERO);
        Self { fetch, raw, limits: Limits::default(), now: Time::ZERO, asked: Vec::new() }
    }

    fn offer(&mut self, index: u32) {
        self.fetch.offer(slot(index), addr(index), self.raw.len() as u32, &self.limits);
    }

    fn drive(&mut self) {
        self.fetch.drive(self.now, &self.limits, &mut self.asked);
    }

    /// Answers the oldest request; liars send zeros.
    fn answer(&mut self, liars: &[u32]) -> Option<(u32, Got)> {
        let (to, piece) = self.asked.remove(0);
        let MetadataMessage::Data { total_size, mut bytes, .. } = answer(&self.raw, piece) else {
            panic!("asked for piece {piece}")
        };
        if liars.contains(&to.index) {
            bytes.fill(0);
        }
        let got = self.fetch.data(self.now, (to, piece, total_size), bytes, &self.limits, &mut self.asked);
        Some((to.index, got))
    }

    /// Answers everything until the dictionary is whole; returns the banned.
    fn run(&mut self, liars: &[u32]) -> Vec<SocketAddr> {
        let mut banned = Vec::new();
        for _ in 0..10_000 {
            self.drive();
            if self.asked.is_empty() {
                self.now = self.fetch.next(self.now, &self.limits);
                continue;
            }
            match self.answer(liars) {
                Some((_, Got::Whole(whole))) => {
                    assert_eq!(whole[..], self.raw[..]);
                    return banned;
                }
                Some((_, Got::Garbage(culprits))) => banned.extend(culprits),
                _ => {}
            }
        }
        panic!("never whole")
    }
}

#[test]
fn one_peer_gives_all_pieces() {
    for len in [1, 16 << 10, (16 << 10) + 1, 1 << 20] {
        let mut world = World::new(len);
        world.offer(0);
        assert!(world.run(&[]).is_empty());
        assert_eq!(world.now, Time::ZERO);
    }
}

#[test]
fn garbage_from_two_of_three_is_found_out_without_waiting() {
    let mut world = World::new(50_000);
    (0..3).for_each(|index| world.offer(index));
    let mut banned = world.run(&[0, 1]);
    banned.sort_unstable();
    assert!(banned.iter().all(|addr_| [addr(0), addr(1)].contains(addr_)));
    assert!(world.now <= Time::from_secs(1));
}

#[test]
fn silent_peers_make_room_for_one_that_answers() {
    let mut world = World::new(50_000);
    (0..20).for_each(|index| world.offer(index));
    while world.now < Time::from_secs(60) {
        world.drive();
        // Peers 0 to 18 never answer.
        world.asked.retain(|(to, _)| to.index == 19);
        while !world.asked.is_empty() {
            if let Some((19, Got::Whole(_))) = world.answer(&[]) {
                return;
            }
        }
        world.now = world.fetch.next(world.now, &world.limits);
    }
    panic!("the honest peer was never asked");
}

#[test]
fn another_peer_goes_on_with_the_copy_of_one_that_left() {
    let mut world = World::new(100_000);
    world.offer(0);
    world.drive();
    for _ in 0..3 {
        world.answer(&[]);
    }
    world.fetch.lost(slot(0));
    world.asked.clear();
    world.offer(1);
    world.drive();
    assert_eq!(world.asked.len(), 4, "7 pieces, 3 are there");
    assert!(world.run(&[]).is_empty());
}

#[test]
fn a_mixed_copy_with_the_wrong_hash_bans_nobody_and_is_fetched_again() {
    let mut world = World::new(100_000);
    world.offer(0);
    world.drive();
    world.answer(&[0]);
    world.fetch.lost(slot(0));
    world.asked.clear();
    world.offer(1);
    world.offer(2);
    assert!(world.run(&[]).is_empty());
}

#[test]
fn the_only_honest_peer_begins_again_after_it_went_on_with_a_poisoned_copy() {
    let mut world = World::new(100_000);
    world.offer(0);
    world.drive();
    world.answer(&[0]);
    world.fetch.lost(slot(0));
    world.asked.clear();
    world.offer(1);
    assert!(world.run(&[]).is_empty());
}

#[test]
fn claims_of_much_cannot_fill_the_memory_nor_keep_an_honest_peer_out() {
    let mut world = World::new(100_000);
    world.limits.metadata_memory = 600_000;
    let claimed = 1 << 20;
    (0..9).for_each(|index| world.fetch.offer(slot(index), addr(index), claimed, &world.limits));
    for second in 0..60 {
        world.now = Time::from_secs(second);
        world.drive();
        // They give all but the last pieces, so that no hash tells on them.
        for (to, piece) in std::mem::take(&mut world.asked) {
            if to.index == 20 {
                world.asked.push((to, piece));
            } else if piece < 60 {
                let bytes = vec![0; METADATA_PIECE as usize];
                let mut more = Vec::new();
                world.fetch.data(world.now, (to, piece, claimed), bytes, &world.limits, &mut more);
                world.asked.extend(more);
            }
            assert!(world.fetch.held() <= 600_000, "{}", world.fetch.held());
        }
        if second == 10 {
            world.offer(20);
        }
        world.asked.retain(|(to, _)| to.index == 20);
        while !world.asked.is_empty() {
            if let Some((20, Got::Whole(_))) = world.answer(&[]) {
                return;
            }
        }
    }
    panic!("the honest peer was kept out");
}

#[test]
fn long_dictionaries_are_fetched_once_unless_patience_runs_out() {
    let mut world = World::new(100_000);
    world.limits.metadata_memory = 250_000;
    (0..3).for_each(|index| world.offer(index));
    world.drive();
    assert_eq!(world.fetch.racers(), 2, "three would hold more");
    world.limits.metadata_memory = 150_000;
    let mut world = World { fetch: Fetch::new(world.fetch.infohash, world.now), ..world };
    (0..3).for_each(|index| world.offer(index));
    world.drive();
    assert_eq!(world.fetch.racers(), 1);
    world.now += world.limits.metadata_patience;
    world.drive();
    assert_eq!(world.fetch.racers(), 2);
}

#[test]
fn when_there_is_too_much_the_slowest_is_given_up_and_the_first_goes_on() {
    let mut world = World::new(64 * METADATA_PIECE as usize);
    world.limits.metadata_memory = 66 * u64::from(METADATA_PIECE);
    world.offer(0);
    world.drive();
    for _ in 0..50 {
        world.answer(&[]);
    }
    // The first has much when a second one begins.
    world.offer(1);
    world.now += world.limits.metadata_patience;
    world.drive();
    assert_eq!(world.fetch.racers(), 2);
    let mut answered = 50;
    loop {
        answered += 1;
        match world.answer(&[]) {
            Some((index, Got::Whole(_))) => break assert_eq!(index, 0),
            _ => assert!(world.fetch.held() <= world.limits.metadata_memory),
        }
    }
    // 14 more of the first, beside what the second gave for nothing.
    assert!((65..90).contains(&answered), "{answered}");
}

#[test]
fn a_reject_or_silence_is_followed_by_the_same_request_after_three_seconds() {
    let mut world = World::new(10);
    world.offer(0);
    world.drive();
    assert_eq!(std::mem::take(&mut world.asked), [(slot(0), 0)]);
    world.fetch.rejected(world.now, slot(0), 0, &world.limits);
    world.drive();
    assert!(world.asked.is_empty());
    assert_eq!(world.fetch.next(world.now, &world.limits), Time::from_secs(3));
    world.now = Time::from_secs(3);
    world.drive();
    assert_eq!(world.asked, [(slot(0), 0)]);
}

#[test]
fn unfit_data_is_not_counted_and_absurd_sizes_are_not_offers() {
    let mut world = World::new(20_000);
    for size in [0, u32::MAX, (64 << 20) + 1] {
        world.fetch.offer(slot(9), addr(9), size, &world.limits);
    }
    world.drive();
    assert!(world.asked.is_empty());
    world.offer(0);
    world.drive();
    let limits = world.limits.clone();
    let mut data = |piece, total, len| {
        let (now, mut out) = (world.now, Vec::new());
        world.fetch.data(now, (slot(0), piece, total), vec![0; len], &limits, &mut out)
    };
    assert_eq!(data(0, 20_000, 100), Got::Unfit);
    assert_eq!(data(0, 20_001, 16 << 10), Got::Unfit);
    assert_eq!(data(7, 20_000, 16 << 10), Got::Unfit);
    assert_eq!(data(0, 20_000, 16 << 10), Got::Progress);
    assert_eq!(data(0, 20_000, 16 << 10), Got::Unfit);
}

#[test]
fn a_request_past_the_end_is_refused() {
    let raw = vec![1; 20_000];
    assert!(
        matches!(answer(&raw, 1), MetadataMessage::Data { bytes, total_size: 20_000, .. } if bytes.len() == 3616)
    );
    assert_eq!(answer(&raw, 2), MetadataMessage::Reject { piece: 2 });
    assert_eq!(answer(&raw, u32::MAX), MetadataMessage::Reject { piece: u32::MAX });
}

#[test]
fn what_a_peer_left_unfinished_neither_fills_the_memory_nor_keeps_others_out() {
    let mut world = World::new(40 * METADATA_PIECE as usize);
    world.limits.metadata_memory = 64 * u64::from(METADATA_PIECE);
    // A shorter claim, of which more than half is given, and a long one of which one piece is.
    for (index, pieces, claim) in [(7, 30, 39), (8, 1, 64)] {
        let size = claim * METADATA_PIECE;
        world.fetch.offer(slot(index), addr(index), size, &world.limits);
        world.drive();
        for _ in 0..pieces {
            let at = world.asked.iter().position(|(to, _)| to.index == index).unwrap();
            let (to, piece) = world.asked.remove(at);
            let bytes = vec![0; METADATA_PIECE as usize];
            world.fetch.data(world.now, (to, piece, size), bytes, &world.limits, &mut world.asked);
        }
        world.fetch.lost(slot(index));
        world.asked.clear();
    }
    world.offer(0);
    world.offer(1);
    assert!(world.run(&[]).is_empty());
    assert!(world.now < Time::from_secs(1), "nobody waited: {:?}", world.now);
}

#[test]
fn patience_runs_out_only_while_somebody_is_asked() {
    let mut world = World::new(100_000);
    world.limits.metadata_racers = 1;
    world.now = Time::from_secs(300);
    world.drive();
    (0..9).for_each(|index| world.offer(index));
    world.drive();
    assert_eq!(world.fetch.racers(), 1);
}
