//! The nodes of a testnet as hosts of a virtual network, and what they cost when nobody wants anything of
//! them: counted in virtual time.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use super::Options;
use super::plan::Plan;
use crate::sim::{Links, World};
use crate::{Node, Time};

/// The network of `options`, but for its lines, with each node at an address as a testnet gives it.
pub(super) fn world(options: &Options, links: Links) -> World<Node> {
    let locals = (0..options.nodes as u16).map(|n| SocketAddrV4::new(Ipv4Addr::LOCALHOST, 20_000 + n));
    let plan = Plan::new(options, locals.clone().map(SocketAddr::from).collect());
    let mut world = World::new(options.seed, links, 1);
    world.run(Time::from_secs(3600), |_, _| ());
    for (number, local) in (0..).zip(locals) {
        let index = world.add(plan.node(number, world.now()), 0);
        world.place(index, local);
    }
    world
}

/// 500 nodes have half a core when nobody wants anything of them. What they do then is counted here, and costs
/// some 60 µs apiece on sockets, so that even the worst minute stays far below.
#[test]
fn an_idle_network_sends_and_wakes_up_rarely_and_loses_nobody() {
    let (nodes, minutes) = (200, 20);
    let options = Options { nodes, seed: 5, ..Options::default() };
    let mut world = world(&options, Links::perfect(Duration::from_micros(100)));
    let trusty =
        |world: &World<Node>| -> usize { world.hosts().map(|node| node.stats(world.now())[0].trusty).sum() };
    let begin = trusty(&world);
    // The first time that all tables have been gone through, and a while more.
    let counts: Vec<_> = (0..minutes)
        .map(|_| {
            let before = world.stats();
            world.run(world.now() + Duration::from_secs(60), |_, _| ());
            let after = world.stats();
            [after.sent - before.sent, after.timeouts - before.timeouts].map(|count| count / nodes as u64)
        })
        .collect();
    println!("datagrams and timers a node, minute by minute: {counts:?}");
    for (what, mean, worst) in [(0, 40, 80), (1, 25, 60)] {
        let of: Vec<u64> = counts.iter().map(|minute| minute[what]).collect();
        assert!(of.iter().sum::<u64>() <= mean * minutes, "in the mean {mean} were allowed: {of:?}");
        assert!(of.iter().all(|&count| count <= worst), "{worst} were allowed: {of:?}");
    }
    assert!(begin >= 190 * nodes && trusty(&world) >= begin, "{begin} entries, {} later", trusty(&world));
}
