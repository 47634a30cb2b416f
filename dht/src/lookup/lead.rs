//! [`Lead`]: how much is nearer to the target than a candidate, which decides whether the candidate is worth
//! a query now.

use arrayvec::ArrayVec;
use krpc::Distance;

use super::weights::{ANSWERED, PENDING, PENDING_AGAIN, WINDOW_AT_THE_GOAL, WINDOW_ON_THE_WAY};

/// What is ahead of a candidate, in tenths of nodes that can be expected to answer. Nodes are noted nearest
/// first.
pub(super) struct Lead {
    /// Bits that the nearest node that answered shares with the target.
    reached: u32,
    answered: u32,
    /// Queries in flight by the bits that their nodes share with the target.
    pending: ArrayVec<(u32, u32), 161>,
}

impl Lead {
    /// Nobody ahead yet; `nearest` is the distance of the nearest node that answered.
    pub(super) fn new(nearest: Option<&Distance>) -> Self {
        Self { reached: nearest.map_or(0, Distance::leading_zeros), answered: 0, pending: ArrayVec::new() }
    }

    /// Notes a node that answered.
    pub(super) fn answered(&mut self) {
        self.answered += ANSWERED;
    }

    /// Notes a node that has been asked so many times and may answer the last one.
    pub(super) fn pending(&mut self, distance: &Distance, tries: u8) {
        let bits = distance.leading_zeros();
        let counts = if tries > 1 { PENDING_AGAIN } else { PENDING };
        match self.pending.last_mut() {
            Some((last, weight)) if *last == bits => *weight += counts,
            // Bits only fall from one node to the next, so that there is room for all.
            _ => _ = self.pending.try_push((bits, counts)),
        }
    }

    /// Whether a candidate behind all of these is worth a query now.
    ///
    /// Each bit that a pending query is ahead of both the candidate and of what has answered makes it
    /// count once more: its answer will name nodes beside which the candidate's would be of no use. Once
    /// the queries in flight are no farther than the answers the search is at its goal, where all of
    /// the closest have to answer, and more of them are asked at once.
    pub(super) fn allows(&self, distance: &Distance) -> bool {
        let from = distance.leading_zeros().max(self.reached);
        let ahead = self.pending.iter().map(|&(bits, weight)| weight * (1 + bits.saturating_sub(from)));
        let is_approach = self.pending.iter().any(|&(bits, _)| bits > self.reached + 2);
        ahead.sum::<u32>() + self.answered < if is_approach { WINDOW_ON_THE_WAY } else { WINDOW_AT_THE_GOAL }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A distance of ids that share so many bits.
    fn bits(bits: usize) -> Distance {
        let mut bytes = [0; 20];
        bytes[bits / 8] = 0x80 >> (bits % 8);
        Distance::new(bytes)
    }

    /// How many candidates at `candidate` bits are asked behind `ahead` pending ones.
    fn asked(reached: usize, ahead: &[usize], candidate: usize) -> usize {
        let mut lead = Lead::new(Some(&bits(reached)));
        ahead.iter().for_each(|&ahead| lead.pending(&bits(ahead), 1));
        let mut asked = 0;
        while lead.allows(&bits(candidate)) {
            lead.pending(&bits(candidate), 1);
            asked += 1;
        }
        asked
    }

    #[test]
    fn fewer_are_asked_behind_queries_that_are_farther_ahead() {
        assert!(asked(4, &[8], 8) > asked(4, &[12], 8));
        assert!(asked(4, &[12], 8) > asked(4, &[12, 12], 8));
        assert_eq!(asked(4, &[12, 12, 12], 6), 0);
        // What has answered is a start as good as the candidate's own place.
        assert_eq!(asked(8, &[12], 2), asked(8, &[12], 8));
    }

    #[test]
    fn at_the_goal_more_are_asked_at_once() {
        let answered = |count| {
            let mut lead = Lead::new(Some(&bits(20)));
            (0..count).for_each(|_| lead.answered());
            lead.pending(&bits(19), 1);
            lead.allows(&bits(18))
        };
        assert!(answered(11) && !answered(12));
        let mut lead = Lead::new(Some(&bits(10)));
        (0..8).for_each(|_| lead.answered());
        lead.pending(&bits(13), 1);
        assert!(!lead.allows(&bits(9)), "a query three bits ahead means that the goal is elsewhere");
    }

    #[test]
    fn nodes_that_were_silent_once_hardly_make_those_behind_wait() {
        let allows = |tries| {
            let mut lead = Lead::new(Some(&bits(15)));
            [23, 22, 20].into_iter().for_each(|ahead| lead.pending(&bits(ahead), tries));
            lead.allows(&bits(17))
        };
        assert!(!allows(1) && allows(2));
    }

    #[test]
    fn any_distances_are_borne() {
        let mut lead = Lead::new(None);
        for ahead in (0..160).rev() {
            lead.pending(&bits(ahead), 1);
            lead.pending(&bits(ahead), 1);
        }
        lead.pending(&Distance::MAX, 1);
        assert!(!lead.allows(&Distance::MAX));
    }
}
