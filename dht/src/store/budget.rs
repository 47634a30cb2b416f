//! [`Budget`]: the bytes that a store may allocate for peers, and how stripes share what is not kept for one
//! of them.
//!
//! A stripe with few infohashes of many peers holds a tenth or two more than the next one, and an infohash lies
//! in another stripe after a restart. Equal parts would lose what does not fit into its part while
//! others have room. So only a quarter of its part is each stripe's own. Of the rest it may take eight times
//! what it leaves to all: a stripe that asks for more than the others is stopped before they run short, and
//! where all want more than there is, all get the same, with 1/700 of the whole left over by 64 of them (dynamic
//! thresholds: Choudhury and Hahne, "Dynamic Queue Length Thresholds for Shared-Memory Packet Switches",
//! 1998).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The bytes that a store may allocate.
#[derive(Debug)]
pub(super) struct Budget {
    own: usize,
    common: Option<Common>,
}

#[derive(Debug)]
struct Common {
    /// What nobody has taken.
    left: Arc<AtomicUsize>,
    taken: usize,
}

impl Budget {
    /// `bytes` for one store.
    pub(super) fn new(bytes: usize) -> Self {
        Self { own: bytes, common: None }
    }

    /// `bytes` for `count` stores together.
    pub(super) fn shared(bytes: usize, count: usize) -> impl Iterator<Item = Self> {
        let own = if count == 1 { bytes } else { bytes / count / OWN_PART };
        let left = Arc::new(AtomicUsize::new(bytes - own * count));
        (0..count).map(move |_| Self { own, common: Some(Common { left: Arc::clone(&left), taken: 0 }) })
    }

    /// Whether other stores have a part in it.
    pub(super) fn is_shared(&self) -> bool {
        self.common.is_some()
    }

    /// Whether a store that has allocated `memory` bytes may allocate `more`, which nobody else can take until
    /// [`Budget::settle`] is called.
    pub(super) fn allows(&mut self, memory: usize, more: usize) -> bool {
        let Some(wanted) = (memory + more).checked_sub(self.own).filter(|&above| above > 0) else {
            return true;
        };
        let Some(Common { left, taken }) = &mut self.common else { return false };
        // What it has it may keep.
        if more == 0 {
            return true;
        }
        let take = |left: usize| {
            let left = (left + *taken).checked_sub(wanted)?;
            (wanted <= SHARE.saturating_mul(left)).then_some(left)
        };
        let is_taken = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok();
        if is_taken {
            *taken = wanted;
        }
        is_taken
    }

    /// Notes that a store has `memory` bytes, no more than it was allowed: others may have the rest.
    pub(super) fn settle(&mut self, memory: usize) {
        let Some(Common { left, taken }) = &mut self.common else { return };
        let needed = memory.saturating_sub(self.own);
        debug_assert!(needed <= *taken, "{needed} of {taken}");
        left.fetch_add(taken.saturating_sub(needed), Ordering::Relaxed);
        *taken = needed.min(*taken);
    }
}

/// Which part of an equal share of the whole is a stripe's own.
const OWN_PART: usize = 4;

/// How many times as much of what is common as it leaves there a store may take.
const SHARE: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: usize = 64_000;

    fn stripes(count: usize) -> Vec<Budget> {
        Budget::shared(WHOLE, count).collect()
    }

    /// Allocates in steps of 10 bytes until no more is allowed.
    fn fill(budget: &mut Budget, memory: &mut usize) {
        while budget.allows(*memory, 10) {
            *memory += 10;
            budget.settle(*memory);
        }
    }

    #[test]
    fn one_store_has_everything_and_no_more() {
        let (mut budget, mut memory) = (Budget::new(1000), 0);
        fill(&mut budget, &mut memory);
        assert_eq!(memory, 1000);
        assert!(budget.allows(1000, 0) && !budget.allows(1000, 1));
    }

    #[test]
    fn a_stripe_that_asks_for_everything_leaves_a_ninth_and_what_is_the_others_own() {
        let (mut stripes, mut memory) = (stripes(64), 0);
        fill(&mut stripes[0], &mut memory);
        assert_eq!(memory / 100, (250 + 48_000 * 8 / 9) / 100);
        let mut small = 0;
        fill(&mut stripes[1], &mut small);
        assert!((4000..6000).contains(&small), "{small}: eight ninths of that ninth");
    }

    #[test]
    fn a_stripe_that_is_the_only_one_has_everything() {
        let (mut stripes, mut memory) = (stripes(1), 0);
        fill(&mut stripes[0], &mut memory);
        assert!(memory == WHOLE && stripes[0].is_shared());
    }

    #[test]
    fn where_all_want_more_all_get_the_same_and_little_is_left() {
        let (mut stripes, mut memory) = (stripes(64), [0; 64]);
        for _ in 0..1000 {
            for (budget, memory) in stripes.iter_mut().zip(&mut memory) {
                if budget.allows(*memory, 10) {
                    *memory += 10;
                    budget.settle(*memory);
                }
            }
        }
        let sum: usize = memory.iter().sum();
        assert!((WHOLE * 99 / 100..=WHOLE).contains(&sum), "{sum}");
        assert!(memory.iter().all(|memory| (980..=1010).contains(memory)), "{memory:?}");
    }

    #[test]
    fn a_stripe_that_was_first_gives_way_to_others() {
        let (mut stripes, mut memory) = (stripes(4), [0; 4]);
        fill(&mut stripes[0], &mut memory[0]);
        let first = memory[0];
        // Whoever may not have more evicts 50 bytes first, as a full store does.
        for n in 0..40_000 {
            let (budget, memory) = (&mut stripes[n % 4], &mut memory[n % 4]);
            while !budget.allows(*memory, 10) {
                *memory -= 50;
                budget.settle(*memory);
            }
            *memory += 10;
            budget.settle(*memory);
        }
        let sum: usize = memory.iter().sum();
        assert!(first > 44_000 && (WHOLE * 95 / 100..=WHOLE).contains(&sum), "{first}, then {memory:?}");
        assert!(memory.iter().all(|memory| (14_000..18_000).contains(memory)), "{memory:?}");
    }

    #[test]
    fn what_is_allowed_and_not_used_is_given_back() {
        let mut stripes = stripes(2);
        assert!(stripes[0].allows(0, 40_000));
        assert!(!stripes[1].allows(0, 40_000));
        stripes[0].settle(9000);
        assert!(stripes[1].allows(0, 40_000));
    }
}
