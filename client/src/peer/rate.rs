//! How fast a peer delivers ([`Rate`]) and how many requests keep it busy ([`Pipeline`]).

use std::time::Duration;

use btdht::Time;

use super::PeerConfig;
use crate::piece::BLOCK_LEN;

/// Bytes per second, measured over windows of at least half a second, each counting as much as all
/// before it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rate {
    window: Time,
    bytes: u64,
    per_second: u64,
    started: bool,
}

/// Shortest time over which a rate is measured.
const WINDOW: Duration = Duration::from_millis(500);

impl Rate {
    /// Counts bytes. Returns whether a window has just ended.
    pub fn add(&mut self, now: Time, bytes: u64) -> bool {
        if !self.started {
            *self = Self { window: now, started: true, ..*self };
        }
        let ended = self.roll(now);
        self.bytes += bytes;
        ended
    }

    /// Bytes per second; decays while nothing comes.
    pub fn per_second(&self, now: Time) -> u64 {
        let mut rolled = *self;
        rolled.roll(now);
        rolled.per_second
    }

    fn roll(&mut self, now: Time) -> bool {
        let passed = now.since(self.window);
        if !self.started || passed < WINDOW {
            return false;
        }
        let micros = u64::try_from(passed.as_micros()).unwrap_or(u64::MAX).max(1);
        let sample =
            u64::try_from(u128::from(self.bytes) * 1_000_000 / u128::from(micros)).unwrap_or(u64::MAX);
        // A long window weighs more: it stands for several of the usual length.
        let windows = u32::try_from(passed.as_millis() / WINDOW.as_millis()).unwrap_or(u32::MAX).min(63);
        let old = if self.per_second == 0 { sample } else { self.per_second };
        let kept = old >> windows;
        self.per_second = kept + sample - (sample >> windows);
        self.bytes = 0;
        self.window = now;
        true
    }
}

/// How many requests to keep outstanding: at least twice the measured bandwidth-delay product, so
/// that the peer never runs out and a faster path is noticed. Starts by doubling every round trip.
#[derive(Clone, Copy, Debug)]
pub struct Pipeline {
    rate: Rate,
    depth: u32,
    /// Shortest time from request to block lately, and since when it is looked for.
    rtt: Option<Duration>,
    rtt_since: Time,
    slow_start: bool,
    last_rate: u64,
    min: u32,
    cap: u32,
}

/// A queue of half a second is kept even where the round trip is shorter (it is doubled, as the round
/// trip is): disk and scheduling of the peer are not as even as the wire. libtorrent keeps 3 s.
const SHORTEST_DELAY: Duration = Duration::from_millis(500);
/// Fewest requests to a peer whose rate is known. What is kept outstanding with slow peers counts
/// against the same budget as what fast ones could bring.
const MEASURED_MIN: u32 = 4;
/// How long a shortest round trip is believed.
const RTT_LIFE: Duration = Duration::from_secs(30);
/// No path is taken to be longer than this. The round trip that takes the place of one that is too old has
/// our own queue with the peer in it, and so the depth doubles each time: of what a peer gives in twice this
/// time all is asked for at most, so that nothing waits for as long as makes it late.
const LONGEST_DELAY: Duration = Duration::from_secs(5);

impl Pipeline {
    /// The pipeline of a fresh connection.
    pub fn new(config: &PeerConfig) -> Self {
        let mut pipeline = Self {
            rate: Rate::default(),
            depth: u32::from(config.pipeline_min),
            rtt: None,
            rtt_since: Time::ZERO,
            slow_start: true,
            last_rate: 0,
            min: u32::from(config.pipeline_min),
            cap: u32::from(config.pipeline_max),
        };
        pipeline.limit(config, config.request_queue_default);
        pipeline
    }

    /// The peer queues so many requests (`reqq`).
    pub fn limit(&mut self, config: &PeerConfig, request_queue: u16) {
        self.cap = u32::from(config.pipeline_max.min(request_queue.max(1)));
        self.depth = self.depth.min(self.cap);
    }

    /// A block has come, `delay` after it was asked for.
    pub fn block(&mut self, now: Time, bytes: u32, delay: Duration) {
        if self.rtt.is_none_or(|rtt| delay < rtt) || now.since(self.rtt_since) > RTT_LIFE {
            (self.rtt, self.rtt_since) = (Some(delay), now);
        }
        if self.slow_start {
            self.depth += 1;
        }
        if self.rate.add(now, u64::from(bytes)) {
            let rate = self.rate.per_second(now);
            // Doubling has stopped to help.
            if rate < self.last_rate + self.last_rate / 10 {
                self.slow_start = false;
            }
            self.last_rate = rate;
            let wanted = self.wanted(rate);
            self.depth = if self.slow_start { self.depth.max(wanted) } else { wanted };
        }
        let floor = if self.slow_start { self.min } else { MEASURED_MIN };
        self.depth = self.depth.clamp(floor.min(self.cap), self.cap);
    }

    /// Requests to keep outstanding.
    pub fn depth(&self) -> u32 {
        self.depth.min(self.cap)
    }

    fn wanted(&self, rate: u64) -> u32 {
        let delay = self.rtt.unwrap_or_default().clamp(SHORTEST_DELAY, LONGEST_DELAY);
        let bytes = u128::from(rate) * delay.as_micros() * 2 / 1_000_000;
        u32::try_from(bytes.div_ceil(u128::from(BLOCK_LEN))).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    #[test]
    fn a_steady_rate_is_found_and_decays() {
        let mut rate = Rate::default();
        for ms in 0..3000 {
            rate.add(Time::from_millis(ms), 1000);
        }
        let at = Time::from_millis(3000);
        assert!((990_000..=1_010_000).contains(&rate.per_second(at)), "{}", rate.per_second(at));
        assert!(rate.per_second(at + Duration::from_secs(2)) < 400_000);
        assert!(rate.per_second(at + Duration::from_secs(60)) < 20_000);
        assert_eq!(Rate::default().per_second(at), 0);
    }

    /// A path that is used.
    struct Path {
        pipeline: Pipeline,
        /// When what is outstanding was asked for.
        sent: VecDeque<u64>,
        /// When the last block came.
        free: u64,
    }

    impl Path {
        fn new(reqq: u16) -> Self {
            let config = PeerConfig::default();
            let mut pipeline = Pipeline::new(&config);
            pipeline.limit(&config, reqq);
            let sent = vec![0; pipeline.depth() as usize].into();
            Self { pipeline, sent, free: 0 }
        }

        /// Uses it until `secs`, while it has this `rtt` and so many blocks per second. Returns how many
        /// came, and how long one has waited at most.
        fn run(&mut self, rtt: Duration, blocks_per_second: u64, secs: u64) -> (u64, Duration) {
            let gap = 1_000_000 / blocks_per_second;
            let (mut blocks, mut longest) = (0, Duration::ZERO);
            while let Some(&at) = self.sent.front() {
                let arrival = (at + rtt.as_micros() as u64).max(self.free + gap);
                if arrival > secs * 1_000_000 {
                    break;
                }
                self.sent.pop_front();
                self.free = arrival;
                let delay = Duration::from_micros(arrival - at);
                self.pipeline.block(Time::from_micros(arrival), BLOCK_LEN, delay);
                while self.sent.len() < self.pipeline.depth() as usize {
                    self.sent.push_back(arrival);
                }
                (blocks, longest) = (blocks + 1, longest.max(delay));
            }
            (blocks, longest)
        }
    }

    /// A path of `rtt` and `rate` blocks per second for `secs`; returns the final depth.
    fn run(rtt: Duration, blocks_per_second: u64, secs: u64, reqq: u16) -> u32 {
        let mut path = Path::new(reqq);
        path.run(rtt, blocks_per_second, secs);
        path.pipeline.depth()
    }

    #[test]
    fn depth_reaches_twice_the_bandwidth_delay_product() {
        // 100 blocks/s over 200 ms: 20 blocks are under way; and never less than a second's worth.
        assert!((80..=130).contains(&run(Duration::from_millis(200), 100, 20, 512)));
        // 100 blocks/s over 1 s: 100 under way.
        assert!((160..=330).contains(&run(Duration::from_secs(1), 100, 30, 512)));
    }

    #[test]
    fn nothing_ever_waits_for_long_with_a_steady_peer() {
        // From 33 kB/s on, over paths of 20 ms to 2 s.
        for (blocks_per_second, rtt) in [(2, 20), (2, 300), (2, 2000), (20, 20), (20, 1000), (100, 200)] {
            let rtt = Duration::from_millis(rtt);
            let mut path = Path::new(2000);
            path.run(rtt, blocks_per_second, 10);
            let (blocks, longest) = path.run(rtt, blocks_per_second, 1800);
            let figures = format!("{blocks_per_second} a second over {rtt:?}: {blocks}, {longest:?}");
            assert!(longest <= 2 * LONGEST_DELAY + Duration::from_secs(2), "{figures}");
            assert!(blocks >= 1789 * blocks_per_second, "{figures}");
        }
    }

    #[test]
    fn a_path_that_becomes_longer_is_filled_again() {
        let mut path = Path::new(2000);
        let [short, long] = [100, 1500].map(Duration::from_millis);
        path.run(short, 100, 60);
        path.run(long, 100, 150);
        let (blocks, _) = path.run(long, 100, 300);
        assert!(blocks >= 150 * 99, "{blocks} blocks over the long way");
    }

    #[test]
    fn depth_stays_between_the_floor_and_the_peers_queue() {
        assert_eq!(run(Duration::from_millis(50), 2, 30, 512), 4);
        assert_eq!(run(Duration::from_millis(50), 2, 0, 512), 16);
        assert_eq!(run(Duration::from_millis(50), 10_000, 10, 512), 512);
        assert_eq!(run(Duration::from_millis(50), 10_000, 10, 100), 100);
        assert_eq!(run(Duration::from_millis(50), 100, 10, 3), 3);
    }

    #[test]
    fn depth_doubles_every_round_trip_at_first() {
        // Ten round trips of 100 ms: a path that takes everything is filled within two seconds.
        assert_eq!(run(Duration::from_millis(100), 20_000, 2, 512), 512);
    }
}
