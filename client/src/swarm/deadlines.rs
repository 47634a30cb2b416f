//! [`Deadlines`]: the pieces that somebody waits for, such as a player, the most urgent first.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use btdht::Time;

use crate::piece::BLOCK_LEN;
use crate::steps;

/// Pieces by when they are needed; no more than there are pieces.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    by_time: BTreeSet<(Time, u32)>,
    of: BTreeMap<u32, Time>,
}

/// Pieces that are asked for in one choice: what lies further ahead can wait for the next one.
const MAX_URGENT: usize = 16;
/// Pieces that are looked at for one choice. Those that the peer does not have are among them.
const MAX_LOOKED_AT: usize = 512;
/// A block is left to the peer that has it for this long, however fast another one is: arrival times
/// scatter.
const SHORTEST_PATIENCE: Duration = Duration::from_millis(250);

impl Deadlines {
    /// Needs `piece` at `at`, or no longer at a certain time.
    pub(super) fn set(&mut self, piece: u32, at: Option<Time>) {
        if let Some(before) = self.of.remove(&piece) {
            self.by_time.remove(&(before, piece));
        }
        if let Some(at) = at {
            self.of.insert(piece, at);
            self.by_time.insert((at, piece));
        }
    }

    /// Whether nobody waits for anything.
    pub(super) fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// The most urgent of those pieces that `fits` allows, in order. Those whose time has passed are the
    /// most urgent ones.
    pub(super) fn urgent(&self, fits: impl Fn(u32) -> bool) -> impl Iterator<Item = u32> {
        let looked_at = self.by_time.iter().take(MAX_LOOKED_AT).map(|&(_, piece)| piece);
        looked_at.inspect(|_| steps::count(1)).filter(move |&piece| fits(piece)).take(MAX_URGENT)
    }
}

/// How long a block may have been waited for when a peer that gives `rate` bytes per second and owes us
/// `owed` blocks takes it over: twice the time in which it would bring the block. `None` for a peer that
/// has not shown how fast it is.
pub(super) fn patience(rate: u64, owed: usize) -> Option<Duration> {
    let bytes = (owed as u64 + 1) * u64::from(BLOCK_LEN);
    let needed = (bytes * 1_000_000).checked_div(rate)?;
    Some(SHORTEST_PATIENCE.max(Duration::from_micros(needed) * 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_urgent_come_first_and_a_change_takes_the_place_of_what_was() {
        let mut deadlines = Deadlines::default();
        for (piece, at) in [(3, 30), (1, 10), (2, 20), (3, 5)] {
            deadlines.set(piece, Some(Time::from_secs(at)));
        }
        assert_eq!(deadlines.urgent(|_| true).collect::<Vec<_>>(), [3, 1, 2]);
        deadlines.set(1, None);
        deadlines.set(9, None);
        assert_eq!(deadlines.urgent(|_| true).collect::<Vec<_>>(), [3, 2]);
        (100..200).for_each(|piece| deadlines.set(piece, Some(Time::ZERO)));
        assert_eq!(deadlines.urgent(|_| true).count(), MAX_URGENT);
        // Those that do not fit take no place of others, as far as they are looked at.
        assert_eq!(deadlines.urgent(|piece| piece >= 150).collect::<Vec<_>>(), Vec::from_iter(150..166));
        (200..1000).for_each(|piece| deadlines.set(piece, Some(Time::from_secs(1))));
        let steps = steps::of(|| assert_eq!(deadlines.urgent(|piece| piece > 900).next(), None));
        assert_eq!(steps, MAX_LOOKED_AT);
        (0..1000).for_each(|piece| deadlines.set(piece, None));
        assert!(deadlines.is_empty() && deadlines.by_time.is_empty());
    }

    #[test]
    fn slow_and_busy_peers_take_over_later() {
        let rate = u64::from(BLOCK_LEN);
        assert_eq!(patience(rate, 0), Some(Duration::from_secs(2)));
        assert_eq!(patience(rate, 4), Some(Duration::from_secs(10)));
        assert_eq!(patience(1 << 30, 4), Some(SHORTEST_PATIENCE));
        assert_eq!(patience(0, 0), None);
    }
}
