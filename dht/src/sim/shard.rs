//! [`Shard`]: the hosts of one thread with their timers and the packets on the way to them. It runs a window
//! of time by itself; what it sends to hosts of other shards waits in batches until the window is over.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::address::Addresses;
use super::dice::{Draw, draw, happens, mix};
use super::digest::{Digest, Sent};
use super::link::{Access, Pair, Paths};
use super::nat::Mappings;
use super::packets::{Family, Packet, Packets, Stage};
use super::stats::Stats;
use super::wheel::Wheel;
use super::{Host, Presence};
use crate::addr::canonical;
use crate::event::Event;
use crate::{KeyedHash, Outbox, Time, Transmit};

/// The longest payload of a UDP datagram (IPv4).
const MAX_PAYLOAD: usize = 65_507;
/// A host that wants to be woken up again at once is woken up so much later.
const HASTE: Duration = Duration::from_millis(1);
/// Sockets of a host's own; others have senders that the host makes up.
const SOCKETS: u8 = 2;

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
    pub(super) outgoing: Vec<Batch>,
    pub(super) told: Vec<Told>,
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

/// Why a datagram does not arrive.
type Counter = fn(&mut Stats) -> &mut u64;

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
            outgoing: (0..shards).map(|_| Batch::default()).collect(),
            told: Vec::new(),
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
        self.slots.push(Slot { number, sent: 0, access, presence: Presence::Up, line: None });
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
        let result = action(self.now, &mut self.hosts[local], &mut self.out);
        self.settle(local, space);
        self.rearm(local);
        result
    }

    pub(super) fn set_presence(&mut self, local: usize, presence: Presence) {
        self.slots[local].presence = presence;
        self.timers.set(local as u32, Time::NEVER, 0);
        self.rearm(local);
    }

    pub(super) fn presence(&self, local: usize) -> Presence {
        self.slots[local].presence
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
            Order::Presence(presence) => self.set_presence(local, presence),
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
        let (at, host) = (self.now, self.host(local, space));
        self.told.extend(out.events.drain(..).map(|event| Told { at, host, event }));
        out.clear();
        self.out = out;
    }

    fn send(&mut self, local: usize, transmit: &Transmit, bytes: &[u8], space: &Space) {
        let (now, to) = (self.now, canonical(transmit.to));
        let slot = &mut self.slots[local];
        let (number, sequence, access) = (slot.number, slot.sent, space.paths.access(slot.access));
        slot.sent = slot.sent.wrapping_add(1);
        let forged = match transmit.socket {
            ..SOCKETS => None,
            socket => self.hosts[local].forged(socket),
        };
        let from = forged.unwrap_or_else(|| own_addr(space, &access, number, to));
        let random = draw(space.seed, Draw::Packet, number.into(), sequence.into());
        let fate = self.fate(local, (from, to), (bytes.len(), random), space);
        let arrives = fate.map_or(Time::NEVER, |(at, _)| at);
        self.digest.add(&space.hash, &Sent { now, arrives, from, to, bytes });
        self.stats.sent += 1;
        self.stats.bytes += bytes.len() as u64;
        let (at, to_number) = match fate {
            Ok(fate) => fate,
            Err(counter) => {
                *counter(&mut self.stats) += 1;
                return;
            }
        };
        let packet = Packet {
            at,
            source: number,
            sequence,
            to: to_number,
            place: 0,
            from_port: from.port(),
            to_port: to.port(),
            len: 0,
            family: match (from, forged) {
                (SocketAddr::V4(_), None) => Family::V4,
                (SocketAddr::V6(_), None) => Family::V6,
                (SocketAddr::V4(_), Some(_)) => Family::ForgedV4,
                (SocketAddr::V6(_), Some(_)) => Family::ForgedV6,
            },
            stage: Stage::Outside,
        };
        self.post(packet, from, bytes, space);
    }

    /// When a datagram of a host reaches the line of which number, or what counts that it does not.
    fn fate(
        &mut self,
        local: usize,
        (from, to): (SocketAddr, SocketAddr),
        (len, random): (usize, u64),
        space: &Space,
    ) -> Result<(Time, u32), Counter> {
        let (now, paths) = (self.now, &space.paths);
        let host = self.host(local, space) as u32;
        let slot = &mut self.slots[local];
        if slot.presence != Presence::Up {
            return Err(|stats| &mut stats.offline);
        }
        let access = paths.access(slot.access);
        if let Some(nat) = access.nat
            && from == own_addr(space, &access, slot.number, to)
        {
            nat.opens(now, to, &mut slot.line.get_or_insert_default().mappings);
        }
        if len > MAX_PAYLOAD || !access.passes(len, random) {
            return Err(|stats| &mut stats.oversize);
        }
        if happens(mix(random ^ 1), access.up.loss_ppm) {
            return Err(|stats| &mut stats.lost);
        }
        let leaves = match access.up.rate {
            0 => Some(now + access.up.delay),
            _ => access.up.pass(now, len, &mut slot.line.get_or_insert_default().up_busy),
        };
        let leaves = leaves.ok_or::<Counter>(|stats| &mut stats.queue_full)?;
        let number = space.addresses.number(to).filter(|_| from.is_ipv4() == to.is_ipv4());
        let receiver = number.and_then(|number| space.addresses.host(number));
        let (Some(number), Some(receiver)) = (number, receiver.filter(|&host| (host as usize) < space.hosts))
        else {
            return Err(|stats| &mut stats.stray);
        };
        let pair = Pair { from: host, to: receiver };
        if paths.parts(now, pair) {
            return Err(|stats| &mut stats.parted);
        }
        let at = leaves + Duration::from_micros(paths.one_way(pair, mix(random ^ 2)));
        if paths.loses(now, pair, mix(random ^ 3)) || at == Time::NEVER {
            return Err(|stats| &mut stats.lost);
        }
        Ok((at, number))
    }

    /// Puts a packet on its way, to this shard or another.
    fn post(&mut self, mut packet: Packet, from: SocketAddr, bytes: &[u8], space: &Space) {
        let mut whole = Vec::new();
        let bytes = match packet.family {
            Family::V4 | Family::V6 => bytes,
            Family::ForgedV4 | Family::ForgedV6 => {
                put_ip(&mut whole, from.ip());
                whole.extend_from_slice(bytes);
                &whole
            }
        };
        packet.len = bytes.len() as u16;
        let Some(host) = space.addresses.host(packet.to) else { return };
        let shard = host as usize % space.shards;
        if shard == self.index {
            self.packets.push(packet, bytes);
            return;
        }
        let batch = &mut self.outgoing[shard];
        packet.place = u32::try_from(batch.bytes.len()).expect("a window carries less than 4 GiB");
        batch.packets.push(packet);
        batch.bytes.extend_from_slice(bytes);
    }

    /// Handles the packet that has arrived.
    fn receive(&mut self, space: &Space) {
        let Some((slot, mut packet)) = self.packets.pop() else { return };
        let local = space.addresses.host(packet.to).map_or(0, |host| host as usize / space.shards);
        let from = self.sender(&packet, space);
        match self.passes(local, &packet, from, space) {
            Err(counter) => *counter(&mut self.stats) += 1,
            Ok(at) if at > self.now => {
                (packet.at, packet.stage) = (at, Stage::Inside);
                self.packets.put_back(slot, packet);
                return;
            }
            Ok(_) => {
                self.stats.delivered += 1;
                let skip = forged_len(packet.family);
                let bytes = &self.packets.bytes(&packet)[skip..];
                let socket = u8::from(from.is_ipv6());
                self.hosts[local].datagram(self.now, socket, from, bytes, &mut self.out);
                self.settle(local, space);
                self.rearm(local);
            }
        }
        self.packets.free(slot);
    }

    /// When a packet that has reached a host's line has passed it, or what counts that it does not.
    fn passes(
        &mut self,
        local: usize,
        packet: &Packet,
        from: SocketAddr,
        space: &Space,
    ) -> Result<Time, Counter> {
        let slot = &mut self.slots[local];
        if slot.presence != Presence::Up {
            return Err(|stats| &mut stats.offline);
        }
        let access = space.paths.access(slot.access);
        let own = own_addr(space, &access, slot.number, from);
        if slot.number != packet.to {
            return Err(|stats| &mut stats.stray);
        }
        if own.port() != packet.to_port {
            return Err(if access.nat.is_some() { |s| &mut s.filtered } else { |s| &mut s.stray });
        }
        if packet.stage == Stage::Inside {
            return Ok(self.now);
        }
        if let Some(nat) = access.nat
            && !nat.admits(self.now, from, &slot.line.get_or_insert_default().mappings)
        {
            return Err(|stats| &mut stats.filtered);
        }
        let len = usize::from(packet.len) - forged_len(packet.family);
        let random = draw(space.seed, Draw::Arrival, packet.source.into(), packet.sequence.into());
        if !access.passes(len, random) {
            return Err(|stats| &mut stats.oversize);
        }
        if happens(mix(random ^ 1), access.down.loss_ppm) {
            return Err(|stats| &mut stats.lost);
        }
        let passed = match access.down.rate {
            0 => Some(self.now + access.down.delay),
            _ => access.down.pass(self.now, len, &mut slot.line.get_or_insert_default().down_busy),
        };
        passed.filter(|&at| at != Time::NEVER).ok_or(|stats| &mut stats.queue_full)
    }

    fn sender(&self, packet: &Packet, space: &Space) -> SocketAddr {
        let bytes = self.packets.bytes(packet);
        let mut addr = match packet.family {
            Family::V4 => space.addresses.v4(packet.source),
            Family::V6 => space.addresses.v6(packet.source),
            Family::ForgedV4 => {
                let octets: [u8; 4] = std::array::from_fn(|n| bytes[n]);
                (Ipv4Addr::from(octets), 0).into()
            }
            Family::ForgedV6 => {
                let octets: [u8; 16] = std::array::from_fn(|n| bytes[n]);
                (Ipv6Addr::from(octets), 0).into()
            }
        };
        addr.set_port(packet.from_port);
        addr
    }

    fn host(&self, local: usize, space: &Space) -> usize {
        local * space.shards + self.index
    }
}

/// The address of a host as `other` sees it.
fn own_addr(space: &Space, access: &Access, number: u32, other: SocketAddr) -> SocketAddr {
    let mut addr = match other {
        SocketAddr::V4(_) => space.addresses.v4(number),
        SocketAddr::V6(_) => space.addresses.v6(number),
    };
    if let Some(nat) = access.nat {
        addr.set_port(nat.port(space.seed, number, other, addr.port()));
    }
    addr
}

fn put_ip(bytes: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => bytes.extend_from_slice(&ip.octets()),
        IpAddr::V6(ip) => bytes.extend_from_slice(&ip.octets()),
    }
}

/// Bytes of a forged sender's address before the payload.
fn forged_len(family: Family) -> usize {
    match family {
        Family::V4 | Family::V6 => 0,
        Family::ForgedV4 => 4,
        Family::ForgedV6 => 16,
    }
}
