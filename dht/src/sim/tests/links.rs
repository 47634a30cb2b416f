//! Latency, loss, NATs, MTU, rates and partitions, with the numbers of a seed.

use super::super::{Bursts, Leg, Nat, NatKind, Partition, Split};
use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// Host 0 sends `count` datagrams to host 1, a second apart from second 2 on; when they came.
fn arrivals(links: Links, count: u64, len: usize) -> Vec<Time> {
    let mut world = world(1, links, 2);
    let to = world.addr(1);
    for n in 0..count {
        world.order(Time::from_secs(2 + n), 0, move |_, _, out| {
            out.send(0, to, Class::Query, |write| write.resize(write.len() + len, 0));
        });
    }
    world.run(Time::NEVER, |_, _| ());
    world.host(1).got.iter().map(|&(at, ..)| at).collect()
}

/// Of 10,000 datagrams, how many came.
fn arrived(links: Links) -> usize {
    arrivals(links, 10_000, 1).len()
}

fn perfect() -> Links {
    Links::perfect(10 * MILLISECOND)
}

/// Perfect links with a line before host 0.
fn with_line(access: Access) -> World<Peer> {
    let mut world = world(1, Links { access: vec![Access::default(), access], ..perfect() }, 4);
    world.set_access(0, 1);
    world
}

/// Round trips in milliseconds at 1, 10, 50, 90 and 99 %.
fn percentiles(mut rtts: Vec<u64>) -> [u64; 5] {
    rtts.sort_unstable();
    [1, 10, 50, 90, 99].map(|percent| rtts[rtts.len() * percent / 100] / 1000)
}

#[test]
fn round_trips_of_pairs_are_log_normal_around_ninety_milliseconds() {
    let links = Links { jitter_permille: 0, loss_ppm: 0, ..Links::default() };
    let mut world = world(2, links, 10_000);
    for n in (0..10_000).step_by(2) {
        world.act(n + 1, |_, peer, _| peer.echoes = true);
        let to = world.addr(n + 1);
        send(&mut world, n, to, 8);
    }
    run(&mut world, 9 * SECOND);
    let rtt = |n: usize| world.host(n).got[0].0.as_micros() - 1_000_000;
    let rtts = percentiles((0..10_000).step_by(2).map(rtt).collect());
    // PERFORMANCE: p10 39, p50 90, p90 206, p99 409 ms.
    assert_eq!(rtts, [19, 39, 89, 209, 400]);
}

#[test]
fn hosts_share_of_the_latency_is_everybodys() {
    let medians = |hosts| {
        let links = Links { rtt_hosts_permille: hosts, jitter_permille: 0, loss_ppm: 0, ..Links::default() };
        let mut world = world(3, links, 1000);
        (0..5usize).map(move |from| {
            let start = world.now();
            for to in 5..1000 {
                let to = world.addr(to);
                send(&mut world, from, to, 8);
            }
            run(&mut world, 9 * SECOND);
            let last = |n: usize| world.host(n).got.last().unwrap().0.as_micros() - start.as_micros();
            2 * percentiles((5..1000).map(last).collect())[2]
        })
    };
    // With no share of its own every host sees the same median, to the rounding of the sample.
    assert_eq!(medians(0).collect::<Vec<_>>(), [88, 90, 88, 88, 88]);
    assert_eq!(medians(500).collect::<Vec<_>>(), [138, 50, 176, 76, 64]);
    assert!(medians(1000).all(|median| median > 30));
}

#[test]
fn jitter_is_exponential_and_nothing_is_faster_than_the_minimum() {
    let links = Links { jitter_permille: 80, ..perfect() };
    let mut late: Vec<_> = arrivals(links, 10_000, 1).iter().map(|at| at.as_micros() % 1_000_000).collect();
    late.sort_unstable();
    // 10 ms, and of 0.8 ms: a tenth is below 0.105, half below 0.693, 99 % below 4.605 times that.
    assert_eq!([0, 1000, 5000, 9900].map(|n| late[n]), [10_000, 10_080, 10_568, 13_750]);
    let links = Links { minimum: 50 * MILLISECOND, ..perfect() };
    assert_eq!(arrivals(links, 1, 1), [Time::from_millis(2050)]);
}

#[test]
fn loss_has_its_share_on_the_way_and_on_either_leg() {
    assert_eq!(arrived(Links { loss_ppm: 30_000, ..perfect() }), 9725);
    let leg = Leg { loss_ppm: 30_000, ..Leg::default() };
    let (up, down) = (Access { up: leg, ..Access::default() }, Access { down: leg, ..Access::default() });
    assert_eq!(arrived(Links { access: vec![up], ..perfect() }), 9677);
    assert_eq!(arrived(Links { access: vec![down], ..perfect() }), 9703);
    assert_eq!(arrived(Links { loss_ppm: 1_000_000, ..perfect() }), 0);
}

#[test]
fn bursts_lose_what_is_sent_in_bad_spans() {
    let bursts = Bursts { span: 30 * SECOND, share_ppm: 100_000, loss_ppm: 1_000_000 };
    let links = Links { bursts: Some(bursts), ..perfect() };
    let came: Vec<_> = arrivals(links, 10_000, 1).iter().map(|at| at.as_secs() / 30).collect();
    // Either host may have a bad span: 19 % are.
    assert_eq!(came.len(), 8080);
    // A span is bad from its beginning to its end.
    for span in 1..300 {
        let count = came.iter().filter(|&&at| at == span).count();
        assert!(count == 0 || count == 30, "span {span}: {count}");
    }
    let gentle = Bursts { loss_ppm: 500_000, ..bursts };
    assert_eq!(arrived(Links { bursts: Some(gentle), ..perfect() }), 9040);
}

#[test]
fn partition_lasts_from_its_beginning_to_its_end_and_leaves_each_side_whole() {
    let (from, until) = (Time::from_secs(10), Time::from_secs(20));
    let partitions = vec![Partition { from, until, split: Split::Below(1) }];
    let came: Vec<_> = arrivals(Links { partitions, ..perfect() }, 30, 1);
    let seconds: Vec<_> = came.iter().map(|at| at.as_secs()).collect();
    assert_eq!(seconds, (2..10).chain(20..32).collect::<Vec<_>>());
    // A share that the seed draws: of 200 to 200 others, what is not across passes.
    let split = Split::SharePpm(250_000);
    let partitions = vec![Partition { from: Time::ZERO, until: Time::NEVER, split }];
    let mut world = world(4, Links { partitions, ..perfect() }, 400);
    for n in 0..400 {
        let to = world.addr((n + 200) % 400);
        send(&mut world, n, to, 1);
    }
    run(&mut world, SECOND);
    // 2 · ¼ · ¾ of them are across.
    assert_eq!((world.stats().parted, world.stats().delivered), (148, 252));
}

/// What reaches a host behind a NAT that has sent to host 1: from there, from there by another port, from
/// elsewhere; at once, and after its timeout.
fn let_in(kind: NatKind) -> [bool; 4] {
    let mut world = with_line(Access { nat: Some(Nat { kind, timeout: 60 * SECOND }), ..Access::default() });
    let other = SocketAddr::new(world.addr(1).ip(), 7);
    world.act(1, |_, peer, _| {
        peer.echoes = true;
        peer.forges = Some(other);
    });
    let to = world.addr(1);
    send(&mut world, 0, to, 1);
    run(&mut world, SECOND);
    // Where host 1 saw it.
    let outside = world.host(1).got[0].2;
    let seen = |world: &mut World<Peer>, from, socket| {
        let before = world.host(0).got.len();
        send_by(world, from, socket, outside, 1);
        run(world, SECOND);
        world.host(0).got.len() > before
    };
    assert_eq!(world.host(0).got.len(), 1, "the answer");
    let fresh = [(1, 0), (1, 2), (2, 0)].map(|(from, socket)| seen(&mut world, from, socket));
    run(&mut world, 60 * SECOND);
    let [same, port, elsewhere] = fresh;
    [same, port, elsewhere, seen(&mut world, 1, 0)]
}

#[test]
fn nats_let_in_whom_their_kind_does() {
    assert_eq!(let_in(NatKind::FullCone), [true, true, true, false]);
    assert_eq!(let_in(NatKind::AddressRestricted), [true, true, false, false]);
    assert_eq!(let_in(NatKind::PortRestricted), [true, false, false, false]);
    assert_eq!(let_in(NatKind::Symmetric), [true, false, false, false]);
}

#[test]
fn symmetric_nats_show_each_a_port_of_its_own_and_others_the_sockets() {
    for kind in [NatKind::PortRestricted, NatKind::Symmetric] {
        let mut world = with_line(Access { nat: Some(Nat { kind, timeout: SECOND }), ..Access::default() });
        let own = world.addr(0);
        for n in 1..3 {
            let to = world.addr(n);
            send(&mut world, 0, to, 1);
        }
        run(&mut world, SECOND);
        let seen = [1, 2].map(|n| world.host(n).got[0].2);
        assert!(seen.iter().all(|addr| addr.ip() == own.ip()));
        assert_eq!(seen[0] == own && seen[1] == own, kind == NatKind::PortRestricted);
        assert_eq!(seen[0] == seen[1], kind == NatKind::PortRestricted);
    }
}

#[test]
fn silence_closes_a_nat_and_talk_keeps_it_open() {
    let nat = Some(Nat { kind: NatKind::PortRestricted, timeout: 10 * SECOND });
    let mut world = with_line(Access { nat, ..Access::default() });
    let (inside, outside) = (world.addr(0), world.addr(1));
    for n in 0..5 {
        send(&mut world, 0, outside, 1);
        run(&mut world, 9 * SECOND);
        send(&mut world, 1, inside, 1);
        run(&mut world, 20 * MILLISECOND);
        // Only what goes out counts.
        assert_eq!(world.stats().filtered, 0, "round {n}");
    }
    run(&mut world, 2 * SECOND);
    assert_eq!(world.host(0).got.len(), 5);
    send(&mut world, 1, inside, 1);
    run(&mut world, SECOND);
    assert_eq!((world.host(0).got.len(), world.stats().filtered), (5, 1));
}

#[test]
fn mtu_stops_longer_packets_or_loses_their_fragments() {
    // 1,472 bytes and the headers fill 1,500.
    let line = Access { mtu: 1500, fragment_loss_ppm: 1_000_000, ..Access::default() };
    let of = |line, len| arrivals(Links { access: vec![line], ..perfect() }, 10_000, len).len();
    assert_eq!((of(line, 1472), of(line, 1473)), (10_000, 0));
    // Two fragments at either end, 1 % of each lost: 0.99 to the fourth; ten: to the twentieth.
    let line = Access { fragment_loss_ppm: 10_000, ..line };
    assert_eq!((of(line, 1472), of(line, 1473), of(line, 14_000)), (10_000, 9604, 8199));
    // An MTU that has no room for a payload is no trouble.
    assert_eq!(of(Access { mtu: 1, fragment_loss_ppm: 0, ..line }, 100), 10_000);
}

#[test]
fn rate_spaces_datagrams_out_and_its_queue_drops_the_rest() {
    // 100 bytes with headers take 10 ms; five fit the queue.
    let leg = Leg { rate: 10_000, queue: 500, delay: 5 * MILLISECOND, ..Leg::default() };
    let sends = |line: Access, from: usize, to: usize| {
        let mut world = with_line(line);
        let addr = world.addr(to);
        for _ in 0..8 {
            send(&mut world, from, addr, 72);
        }
        run(&mut world, SECOND);
        // A while later the queue is empty.
        send(&mut world, from, addr, 72);
        run(&mut world, SECOND);
        assert_eq!(world.stats().queue_full, 3);
        let got = world.host(to).got.iter();
        got.map(|(at, ..)| at.as_millis() - 1000).collect::<Vec<_>>()
    };
    let expected = [25, 35, 45, 55, 65, 1025];
    assert_eq!(sends(Access { up: leg, ..Access::default() }, 0, 1), expected);
    assert_eq!(sends(Access { down: leg, ..Access::default() }, 1, 0), expected);
    // A queue that is shorter than a datagram still takes one.
    let line = Access { up: Leg { queue: 0, ..leg }, ..Access::default() };
    let mut world = with_line(line);
    let addr = world.addr(1);
    send(&mut world, 0, addr, 900);
    send(&mut world, 0, addr, 1);
    run(&mut world, SECOND);
    assert_eq!((world.stats().delivered, world.stats().queue_full), (1, 1));
}

#[test]
fn odd_links_are_no_trouble() {
    let forever = Duration::MAX;
    let leg = Leg { delay: forever, ..Leg::default() };
    let all = [
        Links { rtt_median: forever, rtt_sigma_permille: u32::MAX, ..Links::default() },
        Links { jitter_permille: u32::MAX, rtt_hosts_permille: u32::MAX, ..Links::default() },
        Links { minimum: forever, ..Links::default() },
        Links { minimum: Duration::ZERO, rtt_median: Duration::ZERO, ..Links::default() },
        Links { access: Vec::new(), ..Links::default() },
        Links { access: vec![Access { up: leg, ..Access::default() }], ..Links::default() },
        Links { access: vec![Access { down: leg, ..Access::default() }], ..Links::default() },
        Links {
            bursts: Some(Bursts { span: Duration::ZERO, share_ppm: u32::MAX, loss_ppm: u32::MAX }),
            ..Links::default()
        },
    ];
    for links in all {
        let mut world = chatter(5, links.clone(), 3, 2);
        world.set_access(1, 9);
        world.run(Time::from_secs(2), |_, _| ());
        assert!(world.stats().sent > 10, "{links:?}");
        world.set_links(Links::default());
        world.run(Time::from_secs(3), |_, _| ());
    }
}
