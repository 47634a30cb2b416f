//! Who gets the id of a node that is in the table, from another address.

use super::*;

/// D6: the id of a questionable node is its own as long as it answers.
#[test]
fn questionable_node_is_pinged_before_another_address_gets_its_id() {
    let config = small();
    let mut table = full_bucket(&config);
    let (old, claim) = (contact(150, 2), Contact { id: id(150, 2), addr: addr("99.1.1.1:1") });
    let now = Time::from_secs(1000);
    assert_eq!(table.insert(now, claim, RTT, &config), Insertion::Candidate { ping: Some(old) });
    assert!(holds(&table, old) && !holds(&table, claim));
    // It is being pinged, however often somebody claims to be it.
    assert_eq!(table.insert(now, claim, RTT, &config), Insertion::Candidate { ping: None });
    assert_eq!(table.candidates(), 1);
    // A claim is to one place: not to that of another node of the bucket.
    let silent = contact(150, 1);
    assert_eq!(table.failed(silent.addr, &config), Failure::Kept);
    assert_eq!(table.failed(silent.addr, &config), Failure::Kept);
    assert_eq!(table.insert(now, old, RTT, &config), Insertion::Known);
    assert!(holds(&table, old) && table.candidates() == 0, "it lives: the claim is void");
    // Half an hour later it is silent: it moved.
    let now = Time::from_secs(2800);
    assert_eq!(table.insert(now, claim, RTT, &config), Insertion::Candidate { ping: Some(old) });
    assert_eq!(table.failed(old.addr, &config), Failure::PingAgain);
    assert_eq!(table.failed(old.addr, &config), Failure::Removed);
    assert!(holds(&table, claim) && !holds(&table, old) && table.candidates() == 0);
}

#[test]
fn bad_node_gives_its_id_away_at_once() {
    let config = small();
    let mut table = full_bucket(&config);
    let (old, claim) = (contact(150, 2), Contact { id: id(150, 2), addr: addr("99.1.1.1:1") });
    table.failed(old.addr, &config);
    table.failed(old.addr, &config);
    assert_eq!(table.insert(Time::from_secs(9), claim, RTT, &config), Insertion::Added);
    assert!(holds(&table, claim) && !holds(&table, old));
}

#[test]
fn id_that_belongs_to_its_address_is_not_claimed_from_another() {
    let config = small();
    let mut table = Table::new(Id::ZERO);
    let secure = secured(contact(160, 1));
    table.insert(Time::from_secs(1), secure, RTT, &config);
    let claim = Contact { addr: addr("99.1.1.1:1"), ..secure };
    let later = Time::from_secs(1800);
    assert_eq!(table.insert(later, claim, RTT, &config), Insertion::Refused);
    table.failed(secure.addr, &config);
    table.failed(secure.addr, &config);
    assert_eq!(table.insert(later, claim, RTT, &config), Insertion::Refused);
    assert!(holds(&table, secure) && table.candidates() == 0);
    // From another port of its address it may be.
    let moved = Contact { addr: addr("81.160.1.1:7000"), ..secure };
    assert_eq!(table.insert(later, moved, RTT, &config), Insertion::Added);
}

#[test]
fn claim_to_an_id_is_no_node_of_its_own_under_another_own_id() {
    let config = small();
    let mut table = full_bucket(&config);
    let claim = Contact { id: id(150, 2), addr: addr("99.1.1.1:1") };
    let now = Time::from_secs(1000);
    table.insert(now, claim, RTT, &config);
    table.rekey(now, Id::new([0x40; 20]), &config);
    assert!(holds(&table, contact(150, 2)) && !holds(&table, claim) && table.candidates() == 0);
    check(&table, &config).unwrap();
}

/// Whoever claims `old`'s id from network `n`.
fn claim_to(old: Contact<V4>, n: u8) -> Contact<V4> {
    Contact { addr: addr(&format!("99.1.{n}.1:1")), ..old }
}

#[test]
fn claims_leave_a_bucket_its_successors() {
    let config = small();
    let mut table = full_bucket(&config);
    let now = Time::from_secs(1000);
    for n in 5..=8 {
        table.insert(now, contact(150, n), RTT, &config);
    }
    assert_eq!(table.candidates(), 4);
    for n in 1..=4 {
        table.insert(now, claim_to(contact(150, n), n), RTT, &config);
    }
    assert_eq!(table.candidates(), 4 + CLAIMS);
    // Nobody claims the place of the first, and somebody else gets it.
    let silent = contact(150, 1);
    assert_eq!(table.failed(silent.addr, &config), Failure::PingAgain);
    assert_eq!(table.failed(silent.addr, &config), Failure::Removed);
    assert!((5..=8).any(|n| holds(&table, contact(150, n))));
}

#[test]
fn who_claims_a_place_gets_it_before_others_who_wait() {
    let config = small();
    let mut table = full_bucket(&config);
    let (now, old) = (Time::from_secs(1000), contact(150, 2));
    let moved = claim_to(old, 1);
    table.insert(now, moved, RTT, &config);
    // More than can wait, and heard of later.
    for n in 5..=12 {
        table.insert(now + Duration::from_secs(u64::from(n)), contact(150, n), RTT, &config);
    }
    assert_eq!(table.candidates(), 5);
    table.failed(old.addr, &config);
    assert_eq!(table.failed(old.addr, &config), Failure::Removed);
    assert!(holds(&table, moved) && table.candidates() == 4);
    // It has the place like anybody else.
    assert!(table.iter().all(|entry| !entry.is_claim()));
}

#[test]
fn claim_of_an_id_that_belongs_to_its_address_is_not_displaced_by_one_that_does_not() {
    let config = small();
    let mut table = Table::new(Id::ZERO);
    let mover = secured(contact(160, 1));
    let old = Contact { addr: addr("99.1.9.1:1"), ..mover };
    table.insert(Time::from_secs(1), old, RTT, &config);
    let now = Time::from_secs(1000);
    assert_eq!(table.insert(now, mover, RTT, &config), Insertion::Candidate { ping: Some(old) });
    let impostor = Contact { addr: addr("99.1.8.1:1"), ..mover };
    assert_eq!(table.insert(now, impostor, RTT, &config), Insertion::Refused);
    table.failed(old.addr, &config);
    assert_eq!(table.failed(old.addr, &config), Failure::Removed);
    assert!(holds(&table, mover) && table.candidates() == 0);
}
