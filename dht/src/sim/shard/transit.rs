//! The way of a datagram: from a host through its line and the network to the line of another, perhaps in
//! another shard, and to that host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::super::dice::{Draw, draw, happens, mix};
use super::super::digest::{Happening, Sent};
use super::super::dump::{Captured, Direction};
use super::super::link::{Access, Pair};
use super::super::packets::{Family, Packet, Stage};
use super::super::stats::Stats;
use super::super::{Host, Presence};
use super::{Shard, Space};
use crate::addr::canonical;
use crate::{Time, Transmit};

/// The longest payload of a UDP datagram (IPv4).
const MAX_PAYLOAD: usize = 65_507;
/// Sockets of a host's own; others have senders that the host makes up.
const SOCKETS: u8 = 2;

/// Why a datagram does not arrive.
type Counter = fn(&mut Stats) -> &mut u64;

/// A datagram that a host sends.
struct Leaving {
    from: SocketAddr,
    to: SocketAddr,
    is_forged: bool,
    len: usize,
    /// Its own number.
    random: u64,
}

impl<H: Host> Shard<H> {
    pub(super) fn send(&mut self, local: usize, transmit: &Transmit, bytes: &[u8], space: &Space) {
        let (now, to) = (self.now, canonical(transmit.to));
        let slot = &mut self.slots[local];
        let (number, sequence, access) = (slot.number, slot.sent, space.paths.access(slot.access));
        slot.sent = slot.sent.wrapping_add(1);
        let forged = match transmit.socket {
            ..SOCKETS => None,
            socket => self.hosts[local].forged(socket),
        };
        let from = forged.unwrap_or_else(|| own_addr(space, access, number, to));
        let random = draw(space.seed, Draw::Packet, number.into(), sequence.into());
        let leaving = Leaving { from, to, is_forged: forged.is_some(), len: bytes.len(), random };
        let fate = self.fate(local, &leaving, space);
        let arrives = fate.map_or(Time::NEVER, |(at, _)| at);
        self.digest.add(&space.hash, &Sent { now, arrives, from, to, bytes });
        self.stats.sent += 1;
        self.stats.bytes += bytes.len() as u64;
        if self.slots[local].watched {
            self.capture(local, Direction::Sent(arrives), (from, to), bytes, space);
        }
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
    fn fate(&mut self, local: usize, leaving: &Leaving, space: &Space) -> Result<(Time, u32), Counter> {
        let Leaving { from, to, is_forged, len, random } = *leaving;
        let (now, paths) = (self.now, &space.paths);
        let host = self.host(local, space) as u32;
        let slot = &mut self.slots[local];
        if slot.presence != Presence::Up {
            return Err(|stats| &mut stats.offline);
        }
        let access = paths.access(slot.access);
        if let Some(nat) = access.nat
            && !is_forged
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
    pub(super) fn receive(&mut self, space: &Space) {
        let Some((slot, mut packet)) = self.packets.pop() else { return };
        let local = space.addresses.host(packet.to).map_or(0, |host| host as usize / space.shards);
        let from = self.sender(&packet, space);
        let passes = self.passes(local, &packet, from, space);
        let (source, sequence, is_let_in) = (packet.source, packet.sequence, passes.is_ok());
        self.note(local, &Happening::Came { source, sequence, is_let_in }, space);
        match passes {
            Err(counter) => *counter(&mut self.stats) += 1,
            Ok(at) if at > self.now => {
                (packet.at, packet.stage) = (at, Stage::Inside);
                self.packets.put_back(slot, packet);
                return;
            }
            Ok(_) => {
                self.stats.delivered += 1;
                if self.slots[local].watched {
                    self.capture_arrival(local, &packet, from, space);
                }
                let bytes = &self.packets.bytes(&packet)[forged_len(packet.family)..];
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
        if slot.number != packet.to {
            return Err(|stats| &mut stats.stray);
        }
        if own_port(space, access, slot.number, from) != packet.to_port {
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

    fn capture_arrival(&mut self, local: usize, packet: &Packet, from: SocketAddr, space: &Space) {
        let slot = &self.slots[local];
        let to = own_addr(space, space.paths.access(slot.access), slot.number, from);
        let bytes = self.packets.bytes(packet)[forged_len(packet.family)..].to_vec();
        self.capture(local, Direction::Received, (from, to), &bytes, space);
    }

    fn capture(
        &mut self,
        local: usize,
        direction: Direction,
        (from, to): (SocketAddr, SocketAddr),
        bytes: &[u8],
        space: &Space,
    ) {
        let (at, host, bytes) = (self.now, self.host(local, space), bytes.to_vec());
        self.captured.push(Captured { at, host, direction, from, to, bytes });
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
}

/// The address of a host as `other` sees it.
fn own_addr(space: &Space, access: &Access, number: u32, other: SocketAddr) -> SocketAddr {
    let mut addr = match other {
        SocketAddr::V4(_) => space.addresses.v4(number),
        SocketAddr::V6(_) => space.addresses.v6(number),
    };
    addr.set_port(own_port(space, access, number, other));
    addr
}

/// The port of a host as `other` sees it.
fn own_port(space: &Space, access: &Access, number: u32, other: SocketAddr) -> u16 {
    let inner = space.addresses.port(number);
    access.nat.map_or(inner, |nat| nat.port(space.seed, number, other, inner))
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
