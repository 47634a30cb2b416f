//! [`Wheel`]: a hierarchical timing wheel of numbered items, each due at one time at most. Setting and
//! clearing take constant time and no allocation, an item costs 16 bytes, and items come out in the exact
//! order of their times, whatever the wheel's tick is.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::Time;

/// 2^10 µs, about a millisecond. Items of one tick are sorted when its turn comes; a shorter tick would mean
/// more turns, a longer one more to sort.
const TICK_BITS: u32 = 10;
/// A level has 64 slots, so that one word says which of them are occupied.
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
/// Enough for every time that there is: no item is ever too far away.
const LEVELS: usize = ((u64::BITS - TICK_BITS) / SLOT_BITS) as usize;

/// Items of one tick that there is room for when it has passed. A million hosts that all wake up at the
/// beginning leave no more behind.
const NEAR_ROOM: usize = 1 << 14;

/// Items of a tick that are told ahead: of more, the first would be forgotten before their turn.
const ARRIVALS: usize = 1 << 12;

/// The end of a list, and the place of the first of one.
const END: u32 = u32::MAX;
/// In place of the item before: due in `near`.
const NEAR: u32 = u32::MAX - 1;
/// In place of the item before: not due at all.
const IDLE: u32 = u32::MAX - 2;

/// Items by the time that they are due.
///
/// An item lies in the level of the highest group of six bits in which its tick differs from the current
/// one, and all groups above are equal. That stays true while the current tick moves on, until it reaches
/// the item's slot; so the place of an item follows from its time and need not be stored.
pub struct Wheel {
    /// The tick whose items are in `near`; those of earlier ticks are there too.
    tick: u64,
    heads: [[u32; SLOTS]; LEVELS],
    occupied: [u64; LEVELS],
    links: Vec<Link>,
    /// What is due next, by time and then by what the owner says. Items that were set anew meanwhile are
    /// left in it and known by their times.
    near: BinaryHeap<Reverse<(u64, u64, u32)>>,
    /// Items that came into `near` when its tick began, at most [`ARRIVALS`], until somebody asks.
    arrived: Vec<u32>,
}

/// Where an item stands: a member of a doubly linked list of a slot.
#[derive(Clone, Copy)]
struct Link {
    at: u64,
    next: u32,
    previous: u32,
}

const _: () = assert!(size_of::<Link>() == 16);

impl Default for Wheel {
    fn default() -> Self {
        Self::new()
    }
}

impl Wheel {
    /// A wheel without items.
    pub fn new() -> Self {
        Self {
            tick: 0,
            heads: [[END; SLOTS]; LEVELS],
            occupied: [0; LEVELS],
            links: Vec::new(),
            near: BinaryHeap::new(),
            arrived: Vec::new(),
        }
    }

    /// Makes room for items up to `count`.
    pub fn reserve(&mut self, count: usize) {
        self.links.reserve_exact(count.saturating_sub(self.links.len()));
    }

    /// Makes `item`, the number of one, due at `at` and at no other time; at [`Time::NEVER`] it is not due.
    /// `tie` decides among items that are due at the same time. Memory follows the highest number.
    pub fn set(&mut self, item: u32, at: Time, tie: u64) {
        debug_assert!(item < IDLE);
        if self.links.len() <= item as usize {
            self.links.resize(item as usize + 1, Link { at: u64::MAX, next: END, previous: IDLE });
        }
        self.unlink(item);
        if at != Time::NEVER {
            self.insert(item, at.as_micros(), || tie);
        }
    }

    /// When the item is due; [`Time::NEVER`] if it is not.
    pub fn at(&self, item: u32) -> Time {
        self.links.get(item as usize).map_or(Time::NEVER, |link| Time::from_micros(link.at))
    }

    /// The item that is due first and when; `tie` is what [`Wheel::set`] was told for it.
    pub fn peek(&mut self, tie: impl Fn(u32) -> u64) -> Option<(Time, u32)> {
        loop {
            while let Some(&Reverse((at, _, item))) = self.near.peek() {
                let link = self.links[item as usize];
                if link.previous == NEAR && link.at == at {
                    return Some((Time::from_micros(at), item));
                }
                self.near.pop();
            }
            if self.near.capacity() > 4 * NEAR_ROOM {
                self.near.shrink_to(NEAR_ROOM);
            }
            if !self.advance(&tie) {
                return None;
            }
        }
    }

    /// Takes out the item that [`Wheel::peek`] has just told.
    pub fn pop(&mut self) {
        if let Some(Reverse((_, _, item))) = self.near.pop() {
            self.links[item as usize] = Link { at: u64::MAX, next: END, previous: IDLE };
        }
    }

    /// Items whose turn is near that were not told before.
    pub(super) fn arrived(&mut self) -> impl Iterator<Item = u32> {
        self.arrived.drain(..)
    }

    /// Bytes on the heap.
    pub(super) fn memory(&self) -> usize {
        self.links.capacity() * size_of::<Link>()
            + self.near.capacity() * size_of::<(u64, u64, u32)>()
            + self.arrived.capacity() * size_of::<u32>()
    }

    /// Moves on to the next slot that is occupied; `false` if none is.
    fn advance(&mut self, tie: &impl Fn(u32) -> u64) -> bool {
        // Nothing is left in `near`, so that their turn has been.
        self.arrived.clear();
        let Some(level) = self.occupied.iter().position(|&occupied| occupied != 0) else {
            return false;
        };
        let slot = self.occupied[level].trailing_zeros() as usize;
        let (shift, above) = (SLOT_BITS * level as u32, SLOT_BITS * (level as u32 + 1));
        // Of the highest level there are no bits above.
        self.tick = self.tick.checked_shr(above).map_or(0, |tick| tick << above) | (slot as u64) << shift;
        self.occupied[level] &= !(1 << slot);
        let mut item = std::mem::replace(&mut self.heads[level][slot], END);
        while item != END {
            let Link { at, next, .. } = self.links[item as usize];
            self.insert(item, at, || tie(item));
            if self.arrived.len() < ARRIVALS && self.links[item as usize].previous == NEAR {
                self.arrived.push(item);
            }
            item = next;
        }
        true
    }

    fn insert(&mut self, item: u32, at: u64, tie: impl FnOnce() -> u64) {
        let tick = at >> TICK_BITS;
        if tick <= self.tick {
            self.links[item as usize] = Link { at, next: END, previous: NEAR };
            self.near.push(Reverse((at, tie(), item)));
            return;
        }
        let (level, slot) = self.place(tick);
        let next = std::mem::replace(&mut self.heads[level][slot], item);
        self.occupied[level] |= 1 << slot;
        self.links[item as usize] = Link { at, next, previous: END };
        if next != END {
            self.links[next as usize].previous = item;
        }
    }

    /// Where an item lies that is due in a tick after the current one.
    fn place(&self, tick: u64) -> (usize, usize) {
        let level = (u64::BITS - 1 - (tick ^ self.tick).leading_zeros()) / SLOT_BITS;
        (level as usize, (tick >> (SLOT_BITS * level)) as usize % SLOTS)
    }

    fn unlink(&mut self, item: u32) {
        let idle = Link { at: u64::MAX, next: END, previous: IDLE };
        let Link { at, next, previous } = std::mem::replace(&mut self.links[item as usize], idle);
        if previous == IDLE || previous == NEAR {
            return;
        }
        if next != END {
            self.links[next as usize].previous = previous;
        }
        if previous != END {
            self.links[previous as usize].next = next;
            return;
        }
        let (level, slot) = self.place(at >> TICK_BITS);
        self.heads[level][slot] = next;
        if next == END {
            self.occupied[level] &= !(1 << slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    /// What a test does with a wheel: set an item, pop what is due first, or look.
    #[derive(Clone, Debug)]
    enum Step {
        Set(u32, u64),
        Pop,
        Peek,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        // Times of every magnitude, many of them equal and many of them in the past.
        let at = (0u32..64, any::<u64>()).prop_map(|(bits, at)| at >> bits);
        let step = prop_oneof![
            4 => (0u32..40, at).prop_map(|(item, at)| Step::Set(item, at)),
            1 => (0u32..40, 0u64..5000).prop_map(|(item, at)| Step::Set(item, at)),
            1 => (0u32..40).prop_map(|item| Step::Set(item, u64::MAX)),
            3 => Just(Step::Pop),
            1 => Just(Step::Peek),
        ];
        prop::collection::vec(step, 0..400)
    }

    /// Items by tie for the whole test: not their numbers, so that the two are told apart.
    fn tie(item: u32) -> u64 {
        u64::from(item.wrapping_mul(2_654_435_761))
    }

    proptest! {
        #[test]
        fn items_come_out_as_from_a_sorted_map(steps in steps()) {
            let mut wheel = Wheel::new();
            let (mut sorted, mut times) = (BTreeSet::new(), BTreeMap::new());
            for step in steps {
                match step {
                    Step::Set(item, at) => {
                        wheel.set(item, Time::from_micros(at), tie(item));
                        if let Some(old) = times.insert(item, at) {
                            sorted.remove(&(old, tie(item), item));
                        }
                        if at != u64::MAX {
                            sorted.insert((at, tie(item), item));
                        }
                    }
                    Step::Pop | Step::Peek => {
                        let first = sorted.first().map(|&(at, _, item)| (Time::from_micros(at), item));
                        prop_assert_eq!(wheel.peek(tie), first);
                        if let (Step::Pop, Some((_, item))) = (step, first) {
                            wheel.pop();
                            sorted.pop_first();
                            times.remove(&item);
                        }
                    }
                }
                for (&item, &at) in &times {
                    prop_assert_eq!(wheel.at(item), Time::from_micros(at));
                }
            }
        }
    }

    #[test]
    fn farthest_times_and_the_origin_are_ordinary() {
        let mut wheel = Wheel::new();
        assert_eq!(wheel.peek(tie), None);
        for (item, at) in [(0, u64::MAX - 1), (1, 0), (2, 1 << 63), (3, u64::MAX), (4, (1 << 63) - 1)] {
            wheel.set(item, Time::from_micros(at), tie(item));
        }
        let mut order = Vec::new();
        while let Some((_, item)) = wheel.peek(tie) {
            order.push(item);
            wheel.pop();
        }
        assert_eq!(order, [1, 4, 2, 0]);
        // What is set behind the last is due at once.
        wheel.set(9, Time::from_micros(5), 0);
        assert_eq!(wheel.peek(tie), Some((Time::from_micros(5), 9)));
    }

    #[test]
    fn crowd_of_one_tick_leaves_no_memory_behind() {
        let mut wheel = Wheel::new();
        for item in 0..200_000 {
            wheel.set(item, Time::from_micros(5), 0);
        }
        let full = wheel.memory();
        while wheel.peek(tie).is_some() {
            wheel.pop();
        }
        let links = 200_000 * size_of::<Link>();
        assert!(full > 2 * links && wheel.memory() < links * 3 / 2 + NEAR_ROOM * 24, "{}", wheel.memory());
    }

    #[test]
    fn setting_again_and_again_takes_no_memory() {
        let mut wheel = Wheel::new();
        for round in 0..100_000u64 {
            wheel.set((round % 100) as u32, Time::from_millis(5 + round * 37 % 100_000), 0);
        }
        assert!(wheel.memory() <= 128 * size_of::<Link>(), "{}", wheel.memory());
    }
}
