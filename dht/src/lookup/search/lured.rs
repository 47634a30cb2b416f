//! What a [`Search`] does about nodes that name others ever nearer to the target, see [`super::super::lines`].

use std::collections::BTreeSet;

use super::super::candidates::{Place, State};
use super::super::weights::{LURED, RESERVE_WAITS};
use super::Search;
use crate::Config;

impl Search {
    /// Whether so much is spent that nodes may be luring us, see [`super::super::lines`].
    pub(super) fn may_be_lured(&self) -> bool {
        !self.follows && self.sent >= LURED
    }

    /// Whom to ask when it is the turn of the candidate at `index`: every second time somebody else, when nodes
    /// may be luring us. That is the nearest one of the line that had fewest queries, of a network that has not
    /// answered and that we wait for nobody of; it may have been silent once.
    pub(crate) fn whom_instead(&self, index: usize, config: &Config) -> usize {
        if !self.may_be_lured() || self.sent.is_multiple_of(2) {
            return index;
        }
        let (places, tries) = (self.candidates.places(), self.candidates.tries());
        let is_heard = |place: &&Place| matches!(place.state, State::Asked | State::Answered);
        let heard: BTreeSet<u64> = places.iter().filter(is_heard).map(|place| place.subnet).collect();
        let is_untold = |place: &Place| match place.state {
            State::Fresh => true,
            State::Slow | State::Again => place.tries < 2,
            State::Asked | State::Answered | State::Failed => false,
        };
        let may_be_asked = |&index: &usize| {
            let place = &places[index];
            is_untold(place) && !heard.contains(&place.subnet) && self.may_ask(index, config)
        };
        let fewest = |&index: &usize| {
            let waits = if places[index].is_reserve { RESERVE_WAITS } else { 0 };
            tries.of(self.candidates.line_of(&places[index])) + waits
        };
        (0..places.len()).filter(may_be_asked).min_by_key(fewest).unwrap_or(index)
    }
}
