//! [`Shard`]: the hosts of one thread with their timers and the packets on the way to them. It runs a window
//! of time by itself; what it sends to hosts of other shards waits in batches until the window is over.

mod transit;

use std::collections::BTreeMap;
use std::time::Duration;

use super::address::Addresses;
use super::digest::{Digest, Happening};
use super::dump::Captured;
use super::link::Paths;
use super::nat::Mappings;
use super::packets::{Packet, Packets};
use super::stats::Stats;
use super::wheel::Wheel;
use super::{Host, Presence};
use crate::event::Event;
use crate::{KeyedHash, Outbox, Time};

/// A host that wants to be woken up again at once is woken up so much later.
const HASTE: Duration = Duration::from_millis(1);

/// Pointers that [`Host::warm`] follows, and one.
const DEPTHS: usize = 3;

/// What all shards read and none changes while they run.
pub(super) struct Space {
    pub(super) seed: u64,
    pub(super) paths: Paths,
    pub(super) addresses: Addresses,
    pub(super) shards: usize,
    pub(super) hosts: usize,
    pub(super) hash: KeyedHash,
}

/// Something that a host is to do, or that is to happen to it.
pub(super) enum Order<H> {
    Act(Box<Action<H>>),
    Presence(Presence),
}

/// What a host is to do: (now, host, outbox).
pub(super) type Action<H> = dyn FnOnce(Time, &mut H, &mut Outbox) + Send;

/// What a host told.
#[derive(Clone, Debug)]
pub struct Told {
    /// When.
    pub at: Time,
    /// Index of the host.
    pub host: usize,
    /// What.
    pub event: Event,
}

/// Packets for the hosts of another shard.
#[derive(Default)]
pub(super) struct Batch {
    packets: Vec<Packet>,
    bytes: Vec<u8>,
}

pub(super) struct Shard<H> {
    index: usize,
    pub(super) now: Time,
    pub(super) hosts: Vec<H>,
    slots: Vec<Slot>,
    timers: Wheel,
    packets: Packets,
    pub(super) orders: BTreeMap<(Time, u64), (usize, Order<H>)>,
    out: Outbox,
    /// Hosts whose turn is near, for [`Shard::warm`].
    soon: Vec<u32>,
    pub(super) outgoing: Vec<Batch>,
    pub(super) told: Vec<Told>,
    /// Of watched hosts.
    pub(super) captured: Vec<Captured>,
    pub(super) digest: Digest,
    pub(super) stats: Stats,
}

/// What the engine keeps of a host.
struct Slot {
    /// Of its address.
    number: u32,
    /// Datagrams that it sent.
    sent: u32,
    access: u8,
    presence: Presence,
    watched: bool,
    /// Only of lines that need a memory.
    line: Option<Box<Line>>,
}

/// With the 16 bytes of its timer, an idle host costs the engine 40 bytes.
const _: () = assert!(size_of::<Slot>() == 24);

/// The state of a line with a rate or a NAT.
#[derive(Default)]
struct Line {
    up_busy: Time,
    down_busy: Time,
    mappings: Mappings,
}

/// What comes next.
enum Next {
    Order,
    Packet,
    Timer(u32),
}

impl<H: Host> Shard<H> {
    pub(super) fn new(index: usize, shards: usize, now: Time) -> Self {
        Self {
            index,
            now,
            hosts: Vec::new(),
            slots: Vec::new(),
            timers: Wheel::new(),
            packets: Packets::new(),
            orders: BTreeMap::new(),
            out: Outbox::new(),
            soon: Vec::new(),
            outgoing: (0..shards).map(|_| Batch::default()).collect(),
            told: Vec::new(),
            captured: Vec::new(),
            digest: Digest::default(),
            stats: Stats::default(),
        }
    }

    /// Makes room for hosts up to `count`.
    pub(super) fn reserve(&mut self, count: usize) {
        let more = count.saturating_sub(self.hosts.len());
        self.hosts.reserve_exact(more);
        self.slots.reserve_exact(more);
        self.timers.reserve(count);
    }

    pub(super) fn add(&mut self, host: H, number: u32, access: u8) {
        self.hosts.push(host);
        self.slots.push(Slot { number, sent: 0, access, presence: Presence::Up, watched: false, line: None });
        self.rearm(self.hosts.len() - 1);
    }

    pub(super) fn replace(&mut self, local: usize, host: H) -> H {
        let old = std::mem::replace(&mut self.hosts[local], host);
        self.timers.set(local as u32, Time::NEVER, 0);
        self.rearm(local);
        old
    }

    /// Lets a host do something now.
    pub(super) fn act<R>(
        &mut self,
        local: usize,
        action: impl FnOnce(Time, &mut H, &mut Outbox) -> R,
        space: &Space,
    ) -> R {
        self.note(local, &Happening::Acted, space);
        let result = action(self.now, &mut self.hosts[local], &mut self.out);
        self.settle(local, space);
        self.rearm(local);
        result
    }

    pub(super) fn set_presence(&mut self, local: usize, presence: Presence, space: &Space) {
        self.note(local, &Happening::Switched(presence), space);
        self.slots[local].presence = presence;
        self.timers.set(local as u32, Time::NEVER, 0);
        self.rearm(local);
    }

    pub(super) fn presence(&self, local: usize) -> Presence {
        self.slots[local].presence
    }

    pub(super) fn watch(&mut self, local: usize, watched: bool) {
        self.slots[local].watched = watched;
    }

    pub(super) fn set_access(&mut self, local: usize, access: u8) {
        let slot = &mut self.slots[local];
        (slot.access, slot.line) = (access, None);
    }

    pub(super) fn set_number(&mut self, local: usize, number: u32) {
        self.slots[local].number = number;
    }

    pub(super) fn number(&self, local: usize) -> u32 {
        self.slots[local].number
    }

    /// Packets on the way to hosts of this shard.
    pub(super) fn under_way(&self) -> usize {
        self.packets.len()
    }

    /// Bytes on the heap that are not the hosts'.
    pub(super) fn memory(&self) -> usize {
        let lines = self.slots.iter().filter_map(|slot| slot.line.as_ref());
        self.slots.capacity() * size_of::<Slot>()
            + lines.map(|line| size_of::<Line>() + line.mappings.memory()).sum::<usize>()
            + self.timers.memory()
            + self.packets.memory()
    }

    /// When something happens here next; [`Time::NEVER`] if nothing does.
    pub(super) fn next(&mut self) -> Time {
        self.peek().map_or(Time::NEVER, |(at, _)| at)
    }

    /// Handles everything before `end`.
    pub(super) fn run(&mut self, end: Time, space: &Space) {
        while let Some((at, next)) = self.peek()
            && at < end
        {
            self.now = self.now.max(at);
            self.warm(space);
            match next {
                Next::Order => self.obey(space),
                Next::Packet => self.receive(space),
                Next::Timer(item) => self.wake(item, space),
            }
        }
    }

    /// Takes the packets that another shard has for this one.
    pub(super) fn collect(&mut self, batch: &mut Batch) {
        for packet in batch.packets.drain(..) {
            let bytes = &batch.bytes[packet.place as usize..][..usize::from(packet.len)];
            self.packets.push(packet, bytes);
        }
        batch.bytes.clear();
    }

    /// Has what comes in the next millisecond read from memory, everything at the same time.
    fn warm(&mut self, space: &Space) {
        let mut soon = std::mem::take(&mut self.soon);
        let local = |number| space.addresses.host(number).map(|host| host / space.shards as u32);
        let mut sum = self.packets.arrived(local, &mut soon);
        soon.extend(self.timers.arrived());
        for depth in 0..DEPTHS {
            sum = soon.iter().fold(sum, |sum, &local| sum ^ self.hosts[local as usize].warm(depth));
        }
        sum = soon.iter().fold(sum, |sum, &local| sum ^ u64::from(self.slots[local as usize].sent));
        std::hint::black_box(sum);
        soon.clear();
        self.soon = soon;
    }

    /// What comes first; of what comes at the same time, orders and then packets.
    fn peek(&mut self) -> Option<(Time, Next)> {
        let order = self.orders.first_key_value().map(|(&(at, _), _)| (at, Next::Order));
        let packet = self.packets.next().map(|at| (at, Next::Packet));
        let timer = self.timers.peek(u64::from).map(|(at, item)| (at, Next::Timer(item)));
        // The first of the least ones.
        [order, packet, timer].into_iter().flatten().min_by_key(|&(at, _)| at)
    }

    fn obey(&mut self, space: &Space) {
        let Some((_, (local, order))) = self.orders.pop_first() else { return };
        match order {
            Order::Act(action) => self.act(local, action, space),
            Order::Presence(presence) => self.set_presence(local, presence, space),
        }
    }

    fn wake(&mut self, item: u32, space: &Space) {
        self.timers.pop();
        let local = item as usize;
        if self.hosts[local].next() > self.now {
            self.stats.early += 1;
            self.rearm(local);
            return;
        }
        self.stats.timeouts += 1;
        self.note(local, &Happening::Woken, space);
        self.hosts[local].timeout(self.now, &mut self.out);
        self.settle(local, space);
        if self.hosts[local].next() > self.now {
            self.rearm(local);
        } else {
            self.stats.hasty += 1;
            self.timers.set(item, self.now + HASTE, u64::from(item));
        }
    }

    /// Sees to it that the host is woken up in time. A timer that is too early stays: most hosts put off
    /// what they want again and again, and when it comes they are asked once more.
    fn rearm(&mut self, local: usize) {
        let next = match self.slots[local].presence {
            Presence::Up | Presence::Offline => self.hosts[local].next(),
            Presence::Down => Time::NEVER,
        };
        if next < self.timers.at(local as u32) {
            self.timers.set(local as u32, next.max(self.now), local as u64);
        }
    }

    /// Takes what a host wants sent and told.
    fn settle(&mut self, local: usize, space: &Space) {
        if self.out.transmits.is_empty() && self.out.events.is_empty() {
            return;
        }
        let mut out = std::mem::take(&mut self.out);
        for transmit in &out.transmits {
            self.send(local, transmit, out.datagram(transmit), space);
        }
        for event in &out.events {
            self.note(local, &Happening::Told(event), space);
        }
        let (at, host) = (self.now, self.host(local, space));
        self.told.extend(out.events.drain(..).map(|event| Told { at, host, event }));
        out.clear();
        self.out = out;
    }

    fn note(&mut self, local: usize, what: &Happening<'_>, space: &Space) {
        let host = self.host(local, space);
        self.digest.note(&space.hash, self.now, host, what);
    }

    fn host(&self, local: usize, space: &Space) -> usize {
        local * space.shards + self.index
    }
}
