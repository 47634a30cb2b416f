//! [`Line`]: whether the line to the world works, and so whom a silence may be blamed on.
//!
//! Where a crawl has nobody left to ask but nodes that are gone, silence follows on silence, just as when
//! the network is down. So after many in a row some nodes that answered not long ago are pinged. If one
//! of them answers, the silent ones are gone; if none does, the network is, nobody is to blame, and nobody
//! else is asked until somebody answers a ping.

/// The state of the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// It works; so many silences have come since the last answer.
    Works { silences: u32 },
    /// It may be dead: pings that were sent to find out, and those that nobody answered.
    Suspect { sent: u32, silent: u32 },
    /// Nobody answers.
    Dead,
}

/// What a query's end says about the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing new.
    Same,
    /// It works after all, or again.
    Works,
    /// It is dead.
    Dead,
}

impl Line {
    pub(super) const WORKS: Self = Self::Works { silences: 0 };

    /// Somebody answered.
    pub(super) fn answered(&mut self) -> Verdict {
        let before = std::mem::replace(self, Self::WORKS);
        if matches!(before, Self::Works { .. }) { Verdict::Same } else { Verdict::Works }
    }

    /// A node was silent that nothing was known of; whether there are nodes that could be pinged.
    pub(super) fn silent(&mut self, can_ping: bool) {
        if let Self::Works { silences } = self {
            *silences = silences.saturating_add(1);
            if *silences >= SILENCES && can_ping {
                *self = Self::Suspect { sent: 0, silent: 0 };
            }
        }
    }

    /// A node that answered not long ago did not answer a ping.
    pub(super) fn ping_silent(&mut self) -> Verdict {
        match self {
            Self::Suspect { sent, silent } => {
                *silent += 1;
                if *silent < *sent || *sent < PINGS {
                    return Verdict::Same;
                }
                *self = Self::Dead;
                Verdict::Dead
            }
            Self::Works { .. } | Self::Dead => Verdict::Same,
        }
    }

    /// Whether a ping may be sent now; it counts as sent.
    pub(super) fn ping(&mut self) -> bool {
        match self {
            Self::Works { .. } => false,
            Self::Suspect { sent, .. } => {
                let may = *sent < PINGS;
                *sent += u32::from(may);
                may
            }
            Self::Dead => true,
        }
    }

    /// Whether nodes may be asked.
    pub(super) fn works(self) -> bool {
        matches!(self, Self::Works { .. })
    }
}

/// Where four in ten answer, 32 silences in a row happen by chance once in ten million queries.
pub(super) const SILENCES: u32 = 32;
/// Of nodes that answered within six hours most still do: one of three nearly always.
const PINGS: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    fn suspect() -> Line {
        let mut line = Line::WORKS;
        (0..SILENCES).for_each(|_| line.silent(true));
        assert!(!line.works());
        line
    }

    #[test]
    fn many_silences_in_a_row_are_a_suspicion_and_three_silent_pings_a_proof() {
        let mut line = Line::WORKS;
        for _ in 0..10 {
            (1..SILENCES).for_each(|_| line.silent(true));
            assert!(line.works());
            assert_eq!(line.answered(), Verdict::Same);
        }
        let mut line = suspect();
        assert_eq!([line.ping(), line.ping(), line.ping(), line.ping()], [true, true, true, false]);
        let verdicts = [line.ping_silent(), line.ping_silent(), line.ping_silent()];
        assert_eq!(verdicts, [Verdict::Same, Verdict::Same, Verdict::Dead]);
        assert!(!line.works() && line.ping() && line.ping(), "pinged on and on");
        assert_eq!((line.ping_silent(), line.answered(), line), (Verdict::Same, Verdict::Works, Line::WORKS));
    }

    #[test]
    fn one_answer_clears_a_suspicion() {
        let mut line = suspect();
        assert!(line.ping() && line.ping());
        assert_eq!(line.ping_silent(), Verdict::Same);
        assert_eq!(line.ping_silent(), Verdict::Same, "the third ping is still to be sent");
        assert!(line.ping());
        assert_eq!((line.answered(), line.works()), (Verdict::Works, true));
    }

    #[test]
    fn without_anybody_to_ping_nothing_is_suspected() {
        let mut line = Line::WORKS;
        (0..1000).for_each(|_| line.silent(false));
        assert!(line.works());
    }
}
