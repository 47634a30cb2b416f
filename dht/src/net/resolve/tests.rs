use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::sync::mpsc;

use super::*;

const BOTH: Families = Families { ipv4: true, ipv6: true };

fn routers(list: &[&str], families: Families) -> Result<Routers, Error> {
    Routers::new(&list.iter().map(ToString::to_string).collect::<Vec<_>>(), families)
}

#[test]
fn addresses_need_no_resolver_and_keep_their_order() {
    let list = ["192.0.2.2:6881", "[2001:db8::1]:6881", "192.0.2.1:1", "192.0.2.2:6881"];
    let all = routers(&list, BOTH).unwrap().addresses();
    assert_eq!(all.iter().map(ToString::to_string).collect::<Vec<_>>(), list[..3]);
    let four = routers(&list, Families { ipv4: true, ipv6: false }).unwrap();
    assert!(four.addresses().iter().all(SocketAddr::is_ipv4));
}

#[tokio::test]
async fn mapped_address_is_of_the_family_that_it_means() {
    let four = Families { ipv4: true, ipv6: false };
    let expected = ["192.0.2.1:9".parse().unwrap()];
    assert_eq!(routers(&["[::ffff:192.0.2.1]:9"], four).unwrap().addresses(), expected);
    assert_eq!(lookup("[::ffff:192.0.2.1]:9").await.unwrap(), expected);
}

#[test]
fn a_router_without_a_port_is_refused() {
    for bad in ["192.0.2.1", "host:", "host:0", ":7", "host:99999", ""] {
        assert!(matches!(routers(&[bad], BOTH), Err(Error::Router { .. })), "{bad}");
    }
}

/// Names that resolve to what the table says, in which an empty list is a failure, and how often each
/// was asked for.
#[derive(Clone, Default)]
struct Resolver(Arc<Mutex<BTreeMap<String, Known>>>);

#[derive(Default)]
struct Known {
    addrs: Vec<SocketAddr>,
    asked: u32,
}

impl Resolver {
    fn set(&self, name: &str, addrs: &[&str]) {
        let addrs = addrs.iter().map(|addr| addr.parse().unwrap()).collect();
        self.0.lock().unwrap().entry(name.into()).or_default().addrs = addrs;
    }

    fn asked(&self, name: &str) -> u32 {
        self.0.lock().unwrap().get(name).map_or(0, |known| known.asked)
    }

    fn lookup(&self, name: String) -> std::future::Ready<Result<Vec<SocketAddr>, Error>> {
        let mut table = self.0.lock().unwrap();
        let entry = table.entry(name.clone()).or_default();
        entry.asked += 1;
        let source = std::io::ErrorKind::NotFound.into();
        let found = Some(entry.addrs.clone()).filter(|addrs| !addrs.is_empty());
        std::future::ready(found.ok_or(Error::Resolve { name, source }))
    }
}

/// The resolving of `list` as a task on the paused clock: what it tells, and the node's end of it.
fn start(
    list: &[&str],
    resolver: &Resolver,
) -> (mpsc::UnboundedReceiver<Vec<SocketAddr>>, watch::Sender<Condition>) {
    let (sender, told) = mpsc::unbounded_channel();
    let (condition, receiver) = watch::channel(Condition { is_lonely: true, changes: 0 });
    let (routers, resolver) = (routers(list, BOTH).unwrap(), resolver.clone());
    let lookup = move |name| resolver.lookup(name);
    let news = move |addrs| std::future::ready(sender.send(addrs).is_ok());
    tokio::spawn(routers.resolve(Rng::from_seed(1), receiver, lookup, news));
    (told, condition)
}

fn addrs(list: &[&str]) -> Vec<SocketAddr> {
    list.iter().map(|addr| addr.parse().unwrap()).collect()
}

/// S17, a start behind a captive portal, whose resolver answers every name with its own address.
#[tokio::test(start_paused = true)]
async fn what_a_portal_said_is_replaced_while_the_node_has_not_bootstrapped() {
    let (resolver, names) = (Resolver::default(), ["a.invalid:1", "b.invalid:2"]);
    resolver.set(names[0], &["192.0.2.9:1"]);
    resolver.set(names[1], &["192.0.2.9:2"]);
    let (mut told, condition) = start(&names, &resolver);
    assert_eq!(told.recv().await.unwrap().len(), 1);
    assert_eq!(told.recv().await.unwrap(), addrs(&["192.0.2.9:1", "192.0.2.9:2"]));
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let asked = resolver.asked(names[0]);
    assert!((55..=90).contains(&asked), "about once a minute: {asked}");

    let left = Instant::now();
    resolver.set(names[0], &["203.0.113.1:1"]);
    resolver.set(names[1], &["203.0.113.2:2", "203.0.113.3:2"]);
    // What was known already is replaced at once.
    let expected = addrs(&["203.0.113.1:1", "203.0.113.2:2", "203.0.113.3:2"]);
    assert_eq!(told.recv().await.unwrap(), expected);
    assert!(left.elapsed() <= Duration::from_secs(76), "{:?}", left.elapsed());

    // Once it has bootstrapped, what it knows is good.
    condition.send_replace(Condition { is_lonely: false, changes: 0 });
    let asked = resolver.asked(names[0]);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(resolver.asked(names[0]), asked);

    // Nobody answers any more, and the names have moved.
    resolver.set(names[0], &["203.0.113.4:1"]);
    condition.send_replace(Condition { is_lonely: true, changes: 0 });
    assert!(told.recv().await.unwrap().contains(&"203.0.113.4:1".parse().unwrap()));
}

/// S17, a portal that knows of IPv4 only, as most do: the resolver tells the true IPv6 address all the while.
#[tokio::test(start_paused = true)]
async fn what_a_portal_said_of_one_family_is_replaced_whatever_the_other_is() {
    let (resolver, name) = (Resolver::default(), "a.invalid:1");
    for (portal, real) in [
        (["192.0.2.9:1", "[2001:db8::1]:1"], ["203.0.113.1:1", "[2001:db8::1]:1"]),
        (["192.0.2.9:1", "[2001:db8::9]:1"], ["192.0.2.9:1", "[2001:db8::1]:1"]),
    ] {
        resolver.set(name, &portal);
        let (mut told, _condition) = start(&[name], &resolver);
        assert_eq!(told.recv().await.unwrap(), addrs(&portal));
        tokio::time::sleep(Duration::from_secs(120)).await;
        resolver.set(name, &real);
        let left = Instant::now();
        assert_eq!(told.recv().await.unwrap(), addrs(&real));
        assert!(left.elapsed() <= Duration::from_secs(76), "{:?}", left.elapsed());
    }
}

/// The name has moved, and only the addresses of one family could be had: the other may be the one with a way out.
#[tokio::test(start_paused = true)]
async fn a_family_that_is_not_told_is_kept_when_the_other_has_moved() {
    let (resolver, name) = (Resolver::default(), "a.invalid:1");
    resolver.set(name, &["192.0.2.1:1", "[2001:db8::1]:1"]);
    let (mut told, _condition) = start(&[name], &resolver);
    told.recv().await.unwrap();
    let mut many: Vec<String> = (1..=8).map(|n| format!("203.0.113.{n}:1")).collect();
    resolver.set(name, &many.iter().map(String::as_str).collect::<Vec<_>>());
    many.push("[2001:db8::1]:1".into());
    let expected = addrs(&many.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(told.recv().await.unwrap(), expected);
    // Told in turn, they are both known.
    resolver.set(name, &["[2001:db8::1]:1"]);
    let quiet = tokio::time::timeout(Duration::from_secs(3600), told.recv()).await;
    assert!(quiet.is_err(), "{quiet:?}");
}

#[test]
fn addresses_of_a_family_without_a_socket_do_not_pile_up() {
    let mut routers = routers(&["a.invalid:1"], Families { ipv4: true, ipv6: false }).unwrap();
    for n in 1..=10 {
        let told = addrs(&[&format!("192.0.2.{n}:1"), "[2001:db8::1]:1"]);
        assert!(routers.known[0].take(told, routers.families));
        assert_eq!(routers.known[0].addrs.len(), 2);
    }
}

/// A resolver that leaves out a family now and then: what is known of it is as good as ever.
#[tokio::test(start_paused = true)]
async fn a_family_that_comes_and_goes_is_seldom_news() {
    let (asked, told) = (Cell::new(0), Cell::new(0));
    let lookup = |_| {
        asked.set(asked.get() + 1);
        let all = addrs(&["192.0.2.1:1", "[2001:db8::1]:1"]);
        std::future::ready(Ok(all[..1 + asked.get() % 2].to_vec()))
    };
    let (_sender, receiver) = watch::channel(Condition { is_lonely: true, changes: 0 });
    let news = |_| {
        told.set(told.get() + 1);
        std::future::ready(true)
    };
    let one = routers(&["a.invalid:1"], BOTH).unwrap().resolve(Rng::from_seed(1), receiver, lookup, news);
    assert!(tokio::time::timeout(Duration::from_secs(3600), one).await.is_err());
    assert!(asked.get() >= 55 && told.get() <= 14, "{} of {}", told.get(), asked.get());
}

/// Who gets answers has no use for routers: that names may be stale matters when nobody answers any more.
#[tokio::test(start_paused = true)]
async fn a_change_of_the_network_is_of_no_matter_until_nobody_answers() {
    let (resolver, name) = (Resolver::default(), "a.invalid:1");
    resolver.set(name, &["192.0.2.9:1"]);
    let (mut told, condition) = start(&[name, "203.0.113.9:9"], &resolver);
    told.recv().await.unwrap();
    for changes in 0..600 {
        condition.send_replace(Condition { is_lonely: false, changes });
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    assert_eq!(resolver.asked(name), 1, "a start that went well asks once");
    resolver.set(name, &["203.0.113.1:1"]);
    let left = Instant::now();
    condition.send_replace(Condition { is_lonely: true, changes: 600 });
    assert_eq!(told.recv().await.unwrap(), addrs(&["203.0.113.1:1", "203.0.113.9:9"]));
    assert!(left.elapsed() < Duration::from_secs(1) && resolver.asked(name) == 2);
}

#[tokio::test(start_paused = true)]
async fn names_are_looked_up_soon_when_the_network_has_changed_but_not_at_every_flicker() {
    let (resolver, name) = (Resolver::default(), "a.invalid:1");
    resolver.set(name, &["192.0.2.9:1"]);
    let (_told, condition) = start(&[name], &resolver);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let asked = resolver.asked(name);
    for changes in 1..=600 {
        condition.send_replace(Condition { is_lonely: true, changes });
        tokio::time::sleep(Duration::from_secs(1)).await;
        let asked = resolver.asked(name) - asked;
        assert!(changes < 13 || asked >= 1, "soon after the first");
        let minutes = u32::try_from(changes / 45).unwrap();
        assert!(asked <= 6 + minutes, "about one a minute: {asked} in {changes} s");
    }
    // A calm of a minute: the next one counts again.
    tokio::time::sleep(Duration::from_secs(600)).await;
    let asked = resolver.asked(name);
    condition.send_replace(Condition { is_lonely: true, changes: 601 });
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert!(resolver.asked(name) >= asked + 3, "{} after {asked}", resolver.asked(name));
}

/// Round-robin DNS.
#[tokio::test(start_paused = true)]
async fn the_same_addresses_in_another_order_are_no_news() {
    let rotating = Arc::new(Mutex::new(addrs(&["192.0.2.1:1", "192.0.2.2:1", "192.0.2.3:1"])));
    let lookup = |_| {
        let mut rotating = rotating.lock().unwrap();
        rotating.rotate_left(1);
        std::future::ready(Ok(rotating.clone()))
    };
    let mut told = Vec::new();
    let (sender, receiver) = watch::channel(Condition { is_lonely: true, changes: 0 });
    let news = |addrs: Vec<SocketAddr>| {
        told.push(addrs);
        std::future::ready(true)
    };
    let two = routers(&["a.invalid:1", "b.invalid:1"], BOTH).unwrap();
    let all = two.resolve(Rng::from_seed(1), receiver, lookup, news);
    assert!(tokio::time::timeout(Duration::from_secs(3600), all).await.is_err());
    drop(sender);
    assert!(told.len() <= 2 && told.iter().all(|told| told.len() == 3), "once a name: {told:?}");
}

/// A name with twenty addresses, of which a resolver tells four at a time, is the same name all the same.
#[tokio::test(start_paused = true)]
async fn others_of_the_addresses_of_a_name_are_seldom_news() {
    let all: Vec<SocketAddr> = (1..=20).map(|n| ([192, 0, 2, n], 1).into()).collect();
    let (asked, mut told) = (Cell::new(0), 0);
    let lookup = |_| {
        asked.set(asked.get() + 1);
        std::future::ready(Ok((0..4).map(|nth| all[(asked.get() + nth) % 20]).collect()))
    };
    let (_sender, receiver) = watch::channel(Condition { is_lonely: true, changes: 0 });
    let news = |_| {
        told += 1;
        std::future::ready(true)
    };
    let one = routers(&["a.invalid:1"], BOTH).unwrap().resolve(Rng::from_seed(1), receiver, lookup, news);
    assert!(tokio::time::timeout(Duration::from_secs(3600), one).await.is_err());
    let asked = asked.get();
    assert!(asked >= 55, "{asked}");
    // Some of the first four are left in the first three answers after them, and then it has moved.
    assert!((2..=20).contains(&told), "{told} of {asked}");
}

#[test]
fn of_many_addresses_the_same_are_taken_whatever_their_order_and_of_both_families() {
    let mut all = addrs(&["[2001:db8::1]:1", "[2001:db8::2]:1"]);
    all.extend((1..=20).map(|n| SocketAddr::from(([192, 0, 2, n], 1))));
    let first = some_of(all.clone());
    assert_eq!((first.len(), first.iter().filter(|addr| addr.is_ipv6()).count()), (8, 2));
    for _ in 0..all.len() {
        all.rotate_left(1);
        assert_eq!(some_of(all.clone()), first);
    }
    let few = addrs(&["192.0.2.9:1", "[2001:db8::1]:1", "192.0.2.1:1"]);
    assert_eq!(some_of(few.clone()), few, "the resolver knows best whom to ask first");
}

/// One name of several that nobody knows has its pauses; the others are looked up as if it were not there.
#[tokio::test(start_paused = true)]
async fn who_is_alone_again_looks_up_known_names_soon_whatever_others_are_unknown() {
    for connected in [600, 605, 620, 640] {
        let (resolver, names) = (Resolver::default(), ["a.invalid:1", "b.invalid:2"]);
        resolver.set(names[0], &["192.0.2.9:1"]);
        let (mut told, condition) = start(&names, &resolver);
        told.recv().await.unwrap();
        condition.send_replace(Condition::default());
        tokio::time::sleep(Duration::from_secs(connected)).await;
        resolver.set(names[0], &["203.0.113.1:1"]);
        let left = Instant::now();
        condition.send_replace(Condition { is_lonely: true, changes: 0 });
        assert_eq!(told.recv().await.unwrap(), addrs(&["203.0.113.1:1"]));
        assert!(left.elapsed() < Duration::from_secs(1), "{:?}", left.elapsed());
    }
}

/// A line that comes and goes brings no more lookups than one that is dead.
#[tokio::test(start_paused = true)]
async fn who_is_alone_again_and_again_does_not_look_up_names_each_time() {
    let (resolver, name) = (Resolver::default(), "a.invalid:1");
    resolver.set(name, &["192.0.2.9:1"]);
    let (_told, condition) = start(&[name], &resolver);
    for n in 0..360 {
        condition.send_replace(Condition { is_lonely: n % 2 == 1, changes: 0 });
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    assert!(resolver.asked(name) <= 90, "{}", resolver.asked(name));
}

#[tokio::test(start_paused = true)]
async fn a_name_that_fails_again_keeps_its_addresses_and_unknown_ones_are_tried_on() {
    let (resolver, names) = (Resolver::default(), ["a.invalid:1", "b.invalid:2"]);
    resolver.set(names[0], &["192.0.2.9:1"]);
    let (mut told, condition) = start(&names, &resolver);
    assert_eq!(told.recv().await.unwrap(), addrs(&["192.0.2.9:1"]));
    resolver.set(names[0], &[]);
    tokio::time::sleep(Duration::from_secs(600)).await;
    condition.send_replace(Condition::default());
    resolver.set(names[1], &["192.0.2.7:2"]);
    assert_eq!(told.recv().await.unwrap(), addrs(&["192.0.2.9:1", "192.0.2.7:2"]));
    assert!(resolver.asked(names[1]) >= 10, "{}", resolver.asked(names[1]));
}

#[tokio::test(start_paused = true)]
async fn resolving_ends_with_the_node_and_where_all_is_known() {
    let (resolver, name) = (Resolver::default(), "a.invalid:1");
    resolver.set(name, &["192.0.2.9:1"]);
    let (mut told, condition) = start(&[name], &resolver);
    assert!(told.recv().await.is_some());
    drop(condition);
    assert_eq!(told.recv().await, None);
    // Addresses need nobody.
    let (mut told, _condition) = start(&["192.0.2.1:9"], &resolver);
    assert_eq!(told.recv().await, None);
}

#[tokio::test]
async fn localhost_is_found_without_a_network() {
    let found = lookup("localhost:7").await.unwrap();
    assert!(found.iter().all(|addr| addr.ip().is_loopback() && addr.port() == 7) && !found.is_empty());
}

#[tokio::test(start_paused = true)]
async fn resolving_ends_when_nobody_listens() {
    let (resolver, name) = (Resolver::default(), "a.invalid:1");
    resolver.set(name, &["192.0.2.9:1"]);
    let (told, condition) = start(&[name, "b.invalid:7"], &resolver);
    drop(told);
    condition.closed().await;
}
