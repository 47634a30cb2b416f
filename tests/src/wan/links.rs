//! What becomes of packets between hosts: each host has a line up and a line down, each line sends one
//! packet after the other at its rate and drops what its queue cannot hold; between the lines a packet
//! travels for a while or is lost. Time comes from the caller, chance from a seed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use btdht::Rng;

/// What all lines of a network have in common.
#[derive(Clone, Copy, Debug)]
pub struct Quality {
    /// Bits of IP packets a second, in either direction.
    pub rate: u64,
    /// From the end of the line up to the start of the line down: half a round trip.
    pub delay: Duration,
    /// Bytes that wait before a line at most; a packet that does not fit is dropped.
    pub queue: usize,
    /// Lost of a million packets, in either direction.
    pub loss: u32,
}

impl Quality {
    fn duration_of(&self, len: usize) -> Duration {
        Duration::from_nanos(len as u64 * 8 * 1_000_000_000 / self.rate)
    }

    fn len_of(&self, duration: Duration) -> usize {
        (duration.as_nanos() * u128::from(self.rate) / 8 / 1_000_000_000) as usize
    }
}

/// What a line has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Bytes that passed.
    pub bytes: u64,
    /// Packets that passed.
    pub packets: u64,
    /// Packets that its queue could not hold.
    pub dropped: u64,
    /// Most bytes that ever waited.
    pub waited: usize,
}

#[derive(Default)]
struct Line {
    free_at: Duration,
    count: Count,
}

impl Line {
    /// When a packet that comes now has left the line; `None` if it is dropped.
    fn pass(&mut self, now: Duration, len: usize, quality: &Quality) -> Option<Duration> {
        let waiting = quality.len_of(self.free_at.saturating_sub(now));
        if waiting + len > quality.queue {
            self.count.dropped += 1;
            return None;
        }
        self.count.bytes += len as u64;
        self.count.packets += 1;
        self.count.waited = self.count.waited.max(waiting + len);
        self.free_at = self.free_at.max(now) + quality.duration_of(len);
        Some(self.free_at)
    }
}

/// Where a packet comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Next {
    LineDown,
    Host,
}

/// One packet on its way, ordered by time, then by the order of sending.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct OnItsWay {
    at: Duration,
    number: u64,
    next: Next,
    to: usize,
    packet: Vec<u8>,
}

/// All lines, and the packets between them.
pub struct Links {
    quality: Quality,
    up: Vec<Line>,
    down: Vec<Line>,
    on_their_way: BinaryHeap<Reverse<OnItsWay>>,
    number: u64,
    lost: u64,
    rng: Rng,
}

impl Links {
    /// Lines for so many hosts, free and with nothing on them.
    pub fn new(hosts: usize, quality: Quality, seed: u64) -> Self {
        let lines = || (0..hosts).map(|_| Line::default()).collect();
        Self {
            quality,
            up: lines(),
            down: lines(),
            on_their_way: BinaryHeap::new(),
            number: 0,
            lost: 0,
            rng: Rng::from_seed(seed),
        }
    }

    /// A host has sent a packet to another. What has no such host to go to is nobody's.
    pub fn sent(&mut self, now: Duration, from: usize, to: usize, packet: &[u8]) {
        if to >= self.down.len() || from >= self.up.len() {
            return;
        }
        let Some(left) = self.up[from].pass(now, packet.len(), &self.quality) else { return };
        if self.rng.chance(self.quality.loss, 1_000_000) {
            self.lost += 1;
            return;
        }
        self.travels(left + self.quality.delay, Next::LineDown, to, packet.to_vec());
    }

    /// Hands over, in order, every packet that has arrived by now.
    pub fn arrived(&mut self, now: Duration, mut deliver: impl FnMut(usize, &[u8])) {
        while self.timeout().is_some_and(|at| at <= now) {
            let Some(Reverse(it)) = self.on_their_way.pop() else { return };
            if it.next == Next::Host {
                deliver(it.to, &it.packet);
            } else if let Some(left) = self.down[it.to].pass(it.at, it.packet.len(), &self.quality) {
                self.travels(left, Next::Host, it.to, it.packet);
            }
        }
    }

    /// When [`Links::arrived`] has something to do next.
    pub fn timeout(&self) -> Option<Duration> {
        self.on_their_way.peek().map(|Reverse(it)| it.at)
    }

    /// What a host's line up and line down have seen.
    pub fn counts(&self, host: usize) -> (Count, Count) {
        (self.up[host].count, self.down[host].count)
    }

    /// Packets that were lost between lines.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    fn travels(&mut self, at: Duration, next: Next, to: usize, packet: Vec<u8>) {
        self.number += 1;
        self.on_their_way.push(Reverse(OnItsWay { at, number: self.number, next, to, packet }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    /// A thousand bytes take a millisecond.
    const QUALITY: Quality =
        Quality { rate: 8_000_000, delay: Duration::from_millis(20), queue: 10_000, loss: 0 };

    fn arrivals(links: &mut Links, until: Duration) -> Vec<(Duration, usize, u8)> {
        let mut seen = Vec::new();
        while let Some(at) = links.timeout().filter(|at| *at <= until) {
            links.arrived(at, |to, packet| seen.push((at, to, packet[0])));
        }
        seen
    }

    #[test]
    fn packet_takes_a_line_the_way_and_a_line() {
        let mut links = Links::new(2, QUALITY, 1);
        links.sent(Duration::ZERO, 0, 1, &[7; 1000]);
        assert_eq!(arrivals(&mut links, 100 * MS), [(22 * MS, 1, 7)]);
    }

    #[test]
    fn line_sends_one_packet_after_the_other_at_its_rate() {
        let mut links = Links::new(2, QUALITY, 1);
        for number in 0..3 {
            links.sent(Duration::ZERO, 0, 1, &[number; 1000]);
        }
        assert_eq!(arrivals(&mut links, 100 * MS), [(22 * MS, 1, 0), (23 * MS, 1, 1), (24 * MS, 1, 2)]);
    }

    #[test]
    fn senders_share_the_line_down_of_a_receiver() {
        let mut links = Links::new(3, QUALITY, 1);
        links.sent(Duration::ZERO, 0, 2, &[0; 1000]);
        links.sent(Duration::ZERO, 1, 2, &[1; 1000]);
        assert_eq!(arrivals(&mut links, 100 * MS), [(22 * MS, 2, 0), (23 * MS, 2, 1)]);
    }

    #[test]
    fn full_queue_drops_the_newest() {
        let mut links = Links::new(2, QUALITY, 1);
        for number in 0..12 {
            links.sent(Duration::ZERO, 0, 1, &[number; 1000]);
        }
        let seen = arrivals(&mut links, 100 * MS);
        assert_eq!(seen.iter().map(|it| it.2).collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
        let (up, _) = links.counts(0);
        assert_eq!((up.dropped, up.bytes, up.waited), (2, 10_000, 10_000));
        links.sent(100 * MS, 0, 1, &[12; 1000]);
        assert_eq!(arrivals(&mut links, 200 * MS), [(122 * MS, 1, 12)], "empty again");
    }

    #[test]
    fn loss_is_as_asked_and_repeats_with_its_seed() {
        let run = |seed| {
            let mut links = Links::new(2, Quality { loss: 10_000, ..QUALITY }, seed);
            let mut got = Vec::new();
            for number in 0..20_000_u32 {
                links.sent(number * MS, 0, 1, &number.to_be_bytes());
                links.arrived(number * MS, |_, packet| got.push(packet.to_vec()));
            }
            (links.lost(), got)
        };
        let (lost, got) = run(1);
        assert!((150..=250).contains(&lost), "{lost} of 20,000");
        assert_eq!((lost, got), run(1));
        assert_ne!(run(1).1, run(2).1);
    }

    #[test]
    fn packet_to_nobody_goes_nowhere() {
        let mut links = Links::new(2, QUALITY, 1);
        links.sent(Duration::ZERO, 0, 9, &[0; 100]);
        assert_eq!(links.timeout(), None);
        assert_eq!(links.counts(0).0, Count::default());
    }
}
