//! [`Tempo`]: how datagrams follow each other at a socket.

use std::time::Duration;

use crate::Time;

/// Datagrams that follow each other within this come one after the other...
pub(super) const QUICK: Duration = Duration::from_millis(1);
/// ... after so many of them.
pub(super) const QUICK_IN_A_ROW: u32 = 8;

/// How datagrams follow each other.
#[derive(Debug)]
pub(super) struct Tempo {
    /// When one came last.
    last: Time,
    /// How many came quickly since one did not.
    quick: u32,
}

impl Tempo {
    /// Nothing came yet.
    pub(super) fn new() -> Self {
        Self { last: Time::ZERO, quick: 0 }
    }

    /// One came, or several together.
    pub(super) fn came(&mut self, now: Time) {
        let is_quick = now.since(self.last) <= QUICK;
        self.last = now;
        self.quick = if is_quick { self.quick.saturating_add(1) } else { 0 };
    }

    /// Whether the next one is to be expected within [`QUICK`].
    pub(super) fn is_quick(&self) -> bool {
        self.quick >= QUICK_IN_A_ROW
    }

    /// None came where one was expected.
    pub(super) fn end(&mut self) {
        self.quick = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Datagrams that come with pauses, from a moment on.
    fn come(tempo: &mut Tempo, now: &mut Time, count: u32, pause: Duration) {
        for _ in 0..count {
            *now += pause;
            tempo.came(*now);
        }
    }

    #[test]
    fn the_next_datagram_is_expected_when_many_came_one_after_the_other() {
        let (mut tempo, mut now) = (Tempo::new(), Time::from_secs(1));
        // Nobody knows how long the first one was under way.
        come(&mut tempo, &mut now, QUICK_IN_A_ROW, QUICK);
        assert!(!tempo.is_quick());
        come(&mut tempo, &mut now, 1, QUICK);
        assert!(tempo.is_quick());
        for end in [|tempo: &mut Tempo, _: Time| tempo.end(), |tempo: &mut Tempo, now| tempo.came(now)] {
            now += 2 * QUICK;
            end(&mut tempo, now);
            assert!(!tempo.is_quick());
            tempo.came(now);
            come(&mut tempo, &mut now, QUICK_IN_A_ROW - 2, QUICK);
            assert!(!tempo.is_quick());
            come(&mut tempo, &mut now, 2, QUICK);
            assert!(tempo.is_quick());
        }
    }
}
