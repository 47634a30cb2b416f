//! A node's task step by step, with a clock that jumps.

use std::net::{SocketAddr, UdpSocket as StdSocket};
use std::sync::Arc;

use super::*;
use crate::net::port::Port;
use crate::net::udp::{Batching, UdpSocket};
use crate::shards::Crossing;
use crate::{Config, Home, Rng, Seeds};

/// A task that does nothing but what it is told, and its inlets.
struct Stage {
    shard: Shard,
    running: Running,
    local: SocketAddr,
    requests: mpsc::Sender<Request>,
    crossings: mpsc::Sender<Handed>,
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
}

impl Stage {
    async fn new() -> Self {
        let config = Config { allow_local: true, ..Config::default() };
        let socket = UdpSocket::bind("127.0.0.1:0".parse().unwrap(), Batching::Native).unwrap();
        let (local, clock) = (socket.local_addr(), Clock::start());
        let id = Rng::from_seed(1).id();
        let home = Home { id, local, external: None, saved: Vec::new() };
        let node = Node::new(Arc::new(config.clone()), vec![home], Seeds::from_u64(1), clock.now());
        let (requests, inbox) = mpsc::channel(8);
        let (crossings, handed) = mpsc::channel(8);
        let shard = Shard {
            node: node.into(),
            clock,
            ports: Ports::new(vec![Port::new(0, socket)], clock.now()),
            satellites: Satellites::none(handed),
            requests: inbox,
            bootstrapped: watch::channel(Some(0)).0,
            ready: watch::channel(true).0,
            ids: watch::channel(vec![id]).0,
            state: None,
            heartbeat: Heartbeat::new(clock.now(), config.asleep_after),
            asleep_after: config.asleep_after,
            absent: Vec::new(),
            has_routers: false,
            condition: watch::channel(Condition { is_lonely: false, changes: 0 }).0,
        };
        shard.ports.warm_up().await;
        let mut stage = Self { running: shard.begin(), shard, local, requests, crossings };
        stage.turns();
        stage
    }

    /// Turns until there is nothing to do.
    fn turns(&mut self) {
        while self.shard.turn(&mut self.running) {}
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
        }
    }
}

#[tokio::test]
async fn a_stop_is_noticed_once_whatever_ends_the_wait() {
    let second = Duration::from_secs(1);
    for waking in
        [Waking::Nothing, Waking::Datagram, Waking::Crossed, Waking::Asked, Waking::Command, Waking::Question]
    {
        // The node itself notices the long one, since something of it was due long before.
        for stop in [Config::default().asleep_after + second / 10, 3600 * second] {
            let mut stage = Stage::new().await;
            let before = stage.shard.node.counters().network_changes;
            stage.shard.clock = stage.shard.clock.ahead(stop);
            stage.wake(waking);
            if !matches!(waking, Waking::Nothing) {
                stage.shard.wait(&mut stage.running).await;
            }
            stage.turns();
            stage.turns();
            let changes = stage.shard.node.counters().network_changes - before;
            assert_eq!(changes, 1, "{waking:?} after {stop:?}");
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
