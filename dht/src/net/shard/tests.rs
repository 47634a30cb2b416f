//! A node's task step by step, with a clock that jumps.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, UdpSocket as StdSocket};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures_core::Stream;

use super::*;
use crate::net::port::Port;
use crate::net::subscribers::{Events, Topic, subscription};
use crate::net::udp::{Batching, UdpSocket};
use crate::shards::Crossing;
use crate::{Config, Home, Rng, Seeds};

/// A task with two homes, one of which is at every address, that does nothing but what it is told; its inlets,
/// and what it tells.
struct Stage {
    shard: Shard,
    running: Running,
    local: SocketAddr,
    requests: mpsc::Sender<Request>,
    crossings: mpsc::Sender<Handed>,
    events: Events,
}

/// What ends the wait after a stop.
#[derive(Clone, Copy, Debug)]
enum Waking {
    Nothing,
    Datagram,
    Crossed,
    Asked,
    Command,
    Question,
    /// An address came that concerns the home at every address and no other.
    Interfaces,
}

impl Stage {
    async fn new() -> Self {
        let config = Config { allow_local: true, ..Config::default() };
        let sockets = ["127.0.0.1:0", "0.0.0.0:0"]
            .map(|addr| UdpSocket::bind(addr.parse().unwrap(), Batching::Native).unwrap());
        let (locals, clock) = (sockets.each_ref().map(UdpSocket::local_addr), Clock::start());
        let mut rng = Rng::from_seed(1);
        let homes = locals.map(|local| Home { id: rng.id(), local, external: None, saved: Vec::new() });
        let ids = homes.iter().map(|home| home.id).collect();
        let node = Node::new(Arc::new(config.clone()), homes.into(), Seeds::from_u64(1), clock.now());
        let ports = (0..).zip(sockets).map(|(index, socket)| Port::new(index, socket)).collect();
        let (subscriber, events) = subscription(Topic::Node);
        let (requests, inbox) = mpsc::channel(8);
        let (crossings, handed) = mpsc::channel(8);
        let shard = Shard {
            node: node.into(),
            clock,
            ports: Ports::new(ports, clock.now()),
            satellites: Satellites::none(handed),
            requests: inbox,
            bootstrapped: watch::channel(Some(0)).0,
            ready: watch::channel(true).0,
            ids: watch::channel(ids).0,
            state: None,
            heartbeat: Heartbeat::new(clock.now(), config.asleep_after),
            asleep_after: config.asleep_after,
            absent: Vec::new(),
            has_routers: false,
            condition: watch::channel(Condition { is_lonely: false, changes: 0 }).0,
        };
        shard.ports.warm_up().await;
        let mut stage = Self { running: shard.begin(), shard, local: locals[0], requests, crossings, events };
        stage.running.subscribers.add(subscriber);
        stage.turns();
        stage.changes();
        stage
    }

    /// Turns until there is nothing to do.
    fn turns(&mut self) {
        while self.shard.turn(&mut self.running) {}
    }

    /// How often each home was told that its network has changed, since the last call.
    fn changes(&mut self) -> [u32; 2] {
        let (mut changes, mut cx) = ([0; 2], Context::from_waker(Waker::noop()));
        while let Poll::Ready(event) = Pin::new(&mut self.events).poll_next(&mut cx) {
            if let Event::NetworkChanged { home } = event.expect("the node runs") {
                changes[home] += 1;
            }
        }
        changes
    }

    fn wake(&self, waking: Waking) {
        let (socket, from) = (0, ([127, 0, 0, 1], 9).into());
        let cross = |crossing| self.crossings.try_send(Handed { crossing, asked: None }).unwrap();
        let request = |request| self.requests.try_send(request).unwrap();
        match waking {
            Waking::Nothing => {}
            Waking::Datagram => {
                let stranger = StdSocket::bind("127.0.0.1:0").unwrap();
                stranger.send_to(b"d1:y1:re", self.local).unwrap();
            }
            Waking::Crossed => {
                cross(Crossing::Datagram { socket, from, bytes: (*b"d1:y1:re").into(), is_answer: true });
            }
            Waking::Asked => cross(Crossing::Asked { socket, from, id: Id::ZERO, read_only: false }),
            Waking::Command => request(Request::Tell(Command::TellAnnounces(false))),
            Waking::Question => request(Request::Closest(Id::ZERO, 1, oneshot::channel().0)),
            Waking::Interfaces => {
                let came = BTreeSet::from([IpAddr::from([192, 0, 2, 7])]);
                let present = came.clone();
                request(Difference { appeared: came, vanished: BTreeSet::new(), present }.into());
            }
        }
    }
}

#[tokio::test]
async fn a_stop_is_noticed_once_whatever_ends_the_wait() {
    let second = Duration::from_secs(1);
    for (waking, expected) in [
        (Waking::Nothing, [1, 1]),
        (Waking::Datagram, [1, 1]),
        (Waking::Crossed, [1, 1]),
        (Waking::Asked, [1, 1]),
        (Waking::Command, [1, 1]),
        (Waking::Question, [1, 1]),
        // Beside the stop there is what woke it.
        (Waking::Interfaces, [1, 2]),
    ] {
        // The node itself notices the long one, since something of it was due long before.
        for stop in [Config::default().asleep_after + second / 10, 3600 * second] {
            let mut stage = Stage::new().await;
            stage.shard.clock = stage.shard.clock.ahead(stop);
            stage.wake(waking);
            if !matches!(waking, Waking::Nothing) {
                stage.shard.wait(&mut stage.running).await;
            }
            stage.turns();
            stage.turns();
            assert_eq!(stage.changes(), expected, "{waking:?} after {stop:?}");
        }
    }
}

/// As after the load of a large store.
#[tokio::test]
async fn a_node_that_begins_later_than_it_was_made_has_not_slept() {
    let hour = Duration::from_secs(3600);
    for begins in [true, false] {
        let now = Time::from_secs(100_000);
        let home =
            Home { id: Id::ZERO, local: ([127, 0, 0, 1], 1).into(), external: None, saved: Vec::new() };
        let mut node: Recorded =
            Node::new(Arc::new(Config::default()), vec![home], Seeds::from_u64(1), now).into();
        if begins {
            node.begin(now + hour);
        }
        node.handle_timeout(now + hour, &mut Outbox::new());
        assert_eq!(node.counters().network_changes, u64::from(!begins));
    }
}
