//! [`Deadlines`]: the pieces that somebody waits for, such as a player, the most urgent first.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use btdht::Time;

use crate::piece::BLOCK_LEN;

/// Pieces by when they are needed; no more than there are pieces.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    by_time: BTreeSet<(Time, u32)>,
    of: BTreeMap<u32, Time>,
}

/// Pieces that are looked at for one choice: what lies further ahead can wait for the next one.
const MAX_URGENT: usize = 16;
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

    /// The most urgent pieces in order. Those whose time has passed are the most urgent ones.
    pub(super) fn urgent(&self) -> impl Iterator<Item = u32> {
        self.by_time.iter().take(MAX_URGENT).map(|&(_, piece)| piece)
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
        assert_eq!(deadlines.urgent().collect::<Vec<_>>(), [3, 1, 2]);
        deadlines.set(1, None);
        deadlines.set(9, None);
        assert_eq!(deadlines.urgent().collect::<Vec<_>>(), [3, 2]);
        (100..200).for_each(|piece| deadlines.set(piece, Some(Time::ZERO)));
        assert_eq!(deadlines.urgent().count(), MAX_URGENT);
        (0..200).for_each(|piece| deadlines.set(piece, None));
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
