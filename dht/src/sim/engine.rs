//! [`World`]: hosts, their addresses and the network between them, and what its owner does with them.

use std::net::{SocketAddr, SocketAddrV4};
use std::panic::resume_unwind;

use super::address::{Addresses, MOVED};
use super::digest::Digest;
use super::dump::Captured;
use super::link::{Links, Paths};
use super::meeting::Meeting;
use super::orders::{Ordered, Orders};
use super::shard::{Shard, Space, Told};
use super::stats::Stats;
use super::{Host, Presence};
use crate::{Outbox, Time};

/// When a world begins, so that nothing has to happen at [`Time::ZERO`].
const START: Time = Time::from_secs(1);

/// A virtual network and who lives in it.
///
/// Hosts are named by their index, in the order in which they were added; they are never removed, but may
/// be [replaced](Self::replace) or be [down](Presence::Down).
pub struct World<H> {
    space: Space,
    shards: Vec<Shard<H>>,
    now: Time,
    /// Orders given so far.
    ordered: u64,
}

impl<H: Host> World<H> {
    /// An empty world at time 1 s. `seed` decides about addresses, latency and loss; `threads` (1 to 64)
    /// about speed alone.
    pub fn new(seed: u64, links: Links, threads: usize) -> Self {
        let shards = threads.clamp(1, 64);
        let space = Space {
            seed,
            paths: Paths::new(links, seed),
            addresses: Addresses::new(seed),
            shards,
            hosts: 0,
            hash: Digest::hash(),
        };
        let shards = (0..shards).map(|index| Shard::new(index, shards, START)).collect();
        Self { space, shards, now: START, ordered: 0 }
    }

    /// Makes room for `count` hosts in all, so that their array need not be moved while it grows.
    pub fn reserve(&mut self, count: usize) {
        let each = count.div_ceil(self.shards.len());
        self.shards.iter_mut().for_each(|shard| shard.reserve(each));
    }

    /// Adds a host with a line of this kind, an index of [`Links::access`]; its index. It lives at
    /// [`World::addr`] of that index.
    ///
    /// # Panics
    /// With more than 2^31 hosts.
    pub fn add(&mut self, host: H, access: u8) -> usize {
        let index = self.space.hosts;
        let number = u32::try_from(index).ok().filter(|&number| number < MOVED);
        let shard = index % self.space.shards;
        self.space.hosts += 1;
        self.shards[shard].now = self.now;
        self.shards[shard].add(host, number.expect("fewer than 2^31 hosts"), access);
        index
    }

    /// Puts another host in the place of one, at the same address and line; the old one. Datagrams under
    /// way reach the new one.
    pub fn replace(&mut self, index: usize, host: H) -> H {
        let local = self.local(index);
        self.shard(index).replace(local, host)
    }

    /// Gives a host an IPv4 and an IPv6 address that nobody had before; the IPv4 one. What is under way to
    /// the old ones is lost.
    pub fn relocate(&mut self, index: usize) -> SocketAddr {
        self.settle_at(index, None)
    }

    /// Gives a host the IPv4 address `addr` and, at the same port, an IPv6 address that nobody had before.
    /// Whoever lived there is no longer reached. A symmetric NAT hides a host at such an address altogether.
    pub fn place(&mut self, index: usize, addr: SocketAddrV4) {
        self.settle_at(index, Some(addr));
    }

    /// Gives a host a line of another kind; what a NAT remembered is forgotten.
    pub fn set_access(&mut self, index: usize, access: u8) {
        let local = self.local(index);
        self.shard(index).set_access(local, access);
    }

    /// Says whether a host takes part from now on.
    pub fn set_presence(&mut self, index: usize, presence: Presence) {
        let (shard, local) = (index % self.space.shards, self.local(index));
        self.shards[shard].now = self.now;
        self.shards[shard].set_presence(local, presence, &self.space);
    }

    /// Changes what lies between hosts. What is under way arrives as it would have.
    pub fn set_links(&mut self, links: Links) {
        self.space.paths = Paths::new(links, self.space.seed);
    }

    /// Has the datagrams of a host kept from now on, or no more; see [`World::captured`].
    pub fn watch(&mut self, index: usize, watched: bool) {
        let local = self.local(index);
        self.shard(index).watch(local, watched);
    }

    /// Takes what watched hosts sent and got, in order of time and host. Memory grows until it is taken.
    pub fn captured(&mut self) -> Vec<Captured> {
        let mut all: Vec<_> = self.shards.iter_mut().flat_map(|shard| shard.captured.drain(..)).collect();
        all.sort_by_key(|captured| (captured.at, captured.host));
        all
    }

    /// Lets a host do something now. What it tells comes out of the next [`World::run`].
    pub fn act<R>(&mut self, index: usize, action: impl FnOnce(Time, &mut H, &mut Outbox) -> R) -> R {
        let (shard, local) = (index % self.space.shards, self.local(index));
        self.shards[shard].now = self.now;
        self.shards[shard].act(local, action, &self.space)
    }

    /// Has a host do something at `at`, or now if that has passed.
    pub fn order(
        &mut self,
        at: Time,
        index: usize,
        action: impl FnOnce(Time, &mut H, &mut Outbox) + Send + 'static,
    ) {
        let mut orders = self.orders();
        orders.act(at, index, action);
        self.give(orders);
    }

    /// Has a host appear or vanish at `at`, or now if that has passed.
    pub fn order_presence(&mut self, at: Time, index: usize, presence: Presence) {
        let mut orders = self.orders();
        orders.presence(at, index, presence);
        self.give(orders);
    }

    /// Runs everything that happens until `until`, that instant included. `sink` gets what hosts tell, in
    /// order of time and host, and may give orders; these are obeyed after the window in which the cause
    /// happened, up to [`Links::minimum`] later than it.
    ///
    /// With [`Time::NEVER`] it ends when nothing is going to happen any more.
    ///
    /// # Panics
    /// When a host or `sink` does. The world is of no more use then.
    pub fn run(&mut self, until: Time, mut sink: impl FnMut(&mut Orders<H>, Told)) {
        let mut orders = self.orders();
        self.shards.iter_mut().for_each(|shard| shard.now = self.now);
        let meeting = Meeting::new(self.shards.len(), until);
        let (first, others) = self.shards.split_first_mut().expect("at least one shard");
        let (space, meeting) = (&self.space, &meeting);
        let panics = std::thread::scope(|scope| {
            let spawn = |(n, shard)| scope.spawn(move || meeting.attend(n + 1, shard, space, None));
            let threads: Vec<_> = others.iter_mut().enumerate().map(spawn).collect();
            let own = meeting.attend(0, first, space, Some((&mut orders, &mut sink)));
            let joined = threads.into_iter().filter_map(|thread| thread.join().unwrap_or_else(Some));
            own.into_iter().chain(joined).collect::<Vec<_>>()
        });
        if let Some(panic) = panics.into_iter().next() {
            resume_unwind(panic);
        }
        self.ordered = orders.ordered;
        let last = self.shards.iter().map(|shard| shard.now).max().unwrap_or(self.now);
        self.now = self.now.max(if until == Time::NEVER { last } else { until });
    }
}

impl<H> World<H> {
    /// The present.
    pub fn now(&self) -> Time {
        self.now
    }

    /// Hosts, those that are down included.
    pub fn len(&self) -> usize {
        self.space.hosts
    }

    /// Whether it has no hosts.
    pub fn is_empty(&self) -> bool {
        self.space.hosts == 0
    }

    fn local(&self, index: usize) -> usize {
        assert!(index < self.space.hosts, "there is no host {index}");
        index / self.space.shards
    }

    fn orders(&self) -> Orders<H> {
        Orders::new(self.now, self.ordered, self.space.hosts)
    }
}

impl<H: Host> World<H> {
    /// A host.
    pub fn host(&self, index: usize) -> &H {
        &self.shards[index % self.space.shards].hosts[self.local(index)]
    }

    /// All hosts in the order of their indices.
    pub fn hosts(&self) -> impl Iterator<Item = &H> {
        (0..self.len()).map(|index| self.host(index))
    }

    /// Whether a host takes part.
    pub fn presence(&self, index: usize) -> Presence {
        self.shards[index % self.space.shards].presence(self.local(index))
    }

    /// The IPv4 address of a host, or the one that the host of this index will get when it is added.
    /// Without a NAT or behind any but a symmetric one it is what others see.
    pub fn addr(&self, index: usize) -> SocketAddr {
        self.space.addresses.v4(self.number(index))
    }

    /// The same of its IPv6 address.
    pub fn addr6(&self, index: usize) -> SocketAddr {
        self.space.addresses.v6(self.number(index))
    }

    /// The host that lives at an address, whatever the port is unless the address was chosen.
    pub fn at(&self, addr: SocketAddr) -> Option<usize> {
        let number = self.space.addresses.number(addr)?;
        let index = self.space.addresses.host(number)? as usize;
        (index < self.len() && self.number(index) == number).then_some(index)
    }

    /// What happened so far, as one number.
    pub fn digest(&self) -> Digest {
        self.shards.iter().fold(Digest::default(), |digest, shard| digest.merge(shard.digest))
    }

    /// What became of it.
    pub fn stats(&self) -> Stats {
        self.shards.iter().fold(Stats::default(), |stats, shard| stats.merge(shard.stats))
    }

    /// Datagrams under way.
    pub fn under_way(&self) -> usize {
        self.shards.iter().map(Shard::under_way).sum()
    }

    /// Bytes that the engine keeps for hosts and datagrams, without the hosts themselves.
    pub fn memory(&self) -> usize {
        self.shards.iter().map(Shard::memory).sum()
    }

    fn number(&self, index: usize) -> u32 {
        if index < self.len() {
            return self.shards[index % self.space.shards].number(self.local(index));
        }
        u32::try_from(index).expect("fewer than 2^31 hosts")
    }

    fn settle_at(&mut self, index: usize, chosen: Option<SocketAddrV4>) -> SocketAddr {
        let local = self.local(index);
        let number = self.space.addresses.another(index as u32, chosen);
        self.shard(index).set_number(local, number);
        self.space.addresses.v4(number)
    }

    /// The shard of a host, at the present time.
    fn shard(&mut self, index: usize) -> &mut Shard<H> {
        let shard = &mut self.shards[index % self.space.shards];
        shard.now = self.now;
        shard
    }

    fn give(&mut self, orders: Orders<H>) {
        self.ordered = orders.ordered;
        let shards = self.space.shards;
        for Ordered { at, number, host, order } in orders.list {
            self.shards[host % shards].orders.insert((at, number), (host / shards, order));
        }
    }
}
