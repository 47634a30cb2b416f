//! Time, orders, addresses and odd hosts.

use super::super::{Captured, Direction, Leg, write_pcap};
use super::*;
use crate::addr::acceptable;

#[test]
fn empty_world_and_lonely_host_come_to_the_end() {
    let mut empty = world(1, Links::default(), 0);
    empty.run(Time::from_secs(1_000_000), |_, _| panic!("nobody tells anything"));
    assert_eq!((empty.now(), empty.digest().count), (Time::from_secs(1_000_000), 0));
    empty.run(Time::NEVER, |_, _| ());
    assert_eq!(empty.now(), Time::from_secs(1_000_000));

    let mut world = world(1, Links::default(), 1);
    world.order(Time::from_secs(5), 0, |_, peer, _| peer.wishes = vec![Time::from_secs(9), Time::NEVER]);
    world.run(Time::NEVER, |_, _| ());
    assert_eq!((world.now(), &world.host(0).woken), (Time::from_secs(9), &vec![Time::from_secs(9)]));
}

#[test]
fn datagram_takes_the_time_of_its_link_and_names_its_sender() {
    let mut world = world(2, Links::perfect(20 * MILLISECOND), 2);
    let (a, b) = (world.addr(0), world.addr(1));
    world.act(1, |_, peer, _| peer.echoes = true);
    send(&mut world, 0, b, 9);
    let sent = world.now();
    run(&mut world, 39 * MILLISECOND);
    assert_eq!(world.host(1).got, [(sent + 20 * MILLISECOND, 0, a, vec![b'x'; 9])]);
    assert_eq!((world.host(0).got.len(), world.under_way()), (0, 1));
    // What happens at the end of a run is part of it.
    run(&mut world, MILLISECOND);
    assert_eq!(world.host(0).got, [(sent + 40 * MILLISECOND, 0, b, vec![b'x'; 9])]);
    let stats = world.stats();
    assert_eq!((stats.sent, stats.delivered, stats.bytes, world.under_way()), (2, 2, 18, 0));
}

#[test]
fn ipv6_goes_to_the_other_socket() {
    let mut world = world(3, Links::perfect(MILLISECOND), 2);
    let (a, b) = (world.addr6(0), world.addr6(1));
    assert!(a.is_ipv6() && acceptable(a, false));
    send_by(&mut world, 0, 1, b, 5);
    run(&mut world, MILLISECOND);
    assert_eq!(world.host(1).got, [(world.now(), 1, a, vec![b'x'; 5])]);
}

#[test]
fn hosts_may_send_to_nobody_and_to_themselves() {
    let mut world = world(4, Links::perfect(MILLISECOND), 2);
    let (own, nobody) = (world.addr(0), world.addr(2));
    let mut elsewhere = world.addr(1);
    elsewhere.set_port(9);
    for to in ["127.0.0.1:6881", "0.0.0.0:0", "[::]:0", "[::1]:6881", "255.255.255.255:6881"] {
        send(&mut world, 0, to.parse().unwrap(), 1);
    }
    // An IPv4-mapped address is the IPv4 address in it.
    let mapped = SocketAddr::new(([0, 0, 0, 0, 0, 0xffff, 0, 0], 0).0.into(), 6881);
    for to in [own, nobody, elsewhere, mapped] {
        send(&mut world, 0, to, 1);
    }
    run(&mut world, 10 * MILLISECOND);
    assert_eq!(world.host(0).got, [(Time::from_millis(1001), 0, own, vec![b'x'])]);
    let stats = world.stats();
    assert_eq!((stats.sent, stats.delivered, stats.stray), (9, 1, 8));
}

#[test]
fn host_that_echoes_to_itself_for_ever_does_not_stop_the_clock() {
    let mut world = world(5, Links::perfect(Duration::ZERO), 1);
    let own = world.addr(0);
    world.act(0, |_, peer, _| peer.echoes = true);
    send(&mut world, 0, own, 1);
    run(&mut world, MILLISECOND);
    assert_eq!(world.host(0).got.len(), 1000);
}

#[test]
fn timers_in_the_past_are_due_now_and_no_oftener_than_every_millisecond() {
    let mut world = world(6, Links::default(), 3);
    world.act(0, |_, peer, _| peer.wishes = vec![Time::ZERO]);
    world.act(1, |_, peer, _| peer.wishes = vec![Time::from_micros(u64::MAX)]);
    world.act(2, |_, peer, _| peer.wishes = vec![Time::from_micros(u64::MAX - 1)]);
    run(&mut world, 3 * MILLISECOND);
    assert_eq!(world.host(0).woken, [1000, 1001, 1002, 1003].map(Time::from_millis));
    assert_eq!((world.stats().hasty, world.host(1).woken.len(), world.host(2).woken.len()), (4, 0, 0));
}

#[test]
fn timer_that_is_put_off_is_asked_once_and_one_that_is_put_forward_comes_in_time() {
    let mut world = world(7, Links::default(), 1);
    let at = Time::from_millis;
    world.act(0, |_, peer, _| peer.wishes = vec![at(1500), Time::NEVER]);
    for n in 1..100 {
        world.order(at(1000 + n), 0, move |_, peer, _| peer.wishes[0] = at(1600 + n));
    }
    run(&mut world, Duration::from_secs(1));
    assert_eq!((&world.host(0).woken, world.stats().early), (&vec![at(1699)], 1));
    world.act(0, |_, peer, _| peer.wishes = vec![at(9000), Time::NEVER]);
    world.act(0, |_, peer, _| peer.wishes[0] = at(8000));
    run(&mut world, Duration::from_secs(10));
    assert_eq!(world.host(0).woken, [at(1699), at(8000)]);
    // The timer that was put forward left nothing behind.
    assert_eq!(world.stats().early, 1);
}

#[test]
fn orders_come_before_packets_and_packets_before_timers() {
    let mut world = world(8, Links::perfect(10 * MILLISECOND), 3);
    let at = world.now() + 10 * MILLISECOND;
    let (to, first) = (world.addr(0), world.addr(1));
    send(&mut world, 2, to, 2);
    send(&mut world, 1, to, 1);
    world.act(0, |_, peer, _| peer.wishes = vec![at, Time::NEVER]);
    world.order(at, 0, |_, peer, out| {
        assert!(peer.got.is_empty() && peer.woken.is_empty());
        out.events.push(told(1));
    });
    world.order(at, 0, |_, _, out| out.events.push(told(2)));
    let told: Vec<_> =
        run(&mut world, 10 * MILLISECOND).iter().map(|told| format!("{:?}", told.event)).collect();
    assert_eq!(told, [1, 2].map(|n| format!("{:?}", super::told(n))));
    let peer = world.host(0);
    assert_eq!((peer.got.len(), peer.got[0].2, peer.woken.len()), (2, first, 1));
}

#[test]
fn orders_of_the_past_are_obeyed_now_and_those_of_never_never() {
    let mut world = world(9, Links::default(), 1);
    run(&mut world, Duration::from_secs(5));
    world.order(Time::ZERO, 0, |now, peer, _| peer.woken.push(now));
    world.order(Time::NEVER, 0, |_, _, _| panic!("never"));
    world.run(Time::NEVER, |_, _| ());
    assert_eq!(world.host(0).woken, [Time::from_secs(6)]);
}

#[test]
fn sink_gives_orders_that_follow_within_a_window() {
    let mut world = world(10, Links::perfect(10 * MILLISECOND), 2);
    for n in 0..2 {
        world.order(Time::from_secs(2), n, |_, _, out| out.events.push(told(0)));
    }
    let mut hosts = Vec::new();
    world.run(Time::from_secs(3), |orders: &mut Orders<Peer>, told: Told| {
        hosts.push((told.at.as_millis(), told.host));
        if hosts.len() < 6 {
            orders.act(Time::ZERO, 1 - told.host, |_, _, out| out.events.push(super::told(1)));
        }
    });
    assert_eq!(hosts, [(2000, 0), (2000, 1), (2010, 0), (2010, 1), (2020, 0), (2020, 1), (2030, 1)]);
}

#[test]
fn hosts_go_offline_and_down_and_come_back() {
    let mut world = world(11, Links::perfect(MILLISECOND), 2);
    let (a, b) = (world.addr(0), world.addr(1));
    world.act(1, |_, peer, _| peer.wishes = [1500, 2500, 9000].map(Time::from_millis).to_vec());
    world.set_presence(1, Presence::Offline);
    send(&mut world, 0, b, 1);
    send(&mut world, 1, a, 1);
    world.run(Time::from_secs(2), |_, _| ());
    assert_eq!((world.stats().offline, world.host(1).woken.len()), (2, 1));
    world.set_presence(1, Presence::Down);
    assert_eq!(world.presence(1), Presence::Down);
    send(&mut world, 0, b, 1);
    world.run(Time::from_secs(3), |_, _| ());
    assert_eq!((world.stats().offline, world.host(1).woken.len()), (3, 1));
    world.order_presence(Time::from_secs(4), 1, Presence::Up);
    world.run(Time::from_secs(4), |_, _| ());
    // The timer of 2.5 s was slept through.
    assert_eq!(world.host(1).woken, [Time::from_millis(1500), Time::from_secs(4)]);
    send(&mut world, 0, b, 1);
    run(&mut world, MILLISECOND);
    assert_eq!(world.host(1).got.len(), 1);
}

#[test]
fn replaced_host_lives_at_the_same_address_with_its_own_timer() {
    let mut world = world(12, Links::perfect(MILLISECOND), 2);
    world.act(1, |_, peer, _| peer.wishes = vec![Time::from_secs(2), Time::NEVER]);
    let to = world.addr(1);
    send(&mut world, 0, to, 1);
    let old = world.replace(1, Peer { wishes: vec![Time::from_secs(3), Time::NEVER], ..Peer::default() });
    assert_eq!(old.wishes[0], Time::from_secs(2));
    world.run(Time::from_secs(4), |_, _| ());
    assert_eq!((world.host(1).got.len(), &world.host(1).woken), (1, &vec![Time::from_secs(3)]));
}

#[test]
fn moved_hosts_are_reached_at_their_new_address_alone() {
    let mut world = world(13, Links::perfect(MILLISECOND), 3);
    let (old, old6) = (world.addr(1), world.addr6(1));
    send(&mut world, 0, old, 1);
    let new = world.relocate(1);
    let put = "80.1.2.3:4444".parse().unwrap();
    world.place(2, put);
    assert!(new != old && world.addr(1) == new && world.addr6(1) != old6);
    assert_eq!((world.at(old), world.at(new), world.at(put.into())), (None, Some(1), Some(2)));
    assert_eq!((world.at(world.addr(0)), world.at(world.addr(3))), (Some(0), None));
    for to in [old, new, put.into(), "80.1.2.3:4445".parse().unwrap()] {
        send(&mut world, 0, to, 2);
    }
    send(&mut world, 2, new, 3);
    run(&mut world, MILLISECOND);
    let lengths = |n: usize| world.host(n).got.iter().map(|got| got.3.len()).collect::<Vec<_>>();
    assert_eq!((lengths(1), lengths(2)), (vec![2, 3], vec![2]));
    assert_eq!((world.host(1).got[1].2, world.stats().stray), (put.into(), 3));
}

#[test]
fn forged_senders_are_believed_and_answered() {
    let mut world = world(14, Links::perfect(MILLISECOND), 3);
    let (victim, mirror, mirror6) = (world.addr(1), world.addr(2), world.addr6(2));
    world.act(0, |_, peer, _| peer.forges = Some(victim));
    world.act(2, |_, peer, _| peer.echoes = true);
    send_by(&mut world, 0, 2, mirror, 4);
    // A sender of the other family is none.
    send_by(&mut world, 0, 2, mirror6, 4);
    let nobody = "[2001:db8::7]:77".parse().unwrap();
    run(&mut world, 2 * MILLISECOND);
    assert_eq!(world.host(2).got, [(Time::from_millis(1001), 0, victim, vec![b'x'; 4])]);
    assert_eq!(world.host(1).got, [(Time::from_millis(1002), 0, mirror, vec![b'x'; 4])]);
    world.act(0, |_, peer, _| peer.forges = Some(nobody));
    send_by(&mut world, 0, 255, mirror6, 4);
    run(&mut world, 2 * MILLISECOND);
    assert_eq!((world.host(2).got[1].1, world.host(2).got[1].2), (1, nobody));
    assert_eq!((world.host(0).got.len(), world.stats().stray), (0, 2));
}

#[test]
fn longest_datagrams_pass_and_longer_ones_do_not() {
    let mut world = world(15, Links::perfect(MILLISECOND), 2);
    let to = world.addr(1);
    for len in [65_507, 65_508, 65_535] {
        send(&mut world, 0, to, len);
    }
    run(&mut world, MILLISECOND);
    let got: Vec<_> = world.host(1).got.iter().map(|got| got.3.len()).collect();
    assert_eq!((got, world.stats().oversize), (vec![65_507], 2));
}

#[test]
fn every_datagram_is_accounted_for() {
    let access =
        vec![Access { down: Leg { rate: 1500, queue: 500, ..Default::default() }, ..Access::default() }];
    let mut world = chatter(16, Links { loss_ppm: 100_000, access, ..Links::default() }, 50, 1);
    world.set_presence(7, Presence::Offline);
    run(&mut world, Duration::from_secs(5));
    let stats = world.stats();
    let ends = [stats.delivered, stats.lost, stats.stray, stats.offline, stats.parted, stats.filtered];
    let ends = ends.iter().sum::<u64>() + stats.queue_full + stats.oversize + world.under_way() as u64;
    assert_eq!(ends, stats.sent);
    assert!(
        world.digest().count > stats.sent + stats.delivered + stats.timeouts,
        "what hosts told is in it, too"
    );
    assert!(stats.lost > 100 && stats.offline > 100 && stats.queue_full > 100, "{stats:?}");
}

#[test]
fn digest_takes_in_each_event_once() {
    // Lines that take no time are passed at once, and nothing is lost.
    let mut world = chatter(16, Links::perfect(20 * MILLISECOND), 50, 1);
    world.set_presence(7, Presence::Down);
    world.set_presence(7, Presence::Up);
    world.order(Time::from_secs(3), 8, |now, peer, _| peer.wishes = vec![now]);
    let told = run(&mut world, Duration::from_secs(5)).len() as u64;
    let stats = world.stats();
    assert!(told > 100 && stats.timeouts > 100 && stats.sent == stats.delivered + world.under_way() as u64);
    assert_eq!(world.digest().count, stats.sent + stats.delivered + stats.timeouts + told + 3);
}

#[test]
fn idle_host_costs_the_engine_at_most_64_bytes() {
    for threads in [1, 2] {
        let mut world = World::new(17, Links::default(), threads);
        world.reserve(10_000);
        for n in 0..10_000 {
            let wishes = vec![Time::from_millis(1000 + n * 7), Time::NEVER];
            world.add(Peer { wishes, ..Peer::default() }, 0);
        }
        world.run(Time::from_secs(100), |_, _| ());
        assert_eq!(world.stats().timeouts, 10_000);
        assert!(world.memory() <= 64 * 10_000, "{} bytes a host", world.memory() / 10_000);
    }
}

#[test]
#[should_panic(expected = "there is no host 3")]
fn orders_for_a_host_that_is_not_there_are_refused() {
    world(18, Links::default(), 3).order(Time::ZERO, 3, |_, _, _| ());
}

#[test]
fn watched_hosts_datagrams_are_kept_and_written_as_a_file() {
    let mut world = world(19, Links { loss_ppm: 1_000_000, ..Links::perfect(MILLISECOND) }, 3);
    let (a, b) = (world.addr(0), world.addr(1));
    world.watch(1, true);
    send(&mut world, 1, a, 3);
    world.set_links(Links::perfect(MILLISECOND));
    world.act(1, |_, peer, _| peer.echoes = true);
    send(&mut world, 0, b, 4);
    send(&mut world, 2, a, 5);
    run(&mut world, 5 * MILLISECOND);
    let (at, bytes) = (Time::from_millis, |len| vec![b'x'; len]);
    let kept = |at, direction, (from, to), bytes| Captured { at, host: 1, direction, from, to, bytes };
    let expected = [
        kept(at(1000), Direction::Sent(Time::NEVER), (b, a), bytes(3)),
        kept(at(1001), Direction::Received, (a, b), bytes(4)),
        kept(at(1001), Direction::Sent(at(1002)), (b, a), bytes(4)),
    ];
    let captured = world.captured();
    assert_eq!(captured, expected);
    let mut file = Vec::new();
    write_pcap(&captured, &mut file).unwrap();
    assert_eq!(file.len(), 24 + 3 * (16 + 28) + 3 + 4 + 4);
    world.watch(1, false);
    send(&mut world, 0, b, 4);
    run(&mut world, 5 * MILLISECOND);
    assert_eq!((world.captured(), world.host(1).got.len()), (Vec::new(), 2));
}
