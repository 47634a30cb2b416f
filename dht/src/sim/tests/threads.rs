//! The same run on any number of threads.

use std::panic::{AssertUnwindSafe, catch_unwind};

use krpc::Id;

use super::super::{Bursts, Digest, Leg, Nat, NatKind, Partition, Split, Stats};
use super::*;
use crate::secure_id::secure_id;
use crate::{Command, Config, Home, Node, Seeds};

/// Links with everything that there is.
fn rough() -> Links {
    let nat = Some(Nat { kind: NatKind::Symmetric, timeout: Duration::from_secs(1) });
    let leg = Leg { delay: 3 * MILLISECOND, loss_ppm: 5000, rate: 3000, queue: 500 };
    let access = vec![
        Access::default(),
        Access { up: leg, down: leg, mtu: 150, fragment_loss_ppm: 200_000, nat: None },
        Access { nat, ..Access::default() },
    ];
    let (from, until) = (Time::from_secs(2), Time::from_secs(3));
    Links {
        bursts: Some(Bursts { span: 100 * MILLISECOND, share_ppm: 50_000, loss_ppm: 500_000 }),
        partitions: vec![Partition { from, until, split: Split::SharePpm(300_000) }],
        access,
        ..Links::default()
    }
}

/// What a run comes to: digest, counts and what was told.
fn outcome(seed: u64, threads: usize) -> (Digest, Stats, Vec<String>) {
    let mut world = chatter(seed, rough(), 101, threads);
    for n in 0..101 {
        world.set_access(n, (n % 3) as u8);
    }
    world.order_presence(Time::from_millis(1500), 5, Presence::Down);
    world.order_presence(Time::from_millis(2500), 5, Presence::Up);
    let mut all = Vec::new();
    world.run(Time::from_secs(2), |orders, told| {
        // Now and then the sink has somebody else send as well.
        if all.len().is_multiple_of(50) {
            orders.act(told.at, (told.host * 7) % 101, |now, peer, _| peer.wishes = vec![now]);
        }
        all.push(format!("{told:?}"));
    });
    let moved = world.relocate(9);
    send(&mut world, 11, moved, 30);
    world.replace(10, Peer::default());
    world.run(Time::from_secs(5), |_, told| all.push(format!("{told:?}")));
    (world.digest(), world.stats(), all)
}

#[test]
fn digest_is_that_of_the_seed_on_one_two_three_and_seven_threads() {
    let (digest, stats, told) = outcome(1, 1);
    assert!(stats.sent > 3000 && told.len() > 3000, "{stats:?}");
    for of in [stats.lost, stats.offline, stats.parted, stats.filtered, stats.queue_full, stats.oversize] {
        assert!(of >= 5, "{stats:?}");
    }
    for threads in [1, 2, 3, 7] {
        assert_eq!(outcome(1, threads), (digest, stats, told.clone()), "{threads} threads");
    }
    assert_ne!(outcome(2, 1).0, digest);
    // And the same on every machine and in every build, until the engine itself changes.
    assert_eq!((digest.sum, digest.count), (2_140_467_073_369_987_698, 19_130));
}

#[test]
fn run_may_be_cut_anywhere() {
    let whole = {
        let mut world = chatter(3, rough(), 30, 2);
        world.run(Time::from_secs(3), |_, _| ());
        world.digest()
    };
    let mut world = chatter(3, rough(), 30, 2);
    let mut rng = Rng::from_seed(4);
    while world.now() < Time::from_secs(3) {
        let until = world.now() + Duration::from_micros(rng.below(30_000) as u64);
        world.run(until.min(Time::from_secs(3)), |_, _| ());
    }
    assert_eq!(world.digest(), whole);
}

/// Nodes that join by the first, on lossy links, one of which looks somebody up.
fn nodes(seed: u64, threads: usize) -> (Digest, usize) {
    let (mut world, config) = (World::new(seed, rough(), threads), Arc::new(Config::default()));
    let router = world.addr(0);
    for n in 0..30 {
        let (local, seeds) = (world.addr(n), Seeds::from_u64(seed << 32 | n as u64));
        let id = secure_id(local.ip(), &mut Rng::new(seeds));
        let home = Home { id, local, external: None, saved: Vec::new() };
        world.add(Node::new(Arc::clone(&config), vec![home], seeds, world.now()), (n % 5 / 3) as u8);
        world.act(n, |now, node, out| node.handle_command(now, Command::Routers(vec![router]), out));
    }
    let order = Command::FindNode { target: Id::new([7; 20]), trace: false };
    world.order(Time::from_secs(4), 3, |now, node, out| {
        node.handle_command(now, order, out);
    });
    let mut ended = 0;
    world.run(Time::from_secs(10), |_, told| ended += usize::from(matches!(told.event, Event::Done { .. })));
    (world.digest(), ended)
}

#[test]
fn nodes_do_the_same_on_any_number_of_threads() {
    let (digest, ended) = nodes(1, 1);
    assert!(digest.count > 2000 && ended == 1, "{digest:?}");
    assert_eq!([2, 3].map(|threads| nodes(1, threads)), [(digest, ended); 2]);
    assert_ne!(nodes(2, 2).0, digest);
}

#[test]
fn more_threads_than_hosts_are_no_trouble() {
    for threads in [0, 1, 64, 1000] {
        let mut world = chatter(5, Links::default(), 2, threads);
        world.run(Time::from_secs(2), |_, _| ());
        assert!(world.stats().delivered > 10);
    }
}

#[test]
fn panic_of_a_host_or_of_the_sink_ends_the_run_on_all_threads() {
    for host in 0..3 {
        let mut world = chatter(6, Links::default(), 20, 3);
        world.order(Time::from_secs(2), host, |_, _, _| panic!("a host's own"));
        let panic = catch_unwind(AssertUnwindSafe(|| world.run(Time::from_secs(9), |_, _| ()))).unwrap_err();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"a host's own"));
    }
    let mut world = chatter(6, Links::default(), 20, 3);
    let mut left = 50;
    let run = AssertUnwindSafe(|| {
        world.run(Time::from_secs(9), |_, _| {
            left -= 1;
            assert!(left > 0, "enough");
        });
    });
    assert!(catch_unwind(run).is_err());
}
