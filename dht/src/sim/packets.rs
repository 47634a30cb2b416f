//! [`Packets`]: datagrams under way, as a calendar of slots in a slab with their payloads in an arena. Both
//! recycle what was freed, so that a world in a steady state allocates nothing.

use super::wheel::Wheel;
use crate::Time;

/// Sizes that payloads are rounded up to. The last takes the longest UDP datagram with a forged sender.
const SIZES: [usize; 15] =
    [64, 96, 128, 192, 256, 320, 384, 512, 640, 768, 1024, 1536, 4096, 16_384, 65_536 + 64];

/// A datagram under way, without its bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet {
    /// When it arrives.
    pub(super) at: Time,
    /// Number of the address that it comes from, and how many datagrams that host had sent before: with
    /// the time, what decides the order of packets.
    pub(super) source: u32,
    pub(super) sequence: u32,
    /// Number of the address that it goes to.
    pub(super) to: u32,
    /// Where its bytes are: a place in the arena, or in the batch that takes it to another shard.
    pub(super) place: u32,
    pub(super) from_port: u16,
    pub(super) to_port: u16,
    pub(super) len: u16,
    pub(super) family: Family,
    pub(super) stage: Stage,
}

const _: () = assert!(size_of::<Packet>() == 32);

/// Which of a host's addresses is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
    /// IPv4 or IPv6 with a forged sender, which stands before the payload.
    ForgedV4,
    ForgedV6,
}

/// How far a packet has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It reaches the receiver's line.
    Outside,
    /// It has passed that line.
    Inside,
}

impl Packet {
    /// What decides among packets that arrive at the same time.
    fn tie(&self) -> u64 {
        u64::from(self.source) << 32 | u64::from(self.sequence)
    }
}

/// Datagrams by the time that they arrive.
pub(super) struct Packets {
    slab: Vec<Packet>,
    free: Vec<u32>,
    calendar: Wheel,
    arena: Arena,
}

impl Packets {
    pub(super) fn new() -> Self {
        Self { slab: Vec::new(), free: Vec::new(), calendar: Wheel::new(), arena: Arena::new() }
    }

    /// Takes a datagram; its place in `packet` is ignored.
    pub(super) fn push(&mut self, mut packet: Packet, bytes: &[u8]) {
        packet.place = self.arena.put(bytes);
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slab[slot as usize] = packet;
                slot
            }
            None => {
                self.slab.push(packet);
                u32::try_from(self.slab.len() - 1).expect("fewer than 2^32 packets under way")
            }
        };
        self.calendar.set(slot, packet.at, packet.tie());
    }

    /// When the next one arrives.
    pub(super) fn next(&mut self) -> Option<Time> {
        self.peek().map(|(at, _)| at)
    }

    /// Takes out the next one. Its bytes stay readable until it is freed or put back.
    pub(super) fn pop(&mut self) -> Option<(u32, Packet)> {
        let (_, slot) = self.peek()?;
        self.calendar.pop();
        Some((slot, self.slab[slot as usize]))
    }

    /// Has a packet that was taken out arrive once more, later.
    pub(super) fn put_back(&mut self, slot: u32, packet: Packet) {
        self.slab[slot as usize] = packet;
        self.calendar.set(slot, packet.at, packet.tie());
    }

    pub(super) fn free(&mut self, slot: u32) {
        let Packet { place, len, .. } = self.slab[slot as usize];
        self.arena.free(place, usize::from(len));
        self.free.push(slot);
    }

    pub(super) fn bytes(&self, packet: &Packet) -> &[u8] {
        self.arena.bytes(packet.place, usize::from(packet.len))
    }

    /// Appends whom packets go to whose turn is near and which were not told before; `host` tells by the
    /// number of an address. Reads of these packets what [`super::Host::warm`] would; a number made of it.
    pub(super) fn arrived(&mut self, host: impl Fn(u32) -> Option<u32>, to: &mut Vec<u32>) -> u64 {
        let Self { slab, calendar, arena, .. } = self;
        let packets = calendar.arrived().map(|slot| slab[slot as usize]);
        let touched = packets.map(|packet| {
            to.extend(host(packet.to));
            let bytes = arena.bytes(packet.place, usize::from(packet.len));
            bytes.iter().step_by(64).fold(0, |sum, &byte| sum ^ u64::from(byte))
        });
        touched.fold(0, |sum, word| sum ^ word)
    }

    /// Packets under way.
    pub(super) fn len(&self) -> usize {
        self.slab.len() - self.free.len()
    }

    /// Bytes on the heap.
    pub(super) fn memory(&self) -> usize {
        self.slab.capacity() * size_of::<Packet>()
            + self.free.capacity() * size_of::<u32>()
            + self.calendar.memory()
            + self.arena.memory()
    }

    fn peek(&mut self) -> Option<(Time, u32)> {
        let Self { slab, calendar, .. } = self;
        calendar.peek(|slot| slab[slot as usize].tie())
    }
}

/// Bytes in cells of a few sizes.
struct Arena {
    classes: [Class; SIZES.len()],
}

#[derive(Default)]
struct Class {
    bytes: Vec<u8>,
    free: Vec<u32>,
}

impl Arena {
    fn new() -> Self {
        Self { classes: std::array::from_fn(|_| Class::default()) }
    }

    fn put(&mut self, bytes: &[u8]) -> u32 {
        let (size, class) = self.class_mut(bytes.len());
        let place = class.free.pop().unwrap_or_else(|| {
            class.bytes.resize(class.bytes.len() + size, 0);
            (class.bytes.len() / size - 1) as u32
        });
        class.bytes[place as usize * size..][..bytes.len()].copy_from_slice(bytes);
        place
    }

    fn free(&mut self, place: u32, len: usize) {
        self.class_mut(len).1.free.push(place);
    }

    fn bytes(&self, place: u32, len: usize) -> &[u8] {
        let class = class_of(len);
        &self.classes[class].bytes[place as usize * SIZES[class]..][..len]
    }

    fn memory(&self) -> usize {
        self.classes.iter().map(|class| class.bytes.capacity() + 4 * class.free.capacity()).sum()
    }

    fn class_mut(&mut self, len: usize) -> (usize, &mut Class) {
        let class = class_of(len);
        (SIZES[class], &mut self.classes[class])
    }
}

fn class_of(len: usize) -> usize {
    SIZES.iter().position(|&size| len <= size).expect("no datagram is longer than the largest cell")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(at: u64, source: u32, sequence: u32, len: usize) -> Packet {
        Packet {
            at: Time::from_micros(at),
            source,
            sequence,
            to: 0,
            place: 0,
            from_port: 0,
            to_port: 0,
            len: len as u16,
            family: Family::V4,
            stage: Stage::Outside,
        }
    }

    #[test]
    fn packets_come_by_time_source_and_sequence_with_their_bytes() {
        let mut packets = Packets::new();
        let keys = [(500, 2, 1), (500, 1, 9), (400, 9, 9), (500, 2, 0), (90_000_000, 0, 0), (500, 1, 10)];
        for (n, &(at, source, sequence)) in keys.iter().enumerate() {
            packets.push(packet(at, source, sequence, n * 13_000), &vec![n as u8; n * 13_000]);
        }
        let mut order = Vec::new();
        while let Some((slot, packet)) = packets.pop() {
            let bytes = packets.bytes(&packet);
            assert!(bytes.iter().all(|&byte| usize::from(byte) == bytes.len() / 13_000));
            order.push((packet.at.as_micros(), packet.source, packet.sequence));
            packets.free(slot);
        }
        let mut sorted = keys.to_vec();
        sorted.sort_unstable();
        assert_eq!((order, packets.len()), (sorted, 0));
    }

    #[test]
    fn memory_is_that_of_the_most_that_was_ever_under_way() {
        let mut packets = Packets::new();
        let mut most = 0;
        for n in 0..10_000u64 {
            packets.push(packet(n * 100, n as u32 % 50, n as u32, 90), &[7; 90]);
            if n >= 100 {
                let (slot, _) = packets.pop().unwrap();
                packets.free(slot);
            }
            if n == 200 {
                most = packets.memory();
            }
        }
        assert_eq!((packets.len(), packets.memory()), (100, most));
    }

    #[test]
    fn packet_that_is_put_back_comes_again() {
        let mut packets = Packets::new();
        packets.push(packet(5, 1, 1, 2), b"ab");
        let (slot, mut first) = packets.pop().unwrap();
        (first.at, first.stage) = (Time::from_micros(9), Stage::Inside);
        packets.put_back(slot, first);
        assert_eq!(packets.next(), Some(Time::from_micros(9)));
        let (_, again) = packets.pop().unwrap();
        assert_eq!((again.stage, packets.bytes(&again)), (Stage::Inside, &b"ab"[..]));
    }
}
