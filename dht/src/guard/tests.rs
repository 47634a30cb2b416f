use std::net::Ipv4Addr;

use super::*;

const A: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(81, 2, 3, 4)), 6881);

fn guard(config: &Config) -> Guard {
    Guard::new(&Arc::new(config.clone()), &mut Rng::from_seed(1))
}

fn other(n: u32) -> SocketAddr {
    (Ipv4Addr::from(0x5500_0000 + n), 6881).into()
}

#[test]
fn scrapes_have_one_budget_for_all_sources_and_0_lifts_it() {
    let mut limited = guard(&Config { scrapes_per_second: 5, ..Config::default() });
    let allowed = |guard: &mut Guard, now| (0..1000).filter(|_| guard.allow_scrape(now)).count();
    assert_eq!(allowed(&mut limited, Time::from_secs(9)), 5);
    assert_eq!(allowed(&mut limited, Time::from_millis(9_400)), 2);
    assert_eq!(allowed(&mut limited, Time::from_secs(60)), 5);
    let mut lifted = guard(&Config { scrapes_per_second: 0, ..Config::default() });
    assert_eq!(allowed(&mut lifted, Time::from_secs(9)), 1000);
}

#[test]
fn datagrams_are_judged_by_length_brackets_and_address() {
    let guard = guard(&Config::default());
    let ping = b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe";
    assert_eq!(guard.admit(A, ping), Admission::Admitted);
    assert_eq!(guard.admit(A, b"d1:t0:1:y1:qe"), Admission::BadLength);
    assert_eq!(guard.admit(A, b""), Admission::BadLength);
    assert_eq!(guard.admit(A, &[b'd'; 2049]), Admission::BadLength);
    assert_eq!(guard.admit(A, &ping[1..]), Admission::NotDictionary);
    assert_eq!(guard.admit(A, &ping[..ping.len() - 1]), Admission::NotDictionary);
    assert_eq!(guard.admit("81.2.3.4:0".parse().unwrap(), ping), Admission::BadAddress);
    assert_eq!(guard.admit("127.0.0.1:1".parse().unwrap(), ping), Admission::BadAddress);
    let local = Config { allow_local: true, ..Config::default() };
    assert_eq!(self::guard(&local).admit("127.0.0.1:1".parse().unwrap(), ping), Admission::Admitted);
}

#[test]
fn one_source_gets_its_burst_and_then_25_a_second_while_others_are_untouched() {
    let mut guard = guard(&Config::default());
    let (mut first, mut later, mut denied_others) = (0, 0, 0);
    for step in 0..100_000u64 {
        // 10,000 a second for ten seconds, and a hundred others at 20 a second each.
        let now = Time::from_micros(1_000_000 + step * 100);
        let allowed = u32::from(guard.allow_reply(now, A, 288));
        if step < 10_000 {
            first += allowed;
        } else {
            later += allowed;
        }
        if step % 5 == 0 {
            denied_others += u32::from(!guard.allow_reply(now, other((step / 5 % 100) as u32), 288));
        }
    }
    assert!((74..=76).contains(&first), "{first} in the first second");
    assert!((224..=226).contains(&later), "{later} in nine seconds");
    assert_eq!(denied_others, 0);
}

#[test]
fn asking_beforehand_agrees_with_the_verdict_and_takes_nothing() {
    let mut guard = guard(&Config::default());
    let mut rng = Rng::from_seed(9);
    let mut now = Time::from_secs(5);
    let mut seen = [0; 2];
    for _ in 0..5_000 {
        now += std::time::Duration::from_micros(rng.below(40_000) as u64);
        let source = other(rng.below(1) as u32);
        let exhausted = guard.is_exhausted(now, source);
        assert_eq!(guard.is_exhausted(now, source), exhausted);
        assert_eq!(guard.allow_reply(now, source, 100), !exhausted);
        seen[usize::from(exhausted)] += 1;
    }
    assert!(seen[0] > 1000 && seen[1] > 100, "{seen:?}");
}

#[test]
fn limit_per_source_is_by_address_and_by_64() {
    let config = Config { reply_burst_per_ip: 1, ..Config::default() };
    let mut guard = guard(&config);
    let now = Time::from_secs(1);
    let mut allow = |text: &str| guard.allow_reply(now, text.parse().unwrap(), 1);
    assert!(allow("8.8.8.8:1") && !allow("8.8.8.8:2") && allow("8.8.8.9:1"));
    assert!(allow("[2001:db8::1]:1") && !allow("[2001:db8::2]:1") && allow("[2001:db8:0:1::1]:1"));
}

#[test]
fn local_addresses_are_limited_by_port_when_allowed() {
    let config = Config { reply_burst_per_ip: 1, allow_local: true, ..Config::default() };
    let mut guard = guard(&config);
    let mut allow = |port| guard.allow_reply(Time::from_secs(1), ([127, 0, 0, 1], port).into(), 1);
    assert!(allow(1) && allow(2) && !allow(1) && !allow(2));
}

#[test]
fn flood_of_forged_sources_does_not_silence_an_honest_one() {
    let mut guard = guard(&Config { reply_bytes_per_second: 0, ..Config::default() });
    guard.allow_reply(Time::ZERO, other(0), 288);
    let before = guard.memory();
    let mut denied = 0;
    for n in 0..1_000_000u32 {
        // A million sources at 100,000 a second; an honest one asks 20 times a second.
        let now = Time::from_micros(u64::from(n) * 10);
        guard.allow_reply(now, other(n + 1), 288);
        if n % 5_000 == 0 {
            denied += u32::from(!guard.allow_reply(now, A, 288));
        }
    }
    assert_eq!(denied, 0);
    assert_eq!(guard.memory(), before);
    assert_eq!(before, 16_384 * 16);
}

#[test]
fn source_at_its_limit_stays_known_while_forged_sources_pass() {
    let mut guard = guard(&Config { reply_bytes_per_second: 0, ..Config::default() });
    let mut allowed = 0;
    for n in 0..200_000u32 {
        let now = Time::from_micros(u64::from(n) * 10);
        guard.allow_reply(now, other(n), 288);
        allowed += u32::from(guard.allow_reply(now, A, 288));
    }
    // Two seconds: a burst of 50 and 50 more. Whoever owes most is forgotten last.
    assert!(allowed <= 101, "{allowed}");
}

#[test]
fn all_sources_together_get_the_byte_budget() {
    let mut guard = guard(&Config { reply_bytes_per_second: 1_000_000, ..Config::default() });
    let mut bytes = 0;
    for n in 0..100_000u32 {
        let now = Time::from_micros(u64::from(n) * 100);
        bytes += if guard.allow_reply(now, other(n), 300) { 300 } else { 0 };
    }
    // Ten seconds and a burst of a quarter of a second.
    assert!((10_200_000..=10_300_000).contains(&bytes), "{bytes}");
}

#[test]
fn zero_lifts_each_limit() {
    let config = Config {
        replies_per_second_per_ip: 0,
        reply_bytes_per_second: 0,
        failed_tokens_per_minute: 0,
        ..Config::default()
    };
    let mut guard = guard(&config);
    assert_eq!(guard.memory(), 0);
    assert!((0..100_000).all(|_| guard.allow_reply(Time::ZERO, A, 1024)));
    assert!((0..100_000).all(|_| guard.token_failed(Time::ZERO, A)));
    assert!(!guard.is_exhausted(Time::ZERO, A));
}

#[test]
fn eleventh_failed_token_in_a_minute_gets_silence() {
    let mut guard = guard(&Config::default());
    let now = Time::from_secs(100);
    assert_eq!((0..50).filter(|_| guard.token_failed(now, A)).count(), 10);
    assert!(guard.token_failed(now, other(1)));
    assert!(guard.allow_reply(now, A, 300), "replies are another matter");
    let later = now + std::time::Duration::from_secs(60);
    assert_eq!((0..50).filter(|_| guard.token_failed(later, A)).count(), 10);
}

#[test]
fn clock_that_goes_back_far_silences_nobody_and_a_little_forgives_nothing() {
    let mut guard = guard(&Config { reply_bytes_per_second: 10_000, ..Config::default() });
    let replies = |guard: &mut Guard, secs| {
        (0..100).filter(|_| guard.allow_reply(Time::from_secs(secs), A, 50)).count()
    };
    let (later, day) = (1_000_000, 86_400);
    assert_eq!(replies(&mut guard, later), 50);
    assert_eq!(replies(&mut guard, later - 30), 0);
    assert!(guard.is_exhausted(Time::from_secs(later - 30), A));
    assert!(!guard.is_exhausted(Time::from_secs(later - day), A));
    assert_eq!(replies(&mut guard, later - day), 50);
    assert_eq!(replies(&mut guard, later - day + 1), 25, "and counts on from there");
}
