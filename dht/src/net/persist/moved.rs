//! Whose homes go where when a machine that had several has moved.

use std::net::SocketAddr;

use krpc::Id;

use super::{Saved, SavedHome};

fn home((nth, local): (usize, &str)) -> SavedHome {
    let local: SocketAddr = local.parse().unwrap();
    let (id, nodes) = (Id::new([nth as u8; 20]), Vec::new());
    SavedHome { id, ipv6: local.is_ipv6(), local: Some(local), external: None, nodes }
}

/// The first bytes of the ids that sockets get.
fn dealt(saved: &Saved, locals: &[&str]) -> Vec<Option<u8>> {
    let locals: Vec<SocketAddr> = locals.iter().map(|local| local.parse().unwrap()).collect();
    let (dealt, left) = saved.deal(&locals);
    assert_eq!(dealt.iter().flatten().count() + left.len(), saved.homes.len());
    dealt.into_iter().map(|home| home.map(|home| home.id.as_bytes()[0])).collect()
}

/// A laptop that had two addresses in one run is in another network at each start since.
#[test]
fn one_socket_at_a_new_address_keeps_the_first_home_whatever_else_there_was() {
    let locals = ["192.0.2.1:1", "192.0.2.2:1", "[2001:db8::1]:1", "[2001:db8::2]:1"];
    let mut saved = Saved { homes: locals.into_iter().enumerate().map(home).collect() };
    for n in 1..=5 {
        let (v4, v6) = (format!("198.51.100.{n}:1"), format!("[2001:db8:{n}::7]:1"));
        assert_eq!(dealt(&saved, &[&v4, &v6]), [Some(0), Some(2)]);
        for (nth, local) in [(0, v4), (2, v6)] {
            saved.homes[nth] = home((nth, &local));
        }
    }
    // Which of two is which nobody knows.
    assert_eq!(dealt(&saved, &["203.0.113.1:1", "203.0.113.2:1"]), [None, None]);
    assert_eq!(dealt(&saved, &["203.0.113.1:1", "192.0.2.2:1"]), [Some(0), Some(1)]);
}

/// The same laptop, whose first address was that of a tunnel that led nowhere.
#[test]
fn nodes_of_any_address_of_the_family_are_a_way_in() {
    let locals = ["192.0.2.1:1", "192.0.2.2:1", "[2001:db8::1]:1"];
    let mut saved = Saved { homes: locals.into_iter().enumerate().map(home).collect() };
    let nodes = vec![(Id::new([9; 20]), SocketAddr::from(([81, 2, 3, 4], 6881)))];
    saved.homes[1].nodes = nodes.clone();
    saved.homes[2].nodes = vec![(Id::new([8; 20]), "[2001:db8:9::1]:6881".parse().unwrap())];
    assert_eq!(dealt(&saved, &["198.51.100.1:1"]), [Some(1)], "who knows nodes before who knows none");
    // It began with the nodes of its neighbour, and met none of them.
    let mut lent = saved.clone();
    lent.homes[0].nodes = nodes.clone();
    lent.homes[1].external = Some([203, 0, 113, 1].into());
    assert_eq!(
        dealt(&lent, &["198.51.100.1:1"]),
        [Some(1)],
        "who was told its address before who met nobody"
    );

    let starts = |local: &str| {
        let locals: [SocketAddr; 1] = [local.parse().unwrap()];
        let (dealt, absent) = saved.deal(&locals);
        saved.starts(dealt[0], &absent, &locals[0])
    };
    assert_eq!(starts("198.51.100.1:1"), nodes, "at a new address");
    assert_eq!(starts("192.0.2.2:1"), nodes);
    assert_eq!(starts("192.0.2.1:1"), nodes, "at an address that has a home, which knows nobody");
    assert_eq!(starts("[2001:db8::1]:1"), saved.homes[2].nodes);
    assert_eq!(Saved::default().starts(None, &[], &"192.0.2.1:1".parse().unwrap()), []);
}

/// A machine that got one more address, or came back with two where it had one.
#[test]
fn nodes_of_a_home_that_another_socket_got_are_a_way_in() {
    let locals = ["192.0.2.1:1", "[2001:db8::1]:1", "192.0.2.3:1"];
    let mut saved = Saved { homes: locals.into_iter().enumerate().map(home).collect() };
    let known = |n| vec![(Id::new([n; 20]), SocketAddr::from(([81, 2, 3, n], 6881)))];
    saved.homes[0].nodes = known(9);
    saved.homes[1].nodes = vec![(Id::new([8; 20]), "[2001:db8:9::1]:6881".parse().unwrap())];
    let starts = |saved: &Saved, locals: &[&str]| {
        let locals: Vec<SocketAddr> = locals.iter().map(|local| local.parse().unwrap()).collect();
        let (dealt, absent) = saved.deal(&locals);
        let start = |(local, home): (&SocketAddr, Option<&SavedHome>)| saved.starts(home, &absent, local);
        locals.iter().zip(dealt).map(start).collect::<Vec<_>>()
    };
    let three = ["192.0.2.1:1", "192.0.2.2:1", "192.0.2.3:1"];
    assert_eq!(starts(&saved, &three), [known(9), known(9), known(9)]);
    // What nobody else begins with comes first.
    saved.homes.push(home((3, "192.0.2.4:1")));
    saved.homes[3].nodes = known(7);
    let others = ["192.0.2.1:1", "192.0.2.2:1", "192.0.2.5:1"];
    assert_eq!(starts(&saved, &others), [known(9), known(7), known(7)]);
}
