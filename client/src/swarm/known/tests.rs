//! Addresses that come, are dialed and are dropped.

use super::*;

fn addr(n: u32) -> SocketAddr {
    SocketAddr::from(([30, (n >> 16) as u8, (n >> 8) as u8, n as u8], 6881))
}

struct World {
    known: Known,
    limits: Limits,
    rng: Rng,
    now: Time,
}

impl World {
    fn new() -> Self {
        Self {
            known: Known::new(),
            limits: Limits::default(),
            rng: Rng::from_seed(1),
            now: Time::from_secs(100),
        }
    }

    fn insert(&mut self, addr: SocketAddr, source: Source) -> bool {
        self.known.insert(self.now, addr, source, &self.limits, &mut self.rng)
    }

    fn due(&mut self, places: usize) -> Vec<SocketAddr> {
        self.known.due(self.now, places, &self.limits)
    }

    fn ended(&mut self, addr: SocketAddr, outcome: Outcome) {
        self.known.ended(self.now, addr, outcome, &self.limits, &mut self.rng);
    }

    /// Dials within `span` of an address whose connections all end with `outcome` at once.
    fn dials(&mut self, addr: SocketAddr, outcome: Outcome, span: Duration) -> usize {
        let end = self.now + span;
        let mut dials = 0;
        while self.known.next(&self.limits) < end {
            self.now = self.now.max(self.known.next(&self.limits));
            for due in self.due(9) {
                assert_eq!(due, addr);
                dials += 1;
                if matches!(outcome, Outcome::Useful | Outcome::Useless) {
                    self.known.shook_hands(addr);
                }
                self.ended(addr, outcome);
            }
        }
        dials
    }
}

#[test]
fn local_addresses_count_from_the_user_and_incoming_only() {
    let mut world = World::new();
    let local: SocketAddr = "192.168.0.9:6881".parse().unwrap();
    assert!(!world.insert(local, Source::Tracker) && !world.insert(local, Source::Magnet));
    assert!(world.insert(local, Source::User));
    assert!(
        !world
            .insert(addr(0).ip().to_string().parse().map(|ip| SocketAddr::new(ip, 0)).unwrap(), Source::User)
    );
    world.limits.allow_local = true;
    for port in 1..10 {
        assert!(world.insert(SocketAddr::from(([127, 0, 0, 1], port)), Source::Dht));
    }
}

#[test]
fn two_ports_an_ip_and_a_thousand_addresses_are_kept() {
    let mut world = World::new();
    for port in 1..=9 {
        world.insert(SocketAddr::from(([30, 0, 0, 0], port)), Source::Dht);
    }
    assert_eq!(world.known.len(), 2);
    for n in 1..3000 {
        world.insert(addr(n), Source::Dht);
    }
    assert_eq!(world.known.len(), 1000);
    assert!(world.insert(addr(9999), Source::User), "a better source displaces an untried address");
    assert_eq!(world.known.len(), 1000);
}

#[test]
fn eight_addresses_of_an_ipv6_network_are_kept() {
    let mut world = World::new();
    let address = |network: u16, host: u16| {
        SocketAddr::new(Ipv6Addr::new(0x2a01, 1, 1, network, 0x8000, 0, 0, host).into(), 6881)
    };
    for source in [Source::Incoming, Source::Dht, Source::Tracker] {
        let kept = (1..100).filter(|&host| world.insert(address(1, host), source)).count();
        assert_eq!(kept, if source == Source::Incoming { 8 } else { 0 });
    }
    assert_eq!(world.known.len(), 8);
    assert!(world.insert(address(0, u16::MAX), Source::Dht) && world.insert(address(2, 1), Source::Dht));
    assert!(world.insert(address(1, 1000), Source::User), "but for those that the user gives");
}

#[test]
fn a_silent_address_is_dialed_three_times_in_all_however_often_it_is_named() {
    let mut world = World::new();
    world.insert(addr(1), Source::Dht);
    assert_eq!(world.dials(addr(1), Outcome::Silent, Duration::from_secs(3600)), 3);
    assert!(!world.insert(addr(1), Source::Tracker));
    assert_eq!(world.dials(addr(1), Outcome::Silent, Duration::from_secs(3600)), 0);
}

#[test]
fn who_hangs_up_is_tried_ever_more_rarely_and_not_for_ever() {
    let mut world = World::new();
    world.insert(addr(1), Source::Dht);
    let [hour, day] = [3600, 86_400].map(Duration::from_secs);
    let in_an_hour = world.dials(addr(1), Outcome::HungUp, hour);
    assert!((9..=12).contains(&in_an_hour), "{in_an_hour}");
    let later = world.dials(addr(1), Outcome::HungUp, hour);
    assert!((1..=2).contains(&later), "{later}");
    let most = usize::from(world.limits.dials_of_full);
    assert_eq!(world.dials(addr(1), Outcome::HungUp, 7 * day), most - in_an_hour - later);
}

#[test]
fn an_address_that_hung_up_is_left_alone_while_nothing_is_missing_or_once_it_is_silent() {
    let mut world = World::new();
    world.insert(addr(1), Source::Dht);
    let minute = Duration::from_secs(60);
    assert_eq!(world.dials(addr(1), Outcome::HungUp, minute), 4);
    world.known.retire_full(&world.limits);
    assert_eq!(world.dials(addr(1), Outcome::HungUp, 60 * minute), 0);
    world.known.revive();
    assert!(world.known.next(&world.limits) < Time::NEVER);
    assert!(!world.known.has_untried(world.now, &world.limits), "nobody has to go to make room for it");
    world.now = world.known.next(&world.limits);
    assert_eq!(world.due(1), [addr(1)]);
    world.ended(addr(1), Outcome::Silent);
    assert_eq!(world.known.next(&world.limits), Time::NEVER);
}

#[test]
fn the_users_own_peer_is_tried_on_and_on() {
    let mut world = World::new();
    world.insert(addr(1), Source::User);
    let dials = world.dials(addr(1), Outcome::Silent, Duration::from_secs(3600));
    assert!((90..=125).contains(&dials), "{dials}");
}

#[test]
fn reconnects_are_five_a_minute_even_if_each_was_useful() {
    for outcome in [Outcome::Useful, Outcome::Useless] {
        let mut world = World::new();
        world.insert(addr(1), Source::User);
        let dials = world.dials(addr(1), outcome, Duration::from_secs(60));
        assert!(dials <= 5, "{dials}");
        assert!(world.dials(addr(1), outcome, Duration::from_secs(600)) > 10);
    }
}

#[test]
fn dials_are_at_most_twenty_in_any_second() {
    let mut world = World::new();
    for n in 0..500 {
        world.insert(addr(n), Source::Dht);
    }
    let mut total = 0;
    for _ in 0..100 {
        total += world.due(100).len();
        world.now += Duration::from_millis(10);
    }
    assert!((19..=20).contains(&total), "{total}");
    assert_eq!(world.due(0).len(), 0);
}

#[test]
fn a_banned_source_is_forgotten_and_stays_out() {
    let mut world = World::new();
    world.insert(addr(1), Source::User);
    world.known.ban(SocketAddr::new(addr(1).ip(), 50_000), &world.limits);
    assert_eq!(world.known.len(), 0);
    assert!(!world.insert(addr(1), Source::User) && world.insert(addr(2), Source::Dht));
    for n in 10..2000 {
        world.known.ban(addr(n), &world.limits);
    }
    assert_eq!(world.known.banned.len(), 1000);
    assert!(!world.known.is_banned(addr(1), &world.limits), "the oldest ban is lifted when full");
}
