use super::*;

struct World {
    announce: Announce,
    limits: Limits,
    rng: Rng,
    now: Time,
    facts: Facts,
}

impl World {
    fn new(tiers: &[&[&str]]) -> Self {
        let limits = Limits { dht: false, ..Limits::default() };
        Self::with(tiers, limits)
    }

    fn with(tiers: &[&[&str]], limits: Limits) -> Self {
        let mut rng = Rng::from_seed(3);
        let url = |url: &&str| TrackerUrl { url: (*url).to_owned(), trusted: false };
        let tiers = tiers.iter().map(|tier| tier.iter().map(url).collect()).collect();
        let announce = Announce::new(tiers, &limits, &mut rng, Time::ZERO);
        Self { announce, limits, rng, now: Time::ZERO, facts: Facts::default() }
    }

    fn due(&mut self) -> Vec<(TrackerId, String, Option<AnnounceEvent>)> {
        let asks = self.announce.due(self.now, &self.facts, &self.limits, &mut self.rng);
        let tracker = |ask| match ask {
            Ask::Tracker(id, job) => Some((id, job.url, job.event)),
            Ask::Lookup { .. } => None,
        };
        asks.into_iter().filter_map(tracker).collect()
    }

    fn lookups(&mut self) -> Vec<bool> {
        let asks = self.announce.due(self.now, &self.facts, &self.limits, &mut self.rng);
        let lookup = |ask| match ask {
            Ask::Lookup { announce } => Some(announce),
            Ask::Tracker(..) => None,
        };
        asks.into_iter().filter_map(lookup).collect()
    }

    fn ok(&mut self, id: TrackerId, interval: u64) {
        let reply = AnnounceReply { interval: Duration::from_secs(interval), ..AnnounceReply::default() };
        self.announce.answered(self.now, id, &Ok(reply), &self.facts, &self.limits);
    }

    fn err(&mut self, id: TrackerId, error: TrackerError) {
        self.announce.answered(self.now, id, &Err(error), &self.facts, &self.limits);
    }
}

#[test]
fn all_tiers_are_asked_at_once_one_tracker_of_each() {
    let mut world = World::new(&[&["a", "b"], &["c"]]);
    let asked = world.due();
    assert_eq!(asked.len(), 2);
    assert!(asked.iter().all(|(_, _, event)| *event == Some(AnnounceEvent::Started)));
    assert_eq!(asked[1].1, "c");
    assert!(world.due().is_empty());
}

#[test]
fn a_silent_tracker_is_passed_over_within_fifteen_seconds_and_the_next_one_moves_to_the_front() {
    let mut world = World::new(&[&["a", "b"]]);
    let first = world.due()[0].clone();
    // It waits for a place, which may take long and is not its fault.
    world.now = Time::from_secs(600);
    assert!(world.due().is_empty() && world.announce.next() > world.now);
    world.announce.begun(world.now, first.0, &world.limits);
    world.now = world.announce.next();
    assert!(world.now <= Time::from_secs(600 + 15));
    let second = world.due()[0].clone();
    assert_ne!(first.0, second.0);
    world.ok(second.0, 1800);
    world.now = world.announce.next();
    assert_eq!(world.due()[0], (second.0, second.1, None));
}

#[test]
fn when_all_fail_the_wait_doubles_up_to_half_an_hour() {
    let mut world = World::new(&[&["a"]]);
    let mut waits = Vec::new();
    for _ in 0..9 {
        let (id, _, _) = world.due()[0].clone();
        world.err(id, TrackerError::Timeout);
        waits.push(world.announce.next().since(world.now).as_secs());
        world.now = world.announce.next();
    }
    assert_eq!(waits, [30, 60, 120, 240, 480, 960, 1800, 1800, 1800]);
}

#[test]
fn a_tracker_that_must_not_be_asked_again_is_not() {
    let mut world = World::new(&[&["a"], &["b"]]);
    let asked = world.due();
    world.err(asked[0].0, TrackerError::Refused { reason: String::new(), retry: Some(Retry::Never) });
    world.err(asked[1].0, TrackerError::UnsupportedScheme);
    assert_eq!(world.announce.next(), Time::NEVER);
}

#[test]
fn intervals_are_kept_and_shortened_only_while_peers_are_few() {
    let mut world = World::new(&[&["a"]]);
    let id = world.due()[0].0;
    world.ok(id, 1800);
    assert_eq!(world.announce.next(), Time::from_secs(300));
    world.now = Time::from_secs(300);
    world.facts.peers = 50;
    world.due();
    world.ok(id, 0);
    assert_eq!(world.announce.next(), Time::from_secs(360));
}

#[test]
fn a_partial_seed_says_so_in_every_later_announce() {
    let mut world = World::new(&[&["a"]]);
    let id = world.due()[0].0;
    for (complete, left, event) in [
        (false, Some(9), None),
        (true, Some(9), Some(AnnounceEvent::Paused)),
        (true, Some(9), Some(AnnounceEvent::Paused)),
        (true, Some(0), None),
    ] {
        world.ok(id, 1800);
        world.now = world.announce.next();
        (world.facts.complete, world.facts.left) = (complete, left);
        assert_eq!(world.due(), [(id, "a".to_owned(), event)]);
    }
}

#[test]
fn completed_and_stopped_go_to_trackers_that_know_us() {
    let mut world = World::new(&[&["a"], &["b"]]);
    let asked = world.due();
    world.ok(asked[0].0, 1800);
    world.announce.completed(world.now);
    let told = world.due();
    assert_eq!(told, [(asked[0].0, "a".to_owned(), Some(AnnounceEvent::Completed))]);
    world.ok(asked[0].0, 1800);
    let Ask::Tracker(id, job) = &world.announce.stop(&world.facts)[0] else { panic!() };
    assert_eq!((*id, job.event, job.num_want), (asked[0].0, Some(AnnounceEvent::Stopped), 0));
    assert_eq!(world.announce.stop(&world.facts).len(), 1);
}

#[test]
fn a_hundred_trackers_are_kept_and_ten_asked_at_once() {
    let tiers = vec![&["a"][..]; 300];
    let mut world = World::new(&tiers);
    assert_eq!((world.announce.trackers.len(), world.due().len()), (100, 10));
}

#[test]
fn lookups_start_at_once_repeat_while_peers_are_few_and_announce_every_quarter_hour() {
    let mut world = World::with(&[], Limits::default());
    assert_eq!(world.lookups(), [true]);
    assert!(world.lookups().is_empty());
    let mut gaps = Vec::new();
    for _ in 0..6 {
        world.announce.lookup_ended(world.now, &world.facts, &world.limits);
        let next = world.announce.next();
        gaps.push(next.since(world.now).as_secs());
        world.now = next;
        assert_eq!(world.lookups().len(), 1);
    }
    assert_eq!(gaps[..5], [15, 30, 60, 120, 240]);
    let mut announces = Vec::new();
    while world.now < Time::from_secs(10_000) {
        world.announce.lookup_ended(world.now, &world.facts, &world.limits);
        world.now = world.announce.next();
        announces.extend(world.lookups().into_iter().filter(|&announce| announce).map(|_| world.now));
    }
    assert!(announces.windows(2).all(|two| (720..=1080).contains(&two[1].since(two[0]).as_secs())));
    assert!(announces.len() >= 8);
}

#[test]
fn a_change_of_the_network_is_followed_by_an_announce_but_not_by_a_flood() {
    let mut world = World::with(&[], Limits::default());
    assert_eq!(world.lookups(), [true]);
    world.announce.lookup_ended(world.now, &world.facts, &world.limits);
    world.facts.complete = true;
    world.now = Time::from_secs(100);
    world.announce.moved(world.now, &world.limits);
    assert_eq!(world.lookups(), [true]);
    let mut announces = 0;
    for second in 101..=160 {
        world.now = Time::from_secs(second);
        world.announce.lookup_ended(world.now, &world.facts, &world.limits);
        world.announce.moved(world.now, &world.limits);
        announces += world.lookups().len();
    }
    assert_eq!(announces, 4, "every 15 seconds");
}

#[test]
fn a_private_torrent_never_asks_the_dht() {
    let mut world = World::with(&[], Limits::default());
    world.announce.set_privacy(Privacy::Private);
    assert!(world.lookups().is_empty() && !world.announce.is_public());
    assert_eq!(world.announce.next(), Time::NEVER);
}

#[test]
fn each_tracker_shows_how_its_last_announce_ended_and_when_the_next_one_is() {
    let mut world = World::new(&[&["a", "b"], &["c"]]);
    let states =
        |world: &World| -> Vec<_> { world.announce.view(world.now).iter().map(|it| it.state).collect() };
    assert_eq!(states(&world), [TrackerState::Unasked; 3]);
    assert!(world.announce.view(world.now).iter().all(|it| it.last.is_none() && it.error.is_none()));
    let first = world.due()[0].0;
    assert_eq!(states(&world), [TrackerState::Asking, TrackerState::Unasked, TrackerState::Asking]);
    world.announce.begun(world.now, first, &world.limits);

    // The last one answers, the first one of the first tier does not.
    let reply = AnnounceReply {
        interval: Duration::from_secs(1800),
        peers: vec![([85, 0, 0, 1], 6881).into(); 3],
        seeds: Some(5),
        leechers: Some(7),
        ..AnnounceReply::default()
    };
    world.facts.peers = 50;
    world.announce.answered(world.now, TrackerId(2), &Ok(reply), &world.facts, &world.limits);
    world.now = Time::from_secs(15);
    let second = world.due()[0].0;
    let seen = world.announce.view(world.now);
    assert_eq!((seen[0].id, seen[1].id, seen[2].id), (first, second, TrackerId(2)));
    assert_eq!(states(&world), [TrackerState::Failed, TrackerState::Asking, TrackerState::Working]);
    assert_eq!((seen[0].error.as_ref(), seen[0].last), (Some(&TrackerError::Timeout), Some(Duration::ZERO)));
    assert_eq!((seen[0].tier, seen[0].next, seen[1].tier, seen[1].next), (0, None, 0, None));
    let counts = (seen[2].peers, seen[2].seeds, seen[2].leechers);
    assert_eq!((seen[2].tier, seen[2].url.as_str(), counts), (1, "c", (3, Some(5), Some(7))));
    let times = (seen[2].last, seen[2].next);
    assert_eq!(times, (Some(Duration::from_secs(15)), Some(Duration::from_secs(1785))));

    // The one that answers moves to the front; a failure takes no words of an earlier answer along.
    world.ok(second, 1800);
    let refused = TrackerError::Refused { reason: "full".into(), retry: Some(Retry::Never) };
    world.now = Time::from_secs(1800);
    assert_eq!(world.due().len(), 1);
    world.err(TrackerId(2), refused.clone());
    let seen = world.announce.view(world.now);
    assert_eq!((seen[0].id, seen[0].state, seen[1].id), (second, TrackerState::Working, first));
    let [_, _, dead] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!((dead.state, dead.error.as_ref(), dead.next), (TrackerState::Dead, Some(&refused), None));
    assert_eq!((dead.peers, dead.seeds), (0, None));
}
