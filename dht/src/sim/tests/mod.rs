//! Worlds of simple hosts: what the engine, its links and its threads owe.

mod engine;
mod links;
mod threads;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{Access, Host, Links, Orders, Presence, Told, World};
use crate::event::Event;
use crate::{Class, LookupId, Outbox, Rng, Time};

const MILLISECOND: Duration = Duration::from_millis(1);

/// A host that notes what it gets, and sends when its time has come.
#[derive(Default)]
struct Peer {
    /// What came: when, at which socket, from where, and the bytes.
    got: Vec<(Time, u8, SocketAddr, Vec<u8>)>,
    /// When its timer came.
    woken: Vec<Time>,
    /// When it wants to wake up; each time but the last is replaced by the next.
    wishes: Vec<Time>,
    /// Sends every datagram back.
    echoes: bool,
    /// Sends to a random one of `known` each time that it wakes up, and again after up to `every`.
    chatter: Option<(Rng, Arc<Vec<SocketAddr>>, Duration)>,
    /// Who datagrams of sockets from 2 on claim to come from.
    forges: Option<SocketAddr>,
}

impl Host for Peer {
    fn datagram(&mut self, now: Time, socket: u8, from: SocketAddr, bytes: &[u8], out: &mut Outbox) {
        if self.chatter.is_some() {
            // A chatter keeps a sum, and answers some.
            if bytes.len().is_multiple_of(3) {
                out.send(socket, from, Class::Reply, |write| write.extend_from_slice(&bytes[1..]));
            }
            self.wishes[0] = self.wishes[0].min(now + MILLISECOND * u32::from(bytes[0]));
            return;
        }
        self.got.push((now, socket, from, bytes.to_vec()));
        if self.echoes {
            out.send(socket, from, Class::Reply, |write| write.extend_from_slice(bytes));
        }
    }

    fn timeout(&mut self, now: Time, out: &mut Outbox) {
        if let Some((rng, known, every)) = &mut self.chatter {
            let to = known[rng.below(known.len())];
            let len = 1 + rng.below(200);
            let byte = rng.next_u32() as u8;
            out.send(0, to, Class::Query, |write| write.resize(write.len() + len, byte));
            out.events.push(told(len as u64));
            self.wishes = vec![now + Duration::from_micros(rng.below(every.as_micros() as usize) as u64)];
            return;
        }
        self.woken.push(now);
        if self.wishes.len() > 1 {
            self.wishes.remove(0);
        }
    }

    fn next(&self) -> Time {
        self.wishes.first().copied().unwrap_or(Time::NEVER)
    }

    fn forged(&self, _: u8) -> Option<SocketAddr> {
        self.forges
    }
}

/// An event that says a number.
fn told(number: u64) -> Event {
    Event::Peer { lookup: LookupId(number), node: ([1, 1, 1, 1], 1).into(), addr: ([2, 2, 2, 2], 2).into() }
}

/// A world of `count` silent peers.
fn world(seed: u64, links: Links, count: usize) -> World<Peer> {
    let mut world = World::new(seed, links, 1);
    for _ in 0..count {
        world.add(Peer::default(), 0);
    }
    world
}

/// Peers that talk to each other at random.
fn chatter(seed: u64, links: Links, count: usize, threads: usize) -> World<Peer> {
    let mut world = World::new(seed, links, threads);
    let known = Arc::new((0..count).map(|n| world.addr(n)).collect::<Vec<_>>());
    for n in 0..count {
        let rng = Rng::from_seed(seed << 32 | n as u64);
        let chatter = Some((rng, Arc::clone(&known), Duration::from_millis(200)));
        world.add(Peer { chatter, wishes: vec![world.now()], ..Peer::default() }, 0);
    }
    world
}

/// Has a peer send `len` bytes to `to` now.
fn send(world: &mut World<Peer>, from: usize, to: SocketAddr, len: usize) {
    send_by(world, from, 0, to, len);
}

fn send_by(world: &mut World<Peer>, from: usize, socket: u8, to: SocketAddr, len: usize) {
    world.act(from, |_, _, out| {
        out.send(socket, to, Class::Query, |write| write.resize(write.len() + len, b'x'));
    });
}

/// Runs for `span`; what hosts told.
fn run(world: &mut World<Peer>, span: Duration) -> Vec<Told> {
    let mut all = Vec::new();
    world.run(world.now() + span, |_, told| all.push(told));
    all
}
