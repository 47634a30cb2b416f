//! Behaviour of the table, and its invariants after any history.

use std::net::SocketAddr;

use proptest::prelude::*;

use super::claims::CLAIMS;
use super::*;
use crate::Rng;
use crate::addr::Family;
use krpc::compact::V4;

mod claims;

const RTT: Duration = Duration::from_millis(90);

fn addr(text: &str) -> V4 {
    V4::from_socket(text.parse().unwrap()).unwrap()
}

/// An id at the given bucket number of an all-zero own id.
fn id(number: u32, salt: u8) -> Id {
    let mut bytes = [0; 20];
    let bit = Id::BITS - number;
    bytes[bit as usize / 8] = 0x80 >> (bit % 8);
    bytes[19] |= salt;
    Id::new(bytes)
}

/// Node `n` of a bucket, each in a network of its own.
fn contact(number: u32, n: u8) -> Contact<V4> {
    Contact { id: id(number, n), addr: addr(&format!("81.{number}.{n}.1:6881")) }
}

fn small() -> Config {
    Config { wide_buckets: Vec::new(), k: 4, ..Config::default() }
}

fn full_bucket(config: &Config) -> Table<V4> {
    let mut table = Table::new(Id::ZERO);
    for n in 1..=4 {
        assert_eq!(
            table.insert(Time::from_secs(u64::from(n)), contact(150, n), RTT, config),
            Insertion::Added
        );
    }
    table
}

fn holds(table: &Table<V4>, contact: Contact<V4>) -> bool {
    table.iter().any(|entry| entry.contact() == contact)
}

#[test]
fn full_bucket_of_trusty_nodes_takes_nobody_in() {
    let config = small();
    let mut table = full_bucket(&config);
    let newcomer = contact(150, 9);
    let insertion = table.insert(Time::from_secs(60), newcomer, RTT, &config);
    assert_eq!(insertion, Insertion::Candidate { ping: None });
    assert!(table.is_full(&newcomer.id, &config) && !holds(&table, newcomer));
    assert_eq!(table.candidates(), 1);
    // Another bucket has room.
    assert_eq!(table.insert(Time::from_secs(60), contact(151, 1), RTT, &config), Insertion::Added);
}

#[test]
fn questionable_node_is_pinged_before_eviction() {
    let config = small();
    let mut table = full_bucket(&config);
    // Half an hour later: the one that was silent longest is in doubt, one at a time.
    let now = Time::from_secs(1800);
    let oldest = contact(150, 1);
    let newcomer = contact(150, 9);
    let insertion = table.insert(now, newcomer, RTT, &config);
    assert_eq!(insertion, Insertion::Candidate { ping: Some(oldest) });
    assert_eq!(
        table.insert(now, contact(150, 10), RTT, &config),
        Insertion::Candidate { ping: Some(contact(150, 2)) }
    );
    // Number 2 answers and stays; number 1 is asked twice and goes, the last candidate comes.
    assert_eq!(table.insert(now, contact(150, 2), RTT, &config), Insertion::Known);
    assert_eq!(table.failed(oldest.addr, &config), Failure::PingAgain);
    assert!(holds(&table, oldest));
    assert_eq!(table.failed(oldest.addr, &config), Failure::Removed);
    assert!(!holds(&table, oldest) && holds(&table, contact(150, 2)));
    assert!(holds(&table, newcomer) || holds(&table, contact(150, 10)));
    assert_eq!((table.len(), table.candidates()), (4, 1));
}

#[test]
fn silent_node_without_successor_stays_for_a_while() {
    let config = small();
    let mut table = full_bucket(&config);
    let node = contact(150, 3);
    for _ in 1..config.drop_after_failures {
        assert_eq!(table.failed(node.addr, &config), Failure::Kept);
    }
    assert_eq!(table.failed(node.addr, &config), Failure::Removed);
    assert_eq!(table.failed(node.addr, &config), Failure::Unknown);
}

#[test]
fn bad_node_gives_way_to_a_newcomer_at_once() {
    let config = small();
    let mut table = full_bucket(&config);
    table.failed(contact(150, 3).addr, &config);
    table.failed(contact(150, 3).addr, &config);
    assert_eq!(table.insert(Time::from_secs(60), contact(150, 9), RTT, &config), Insertion::Added);
    assert!(!holds(&table, contact(150, 3)) && table.len() == 4);
}

#[test]
fn one_node_per_ip_and_two_per_network_in_a_bucket() {
    let config = Config::default();
    let mut table = Table::new(Id::ZERO);
    let now = Time::from_secs(1);
    let mut insert = |number, salt, text: &str| {
        table.insert(now, Contact { id: id(number, salt), addr: addr(text) }, RTT, &config)
    };
    assert_eq!(insert(150, 1, "81.2.3.1:1"), Insertion::Added);
    assert_eq!(insert(151, 1, "81.2.3.1:2"), Insertion::Refused);
    assert_eq!(insert(150, 2, "81.2.3.2:1"), Insertion::Added);
    assert_eq!(insert(150, 3, "81.2.3.3:1"), Insertion::Refused);
    assert_eq!(insert(151, 3, "81.2.3.3:1"), Insertion::Added);
    assert_eq!(insert(150, 4, "81.2.4.1:1"), Insertion::Added);
}

#[test]
fn local_addresses_count_by_port_where_they_are_allowed() {
    let config = Config { allow_local: true, ..Config::default() };
    let mut table = Table::new(Id::ZERO);
    for port in 1..=8 {
        let contact = Contact { id: id(150, port), addr: addr(&format!("127.0.0.1:{port}")) };
        assert_eq!(table.insert(Time::from_secs(1), contact, RTT, &config), Insertion::Added);
    }
}

#[test]
fn id_change_at_an_address_evicts() {
    let config = small();
    let mut table = full_bucket(&config);
    let changed = Contact { id: id(140, 1), addr: contact(150, 2).addr };
    assert_eq!(table.insert(Time::from_secs(9), changed, RTT, &config), Insertion::Evicted);
    assert!(!holds(&table, contact(150, 2)) && !holds(&table, changed));
    // If it still has that id at its next answer, it is a node like any other.
    assert_eq!(table.insert(Time::from_secs(10), changed, RTT, &config), Insertion::Added);
}

#[test]
fn impostor_with_a_trusty_nodes_id_does_not_displace_it() {
    let config = small();
    let mut table = full_bucket(&config);
    let impostor = Contact { id: id(150, 2), addr: addr("99.1.1.1:1") };
    assert_eq!(table.insert(Time::from_secs(9), impostor, RTT, &config), Insertion::Refused);
    assert!(holds(&table, contact(150, 2)));
    assert!(!table.heard(Time::from_secs(9), &impostor));
}

/// The address of `contact`, and an id of its bucket that belongs to it (BEP 42).
fn secured(contact: Contact<V4>) -> Contact<V4> {
    let mut rng = Rng::from_seed(1);
    let ip = contact.addr.to_socket().ip();
    loop {
        let id = crate::secure_id::secure_id(ip, &mut rng);
        if bucket_number(&Id::ZERO, &id) == bucket_number(&Id::ZERO, &contact.id) {
            return Contact { id, ..contact };
        }
    }
}

#[test]
fn newcomer_whose_id_belongs_to_its_address_takes_the_place_of_a_questionable_other() {
    let config = small();
    let mut table = Table::new(Id::ZERO);
    let secure = secured(contact(160, 1));
    let insecure = [contact(160, 2), contact(160, 3), contact(160, 4)];
    table.insert(Time::from_secs(1), secure, RTT, &config);
    for (second, contact) in (2..).zip(insecure) {
        table.insert(Time::from_secs(second), contact, RTT, &config);
    }
    assert_eq!(table.insecure(), 3);
    // Trusty nodes stay, whatever their ids.
    let newcomer = secured(contact(160, 9));
    let minute = Time::from_secs(60);
    assert_eq!(table.insert(minute, newcomer, RTT, &config), Insertion::Candidate { ping: None });
    // Once all are in doubt, the stalest of those whose ids are chosen goes, and not the stalest of all.
    let later = Time::from_secs(1800);
    assert_eq!(table.insert(later, newcomer, RTT, &config), Insertion::Added);
    assert!(holds(&table, secure) && !holds(&table, insecure[0]) && holds(&table, insecure[1]));
    // A newcomer of the other kind waits, as ever.
    let ping = Some(secure);
    assert_eq!(table.insert(later, contact(160, 10), RTT, &config), Insertion::Candidate { ping });
    assert_eq!((table.len(), table.insecure()), (4, 2));
}

#[test]
fn candidates_whose_ids_belong_to_their_addresses_come_first() {
    let config = small();
    let mut table = Table::new(Id::ZERO);
    for n in 1..=4 {
        table.insert(Time::from_secs(1), secured(contact(160, n)), RTT, &config);
    }
    let secure = secured(contact(160, 5));
    table.insert(Time::from_secs(2), secure, RTT, &config);
    // Four wait at most: of those that come after it, the stalest goes.
    for n in 6..=9 {
        table.insert(Time::from_secs(u64::from(n)), contact(160, n), RTT, &config);
    }
    assert_eq!(table.candidates(), 4);
    let silent = secured(contact(160, 2));
    table.failed(silent.addr, &config);
    assert_eq!(table.failed(silent.addr, &config), Failure::Removed);
    assert!(holds(&table, secure));
}

#[test]
fn under_another_own_id_everybody_keeps_a_place_who_finds_one() {
    let config = Config::default();
    let mut rng = Rng::from_seed(4);
    let mut table = Table::new(rng.id());
    for n in 0..2000 {
        let addr = addr(&format!("81.{}.{}.1:6881", n / 256, n % 256));
        table.insert(Time::from_secs(1), Contact { id: rng.id(), addr }, RTT, &config);
    }
    let known: Vec<_> = table.iter().chain(&table.candidates).map(Entry::contact).collect();
    assert!(table.len() > 240 && table.candidates() > 10);
    let own = rng.id();
    table.rekey(Time::from_secs(9), own, &config);
    assert_eq!(*table.own(), own);
    check(&table, &config).unwrap();
    let of_bucket = |at: usize| known.iter().filter(move |c| depth(bucket_number(&own, &c.id)) == at).count();
    for depth in 0..table.bounds.len() {
        let room = capacity(depth, &config.wide_buckets, config.k);
        let kept = table.bounds.range(depth, table.len()).len();
        assert_eq!(kept, of_bucket(depth).min(room), "bucket at depth {depth}");
    }
    assert!(table.len() > 200, "{} nodes", table.len());
}

#[test]
fn trusty_nodes_come_first_to_the_places_under_another_own_id() {
    let config = Config { wide_buckets: vec![2], k: 8, ..Config::default() };
    let mut table = Table::new(Id::ZERO);
    let (stale, fresh) = (contact(159, 1), [contact(159, 2), contact(158, 3)]);
    table.insert(Time::from_secs(1), stale, RTT, &config);
    for contact in fresh {
        table.insert(Time::from_secs(1000), contact, RTT, &config);
    }
    // Seen from the far half, all three are of the far half, which has two places.
    table.rekey(Time::from_secs(1001), Id::new([0xff; 20]), &config);
    assert!(fresh.iter().all(|&contact| holds(&table, contact)) && !holds(&table, stale));
    assert_eq!((table.len(), table.candidates()), (2, 1));
    // Whoever waits was not forgotten.
    table.failed(fresh[0].addr, &config);
    table.failed(fresh[0].addr, &config);
    assert!(holds(&table, stale));
}

#[test]
fn own_id_never_enters() {
    let config = small();
    let mut table = Table::new(Id::ZERO);
    let own = Contact { id: Id::ZERO, addr: addr("81.2.3.4:1") };
    assert_eq!(table.insert(Time::ZERO, own, RTT, &config), Insertion::Refused);
    assert!(!table.wants(Time::ZERO, &own, &config));
}

#[test]
fn far_buckets_are_wide() {
    let config = Config::default();
    let mut table = Table::new(Id::ZERO);
    for n in 0..200u8 {
        for number in [160, 157, 156] {
            table.insert(Time::ZERO, contact(number, n), RTT, &config);
        }
    }
    let in_bucket = |number| table.iter().filter(|e| bucket_number(&Id::ZERO, &e.id) == number).count();
    assert_eq!([160, 157, 156].map(in_bucket), [128, 16, 8]);
    assert_eq!(table.candidates(), 12);
}

#[test]
fn stalest_bucket_is_refreshed_first_down_to_the_deepest_that_holds_a_node() {
    let config = small();
    let mut table = Table::<V4>::new(Id::ZERO);
    assert_eq!(table.next_refresh(&config), None);
    table.insert(Time::from_secs(100), contact(158, 1), RTT, &config);
    table.insert(Time::from_secs(50), contact(160, 1), RTT, &config);
    // Bucket 159 is empty and exists since 158 does; 160 changed last by the clock that went back.
    let (number, due) = table.next_refresh(&config).unwrap();
    assert_eq!((number, due), (160, Time::from_secs(950)));
    assert!(table.is_fresh(Time::from_secs(949), 160, &config));
    assert!(!table.is_fresh(Time::from_secs(950), 160, &config));
    table.refreshing(Time::from_secs(950), 160);
    assert_eq!(table.next_refresh(&config).unwrap().1, Time::from_secs(1000));
    assert_eq!(table.buckets(), 3);
}

#[test]
fn size_of_the_network_is_told_by_the_density_of_the_neighbourhood() {
    let config = Config { nodes_per_subnet_per_bucket: 0, ..Config::default() }.lifted();
    let mut rng = Rng::from_seed(1);
    for nodes in [50u32, 1000, 30_000] {
        let mut table = Table::new(Id::ZERO);
        assert_eq!(table.network_size(&config), 0);
        for n in 0..nodes {
            let addr = SocketAddr::from((std::net::Ipv4Addr::from(0x5100_0000 + n), 1));
            let contact = Contact { id: rng.id(), addr: V4::from_socket(addr).unwrap() };
            table.insert(Time::from_secs(1), contact, RTT, &config);
        }
        let size = table.network_size(&config);
        assert!((nodes / 4..=nodes * 4).contains(&(size as u32)), "{size} for {nodes}");
    }
}

/// What can happen to a table, on few enough ids and addresses that they meet.
#[derive(Clone, Debug)]
enum Happening {
    Answer(u8, u8, u16),
    Query(u8, u8, u16),
    Silence(u8, u16),
    Lie(u8, u16),
    Doubt,
    Move(u8),
    Wait(u16),
}

fn happening() -> impl Strategy<Value = Happening> {
    let host = || (any::<u8>(), 0..3u16);
    prop_oneof![
        6 => (any::<u8>(), host()).prop_map(|(id, (ip, port))| Happening::Answer(id, ip, port)),
        2 => (any::<u8>(), host()).prop_map(|(id, (ip, port))| Happening::Query(id, ip, port)),
        3 => host().prop_map(|(ip, port)| Happening::Silence(ip, port)),
        1 => host().prop_map(|(ip, port)| Happening::Lie(ip, port)),
        1 => Just(Happening::Doubt),
        1 => any::<u8>().prop_map(Happening::Move),
        1 => (0..2000u16).prop_map(Happening::Wait),
    ]
}

fn any_id(n: u8) -> Id {
    // Low n: near our own id; the rest in the far buckets.
    let mut bytes = [0; 20];
    bytes[usize::from(n % 3)] = n;
    bytes[19] = 1;
    Id::new(bytes)
}

fn any_addr(ip: u8, port: u16) -> V4 {
    // Sixteen networks of sixteen hosts.
    V4::from_socket(SocketAddr::from(([81, 2, ip >> 4, ip & 15], 1 + port))).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn invariants_hold_after_any_history(history in prop::collection::vec(happening(), 1..250), local: bool) {
        let config = Config { k: 3, wide_buckets: vec![6, 4], allow_local: local, ..Config::default() };
        let mut table = Table::new(Id::ZERO);
        let mut now = Time::from_secs(1);
        for happening in history {
            match happening {
                Happening::Answer(id, ip, port) => {
                    let contact = Contact { id: any_id(id), addr: any_addr(ip, port) };
                    let insertion = table.insert(now, contact, RTT, &config);
                    let has = table.iter().any(|entry| entry.contact() == contact);
                    prop_assert_eq!(has, matches!(insertion, Insertion::Known | Insertion::Added));
                }
                Happening::Query(id, ip, port) => {
                    let before = table.len();
                    table.heard(now, &Contact { id: any_id(id), addr: any_addr(ip, port) });
                    prop_assert_eq!(table.len(), before);
                }
                Happening::Silence(ip, port) => {
                    table.failed(any_addr(ip, port), &config);
                }
                Happening::Lie(ip, port) => {
                    table.evict(any_addr(ip, port), &Id::ZERO);
                    prop_assert!(table.iter().all(|entry| entry.addr != any_addr(ip, port)));
                }
                Happening::Doubt => {
                    table.ping_most_questionable(now, &config);
                }
                Happening::Move(id) => {
                    let before = table.len() + table.candidates();
                    table.rekey(now, any_id(id), &config);
                    prop_assert!(table.len() + table.candidates() <= before);
                }
                Happening::Wait(seconds) => now += Duration::from_secs(u64::from(seconds)),
            }
            check(&table, &config)?;
        }
        for n in 0..16 {
            let target = any_id(n * 16);
            let mut all: Vec<_> = table.iter().map(|entry| entry.id).collect();
            all.sort_by_key(|id| id.distance(&target));
            all.truncate(5);
            let closest: Vec<_> = table.closest(&target, 5, |_| true).map(|node| node.id).collect();
            prop_assert_eq!(closest, all);
        }
    }
}

fn check(table: &Table<V4>, config: &Config) -> Result<(), TestCaseError> {
    let all: Vec<_> = table.iter().collect();
    let mut counted = 0;
    for depth in 0..table.bounds.len() {
        let bucket = &all[table.bounds.range(depth, all.len())];
        counted += bucket.len();
        prop_assert!(bucket.len() <= capacity(depth, &config.wide_buckets, config.k));
        for entry in bucket {
            prop_assert_eq!(table.depth_of(&entry.id), depth);
            let network = subnet_key(entry.addr.to_socket(), config.allow_local);
            let same =
                bucket.iter().filter(|e| subnet_key(e.addr.to_socket(), config.allow_local) == network);
            prop_assert!(same.count() <= config.nodes_per_subnet_per_bucket);
        }
        for (is_claim, most) in [(false, config.candidates_per_bucket), (true, CLAIMS)] {
            let waiting = table
                .candidates
                .iter()
                .filter(|e| e.is_claim() == is_claim && table.depth_of(&e.id) == depth);
            prop_assert!(waiting.count() <= most);
        }
    }
    prop_assert_eq!(counted, all.len());
    prop_assert!(all.iter().all(|entry| !entry.is_claim()));
    for (index, entry) in all.iter().enumerate() {
        for other in &all[index + 1..] {
            prop_assert!(entry.id != other.id && !same_source(entry.addr, other.addr, config));
        }
        prop_assert!(table.candidates.iter().all(|candidate| candidate.addr != entry.addr));
    }
    for (index, candidate) in table.candidates.iter().enumerate() {
        prop_assert!(table.candidates[index + 1..].iter().all(|other| other.id != candidate.id));
    }
    Ok(())
}

#[test]
fn of_nodes_about_as_near_the_quicker_start_a_lookup() {
    let config = Config::default();
    let mut table = FamilyTable::new(Family::V4, Id::new([0xff; 20]));
    // Eleven and ten bits of the target, by time of their answers.
    let nodes = [(149, 1, 300), (149, 2, 60), (150, 3, 20), (150, 4, 200)];
    for (number, n, millis) in nodes {
        let Contact { id, addr } = contact(number, n);
        let rtt = Duration::from_millis(millis);
        assert_eq!(table.insert(Time::from_secs(1), id, addr.to_socket(), rtt, &config), Insertion::Added);
    }
    let ids = |count| table.quickest(&Id::ZERO, count, &config).into_iter().map(|(id, _)| id);
    assert!(ids(1).eq([id(150, 3)]), "a bit is worth 12 ms, not 40");
    assert!(ids(2).eq([id(149, 2), id(150, 3)]), "the nearer one first");
    assert!(ids(3).eq([id(149, 2), id(150, 3), id(150, 4)]));
    assert!(ids(4).eq([id(149, 1), id(149, 2), id(150, 3), id(150, 4)]));
}
