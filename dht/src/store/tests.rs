use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};

use krpc::bloom::Bloom;
use krpc::compact::{Address as _, V4, V6};

use super::sketch::Sketch;
use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn store(config: &Config) -> Store {
    Store::new(&Arc::new(config.clone()), &mut Rng::from_seed(1))
}

fn id(n: u32) -> Id {
    let mut bytes = [0; 20];
    bytes[..4].copy_from_slice(&n.to_be_bytes());
    Id::new(bytes)
}

fn peer(n: u32, port: u16) -> SocketAddr {
    (Ipv4Addr::from(0x5500_0000 + n), port).into()
}

fn peer6(n: u16, port: u16) -> SocketAddr {
    format!("[2001:db8:{n:x}::1]:{port}").parse().unwrap()
}

fn all(family: Family) -> Wanted {
    Wanted { family, max: usize::MAX, max_bytes: usize::MAX, no_seed: false }
}

/// What a reply would carry, parsed.
fn values(store: &mut Store, now: Time, infohash: &Id, wanted: Wanted) -> Vec<SocketAddr> {
    let mut out = Vec::new();
    let mut rng = Rng::from_seed(now.as_micros());
    let count = store.values(now, infohash, wanted, &mut rng, &mut out);
    let (prefix, len) = if wanted.family == Family::V4 { (&b"6:"[..], 6) } else { (&b"18:"[..], 18) };
    let found: Vec<_> = out
        .chunks(prefix.len() + len)
        .map(|value| {
            let wire = value.strip_prefix(prefix).unwrap();
            V4::from_wire(wire).map(V4::to_socket).or_else(|| V6::from_wire(wire).map(V6::to_socket)).unwrap()
        })
        .collect();
    assert_eq!(found.len(), count);
    found
}

#[test]
fn peers_come_back_until_they_expire() {
    let mut store = store(&Config::default());
    let start = Time::from_secs(1000);
    assert_eq!(store.timeout(), Time::NEVER);
    assert_eq!(store.announce(start, &id(1), peer(1, 1), false), Announced::Stored);
    assert_eq!(store.announce(start, &id(1), peer6(1, 1), true), Announced::Stored);
    assert_eq!(store.announce(start + 30 * MINUTE, &id(1), peer(1, 1), false), Announced::Refreshed);
    assert_eq!((store.len(), store.infohashes()), (2, 1));
    assert_eq!(values(&mut store, start + 44 * MINUTE, &id(1), all(Family::V6)), [peer6(1, 1)]);
    assert_eq!(values(&mut store, start + 45 * MINUTE, &id(1), all(Family::V6)), []);
    assert_eq!(values(&mut store, start + 74 * MINUTE, &id(1), all(Family::V4)), [peer(1, 1)]);
    assert_eq!(values(&mut store, start + 75 * MINUTE, &id(1), all(Family::V4)), []);
    assert_eq!(values(&mut store, start + 75 * MINUTE, &id(2), all(Family::V4)), []);
    store.expire(start + 75 * MINUTE);
    store.expire(store.timeout().min(start + 90 * MINUTE));
    assert_eq!((store.len(), store.infohashes(), store.timeout()), (0, 0, Time::NEVER));
}

#[test]
fn port_zero_is_refused() {
    let mut store = store(&Config::default());
    assert_eq!(store.announce(Time::ZERO, &id(1), peer(1, 0), false), Announced::Refused);
    assert!(store.is_empty());
}

#[test]
fn mapped_address_is_the_ipv4_peer() {
    let mut store = store(&Config::default());
    store.announce(Time::ZERO, &id(1), "[::ffff:85.0.0.1]:1".parse().unwrap(), false);
    assert_eq!(store.announce(Time::ZERO, &id(1), peer(1, 1), false), Announced::Refreshed);
}

#[test]
fn one_source_keeps_eight_ports_and_the_stalest_goes() {
    let mut store = store(&Config::default());
    for n in 0..1500u16 {
        let now = Time::from_secs(10 * u64::from(n % 9));
        assert_ne!(store.announce(now, &id(1), peer(1, 1 + n), false), Announced::Refused);
    }
    assert_eq!(store.len(), 8);
    let fresh = |n| Time::from_secs(1000 + 10 * n);
    for n in 0..9u16 {
        store.announce(fresh(u64::from(n)), &id(2), peer(1, 1 + n), false);
    }
    let ports: BTreeSet<_> =
        values(&mut store, fresh(9), &id(2), all(Family::V4)).iter().map(SocketAddr::port).collect();
    assert_eq!(ports, (2..=9).collect());
}

#[test]
fn values_obey_count_and_bytes_and_leave_seeds_out_when_asked() {
    let mut store = store(&Config::default());
    for n in 0..1000 {
        store.announce(Time::ZERO, &id(1), peer(n, 6881), n % 4 == 0);
        store.announce(Time::ZERO, &id(1), peer6(n as u16, 6881), false);
    }
    let take = |store: &mut Store, wanted| values(store, Time::ZERO, &id(1), wanted).len();
    assert_eq!(take(&mut store, Wanted { max: 100, ..all(Family::V4) }), 100);
    assert_eq!(take(&mut store, Wanted { max: 100, max_bytes: 799, ..all(Family::V4) }), 99);
    assert_eq!(take(&mut store, Wanted { max: 100, max_bytes: 800, ..all(Family::V4) }), 100);
    assert_eq!(take(&mut store, Wanted { max: 100, max_bytes: 800, ..all(Family::V6) }), 38);
    assert_eq!(take(&mut store, Wanted { no_seed: true, ..all(Family::V4) }), 750);
    let sample =
        values(&mut store, Time::ZERO, &id(1), Wanted { max: 700, no_seed: true, ..all(Family::V4) });
    assert_eq!(sample.iter().collect::<BTreeSet<_>>().len(), 700, "no peer twice");
}

#[test]
fn samples_of_a_big_swarm_are_without_bias() {
    let mut store = store(&Config::default());
    for n in 0..200 {
        store.announce(Time::from_secs(u64::from(n)), &id(1), peer(n, 6881), false);
    }
    let mut counts: BTreeMap<SocketAddr, u32> = BTreeMap::new();
    let mut pairs = 0;
    for round in 0..20_000u64 {
        let now = Time::from_secs(200) + Duration::from_micros(round);
        let sample = values(&mut store, now, &id(1), Wanted { max: 10, ..all(Family::V4) });
        pairs += u32::from(sample.contains(&peer(0, 6881)) && sample.contains(&peer(1, 6881)));
        sample.into_iter().for_each(|peer| *counts.entry(peer).or_default() += 1);
    }
    // 1000 expected each, standard deviation 31; neighbours together 45 times, deviation 7.
    assert_eq!(counts.len(), 200);
    assert!(counts.values().all(|count| (850..=1150).contains(count)), "{counts:?}");
    assert!((15..=80).contains(&pairs), "{pairs}");
}

#[test]
fn full_infohash_replaces_a_stale_peer() {
    let config = Config { peers_per_infohash: 100, ..Config::default() };
    let mut store = store(&config);
    for n in 0..100 {
        store.announce(Time::from_secs(u64::from(n) * 10), &id(1), peer(n, 1), false);
    }
    for n in 100..150 {
        assert_eq!(store.announce(Time::from_secs(1001), &id(1), peer(n, 1), false), Announced::Stored);
    }
    let left = values(&mut store, Time::from_secs(1002), &id(1), all(Family::V4));
    assert_eq!(left.len(), 100);
    let new = left.iter().filter(|&&p| p >= peer(100, 1)).count();
    let stale = left.iter().filter(|&&p| p < peer(25, 1)).count();
    assert_eq!(new, 50, "newcomers do not push each other out");
    assert!(stale <= 5, "{stale} of the stalest quarter left");
    assert_eq!(store.announce(Time::from_secs(1003), &id(1), peer6(1, 1), false), Announced::Refused);
}

#[test]
fn one_source_cannot_announce_more_than_its_share_of_infohashes() {
    let mut store = store(&Config::default());
    let before = store.memory();
    let mut kept = 0;
    for n in 0..100_000 {
        let now = Time::from_millis(u64::from(n));
        kept += u32::from(store.announce(now, &id(n), peer(1, 1), false) == Announced::Stored);
        assert_ne!(store.announce(now, &id(n % 500), peer(1, 2), false), Announced::Refused, "{n}");
    }
    assert!((490..=500).contains(&kept), "{kept}");
    assert!(store.memory() - before < 1 << 20);
    assert!(!store.accepts_more(&id(200_000), peer(1, 1).ip()));
    assert!(store.accepts_more(&id(1), peer(1, 1).ip()), "it is there already");
    assert!(store.accepts_more(&id(200_000), peer(2, 1).ip()));
    assert_eq!(store.announce(Time::from_secs(100), &id(200_000), peer(2, 1), false), Announced::Stored);
}

#[test]
fn share_of_infohashes_comes_back_when_announces_expire() {
    let mut store = store(&Config { infohashes_per_ip: 50, ..Config::default() });
    (0..60).for_each(|n| _ = store.announce(Time::ZERO, &id(n), peer(1, 1), false));
    // These stay, so that the store is not simply emptied.
    (0..60).for_each(|n| _ = store.announce(Time::from_secs(1500), &id(1000 + n), peer(2 + n, 1), false));
    assert!(!store.accepts_more(&id(99), peer(1, 1).ip()));
    let mut now = Time::from_secs(45 * 60);
    while now < Time::from_secs(55 * 60) {
        store.expire(now);
        now += MINUTE;
    }
    assert_eq!(store.len(), 60);
    assert!((0..50).all(|n| store.announce(now, &id(n), peer(1, 1), false) == Announced::Stored));
    assert_eq!(store.announce(now, &id(51), peer(1, 1), false), Announced::Refused);
}

#[test]
fn sources_of_one_ipv6_64_share_their_caps() {
    let mut store = store(&Config { infohashes_per_ip: 50, ..Config::default() });
    let host = |n: u16| -> SocketAddr { format!("[2001:db8::{n:x}]:1").parse().unwrap() };
    let kept =
        (0..100).filter(|&n| store.announce(Time::ZERO, &id(n), host(n as u16), false) == Announced::Stored);
    assert_eq!(kept.count(), 50);
    (0..100).for_each(|n| _ = store.announce(Time::ZERO, &id(1), host(n), false));
    assert!(values(&mut store, Time::ZERO, &id(1), all(Family::V6)).len() <= 8);
}

#[test]
fn budget_holds_and_the_stalest_infohashes_go() {
    let config = Config { store_memory: 1 << 20, ..Config::default() };
    let mut store = store(&config);
    let mut rng = Rng::from_seed(2);
    let total = 40_000u32;
    for n in 0..total {
        // A quarter of them with several peers, so that runs have all sizes.
        let now = Time::from_millis(u64::from(n) * 20);
        for _ in 0..if n % 4 == 0 { 1 + rng.below(20) } else { 1 } {
            let announced = store.announce(now, &id(n), peer(rng.next_u32() >> 8, 1), false);
            assert_eq!(announced, Announced::Stored, "{n}");
        }
        assert!(store.memory() <= config.store_memory, "{} at {n}", store.memory());
    }
    assert!(store.memory() > config.store_memory * 9 / 10);
    let now = Time::from_millis(u64::from(total) * 20);
    let left: BTreeSet<Id> = store.iter(now).map(|peer| peer.infohash).collect();
    assert_eq!(left.len(), store.infohashes());
    let newest = (total - 3000..total).filter(|&n| left.contains(&id(n))).count();
    let oldest = (0..total / 2).filter(|&n| left.contains(&id(n))).count();
    assert!(newest > 2900, "{newest} of the newest 3000, {} in all", left.len());
    assert!(oldest < 20, "{oldest} of the older half");
}

#[test]
fn store_too_small_for_anything_refuses() {
    let mut store = store(&Config { store_memory: 100, ..Config::default() });
    assert_eq!(store.announce(Time::ZERO, &id(1), peer(1, 1), false), Announced::Refused);
    assert_eq!(store.memory(), 0);
}

#[test]
fn memory_is_given_back_when_peers_expire() {
    let mut store = store(&Config::default());
    let mut rng = Rng::from_seed(3);
    for n in 0..50_000u32 {
        store.announce(Time::ZERO, &id(n % 5000), peer(rng.next_u32() >> 8, 1), false);
    }
    let full = store.memory();
    store.announce(Time::from_secs(44 * 60), &id(1), peer(1, 1), false);
    let mut now = Time::from_secs(45 * 60);
    while now < Time::from_secs(60 * 60) {
        store.expire(now);
        now = now.max(store.timeout());
    }
    assert_eq!((store.len(), store.infohashes()), (1, 1));
    let sketch = store.filled().sketch.as_ref().map_or(0, Sketch::memory);
    assert!(store.memory() - sketch < full / 50, "{} of {full}", store.memory() - sketch);
}

#[test]
fn silence_of_a_whole_life_forgets_everything() {
    let mut store = store(&Config::default());
    store.announce(Time::ZERO, &id(1), peer(1, 1), false);
    // 32,768 ticks later a stamp would look fresh again.
    let wrapped = Time::from_micros(32_768 << 21);
    assert_eq!(values(&mut store, wrapped, &id(1), all(Family::V4)), []);
    assert!(store.is_empty());
}

/// As after a night in which the machine slept: whoever asks first finds nothing, and what is gone is counted.
#[test]
fn what_a_silence_of_a_whole_life_forgot_is_counted_and_freed_at_once() {
    let mut store = store(&Config::default());
    store.announce(Time::ZERO, &id(1), peer(1, 1), false);
    let now = Time::ZERO + 120 * MINUTE;
    assert_eq!(values(&mut store, now, &id(1), all(Family::V4)), []);
    assert!(store.timeout() <= now);
    assert_eq!(store.expire(now), Lost { peers_expired: 1, ..Lost::default() });
    assert_eq!((store.timeout(), store.full.is_none()), (Time::NEVER, true));
}

#[test]
fn clock_that_goes_back_expires_nothing() {
    let mut store = store(&Config::default());
    store.announce(Time::from_secs(90_000), &id(1), peer(1, 1), false);
    store.expire(Time::from_secs(3_600));
    assert_eq!(values(&mut store, Time::from_secs(3_601), &id(1), all(Family::V4)), [peer(1, 1)]);
}

#[test]
fn filters_take_an_ip_once_and_as_a_seed_if_any_port_is_one() {
    let mut store = store(&Config::default());
    store.announce(Time::ZERO, &id(1), peer(1, 1), false);
    store.announce(Time::ZERO, &id(1), peer(1, 2), true);
    store.announce(Time::ZERO, &id(1), peer(2, 1), false);
    store.announce(Time::ZERO, &id(1), peer(2, 2), false);
    store.announce(Time::ZERO, &id(1), peer6(3, 2), true);
    let scrape = store.scrape(Time::ZERO, &id(1)).unwrap();
    let mut seeds = Bloom::new();
    seeds.insert(peer(1, 0).ip());
    seeds.insert(peer6(3, 0).ip());
    let mut downloaders = Bloom::new();
    downloaders.insert(peer(2, 0).ip());
    assert_eq!(scrape.seeds.as_bytes(), seeds.as_bytes());
    assert_eq!(scrape.downloaders.as_bytes(), downloaders.as_bytes());
    assert!(store.scrape(Time::ZERO, &id(2)).is_none());
    assert!(store.scrape(Time::from_secs(3000), &id(1)).is_none(), "all expired");
}

#[test]
fn infohash_samples_are_different_ones_of_both_families() {
    let mut store = store(&Config::default());
    let mut rng = Rng::from_seed(4);
    assert!(store.sample_infohashes(20, &mut rng).is_empty());
    for n in 0..15 {
        store.announce(Time::ZERO, &id(n), peer(n, 1), false);
        store.announce(Time::ZERO, &id(n + 5), peer6(n as u16, 1), false);
    }
    assert_eq!(store.infohashes(), 20);
    let sample: BTreeSet<_> = store.sample_infohashes(20, &mut rng).into_iter().collect();
    assert_eq!(sample, (0..20).map(id).collect());
    for n in 20..5000 {
        store.announce(Time::ZERO, &id(n), peer(n, 1), false);
    }
    let mut seen = BTreeSet::new();
    for _ in 0..2000 {
        let sample = store.sample_infohashes(20, &mut rng);
        assert_eq!(sample.iter().collect::<BTreeSet<_>>().len(), 20);
        seen.extend(sample);
    }
    assert!(seen.len() > 4900, "{}", seen.len());
}

#[test]
fn same_seed_gives_the_same_store() {
    let run = || {
        let mut store = store(&Config { store_memory: 100_000, ..Config::default() });
        (0..20_000)
            .for_each(|n| _ = store.announce(Time::from_millis(n), &id(n as u32), peer(n as u32, 1), false));
        store.iter(Time::from_secs(20)).collect::<Vec<_>>()
    };
    assert_eq!(run(), run());
}

/// Bytes per peer of a store with ten peers per infohash on the average.
fn bytes_per_peer(infohashes: u32, exactly_ten: bool) -> f64 {
    let mut store = store(&Config::default());
    let mut rng = Rng::from_seed(5);
    for n in 0..infohashes * 10 {
        let infohash = if exactly_ten { n % infohashes } else { rng.below(infohashes as usize) as u32 };
        store.announce(Time::from_millis(u64::from(n)), &id(infohash), peer(n, 6881), false);
    }
    assert_eq!(store.len(), infohashes as usize * 10);
    store.memory() as f64 / store.len() as f64
}

#[test]
fn peer_costs_few_bytes() {
    for exactly_ten in [true, false] {
        let bytes = bytes_per_peer(10_000, exactly_ten);
        assert!(bytes < 24.0, "{bytes}");
    }
}

#[test]
#[ignore = "a million announces take some seconds in a debug build"]
fn peer_costs_at_most_14_bytes_with_a_million_peers() {
    for exactly_ten in [true, false] {
        let bytes = bytes_per_peer(100_000, exactly_ten);
        println!(
            "1,000,000 peers over 100,000 infohashes (exactly ten: {exactly_ten}): {bytes:.2} bytes each"
        );
        assert!(bytes <= 14.0, "{bytes}");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Announce { infohash: u8, ip: u8, port: u8, seed: bool, v6: bool },
    Wait(u16),
    Expire,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..12u8, any::<u8>(), 1..4u8, any::<bool>(), any::<bool>())
            .prop_map(|(infohash, ip, port, seed, v6)| Step::Announce { infohash, ip, port, seed, v6 }),
        2 => (1..400u16).prop_map(Step::Wait),
        2 => Just(Step::Expire),
    ]
}

proptest! {
    #[test]
    fn store_agrees_with_a_plain_map(steps in proptest::collection::vec(step(), 1..400)) {
        let mut store = store(&Config { infohashes_per_ip: 8, ..Config::default() });
        let mut model: BTreeMap<(u8, SocketAddr), (Time, bool)> = BTreeMap::new();
        let mut now = Time::from_secs(50_000);
        // A stamp may be one tick of 2.1 s old when it is made, and a life ends up to two early.
        let (life, slack) = (Duration::from_secs(2700), Duration::from_secs(5));
        for step in steps {
            match step {
                Step::Announce { infohash, ip, port, seed, v6 } => {
                    let addr = if v6 { peer6(ip.into(), port.into()) } else { peer(ip.into(), port.into()) };
                    match store.announce(now, &id(infohash.into()), addr, seed) {
                        Announced::Refreshed => prop_assert!(model.contains_key(&(infohash, addr))),
                        Announced::Stored => {}
                        Announced::Refused => {
                            let others: BTreeSet<u8> = model.keys().filter(|(_, other)| other.ip() == addr.ip())
                                .map(|(infohash, _)| *infohash).collect();
                            prop_assert!(others.len() >= 8, "{:?}", others);
                            continue;
                        }
                    }
                    model.insert((infohash, addr), (now, seed));
                }
                Step::Wait(seconds) => now += Duration::from_secs(seconds.into()),
                Step::Expire => (0..3).for_each(|_| { store.filled().next_sweep = Time::ZERO; store.expire(now); }),
            }
        }
        for infohash in 0..12u8 {
            for family in [Family::V4, Family::V6] {
                let found: BTreeSet<_> = values(&mut store, now, &id(infohash.into()), all(family)).into_iter().collect();
                let of_family = |addr: &SocketAddr| addr.is_ipv4() == (family == Family::V4);
                for (&(_, addr), &(at, _)) in model.iter().filter(|((h, a), _)| *h == infohash && of_family(a)) {
                    let age = now.since(at);
                    if age + slack < life { prop_assert!(found.contains(&addr)); }
                    if age >= life { prop_assert!(!found.contains(&addr)); }
                }
                prop_assert!(found.iter().all(|addr| model.contains_key(&(infohash, *addr))));
            }
        }
        for peer in store.iter(now) {
            let infohash = peer.infohash.as_bytes()[3];
            prop_assert_eq!(model[&(infohash, peer.addr)].1, peer.seed);
        }
        // Not through the store itself, which would drop what is empty before it can be looked at.
        let store = store.filled();
        let infohashes: BTreeSet<Id> =
            store.v4.iter().map(|(id, _)| id).chain(store.v6.iter().map(|(id, _)| id)).collect();
        prop_assert_eq!(store.infohashes(), infohashes.len());
        prop_assert_eq!(store.len(), store.v4.iter().map(|(_, p)| p.len()).sum::<usize>()
            + store.v6.iter().map(|(_, p)| p.len()).sum::<usize>());
        // Nothing is left over when everybody is gone: the counts per source were paired.
        (0..3).for_each(|_| { now += Duration::from_secs(2000); store.next_sweep = Time::ZERO; store.expire(now); });
        prop_assert_eq!(store.len(), 0);
        if let Some(sketch) = &store.sketch {
            prop_assert!((0..=255u32).all(|n| sketch.count(0x5500_0000 + u64::from(n)) == 0));
        }
    }
}
