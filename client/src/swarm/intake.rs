//! [`Intake`]: how much the shell lets in, and what that means for requests.
//!
//! Where the user limits the rate it is we who make peers late: what they have sent stands in line in front
//! of us. So no more is asked for than comes in within [`WINDOW`] seconds, and nobody is late before the line
//! can have come to an end.

use std::time::Duration;

use crate::piece::BLOCK_LEN;

/// Limits of what comes in, in bytes per second; 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Intake {
    /// From all peers of the torrent.
    pub all: u64,
    /// From each of them.
    pub each: u64,
}

/// What comes in within this many seconds is asked for at most: long enough for the slowest path.
const WINDOW: u64 = 10;
/// Blocks that may be asked for in all, however long they stand in line: a share of a session's limit may be
/// small because there are many torrents, most of which have nothing to do.
const FEWEST: u64 = 16;

impl Intake {
    /// How many blocks more a peer may be asked for that owes us `own`, where `peers` owe us `owed` bytes. A
    /// block a peer is always allowed.
    pub(super) fn room(self, own: usize, peers: usize, owed: u64) -> usize {
        let least = usize::from(own == 0);
        let mut room = usize::MAX;
        if self.each > 0 {
            room = blocks(self.each).saturating_sub(own);
        }
        if self.all > 0 {
            let most = blocks(self.all).max(FEWEST as usize);
            let left = most.saturating_sub((owed / u64::from(BLOCK_LEN)) as usize);
            // Not all to those who come first: each one's turn comes as often, and theirs would last longest.
            let share = (most / peers.max(1)).saturating_sub(own);
            // But what others do not use is free.
            room = room.min(left).min(if left > most / 2 { left } else { share });
        }
        room.max(least)
    }

    /// How long what a peer owes us, `own` blocks, stands in line, where `peers` have turns.
    pub(super) fn wait(self, own: usize, peers: usize) -> Duration {
        let bytes = own as u64 * u64::from(BLOCK_LEN);
        let seconds = |bytes: u64, rate: u64| bytes.checked_div(rate).map_or(0, |seconds| seconds + 1);
        let longest = seconds(bytes, self.each).max(seconds(bytes.saturating_mul(peers as u64), self.all));
        Duration::from_secs(longest)
    }

    /// Whether twice as much comes in as before or more, so that what stands in line is there much sooner.
    pub(super) fn is_much_wider_than(self, before: Self) -> bool {
        let wider = |now: u64, before: u64| before > 0 && (now == 0 || now / 2 >= before);
        wider(self.all, before.all) || wider(self.each, before.each)
    }

    /// Whether nothing is limited.
    pub(super) fn is_none(self) -> bool {
        self == Self::default()
    }
}

fn blocks(rate: u64) -> usize {
    usize::try_from(rate.saturating_mul(WINDOW) / u64::from(BLOCK_LEN)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_in_within_ten_seconds_is_asked_for_and_a_block_of_everybody() {
        let none = Intake::default();
        assert_eq!((none.room(500, 50, 1 << 40), none.wait(500, 50)), (usize::MAX, Duration::ZERO));
        let intake = Intake { all: 160 << 10, each: 0 };
        assert_eq!(intake.room(0, 1, 0), 100);
        assert_eq!(intake.room(4, 20, 80 << 14), 1, "a twentieth");
        assert_eq!(intake.room(0, 20, 98 << 14), 2);
        assert_eq!((intake.room(0, 20, 100 << 14), intake.room(1, 20, 100 << 14)), (1, 0));
        assert_eq!(intake.wait(5, 20), Duration::from_secs(11));
        assert_eq!(Intake { all: 1, each: 0 }.room(0, 1, 0), 16);
        let intake = Intake { all: 160 << 10, each: 8 << 10 };
        assert_eq!((intake.room(0, 1, 0), intake.room(5, 1, 5 << 14)), (5, 0));
        assert_eq!(intake.wait(5, 1), Duration::from_secs(11));
        assert_eq!(Intake { all: 0, each: 1 }.room(0, 1, 0), 1);
    }

    #[test]
    fn no_limit_is_wider_than_any() {
        let intake = |all, each| Intake { all, each };
        let wider = |now: Intake, before| now.is_much_wider_than(before);
        assert!(wider(intake(0, 0), intake(5, 0)) && wider(intake(10, 0), intake(5, 0)));
        assert!(wider(intake(0, 0), intake(0, 5)) && wider(intake(0, 10), intake(0, 5)));
        assert!(!wider(intake(5, 5), intake(5, 5)) && !wider(intake(4, 4), intake(0, 5)));
        // Torrents that come and go change a share of the session's limit by little.
        assert!(!wider(intake(9, 0), intake(5, 0)));
    }
}
