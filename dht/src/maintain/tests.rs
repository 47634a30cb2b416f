use super::*;
use crate::{Home, Seeds};

/// A home that knows nobody, with one router, and its upkeep.
fn lonely(seed: u64, config: &Config) -> (Maintain, Vec<Place>) {
    let mut rng = Rng::new(Seeds::from_u64(seed));
    let local = SocketAddr::from(([81, 2, 69, 142], 6881));
    let home = Home { id: rng.id(), local, external: None, saved: Vec::new() };
    let places = vec![Place::new(Time::ZERO, home, config, &mut rng)];
    let mut maintain = Maintain::new(Time::ZERO, 1, config, rng);
    maintain.set_routers(Time::ZERO, vec![([82, 1, 2, 3], 6881).into()], &places, config);
    (maintain, places)
}

/// When bootstraps begin that nobody answers, until `end`.
fn attempts(seed: u64, end: Time, config: &Config) -> Vec<Time> {
    let (mut maintain, mut places) = lonely(seed, config);
    let mut begun = Vec::new();
    while maintain.timeout() <= end {
        let now = maintain.timeout();
        while let Some(chore) = maintain.next_chore(now, &mut places, config) {
            if let Chore::Bootstrap { with_routers, .. } = chore {
                assert!(with_routers);
                begun.push(now);
            }
        }
    }
    begun
}

/// Routers that are told again, as names are looked up again, are no reason to hurry; a new one is.
#[test]
fn only_a_new_router_ends_the_pause_before_the_next_bootstrap() {
    let config = Config::default();
    let (mut maintain, mut places) = lonely(1, &config);
    let mut bootstraps = |maintain: &mut Maintain, now| {
        let mut begun = 0;
        while let Some(chore) = maintain.next_chore(now, &mut places, &config) {
            begun += u32::from(matches!(chore, Chore::Bootstrap { .. }));
        }
        begun
    };
    let mut now = Time::ZERO;
    while now < Time::from_secs(600) {
        bootstraps(&mut maintain, now);
        now = maintain.timeout();
    }
    bootstraps(&mut maintain, now);
    let (_, places_of_nobody) = lonely(1, &config);
    let (old, new) = (([82, 1, 2, 3], 6881).into(), ([82, 1, 2, 4], 6881).into());
    let later = now + Duration::from_secs(1);
    maintain.set_routers(later, vec![old], &places_of_nobody, &config);
    assert_eq!(bootstraps(&mut maintain, later), 0);
    maintain.set_routers(later, vec![new, old], &places_of_nobody, &config);
    assert_eq!(bootstraps(&mut maintain, later), 1);
    let later = later + Duration::from_millis(100);
    maintain.set_routers(later, vec![old, new], &places_of_nobody, &config);
    assert_eq!(bootstraps(&mut maintain, later), 0);
}

// S17
#[test]
fn bootstraps_in_vain_begin_one_second_apart_and_back_off_to_sixty() {
    let config = Config::default();
    let seeds: Vec<Vec<Duration>> = (1..=20)
        .map(|seed| {
            let begun = attempts(seed, Time::from_secs(20 * 60), &config);
            begun.windows(2).map(|pair| pair[1].since(pair[0])).collect()
        })
        .collect();
    for pauses in &seeds {
        assert!(pauses.len() > 20, "{pauses:?}");
        for (n, &pause) in pauses.iter().enumerate() {
            // 1, 2, 4 … 60 seconds, or up to a third less.
            let longest = Duration::from_secs(1 << n.min(10)).min(config.bootstrap_retry_max);
            let shortest = (longest * 2 / 3).max(config.bootstrap_retry_min);
            assert!(shortest >= Duration::from_secs(1));
            assert!((shortest..=longest).contains(&pause), "attempt {n}: {pauses:?}");
        }
    }
    // Who lost the network together does not come back in step.
    for n in 1..20 {
        let of_all = seeds.iter().map(|pauses| pauses[n]);
        let spread = of_all.clone().max().unwrap() - of_all.min().unwrap();
        let longest = Duration::from_secs(1 << n.min(10)).min(config.bootstrap_retry_max);
        assert!(spread >= longest / 6, "attempt {n}: {spread:?}");
    }
}
