//! A serving shard at work: one thread with a runtime and sockets of its own, which receives, lets its
//! [`Satellite`] answer, sends, and hands over what is not for it. No protocol lives here.
//!
//! It ends when its orders do, or when a socket cannot be bound at the start.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use tokio::sync::mpsc;

use super::interfaces::Difference;
use super::mailbox::{Closed, Mailbox};
use super::port::{Port, PortCounters};
use super::ports::{LONGEST_WAIT, Ports, Turns};
use super::udp::{Batching, UdpSocket};
use super::{Clock, Error};
use crate::shards::{Crossing, Satellite};
use crate::{Counters, Outbox, Time};

/// What a station needs.
pub(super) struct Plan {
    pub(super) core: Satellite,
    pub(super) locals: Vec<SocketAddr>,
    /// The addresses of the machine.
    pub(super) present: BTreeSet<IpAddr>,
    pub(super) clock: Clock,
    pub(super) crossings: mpsc::Sender<Handed>,
    /// What changes of the machine's interfaces.
    pub(super) orders: Mailbox,
    pub(super) report: Arc<Mutex<Report>>,
}

/// What a station hands over.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Handed {
    pub(super) crossing: Crossing,
    /// The address of ours that the datagram came to which led to it, where that matters.
    pub(super) asked: Option<IpAddr>,
}

/// What a station has counted, as of its last turn.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) counters: Counters,
    pub(super) ports: Vec<PortCounters>,
}

/// A station at work.
struct Station {
    plan: Plan,
    ports: Ports,
    out: Outbox,
    crossed: Vec<Crossing>,
    /// The address that was asked, for each of them.
    asked: Vec<Option<IpAddr>>,
}

/// Starts the `n`th station and waits until its sockets are bound.
///
/// # Errors
/// [`Error::Bind`], [`Error::Shard`].
pub(super) fn start(n: usize, plan: Plan) -> Result<JoinHandle<()>, Error> {
    let (ready, bound) = std::sync::mpsc::sync_channel(1);
    let work = move || {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(source) => return drop(ready.send(Err(Error::Shard { source }))),
        };
        runtime.block_on(async {
            match Station::new(plan) {
                Ok(station) => {
                    // Whoever started it waits for this.
                    let _ = ready.send(Ok(()));
                    station.run().await;
                }
                Err(error) => drop(ready.send(Err(error))),
            }
        });
    };
    let thread = thread::Builder::new().name(format!("btdht-shard-{n}")).spawn(work);
    let thread = thread.map_err(|source| Error::Shard { source })?;
    bound.recv().unwrap_or(Err(Error::Stopped))?;
    Ok(thread)
}

impl Station {
    fn new(plan: Plan) -> Result<Self, Error> {
        let bind = |(index, &addr): (u8, &SocketAddr)| {
            let socket = UdpSocket::bind_beside(addr, Batching::Native);
            socket.map(|socket| Port::new(index, socket)).map_err(|source| Error::Bind { addr, source })
        };
        let ports = (0..).zip(&plan.locals).map(bind).collect::<Result<_, _>>()?;
        let mut ports = Ports::new(ports, plan.clock.now());
        ports.answer_at(&plan.present);
        ports.allow_linger();
        Ok(Self { ports, out: Outbox::new(), crossed: Vec::new(), asked: Vec::new(), plan })
    }

    /// Runs until there can be no more orders.
    async fn run(mut self) {
        self.ports.warm_up().await;
        let mut turns = Turns::default();
        loop {
            let worked = self.turn();
            match self.plan.orders.try_next() {
                Ok(Some(difference)) => self.interfaces_changed(&difference),
                Ok(None) => {}
                Err(Closed) => return,
            }
            // Its thread does nothing else.
            let now = self.plan.clock.now();
            let is_busy = worked || self.ports.linger(now, Time::NEVER);
            if turns.are_over(is_busy, now).await && !self.wait().await {
                return;
            }
        }
    }

    /// Does what there is to do, bounded; whether it was anything.
    fn turn(&mut self) -> bool {
        let now = self.plan.clock.now();
        let (core, crossed, asked) = (&mut self.plan.core, &mut self.crossed, &mut self.asked);
        let received = self.ports.receive(now, &mut self.out, |index, datagram, out| {
            core.handle_datagram(now, (index, datagram.from), datagram.bytes, (out, crossed));
            asked.resize(crossed.len(), datagram.asked);
        });
        self.ports.send(now, &self.out);
        self.ports.repair(now, |_| ());
        self.out.clear();
        self.hand_over();
        if received > 0 {
            self.report();
        }
        received > 0
    }

    /// Gives the node's task what is for it. What finds no room is dropped and counted.
    fn hand_over(&mut self) {
        let crossings = &self.plan.crossings;
        for (crossing, asked) in self.crossed.drain(..).zip(self.asked.drain(..)) {
            // Half of the places are for answers to the node's own queries: askers may be forged in any
            // number, and must not crowd them out.
            if crossing.is_minor() && crossings.capacity() <= crossings.max_capacity() / 2 {
                self.plan.core.lost(&crossing);
            } else if let Err(refused) = crossings.try_send(Handed { crossing, asked }) {
                self.plan.core.lost(&refused.into_inner().crossing);
            }
        }
    }

    fn report(&self) {
        let mut report = self.plan.report.lock().unwrap_or_else(PoisonError::into_inner);
        report.counters = self.plan.core.counters();
        report.ports.clear();
        report.ports.extend(self.ports.counters());
    }

    fn interfaces_changed(&mut self, difference: &Difference) {
        self.ports.interfaces_changed(self.plan.clock.now(), difference);
    }

    /// Waits until there is something to do; whether there can be.
    async fn wait(&mut self) -> bool {
        if self.ports.paused().await {
            return true;
        }
        tokio::select! {
            () = self.ports.ready() => true,
            () = tokio::time::sleep(LONGEST_WAIT) => true,
            told = self.plan.orders.next() => match told {
                Ok(difference) => {
                    self.interfaces_changed(&difference);
                    true
                }
                Err(Closed) => false,
            },
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::sync::Arc as Shared;

    use super::*;
    use crate::net::mailbox::mailbox;
    use crate::{Config, Home, Node, Rng, Seeds};

    /// A station at a port that is shared, with room for so many crossings.
    fn station(room: usize) -> (Station, mpsc::Receiver<Handed>, UdpSocket) {
        let mut first = UdpSocket::bind("127.0.0.1:0".parse().unwrap(), Batching::Native).unwrap();
        first.share().unwrap();
        let clock = Clock::start();
        let local = first.local_addr();
        let home = Home { id: Rng::from_seed(1).id(), local, external: None, saved: Vec::new() };
        let config = Config { allow_local: true, ..Config::default() };
        let mut node = Node::new(Shared::new(config), vec![home], Seeds::from_u64(1), clock.now());
        let core = node.split(clock.now(), 1).pop().unwrap();
        let (crossings, crossed) = mpsc::channel(room);
        let orders = mailbox().1;
        let (locals, present) = (vec![local], BTreeSet::new());
        let plan = Plan { core, locals, present, clock, crossings, orders, report: Arc::default() };
        (Station::new(plan).unwrap(), crossed, first)
    }

    fn asked(n: u8) -> Crossing {
        let from = ([81, 2, 3, n], 6881).into();
        Crossing::Asked { socket: 0, from, id: Rng::from_seed(n.into()).id(), read_only: false }
    }

    fn answer(n: u8) -> Crossing {
        let from = ([81, 2, 3, n], 6881).into();
        Crossing::Datagram { socket: 0, from, bytes: [n; 20].into(), is_answer: true }
    }

    #[tokio::test]
    async fn what_finds_no_room_is_dropped_and_counted_and_answers_have_room_of_their_own() {
        let (mut station, mut crossed, _first) = station(8);
        let ours = |n: u8| Some(IpAddr::from([192, 0, 2, n]));
        station.crossed = (0..10).map(asked).chain((0..10).map(answer)).collect();
        station.asked = (0..20).map(ours).collect();
        station.hand_over();
        station.report();
        let counters = station.plan.report.lock().unwrap().counters;
        assert_eq!((counters.crossings_dropped, counters.datagrams_in), (12, 6));
        let got: Vec<_> = std::iter::from_fn(|| crossed.try_recv().ok()).collect();
        let expected = (0..4).map(|n| (asked(n), ours(n))).chain((0..4).map(|n| (answer(n), ours(10 + n))));
        let expected: Vec<_> = expected.map(|(crossing, asked)| Handed { crossing, asked }).collect();
        assert_eq!(got, expected);
        // There is room again.
        station.crossed.push(asked(1));
        station.asked.push(None);
        station.hand_over();
        assert_eq!(crossed.try_recv(), Ok(Handed { crossing: asked(1), asked: None }));
    }

    #[tokio::test]
    async fn a_station_whose_node_is_gone_ends() {
        let (station, crossed, _first) = station(8);
        drop(crossed);
        tokio::time::timeout(std::time::Duration::from_secs(20), station.run())
            .await
            .expect("no orders, no work");
    }

    #[tokio::test]
    async fn a_port_that_is_not_shared_is_an_error_of_the_start() {
        let alone = UdpSocket::bind("127.0.0.1:0".parse().unwrap(), Batching::Native).unwrap();
        let (station, _crossed, _first) = station(8);
        let plan = Plan { locals: vec![alone.local_addr()], ..station.plan };
        assert!(matches!(start(1, plan), Err(Error::Bind { addr, .. }) if addr == alone.local_addr()));
    }
}
