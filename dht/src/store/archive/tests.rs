use std::net::SocketAddr;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::addr::source_key;
use crate::item::{Item, MutableItem, SecretKey, immutable_target, mutable_target};
use crate::store::StoredPeer;
use crate::store::peers::MET;
use crate::{Config, Rng};

const NOW: Time = Time::from_secs(100_000);
const MINUTE: Duration = Duration::from_secs(60);

fn store(config: &Config) -> Store {
    Store::new(&Arc::new(config.clone()), &mut Rng::from_seed(1))
}

/// Announces of the last 40 minutes from random sources, in order; some infohashes get many.
fn filled(seed: u64, announces: usize) -> Store {
    let (mut store, mut rng) = (store(&Config::default()), Rng::from_seed(seed));
    let infohashes: Vec<Id> = (0..announces / 4 + 1).map(|_| rng.id()).collect();
    for n in 0..announces {
        let at = NOW - 40 * MINUTE + 40 * MINUTE * n as u32 / announces as u32;
        let of = rng.below(infohashes.len());
        let infohash = infohashes[rng.below(of + 1)];
        let [a, b, c, d] = rng.next_u32().to_be_bytes();
        let port = 1 + rng.below(60_000) as u16;
        let addr = match rng.below(3) {
            0 => ([0x2001, 0xdb8, u16::from(a), u16::from(b), 0, 0, 0, u16::from(c)], port).into(),
            _ => ([80 + (a & 15), b, c, d], port).into(),
        };
        store.announce(at, &infohash, addr, d & 1 == 0);
    }
    store
}

fn archived(store: &Store) -> Archive {
    let mut archiving = Archiving::default();
    while !store.archive_some(NOW, &mut archiving) {}
    archiving.finish()
}

/// The same in pieces.
fn pieces(store: &Store) -> Vec<Archive> {
    let (mut archiving, mut pieces) = (Archiving::default(), Vec::new());
    loop {
        let is_done = store.archive_some(NOW, &mut archiving);
        pieces.push(archiving.take_piece());
        if is_done {
            assert!(archiving.finish().is_empty());
            return pieces;
        }
    }
}

fn sorted(store: &Store, now: Time) -> Vec<StoredPeer> {
    let mut all: Vec<_> = store.iter(now).collect();
    all.sort_by_key(|peer| (peer.infohash, peer.addr));
    all
}

#[test]
fn everything_comes_back_with_its_age() {
    let before = filled(1, 5000);
    let archive = archived(&before);
    assert_eq!(archive.counts.peers as usize, before.len());
    let mut after = store(&Config::default());
    let counts = after.restore(NOW, &archive, Duration::ZERO, false).unwrap();
    assert_eq!(counts, archive.counts);
    let (old, new) = (sorted(&before, NOW), sorted(&after, NOW));
    assert_eq!(old.len(), new.len());
    for (old, new) in old.iter().zip(&new) {
        assert_eq!((old.infohash, old.addr, old.seed), (new.infohash, new.addr, new.seed));
        // Never younger; a second and two ticks of 2.1 s older at most.
        assert!(new.age >= old.age && new.age <= old.age + Duration::from_secs(6), "{old:?} {new:?}");
    }
    assert_eq!(before.infohashes(), after.infohashes());
    // The sweep goes on from here.
    assert!(after.timeout() <= NOW + 5 * MINUTE);
    let mut now = NOW;
    while now < NOW + 60 * MINUTE {
        now += Duration::from_secs(1);
        after.expire(now);
    }
    assert_eq!((after.len(), after.timeout()), (0, Time::NEVER));
}

#[test]
fn time_away_makes_older_and_expires_and_the_caps_of_today_hold() {
    let before = filled(2, 2000);
    let archive = archived(&before);
    let restored = |config: &Config, away| {
        let mut store = store(config);
        let counts = store.restore(NOW, &archive, away, false).unwrap();
        assert_eq!(counts.peers as usize, store.len());
        store
    };
    let later = restored(&Config::default(), 15 * MINUTE);
    let alive = before.iter(NOW).filter(|peer| peer.age < 30 * MINUTE).count();
    assert!(later.len().abs_diff(alive) < 20, "{} of {alive}", later.len());
    let tick = Duration::from_secs(3);
    assert!(later.iter(NOW).all(|peer| peer.age + tick >= 15 * MINUTE && peer.age < 45 * MINUTE));
    assert_eq!(restored(&Config::default(), 45 * MINUTE).len(), 0);
    assert_eq!(restored(&Config::default(), Duration::MAX).len(), 0);
    let few = restored(&Config { peers_per_infohash: 1, ..Config::default() }, Duration::ZERO);
    assert_eq!(few.len(), before.infohashes());
    let small = restored(&Config { store_memory: 20_000, ..Config::default() }, Duration::ZERO);
    assert!(small.memory() <= 20_000 && !small.is_empty());
    // A clock near its origin cannot tell when they were announced.
    let mut young = store(&Config::default());
    young.restore(Time::from_secs(60), &archive, Duration::ZERO, false).unwrap();
    assert!(young.iter(Time::from_secs(60)).all(|peer| peer.age <= MINUTE));
}

/// Whatever the order in which they come back.
#[test]
fn the_freshest_are_kept_when_not_all_fit() {
    let before = filled(3, 20_000);
    let mut pieces = pieces(&before);
    assert!(pieces.len() > 5);
    let (mut memory, mut small) = (before.memory(), 0);
    while memory > 100_000 {
        memory /= 2;
        for _ in 0..2 {
            pieces.reverse();
            let mut after =
                store(&Config { store_memory: memory, infohashes_per_ip: 0, ..Config::default() });
            for piece in &pieces {
                after.restore(NOW, piece, Duration::ZERO, false).unwrap();
            }
            assert!(after.memory() <= memory && after.memory() * 10 > memory * 8, "{}", after.memory());
            // Where less than half of the peers fit, what is left is much fresher.
            let is_small = after.len() * 2 < before.len();
            let most = if is_small { newest(&before) / 2 } else { newest(&before) };
            assert!(newest(&after) < most, "{} of {}", newest(&after), newest(&before));
            small += u32::from(is_small);
        }
    }
    assert!(small >= 4, "{small}");
}

/// What others announced while the node was away is not what fills it.
#[test]
fn nothing_fresh_goes_for_what_comes_back_into_a_full_store() {
    let config = Config { store_memory: 1 << 18, infohashes_per_ip: 0, ..Config::default() };
    for (seed, peers_each) in [(31, 1), (32, 10), (33, 400)] {
        let filled = |at: Time, first: u8| {
            let (mut store, mut rng) = (store(&config), Rng::from_seed(seed + u64::from(first)));
            let mut infohash = rng.id();
            for n in 0..40_000u32 {
                if n % peers_each == 0 {
                    infohash = rng.id();
                }
                let [_, b, c, d] = n.to_be_bytes();
                store.announce(at, &infohash, ([first, b, c, d], 7).into(), false);
            }
            store
        };
        let old = pieces(&filled(NOW - 20 * MINUTE, 81));
        let mut after = filled(NOW, 91);
        let fresh = sorted(&after, NOW);
        for piece in &old {
            after.restore(NOW, piece, Duration::ZERO, false).unwrap();
        }
        let mut kept = sorted(&after, NOW);
        assert!(after.memory() <= config.store_memory);
        kept.retain(|peer| peer.age < MINUTE);
        assert_eq!(kept, fresh, "{peers_each} each");
    }
}

/// Milliseconds since the newest announce of an infohash, in the mean.
fn newest(store: &Store) -> u128 {
    let mut ages = std::collections::BTreeMap::new();
    for peer in store.iter(NOW) {
        let age = ages.entry(peer.infohash).or_insert(peer.age);
        *age = peer.age.min(*age);
    }
    ages.values().map(Duration::as_millis).sum::<u128>() / ages.len() as u128
}

#[test]
fn pieces_are_bounded_and_their_order_does_not_matter() {
    let mut before = filled(6, 30_000);
    for n in 0..600 {
        let target = immutable_target(format!("i{n}e").as_bytes());
        let source = source_key(([81, 2, (n >> 8) as u8, n as u8], 1).into(), false);
        before.put_item(NOW, target, source, (format!("i{n}e").as_bytes(), None));
    }
    // An infohash that passes what a piece has of others.
    let big = Config { peers_per_infohash: 5000, ..Config::default() };
    let mut huge = store(&big.lifted());
    for n in 0..5000u32 {
        let [_, _, c, d] = n.to_be_bytes();
        huge.announce(
            NOW,
            &Id::new([7; 20]),
            ([0x2001, 0xdb8, c.into(), d.into(), 0, 0, 0, 1], 7).into(),
            false,
        );
    }
    let mut all = pieces(&huge);
    assert_eq!(all.iter().map(|piece| piece.counts.peers).sum::<u64>(), 5000);
    all.extend(pieces(&before));
    let counts = all.iter().fold(Counts::default(), |all, piece| Counts {
        peers: all.peers + piece.counts.peers,
        items: all.items + piece.counts.items,
    });
    assert_eq!((counts.peers as usize, counts.items), (before.len() + huge.len(), 600));
    for piece in &all {
        let parts = [&piece.items, &piece.peers4, &piece.peers6];
        // One more infohash than passes the number, whatever it has.
        let most = PEERS_AT_ONCE * HEAD_LEN + (PEERS_AT_ONCE + 5000) * (V6::LEN + STAMP_LEN);
        assert!(parts.iter().all(|part| part.len() <= most.min(Archive::MAX_PIECE)));
        assert!(parts.iter().filter(|part| !part.is_empty()).count() <= 1);
    }
    let restored = |pieces: &mut dyn Iterator<Item = &Archive>| {
        let mut after = store(&big.lifted());
        pieces.for_each(|piece| _ = after.restore(NOW, piece, MINUTE, false).unwrap());
        let key = |peer: StoredPeer| (peer.infohash, peer.addr, peer.seed, peer.age);
        assert_eq!(after.items(), 600);
        sorted(&after, NOW).into_iter().map(key).collect::<Vec<_>>()
    };
    let forth = restored(&mut all.iter());
    assert_eq!(forth.len(), before.len() + huge.len());
    assert_eq!(forth, restored(&mut all.iter().rev()));
    assert_eq!(forth, restored(&mut all.iter().chain(&all)), "twice is once");
}

#[test]
fn what_is_fresher_is_never_replaced_by_what_comes_back() {
    let config = Config { ports_per_ip: 2, peers_per_infohash: 3, ..Config::default() };
    let infohash = Id::new([1; 20]);
    let peer = |host: u8, port: u16| SocketAddr::from(([81, 2, 3, host], port));
    let mut old = store(&config);
    for (host, port) in [(1, 1), (1, 2), (2, 2), (3, 3)] {
        old.announce(NOW - 30 * MINUTE, &infohash, peer(host, port), true);
    }
    let archive = archived(&old);
    let mut after = store(&config);
    for (host, port) in [(1, 1), (1, 3), (9, 9)] {
        after.announce(NOW - MINUTE, &infohash, peer(host, port), false);
    }
    let before = sorted(&after, NOW);
    after.restore(NOW, &archive, Duration::ZERO, false).unwrap();
    assert_eq!(sorted(&after, NOW), before);
    // The other way round, they make way.
    let mut after = store(&config);
    after.restore(NOW, &archive, Duration::ZERO, false).unwrap();
    for (host, port) in [(1, 1), (1, 3), (9, 9)] {
        after.announce(NOW - MINUTE, &infohash, peer(host, port), false);
    }
    assert_eq!(after.iter(NOW).filter(|peer| peer.age < 2 * MINUTE).count(), 3);
}

/// Small and big infohashes, of both families.
#[test]
fn a_store_that_is_full_comes_back_whole_and_within_the_length_that_its_config_says() {
    let config = Config { store_memory: 1 << 18, infohashes_per_ip: 0, max_items: 20, ..Config::default() };
    for (seed, peers_each) in [(1, 1), (2, 10), (3, 500)] {
        for ipv6 in [false, true] {
            let (mut before, mut rng) = (store(&config), Rng::from_seed(seed));
            let mut infohash = rng.id();
            for n in 0..45_000u32 {
                if n % peers_each == 0 {
                    infohash = rng.id();
                }
                let [a, b, c, d] = n.to_be_bytes();
                let addr: SocketAddr = if ipv6 {
                    ([0x2001, 0xdb8, b.into(), c.into(), 0, 0, 0, d.into()], 7).into()
                } else {
                    ([81 + a, b, c, d], 7).into()
                };
                before.announce(NOW - 30 * MINUTE + n * MINUTE / 2_250, &infohash, addr, false);
            }
            for n in 0..30u8 {
                let value = [&b"900:"[..], &[n; 900]].concat();
                let source = source_key(([81, 2, 3, n], 1).into(), false);
                before.put_item(NOW, immutable_target(&value), source, (&value, None));
            }
            let archive = archived(&before);
            assert!(archive.len() <= Archive::max_len(&config), "{} bytes", archive.len());
            let mut after = store(&config);
            let counts = after.restore(NOW, &archive, Duration::ZERO, false).unwrap();
            assert_eq!((counts, counts.items), (archive.counts, 20), "{peers_each} each, IPv6 {ipv6}");
            assert_eq!(counts.peers as usize, before.iter(NOW).count());
        }
    }
}

/// Looking through the whole run for each peer of it would be two million looks for each infohash.
#[test]
fn a_large_infohash_comes_back_without_a_look_at_each_peer_for_each() {
    let config = Config { infohashes_per_ip: 0, ..Config::default() };
    for ipv6 in [false, true] {
        let (mut before, mut rng) = (store(&config), Rng::from_seed(21));
        for _ in 0..3 {
            let infohash = rng.id();
            for n in 0..2000u16 {
                // Some sources have several ports.
                let ([a, b], port) = ((n / 3).to_be_bytes(), 7 + n % 3);
                let addr = if ipv6 {
                    ([0x2001, 0xdb8, a.into(), b.into(), 0, 0, 0, 1], port).into()
                } else {
                    ([81, 1, a, b], port).into()
                };
                before.announce(NOW - MINUTE, &infohash, addr, n % 2 == 0);
            }
        }
        let pieces = pieces(&before);
        let mut after = store(&config);
        MET.set(0);
        for piece in &pieces {
            after.restore(NOW, piece, Duration::ZERO, false).unwrap();
        }
        assert_eq!((MET.get(), after.len()), (0, before.len()));
        let key = |peer: StoredPeer| (peer.infohash, peer.addr, peer.seed);
        let all = |store: &Store| sorted(store, NOW).into_iter().map(key).collect::<Vec<_>>();
        assert_eq!(all(&before), all(&after));
        // What is there already is compared.
        for piece in &pieces {
            after.restore(NOW, piece, Duration::ZERO, false).unwrap();
        }
        assert!(MET.get() > 0 && after.len() == before.len());
    }
}

/// One record as it might be written by somebody else, with the caps of another day.
#[test]
fn a_record_comes_back_within_the_caps_of_its_infohash() {
    let config = Config { ports_per_ip: 2, peers_per_infohash: 6, infohashes_per_ip: 1, ..Config::default() };
    let record = |infohash: u8, peers: &[(u8, u16, u64)]| {
        let mut bytes = [infohash; 20].to_vec();
        bytes.extend((peers.len() as u16).to_be_bytes());
        for &(host, port, minutes) in peers {
            bytes.extend([81, 2, 3, host]);
            bytes.extend(port.to_be_bytes());
            put_stamp(&mut bytes, Duration::from_secs(60 * minutes), false);
        }
        Archive { peers4: bytes, ..Archive::default() }
    };
    let kept = |store: &Store| {
        let key = |peer: &StoredPeer| (peer.addr.port(), (peer.age.as_secs() + 30) / 60);
        store.iter(NOW).map(|peer| key(&peer)).collect::<std::collections::BTreeSet<_>>()
    };
    let restored = |pieces: &[Archive]| {
        let mut after = store(&config);
        pieces.iter().for_each(|piece| _ = after.restore(NOW, piece, Duration::ZERO, false).unwrap());
        after
    };
    // One peer twice counts once and is as young as it ever was; of three ports, the stalest goes; port 0 is none.
    let one = record(1, &[(1, 10, 9), (1, 11, 8), (1, 12, 7), (2, 20, 6), (2, 20, 5), (3, 0, 1)]);
    assert_eq!(kept(&restored(&[one])), [(11, 8), (12, 7), (20, 5)].into());
    // Of nine, six stay.
    let many: Vec<_> = (1..=9).map(|n| (n, 100 + u16::from(n), u64::from(n))).collect();
    assert_eq!(kept(&restored(&[record(1, &many)])), (1..=6).map(|n| (100 + n, u64::from(n))).collect());
    // Two ports of a source are one infohash of it, and a second infohash is one too many.
    let ports = [(1, 10, 9), (1, 11, 8)];
    let after = restored(&[record(1, &ports), record(2, &ports), record(1, &[(1, 11, 3)])]);
    assert_eq!(kept(&after), [(10, 9), (11, 3)].into());
}

#[test]
fn a_copy_in_pieces_survives_what_happens_between_them() {
    let (mut before, mut rng) = (filled(4, 30_000), Rng::from_seed(4));
    let known: std::collections::BTreeSet<_> =
        before.iter(NOW).map(|peer| (peer.infohash, peer.addr)).collect();
    let mut archiving = Archiving::default();
    let mut pieces = 1;
    while !before.archive_some(NOW, &mut archiving) {
        pieces += 1;
        for _ in 0..20 {
            let addr = ([99, 1, rng.below(256) as u8, rng.below(256) as u8], 7).into();
            let infohash = before.sample_infohashes(1, &mut rng)[0];
            before.announce(NOW, &infohash, addr, false);
        }
    }
    assert!(pieces >= 8, "{pieces}");
    let mut after = store(&Config::default());
    after.restore(NOW, &archiving.finish(), Duration::ZERO, false).unwrap();
    let kept = after.iter(NOW).filter(|peer| known.contains(&(peer.infohash, peer.addr))).count();
    assert!(kept * 100 >= known.len() * 99, "{kept} of {}", known.len());
}

#[test]
fn items_come_back_with_age_and_source_and_forged_ones_do_not() {
    let mut before = store(&Config::default());
    let source = |n: u8| source_key(([81, 2, 3, n], 6881).into(), false);
    let secret = SecretKey::from_seed(&[1; 32]);
    let signed = MutableItem::sign(&secret, b"salt", 4, b"1:a").unwrap();
    let target = mutable_target(&signed.key, b"salt");
    let put = NOW - 30 * MINUTE;
    before.put_item(put, immutable_target(b"5:hello"), source(1), (b"5:hello", None));
    before.put_item(put, target, source(2), (&signed.value, Some(signed.as_signed(None))));
    let archive = archived(&before);
    assert_eq!(archive.counts, Counts { peers: 0, items: 2 });
    let mut after = store(&Config::default());
    assert_eq!(after.restore(NOW, &archive, MINUTE, false), Ok(archive.counts));
    assert_eq!(after.item(NOW, &target), Some(&Item::Mutable(signed.clone())));
    let records: Vec<_> = after.filled().items.records(NOW).map(|(_, age, source)| (age, source)).collect();
    assert_eq!(records, [(31 * MINUTE, source(1)), (31 * MINUTE, source(2))]);
    assert_eq!(store(&Config::default()).restore(NOW, &archive, 90 * MINUTE, false).unwrap().items, 0);

    let mut forged = archive.clone();
    let end = forged.items.len();
    forged.items[end - 1] ^= 1;
    let mut after = store(&Config::default());
    assert_eq!(after.restore(NOW, &forged, MINUTE, false).unwrap().items, 1);
    assert!(after.item(NOW, &target).is_none());
}

#[test]
fn addresses_that_are_refused_today_stay_out() {
    let mut before = store(&Config::default());
    before.announce(NOW, &Id::new([1; 20]), "127.0.0.1:7".parse().unwrap(), false);
    before.announce(NOW, &Id::new([1; 20]), "81.2.3.4:7".parse().unwrap(), false);
    let archive = archived(&before);
    for (allow_local, expected) in [(false, 1), (true, 2)] {
        let restored = store(&Config::default()).restore(NOW, &archive, Duration::ZERO, allow_local);
        assert_eq!(restored.unwrap().peers, expected);
    }
}

#[test]
fn an_archive_that_was_cut_is_damaged() {
    let mut before = filled(5, 50);
    before.put_item(
        NOW,
        immutable_target(b"5:hello"),
        source_key(([81, 2, 3, 4], 1).into(), false),
        (b"5:hello", None),
    );
    let archive = archived(&before);
    let last = |bytes: &[u8]| bytes[..bytes.len() - 1].to_vec();
    for cut in [
        Archive { peers4: last(&archive.peers4), ..archive.clone() },
        Archive { peers6: last(&archive.peers6), ..archive.clone() },
        Archive { items: last(&archive.items), ..archive.clone() },
    ] {
        let mut after = store(&Config::default());
        assert_eq!(after.restore(NOW, &cut, Duration::ZERO, false), Err(Damaged));
        assert!(after.is_empty() && after.items() == 0);
    }
}

proptest! {
    #[test]
    fn bytes_of_any_kind_neither_panic_nor_exceed_the_caps(
        peers4 in proptest::collection::vec(any::<u8>(), 0..600),
        peers6 in proptest::collection::vec(any::<u8>(), 0..600),
        items in proptest::collection::vec(any::<u8>(), 0..600),
        away in any::<u64>(),
        now in any::<u32>(),
    ) {
        let archive = Archive { peers4, peers6, items, counts: Counts::default() };
        let (mut store, now) = (store(&Config::default()), Time::from_secs(now.into()));
        let before = (store.len(), store.items());
        match store.restore(now, &archive, Duration::from_secs(away), true) {
            Ok(counts) => prop_assert_eq!(counts.peers as usize, store.len()),
            Err(Damaged) => prop_assert_eq!((store.len(), store.items()), before),
        }
        store.expire(now);
    }

    #[test]
    fn what_was_stored_is_what_comes_back(seed in any::<u64>(), announces in 0usize..300) {
        let before = filled(seed, announces);
        let archive = archived(&before);
        let mut after = store(&Config::default());
        prop_assert_eq!(after.restore(NOW, &archive, Duration::ZERO, false), Ok(archive.counts));
        let key = |peer: StoredPeer| (peer.infohash, peer.addr, peer.seed);
        let all = |store: &Store| sorted(store, NOW).into_iter().map(key).collect::<Vec<_>>();
        prop_assert_eq!(all(&before), all(&after));
    }
}
